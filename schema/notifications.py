"""Notifications as clients see them: the list, the marks, the stream. Everybody has their own and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated
from uuid import UUID

import strawberry

from models.database import Row
from models.ids import Prefix, encode_id
from models.notifications import NotificationKind
from models.permissions import Permission
from resolvers import notifications
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, build
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires

Info = strawberry.Info[Context, None]

publish(
    NotificationKind,
    "What a notification is about. Expect new values.",
    DEPLOYMENT_SUCCEEDED="A deployment was built; its title says whether it is live.",
    DEPLOYMENT_FAILED="A deployment failed.",
    JOB_SUCCEEDED="A run of a job is done.",
    JOB_FAILED="A run of a job failed.",
    JOB_INCOMPLETE="A run of a job found far fewer items than usual.",
    SCHEDULE_PAUSED="A schedule was paused because its job cannot run.",
    WEBHOOK_DISABLED="A webhook endpoint was switched off because it did not answer for days.",
)


@strawberry.type(description="Something that you were told.")
class Notification(Node):
    """A notification."""

    kind: NotificationKind = strawberry.field(description="What it is about.")
    title: str = strawberry.field(description="It in one line.")
    body: str = strawberry.field(description="More of it, as plain text; may have several lines.")
    url: str | None = strawberry.field(description="Where it leads, such as the site that is live now.")
    created_at: datetime = strawberry.field(description="When you were told.")
    read_at: datetime | None = strawberry.field(description="When you marked it as read; null until then.")
    execution_id: strawberry.Private[UUID | None]

    @strawberry.field(description="The execution it is about; null when there is none, or it is deleted.")
    async def execution(self, info: Info) -> Execution | None:
        """Loaded for all notifications of the answer at once."""
        if self.execution_id is None:
            return None
        row = await info.context.load(_load_executions, self.execution_id)
        return None if row is None else build(row, info.context)


@strawberry.input(description="Which notifications.")
class NotificationFilter:
    """Conditions; all given ones must hold."""

    unread: bool | None = strawberry.field(
        default=None, description="Only those you have not read, or only those you have."
    )


@strawberry.input(description="Which notifications you have read: some, or all.")
class MarkNotificationsReadInput:
    """Which ones."""

    ids: list[strawberry.ID] | None = strawberry.field(default=None, description="These, up to 100.")
    all: bool = strawberry.field(default=False, description="All that there are; not together with `ids`.")


@strawberry.type(description="What has been marked.")
class MarkNotificationsReadPayload:
    """What has been marked."""

    marked_count: int = strawberry.field(description="How many were unread until now.")

    @strawberry.field(description="How many are unread still.")
    async def unread_count(self, info: Info) -> int:
        """Counted when asked for."""
        return await notifications.count(info.context.actor, unread=True)


@strawberry.type
class NotificationsQuery:
    """What you were told."""

    @strawberry.field(
        description="What you were told, newest first. `totalCount` with `filter: {unread: true}` is the number for a "
        "badge.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def notifications(
        self,
        info: Info,
        filter: Annotated[NotificationFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Notification]:
        """One page, in one statement."""
        actor = info.context.actor
        unread = filter.unread if filter else None

        return await paginate(
            fetch=by_one_key(partial(notifications.page, actor, unread=unread)),
            count=lambda: notifications.count(actor, unread=unread),
            first=first,
            after=after,
            last=last,
            before=before,
            node=notification_of,
        )


@strawberry.type
class NotificationsMutation:
    """What you do with what you were told."""

    @strawberry.mutation(
        description="Mark notifications as read; those that are so already stay as they are. NOT_FOUND, and nothing "
        "is marked, when one of the ids is not a notification of yours.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def mark_notifications_read(
        self, info: Info, input: Annotated[MarkNotificationsReadInput, strawberry.argument(description="Which ones.")]
    ) -> MarkNotificationsReadPayload:
        """Marks."""
        marked = await notifications.mark_read(info.context.actor, input.ids, all_=input.all)
        return MarkNotificationsReadPayload(marked_count=marked)


@strawberry.type
class NotificationsSubscription:
    """What you are told from now on."""

    @strawberry.subscription(
        description="What you are told, as it comes, one by one. With `after`, first all that came after that "
        "notification: reconnect with the last id seen and nothing is missed or repeated, whichever server answers. "
        "Does not complete.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def notifications(
        self,
        info: Info,
        after: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="The last notification already seen; null for only new ones."),
        ] = None,
    ) -> AsyncGenerator[Notification, None]:
        """One after the other."""
        context = info.context
        async with aclosing(notifications.follow(lambda: context.actor, after=after)) as rows:
            async for row in rows:
                yield notification_of(row)


def notification_of(row: Row) -> Notification:
    """The notification of a row."""
    return Notification(
        id=strawberry.ID(encode_id(Prefix.NOTIFICATION, row["id"])),
        kind=NotificationKind(row["kind"]),
        title=row["title"],
        body=row["body"],
        url=row["url"],
        created_at=row["created_at"],
        read_at=row["read_at"],
        execution_id=row["execution_id"],
    )


@register_node(Prefix.NOTIFICATION)
async def _notification_node(context: Context, notification_id: UUID) -> Notification | None:
    if not context.actor.may(Permission.ACCOUNT_READ):
        return None
    row = await context.load(_load_notifications, notification_id)
    return None if row is None else notification_of(row)


async def _load_notifications(context: Context, notification_ids: list[UUID]) -> Sequence[Row | None]:
    found = await notifications.find(context.actor, notification_ids)
    return [found.get(notification_id) for notification_id in notification_ids]


async def _load_executions(context: Context, execution_ids: list[UUID]) -> Sequence[Row | None]:
    found = await notifications.subjects(context.actor, execution_ids)
    return [found.get(execution_id) for execution_id in execution_ids]
