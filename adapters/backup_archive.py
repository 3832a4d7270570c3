"""The file of a backup: a tar that is written as a stream and believed only when its end says what came before.

The last 2,048 bytes are the member `END`: SHA-256 and length of all bytes before it, and where the manifest is. So a
file that was cut or changed in any bit is known from one pass over its bytes, before anything of it is used. Ordinary
tar and zstd read it all the same. Functions that touch the file run in threads; memory is a few pieces of text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
from collections.abc import AsyncIterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow

from errors import ValidationFailed

FORMAT: Final = 1
HEADER: Final = "switchyard-backup.json"
MANIFEST: Final = "manifest.json"
ROWS: Final = "rows/"
OBJECTS: Final = "objects/"
CHECKS: Final = "checks/"
PIECE_BYTES: Final = 4 * 2**20
_END: Final = "END"
_END_BYTES: Final = 4 * tarfile.BLOCKSIZE
_READ_BYTES: Final = 2**20
_NOTE: Final = "comment"  # what tar lets everybody use: the size of a text, or an object's type


class BackupDamaged(ValidationFailed):
    """The file is no backup, was cut, or is not what was written."""


class ContentChanged(Exception):
    """An object had another length than was said before it."""


@dataclass(frozen=True, slots=True)
class Member:
    """Something in the file; `note` is the size of a text before compression, or the type of an object."""

    name: str
    offset: int
    size: int
    note: str


class ArchiveWriter:
    """Writes the file front to back; it need not be able to go back."""

    def __init__(self, file: IO[bytes], *, created: float) -> None:
        self._file = file
        self._created = created
        self._digest = hashlib.sha256()
        self._position = 0
        self._codec = pyarrow.Codec("zstd", compression_level=1)

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._position

    async def add(self, name: str, data: bytes) -> None:
        """A small member."""
        await asyncio.to_thread(self._add, name, data, {})

    async def add_text(self, name: str, text: bytes) -> None:
        """A piece of rows, compressed."""
        await asyncio.to_thread(self._add_text, name, text)

    async def add_object(self, key: str, size: int, content_type: str, chunks: AsyncIterable[bytes]) -> str:
        """An object as it comes; its SHA-256. Raises ContentChanged, after which the file is of no use."""
        digest = hashlib.sha256()
        left = size
        await asyncio.to_thread(self._begin, f"{OBJECTS}{key}", size, {_NOTE: content_type})
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            await asyncio.to_thread(self._write, chunk)
        if left:
            raise ContentChanged(key)
        await asyncio.to_thread(self._pad, size)
        return digest.hexdigest()

    async def end(self, manifest: Mapping[str, Any]) -> None:
        """Write what makes the file whole."""
        start = self._position
        await self.add(MANIFEST, json.dumps(manifest).encode())
        last = {"sha256": self._digest.hexdigest(), "bytes": self._position, "manifest": start}
        await asyncio.to_thread(self._add, _END, json.dumps(last).encode(), {})
        await asyncio.to_thread(self._write, bytes(2 * tarfile.BLOCKSIZE))
        await asyncio.to_thread(self._file.flush)

    def _add_text(self, name: str, text: bytes) -> None:
        packed = self._codec.compress(text, asbytes=True)
        self._add(f"{name}.zst", packed, {_NOTE: str(len(text))})

    def _add(self, name: str, data: bytes, more: Mapping[str, str]) -> None:
        self._begin(name, len(data), more)
        self._write(data)
        self._pad(len(data))

    def _begin(self, name: str, size: int, more: Mapping[str, str]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(self._created), 0o600
        member.pax_headers = dict(more)
        self._write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._position += len(data)


class Archive:
    """A file that is read. Use `opened`, which looks whether it is whole."""

    def __init__(self, path: Path, manifest_at: int) -> None:
        self._path = path
        self._manifest_at = manifest_at
        self._codec = pyarrow.Codec("zstd")

    async def header(self) -> dict[str, Any]:
        """What the file says about itself at its beginning."""
        return await asyncio.to_thread(self._json_at, 0, HEADER)

    async def manifest(self) -> dict[str, Any]:
        """What the file says that it holds."""
        return await asyncio.to_thread(self._json_at, self._manifest_at, MANIFEST)

    def members(self) -> Iterator[Member]:
        """All members, front to back. Blocks: for a thread, one step at a time."""
        with self._path.open("rb") as file:
            yield from self._members(file)

    def read(self, member: Member, start: int = 0, size: int | None = None) -> bytes:
        """Bytes of a member. Blocks: for a thread."""
        with self._path.open("rb") as file:
            file.seek(member.offset + start)
            return file.read(member.size - start if size is None else min(size, member.size - start))

    def text(self, member: Member) -> bytes:
        """A piece of rows. Blocks: for a thread. Raises BackupDamaged."""
        size = int(member.note) if member.note.isdecimal() else 0
        if not 0 < size <= PIECE_BYTES:
            raise BackupDamaged(f"{member.name} in the backup has an impossible size.")
        try:
            text: bytes = self._codec.decompress(self.read(member), size, asbytes=True)
        except OSError as error:
            raise BackupDamaged(f"{member.name} in the backup cannot be read.") from error
        return text

    async def content(self, member: Member) -> AsyncIterable[bytes]:
        """An object's bytes."""
        for start in range(0, member.size, _READ_BYTES):
            yield await asyncio.to_thread(self.read, member, start, _READ_BYTES)

    def _members(self, file: IO[bytes]) -> Iterator[Member]:
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
                while (found := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined] # it remembers them all otherwise
                    yield Member(found.name, found.offset_data, found.size, found.pax_headers.get(_NOTE, ""))
        except tarfile.TarError as error:
            raise BackupDamaged(f"{self._path} is damaged: {error}") from error

    def _json_at(self, offset: int, name: str) -> dict[str, Any]:
        with self._path.open("rb") as file:
            file.seek(offset)
            member = next(self._members(file), None)
            if member is None or member.name != name:
                raise BackupDamaged(f"{self._path} holds no {name} where it should.")
            file.seek(member.offset)
            found: dict[str, Any] = json.loads(file.read(member.size))
        return found


async def opened(path: Path) -> Archive:
    """The backup in a file, after all its bytes were looked at; raises BackupDamaged and FileNotFoundError."""
    return await asyncio.to_thread(_opened, path)


def _opened(path: Path) -> Archive:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        end = _read_end(file, size)
        if end is None:
            raise BackupDamaged(f"{path} is no whole backup: its end is missing. It was cut, or is something else.")
        file.seek(0)
        digest, left = hashlib.sha256(), size - _END_BYTES
        while left and (chunk := file.read(min(_READ_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        if digest.hexdigest() != end["sha256"] or end["bytes"] != size - _END_BYTES:
            raise BackupDamaged(f"{path} is damaged: its bytes are not the ones that were written.")
    return Archive(path, int(end["manifest"]))


def _read_end(file: IO[bytes], size: int) -> dict[str, Any] | None:
    if size < _END_BYTES:
        return None
    file.seek(size - _END_BYTES)
    block = file.read(_END_BYTES)
    try:
        member = tarfile.TarInfo.frombuf(block[: tarfile.BLOCKSIZE], "utf-8", "strict")
        found: dict[str, Any] = json.loads(block[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + member.size])
    except (tarfile.HeaderError, ValueError):
        return None
    return found if member.name == _END and {"sha256", "bytes", "manifest"} <= found.keys() else None
