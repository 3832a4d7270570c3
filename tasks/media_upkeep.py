"""Looking after what media leave in storage: a handler of the outbox, and a sweep for what nobody told of.

media.removal  {mediaId}   a medium was deleted or refused: drop its objects

The sweep removes promises that nobody kept, with whatever was uploaded for them, and objects of media that are gone,
such as those of a deleted account, or of an address for uploading that was used after its medium was deleted.
Invariant: a row is made before its object, so an object without one is nobody's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters.storage import Storage
from errors import SwitchyardError
from models import media_queries
from models.database import is_outage

TOPIC: Final = "media.removal"
SWEEP_SECONDS: Final = 600.0
GRACE_SECONDS: Final = 3_600
KEPT_DAYS: Final = 30
"""How long a refused medium tells why."""

_AT_ONCE: Final = 500
_log = structlog.get_logger("switchyard.media")


async def remove(pool: asyncpg.Pool, storage: Storage, payload: Mapping[str, Any]) -> None:
    """Drop the objects of a medium, unless there is one that should have them."""
    media_id = UUID(payload["mediaId"])
    if await media_queries.without_objects(pool, [media_id]):
        await storage.delete(media_queries.keys_of(media_id))


async def sweep(pool: asyncpg.Pool, storage: Storage) -> None:
    """Clear up now and then until cancelled; what fails is tried again at the next round."""
    while True:
        # Workers that started together should not sweep together.
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only
        try:
            await sweep_once(pool, storage)
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise
            _log.warning("media_sweep_failed", error=repr(error))


async def sweep_once(pool: asyncpg.Pool, storage: Storage) -> None:
    """Remove abandoned uploads and objects that are nobody's; objects go first, the rows that name them after."""
    while abandoned := await media_queries.abandoned(
        pool, grace_seconds=GRACE_SECONDS, kept_days=KEPT_DAYS, limit=_AT_ONCE
    ):
        await storage.delete([key for media_id in abandoned for key in media_queries.keys_of(media_id)])
        await media_queries.forget(pool, abandoned, grace_seconds=GRACE_SECONDS)
        _log.info("media_forgotten", count=len(abandoned))
    found: dict[str, UUID] = {}
    async for stored in storage.list(media_queries.KEY_PREFIX):
        media_id = _media_id(stored.key)
        if media_id is not None:
            found[stored.key] = media_id
        if len(found) >= _AT_ONCE:
            await _drop_orphans(pool, storage, found)
            found = {}
    await _drop_orphans(pool, storage, found)


async def _drop_orphans(pool: asyncpg.Pool, storage: Storage, found: Mapping[str, UUID]) -> None:
    nobodys = await media_queries.without_objects(pool, list(set(found.values())))
    keys: Sequence[str] = [key for key, media_id in found.items() if media_id in nobodys]
    if keys:
        await storage.delete(keys)
        _log.info("media_orphans_removed", count=len(keys))


def _media_id(key: str) -> UUID | None:
    try:
        return UUID(key.removeprefix(media_queries.KEY_PREFIX).partition("/")[0])
    except ValueError:
        return None
