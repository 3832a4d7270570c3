"""The audit trail as clients see it: who did what to what, when, from where and with which outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from errors import ValidationFailed
from models import database
from models.audit_queries import Conditions
from models.database import Row
from models.ids import MalformedId, Prefix, decode_id, encode_id
from models.permissions import Permission
from resolvers import audit
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.scalars import JSON
from schema.users import User

Info = strawberry.Info[Context, None]

_PREFIXES: Final = {
    "user": Prefix.USER,
    "session": Prefix.SESSION,
    "accessToken": Prefix.ACCESS_TOKEN,
    "identity": Prefix.IDENTITY,
    "tool": Prefix.TOOL,
    "job": Prefix.JOB,
    "run": Prefix.RUN,
    "project": Prefix.PROJECT,
    "deployment": Prefix.DEPLOYMENT,
    "delivery": Prefix.WEBHOOK_DELIVERY,
    "webhookEndpoint": Prefix.WEBHOOK_ENDPOINT,
    "webhookDispatch": Prefix.WEBHOOK_DISPATCH,
}
_NOT_THEIRS: Final = " Null when somebody else did this to your account, unless you are an administrator."


class AuditActorType(StrEnum):
    """Who can act."""

    USER = "USER"
    ACCESS_TOKEN = "ACCESS_TOKEN"  # noqa: S105 - no password
    ANONYMOUS = "ANONYMOUS"
    SYSTEM = "SYSTEM"


publish(
    AuditActorType,
    "What kind of actor it was.",
    USER="A person who was signed in.",
    ACCESS_TOKEN="An access token, for the person who made it.",  # noqa: S106 - no password
    ANONYMOUS="A request of somebody who was not signed in, or of another service.",
    SYSTEM="The installation itself, or whoever runs its command line.",
)


@strawberry.type(description="Something that somebody did. Events never change; ids of what is gone stay.")
class AuditEvent(Node):
    """One act."""

    occurred_at: datetime = strawberry.field(description="When it happened.")
    action: str = strawberry.field(
        description="What was done: mostly the name of the mutation, such as `login`. Expect new values."
    )
    outcome: str = strawberry.field(description="`success`, or the error code that refused it.")
    target_type: str | None = strawberry.field(
        description="The kind of what it was done to, such as `user` or `deployment`. Expect new values."
    )
    ip: str | None = strawberry.field(description="The address that it came from." + _NOT_THEIRS)
    user_agent: str | None = strawberry.field(description="The browser or program, as it named itself." + _NOT_THEIRS)
    request_id: str | None = strawberry.field(description="The request, as in `X-Request-ID`; null outside of one.")
    row: strawberry.Private[Row]
    facts: strawberry.Private[dict[str, Any]]

    @strawberry.field(description="What kind of actor it was.")
    def actor_type(self) -> AuditActorType:
        """By what the event names."""
        if self.row["actor_id"] is None:
            return AuditActorType.SYSTEM if self.request_id is None else AuditActorType.ANONYMOUS
        return AuditActorType.ACCESS_TOKEN if self.row["by_token"] else AuditActorType.USER

    @strawberry.field(
        description="Who did it, with as much of them as you may see; null for nobody and for deleted accounts."
    )
    async def actor(self, info: Info) -> User | None:
        """Loaded for all events of the answer at once."""
        actor_id = self.row["actor_id"]
        return None if actor_id is None else await info.context.load(_load_actors, actor_id)

    @strawberry.field(description="The id of who did it; it stays when the account is deleted.")
    def actor_id(self) -> strawberry.ID | None:
        """A typed id."""
        return _typed(Prefix.USER, self.row["actor_id"])

    @strawberry.field(description="The session in which it was done." + _NOT_THEIRS)
    def session_id(self) -> strawberry.ID | None:
        """A typed id."""
        return _typed(Prefix.SESSION, self.row["session_id"])

    @strawberry.field(description="The access token with which it was done." + _NOT_THEIRS)
    def access_token_id(self) -> strawberry.ID | None:
        """A typed id."""
        return _typed(Prefix.ACCESS_TOKEN, self.row["access_token_id"])

    @strawberry.field(description="More about the outcome, for programs; null where there is no more to say.")
    def reason(self) -> str | None:
        """Among the details."""
        found = self.facts.get("reason")
        return found if isinstance(found, str) else None

    @strawberry.field(description="The id of what it was done to; null where there is none, or no id of that kind.")
    def target_id(self) -> strawberry.ID | None:
        """A typed id."""
        prefix = _PREFIXES.get(self.target_type or "")
        return None if prefix is None else _typed(prefix, self.row["target_id"])

    @strawberry.field(
        description="What else is known of it, by action. Never passwords, tokens or e-mail addresses; "
        "`identifierHash` is the same for the same name or address."
    )
    def details(self) -> JSON:
        """An object."""
        return JSON(self.facts)


@strawberry.input(description="Which events; all given conditions must hold.")
class AuditEventFilter:
    """Conditions."""

    actions: list[str] | None = strawberry.field(default=None, description="One of these actions, up to 50.")
    outcomes: list[str] | None = strawberry.field(default=None, description="One of these outcomes, up to 50.")
    failed_only: bool = strawberry.field(default=False, description="Only what was refused.")
    actor_id: strawberry.ID | None = strawberry.field(default=None, description="Done by this user.")
    target_type: str | None = strawberry.field(default=None, description="Done to things of this kind.")
    target_id: strawberry.ID | None = strawberry.field(default=None, description="Done to this.")
    request_id: str | None = strawberry.field(default=None, description="Done in this request.")
    occurred_after: datetime | None = strawberry.field(default=None, description="At this moment or later.")
    occurred_before: datetime | None = strawberry.field(default=None, description="Before this moment.")


@strawberry.type
class AuditQuery:
    """The audit trail."""

    @strawberry.field(
        description="What was done, newest first. Administrators see everything; others see what they did and what was "
        "done to their account, such as failed attempts to sign in to it. `totalCount` is null above 10,000.",
        extensions=[requires(Permission.AUDIT_READ)],
    )
    async def audit_events(
        self,
        info: Info,
        filter: Annotated[AuditEventFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[AuditEvent]:
        """One page, in one statement."""
        actor = info.context.actor
        conditions = _conditions(filter)
        return await paginate(
            fetch=by_one_key(partial(audit.page, actor, conditions)),
            count=partial(audit.count, actor, conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=event_of,
        )


def event_of(row: Row) -> AuditEvent:
    """The event of a row."""
    return AuditEvent(
        id=strawberry.ID(encode_id(Prefix.AUDIT_EVENT, row["id"])),
        occurred_at=row["occurred_at"],
        action=row["action"],
        outcome=row["outcome"],
        target_type=row["target_type"],
        ip=row["ip"],
        user_agent=row["user_agent"],
        request_id=row["request_id"],
        row=row,
        facts=database.from_json(row["details"]),
    )


def _conditions(wanted: AuditEventFilter | None) -> Conditions:
    if wanted is None:
        return Conditions()
    return Conditions(
        actions=audit.names(wanted.actions, field="actions"),
        outcomes=audit.names(wanted.outcomes, field="outcomes"),
        failed_only=wanted.failed_only,
        actor_id=_uuid(wanted.actor_id, "actorId", Prefix.USER),
        target_type=audit.name(wanted.target_type, field="targetType"),
        target_id=_uuid(wanted.target_id, "targetId"),
        request_id=audit.name(wanted.request_id, field="requestId"),
        occurred_from=wanted.occurred_after,
        occurred_until=wanted.occurred_before,
    )


def _uuid(id_text: str | None, field: str, prefix: Prefix | None = None) -> UUID | None:
    """The UUID in an id of a filter: what it names may be gone, or somebody else's, and then nothing is found."""
    if id_text is None:
        return None
    try:
        found, value = decode_id(id_text)
    except MalformedId:
        found, value = "", UUID(int=0)
    if found not in set(Prefix) or prefix not in (None, found):
        raise ValidationFailed("This is not an id of what it should name.", path=["filter", field])
    return value


def _typed(prefix: Prefix, value: UUID | None) -> strawberry.ID | None:
    return None if value is None else strawberry.ID(encode_id(prefix, value))


@register_node(Prefix.AUDIT_EVENT)
async def _event_node(context: Context, event_id: UUID) -> AuditEvent | None:
    if not context.actor.may(Permission.AUDIT_READ):
        return None
    row = await context.load(_load_events, event_id)
    return None if row is None else event_of(row)


async def _load_events(context: Context, event_ids: list[UUID]) -> Sequence[Row | None]:
    found = await audit.find(context.actor, event_ids)
    return [found.get(event_id) for event_id in event_ids]


async def _load_actors(context: Context, user_ids: list[UUID]) -> Sequence[User | None]:
    found = await audit.actors(user_ids)
    return [User.seen_by(context.actor, found[each]) if each in found else None for each in user_ids]
