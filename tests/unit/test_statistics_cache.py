"""Views are read once, never shown older than a change that came before the question, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from adapters.events import Hub
from models.events import ExecutionChanged, TotalsChanged
from resolvers import statistics_cache
from resolvers.statistics_cache import StatisticsCache


class Reader:
    """Counts how often it is read; answers once it is let go."""

    def __init__(self, *, waits: bool = False) -> None:
        self.count = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        if not waits:
            self.may_end.set()

    async def __call__(self) -> int:
        self.count += 1
        number = self.count
        self.has_begun.set()
        await self.may_end.wait()
        return number


async def test_a_view_is_read_once_by_all_who_ask_at_the_same_time() -> None:
    cache, reader, owner = StatisticsCache(), Reader(waits=True), uuid4()
    asking = [asyncio.create_task(cache.get("view", owner, reader)) for _ in range(20)]
    await reader.has_begun.wait()
    reader.may_end.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert await cache.get("view", owner, reader) == 1


@pytest.mark.parametrize("event", [ExecutionChanged, TotalsChanged])
async def test_a_change_makes_views_of_its_owner_and_of_everybody_old(event: Callable[..., object]) -> None:
    cache, hub, owner, other = StatisticsCache(), Hub(), uuid4(), uuid4()
    readers = {name: Reader() for name in (owner, other, None)}
    with cache.opened(hub):
        for name, reader in readers.items():
            await cache.get(name, name, reader)
        hub.poke(event(uuid4(), owner) if event is ExecutionChanged else event(owner))  # type: ignore[arg-type]
        for name, reader in readers.items():
            await cache.get(name, name, reader)
    assert [readers[name].count for name in (owner, other, None)] == [2, 1, 2]


async def test_what_was_begun_before_a_change_is_not_shown_to_those_who_ask_after_it() -> None:
    cache, reader, owner = StatisticsCache(), Reader(waits=True), uuid4()
    before = asyncio.create_task(cache.get("view", owner, reader))
    await reader.has_begun.wait()
    cache.note_change(owner)
    after = [asyncio.create_task(cache.get("view", owner, reader)) for _ in range(5)]
    await asyncio.sleep(0)
    reader.may_end.set()
    assert await before == 1
    assert await asyncio.gather(*after) == [2] * 5


async def test_a_view_is_a_minute_old_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, reader, owner = StatisticsCache(), Reader(), uuid4()
    now = 1_000.0
    monkeypatch.setattr("resolvers.statistics_cache.time.monotonic", lambda: now)
    assert await cache.get("view", owner, reader) == 1
    now += 59.9
    assert await cache.get("view", owner, reader) == 1
    now += 0.2
    assert await cache.get("view", owner, reader) == 2


async def test_a_reading_that_fails_or_is_abandoned_leaves_the_next_one_free() -> None:
    cache, owner = StatisticsCache(), uuid4()

    async def fail() -> int:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await cache.get("view", owner, fail)
    stuck = Reader(waits=True)
    abandoned = asyncio.create_task(cache.get("view", owner, stuck))
    await stuck.has_begun.wait()
    abandoned.cancel()
    assert await asyncio.wait_for(cache.get("view", owner, Reader()), 1) == 1


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_cache, "MAX_VIEWS", 3)
    monkeypatch.setattr(statistics_cache, "MAX_ROWS", 10)
    monkeypatch.setattr(statistics_cache, "MAX_OWNERS", 2)
    cache = StatisticsCache()
    read: list[str] = []

    def rows(name: str, count: int) -> Callable[[], Awaitable[list[int]]]:
        async def answer() -> list[int]:
            read.append(name)
            return [0] * count

        return answer

    for name in "abcd":
        await cache.get(name, None, rows(name, 2))
    await cache.get("d", None, rows("d", 2))
    await cache.get("a", None, rows("a", 2))
    assert "".join(read) == "abcda"
    await cache.get("large", None, rows("large", 7))
    await cache.get("a", None, rows("a", 2))
    assert read[-1] == "large"  # the older ones went, the newest stays
    # Of an owner whose last change is forgotten nothing old is shown.
    first = uuid4()
    await cache.get("theirs", first, rows("theirs", 1))
    for owner in (first, uuid4(), uuid4()):
        cache.note_change(owner)
    await cache.get("theirs", first, rows("theirs", 1))
    assert read[-2:] == ["theirs", "theirs"]
