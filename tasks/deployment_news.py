"""Who is told of a deployment's change: GitHub, and its project's owner as they prefer.

The message says that something changed; what is told comes from the rows as they are now. All that follows from one
change is written in one transaction, and each of it has a key, so that a message that comes twice, or twice at once,
tells nothing twice. Left out: how GitHub is told (topic `github.report`) and how letters are sent (`tasks/mail.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters import events
from adapters.mail import one_line
from models import notification_queries, outbox
from models.events import NotificationAdded
from models.executions import ExecutionStatus
from models.notification_queries import DEFAULTS
from models.notifications import NotificationKind
from models.projects import DeploymentEnvironment
from models.sites import PRODUCTION_ALIAS
from settings import Settings
from tasks import mail
from tasks.outbox import Handler

TOPIC: Final = "deployment.status"
"""Written by a trigger of the database, once per attempt and status."""

GITHUB_TOPIC: Final = "github.report"
_MAX_TITLE_LENGTH: Final = 200
_MAX_SUBJECT_NAME_LENGTH: Final = 80

_SELECT: Final = """
SELECT e.failure_message, d.number, d.environment, d.branch, d.commit_hash, d.commit_message, d.site_key,
       d.build_seconds, d.superseded_by_id, p.owner_id, p.name, p.slug,
       EXISTS (
           SELECT 1 FROM site_aliases a WHERE a.deployment_id = d.execution_id AND a.name = $5
       ) AS is_live,
       p.repository_full_name IS NOT NULL AND EXISTS (
           SELECT 1 FROM oauth_connections c WHERE c.user_id = p.owner_id AND c.provider = 'GITHUB'
       ) AS is_on_github,
       coalesce(w.email_notifications, $2) AS email_notifications,
       coalesce(w.deployment_success, $3) AS deployment_success,
       coalesce(w.deployment_failure, $4) AS deployment_failure
FROM deployments d JOIN executions e ON e.id = d.execution_id JOIN projects p ON p.id = d.project_id
LEFT JOIN preferences w ON w.user_id = p.owner_id
WHERE d.execution_id = $1
"""


@dataclass(frozen=True, slots=True)
class _News:
    """What an owner is told, in the app and by mail."""

    kind: NotificationKind
    title: str
    body: str
    url: str | None
    template: str
    variables: Mapping[str, str]


def telling(settings: Settings, pool: asyncpg.Pool) -> Handler:
    """The handler of changes of status."""

    async def tell(payload: Mapping[str, Any]) -> None:
        execution_id, status = UUID(payload["executionId"]), ExecutionStatus(payload["status"])
        async with pool.acquire(timeout=5) as connection, connection.transaction():
            row = await connection.fetchrow(
                _SELECT,
                execution_id,
                *(DEFAULTS[name] for name in ("email_notifications", "deployment_success", "deployment_failure")),
                PRODUCTION_ALIAS,
            )
            if row is None:
                return  # deleted meanwhile
            if row["is_on_github"]:
                key = f"{execution_id}:{payload['attempt']}:{status.value}"
                await outbox.put_with(connection, GITHUB_TOPIC, key, {"executionId": str(execution_id)})
            told = await _tell_owner(settings, connection, execution_id, status, row)
        if told:
            await events.publish(NotificationAdded(row["owner_id"]))

    return tell


async def _tell_owner(
    settings: Settings,
    connection: asyncpg.Connection,
    execution_id: UUID,
    status: ExecutionStatus,
    row: asyncpg.Record,
) -> bool:
    """Whether the owner has a new notification."""
    news = _news(settings, status, row)
    if news is None:
        return False
    notification_id = await notification_queries.add_with(
        connection,
        row["owner_id"],
        key=f"deployment:{execution_id}",
        kind=news.kind,
        title=news.title,
        body=news.body,
        url=news.url,
        execution_id=execution_id,
    )
    if notification_id is None:
        return False
    if row["email_notifications"]:
        await mail.put_letter(
            connection,
            str(notification_id),
            user_id=row["owner_id"],
            template=news.template,
            variables=news.variables,
        )
    return True


def _news(settings: Settings, status: ExecutionStatus, row: asyncpg.Record) -> _News | None:
    """What there is to tell; None when nothing happened that the owner wants to hear of."""
    if row["superseded_by_id"] is not None:
        return None  # there will be news of the newer one
    name = _shortened(one_line(row["name"]), _MAX_SUBJECT_NAME_LENGTH)
    subject = f"Deployment {row['number']} of {name}"
    if status is ExecutionStatus.SUCCEEDED and row["deployment_success"]:
        title = f"{subject} is {_state(row)}"
        body = "\n".join([_source(row), *_outcome(row)])
        url = _site_url(settings, row)
        return _News(
            NotificationKind.DEPLOYMENT_SUCCEEDED,
            title,
            body,
            url,
            "deployment_succeeded",
            {"title": title, "body": body, "site_url": url},
        )
    if status is ExecutionStatus.FAILED and row["deployment_failure"]:
        failure = row["failure_message"] or "No reason was given."
        return _News(
            NotificationKind.DEPLOYMENT_FAILED,
            _shortened(f"{subject} failed: {one_line(failure)}", _MAX_TITLE_LENGTH),
            f"{_source(row)}\n{failure}",
            None,
            "deployment_failed",
            {"title": f"{subject} failed", "body": _source(row), "failure": failure},
        )
    return None


def _source(row: asyncpg.Record) -> str:
    """Which commit it was, in one line."""
    text = f"Branch {one_line(row['branch'])}"
    if row["commit_hash"]:
        text += f", commit {row['commit_hash'][:7]}"
    if row["commit_message"]:
        text += f": {_shortened(one_line(row['commit_message'].strip().partition(chr(10))[0]), _MAX_TITLE_LENGTH)}"
    return text


def _state(row: asyncpg.Record) -> str:
    if row["is_live"]:
        return "live"
    return "built" if row["environment"] == DeploymentEnvironment.PRODUCTION else "ready to preview"


def _outcome(row: asyncpg.Record) -> list[str]:
    lines = [] if row["build_seconds"] is None else [f"Built in {row['build_seconds']:.0f} s."]
    if _state(row) == "built":
        lines.append("It is not live: the project's address leads to another deployment.")
    return lines


def _site_url(settings: Settings, row: asyncpg.Record) -> str:
    """The project's address for what is live, else the deployment's own, which stays."""
    return settings.site_url(row["slug"] if row["is_live"] else f"{row['site_key']}-{row['slug']}")


def _shortened(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
