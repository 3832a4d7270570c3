"""What dashboards and analytics are made of: sums between moments, durations, what runs now, the newest of each kind.

A `Scope` says whose; where days and weeks begin is given as edges, moments in ascending order, and answers are by the
number of the edge before them. Sums of a person or of everybody come from the rollups and what is not folded yet, in
one snapshot; sums of certain projects, and durations, from the facts.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database, deployments, execution_rows, jobs, scans
from models.analytics import EVERYBODY, RISKS, SUMS
from models.database import Row

EVER: Final = 0
"""The number of sums over all time, where edges are counted from 1."""

KINDS: Final = (deployments.KIND, jobs.KIND, scans.KIND)

_SUMMED: Final = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SUMS)
_SUM_COLUMNS: Final = ", ".join(SUMS)
_NOTHING: Final = ", ".join(f"0::bigint AS {name}" for name in SUMS[1:])


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose executions: an owner's, those of certain projects whoever owns them, or everybody's."""

    owner_id: UUID | None = None
    project_ids: frozenset[UUID] | None = None


# For all time a delta is counted at -infinity too, where the rollups have their sums of all time.
_FOLDED: Final = f"""
SELECT kind, label, at, {_SUM_COLUMNS} FROM rollups
WHERE owner_id = $1 AND kind = ANY($2::varchar[]) AND (at >= $3 AND at < $4 OR $5 AND at = '-infinity')
UNION ALL
SELECT kind, label, moment.at, {_SUM_COLUMNS} FROM rollup_deltas
CROSS JOIN LATERAL (
    SELECT rollup_deltas.at WHERE rollup_deltas.at >= $3 AND rollup_deltas.at < $4
    UNION ALL SELECT '-infinity' WHERE $5
) AS moment(at)
WHERE ($1 = '{EVERYBODY}'::uuid OR owner_id = $1) AND kind = ANY($2::varchar[])
"""

_OF_PROJECTS: Final = f"""
SELECT kind, ''::varchar AS label, moment.at, 1::bigint AS created, {_NOTHING} FROM execution_facts
CROSS JOIN LATERAL (
    SELECT quarter_hour(queued_at) WHERE queued_at >= $3 AND queued_at < $4
    UNION ALL SELECT '-infinity' WHERE $5
) AS moment(at)
WHERE target_id = ANY($1::uuid[]) AND kind = ANY($2::varchar[]) AND ($5 OR queued_at >= $3 AND queued_at < $4)
UNION ALL
SELECT kind, '', moment.at, 0, (outcome = 'SUCCEEDED')::int, (outcome = 'FAILED')::int, (outcome = 'CANCELLED')::int,
       (worked_ms IS NOT NULL)::int, coalesce(waited_ms, 0), coalesce(worked_ms, 0),
       CASE WHEN outcome = 'SUCCEEDED' THEN coalesce(worked_ms, 0) ELSE 0 END, coalesce(built_ms, 0),
       items, pages, downloaded_bytes, artifact_bytes, uploaded_bytes, log_bytes
FROM execution_facts
CROSS JOIN LATERAL (
    SELECT quarter_hour(finished_at) WHERE finished_at >= $3 AND finished_at < $4
    UNION ALL SELECT '-infinity' WHERE $5
) AS moment(at)
WHERE target_id = ANY($1::uuid[]) AND kind = ANY($2::varchar[]) AND finished_at IS NOT NULL
    AND ($5 OR finished_at >= $3 AND finished_at < $4)
"""


async def now() -> datetime:
    """The database's clock."""
    moment: datetime = await database.value("SELECT now()")
    return moment


async def sums(scope: Scope, kinds: Sequence[str], edges: Sequence[datetime], *, ever: bool = False) -> list[Row]:
    """All of `SUMS` by `kind`, `label` and `bucket`, the number of the edge that begins it: 1 for the first.

    The last edge is the end. Edges are whole quarter-hours. With `ever` the bucket `EVER` is the sum over all time.
    """
    source, whose = _source(scope)
    return await database.rows(
        f"""SELECT kind, label, width_bucket(at, $6::timestamptz[]) AS bucket, {_SUMMED}
            FROM ({source}) AS source GROUP BY kind, label, bucket""",
        whose,
        list(kinds),
        edges[0],
        edges[-1],
        ever,
        list(edges),
    )


async def created_by_hour(
    scope: Scope,
    kind: str,
    start: datetime,
    end: datetime,
    *,
    changes: Sequence[datetime],
    offsets_seconds: Sequence[int],
) -> dict[int, int]:
    """How many were asked for at which hour of the day.

    `changes` are the moments at which a zone's offset becomes that of `offsets_seconds`, the first one at the start.
    """
    source, whose = _source(scope)
    found = await database.rows(
        f"""SELECT ((extract(epoch FROM at)::bigint
                     + ($7::int[])[width_bucket(at, $6::timestamptz[])]) / 3600 % 24)::int AS hour,
                   sum(created)::bigint AS created
            FROM ({source}) AS source GROUP BY hour""",
        whose,
        [kind],
        start,
        end,
        False,
        list(changes),
        list(offsets_seconds),
    )
    return {row["hour"]: row["created"] for row in found}


async def risks(scope: Scope, edges: Sequence[datetime]) -> list[Row]:
    """How many risks (`count`) have a `label` by `bucket`, as `sums` counts them; projects have none."""
    if scope.project_ids is not None:
        return []
    source, whose = _source(scope)
    return await database.rows(
        f"""SELECT label, width_bucket(at, $6::timestamptz[]) AS bucket, sum(created)::bigint AS count
            FROM ({source}) AS source GROUP BY label, bucket HAVING sum(created) <> 0""",
        whose,
        [RISKS],
        edges[0],
        edges[-1],
        False,
        list(edges),
    )


async def durations(scope: Scope, kind: str, measure: str, edges: Sequence[datetime]) -> list[Row]:
    """By `bucket` of their end, and as `bucket` None of all: `count`, `sum`, `min`, `max`, `p95` of a measure, in ms.

    `measure` is `built_ms` or `worked_ms`, that of executions which succeeded. The 95th percentile is the smallest
    value that no more than one in twenty exceed.
    """
    column = {"built_ms": "built_ms", "worked_ms": "worked_ms"}[measure]
    whose, value = _facts_of(scope)
    return await database.rows(
        f"""SELECT width_bucket(finished_at, $5::timestamptz[]) AS bucket, count(*) AS count,
                   sum({column})::bigint AS sum, min({column}) AS min, max({column}) AS max,
                   percentile_disc(0.95) WITHIN GROUP (ORDER BY {column}) AS p95
            FROM execution_facts
            WHERE {whose} AND kind = $2 AND finished_at >= $3 AND finished_at < $4 AND {column} IS NOT NULL
                AND outcome = 'SUCCEEDED'
            GROUP BY GROUPING SETS ((bucket), ())""",
        value,
        kind,
        edges[0],
        edges[-1],
        list(edges),
    )


async def by_tool(scope: Scope, start: datetime, end: datetime, *, limit: int) -> list[Row]:
    """Runs that ended between two moments in sums by tool, the tool with the most first."""
    whose, value = _facts_of(scope)
    return await database.rows(
        f"""SELECT counted.*, t.slug, t.name FROM (
                SELECT target_id, count(*) FILTER (WHERE outcome = 'SUCCEEDED') AS succeeded,
                       count(*) FILTER (WHERE outcome = 'FAILED') AS failed,
                       count(*) FILTER (WHERE outcome = 'CANCELLED') AS cancelled,
                       coalesce(sum(items), 0)::bigint AS items, coalesce(sum(worked_ms), 0)::bigint AS worked_ms,
                       coalesce(sum(worked_ms) FILTER (WHERE outcome = 'SUCCEEDED'), 0)::bigint AS succeeded_ms
                FROM execution_facts
                WHERE {whose} AND kind = $2 AND finished_at >= $3 AND finished_at < $4
                GROUP BY target_id ORDER BY count(*) DESC, target_id LIMIT $5
            ) AS counted JOIN tools t ON t.id = counted.target_id
            ORDER BY succeeded + failed + cancelled DESC, target_id""",
        value,
        jobs.KIND,
        start,
        end,
        limit,
    )


async def standing(scope: Scope, *, active_since: datetime, today: datetime) -> Row:
    """What is there now: `projects`, those `active` since a moment and `deployed_today`; what waits and works by kind.

    A project is active when a deployment of it was asked for since; `waiting` and `working` are JSON, by kind.
    """
    if scope.project_ids is not None:
        value: Any = list(scope.project_ids)
        whose = "p.id = ANY($1::uuid[])"
        at_work = "e.id IN (SELECT execution_id FROM deployments WHERE project_id = ANY($1::uuid[]))"
    else:
        value = scope.owner_id
        whose = "p.owner_id = $1::uuid" if value else "$1::uuid IS NULL"
        at_work = "e.owner_id = $1::uuid" if value else "$1::uuid IS NULL"
    found = await database.rows(
        # The newest deployment of each project, by its key: ids are in the order of their making.
        f"""SELECT (SELECT json_object_agg(kind, n)::text FROM (
                        SELECT kind, count(*) AS n FROM executions e WHERE status = 'QUEUED' AND {at_work} GROUP BY kind
                    ) AS counted) AS waiting,
                   (SELECT json_object_agg(kind, n)::text FROM (
                        SELECT kind, count(*) AS n FROM executions e WHERE status = 'RUNNING' AND {at_work}
                        GROUP BY kind
                    ) AS counted) AS working,
                   count(*) AS projects,
                   count(*) FILTER (WHERE newest.queued_at >= $2) AS active,
                   count(*) FILTER (WHERE newest.queued_at >= $3) AS deployed_today
            FROM projects p
            LEFT JOIN LATERAL (
                SELECT e.queued_at FROM deployments d JOIN executions e ON e.id = d.execution_id
                WHERE d.project_id = p.id ORDER BY d.execution_id DESC LIMIT 1
            ) AS newest ON true
            WHERE {whose}""",
        value,
        active_since,
        today,
    )
    return found[0]


async def recent(scope: Scope, *, limit: int) -> list[Row]:
    """The newest deployments, runs and scans, so many of each, as rows of `models.execution_rows`; newest first."""
    return await execution_rows.newest(owner_id=scope.owner_id, project_ids=scope.project_ids, limit=limit)


def _source(scope: Scope) -> tuple[str, Any]:
    if scope.project_ids is not None:
        return _OF_PROJECTS, list(scope.project_ids)
    return _FOLDED, scope.owner_id or EVERYBODY


def _facts_of(scope: Scope) -> tuple[str, Any]:
    if scope.project_ids is not None:
        return "target_id = ANY($1::uuid[])", list(scope.project_ids)
    if scope.owner_id is not None:
        return "owner_id = $1::uuid", scope.owner_id
    return "$1::uuid IS NULL", None
