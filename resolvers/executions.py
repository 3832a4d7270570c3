"""Executions of any kind: seeing them, stopping them, following them.

Streams re-read PostgreSQL through the same rule as the gate, so somebody who loses access loses the stream. They
end by themselves: `follow` at the final status, `follow_log` after the last line of a final execution.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any, Final
from uuid import UUID

from adapters import events
from errors import NotFound
from models import execution_commands, execution_rows
from models.audit import AuditEvent
from models.database import Row
from models.events import CancelRequested, ExecutionChanged
from models.execution_commands import CancelOutcome
from models.executions import ExecutionStatus
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access
from resolvers.feeds import ExecutionFeed, Feeds, LogFeed, LogPage, wait_for_news
from resolvers.logs import PAGE_LINES, read_after
from resolvers.streams import SharedEvent

ActorNow = Callable[[], Actor]
"""Who is asking, at this moment: a socket may renew its credentials, and rights may change."""

MAX_FOLLOWED: Final = 1_000
RECENT_SECONDS: Final = 60.0
_READ_LIMIT: Final = 200

_log_feeds: Feeds[LogFeed] = Feeds(LogFeed)
_execution_feeds: Feeds[ExecutionFeed] = Feeds(ExecutionFeed)


async def cancel(actor: Actor, execution_id: UUID, *, action: str) -> CancelOutcome:
    """Ask an execution to stop; a final one stays as it is. The caller has passed the gate."""
    async with unit_of_work():
        row = await access.visible_execution(actor, execution_id, to=Permission.EXECUTION_CANCEL)
        outcome = await execution_commands.request_cancel(execution_id, by=actor.user_id)
        await AuditEvent.record(
            actor, action, target_type="execution", target_id=execution_id, details={"outcome": outcome.value}
        )
        if outcome is not CancelOutcome.FINAL:
            await events.publish(CancelRequested(execution_id))
            await events.publish(ExecutionChanged(execution_id, row["owner_id"]))
    return outcome


async def follow(actor_now: ActorNow, execution_id: UUID, *, make: Callable[[Row], Any]) -> AsyncIterator[SharedEvent]:
    """The state now, then every change, up to the final status. Changes that come fast become one."""
    sent = 0
    async with _execution_feeds.join(execution_id) as feed:
        while True:
            change = feed.change
            if feed.failure is not None:
                raise feed.failure
            if feed.is_open:
                row = feed.row
                actor = actor_now()
                if row is None or not access.sees_execution(actor, row["owner_id"]):
                    raise access.missing()
                if feed.version != sent:
                    sent = feed.version
                    yield feed.shared(row, _audience(actor), make)
                    if feed.version == sent and ExecutionStatus(row["status"]).is_final:
                        return
                    continue
            await asyncio.shield(change)


async def follow_log(actor_now: ActorNow, execution_id: UUID, *, after_sequence: int) -> AsyncIterator[SharedEvent]:
    """Lines behind a sequence, then those that come, up to the last of a final execution; no gap, no repetition."""
    position = after_sequence
    async with _log_feeds.join(execution_id) as feed:
        while True:
            change = feed.change
            if feed.failure is not None:
                raise feed.failure
            if not feed.is_open:
                await asyncio.shield(change)
                continue
            if feed.owner_id is None or not access.sees_execution(actor_now(), feed.owner_id):
                raise access.missing()
            event = feed.page_after(position)
            if event is None and position < feed.last_sequence:
                event = await _stored_page(execution_id, position, feed)
            if event is None and feed.is_complete and position >= feed.last_sequence:
                event = SharedEvent(LogPage([], position, complete=True), audience=("end", position))
            if event is None:
                await asyncio.shield(change)
                continue
            page: LogPage = event.value
            position = page.last_sequence
            yield event
            if page.complete:
                return


async def follow_all(
    actor_now: ActorNow, *, wanted: Callable[[Row], bool], make: Callable[[Row], Any]
) -> AsyncIterator[SharedEvent]:
    """Every change of all executions the actor may see: first those that wait or run, then each as it changes."""
    sent: OrderedDict[UUID, Row] = OrderedDict()
    actor = actor_now()
    key: Hashable = ("executions",) if actor.is_admin else ("owner", actor.user_id)
    async with events.hub().watch(key) as watcher:
        while True:
            actor = actor_now()
            if actor.is_anonymous:
                raise NotFound("There is no such thing, or it is not yours.")
            owner_id = None if actor.is_admin else actor.user_id
            rows = await execution_rows.active(owner_id, since_seconds=RECENT_SECONDS, limit=_READ_LIMIT)
            is_first = not sent
            for row in reversed(rows):
                if sent.get(row["id"]) == row:
                    continue
                is_over = ExecutionStatus(row["status"]).is_final
                sent[row["id"]] = row
                sent.move_to_end(row["id"])
                # What ended before the stream began is history, not news.
                if wanted(row) and not (is_first and is_over):
                    yield SharedEvent(make(row), _audience(actor))
            while len(sent) > MAX_FOLLOWED:
                sent.popitem(last=False)
            await wait_for_news(watcher)


async def _stored_page(execution_id: UUID, position: int, feed: LogFeed) -> SharedEvent | None:
    lines = await read_after(execution_id, position, max_lines=PAGE_LINES)
    if not lines:
        return None
    is_last = feed.is_complete and lines[-1].sequence >= feed.last_sequence
    return SharedEvent(LogPage(lines, lines[-1].sequence, complete=is_last), audience=("stored", position))


def _audience(actor: Actor) -> Hashable:
    """Who sees the same of an execution: its owner, and administrators, who also see e-mail addresses."""
    return "admins" if actor.is_admin else actor.user_id
