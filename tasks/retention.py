"""Removing what is old, by the settings: once an hour, by one worker, a piece at a time.

storage.removal  {keys}   rows that named objects are gone: drop the objects

Killed in between, the next round goes on where this one was. A subject without a number of days is kept for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import asyncpg
import structlog

from adapters.storage import Storage
from models import outbox, retention
from models.retention import Subject
from settings import Settings
from tasks import media_upkeep

TOPIC: Final = "storage.removal"
PERIOD_SECONDS: Final = 3_600.0
_ROWS: Final = 2_000
_LOGS: Final = 500
_PAUSE_SECONDS: Final = 0.02
"""Between pieces: a large clean-up must not keep the disk from those who wait for it."""

_log = structlog.get_logger("switchyard.retention")


def days_of(settings: Settings) -> dict[Subject, int]:
    """How long each subject is kept, of those that are not kept for ever."""
    given = {
        Subject.LOGS: settings.retention_log_days,
        Subject.ITEMS: settings.retention_item_days,
        Subject.AUDIT_EVENTS: settings.retention_audit_days,
        Subject.UPLOADS: settings.retention_upload_days,
        Subject.NOTIFICATIONS: settings.retention_notification_days,
        Subject.WEBHOOK_DELIVERIES: settings.retention_webhook_days,
        Subject.SESSIONS: settings.retention_session_days,
        Subject.ONE_TIME_LINKS: settings.retention_session_days,
        Subject.IDEMPOTENCY_KEYS: settings.retention_idempotency_days,
    }
    return {subject: days for subject, days in given.items() if days}


async def report(settings: Settings, pool: asyncpg.Pool) -> dict[Subject, int]:
    """How much of each subject would go now."""
    return {subject: await retention.count(pool, subject, days) for subject, days in days_of(settings).items()}


async def remove_old(settings: Settings, pool: asyncpg.Pool) -> dict[Subject, int]:
    """Remove all that is old; how much of each subject went."""
    removed = {}
    for subject, days in days_of(settings).items():
        total = 0
        while count := await _remove_piece(pool, subject, days):
            total += count
            await asyncio.sleep(_PAUSE_SECONDS)
        removed[subject] = total
    if told := {subject.value: count for subject, count in removed.items() if count}:
        _log.info("old_removed", **told)
    return removed


async def drop_objects(storage: Storage, payload: Mapping[str, Any]) -> None:
    """Drop objects that nothing names any more."""
    await storage.delete(payload["keys"])


async def _remove_piece(pool: asyncpg.Pool, subject: Subject, days: int) -> int:
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        match subject:
            case Subject.LOGS:
                keys = await retention.remove_logs(connection, days, limit=_LOGS)
                await _tell(connection, keys)
                return len(keys)
            case Subject.ITEMS:
                dataset_id = await retention.old_dataset(connection, days)
                if dataset_id is None:
                    return 0
                count, keys = await retention.remove_of_dataset(connection, dataset_id, limit=_ROWS)
                await _tell(connection, keys)
                return count
            case Subject.AUDIT_EVENTS:
                return await retention.remove_audit_events(connection, days, limit=_ROWS)
            case Subject.UPLOADS:
                media = await retention.remove_uploads(connection, days, limit=_LOGS)
                for media_id in media:
                    await outbox.put_with(connection, media_upkeep.TOPIC, str(media_id), {"mediaId": str(media_id)})
                return len(media)
            case _:
                return await retention.remove_rows(connection, subject, days, limit=_ROWS)


async def _tell(connection: asyncpg.Connection, keys: list[str]) -> None:
    if keys:
        await outbox.put_with(connection, TOPIC, str(uuid4()), {"keys": keys})
