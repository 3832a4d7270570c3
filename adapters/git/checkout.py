"""Reads files of a checkout, whose content is hostile, from outside its sandbox.

Invariant: a read never leaves the checkout, never waits and never takes more than the bytes asked for, whatever links,
pipes or devices a repository or a build left there. Each folder on the way is opened by its own name below the one
before, without following links, so a folder that is swapped for a link meanwhile opens nothing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from adapters.git.names import check_commit
from errors import ValidationFailed

COMMIT_FILE = ".git/switchyard-commit"
COMMIT_BYTES = 65_536
NAME_CHARACTERS = 200
MESSAGE_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a commit says of itself; names and message are the author's words, cut to a sane length."""

    hash: str
    author_name: str
    author_email: str
    committed_at: datetime | None
    message: str

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A file that is there, but has more bytes than the reader takes."""


class NoCommit(Exception):
    """The checkout has no readable facts about its commit: the clone phase did not end well."""


def read_commit(source: Path) -> Commit:
    """The commit that the clone phase checked out in `source`; blocks on the disk. Raises NoCommit."""
    content = read_file(source, COMMIT_FILE, limit_bytes=COMMIT_BYTES)
    if not isinstance(content, bytes):
        raise NoCommit(f"{COMMIT_FILE} is missing")
    fields = content.decode("utf-8", "replace").split("\0", 4)
    try:
        commit_hash, author_name, author_email, seconds, message = fields
        check_commit(commit_hash)
    except (ValueError, ValidationFailed):
        raise NoCommit(f"{COMMIT_FILE} is malformed") from None
    return Commit(
        hash=commit_hash,
        author_name=author_name[:NAME_CHARACTERS],
        author_email=author_email[:NAME_CHARACTERS],
        committed_at=_moment(seconds),
        message=message.partition("\0")[0].strip()[:MESSAGE_CHARACTERS],
    )


def read_file(folder: Path, name: str, *, limit_bytes: int) -> bytes | TooLarge | None:
    """A regular file below `folder`, by a relative POSIX path; None when there is none that is not behind a link.

    `folder` itself is trusted. Blocks on the disk.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return None
    directory = _open_folder(folder, parts[:-1])
    if directory is None:
        return None
    try:
        # O_NONBLOCK: a pipe opens without its other end.
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except (OSError, ValueError):
        return None
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        content = file.read(limit_bytes + 1)
    return content if len(content) <= limit_bytes else TooLarge()


def is_folder(folder: Path, name: str) -> bool:
    """Whether a folder that is not behind a link is at a relative POSIX path. Blocks on the disk."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        return False
    directory = _open_folder(folder, parts)
    if directory is None:
        return False
    os.close(directory)
    return True


def _open_folder(folder: Path, parts: tuple[str, ...]) -> int | None:
    """A descriptor of a folder, to be closed by the caller."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    for part in parts:
        try:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except (OSError, ValueError):
            return None
        finally:
            os.close(directory)
        directory = inner
    return directory


def _moment(seconds: str) -> datetime | None:
    """None for the times before Christ and after the year 9999 that commits may have."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
