"""Folders that attempts work in: private, gone with the attempt, and cleared of what killed workers left."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import asyncpg

from tasks.work import Work


@asynccontextmanager
async def private_folder(place: Path, work: Work) -> AsyncIterator[Path]:
    """A folder below `place` for this attempt alone; raises OSError when the disk is full, LeaseLost."""
    await _clear_leftovers(place, work)
    folder = place / f"{work.id}-{work.claim.attempt}"
    await asyncio.to_thread(folder.mkdir, 0o700, parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        # Shielded: what is cancelled twice must not leave gigabytes behind.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def _clear_leftovers(place: Path, work: Work) -> None:
    names = await asyncio.to_thread(lambda: [entry.name for entry in place.iterdir()] if place.is_dir() else [])
    ids = []
    for name in names:
        with suppress(ValueError):
            ids.append(UUID(name[:36]))
    alive: set[str] = set()

    async def read(connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            "SELECT id || '-' || attempt AS name FROM executions WHERE status = 'RUNNING' AND id = ANY($1::uuid[])", ids
        )
        alive.update(row["name"] for row in rows)

    if ids:
        await work.persist(read)
    for name in names:
        if name not in alive:
            await asyncio.to_thread(shutil.rmtree, place / name, ignore_errors=True)
