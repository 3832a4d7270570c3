"""The practice repository: a small site to deploy first, cloned from the practice site over smart HTTP.

    with practice_repository.made() as repository:
        repository.answer("GET", "/git/garden/info/refs?service=git-upload-pack", {}, b"")

Git's own server program answers, one process per request, with an environment of ours, for so long and so many at once
and no longer. Only what a clone asks for is passed on, in our spelling: nothing can be pushed and no other path be
read. The commits are the same for everybody, hashes included. It leaves out the HTTP server, which is
`tasks/crawl/practice_site.py`, and what grows in the garden, which is `practice_garden`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from tasks.build.practice_garden import COMMITS, MAIN, GardenCommit

NAME: Final = "garden"
PREFIX: Final = f"/git/{NAME}"
REQUEST_BYTES: Final = 65_536
"""Largest body of a request; what a clone asks for takes less than a kilobyte."""

ANSWER_SECONDS: Final = 10.0
ANSWERS_AT_ONCE: Final = 4
_AUTHOR: Final = "The gardener <gardener@garden.example>"
_FIRST_COMMIT_TIME: Final = 1_750_000_000
_COMMAND_SECONDS: Final = 20.0
_UPLOAD: Final = "application/x-git-upload-pack-request"


class NoRepository(Exception):
    """There is no practice repository on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request gets: status, headers without the length, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PracticeRepository:
    """The repository on disk, and `commits`: branch, hash and message of each, oldest first."""

    git: str
    folder: Path
    commits: Sequence[tuple[str, str, str]]
    answer_seconds: float = ANSWER_SECONDS
    _turns: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(ANSWERS_AT_ONCE))

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What git's server program says to a request below PREFIX; blocks for `answer_seconds` at most."""
        environment = _request(method, target, headers)
        if isinstance(environment, Answer):
            return environment
        if not self._turns.acquire(blocking=False):
            return _plain(503, "Too many clones at once.")
        try:
            said = _run(
                [self.git, "http-backend"],
                {
                    **_environment(self.git),
                    **environment,
                    "GIT_PROJECT_ROOT": str(self.folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "CONTENT_LENGTH": str(len(body)),
                },
                body,
                self.answer_seconds,
            )
        except subprocess.TimeoutExpired:
            return _plain(504, "Git took too long.")
        finally:
            self._turns.release()
        return _parsed(said)


@contextmanager
def made(folder: Path | None = None) -> Iterator[PracticeRepository]:
    """The repository, made anew in `folder`, or in a temporary one that goes afterwards.

    Raises NoRepository where git cannot make it.
    """
    git = shutil.which("git")
    if git is None:
        raise NoRepository("git is not installed")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="switchyard-practice-")))
        place = folder / f"{NAME}.git"
        start = ("init", "--quiet", "--bare", "--template=", "--object-format=sha1", f"--initial-branch={MAIN}")
        fill = ("-C", str(place), "fast-import", "--quiet", "--done")
        try:
            shutil.rmtree(place, ignore_errors=True)
            _run([git, *start, "--", str(place)], _environment(git), b"", _COMMAND_SECONDS, must_succeed=True)
            hashes = _run([git, *fill], _environment(git), _stream(COMMITS), _COMMAND_SECONDS, must_succeed=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise NoRepository(f"git cannot make it ({error})") from error
        commits = [
            (commit.branch, name, commit.message)
            for commit, name in zip(COMMITS, hashes.decode("ascii").split(), strict=True)
        ]
        yield PracticeRepository(git=git, folder=folder, commits=commits)


def _request(method: str, target: str, headers: Mapping[str, str]) -> dict[str, str] | Answer:
    """The request as CGI variables (RFC 3875), or a refusal."""
    parts = urlsplit(target)
    place = parts.path.removeprefix(PREFIX).removeprefix(".git")
    known = {name.lower(): value for name, value in headers.items()}
    if "git-receive-pack" in target:
        return _plain(403, "The practice repository can only be read.")
    if (method, place, parts.query) == ("GET", "/info/refs", "service=git-upload-pack"):
        variables = {"QUERY_STRING": parts.query}
    elif (method, place, parts.query) == ("POST", "/git-upload-pack", ""):
        if known.get("content-type") != _UPLOAD:
            return _plain(415, f"Send {_UPLOAD}.")
        variables = {"CONTENT_TYPE": _UPLOAD, "QUERY_STRING": ""}
        if known.get("content-encoding") in {"gzip", "x-gzip"}:
            variables["HTTP_CONTENT_ENCODING"] = "gzip"
    else:
        return _plain(404, "There is nothing here to clone.")
    if re.fullmatch(r"version=[0-2]", known.get("git-protocol", "")):
        variables["GIT_PROTOCOL"] = known["git-protocol"]
    return {**variables, "REQUEST_METHOD": method, "PATH_INFO": f"/{NAME}.git{place}"}


def _environment(git: str) -> dict[str, str]:
    """What every git gets: nothing of this process's own, no configuration of the machine's or the person's."""
    return {
        "PATH": f"{Path(git).parent}{os.pathsep}{os.defpath}",
        "LC_ALL": "C",
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdin: bytes,
    seconds: float,
    *,
    must_succeed: bool = False,
) -> bytes:
    """What a program prints; past `seconds` all that it started ends, and TimeoutExpired is raised."""
    process = subprocess.Popen(  # noqa: S603 - git, with arguments of ours
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        try:
            output, _ = process.communicate(stdin, timeout=seconds)
        except BaseException:
            # Its children hold the pipes open, so ending it alone would not end the wait for it.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if must_succeed and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return output


def _parsed(said: bytes) -> Answer:
    head, separator, body = said.partition(b"\r\n\r\n")
    if not separator:
        return _plain(502, "Git said nothing.")
    status, headers = 200, {}
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name] = value.strip()
    return Answer(status, headers, body)


def _plain(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())


def _stream(commits: Sequence[GardenCommit]) -> bytes:
    """The commits for git-fast-import(1), one day apart; it answers with the hash of each."""
    lines: list[bytes] = []
    for number, commit in enumerate(commits, start=1):
        moment = f"{_AUTHOR} {_FIRST_COMMIT_TIME + number * 86_400} +0000"
        lines.append(f"commit refs/heads/{commit.branch}\nmark :{number}\n".encode())
        lines.append(f"author {moment}\ncommitter {moment}\n".encode() + _data(commit.message))
        if number > 1:
            lines.append(f"from :{number - 1}\n".encode())
        lines.append(b"deleteall\n")
        for path, content in commit.files.items():
            mode = "100755" if path.endswith(".sh") else "100644"
            lines.append(f"M {mode} inline {path}\n".encode() + _data(content))
        lines.append(f"get-mark :{number}\n".encode())
    return b"".join([*lines, b"done\n"])


def _data(text: str) -> bytes:
    content = text.encode()
    return b"data %d\n%b\n" % (len(content), content)
