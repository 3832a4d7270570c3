"""Writing a backup: one snapshot of all rows, then the objects that these rows name, while the service goes on.

Memory is bounded by pieces: of text, of object content, of a batch of checksums. What rows name and storage does not
have is asked about once more at the end: what was removed meanwhile is no loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, Any, Final

import asyncpg

from adapters.backup_archive import CHECKS, FORMAT, HEADER, PIECE_BYTES, ROWS, ArchiveWriter, ContentChanged
from adapters.storage import ObjectNotFound, Storage
from errors import Conflict
from models import backups, database, sealed
from settings import Settings

CHECK_BATCH: Final = 500
MAX_TOLD: Final = 1_000
_CONNECT_SECONDS: Final = 10


@dataclass(slots=True)
class Written:
    """What a backup holds. `missing` are keys that rows name and storage has lost, `MAX_TOLD` at most."""

    rows: int = 0
    tables: int = 0
    objects: int = 0
    object_bytes: int = 0
    unnamed: int = 0
    unnamed_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Ids of the keys that secrets in it are sealed with."""


async def write(settings: Settings, storage: Storage, file: IO[bytes]) -> Written:
    """Write a backup; raises Conflict when an object was replaced while it was read, and what the services raise."""
    reader = await connect(settings)
    try:
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            return await _write(settings, storage, reader, file)
    finally:
        await reader.close(timeout=_CONNECT_SECONDS)


async def connect(settings: Settings) -> asyncpg.Connection:
    """A connection on which rows have one text."""
    return await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=_CONNECT_SECONDS,
        server_settings=dict(backups.TEXT_SETTINGS),
    )


async def _write(settings: Settings, storage: Storage, reader: asyncpg.Connection, file: IO[bytes]) -> Written:
    created: datetime = await reader.fetchval("SELECT now()")
    migrations = await backups.migrations(reader)
    if migrations != database.known_migrations():
        raise Conflict(
            "The database is not at the migrations of this version: run `switchyard migrate`, then try again."
        )
    archive = ArchiveWriter(file, created=created.timestamp())
    header = {
        "format": FORMAT,
        "createdAt": created.isoformat(),
        "migrations": migrations,
        "database": await reader.fetchval("SHOW server_version"),
    }
    await archive.add(HEADER, json.dumps(header).encode())
    written = Written()
    written.keys = sorted({count.kid for count in await sealed.count_by_key(reader) if count.kid is not None})
    contents = []
    for table in await backups.tables(reader):
        contents.append(await _write_table(archive, reader, table))
        written.rows += contents[-1]["rows"]
    written.tables = len(contents)
    sequences = await backups.sequences(reader)
    written.missing = await _still_missing(settings, await _write_objects(archive, reader, storage, written))
    await archive.end({**header, **asdict(written), "contents": contents, "sequences": sequences})
    return written


async def _write_table(archive: ArchiveWriter, reader: asyncpg.Connection, table: backups.Table) -> dict[str, Any]:
    waiting = bytearray()
    digest = hashlib.sha256()
    pieces = size = 0

    async def send(count: int) -> None:
        nonlocal pieces
        pieces += 1
        text = bytes(memoryview(waiting)[:count])
        del waiting[:count]
        await archive.add_text(f"{ROWS}{table.name}/{pieces:06}", text)

    async def take(data: bytes) -> None:
        nonlocal size
        size += len(data)
        digest.update(data)
        waiting.extend(data)
        while len(waiting) >= PIECE_BYTES:
            await send(PIECE_BYTES)

    rows = await backups.copy_out(reader, table, take)
    if waiting:
        await send(len(waiting))
    return {
        "name": table.name,
        "columns": table.columns,
        "rows": rows,
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


async def _write_objects(
    archive: ArchiveWriter, reader: asyncpg.Connection, storage: Storage, written: Written
) -> list[str]:
    missing: list[str] = []
    checks: list[dict[str, Any]] = []
    batches = 0
    async with aclosing(backups.named_objects(reader)) as named, aclosing(_listing(storage)) as there:
        present = await anext(there, None)
        async for key, is_needed in named:
            # Both come in the order of their bytes: what storage has before this key, no row names.
            while present is not None and present[0].encode() < key.encode():
                written.unnamed += 1
                written.unnamed_bytes += present[1]
                present = await anext(there, None)
            if present is not None and present[0] == key:
                present = await anext(there, None)
            check = await _write_object(archive, storage, key)
            if check is not None:
                checks.append(check)
                written.objects += 1
                written.object_bytes += check["size"]
            elif is_needed and len(missing) < MAX_TOLD:
                missing.append(key)
            if len(checks) == CHECK_BATCH:
                batches += 1
                await archive.add(f"{CHECKS}{batches:06}.json", json.dumps(checks).encode())
                checks.clear()
        while present is not None:
            written.unnamed += 1
            written.unnamed_bytes += present[1]
            present = await anext(there, None)
    if checks:
        await archive.add(f"{CHECKS}{batches + 1:06}.json", json.dumps(checks).encode())
    return missing


async def _listing(storage: Storage) -> AsyncGenerator[tuple[str, int], None]:
    async with aclosing(storage.list("")) as found:
        async for info in found:
            yield info.key, info.size


async def _write_object(archive: ArchiveWriter, storage: Storage, key: str) -> dict[str, Any] | None:
    info = await storage.head(key)
    if info is None:
        return None
    content_type = info.content_type or "application/octet-stream"
    async with aclosing(storage.get(key)) as chunks:
        try:
            first = await anext(chunks, b"")  # before anything of it is in the file
        except ObjectNotFound:
            return None

        async def content() -> AsyncGenerator[bytes, None]:
            yield first
            async for chunk in chunks:
                yield chunk

        try:
            sha256 = await archive.add_object(key, info.size, content_type, content())
        except ContentChanged:
            raise Conflict(f"The object {key} was replaced while it was read; start the backup again.") from None
    return {"key": key, "size": info.size, "sha256": sha256}


async def _still_missing(settings: Settings, missing: list[str]) -> list[str]:
    """Those that rows name now as well: nobody removed them, they are lost."""
    if not missing:
        return []
    # A connection of its own, because the snapshot knows nothing of what was removed since.
    later = await connect(settings)
    try:
        needed = await backups.still_needed(later, missing)
    finally:
        await later.close(timeout=_CONNECT_SECONDS)
    return [key for key in missing if key in needed]
