"""Blocking work of the local driver: files on disk, to be called from its threads, never from the event loop.

    objects/<2 hex>/<group>/<key hash>.json          the record: its presence makes the object visible
    objects/<2 hex>/<group>/<key hash>.<random>      the content, never changed once it is there
    incoming/<random>                                what is being written
    multipart/<upload>/{upload.json, <number>.<sha256>}

Invariant: the record is renamed into place last and removed first, so that a crash leaves at most content that
nobody refers to. Names are hashes, so keys of any script, case or length live on any file system. Writers of one
shard take turns by a lock on its folder, which other processes respect too; readers never wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex

from adapters.storage.contract import StorageConflict, StorageUnavailable

COPY_BYTES = 2**20
ABANDONED_INCOMING_SECONDS = 86_400
ABANDONED_MULTIPART_SECONDS = 7 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of an object; `content` names its file beside the record."""

    key: str
    size: int
    sha256: str
    content_type: str
    content: str


class IncomingFile:
    """A file being written, with its running size and hash.

    The lock lets `discard` follow a cancelled call whose thread still runs: threads cannot be stopped, and a
    descriptor closed under a write might already belong to someone else.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / token_hex(16)
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_over = False
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Hex digest of what has been written so far."""
        return self._hash.hexdigest()

    def write(self, *chunks: bytes | memoryview) -> None:
        """Append; the file is made by the first call."""
        for chunk in chunks:
            with self._lock:
                descriptor = self._open()
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                self._hash.update(chunk)
                self.size += len(chunk)

    def write_from(self, path: Path) -> None:
        """Append the content of another file."""
        with path.open("rb") as source:
            while chunk := source.read(COPY_BYTES):
                self.write(chunk)

    def finish(self) -> None:
        """Make what was written survive a power failure."""
        with self._lock:
            os.fsync(self._open())
            self._close()

    def move(self, target: Path) -> None:
        """Give the finished file its name; `discard` then leaves it alone."""
        with self._lock:
            if self._is_over:
                raise OSError("The file was discarded meanwhile.")
            os.rename(self._path, target)
            self._is_over = True

    def discard(self) -> None:
        """Remove the file unless it was moved; whatever is called later fails."""
        with self._lock:
            self._close()
            if not self._is_over:
                self._is_over = True
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._is_over:
            raise OSError("The file was discarded meanwhile.")
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class ContentFile:
    """An object's content, open for reading; it stays whole even if the object is replaced or deleted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_closed = False

    def open(self, objects: Path, key: str) -> Record | None:
        """Open the content of `key` and return its record, or None when there is no such object."""
        path = record_path(objects, key)
        seen: Record | None = None
        while (record := read_record(path)) is not None:
            try:
                with self._lock:
                    if self._is_closed:
                        raise OSError("The file was closed meanwhile.")
                    self._descriptor = os.open(path.with_name(record.content), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                # Replaced between the two reads: the new record tells. The same one again means a damaged folder.
                if record == seen:
                    raise StorageUnavailable("The content of this file is missing from the store.") from None
                seen = record
            else:
                return record
        return None

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; never none before the end."""
        with self._lock:
            if self._descriptor is None:
                raise OSError("The file was closed meanwhile.")
            chunk = os.pread(self._descriptor, length, offset)
        if not chunk:
            raise StorageUnavailable("The content of this file is shorter than its record says.")
        return chunk

    def close(self) -> None:
        """Close; closing twice is fine."""
        with self._lock:
            self._is_closed = True
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)


def record_path(objects: Path, key: str) -> Path:
    """Where the record of `key` is or would be."""
    return _group_folder(objects, _group(key)) / f"{_hash(key)}.json"


def read_record(path: Path) -> Record | None:
    """The record in this file, or None when there is none."""
    try:
        return Record(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def publish(objects: Path, key: str, incoming: IncomingFile, *, content_type: str, overwrite: bool) -> Record:
    """Make an incoming file the object `key`; raises StorageConflict when it exists and may not be overwritten."""
    target = record_path(objects, key)
    record = Record(
        key=key,
        size=incoming.size,
        sha256=incoming.sha256,
        content_type=content_type,
        content=f"{target.stem}.{token_hex(8)}",
    )
    content = target.with_name(record.content)
    incoming.finish()
    entry = IncomingFile(objects.parent / "incoming")
    try:
        entry.write(json.dumps(asdict(record), ensure_ascii=False).encode())
        entry.finish()
        with _locked(target.parent.parent):
            replaced = read_record(target)
            if replaced is not None and not overwrite:
                raise StorageConflict("A file with this key exists already.")
            target.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                incoming.move(content)
                entry.move(target)
                _sync_folder(target.parent)
                _sync_folder(target.parent.parent)
            except OSError:
                if read_record(target) == replaced:
                    content.unlink(missing_ok=True)
                raise
            if replaced is not None:
                target.with_name(replaced.content).unlink(missing_ok=True)
    finally:
        entry.discard()
    return record


def remove(objects: Path, key: str) -> None:
    """Delete an object, and its folder with the last one; no object is fine."""
    target = record_path(objects, key)
    if not target.parent.parent.exists():
        return
    with _locked(target.parent.parent):
        record = read_record(target)
        if record is None:
            return
        target.unlink()
        target.with_name(record.content).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            target.parent.rmdir()


def group_folders(objects: Path, prefix: str) -> list[Path]:
    """Folders that may hold keys with this prefix: one if it names the first two segments, else all of them."""
    if prefix.count("/") >= 2:
        return [_group_folder(objects, _group(prefix))]
    return [Path(group.path) for shard in os.scandir(objects) for group in os.scandir(shard.path)]


def matching_records(folder: Path, prefix: str) -> list[Record]:
    """Records in one folder whose key starts with `prefix`, in no order."""
    try:
        paths = [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(".json")]
    except FileNotFoundError:
        return []
    records = (read_record(path) for path in paths)
    return [record for record in records if record is not None and record.key.startswith(prefix)]


def prepare(root: Path, *, now: Callable[[], float] = time.time) -> None:
    """Make the folders, and clear what crashes left behind long ago."""
    for name in ("objects", "incoming", "multipart"):
        (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder, seconds in (("incoming", ABANDONED_INCOMING_SECONDS), ("multipart", ABANDONED_MULTIPART_SECONDS)):
        for leftover in (root / folder).iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process clears too
                if leftover.stat().st_mtime < now() - seconds:
                    forget(leftover)


def forget(path: Path) -> None:
    """Remove a file or a folder with all in it; none is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _group(key: str) -> str:
    # Whatever shares its first two segments lies together, so that listing one run or one deployment reads one folder.
    return "/".join(key.split("/")[:-1][:2])


def _group_folder(objects: Path, group: str) -> Path:
    digest = _hash(group)
    return objects / digest[:2] / digest[2:34]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
