"""`/healthz` and `/readyz`: is this process alive, and should it be sent requests?

Alive means that the event loop turns; nothing else is asked, because a restart mends no database. How late it was
lately is said with it, for operators: it is what users feel when something blocks the process. Ready means that
PostgreSQL answers and no shutdown has begun. Without Redis or storage the service is degraded, not down: mutations and
polling streams still work. The answers name no addresses and no errors; those are in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg
import structlog
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters import events
from adapters.loop_lag import LoopLag
from adapters.storage import Storage
from errors import SwitchyardError
from models.database import connect_alone
from settings import Settings

CHECK_TIMEOUT_SECONDS: Final = 2.0
KEPT_SECONDS: Final = 1.0
_PROBE_PREFIX: Final = "health/probe/"

_log = structlog.get_logger("switchyard.health")


class Condition(StrEnum):
    """Of one dependency, and of the whole."""

    READY = "ready"
    DEGRADED = "degraded"
    DOWN = "down"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Check:
    """How one dependency answered, and how long that took."""

    condition: Condition
    milliseconds: float


class Health:
    """What the probes of this process are told.

    Answers are kept for a second and found once at a time: the address is open to everybody, the databases are not.
    """

    def __init__(self, settings: Settings, *, storage: Callable[[], Storage]) -> None:
        self._settings = settings
        self._storage = storage
        self._lock = asyncio.Lock()
        self._checks: dict[str, Check] = {}
        self._checked_at = -KEPT_SECONDS
        self._is_draining = False
        self.loop_lag = LoopLag()

    def drain(self) -> None:
        """Say "not ready" from now on: this process will end."""
        self._is_draining = True

    async def alive(self, _: Request) -> Response:
        """`/healthz`: 200 as long as the loop turns, and how late it was at worst in the last seconds."""
        return JSONResponse({"status": "alive", "loopLagMilliseconds": self.loop_lag.worst_milliseconds})

    async def ready(self, _: Request) -> Response:
        """`/readyz`: 200 when requests are welcome, 503 when not; each dependency with its milliseconds."""
        if self._is_draining:
            return JSONResponse({"status": Condition.DRAINING, "checks": {}}, status_code=503)
        checks = await self._current()
        body = {
            "status": _overall(checks),
            "checks": {
                name: {"status": check.condition, "milliseconds": check.milliseconds} for name, check in checks.items()
            },
        }
        return JSONResponse(body, status_code=503 if body["status"] is Condition.DOWN else 200)

    async def _current(self) -> dict[str, Check]:
        async with self._lock:
            if time.monotonic() - self._checked_at >= KEPT_SECONDS:
                async with asyncio.TaskGroup() as group:
                    database = group.create_task(_timed("postgresql", self._postgresql, Condition.DOWN))
                    redis = group.create_task(_timed("redis", _redis, Condition.DEGRADED))
                    storage = group.create_task(_timed("storage", self._files, Condition.DEGRADED))
                self._checks = {
                    "postgresql": database.result(),
                    "redis": redis.result(),
                    "storage": storage.result(),
                }
                self._checked_at = time.monotonic()
            return self._checks

    async def _postgresql(self) -> None:
        # A connection of its own: a busy pool is no reason to send nobody, and cancelling a query on a pooled
        # connection to a silent server hangs for longer than the probe may.
        connection = await connect_alone(self._settings, command_timeout_seconds=CHECK_TIMEOUT_SECONDS)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close(timeout=CHECK_TIMEOUT_SECONDS)

    async def _files(self) -> None:
        # Not a look at one object: S3 says the same of one that is missing and of a missing bucket.
        async with aclosing(self._storage().list(_PROBE_PREFIX)) as objects:
            async for _ in objects:
                return


async def _redis() -> None:
    await events.bus().redis.ping()


async def _timed(name: str, check: Callable[[], Awaitable[None]], failed: Condition) -> Check:
    started = time.perf_counter()
    condition = Condition.READY
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError, SwitchyardError) as error:
        condition = failed
        _log.warning("dependency_lost", dependency=name, error=repr(error))
    return Check(condition, round((time.perf_counter() - started) * 1000, 2))


def _overall(checks: dict[str, Check]) -> Condition:
    found = {check.condition for check in checks.values()}
    return next(worst for worst in (Condition.DOWN, Condition.DEGRADED, Condition.READY) if worst in found)
