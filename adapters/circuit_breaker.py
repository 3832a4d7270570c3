"""A circuit breaker before a service that may be down: who calls it in vain, fails at once.

It opens after so many failures in a row, of all processes together, stays open for some seconds and then lets one call
try; that one closes it or keeps it open. State is in Redis, with Redis's own clock; while Redis does not answer each
process has its own. Invariants: an open breaker costs one question to Redis; a trial that never ends gives its place
up by itself; whatever happens to Redis, the service can be called. What a failure is, the caller says.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

BUDGET_SECONDS: Final = 0.5
_log = structlog.get_logger("switchyard.breaker")

# The count of failures in a row with the moment of the last one, and who tries. All times are milliseconds.
_ENTER: Final = """
local failures = tonumber(redis.call('HGET', KEYS[1], 'failures') or '0')
if failures < tonumber(ARGV[1]) then return 0 end
local time = redis.call('TIME')
local open_until = tonumber(redis.call('HGET', KEYS[1], 'at')) + ARGV[2]
local left = open_until - (time[1] * 1000 + math.floor(time[2] / 1000))
if left > 0 then return left end
if redis.call('SET', KEYS[2], ARGV[4], 'NX', 'PX', ARGV[3]) then return 0 end
return redis.call('PTTL', KEYS[2])
"""
_LOOK: Final = """
local failures = tonumber(redis.call('HGET', KEYS[1], 'failures') or '0')
if failures < tonumber(ARGV[1]) then return 0 end
local time = redis.call('TIME')
local open_until = tonumber(redis.call('HGET', KEYS[1], 'at')) + ARGV[2]
return math.max(0, open_until - (time[1] * 1000 + math.floor(time[2] / 1000)))
"""
_FAILED: Final = """
local time = redis.call('TIME')
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'at', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return failures
"""
_LEAVE: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 0
"""


class BreakerOpen(Exception):
    """The service is left alone for now."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"open for {retry_after_seconds:.1f} s")
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Rules:
    """Opens after `failures` in a row, for `open_seconds`; a trial has `trial_seconds`."""

    failures: int
    open_seconds: float
    trial_seconds: float


class CircuitBreaker:
    """The breaker of one service, as one process has it."""

    def __init__(
        self,
        name: str,
        rules: Rules,
        *,
        redis: Callable[[], Redis],
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._redis = redis
        self._keys = (f"{namespace}:breaker:{name}", f"{namespace}:breaker:{name}:trial")
        self._local = _Local(rules, clock)

    @asynccontextmanager
    async def call(self, *, failures: type[Exception], answers: type[Exception]) -> AsyncIterator[None]:
        """Call the service inside; raises BreakerOpen before anything is sent.

        Of what is raised inside, `failures` count against the service and `answers` show that it lives; all else, a
        cancellation too, says nothing of it.
        """
        token = secrets.token_hex(8)
        await self._enter(token)
        try:
            yield
        except failures:
            await self._failed()
            raise
        except answers:
            await self._succeeded()
            raise
        except BaseException:
            self._local.leave()
            await self._ask(_LEAVE, token)
            raise
        await self._succeeded()

    async def is_open(self) -> bool:
        """Whether the service is left alone now; a look that changes nothing, and takes no trial from a call."""
        rules = self._rules
        left = await self._ask(_LOOK, rules.failures, round(rules.open_seconds * 1000))
        return self._local.is_open if left is None else left > 0

    async def _enter(self, token: str) -> None:
        rules = self._rules
        left = await self._ask(
            _ENTER, rules.failures, round(rules.open_seconds * 1000), round(rules.trial_seconds * 1000), token
        )
        seconds = self._local.enter() if left is None else left / 1000
        if seconds > 0:
            raise BreakerOpen(seconds)

    async def _failed(self) -> None:
        self._local.fail()
        # A count that nobody adds to is forgotten; a breaker that opened is open until somebody has tried.
        kept = round(max(3_600.0, 10 * self._rules.open_seconds) * 1000)
        failures = await self._ask(_FAILED, kept)
        if failures == self._rules.failures:
            _log.warning("breaker_opened", breaker=self._keys[0])

    async def _succeeded(self) -> None:
        self._local.close()
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                was_counting = await self._redis().delete(*self._keys)
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("breaker_without_redis", error=repr(error))
            return
        if was_counting:
            _log.info("breaker_closed", breaker=self._keys[0])

    async def _ask(self, script: str, *arguments: object) -> int | None:
        """What a script answers; None when Redis does not."""
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                answer: Any = await cast(Any, self._redis()).eval(script, 2, *self._keys, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("breaker_without_redis", error=repr(error))
            return None
        return int(answer)


class _Local:
    """The same in memory; it hears of what this process calls also while Redis decides."""

    def __init__(self, rules: Rules, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._trial_until = 0.0

    def enter(self) -> float:
        """Seconds to stay away, 0 to go on."""
        if self._failures < self._rules.failures:
            return 0.0
        now = self._clock()
        wait = max(self._open_until, self._trial_until) - now
        if wait > 0:
            return wait
        self._trial_until = now + self._rules.trial_seconds
        return 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls stay away."""
        return self._failures >= self._rules.failures and self._clock() < self._open_until

    def fail(self) -> None:
        """A call failed."""
        self._failures += 1
        self._open_until = self._clock() + self._rules.open_seconds
        self._trial_until = 0.0

    def close(self) -> None:
        """A call was answered."""
        self._failures, self._open_until, self._trial_until = 0, 0.0, 0.0

    def leave(self) -> None:
        """A call was broken off and says nothing."""
        self._trial_until = 0.0
