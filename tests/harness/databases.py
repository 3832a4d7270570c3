"""Databases of the test session: one migrated template, one clone per module, dropped when it is over.

PostgreSQL and Redis come from DATABASE_URL and REDIS_URL when these are set, else from the embedded services.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from adapters import embedded


@asynccontextmanager
async def postgres_server(folder: Path) -> AsyncIterator[str]:
    """The URL of a PostgreSQL where databases may be made."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    async with embedded.postgres(folder, durable=False) as server:
        yield server.url


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    """The URL of a Redis; tests keep apart by REDIS_NAMESPACE."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    async with embedded.redis(folder, durable=False) as server:
        yield server.url


def database_named(server_url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def new_name(kind: str) -> str:
    """A name that no other session or worker has."""
    return f"sy_{secrets.token_hex(4)}_{kind}"[:63]


@asynccontextmanager
async def new_database(server_url: str, kind: str, *, template: str | None = None) -> AsyncIterator[str]:
    """The URL of a fresh database, empty or cloned, that is dropped at the end whoever is still connected."""
    name = new_name(kind)
    # FILE_COPY is the faster strategy for small templates when durability is off (PostgreSQL 15 and newer).
    clone = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
    await _on_server(server_url, f'CREATE DATABASE "{name}"{clone}')
    try:
        yield database_named(server_url, name)
    finally:
        await _on_server(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _on_server(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        await connection.execute(statement, timeout=30)
    finally:
        await connection.close(timeout=5)


async def mentions(db: asyncpg.Connection, *texts: str) -> dict[str, int]:
    """How many rows of each table hold one of these texts; only tables that have some."""
    tables = await db.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = {}
    for (table,) in map(tuple, tables):
        patterns = [f"%{text}%" for text in texts]
        count = await db.fetchval(f'SELECT count(*) FROM "{table}" t WHERE t::text ILIKE ANY($1::text[])', patterns)
        if count:
            found[table] = count
    return found


def name_of(database_url: str) -> str:
    """The database that a URL names."""
    return urlsplit(database_url).path.lstrip("/")
