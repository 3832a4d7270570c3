"""The breaker with Redis, shared by processes, and in memory where Redis is away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from adapters.circuit_breaker import BreakerOpen, CircuitBreaker, Rules
from tests.harness.waiting import eventually

RULES = Rules(failures=3, open_seconds=0.3, trial_seconds=5)


class Down(Exception):
    """The service failed."""


class Refused(Exception):
    """The service answered no."""


async def call(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    async with breaker.call(failures=Down, answers=Refused):
        if error is not None:
            raise error


async def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Down):
            await call(breaker, Down())


def away() -> Redis:
    redis: Redis = Redis.from_url("redis://127.0.0.1:1/0")
    return redis


async def goes(make: Callable[[], Awaitable[None]]) -> bool:
    try:
        await make()
    except BreakerOpen:
        return False
    return True


async def test_processes_share_what_they_know(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        space = secrets.token_hex(6)
        one, other = (CircuitBreaker("x", RULES, redis=lambda: redis, namespace=space) for _ in range(2))
        await fail(one, 2)
        await fail(other, 1)
        for breaker in (one, other):
            with pytest.raises(BreakerOpen) as left:
                await call(breaker)
            assert 0 < left.value.retry_after_seconds <= RULES.open_seconds
        await eventually(lambda: goes(lambda: call(other)), 3)
        await call(one)


@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_trial_is_one_call_and_decides(redis_url: str, is_shared: bool) -> None:
    async with Redis.from_url(redis_url) as redis:
        breaker = CircuitBreaker(
            "x", RULES, redis=(lambda: redis) if is_shared else away, namespace=secrets.token_hex(6)
        )
        await fail(breaker, RULES.failures)
        assert not await goes(lambda: call(breaker))
        release = asyncio.Event()

        async def trial() -> None:
            async with breaker.call(failures=Down, answers=Refused):
                await release.wait()
                raise Down

        async def tried() -> asyncio.Task[None] | None:
            task = asyncio.create_task(trial())
            await asyncio.wait({task}, timeout=0.1)
            if task.done():
                assert isinstance(task.exception(), BreakerOpen)
                return None
            return task

        task = await eventually(tried, 3)
        assert not await goes(lambda: call(breaker)), "one at a time"
        release.set()
        with pytest.raises(Down):
            await task
        assert not await goes(lambda: call(breaker)), "open again"
        await eventually(lambda: goes(lambda: call(breaker)), 3)
        await fail(breaker, RULES.failures - 1)
        await call(breaker)


@pytest.mark.parametrize("is_shared", [True, False])
async def test_only_failures_in_a_row_count(redis_url: str, is_shared: bool) -> None:
    async with Redis.from_url(redis_url) as redis:
        breaker = CircuitBreaker(
            "x", RULES, redis=(lambda: redis) if is_shared else away, namespace=secrets.token_hex(6)
        )
        for _ in range(3):
            await fail(breaker, RULES.failures - 1)
            with pytest.raises(Refused):
                await call(breaker, Refused())
        await fail(breaker, RULES.failures - 1)
        with pytest.raises(KeyError):
            await call(breaker, KeyError())
        with pytest.raises(asyncio.CancelledError):
            await call(breaker, asyncio.CancelledError())
        await fail(breaker, 1)
        assert not await goes(lambda: call(breaker)), "what says nothing is no success either"


async def test_a_trial_that_is_broken_off_gives_its_place_up(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        breaker = CircuitBreaker("x", RULES, redis=lambda: redis, namespace=secrets.token_hex(6))
        await fail(breaker, RULES.failures)

        async def broken_off() -> bool:
            try:
                await call(breaker, asyncio.CancelledError())
            except BreakerOpen:
                return False
            except asyncio.CancelledError:
                return True
            return False

        await eventually(broken_off, 3)
        await call(breaker)
