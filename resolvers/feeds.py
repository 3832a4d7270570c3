"""Shared reading for subscriptions: one reader per process and execution, however many subscribers.

A feed reads PostgreSQL when it is poked, and by itself every few seconds (every second while Redis is away).
What it read is kept as events that all subscribers share, so a page of log lines is read, executed and encoded
once. A subscriber holds only its position: a slow one that falls out of the kept pages reads the store instead,
and costs the others nothing. What is kept is bounded in lines and in characters.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

import structlog

from adapters import events
from adapters.cancellation import end
from adapters.events import Watcher
from errors import ServiceUnavailable
from models import execution_rows, logs
from models.database import Row, is_outage
from models.executions import ExecutionStatus
from models.logs import Line
from resolvers.logs import PAGE_LINES
from resolvers.streams import SharedEvent

POLL_WITHOUT_REDIS_SECONDS: Final = 0.5
POLLS_SKIPPED_WITH_REDIS: Final = 10
KEPT_LINES: Final = 4_000
KEPT_CHARACTERS: Final = 2_097_152
PAGE_CHARACTERS: Final = 262_144
"""Lines may have 8 KiB each: this, not their number, bounds what one frame weighs."""

MAX_FOLLOWED: Final = 1_000
RECENT_SECONDS: Final = 60.0
_log = structlog.get_logger("switchyard.feeds")
_Key = TypeVar("_Key", bound=Hashable)
_Feed = TypeVar("_Feed", bound="Feed")


class Feed:
    """One reader and those who wait for what it reads."""

    def __init__(self) -> None:
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
                    if not will_pass(error):
                        raise
                    _log.warning("feed_waits", error=repr(error))
                await wait_for_news(watcher)


async def wait_for_news(watcher: Watcher) -> None:
    """Wait for a poke, at most five seconds; while Redis is away, also when it goes meanwhile, half a second."""
    for _ in range(POLLS_SKIPPED_WITH_REDIS):
        if await watcher.wait(POLL_WITHOUT_REDIS_SECONDS) or not events.bus().is_connected:
            return


def will_pass(error: Exception) -> bool:
    """Whether the same read may work in a moment: the database or the storage is away, or too busy."""
    return is_outage(error) or isinstance(error, ServiceUnavailable)


class Feeds(Generic[_Key, _Feed]):
    """The feeds of one kind in this process, alive while somebody subscribes."""

    def __init__(self, make: Callable[[_Key], _Feed]) -> None:
        self._make = make
        self._feeds: dict[_Key, _Feed] = {}

    @asynccontextmanager
    async def join(self, key: _Key) -> AsyncIterator[_Feed]:
        """The feed of a key, started for its first subscriber and ended after its last."""
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = self._make(key)
            feed.task = asyncio.create_task(feed.run(), name=f"feed-{feed.key}")
            feed.task.add_done_callback(feed.ended)
            _log.debug("feed_opened", feed=str(feed.key))
        feed.subscribers += 1
        try:
            yield feed
        finally:
            feed.subscribers -= 1
            if feed.subscribers == 0:
                del self._feeds[key]
                if feed.task is not None:
                    await end(feed.task)
                _log.debug("feed_closed", feed=str(feed.key))


@dataclass(frozen=True, slots=True)
class LogPage:
    """Consecutive lines, oldest first; `complete` on the last page of a log that will not grow."""

    lines: list[Line]
    last_sequence: int
    complete: bool


def pages_of(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Lines in pieces that each fit into one frame."""
    page: list[Line] = []
    characters = 0
    for line in lines:
        page.append(line)
        characters += len(line.message)
        if len(page) >= PAGE_LINES or characters >= PAGE_CHARACTERS:
            yield page
            page, characters = [], 0
    if page:
        yield page


class LogFeed(Feed):
    """The end of a log, as it grows."""

    def __init__(self, execution_id: UUID) -> None:
        super().__init__()
        self.execution_id = execution_id
        self.owner_id: UUID | None = None
        self.project_id: UUID | None = None
        self.is_complete = False
        self.is_open = False
        self.last_sequence = 0
        self._pages: deque[SharedEvent] = deque()
        self._kept_lines = 0
        self._kept_characters = 0

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
        self.owner_id, self.project_id = state.owner_id, state.project_id
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
            for page in pages_of(lines):
                is_last = state.is_complete and page[-1].sequence >= state.last_sequence
                self._keep(LogPage(page, page[-1].sequence, complete=is_last))
            self.announce()
        self.is_complete = state.is_complete
        self.announce()
        return not self.is_complete

    def page_after(self, sequence: int) -> SharedEvent | None:
        """The kept page that begins right behind a sequence, shared; or the rest of the one that contains it."""
        wanted = None
        for event in reversed(self._pages):  # most subscribers are near the end
            if event.value.last_sequence <= sequence:
                break
            wanted = event
        if wanted is None:
            return None
        page: LogPage = wanted.value
        first = page.last_sequence - len(page.lines) + 1
        if first == sequence + 1:
            return wanted
        if first > sequence:
            return None
        rest = page.lines[sequence + 1 - first :]
        return SharedEvent(LogPage(rest, page.last_sequence, page.complete), audience="log")

    def _keep(self, page: LogPage) -> None:
        self.last_sequence = page.last_sequence
        self._pages.append(SharedEvent(page, audience="log"))
        self._count(page, 1)
        while len(self._pages) > 1 and (self._kept_lines > KEPT_LINES or self._kept_characters > KEPT_CHARACTERS):
            self._count(self._pages.popleft().value, -1)

    def _count(self, page: LogPage, sign: int) -> None:
        self._kept_lines += sign * len(page.lines)
        self._kept_characters += sign * sum(len(line.message) for line in page.lines)

    def _forget_pages(self) -> None:
        self._pages.clear()
        self._kept_lines = self._kept_characters = 0


class Shown:
    """One state of an execution, and what of it subscribers share."""

    __slots__ = ("_events", "row", "version")

    def __init__(self, row: Row, version: int) -> None:
        self.row = row
        self.version = version
        self._events: dict[Hashable, SharedEvent] = {}

    @property
    def is_final(self) -> bool:
        """Whether no state will follow."""
        return ExecutionStatus(self.row["status"]).is_final

    def shared(self, audience: Hashable, make: Callable[[Row], object]) -> SharedEvent:
        """The state as an event that all of an audience share."""
        event = self._events.get(audience)
        if event is None:
            event = self._events[audience] = SharedEvent(make(self.row), audience)
        return event


class ExecutionFeed(Feed):
    """The state of an execution, as it changes."""

    def __init__(self, execution_id: UUID) -> None:
        super().__init__()
        self.execution_id = execution_id
        self.is_open = False
        self.shown: Shown | None = None

    @property
    def key(self) -> Hashable:
        """Pokes of this execution."""
        return ("execution", self.execution_id)

    async def read(self) -> bool:
        """Read the row; a change that shows is a new version."""
        row = (await execution_rows.find([self.execution_id])).get(self.execution_id)
        before = self.shown
        if row is None:
            self.shown, self.is_open = None, True
            self.announce()
            return False
        if before is None or before.row != row:
            self.shown, self.is_open = Shown(row, before.version + 1 if before else 1), True
            self.announce()
        return not ExecutionStatus(row["status"]).is_final


class ListFeed(Feed):
    """The newest state of each execution of an owner, or of everybody for None, in the order of change."""

    def __init__(self, owner_id: UUID | None) -> None:
        super().__init__()
        self.owner_id = owner_id
        self.is_open = False
        self.version = 0
        self._shown: OrderedDict[UUID, Shown] = OrderedDict()

    @property
    def key(self) -> Hashable:
        """Pokes of all these executions."""
        return ("executions",) if self.owner_id is None else ("owner", self.owner_id)

    async def read(self) -> bool:
        """Read what waits, runs or was asked for lately, and what became of those that were seen waiting or running."""
        rows = {
            row["id"]: row
            for row in await execution_rows.active(self.owner_id, since_seconds=RECENT_SECONDS, limit=MAX_FOLLOWED)
        }
        left = [id_ for id_, shown in self._shown.items() if not shown.is_final and id_ not in rows]
        if left:
            rows |= await execution_rows.find(left)
        for id_ in left:
            if id_ not in rows:
                del self._shown[id_]
        before = self.version
        for id_ in sorted(rows):
            shown = self._shown.get(id_)
            if shown is None or shown.row != rows[id_]:
                self.version += 1
                self._shown[id_] = Shown(rows[id_], self.version)
                self._shown.move_to_end(id_)
        while len(self._shown) > 2 * MAX_FOLLOWED:
            self._shown.popitem(last=False)
        if self.version > before or not self.is_open:
            self.is_open = True
            self.announce()
        return True

    def changes_after(self, version: int) -> list[Shown]:
        """The states that are newer than a version, in the order of change; of each execution only the last."""
        found = []
        for shown in reversed(self._shown.values()):
            if shown.version <= version:
                break
            found.append(shown)
        found.reverse()
        return found

    def is_latest(self, shown: Shown) -> bool:
        """Whether nothing newer is known of the execution, so that this state is worth sending."""
        return self._shown.get(shown.row["id"]) is shown
