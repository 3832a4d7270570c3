"""Folders as streams of tar, out of this machine and into it, for runners whose builds live elsewhere.

Invariant: packing opens nothing but regular files below the folder and follows no link; unpacking writes nothing
outside the folder, whatever the archive says: every step of a path is opened without following links, and the number
of members, their sizes and their names are bounded before anything is read. Memory is bounded by `CHUNK_BYTES` and
`HEADER_BYTES`, not by the archive. It leaves out compression, owners, times, and what the files mean.

The reader is our own because `tarfile` reads extended headers of any declared size into memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

CHUNK_BYTES: Final = 256 * 1024
BLOCK_BYTES: Final = 512
END_BYTES: Final = 2 * BLOCK_BYTES
HEADER_BYTES: Final = 64 * 1024  # an extended header; a path has at most 4 KiB
TRAILER_BYTES: Final = 1024 * 1024  # tar fills its last record with zeros: 10 KiB, by -b up to 1 MiB
PATH_BYTES: Final = 4_096
PATH_DEPTH: Final = 256

REGULAR: Final = frozenset({b"0", b"\0", b"7"})
HARD_LINK, SYMBOLIC_LINK, DIRECTORY, FIFO = b"1", b"2", b"5", b"6"
GNU_LONG_NAME, GNU_LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
EXTENDED: Final = frozenset({GNU_LONG_NAME, GNU_LONG_LINK, PAX, PAX_GLOBAL})

Answer = TypeVar("Answer")


class ArchiveRefused(Exception):
    """The archive is malformed, incomplete, or would leave its folder; what was unpacked so far must be dropped."""


class ArchiveTooLarge(ArchiveRefused):
    """More members or more bytes than allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of an archive: content of all files together, and members of every kind."""

    content_bytes: int
    members: int = 500_000


@dataclass(frozen=True, slots=True)
class PackedFolder:
    """A folder, None for an empty one, and the name that it has in the archive, such as `source`."""

    folder: Path | None
    name: str


async def pack(folders: Sequence[PackedFolder], *, owner: int) -> AsyncGenerator[bytes, None]:
    """The folders as one tar archive, everything in it owned by `owner`, in chunks of about CHUNK_BYTES.

    Links are packed as links; sockets, devices and pipes are left out. Raises OSError, and ArchiveRefused when a file
    changes its size meanwhile. Close the generator when leaving early.
    """
    chunks = _archive(folders, owner)
    try:
        while chunk := await in_thread(next, chunks, b""):
            yield chunk
    finally:
        chunks.close()


async def packed_bytes(folders: Sequence[PackedFolder], *, owner: int) -> int:
    """How long the archive of `pack` is, as long as nobody changes the folders."""

    def measure() -> int:
        return sum(len(member.header) + member.size + member.padding for member in _members(folders, owner))

    return await in_thread(measure) + END_BYTES


async def unpack(chunks: AsyncIterable[bytes], folder: Path, limits: ArchiveLimits, *, strip: int = 0) -> bool:
    """Unpack an archive into a new folder; False, and no folder, when its first member is no directory.

    `strip` components are taken from the front of every path, and what has no more is left out. Nothing keeps a mode
    but the right to execute. Links are made as they are, and never followed. Raises ArchiveRefused; on any error the
    caller removes the folder.
    """
    reader = await in_thread(_Unpacking, folder, limits, strip)
    try:
        async for chunk in chunks:
            await in_thread(reader.feed, chunk)
        return await in_thread(reader.finish)
    finally:
        reader.close()


async def in_thread(work: Callable[..., Answer], *arguments: object) -> Answer:
    """Run blocking work in a thread; a cancellation waits for its end, so that nothing is touched afterwards."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # the cancellation wins
        raise


# -- packing


@dataclass(frozen=True, slots=True)
class _Packed:
    """One member: its header, and where its content is; `size` is 0 for what has none."""

    header: bytes
    path: str
    size: int

    @property
    def padding(self) -> int:
        return -self.size % BLOCK_BYTES


def _archive(folders: Sequence[PackedFolder], owner: int) -> Generator[bytes, None, None]:
    """The archive in chunks worth a turn of the event loop."""
    held = bytearray()
    for member in _members(folders, owner):
        held += member.header
        if member.size:
            for piece in _content(member.path, member.size):
                held += piece
                if len(held) >= CHUNK_BYTES:
                    yield bytes(held)
                    held.clear()
            held += bytes(member.padding)
    yield bytes(held + bytes(END_BYTES))


def _members(folders: Sequence[PackedFolder], owner: int) -> Iterator[_Packed]:
    for packed in folders:
        if packed.folder is None:
            empty = tarfile.TarInfo(packed.name)
            empty.type, empty.mode, empty.uid, empty.gid = tarfile.DIRTYPE, 0o755, owner, owner
            yield _Packed(empty.tobuf(tarfile.GNU_FORMAT), "", 0)
    waiting = [(os.fspath(packed.folder), packed.name) for packed in folders if packed.folder is not None]
    while waiting:
        path, name = waiting.pop()
        status = os.lstat(path)
        member = tarfile.TarInfo(name)
        member.mtime = int(status.st_mtime)
        member.uid = member.gid = owner
        if stat.S_ISDIR(status.st_mode):
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            with os.scandir(path) as entries:
                waiting += [(entry.path, f"{name}/{entry.name}") for entry in entries]
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            member.size = status.st_size
        else:
            continue
        # GNU names keep bytes that are no UTF-8; Go's and busybox' readers know them.
        yield _Packed(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"), path, member.size)


def _content(path: str, size: int) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        left = size
        while left:
            chunk = os.read(descriptor, min(left, CHUNK_BYTES))
            if not chunk:
                raise ArchiveRefused(f"{path} became shorter while it was packed")
            left -= len(chunk)
            yield chunk
    finally:
        os.close(descriptor)


# -- unpacking


@dataclass(slots=True)
class _Member:
    """A header as it stands; `name` and `link` may come from extended headers before it."""

    kind: bytes
    name: bytes
    link: bytes
    size: int
    is_executable: bool


class _Unpacking:
    """Reads an archive that arrives in pieces and writes its members; for one thread at a time."""

    def __init__(self, folder: Path, limits: ArchiveLimits, strip: int) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._limits = limits
        self._strip = strip
        self._held = bytearray()
        self._content_left = 0
        self._padding = 0
        self._file = -1
        self._extended = b""  # its kind while an extended header is read
        self._overrides: dict[str, bytes] = {}
        self._members = 0
        self._content_bytes = 0
        self._is_over = False
        self._trailer_bytes = 0
        self._is_folder: bool | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._is_over:
            self._trailer_bytes += len(chunk)
            if self._trailer_bytes > TRAILER_BYTES:
                raise ArchiveRefused("the archive goes on after its end")
            return
        self._held += chunk
        while self._held and self._step():
            pass

    def finish(self) -> bool:
        """Check that the archive was complete; whether there is a folder."""
        if not self._is_over:
            raise ArchiveRefused("the archive ends too early")
        if not self._is_folder:
            os.rmdir(self._folder)
        return bool(self._is_folder)

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self._file, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._root = -1

    def _step(self) -> bool:
        """Use up some of what is held; False when more is needed."""
        if self._is_over:
            self._held.clear()
        elif self._extended:
            if len(self._held) < self._content_left:
                return False
            self._take_extended(bytes(self._held[: self._content_left]))
            del self._held[: self._content_left]
            self._content_left = 0
        elif self._content_left:
            piece = self._held[: self._content_left]
            if self._file >= 0:
                _write(self._file, piece)
            del self._held[: len(piece)]
            self._content_left -= len(piece)
            if not self._content_left and self._file >= 0:
                os.close(self._file)
                self._file = -1
        elif self._padding:
            skipped = min(self._padding, len(self._held))
            del self._held[:skipped]
            self._padding -= skipped
        elif len(self._held) < BLOCK_BYTES:
            return False
        else:
            block = bytes(self._held[:BLOCK_BYTES])
            del self._held[:BLOCK_BYTES]
            self._take_header(block)
        return True

    def _take_header(self, block: bytes) -> None:
        if not any(block):
            self._is_over = True
            return
        member = _parse(block)
        self._members += 1
        if self._members > self._limits.members:
            raise ArchiveTooLarge(f"the archive has more than {self._limits.members} members")
        self._padding = -member.size % BLOCK_BYTES
        self._content_left = member.size
        if member.kind in EXTENDED:
            if member.size > HEADER_BYTES:
                raise ArchiveRefused("an extended header is too long")
            self._extended = member.kind
            return
        overrides, self._overrides = self._overrides, {}
        member.name = overrides.get("path", member.name)
        member.link = overrides.get("linkpath", member.link)
        if "size" in overrides:
            member.size = _decimal(overrides["size"])
            self._padding = -member.size % BLOCK_BYTES
            self._content_left = member.size
        self._write_member(member)

    def _take_extended(self, content: bytes) -> None:
        kind, self._extended = self._extended, b""
        if kind == GNU_LONG_NAME:
            self._overrides["path"] = content.rstrip(b"\0")
        elif kind == GNU_LONG_LINK:
            self._overrides["linkpath"] = content.rstrip(b"\0")
        elif kind == PAX:
            self._overrides |= _parse_pax(content)

    def _write_member(self, member: _Member) -> None:
        steps = _steps(member.name)
        if member.kind in REGULAR:
            self._content_bytes += member.size
            if self._content_bytes > self._limits.content_bytes:
                raise ArchiveTooLarge(f"the archive holds more than {self._limits.content_bytes} bytes")
        elif member.size and member.kind in (DIRECTORY, HARD_LINK, SYMBOLIC_LINK):
            raise ArchiveRefused("a member without content has a size")
        if self._is_folder is None:
            self._is_folder = member.kind == DIRECTORY
        steps = steps[self._strip :]
        if not steps or not self._is_folder:
            return  # its content, if any, is skipped
        if member.kind == FIFO:
            return
        try:
            if member.kind == DIRECTORY:
                os.close(self._open_folder(steps))
                return
            folder = self._open_folder(steps[:-1])
            try:
                self._make(member, steps[-1], folder)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE):
                raise
            # Something that is there already, a link or a file in place of a folder, a name no system takes.
            raise ArchiveRefused(f"a member cannot be written: {os.strerror(error.errno or 0)}") from None

    def _make(self, member: _Member, name: bytes, folder: int) -> None:
        if member.kind in REGULAR:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(name, flags, 0o755 if member.is_executable else 0o644, dir_fd=folder)
            if not member.size:
                os.close(self._file)
                self._file = -1
        elif member.kind == SYMBOLIC_LINK:
            os.symlink(member.link, name, dir_fd=folder)
        elif member.kind == HARD_LINK:
            target = _steps(member.link)[self._strip :]
            if not target:
                raise ArchiveRefused("a hard link leads out of the folder")
            source = self._open_folder(target[:-1])
            try:
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(source)
        else:
            raise ArchiveRefused("the archive holds a device or an unknown kind of member")

    def _open_folder(self, steps: Sequence[bytes]) -> int:
        """The folder, made where it is missing; no step may be a link."""
        current = os.dup(self._root)
        try:
            for step in steps:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, 0o755, dir_fd=current)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                following = os.open(step, flags, dir_fd=current)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        return current


def _parse(block: bytes) -> _Member:
    """A ustar or old header (POSIX.1-2017, pax, "ustar Interchange Format"), GNU's base-256 numbers included."""
    checksum = _number(block[148:156])
    if checksum != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise ArchiveRefused("a header of the archive is damaged")
    name = block[:100].split(b"\0", 1)[0]
    is_posix = block[257:263] == b"ustar\0"
    if is_posix and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    kind = block[156:157]
    # Old writers mark a directory by its slash alone.
    if kind in REGULAR and name.endswith(b"/"):
        kind = DIRECTORY
    return _Member(
        kind=kind,
        name=name,
        link=block[157:257].split(b"\0", 1)[0],
        size=_number(block[124:136]),
        is_executable=bool(_number(block[100:108]) & 0o100),
    )


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value >= 2**62:
            raise ArchiveRefused("a number of the archive is out of range")
        return value
    digits = field.split(b"\0", 1)[0].strip()
    try:
        value = int(digits or b"0", 8)
    except ValueError:
        raise ArchiveRefused("a number of the archive is malformed") from None
    if value < 0:
        raise ArchiveRefused("a number of the archive is negative")
    return value


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 18:
        raise ArchiveRefused("a size of the archive is malformed")
    return int(digits)


def _parse_pax(content: bytes) -> dict[str, bytes]:
    """The records `<length> <key>=<value>\\n` that matter here (POSIX.1-2017, pax Extended Header)."""
    found: dict[str, bytes] = {}
    while content:
        digits = content.partition(b" ")[0]
        length = _decimal(digits)
        record = content[len(digits) + 1 : length - 1]
        key, equals, value = record.partition(b"=")
        if not equals or not len(digits) + 1 < length <= len(content):
            raise ArchiveRefused("an extended header is malformed")
        if key in (b"path", b"linkpath", b"size"):
            found[key.decode()] = value
        elif key.startswith(b"GNU.sparse."):
            raise ArchiveRefused("sparse members are not read")
        content = content[length:]
    return found


def _steps(name: bytes) -> list[bytes]:
    """The components of a member's path; raises ArchiveRefused for one that could lead elsewhere."""
    steps = [step for step in name.split(b"/") if step not in (b"", b".")]
    if name.startswith(b"/") or b".." in steps or b"\0" in name:
        raise ArchiveRefused("a path of the archive leads out of it")
    if len(name) > PATH_BYTES or len(steps) > PATH_DEPTH:
        raise ArchiveRefused("a path of the archive is too long")
    return steps


def _write(descriptor: int, data: bytearray) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written:])
