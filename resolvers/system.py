"""How the installation is, for operators: samples of everything, counts, and the families that `/metrics` adds.

Invariants: what is expensive is read once for all that ask within its time; the subscribers of an interval share one
sampler, which takes a sample once and ends with the last of them; what cannot be read is missing and never old. An
outage of the database ends no stream: samples go on when it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError

from adapters import events, metrics
from adapters.cancellation import end
from adapters.machine import MachineMeter, MachineReading
from adapters.short_cache import ShortCache
from errors import Forbidden, ServiceUnavailable
from models import system_queries
from models.database import database_errors
from models.permissions import Actor, Permission
from resolvers.streams import SharedEvent
from settings import Settings
from tasks import heartbeat

SAMPLE_KEPT_SECONDS: Final = 1.0
SCRAPE_KEPT_SECONDS: Final = 5.0
SCRAPE_SECONDS: Final = 2.0
REDIS_SECONDS: Final = 1.0
STORAGE_KEPT_SECONDS: Final = 60
STATS_KEPT_SECONDS: Final = 10
ACCESS_LOOK_SECONDS: Final = 1.0

_log = structlog.get_logger("switchyard.system")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RedisState:
    """Redis as it answered; without numbers when it did not."""

    is_reachable: bool
    memory_bytes: int | None = None
    clients: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The installation at one moment: what `models.system_queries` reads, and the machine that answers."""

    at: datetime
    machine: MachineReading
    installation: dict[str, Any]
    redis: RedisState
    storage: dict[str, int]


class _Kept(Generic[_T]):
    """The last answer of something expensive, for so many seconds; those who ask meanwhile wait for one reading."""

    def __init__(self, read: Callable[[], Awaitable[_T]], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._answer: tuple[float, _T] | None = None

    async def get(self) -> _T:
        """The answer, no older than allowed."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._answer[0] >= self._seconds:
                self._answer = time.monotonic(), await self._read()
            return self._answer[1]


class _Sampler:
    """Takes samples for all subscribers of an interval."""

    def __init__(self, board: Board, seconds: int, make: Callable[[Sample], Any]) -> None:
        self.subscribers = 0
        self.latest: SharedEvent | None = None
        self._board = board
        self._make = make
        self._seconds = seconds
        self._meter = board.meter()
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(), name=f"system-metrics-{seconds}")

    async def wait(self, seconds: float) -> None:
        """Until the next sample, at most so long; raises what ended the sampler."""
        await asyncio.wait({self._change, self.task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        is_away = False
        due = loop.time()
        while True:
            try:
                sample = await self._board.sample(self._meter)
            except ServiceUnavailable as error:
                if not is_away:
                    _log.warning("system_not_sampled", error=error.message)
                is_away = True
            else:
                is_away = False
                metrics.current().samples.inc()
                self.latest = SharedEvent(self._make(sample), audience="operators")
                change, self._change = self._change, loop.create_future()
                change.set_result(None)
            due = max(due + self._seconds, loop.time())
            await asyncio.sleep(due - loop.time())


class Board:
    """Everything that one process knows of the installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._now = _Kept(self._installation, SAMPLE_KEPT_SECONDS / 2)
        self._scraped = _Kept(self._installation, SCRAPE_KEPT_SECONDS)
        self._storage = ShortCache("storage_use", seconds=STORAGE_KEPT_SECONDS)
        self._stats = ShortCache("system_stats", seconds=STATS_KEPT_SECONDS)
        self._samplers: dict[int, _Sampler] = {}
        self._single = _Kept(lambda: self.sample(self.meter()), SAMPLE_KEPT_SECONDS)

    def meter(self) -> MachineMeter:
        """A reader of this machine that goes on from the last beat."""
        return MachineMeter(self._settings.data_dir, since=heartbeat.meter)

    async def sample(self, meter: MachineMeter) -> Sample:
        """A sample now. Raises ServiceUnavailable."""
        installation, redis, storage, machine = await asyncio.gather(
            self._now.get(), _redis(), self.storage(), asyncio.to_thread(meter.read)
        )
        return Sample(datetime.fromisoformat(installation["at"]), machine, installation, redis, storage)

    async def current(self) -> Sample:
        """A sample that is at most a second old. Raises ServiceUnavailable."""
        return await self._single.get()

    async def storage(self) -> dict[str, int]:
        """Bytes by what they are, at most a minute old. Raises ServiceUnavailable."""
        with database_errors():
            used: dict[str, int] = await self._storage.get(self._settings, "bytes", system_queries.storage_use)
        return used

    async def stats(self) -> dict[str, Any]:
        """Counts and activity, at most ten seconds old. Raises ServiceUnavailable."""

        async def read() -> dict[str, Any]:
            return {"counts": await system_queries.counts(), **await system_queries.activity()}

        with database_errors():
            found: dict[str, Any] = await self._stats.get(self._settings, "all", read)
        return {**found, "storage": await self.storage()}

    async def follow(
        self, actor_now: Callable[[], Actor], seconds: int, *, make: Callable[[Sample], Any]
    ) -> AsyncGenerator[SharedEvent, None]:
        """A sample now and then every so many seconds, for as long as the actor may see it.

        All subscribers of an interval get the same events; `make` is what the first of them wanted samples made into.
        """
        seen = None
        async with self._joined(seconds, make) as sampler:
            while True:
                if not actor_now().may(Permission.SYSTEM_READ):
                    raise Forbidden("You may not see this any more.", permission=Permission.SYSTEM_READ.value)
                if sampler.latest is not None and sampler.latest is not seen:
                    seen = sampler.latest
                    yield seen
                else:
                    await sampler.wait(ACCESS_LOOK_SECONDS)

    async def families(self) -> list[Metric]:
        """What `/metrics` says of the installation, at most five seconds old; one gauge tells whether it can."""
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                found = await self._scraped.get()
        except (ServiceUnavailable, TimeoutError):
            found = None
        return installation_families(found)

    async def close(self) -> None:
        """End what runs."""
        await end(*(sampler.task for sampler in self._samplers.values()))

    @asynccontextmanager
    async def _joined(self, seconds: int, make: Callable[[Sample], Any]) -> AsyncIterator[_Sampler]:
        sampler = self._samplers.get(seconds)
        if sampler is None or sampler.task.done():
            sampler = self._samplers[seconds] = _Sampler(self, seconds, make)
        sampler.subscribers += 1
        try:
            yield sampler
        finally:
            sampler.subscribers -= 1
            if not sampler.subscribers:
                if self._samplers.get(seconds) is sampler:
                    del self._samplers[seconds]
                await end(sampler.task)

    @staticmethod
    async def _installation() -> dict[str, Any]:
        with database_errors():
            return await system_queries.installation()


_board: Board | None = None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[None]:
    """Know the installation for the life of the process; needs database and events."""
    global _board
    before, board = _board, Board(settings)
    _board = board
    try:
        yield
    finally:
        _board = before
        await board.close()


def board() -> Board:
    """What this process knows; raises LookupError outside of `opened`."""
    if _board is None:
        raise LookupError("system.opened() is not open in this process")
    return _board


def installation_families(found: dict[str, Any] | None) -> list[Metric]:
    """The gauges of the installation; without a reading only that there is none."""
    readable = GaugeMetricFamily(
        "switchyard_installation_readable", "Whether the gauges of the installation could be read from the database."
    )
    readable.add_metric([], 0 if found is None else 1)
    gauges = {
        name: GaugeMetricFamily(name, text, labels=labels)
        for name, text, labels in (
            ("switchyard_executions_queued", "Executions that wait.", ["kind"]),
            ("switchyard_executions_running", "Executions that run.", ["kind"]),
            ("switchyard_execution_oldest_wait_seconds", "How long the oldest execution has waited.", ["kind"]),
            ("switchyard_processes_alive", "Processes whose heartbeat is fresh.", ["role"]),
            ("switchyard_worker_places", "Places for executions on all workers that are alive.", ["kind"]),
            ("switchyard_outbox_waiting", "Messages of the outbox that are not told yet.", []),
            ("switchyard_outbox_oldest_wait_seconds", "How long the oldest message is due.", []),
            ("switchyard_outbox_given_up", "Messages of the outbox that were given up, of thirty days.", []),
            ("switchyard_database_connections", "Connections to the database, of all programs.", []),
            ("switchyard_database_connections_limit", "Connections that PostgreSQL allows.", []),
        )
    }
    if found is not None:
        _fill(gauges, found)
    return [readable, *gauges.values()]


def _fill(gauges: dict[str, GaugeMetricFamily], found: dict[str, Any]) -> None:
    for queue in found["queues"]:
        labels = [queue["kind"]]
        gauges["switchyard_executions_queued"].add_metric(labels, queue["queued"])
        gauges["switchyard_executions_running"].add_metric(labels, queue["running"])
        gauges["switchyard_execution_oldest_wait_seconds"].add_metric(labels, queue["oldest_wait_seconds"] or 0)
    for role in ("API", "WORKER"):
        alive = sum(1 for process in found["processes"] if process["role"] == role)
        gauges["switchyard_processes_alive"].add_metric([role], alive)
    for kind, (slots, _) in places_of(found).items():
        gauges["switchyard_worker_places"].add_metric([kind], slots)
    outbox = found["outbox"]
    gauges["switchyard_outbox_waiting"].add_metric([], outbox["waiting"])
    gauges["switchyard_outbox_oldest_wait_seconds"].add_metric([], outbox["oldest_wait_seconds"] or 0)
    gauges["switchyard_outbox_given_up"].add_metric([], outbox["given_up"])
    gauges["switchyard_database_connections"].add_metric([], found["connections"])
    gauges["switchyard_database_connections_limit"].add_metric([], found["max_connections"])


def places_of(found: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Of each kind, the places of all workers and how many of them are taken."""
    places: dict[str, tuple[int, int]] = {}
    for process in found["processes"]:
        for offer in process["kinds"]:
            slots, busy = places.get(offer["kind"], (0, 0))
            places[offer["kind"]] = slots + offer["slots"], busy + offer["busy"]
    return places


async def _redis() -> RedisState:
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            memory = await events.bus().redis.info("memory")
            clients = await events.bus().redis.info("clients")
    except (RedisError, OSError, TimeoutError):
        return RedisState(is_reachable=False)
    return RedisState(True, int(memory["used_memory"]), int(clients["connected_clients"]))
