"""Shared reading for subscriptions: one reader per process and execution, however many subscribers.

A feed reads PostgreSQL when it is poked, and by itself every few seconds (every second while Redis is away).
What it read is kept as events that all subscribers share, so a page of log lines is read, executed and encoded
once. A subscriber holds only its position: a slow one that falls out of the kept pages reads the store instead,
and costs the others nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

import structlog

from adapters import events
from adapters.cancellation import end
from adapters.events import Watcher
from models import execution_rows, logs
from models.database import Row, is_outage
from models.executions import ExecutionStatus
from models.logs import Line
from resolvers.logs import PAGE_LINES
from resolvers.streams import SharedEvent

POLL_SECONDS: Final = 5.0
POLL_WITHOUT_REDIS_SECONDS: Final = 0.8
KEPT_LINES: Final = 4_000
_log = structlog.get_logger("switchyard.feeds")
_Feed = TypeVar("_Feed", bound="Feed")


class Feed:
    """One reader and those who wait for what it reads."""

    def __init__(self, execution_id: UUID) -> None:
        self.execution_id = execution_id
        self.subscribers = 0
        self.failure: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def key(self) -> Hashable:
        """What the hub pokes."""
        raise NotImplementedError

    async def read(self) -> bool:
        """Read what is new; False when nothing will follow."""
        raise NotImplementedError

    @property
    def change(self) -> asyncio.Future[None]:
        """Done at the next change; take it before looking."""
        return self._changed

    def announce(self) -> None:
        """Wake all subscribers."""
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()

    def ended(self, task: asyncio.Task[None]) -> None:
        """What ended the reader is raised by its subscribers; nobody else is to be told."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self.announce()

    async def run(self) -> None:
        """Read until nothing will follow; an outage of the database is waited out."""
        async with events.hub().watch(self.key) as watcher:
            while True:
                try:
                    if not await self.read():
                        return
                except Exception as error:
                    if not is_outage(error):
                        raise
                    _log.warning("feed_waits", error=repr(error))
                await wait_for_news(watcher)


async def wait_for_news(watcher: Watcher) -> None:
    """Wait for a poke, or until it is time to look without one."""
    await watcher.wait(POLL_SECONDS if events.bus().is_connected else POLL_WITHOUT_REDIS_SECONDS)


class Feeds(Generic[_Feed]):
    """The feeds of one kind in this process, alive while somebody subscribes."""

    def __init__(self, make: Callable[[UUID], _Feed]) -> None:
        self._make = make
        self._feeds: dict[UUID, _Feed] = {}

    @asynccontextmanager
    async def join(self, execution_id: UUID) -> AsyncIterator[_Feed]:
        """The feed of an execution, started for its first subscriber and ended after its last."""
        feed = self._feeds.get(execution_id)
        if feed is None:
            feed = self._feeds[execution_id] = self._make(execution_id)
            feed.task = asyncio.create_task(feed.run(), name=f"feed-{execution_id}")
            feed.task.add_done_callback(feed.ended)
        feed.subscribers += 1
        try:
            yield feed
        finally:
            feed.subscribers -= 1
            if feed.subscribers == 0:
                if self._feeds.get(execution_id) is feed:
                    del self._feeds[execution_id]
                if feed.task is not None:
                    await end(feed.task)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Consecutive lines, oldest first; `complete` on the last page of a log that will not grow."""

    lines: list[Line]
    last_sequence: int
    complete: bool


class LogFeed(Feed):
    """The end of a log, as it grows."""

    def __init__(self, execution_id: UUID) -> None:
        super().__init__(execution_id)
        self.owner_id: UUID | None = None
        self.is_complete = False
        self.is_open = False
        self.last_sequence = 0
        self._pages: deque[SharedEvent] = deque()
        self._kept_lines = 0

    @property
    def key(self) -> Hashable:
        """Pokes of this log."""
        return ("log", self.execution_id)

    async def read(self) -> bool:
        """Read to the end of the log; the first time only where the end is."""
        state = await logs.state(self.execution_id)
        if state is None:
            self.owner_id, self.is_open = None, True
            self.announce()
            return False
        self.owner_id = state.owner_id
        if not self.is_open:
            self.is_open = True
            self.last_sequence = state.last_sequence
        while self.last_sequence < state.last_sequence:
            lines = await logs.chunks_after(self.execution_id, self.last_sequence, max_lines=PAGE_LINES)
            if not lines:
                # Moved to storage meanwhile: subscribers read the rest there.
                self._forget_pages()
                self.last_sequence = state.last_sequence
                break
            is_last = state.is_complete and lines[-1].sequence >= state.last_sequence
            self._keep(LogPage(lines, lines[-1].sequence, complete=is_last))
            self.announce()
        self.is_complete = state.is_complete
        self.announce()
        return not self.is_complete

    def page_after(self, sequence: int) -> SharedEvent | None:
        """The kept page that begins right behind a sequence, shared; or the rest of the one that contains it."""
        for event in self._pages:
            page: LogPage = event.value
            if page.last_sequence <= sequence:
                continue
            first = page.last_sequence - len(page.lines) + 1
            if first == sequence + 1:
                return event
            if first <= sequence:
                rest = page.lines[sequence + 1 - first :]
                return SharedEvent(LogPage(rest, page.last_sequence, page.complete), audience=sequence)
            return None
        return None

    def _keep(self, page: LogPage) -> None:
        self.last_sequence = page.last_sequence
        self._pages.append(SharedEvent(page, audience="log"))
        self._kept_lines += len(page.lines)
        while self._kept_lines > KEPT_LINES and len(self._pages) > 1:
            self._kept_lines -= len(self._pages.popleft().value.lines)

    def _forget_pages(self) -> None:
        self._pages.clear()
        self._kept_lines = 0


class ExecutionFeed(Feed):
    """The state of an execution, as it changes."""

    def __init__(self, execution_id: UUID) -> None:
        super().__init__(execution_id)
        self.row: Row | None = None
        self.is_open = False
        self.version = 0
        self._shared: dict[Hashable, SharedEvent] = {}

    @property
    def key(self) -> Hashable:
        """Pokes of this execution."""
        return ("execution", self.execution_id)

    async def read(self) -> bool:
        """Read the row; a change that shows is a new version."""
        row = (await execution_rows.find([self.execution_id])).get(self.execution_id)
        if row != self.row or not self.is_open:
            self.row, self.is_open = row, True
            self.version += 1
            self._shared = {}
            self.announce()
        return row is not None and not ExecutionStatus(row["status"]).is_final

    def shared(self, row: Row, audience: Hashable, make: Callable[[Row], object]) -> SharedEvent:
        """The current state as an event that all of an audience share."""
        event = self._shared.get(audience)
        if event is None:
            event = self._shared[audience] = SharedEvent(make(row), audience)
        return event
