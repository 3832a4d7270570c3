"""Workers that are killed, frozen, told to stop, or whose kinds are at fault: each execution still ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import asyncpg
import pytest

from models import leases, logs
from models.executions import Claim, ExecutionStatus, Failure, FailureCode, Usage
from models.ids import new_id
from models.logs import LogLevel, NewLine
from tests.harness.waiting import eventually
from tests.worker.engine import (
    COMMITTED,
    LEASE_SECONDS,
    RECOVERY_SECONDS,
    Bench,
    CuttingProxy,
    benches,
    hold,
    scenarios,
    together,
)

__all__ = ["benches", "scenarios"]

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
TO_THE_END = 40.0


@together
async def test_work_of_a_killed_worker_is_done_by_another(bench: Bench) -> None:
    first = await bench.worker()
    execution = await bench.queue({"burn": 0.3}, {"beat": 9, "first": 60}, {"progress": 50, "stage": "END"})
    await bench.until_line(execution, "attempt 1 beat 20")
    await bench.worker()
    killed_at = await bench.clock()
    first.kill()
    again_at = await bench.until(execution, status=RUNNING, attempt=2, within=RECOVERY_SECONDS + 2)
    assert again_at - killed_at <= timedelta(seconds=RECOVERY_SECONDS)
    row = await bench.verdict(execution, SUCCEEDED, attempt=2, within=TO_THE_END)
    assert row["lost_workers"] == 1
    assert 580 <= row["cpu_milliseconds"] < 1_100, "what the second attempt used, and not what the lost one did"
    last = max(beat.at for beat in bench.beats(execution) if beat.attempt == 1)
    assert last - killed_at < timedelta(seconds=1), "the tree died with its worker"
    messages = await bench.messages(execution)
    resumed = next(number for number, text in enumerate(messages) if text.startswith("Attempt 2 starts"))
    assert all(text.startswith("attempt 1") for text in messages[:resumed])
    assert all(text.startswith("attempt 2") for text in messages[resumed + 1 :])


@together
async def test_three_lost_workers_are_the_end(bench: Bench) -> None:
    await bench.worker(slots=0)  # somebody must be there to notice
    execution = await bench.queue({"beat": 60})
    for attempt in (1, 2, 3):
        worker = bench.start_worker()
        await bench.until_line(execution, f"attempt {attempt} beat 3", within=TO_THE_END)
        worker.kill()
    row = await bench.verdict(execution, FAILED, attempt=3, within=TO_THE_END)
    assert (row["failure_code"], row["lost_workers"]) == ("WORKER_LOST", 3)
    assert row["failure_retryable"]


@together
async def test_a_frozen_worker_writes_nothing_after_it_wakes(bench: Bench) -> None:
    first = await bench.worker()
    beating = await bench.queue({"beat": 9, "first": 60}, {"progress": 77, "stage": "END"})
    stubborn = await bench.queue({"stubborn": 60}, {"lines": 90, "every": 0.1}, {"progress": 77, "stage": "END"})
    await bench.until_line(beating, "attempt 1 beat 20")
    await bench.until(stubborn, status=RUNNING)
    second = await bench.worker()
    first.freeze()
    frozen_at = await bench.clock()
    lease_until = (await bench.row(beating))["lease_until"]
    for execution in (beating, stubborn):
        again_at = await bench.until(execution, status=RUNNING, attempt=2, within=RECOVERY_SECONDS + 2)
        assert again_at - frozen_at <= timedelta(seconds=RECOVERY_SECONDS)
    assert max(beat.at for beat in bench.beats(beating) if beat.attempt == 1) < lease_until
    await bench.until_line(beating, "attempt 2 beat 40")
    first.thaw()
    for execution in (beating, stubborn):
        await first.wait_event("lease_lost", execution_id=str(execution))
    tries = await eventually(lambda: bench.stubborn_tries(stubborn), what="the stubborn attempt's report")
    assert tries == dict.fromkeys(("transaction", "persist", "advance", "line"), "refused")
    for execution in (beating, stubborn):
        assert (await bench.row(execution))["status"] == "RUNNING", "the old attempt woke while the new one worked"
    for execution in (beating, stubborn):
        row = await bench.verdict(execution, SUCCEEDED, attempt=2, within=TO_THE_END)
        assert row["lost_workers"] == 1
        messages = await bench.messages(execution)
        resumed = next(number for number, text in enumerate(messages) if text.startswith("Attempt 2 starts"))
        assert not any(text.startswith("attempt 1") for text in messages[resumed:])
        stages = [(event["attempt"], event["stage"]) for event in await bench.history(execution) if event["stage"]]
        assert stages == [(2, "END"), (2, "END")]
    # The one that slept is as good as new.
    second.kill()
    await bench.verdict(await bench.queue({"lines": 1}), SUCCEEDED, within=10)


@together
async def test_a_short_freeze_costs_nothing(bench: Bench) -> None:
    worker = await bench.worker()
    execution = await bench.queue({"beat": LEASE_SECONDS + 3})
    await bench.until_line(execution, "attempt 1 beat 10")
    worker.freeze()
    await hold(1)
    worker.thaw()
    row = await bench.verdict(execution, SUCCEEDED, within=TO_THE_END)
    assert row["lost_workers"] == 0


@together
async def test_work_given_up_after_a_freeze_is_not_leased_on(bench: Bench) -> None:
    worker = await bench.worker()
    execution = await bench.queue({"beat": 3, "first": 60})
    await bench.until_line(execution, "attempt 1 beat 5")
    worker.freeze()
    frozen_at = await bench.clock()
    await hold(5)  # past the margin within which the worker trusts its lease, not past the lease
    worker.thaw()
    again_at = await bench.until(execution, status=RUNNING, attempt=2, within=TO_THE_END)
    assert again_at - frozen_at <= timedelta(seconds=RECOVERY_SECONDS)
    await bench.verdict(execution, SUCCEEDED, attempt=2)


@together
async def test_a_stopping_worker_hands_its_work_back(bench: Bench) -> None:
    first = await bench.worker()
    execution = await bench.queue({"burn": 0.3}, {"beat": 9, "first": 60})
    await bench.until_line(execution, "attempt 1 beat 20")
    second = await bench.worker()
    asked_at = await bench.clock()
    first.terminate()
    back_at = await bench.until(execution, status=QUEUED, within=10)
    assert back_at - asked_at <= timedelta(seconds=2)
    assert await first.wait_exit() == 0
    last = max(beat.at for beat in bench.beats(execution) if beat.attempt == 1)
    assert last < back_at, "handed back only once its processes were gone"
    used = (await bench.row(execution))["cpu_milliseconds"]
    assert 580 <= used < 1_100
    row = await bench.verdict(execution, SUCCEEDED, attempt=2, within=TO_THE_END)
    assert row["lost_workers"] == 0
    assert used + 580 <= row["cpu_milliseconds"] < used + 1_100
    assert row["peak_memory_bytes"] > 2**20
    assert await second.stop() == 0


@together
async def test_a_stop_while_claiming_loses_no_claim(bench: Bench) -> None:
    async with CuttingProxy(bench.settings.database_url.get_secret_value()) as proxy:
        worker = await bench.worker(DATABASE_URL=proxy.url)
        await hold(0.5)

        async def stop_first() -> None:
            worker.terminate()
            await hold(0.5)

        execution = new_id()
        proxy.delay(COMMITTED, stop_first, after=execution.bytes)
        await bench.queue({"sleep": 60}, execution=execution)
        await bench.until(execution, status=QUEUED, within=5)
        assert await worker.wait_exit() == 0
    row = await bench.row(execution)
    assert (row["status"], row["attempt"], row["lost_workers"]) == ("QUEUED", 1, 0)
    await bench.db.execute("DELETE FROM executions WHERE id = $1", execution)


@together
async def test_a_cancel_of_lost_work_is_not_forgotten(bench: Bench) -> None:
    await bench.worker(slots=0)
    worker = await bench.worker()
    execution = await bench.queue({"beat": 60})
    await bench.until_line(execution, "attempt 1 beat 3")
    worker.kill()
    await bench.cancel(execution)
    row = await bench.verdict(execution, CANCELLED, within=RECOVERY_SECONDS + 2)
    assert max(beat.at for beat in bench.beats(execution)) < row["finished_at"]


@together
async def test_a_fault_of_a_kind_is_masked_and_ends_the_execution(bench: Bench) -> None:
    worker = await bench.worker()
    secret = "password=hunter2"
    crashed = await bench.queue({"lines": 2}, {"crash": secret})
    row = await bench.verdict(crashed, FAILED, within=10)
    assert (row["failure_code"], row["failure_retryable"]) == ("INTERNAL", True)
    shown = [row["failure_message"], *await bench.messages(crashed)]
    assert not any("hunter2" in text or "Traceback" in text for text in shown)
    assert [event["exception"] for event in worker.events("execution_crashed")]

    faulty = await bench.queue({"lines": 2}, {"effect": "faulty"})
    row = await bench.verdict(faulty, FAILED, within=10)
    assert row["failure_code"] == "INTERNAL"
    assert row["lost_workers"] == 0


@together
async def test_a_fault_that_looks_like_an_outage_ends_the_execution_too(bench: Bench) -> None:
    await bench.worker()
    row = await bench.verdict(await bench.queue({"effect": "misleading"}), FAILED, within=4 * LEASE_SECONDS)
    assert (row["failure_code"], row["lost_workers"]) == ("INTERNAL", 0)


@together
async def test_any_bytes_in_a_failure_can_be_stored(bench: Bench) -> None:
    await bench.worker()
    message = b"fatal: \x00 \xff\xfe caf\xc3\xa9"
    execution = await bench.queue({"fail": "COMMAND_FAILED", "exit_code": 128, "message": message.hex()})
    row = await bench.verdict(execution, FAILED, within=10)
    assert (row["failure_code"], row["failure_exit_code"]) == ("COMMAND_FAILED", 128)
    assert row["failure_message"].startswith("fatal: ")
    assert row["failure_message"].endswith("café")


@together
async def test_a_stuck_event_loop_loses_the_lease_and_nothing_else(bench: Bench) -> None:
    stuck = await bench.worker()
    execution = await bench.queue({"block": LEASE_SECONDS + 6}, {"lines": 100, "every": 0.1})
    await bench.until(execution, status=RUNNING)
    await bench.worker()
    await bench.until(execution, status=RUNNING, attempt=2, within=RECOVERY_SECONDS + 2)
    await stuck.wait_event("lease_lost", execution_id=str(execution))
    await bench.verdict(execution, SUCCEEDED, attempt=2, within=TO_THE_END)
    assert not any(text.startswith("attempt 1") for text in await bench.messages(execution))


# -- the fence itself, statement by statement


async def test_no_statement_accepts_a_stale_attempt(benches: Callable[..., Bench]) -> None:
    bench = benches()
    execution = await bench.queue({"lines": 1})
    async with bench.db.acquire() as connection:

        async def claim() -> Claim:
            async with connection.transaction():
                claimed = await leases.claim(
                    connection, bench.kind, worker="test", lease_seconds=LEASE_SECONDS, max_running_per_owner=1
                )
            assert claimed is not None
            return claimed

        stale = await claim()
        await connection.execute("UPDATE executions SET lease_until = now() - interval '1 s' WHERE id = $1", execution)
        # Workers of other tests sweep as well, and may be quicker.
        await leases.sweep(connection, limit=10, compact_log_after_seconds=60)
        fresh = await claim()
        assert (stale.attempt, fresh.attempt) == (1, 2)
        before = await bench.row(execution)

        line = [NewLine(0, LogLevel.INFO, "late")]
        assert not await logs.append(connection, stale, after_sequence=fresh.log_sequence, lines=line)
        assert await logs.last_sequence_of(connection, stale) is None
        assert not await leases.advance(connection, stale, progress=99, stage="LATE")
        assert not await leases.finish(connection, stale, SUCCEEDED, compact_log_after_seconds=60)
        failure = Failure(FailureCode.INTERNAL, "late")
        used = Usage(cpu_milliseconds=1, peak_memory_bytes=1)
        assert not await leases.finish(
            connection, stale, FAILED, failure=failure, used=used, compact_log_after_seconds=60
        )
        assert not await leases.hand_back(connection, stale, used=used)
        assert await leases.renew(connection, [(execution, stale.attempt)], lease_seconds=60) == {}

        assert await bench.row(execution) == before
        assert await bench.chunks(execution) == []
        assert [event["status"] for event in await bench.history(execution)] == ["RUNNING", "QUEUED", "RUNNING"]
        assert await logs.append(connection, fresh, after_sequence=0, lines=line)
        assert await leases.hand_back(connection, fresh, used=Usage(7, 300))
        last = await claim()
        assert await leases.finish(connection, last, SUCCEEDED, used=Usage(5, 200), compact_log_after_seconds=60)
        assert not await leases.finish(connection, last, SUCCEEDED, used=Usage(5, 200), compact_log_after_seconds=60)
        row = await bench.row(execution)
        assert (row["cpu_milliseconds"], row["peak_memory_bytes"]) == (12, 300)


async def test_a_renewal_passes_over_a_row_its_own_worker_holds(benches: Callable[..., Bench]) -> None:
    bench = benches()
    locked, free = [await bench.queue({"lines": 1}) for _ in range(2)]
    async with bench.db.acquire() as connection, bench.db.acquire() as writer:
        claims = []
        for _ in range(2):
            async with connection.transaction():
                claims.append(
                    await leases.claim(
                        connection, bench.kind, worker="test", lease_seconds=LEASE_SECONDS, max_running_per_owner=2
                    )
                )
        held = [(claim.execution_id, claim.attempt) for claim in claims if claim is not None]
        before = {id: (await bench.row(id))["lease_until"] for id in (locked, free)}
        async with writer.transaction():
            await writer.execute("SELECT 1 FROM executions WHERE id = $1 FOR NO KEY UPDATE", locked)
            async with asyncio.timeout(2):
                renewals = await leases.renew(connection, held, lease_seconds=LEASE_SECONDS)
        assert {id: renewals[id].is_extended for id in (locked, free)} == {locked: False, free: True}
        assert (await bench.row(locked))["lease_until"] == before[locked]
        assert (await bench.row(free))["lease_until"] > before[free]
        await bench.db.execute("DELETE FROM executions WHERE kind = $1", bench.kind)


@pytest.mark.parametrize("status", [SUCCEEDED, FAILED, CANCELLED])
async def test_the_database_refuses_to_change_a_final_status(
    benches: Callable[..., Bench], status: ExecutionStatus
) -> None:
    bench = benches()
    execution = await bench.queue({"lines": 1})
    code = "INTERNAL" if status is FAILED else None
    await bench.db.execute(
        "UPDATE executions SET status = $2, failure_code = $3, finished_at = now() WHERE id = $1",
        execution,
        status.value,
        code,
    )
    before = await bench.row(execution)
    for change in (
        "status = 'QUEUED', finished_at = NULL, failure_code = NULL",
        "status = 'RUNNING', worker = 'w', lease_until = now(), finished_at = NULL, failure_code = NULL",
        "status = CASE status WHEN 'SUCCEEDED' THEN 'CANCELLED' ELSE 'SUCCEEDED' END, failure_code = NULL",
        "attempt = attempt + 1",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="is final"):
            await bench.db.execute(f"UPDATE executions SET {change} WHERE id = $1", execution)
    assert await bench.row(execution) == before
