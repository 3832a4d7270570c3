"""A deleted account leaves the sums of dashboards, and what is told of everybody else stays right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters import storage
from models import analytics, user_queries
from models.ids import new_id
from tasks import account_purge
from tasks.outbox import NotYet
from tests.harness.databases import mentions
from tests.harness.executions import Desk, open_desk
from tests.harness.histories import STEPS, World
from tests.harness.plain_sums import check
from tests.harness.waiting import eventually


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def world(desk: Desk) -> World:
    """A history of two owners of which nothing runs any more; some of it is folded, and the first one is deleted."""
    world = World(desk.pool, 11)
    await world.begin()
    for number, step in enumerate(["deploy", "crawl", "scan", "read", *["claim"] * 5, *["finish"] * 4, "cancel"] * 6):
        await STEPS[step][1](world)
        if number == 40:
            while await world.fold():
                pass
    while await world.some("RUNNING"):
        await world.finish()
    await check(world)
    for table in ("rollups", "rollup_deltas"):
        assert (await mentions_of(desk, world.owners[0]))[table] > 0
    await user_queries.anonymise(world.owners[0])
    return world


async def mentions_of(desk: Desk, user_id: UUID) -> dict[str, int]:
    """How many rows of which tables name somebody."""
    async with desk.pool.acquire() as connection:
        return await mentions(connection, str(user_id))


async def purge(desk: Desk, user_id: UUID) -> None:
    await account_purge.purge(storage.current(), desk.pool, {"userId": str(user_id)})


async def is_there(desk: Desk, user_id: UUID) -> bool:
    return bool(await desk.pool.fetchval("SELECT 1 FROM users WHERE id = $1", user_id))


async def test_sums_of_everybody_are_what_is_left_after_a_purge(desk: Desk, world: World) -> None:
    leaving, staying = world.owners
    await purge(desk, leaving)
    assert await mentions_of(desk, leaving) == {}
    await check(world)
    while await world.fold():
        pass
    await check(world)
    assert (await mentions_of(desk, staying))["rollups"] > 0


async def test_a_purge_comes_again_when_somebody_else_folds(desk: Desk, world: World) -> None:
    leaving = world.owners[0]
    async with desk.pool.acquire() as other:
        folding = other.transaction()
        await folding.start()
        assert await analytics.fold(other, limit=1_000) > 0
        with pytest.raises(NotYet):
            await purge(desk, leaving)
        await folding.commit()
    assert await is_there(desk, leaving), "sums name them until what was deleted is folded"
    await check(world)
    await purge(desk, leaving)
    assert await mentions_of(desk, leaving) == {}
    await check(world)


async def test_what_is_made_and_deleted_behind_the_last_fold_leaves_nothing(desk: Desk, world: World) -> None:
    leaving = world.owners[0]
    async with desk.pool.acquire() as late:
        making = late.transaction()
        await making.start()
        await make_and_delete(late, leaving)
        purging = asyncio.create_task(purge(desk, leaving))

        async def waits_for_the_account() -> bool:
            return bool(
                await desk.pool.fetchval(
                    """SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND query LIKE '%FROM users%FOR UPDATE'"""
                )
            )

        await eventually(waits_for_the_account, 20)
        await making.commit()
    with pytest.raises(NotYet):
        await purging
    assert await is_there(desk, leaving)
    await purge(desk, leaving)
    assert await mentions_of(desk, leaving) == {}
    await check(world)


async def make_and_delete(connection: asyncpg.Connection, owner_id: UUID) -> None:
    """A scan that is counted and taken away again: two deltas."""
    execution_id = new_id()
    await connection.execute(
        """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
               timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
           VALUES ($1, 'SCAN', $2, 'QUEUED', 0, 0, 0, 2, 600, 0, now(), false, 0, 0)""",
        execution_id,
        owner_id,
    )
    await connection.execute(
        """INSERT INTO scans (execution_id, content_type, size, text, document_key, force_llm, is_truncated, risk_count)
           VALUES ($1, 'text/plain', 1, 'x', 'x', false, false, 0)""",
        execution_id,
    )
    await connection.execute("DELETE FROM executions WHERE id = $1", execution_id)
    assert await connection.fetchval("SELECT count(*) FROM rollup_deltas WHERE owner_id = $1", owner_id) >= 2
