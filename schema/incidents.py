"""Incidents as clients see them: what everybody reads, and what administrators write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry

from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission
from models.status import IncidentImpact, IncidentState, Service
from resolvers import access, incidents
from resolvers.status import readable
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.permissions import public, requires

Info = strawberry.Info[Context, None]

publish(
    Service,
    "A part of the service that is probed.",
    API="The API: its address answers.",
    DATABASE="PostgreSQL answers.",
    QUEUE="Work that waits is picked up, and Redis, which makes that quick, answers.",
    STORAGE="Files can be written, read and removed.",
    BUILDS="A small build runs in isolation. Probed by workers that build, every two minutes.",
    AI_SERVICE="The risk scanner, or the AI service that is set up in its place, answers.",
    MAIL="The mail server takes us. Probed every five minutes where one is set up.",
)
publish(
    IncidentState,
    "How far an incident has come.",
    INVESTIGATING="We look for the cause.",
    IDENTIFIED="The cause is known.",
    MONITORING="It is mended and watched.",
    RESOLVED="It is over; this is final.",
)
publish(
    IncidentImpact,
    "How bad an incident is for users.",
    MINOR="Something is slower or less reliable.",
    MAJOR="A part of the service is not available.",
    CRITICAL="The service as a whole is not usable.",
)


@strawberry.type(description="What was said of an incident at a moment.")
class IncidentUpdate:
    """An update."""

    at: datetime = strawberry.field(description="When.")
    state: IncidentState = strawberry.field(description="The state from then on.")
    message: str = strawberry.field(description="Plain text; may have several lines.")
    is_automatic: bool = strawberry.field(description="Whether probes said it, and not a person.")


@strawberry.type(description="Something that users notice. Everybody may read it.")
class Incident(Node):
    """An incident."""

    title: str = strawberry.field(description="It in one line.")
    state: IncidentState = strawberry.field(description="How far it has come.")
    impact: IncidentImpact = strawberry.field(description="How bad it is.")
    services: list[Service] = strawberry.field(description="What it affects.")
    is_automatic: bool = strawberry.field(
        description="Whether probes opened it and will end it; false once an administrator has written to it."
    )
    started_at: datetime = strawberry.field(description="When it began.")
    resolved_at: datetime | None = strawberry.field(description="When it ended; null while it goes on.")
    updated_at: datetime = strawberry.field(description="When it was last written to.")
    updates: list[IncidentUpdate] = strawberry.field(description="What was said of it, oldest first.")


@strawberry.input(description="A new incident.")
class CreateIncidentInput:
    """What a new incident needs."""

    title: str = strawberry.field(description="It in one line, up to 200 characters.")
    message: str = strawberry.field(description="The first update: plain text, up to 4,000 characters.")
    impact: IncidentImpact = strawberry.field(description="How bad it is.")
    services: list[Service] = strawberry.field(description="What it affects: at least one.")
    state: IncidentState = strawberry.field(
        default=IncidentState.INVESTIGATING, description="How far it has come; RESOLVED writes down what is over."
    )
    started_at: datetime | None = strawberry.field(
        default=None, description="When it began, up to 90 days ago; now if left out."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="Up to 255 characters; the same key and input find what the first call made."
    )


@strawberry.input(description="News of an incident; what is left out stays as it is.")
class UpdateIncidentInput:
    """Which incident changes, and what of it."""

    id: strawberry.ID = strawberry.field(description="The incident.")
    message: strawberry.Maybe[str] = strawberry.field(
        description="An update: plain text, up to 4,000 characters. Needed with a `state`."
    )
    state: strawberry.Maybe[IncidentState] = strawberry.field(description="How far it has come. RESOLVED is final.")
    title: strawberry.Maybe[str] = strawberry.field(description="As in `CreateIncidentInput`.")
    impact: strawberry.Maybe[IncidentImpact] = strawberry.field(description="How bad it is.")
    services: strawberry.Maybe[list[Service]] = strawberry.field(description="What it affects: at least one.")

    def changes(self) -> dict[str, Any]:
        """The given values by their names."""
        given = {
            "message": self.message,
            "state": self.state,
            "title": self.title,
            "impact": self.impact,
            "services": self.services,
        }
        return {name: some.value for name, some in given.items() if some is not None}


@strawberry.type(description="A new incident.")
class CreateIncidentPayload:
    """A new incident."""

    incident: Incident = strawberry.field(description="The incident.")


@strawberry.type(description="An incident that changed.")
class UpdateIncidentPayload:
    """An incident that changed."""

    incident: Incident = strawberry.field(description="The incident as it is now.")


Stated = Annotated[IncidentState | None, strawberry.argument(description="Only those in this state.")]


@strawberry.type
class IncidentsQuery:
    """What can be read of incidents."""

    @strawberry.field(description="An incident. NOT_FOUND when there is none.", extensions=[public()])
    async def incident(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The incident.")]
    ) -> Incident | None:
        """One incident."""
        return incident_of(readable(await access.incident(info.context.actor, id)))


@strawberry.type
class IncidentsMutation:
    """What administrators tell everybody."""

    @strawberry.mutation(description="Tell everybody of an incident.", extensions=[requires(Permission.STATUS_WRITE)])
    async def create_incident(
        self, info: Info, input: Annotated[CreateIncidentInput, strawberry.argument(description="The incident.")]
    ) -> CreateIncidentPayload:
        """A new incident."""
        row = await incidents.create(
            info.context.actor,
            title=input.title,
            message=input.message,
            impact=input.impact,
            services=input.services,
            state=input.state,
            started_at=input.started_at,
            idempotency_key=input.idempotency_key,
        )
        return CreateIncidentPayload(incident=incident_of(row))

    @strawberry.mutation(
        description="Say something new of an incident, correct it, or end it. An automatic one is yours from then on: "
        "probes do not end it any more. CONFLICT when it is over and should go on.",
        extensions=[requires(Permission.STATUS_WRITE)],
    )
    async def update_incident(
        self, info: Info, input: Annotated[UpdateIncidentInput, strawberry.argument(description="What is new.")]
    ) -> UpdateIncidentPayload:
        """An incident that changed."""
        row = await incidents.update(info.context.actor, input.id, input.changes())
        return UpdateIncidentPayload(incident=incident_of(row))


def incident_of(row: Row) -> Incident:
    """The incident of a row of `resolvers.incidents`."""
    return Incident(
        id=strawberry.ID(encode_id(Prefix.INCIDENT, row["id"])),
        title=row["title"],
        state=IncidentState(row["state"]),
        impact=IncidentImpact(row["impact"]),
        services=[Service(service) for service in row["services"]],
        is_automatic=row["automatic_service"] is not None and row["taken_over_at"] is None,
        started_at=row["started_at"],
        resolved_at=row["resolved_at"],
        updated_at=row["updated_at"],
        updates=[
            IncidentUpdate(
                at=each["at"],
                state=IncidentState(each["state"]),
                message=each["message"],
                is_automatic=each["is_automatic"],
            )
            for each in row["updates"]
        ],
    )


@register_node(Prefix.INCIDENT)
async def _incident_node(context: Context, incident_id: UUID) -> Incident | None:
    row = await context.load(_load_incidents, incident_id)
    return None if row is None else incident_of(row)


async def _load_incidents(_context: Context, incident_ids: list[UUID]) -> Sequence[Row | None]:
    found = await incidents.by_ids(incident_ids)
    return [found.get(incident_id) for incident_id in incident_ids]
