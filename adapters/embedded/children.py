"""Child processes that never outlive us, folders that only one of us uses, and what a crash left behind.

Everything that `switchyard run` and the tests start goes through `spawn`, whose child is told to end when we
end, however we end. Objects here are bound to no event loop: a server started in one may be stopped in another.
The caller's thread is the one whose end the kernel watches, so spawn from a thread that lives as long as the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_ROTATE_BYTES = 16 * 2**20
NOBODY = 65534


class EmbeddedError(Exception):
    """A service of this machine cannot run; the message says why and what to do, for the person at the terminal."""


class FolderBusy(EmbeddedError):
    """Another process uses the folder."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a child runs as, in the words of the launcher; `uid` and `gid` when its files must change hands."""

    argument: str
    uid: int | None = None
    gid: int | None = None


SAME = Identity("same")
NAMESPACE = Identity("namespace")


def user(uid: int, gid: int) -> Identity:
    """The identity of another user; only root can take it."""
    return Identity(f"{uid}:{gid}", uid, gid)


def identities(folder: Path) -> list[Identity]:
    """Whom a server of this folder may run as, best first.

    Root is replaced by the folder's owner, else by a user of a namespace of its own, else by `nobody`:
    PostgreSQL refuses to run as root, and no server needs to.
    """
    if os.geteuid() != 0:
        return [SAME]
    owner = folder.stat()
    if owner.st_uid != 0:
        return [user(owner.st_uid, owner.st_gid)]
    return [NAMESPACE, user(NOBODY, NOBODY)] if sys.platform == "linux" else [user(NOBODY, NOBODY)]


def hand_over(folder: Path, identity: Identity) -> None:
    """Give a folder and all in it to the identity, where that is another user."""
    if identity.uid is None or identity.gid is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def spawn(
    argv: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    identity: Identity = SAME,
    output: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in `folder`, in a session of its own, to get `death_signal` when this thread ends.

    `output` takes both its streams; None means ours. argv[0] is an absolute path.
    """
    return subprocess.Popen(  # noqa: S603 — callers pass programs of ours, never a client's text
        [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            str(os.getpid()),
            str(int(death_signal)),
            identity.argument,
            str(folder),
            *map(str, argv),
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=dict(environment),
        start_new_session=True,  # Ctrl-C reaches us alone: we end our children in order
    )


async def exited(process: subprocess.Popen[bytes], *, poll_seconds: float = 0.01) -> int:
    """Wait for a process to end, for as long as it takes; its code, negative for a signal."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 — no event exists that any loop could wait for
        await asyncio.sleep(poll_seconds)
    return code


async def end(process: subprocess.Popen[bytes], steps: Iterable[tuple[signal.Signals, float]]) -> int:
    """Send each signal in turn and give it its seconds; what still lives then, or on cancellation, is killed."""
    try:
        for number, seconds in steps:
            if process.poll() is not None:
                break
            process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await exited(process)
    finally:
        kill_group(process)
    return process.wait(timeout=10)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process of ours and its group, at once; nothing happens when it has ended."""
    if process.poll() is not None:
        return  # the number may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """An exit code in words: `exit code 3` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def leftovers(folder: Path, names: frozenset[str], recorded_pid: int | None) -> list[psutil.Process]:
    """Servers that still work in the folder.

    A server's working directory is its data folder, which tells it from a stranger that got an old server's
    process id. Where another user's directory cannot be read, the recorded id and the name decide. A zombie has
    no directory and is none.
    """
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] not in names:
            continue
        try:
            if Path(process.cwd()) == folder:
                found.append(process)
        except psutil.AccessDenied:
            if process.pid == recorded_pid:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def stop_leftovers(folder: Path, names: frozenset[str], pid_file: Path, stop_signal: signal.Signals) -> None:
    """End what a crash of our predecessor left running in the folder, then remove its pid file.

    Call it with the folder's lock held. Raises EmbeddedError when a process survives 20 seconds of it.
    """
    recorded_pid = _recorded_pid(pid_file)
    asked: set[int] = set()
    began = time.monotonic()
    while found := leftovers(folder, names, recorded_pid):
        waited = time.monotonic() - began
        if waited > 20:
            raise EmbeddedError(f"process {found[0].pid} still works in {folder} and does not end; stop it by hand")
        pids = {process.pid for process in found}
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                if waited > 10:
                    process.kill()
                elif process.pid not in asked and process.ppid() not in pids:
                    asked.add(process.pid)
                    process.send_signal(stop_signal)
        await asyncio.sleep(0.02)
    _forget(pid_file)


def _forget(pid_file: Path) -> None:
    pid_file.unlink(missing_ok=True)


def _recorded_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


class FolderLock:
    """A folder that one process at a time may use; the kernel gives it back however that process ends."""

    def __init__(self, folder: Path, *, what: str) -> None:
        """Take the lock or raise FolderBusy, which names the holder."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise FolderBusy(
                f"{what} already runs in {folder} (process {holder or 'unknown'}); stop it or choose another folder"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode("ascii"))

    def release(self) -> None:
        """Give the folder back."""
        os.close(self._file)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; it may be taken before it is used, so check who answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def private_text(path: Path, default: str | None = None) -> str:
    """The text of a file only we can read; made with `default`, or with a random password, when missing.

    It is written whole or not at all: a crash in between leaves no empty secret.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip()
    text = secrets.token_urlsafe(24) if default is None else default
    replace_private(path, text + "\n")
    return text


def replace_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def open_log(path: Path) -> IO[bytes]:
    """A log file to append to; one that has grown large is put aside first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_ROTATE_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def log_tail(path: Path, since_byte: int, lines: int = 12) -> str:
    """The last lines that a log got after `since_byte`."""
    with path.open("rb") as file:
        file.seek(since_byte)
        text = file.read()[-8192:].decode("utf-8", "replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def copy_folder(program: Path, parent: Path) -> Path:
    """Where a copy of this very program's installation goes: an upgraded one gets a folder of its own."""
    about = program.stat()
    return parent / f"{about.st_size}-{int(about.st_mtime)}"


def readable_copy(root: Path, parts: Iterable[str], target: Path) -> None:
    """Copy folders of an installation to where another user can read them, once; older copies go."""
    if target.exists():
        return
    shutil.rmtree(target.parent, ignore_errors=True)
    draft = target.with_name("new")
    for part in parts:
        shutil.copytree(root / part, draft / part, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    draft.replace(target)
