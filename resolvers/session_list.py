"""The sessions of an account, for its owner: where they are signed in, and the end of what they do not know.

Everybody has their own and nobody else's, administrators neither. An ended session is refused at once where the event
about it arrives, and after five seconds everywhere; open sockets are closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from adapters.events import publish
from errors import Unauthorized
from models import account_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import SessionsChanged
from models.permissions import Actor, Permission
from models.sessions import RevokedReason, revoke
from models.transaction import unit_of_work
from resolvers import access, sessions


async def page(actor: Actor, *, after: UUID | None, before: UUID | None, backwards: bool, limit: int) -> Sequence[Row]:
    """A page of the actor's sessions that hold now, newest first."""
    return await account_queries.session_page(
        _owner(actor), idle_days=_idle_days(), after=after, before=before, backwards=backwards, limit=limit
    )


async def count(actor: Actor) -> int:
    """How many there are in all."""
    return await account_queries.count_sessions(_owner(actor), idle_days=_idle_days())


async def find(actor: Actor, session_id: UUID) -> Row | None:
    """A session of the actor's that holds now."""
    if actor.user_id is None:
        return None
    return await account_queries.find_session(actor.user_id, session_id, idle_days=_idle_days())


async def end_one(actor: Actor, id_text: str) -> None:
    """End a session of the actor's, the one in use too; one that has ended stays so. Raises NotFound for all others."""
    user_id = _owner(actor)
    session_id = await access.session(actor, id_text, to=Permission.ACCOUNT_WRITE)
    async with unit_of_work():
        ended = await revoke(session_id, reason=RevokedReason.REVOKED)
        if ended is not None:
            await AuditEvent.record(actor, "revokeSession", target_type="session", target_id=session_id)
            await publish(SessionsChanged(user_id))
    sessions.forget(user_id)


async def end_others(actor: Actor) -> int:
    """End all sessions of the actor's but the one in use; how many."""
    user_id = _owner(actor)
    async with unit_of_work():
        ended = await account_queries.revoke_sessions(user_id, reason=RevokedReason.REVOKED, but=actor.session_id)
        if ended:
            await AuditEvent.record(
                actor,
                "revokeOtherSessions",
                target_type="user",
                target_id=user_id,
                details={"revokedSessions": ended},
            )
            await publish(SessionsChanged(user_id))
    sessions.forget(user_id)
    return ended


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id


def _idle_days() -> int:
    return sessions.settings().session_idle_days
