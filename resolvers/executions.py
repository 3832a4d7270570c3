"""Executions of any kind: seeing them, stopping them, following them.

Streams re-read PostgreSQL through the same rule as the gate, so somebody who loses access loses the stream. They
end by themselves: `follow` at the final status, `follow_log` after the last line of a final execution.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final
from uuid import UUID

from adapters import events
from models import deployments, documents, execution_commands, item_exports, scans
from models.audit import AuditEvent
from models.database import Row
from models.events import CancelRequested, ExecutionChanged
from models.execution_commands import CancelOutcome
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access
from resolvers.feeds import ExecutionFeed, Feeds, ListFeed, LogFeed, LogPage, pages_of, will_pass
from resolvers.logs import read_after
from resolvers.streams import SharedEvent
from tasks.crawl import kind as crawl_kind

ActorNow = Callable[[], Actor]
"""Who is asking, at this moment: a socket may renew its credentials, and rights may change."""

RETRY_SECONDS: Final = 1.0

_TARGET_TYPES: Final = {
    crawl_kind.KIND: "run",
    deployments.KIND: "deployment",
    scans.KIND: "scan",
    documents.KIND: "ocrJob",
    item_exports.KIND: "itemExport",
}
_log_feeds: Feeds[UUID, LogFeed] = Feeds(LogFeed)
_execution_feeds: Feeds[UUID, ExecutionFeed] = Feeds(ExecutionFeed)
_list_feeds: Feeds[UUID | None, ListFeed] = Feeds(ListFeed)


async def cancel(actor: Actor, execution_id: UUID, *, action: str) -> CancelOutcome:
    """Ask an execution to stop; a final one stays as it is. The caller has passed the gate."""
    async with unit_of_work():
        row = await access.visible_execution(actor, execution_id, to=Permission.EXECUTION_CANCEL)
        outcome = await execution_commands.request_cancel(execution_id, by=actor.user_id)
        await AuditEvent.record(
            actor,
            action,
            target_type=_TARGET_TYPES.get(row["kind"], "execution"),
            target_id=execution_id,
            details={"outcome": outcome.value},
        )
        if outcome is not CancelOutcome.FINAL:
            await events.publish(CancelRequested(execution_id))
            await events.publish(ExecutionChanged(execution_id, row["owner_id"]))
    return outcome


async def follow(
    actor_now: ActorNow, execution_id: UUID, *, make: Callable[[Row], Any]
) -> AsyncGenerator[SharedEvent, None]:
    """The state now, then every change, up to the final status. Changes that come fast become one."""
    sent = None
    async with _execution_feeds.join(execution_id) as feed:
        while True:
            change = feed.change
            if feed.failure is not None:
                raise feed.failure
            if feed.is_open:
                actor = actor_now()
                shown = feed.shown
                if shown is None or not access.sees_execution(actor, shown.row):
                    raise access.missing()
                if shown is not sent:
                    sent = shown
                    yield shown.shared(actor.view, make)
                    if shown.is_final:
                        return
                    continue
            await asyncio.shield(change)


async def follow_log(
    actor_now: ActorNow, execution_id: UUID, *, after_sequence: int
) -> AsyncGenerator[SharedEvent, None]:
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
            if feed.owner_id is None or not access.sees_work(actor_now(), feed.owner_id, feed.project_id):
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
) -> AsyncGenerator[SharedEvent, None]:
    """Every change of all executions the actor may see: first those that wait or run, then each as it changes."""
    actor = actor_now()
    if actor.is_anonymous:
        raise access.missing()
    position = None
    async with _list_feeds.join(None if actor.is_admin else actor.user_id) as feed:
        while True:
            change = feed.change
            if feed.failure is not None:
                raise feed.failure
            if not feed.is_open:
                await asyncio.shield(change)
                continue
            is_first = position is None
            for shown in feed.changes_after(position or 0):
                position = shown.version
                # What ended before the stream began is history, not news.
                if not feed.is_latest(shown) or (is_first and shown.is_final):
                    continue
                actor = actor_now()
                if access.sees_execution(actor, shown.row) and wanted(shown.row):
                    yield shown.shared(actor.view, make)
            position = position or 0
            await asyncio.shield(change)


async def _stored_page(execution_id: UUID, position: int, feed: LogFeed) -> SharedEvent:
    """The page behind a position that the feed says there is; outages are waited out."""
    while True:
        try:
            lines = await read_after(execution_id, position)
            break
        except Exception as error:
            if not will_pass(error):
                raise
            await asyncio.sleep(RETRY_SECONDS)
    if not lines:
        raise access.missing()  # deleted while it was read
    page = next(pages_of(lines))
    is_last = feed.is_complete and page[-1].sequence >= feed.last_sequence
    return SharedEvent(LogPage(page, page[-1].sequence, complete=is_last), audience="log")
