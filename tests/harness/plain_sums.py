"""The sums of dashboards and analytics, counted plainly from executions, and held against what is told."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from models import analytics_queries
from models.analytics import EVERYBODY, RISKS, SUMS
from models.analytics_queries import EVER, Scope
from resolvers import periods
from tests.harness.histories import KINDS, SPAN, World

MEASURES = {"DEPLOYMENT": "built_ms", "CRAWL": "worked_ms"}

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
