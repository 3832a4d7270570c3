"""Jobs as they are read and changed: plain rows, each joined with its tool, its owner and its schedule.

One statement serves a list of jobs with all of these. A job's input, which may be large, is read by itself.
Invariants: a change names the version it was made from, so that two that overlap leave nothing half; a job is
deleted with all that its runs brought home, and never under a run that waits or works.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import database, endpoint_queries, keyset
from models.database import Row
from models.permissions import Actor
from models.schedule_queries import SCHEDULE_COLUMNS
from models.tools import TOOL_COLUMNS, containing


class JobOrderField(StrEnum):
    """What a list of jobs can be sorted by."""

    CREATED_AT = "CREATED_AT"
    NAME = "NAME"
    UPDATED_AT = "UPDATED_AT"


_SELECT: Final = f"""
SELECT j.id, j.owner_id, j.name, j.only_changes, j.saves_products, j.alarm_percent, j.created_at, j.updated_at,
       {TOOL_COLUMNS},
       u.email AS owner_email, u.username AS owner_username, u.name AS owner_name, u.role AS owner_role,
       u.created_at AS owner_created_at, {SCHEDULE_COLUMNS}
FROM jobs j JOIN tools t ON t.id = j.tool_id JOIN users u ON u.id = j.owner_id
LEFT JOIN job_schedules s ON s.job_id = j.id
"""

# Columns and the cast of values they are compared with, by what clients sort by. Ids are in the order of creation.
_SORT_COLUMNS: Final[Mapping[JobOrderField, tuple[str, str]]] = {
    JobOrderField.CREATED_AT: ("j.id", "${}::uuid"),
    JobOrderField.NAME: ("lower(j.name), j.id", "lower(${}::text), ${}::uuid"),
    JobOrderField.UPDATED_AT: ("j.updated_at, j.id", "${}::timestamptz, ${}::uuid"),
}

_PURGE_ROWS: Final = 50_000
"""Deleted by one statement: far less than statements have time for."""
_DETACH_ROWS: Final = 10_000
"""Changed by one statement: each is in a dozen indexes."""


async def find(job_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the jobs that exist, whoever owns them: the caller is the gate."""
    found = await database.rows(f"{_SELECT} WHERE j.id = ANY($1::uuid[])", list(job_ids))
    return {row["id"]: row for row in found}


async def inputs(job_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The inputs of jobs, as JSON text."""
    found = await database.rows("SELECT id, input::text AS input FROM jobs WHERE id = ANY($1::uuid[])", list(job_ids))
    return {row["id"]: row["input"] for row in found}


async def visible(
    actor: Actor,
    *,
    owner_id: UUID | None = None,
    tool_id: UUID | None = None,
    search: str | None = None,
    is_scheduled: bool | None = None,
    order: JobOrderField = JobOrderField.CREATED_AT,
    descending: bool = True,
    after: tuple[Any, ...] | None = None,
    before: tuple[Any, ...] | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Jobs that an actor may see, strictly between two sort keys; backwards from the end of the order."""
    where, values = _conditions(actor, owner_id, tool_id, search, is_scheduled)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, values, after=after, before=before, descending=descending, backwards=backwards
    )
    where += bounds
    values.append(limit)
    return await database.rows(f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY {by} LIMIT ${len(values)}", *values)


async def count_visible(
    actor: Actor, *, owner_id: UUID | None, tool_id: UUID | None, search: str | None, is_scheduled: bool | None
) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, owner_id, tool_id, search, is_scheduled)
    return int(await database.value(f"SELECT count(*) FROM jobs j WHERE {' AND '.join(where)}", *values))


async def count_owned(owner_id: UUID) -> int:
    """How many jobs somebody has; until the end of the transaction nobody else adds one for them."""
    # The lock is per owner and ends with the transaction; without it two requests could both pass the count.
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"jobs:{owner_id}")
    return int(await database.value("SELECT count(*) FROM jobs WHERE owner_id = $1", owner_id))


class JobSettings(NamedTuple):
    """What a job does with what its runs find; None where a change leaves it as it is."""

    only_changes: bool | None = None
    saves_products: bool | None = None
    alarm_percent: int | None = None

    def given(self) -> dict[str, bool | int]:
        """Those that are set, by the names of their columns."""
        return {name: value for name, value in self._asdict().items() if value is not None}


UNSET: Final = JobSettings()
"""No setting given."""


async def insert(
    job_id: UUID,
    *,
    owner_id: UUID,
    tool_id: UUID,
    name: str,
    input: Mapping[str, Any],
    settings: JobSettings = UNSET,
) -> bool:
    """Add a job; False when its tool is gone or not active any more."""
    created = await database.value(
        "INSERT INTO jobs (id, owner_id, tool_id, name, input, only_changes, saves_products, alarm_percent,"
        " created_at, updated_at)"
        " SELECT $1, $2, t.id, $4, $5::jsonb, coalesce($6, false), coalesce($7, false), coalesce($8::smallint, 50),"
        " now(), now() FROM tools t WHERE t.id = $3 AND t.is_active"
        " FOR SHARE OF t RETURNING jobs.id",
        job_id,
        owner_id,
        tool_id,
        name,
        database.to_json(dict(input)),
        *settings,
    )
    return created is not None


async def update(
    job_id: UUID,
    *,
    seen_at: datetime,
    name: str | None = None,
    input: Mapping[str, Any] | None = None,
    settings: JobSettings = UNSET,
) -> bool:
    """Change a job as it was at `seen_at`, its `updated_at` then; False when it is gone or has changed since."""
    updated = await database.value(
        "UPDATE jobs SET name = coalesce($3, name), input = coalesce($4::jsonb, input),"
        " only_changes = coalesce($5, only_changes), saves_products = coalesce($6, saves_products),"
        " alarm_percent = coalesce($7::smallint, alarm_percent),"
        # Strictly later than before, so that no two versions of a job look alike.
        " updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')"
        " WHERE id = $1 AND updated_at = $2 RETURNING id",
        job_id,
        seen_at,
        name,
        None if input is None else database.to_json(dict(input)),
        *settings,
    )
    return updated is not None


async def lock_idle(job_id: UUID) -> bool | None:
    """Keep new runs of a job, and new exports of them, away until the end of the transaction.

    False when one waits or works already, None when the job is gone.
    """
    if await database.value("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE", job_id) is None:
        return None
    is_busy = await database.value(
        """SELECT EXISTS (SELECT 1 FROM job_runs r JOIN executions e ON e.id = r.execution_id
                          WHERE r.job_id = $1 AND e.status IN ('QUEUED', 'RUNNING'))
               OR EXISTS (SELECT 1 FROM job_runs r JOIN item_exports x ON x.run_id = r.execution_id
                          JOIN executions e ON e.id = x.execution_id
                          WHERE r.job_id = $1 AND e.status IN ('QUEUED', 'RUNNING'))""",
        job_id,
    )
    return not is_busy


async def stored_objects(job_id: UUID) -> list[str]:
    """Keys of all that the runs of a job have in storage: output files, exports and finished logs of both."""
    found = await database.rows(
        """SELECT f.key FROM output_files f JOIN job_runs r ON r.execution_id = f.run_id WHERE r.job_id = $1
           UNION ALL
           SELECT e.log_object->>'key' FROM executions e JOIN job_runs r ON r.execution_id = e.id
           WHERE r.job_id = $1 AND e.log_object->>'key' IS NOT NULL
           UNION ALL
           SELECT k.key FROM job_runs r JOIN item_exports x ON x.run_id = r.execution_id
           JOIN executions e ON e.id = x.execution_id
           CROSS JOIN LATERAL (VALUES (x.key), (e.log_object->>'key')) AS k (key)
           WHERE r.job_id = $1 AND k.key IS NOT NULL""",
        job_id,
    )
    return [row["key"] for row in found]


async def delete(job_id: UUID) -> None:
    """Remove a job, its runs, their items, requests, exports, logs and files' rows; call it after `lock_idle`."""
    await endpoint_queries.delete(job_id=job_id)
    # What there may be millions of goes first, in pieces: one cascade over all of it could outlast its time limit.
    of_runs = "dataset_id IN (SELECT execution_id FROM job_runs WHERE job_id = $1)"
    for table in ("items", "crawl_requests", "rejected_items"):
        await _delete_all(table, of_runs, job_id)
    await forget_versions(job_id)
    # What its crawls have found of properties and products stays.
    for table in ("properties", "product_sources"):
        while await database.value(
            f"""WITH left_alone AS (
                    UPDATE {table} SET job_id = NULL WHERE id IN (
                        SELECT id FROM {table} WHERE job_id = $1 ORDER BY source, source_id LIMIT $2 FOR UPDATE)
                    RETURNING 1)
                SELECT count(*) FROM left_alone""",
            job_id,
            _DETACH_ROWS,
        ):
            continue
    await database.rows(
        """DELETE FROM executions WHERE id IN (
               SELECT x.execution_id FROM item_exports x JOIN job_runs r ON r.execution_id = x.run_id
               WHERE r.job_id = $1)""",
        job_id,
    )
    await database.rows(
        "DELETE FROM executions WHERE id IN (SELECT execution_id FROM job_runs WHERE job_id = $1)", job_id
    )
    await database.rows("DELETE FROM jobs WHERE id = $1", job_id)


async def forget_versions(job_id: UUID) -> None:
    """Forget what a job stored under which identity: its next run that keeps only changes keeps all."""
    await _delete_all("item_versions", "job_id = $1", job_id)


async def _delete_all(table: str, whose: str, job_id: UUID) -> None:
    while await database.value(
        f"""WITH gone AS (
                DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {whose} LIMIT $2) RETURNING 1)
            SELECT count(*) FROM gone""",
        job_id,
        _PURGE_ROWS,
    ):
        continue


async def first_run(job_id: UUID) -> UUID | None:
    """The run that a job was made with, if it still is its first one."""
    found: UUID | None = await database.value(
        "SELECT execution_id FROM job_runs WHERE job_id = $1 ORDER BY execution_id LIMIT 1", job_id
    )
    return found


def _conditions(
    actor: Actor, owner_id: UUID | None, tool_id: UUID | None, search: str | None, is_scheduled: bool | None
) -> tuple[list[str], list[Any]]:
    where, values = ["true"], list[Any]()
    if not actor.is_admin:
        values.append(actor.user_id)  # for nobody it is null, which no owner equals
        where.append("j.owner_id = $1::uuid")
    if not actor.covers(None):
        where.append("false")
    for column, wanted in (
        ("j.owner_id", owner_id),
        ("j.tool_id", tool_id),
    ):
        if wanted is not None:
            values.append(wanted)
            where.append(f"{column} = ${len(values)}")
    if search:
        values.append(containing(search))
        where.append(f"j.name ILIKE ${len(values)}")
    if is_scheduled is not None:
        values.append(is_scheduled)
        where.append(f"EXISTS (SELECT 1 FROM job_schedules k WHERE k.job_id = j.id) = ${len(values)}")
    return where, values
