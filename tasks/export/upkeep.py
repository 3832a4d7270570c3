"""Looking after the files of exports: those that had their time go, and so does what lost attempts left.

Invariant: a key is forgotten after its object, so that whatever is cut off is done again. Of each round one worker does
the work.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from adapters.storage import Storage
from models import item_export_queries
from tasks import periodic

SWEEP_SECONDS: Final = 600.0
_AT_ONCE: Final = 500
_log = structlog.get_logger("switchyard.exports")


async def sweep(pool: asyncpg.Pool, storage: Storage) -> None:
    """Clear up now and then until cancelled."""
    await periodic.every(SWEEP_SECONDS, "export-sweep", pool, partial(sweep_once, pool, storage))


async def sweep_once(pool: asyncpg.Pool, storage: Storage) -> None:
    """Remove expired files, and objects that are nobody's."""
    while expired := await item_export_queries.expired(pool, limit=_AT_ONCE):
        await storage.delete([key for _, key in expired])
        await item_export_queries.forget_files(pool, [execution_id for execution_id, _ in expired])
        _log.info("exports_expired", count=len(expired))
    found: dict[str, tuple[UUID, int]] = {}
    async for stored in storage.list(item_export_queries.KEY_PREFIX):
        if (attempt := _attempt(stored.key)) is not None:
            found[stored.key] = attempt
        if len(found) >= _AT_ONCE:
            await _drop_orphans(pool, storage, found)
            found = {}
    await _drop_orphans(pool, storage, found)


async def _drop_orphans(pool: asyncpg.Pool, storage: Storage, found: dict[str, tuple[UUID, int]]) -> None:
    if keys := await item_export_queries.nobodys(pool, found):
        await storage.delete(keys)
        _log.info("export_orphans_removed", count=len(keys))


def _attempt(key: str) -> tuple[UUID, int] | None:
    """The export and the attempt that wrote an object."""
    try:
        execution_id, attempt, _ = key.removeprefix(item_export_queries.KEY_PREFIX).split("/")
        return UUID(execution_id), int(attempt)
    except ValueError:
        return None
