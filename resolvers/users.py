"""Accounts: who may have one, and how its owner proves who they are.

Invariants: a login tells nothing but whether it succeeded; an unknown name, a wrong password and a deactivated
account get the same text after the same work, and so does an unconfirmed one where addresses have to be confirmed;
every attempt leaves a line in the audit trail. There, registration tells nothing of an address: the letter does.
Elsewhere it does tell that one is taken; usernames are public in any case. What names and passwords may be is in
`resolvers/account_rules.py`, what holds a session together in `resolvers/sessions.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from adapters import passwords as password_rules
from errors import ErrorCode, NotFound, ServiceUnavailable, Unauthorized, ValidationFailed
from models import account_queries, users
from models.audit import AuditEvent
from models.permissions import Actor, Origin, Role
from models.transaction import unit_of_work
from models.users import Account, Credentials
from resolvers import account_rules, devices, limits, second_factor, sessions
from resolvers.second_factor import Factor, Proof
from resolvers.sessions import SignedIn
from tasks import account_letters
from tasks.account_letters import Letter

GENERATED_PASSWORD_LENGTH: Final = 20

_NO_LOOKALIKES: Final = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


async def register(*, username: str, email: str, password: str, name: str | None, origin: Origin) -> SignedIn | None:
    """Open an account and its first session; None where the address has to be confirmed first.

    There the answer and the work are the same whether the address has an account or not, and a letter tells its owner.
    Raises ValidationFailed with the path of the faulty value and Conflict with the path of the taken one.
    """
    address = account_rules.valid_email(email)
    wanted = account_rules.valid_username(username)
    shown = account_rules.valid_name(name if name is not None else wanted)
    account_rules.check_password(password, username=wanted, email=address)
    await limits.count_identity_claim(origin, account=address)
    password_hash = await sessions.passwords().hash(password)
    if confirmation_required():
        await _register_unconfirmed(wanted, address, shown, password_hash, origin)
        return None
    async with unit_of_work():
        account = await users.create_account(
            email=address, username=wanted, name=shown, password_hash=password_hash, role=Role.USER
        )
        signed_in = await sessions.start(account, origin)
        await _record(signed_in, "register", origin)
    return signed_in


def confirmation_required() -> bool:
    """Whether an account works only once its address is confirmed."""
    settings = sessions.settings()
    return settings.is_production if settings.email_confirmation is None else settings.email_confirmation


async def login(
    *, identifier: str, password: str, origin: Origin, device_cookie: str | None = None, totp_code: str | None = None
) -> SignedIn:
    """Open a session for the owner of an account, named by e-mail address or username.

    Raises Unauthorized, in the same words and after the same work, whatever it was that did not fit, and
    RateLimitExceeded before any work. Where the account has a second factor, whoever knew the password is asked for
    `totp_code` as `second_factor.check` says. `device_cookie` is what the browser has of `resolvers/devices.py`.
    """
    if not password_rules.fits(password):
        raise ValidationFailed("A password has at most 1,024 bytes.", path=["password"])
    credentials = await _find_credentials(identifier)
    device = devices.recognise(sessions.settings(), device_cookie, credentials.user_id if credentials else None)
    async with limits.attempt(origin, account=identifier, device=device):
        verified = await _verified(credentials, password)
        proved = None if verified is None else await _second_factor(verified, totp_code, origin)
        signed_in = None
        if verified is not None and proved is not None:
            signed_in = await _sign_in(verified, proved, password=password, origin=origin)
        if signed_in is None:
            await _note_refusal(credentials, identifier, origin)
            # Whoever has just registered an address would learn from another text whether it had an account before.
            hint = " Or the e-mail address is not confirmed yet." if confirmation_required() else ""
            raise Unauthorized(f"Name or password is wrong.{hint}", reason="credentials")
    return signed_in


async def _second_factor(verified: Credentials, code: str | None, origin: Origin) -> Proof | None:
    """What the second factor proves; None for an account that does not open, of which nothing more is told."""
    own = await account_queries.find_own(verified.user_id)
    if own is None or (confirmation_required() and own["email_verified_at"] is None):
        return None
    return await second_factor.check(verified.user_id, code, origin=origin, act="login")


async def _sign_in(verified: Credentials, proved: Proof, *, password: str, origin: Origin) -> SignedIn | None:
    """A session, and in its transaction all that a login writes; None when the account or password changed since."""
    new_hash = await _renewed_hash(verified, password)
    try:
        async with unit_of_work():
            account = await users.note_login(verified, new_hash=new_hash, confirmed_only=confirmation_required())
            if account is None:
                return None
            await second_factor.spend(proved)
            signed_in = await sessions.start(account, origin)
            await _record(signed_in, "login", origin, factor=proved.factor)
    except Unauthorized as refusal:
        await second_factor.note_refusal(proved.user_id, refusal, origin=origin, act="login")
        raise
    return signed_in


async def _note_refusal(credentials: Credentials | None, identifier: str, origin: Origin) -> None:
    async with unit_of_work():
        await AuditEvent.record(
            Actor(origin=origin),
            "login",
            target_type="user" if credentials else None,
            target_id=credentials.user_id if credentials else None,
            outcome=Unauthorized.code.value,
            details={"identifierHash": sessions.pseudonym(users.username_key(identifier))},
        )


async def me(actor: Actor) -> Account:
    """The actor's own account; raises Unauthorized for nobody."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    account = (await users.find_accounts([actor.user_id])).get(actor.user_id)
    if account is None:
        raise NotFound("This account does not exist any more.")
    return account


async def by_ids(user_ids: Sequence[UUID]) -> dict[UUID, Account]:
    """The users that exist among these; who may see what of them is the caller's concern."""
    return await users.find_accounts(user_ids)


async def create_admin(*, email: str, username: str, password: str | None) -> str:
    """Open an administrator's account and return its password, a new one of 20 characters if none is given.

    Whoever runs the installation vouches for the address. Raises ValidationFailed or Conflict like `register`; an
    existing account is never promoted.
    """
    address = account_rules.valid_email(email)
    wanted = account_rules.valid_username(username)
    chosen = password if password is not None else new_password()
    account_rules.check_password(chosen, username=wanted, email=address)
    password_hash = await sessions.passwords().hash(chosen)
    async with unit_of_work():
        account = await users.create_account(
            email=address,
            username=wanted,
            name=wanted,
            password_hash=password_hash,
            role=Role.ADMIN,
            confirmed=True,
        )
        await AuditEvent.record(Actor(), "createAdmin", target_type="user", target_id=account.id)
    return chosen


async def any_admin_exists() -> bool:
    """Whether somebody administers this installation."""
    return await users.any_admin_exists()


async def _register_unconfirmed(username: str, email: str, name: str, password_hash: str, origin: Origin) -> None:
    """Open an account without a session; of one that is there already, nothing changes and nothing is told."""
    async with unit_of_work():
        account = await users.add_account(
            email=email, username=username, name=name, password_hash=password_hash, role=Role.USER
        )
        if account is None and await account_queries.username_is_taken(username):
            raise users.username_taken()
        await AuditEvent.record(
            Actor(user_id=account.id if account else None, origin=origin),
            "register",
            target_type="user" if account else None,
            target_id=account.id if account else None,
            outcome="success" if account else ErrorCode.CONFLICT.value,
            details={"identifierHash": sessions.pseudonym(users.email_key(email))},
        )
        await account_letters.ask(
            Letter.CONFIRM_EMAIL if account else Letter.REGISTRATION_TAKEN,
            email,
            key=sessions.pseudonym(users.email_key(email)),
        )


async def _find_credentials(identifier: str) -> Credentials | None:
    return (
        await users.find_credentials(identifier.strip()) if len(identifier) <= account_rules.MAX_EMAIL_LENGTH else None
    )


async def _verified(credentials: Credentials | None, password: str) -> Credentials | None:
    if credentials is None or credentials.password_hash is None:
        await sessions.passwords().verify_nothing(password)
        return None
    return credentials if await sessions.passwords().verify(credentials.password_hash, password) else None


async def _renewed_hash(verified: Credentials, password: str) -> str | None:
    """The hash with today's parameters, if the stored one has others; a busy moment leaves it to the next login."""
    if verified.password_hash is not None and sessions.passwords().needs_rehash(verified.password_hash):
        with suppress(ServiceUnavailable):
            return await sessions.passwords().hash(password)
    return None


async def _record(signed_in: SignedIn, action: str, origin: Origin, *, factor: Factor | None = None) -> None:
    account = signed_in.account
    await AuditEvent.record(
        Actor(user_id=account.id, role=account.role, session_id=signed_in.session_id, origin=origin),
        action,
        target_type="user",
        target_id=account.id,
        details={} if factor is None else {"factor": factor.value},
    )


def new_password() -> str:
    """A password that is shown once: 20 letters and digits of which none looks like another."""
    return "".join(secrets.choice(_NO_LOOKALIKES) for _ in range(GENERATED_PASSWORD_LENGTH))
