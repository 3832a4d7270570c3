"""Dispatches of webhooks as workers make, take and settle them.

The row is the queue. Invariants: of one endpoint at most two dispatches are under way, whoever sends them, because
whoever takes some holds the endpoint's row meanwhile; endpoints that are failing get only some of a worker's places, so
that they cannot keep those busy that healthy ones need; `attempts` is the fencing token, so a worker that comes late
writes nothing. Locks go from the endpoint to its dispatches, always. All times are PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Connection

from models import database
from models.github_queries import Executor
from models.ids import new_id
from models.outgoing_webhooks import DispatchFailure, DispatchState, EndpointDisabledReason, WebhookEventType

AT_ONCE_PER_ENDPOINT: Final = 2
KEPT_DAYS: Final = 30
"""How long a dispatch can be looked at and sent again."""

KEPT_ATTEMPTS: Final = 12
DISABLED_AFTER_DAYS: Final = 5
"""An endpoint that fails for so long without one success is switched off."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened. `payload` is the exact text to send."""

    id: UUID
    type: WebhookEventType
    payload: str


@dataclass(frozen=True, slots=True)
class TakenDispatch:
    """A dispatch in somebody's hands; `attempts` counts this one too, and so does `tries`, since it was asked for."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    payload: str
    attempts: int
    tries: int
    url: str
    sealed_secret: str | None
    sealed_previous_secret: str | None
    is_owner_active: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt. `pause_seconds` is when the next one is due; None ends the dispatch."""

    failure: DispatchFailure | None = None
    message: str | None = None
    status_code: int | None = None
    duration_ms: int | None = None
    excerpt: str | None = None
    pause_seconds: float | None = None
    counts: bool = True
    """Whether it says something of the endpoint; what is wrong with us does not."""


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that has just been switched off."""

    endpoint_id: UUID
    owner_id: UUID
    url: str
    wants_mail: bool | None
    failing_since: datetime | None
    reason: EndpointDisabledReason


_LISTENERS: Final = """
SELECT id FROM webhook_endpoints
WHERE owner_id = $1 AND is_active AND created_at <= $2 AND (event_types IS NULL OR event_types ? $3)
  AND (project_id IS NULL AND job_id IS NULL OR project_id = $4 OR job_id = $5)
FOR KEY SHARE
"""

# Endpoints with something to send are found by leaps over the index, one probe for each, however much waits for one.
_LOCK_READY: Final = """
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM webhook_dispatches WHERE state = 'PENDING' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM webhook_dispatches
            WHERE state = 'PENDING' AND endpoint_id > waiting.endpoint_id ORDER BY endpoint_id LIMIT 1)
    FROM waiting WHERE waiting.endpoint_id IS NOT NULL
)
SELECT e.id FROM waiting JOIN webhook_endpoints e ON e.id = waiting.endpoint_id
WHERE e.is_active AND (e.failing_since IS NOT NULL) = $1 AND EXISTS (
    SELECT 1 FROM webhook_dispatches d
    WHERE d.endpoint_id = e.id AND d.state = 'PENDING' AND d.next_attempt_at <= now())
  AND (SELECT count(*) FROM webhook_dispatches s WHERE s.endpoint_id = e.id AND s.lease_until > now()) < $3
ORDER BY random() LIMIT $2 FOR NO KEY UPDATE OF e SKIP LOCKED
"""

_TAKE: Final = """
WITH picked AS (
    SELECT d.id FROM unnest($1::uuid[]) AS ready(endpoint_id) CROSS JOIN LATERAL (
        SELECT id FROM webhook_dispatches
        WHERE endpoint_id = ready.endpoint_id AND state = 'PENDING' AND next_attempt_at <= now()
        ORDER BY next_attempt_at, id
        LIMIT greatest(0, $4 - (SELECT count(*) FROM webhook_dispatches s
                                WHERE s.endpoint_id = ready.endpoint_id AND s.lease_until > now()))
    ) AS d LIMIT $2
)
UPDATE webhook_dispatches AS d
SET attempts = attempts + 1, lease_until = now() + make_interval(secs => $3),
    next_attempt_at = now() + make_interval(secs => $3)
FROM picked, webhook_endpoints e JOIN users u ON u.id = e.owner_id
WHERE d.id = picked.id AND e.id = d.endpoint_id
RETURNING d.id, d.endpoint_id, d.event_id, d.payload, d.attempts, d.attempts - d.attempts_before AS tries,
          e.url, e.sealed_secret,
          CASE WHEN e.previous_secret_until > now() THEN e.sealed_previous_secret END AS sealed_previous_secret,
          u.is_active AS is_owner_active
"""

_SETTLE: Final = """
UPDATE webhook_dispatches SET
    state = $3::varchar, lease_until = NULL,
    next_attempt_at = CASE WHEN $3::varchar = 'PENDING' THEN now() + make_interval(secs => $4) END,
    finished_at = CASE WHEN $3::varchar <> 'PENDING' THEN now() END,
    failure_code = $5::varchar, failure_message = $6::text, status_code = $7::int, duration_ms = $8::int,
    response_excerpt = $9,
    attempt_log = (
        SELECT jsonb_agg(entry ORDER BY place) FROM (
            SELECT entry, place
            FROM jsonb_array_elements(attempt_log || jsonb_build_array(jsonb_build_object(
                'at', clock_timestamp(), 'statusCode', $7::int, 'durationMs', $8::int, 'failure', $5::varchar,
                'message', $6::text
            ))) WITH ORDINALITY AS entries(entry, place)
            ORDER BY place DESC LIMIT $10
        ) AS last)
WHERE id = $1 AND attempts = $2 AND lease_until IS NOT NULL RETURNING endpoint_id
"""

_DISABLE: Final = """
UPDATE webhook_endpoints AS e
SET is_active = false, disabled_at = now(), disabled_reason = $2::varchar, updated_at = now()
FROM users u LEFT JOIN preferences w ON w.user_id = u.id
WHERE e.id = $1 AND e.is_active AND u.id = e.owner_id
  AND ($2::varchar = 'GONE' OR e.failing_since < now() - make_interval(days => $3))
RETURNING e.owner_id, e.url, e.failing_since, w.email_notifications
"""


async def add(
    connection: Connection,
    owner_id: UUID,
    event: NewEvent,
    *,
    at: datetime,
    project_id: UUID | None,
    job_id: UUID | None,
) -> int:
    """Write a dispatch for each endpoint that listens, unless it has one of this event; how many are new."""
    listeners = await connection.fetch(_LISTENERS, owner_id, at, event.type.value, project_id, job_id)
    if not listeners:
        return 0
    added = await connection.fetch(
        """INSERT INTO webhook_dispatches (id, endpoint_id, event_id, event_type, payload, state, attempts,
               attempts_before, next_attempt_at, attempt_log, created_at)
           SELECT id, endpoint_id, $3, $4, $5, 'PENDING', 0, 0, now(), '[]', now()
           FROM unnest($1::uuid[], $2::uuid[]) AS fresh(id, endpoint_id)
           ON CONFLICT (endpoint_id, event_id) DO NOTHING RETURNING 1""",
        [new_id() for _ in listeners],
        [row["id"] for row in listeners],
        event.id,
        event.type.value,
        event.payload,
    )
    return len(added)


async def is_listening(owner_id: UUID) -> bool:
    """Whether an owner has an active endpoint; in a unit of work."""
    return bool(
        await database.value(
            "SELECT EXISTS (SELECT 1 FROM webhook_endpoints WHERE owner_id = $1 AND is_active)", owner_id
        )
    )


async def now() -> datetime:
    """The database's clock; in a unit of work."""
    moment: datetime = await database.value("SELECT clock_timestamp()")
    return moment


async def take(connection: Connection, *, failing: bool, places: int, lease_seconds: float) -> list[TakenDispatch]:
    """Due dispatches of endpoints that are failing, or of the others, for so long. Run it in a transaction."""
    ready = await connection.fetch(_LOCK_READY, failing, places, AT_ONCE_PER_ENDPOINT)
    if not ready:
        return []
    # In a statement of its own: it sees what others took before we had the endpoints.
    rows = await connection.fetch(_TAKE, [row["id"] for row in ready], places, lease_seconds, AT_ONCE_PER_ENDPOINT)
    return [TakenDispatch(**row) for row in rows]


async def settle(connection: Connection, taken: TakenDispatch, attempt: Attempt) -> Disabled | None:
    """Write down an attempt, and what it says of the endpoint, which may be the end of that. Run it in a transaction.

    Nothing is written when the lease is another's by now, or the dispatch is gone.
    """
    await connection.execute("SELECT 1 FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE", taken.endpoint_id)
    state = DispatchState.DELIVERED
    if attempt.failure is not None:
        state = DispatchState.FAILED if attempt.pause_seconds is None else DispatchState.PENDING
    settled = await connection.fetchval(
        _SETTLE,
        taken.id,
        taken.attempts,
        state.value,
        attempt.pause_seconds or 0.0,
        attempt.failure and attempt.failure.value,
        attempt.message,
        attempt.status_code,
        attempt.duration_ms,
        attempt.excerpt,
        KEPT_ATTEMPTS,
    )
    if settled is None or not attempt.counts:
        return None
    if attempt.failure is None:
        await connection.execute(
            "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL",
            taken.endpoint_id,
        )
        return None
    await connection.execute(
        "UPDATE webhook_endpoints SET failing_since = now() WHERE id = $1 AND failing_since IS NULL",
        taken.endpoint_id,
    )
    is_gone = attempt.failure is DispatchFailure.GONE
    reason = EndpointDisabledReason.GONE if is_gone else EndpointDisabledReason.FAILING
    row = await connection.fetchrow(_DISABLE, taken.endpoint_id, reason.value, DISABLED_AFTER_DAYS)
    if row is None:
        return None
    return Disabled(
        endpoint_id=taken.endpoint_id,
        owner_id=row["owner_id"],
        url=row["url"],
        wants_mail=row["email_notifications"],
        failing_since=row["failing_since"],
        reason=reason,
    )


async def hand_back(connection: Connection, taken: TakenDispatch) -> None:
    """Let another worker have a dispatch at once; the attempt does not count."""
    await connection.execute(
        """UPDATE webhook_dispatches SET attempts = attempts - 1, lease_until = NULL, next_attempt_at = now()
           WHERE id = $1 AND attempts = $2 AND lease_until IS NOT NULL""",
        taken.id,
        taken.attempts,
    )


async def end_of_disabled(connection: Connection, *, limit: int) -> int:
    """End some dispatches that wait for an endpoint that is switched off; how many."""
    ended = await connection.fetch(
        """UPDATE webhook_dispatches SET state = 'FAILED', next_attempt_at = NULL, lease_until = NULL,
               finished_at = now(), failure_code = $2, failure_message = $3
           WHERE id IN (
               SELECT d.id FROM webhook_endpoints e JOIN webhook_dispatches d ON d.endpoint_id = e.id
               WHERE NOT e.is_active AND d.state = 'PENDING' AND (d.lease_until IS NULL OR d.lease_until < now())
               LIMIT $1 FOR UPDATE OF d SKIP LOCKED)
           RETURNING 1""",
        limit,
        DispatchFailure.ENDPOINT_DISABLED.value,
        "The endpoint was switched off.",
    )
    return len(ended)


async def forget_old(connection: Connection, *, limit: int) -> int:
    """Remove some dispatches that are older than is kept; how many."""
    gone = await connection.fetch(
        """DELETE FROM webhook_dispatches WHERE id IN (
               SELECT id FROM webhook_dispatches WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING 1""",
        await _first_id_kept(connection),
        limit,
    )
    return len(gone)


async def forget_previous_secrets(connection: Connection) -> None:
    """Remove secrets that were replaced long enough ago."""
    await connection.execute(
        """UPDATE webhook_endpoints SET sealed_previous_secret = NULL, previous_secret_until = NULL
           WHERE previous_secret_until < now()"""
    )


async def delete_some(connection: Executor, endpoint_ids: Sequence[UUID], *, limit: int) -> bool:
    """Remove some dispatches of endpoints; False once none is left."""
    gone = await connection.fetch(
        """DELETE FROM webhook_dispatches
           WHERE id IN (SELECT id FROM webhook_dispatches WHERE endpoint_id = ANY($1::uuid[]) LIMIT $2) RETURNING 1""",
        list(endpoint_ids),
        limit,
    )
    return bool(gone)


async def _first_id_kept(connection: Connection) -> UUID:
    """The smallest UUIDv7 (RFC 9562 §5.7) of the day that is still kept, by the database's clock."""
    milliseconds = await connection.fetchval(
        "SELECT floor(extract(epoch FROM now() - make_interval(days => $1)) * 1000)::bigint", KEPT_DAYS
    )
    return UUID(int=milliseconds << 80)
