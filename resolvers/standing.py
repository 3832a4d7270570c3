"""Whether the credentials of open streams still hold: asked for all of them at once, every three seconds.

An event about a change wakes a stream at once; this is for events that are lost, for a Redis that is away and for
changes that nobody told of. Invariants: a change that was committed wakes the streams it concerns, and those alone, in
less than five seconds while PostgreSQL answers; the cost is one statement per process and look, however many streams
are open, and none while there are none. What a woken stream does is `schema/credentials.py`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from adapters import events
from adapters.cancellation import end
from adapters.events import Watcher
from errors import ServiceUnavailable
from models import standing_queries
from models.database import database_errors
from models.events import SessionsChanged
from models.permissions import Actor, Role
from settings import Settings

LOOK_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 0.5

_log = structlog.get_logger("switchyard.standing")


@dataclass(slots=True)
class _Shown:
    """A credential that streams are open with; `roles` are what these streams believe its owner to be."""

    user_id: UUID
    is_token: bool
    roles: set[Role] = field(default_factory=set)
    streams: int = 0


_shown: dict[UUID, _Shown] = {}


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[None]:
    """Look for the life of the process; needs database, events and sessions."""
    looking = asyncio.create_task(_look_for_ever(settings), name="standing")
    try:
        yield
    finally:
        await end(looking)


@asynccontextmanager
async def watch(actor: Actor) -> AsyncIterator[Watcher]:
    """A watcher that wakes up when what the actor has shown may hold no longer, or their role changed."""
    credential_id = actor.access_token_id or actor.session_id
    if actor.user_id is None or credential_id is None:
        raise LookupError("an actor without credentials has none to watch")
    async with events.hub().watch(("sessions", actor.user_id)) as watcher:
        shown = _shown.setdefault(credential_id, _Shown(actor.user_id, actor.access_token_id is not None))
        # It may have come out of a cache, so it is compared as any other.
        shown.roles.add(actor.role)
        shown.streams += 1
        try:
            yield watcher
        finally:
            shown.streams -= 1
            if not shown.streams:
                del _shown[credential_id]


async def look(*, idle_days: int) -> None:
    """Wake those whose credentials ended or whose role changed; raises ServiceUnavailable without a database."""
    asked = dict(_shown)
    if not asked:
        return
    before = {credential_id: frozenset(shown.roles) for credential_id, shown in asked.items()}
    with database_errors():
        roles = await standing_queries.holding(
            [credential_id for credential_id, shown in asked.items() if not shown.is_token],
            [credential_id for credential_id, shown in asked.items() if shown.is_token],
            idle_days=idle_days,
        )
    changed: Counter[UUID] = Counter()
    for credential_id, shown in asked.items():
        role = roles.get(credential_id)
        if role is None or before[credential_id] != {role}:
            changed[shown.user_id] += 1
        if role is not None:
            # Streams that began meanwhile are compared the next time.
            shown.roles = {role, *(shown.roles - before[credential_id])}
    for user_id, count in changed.items():
        _log.info("standing_changed", user_id=str(user_id), credentials=count)
        # In this process alone, as if the event had come: the caches forget what they know of the user as well.
        events.hub().poke(SessionsChanged(user_id))


async def _look_for_ever(settings: Settings) -> None:
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        try:
            await look(idle_days=settings.session_idle_days)
            pause = LOOK_SECONDS
        except ServiceUnavailable as error:
            pause = RETRY_SECONDS
            _log.warning("standing_not_checked", error=error.message)
