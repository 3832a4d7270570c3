"""Making a run of a job: the one way for people and schedules, called inside a unit of work.

A run keeps a snapshot of its job's input and its tool's spider. Invariants: run, execution and audit event come to be
together or not at all; nothing is written when a run is refused. Who may ask is decided by the callers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from errors import Conflict, RateLimitExceeded
from models import crawl_usage, database, execution_commands
from models.audit import AuditEvent
from models.jobs import RunTrigger
from models.permissions import Actor
from settings import Settings
from tasks import queue
from tasks.crawl.kind import KIND

TOOL_INACTIVE: Final = "toolInactive"
"""The detail `reason` of a refusal because the job's tool was switched off."""


async def start(
    settings: Settings,
    actor: Actor,
    run_id: UUID,
    job_id: UUID,
    *,
    limits: Mapping[str, int],
    trigger: RunTrigger,
    action: str,
    retry_of: UUID | None = None,
) -> bool:
    """Queue a run of a job for its owner, asked for by the actor; False when the job is gone.

    Raises Conflict when the job's tool or its owner is not active, RateLimitExceeded when too many wait.
    """
    source = await database.row(
        """SELECT j.owner_id, j.tool_id, t.spider, t.is_active, j.input, j.only_changes, j.saves_products
           FROM jobs j JOIN tools t ON t.id = j.tool_id WHERE j.id = $1 FOR SHARE OF j""",
        job_id,
    )
    if source is None:
        return False
    if not source["is_active"]:
        raise Conflict("The job's tool is not active; no run can start.", reason=TOOL_INACTIVE)
    await create_execution(settings, actor, run_id, source["owner_id"], limits)
    await database.rows(
        """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id, retry_of_id,
               only_changes, saves_products, is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded,
               requests_blocked, requests_robots, requests_throttled)
           VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $1, $8, $9, $10, false, 0, 0, 0, 0, 0, 0, 0)""",
        run_id,
        job_id,
        source["tool_id"],
        source["spider"],
        source["input"],
        database.to_json(dict(limits)),
        trigger.value,
        retry_of,
        source["only_changes"],
        source["saves_products"],
    )
    await record(actor, action, run_id, job_id)
    return True


async def create_execution(
    settings: Settings, actor: Actor, run_id: UUID, owner_id: UUID, limits: Mapping[str, int]
) -> None:
    """Put the execution of a run into the queue, and ring once it is committed; raises as `start`."""
    await refuse_spent_day(settings, owner_id)
    await execution_commands.create(
        run_id,
        kind=KIND,
        owner_id=owner_id,
        requested_by=actor.user_id,
        timeout_seconds=limits.get("timeoutSeconds", settings.crawl_timeout_seconds),
        max_attempts=settings.max_attempts,
        max_queued=settings.max_queued_per_user,
    )
    await queue.ring(KIND, run_id)


async def refuse_spent_day(settings: Settings, owner_id: UUID) -> None:
    """Raises RateLimitExceeded, saying when the day ends, for an owner who has had all pages of theirs."""
    used = await crawl_usage.usage(owner_id)
    if used["pages"] >= settings.crawl_pages_per_day:
        raise RateLimitExceeded(
            f"Your crawls have fetched {used['pages']:,} pages today, which is the limit; a new day begins at"
            f" {used['ends_at']:%Y-%m-%d %H:%M} UTC.",
            retry_after_seconds=used["seconds_left"],
            limit=settings.crawl_pages_per_day,
            resetsAt=used["ends_at"].isoformat(),
        )
    await crawl_usage.forget_old_days(owner_id)


async def record(actor: Actor, action: str, run_id: UUID, job_id: UUID) -> None:
    """Write down that somebody asked for a run."""
    await AuditEvent.record(actor, action, target_type="run", target_id=run_id, details={"job": str(job_id)})
