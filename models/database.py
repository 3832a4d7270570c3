"""The database: one pool per process, plain rows for reading, one place where its failures get a name.

Reads return plain rows, because hydrating model instances costs ten times the query. A bounded gate stands
before the pool, so that an overload becomes SERVICE_UNAVAILABLE after two seconds and not an endless wait.
Every connection has its own time limits; the heartbeat of a worker has a connection of its own and is not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import asyncpg
import orjson
from tortoise import Tortoise
from tortoise.connection import get_connection
from tortoise.exceptions import DBConnectionError
from tortoise.migrations.api import migrate as run_migrations

from errors import ServiceUnavailable
from models import baseline
from settings import Settings

Row = dict[str, Any]

COMMAND_TIMEOUT_SECONDS: Final = 15.0
GATE_TIMEOUT_SECONDS: Final = 2.0
_MIGRATION_LOCK: Final = 7_240_311_501  # any number, the same in every process
SERVER_SETTINGS: Final = {
    "application_name": "switchyard",
    "timezone": "UTC",
    "statement_timeout": "12000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "30000",
    # How alike words must be for a search to take one for the other: swapped letters in a word of eight are, 0.385.
    "pg_trgm.word_similarity_threshold": "0.37",
    # How alike whole names must be for a candidate to be taken for a product (`models/candidate_queries.py`).
    "pg_trgm.similarity_threshold": "0.6",
}

_gate: asyncio.Semaphore | None = None
in_unit_of_work: ContextVar[bool] = ContextVar("in_unit_of_work", default=False)


def tortoise_config(
    database_url: str, *, pool_size: int = 5, server_settings: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The Tortoise configuration: one connection, one app `models`, its migrations beside the models."""
    parts = urlsplit(database_url)
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {
                    **_credentials(database_url),
                    "minsize": 1,
                    "maxsize": pool_size,
                    "command_timeout": COMMAND_TIMEOUT_SECONDS,
                    "server_settings": {**SERVER_SETTINGS, **server_settings},
                    **({"ssl": "require"} if "sslmode=require" in parts.query else {}),
                },
            }
        },
        "apps": {
            "models": {
                "models": ["models"],
                "default_connection": "default",
                "migrations": "models.migrations",
            }
        },
        "use_tz": True,
        "timezone": "UTC",
    }


@asynccontextmanager
async def connected(
    settings: Settings, *, pool_size: int | None = None, server_settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Open the pool for the life of the process; raises ServiceUnavailable when PostgreSQL does not answer.

    `server_settings` are put over those of all connections.
    """
    global _gate
    size = pool_size or settings.database_pool_size
    url = settings.database_url.get_secret_value()
    with database_errors():
        await Tortoise.init(
            config=tortoise_config(url, pool_size=size, server_settings=server_settings),
            _enable_global_fallback=True,
        )
        await rows("SELECT 1")
    _gate = asyncio.Semaphore(size)
    try:
        yield
    finally:
        _gate = None
        await Tortoise.close_connections()


async def connect_alone(settings: Settings, *, command_timeout_seconds: float) -> asyncpg.Connection:
    """A connection outside the pool, for those who must not wait for it."""
    connection = await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=command_timeout_seconds,
        command_timeout=command_timeout_seconds,
        server_settings={**SERVER_SETTINGS, "application_name": "switchyard-lease"},
    )
    return connection


async def rows(sql: str, *values: Any) -> list[Row]:
    """Run one statement and return its rows; inside a unit of work on its connection, else on a free one."""
    if _gate is None or in_unit_of_work.get():
        return await get_connection("default").execute_query_dict(sql, list(values))
    async with gate():
        return await get_connection("default").execute_query_dict(sql, list(values))


async def row(sql: str, *values: Any) -> Row | None:
    """The first row of a statement, or None."""
    found = await rows(sql, *values)
    return found[0] if found else None


async def value(sql: str, *values: Any) -> Any:
    """The first column of the first row, or None."""
    found = await rows(sql, *values)
    return next(iter(found[0].values())) if found else None


@asynccontextmanager
async def gate() -> AsyncIterator[None]:
    """Wait for a place before the pool, at most two seconds; raises ServiceUnavailable after that."""
    if _gate is None:
        yield
        return
    try:
        async with asyncio.timeout(GATE_TIMEOUT_SECONDS):
            await _gate.acquire()
    except TimeoutError:
        raise ServiceUnavailable("The database is busy; try again in a moment.", retryAfterSeconds=2) from None
    try:
        yield
    finally:
        _gate.release()


class database_errors:
    """Turn the driver's connection and timeout errors into ServiceUnavailable; let all others pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and is_outage(error):
            raise ServiceUnavailable("The database does not answer; try again in a moment.") from error


def pool_state() -> tuple[int, int, int, int]:
    """The pool of this process: connections that are open, those in use, the limit, and callers that wait."""
    if _gate is None:
        return 0, 0, 0, 0
    pool: asyncpg.Pool | None = getattr(get_connection("default"), "_pool", None)
    waiting = sum(1 for waiter in getattr(_gate, "_waiters", None) or () if not waiter.done())
    return (0, 0, 0, waiting) if pool is None else (*state_of(pool), waiting)


def state_of(pool: asyncpg.Pool) -> tuple[int, int, int]:
    """Connections of a pool that are open, those in use, and the limit."""
    size = pool.get_size()
    return size, size - pool.get_idle_size(), pool.get_max_size()


def is_outage(error: BaseException) -> bool:
    """Whether an error says that PostgreSQL is away, restarting or too slow, and the same call may work later."""
    return isinstance(
        error,
        (
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.QueryCanceledError,
            asyncpg.LockNotAvailableError,
            asyncpg.TooManyConnectionsError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            DBConnectionError,
            ConnectionError,
            TimeoutError,
            OSError,
        ),
    )


async def migrate(database_url: str, *, target: str | None = None) -> list[str]:
    """Bring the schema up to date, or on to one migration, and return the names of the migrations applied now.

    A database that has none gets the baseline first, unless an older schema is wanted. Replicas that start together
    wait for each other on an advisory lock.
    """
    wanted = set(known_migrations()) if target is None else {name for name in known_migrations() if name <= target}
    lock = await asyncpg.connect(database_url)
    try:
        await lock.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        before = await _applied(lock)
        if not before and baseline.last_migration() in wanted and await baseline.fits(lock):
            await baseline.load(lock)
        if not wanted <= await _applied(lock):
            await run_migrations(
                config=tortoise_config(database_url), target=target and f"models.{target}", direction="forward"
            )
            await Tortoise.close_connections()
        return sorted(await _applied(lock) - before)
    finally:
        await lock.close()


def known_migrations() -> list[str]:
    """Every migration that this version has, oldest first."""
    return sorted(path.stem for path in (Path(__file__).parent / "migrations").glob("[0-9]*.py"))


async def _applied(connection: asyncpg.Connection) -> set[str]:
    if await connection.fetchval("SELECT to_regclass('tortoise_migrations')") is None:
        return set()
    return {record["name"] for record in await connection.fetch("SELECT name FROM tortoise_migrations")}


def to_json(data: Any) -> str:
    """JSON text for a jsonb parameter."""
    # default=str: the driver's UUIDs are a subclass, which orjson does not take.
    return orjson.dumps(data, default=str).decode()


def from_json(text: str | None) -> Any:
    """What a jsonb column holds: asyncpg hands it over as text."""
    return None if text is None else orjson.loads(text)


def _credentials(database_url: str) -> dict[str, Any]:
    parts = urlsplit(database_url)
    return {
        "host": unquote(parts.hostname or "127.0.0.1"),
        "port": parts.port or 5432,
        "user": unquote(parts.username or "postgres"),
        "password": unquote(parts.password) if parts.password else None,
        "database": parts.path.lstrip("/") or "postgres",
    }
