"""Reading the audit trail: everything for administrators, what concerns their own account for everybody else.

Invariant: of what somebody else did to an account its owner does not learn where that person sits: no address, no
browser, no session, no access token. Writing is each act's own (`models/audit.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from errors import Unauthorized, ValidationFailed
from models import audit_queries
from models.audit_queries import Conditions
from models.database import Row
from models.permissions import Actor, Permission
from models.users import Account
from resolvers import access

MAX_NAMES: Final = 50
MAX_NAME_LENGTH: Final = 64
_WHERE_THEY_SIT: Final = ("ip", "user_agent", "session_id", "access_token_id")


async def page(
    actor: Actor, conditions: Conditions, *, after: UUID | None, before: UUID | None, backwards: bool, limit: int
) -> list[Row]:
    """A page of the events that the actor may see, newest first."""
    found = await audit_queries.page(
        _viewer(actor), conditions, after=after, before=before, backwards=backwards, limit=limit
    )
    return [_shown_to(actor, row) for row in found]


async def count(actor: Actor, conditions: Conditions) -> int | None:
    """How many there are in all; None for more than are counted."""
    return await audit_queries.count(_viewer(actor), conditions)


async def find(actor: Actor, event_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the events that the actor may see."""
    found = await audit_queries.find(_viewer(actor), event_ids)
    return {event_id: _shown_to(actor, row) for event_id, row in found.items()}


async def actors(user_ids: Sequence[UUID]) -> dict[UUID, Account]:
    """Those of the users who still have their account; the caller passed the gate to the events that name them."""
    return await audit_queries.find_actors(user_ids)


def names(given: Sequence[str] | None, *, field: str) -> Sequence[str] | None:
    """Names to look for, at most fifty; raises ValidationFailed."""
    if given is not None and (len(given) > MAX_NAMES or any(len(name) > MAX_NAME_LENGTH for name in given)):
        raise ValidationFailed(
            f"At most {MAX_NAMES} names of at most {MAX_NAME_LENGTH} characters.", path=["filter", field]
        )
    return given or None


def name(given: str | None, *, field: str) -> str | None:
    """A name to look for; raises ValidationFailed."""
    names(None if given is None else [given], field=field)
    return given


def _viewer(actor: Actor) -> UUID | None:
    """Whose events the actor may see; None for everybody's."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.AUDIT_READ)
    return None if actor.is_admin else actor.user_id


def _shown_to(actor: Actor, row: Row) -> Row:
    if actor.is_admin or row["actor_id"] in (None, actor.user_id):
        return row
    return {**row, **dict.fromkeys(_WHERE_THEY_SIT)}
