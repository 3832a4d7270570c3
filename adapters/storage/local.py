"""The local driver: objects in a folder of this machine, read and created from outside by signed URLs of the API.

Invariant: nothing blocks the event loop (all file work happens in a few threads of the driver's own), and an
object appears only by one rename. The layout is `disk.py`'s, the links are `signing.py`'s, serving them is
`schema/files.py`'s. Several processes of one machine may share the folder; several machines may not.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final, ParamSpec, TypeVar

import structlog

import errors
from adapters.storage import disk
from adapters.storage.contract import (
    MultipartUpload,
    ObjectInfo,
    ObjectNotFound,
    PresignedPut,
    StorageConflict,
    StorageUnavailable,
    StoredObject,
    UploadedPart,
    check_content_type,
    check_key,
    check_part_number,
    check_parts,
    check_prefix,
    check_range,
    check_sha256,
    checksum_mismatch,
)
from adapters.storage.signing import CreateGrant, UrlSigner

_THREADS: Final = 4
_READ_BYTES: Final = 256 * 2**10
_WRITE_BYTES: Final = 256 * 2**10
_UPLOAD_ID: Final = re.compile(r"[0-9a-f]{32}")

_log = structlog.get_logger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object open for reading; description and bytes belong together even if it is replaced meanwhile."""

    info: StoredObject
    read: Callable[[int, int], AsyncGenerator[bytes, None]]
    """The bytes from the first offset up to, not including, the second."""


@asynccontextmanager
async def open_local_storage(folder: Path, *, signer: UrlSigner) -> AsyncIterator[LocalStorage]:
    """The driver over `folder`, which is made if need be; its threads end with the context."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
    try:
        storage = LocalStorage(folder, signer=signer, threads=threads)
        await storage.prepare()
        yield storage
    finally:
        await asyncio.to_thread(threads.shutdown)


class LocalStorage:
    """Storage in a folder; see `Storage` for the promises."""

    def __init__(self, folder: Path, *, signer: UrlSigner, threads: ThreadPoolExecutor) -> None:
        self.signer = signer
        self._folder = folder
        self._objects = folder / "objects"
        self._threads = threads

    async def prepare(self) -> None:
        """Make the folders and clear old leftovers."""
        await self._call(disk.prepare, self._folder)

    async def put(
        self, key: str, data: AsyncIterable[bytes] | bytes, *, content_type: str, sha256: str | None = None
    ) -> StoredObject:
        """See `Storage.put`."""
        return await self._store(key, data, content_type=content_type, sha256=sha256, overwrite=True)

    async def put_file(self, key: str, path: Path, *, content_type: str, sha256: str | None = None) -> StoredObject:
        """See `Storage.put_file`."""
        if not await self._call(path.is_file):
            raise FileNotFoundError(path)
        check_key(key)
        async with self._incoming() as incoming:
            await self._call(incoming.write_from, path)
            return await self._publish(key, incoming, content_type=content_type, sha256=sha256, overwrite=True)

    async def create(self, grant: CreateGrant, data: AsyncIterable[bytes]) -> StoredObject:
        """Store what an upload URL was signed for, reading no more than it allows.

        Raises StorageConflict when the object exists, PayloadTooLarge at the first byte too many, ValidationFailed
        when there are too few, ChecksumMismatch when they are others.
        """
        if await self.head(grant.key) is not None:
            raise StorageConflict("A file with this key exists already.")
        return await self._store(
            grant.key,
            _exactly(data, size=grant.size),
            content_type=grant.content_type,
            sha256=grant.sha256,
            overwrite=False,
        )

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[OpenObject]:
        """Open an object for as long as the context lasts; raises ObjectNotFound."""
        check_key(key)
        content = disk.ContentFile()
        try:
            record = await self._call(content.open, self._objects, key)
            if record is None:
                raise ObjectNotFound(key)
            yield OpenObject(_stored(record), functools.partial(self._read, content))
        finally:
            await self._release(content.close)

    async def get(self, key: str, *, start: int | None = None, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Storage.get`."""
        check_range(start, end)
        async with self.open(key) as opened:
            stop = opened.info.size if end is None else min(end, opened.info.size)
            async for chunk in opened.read(start or 0, stop):
                yield chunk

    async def head(self, key: str) -> ObjectInfo | None:
        """See `Storage.head`."""
        record = await self._call(disk.read_record, disk.record_path(self._objects, check_key(key)))
        return None if record is None else _stored(record)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        for key in [check_key(key) for key in keys]:
            await self._call(disk.remove, self._objects, key)

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """See `Storage.list`. The records that match are held in memory, for sorting."""
        check_prefix(prefix)
        found: dict[str, ObjectInfo] = {}
        for folder in await self._call(disk.group_folders, self._objects, prefix):
            for record in await self._call(disk.matching_records, folder, prefix):
                found[record.key] = ObjectInfo(key=record.key, size=record.size, etag=record.sha256)
        for key in sorted(found):
            yield found[key]

    async def presigned_get(
        self,
        key: str,
        *,
        expires_seconds: int,
        filename: str | None = None,
        content_type: str | None = None,
        inline: bool = False,
    ) -> str:
        """See `Storage.presigned_get`."""
        return self.signer.read_url(
            key, expires_seconds=expires_seconds, filename=filename, content_type=content_type, inline=inline
        )

    async def presigned_put(
        self, key: str, *, expires_seconds: int, size: int, content_type: str, sha256: str
    ) -> PresignedPut:
        """See `Storage.presigned_put`."""
        url = self.signer.create_url(
            key, expires_seconds=expires_seconds, size=size, content_type=content_type, sha256=sha256
        )
        return PresignedPut(url=url, headers={"Content-Type": content_type})

    async def create_multipart(self, key: str, *, content_type: str) -> MultipartUpload:
        """See `Storage.create_multipart`."""
        upload = MultipartUpload(key=check_key(key), upload_id=token_hex(16))
        await self._call(_begin_upload, self._upload_folder(upload), key, check_content_type(content_type))
        return upload

    async def upload_part(self, upload: MultipartUpload, number: int, data: bytes) -> UploadedPart:
        """See `Storage.upload_part`."""
        check_part_number(number)
        async with self._incoming() as incoming:
            await self._fill(incoming, data)
            await self._call(_keep_part, self._upload_folder(upload), number, incoming)
            return UploadedPart(number=number, size=incoming.size, etag=incoming.sha256, sha256=incoming.sha256)

    async def complete_multipart(self, upload: MultipartUpload, parts: Sequence[UploadedPart]) -> ObjectInfo:
        """See `Storage.complete_multipart`."""
        check_parts(parts)
        folder = self._upload_folder(upload)
        content_type = await self._call(_upload_content_type, folder, upload.key)
        async with self._incoming() as incoming:
            for part in parts:
                await self._call(_append_part, folder, part, incoming)
            stored = await self._publish(upload.key, incoming, content_type=content_type, sha256=None, overwrite=True)
        await self._call(disk.forget, folder)
        return stored

    async def abort_multipart(self, upload: MultipartUpload) -> None:
        """See `Storage.abort_multipart`."""
        await self._call(disk.forget, self._upload_folder(upload))

    async def _store(
        self,
        key: str,
        data: AsyncIterable[bytes] | bytes,
        *,
        content_type: str,
        sha256: str | None,
        overwrite: bool,
    ) -> StoredObject:
        check_key(key)
        async with self._incoming() as incoming:
            await self._fill(incoming, data)
            return await self._publish(key, incoming, content_type=content_type, sha256=sha256, overwrite=overwrite)

    async def _publish(
        self, key: str, incoming: disk.IncomingFile, *, content_type: str, sha256: str | None, overwrite: bool
    ) -> StoredObject:
        check_content_type(content_type)
        if sha256 is not None and check_sha256(sha256) != incoming.sha256:
            raise checksum_mismatch()
        publish = functools.partial(disk.publish, content_type=content_type, overwrite=overwrite)
        return _stored(await self._call(publish, self._objects, key, incoming))

    @asynccontextmanager
    async def _incoming(self) -> AsyncIterator[disk.IncomingFile]:
        incoming = disk.IncomingFile(self._folder / "incoming")
        try:
            yield incoming
        finally:
            await self._release(incoming.discard)

    async def _fill(self, incoming: disk.IncomingFile, data: AsyncIterable[bytes] | bytes) -> None:
        if isinstance(data, bytes):
            whole = memoryview(data)
            for offset in range(0, len(whole), disk.COPY_BYTES):
                await self._call(incoming.write, whole[offset : offset + disk.COPY_BYTES])
            return
        # Small chunks are gathered: a change of thread costs more than copying them.
        waiting: list[bytes] = []
        waiting_bytes = 0
        async for chunk in data:
            waiting.append(chunk)
            waiting_bytes += len(chunk)
            if waiting_bytes >= _WRITE_BYTES:
                await self._call(incoming.write, *waiting)
                waiting, waiting_bytes = [], 0
        await self._call(incoming.write, *waiting)

    async def _read(self, content: disk.ContentFile, start: int, end: int) -> AsyncGenerator[bytes, None]:
        offset = start
        while offset < end:
            chunk = await self._call(content.read, offset, min(_READ_BYTES, end - offset))
            offset += len(chunk)
            yield chunk

    def _upload_folder(self, upload: MultipartUpload) -> Path:
        if not _UPLOAD_ID.fullmatch(upload.upload_id):
            raise _upload_is_over()
        return self._folder / "multipart" / upload.upload_id

    async def _call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        work = functools.partial(function, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            _log.error("storage_disk_failed", errno=error.errno, reason=error.strerror)
            raise StorageUnavailable("The file store cannot be used at the moment.") from error

    async def _release(self, function: Callable[[], None]) -> None:
        # Runs to its end even if we are cancelled once more; what it waits for is one write or read of ours.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, function))


async def _exactly(data: AsyncIterable[bytes], *, size: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in data:
        received += len(chunk)
        if received > size:
            raise errors.PayloadTooLarge("The content is longer than was announced.", size=size)
        yield chunk
    if received < size:
        raise errors.ValidationFailed("The content is shorter than was announced.", size=size, received=received)


def _stored(record: disk.Record) -> StoredObject:
    return StoredObject(
        key=record.key,
        size=record.size,
        sha256=record.sha256,
        content_type=record.content_type,
        etag=record.sha256,
    )


def _upload_is_over() -> StorageConflict:
    return StorageConflict("This upload is over or unknown.")


def _begin_upload(folder: Path, key: str, content_type: str) -> None:
    folder.mkdir(mode=0o700)
    (folder / "upload.json").write_text(json.dumps({"key": key, "content_type": content_type}))


def _upload_content_type(folder: Path, key: str) -> str:
    try:
        upload = json.loads((folder / "upload.json").read_bytes())
    except FileNotFoundError:
        raise _upload_is_over() from None
    if upload["key"] != key:
        raise _upload_is_over()
    return str(upload["content_type"])


def _part_path(folder: Path, number: int, sha256: str) -> Path:
    return folder / f"{number:05}.{sha256}"


def _keep_part(folder: Path, number: int, incoming: disk.IncomingFile) -> None:
    incoming.finish()
    kept = _part_path(folder, number, incoming.sha256)
    try:
        incoming.move(kept)
    except FileNotFoundError:
        raise _upload_is_over() from None
    for other in folder.glob(f"{number:05}.*"):
        if other != kept:
            other.unlink(missing_ok=True)


def _append_part(folder: Path, part: UploadedPart, incoming: disk.IncomingFile) -> None:
    try:
        incoming.write_from(_part_path(folder, part.number, check_sha256(part.sha256)))
    except FileNotFoundError:
        raise StorageConflict("A part of this upload is missing.", part=part.number) from None
