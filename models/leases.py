"""Leases: how a worker comes to hold an execution, keeps it, and loses it.

A claim takes the oldest execution of whoever was served longest ago, so one owner's hundred do not starve
another's one. `attempt` grows with each claim and fences every later write. Times are PostgreSQL's, so the
clocks of workers do not matter. These functions take a connection, because leases must not wait for a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from models.database import Row
from models.executions import NOT_MEASURED, Claim, ExecutionStatus, Failure, Usage


class LeaseLost(Exception):
    """Somebody else may hold the execution now: stop at once and write nothing."""


class Connection(Protocol):
    """What is needed of an asyncpg connection or pool."""

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Rows of a statement."""

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """First row of a statement."""

    async def fetchval(self, query: str, *args: object) -> object:
        """First value of a statement."""


@dataclass(frozen=True, slots=True)
class Swept:
    """An execution whose worker was lost, and what became of it."""

    execution_id: UUID
    owner_id: UUID
    kind: str
    status: ExecutionStatus


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease that still holds, and whether its execution should stop."""

    execution_id: UUID
    attempt: int
    is_cancel_requested: bool
    is_extended: bool


# Whose turn it is among those that share a key: none of them runs, and none that still waits was asked for earlier.
_HAS_ITS_TURN = """(
    waits.turn_key IS NULL OR NOT (
        EXISTS (SELECT 1 FROM executions other WHERE other.turn_key = waits.turn_key AND other.status = 'RUNNING')
        OR EXISTS (SELECT 1 FROM executions other WHERE other.turn_key = waits.turn_key AND other.status = 'QUEUED'
                   AND (other.queued_at, other.id) < (waits.queued_at, waits.id))))"""

# Fairness is decided inside one statement: per owner the oldest execution that waits and whose turn it is, of owners
# below their cap, ordered by who runs least and who was served longest ago.
_CLAIM = f"""
WITH waiting AS (
    SELECT DISTINCT ON (owner_id) owner_id, id, queued_at FROM executions waits
    WHERE status = 'QUEUED' AND kind = $1 AND {_HAS_ITS_TURN} ORDER BY owner_id, queued_at, id
), busy AS (
    SELECT owner_id, count(*) AS running FROM executions
    WHERE status = 'RUNNING' AND kind = $1 GROUP BY owner_id
), ranked AS (
    SELECT waiting.owner_id, waiting.queued_at, coalesce(running, 0) AS running, served_at FROM waiting
    LEFT JOIN busy USING (owner_id)
    LEFT JOIN queue_turns ON queue_turns.kind = $1 AND queue_turns.owner_id = waiting.owner_id
    WHERE coalesce(running, 0) < $4
), chosen AS (
    SELECT candidate.id FROM ranked
    CROSS JOIN LATERAL (
        SELECT id FROM executions waits
        WHERE status = 'QUEUED' AND kind = $1 AND waits.owner_id = ranked.owner_id AND {_HAS_ITS_TURN}
        ORDER BY queued_at, id LIMIT 1 FOR UPDATE SKIP LOCKED -- a cancel may hold it
    ) AS candidate
    ORDER BY running, served_at NULLS FIRST, queued_at LIMIT 1
)
UPDATE executions SET
    status = 'RUNNING', attempt = attempt + 1, worker = $2, progress = 0, claimed_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => $3),
    started_at = coalesce(started_at, clock_timestamp())
FROM chosen WHERE executions.id = chosen.id AND executions.status = 'QUEUED'
RETURNING executions.id, kind, owner_id, attempt, stage, log_sequence, log_bytes,
    timeout_seconds - worked_seconds AS remaining_seconds,
    extract(epoch FROM clock_timestamp() - queued_at)::float8 AS waited_seconds
"""  # noqa: S608 - joined from constants of this module

# Claims of a kind happen one after the other, so that the caps are exact. A worker that freezes in between is
# cut off by the server after two seconds and stops nobody for longer.
_CLAIM_ALONE = """
SELECT set_config('idle_in_transaction_session_timeout', '2000', true),
       pg_advisory_xact_lock(hashtextextended('claim:' || $1, 0))
"""

_RECORD_CLAIM = """
WITH turn AS (
    INSERT INTO queue_turns (kind, owner_id, served_at) VALUES ($1, $2, clock_timestamp())
    ON CONFLICT (kind, owner_id) DO UPDATE SET served_at = excluded.served_at
)
INSERT INTO execution_events (execution_id, at, status, attempt, worker) VALUES ($3, now(), 'RUNNING', $4, $5)
"""


async def claim(
    connection: Connection, kind: str, *, worker: str, lease_seconds: float, max_running_per_owner: int
) -> Claim | None:
    """Take the next execution of a kind, or None when nothing may start. Run it in a transaction."""
    await connection.fetch(_CLAIM_ALONE, kind)
    row = await connection.fetchrow(_CLAIM, kind, worker, lease_seconds, max_running_per_owner)
    if row is None:
        return None
    await connection.fetch(_RECORD_CLAIM, kind, row["owner_id"], row["id"], row["attempt"], worker)
    return Claim(
        execution_id=row["id"],
        kind=row["kind"],
        owner_id=row["owner_id"],
        attempt=row["attempt"],
        stage=row["stage"],
        log_sequence=row["log_sequence"],
        log_bytes=row["log_bytes"],
        remaining_seconds=max(0.0, row["remaining_seconds"]),
        waited_seconds=max(0.0, row["waited_seconds"]),
    )


async def renew(
    connection: Connection, held: Sequence[tuple[UUID, int]], *, lease_seconds: float
) -> dict[UUID, Renewal]:
    """Extend leases; one that is missing from the answer is lost.

    A row that a transaction of its own worker has locked is passed over and said to be held, not extended: one
    slow write must not cost all other leases. An expired lease that nobody took is extended, as nobody wrote since.
    """
    rows = await connection.fetch(
        """WITH asked AS (
               SELECT * FROM unnest($1::uuid[], $2::int[]) AS asked(id, attempt)
           ), free AS (
               SELECT executions.id FROM executions JOIN asked USING (id, attempt)
               WHERE status = 'RUNNING' FOR NO KEY UPDATE OF executions SKIP LOCKED
           ), extended AS (
               UPDATE executions SET lease_until = clock_timestamp() + make_interval(secs => $3)
               FROM free WHERE executions.id = free.id RETURNING executions.id
           )
           SELECT executions.id, attempt, cancel_requested_at IS NOT NULL AS cancel, extended.id IS NOT NULL AS extended
           FROM executions JOIN asked USING (id, attempt) LEFT JOIN extended ON extended.id = executions.id
           WHERE status = 'RUNNING'""",
        [execution_id for execution_id, _ in held],
        [attempt for _, attempt in held],
        lease_seconds,
    )
    return {row["id"]: Renewal(row["id"], row["attempt"], row["cancel"], row["extended"]) for row in rows}


async def cancels_among(connection: Connection, execution_ids: Sequence[UUID]) -> list[UUID]:
    """Which of these running executions somebody asked to stop."""
    rows = await connection.fetch(
        "SELECT id FROM executions WHERE id = ANY($1::uuid[]) AND cancel_requested_at IS NOT NULL",
        list(execution_ids),
    )
    return [row["id"] for row in rows]


async def advance(connection: Connection, claim: Claim, *, progress: int, stage: str | None) -> bool:
    """Write progress (never back) and stage; False when the lease is lost."""
    row = await connection.fetchrow(
        """WITH before AS (SELECT stage FROM executions WHERE id = $1),
           changed AS (
               UPDATE executions SET progress = greatest(progress, $3), stage = coalesce($4, stage)
               WHERE id = $1 AND attempt = $2 AND status = 'RUNNING' RETURNING id, stage, attempt, worker
           ), event AS (
               INSERT INTO execution_events (execution_id, at, status, stage, attempt, worker)
               SELECT id, now(), 'RUNNING', changed.stage, attempt, worker FROM changed, before
               WHERE changed.stage IS DISTINCT FROM before.stage
           )
           SELECT id FROM changed""",
        claim.execution_id,
        claim.attempt,
        progress,
        stage,
    )
    return row is not None


async def finish(
    connection: Connection,
    claim: Claim,
    status: ExecutionStatus,
    *,
    failure: Failure | None = None,
    used: Usage = NOT_MEASURED,
    compact_log_after_seconds: float,
) -> bool:
    """Write the final status, once, and add what the attempt used.

    False when the lease is lost or the execution is final already.
    """
    row = await connection.fetchrow(
        """WITH changed AS (
               UPDATE executions SET status = $3::varchar, finished_at = clock_timestamp(),
                   worker = NULL, lease_until = NULL,
                   worked_seconds = worked_seconds + extract(epoch FROM clock_timestamp() - claimed_at),
                   progress = CASE WHEN $3::varchar = 'SUCCEEDED' THEN 100 ELSE progress END,
                   failure_code = $4, failure_message = $5, failure_stage = $6, failure_exit_code = $7,
                   failure_signal = $8, failure_retryable = $9,
                   log_compaction_after = now() + make_interval(secs => $10),
                   cpu_milliseconds = coalesce(cpu_milliseconds + $11, $11, cpu_milliseconds),
                   peak_memory_bytes = greatest(peak_memory_bytes, $12)
               WHERE id = $1 AND attempt = $2 AND status = 'RUNNING' RETURNING id, stage, attempt
           ), event AS (
               INSERT INTO execution_events (execution_id, at, status, stage, attempt)
               SELECT id, now(), $3::varchar, stage, attempt FROM changed
           )
           SELECT id FROM changed""",
        claim.execution_id,
        claim.attempt,
        status.value,
        failure and failure.code.value,
        failure and _storable(failure.message[:4000]),
        failure and failure.stage,
        failure and failure.exit_code,
        failure and failure.signal,
        bool(failure and failure.retryable),
        compact_log_after_seconds,
        used.cpu_milliseconds,
        used.peak_memory_bytes,
    )
    return row is not None


async def hand_back(connection: Connection, claim: Claim, *, used: Usage = NOT_MEASURED) -> bool:
    """Return an execution to the queue without spending an attempt of its budget: a worker that drains."""
    row = await connection.fetchrow(
        """WITH changed AS (
               UPDATE executions SET status = 'QUEUED', worker = NULL, lease_until = NULL,
                   worked_seconds = worked_seconds + extract(epoch FROM clock_timestamp() - claimed_at),
                   cpu_milliseconds = coalesce(cpu_milliseconds + $3, $3, cpu_milliseconds),
                   peak_memory_bytes = greatest(peak_memory_bytes, $4)
               WHERE id = $1 AND attempt = $2 AND status = 'RUNNING' RETURNING id, stage, attempt
           ), event AS (
               INSERT INTO execution_events (execution_id, at, status, stage, attempt)
               SELECT id, now(), 'QUEUED', stage, attempt FROM changed
           )
           SELECT id FROM changed""",
        claim.execution_id,
        claim.attempt,
        used.cpu_milliseconds,
        used.peak_memory_bytes,
    )
    return row is not None


async def sweep(connection: Connection, *, limit: int, compact_log_after_seconds: float) -> list[Swept]:
    """Take away leases that ran out.

    A lost execution that was asked to stop is CANCELLED (its processes died before its lease did), one with
    attempts left goes back to the queue, the rest FAILED with WORKER_LOST.
    """
    rows = await connection.fetch(
        """WITH lost AS (
               SELECT id, CASE WHEN cancel_requested_at IS NOT NULL THEN 'CANCELLED'
                               WHEN lost_workers + 1 < max_attempts THEN 'QUEUED' ELSE 'FAILED' END AS outcome
               FROM executions WHERE status = 'RUNNING' AND lease_until < clock_timestamp()
               ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED
           ), changed AS (
               UPDATE executions SET status = outcome, worker = NULL, lease_until = NULL,
                   lost_workers = lost_workers + 1,
                   worked_seconds = worked_seconds + extract(epoch FROM lease_until - claimed_at),
                   finished_at = CASE WHEN outcome <> 'QUEUED' THEN clock_timestamp() END,
                   failure_code = CASE WHEN outcome = 'FAILED' THEN 'WORKER_LOST' END,
                   failure_message = CASE WHEN outcome = 'FAILED' THEN
                       'The worker was lost ' || lost_workers + 1 || ' times; there are no attempts left.' END,
                   failure_stage = CASE WHEN outcome = 'FAILED' THEN stage END,
                   failure_retryable = outcome = 'FAILED',
                   log_compaction_after = CASE WHEN outcome <> 'QUEUED' THEN now() + make_interval(secs => $2) END
               FROM lost WHERE executions.id = lost.id
               RETURNING executions.id, owner_id, kind, status, stage, attempt
           ), event AS (
               INSERT INTO execution_events (execution_id, at, status, stage, attempt)
               SELECT id, now(), status, stage, attempt FROM changed
           )
           SELECT id, owner_id, kind, status FROM changed""",
        limit,
        compact_log_after_seconds,
    )
    return [Swept(row["id"], row["owner_id"], row["kind"], ExecutionStatus(row["status"])) for row in rows]


async def is_held(connection: Connection, claim: Claim) -> bool:
    """Whether a claim still holds the execution: asked after an answer was lost."""
    return bool(
        await connection.fetchval(
            "SELECT 1 FROM executions WHERE id = $1 AND attempt = $2 AND status = 'RUNNING'",
            claim.execution_id,
            claim.attempt,
        )
    )


def _storable(text: str) -> str:
    """Text as PostgreSQL takes it: what programs say can hold NUL, and bytes that were no UTF-8."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
