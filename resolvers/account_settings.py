"""What signed-in owners change of their account: the password, by the one they have, and what others see of them.

Invariants: the present password is proved anew, and a change of it ends every other session; whoever loses a race for
a username changes nothing; all of it is in the audit trail, the password and its hash never are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from adapters.events import publish
from errors import Conflict, Unauthorized
from models import account_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import SessionsChanged
from models.permissions import Actor
from models.sessions import RevokedReason
from models.transaction import unit_of_work
from models.users import Account
from resolvers import account_rules, proof, sessions, users
from resolvers.password_news import tell_of_password

_RULES: Final = {
    "name": account_rules.valid_name,
    "username": account_rules.valid_username,
    "avatar_url": account_rules.valid_avatar_url,
}


async def change_password(actor: Actor, *, current: str, new: str) -> int:
    """Set another password and end all other sessions; how many those were.

    Raises ValidationFailed with the path of the faulty password, RateLimitExceeded after too many wrong ones, and
    Conflict when it was changed at the same moment.
    """
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    own = await proof.prove_again(actor, current, act="changePassword", field="currentPassword")
    account_rules.check_password(new, username=own["username"], email=own["email"], field="newPassword")
    password_hash = await sessions.passwords().hash(new)
    async with unit_of_work():
        if not await account_queries.set_password(actor.user_id, password_hash, before=own["password_hash"]):
            raise Conflict("Your password has been changed meanwhile; nothing was done.")
        ended = await account_queries.revoke_sessions(
            actor.user_id, reason=RevokedReason.PASSWORD_CHANGED, but=actor.session_id
        )
        await AuditEvent.record(
            actor,
            "changePassword",
            target_type="user",
            target_id=actor.user_id,
            details={"revokedSessions": ended},
        )
        await tell_of_password(
            actor.user_id,
            own["username"],
            how="by somebody who knew the old one",
            sessions="All sessions have ended but the one in which that was done.",
        )
        await publish(SessionsChanged(actor.user_id))
    sessions.forget(actor.user_id)
    return ended


async def update_profile(actor: Actor, changes: Mapping[str, str | None]) -> Account:
    """Change `name`, `username` or `avatar_url`; what is left out stays, and None takes the picture away.

    Raises ValidationFailed and Conflict with the path of the faulty value.
    """
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    valid: dict[str, Any] = {name: None if value is None else _RULES[name](value) for name, value in changes.items()}
    if valid:
        async with unit_of_work():
            await account_queries.change_profile(actor.user_id, valid)
            await AuditEvent.record(
                actor,
                "updateProfile",
                target_type="user",
                target_id=actor.user_id,
                details={"changed": sorted(valid)},
            )
            # The access token's claims and cached accounts have the old names.
            await publish(SessionsChanged(actor.user_id))
        sessions.forget(actor.user_id)
    return await users.me(actor)


async def profiles(user_ids: list[UUID]) -> dict[UUID, Row]:
    """What `models.account_queries.find_profiles` has of users whom the viewer sees."""
    return await account_queries.find_profiles(user_ids)
