"""Views of statistics, kept in memory for a minute and forgotten when something in them changed.

Invariants: nobody gets what was read before an event about it that had come when they asked; of those who miss the same
view at the same time one reads and the others wait; memory is bounded. A lost event, or a Redis that is away, costs at
most the age of a view.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from adapters.events import Hub
from models.events import ExecutionChanged, TotalsChanged

MAX_AGE_SECONDS: Final = 60.0
MAX_VIEWS: Final = 512
MAX_ROWS: Final = 40_000
"""About 1 KB each."""

MAX_OWNERS: Final = 10_000

View = TypeVar("View")


class StatisticsCache:
    """The views of one process."""

    def __init__(self) -> None:
        self._views: OrderedDict[Hashable, tuple[int, float, Any]] = OrderedDict()
        self._reading: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._changes = 0
        self._forgotten = 0
        self._changed: OrderedDict[UUID, int] = OrderedDict()

    async def get(self, key: Hashable, owner_id: UUID | None, read: Callable[[], Awaitable[View]]) -> View:
        """A view of what an owner has, of what everybody has for None: what is kept, or what `read` brings now."""
        needed = self._last_change(owner_id)
        lock = self._reading.get(key)
        if lock is None:
            lock = self._reading[key] = asyncio.Lock()
        async with lock:
            kept = self._views.get(key)
            if kept is not None and kept[0] >= needed and time.monotonic() - kept[1] < MAX_AGE_SECONDS:
                self._views.move_to_end(key)
                view: View = kept[2]
                return view
            changes, began = self._changes, time.monotonic()
            view = await read()
            self._views[key] = (changes, began, view)
            self._views.move_to_end(key)
            while len(self._views) > MAX_VIEWS or sum(_size(view) for _, _, view in self._views.values()) > MAX_ROWS:
                self._views.popitem(last=False)
            return view

    def note_change(self, owner_id: UUID) -> None:
        """Something that an owner has changed: views of it, and those of everybody, are old."""
        self._changes += 1
        self._changed[owner_id] = self._changes
        self._changed.move_to_end(owner_id)
        while len(self._changed) > MAX_OWNERS:
            # Of an owner who is not remembered anything may have changed up to then.
            self._forgotten = self._changed.popitem(last=False)[1]

    def _last_change(self, owner_id: UUID | None) -> int:
        return self._changes if owner_id is None else self._changed.get(owner_id, self._forgotten)

    @contextmanager
    def opened(self, hub: Hub) -> Iterator[None]:
        """Hear of changes meanwhile."""
        with (
            hub.listen(ExecutionChanged, lambda event: self.note_change(event.owner_id)),
            hub.listen(TotalsChanged, lambda event: self.note_change(event.owner_id)),
        ):
            yield


def _size(view: object) -> int:
    return len(view) if isinstance(view, Sized) else 1


views: Final = StatisticsCache()
"""The views of this process."""
