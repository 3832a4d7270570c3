"""Putting a backup into an empty installation: objects first, then all rows in one transaction, read back.

Until that transaction commits nobody has an account here, and the same command may be given again. It refuses an
installation with users, always: what is there is worth more than what somebody typed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters import backup_archive
from adapters.backup_archive import CHECKS, FORMAT, OBJECTS, ROWS, Archive, BackupDamaged, Member
from adapters.storage import Storage
from errors import Conflict, ValidationFailed
from models import backups, database
from settings import Settings
from tasks.backup.writing import connect

_CLOSE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Restored:
    """What came out of a backup; `missing_keys` are ids of keys that SECRET_KEYS lacks."""

    created_at: str
    rows: int
    objects: int
    migrated: list[str]
    lost: list[str]
    missing_keys: list[str]


async def verify(path: Path) -> dict[str, Any]:
    """Look whether a file is a whole backup and all in it can be read; its manifest. Raises BackupDamaged."""
    archive = await backup_archive.opened(path)
    manifest = await _manifest(archive)
    rows = await asyncio.to_thread(_row_members, archive)
    for content in manifest["contents"]:
        digest = hashlib.sha256()
        async for text in _texts(archive, rows.get(content["name"], [])):
            digest.update(text)
        if digest.hexdigest() != content["sha256"]:
            raise BackupDamaged(f"The rows of {content['name']} in the backup are not the ones that were written.")
    count = 0
    async for _member, _sha256 in _checked_objects(archive, None):
        count += 1
    if count != manifest["objects"]:
        raise BackupDamaged(f"The backup holds {count} objects and should hold {manifest['objects']}.")
    return manifest


async def restore(settings: Settings, storage: Storage, path: Path) -> Restored:
    """Put a backup into this installation.

    Raises BackupDamaged; Conflict when somebody has an account here, when the database is further than the backup or
    belongs to something else; ValidationFailed when the backup was made by a newer version.
    """
    archive = await backup_archive.opened(path)
    manifest = await _manifest(archive)
    url = settings.database_url.get_secret_value()
    newest = manifest["migrations"][-1]
    if await _prepare(settings, newest):
        await database.migrate(url, target=newest)
    objects = 0
    async for _member, _sha256 in _checked_objects(archive, storage):
        objects += 1
    connection = await connect(settings)
    try:
        async with connection.transaction():
            await _load(connection, archive, manifest)
        migrated = await database.migrate(url) if newest != database.known_migrations()[-1] else []
        await connection.execute("ANALYZE")
    finally:
        await connection.close(timeout=_CLOSE_SECONDS)
    return Restored(
        created_at=manifest["createdAt"],
        rows=manifest["rows"],
        objects=objects,
        migrated=migrated,
        lost=manifest["missing"],
        missing_keys=[kid for kid in manifest["keys"] if kid not in settings.keyring],
    )


async def _manifest(archive: Archive) -> dict[str, Any]:
    header = await archive.header()
    if header.get("format") != FORMAT:
        raise ValidationFailed(f"The backup has format {header.get('format')}; this version reads format {FORMAT}.")
    unknown = set(header["migrations"]) - set(database.known_migrations())
    if unknown:
        raise ValidationFailed(f"The backup was made by a newer version ({max(unknown)}): install that one first.")
    return await archive.manifest()


async def _prepare(settings: Settings, newest: str) -> bool:
    """Whether the database must be brought to the backup's migration; raises Conflict when it is not empty."""
    connection = await connect(settings)
    try:
        applied = await backups.migrations(connection)
        if not applied:
            if not await backups.is_blank(connection):
                raise Conflict("The database holds tables of something else: restore into an empty database.")
            return True
        await _refuse_users(connection)
        if applied[-1] > newest:
            raise Conflict(
                f"The database is at {applied[-1]} and the backup at {newest}, which is older: restore into a new, "
                "empty database, which is then brought up to date."
            )
        return applied[-1] < newest
    finally:
        await connection.close(timeout=_CLOSE_SECONDS)


async def _refuse_users(connection: asyncpg.Connection) -> None:
    if await backups.has_users(connection):
        raise Conflict("There are accounts in this installation: a backup is restored into an empty one only.")


async def _load(connection: asyncpg.Connection, archive: Archive, manifest: Mapping[str, Any]) -> None:
    tables = await backups.tables(connection)
    contents = {content["name"]: content for content in manifest["contents"]}
    have = {table.name: set(table.columns) for table in tables}
    if have != {name: set(content["columns"]) for name, content in contents.items()}:
        raise Conflict("The tables of the backup are not those that this version makes.")
    await backups.take_over(connection, tables)
    await _refuse_users(connection)
    await backups.truncate(connection, tables)
    pieces = await asyncio.to_thread(_row_members, archive)
    for table in tables:
        content = contents[table.name]
        ordered = backups.Table(table.name, tuple(content["columns"]))
        count = await backups.copy_in(connection, ordered, _texts(archive, pieces.get(table.name, [])))
        if (count, await _read_back(connection, ordered)) != (content["rows"], content["sha256"]):
            raise BackupDamaged(f"The rows of {table.name} are not the same when they are read back.")
    await backups.set_sequences(connection, manifest["sequences"])
    await backups.wake_triggers(connection, tables)


async def _read_back(connection: asyncpg.Connection, table: backups.Table) -> str:
    digest = hashlib.sha256()

    async def take(data: bytes) -> None:
        digest.update(data)

    await backups.copy_out(connection, table, take)
    return digest.hexdigest()


def _row_members(archive: Archive) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for member in archive.members():
        if member.name.startswith(ROWS):
            found.setdefault(member.name.split("/")[1], []).append(member)
        elif member.name.startswith(OBJECTS):
            break  # rows come first
    return found


async def _texts(archive: Archive, members: list[Member]) -> AsyncGenerator[bytes, None]:
    for member in members:
        yield await asyncio.to_thread(archive.text, member)


async def _checked_objects(archive: Archive, storage: Storage | None) -> AsyncGenerator[tuple[Member, str], None]:
    """Put each object into storage, or only read it, and compare it with its checksum."""
    members = archive.members()
    batch: dict[str, tuple[Member, str]] = {}
    while (member := await asyncio.to_thread(_next, members)) is not None:
        if member.name.startswith(OBJECTS):
            key = member.name.removeprefix(OBJECTS)
            batch[key] = member, await _take_object(archive, member, key, storage)
        elif member.name.startswith(CHECKS):
            for check in json.loads(await asyncio.to_thread(archive.read, member)):
                found = batch.pop(check["key"], None)
                if found is None or found[1] != check["sha256"]:
                    raise BackupDamaged(f"The object {check['key']} in the backup is not the one that was written.")
                yield found
    if batch:
        raise BackupDamaged(f"The object {next(iter(batch))} in the backup has no checksum.")


async def _take_object(archive: Archive, member: Member, key: str, storage: Storage | None) -> str:
    if storage is not None:
        return (await storage.put(key, archive.content(member), content_type=member.note)).sha256
    digest = hashlib.sha256()
    async for chunk in archive.content(member):
        digest.update(chunk)
    return digest.hexdigest()


def _next(members: Iterator[Member]) -> Member | None:
    return next(members, None)
