"""Webhook endpoints and their dispatches as people make, see and change them: plain rows, their owner's alone.

Secrets are sealed before they get here, and are selected only by whoever sends. What workers do is in
`models/dispatch_queries.py`. Locks go from an endpoint to its dispatches.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from models import database
from models.database import Row
from models.outgoing_webhooks import DispatchState, WebhookEventType
from models.permissions import Actor

PREVIOUS_SECRET_HOURS: Final = 24
"""How long a secret that was replaced still signs, beside the new one."""

_PURGE_ROWS: Final = 2_000
_COLUMNS: Final = """e.id, e.owner_id, e.project_id, e.job_id, e.url, e.description, e.event_types::text AS event_types,
       e.is_active, e.failing_since, e.disabled_at, e.disabled_reason, e.previous_secret_until, e.created_at,
       e.updated_at"""
_SELECT: Final = f"SELECT {_COLUMNS} FROM webhook_endpoints e"
_DISPATCH: Final = """
SELECT d.id, d.endpoint_id, d.event_id, d.event_type, d.state, d.attempts, d.next_attempt_at, d.status_code,
       d.duration_ms, d.response_excerpt, d.failure_code, d.failure_message, d.attempt_log::text AS attempt_log,
       d.created_at, d.finished_at, d.lease_until > now() AS is_sending, e.owner_id
FROM webhook_dispatches d JOIN webhook_endpoints e ON e.id = d.endpoint_id
"""


# -- endpoints


async def find(endpoint_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The endpoints that exist among these, whoever owns them: the caller is the gate."""
    found = await database.rows(f"{_SELECT} WHERE e.id = ANY($1::uuid[])", list(endpoint_ids))
    return {row["id"]: row for row in found}


async def visible(
    actor: Actor,
    *,
    project_id: UUID | None = None,
    job_id: UUID | None = None,
    is_active: bool | None = None,
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """A page of the endpoints that an actor may see, newest first; backwards from the end."""
    where, values = _conditions(actor, project_id, job_id, is_active)
    for bound, operator in ((after, "<"), (before, ">")):
        if bound is not None:
            values.append(bound)
            where.append(f"e.id {operator} ${len(values)}")
    values.append(limit)
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY e.id {direction} LIMIT ${len(values)}", *values
    )


async def count_visible(
    actor: Actor, *, project_id: UUID | None = None, job_id: UUID | None = None, is_active: bool | None = None
) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, project_id, job_id, is_active)
    return int(await database.value(f"SELECT count(*) FROM webhook_endpoints e WHERE {' AND '.join(where)}", *values))


async def count_owned(owner_id: UUID) -> int:
    """How many endpoints somebody has; until the end of the transaction nobody else adds one for them."""
    # The lock is per owner and ends with the transaction; without it two requests could both pass the count.
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"webhooks:{owner_id}")
    return int(await database.value("SELECT count(*) FROM webhook_endpoints WHERE owner_id = $1", owner_id))


async def insert(
    endpoint_id: UUID,
    *,
    owner_id: UUID,
    project_id: UUID | None,
    job_id: UUID | None,
    url: str,
    description: str,
    event_types: Sequence[WebhookEventType] | None,
    sealed_secret: str,
) -> bool:
    """Add an endpoint; False when its project or job is gone meanwhile."""
    created = await database.value(
        """INSERT INTO webhook_endpoints (id, owner_id, project_id, job_id, url, description, event_types,
               sealed_secret, is_active, created_at, updated_at)
           SELECT $1, $2, $3, $4, $5, $6, $7::jsonb, $8, true, now(), now()
           WHERE ($3::uuid IS NULL OR EXISTS (SELECT 1 FROM projects WHERE id = $3 FOR KEY SHARE))
             AND ($4::uuid IS NULL OR EXISTS (SELECT 1 FROM jobs WHERE id = $4 FOR KEY SHARE))
           RETURNING id""",
        endpoint_id,
        owner_id,
        project_id,
        job_id,
        url,
        description,
        _types(event_types),
        sealed_secret,
    )
    return created is not None


async def update(endpoint_id: UUID, changes: Mapping[str, Any]) -> bool:
    """Set some of `url`, `description`, `event_types` and `is_active`; False when the endpoint is gone.

    One that is switched on starts afresh: it counts as failing no more.
    """
    values: list[Any] = [endpoint_id]
    sets = ["updated_at = now()"]
    for name, value in changes.items():
        values.append(_types(value) if name == "event_types" else value)
        place = f"${len(values)}"
        if name == "is_active":
            sets += [
                f"is_active = {place}::boolean",
                f"disabled_at = CASE WHEN {place}::boolean THEN NULL ELSE coalesce(disabled_at, now()) END",
                f"disabled_reason = CASE WHEN {place}::boolean THEN NULL ELSE coalesce(disabled_reason, 'BY_USER') END",
                f"failing_since = CASE WHEN {place}::boolean AND NOT is_active THEN NULL ELSE failing_since END",
            ]
        else:
            sets.append(f"{name} = {place}{'::jsonb' if name == 'event_types' else ''}")
    updated = await database.value(
        f"UPDATE webhook_endpoints SET {', '.join(sets)} WHERE id = $1 RETURNING id", *values
    )
    return updated is not None


async def lock_secret(endpoint_id: UUID) -> Row | None:
    """The sealed secrets of an endpoint, which stay until the end of the transaction."""
    return await database.row(
        "SELECT id, sealed_secret FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE", endpoint_id
    )


async def secrets_of(endpoint_id: UUID) -> Row | None:
    """The sealed secrets that sign now."""
    return await database.row(
        """SELECT sealed_secret, CASE WHEN previous_secret_until > now() THEN sealed_previous_secret END
               AS sealed_previous_secret
           FROM webhook_endpoints WHERE id = $1""",
        endpoint_id,
    )


async def set_secret(endpoint_id: UUID, sealed_secret: str, sealed_previous_secret: str) -> None:
    """Replace the secret; the one before signs for another day."""
    await database.rows(
        """UPDATE webhook_endpoints SET sealed_secret = $2, sealed_previous_secret = $3,
               previous_secret_until = now() + make_interval(hours => $4), updated_at = now()
           WHERE id = $1""",
        endpoint_id,
        sealed_secret,
        sealed_previous_secret,
        PREVIOUS_SECRET_HOURS,
    )


async def delete(*, endpoint_id: UUID | None = None, project_id: UUID | None = None, job_id: UUID | None = None) -> int:
    """Remove an endpoint, or those of a project or a job, with their dispatches; how many."""
    locked = await database.rows(
        """SELECT id FROM webhook_endpoints WHERE id = $1 OR project_id = $2 OR job_id = $3
           ORDER BY id FOR UPDATE""",
        endpoint_id,
        project_id,
        job_id,
    )
    ids = [row["id"] for row in locked]
    # In pieces: one cascade over all of them could outlast its time limit.
    while ids and await database.value(
        """WITH gone AS (
               DELETE FROM webhook_dispatches
               WHERE id IN (SELECT id FROM webhook_dispatches WHERE endpoint_id = ANY($1::uuid[]) LIMIT $2)
               RETURNING 1)
           SELECT count(*) FROM gone""",
        ids,
        _PURGE_ROWS,
    ):
        continue
    await database.rows("DELETE FROM webhook_endpoints WHERE id = ANY($1::uuid[])", ids)
    return len(ids)


# -- dispatches


async def find_dispatches(dispatch_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The dispatches that exist among these, with their `owner_id`: the caller is the gate."""
    found = await database.rows(f"{_DISPATCH} WHERE d.id = ANY($1::uuid[])", list(dispatch_ids))
    return {row["id"]: row for row in found}


async def dispatches(
    endpoint_id: UUID,
    *,
    state: DispatchState | None = None,
    event_type: WebhookEventType | None = None,
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """A page of an endpoint's dispatches, newest first; backwards from the end. The caller is the gate."""
    where, values = _dispatch_conditions(endpoint_id, state, event_type)
    for bound, operator in ((after, "<"), (before, ">")):
        if bound is not None:
            values.append(bound)
            where.append(f"d.id {operator} ${len(values)}")
    values.append(limit)
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"{_DISPATCH} WHERE {' AND '.join(where)} ORDER BY d.id {direction} LIMIT ${len(values)}", *values
    )


async def count_dispatches(
    endpoint_id: UUID, *, state: DispatchState | None = None, event_type: WebhookEventType | None = None
) -> int:
    """How many there are in all."""
    where, values = _dispatch_conditions(endpoint_id, state, event_type)
    return int(await database.value(f"SELECT count(*) FROM webhook_dispatches d WHERE {' AND '.join(where)}", *values))


async def payloads(dispatch_ids: Sequence[UUID]) -> dict[UUID, str]:
    """What was sent, as JSON text."""
    found = await database.rows(
        "SELECT id, payload FROM webhook_dispatches WHERE id = ANY($1::uuid[])", list(dispatch_ids)
    )
    return {row["id"]: row["payload"] for row in found}


async def insert_sent(
    dispatch_id: UUID,
    endpoint_id: UUID,
    *,
    event_id: UUID,
    event_type: WebhookEventType,
    payload: str,
    status_code: int | None,
    duration_ms: int,
    excerpt: str | None,
    failure: str | None,
    message: str | None,
) -> bool:
    """Write down what was sent once already, and is not repeated; False when the endpoint is gone meanwhile."""
    inserted = await database.value(
        """INSERT INTO webhook_dispatches (id, endpoint_id, event_id, event_type, payload, state, attempts,
               attempts_before, status_code, duration_ms, response_excerpt, failure_code, failure_message,
               attempt_log, created_at, finished_at)
           SELECT $1, e.id, $3, $4, $5, CASE WHEN $9::varchar IS NULL THEN 'DELIVERED' ELSE 'FAILED' END, 1, 0, $6::int,
               $7::int, $8, $9::varchar, $10::text,
               jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'statusCode', $6::int,
                   'durationMs', $7::int, 'failure', $9::varchar, 'message', $10::text)),
               now(), now()
           FROM webhook_endpoints e WHERE e.id = $2 FOR KEY SHARE OF e RETURNING id""",
        dispatch_id,
        endpoint_id,
        event_id,
        event_type.value,
        payload,
        status_code,
        duration_ms,
        excerpt,
        failure,
        message,
    )
    return inserted is not None


async def send_again(dispatch_id: UUID) -> bool:
    """Make a dispatch due now, with all attempts before it again; False when it is being sent, or is gone."""
    changed = await database.value(
        """UPDATE webhook_dispatches SET state = 'PENDING', attempts_before = attempts, next_attempt_at = now(),
               finished_at = NULL, lease_until = NULL
           WHERE id = $1 AND (lease_until IS NULL OR lease_until < now()) RETURNING id""",
        dispatch_id,
    )
    return changed is not None


def _types(event_types: Sequence[WebhookEventType] | None) -> str | None:
    return None if event_types is None else database.to_json([each.value for each in event_types])


def _conditions(
    actor: Actor, project_id: UUID | None, job_id: UUID | None, is_active: bool | None
) -> tuple[list[str], list[Any]]:
    where, values = ["true"], list[Any]()
    if not actor.is_admin:
        values.append(actor.user_id)  # for nobody it is null, which no owner equals
        where.append("e.owner_id = $1::uuid")
    if not actor.covers(None):
        where.append("false")
    for column, wanted in (("e.project_id", project_id), ("e.job_id", job_id), ("e.is_active", is_active)):
        if wanted is not None:
            values.append(wanted)
            where.append(f"{column} = ${len(values)}")
    return where, values


def _dispatch_conditions(
    endpoint_id: UUID, state: DispatchState | None, event_type: WebhookEventType | None
) -> tuple[list[str], list[Any]]:
    where, values = ["d.endpoint_id = $1"], list[Any]([endpoint_id])
    for column, wanted in (("d.state", state), ("d.event_type", event_type)):
        if wanted is not None:
            values.append(wanted.value)
            where.append(f"{column} = ${len(values)}")
    return where, values
