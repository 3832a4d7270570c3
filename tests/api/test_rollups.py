"""Sums are what is there: whatever executions go through, folded or not, deleted or not, and written by whom."""

from __future__ import annotations

import asyncio
import importlib
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import analytics, analytics_queries, execution_commands, leases, tools
from models.analytics import EVERYBODY, RISKS, SUMS
from models.analytics_queries import EVER, Scope
from models.executions import Claim, ExecutionStatus, Failure, FailureCode
from models.ids import new_id
from models.transaction import unit_of_work
from models.user_queries import delete_parts
from resolvers import periods
from tests.harness.deployments import insert_deployment, insert_owner, insert_project
from tests.harness.executions import Desk, open_desk

KINDS = ("DEPLOYMENT", "CRAWL", "SCAN", "OCR")
SPAN = timedelta(days=3)
MEASURES = {"DEPLOYMENT": "built_ms", "CRAWL": "worked_ms"}


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


# -- histories


class World:
    """Two owners with projects and jobs, and what became of their executions; choices come from a seed."""

    def __init__(self, pool: asyncpg.Pool, seed: int) -> None:
        self.pool = pool
        self.chance = random.Random(seed)
        self.owners: list[UUID] = []
        self.projects: list[UUID] = []
        self.jobs: list[UUID] = []
        self.start = periods.floor(datetime.now(UTC)) - SPAN

    async def begin(self) -> None:
        """Owners, projects and jobs; nothing else is in the tables."""
        await self.pool.execute("DELETE FROM executions")
        while await self.fold():
            pass
        async with self.pool.acquire() as connection:
            self.owners = [await insert_owner(connection) for _ in range(2)]
            self.projects = [await insert_project(connection, owner) for owner in self.owners for _ in range(2)]
        tool_id = await tools.insert(
            slug=f"tool-{new_id()}", name="Tool", category="tests", description="", states=[],
            icon=None, spider="catalogue", input_schema={"type": "object"}, is_active=True,
        )  # fmt: skip
        for owner in self.owners:
            job_id = new_id()
            await self.pool.execute(
                """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
                   VALUES ($1, $2, $3, 'A job', '{}', now(), now())""",
                job_id,
                owner,
                tool_id,
            )
            self.jobs.append(job_id)

    def moment(self) -> datetime:
        """Some moment of the last days."""
        return self.start + self.chance.random() * SPAN

    async def some(self, *statuses: str, kind: str | None = None) -> asyncpg.Record | None:
        """One of the executions in one of these statuses."""
        found = await self.pool.fetch(
            "SELECT * FROM executions WHERE status = ANY($1) AND ($2::varchar IS NULL OR kind = $2) ORDER BY id",
            list(statuses),
            kind,
        )
        return self.chance.choice(found) if found else None

    async def deploy(self) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            execution_id = await insert_deployment(connection, self.chance.choice(self.projects))
            # It is asked for now; the fact says when it was asked for once it is written again.
            await connection.execute("UPDATE executions SET queued_at = $2 WHERE id = $1", execution_id, self.moment())
            await connection.execute("SELECT refresh_execution_fact($1)", execution_id)

    async def crawl(self) -> None:
        await self._insert(
            "CRAWL",
            """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                   is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                   requests_robots, requests_throttled)
               SELECT $1, j.id, j.tool_id, 'catalogue', '{}', '{}', 'API', $1, false, 0, 0, 0, 0, 0, 0, 0
               FROM jobs j WHERE j.owner_id = $2""",
        )

    async def scan(self) -> None:
        await self._insert(
            "SCAN",
            """INSERT INTO scans (execution_id, content_type, size, text, document_key, force_llm, is_truncated,
                   risk_count) SELECT $1, 'text/plain', 1, 'x', $2::uuid::text, false, false, 0""",
        )

    async def read(self) -> None:
        await self._insert(
            "OCR",
            """INSERT INTO ocr_jobs (execution_id, filename, languages, force_ocr, pages_read, candidate_count)
               SELECT $1, $2::uuid::text, '[]', false, 0, 0""",
        )

    async def _insert(self, kind: str, statement: str) -> None:
        execution_id, owner = new_id(), self.chance.choice(self.owners)
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                       timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
                   VALUES ($1, $2, $3, 'QUEUED', 0, 0, 0, 2, 600, 0, $4, false, 0, 0)""",
                execution_id,
                kind,
                owner,
                self.moment(),
            )
            await connection.execute(statement, execution_id, owner)

    async def claim(self) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            kind = self.chance.choice(KINDS)
            await leases.claim(connection, kind, worker="tests", lease_seconds=3_600, max_running_per_owner=9)

    async def progress(self) -> None:
        """Counters of what works, and, as nothing should but anything might, of what has ended."""
        if (row := await self.some("RUNNING", "SUCCEEDED", "FAILED")) is not None:
            number = self.chance.randrange(1_000)
            await self.pool.execute(
                """UPDATE job_runs SET items_scraped = items_scraped + $2, pages_crawled = pages_crawled + 1,
                       bytes_downloaded = $2 * 7 WHERE execution_id = $1""",
                row["id"],
                number,
            )
            await self.pool.execute(
                "UPDATE deployments SET artifact_size = $2, uploaded_bytes = 3 WHERE execution_id = $1",
                row["id"],
                number,
            )
            await self.pool.execute("UPDATE ocr_jobs SET pages_read = $2 WHERE execution_id = $1", row["id"], number)

    async def finish(self) -> None:
        """As a worker ends: what its kind has and the status in one transaction."""
        if (row := await self.some("RUNNING")) is None:
            return
        status = self.chance.choice([ExecutionStatus.SUCCEEDED, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED])
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE executions SET started_at = finished.at FROM (SELECT $2::timestamptz AS at) AS finished"
                " WHERE id = $1",
                row["id"],
                max(row["queued_at"], self.moment()),
            )
            await connection.execute(
                "UPDATE deployments SET build_seconds = $2, artifact_size = 10 WHERE execution_id = $1",
                row["id"],
                self.chance.random() * 100,
            )
            if row["kind"] == "SCAN" and status is ExecutionStatus.SUCCEEDED:
                await self._add_risks(connection, row["id"], first=0)
            claim = Claim(row["id"], row["kind"], row["owner_id"], row["attempt"], None, 0, 0, 1.0)
            failure = Failure(FailureCode.INTERNAL, "x") if status is ExecutionStatus.FAILED else None
            assert await leases.finish(connection, claim, status, failure=failure, compact_log_after_seconds=60)

    async def end(self) -> None:
        """The same in one statement, at some other time, with a change of the kind's row in the same statement."""
        if (row := await self.some("RUNNING")) is not None:
            started = max(row["queued_at"], self.moment())
            await self.pool.execute(
                """WITH kind AS (UPDATE job_runs SET items_scraped = items_scraped + 5 WHERE execution_id = $1)
                   UPDATE executions SET status = 'SUCCEEDED', worker = NULL, lease_until = NULL, started_at = $2,
                       finished_at = $3, log_bytes = 77 WHERE id = $1""",
                row["id"],
                started,
                started + self.chance.random() * timedelta(hours=1),
            )

    async def _add_risks(self, connection: asyncpg.Connection, scan_id: UUID, *, first: int) -> None:
        for position in range(first, first + self.chance.randrange(4)):
            await connection.execute(
                """INSERT INTO scan_risks (id, scan_id, position, category, risk, context, severity, severity_source,
                       fingerprint) VALUES ($1, $2, $3, $4, 'r', 'c', $5, 'RULE', 'f')""",
                new_id(),
                scan_id,
                position,
                self.chance.choice(["Budget", "Time: late", "Ünïcode"]),
                self.chance.choice(["LOW", "HIGH"]),
            )

    async def more_risks(self) -> None:
        if (row := await self.some("SUCCEEDED", kind="SCAN")) is not None:
            async with self.pool.acquire() as connection:
                await self._add_risks(connection, row["id"], first=self.chance.randrange(100, 10**9, 10))

    async def fewer_risks(self) -> None:
        """As a deleted account's rows go, in pieces before the execution."""
        if (row := await self.some("SUCCEEDED", kind="SCAN")) is not None:
            await delete_parts(self.pool, [row["id"]], limit=1)

    async def lose(self) -> None:
        if (row := await self.some("RUNNING")) is not None:
            await self.pool.execute(
                "UPDATE executions SET lease_until = now() - interval '1 second' WHERE id = $1", row["id"]
            )
            async with self.pool.acquire() as connection:
                assert await leases.sweep(connection, limit=10, compact_log_after_seconds=60)

    async def cancel(self) -> None:
        if (row := await self.some("QUEUED")) is not None:
            async with unit_of_work():
                await execution_commands.request_cancel(row["id"], by=None)

    async def cancel_all(self) -> None:
        async with unit_of_work():
            await execution_commands.request_cancel_all(self.chance.choice(self.owners), by=None)

    async def delete(self) -> None:
        if (row := await self.some("QUEUED", "SUCCEEDED", "FAILED", "CANCELLED")) is not None:
            await self.pool.execute("DELETE FROM executions WHERE id = $1", row["id"])

    async def roll_back(self) -> None:
        """Everything ends and is deleted, and it never happened."""
        async with self.pool.acquire() as connection:
            undone = connection.transaction()
            await undone.start()
            await connection.execute(
                "UPDATE executions SET status = 'CANCELLED', finished_at = now(), worker = NULL, lease_until = NULL"
                " WHERE status IN ('QUEUED', 'RUNNING')"
            )
            await connection.execute("DELETE FROM executions")
            await undone.rollback()

    async def fold(self) -> int:
        async with self.pool.acquire() as connection:
            return await analytics.fold(connection, limit=self.chance.choice([1, 3, 1_000]))


STEPS: dict[str, tuple[int, Callable[[World], Awaitable[Any]]]] = {
    "deploy": (5, World.deploy),
    "crawl": (4, World.crawl),
    "scan": (4, World.scan),
    "read": (2, World.read),
    "claim": (12, World.claim),
    "progress": (5, World.progress),
    "finish": (7, World.finish),
    "end": (3, World.end),
    "more risks": (1, World.more_risks),
    "fewer risks": (2, World.fewer_risks),
    "lose": (2, World.lose),
    "cancel": (2, World.cancel),
    "cancel all": (1, World.cancel_all),
    "delete": (4, World.delete),
    "roll back": (1, World.roll_back),
    "fold": (4, World.fold),
}
_WEIGHTED = [name for name, (weight, _) in STEPS.items() for _ in range(weight)]


# -- the same numbers, counted plainly

Key = tuple[UUID, str, str, datetime]


async def counted(pool: asyncpg.Pool) -> dict[Key, Counter[str]]:
    """All sums by owner, kind, label and quarter-hour, from executions and the rows of their kinds."""
    sums: defaultdict[Key, Counter[str]] = defaultdict(Counter)
    for row in await pool.fetch(
        """SELECT e.*, d.build_seconds, d.artifact_size, d.uploaded_bytes, r.items_scraped, r.pages_crawled,
                  r.bytes_downloaded, o.pages_read,
                  ARRAY(SELECT severity || ':' || category FROM scan_risks WHERE scan_id = e.id) AS risks
           FROM executions e LEFT JOIN deployments d ON d.execution_id = e.id
           LEFT JOIN job_runs r ON r.execution_id = e.id LEFT JOIN ocr_jobs o ON o.execution_id = e.id"""
    ):
        for owner in (row["owner_id"], EVERYBODY):
            sums[owner, row["kind"], "", periods.floor(row["queued_at"])]["created"] += 1
            if row["finished_at"] is None:
                continue
            ended = periods.floor(row["finished_at"])
            sums[owner, row["kind"], "", ended].update(ended_sums(row))
            for label in row["risks"]:
                sums[owner, RISKS, label, ended]["created"] += 1
    return {key: +counter for key, counter in sums.items() if +counter}


def ended_sums(row: asyncpg.Record) -> dict[str, int]:
    """What an execution that has ended adds."""
    has_begun = row["started_at"] is not None
    worked = milliseconds(row["finished_at"] - row["started_at"]) if has_begun else 0
    return {
        row["status"].lower(): 1,
        "begun": int(has_begun),
        "waited_ms": milliseconds(row["started_at"] - row["queued_at"]) if has_begun else 0,
        "worked_ms": worked,
        "succeeded_ms": worked if row["status"] == "SUCCEEDED" else 0,
        "built_ms": round((row["build_seconds"] or 0) * 1_000),
        "items": row["items_scraped"] or 0,
        "pages": row["pages_crawled"] or row["pages_read"] or 0,
        "downloaded_bytes": row["bytes_downloaded"] or 0,
        "artifact_bytes": row["artifact_size"] or 0,
        "uploaded_bytes": row["uploaded_bytes"] or 0,
        "log_bytes": row["log_bytes"],
    }


def milliseconds(length: timedelta) -> int:
    """Rounded half up, as PostgreSQL rounds."""
    return (length // timedelta(microseconds=1) + 500) // 1_000


async def check(world: World) -> None:
    """Every series of everybody, each owner and each project is what counting says."""
    plain = await counted(world.pool)
    quarters = [world.start + number * periods.QUARTER_HOUR for number in range(SPAN // periods.QUARTER_HOUR + 9)]
    await check_sums(world, plain, quarters)
    for hours in (7, 24, 37):  # whole days, and what lies beside them
        await check_sums(world, plain, sorted({quarters[0], *quarters[2 :: 4 * hours], quarters[-1]}))
    for scope in (Scope(), *(Scope(owner_id=owner) for owner in world.owners)):
        for kind, measure in MEASURES.items():
            await check_durations(world, scope, kind, measure)
    for project in world.projects:
        await check_project(world, project, quarters)


async def check_sums(world: World, plain: dict[Key, Counter[str]], edges: list[datetime]) -> None:
    """Sums of everybody and of each owner between these edges."""
    kinds = (*KINDS, RISKS)
    for scope in (Scope(), *(Scope(owner_id=owner) for owner in world.owners)):
        found = await analytics_queries.sums(scope, kinds, edges, ever=True)
        told = {
            (row["kind"], row["label"], row["bucket"]): +Counter({name: row[name] for name in SUMS}) for row in found
        }
        expected: defaultdict[tuple[str, str, int], Counter[str]] = defaultdict(Counter)
        for (owner, kind, label, at), sums in plain.items():
            if owner == (scope.owner_id or EVERYBODY):
                expected[kind, label, bisect_right(edges, at)] += sums
                expected[kind, label, EVER] += sums
        assert {key: sums for key, sums in told.items() if sums} == expected
        assert all(row[name] >= 0 for row in found for name in SUMS)
        risks = await analytics_queries.risks(scope, edges)
        assert {(row["label"], row["bucket"]): row["count"] for row in risks} == {
            (label, bucket): sums["created"]
            for (kind, label, bucket), sums in expected.items()
            if kind == RISKS and bucket != EVER
        }


async def check_durations(world: World, scope: Scope, kind: str, measure: str) -> None:
    days = [world.start + timedelta(days=number) for number in range(5)]
    found = {row["bucket"]: row for row in await analytics_queries.durations(scope, kind, measure, days)}
    lengths: defaultdict[int | None, list[int]] = defaultdict(list)
    for row in await world.pool.fetch(
        """SELECT e.*, d.build_seconds FROM executions e LEFT JOIN deployments d ON d.execution_id = e.id
           WHERE e.kind = $1 AND e.status = 'SUCCEEDED' AND ($2::uuid IS NULL OR e.owner_id = $2)""",
        kind,
        scope.owner_id,
    ):
        length = (
            round(row["build_seconds"] * 1_000)
            if measure == "built_ms" and row["build_seconds"] is not None
            else milliseconds(row["finished_at"] - row["started_at"])
        )
        if measure == "worked_ms" or row["build_seconds"] is not None:
            lengths[(row["finished_at"] - world.start) // timedelta(days=1) + 1].append(length)
            lengths[None].append(length)
    for bucket, values in lengths.items():
        row = found[bucket]
        ordered = sorted(values)
        p95 = ordered[-(-len(ordered) * 95 // 100) - 1]
        assert (row["count"], row["sum"], row["min"], row["max"], row["p95"]) == (
            *(len(ordered), sum(ordered), ordered[0], ordered[-1]),
            p95,
        )
    assert {bucket for bucket, row in found.items() if row["count"]} == set(lengths)


async def check_project(world: World, project: UUID, quarters: list[datetime]) -> None:
    found = await analytics_queries.sums(Scope(project_ids=frozenset({project})), ("DEPLOYMENT",), quarters, ever=True)
    told = {row["bucket"]: +Counter({name: row[name] for name in SUMS}) for row in found}
    expected: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in await world.pool.fetch(
        """SELECT e.*, d.build_seconds, d.artifact_size, d.uploaded_bytes, NULL::bigint AS items_scraped,
                  NULL::bigint AS pages_crawled, NULL::bigint AS pages_read, NULL::bigint AS bytes_downloaded
           FROM executions e JOIN deployments d ON d.execution_id = e.id WHERE d.project_id = $1""",
        project,
    ):
        for bucket in (quarters.index(periods.floor(row["queued_at"])) + 1, EVER):
            expected[bucket]["created"] += 1
        if row["finished_at"] is not None:
            for bucket in (quarters.index(periods.floor(row["finished_at"])) + 1, EVER):
                expected[bucket].update(ended_sums(row))
    assert {bucket: sums for bucket, sums in told.items() if sums} == {
        bucket: +sums for bucket, sums in expected.items()
    }


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(_WEIGHTED), min_size=30, max_size=90))
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
    assert await desk.pool.fetchval("SELECT count(*) FROM rollup_days") == 0
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


MOMENTS = st.integers(0, 96 * 12).map(
    lambda quarters: datetime(2026, 3, 25, tzinfo=UTC) + quarters * periods.QUARTER_HOUR
)


@given(edges=st.lists(MOMENTS, min_size=2, max_size=8, unique=True).map(sorted))
def test_days_and_parts_are_all_that_lies_between_edges_once(edges: list[datetime]) -> None:
    days, parts = analytics_queries.spans_of(edges)
    spans = sorted([*days, *parts])
    assert [spans[0][0], spans[-1][1]] == [edges[0], edges[-1]]
    assert all(first[1] == second[0] for first, second in pairwise(spans))
    day = timedelta(days=1)
    for begin, end in days:
        assert (begin.time(), (end - begin) % day) == (time.min, timedelta(0))
        assert not [edge for edge in edges if begin < edge < end]
    for begin, end in parts:
        assert end - begin < 2 * day or [edge for edge in edges if begin < edge < end], "a whole day is read as one"
