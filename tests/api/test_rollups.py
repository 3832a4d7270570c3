"""Sums are what is there: whatever executions go through, folded or not, deleted or not, and written by whom."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import analytics
from models.analytics import SUMS
from tests.harness.deployments import insert_deployment
from tests.harness.executions import Desk, open_desk
from tests.harness.histories import STEPS, WEIGHTED, World
from tests.harness.plain_sums import check


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(WEIGHTED), min_size=30, max_size=90))
async def test_sums_are_what_is_there_after_any_history(desk: Desk, seed: int, steps: list[str]) -> None:
    world = World(desk.pool, seed)
    await world.begin()
    for number, step in enumerate(steps):
        await STEPS[step][1](world)
        if number % 15 == 14:
            await check(world)
    await check(world)
    while await world.fold():
        pass
    await check(world)
    # What is deleted leaves nothing behind, not even zeros.
    await desk.pool.execute("DELETE FROM executions")
    while await world.fold():
        pass
    assert await desk.pool.fetchval("SELECT count(*) FROM rollups") == 0
    assert await desk.pool.fetchval("SELECT count(*) FROM rollup_deltas") == 0


# -- single things


async def a_history(desk: Desk, seed: int = 7) -> World:
    world = World(desk.pool, seed)
    await world.begin()
    for step in ["deploy", "crawl", "scan", *(["claim"] * 4), "finish", "finish"] * 6:
        await STEPS[step][1](world)
    return world


async def test_two_that_end_at_the_same_time_do_not_wait_for_each_other(desk: Desk) -> None:
    world = World(desk.pool, 1)
    await world.begin()
    async with desk.pool.acquire() as connection:
        one, other = [await insert_deployment(connection, world.projects[0]) for _ in range(2)]
    cancel = "UPDATE executions SET status = 'CANCELLED', finished_at = now() WHERE id = $1"
    async with (
        desk.pool.acquire() as first,
        desk.pool.acquire() as second,
        first.transaction(),
        second.transaction(),
    ):
        for connection in (first, second):
            await connection.execute("SET LOCAL lock_timeout = '1s'")
        await first.execute(cancel, one)
        await second.execute(cancel, other)
        # And whoever folds passes by what is not committed, without waiting for it.
        await asyncio.wait_for(world.fold(), 2)
    await check(world)


async def test_a_fold_that_is_cut_off_has_not_happened(desk: Desk) -> None:
    world = await a_history(desk)
    before = await desk.pool.fetchval("SELECT count(*) FROM rollup_deltas")
    async with desk.pool.acquire() as connection:
        cut = connection.transaction()
        await cut.start()
        assert await analytics.fold(connection, limit=1_000) > 0
        await check(world)  # others see the deltas still
        await cut.rollback()
    assert await desk.pool.fetchval("SELECT count(*) FROM rollup_deltas") == before
    await check(world)


async def test_one_folds_at_a_time(desk: Desk) -> None:
    world = await a_history(desk)
    async with desk.pool.acquire() as connection, connection.transaction():
        assert await analytics.fold(connection, limit=2) == 2
        assert await world.fold() == 0
    assert await world.fold() > 0
    await check(world)


async def test_what_was_there_before_is_counted_by_the_migration(desk: Desk) -> None:
    world = await a_history(desk)
    migration: Any = importlib.import_module("models.migrations.0030_rollup_triggers")
    async with desk.pool.acquire() as connection:
        undone = connection.transaction()
        await undone.start()
        facts = "SELECT f::text FROM execution_facts f ORDER BY 1"
        written_by_triggers = await connection.fetch(facts)
        for statement in [*migration._BACKWARD, *migration.Migration.operations[0].sql]:
            await connection.execute(statement)
        assert await connection.fetch(facts) == written_by_triggers
        assert await connection.fetchval("SELECT count(*) FROM rollup_deltas") == 0
        backfilled = await connection.fetch(_ALL_ROLLUPS)
        await undone.rollback()
    while await world.fold():
        pass
    assert await desk.pool.fetch(_ALL_ROLLUPS) == backfilled


_ALL_ROLLUPS = f"SELECT owner_id, kind, label, at, {', '.join(SUMS)} FROM rollups ORDER BY owner_id, kind, label, at"
