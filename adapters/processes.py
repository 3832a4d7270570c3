"""Commands that run as supervised trees of processes, for workers.

Invariant: leaving `async with spawn(...)`, by whatever way, leaves no process of the tree alive; and when this process
dies or freezes, the supervisor (`adapters/deadman.py`) ends the tree by itself, at the latest at the deadline that
`renew` moves. The child's environment is exactly the one given, never ours.

It leaves out what the messages on the pipes mean, memory limits (`memory_bytes` is there to watch them), and the
protection of the host from the child. docs/decisions/0003 says which isolation promises what.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import psutil

from adapters import deadman
from adapters.line_streams import READ_BYTES

START_SECONDS = 15.0  # importing nothing takes 25 ms; a machine in trouble takes longer
KILL_SECONDS = 10.0  # a killed process ends at once, unless it hangs in the kernel
OVERDUE_SECONDS = 5.0  # past its deadline the supervisor itself must be stuck


class Isolation(StrEnum):
    """How the tree is held together, strongest first."""

    PID_NAMESPACE = deadman.PID_NAMESPACE
    SUBREAPER = deadman.SUBREAPER
    PROCESS_GROUP = deadman.PROCESS_GROUP


class EndReason(StrEnum):
    """Why the tree ended."""

    EXITED = deadman.EXITED  # the child ended by itself, or by a signal sent to it
    KILLED = deadman.KILLED  # `kill` was called
    DEADLINE = deadman.DEADLINE  # nobody renewed
    ORPHANED = deadman.ORPHANED  # the owner's pipe closed
    LOST = deadman.LOST  # somebody killed a supervisor


@dataclass(frozen=True)
class Limits:
    """Resource limits of each process of the tree (setrlimit(2)); None leaves ours in place."""

    open_files: int | None = None
    core_bytes: int | None = 0
    file_bytes: int | None = None


@dataclass(frozen=True)
class TreeExit:
    """The end of a tree of which no process is left.

    Exactly one of `exit_code` and `signal` is set, and tells of the child itself. `cpu_milliseconds` is what all of its
    processes took of processors (some ms of it are the supervisor's), `peak_rss_bytes` the largest resident set that
    any one process had (at least some 10 MB, the supervisor's); both are 0 when nobody could tell.
    """

    exit_code: int | None
    signal: int | None
    reason: EndReason
    isolation: Isolation | None
    cpu_milliseconds: int
    peak_rss_bytes: int


class CannotStart(Exception):
    """The command could not be started; `step` is `exec`, `cwd`, `prepare` or `supervisor`."""

    def __init__(self, command: str, *, step: str, errno: int | None) -> None:
        super().__init__(f"cannot start {command}: {os.strerror(errno) if errno else 'no answer'} ({step})")
        self.command = command
        self.step = step
        self.errno = errno


class TreeStillAlive(Exception):
    """The tree was killed, yet its end could not be confirmed in time: treat its work as going on."""


@asynccontextmanager
async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | Path,
    deadline: float,
    limits: Limits = Limits(),
    pass_fds: Sequence[int] = (),
    isolation: Isolation | None = None,
) -> AsyncIterator[ProcessTree]:
    """Start `argv` as a supervised tree, with pipes for stdin, stdout and stderr; leaving the block kills it.

    `deadline` is on the clock of `time.monotonic()`; `math.inf` is none. argv[0] is looked up in the PATH of `env`.
    `pass_fds` keep their numbers in the child. `isolation` is the strongest to try; the best by default.

    Raises CannotStart; on leaving, TreeStillAlive when the end could not be confirmed in KILL_SECONDS.
    """
    order = _order(argv, env, cwd=cwd, deadline=deadline, limits=limits, pass_fds=pass_fds, isolation=isolation)
    tree = ProcessTree(argv[0], deadline=deadline)
    cancelled: asyncio.CancelledError | None = None
    try:
        await tree._start(order, pass_fds)
        yield tree
    except asyncio.CancelledError as error:
        cancelled = error
        raise
    finally:
        tree._send("kill\n")  # at once: the loop may be about to stop
        await _to_the_end(tree._close(), cancelled=cancelled)


class ProcessTree:
    """A running tree. Not thread-safe; made by `spawn` only.

    The pipes push back: what is not read stays with the child, which blocks once 64 KiB of pipe and twice READ_BYTES
    here are full. `stdout` and `stderr` end when the tree has let go of them; `adapters.line_streams` reads them fast.
    """

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    pid: int
    isolation: Isolation | None = None
    private_proc: bool = False

    def __init__(self, command: str, *, deadline: float) -> None:
        self._command = command
        self._patience_until = deadline + OVERDUE_SECONDS
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._control = -1
        self._status = _Status()
        self._transports: list[asyncio.BaseTransport] = []
        self._loose_ends: set[int] = set()
        self._init: psutil.Process | None = None
        self._exit: TreeExit | None = None

    @property
    def ended(self) -> TreeExit | None:
        """The end of the tree once somebody has waited for it, as leaving `spawn` does."""
        return self._exit

    def renew(self, deadline: float) -> None:
        """Move the deadline (`time.monotonic()` seconds); the last call counts.

        One write that never blocks. A supervisor too stuck to read it lets the earlier deadline stand, which errs on
        the safe side; a tree that has ended ignores it.
        """
        if self._send(f"deadline {deadline!r}\n"):
            self._patience_until = deadline + OVERDUE_SECONDS

    def terminate(self) -> None:
        """Send SIGTERM to the child alone; nothing happens once it has ended."""
        self._send("signal TERM\n")

    def interrupt(self) -> None:
        """Send SIGINT to the child alone; nothing happens once it has ended."""
        self._send("signal INT\n")

    async def wait(self) -> TreeExit:
        """Wait for the end of the whole tree, which the deadline bounds.

        Raises TreeStillAlive when the end cannot be confirmed within OVERDUE_SECONDS and KILL_SECONDS after it.
        """
        while not self._status.closed.is_set():
            left = self._patience_until - time.monotonic()
            if left <= 0:
                await self._end_supervisor()
                break
            try:
                async with asyncio.timeout(min(left, 3_600.0)):
                    await self._status.closed.wait()
            except TimeoutError:
                continue  # `renew` may have moved the deadline meanwhile
        if self._exit is None:
            self._exit = await self._read_exit()
        return self._exit

    async def kill(self) -> TreeExit:
        """Kill the whole tree; returns once it is gone, with the true end if that came first.

        Raises TreeStillAlive like `wait`, KILL_SECONDS from now.
        """
        self._send("kill\n")
        self._patience_until = min(self._patience_until, time.monotonic() + KILL_SECONDS / 2)
        return await self.wait()

    async def stop(self, *, grace_seconds: float = 2.0, kill_after_seconds: float = 4.0) -> TreeExit:
        """SIGTERM, a second one after `grace_seconds`, and the kill of the tree `kill_after_seconds` from now.

        The second signal is what Scrapy takes for "now, without finishing the requests under way".
        """
        begun = time.monotonic()
        for patience_until in (begun + grace_seconds, begun + kill_after_seconds):
            self.terminate()
            try:
                async with asyncio.timeout(patience_until - time.monotonic()):
                    return await self.wait()
            except TimeoutError:
                continue
        return await self.kill()

    async def memory_bytes(self) -> int:
        """Resident memory of the tree now, supervisors not counted; pages shared within it count for each process.

        0 once the tree has ended. Reads the table of processes in a thread: some milliseconds, so ask once a second.
        """
        return await asyncio.to_thread(_resident_bytes, self._init) if self._init else 0

    async def _start(self, order: bytes, pass_fds: Sequence[int]) -> None:
        control, status, stdin, stdout, stderr = self._launch(pass_fds)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._connect(lambda: self._status, status)
                self.stdout = await self._connect_reader(stdout)
                self.stderr = await self._connect_reader(stderr)
                self.stdin = await self._connect_writer(stdin)
                os.set_blocking(control, False)
                await _write_all(control, order)
                self._control = control  # from here on messages make sense to the supervisor
                await self._status.started.wait()
        except (TimeoutError, BrokenPipeError):
            raise CannotStart(self._command, step="supervisor", errno=None) from None
        if "failed" in self._status.events:
            failed = self._status.events["failed"]
            raise CannotStart(self._command, step=failed["step"], errno=failed["errno"])
        if "started" in self._status.events:
            started = self._status.events["started"]
            self.pid = started["pid"]
            self.isolation = Isolation(started["isolation"])
            self.private_proc = started["private_proc"]
            try:
                self._init = psutil.Process(started["init_pid"])
            except psutil.NoSuchProcess:
                self._init = None  # the child was that quick
        else:
            # Past its deadline before it began, or the supervisor was killed that early.
            raise CannotStart(self._command, step="supervisor", errno=None)

    def _launch(self, pass_fds: Sequence[int]) -> tuple[int, int, int, int, int]:
        """Start the supervisor: a fork and an exec, about 2 ms; returns our ends of the pipes."""
        child_stdin, stdin = self._pipe()
        stdout, child_stdout = self._pipe()
        stderr, child_stderr = self._pipe()
        status, status_end = self._pipe()
        control_end, control = self._pipe()
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", deadman.__file__, str(control_end), str(status_end)],
            stdin=child_stdin,
            stdout=child_stdout,
            stderr=child_stderr,
            pass_fds=(control_end, status_end, *pass_fds),
            env={},  # /proc/1/environ inside the namespace is the supervisor's
            cwd="/",
            start_new_session=True,
        )
        for descriptor in (child_stdin, child_stdout, child_stderr, status_end, control_end):
            self._close_end(descriptor)
        return control, status, stdin, stdout, stderr

    async def _close(self) -> None:
        """Kill, let go of the pipes, reap the supervisor."""
        if self._control < 0:
            self._release()  # the supervisor has no order yet, reads end-of-file and leaves
        try:
            if self._supervisor is not None:
                await self.kill()
        finally:
            self._release()
            if self._supervisor is not None:
                await asyncio.to_thread(_reap, self._supervisor)

    def _release(self) -> None:
        for transport in self._transports:
            if transport.is_closing():
                continue  # with a dead reader it ends by itself, and asyncio's abort trips over one that has ended
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()  # nobody is left to read what is buffered
            else:
                transport.close()
        for descriptor in list(self._loose_ends):
            self._close_end(descriptor)
        self._control = -1

    async def _end_supervisor(self) -> None:
        """Kill the supervisor, whose death ends the tree without its help."""
        if self._supervisor is not None:
            self._supervisor.kill()
        try:
            async with asyncio.timeout(KILL_SECONDS / 2):
                await self._status.closed.wait()
        except TimeoutError:
            raise TreeStillAlive(f"the supervisor of {self._command} does not end") from None

    async def _read_exit(self) -> TreeExit:
        exited = self._status.events.get("exited")
        if exited is not None:
            return TreeExit(
                exit_code=exited["exit_code"],
                signal=exited["signal"],
                reason=EndReason(exited["reason"]),
                isolation=self.isolation,
                cpu_milliseconds=exited["cpu_milliseconds"],
                peak_rss_bytes=exited["peak_rss_bytes"],
            )
        # The supervisor is dead. Its init ends the tree, and ends itself only after it: in a namespace the kernel
        # sees to that, elsewhere `be_init`.
        limit = time.monotonic() + KILL_SECONDS / 2
        while self._init is not None and await asyncio.to_thread(_is_alive, self._init):
            if time.monotonic() > limit:
                raise TreeStillAlive(f"the tree of {self._command} outlives its supervisor")
            await asyncio.sleep(0.01)
        return TreeExit(
            exit_code=None,
            signal=signal.SIGKILL,
            reason=EndReason.LOST,
            isolation=self.isolation,
            cpu_milliseconds=0,
            peak_rss_bytes=0,
        )

    def _send(self, message: str) -> bool:
        if self._control < 0:
            return False
        try:
            os.write(self._control, message.encode())  # below PIPE_BUF, so all or nothing: pipe(7)
        except (BrokenPipeError, BlockingIOError):
            return False
        return True

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._loose_ends.update(ends)
        return ends

    def _close_end(self, descriptor: int) -> None:
        self._loose_ends.discard(descriptor)
        os.close(descriptor)

    async def _connect(self, protocol: Any, descriptor: int) -> None:
        self._loose_ends.discard(descriptor)  # the transport closes it
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(protocol, _unbuffered(descriptor, "rb"))
        self._transports.append(transport)

    async def _connect_reader(self, descriptor: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=READ_BYTES)
        await self._connect(lambda: asyncio.StreamReaderProtocol(reader), descriptor)
        return reader

    async def _connect_writer(self, descriptor: int) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        self._loose_ends.discard(descriptor)
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), _unbuffered(descriptor, "wb")
        )
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, loop)


class _Status(asyncio.Protocol):
    """What the supervisor says, by event."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.started = asyncio.Event()
        self.closed = asyncio.Event()
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.events[message["event"]] = message
            self.started.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.started.set()
        self.closed.set()


def _order(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: str | Path,
    deadline: float,
    limits: Limits,
    pass_fds: Sequence[int],
    isolation: Isolation | None,
) -> bytes:
    """The start message of the deadman's protocol; raises ValueError for a text that no system call could carry."""
    fields = [f"argv:{argument}" for argument in argv]
    fields += [f"env:{name}={value}" for name, value in env.items()]
    fields += [f"cwd:{cwd}", f"deadline:{deadline!r}", f"isolation:{isolation or ''}"]
    fields += [f"keep:{descriptor}" for descriptor in pass_fds]
    for name, value in (("NOFILE", limits.open_files), ("CORE", limits.core_bytes), ("FSIZE", limits.file_bytes)):
        if value is not None:
            fields.append(f"limit:{name}={value}")
    if any("\0" in field for field in fields) or any(not name or "=" in name for name in env) or math.isnan(deadline):
        raise ValueError("an argument or a variable holds NUL, a variable's name is empty or holds =, or no deadline")
    record = os.fsencode("\0".join(fields))
    return b"start %d\n" % len(record) + record


async def _write_all(descriptor: int, data: bytes) -> None:
    """Write to a non-blocking pipe, which takes 64 KiB at a time."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(descriptor, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(descriptor)


async def _to_the_end(cleanup: Coroutine[Any, Any, None], *, cancelled: asyncio.CancelledError | None) -> None:
    """Await a bounded clean-up whole; a cancellation, earlier or meanwhile, takes effect after it and wins."""
    task = asyncio.ensure_future(cleanup)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception() or cancelled.__cause__  # it may carry what failed inside
    task.result()


def _unbuffered(descriptor: int, mode: str) -> IO[Any]:
    return open(descriptor, mode, 0)


def _resident_bytes(init: psutil.Process) -> int:
    total = 0
    try:
        for process in init.children(recursive=True):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _reap(supervisor: subprocess.Popen[bytes]) -> None:
    """Collect the supervisor, which has closed its pipes and is about to end."""
    try:
        supervisor.wait(timeout=KILL_SECONDS / 2)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait(timeout=KILL_SECONDS / 2)
