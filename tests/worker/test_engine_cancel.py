"""Stopping executions: by request, by time limit, and when the request meets the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from models.execution_commands import CancelOutcome
from models.executions import ExecutionStatus
from tests.harness.waiting import leftover_processes
from tests.worker.engine import Bench, bench, benches, hold, scenarios, together

__all__ = ["bench", "benches", "scenarios"]

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
NOBODY_LISTENS = "redis://127.0.0.1:1/0"


@together
async def test_cancelled_means_that_the_whole_tree_is_gone(bench: Bench) -> None:
    await bench.worker()
    execution = await bench.queue({"beat": 60, "daring": True})
    await bench.until_line(execution, "attempt 1 beat 10")
    assert len(leftover_processes(str(execution))) >= 2, "a child, and a daemon that left it"
    assert await bench.cancel(execution) is CancelOutcome.REQUESTED
    row = await bench.verdict(execution, CANCELLED, within=10)
    assert row["finished_at"] - row["cancel_requested_at"] <= timedelta(seconds=5)
    assert max(beat.at for beat in bench.beats(execution)) < row["finished_at"], "CANCELLED only after"


@together
async def test_a_cancel_arrives_without_redis(bench: Bench) -> None:
    await bench.worker(REDIS_URL=NOBODY_LISTENS)
    executions = [await bench.queue({"sleep": 60}) for _ in range(3)]
    for execution in executions:
        await bench.until(execution, status=RUNNING)
    for execution in executions:
        await bench.cancel(execution)
        row = await bench.verdict(execution, CANCELLED, within=10)
        assert row["finished_at"] - row["cancel_requested_at"] <= timedelta(seconds=2)


@together
async def test_a_queued_execution_is_cancelled_at_once_and_never_starts(bench: Bench) -> None:
    execution = await bench.queue({"lines": 1})
    assert await bench.cancel(execution) is CancelOutcome.CANCELLED
    assert (await bench.row(execution))["status"] == "CANCELLED"
    await bench.ring(execution)
    await bench.worker()
    await bench.verdict(await bench.queue({"lines": 1}), SUCCEEDED, within=10)
    row = await bench.row(execution)
    assert (row["status"], row["attempt"], row["started_at"]) == ("CANCELLED", 0, None)
    assert await bench.cancel(execution) is CancelOutcome.FINAL


@together
async def test_a_cancel_that_races_the_end_leaves_one_winner(bench: Bench) -> None:
    await bench.worker(slots=10, MAX_RUNNING_PER_USER="10")

    async def race(number: int) -> ExecutionStatus:
        execution = await bench.queue({"sleep": 1}, ring=True)
        await bench.until(execution, status=RUNNING)
        await hold(number / 20)  # from well before the end to well behind it
        outcome = await bench.cancel(execution)
        row = await bench.ended(execution)
        status = ExecutionStatus(row["status"])
        await bench.verdict(execution, status)
        if outcome is CancelOutcome.FINAL:
            assert status is SUCCEEDED
            assert row["cancel_requested_at"] is None
        return status

    ends = []
    for first in range(3):
        ends += await asyncio.gather(*(race(number) for number in range(first, 30, 3)))
    assert set(ends) == {SUCCEEDED, CANCELLED}, "the races were spread over both ends"


@together
async def test_cancel_after_success_changes_nothing(bench: Bench) -> None:
    await bench.worker()
    execution = await bench.queue({"lines": 3})
    before = await bench.verdict(execution, SUCCEEDED, within=10)
    history = await bench.history(execution)
    assert await bench.cancel(execution) is CancelOutcome.FINAL
    assert await bench.row(execution) == before
    assert await bench.history(execution) == history


@together
async def test_a_second_cancel_keeps_the_time_of_the_first(bench: Bench) -> None:
    execution = await bench.queue({"sleep": 60})
    await bench.worker()
    await bench.until(execution, status=RUNNING)
    await bench.cancel(execution)
    first = (await bench.row(execution))["cancel_requested_at"]
    await bench.cancel(execution)
    row = await bench.verdict(execution, CANCELLED, within=10)
    assert row["cancel_requested_at"] == first


@together
async def test_the_time_limit_counts_from_the_start_not_from_queueing(bench: Bench) -> None:
    waited = await bench.queue({"sleep": 1}, timeout_seconds=2)
    overdue = await bench.queue({"beat": 60}, timeout_seconds=2)
    await hold(2.5)  # longer in the queue than it may work
    await bench.worker()
    await bench.verdict(waited, SUCCEEDED, within=10)
    row = await bench.verdict(overdue, FAILED, within=10)
    assert row["failure_code"] == "TIMED_OUT"
    worked = row["finished_at"] - row["started_at"]
    assert timedelta(seconds=2) <= worked <= timedelta(seconds=3.5)


@together
async def test_the_time_limit_holds_over_all_attempts(bench: Bench) -> None:
    worker = await bench.worker()
    execution = await bench.queue({"beat": 60}, timeout_seconds=6)
    await bench.until_line(execution, "attempt 1 beat 50")
    worker.terminate()
    await bench.until(execution, status=QUEUED)
    worked_before = (await bench.row(execution))["worked_seconds"]
    assert worked_before >= 2.5
    await hold(3)  # nobody works: this time does not count
    await bench.worker()
    row = await bench.verdict(execution, FAILED, attempt=2, within=15)
    assert row["failure_code"] == "TIMED_OUT"
    assert 6 <= row["worked_seconds"] <= 7.5


# -- alone, because they measure


async def test_a_cancel_arrives_at_once_by_redis(bench: Bench) -> None:
    await bench.worker(slots=8, MAX_RUNNING_PER_USER="8")
    executions = [await bench.queue({"sleep": 60}) for _ in range(8)]
    for execution in executions:
        await bench.until(execution, status=RUNNING)
    ends = []
    for execution in executions:
        await bench.cancel(execution)
        row = await bench.ended(execution, within=10)
        assert row["finished_at"] - row["cancel_requested_at"] <= timedelta(seconds=2)
        ends.append(row["finished_at"])
    # By looking alone, once a second, the eight would end a second apart.
    assert ends[-1] - ends[0] <= timedelta(seconds=5)
    for execution in executions:
        await bench.verdict(execution, CANCELLED)
