"""A site's content on its way into storage: what is there already does not travel, what travels is compressed once.

Content is addressed by its SHA-256 within a project. Reserving what exists comes first, so that nothing of it is swept
away while the rest goes up; a key holds a random part, so content that was dropped and comes again never shares one.
Objects are written before the row that names them. A worker that is killed in between leaves at most one batch of
objects that no row names, under the project's prefix, which goes with the project. Sending is not fenced: a worker that
lost its lease stores nothing but content, and records nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
import brotli
import structlog

from adapters.cancellation import first_error
from adapters.storage import ChecksumMismatch, Storage
from errors import Conflict, SwitchyardError
from models import site_queries
from models.site_queries import CondemnedBlob, NewBlob
from tasks.build.artifacts import Artifact, ArtifactFile
from tasks.build.content_types import is_compressible

UPLOADS_AT_ONCE: Final = 8
COMPRESSIONS_AT_ONCE: Final = 2
BATCH_FILES: Final = 64
MIN_COMPRESSED_BYTES: Final = 1_024
MAX_COMPRESSED_BYTES: Final = 16 * 2**20
"""Larger files are sent as they are: they are read whole to be compressed, and mostly are no text."""

WORTHWHILE: Final = 0.95
SWEEP_LIMIT: Final = 500
_ACQUIRE_SECONDS: Final = 5.0
_CLEAN_UP_SECONDS: Final = 10.0
_log = structlog.get_logger("switchyard.sites")

Progress = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Where the content of an artifact is. `uploaded_bytes` were sent now, before compression."""

    blob_ids: dict[bytes, int]
    uploaded_bytes: int
    uploaded_files: int


async def upload(
    artifact: Artifact,
    *,
    project_id: UUID,
    storage: Storage,
    pool: asyncpg.Pool,
    progress: Progress | None = None,
) -> Uploaded:
    """Bring the content of an artifact into storage; `progress` hears how much of it is there, 0 to 1.

    Raises ChecksumMismatch when a file is not what was collected, StorageUnavailable, and Conflict when the same
    content was being removed at the same moment and trying again helps. Nothing is served by it before `record`.
    """
    wanted = {file.sha256: file for file in artifact.files}
    await _clear_condemned(storage, pool, project_id, list(wanted))
    async with _connection(pool) as connection:
        blob_ids = await site_queries.reserve(connection, project_id, list(wanted))
    missing = [file for sha256, file in wanted.items() if sha256 not in blob_ids]
    total = sum(file.size for file in missing if is_compressible(file.content_type))
    sender = _Sender(storage, project_id, compressible_bytes=total)
    for offset in range(0, len(missing), BATCH_FILES):
        blob_ids |= await _send_batch(sender, pool, missing[offset : offset + BATCH_FILES])
        if progress is not None:
            await progress(min(1.0, (offset + BATCH_FILES) / len(missing)))
    return Uploaded(blob_ids, sum(file.size for file in missing), len(missing))


async def record(connection: asyncpg.Connection, deployment_id: UUID, artifact: Artifact, uploaded: Uploaded) -> None:
    """Write down what a deployment serves, in the transaction that ends it; again is fine."""
    await site_queries.record_files(
        connection,
        deployment_id,
        [(file.path, file.content_type, uploaded.blob_ids[file.sha256]) for file in artifact.files],
    )


async def sweep_blobs(pool: asyncpg.Pool, storage: Storage) -> int:
    """Drop content that nothing uses, some of it; how many blobs went. To be called now and then by every worker."""
    async with _connection(pool) as connection:
        found = await site_queries.condemn_somewhere(connection, limit=SWEEP_LIMIT)
    return await _drop(storage, pool, found)


async def collect_garbage(pool: asyncpg.Pool, storage: Storage, project_id: UUID, *, limit: int = SWEEP_LIMIT) -> int:
    """Drop content of one project that nothing uses; how many blobs went. Outside of any transaction."""
    async with _connection(pool) as connection:
        found = await site_queries.condemn(connection, project_id, limit=limit)
    return await _drop(storage, pool, found)


async def remove_objects(storage: Storage, project_id: UUID) -> int:
    """Delete all objects of a project that is gone; how many there were. Again is fine."""
    count = 0
    batch: list[str] = []
    async for found in storage.list(_prefix(project_id)):
        batch.append(found.key)
        count += 1
        if len(batch) == SWEEP_LIMIT:
            await storage.delete(batch)
            batch.clear()
    await storage.delete(batch)
    return count


async def _clear_condemned(storage: Storage, pool: asyncpg.Pool, project_id: UUID, hashes: Sequence[bytes]) -> None:
    """End the removal of content that is needed again, so that it can come in under a new key."""
    async with _connection(pool) as connection:
        found = await site_queries.condemned(connection, project_id, hashes)
    await _drop(storage, pool, found)


async def _drop(storage: Storage, pool: asyncpg.Pool, blobs: Sequence[CondemnedBlob]) -> int:
    if not blobs:
        return 0
    await storage.delete(key for blob in blobs for key in blob.object_keys)
    async with _connection(pool) as connection:
        return await site_queries.forget(connection, [blob.id for blob in blobs])


async def _send_batch(sender: _Sender, pool: asyncpg.Pool, files: Sequence[ArtifactFile]) -> dict[bytes, int]:
    """Send some files and write them down; what no row can have come to name is removed again."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sender.send(file)) for file in files]
    except BaseException as error:
        await sender.take_back()
        known = error.subgroup(SwitchyardError) if isinstance(error, BaseExceptionGroup) else None
        if known is None:
            raise
        raise first_error(known) from error
    blobs = [task.result() for task in tasks]
    # From here to the answer a row may name the objects or not: then they stay, at worst for nothing.
    async with _connection(pool) as connection:
        rows = await site_queries.insert_blobs(connection, sender.project_id, blobs)
    await sender.take_back(except_of={key for _, key in rows.values()})
    if len(rows) < len(blobs):
        raise Conflict("The same files are being removed at this moment; deploy again.")
    return {sha256: blob_id for sha256, (blob_id, _) in rows.items()}


class _Sender:
    """Sends files one by one; knows which objects it has made and nobody names yet."""

    def __init__(self, storage: Storage, project_id: UUID, *, compressible_bytes: int) -> None:
        self.project_id = project_id
        self._storage = storage
        self._compressible_bytes = compressible_bytes
        self._sending = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._compressing = asyncio.Semaphore(COMPRESSIONS_AT_ONCE)
        self._unnamed: dict[str, tuple[str, ...]] = {}

    async def send(self, file: ArtifactFile) -> NewBlob:
        """Store a file and its smaller forms."""
        async with self._sending:
            digest = file.sha256.hex()
            key = f"{_prefix(self.project_id)}{digest[:2]}/{digest}-{secrets.token_hex(8)}"
            self._unnamed[key] = site_queries.object_keys(key, 0, 0)
            sizes: dict[str, int | None] = {".br": None, ".gz": None}
            if is_compressible(file.content_type) and MIN_COMPRESSED_BYTES <= file.size <= MAX_COMPRESSED_BYTES:
                async with self._compressing:
                    quality = _quality(file.size, self._compressible_bytes)
                    forms = await asyncio.to_thread(_read_and_compress, file, quality)
                for suffix, data in forms.items():
                    await self._storage.put(key + suffix, data, content_type=file.content_type)
                    sizes[suffix] = len(data)
            # Hashed again on its way: what is stored is what was collected, or nothing is.
            await self._storage.put_file(key, file.source, content_type=file.content_type, sha256=digest)
            return NewBlob(file.sha256, file.size, key, sizes[".br"], sizes[".gz"])

    async def take_back(self, *, except_of: Collection[str] = ()) -> None:
        """Remove the objects of those that no row names: somebody was faster, or sending failed."""
        unnamed = [key for blob, keys in self._unnamed.items() if blob not in except_of for key in keys]
        self._unnamed.clear()
        if not unnamed:
            return
        try:
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                await self._storage.delete(unnamed)
        except (SwitchyardError, TimeoutError) as error:
            # What went wrong before is the thing to tell.
            _log.warning("site_objects_left_behind", project_id=str(self.project_id), error=repr(error))


def _read_and_compress(file: ArtifactFile, quality: int) -> dict[str, bytes]:
    data = file.source.read_bytes()
    if hashlib.sha256(data).digest() != file.sha256:
        raise ChecksumMismatch(f"{file.path} is not what it was when the output was read.")
    gzip = zlib.compressobj(9 if quality > 5 else 6, zlib.DEFLATED, 31)
    forms = {
        ".br": brotli.compress(data, quality=quality, mode=_mode(file.content_type)),
        ".gz": gzip.compress(data) + gzip.flush(),
    }
    return {suffix: form for suffix, form in forms.items() if len(form) <= len(data) * WORTHWHILE}


def _mode(content_type: str) -> int:
    mode: int = brotli.MODE_TEXT if content_type.startswith("text/") else brotli.MODE_GENERIC
    return mode


def _quality(size: int, total: int) -> int:
    """How hard brotli tries: about a minute of CPU at the very most, whatever the site.

    Measured per 100 kB: quality 11 takes 140 ms, 10 takes 50, 9 takes 17 and 5 takes 3.
    """
    if total > 128 * 2**20:
        return 5
    if total > 16 * 2**20 or size > 512 * 2**10:
        return 9
    return 11 if total <= 2 * 2**20 else 10


def _prefix(project_id: UUID) -> str:
    return f"sites/{project_id}/"


@asynccontextmanager
async def _connection(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
        yield connection
