"""Schedules as they are read, changed and fired: plain rows whose columns begin with `schedule_`.

Functions that write are called inside a unit of work. Invariant: whoever fires holds the rows of the schedule, its job
and its owner, taken without waiting, so that firing and deleting never wait for each other in a circle.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database
from models.database import Row
from models.schedules import MissedRunPolicy, OverlapPolicy, TickOutcome, TickReason

KEPT_TICKS: Final = 1_000
KEPT_DAYS: Final = 90

SCHEDULE_COLUMNS: Final = (
    "s.job_id AS schedule_job_id, s.cron_expression AS schedule_cron_expression, s.time_zone AS schedule_time_zone,"
    " s.is_paused AS schedule_is_paused, s.pause_reason AS schedule_pause_reason,"
    " s.overlap_policy AS schedule_overlap_policy, s.missed_run_policy AS schedule_missed_run_policy,"
    " s.limits::text AS schedule_limits, s.next_run_at AS schedule_next_run_at, s.last_run_at AS schedule_last_run_at,"
    " s.created_at AS schedule_created_at, s.updated_at AS schedule_updated_at"
)

# By kind, owner and status, which have indexes of what is unfinished: a job may have very many runs that ended.
_BUSY: Final = """
SELECT EXISTS (SELECT 1 FROM executions e JOIN job_runs r ON r.execution_id = e.id
               WHERE e.status = 'QUEUED' AND e.kind = 'CRAWL' AND e.owner_id = {owner} AND r.job_id = {job})
           AS has_waiting_run,
       EXISTS (SELECT 1 FROM executions e JOIN job_runs r ON r.execution_id = e.id
               WHERE e.status = 'RUNNING' AND e.kind = 'CRAWL' AND e.owner_id = {owner} AND r.job_id = {job})
           AS has_working_run
"""


async def now() -> datetime:
    """The present moment of PostgreSQL's clock; within a transaction the one at which it began."""
    found: datetime = await database.value("SELECT now()")
    return found


async def find(job_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The schedules of those of the jobs that have one."""
    found = await database.rows(
        f"SELECT {SCHEDULE_COLUMNS} FROM job_schedules s WHERE s.job_id = ANY($1::uuid[])", list(job_ids)
    )
    return {row["schedule_job_id"]: row for row in found}


# -- what people do


async def count_others(owner_id: UUID, job_id: UUID) -> int:
    """How many other jobs of an owner have a schedule; until the end of the transaction nobody else adds one."""
    # The lock is per owner and ends with the transaction; without it two requests could both pass the count.
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"schedules:{owner_id}")
    return int(
        await database.value(
            """SELECT count(*) FROM job_schedules s JOIN jobs j ON j.id = s.job_id
               WHERE j.owner_id = $1 AND s.job_id <> $2""",
            owner_id,
            job_id,
        )
    )


async def put(
    job_id: UUID,
    *,
    cron_expression: str,
    time_zone: str,
    is_paused: bool | None,
    overlap_policy: OverlapPolicy,
    missed_run_policy: MissedRunPolicy,
    limits: Mapping[str, int],
    next_run_at: datetime,
) -> bool:
    """Give a job a schedule, in the place of one that it may have; False when the job is gone.

    With `is_paused` None it stays paused if it is. A run that waited for another one's end waits no more.
    """
    if await database.value("SELECT 1 FROM jobs WHERE id = $1 FOR KEY SHARE", job_id) is None:
        return False
    await drop_waiting(job_id)
    await database.rows(
        """INSERT INTO job_schedules AS s (job_id, cron_expression, time_zone, is_paused, overlap_policy,
               missed_run_policy, limits, next_run_at, created_at, updated_at)
           VALUES ($1, $2, $3, coalesce($4, false), $5, $6, $7::jsonb,
               CASE WHEN NOT coalesce($4, false) THEN $8::timestamptz END, now(), now())
           ON CONFLICT (job_id) DO UPDATE SET cron_expression = excluded.cron_expression,
               time_zone = excluded.time_zone, overlap_policy = excluded.overlap_policy,
               missed_run_policy = excluded.missed_run_policy, limits = excluded.limits, updated_at = now(),
               inactive_tool_ticks = 0, is_paused = coalesce($4, s.is_paused),
               pause_reason = CASE WHEN coalesce($4, s.is_paused) THEN s.pause_reason END,
               next_run_at = CASE WHEN NOT coalesce($4, s.is_paused) THEN $8::timestamptz END""",
        job_id,
        cron_expression,
        time_zone,
        is_paused,
        overlap_policy.value,
        missed_run_policy.value,
        database.to_json(dict(limits)),
        next_run_at,
    )
    return True


async def lock(job_id: UUID) -> Row | None:
    """A job's schedule, which stays as it is until the end of the transaction."""
    return await database.row(f"SELECT {SCHEDULE_COLUMNS} FROM job_schedules s WHERE s.job_id = $1 FOR UPDATE", job_id)


async def pause(job_id: UUID) -> None:
    """Let nothing of a schedule run."""
    await drop_waiting(job_id)
    await database.rows(
        "UPDATE job_schedules SET is_paused = true, pause_reason = NULL, next_run_at = NULL, updated_at = now()"
        " WHERE job_id = $1",
        job_id,
    )


async def resume(job_id: UUID, *, next_run_at: datetime) -> None:
    """Let a schedule go on from a moment."""
    await database.rows(
        """UPDATE job_schedules SET is_paused = false, pause_reason = NULL, inactive_tool_ticks = 0, next_run_at = $2,
               updated_at = now() WHERE job_id = $1""",
        job_id,
        next_run_at,
    )


async def delete(job_id: UUID) -> bool:
    """Take a job's schedule and its ticks away; False when it has none."""
    gone = await database.value("DELETE FROM job_schedules WHERE job_id = $1 RETURNING job_id", job_id)
    if gone is not None:
        await database.rows("DELETE FROM schedule_ticks WHERE job_id = $1", job_id)
    return gone is not None


async def drop_waiting(job_id: UUID) -> None:
    """Give up a tick that waits for the end of a run, if there is one."""
    # The schedule comes first, as whoever fires has it.
    await database.rows("UPDATE job_schedules SET waiting_tick_at = NULL WHERE job_id = $1", job_id)
    await database.rows(
        """UPDATE schedule_ticks SET outcome = 'SKIPPED', reason = $2, decided_at = now()
           WHERE job_id = $1 AND outcome = 'QUEUED'""",
        job_id,
        TickReason.SCHEDULE_CHANGED.value,
    )


# -- the history


async def ticks(
    job_id: UUID, *, after: datetime | None, before: datetime | None, backwards: bool, limit: int
) -> list[Row]:
    """What became of a schedule's moments, newest first, strictly between two; backwards from the end of the list."""
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"""SELECT tick_at, outcome, reason, run_id, decided_at FROM schedule_ticks
            WHERE job_id = $1 AND ($2::timestamptz IS NULL OR tick_at < $2)
              AND ($3::timestamptz IS NULL OR tick_at > $3)
            ORDER BY tick_at {direction} LIMIT $4""",
        job_id,
        after,
        before,
        limit,
    )


async def count_ticks(job_id: UUID) -> int:
    """How many there are in all."""
    return int(await database.value("SELECT count(*) FROM schedule_ticks WHERE job_id = $1", job_id))


# -- firing


async def due(*, limit: int, but_not: Sequence[UUID]) -> list[UUID]:
    """Jobs whose schedule has something to do now, the longest due first."""
    owner_and_job = {"owner": "j.owner_id", "job": "s.job_id"}
    found = await database.rows(
        f"""(SELECT job_id, next_run_at AS due_at FROM job_schedules
             WHERE next_run_at <= now() AND job_id <> ALL($2::uuid[]) ORDER BY next_run_at LIMIT $1)
            UNION ALL
            (SELECT s.job_id, s.waiting_tick_at FROM job_schedules s JOIN jobs j ON j.id = s.job_id
             CROSS JOIN LATERAL ({_BUSY.format(**owner_and_job)}) AS busy
             WHERE s.waiting_tick_at IS NOT NULL AND s.job_id <> ALL($2::uuid[])
               AND NOT has_waiting_run AND NOT has_working_run ORDER BY s.waiting_tick_at LIMIT $1)
            ORDER BY due_at LIMIT $1""",
        limit,
        list(but_not),
    )
    return list(dict.fromkeys(row["job_id"] for row in found))


async def lock_due(job_id: UUID) -> Row | None:
    """A schedule that has something to do, locked with its job and owner; None when others have it or have done it.

    `now` is the moment that all of the firing goes by.
    """
    return await database.row(
        """SELECT s.job_id, s.cron_expression, s.time_zone, s.overlap_policy, s.missed_run_policy,
                  s.limits::text AS limits, s.next_run_at, s.waiting_tick_at, s.inactive_tool_ticks,
                  j.owner_id, j.name, now() AS now
           FROM job_schedules s JOIN jobs j ON j.id = s.job_id JOIN users u ON u.id = j.owner_id
           WHERE s.job_id = $1 AND (s.next_run_at <= now() OR s.waiting_tick_at IS NOT NULL)
           FOR UPDATE OF s SKIP LOCKED FOR SHARE OF j, u SKIP LOCKED""",
        job_id,
    )


async def busy(job_id: UUID, owner_id: UUID) -> tuple[bool, bool]:
    """Whether a run of a job waits, and whether one works."""
    found = await database.row(_BUSY.format(owner="$1", job="$2"), owner_id, job_id)
    return (False, False) if found is None else (found["has_waiting_run"], found["has_working_run"])


async def add_ticks(
    job_id: UUID,
    moments: Sequence[datetime],
    outcome: TickOutcome,
    *,
    reason: TickReason | None = None,
    run_id: UUID | None = None,
) -> bool:
    """Write down what became of moments; False when all of them were written down before."""
    added = await database.rows(
        """INSERT INTO schedule_ticks (job_id, tick_at, outcome, reason, run_id, decided_at)
           SELECT $1, tick_at, $3, $4, $5, now() FROM unnest($2::timestamptz[]) AS t(tick_at)
           ON CONFLICT (job_id, tick_at) DO NOTHING RETURNING id""",
        job_id,
        list(moments),
        outcome.value,
        reason,
        run_id,
    )
    return bool(added)


async def change_tick(
    job_id: UUID, tick_at: datetime, outcome: TickOutcome, *, reason: TickReason | None, run_id: UUID | None
) -> None:
    """Say that something else became of a moment."""
    await database.rows(
        """UPDATE schedule_ticks SET outcome = $3, reason = $4, run_id = $5, decided_at = now()
           WHERE job_id = $1 AND tick_at = $2""",
        job_id,
        tick_at,
        outcome.value,
        reason,
        run_id,
    )


async def keep(job_id: UUID, changes: Mapping[str, Any]) -> None:
    """Keep what a firing leaves of a schedule, by columns, and cut the history; a tick that waits stays in it."""
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(changes, start=2))
    await database.rows(f"UPDATE job_schedules SET {assignments} WHERE job_id = $1", job_id, *changes.values())
    await database.rows(
        """DELETE FROM schedule_ticks WHERE job_id = $1 AND outcome <> 'QUEUED' AND (
               tick_at < now() - make_interval(days => $2) OR tick_at <= (
                   SELECT tick_at FROM schedule_ticks WHERE job_id = $1 ORDER BY tick_at DESC OFFSET $3 LIMIT 1))""",
        job_id,
        KEPT_DAYS,
        KEPT_TICKS,
    )
