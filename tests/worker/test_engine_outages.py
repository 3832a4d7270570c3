"""Redis and PostgreSQL that die, restart, forget or answer too late: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import asyncpg
import pytest
from pydantic import SecretStr

from adapters import embedded, events
from adapters.embedded import PostgresServer, RedisServer
from models import leases
from models.executions import ExecutionStatus
from tasks.queue import queue_name
from tests.harness.processes import run_cli
from tests.harness.waiting import eventually
from tests.worker import trivial
from tests.worker.engine import (
    COMMITTED,
    GAVE_A_ROW,
    Bench,
    CuttingProxy,
    benches,
    hold,
    scenarios,
    together,
)

__all__ = ["benches", "scenarios"]

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
UNHEARD_SECONDS = 2.0  # how soon work starts that nobody rang for


@asynccontextmanager
async def own_redis(bench: Bench) -> AsyncIterator[RedisServer]:
    """A Redis of the bench's own, to be ill-treated."""
    async with embedded.redis(bench.settings.data_dir / bench.kind, durable=False) as server:
        bench.settings = bench.settings.model_copy(update={"redis_url": SecretStr(server.url)})
        yield server


@asynccontextmanager
async def own_postgres(bench: Bench) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL of the bench's own, migrated, to be ill-treated."""
    async with embedded.postgres(bench.settings.data_dir / bench.kind, durable=False) as server:
        bench.settings = bench.settings.model_copy(update={"database_url": SecretStr(server.url)})
        # In a process of its own: in this one the driver is connected to the module's database.
        await asyncio.to_thread(run_cli, "migrate", environment=bench.environment)
        async with asyncpg.create_pool(server.url, min_size=1, max_size=4, command_timeout=15) as pool:
            await pool.execute(trivial.TABLES)
            bench.db = pool
            yield server


async def waiting_rings(bench: Bench) -> int:
    redis = events.open_redis(bench.settings)
    try:
        return int(await redis.zcard(queue_name(bench.settings.redis_namespace, bench.kind)))
    finally:
        await redis.aclose()


async def rings_are_heard(bench: Bench) -> None:
    """Ring, and wait until somebody took the ring out of Redis."""

    async def taken() -> bool:
        await bench.ring(execution)
        return await waiting_rings(bench) == 0

    execution = await bench.queue({"lines": 1})
    await eventually(taken, 10, what="the doorbell")
    await bench.verdict(execution, SUCCEEDED)


def started_after(row: asyncpg.Record) -> timedelta:
    delay: timedelta = row["started_at"] - row["queued_at"]
    return delay


@together
async def test_a_redis_that_dies_and_returns_stops_nothing(bench: Bench) -> None:
    async with own_redis(bench) as server:
        worker = await bench.worker()
        running = await bench.queue({"lines": 90, "every": 0.1}, {"progress": 50, "stage": "END"})
        await bench.until_line(running, "attempt 1 line 10")
        await server.kill()
        unheard = await bench.queue({"lines": 1}, ring=True)
        row = await bench.verdict(unheard, SUCCEEDED, within=10)
        assert started_after(row) <= timedelta(seconds=UNHEARD_SECONDS)
        to_cancel = await bench.queue({"sleep": 60})
        await bench.until(to_cancel, status=RUNNING)
        await bench.cancel(to_cancel)
        row = await bench.verdict(to_cancel, CANCELLED, within=10)
        assert row["finished_at"] - row["cancel_requested_at"] <= timedelta(seconds=2)
        await hold(1)
        await server.restart_immediate()
        await rings_are_heard(bench)
        await bench.verdict(running, SUCCEEDED, within=20)
        assert len([line for line in await bench.messages(running) if line.startswith("attempt 1 line")]) == 90
        assert worker.exit_code is None


@together
async def test_a_redis_that_forgets_everything_loses_no_work(bench: Bench) -> None:
    async with own_redis(bench):
        await bench.worker(slots=1)
        running = await bench.queue({"lines": 30, "every": 0.1}, ring=True)
        waiting = [await bench.queue({"lines": 1}, ring=True) for _ in range(3)]
        await bench.until_line(running, "attempt 1 line 5")
        assert await waiting_rings(bench) > 0, "rings wait while no slot is free"
        redis = events.open_redis(bench.settings)
        await redis.flushall()
        await redis.aclose()
        ended = [await bench.verdict(execution, SUCCEEDED, within=15) for execution in (running, *waiting)]
        for before, after in pairwise(ended):
            assert after["started_at"] - before["finished_at"] <= timedelta(seconds=UNHEARD_SECONDS)
        await rings_are_heard(bench)


@together
async def test_a_worker_starts_and_works_while_redis_is_away(bench: Bench) -> None:
    async with own_redis(bench) as server:
        await server.kill()
        worker = await bench.worker()
        for _ in range(3):
            execution = await bench.queue({"lines": 3}, ring=True)
            row = await bench.verdict(execution, SUCCEEDED, within=10)
            assert started_after(row) <= timedelta(seconds=UNHEARD_SECONDS)
        await server.restart_immediate()
        await rings_are_heard(bench)
        assert await worker.stop() == 0


@together
async def test_a_worker_stops_in_order_while_redis_is_away(bench: Bench) -> None:
    async with own_redis(bench) as server:
        worker = await bench.worker()
        executions = [await bench.queue({"beat": 60}) for _ in range(4)]
        for execution in executions:
            await bench.until_line(execution, "attempt 1 beat 3")
        await server.kill()
        asked_at = await bench.clock()
        worker.terminate()
        for execution in executions:
            back_at = await bench.until(execution, status=QUEUED, within=10)
            assert back_at - asked_at <= timedelta(seconds=2)
        assert await worker.wait_exit(15) == 0
        await bench.db.execute("DELETE FROM executions WHERE kind = $1", bench.kind)


@together
async def test_work_goes_on_through_a_crash_of_postgresql(bench: Bench) -> None:
    async with own_postgres(bench) as server:
        worker = await bench.worker()
        beating = await bench.queue({"beat": 9}, {"progress": 50, "stage": "END"})
        writing = await bench.queue({"lines": 900, "every": 0.01})
        for execution in (beating, writing):
            await bench.until_line(execution, f"attempt 1 {'beat' if execution == beating else 'line'} 20")
        await server.restart_immediate()
        await bench.until_line(writing, "attempt 1 line 250")
        await server.restart_immediate()
        for execution, word in ((beating, "beat"), (writing, "line")):
            row = await bench.verdict(execution, SUCCEEDED, within=30)
            assert row["lost_workers"] == 0
            messages = await bench.messages(execution)
            assert messages == [f"attempt 1 {word} {number}" for number in range(1, len(messages) + 1)]
        assert len(await bench.messages(writing)) == 900
        after = await bench.queue({"lines": 1}, ring=True)
        await bench.verdict(after, SUCCEEDED, within=10)
        assert worker.exit_code is None


@together
async def test_lost_answers_of_commits_double_nothing(bench: Bench) -> None:
    async with CuttingProxy(bench.settings.database_url.get_secret_value()) as proxy:
        worker = await bench.worker(slots=1, DATABASE_URL=proxy.url)
        execution = await bench.queue(
            {"lines": 60, "every": 0.05}, {"sleep": 1.5}, {"progress": 50, "stage": "END"}, {"sleep": 1.5}
        )
        await bench.until_line(execution, "attempt 1 line 5")
        proxy.cut(GAVE_A_ROW, times=3)
        await bench.until_line(execution, "attempt 1 line 60")
        assert proxy.answers_met == 3, "answers to new lines, and to the question where the log ends"
        proxy.cut(COMMITTED, times=1)
        await eventually(lambda: proxy.answers_met == 4, 10, what="the lost answer to the progress")
        proxy.cut(COMMITTED, times=1)
        await eventually(lambda: proxy.answers_met == 5, 10, what="the lost answer to the end")
        row = await bench.verdict(execution, SUCCEEDED, within=20)
        assert row["lost_workers"] == 0
        assert await bench.messages(execution) == [f"attempt 1 line {number}" for number in range(1, 61)]
        assert [event["stage"] for event in await bench.history(execution) if event["status"] == "RUNNING"] == [
            None,
            "END",
        ]
        # The worker knows that it is over: its slot is free again.
        await bench.verdict(await bench.queue({"lines": 1}), SUCCEEDED, within=10)
        assert await worker.stop() == 0


@together
async def test_a_worker_frozen_while_claiming_delays_others_by_three_seconds_at_most(bench: Bench) -> None:
    await bench.worker()
    first = await bench.queue({"lines": 1}, owner=await bench.owner())
    await bench.verdict(first, SUCCEEDED, within=10)
    async with bench.db.acquire() as connection:
        # The server cannot tell a frozen client from one that says nothing more.
        transaction = connection.transaction()
        await transaction.start()
        # Before there is anything to claim, or the worker would be quicker.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('claim:' || $1, 0))", bench.kind)
        taken = await bench.queue({"lines": 1})
        claim = await leases.claim(connection, bench.kind, worker="frozen", lease_seconds=6, max_running_per_owner=4)
        assert claim is not None
        assert claim.execution_id == taken
        other = await bench.queue({"lines": 1}, owner=await bench.owner())
        for execution in (taken, other):
            row = await bench.verdict(execution, SUCCEEDED, within=10)
            assert started_after(row) <= timedelta(seconds=3)
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, ConnectionError)):
            await transaction.commit()
