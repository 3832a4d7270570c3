"""Sessions: from a token to an actor, from a refresh token to its successor, and the end of both.

Invariants: a token is never enough, its session is read from the database at most five seconds ago, and role and
rights come from there, not from the token; one refresh token has one successor; a replaced refresh token shown
again later than ten seconds ends the session for both who hold it. Who may get a session at all is decided in
`resolvers/users.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from adapters import metrics
from adapters.events import hub, publish
from adapters.passwords import PasswordHasher
from adapters.secret_box import SecretBox
from errors import Unauthorized
from models.audit import AuditEvent
from models.events import SessionsChanged
from models.permissions import Actor, Origin
from models.sessions import (
    LiveSession,
    RevokedReason,
    find_live,
    find_successor,
    open_session,
    revoke,
    revoke_if_replaced,
    rotate,
)
from models.transaction import unit_of_work
from models.users import Account
from resolvers.tokens import TokenKeys
from settings import Settings

CACHE_SECONDS: Final = 5.0
CACHE_SIZE: Final = 10_000


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session and the tokens that carry it now."""

    account: Account
    session_id: UUID
    access_token: str
    expires_at: datetime
    refresh_token: str
    refresh_until: datetime


class SessionCache:
    """The sessions seen last, each for at most five seconds; the one used longest ago makes room."""

    def __init__(self, *, size: int = CACHE_SIZE) -> None:
        self._size = size
        self.changes = 0
        self._entries: OrderedDict[UUID, tuple[float, LiveSession]] = OrderedDict()
        self._of_user: dict[UUID, set[UUID]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session_id: UUID, *, now: float) -> LiveSession | None:
        """The session, unless it was read too long ago; `now` is the loop's clock in seconds."""
        read_at, session = self._entries.get(session_id, (0.0, None))
        if session is None or now - read_at > CACHE_SECONDS:
            return None
        self._entries.move_to_end(session_id)
        return session

    def put(self, session: LiveSession, *, read_at: float, changes: int) -> None:
        """Keep a session; `read_at` and `changes` are the loop's clock and the count from before its query.

        If anybody's sessions changed since, the query may have been too early to see it: nothing is kept.
        """
        if changes != self.changes:
            return
        self._entries[session.id] = (read_at, session)
        self._entries.move_to_end(session.id)
        self._of_user.setdefault(session.account.id, set()).add(session.id)
        while len(self._entries) > self._size:
            _, (_, oldest) = self._entries.popitem(last=False)
            self._forget_link(oldest)

    def forget_user(self, user_id: UUID) -> None:
        """Drop every session of a user."""
        self.changes += 1
        for session_id in self._of_user.pop(user_id, ()):
            self._entries.pop(session_id, None)

    def _forget_link(self, session: LiveSession) -> None:
        siblings = self._of_user[session.account.id]
        siblings.discard(session.id)
        if not siblings:
            del self._of_user[session.account.id]


@dataclass(frozen=True, slots=True)
class _Opened:
    settings: Settings
    tokens: TokenKeys
    passwords: PasswordHasher
    cache: SessionCache
    box: SecretBox


_opened: _Opened | None = None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[None]:
    """Keys, hashing threads and cache for the life of the process; needs database and events."""
    global _opened
    cache = SessionCache()
    passwords = PasswordHasher(settings)
    before = _opened
    try:
        with hub().listen(SessionsChanged, lambda event: cache.forget_user(event.user_id)):
            _opened = _Opened(
                settings=settings,
                tokens=TokenKeys(settings),
                passwords=passwords,
                cache=cache,
                box=SecretBox(settings.keyring),
            )
            yield
    finally:
        _opened = before
        passwords.close()


async def authenticate(token: str, origin: Origin) -> Actor:
    """Who shows an access token; raises Unauthorized with the reason `expired`, `invalid` or `revoked`.

    Ends of sessions, changed roles and deactivated users take effect at once where the event arrives, and
    after five seconds everywhere.
    """
    handle = _handle()
    claims = handle.tokens.read_access(token)
    now = asyncio.get_running_loop().time()
    session = handle.cache.get(claims.session_id, now=now)
    metrics.current().count_lookup("sessions", session is not None)
    if session is None:
        changes = handle.cache.changes
        session = await find_live(claims.session_id, idle_days=handle.settings.session_idle_days)
        if session is None:
            raise _ended()
        handle.cache.put(session, read_at=now, changes=changes)
    if session.account.id != claims.user_id:
        raise _ended()
    return Actor(user_id=session.account.id, role=session.account.role, session_id=session.id, origin=origin)


def expires_at(token: str) -> datetime:
    """When an access token expires, without the leeway that `authenticate` grants; raises Unauthorized like it."""
    return _handle().tokens.read_access(token).expires_at


async def start(account: Account, origin: Origin) -> SignedIn:
    """Open a session for a user who has proved who they are; call it inside the unit of work that checks it."""
    settings = _handle().settings
    return _carried(
        await open_session(
            account,
            idle_days=settings.session_idle_days,
            absolute_days=settings.session_absolute_days,
            origin=origin,
        )
    )


async def refresh(refresh_token: str, origin: Origin) -> SignedIn:
    """The successor of a refresh token and a new access token; raises Unauthorized when the session has ended.

    Whoever loses the race for the rotation, or asks again within ten seconds because the answer got lost, is
    given the same successor. Later than that a replaced token means that two hold it: the session ends.
    """
    handle = _handle()
    claims = handle.tokens.read_refresh(refresh_token)
    idle_days = handle.settings.session_idle_days
    session = await rotate(claims.session_id, claims.counter, idle_days=idle_days)
    if session is not None:
        return _carried(session)
    async with unit_of_work():
        session = await find_successor(claims.session_id, claims.counter, idle_days=idle_days)
        robbed = None if session else await revoke_if_replaced(claims.session_id, claims.counter)
        if robbed is not None:
            await AuditEvent.record(
                Actor(user_id=robbed, session_id=claims.session_id, origin=origin),
                "refreshSession",
                target_type="session",
                target_id=claims.session_id,
                outcome=Unauthorized.code.value,
                details={"reason": RevokedReason.REFRESH_REUSED.value, "counter": claims.counter},
            )
            await publish(SessionsChanged(robbed))
    if robbed is not None:
        handle.cache.forget_user(robbed)
    if session is None:
        raise _ended()
    return _carried(session)


async def end(actor: Actor, *, refresh_token: str | None) -> None:
    """Sign out: end the session of the refresh token if there is one, else the actor's.

    Ending what has ended, and signing out without a session, is no error: the caller is signed out.
    """
    handle = _handle()
    session_id = handle.tokens.read_refresh(refresh_token).session_id if refresh_token else actor.session_id
    if session_id is None:
        return
    async with unit_of_work():
        user_id = await revoke(session_id, reason=RevokedReason.LOGOUT)
        if user_id is not None:
            await AuditEvent.record(
                Actor(user_id=user_id, role=actor.role, session_id=session_id, origin=actor.origin),
                "logout",
                target_type="session",
                target_id=session_id,
            )
            await publish(SessionsChanged(user_id))
    if user_id is not None:
        handle.cache.forget_user(user_id)


def forget(user_id: UUID) -> None:
    """Read a user's sessions anew from now on, in this process; for whoever has ended some, after the commit."""
    _handle().cache.forget_user(user_id)


def passwords() -> PasswordHasher:
    """The password hasher of this process."""
    return _handle().passwords


def settings() -> Settings:
    """The settings that the sessions of this process follow."""
    return _handle().settings


def secret_box() -> SecretBox:
    """What seals and opens secrets at rest in this process."""
    return _handle().box


def pseudonym(text: str) -> str:
    """A keyed hash of a name that must not stand in the audit trail."""
    return _handle().tokens.pseudonym(text)


def _carried(session: LiveSession) -> SignedIn:
    tokens = _handle().tokens
    access_token, access_until = tokens.issue_access(session.account, session.id)
    return SignedIn(
        account=session.account,
        session_id=session.id,
        access_token=access_token,
        expires_at=access_until,
        refresh_token=tokens.issue_refresh(session.id, session.counter),
        refresh_until=session.refresh_until,
    )


def _handle() -> _Opened:
    if _opened is None:
        raise LookupError("sessions.opened() is not open in this process")
    return _opened


def _ended() -> Unauthorized:
    return Unauthorized("The session has ended; sign in again.", reason="revoked")
