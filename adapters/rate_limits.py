"""Counting against limits: several buckets in one question to Redis, and in memory while Redis does not answer.

A bucket is GCRA: it holds `limit` at once and refills evenly over its window, and is one number, the moment when it is
full again. Invariants: all buckets of a call are charged or none is; time is Redis's own, so the clocks of processes
do not matter; an answer takes 50 ms at most; without Redis nothing is let through uncounted. What Redis said last is
kept in memory, so an outage begins with what was spent before it. Who pays for what is `resolvers/limits.py`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from settings import Settings

BUDGET_SECONDS: Final = 0.05
MISSES_UNTIL_AWAY: Final = 3
AWAY_SECONDS: Final = 1.0
"""How long a Redis that missed three times in a row is not asked again; then one call asks for all."""

CONNECTIONS: Final = 4
MAX_REMEMBERED: Final = 50_000
_MICROSECONDS: Final = 1_000_000
_log = structlog.get_logger("switchyard.rate_limits")

SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local backlogs, fits = {}, 1
for i, key in ipairs(KEYS) do
  local interval, limit, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local full_at = tonumber(redis.call('GET', key) or '') or now
  backlogs[i] = math.min(math.max(full_at - now, 0), interval * limit)
  if cost > 0 and backlogs[i] + interval * cost > interval * limit then fits = 0 end
end
if fits == 1 then
  for i, key in ipairs(KEYS) do
    backlogs[i] = math.max(backlogs[i] + ARGV[3 * i - 2] * ARGV[3 * i], 0)
    if backlogs[i] > 0 then
      redis.call('SET', key, string.format('%.0f', now + backlogs[i]), 'PX', math.ceil(backlogs[i] / 1000))
    else
      redis.call('DEL', key)
    end
  end
end
return {fits, unpack(backlogs)}
"""
_SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit: so many at once, all of them back after the window, evenly."""

    name: str
    limit: int
    window_seconds: int

    @property
    def interval(self) -> int:
        """Microseconds until one is back."""
        return round(self.window_seconds * _MICROSECONDS / self.limit)

    def shared_by(self, processes: int) -> Policy:
        """The part of one process among several that do not see each other's; at least one."""
        return Policy(self.name, max(1, self.limit // processes), self.window_seconds)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one subject pays under a policy. Name each bucket once in a call."""

    policy: Policy
    subject: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands after a call; `retry_after_seconds` is more than zero in the buckets that refused it."""

    policy: Policy
    remaining: int
    reset_seconds: int
    retry_after_seconds: int = 0


class Limiter:
    """The buckets of one installation, as one process reaches them."""

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        replicas: int = 1,
        budget_seconds: float = BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._prefix = f"{namespace}:limit:"
        self._replicas = replicas
        self._budget_seconds = budget_seconds
        self._clock = clock
        self._buckets = LocalBuckets()
        self._misses = 0
        self._ask_at = 0.0

    @property
    def is_away(self) -> bool:
        """Whether Redis missed too often and calls are counted in this process."""
        return self._misses >= MISSES_UNTIL_AWAY

    async def take(self, charges: Sequence[Charge]) -> tuple[Standing, ...]:
        """Charge all buckets, or none if one has too little left; how they stand, in the same order."""
        backlogs = await self._from_redis(charges)
        if backlogs is None:
            charges = [
                Charge(part, charge.subject, min(charge.cost, part.limit))
                for charge in charges
                for part in (charge.policy.shared_by(self._replicas),)
            ]
            backlogs = self._buckets.take(charges, now=self._now())
        fits, *behind = backlogs
        return tuple(
            _standing(charge, backlog, is_charged=bool(fits)) for charge, backlog in zip(charges, behind, strict=True)
        )

    async def give_back(self, charges: Sequence[Charge]) -> None:
        """Undo charges that turned out not to be due."""
        await self.take([Charge(charge.policy, charge.subject, -charge.cost) for charge in charges])

    async def _from_redis(self, charges: Sequence[Charge]) -> list[int] | None:
        """Whether all was charged, and what each bucket lacks in microseconds; None when Redis does not say."""
        now = self._clock()
        if self.is_away:
            if now < self._ask_at:
                return None
            self._ask_at = now + AWAY_SECONDS
        try:
            async with asyncio.timeout(self._budget_seconds):
                answer = await self._ask(charges)
        except (RedisError, OSError, TimeoutError) as error:
            self._misses += 1
            if self._misses == MISSES_UNTIL_AWAY:
                self._ask_at = self._clock() + AWAY_SECONDS
                _log.warning("rate_limits_without_redis", error=repr(error))
            return None
        if self.is_away:
            _log.info("rate_limits_with_redis")
        self._misses = 0
        for charge, backlog in zip(charges, answer[1:], strict=True):
            self._buckets.remember(charge, backlog, now=self._now())
        return answer

    async def _ask(self, charges: Sequence[Charge]) -> list[int]:
        arguments: list[Any] = [f"{self._prefix}{charge.policy.name}:{charge.subject}" for charge in charges]
        for charge in charges:
            arguments += (charge.policy.interval, charge.policy.limit, charge.cost)
        try:
            answer: Any = await cast(Any, self._redis.evalsha(_SCRIPT_SHA, len(charges), *arguments))
        except NoScriptError:  # Redis was started anew
            answer = await cast(Any, self._redis.eval(SCRIPT, len(charges), *arguments))
        return cast(list[int], answer)

    def _now(self) -> int:
        return round(self._clock() * _MICROSECONDS)


class LocalBuckets:
    """The same buckets in memory, the latest used ones; times in microseconds of any clock that does not go back."""

    def __init__(self, *, size: int = MAX_REMEMBERED) -> None:
        self._size = size
        self._full_at: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, charges: Sequence[Charge], *, now: int) -> list[int]:
        """As the script does it: whether all was charged, and what each bucket lacks then."""
        capacities = [charge.policy.interval * charge.policy.limit for charge in charges]
        backlogs = [
            min(max(self._full_at.get(_key(charge), now) - now, 0), capacity)
            for charge, capacity in zip(charges, capacities, strict=True)
        ]
        after = [
            backlog + charge.policy.interval * charge.cost for charge, backlog in zip(charges, backlogs, strict=True)
        ]
        if any(
            charge.cost > 0 and needed > capacity
            for charge, needed, capacity in zip(charges, after, capacities, strict=True)
        ):
            return [0, *backlogs]
        left = [max(backlog, 0) for backlog in after]
        for charge, backlog in zip(charges, left, strict=True):
            self.remember(charge, backlog, now=now)
        return [1, *left]

    def remember(self, charge: Charge, backlog: int, *, now: int) -> None:
        """Know a bucket as it stands; the one used longest ago makes room."""
        key = _key(charge)
        self._full_at[key] = now + backlog
        self._full_at.move_to_end(key)
        while len(self._full_at) > self._size:
            self._full_at.popitem(last=False)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Limiter]:
    """A limiter for the life of the process; a Redis that is away does not stop the start."""
    # Deadlines and retries are the limiter's, whose budget leaves no time for the library's own. Few connections, which
    # stay open: a call that has to open one first is the one that misses its budget.
    pool = BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=CONNECTIONS,
        timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), retries=0),
        lib_name=None,
        lib_version=None,
    )
    redis: Redis = Redis(connection_pool=pool)
    try:
        yield Limiter(redis, settings.redis_namespace, replicas=settings.expected_api_replicas)
    finally:
        await redis.aclose()
        await pool.disconnect()


def _key(charge: Charge) -> tuple[str, str]:
    return charge.policy.name, charge.subject


def _standing(charge: Charge, backlog: int, *, is_charged: bool) -> Standing:
    policy = charge.policy
    lacking = 0 if is_charged else backlog + policy.interval * (charge.cost - policy.limit)
    return Standing(
        policy,
        remaining=(policy.interval * policy.limit - backlog) // policy.interval,
        reset_seconds=math.ceil(backlog / _MICROSECONDS),
        retry_after_seconds=max(0, math.ceil(lacking / _MICROSECONDS)),
    )
