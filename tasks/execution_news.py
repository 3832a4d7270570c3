"""Who is told of an execution's change: webhook endpoints that listen, and the owner of a crawl as they prefer.

The message, written by a trigger, says that something changed and when; what is told comes from the rows as they are
now. All that follows from one change is written in one transaction, and each of it has a key, so that a message that
comes twice, or twice at once, tells nothing twice. How dispatches are sent is `tasks/webhook_sending.py`'s; of
deployments owners hear from `tasks/deployment_news.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters import events
from adapters.mail import one_line
from models import dispatch_queries, notification_queries
from models.events import NotificationAdded, OutboxFilled
from models.executions import ExecutionStatus
from models.ids import new_id
from models.jobs import RunTrigger
from models.notification_queries import DEFAULTS
from models.notifications import NotificationKind
from settings import Settings
from tasks import event_payloads, mail, outbox
from tasks.crawl.kind import KIND as CRAWL
from tasks.outbox import Handler

TOPIC: Final = "execution.news"
_MAX_TITLE_LENGTH: Final = 200
_MAX_NAME_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class _News:
    """What an owner is told, in the app and by mail."""

    kind: NotificationKind
    title: str
    body: str
    template: str
    variables: Mapping[str, str]


def telling(settings: Settings, pool: asyncpg.Pool) -> Handler:
    """The handler of the topic: `{executionId, ownerId, status, at}`, and `key` for what can happen several times."""

    async def tell(payload: Mapping[str, Any]) -> None:
        status, at = payload["status"], datetime.fromisoformat(payload["at"])
        async with pool.acquire(timeout=5) as connection, connection.transaction():
            row = await event_payloads.read(connection, UUID(payload["executionId"]))
            if row is None:
                return  # deleted meanwhile
            owner = await connection.fetchrow(
                """SELECT coalesce(w.job_notifications, $2) AS job_notifications,
                          coalesce(w.email_notifications, $3) AS email_notifications
                   FROM users u LEFT JOIN preferences w ON w.user_id = u.id WHERE u.id = $1 AND u.is_active""",
                row["owner_id"],
                DEFAULTS["job_notifications"],
                DEFAULTS["email_notifications"],
            )
            if owner is None:
                return
            event = event_payloads.event_of(settings, row, status, at=at, key=payload.get("key", ""))
            added = 0
            if event is not None:
                added = await dispatch_queries.add(
                    connection,
                    row["owner_id"],
                    event,
                    at=at,
                    project_id=row["project_id"],
                    job_id=row["job_id"],
                )
            told = await _tell_owner(connection, status, row, owner)
        if added:
            await events.publish(OutboxFilled())
        if told:
            await events.publish(NotificationAdded(row["owner_id"]))

    return tell


async def promoted(deployment_id: UUID, owner_id: UUID) -> None:
    """Tell that production leads to a deployment from now on; in a unit of work."""
    if not await dispatch_queries.is_listening(owner_id):
        return
    key = str(new_id())
    await outbox.post(
        TOPIC,
        f"{deployment_id}:{key}",
        {
            "executionId": str(deployment_id),
            "ownerId": str(owner_id),
            "status": event_payloads.PROMOTED,
            "at": (await dispatch_queries.now()).isoformat(),
            "key": key,
        },
    )


async def _tell_owner(connection: asyncpg.Connection, status: str, row: asyncpg.Record, owner: asyncpg.Record) -> bool:
    """Whether the owner has a new notification."""
    if row["kind"] != CRAWL or not owner["job_notifications"]:
        return False
    news = _news(status, row)
    if news is None:
        return False
    notification_id = await notification_queries.add_with(
        connection,
        row["owner_id"],
        key=f"run:{row['id']}",
        kind=news.kind,
        title=news.title,
        body=news.body,
        execution_id=row["id"],
    )
    if notification_id is None:
        return False
    if owner["email_notifications"]:
        await mail.put_letter(
            connection,
            str(notification_id),
            user_id=row["owner_id"],
            template=news.template,
            variables=news.variables,
        )
    return True


def _news(status: str, row: asyncpg.Record) -> _News | None:
    """What there is to tell; None when nothing happened that the owner did not do or wait for.

    A run that a schedule started is news only when something is wrong with it.
    """
    name = _shortened(one_line(row["job_name"]), _MAX_NAME_LENGTH)
    counts = f"Items: {row['items_scraped']:,}, pages: {row['pages_crawled']:,}, errors: {row['errors_count']:,}."
    if status == ExecutionStatus.FAILED:
        failure = row["failure_message"] or "No reason was given."
        return _News(
            NotificationKind.JOB_FAILED,
            _shortened(f"A run of {name} failed: {one_line(failure)}", _MAX_TITLE_LENGTH),
            f"{counts}\n{failure}",
            "job_failed",
            {"title": f"A run of {name} failed", "body": counts, "failure": failure},
        )
    if status != ExecutionStatus.SUCCEEDED:
        return None
    if row["is_incomplete"]:
        title = f"A run of {name} found fewer items than usual"
        usual = "" if row["expected_items"] is None else f" Usual are about {row['expected_items']:,}."
        body = f"{counts}{usual}"
        return _News(NotificationKind.JOB_INCOMPLETE, title, body, "job_incomplete", {"title": title, "body": body})
    if row["run_trigger"] == RunTrigger.SCHEDULE:
        return None
    title = f"A run of {name} is done"
    return _News(NotificationKind.JOB_SUCCEEDED, title, counts, "job_succeeded", {"title": title, "body": counts})


def _shortened(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
