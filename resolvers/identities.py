"""Identities: which account here somebody gets into whom a provider vouches for, and how owners add and remove them.

Invariants: an identity opens one account; an address decides only where the provider has verified it; whoever opened an
account under an address that nobody had confirmed keeps no way into it once its owner comes; the last way into an
account is never taken away. The journey through the browser is `resolvers/oauth_sign_in.py`'s.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from adapters import github, openid
from adapters.events import publish
from errors import Conflict, Unauthorized, ValidationFailed
from models import account_queries, identity_queries, users
from models.audit import AuditEvent
from models.connections import IdentityProvider
from models.database import Row
from models.events import SessionsChanged
from models.ids import new_id
from models.permissions import Actor, Origin, Permission, Role
from models.sessions import RevokedReason
from models.transaction import after_commit, unit_of_work
from models.users import Account
from resolvers import access, account_rules, limits, proof, second_factor, sessions
from resolvers import github as github_connections
from resolvers.sessions import SignedIn
from resolvers.users import confirmation_required
from tasks import mail, outbox

USERNAME_TRIES: Final = 8
MAX_LOGIN_LENGTH: Final = 120
PROVIDER_NAMES: Final = {IdentityProvider.GITHUB: "GitHub", IdentityProvider.GOOGLE: "Google"}

_CLOSED: Final = "credentials"
_SHORTEST_USERNAME: Final = 3
_LONGEST_STEM: Final = 24  # leaves room for what makes it unique, within 32
_NOT_IN_USERNAMES: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a provider vouches for. `email` is None unless it has verified the address."""

    provider: IdentityProvider
    subject: str
    email: str | None
    login: str
    name: str | None

    @property
    def address(self) -> str:
        """The verified address; raises Conflict when there is none."""
        if self.email is None:
            raise Conflict(
                f"{PROVIDER_NAMES[self.provider]} has not verified your e-mail address; confirm it there first.",
                reason="emailNotVerified",
            )
        return self.email


@dataclass(frozen=True, slots=True)
class Entered:
    """What a sign-in came to."""

    signed_in: SignedIn
    identity: Row
    is_new: bool


def set_up() -> list[IdentityProvider]:
    """The providers that this installation has a client at."""
    is_set_up = {
        IdentityProvider.GITHUB: github.current().is_configured,
        IdentityProvider.GOOGLE: openid.current().is_configured,
    }
    return [provider for provider in IdentityProvider if is_set_up[provider]]


def verified_address(given: str | None) -> str | None:
    """An address that a provider has verified, as accounts have them; None for what no account may have.

    Only letters beyond ASCII have other forms that look or sort alike. Those count only in the form that is stored, or
    a full-width `@` or a Kelvin sign would make somebody else's address of it.
    """
    if given is None:
        return None
    try:
        address = account_rules.valid_email(given)
    except ValidationFailed:
        return None
    return address if given.isascii() or given == address else None


async def account_of(found: Found) -> Row | None:
    """The account that somebody would get into now, by their identity or their verified address."""
    account = await identity_queries.known(found.provider, found.subject)
    if account is None and found.email is not None:
        account = await identity_queries.with_email(found.email)
    return account


async def sign_in(found: Found, *, totp_code: str | None, origin: Origin) -> Entered:
    """Open a session for somebody whom a provider vouches for, and an account if they have none.

    Raises Unauthorized when the account does not open, Conflict when the address is not verified or the account has
    another identity of the provider, RateLimitExceeded, and what the second factor is missing.
    """
    account = await account_of(found)
    proved: second_factor.Proof | None = None
    if account is None:
        await limits.count_identity_claim(origin, account=found.address)
    elif account["is_active"] and not _is_unproved(account):
        proved = await second_factor.check(account["user_id"], totp_code, origin=origin, act="login")
    try:
        async with unit_of_work():
            entered, unproved_owner = await _enter(found, None if proved is None else proved.user_id, origin)
            if proved is not None:
                await second_factor.spend(proved)
    except Unauthorized as refusal:
        if proved is not None and refusal.details.get("reason") != _CLOSED:
            await second_factor.note_refusal(proved.user_id, refusal, origin=origin, act="login")
        raise
    if unproved_owner is not None:
        sessions.forget(unproved_owner)
    return entered


async def link(actor: Actor, found: Found) -> tuple[Account, Row]:
    """Let an identity open the actor's account from now on; one that does already is no error.

    Raises Conflict when the address is not verified there, the identity opens another account, or the account has
    another of the provider.
    """
    user_id = _owner(actor)
    address = found.address
    async with unit_of_work():
        await identity_queries.lock_subject(found.provider, found.subject)
        account = await identity_queries.lock_user(user_id)
        if account is None or not account["is_active"]:
            raise _closed()
        known = await identity_queries.known(found.provider, found.subject)
        if known is not None and known["user_id"] != user_id:
            raise Conflict(
                f"This {PROVIDER_NAMES[found.provider]} account signs in to another account here.", reason="taken"
            )
        identity = await (identity_queries.find(known["identity_id"]) if known else _add(account, found, address))
        if known is None:
            await _record(actor, "linkIdentity", user_id, found.provider)
    if identity is None:
        raise access.missing()
    return (await users.find_accounts([user_id]))[user_id], identity


async def of_actor(actor: Actor) -> Sequence[Row]:
    """The actor's identities, oldest first."""
    return await identity_queries.of_user(_owner(actor))


async def find(actor: Actor, identity_id: UUID) -> Row | None:
    """An identity of the actor's."""
    row = await identity_queries.find(identity_id)
    return row if row is not None and row["user_id"] == actor.user_id else None


async def unlink(actor: Actor, id_text: str, *, password: str | None) -> None:
    """Let an identity open the actor's account no more; sessions that it opened go on.

    Raises NotFound, ValidationFailed without a proof, and Conflict for the last way into the account.
    """
    identity = await access.identity(actor, id_text, to=Permission.ACCOUNT_WRITE)
    own = await proof.prove_again(actor, password, act="unlinkIdentity")
    usable = set_up()
    async with unit_of_work():
        account = await identity_queries.lock_user(own["id"])
        held = {each["id"]: each["provider"] for each in await identity_queries.of_user(own["id"])}
        if account is None or held.pop(identity["id"], None) is None:
            raise access.missing()
        if account["password_hash"] is None and not any(provider in usable for provider in held.values()):
            raise Conflict(
                "This is the last way into the account: set a password first, by a link from a letter.",
                reason="lastMethod",
            )
        await identity_queries.remove(own["id"], identity["id"])
        await _record(actor, "unlinkIdentity", own["id"], IdentityProvider(identity["provider"]))


# -- inside


async def _enter(found: Found, proved_for: UUID | None, origin: Origin) -> tuple[Entered, UUID | None]:
    """Decide, in a unit of work; with it the user whose account was taken from somebody else, if it was."""
    await identity_queries.lock_subject(found.provider, found.subject)
    account, made = await _locked_account(found), None
    if account is None:
        made = await _new_account(found)
        account = await identity_queries.lock_user(made.id) if made else await _locked_account(found)
    if account is None or not account["is_active"]:
        raise _closed()
    user_id: UUID = account["user_id"]
    actor = Actor(user_id=user_id, origin=origin)
    is_unproved = made is None and _is_unproved(account)
    if is_unproved:
        await _disown(actor, account)
    elif account["has_second_factor"] and proved_for != user_id:
        raise Conflict("The account has changed meanwhile; start again.", reason="accountChanged")
    identity_id = account.get("identity_id")
    if identity_id is None:
        identity_id = (await _add(account, found, found.address, is_news=made is None, was_unproved=is_unproved))["id"]
        if made is None:
            await _record(actor, "linkIdentity", user_id, found.provider)
    await identity_queries.note_use(identity_id, email=found.email, login=found.login)
    opened = await identity_queries.note_sign_in(user_id, email=found.email, confirmed_only=confirmation_required())
    identity = await identity_queries.find(identity_id)
    if opened is None or identity is None:
        raise _closed()
    signed_in = await sessions.start(opened, origin)
    signed = Actor(user_id=user_id, role=opened.role, session_id=signed_in.session_id, origin=origin)
    await _record(signed, "register" if made else "login", user_id, found.provider)
    return Entered(signed_in, identity, is_new=made is not None), user_id if is_unproved else None


async def _locked_account(found: Found) -> Row | None:
    account = await identity_queries.known(found.provider, found.subject, locked=True)
    if account is not None:
        # Read again under the lock: whoever held it may have unlinked the identity.
        account = await identity_queries.known(found.provider, found.subject)
    if account is None and found.email is not None:
        account = await identity_queries.with_email(found.email, locked=True)
    return account


async def _new_account(found: Found) -> Account | None:
    """An account without a password; None when somebody else opened one under the address just now."""
    address = found.address
    stem = _username_stem(found)
    for number in range(USERNAME_TRIES):
        account = await users.add_account(
            email=address,
            username=stem if number == 0 else f"{stem}-{secrets.token_hex(1 + number // 3)}",
            name=_shown_name(found, stem),
            password_hash=None,
            role=Role.USER,
            confirmed=True,
        )
        if account is not None:
            return account
        if await identity_queries.with_email(address) is not None:
            return None
    raise Conflict("No username could be made for you; register with one of your choice.", path=["username"])


async def _add(account: Row, found: Found, address: str, *, is_news: bool = True, was_unproved: bool = False) -> Row:
    """Store the identity and tell the owner, unless they have just opened the account with it."""
    name = PROVIDER_NAMES[found.provider]
    identity = await identity_queries.add(
        account["user_id"], found.provider, found.subject, email=address, login=found.login
    )
    if identity is None:
        raise Conflict(
            f"Your account has another {name} account to sign in with; sign in with that one, or unlink it first.",
            reason="providerTaken",
        )
    if is_news:
        key = f"identity-linked:{new_id()}"
        variables = {
            "username": account["username"],
            "provider": name,
            "login": found.login if found.login == address else f"{found.login} ({address})",
            "consequences": _TAKEN_OVER if was_unproved else _UNTOUCHED,
        }
        payload = mail.letter(key, user_id=account["user_id"], template="identity_linked", variables=variables)
        await outbox.post(mail.TOPIC, key, payload)
    return identity


async def _disown(actor: Actor, account: Row) -> None:
    """Take an account away from whoever opened it under an address that was not confirmed."""
    user_id: UUID = account["user_id"]
    revoked_sessions = await account_queries.revoke_sessions(user_id, reason=RevokedReason.ACCOUNT_LINKED)
    revoked_tokens = await account_queries.revoke_tokens(user_id)
    connection = await identity_queries.disown(user_id)
    if connection is not None:
        removed = connection
        after_commit(lambda: github_connections.revoke(removed))
    await AuditEvent.record(
        actor,
        "disownAccount",
        target_type="user",
        target_id=user_id,
        details={
            "revokedSessions": revoked_sessions,
            "revokedTokens": revoked_tokens,
            "hadPassword": account["password_hash"] is not None,
            "hadSecondFactor": account["has_second_factor"],
        },
    )
    await publish(SessionsChanged(user_id))


def _is_unproved(account: Row) -> bool:
    """Whether an account was found by an address that nobody has confirmed yet."""
    return "identity_id" not in account and account["email_verified_at"] is None


def _username_stem(found: Found) -> str:
    """A username made of what the provider says; it may be taken."""
    source = found.login if found.provider is IdentityProvider.GITHUB else found.address.partition("@")[0]
    stem = _NOT_IN_USERNAMES.sub("-", source)[:_LONGEST_STEM].strip("-._")
    return stem if len(stem) >= _SHORTEST_USERNAME else f"user-{secrets.token_hex(3)}"


def _shown_name(found: Found, username: str) -> str:
    for wanted in (found.name, found.login):
        try:
            return account_rules.valid_name(wanted or "")
        except ValidationFailed:
            continue
    return username


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id


def _closed() -> Unauthorized:
    return Unauthorized("This sign-in opens no account here.", reason=_CLOSED)


async def _record(actor: Actor, action: str, user_id: UUID, provider: IdentityProvider) -> None:
    await AuditEvent.record(actor, action, target_type="user", target_id=user_id, details={"provider": provider.value})


_UNTOUCHED: Final = "Your password, if you have one, and everything else are as they were."
_TAKEN_OVER: Final = (
    "Nobody had confirmed the address of the account before, so whoever opened it may have been somebody else: its "
    "password, sessions, access tokens and second factor work no longer. You can set a password of your own."
)
