"""A month that somebody might have had: deployments and runs that ended, for an installation to look at.

Rows are written as the engine leaves them, and triggers count them as they count all others. What deployments of the
past had built is not there: they tell when and how they ended, and have no files.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from models import database
from models.database import Row
from models.deployments import KIND as DEPLOYMENT
from models.executions import ExecutionStatus, FailureCode
from models.jobs import CloseReason, RunTrigger
from models.project_queries import CONFIGURATION_COLUMNS
from models.projects import DeploymentEnvironment
from models.sites import PRODUCTION_ALIAS

DAYS: Final = 30
SEED: Final = 7
_KEY_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_MESSAGES: Final = (
    "Plant tulips along the path",
    "Water the beds twice a week",
    "Say when the gate is open",
    "Sort the list of seeds",
    "Shrink the photographs",
    "Mend the link to the map",
    "Prune what nobody reads",
    "A page for the greenhouse",
)
_AUTHORS: Final = ("Ada", "Grace", "Edsger", "Barbara")
_PREVIEWS: Final = ("spring", "greenhouse", "opening-hours")
_BROKEN: Final = (FailureCode.COMMAND_FAILED, "The build command ended with exit code 1.", "BUILDING")
_UNREACHABLE: Final = (FailureCode.START_ERROR, "The first page did not answer.", None)


@dataclass(frozen=True, slots=True)
class PastRun:
    """A job whose runs of the past are made up, and what each found."""

    job_id: UUID
    tool_id: UUID
    spider: str
    input: dict[str, Any]
    items: int
    pages: int
    hour: int


@dataclass(frozen=True, slots=True)
class _End:
    asked_at: datetime
    waited: float
    worked: float
    status: ExecutionStatus
    failure: tuple[FailureCode, str, str | None] | None = None


async def write(owner_id: UUID, projects: Sequence[Row], runs: Sequence[PastRun], *, now: datetime) -> tuple[int, int]:
    """Write deployments of the projects (their rows) and runs of the jobs, up to an hour ago; how many of each.

    Call it inside a unit of work. The same every time: only the times move with `now`, and keys are new.
    """
    chance = random.Random(SEED)  # noqa: S311 - nothing secret
    made: list[UUID] = []
    for project in projects:
        made += await _deployments(owner_id, project, chance, now)
    deployments = len(made)
    for run in runs:
        made += await _runs(owner_id, run, chance, now)
    # It was long ago: nobody is told of it now.
    await database.rows(
        """DELETE FROM outbox_messages WHERE topic IN ('deployment.status', 'execution.news')
           AND split_part(key, ':', 1) = ANY($1::text[])""",
        [str(each) for each in made],
    )
    return deployments, len(made) - deployments


async def _deployments(owner_id: UUID, project: Row, chance: random.Random, now: datetime) -> list[UUID]:
    configuration = database.to_json({name: project[name] for name in CONFIGURATION_COLUMNS})
    made: list[UUID] = []
    for day in range(DAYS, 0, -1):
        morning = (now - timedelta(days=day)).replace(hour=8, minute=0, second=0, microsecond=0)
        for _ in range(chance.randint(1, 4) if morning.weekday() < 5 else chance.randint(0, 1)):
            end = _end_of(chance, morning + timedelta(minutes=chance.randint(0, 600)), (15, 95), _BROKEN, broken=0.1)
            if end.asked_at > now - timedelta(hours=1):
                continue
            execution_id = await _execution(owner_id, DEPLOYMENT, end)
            made.append(execution_id)
            is_preview = chance.random() < 0.3
            branch = chance.choice(_PREVIEWS) if is_preview else project["branch"]
            number = await database.value(
                "UPDATE projects SET deployment_count = deployment_count + 1 WHERE id = $1 RETURNING deployment_count",
                project["id"],
            )
            await database.rows(
                """INSERT INTO deployments (execution_id, project_id, number, environment, trigger, branch, commit_hash,
                       commit_message, commit_author, committed_at, is_fork, clone_url, configuration, site_key, alias,
                       build_seconds)
                   VALUES ($1, $2, $3, $4, 'PUSH', $5, $6, $7, $8, $9, false, $10, $11::jsonb, $12, $13, $14)""",
                execution_id,
                project["id"],
                number,
                (DeploymentEnvironment.PREVIEW if is_preview else DeploymentEnvironment.PRODUCTION).value,
                branch,
                f"{chance.getrandbits(160):040x}",
                chance.choice(_MESSAGES),
                chance.choice(_AUTHORS),
                end.asked_at - timedelta(minutes=2),
                project["repository"],
                configuration,
                "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16)),
                branch if is_preview else PRODUCTION_ALIAS,
                end.worked * 0.8 if end.status is ExecutionStatus.SUCCEEDED else None,
            )
    return made


async def _runs(owner_id: UUID, run: PastRun, chance: random.Random, now: datetime) -> list[UUID]:
    made: list[UUID] = []
    for day in range(DAYS, 0, -1):
        asked_at = (now - timedelta(days=day)).replace(hour=run.hour, minute=30, second=0, microsecond=0)
        end = _end_of(chance, asked_at, (12, 30), _UNREACHABLE, broken=0.04)
        if asked_at > now - timedelta(hours=1):
            continue
        is_whole = end.status is ExecutionStatus.SUCCEEDED
        items, pages = (run.items, run.pages) if is_whole else (0, 0)
        execution_id = await _execution(owner_id, "CRAWL", end)
        made.append(execution_id)
        reasons = {
            ExecutionStatus.SUCCEEDED: CloseReason.FINISHED,
            ExecutionStatus.CANCELLED: CloseReason.STOPPED_BY_USER,
        }
        await database.rows(
            """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                   is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                   requests_robots, requests_throttled, close_reason, expected_items)
               VALUES ($1, $2, $3, $4, $5::jsonb, '{}', $6, $1, true, $7, $8, 0, $9, 0, 0, 0, $10, $11)""",
            execution_id,
            run.job_id,
            run.tool_id,
            run.spider,
            database.to_json(run.input),
            RunTrigger.SCHEDULE.value,
            items,
            pages,
            pages * 1_450,
            reasons.get(end.status, CloseReason.START_ERROR).value,
            run.items if is_whole else None,
        )
    return made


def _end_of(
    chance: random.Random,
    asked_at: datetime,
    seconds: tuple[int, int],
    failure: tuple[FailureCode, str, str | None],
    *,
    broken: float,
) -> _End:
    drawn = chance.random()
    worked, waited = chance.uniform(*seconds), chance.uniform(0.2, 12)
    if drawn < broken:
        return _End(asked_at, waited, worked / 2, ExecutionStatus.FAILED, failure)
    if drawn < broken * 1.4:
        return _End(asked_at, waited, worked / 3, ExecutionStatus.CANCELLED)
    return _End(asked_at, waited, worked, ExecutionStatus.SUCCEEDED)


async def _execution(owner_id: UUID, kind: str, end: _End) -> UUID:
    """A final execution with its history."""
    execution_id = _id_at(end.asked_at)
    started_at = end.asked_at + timedelta(seconds=end.waited)
    finished_at = started_at + timedelta(seconds=end.worked)
    code, message, stage = end.failure or (None, None, None)
    await database.rows(
        """INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
               max_attempts, timeout_seconds, worked_seconds, queued_at, claimed_at, started_at, finished_at,
               cancel_requested_at, failure_code, failure_message, failure_stage, failure_retryable, log_sequence,
               log_bytes)
           VALUES ($1, $2, $3, $3, $4::varchar, $5, 1, 0, 3, 1800, $6, $7, $8, $8, $9,
                   CASE WHEN $4::varchar = 'CANCELLED' THEN $9::timestamptz END, $10, $11, $12, false, 0, 0)""",
        execution_id,
        kind,
        owner_id,
        end.status.value,
        100 if end.status is ExecutionStatus.SUCCEEDED else 40,
        end.worked,
        end.asked_at,
        started_at,
        finished_at,
        code and code.value,
        message,
        stage,
    )
    await database.rows(
        """INSERT INTO execution_events (execution_id, at, status, attempt)
           SELECT $1, at, status, attempt
           FROM unnest($2::timestamptz[], $3::varchar[], $4::int[]) AS t(at, status, attempt)""",
        execution_id,
        [end.asked_at, started_at, finished_at],
        [ExecutionStatus.QUEUED.value, ExecutionStatus.RUNNING.value, end.status.value],
        [0, 1, 1],
    )
    return execution_id


def _id_at(moment: datetime) -> UUID:
    """An id as `new_id` would have made it then: lists are in its order."""
    milliseconds = int(moment.timestamp() * 1_000)
    return UUID(int=milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62))
