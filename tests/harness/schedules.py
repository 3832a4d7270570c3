"""Schedules in tests: set through the API, made due in the database, so that nobody has to wait for a clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from models.ids import Prefix, encode_id
from tests.factories import Person
from tests.harness.client import GraphQLClient

SCHEDULE_FIELDS = """
cronExpression timeZone isPaused pauseReason overlapPolicy missedRunPolicy limits nextRunAt lastRunAt nextRuns note
ticks { edges { node { tickAt outcome reason run { id } } } }
"""
SET = f"""
mutation Set($input: SetJobScheduleInput!) {{
  it: setJobSchedule(input: $input) {{ job {{ id schedule {{ {SCHEDULE_FIELDS} }} }} }}
}}
"""


async def set_schedule(client: GraphQLClient, person: Person, job: UUID, **fields: Any) -> dict[str, Any]:
    """Give a job a schedule, hourly unless said otherwise; the schedule."""
    given = {"jobId": job_id(job), "cronExpression": "0 * * * *", **fields}
    data = await client.run(SET, {"input": given}, token=person.token)
    schedule: dict[str, Any] = data["it"]["job"]["schedule"]
    return schedule


async def make_due(db: asyncpg.Connection | asyncpg.Pool, *jobs: UUID, ago: timedelta = timedelta(0)) -> datetime:
    """Let schedules be due at a moment of their own, the full minute that lies so far back; the moment."""
    moment: datetime = await db.fetchval("SELECT date_trunc('minute', now()) - $1::interval", ago)
    await db.execute("UPDATE job_schedules SET next_run_at = $2 WHERE job_id = ANY($1::uuid[])", list(jobs), moment)
    return moment


async def ticks(db: asyncpg.Connection | asyncpg.Pool, *jobs: UUID) -> Sequence[asyncpg.Record]:
    """What became of the moments of jobs, oldest first."""
    found: Sequence[asyncpg.Record] = await db.fetch(
        "SELECT * FROM schedule_ticks WHERE job_id = ANY($1::uuid[]) ORDER BY tick_at, id", list(jobs)
    )
    return found


async def runs(db: asyncpg.Connection | asyncpg.Pool, *jobs: UUID) -> list[UUID]:
    """The runs of jobs, oldest first."""
    found = await db.fetch(
        "SELECT execution_id FROM job_runs WHERE job_id = ANY($1::uuid[]) ORDER BY execution_id", list(jobs)
    )
    return [row["execution_id"] for row in found]


def job_id(job: UUID) -> str:
    """The id of a job that clients see."""
    return encode_id(Prefix.JOB, job)
