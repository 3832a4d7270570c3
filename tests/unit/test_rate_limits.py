"""Buckets against a plain model, in Redis and in memory; whose clock counts; what happens while Redis is away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from adapters.rate_limits import (
    AWAY_SECONDS,
    BUDGET_SECONDS,
    MISSES_UNTIL_AWAY,
    Charge,
    Limiter,
    LocalBuckets,
    Policy,
    Standing,
)
from tests.harness.relay import Relay
from tests.harness.waiting import eventually

INTERVAL_SECONDS = 2_000
"""Long against the time that a test takes, so that only the test lets time pass."""

POLICIES = [Policy("few", 3, 3 * INTERVAL_SECONDS), Policy("more", 10, 10 * INTERVAL_SECONDS)]
GENEROUS_SECONDS = 5.0
"""The budget where a busy machine must not count as an outage."""


class Model:
    """A bucket as people think of it: it holds so many, and a time interval brings one back."""

    def __init__(self, policy: Policy) -> None:
        self.limit = policy.limit
        self.level = Fraction(policy.limit)

    def advance(self, half_intervals: int) -> None:
        self.level = min(Fraction(self.limit), self.level + Fraction(half_intervals, 2))

    def has(self, cost: int) -> bool:
        return cost <= 0 or self.level >= cost

    def pay(self, cost: int) -> None:
        self.level = min(Fraction(self.limit), self.level - cost)


BUCKETS = [(policy, subject) for policy in POLICIES for subject in ("ada", "bob")]
CALLS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.dictionaries(st.integers(0, len(BUCKETS) - 1), st.integers(-2, 11), min_size=1, max_size=3),
    ),
    max_size=25,
)


def expected(models: list[Model], costs: dict[int, int]) -> tuple[bool, list[int]]:
    """Whether a call is let through, and what is left in its buckets."""
    fits = all(models[index].has(cost) for index, cost in costs.items())
    if fits:
        for index, cost in costs.items():
            models[index].pay(cost)
    return fits, [int(models[index].level) for index in costs]


@given(CALLS)
@settings(max_examples=200)
def test_buckets_in_memory_are_the_model(calls: list[tuple[int, dict[int, int]]]) -> None:
    buckets, now = LocalBuckets(), 0
    models = [Model(policy) for policy, _ in BUCKETS]
    for half_intervals, costs in calls:
        now += half_intervals * INTERVAL_SECONDS * 500_000
        for model in models:
            model.advance(half_intervals)
        charges = [Charge(*BUCKETS[index], cost) for index, cost in costs.items()]
        fits, *backlogs = buckets.take(charges, now=now)
        left = [
            (charge.policy.interval * charge.policy.limit - backlog) // charge.policy.interval
            for charge, backlog in zip(charges, backlogs, strict=True)
        ]
        assert (bool(fits), left) == expected(models, costs)


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A connection to the session's Redis."""
    client: Redis = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def namespace() -> str:
    return f"limits-{secrets.token_hex(6)}"


def limiter(redis: Redis, namespace: str, **options: Any) -> Limiter:
    return Limiter(redis, namespace, **{"budget_seconds": GENEROUS_SECONDS, **options})


async def keys_of(redis: Redis, namespace: str) -> list[bytes]:
    return [key async for key in redis.scan_iter(f"{namespace}:*", count=1_000)]


def refused(standings: tuple[Standing, ...]) -> bool:
    return any(standing.retry_after_seconds for standing in standings)


@given(CALLS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_buckets_in_redis_are_the_model(redis: Redis, calls: list[tuple[int, dict[int, int]]]) -> None:
    namespace = f"limits-{secrets.token_hex(6)}"
    counted = limiter(redis, namespace)
    models = [Model(policy) for policy, _ in BUCKETS]
    for half_intervals, costs in calls:
        for model in models:
            model.advance(half_intervals)
        for policy, subject in BUCKETS if half_intervals else ():  # time passes: what is due comes nearer
            key = f"{namespace}:limit:{policy.name}:{subject}"
            if (due := await redis.get(key)) is not None:
                await redis.set(key, int(due) - half_intervals * INTERVAL_SECONDS * 500_000, keepttl=True)
        standings = await counted.take([Charge(*BUCKETS[index], cost) for index, cost in costs.items()])
        assert (not refused(standings), [standing.remaining for standing in standings]) == expected(models, costs)


async def test_a_refused_call_charges_none_of_its_buckets(redis: Redis, namespace: str) -> None:
    counted = limiter(redis, namespace)
    few, more = (Charge(policy, "ada") for policy in POLICIES)
    for _ in range(3):
        await counted.take([few, more])
    standings = await counted.take([few, more])
    assert [standing.remaining for standing in standings] == [0, 7]
    assert [standing.retry_after_seconds for standing in standings] == [INTERVAL_SECONDS, 0]


async def test_what_is_asked_for_more_than_a_bucket_holds_is_refused_and_says_when_it_is_full(
    redis: Redis, namespace: str
) -> None:
    (standing,) = await limiter(redis, namespace).take([Charge(POLICIES[0], "ada", 4)])
    assert (standing.remaining, standing.retry_after_seconds) == (3, INTERVAL_SECONDS)


async def test_the_wait_that_is_named_is_enough(redis: Redis, namespace: str) -> None:
    counted, quick = limiter(redis, namespace), Charge(Policy("quick", 10, 1), "ada")
    while not refused(standings := await counted.take([quick])):
        pass
    told = time.monotonic()

    async def let_through() -> bool:
        return not refused(await counted.take([quick]))

    await eventually(let_through, standings[0].retry_after_seconds)
    assert time.monotonic() - told > 0.05


async def test_all_parallel_calls_of_two_processes_together_get_what_there_is(redis: Redis, namespace: str) -> None:
    processes = [limiter(redis, namespace), limiter(redis, namespace)]
    charge = Charge(POLICIES[1], "ada")
    answers = await asyncio.gather(*(processes[number % 2].take([charge]) for number in range(40)))
    assert sum(not refused(answer) for answer in answers) == 10


async def test_the_clock_of_a_process_does_not_matter(redis: Redis, namespace: str) -> None:
    charge = Charge(POLICIES[0], "ada")
    for clock in (0.0, 10.0**9, -(10.0**6)):
        await limiter(redis, namespace, clock=lambda at=clock: at).take([charge])
    assert refused(await limiter(redis, namespace).take([charge]))


async def test_a_bucket_that_lies_in_the_future_is_empty_and_no_worse(redis: Redis, namespace: str) -> None:
    """Redis was moved to a machine whose clock is behind, or the limit was made smaller."""
    await redis.set(f"{namespace}:limit:few:ada", 2**52)
    (standing,) = await limiter(redis, namespace).take([Charge(POLICIES[0], "ada")])
    assert (standing.remaining, standing.retry_after_seconds) == (0, INTERVAL_SECONDS)


async def test_a_bucket_is_one_small_key_that_goes_when_it_is_full(redis: Redis, namespace: str) -> None:
    counted, charge = limiter(redis, namespace), Charge(Policy("auth", 5, 60), "a" * 32)
    await counted.take([charge])
    (key,) = await keys_of(redis, namespace)
    assert await redis.memory_usage(key) - len(key) <= 48
    assert 0 < await redis.pttl(key) <= 12_000
    await counted.give_back([charge])
    assert await keys_of(redis, namespace) == []


async def test_a_redis_that_forgot_the_script_learns_it_again(redis: Redis, namespace: str) -> None:
    counted, charge = limiter(redis, namespace), Charge(POLICIES[0], "ada")
    for _ in range(3):
        await redis.script_flush()
        assert not refused(await counted.take([charge]))
    assert refused(await counted.take([charge]))


# -- Redis is away


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def behind(relay: Relay) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(relay.url, retry=Retry(NoBackoff(), 0))
    yield client
    await client.aclose()


async def test_a_silent_redis_costs_its_budget_at_most_and_lets_nothing_through_uncounted(
    redis_url: str, namespace: str
) -> None:
    clock, charge = Clock(), Charge(POLICIES[0], "ada")
    async with Relay(redis_url) as relay, behind(relay) as client:
        counted = limiter(client, namespace, budget_seconds=BUDGET_SECONDS, clock=clock)
        relay.silence()
        started = time.monotonic()
        answers = [refused(await counted.take([charge])) for _ in range(40)]
        seconds = time.monotonic() - started
        assert answers == [False] * 3 + [True] * 37
        assert seconds < MISSES_UNTIL_AWAY * BUDGET_SECONDS + 1
        assert counted.is_away


async def test_a_redis_that_is_away_is_asked_once_a_second_and_by_one(redis_url: str, namespace: str) -> None:
    clock, charge = Clock(), Charge(POLICIES[1], "ada")
    async with Relay(redis_url) as relay, behind(relay) as client:
        counted = limiter(client, namespace, budget_seconds=BUDGET_SECONDS, clock=clock)
        relay.silence()
        for _ in range(MISSES_UNTIL_AWAY):
            await counted.take([charge])
        asked = relay.requests
        await asyncio.gather(*(counted.take([charge]) for _ in range(20)))
        assert relay.requests == asked
        clock.now += AWAY_SECONDS
        counted._budget_seconds = 0.5
        calls = [asyncio.create_task(counted.take([charge])) for _ in range(20)]
        done, waiting = await asyncio.wait(calls, timeout=0.25)
        assert (len(done), len(waiting)) == (19, 1)
        await asyncio.wait(waiting)
        relay.speak()
        clock.now += AWAY_SECONDS
        counted._budget_seconds = GENEROUS_SECONDS
        (standing,) = await counted.take([charge])
        assert (standing.remaining, counted.is_away) == (9, False)  # Redis was told nothing meanwhile


async def test_an_outage_begins_with_what_was_spent_before_it(redis_url: str, namespace: str) -> None:
    charge = Charge(POLICIES[0], "ada")
    async with Relay(redis_url) as relay, behind(relay) as client:
        counted = limiter(client, namespace)
        for _ in range(3):
            assert not refused(await counted.take([charge]))
        relay.silence()
        counted._budget_seconds = BUDGET_SECONDS
        assert refused(await counted.take([charge]))
        assert not refused(await counted.take([Charge(POLICIES[0], "bob")]))


@pytest.mark.parametrize(("replicas", "let_through"), [(1, 10), (2, 5), (3, 3), (40, 1)])
async def test_without_redis_each_process_has_its_part(replicas: int, let_through: int) -> None:
    nowhere: Redis = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    counted = Limiter(nowhere, "limits", replicas=replicas, budget_seconds=GENEROUS_SECONDS)
    answers = [refused(await counted.take([Charge(POLICIES[1], "ada")])) for _ in range(12)]
    assert answers.count(False) == let_through
    assert not refused(await counted.take([Charge(POLICIES[1], "bob", 10)]))  # not more than there can be
    await nowhere.aclose()


def test_memory_is_bounded_and_the_bucket_used_longest_ago_makes_room() -> None:
    buckets = LocalBuckets(size=3)
    for subject in ("ada", "bob", "cyd", "ada", "dan"):
        buckets.take([Charge(POLICIES[0], subject)], now=0)
    left = {
        subject: buckets.take([Charge(POLICIES[0], subject, 3)], now=0)[0] for subject in ("ada", "cyd", "dan", "bob")
    }
    assert left == {"ada": 0, "cyd": 0, "dan": 0, "bob": 1}
