"""What `switchyard doctor` looks at: whether this machine and these settings can run the service.

Each check answers with one finding: fine, or what is wrong and what to do about it. Checks leave nothing but the data
folder behind, and no finding shows a password.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.embedded import EmbeddedError, postgres_server, redis_server
from adapters.ocr import languages
from adapters.sandbox import open_runner
from adapters.sandbox.contract import RunnerUnavailable
from adapters.storage import open_storage
from errors import SwitchyardError
from models import sealed
from settings import Settings

ANSWER_SECONDS = 5
PROBE_SECONDS = 60
OLDEST_POSTGRES = 150_000  # server_version_num
OLDEST_REDIS = (6, 2)
PROBE_KEY = "doctor/probe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` says what to do when it is not `ok`."""

    subject: str
    ok: bool
    detail: str
    advice: str = ""


async def examine(settings: Settings, *, own_postgres: bool, own_redis: bool) -> AsyncIterator[Finding]:
    """Look at everything but the settings themselves; `own_…` means that no server is named and ours would run."""
    yield check_python()
    yield check_data_folder(settings.data_dir)
    yield check_postgres_programs() if own_postgres else await check_postgres(settings)
    if not own_postgres:
        yield await check_secrets(settings)
    yield check_redis_programs() if own_redis else await check_redis(settings)
    yield await check_storage(settings)
    yield await check_builds(settings)
    yield check_documents(settings)


def check_python() -> Finding:
    """A version that the tests run on."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 15):
        return Finding("Python", True, version)
    return Finding("Python", False, version, "install Python 3.11, 3.12, 3.13 or 3.14 and run make again")


def check_data_folder(folder: Path) -> Finding:
    """The folder, or the nearest parent that exists, can be written."""
    resolved = folder.resolve()
    nearest = next(parent for parent in (resolved, *resolved.parents) if parent.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding("Data folder", True, str(resolved))
    return Finding("Data folder", False, f"{nearest} cannot be written", "set DATA_DIR to a folder of yours")


def check_postgres_programs() -> Finding:
    """Programs for a PostgreSQL of our own exist."""
    try:
        found = postgres_server.find_installation()
    except EmbeddedError as error:
        return Finding("PostgreSQL", False, str(error), "install PostgreSQL or set DATABASE_URL")
    return Finding("PostgreSQL", True, f"embedded, {found.program}")


def check_redis_programs() -> Finding:
    """The program for a Redis of our own exists."""
    try:
        found = redis_server.find_installation()
    except EmbeddedError as error:
        return Finding("Redis", False, str(error), "install Redis or Valkey or set REDIS_URL")
    return Finding("Redis", True, f"embedded, {found.program}")


async def check_postgres(settings: Settings) -> Finding:
    """DATABASE_URL answers, with a version that is supported."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await asyncpg.connect(settings.database_url.get_secret_value())
            try:
                number = int(await connection.fetchval("SHOW server_version_num"))
            finally:
                connection.terminate()
    except TimeoutError:
        return Finding("PostgreSQL", False, "no answer", "check DATABASE_URL and that the server runs")
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Finding("PostgreSQL", False, _without_passwords(error), "check DATABASE_URL and that the server runs")
    version = f"{number // 10_000}.{number % 10_000}"
    if number < OLDEST_POSTGRES:
        return Finding("PostgreSQL", False, version, "upgrade the server to PostgreSQL 15 or newer")
    return Finding("PostgreSQL", True, version)


async def check_secrets(settings: Settings) -> Finding:
    """Every sealed value of the database opens with a key of SECRET_KEYS, best with the first."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await asyncpg.connect(settings.database_url.get_secret_value())
            try:
                counts = await sealed.count_by_key(connection)
            finally:
                connection.terminate()
    except (TimeoutError, OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return Finding("Secrets", False, "cannot be counted", "make the database answer first")
    by_key: Counter[str | None] = Counter()
    for count in counts:
        by_key[count.kid] += count.values
    shown = ", ".join(f"{number:,} with {kid or 'no key'}" for kid, number in by_key.items()) or "none yet"
    if lost := [kid for kid in by_key if kid not in settings.keyring]:
        names = ", ".join(kid or "no key" for kid in lost)
        return Finding("Secrets", False, shown, f"put back into SECRET_KEYS: {names}")
    if set(by_key) - {next(iter(settings.keyring))}:
        return Finding("Secrets", True, f"{shown}; `switchyard rotate-keys` moves all to the newest key")
    return Finding("Secrets", True, shown)


async def check_redis(settings: Settings) -> Finding:
    """REDIS_URL answers, with a version that is supported, and evicts nothing."""
    try:
        client = Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=ANSWER_SECONDS)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                information = await client.info()
        finally:
            await client.aclose()
    except TimeoutError:
        return Finding("Redis", False, "no answer", "check REDIS_URL and that the server runs")
    except (OSError, ValueError, RedisError) as error:
        return Finding("Redis", False, _without_passwords(error), "check REDIS_URL and that the server runs")
    version = str(information.get("valkey_version") or information["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return Finding("Redis", False, version, "upgrade to Redis 6.2 or newer, or to Valkey")
    policy = information.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding("Redis", False, f"{version}, {policy}", "set maxmemory-policy to noeviction: keys are promises")
    return Finding("Redis", True, version)


async def check_storage(settings: Settings) -> Finding:
    """An object can be written and removed."""
    place = str(settings.data_dir) if settings.storage_backend == "local" else f"bucket {settings.s3_bucket}"
    try:
        async with asyncio.timeout(4 * ANSWER_SECONDS), open_storage(settings) as storage:
            await storage.put(PROBE_KEY, b"probe", content_type="text/plain")
            await storage.delete([PROBE_KEY])
    except TimeoutError:
        return Finding("Storage", False, f"{place}: no answer", "check the S3_ settings")
    except (OSError, SwitchyardError) as error:
        return Finding("Storage", False, f"{place}: {error}", "check STORAGE_BACKEND, DATA_DIR and the S3_ settings")
    return Finding("Storage", True, f"{settings.storage_backend}, {place}")


async def check_builds(settings: Settings) -> Finding:
    """The configured runner isolates a real, small build."""
    if settings.worker_build_slots == 0:
        return Finding("Builds", True, "none on this machine")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            found = await open_runner(settings).probe()
    except TimeoutError:
        return Finding(
            "Builds", False, f"{settings.build_runner}: no answer", "builds will be refused until it answers"
        )
    except RunnerUnavailable as error:
        return Finding("Builds", False, str(error), "builds will be refused until this is done")
    return Finding("Builds", True, f"{found.runner}: {found.detail}")


def check_documents(settings: Settings) -> Finding:
    """Text can be recognised, in the languages that documents are taken to have."""
    if settings.worker_ocr_slots == 0:
        return Finding("Documents", True, "none are read on this machine")
    present = languages.installed(settings)
    if not languages.has_engine() or not present:
        lack = "no language data" if languages.has_engine() else "no Tesseract"
        advice = "install tesserocr or the program tesseract, and tesseract-ocr-eng; text layers are read without"
        return Finding("Documents", False, lack, advice)
    missing = [language for language in settings.ocr_languages if language not in present]
    told = f"languages: {', '.join(present)}"
    return Finding("Documents", True, told + (f"; not installed: {', '.join(missing)}" if missing else ""))


def _without_passwords(error: BaseException) -> str:
    """The error's text with the password of any URL in it removed, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(?<=://)([^:/@\s]*):[^@\s]*@", r"\1:***@", text)
