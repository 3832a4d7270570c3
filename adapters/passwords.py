"""Password hashes: argon2id in threads of its own, and the list of the commonest passwords.

Invariants: no hash is ever computed on the event loop; at most `argon2_concurrency` run at once, so memory and
processors stay bounded; at most twenty wait, and whoever comes then is told to try again. One pass over 46 MiB
with one lane is what OWASP's password storage cheat sheet counts as equal to its other choices. Whether a
password is good enough for an account is decided in `resolvers/users.py`.
"""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from errors import ServiceUnavailable
from settings import Settings

MAX_PASSWORD_BYTES: Final = 1_024
MAX_WAITING: Final = 20
WAIT_TIMEOUT_SECONDS: Final = 10.0
RETRY_AFTER_SECONDS: Final = 2

_COMMON_PASSWORDS: Final = Path(__file__).with_name("common_passwords.txt")

Answer = TypeVar("Answer")


class PasswordHasher:
    """Hashes and verifies passwords; every method may raise ServiceUnavailable when too many wait."""

    def __init__(self, settings: Settings) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=1, memory_cost=settings.argon2_memory_kib, parallelism=1, hash_len=32, salt_len=16
        )
        self._threads = ThreadPoolExecutor(settings.argon2_concurrency, thread_name_prefix="argon2")
        self._places = settings.argon2_concurrency + MAX_WAITING
        self._taken = 0
        self._lock = threading.Lock()

    async def hash(self, password: str) -> str:
        """The encoded hash of a new password, with a salt of its own."""
        return await self._run(lambda: self._argon2.hash(_normal(password)))

    async def verify(self, encoded_hash: str, password: str) -> bool:
        """Whether a password is the one behind a hash."""
        return await self._run(lambda: self._matches(encoded_hash, password))

    async def verify_nothing(self, password: str) -> None:
        """Cost what `verify` costs, for an account that does not exist.

        A fresh hash is the same one pass over the same memory, with the parameters of today.
        """
        await self.hash(password)

    def needs_rehash(self, encoded_hash: str) -> bool:
        """Whether a hash was made with other parameters than those of today."""
        return self._argon2.check_needs_rehash(encoded_hash)

    def close(self) -> None:
        """Give the threads back; those who still wait for a hash are cancelled."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _matches(self, encoded_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(encoded_hash, _normal(password))
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        with self._lock:
            if self._taken >= self._places:
                raise _busy()
            self._taken += 1
        future = self._threads.submit(work)
        # A place is free when the thread is, not when the caller leaves: otherwise clients that hang up at once
        # could fill the queue without end.
        future.add_done_callback(self._release_place)
        try:
            async with asyncio.timeout(WAIT_TIMEOUT_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise _busy() from None

    def _release_place(self, _: Future[Answer]) -> None:
        with self._lock:
            self._taken -= 1


def fits(password: str) -> bool:
    """Whether a password is text of at most 1,024 bytes, as typed and as hashed; it is never cut."""
    try:
        return max(len(password.encode()), len(_normal(password))) <= MAX_PASSWORD_BYTES
    except UnicodeEncodeError:
        return False


def is_common(password: str) -> bool:
    """Whether a password, as a whole and whatever its case, is on the list of the commonest ones."""
    return unicodedata.normalize("NFKC", password).casefold() in _common_passwords()


@cache
def _common_passwords() -> frozenset[str]:
    return frozenset(_COMMON_PASSWORDS.read_text(encoding="utf-8").split())


def _normal(password: str) -> bytes:
    """One form for what different keyboards send for the same keys (NIST SP 800-63B-4, §3.1.1.2)."""
    return unicodedata.normalize("NFKC", password).encode()


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable(
        "Too many people sign in at this moment; try again shortly.", retryAfterSeconds=RETRY_AFTER_SECONDS
    )
