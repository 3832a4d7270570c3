"""What is asked of an execution: to be, and to stop.

Each command is one conditional statement, so two that race leave one winner. Call them inside a unit of work;
the caller publishes what follows from the answer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID

from errors import Conflict, RateLimitExceeded
from models import database
from models.database import Row

OWNER_INACTIVE: Final = "ownerInactive"
"""The detail `reason` of a refusal because the owner's account is switched off."""

_QUEUE_RETRY_SECONDS = 30

CANCEL_ALL_OF_OWNER = """
WITH unfinished AS (
    SELECT id FROM executions WHERE owner_id = $1 AND status IN ('QUEUED', 'RUNNING') ORDER BY id FOR NO KEY UPDATE
), changed AS (
    UPDATE executions SET
        cancel_requested_at = coalesce(cancel_requested_at, now()),
        status = CASE WHEN status = 'QUEUED' THEN 'CANCELLED' ELSE status END,
        finished_at = CASE WHEN status = 'QUEUED' THEN now() END,
        log_compaction_after = CASE WHEN status = 'QUEUED' THEN now() END
    FROM unfinished WHERE executions.id = unfinished.id AND status IN ('QUEUED', 'RUNNING')
    RETURNING executions.id, status, stage, attempt
), told AS (
    INSERT INTO execution_events (execution_id, at, status, stage, attempt, user_id)
    SELECT id, now(), 'CANCELLED', stage, attempt, $2::uuid FROM changed WHERE status = 'CANCELLED'
)
SELECT id, status FROM changed ORDER BY id
"""
"""Cancels what an owner has waiting and asks what runs to stop; `id` and `status` of each that is not final."""


class CancelOutcome(StrEnum):
    """What a request to cancel did."""

    CANCELLED = "CANCELLED"  # it had not begun
    REQUESTED = "REQUESTED"  # it runs and will stop
    FINAL = "FINAL"  # it had ended before: nothing changes


async def create(
    execution_id: UUID,
    *,
    kind: str,
    owner_id: UUID,
    requested_by: UUID | None,
    timeout_seconds: float,
    max_attempts: int,
    max_queued: int,
    turn_key: str | None = None,
) -> None:
    """Put an execution into the queue; raises RateLimitExceeded when the owner has `max_queued` waiting.

    Raises Conflict when the owner is not active: whoever is being deactivated waits for this, or this for them. Those
    that share a `turn_key` run one after the other, in this order.
    """
    if not await database.value("SELECT is_active FROM users WHERE id = $1 FOR SHARE", owner_id):
        raise Conflict("The owner's account is not active; nothing runs for it.", reason=OWNER_INACTIVE)
    # The lock is per owner and ends with the transaction; without it two requests could both pass the count.
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"queue:{owner_id}")
    waiting = await database.value(
        "SELECT count(*) FROM executions WHERE status = 'QUEUED' AND owner_id = $1 AND kind = $2", owner_id, kind
    )
    if waiting >= max_queued:
        raise RateLimitExceeded(
            f"You have {waiting} executions waiting, which is the limit. Wait for some to start or cancel them.",
            retry_after_seconds=_QUEUE_RETRY_SECONDS,
            limit=max_queued,
        )
    await database.rows(
        """WITH created AS (
               INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                   max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes,
                   turn_key)
               -- Not now(): of two that share a turn, the one that had the lock first comes first.
               VALUES ($1, $2, $3, $4, 'QUEUED', 0, 0, 0, $5, $6, 0, clock_timestamp(), false, 0, 0, $7)
           )
           INSERT INTO execution_events (execution_id, at, status, attempt, user_id)
           VALUES ($1, now(), 'QUEUED', 0, $4)""",
        execution_id,
        kind,
        owner_id,
        requested_by,
        max_attempts,
        timeout_seconds,
        turn_key,
    )


async def request_cancel(execution_id: UUID, *, by: UUID | None) -> CancelOutcome:
    """Ask an execution to stop. A queued one is CANCELLED at once, a running one once its processes are gone."""
    changed = await database.row(
        """UPDATE executions SET
               cancel_requested_at = coalesce(cancel_requested_at, now()),
               status = CASE WHEN status = 'QUEUED' THEN 'CANCELLED' ELSE status END,
               finished_at = CASE WHEN status = 'QUEUED' THEN now() END,
               -- There is a log if an earlier attempt was lost or handed back.
               log_compaction_after = CASE WHEN status = 'QUEUED' THEN now() END
           WHERE id = $1 AND status IN ('QUEUED', 'RUNNING')
           RETURNING status, stage, attempt""",
        execution_id,
    )
    if changed is None:
        return CancelOutcome.FINAL
    if changed["status"] != "CANCELLED":
        return CancelOutcome.REQUESTED
    await database.rows(
        """INSERT INTO execution_events (execution_id, at, status, stage, attempt, user_id)
           VALUES ($1, now(), 'CANCELLED', $2, $3, $4)""",
        execution_id,
        changed["stage"],
        changed["attempt"],
        by,
    )
    return CancelOutcome.CANCELLED


async def request_cancel_all(owner_id: UUID, *, by: UUID | None) -> list[Row]:
    """`request_cancel` for all that an owner has waiting or running; `id` and `status` of each afterwards."""
    return await database.rows(CANCEL_ALL_OF_OWNER, owner_id, by)
