"""What owners are told of their schedules: that one paused itself, once, in the app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters import events
from models import notification_queries
from models.events import NotificationAdded
from models.notifications import NotificationKind

TOPIC: Final = "schedule.paused"


async def tell(pool: asyncpg.Pool, payload: Mapping[str, Any]) -> None:
    """The handler of the topic: `{jobId, ownerId, pausedAt}`. Nothing is told of a schedule that goes on by now."""
    job_id = UUID(payload["jobId"])
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        row = await connection.fetchrow(
            """SELECT j.owner_id, j.name, t.name AS tool_name FROM job_schedules s
               JOIN jobs j ON j.id = s.job_id JOIN tools t ON t.id = j.tool_id
               WHERE s.job_id = $1 AND s.is_paused AND s.pause_reason IS NOT NULL""",
            job_id,
        )
        if row is None:
            return
        added = await notification_queries.add_with(
            connection,
            row["owner_id"],
            key=f"schedule:{job_id}:{payload['pausedAt']}",
            kind=NotificationKind.SCHEDULE_PAUSED,
            title=f"The schedule of {row['name']} was paused",
            body=f"Its tool, {row['tool_name']}, is not active, so no run could start. Resume the schedule once it is.",
        )
    if added is not None:
        await events.publish(NotificationAdded(row["owner_id"]))
