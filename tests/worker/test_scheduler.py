"""Schedules with real workers: many at once, killed and frozen in the middle of firing. A moment has one run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from tests.conftest import WorkerFactory
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient
from tests.harness.executions import Desk, open_desk
from tests.harness.processes import Program
from tests.harness.schedules import make_due, runs, set_schedule, ticks
from tests.harness.waiting import eventually

# Workers that only fire: what they make stays in the queue.
SETTINGS = {f"WORKER_{kind}_SLOTS": "0" for kind in ("CRAWL", "BUILD", "SCAN", "OCR", "EXPORT")} | {
    "MAX_SCHEDULES_PER_USER": "1000"
}
SCHEDULES = 50


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(autouse=True)
async def nothing_else_is_due(desk: Desk) -> AsyncIterator[None]:
    yield
    await desk.pool.execute("DELETE FROM job_schedules")


async def ready(*workers: Program) -> None:
    await asyncio.gather(*(worker.wait_event("worker_started") for worker in workers))


async def fired(pool: asyncpg.Pool, *jobs: UUID, within: float = 15) -> None:
    async def is_so() -> bool:
        return len(await ticks(pool, *jobs)) >= len(jobs)

    await eventually(is_so, within, what=f"{len(jobs)} ticks")


async def test_two_workers_fire_fifty_schedules_once_each(
    client: GraphQLClient, desk: Desk, owner: Person, worker_factory: WorkerFactory
) -> None:
    first = await desk.job(owner)
    await set_schedule(client, owner, first)
    jobs = [first, *[await desk.job(owner) for _ in range(SCHEDULES - 1)]]
    await desk.pool.execute(
        """INSERT INTO job_schedules (job_id, cron_expression, time_zone, is_paused, overlap_policy, missed_run_policy,
               limits, created_at, updated_at)
           SELECT job, cron_expression, time_zone, false, 'SKIP', 'SKIP', '{}', now(), now()
           FROM unnest($2::uuid[]) AS t(job), job_schedules WHERE job_id = $1""",
        first,
        jobs[1:],
    )
    await ready(worker_factory(), worker_factory())
    await make_due(desk.pool, *jobs)
    await fired(desk.pool, *jobs)
    # Again, as if a clock had gone back: these moments are done.
    await make_due(desk.pool, *jobs)

    async def nothing_is_due() -> bool:
        return not await desk.pool.fetchval("SELECT count(*) FROM job_schedules WHERE next_run_at <= now()")

    await eventually(nothing_is_due, 15)
    found = await ticks(desk.pool, *jobs)
    assert {tick["outcome"] for tick in found} <= {"STARTED", "SKIPPED"}
    started = [tick for tick in found if tick["outcome"] == "STARTED"]
    assert len(started) == len(await runs(desk.pool, *jobs)) == SCHEDULES
    assert {tick["job_id"] for tick in started} == set(jobs)


@pytest.mark.parametrize("fate", ["killed", "frozen"])
async def test_a_worker_that_stops_in_the_middle_of_firing_leaves_one_run(
    client: GraphQLClient, desk: Desk, owner: Person, worker_factory: WorkerFactory, fate: str
) -> None:
    job = await desk.job(owner)
    await set_schedule(client, owner, job)
    doomed = worker_factory()
    await ready(doomed)
    async with desk.holding_back(owner) as all_wait:
        await make_due(desk.pool, job)
        await all_wait(1)  # it has written the tick and waits for the owner's queue
        if fate == "killed":
            doomed.kill()
        else:
            doomed.freeze()
        assert await ticks(desk.pool, job) == []
    # A frozen one is given the queue now, and holds its transaction open until the server ends that.
    other = worker_factory()
    await ready(other)
    await fired(desk.pool, job)
    (run,) = await runs(desk.pool, job)
    (tick,) = await ticks(desk.pool, job)
    assert (tick["outcome"], tick["run_id"]) == ("STARTED", run)
    if fate == "frozen":
        doomed.thaw()
        # It looks again, finds its moment gone, and goes on as before.
        await other.stop()
        (earlier,) = await ticks(desk.pool, job)
        await desk.pool.execute("UPDATE job_schedules SET next_run_at = now()")

        async def looked() -> bool:
            return len(await ticks(desk.pool, job)) == 2

        await eventually(looked, 15)
        assert earlier == (await ticks(desk.pool, job))[0]
        assert await runs(desk.pool, job) == [run]
        assert doomed.exit_code is None
