"""Incidents as they are written and read: plain rows, each with all its updates in order.

Whoever changes an incident holds its row, so updates are numbered without a gap and the probes never speak over an
administrator. Functions that take a connection are the workers'.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from asyncpg import Connection

from models import database
from models.database import Row
from models.ids import new_id
from models.status import IncidentImpact, IncidentState, Service

KEPT_DAYS: Final = 365
"""How long automatic incidents are kept after their end; those that people wrote stay."""

MAX_OPEN: Final = 50
_COLUMNS: Final = """i.id, i.title, i.state, i.impact, i.services, i.started_at, i.resolved_at, i.updated_at,
    i.update_count, i.automatic_service, i.taken_over_at"""
_WITH_UPDATES: Final = f"""SELECT {_COLUMNS}, (
        SELECT jsonb_agg(jsonb_build_object('id', u.id, 'state', u.state, 'message', u.message, 'at', u.at,
                                            'is_automatic', u.is_automatic) ORDER BY u.number)
        FROM incident_updates u WHERE u.incident_id = i.id
    ) AS updates FROM incidents i"""


# -- reading


async def find(incident_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The incidents that exist among these."""
    found = await database.rows(f"{_WITH_UPDATES} WHERE i.id = ANY($1::uuid[])", list(incident_ids))
    return {row["id"]: row for row in found}


async def unresolved() -> list[Row]:
    """The incidents that are not over, newest first."""
    return await database.rows(f"{_WITH_UPDATES} WHERE i.resolved_at IS NULL ORDER BY i.id DESC LIMIT $1", MAX_OPEN)


async def unresolved_and_latest(latest: int) -> list[Row]:
    """The incidents that are not over, and the latest of all, newest first."""
    return await database.rows(
        f"""{_WITH_UPDATES}
            WHERE i.id IN (SELECT id FROM incidents WHERE resolved_at IS NULL ORDER BY id DESC LIMIT $1)
               OR i.id IN (SELECT id FROM incidents ORDER BY id DESC LIMIT $2)
            ORDER BY i.id DESC""",
        MAX_OPEN,
        latest,
    )


async def page(
    *, state: IncidentState | None, after: UUID | None, before: UUID | None, backwards: bool, limit: int
) -> list[Row]:
    """Incidents, newest first, strictly between two ids; backwards from the end of the list."""
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"""{_WITH_UPDATES}
            WHERE ($1::text IS NULL OR i.state = $1)
              AND ($2::uuid IS NULL OR i.id < $2) AND ($3::uuid IS NULL OR i.id > $3)
            ORDER BY i.id {direction} LIMIT $4""",
        state,
        after,
        before,
        limit,
    )


async def count(*, state: IncidentState | None) -> int:
    """How many there are in all."""
    return int(await database.value("SELECT count(*) FROM incidents WHERE $1::text IS NULL OR state = $1", state))


# -- administrators, in a unit of work


async def insert(
    incident_id: UUID,
    *,
    title: str,
    state: IncidentState,
    impact: IncidentImpact,
    services: Sequence[Service],
    started_at: datetime | None,
    message: str,
) -> None:
    """A new incident with its first update; without a moment it began now."""
    await database.rows(
        """INSERT INTO incidents (id, title, state, impact, services, started_at, resolved_at, updated_at, update_count)
           VALUES ($1, $2, $3::text, $4, $5::text[], coalesce($6, now()),
               CASE WHEN $3::text = 'RESOLVED' THEN now() END, now(), 1)""",
        incident_id,
        title,
        state.value,
        impact.value,
        [service.value for service in services],
        started_at,
    )
    await _add_update(incident_id, 1, state.value, message)


async def lock(incident_id: UUID) -> Row | None:
    """The incident, which nobody else changes until the unit of work ends."""
    return await database.row(f"SELECT {_COLUMNS} FROM incidents i WHERE id = $1 FOR UPDATE", incident_id)


async def change(incident_id: UUID, number: int, values: dict[str, Any], message: str | None) -> None:
    """Write what changes of a locked incident: `title`, `state`, `impact`, `services`; with a message an update too.

    An automatic one is taken over by that.
    """
    await database.rows(
        """UPDATE incidents SET title = coalesce($2, title), state = coalesce($3, state),
               impact = coalesce($4, impact), services = coalesce($5::text[], services),
               resolved_at = CASE WHEN coalesce($3, state) = 'RESOLVED' THEN coalesce(resolved_at, now()) END,
               taken_over_at = CASE WHEN automatic_service IS NOT NULL THEN coalesce(taken_over_at, now()) END,
               updated_at = greatest(now(), updated_at), update_count = $6
           WHERE id = $1""",
        incident_id,
        values.get("title"),
        values.get("state"),
        values.get("impact"),
        values.get("services"),
        number,
    )
    if message is not None:
        await _add_update(incident_id, number, None, message)


async def _add_update(incident_id: UUID, number: int, state: str | None, message: str) -> None:
    await database.rows(
        """INSERT INTO incident_updates (id, incident_id, number, state, message, is_automatic, at)
           SELECT $1, id, $3, coalesce($4, state), $5, false, now() FROM incidents WHERE id = $2""",
        new_id(),
        incident_id,
        number,
        state,
        message,
    )


# -- probes, in a transaction


async def automatic(connection: Connection) -> dict[str, Row]:
    """The open automatic incidents by service, those that were taken over too, which are locked until the end."""
    found = await connection.fetch(
        f"""SELECT {_COLUMNS} FROM incidents i
            WHERE automatic_service IS NOT NULL AND resolved_at IS NULL ORDER BY id FOR UPDATE"""
    )
    return {row["automatic_service"]: dict(row) for row in found}


async def open_automatic(
    connection: Connection,
    service: Service,
    *,
    title: str,
    impact: IncidentImpact,
    started_at: datetime,
    at: datetime,
    message: str,
) -> UUID | None:
    """An incident of a service; None while there is an open one that probes opened, or that people wrote for it."""
    opened: UUID | None = await connection.fetchval(
        """INSERT INTO incidents (id, title, state, impact, services, automatic_service, started_at, updated_at,
               update_count)
           SELECT $1, $2, 'INVESTIGATING', $3, ARRAY[$4::text], $4::text, $5, $6, 0
           WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE resolved_at IS NULL AND services @> ARRAY[$4::text])
           ON CONFLICT (automatic_service) WHERE resolved_at IS NULL DO NOTHING RETURNING id""",
        new_id(),
        title,
        impact.value,
        service.value,
        started_at,
        at,
    )
    if opened is not None:
        await say(connection, opened, message=message, at=at)
    return opened


async def say(
    connection: Connection,
    incident_id: UUID,
    *,
    message: str,
    at: datetime,
    state: IncidentState | None = None,
    title: str | None = None,
    impact: IncidentImpact | None = None,
) -> None:
    """Add an automatic update to a locked incident, and what changes with it."""
    await connection.execute(
        """WITH changed AS (
               UPDATE incidents SET state = coalesce($3, state), title = coalesce($4, title),
                   impact = coalesce($5, impact), resolved_at = CASE WHEN $3 = 'RESOLVED' THEN $6::timestamptz END,
                   updated_at = $6, update_count = update_count + 1
               WHERE id = $2 RETURNING id, state, update_count
           )
           INSERT INTO incident_updates (id, incident_id, number, state, message, is_automatic, at)
           SELECT $1, id, update_count, state, $7, true, $6 FROM changed""",
        new_id(),
        incident_id,
        None if state is None else state.value,
        title,
        None if impact is None else impact.value,
        at,
        message,
    )


async def forget(connection: Connection) -> None:
    """Drop automatic incidents that ended long ago and that nobody wrote anything to."""
    await connection.execute(
        """DELETE FROM incidents WHERE automatic_service IS NOT NULL AND taken_over_at IS NULL
           AND resolved_at < now() - make_interval(days => $1)""",
        KEPT_DAYS,
    )
