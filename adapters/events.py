"""Events between processes: one Redis connection per process to hear, one pool to speak.

The hub holds no queues: a poke sets a flag, and whoever waits reads the truth from PostgreSQL. So a slow
watcher costs nothing, a lost event costs latency only, and while Redis is away watchers fall back to their
own deadlines. After a reconnect everybody is poked, because anything may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from adapters import metrics
from adapters.cancellation import end
from models.database import in_unit_of_work
from models.events import (
    CancelRequested,
    Event,
    ExecutionChanged,
    LogAppended,
    NotificationAdded,
    OutboxFilled,
    SessionsChanged,
    SiteChanged,
    StatusChanged,
    TotalsChanged,
)
from models.transaction import after_commit
from settings import Settings

PUBLISH_TIMEOUT_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = (0.1, 0.2, 0.5, 1.0)
_log = structlog.get_logger("switchyard.events")


class Watcher:
    """One waiting reader. Pokes that arrive while it works are kept as one."""

    def __init__(self) -> None:
        self._poked = asyncio.Event()
        self.last_event: Event | None = None

    def poke(self, event: Event | None) -> None:
        """Wake the reader; never blocks."""
        self.last_event = event
        self._poked.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for the next poke, at most so long; whether there was one."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._poked.wait()
        except TimeoutError:
            return False
        self._poked.clear()
        return True


class Hub:
    """Who waits for what in this process."""

    def __init__(self) -> None:
        self._watchers: dict[Hashable, set[Watcher]] = {}
        self._callbacks: dict[type[Any], list[Callable[[Any], None]]] = {}

    @asynccontextmanager
    async def watch(self, *keys: Hashable) -> AsyncIterator[Watcher]:
        """Register before the first read, so that nothing falls between the read and the wait."""
        watcher = Watcher()
        for key in keys:
            self._watchers.setdefault(key, set()).add(watcher)
        try:
            yield watcher
        finally:
            for key in keys:
                watchers = self._watchers[key]
                watchers.discard(watcher)
                if not watchers:
                    del self._watchers[key]

    @contextmanager
    def listen(self, kind: type[Any], callback: Callable[[Any], None]) -> Any:
        """Call `callback` with every event of a kind; it must not block."""
        self._callbacks.setdefault(kind, []).append(callback)
        try:
            yield
        finally:
            self._callbacks[kind].remove(callback)

    def poke(self, event: Event) -> None:
        """Wake those who wait for an event."""
        for key in _keys(event):
            for watcher in self._watchers.get(key, ()):
                watcher.poke(event)
        for callback in self._callbacks.get(type(event), ()):
            callback(event)

    def poke_all(self) -> None:
        """Wake everybody: events may have been missed."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.poke(None)

    @property
    def watcher_count(self) -> int:
        """How many readers wait now."""
        return sum(len(watchers) for watchers in self._watchers.values())


class EventBus:
    """The process's ear and mouth."""

    def __init__(self, redis: Redis, channel: str) -> None:
        self.redis = redis
        self.hub = Hub()
        self.is_connected = False
        self._channel = channel

    async def send(self, event: Event) -> None:
        """Publish now, best effort: a lost Redis is logged, never raised. This process is poked in any case."""
        if not self.is_connected:
            self.hub.poke(event)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                await self.redis.publish(self._channel, _encode(event))
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("event_not_published", kind=type(event).__name__, error=repr(error))

    async def hear(self) -> None:
        """Listen until cancelled; reconnects for ever and pokes everybody after each gap."""
        attempt = 0
        while True:
            pubsub = self.redis.pubsub()
            try:
                async with asyncio.timeout(5):
                    await pubsub.subscribe(self._channel)
                self.is_connected = True
                attempt = 0
                self.hub.poke_all()
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
                    if message is not None:
                        self._deliver(message["data"])
            except (RedisError, OSError, TimeoutError) as error:
                if self.is_connected:
                    metrics.current().reconnects.inc()
                    _log.warning("events_lost", error=repr(error))
                self.is_connected = False
                await asyncio.sleep(_RECONNECT_SECONDS[min(attempt, len(_RECONNECT_SECONDS) - 1)])
                attempt += 1
            finally:
                with suppress(RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await pubsub.aclose()  # type: ignore[no-untyped-call] # redis-py 5 leaves it bare

    def _deliver(self, data: bytes) -> None:
        event = _decode(data)
        if event is not None:
            self.hub.poke(event)


_bus: EventBus | None = None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[EventBus]:
    """Open the bus for the life of the process. A Redis that is away does not stop the start."""
    global _bus
    redis = open_redis(settings)
    bus = EventBus(redis, f"{settings.redis_namespace}:events")
    listener = asyncio.create_task(bus.hear(), name="events")
    _bus = bus
    try:
        yield bus
    finally:
        _bus = None
        await end(listener)
        await redis.aclose()


def open_redis(settings: Settings) -> Redis:
    """A client with deadlines on everything; the asyncio Retry, as the plain one does nothing here."""
    client: Redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=3,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=5,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
    )
    return client


async def publish(event: Event) -> None:
    """Tell all processes; inside a unit of work the event leaves after the commit."""
    bus = _opened()
    if in_unit_of_work.get():
        after_commit(lambda: bus.send(event))
    else:
        await bus.send(event)


def hub() -> Hub:
    """The hub of this process."""
    return _opened().hub


def bus() -> EventBus:
    """The bus of this process."""
    return _opened()


def _opened() -> EventBus:
    if _bus is None:
        raise LookupError("events.connected() is not open in this process")
    return _bus


def _keys(event: Event) -> tuple[Hashable, ...]:
    match event:
        case LogAppended():
            return (("log", event.execution_id),)
        case ExecutionChanged():
            # The end of an execution is also the end of its log.
            return (
                ("execution", event.execution_id),
                ("log", event.execution_id),
                ("owner", event.owner_id),
                ("executions",),
            )
        case CancelRequested():
            return (("cancel", event.execution_id),)
        case SessionsChanged():
            return (("sessions", event.user_id),)
        case SiteChanged():
            return (("site", event.project_id),)
        case NotificationAdded():
            return (("notifications", event.user_id),)
        case OutboxFilled():
            return (("outbox",),)
        case TotalsChanged():
            return (("totals", event.owner_id),)
        case StatusChanged():
            return (("status",),)


def _encode(event: Event) -> bytes:
    # str(): the driver's UUIDs are a subclass, which orjson does not take.
    match event:
        case LogAppended():
            return orjson.dumps(["log", str(event.execution_id), event.last_sequence])
        case ExecutionChanged():
            return orjson.dumps(["execution", str(event.execution_id), str(event.owner_id)])
        case CancelRequested():
            return orjson.dumps(["cancel", str(event.execution_id)])
        case SessionsChanged():
            return orjson.dumps(["sessions", str(event.user_id)])
        case SiteChanged():
            return orjson.dumps(["site", str(event.project_id)])
        case NotificationAdded():
            return orjson.dumps(["notifications", str(event.user_id)])
        case OutboxFilled():
            return orjson.dumps(["outbox"])
        case TotalsChanged():
            return orjson.dumps(["totals", str(event.owner_id)])
        case StatusChanged():
            return orjson.dumps(["status"])


def _decode(data: bytes) -> Event | None:
    """The event in a message; None for what a newer or older version sends."""
    try:
        name, *values = orjson.loads(data)
        match name:
            case "log":
                return LogAppended(UUID(values[0]), int(values[1]))
            case "execution":
                return ExecutionChanged(UUID(values[0]), UUID(values[1]))
            case "cancel":
                return CancelRequested(UUID(values[0]))
            case "sessions":
                return SessionsChanged(UUID(values[0]))
            case "site":
                return SiteChanged(UUID(values[0]))
            case "notifications":
                return NotificationAdded(UUID(values[0]))
            case "outbox":
                return OutboxFilled()
            case "totals":
                return TotalsChanged(UUID(values[0]))
            case "status":
                return StatusChanged()
            case _:
                return None
    except (ValueError, TypeError, IndexError):
        _log.warning("event_not_understood")
        return None
