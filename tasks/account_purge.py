"""What is left of a deleted account: removed piece by piece, objects before the rows that name them.

Invariants: nothing is removed while something of theirs works; no key of an object is forgotten before the object is
gone; whatever is cut off is done by whoever comes next, and again is fine. A telling is cut off by itself after some
seconds and asks for the next one. Neither that nor waiting nor an outage spends an attempt. What makes an account a
deleted one is `resolvers/account_deletion.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters import events
from adapters.storage import Storage
from errors import SwitchyardError
from models import item_exports, media_queries, scans, user_queries
from models.database import is_outage
from models.events import CancelRequested
from tasks import rollups
from tasks.build import uploads
from tasks.crawl.kind import KIND as CRAWL
from tasks.log_compaction import log_key
from tasks.outbox import Handler, NotYet

TOPIC: Final = "account.purge"

SLICE_SECONDS: Final = 20.0
WAIT_SECONDS: Final = 2.0
OUTAGE_SECONDS: Final = 30.0
EXECUTIONS_AT_ONCE: Final = 20
ROWS_AT_ONCE: Final = 2_000
MEDIA_AT_ONCE: Final = 200
_FOLDERS: Final = {CRAWL: "runs", scans.KIND: "scans", item_exports.KIND: "exports"}
_log = structlog.get_logger("switchyard.accounts")


def purging(storage: Storage, pool: asyncpg.Pool) -> Handler:
    """The handler of the topic: `{userId}`."""
    return partial(purge, storage, pool)


async def purge(storage: Storage, pool: asyncpg.Pool, payload: Mapping[str, Any]) -> None:
    """Remove what is left of an account, as far as one telling gets; raises NotYet when there is more to do."""
    user_id = UUID(payload["userId"])
    try:
        async with asyncio.timeout(SLICE_SECONDS) as time_slice:
            await _remove_all(storage, pool, user_id)
    except Exception as error:
        if time_slice.expired():
            raise NotYet(0) from None
        if not (is_outage(error) or isinstance(error, SwitchyardError)):
            raise
        _log.warning("account_purge_put_off", user_id=str(user_id), error=repr(error))
        raise NotYet(OUTAGE_SECONDS) from error


async def _remove_all(storage: Storage, pool: asyncpg.Pool, user_id: UUID) -> None:
    if not await user_queries.is_deleted(pool, user_id):
        return
    running = await user_queries.stop_work(pool, user_id)
    for execution_id in running:
        await events.publish(CancelRequested(execution_id))
    if running:
        raise NotYet(WAIT_SECONDS)
    while await user_queries.delete_dispatches(pool, user_id, limit=ROWS_AT_ONCE):
        continue
    while await _remove_executions(storage, pool, user_id) or await _remove_project(storage, pool, user_id):
        continue
    await user_queries.hand_media_over(pool, user_id)
    while await _remove_media(storage, pool, user_id):
        continue
    while await user_queries.delete_some(pool, user_id, limit=ROWS_AT_ONCE):
        continue
    # What the executions had counted leaves everybody's sums too; while another process folds, there is a next telling.
    await rollups.fold(pool)
    await _pseudonymise(pool, user_id)
    async with pool.acquire() as connection, connection.transaction():
        if not await user_queries.forget(connection, user_id):
            raise NotYet(WAIT_SECONDS)
    _log.info("account_purged", user_id=str(user_id))


async def _remove_executions(storage: Storage, pool: asyncpg.Pool, user_id: UUID) -> bool:
    """Remove some executions with their logs, files and items; False when there are none."""
    found = await user_queries.some_executions(pool, user_id, limit=EXECUTIONS_AT_ONCE)
    if not found:
        return False
    for row in found:
        # Also what no row names yet: a worker that was lost may have stored it.
        folder = _FOLDERS.get(row["kind"])
        stored = [each.key async for each in storage.list(f"{folder}/{row['id']}/")] if folder else []
        await storage.delete({*row["keys"], *stored, log_key(row["id"])})
    ids = [row["id"] for row in found]
    while await user_queries.delete_parts(pool, ids, limit=ROWS_AT_ONCE):
        continue
    await user_queries.delete_executions(pool, ids)
    return True


async def _remove_project(storage: Storage, pool: asyncpg.Pool, user_id: UUID) -> bool:
    """Remove a project with the content of its sites; False when there is none."""
    project_id = await user_queries.next_project(pool, user_id)
    if project_id is None:
        return False
    await uploads.remove_objects(storage, project_id)
    while await user_queries.delete_blobs(pool, project_id, limit=ROWS_AT_ONCE):
        continue
    await user_queries.delete_project(pool, project_id)
    return True


async def _remove_media(storage: Storage, pool: asyncpg.Pool, user_id: UUID) -> bool:
    """Remove some uploads with their objects; False when there are none."""
    media_ids = await user_queries.some_media(pool, user_id, limit=MEDIA_AT_ONCE)
    await storage.delete(
        key(each) for each in media_ids for key in (media_queries.object_key, media_queries.thumbnail_key)
    )
    await user_queries.delete_media(pool, media_ids)
    return bool(media_ids)


async def _pseudonymise(pool: asyncpg.Pool, user_id: UUID) -> None:
    last = await user_queries.pseudonymise(pool, user_id, after=None, limit=ROWS_AT_ONCE)
    while last is not None:
        last = await user_queries.pseudonymise(pool, user_id, after=last, limit=ROWS_AT_ONCE)
