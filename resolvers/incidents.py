"""Incidents: what administrators tell everybody about them, and how everybody reads it.

Invariants: an incident that is over stays so, and can still be explained; the first word of an administrator in an
automatic one makes it theirs, so that no probe ends it against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from adapters import events
from errors import Conflict, ValidationFailed
from models import idempotency, incident_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import StatusChanged
from models.ids import new_id
from models.permissions import Actor, Permission
from models.status import IncidentImpact, IncidentState, Service
from models.transaction import unit_of_work
from resolvers import access, texts
from resolvers.status import readable

MAX_TITLE_LENGTH: Final = 200
MAX_MESSAGE_LENGTH: Final = 4_000
MAX_UPDATES: Final = 200
MAX_AGE: Final = timedelta(days=90)


async def create(
    actor: Actor,
    *,
    title: str,
    message: str,
    impact: IncidentImpact,
    services: Sequence[Service],
    state: IncidentState,
    started_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Row:
    """Tell of an incident. Raises ValidationFailed with the path of the faulty value."""
    access.allow(actor, Permission.STATUS_WRITE)
    if actor.user_id is None:
        raise access.missing()
    values: dict[str, Any] = {
        "title": texts.line(title, path=["input", "title"], max_length=MAX_TITLE_LENGTH),
        "message": _message(message),
        "impact": impact,
        "services": _services(services),
        "state": state,
        "started_at": _moment(started_at),
    }

    async with unit_of_work():

        async def make() -> None:
            await incident_queries.insert(fresh, **values)
            await _record(actor, "createIncident", fresh, impact=impact.value, state=state.value)
            await events.publish(StatusChanged())

        fresh = new_id()
        incident_id = await idempotency.once(
            actor.user_id, "createIncident", idempotency_key, request=values, target_id=fresh, make=make
        )
        return (await by_ids([incident_id]))[incident_id]


async def update(actor: Actor, id_text: str, changes: Mapping[str, Any]) -> Row:
    """Say something new of an incident: `title`, `message`, `state`, `impact`, `services`; at least one of them.

    A state needs a message, as users read why; a message alone leaves the state as it is. Raises Conflict when the
    incident is over and would go on, or has as many updates as one may have.
    """
    found = await access.incident(actor, id_text, to=Permission.STATUS_WRITE)
    values = dict(changes)
    message = None
    if "title" in values:
        values["title"] = texts.line(values["title"], path=["input", "title"], max_length=MAX_TITLE_LENGTH)
    if "message" in values:
        message = _message(values.pop("message"))
    if "services" in values:
        values["services"] = [service.value for service in _services(values["services"])]
    if not values and message is None:
        raise ValidationFailed("Say what changes.", path=["input"])
    if "state" in values and message is None:
        raise ValidationFailed("Say in a message what led to this state.", path=["input", "message"])
    async with unit_of_work():
        row = await incident_queries.lock(found["id"])
        if row is None:
            raise access.missing()
        if row["resolved_at"] is not None and values.get("state", IncidentState.RESOLVED) != IncidentState.RESOLVED:
            raise Conflict("This incident is over. Write a new one if it has begun again.", path=["input", "state"])
        number = row["update_count"] + (message is not None)
        if number > MAX_UPDATES:
            raise Conflict(f"An incident has at most {MAX_UPDATES} updates.", path=["input", "message"])
        await incident_queries.change(row["id"], number, values, message)
        changed = sorted([*values, *(["message"] if message is not None else [])])
        await _record(actor, "updateIncident", row["id"], changed=changed, state=values.get("state", row["state"]))
        await events.publish(StatusChanged())
        return (await by_ids([row["id"]]))[row["id"]]


async def page(*, state: IncidentState | None, **place: Any) -> list[Row]:
    """A page of incidents, newest first."""
    return [readable(row) for row in await incident_queries.page(state=state, **place)]


async def count(*, state: IncidentState | None) -> int:
    """How many there are in all."""
    return await incident_queries.count(state=state)


async def by_ids(incident_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The incidents that exist among these; everybody may see them."""
    return {id_: readable(row) for id_, row in (await incident_queries.find(incident_ids)).items()}


def _message(text: str) -> str:
    tidy = texts.prose(text, path=["input", "message"], max_length=MAX_MESSAGE_LENGTH)
    if not tidy:
        raise ValidationFailed("A message says something.", path=["input", "message"])
    return tidy


def _services(services: Sequence[Service]) -> list[Service]:
    if not services:
        raise ValidationFailed("Say which services it affects.", path=["input", "services"])
    return list(dict.fromkeys(services))


def _moment(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    now = datetime.now(UTC)
    if not now - MAX_AGE <= moment <= now:
        raise ValidationFailed("It began at most 90 days ago, and not in the future.", path=["input", "startedAt"])
    return moment


async def _record(actor: Actor, action: str, incident_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="incident", target_id=incident_id, details=details)
