"""The queue: who is next, how many at once, and that a lost or doubled ring makes no difference."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from adapters import events
from errors import RateLimitExceeded
from models import execution_commands, leases
from models.executions import Claim, ExecutionStatus
from models.ids import new_id
from models.transaction import unit_of_work
from tasks import queue
from tasks.queue import queue_name
from tests.harness.waiting import eventually
from tests.worker.engine import Bench, bench, benches, scenarios, together

__all__ = ["bench", "benches", "scenarios"]

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus


async def start_order(bench: Bench) -> list[UUID]:
    """The owners of the executions of a bench, in the order of their starts."""
    return [
        row["owner_id"]
        for row in await bench.db.fetch(
            "SELECT owner_id FROM executions WHERE kind = $1 AND started_at IS NOT NULL ORDER BY started_at", bench.kind
        )
    ]


async def most_at_once(bench: Bench, owner: UUID) -> int:
    """The largest number of executions of an owner that were running at a moment."""
    spans = await bench.db.fetch(
        "SELECT started_at, finished_at FROM executions WHERE kind = $1 AND owner_id = $2", bench.kind, owner
    )
    changes = sorted([(span["started_at"], 1) for span in spans] + [(span["finished_at"], -1) for span in spans])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


async def rings(bench: Bench) -> int:
    redis = events.open_redis(bench.settings)
    waiting = int(await redis.zcard(queue_name(bench.settings.redis_namespace, bench.kind)))
    await redis.aclose()
    return waiting


@together
async def test_a_hundred_of_one_user_do_not_starve_one_of_another(bench: Bench) -> None:
    many, few = await bench.owner(), await bench.owner()
    for _ in range(100):
        await bench.queue({"sleep": 0.02}, owner=many)
    single = await bench.queue({"sleep": 0.02}, owner=few)
    await bench.worker(slots=1)
    await bench.verdict(single, SUCCEEDED, within=20)
    assert few in (await start_order(bench))[:3]
    late = await bench.queue({"sleep": 0.02}, owner=few)
    await bench.verdict(late, SUCCEEDED, within=20)
    passed_over = await bench.db.fetchval(
        """SELECT count(*) FROM executions other, executions late WHERE late.id = $1
           AND other.owner_id = $2 AND other.started_at BETWEEN late.queued_at AND late.started_at""",
        late,
        many,
    )
    assert passed_over <= 2, "also when it comes later"
    assert len(await start_order(bench)) < 102, "the hundred were not done by then"
    await bench.db.execute("DELETE FROM executions WHERE kind = $1 AND status = 'QUEUED'", bench.kind)


@together
async def test_the_cap_of_a_user_is_exact_with_two_workers(bench: Bench) -> None:
    greedy, modest = await bench.owner(), await bench.owner()
    # Neither worker could reach the cap alone, both together could pass it.
    settings = {"MAX_RUNNING_PER_USER": "3"}
    await asyncio.gather(bench.worker(slots=2, **settings), bench.worker(slots=2, **settings))
    executions = [await bench.queue({"sleep": 0.3}, owner=greedy) for _ in range(16)]
    executions += [await bench.queue({"sleep": 0.3}, owner=modest) for _ in range(4)]
    for execution in executions:
        await bench.verdict(execution, SUCCEEDED, within=20)
    assert await most_at_once(bench, greedy) == 3
    assert await most_at_once(bench, modest) <= 3
    workers = await bench.db.fetch(
        """SELECT DISTINCT execution_events.worker FROM execution_events JOIN executions ON executions.id = execution_id
           WHERE kind = $1 AND execution_events.status = 'RUNNING'""",
        bench.kind,
    )
    assert len(workers) == 2, "both took part"


@together
async def test_those_that_share_a_turn_run_one_at_a_time_in_order_and_hold_up_nobody_else(bench: Bench) -> None:
    first = [await bench.queue({"sleep": 0.15}, turn_key="site") for _ in range(4)]
    second = [await bench.queue({"sleep": 0.15}, turn_key="other site") for _ in range(4)]
    free = await bench.queue({"sleep": 0.05})
    await asyncio.gather(*(bench.worker(slots=4, MAX_RUNNING_PER_USER="8") for _ in range(2)))
    for execution in (free, *first, *second):
        await bench.verdict(execution, SUCCEEDED, within=20)
    for turn in (first, second):
        spans = [await bench.row(execution) for execution in turn]
        for earlier, later in itertools.pairwise(spans):
            assert earlier["finished_at"] <= later["started_at"], "the next one waited for it"
    assert (await bench.row(free))["started_at"] < (await bench.row(first[1]))["started_at"]
    assert (await bench.row(second[0]))["started_at"] < (await bench.row(first[1]))["started_at"]


@together
async def test_a_lost_worker_keeps_the_turn_of_its_work(bench: Bench) -> None:
    lost = await bench.queue({"sleep": 60}, turn_key="site", max_attempts=1)
    next_one = await bench.queue({"lines": 1}, turn_key="site")
    worker = await bench.worker()
    await bench.until(lost, status=RUNNING)
    worker.kill()
    await bench.worker()
    await bench.verdict(next_one, SUCCEEDED, within=30)
    first, second = await bench.row(lost), await bench.row(next_one)
    assert first["failure_code"] == "WORKER_LOST"
    assert first["finished_at"] <= second["started_at"]


@together
async def test_work_that_nobody_rang_for_starts_within_two_seconds(bench: Bench) -> None:
    await bench.worker()
    for _ in range(4):
        row = await bench.verdict(await bench.queue({"lines": 1}), SUCCEEDED, within=10)
        assert row["started_at"] - row["queued_at"] <= timedelta(seconds=2)


@together
async def test_rings_in_any_number_start_work_once(bench: Bench) -> None:
    twice = await bench.queue({"sleep": 0.5})
    often = await bench.queue({"sleep": 0.5})
    await bench.ring(twice)
    await asyncio.gather(bench.worker(), bench.worker(), *(bench.ring(often) for _ in range(50)))
    await bench.ring(twice)
    for execution in (twice, often):
        await bench.until(execution, status=RUNNING)
        await asyncio.gather(*(bench.ring(execution) for _ in range(10)))
        await bench.verdict(execution, SUCCEEDED, within=10)
        await bench.ring(execution)
    redis = events.open_redis(bench.settings)

    async def heard() -> bool:
        return await rings(bench) == 0

    await eventually(heard, 10, what="the last rings")
    for execution in (twice, often):
        assert await redis.keys(f"*{execution}*") == [], "rings leave nothing behind"
        await bench.verdict(execution, SUCCEEDED)
        starts = await bench.db.fetchval("SELECT count(*) FROM trivial_starts WHERE execution_id = $1", execution)
        assert starts == 1
    await redis.aclose()


@together
async def test_more_slots_than_work_and_more_work_than_slots(bench: Bench) -> None:
    executions = [await bench.queue({"sleep": 0.3}, owner=await bench.owner()) for _ in range(12)]
    await bench.worker(slots=3)
    for execution in executions:
        await bench.verdict(execution, SUCCEEDED, within=20)
    spans = await bench.db.fetch("SELECT started_at, finished_at FROM executions WHERE kind = $1", bench.kind)
    changes = sorted([(span["started_at"], 1) for span in spans] + [(span["finished_at"], -1) for span in spans])
    running = [sum(change for _, change in changes[: number + 1]) for number in range(len(changes))]
    assert max(running) == 3


async def test_a_ring_starts_work_at_once(bench: Bench) -> None:
    await bench.worker()
    delays = []
    for _ in range(9):
        row = await bench.ended(await bench.queue({"lines": 1}, ring=True), within=10)
        delays.append(row["started_at"] - row["queued_at"])
    # Who has just finished looks again after a second: well below that, the bell was heard.
    assert sorted(delays)[4] <= timedelta(seconds=0.5), delays


async def test_claims_that_meet_count_each_other(bench: Bench) -> None:
    for _ in range(2):
        await bench.queue({"lines": 1})

    async def claim(connection: asyncpg.Connection) -> Claim | None:
        return await leases.claim(connection, bench.kind, worker="test", lease_seconds=60, max_running_per_owner=1)

    async def claim_and_commit() -> Claim | None:
        async with bench.db.acquire() as connection, connection.transaction():
            return await claim(connection)

    async with bench.db.acquire() as connection:
        async with connection.transaction():
            assert await claim(connection) is not None
            other = asyncio.create_task(claim_and_commit())

            async def waits() -> bool:
                assert not other.done(), "it did not wait for the first to be counted"
                return bool(
                    await bench.db.fetchval(
                        """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND wait_event = 'advisory'"""
                    )
                )

            await eventually(waits, 5, what="the second claim waiting")
        assert await other is None, "the cap is reached"
    await bench.db.execute("DELETE FROM executions WHERE kind = $1", bench.kind)


# -- creating


async def create(bench: Bench, owner: UUID, *, max_queued: int = 10) -> UUID:
    execution = new_id()
    await execution_commands.create(
        execution,
        kind=bench.kind,
        owner_id=owner,
        requested_by=owner,
        timeout_seconds=10,
        max_attempts=3,
        max_queued=max_queued,
    )
    await queue.ring(bench.kind, execution)
    return execution


async def test_a_rolled_back_request_queues_nothing_and_rings_nobody(bench: Bench) -> None:
    owner = await bench.owner()
    async with queue.connected(bench.settings):

        async def fail_after_queueing() -> None:
            async with unit_of_work():
                await create(bench, owner)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_after_queueing()
        assert await bench.db.fetchval("SELECT count(*) FROM executions WHERE kind = $1", bench.kind) == 0
        assert await rings(bench) == 0
        async with unit_of_work():
            execution = await create(bench, owner)
            assert await rings(bench) == 0, "no ring before the commit"
        assert (await bench.row(execution))["status"] == "QUEUED"
        assert await rings(bench) == 1
        assert [event["user_id"] for event in await bench.history(execution)] == [owner]


async def test_the_limit_of_waiting_work_holds_for_requests_at_the_same_time(bench: Bench) -> None:
    owner, other = await bench.owner(), await bench.owner()

    async def request(of: UUID) -> bool:
        try:
            async with unit_of_work():
                await create(bench, of, max_queued=3)
        except RateLimitExceeded:
            return False
        return True

    async with queue.connected(bench.settings):
        assert sum(await asyncio.gather(*(request(owner) for _ in range(8)))) == 3
        assert await request(other)
    queued = await bench.db.fetchval("SELECT count(*) FROM executions WHERE kind = $1", bench.kind)
    assert queued == 4
    assert await rings(bench) == 4
