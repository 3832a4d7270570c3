"""Folders of builds on a worker's machine: one for each attempt, removed with it, and one cache for each project.

    <data folder>/builds/<execution>-<attempt>/source     the checkout, changed by the build
    <data folder>/caches/<project>/files                  what package managers keep between builds
    <data folder>/caches/<project>/lock                   held by the build that uses them

Invariant: what a killed worker left is removed by the next build on the machine, and nothing that runs loses its
folder; removing follows no link. A cache larger than its limit is forgotten as a whole: package managers fill it again.
All of it is disk work, in threads.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from adapters.sandbox.usage import Unmeasurable, disk_bytes
from tasks.work import Work

_PRIVATE: Final = 0o700


@asynccontextmanager
async def workspace(data_dir: Path, work: Work) -> AsyncIterator[Path]:
    """An empty folder for one attempt; it is removed when the block is left, whatever happened there."""
    folder = data_dir / "builds" / f"{work.id}-{work.claim.attempt}"
    await asyncio.to_thread(_make, folder)
    try:
        yield folder
    finally:
        await _to_the_end(folder)


async def clear_leftovers(data_dir: Path, work: Work) -> None:
    """Remove the folders of attempts that are over, and the caches of projects that are gone."""
    builds, caches = await asyncio.to_thread(lambda: (_names(data_dir / "builds"), _names(data_dir / "caches")))
    alive: set[str] = set()

    async def read(connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            """SELECT id || '-' || attempt AS name FROM executions WHERE status = 'RUNNING' AND id = ANY($1::uuid[])
               UNION ALL SELECT id::text FROM projects WHERE id = ANY($2::uuid[])""",
            _ids(name[:36] for name in builds),
            _ids(caches),
        )
        alive.update(row["name"] for row in rows)

    await work.persist(read)
    for place, names in (("builds", builds), ("caches", caches)):
        for name in names:
            if name not in alive:
                await asyncio.to_thread(remove, data_dir / place / name)


@asynccontextmanager
async def cache(data_dir: Path, project_id: UUID) -> AsyncIterator[Path | None]:
    """The cache of a project on this machine; None while another build has it.

    One at a time, because builds are different users, and the files change their owner with the build.
    """
    folder = data_dir / "caches" / str(project_id)
    descriptor = await asyncio.to_thread(_take, folder)
    try:
        yield None if descriptor is None else folder / "files"
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which also ends the lock


async def bound_cache(files: Path, *, limit_bytes: int) -> bool:
    """Forget a cache that takes more than the limit; whether that was so."""

    def check() -> bool:
        try:
            fits = disk_bytes([files], limit_bytes=limit_bytes) <= limit_bytes
        except Unmeasurable:
            fits = False
        if not fits:
            remove(files)
        return not fits

    return await asyncio.to_thread(check)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, however deep, following no link; what a build has closed is opened first.

    Folders in it are moved beside it before they are emptied, because their names may be longer together than any path
    can be, and deeper than calls can nest.
    """
    emptying = [folder]
    mark = secrets.token_hex(4)
    count = 0
    while emptying:
        found = emptying.pop()
        for child in _empty(found):
            moved = folder.with_name(f"{folder.name}.removed-{mark}-{count}")
            count += 1
            os.rename(child, moved)
            emptying.append(moved)
        with suppress(FileNotFoundError):
            os.rmdir(found)


def _empty(folder: Path) -> list[Path]:
    """Remove the files of a folder; the folders in it. Nothing when there is no such folder."""
    nested = []
    try:
        os.chmod(folder, _PRIVATE)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    nested.append(Path(entry.path))
                else:
                    os.unlink(entry.path)
    except FileNotFoundError:
        return []
    return nested


def _take(folder: Path) -> int | None:
    """A descriptor that holds the lock of a cache, None when somebody else has it."""
    _make(folder / "files")
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _make(folder: Path) -> None:
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _ids(texts: Iterable[str]) -> list[UUID]:
    ids = []
    for text in texts:
        with suppress(ValueError):
            ids.append(UUID(text))
    return ids


async def _to_the_end(folder: Path) -> None:
    """Remove a folder even if we are cancelled meanwhile: a handed-back build must not fill the disk."""
    removal = asyncio.ensure_future(asyncio.to_thread(remove, folder))
    cancelled: asyncio.CancelledError | None = None
    while not removal.done():
        try:
            await asyncio.wait({removal})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
