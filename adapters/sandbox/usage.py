"""What a running sandbox uses: memory and disk, measured from outside, and folders handed to its user.

Invariant: measuring follows no symbolic link and trusts no name; what cannot be measured counts as too much. The
folders are hostile and change while they are read. Everything here blocks and belongs in a thread. What follows from a
figure is the runner's business.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from adapters.sandbox.view import MEMORY_FOLDERS, WORKSPACE

LEAST_FILE_BYTES: Final = 4_096  # an empty file takes an inode, a name and a block of its folder
MEMORY_INODE_BYTES: Final = 1_024  # a file in memory costs the kernel about that, however empty
DEEPEST_FOLDER: Final = 128  # each level holds a descriptor while it is read
MOST_OPEN_FILES: Final = 100_000
COUNTED: Final = frozenset((b"RssAnon", b"RssShmem", b"VmSwap"))  # pages of programs and libraries are shared


class Unmeasurable(Exception):
    """A folder that is too deep or closed to us: nobody can tell what is in it."""


@dataclass(frozen=True, slots=True)
class SandboxView:
    """A running sandbox, seen through its first process. Holds no descriptors: each look opens and closes its own."""

    pid: int
    source: Path

    @classmethod
    def find(cls, outer_pid: int, source: Path) -> SandboxView | None:
        """The sandbox below bubblewrap's outer process; None while it is being set up, or when it is gone."""
        with suppress(psutil.Error):
            for child in psutil.Process(outer_pid).children():
                view = cls(child.pid, source)
                if view._is_there():
                    return view
        return None

    def memory_bytes(self) -> int:
        """Memory of its own that the sandbox takes now: of every process, and of what lies in its memory folders."""
        total = 0
        with self._proc() as proc:
            total += sum(_process_bytes(proc, pid) for pid in _pids(proc))
        for folder in MEMORY_FOLDERS:
            with suppress(OSError):
                space = os.statvfs(f"/proc/{self.pid}/root{folder}")
                total += (space.f_blocks - space.f_bfree) * space.f_frsize
                total += (space.f_files - space.f_ffree) * MEMORY_INODE_BYTES
        return total

    def deleted_bytes(self, devices: frozenset[int]) -> int:
        """Disk held by files on `devices` that have no name any more, but are open. Raises Unmeasurable."""
        held: dict[tuple[int, int], int] = {}
        looked_at = 0
        with self._proc() as proc:
            for found in (found for pid in _pids(proc) for found in _open_files(proc, pid)):
                looked_at += 1
                if looked_at > MOST_OPEN_FILES:
                    raise Unmeasurable
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev in devices:
                    held[found.st_dev, found.st_ino] = found.st_blocks * 512
        return sum(held.values())

    def _is_there(self) -> bool:
        """Whether the process still is the sandbox's: until bubblewrap has moved, its root is the host's."""
        try:
            return os.path.samestat(os.stat(f"/proc/{self.pid}/root{WORKSPACE}"), os.stat(self.source))
        except OSError:
            return False

    @contextmanager
    def _proc(self) -> Iterator[int | None]:
        """The sandbox's own /proc, which lists its processes and no others; None when it is gone."""
        try:
            descriptor = os.open(f"/proc/{self.pid}/root/proc", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            yield None
            return
        try:
            yield descriptor if self._is_there() else None  # a number may come again
        finally:
            os.close(descriptor)


def disk_bytes(folders: list[Path], *, limit_bytes: int) -> int:
    """Disk that folders take, files with several names once; stops counting beyond the limit. Raises Unmeasurable."""
    total = 0
    linked: set[tuple[int, int]] = set()
    for folder in folders:
        for _, _, found in _everything_in(folder):
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            total += max(found.st_blocks * 512, LEAST_FILE_BYTES)
            if total > limit_bytes:
                return total
    return total


def give_to(uid: int, folder: Path) -> None:
    """Make a user and their group the owner of a folder and of all in it. Raises OSError.

    What lies too deep is left out; the first look at the disk ends such a build.
    """
    os.chown(folder, uid, uid, follow_symlinks=False)
    with suppress(Unmeasurable):
        for parent, name, _ in _everything_in(folder):
            os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)


def open_up(folder: Path) -> None:
    """Let our own user read and remove what its build has closed; for after the build, when nobody changes it."""
    os.chmod(folder, 0o700)
    with suppress(Unmeasurable):
        for parent, name, found in _everything_in(folder):
            if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
                os.chmod(name, stat.S_IMODE(found.st_mode) | 0o700, dir_fd=parent)


def _everything_in(folder: Path) -> Iterator[tuple[int, str, os.stat_result]]:
    """Each entry below a folder: its parent's descriptor, its name, what it is; a folder before it is opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except PermissionError:
        raise Unmeasurable from None
    return _everything_below(descriptor, depth=0)


def _everything_below(descriptor: int, *, depth: int) -> Iterator[tuple[int, str, os.stat_result]]:
    try:
        if depth > DEEPEST_FOLDER:
            raise Unmeasurable
        for name in os.listdir(descriptor):
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                continue  # it went away
            yield descriptor, name, found
            if stat.S_ISDIR(found.st_mode):
                try:
                    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                except PermissionError:
                    raise Unmeasurable from None
                except OSError:
                    continue  # it is something else by now
                yield from _everything_below(inner, depth=depth + 1)
    finally:
        os.close(descriptor)


def _pids(proc: int | None) -> list[str]:
    if proc is None:
        return []
    with suppress(OSError):  # the last process took it along
        return [name for name in os.listdir(proc) if name.isdigit()]
    return []


def _process_bytes(proc: int | None, pid: str) -> int:
    try:
        with open(os.open(f"{pid}/status", os.O_RDONLY, dir_fd=proc), "rb") as file:
            fields = [line.partition(b":") for line in file]
    except OSError:
        return 0
    return sum(int(value.split()[0]) * 1_024 for name, _, value in fields if name in COUNTED)


def _open_files(proc: int | None, pid: str) -> Iterator[os.stat_result]:
    try:
        folder = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    except OSError:
        return
    try:
        for name in os.listdir(folder):
            with suppress(OSError):
                yield os.stat(name, dir_fd=folder)
    except OSError:
        return
    finally:
        os.close(folder)
