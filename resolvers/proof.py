"""Proving again who one is, before what a borrowed session must not do.

A session proves a sign-in of some time ago, perhaps on a device that somebody else has now. What takes an account over
or ends it asks for more: the password, or a sign-in of the last five minutes. Wrong passwords are counted and written
down like failed log-ins. A second factor is asked for by `resolvers/second_factor.py`.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from adapters import passwords as password_rules
from errors import NotFound, Unauthorized, ValidationFailed
from models import account_queries
from models.audit import AuditEvent
from models.database import Row
from models.permissions import Actor
from models.transaction import unit_of_work
from resolvers import limits, sessions

RECENT_SECONDS: Final = 300.0


async def prove_again(actor: Actor, password: str | None, *, act: str, field: str = "password") -> Row:
    """The actor's own row (`models.account_queries.find_own`), once they have proved that they are its owner.

    By the password if one is given, else by having signed in at most five minutes ago. `act` is the field that asks,
    for the audit trail. Raises ValidationFailed with the path `field`, and RateLimitExceeded after too many wrong ones.
    """
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    own = await account_queries.find_own(actor.user_id)
    if own is None:
        raise NotFound("This account does not exist any more.")
    if password is not None:
        await check_password(actor, own, password, act=act, field=field)
    elif actor.session_id is None or not await account_queries.signed_in_within(actor.session_id, RECENT_SECONDS):
        raise ValidationFailed(
            "Give your password, or sign in again and come back within five minutes.",
            path=[field],
            reason="proofTooOld",
        )
    return own


async def check_password(actor: Actor, own: Row, password: str, *, act: str, field: str) -> None:
    """Raise ValidationFailed, after counting and writing it down, unless a password is the one of a row."""
    async with limits.attempt(actor.origin, account=own["id"]):
        known = own["password_hash"]
        if password_rules.fits(password):
            if known is not None and await sessions.passwords().verify(known, password):
                return
            if known is None:
                await sessions.passwords().verify_nothing(password)
        await _note_wrong_password(actor, own["id"], act, field)
        raise ValidationFailed("This is not your present password.", path=[field])


async def _note_wrong_password(actor: Actor, user_id: UUID, act: str, field: str) -> None:
    async with unit_of_work():
        await AuditEvent.record(
            actor,
            act,
            target_type="user",
            target_id=user_id,
            outcome=ValidationFailed.code.value,
            details={"reason": field},
        )
