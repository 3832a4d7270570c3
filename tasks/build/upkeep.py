"""Looking after what sites leave in storage: handlers of the outbox, and a sweep for what nobody told of.

site.garbage  {projectId}   a deployment was deleted: drop content that nothing else uses
site.removal  {projectId}   a project was deleted: drop all of its content
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters.storage import Storage
from errors import SwitchyardError
from models.database import is_outage
from tasks.build import uploads

GARBAGE_TOPIC: Final = "site.garbage"
REMOVAL_TOPIC: Final = "site.removal"
SWEEP_SECONDS: Final = 600.0
_log = structlog.get_logger("switchyard.sites")


async def collect(pool: asyncpg.Pool, storage: Storage, payload: Mapping[str, Any]) -> None:
    """Drop what a deleted deployment alone had used; what a build has reserved is left to a later sweep."""
    while await uploads.collect_garbage(pool, storage, UUID(payload["projectId"])):
        continue


async def remove(storage: Storage, payload: Mapping[str, Any]) -> None:
    """Drop everything of a deleted project."""
    await uploads.remove_objects(storage, UUID(payload["projectId"]))


async def sweep(pool: asyncpg.Pool, storage: Storage) -> None:
    """Drop unused content now and then until cancelled; what fails is tried again at the next round."""
    while True:
        # Workers that started together should not sweep together.
        await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only
        try:
            await uploads.sweep_blobs(pool, storage)
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise
            _log.warning("site_sweep_failed", error=repr(error))
