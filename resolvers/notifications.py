"""Notifications: what a user was told, what of it they have read, and what they are told from now on.

Everybody has their own and nobody else's, administrators neither. A stream goes on from a notification, so that a
client that comes back with the last one it saw misses nothing and sees nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final
from uuid import UUID

from adapters import events
from errors import Unauthorized, ValidationFailed
from models import execution_rows, notification_queries
from models.audit import AuditEvent
from models.database import Row
from models.ids import Prefix
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access
from resolvers.feeds import wait_for_news, will_pass

MAX_IDS: Final = 100
PAGE: Final = 100
RETRY_SECONDS: Final = 1.0
_NOTHING_YET: Final = UUID(int=0)


async def page(
    actor: Actor, *, unread: bool | None, after: UUID | None, before: UUID | None, backwards: bool, limit: int
) -> list[Row]:
    """A page of the actor's notifications, newest first."""
    return await notification_queries.page(
        _owner(actor), unread=unread, after=after, before=before, backwards=backwards, limit=limit
    )


async def count(actor: Actor, *, unread: bool | None) -> int:
    """How many there are in all."""
    return await notification_queries.count(_owner(actor), unread=unread)


async def find(actor: Actor, notification_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the notifications that are the actor's."""
    return {} if actor.user_id is None else await notification_queries.find(actor.user_id, notification_ids)


async def subjects(actor: Actor, execution_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the executions that notifications are about which the actor may see."""
    if not actor.may(Permission.EXECUTION_READ):
        return {}
    found = await execution_rows.find(execution_ids)
    return {id_: row for id_, row in found.items() if access.sees_execution(actor, row)}


async def mark_read(actor: Actor, ids: Sequence[str] | None, *, all_: bool) -> int:
    """Mark these, or all, as read; how many were not so far.

    Raises ValidationFailed unless exactly one of the two is asked for, NotFound when one of them is not the actor's.
    """
    if (ids is None) is not all_:
        raise ValidationFailed("Say which notifications, or all: one of the two.", path=["input"])
    if ids is not None and len(ids) > MAX_IDS:
        raise ValidationFailed(f"At most {MAX_IDS} ids at once.", path=["input", "ids"])
    user_id = _owner(actor)
    chosen = None if ids is None else await access.notifications(actor, ids, to=Permission.ACCOUNT_WRITE)
    async with unit_of_work():
        marked = await notification_queries.mark_read(user_id, chosen)
        if marked:
            await AuditEvent.record(
                actor, "markNotificationsRead", target_type="user", target_id=user_id, details={"count": marked}
            )
    return marked


async def follow(actor_now: Callable[[], Actor], *, after: str | None) -> AsyncGenerator[Row, None]:
    """What the actor was told after a notification, or nothing of it for None, and then each as it comes."""
    user_id = _owner(actor_now())
    position = None if after is None else access.uuid_of(after, Prefix.NOTIFICATION)
    # Registered before the first read: nothing falls between the two.
    async with events.hub().watch(("notifications", user_id)) as watcher:
        while True:
            try:
                if position is None:
                    position = await notification_queries.newest(user_id) or _NOTHING_YET
                found = await notification_queries.added_after(user_id, position, limit=PAGE)
            except Exception as error:
                if not will_pass(error):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for row in found:
                if actor_now().user_id != user_id:
                    raise access.missing()
                yield row
                position = row["id"]
            if len(found) < PAGE:
                await wait_for_news(watcher)


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id
