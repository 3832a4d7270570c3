"""A cache of JSON for minutes: in Redis for all processes, in memory while Redis is away.

Invariants: losing it loses time only; memory is bounded; of those who miss the same key at the same time in one process
one fetches and the others wait for it. An entry carries when it was fetched, so "fresher than that" can be asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson
import structlog
from redis.exceptions import RedisError

from adapters import events, metrics
from settings import Settings

MAX_ENTRIES: Final = 64
MAX_ENTRY_BYTES: Final = 2**20
_log = structlog.get_logger("switchyard.cache")


class ShortCache:
    """The cache of one process; `name` keeps its keys apart from others'."""

    def __init__(self, name: str, *, seconds: int) -> None:
        self._name = name
        self._seconds = seconds
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(
        self, settings: Settings, key: str, fetch: Callable[[], Awaitable[Any]], *, refresh: bool = False
    ) -> Any:
        """What is kept under a key, else what `fetch` brings; with `refresh` nothing older than this call."""
        not_before = time.time() if refresh else 0.0
        full_key = f"{settings.redis_namespace}:cache:{self._name}:{key}"
        lock = self._locks.get(full_key)
        if lock is None:
            lock = self._locks[full_key] = asyncio.Lock()
        async with lock:
            kept = await self._read(full_key)
            if kept is not None and kept["at"] >= max(not_before, time.time() - self._seconds):
                metrics.current().count_lookup(self._name, True)
                return kept["data"]
            metrics.current().count_lookup(self._name, False)
            started = time.time()
            data = await fetch()
            await self._write(full_key, orjson.dumps({"at": started, "data": data}))
            return data

    async def _read(self, key: str) -> dict[str, Any] | None:
        kept: bytes | None
        try:
            kept = await events.bus().redis.get(key)
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("cache_not_read", error=repr(error))
            kept = self._memory.get(key)
        return None if kept is None else orjson.loads(kept)

    async def _write(self, key: str, entry: bytes) -> None:
        if len(entry) > MAX_ENTRY_BYTES:
            return
        self._memory[key] = entry
        self._memory.move_to_end(key)
        while len(self._memory) > MAX_ENTRIES:
            self._memory.popitem(last=False)
        try:
            await events.bus().redis.set(key, entry, ex=self._seconds)
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("cache_not_written", error=repr(error))
