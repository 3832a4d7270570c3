"""Links in letters: confirming an address, and setting a password without the old one.

Invariants: asking tells nothing, since only the worker that sends the letter looks whether the address has an account;
a link works once, for one purpose and for the address it was sent to; using one opens no session. A password set by a
link ends all sessions; the link proves the address too, and if nothing had proved it before, the access tokens made
until then were perhaps not its owner's and end as well. What is refused leaves the link as it was.
"""

from __future__ import annotations

from adapters.events import publish
from errors import ValidationFailed
from models import account_queries, users
from models.audit import AuditEvent
from models.credentials import LinkPurpose
from models.events import SessionsChanged
from models.permissions import Actor, Origin
from models.sessions import RevokedReason
from models.transaction import unit_of_work
from resolvers import account_rules, limits, sessions
from resolvers.password_news import tell_of_password
from tasks import account_letters
from tasks.account_letters import Letter


async def request_verification(email: str, origin: Origin) -> None:
    """Send a link that confirms an address, if it has an account that waits for it; raises ValidationFailed."""
    await _ask(Letter.CONFIRM_EMAIL, "requestEmailVerification", email, origin)


async def request_reset(email: str, origin: Origin) -> None:
    """Send a link that sets a new password, if the address has an account; raises ValidationFailed."""
    await _ask(Letter.RESET_PASSWORD, "requestPasswordReset", email, origin)


async def verify(token: str, origin: Origin) -> None:
    """Confirm the address that the link was sent to; raises ValidationFailed when the link does not work."""
    async with unit_of_work():
        user_id = await account_queries.use_link(token, LinkPurpose.VERIFY_EMAIL)
        if user_id is None:
            raise _void()
        await account_queries.confirm_email(user_id)
        await AuditEvent.record(
            Actor(user_id=user_id, origin=origin), "verifyEmail", target_type="user", target_id=user_id
        )


async def reset(token: str, password: str, origin: Origin) -> None:
    """Set a new password; raises ValidationFailed when the link does not work or the password will not do."""
    await limits.count_identity_claim(origin)
    found = await account_queries.find_link(token, LinkPurpose.RESET_PASSWORD)
    if found is None:
        raise _void()
    account_rules.check_password(password, username=found["username"], email=found["email"])
    password_hash = await sessions.passwords().hash(password)
    async with unit_of_work():
        user_id = await account_queries.use_link(token, LinkPurpose.RESET_PASSWORD)
        if user_id is None:
            raise _void()
        await account_queries.set_password(user_id, password_hash)
        was_unproved = await account_queries.confirm_email(user_id)
        revoked_tokens = await account_queries.revoke_tokens(user_id) if was_unproved else 0
        revoked_sessions = await account_queries.revoke_sessions(user_id, reason=RevokedReason.PASSWORD_CHANGED)
        await AuditEvent.record(
            Actor(user_id=user_id, origin=origin),
            "resetPassword",
            target_type="user",
            target_id=user_id,
            details={"revokedSessions": revoked_sessions, "revokedTokens": revoked_tokens},
        )
        await tell_of_password(
            user_id, found["username"], how="by a link from a letter", sessions="You are signed out everywhere."
        )
        await publish(SessionsChanged(user_id))
    sessions.forget(user_id)


async def _ask(letter: Letter, action: str, email: str, origin: Origin) -> None:
    address = account_rules.valid_email(email)
    await limits.count_identity_claim(origin, account=address)
    pseudonym = sessions.pseudonym(users.email_key(address))
    async with unit_of_work():
        await AuditEvent.record(Actor(origin=origin), action, details={"identifierHash": pseudonym})
        await account_letters.ask(letter, address, key=pseudonym)


def _void() -> ValidationFailed:
    return ValidationFailed("This link has been used, has expired or never worked; ask for a new one.", path=["token"])
