"""Accounts: who may have one, and how its owner proves who they are.

Invariants: a login tells nothing but whether it succeeded; an unknown name, a wrong password and a deactivated
account get the same text after the same work; every attempt leaves a line in the audit trail. Registration does
tell that a name is taken: without confirmation by e-mail it cannot do otherwise. What holds a session together
is in `resolvers/sessions.py`.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

import email_validator

from adapters import passwords as password_rules
from errors import NotFound, ServiceUnavailable, Unauthorized, ValidationFailed
from models import users
from models.audit import AuditEvent
from models.permissions import Actor, Origin, Role
from models.transaction import unit_of_work
from models.users import Account, Credentials
from resolvers import sessions
from resolvers.sessions import SignedIn

MAX_NAME_LENGTH: Final = 120
MAX_EMAIL_LENGTH: Final = 254
GENERATED_PASSWORD_LENGTH: Final = 20
SHORTEST_TELLING_WORD: Final = 3

_PRODUCT: Final = "switchyard"
_USERNAME: Final = re.compile(r"[A-Za-z0-9._-]{3,32}", re.ASCII)
_NO_LOOKALIKES: Final = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_INTERNAL_DOMAINS: Final = frozenset({"local", "localhost", "test"})

# An installation on a private network mails to such domains; the library takes no argument for it, only its list.
email_validator.SPECIAL_USE_DOMAIN_NAMES[:] = [
    name for name in email_validator.SPECIAL_USE_DOMAIN_NAMES if name not in _INTERNAL_DOMAINS
]


async def register(*, username: str, email: str, password: str, name: str | None, origin: Origin) -> SignedIn:
    """Open an account and its first session.

    Raises ValidationFailed with the path of the faulty value and Conflict with the path of the taken one.
    """
    valid_email = _valid_email(email)
    valid_username = _valid_username(username)
    valid_name = _valid_name(name if name is not None else valid_username)
    _check_password(password, username=valid_username, email=valid_email)
    password_hash = await sessions.passwords().hash(password)
    async with unit_of_work():
        account = await users.create_account(
            email=valid_email, username=valid_username, name=valid_name, password_hash=password_hash, role=Role.USER
        )
        signed_in = await sessions.start(account, origin)
        await _record(signed_in, "register", origin)
    return signed_in


async def login(*, identifier: str, password: str, origin: Origin) -> SignedIn:
    """Open a session for the owner of an account, named by e-mail address or username.

    Raises Unauthorized, in the same words and after the same work, whatever it was that did not fit.
    """
    if not password_rules.fits(password):
        raise ValidationFailed("A password has at most 1,024 bytes.", path=["password"])
    credentials = await _find_credentials(identifier)
    verified = await _verified(credentials, password)
    new_hash = await _renewed_hash(verified, password)
    signed_in = None
    async with unit_of_work():
        account = await users.note_login(verified, new_hash=new_hash) if verified else None
        if account is not None:
            signed_in = await sessions.start(account, origin)
            await _record(signed_in, "login", origin)
        else:
            await AuditEvent.record(
                Actor(origin=origin),
                "login",
                target_type="user" if credentials else None,
                target_id=credentials.user_id if credentials else None,
                outcome=Unauthorized.code.value,
                details={"identifierHash": sessions.pseudonym(users.username_key(identifier))},
            )
    if signed_in is None:
        raise Unauthorized("Name or password is wrong.", reason="credentials")
    return signed_in


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

    Raises ValidationFailed or Conflict like `register`; an existing account is never promoted.
    """
    valid_email = _valid_email(email)
    valid_username = _valid_username(username)
    chosen = password if password is not None else _new_password()
    _check_password(chosen, username=valid_username, email=valid_email)
    password_hash = await sessions.passwords().hash(chosen)
    async with unit_of_work():
        account = await users.create_account(
            email=valid_email,
            username=valid_username,
            name=valid_username,
            password_hash=password_hash,
            role=Role.ADMIN,
        )
        await AuditEvent.record(Actor(), "createAdmin", target_type="user", target_id=account.id)
    return chosen


async def any_admin_exists() -> bool:
    """Whether somebody administers this installation."""
    return await users.any_admin_exists()


async def _find_credentials(identifier: str) -> Credentials | None:
    return await users.find_credentials(identifier.strip()) if len(identifier) <= MAX_EMAIL_LENGTH else None


async def _verified(credentials: Credentials | None, password: str) -> Credentials | None:
    if credentials is None:
        await sessions.passwords().verify_nothing(password)
        return None
    return credentials if await sessions.passwords().verify(credentials.password_hash, password) else None


async def _renewed_hash(verified: Credentials | None, password: str) -> str | None:
    """The hash with today's parameters, if the stored one has others; a busy moment leaves it to the next login."""
    if verified is not None and sessions.passwords().needs_rehash(verified.password_hash):
        with suppress(ServiceUnavailable):
            return await sessions.passwords().hash(password)
    return None


async def _record(signed_in: SignedIn, action: str, origin: Origin) -> None:
    account = signed_in.account
    await AuditEvent.record(
        Actor(user_id=account.id, role=account.role, session_id=signed_in.session_id, origin=origin),
        action,
        target_type="user",
        target_id=account.id,
    )


def _valid_email(text: str) -> str:
    if len(text) > MAX_EMAIL_LENGTH:
        raise ValidationFailed("An e-mail address has at most 254 characters.", path=["email"])
    try:
        checked = email_validator.validate_email(text.strip(), check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise ValidationFailed(str(error), path=["email"]) from None
    return checked.normalized


def _valid_username(text: str) -> str:
    visible = unicodedata.normalize("NFKC", text).strip()
    if not _USERNAME.fullmatch(visible):
        raise ValidationFailed(
            "A username has 3 to 32 characters: letters a to z, digits, dot, underscore and hyphen.", path=["username"]
        )
    return visible


def _valid_name(text: str) -> str:
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValidationFailed("A name has 1 to 120 characters, all of them printable.", path=["name"])
    return name


def _check_password(password: str, *, username: str, email: str) -> None:
    """Refuse what others would guess first.

    The whole password is compared with the list, as NIST SP 800-63B-4 §3.1.1.2 has it, and words of the context
    (the owner's names, ours) do not count towards its length. No rule asks for kinds of characters.
    """
    shortest = sessions.settings().password_min_length
    if len(password) < shortest:
        raise ValidationFailed(f"A password has at least {shortest} characters.", path=["password"])
    if not password_rules.fits(password):
        raise ValidationFailed("A password has at most 1,024 bytes.", path=["password"])
    if password_rules.is_common(password):
        raise ValidationFailed("This password is among the commonest ones; choose another.", path=["password"])
    letters = _letters_and_digits(password)
    for word in (username, email.partition("@")[0], _PRODUCT):
        known = _letters_and_digits(word)
        if len(known) < SHORTEST_TELLING_WORD or known not in letters:
            continue
        if len(letters.replace(known, "")) < shortest:
            raise ValidationFailed("This password is little more than a name that others know.", path=["password"])


def _letters_and_digits(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _new_password() -> str:
    return "".join(secrets.choice(_NO_LOOKALIKES) for _ in range(GENERATED_PASSWORD_LENGTH))
