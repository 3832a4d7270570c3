"""Access tokens: made by people for scripts and CI, shown once, believed while their row says so.

Invariants: a token is read from the database at most five seconds ago, as sessions are, so its end and its owner's hold
everywhere within that time; what is no token costs no query; only a session makes and ends tokens. What a scope
grants is `models/permissions.py`'s.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from adapters import events, metrics
from errors import Conflict, Forbidden, NotFound, Unauthorized, ValidationFailed
from models import access_token_queries, project_queries
from models.access_token_queries import KnownToken
from models.audit import AuditEvent
from models.database import Row
from models.events import SessionsChanged
from models.ids import Prefix
from models.permissions import Actor, Origin, Permission, TokenScope
from models.transaction import unit_of_work
from resolvers import access, sessions, texts
from resolvers.access_token_text import hash_of, is_well_formed, looks_like_access_token, new_access_token

MAX_NAME_LENGTH: Final = 120
MAX_PROJECTS: Final = 100
LONGEST_LIFE: Final = timedelta(days=366)
CACHE_SIZE: Final = 1_000


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token, which is shown this once, and its row."""

    token: str
    row: Row


class TokenCache:
    """The tokens seen last, each for as long as a session is; the one used longest ago makes room."""

    def __init__(self) -> None:
        self.changes = 0
        self._entries: OrderedDict[str, tuple[float, KnownToken]] = OrderedDict()

    def get(self, token_hash: str, *, now: float) -> KnownToken | None:
        """The token, unless it was read too long ago; `now` is the loop's clock in seconds."""
        read_at, token = self._entries.get(token_hash, (0.0, None))
        if token is None or now - read_at > sessions.CACHE_SECONDS:
            return None
        self._entries.move_to_end(token_hash)
        return token

    def put(self, token_hash: str, token: KnownToken, *, read_at: float, changes: int) -> None:
        """Keep a token; nothing is kept if anybody's changed since before the query (`changes`)."""
        if changes != self.changes:
            return
        self._entries[token_hash] = (read_at, token)
        self._entries.move_to_end(token_hash)
        if len(self._entries) > CACHE_SIZE:
            self._entries.popitem(last=False)

    def forget_user(self, user_id: UUID) -> None:
        """Drop every token of a user."""
        self.changes += 1
        for token_hash in [key for key, (_, token) in self._entries.items() if token.account.id == user_id]:
            del self._entries[token_hash]


_cache: TokenCache | None = None


@contextmanager
def opened() -> Iterator[None]:
    """The cache for the life of the process; needs sessions and events."""
    global _cache
    before, cache = _cache, TokenCache()
    with events.hub().listen(SessionsChanged, lambda event: cache.forget_user(event.user_id)):
        _cache = cache
        try:
            yield
        finally:
            _cache = before


async def authenticate(token: str, origin: Origin) -> Actor:
    """Who shows a token of either kind, a session's or a script's; raises Unauthorized as sessions do."""
    if not looks_like_access_token(token):
        return await sessions.authenticate(token, origin)
    known = await _known(token, origin)
    return Actor(
        user_id=known.account.id,
        role=known.account.role,
        origin=origin,
        access_token_id=known.id,
        scope=known.scope,
        project_ids=known.project_ids,
        valid_until=known.expires_at,
    )


def expires_at(token: str) -> datetime | None:
    """When a session's token expires; for a script's, `Actor.valid_until` says it."""
    return None if looks_like_access_token(token) else sessions.expires_at(token)


async def own(actor: Actor) -> list[Row]:
    """The actor's tokens, newest first."""
    user_id = _owner(actor)
    access.allow(actor, Permission.ACCOUNT_READ)
    return await access_token_queries.of_user(user_id)


async def create(
    actor: Actor,
    *,
    name: str,
    scopes: Sequence[TokenScope],
    project_ids: Sequence[str] | None,
    expires_at: datetime | None,
) -> NewToken:
    """Make a token with the widest of the scopes, for all of the actor's projects or for these only.

    Raises ValidationFailed and NotFound with the path of what does not fit, Forbidden when the actor's role does not
    grant the scope, Conflict when they have as many tokens as they may.
    """
    user_id = _owner(actor)
    access.allow(actor, Permission.ACCOUNT_WRITE)
    valid_name = texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    scope = _widest(actor, scopes)
    _check_end(expires_at)
    projects = None if project_ids is None else await _own_projects(user_id, project_ids, scope)
    token = new_access_token()
    async with unit_of_work():
        most = sessions.settings().max_access_tokens_per_user
        if await access_token_queries.count_owned(user_id) >= most:
            raise Conflict(f"You have {most:,} access tokens, which is the limit. Revoke some first.", limit=most)
        row = await access_token_queries.insert(
            user_id,
            name=valid_name,
            token_hash=hash_of(token),
            last_four=token[-4:],
            scope=scope,
            project_ids=projects,
            expires_at=expires_at,
        )
        await _record(
            actor,
            "createAccessToken",
            row["id"],
            name=valid_name,
            scope=scope.value,
            projects=None if projects is None else [str(each) for each in projects],
            expiresAt=expires_at and expires_at.isoformat(),
        )
    return NewToken(token, row)


async def revoke(actor: Actor, token_id: str) -> None:
    """End a token of the actor's for ever, and the streams that it opened; again is no error."""
    row = await access.access_token(actor, token_id, to=Permission.ACCOUNT_WRITE)
    async with unit_of_work():
        if await access_token_queries.revoke(row["id"]):
            await _record(actor, "revokeAccessToken", row["id"], name=row["name"])
            await events.publish(SessionsChanged(row["user_id"]))
    if _cache is not None:
        _cache.forget_user(row["user_id"])


async def _known(token: str, origin: Origin) -> KnownToken:
    """The token's row as it was at most five seconds ago; raises Unauthorized unless it holds now."""
    if not is_well_formed(token):
        raise _invalid()
    cache = _cache
    if cache is None:
        raise LookupError("access_tokens.opened() is not open in this process")
    token_hash = hash_of(token)
    now = asyncio.get_running_loop().time()
    known = cache.get(token_hash, now=now)
    metrics.current().count_lookup("access_tokens", known is not None)
    if known is None:
        changes = cache.changes
        known = await access_token_queries.find_by_hash(token_hash)
        if known is None:
            raise _invalid()
        cache.put(token_hash, known, read_at=now, changes=changes)
        if not known.is_noted and _refusal(known) is None:
            await access_token_queries.note_use(known.id, ip=origin.ip)
    if (refusal := _refusal(known)) is not None:
        raise refusal
    return known


def _refusal(known: KnownToken) -> Unauthorized | None:
    if known.is_revoked:
        return Unauthorized("The access token was revoked.", reason="revoked")
    if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
        return Unauthorized("The access token has expired; make a new one.", reason="expired")
    return None


def _widest(actor: Actor, scopes: Sequence[TokenScope]) -> TokenScope:
    if not scopes:
        raise ValidationFailed("Name at least one scope.", path=["input", "scopes"])
    scope = max(scopes, key=list(TokenScope).index)
    if scope is TokenScope.ADMIN and not actor.is_admin:
        raise Forbidden("Only administrators make tokens with the scope ADMIN.", path=["input", "scopes"])
    return scope


def _check_end(expires_at: datetime | None) -> None:
    now = datetime.now(UTC)
    if expires_at is not None and not now < expires_at <= now + LONGEST_LIFE:
        raise ValidationFailed(
            "A token ends within a year from now, or never: then leave this out.", path=["input", "expiresAt"]
        )


async def _own_projects(user_id: UUID, id_texts: Sequence[str], scope: TokenScope) -> list[UUID]:
    """Projects of the user's own, each once: what others own, administrators' tokens for projects do not reach."""
    path = ["input", "projectIds"]
    if scope is TokenScope.ADMIN:
        raise ValidationFailed("The scope ADMIN is for everything; it cannot be narrowed to projects.", path=path)
    if not 1 <= len(id_texts) <= MAX_PROJECTS:
        raise ValidationFailed(f"Name 1 to {MAX_PROJECTS} projects; for all of them, leave this out.", path=path)
    ids: list[UUID] = []
    for place, id_text in enumerate(id_texts):
        try:
            ids.append(access.uuid_of(id_text, Prefix.PROJECT))
        except NotFound as error:
            raise NotFound(error.message, path=[*path, place]) from None
    found = await project_queries.find(ids)
    for place, project_id in enumerate(ids):
        if project_id not in found or found[project_id]["owner_id"] != user_id:
            raise NotFound(access.missing().message, path=[*path, place])
    return list(dict.fromkeys(ids))


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id


def _invalid() -> Unauthorized:
    return Unauthorized("The access token is not valid.", reason="invalid")


async def _record(actor: Actor, action: str, token_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="accessToken", target_id=token_id, details=details)
