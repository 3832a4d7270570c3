"""PostgreSQL and Redis for one machine, and the supervision of what `switchyard run` starts.

    async with embedded.postgres(data_dir) as server:
        connect(server.url)

No server outlives the process that started it; one folder has one server at a time. Production names servers
of its own instead and uses nothing of this package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.embedded.children import EmbeddedError, FolderBusy, FolderLock
from adapters.embedded.postgres_server import PostgresServer
from adapters.embedded.redis_server import RedisServer

__all__ = [
    "EmbeddedError",
    "FolderBusy",
    "FolderLock",
    "PostgresServer",
    "RedisServer",
    "postgres",
    "redis",
]


@asynccontextmanager
async def postgres(data_dir: Path, *, durable: bool = True) -> AsyncIterator[PostgresServer]:
    """A running PostgreSQL of the folder, stopped at the end; raises EmbeddedError when it cannot run."""
    server = PostgresServer(data_dir, durable=durable)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def redis(data_dir: Path, *, durable: bool = True) -> AsyncIterator[RedisServer]:
    """A running Redis of the folder, stopped at the end; raises EmbeddedError when it cannot run."""
    server = RedisServer(data_dir, durable=durable)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
