"""What a build made, read from a hostile folder: which files a site has, what they hold, which rules it brings.

Invariant: nothing outside the folder is read. Folders are opened one below the other without following links
(openat with O_NOFOLLOW), and a link counts only if its text leads, by names alone, to a regular file found that way.
What cannot be part of a site is refused with its path; what is no business of visitors (files and folders whose name
begins with a dot, but `.well-known`, and `node_modules`) is left out and said. Sending it to storage is
`tasks/build/uploads.py`'s.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from models.executions import FailureCode
from models.site_rule_files import (
    HEADERS_FILE,
    MAX_FILE_BYTES,
    REDIRECTS_FILE,
    RuleProblem,
    parse_headers,
    parse_redirects,
)
from models.site_rules import HeaderRule, RedirectRule
from tasks.build.content_types import content_type_of

MAX_DEPTH: Final = 64
MAX_PATH_BYTES: Final = 1_024
SHOWN_PATHS: Final = 5
_MAX_LINK_HOPS: Final = 8
_NAMES_PER_FILE: Final = 4
_NAMES_BEYOND: Final = 10_000
_READ_BYTES: Final = 2**20
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe in the place of a file must not hold us until somebody writes into it.
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_Rule = TypeVar("_Rule")


class ArtifactError(Exception):
    """The output cannot become a site; the message says why and what to do."""

    code: ClassVar[FailureCode] = FailureCode.INVALID_INPUT


class OutputMissing(ArtifactError):
    """There is nothing to publish."""

    code = FailureCode.OUTPUT_MISSING


class OutputTooLarge(ArtifactError):
    """There are more files or bytes than a site may have."""

    code = FailureCode.OUTPUT_TOO_LARGE


class OutputRefused(ArtifactError):
    """There are things that no site can have: links that lead away, devices, names that are no text."""


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file to be served. `source` is where its content lies now, which for a link is its goal."""

    path: str
    size: int
    sha256: bytes
    content_type: str
    source: Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a build made. `notices` are lines for the log: what was left out, and which rules were not understood."""

    files: tuple[ArtifactFile, ...]
    redirects: tuple[RedirectRule, ...]
    headers: tuple[HeaderRule, ...]
    problems: tuple[RuleProblem, ...]
    notices: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


async def collect(output: Path, *, max_bytes: int, max_files: int) -> Artifact:
    """Read the output folder of a build that has ended; raises OutputMissing, OutputTooLarge or OutputRefused."""
    stop = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, _collect, output, max_bytes, max_files, stop)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()  # the folder may be removed once we return: the thread must be out of it
        await asyncio.wait([work])
        raise


@dataclass(slots=True)
class _Findings:
    """What the walk has seen so far."""

    max_bytes: int
    max_files: int
    stop: threading.Event
    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    names: int = 0
    entries: int = 0
    size: int = 0

    def see(self) -> None:
        """Take one more name into account, whatever it is; folders and what is left out are bounded too."""
        self.names += 1
        if self.names > _NAMES_PER_FILE * self.max_files + _NAMES_BEYOND:
            raise self._too_many()

    def count(self, size: int) -> None:
        """Take one more file of this size into account; raises OutputTooLarge."""
        self.entries += 1
        self.size += size
        if self.entries > self.max_files:
            raise self._too_many()
        if self.size > self.max_bytes:
            raise OutputTooLarge(
                f"The output is larger than {_megabytes(self.max_bytes)}. Leave large media out of the site, or host "
                "them elsewhere; source maps and caches need not be published."
            )

    def _too_many(self) -> OutputTooLarge:
        return OutputTooLarge(
            f"The output has more than {self.max_files} files. Publish the built site only; if the folder holds "
            "sources or caches, set the output directory to the folder that the build command fills."
        )


def _collect(output: Path, max_bytes: int, max_files: int, stop: threading.Event) -> Artifact:
    found = _Findings(max_bytes, max_files, stop)
    try:
        root = os.open(output, _FOLDER_FLAGS)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise OutputMissing(
                "The output directory is not there after the build. Set it to the folder that the build command fills."
            ) from error
        raise
    _walk(root, found)
    targets = {path: goal for path in found.links if (goal := _goal(path, found)) is not None}
    for path, goal in targets.items():
        found.count(found.files[goal][0])
        found.files[path] = found.files[goal]
    if found.refused:
        shown = "; ".join(found.refused[:SHOWN_PATHS])
        more = f"; and {len(found.refused) - SHOWN_PATHS} more" if len(found.refused) > SHOWN_PATHS else ""
        raise OutputRefused(f"The output holds what cannot be published: {shown}{more}.")
    files = tuple(
        ArtifactFile(path, size, sha256, content_type_of(path), output / targets.get(path, path))
        for path, (size, sha256) in sorted(found.files.items())
    )
    if not files:
        raise OutputMissing(
            "The output directory is empty. Check that the build command writes into it, and that its name is right."
        )
    redirects, redirect_problems = _rules(REDIRECTS_FILE, found.texts, parse_redirects)
    headers, header_problems = _rules(HEADERS_FILE, found.texts, parse_headers)
    problems = (*redirect_problems, *header_problems)
    return Artifact(files, tuple(redirects), tuple(headers), problems, tuple(_notices(found, files, problems)))


def _walk(root: int, found: _Findings) -> None:
    """Visit all folders; as many are open at once as the present one is deep."""
    waiting: list[tuple[int, str, Iterator[os.DirEntry[str]]]] = [(root, "", iter(()))]
    try:
        waiting[0] = (root, "", _entries(root, found))
        while waiting and not found.stop.is_set():
            folder, prefix, entries = waiting[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(waiting.pop()[0])
            elif (inner := _visit(folder, prefix, entry, depth=len(waiting), found=found)) is not None:
                waiting.append((inner, f"{prefix}{entry.name}/", iter(())))  # first of all it must be closed at the end
                waiting[-1] = (*waiting[-1][:2], _entries(inner, found))
    finally:
        for folder, _, _ in waiting:
            os.close(folder)


def _entries(folder: int, found: _Findings) -> Iterator[os.DirEntry[str]]:
    listed: list[os.DirEntry[str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found.see()
            listed.append(entry)
    return iter(sorted(listed, key=lambda entry: entry.name))


def _visit(folder: int, prefix: str, entry: os.DirEntry[str], *, depth: int, found: _Findings) -> int | None:
    """Take one entry into account; the descriptor of a folder that is to be walked."""
    name, path = entry.name, prefix + entry.name
    if (fault := _name_fault(name, path)) is not None:
        found.refused.append(f"{_shown(path)} ({fault})")
        return None
    if (name.startswith(".") and path != ".well-known") or name == "node_modules":
        if path != ".git":  # every checkout has it, and nobody expects it to be published
            found.left_out.append(path)
        return None
    mode = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(mode.st_mode):
        if depth >= MAX_DEPTH:
            found.refused.append(f"{path} (folders more than {MAX_DEPTH} deep)")
            return None
        return os.open(name, _FOLDER_FLAGS, dir_fd=folder)
    if stat.S_ISLNK(mode.st_mode):
        found.links[path] = os.readlink(name, dir_fd=folder)
    elif stat.S_ISREG(mode.st_mode):
        _read(folder, name, path, found)
    else:
        found.refused.append(f"{path} (not a file: {_kind(mode.st_mode)})")
    return None


def _read(folder: int, name: str, path: str, found: _Findings) -> None:
    try:
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
    except PermissionError:
        found.refused.append(f"{path} (cannot be read)")
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            found.refused.append(f"{path} (not a file: {_kind(status.st_mode)})")
            return
        is_rules = path in {REDIRECTS_FILE, HEADERS_FILE}
        found.count(status.st_size)  # before reading: a sparse file of a terabyte costs nothing to make
        digest = hashlib.sha256()
        kept = bytearray()
        size = 0
        while not found.stop.is_set() and (chunk := os.read(descriptor, _READ_BYTES)):
            digest.update(chunk)
            size += len(chunk)
            if size > status.st_size:
                raise OutputRefused(f"{path} changes while it is read.")
            if is_rules and len(kept) <= MAX_FILE_BYTES:
                kept += chunk
        if is_rules:
            found.texts[path] = bytes(kept)
        else:
            found.files[path] = (size, digest.digest())
    finally:
        os.close(descriptor)


def _goal(path: str, found: _Findings) -> str | None:
    """The regular file that a link leads to, by names alone: no link is ever followed by the system."""
    goal = path
    for _ in range(_MAX_LINK_HOPS):
        text = found.links[goal]
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(goal), text))
        if text.startswith("/") or goal.startswith("../") or goal == "..":
            found.refused.append(f"{_shown(path)} (a link that leads out of the output)")
            return None
        if goal in found.files:
            return goal
        if goal not in found.links:
            break
    found.refused.append(f"{_shown(path)} (a link to no published file)")
    return None


def _name_fault(name: str, path: str) -> str | None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in name) or "\\" in name:
        return "a name with a character that no address has"
    return f"a path of more than {MAX_PATH_BYTES} bytes" if size > MAX_PATH_BYTES else None


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode("ascii")[:200]


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"))
    return next((text for test, text in kinds if test(mode)), "a device")


def _rules(
    name: str, texts: Mapping[str, bytes], parse: Callable[[str], tuple[list[_Rule], list[RuleProblem]]]
) -> tuple[list[_Rule], list[RuleProblem]]:
    data = texts.get(name, b"")
    if len(data) > MAX_FILE_BYTES:
        return [], [RuleProblem(name, 1, f"the file is larger than {_megabytes(MAX_FILE_BYTES)} and is not read")]
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return [], [RuleProblem(name, 1, "the file is not UTF-8 and is not read")]


def _notices(found: _Findings, files: tuple[ArtifactFile, ...], problems: tuple[RuleProblem, ...]) -> Iterator[str]:
    if found.left_out:
        shown = ", ".join(sorted(found.left_out)[:SHOWN_PATHS])
        more = f" and {len(found.left_out) - SHOWN_PATHS} more" if len(found.left_out) > SHOWN_PATHS else ""
        yield f"Not published: {shown}{more} (names that begin with a dot, and node_modules, are left out)."
    if not any(file.path == "index.html" for file in files):
        yield "There is no index.html in the output directory, so the site has no start page."
    for problem in problems:
        yield f"Rule left out: {problem}."


def _megabytes(size: int) -> str:
    return f"{size / 2**20:g} MB"
