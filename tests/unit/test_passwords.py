"""Password hashing: off the loop, bounded, and the same work whether or not an account exists."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import pytest

from adapters import passwords
from adapters.passwords import MAX_PASSWORD_BYTES, MAX_WAITING, PasswordHasher
from errors import ServiceUnavailable
from settings import Settings, load

REAL_MEMORY_KIB = 47_104
QUEUE_MEMORY_KIB = 8_192  # slow enough to fill the queue


def a_settings(*, memory_kib: int = 8, concurrency: int = 2) -> Settings:
    return load(
        database_url="postgres://unused",
        redis_url="redis://unused",
        secret_keys="test:" + "A" * 43 + "=",
        argon2_memory_kib=memory_kib,
        argon2_concurrency=concurrency,
    )


@contextmanager
def a_hasher(*, memory_kib: int = 8, concurrency: int = 2) -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(a_settings(memory_kib=memory_kib, concurrency=concurrency))
    try:
        yield hasher
    finally:
        hasher.close()


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    with a_hasher() as opened:
        yield opened


async def worst_lag_seconds(until: asyncio.Event) -> float:
    """The longest time that the loop kept a ready task waiting."""
    worst = 0.0
    while not until.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - before)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await until.wait()
    return worst


async def test_a_wrong_password_does_not_match(hasher: PasswordHasher) -> None:
    encoded = await hasher.hash("one good password")
    assert not await hasher.verify(encoded, "another good password")
    assert not await hasher.verify(encoded, "")
    assert await hasher.verify(encoded, "one good password")


async def test_every_byte_of_a_long_password_counts(hasher: PasswordHasher) -> None:
    longest = "x" * MAX_PASSWORD_BYTES
    encoded = await hasher.hash(longest)
    assert not await hasher.verify(encoded, longest[:-1] + "y")
    assert await hasher.verify(encoded, longest)


async def test_composed_and_decomposed_accents_are_the_same_password(hasher: PasswordHasher) -> None:
    encoded = await hasher.hash("contrase\u00f1a larga")
    assert await hasher.verify(encoded, "contrasen\u0303a larga")


async def test_equal_passwords_have_different_hashes(hasher: PasswordHasher) -> None:
    assert await hasher.hash("one good password") != await hasher.hash("one good password")


async def test_hashes_are_argon2id_with_one_pass_over_the_set_memory(hasher: PasswordHasher) -> None:
    assert (await hasher.hash("one good password")).startswith("$argon2id$v=19$m=8,t=1,p=1$")


async def test_a_hash_with_other_parameters_is_to_be_renewed(hasher: PasswordHasher) -> None:
    encoded = await hasher.hash("one good password")
    with a_hasher(memory_kib=16) as stronger:
        assert stronger.needs_rehash(encoded)
        assert await stronger.verify(encoded, "one good password")
    assert not hasher.needs_rehash(encoded)


async def test_when_too_many_wait_the_next_is_told_to_come_back() -> None:
    with a_hasher(memory_kib=QUEUE_MEMORY_KIB, concurrency=1) as slow:
        answers = await asyncio.gather(
            *(slow.hash("one good password") for _ in range(1 + MAX_WAITING + 5)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, ServiceUnavailable)]
        assert len(refused) == 5
        assert refused[0].extensions["details"] == {"retryAfterSeconds": 2}
        assert await slow.hash("one good password"), "places are free again"


async def test_callers_that_leave_give_their_places_back() -> None:
    with a_hasher(memory_kib=QUEUE_MEMORY_KIB, concurrency=1) as slow:
        gone = [asyncio.create_task(slow.hash("one good password")) for _ in range(1 + MAX_WAITING)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        async with asyncio.timeout(5):
            # All but the place of the hash that was being computed are free at once.
            await asyncio.gather(*(slow.hash("one good password") for _ in range(MAX_WAITING)))


async def test_an_unknown_account_costs_what_a_wrong_password_costs() -> None:
    with a_hasher(memory_kib=16 * 1_024, concurrency=1) as real:
        encoded = await real.hash("one good password")
        wrong: list[float] = []
        unknown: list[float] = []
        for _ in range(15):
            start = time.perf_counter()
            await real.verify(encoded, "another good password")
            wrong.append(time.perf_counter() - start)
            start = time.perf_counter()
            await real.verify_nothing("another good password")
            unknown.append(time.perf_counter() - start)
    assert 0.6 < statistics.median(unknown) / statistics.median(wrong) < 1.7


@pytest.mark.slow
async def test_the_loop_stays_responsive_while_sixty_logins_arrive_at_once() -> None:
    with a_hasher(memory_kib=REAL_MEMORY_KIB) as real:
        encoded = await real.hash("one good password")
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            lag = tasks.create_task(worst_lag_seconds(is_over))
            answers = await asyncio.gather(
                *(real.verify(encoded, "another good password") for _ in range(60)), return_exceptions=True
            )
            is_over.set()
    assert answers.count(False) == 2 + MAX_WAITING
    assert all(answer is False or isinstance(answer, ServiceUnavailable) for answer in answers)
    assert lag.result() < 0.1


@pytest.mark.parametrize("password", ["p" * 1_025, "é" * 513, "\ufdfa" * 60, "lone \ud800 surrogate"])
def test_a_password_beyond_the_limit_does_not_fit(password: str) -> None:
    assert not passwords.fits(password)


@pytest.mark.parametrize("password", ["p" * 1_024, "é" * 512, "with spaces and ñ"])
def test_a_password_within_the_limit_fits(password: str) -> None:
    assert passwords.fits(password)


@pytest.mark.parametrize("password", ["password", "PassWord", "12345678", "qwertyuiop", "ｐａｓｓｗｏｒｄ"])
def test_common_passwords_are_known_whatever_their_case(password: str) -> None:
    assert passwords.is_common(password)


def test_a_sentence_that_holds_a_common_password_is_not_common() -> None:
    assert not passwords.is_common("my password is not on the list")


def test_the_list_is_long_enough_and_holds_nothing_that_is_too_short_anyway() -> None:
    words = passwords._COMMON_PASSWORDS.read_text(encoding="utf-8").split("\n")[:-1]
    assert len(words) >= 3_000
    assert len(set(words)) == len(words)
    assert min(map(len, words)) >= 8
