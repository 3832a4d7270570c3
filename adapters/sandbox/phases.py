"""One phase of a build under way: its output to the listener, its limits, and how it ended.

Invariant: the listener is called once at a time, and has all of the output before `phase_ended`. A limit that is passed
kills the whole tree. The end is what truly came: a command that succeeded although a limit struck in the same moment
has succeeded, unless the listener had stopped it.

It knows trees and figures only: how the sandbox is made is `bubblewrap`'s business.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from adapters.processes import EndReason, ProcessTree, TreeExit
from adapters.sandbox.contract import BuildListener, BuildSpec, Phase, PhaseEnd, PhaseExit, StopBuild
from adapters.sandbox.usage import SandboxView, Unmeasurable, disk_bytes

READ_BYTES: Final = 64 * 1024
MEMORY_SECONDS: Final = 0.2  # from one look to the next
DISK_SECONDS: Final = 1.0
DISK_SHARE: Final = 4  # looking at a large checkout may take a fifth of the time
RESERVE_BYTES: Final = 256 * 2**20  # what builds leave free for the databases that may share the disk
DRAIN_SECONDS: Final = 30.0  # for the listener to take what was printed before the end
FIRST_ERROR_BYTES: Final = 500
KILLED_CODE: Final = 128 + signal.SIGKILL  # what bubblewrap and shells say of a command that SIGKILL ended


class PhaseWatch:
    """The listener of a build, one call at a time, and the watch over its phases, one after the other."""

    def __init__(self, spec: BuildSpec, listener: BuildListener) -> None:
        self._spec = spec
        self._listener = listener
        self._turn = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._first_error = b""

    async def begin(self, phase: Phase) -> None:
        """Tell the listener; raises StopBuild."""
        self._first_error = b""
        async with self._turn:
            await self._listener.phase_started(phase)

    async def conclude(self, exit: PhaseExit) -> PhaseExit:
        """Tell the listener of the end, and return it; STOPPED instead when the listener wants no more."""
        try:
            async with self._turn:
                await self._listener.phase_ended(exit)
        except StopBuild:
            return PhaseExit(phase=exit.phase, end=PhaseEnd.STOPPED, seconds=exit.seconds)
        return exit

    async def refused(self, target: str, reason: str) -> None:
        """Tell the listener what the egress proxy refused."""
        with _stopping(self._stopped):
            async with self._turn:
                await self._listener.refused(target, reason)

    def first_error(self) -> str:
        """The beginning of what the phase wrote to standard error, on one line."""
        return " ".join(self._first_error.decode(errors="replace").split())

    async def until_end(self, phase: Phase, tree: ProcessTree, egress_spent: asyncio.Event) -> PhaseExit:
        """Watch a tree until nothing of it is left and its output is told; `seconds` are the caller's to fill in."""
        watch = _TreeWatch(tree, self._spec)
        killed_by_kernel = _kernel_kills()
        async with asyncio.TaskGroup() as group:
            pumps = [
                group.create_task(self._pump(tree.stdout, is_error=False)),
                group.create_task(self._pump(tree.stderr, is_error=True)),
            ]
            watchers = [
                group.create_task(watch.after(phase.timeout_seconds)),
                group.create_task(watch.on(self._stopped, PhaseEnd.STOPPED)),
                group.create_task(watch.on(egress_spent, PhaseEnd.EGRESS_LIMIT)),
                group.create_task(watch.memory()),
                group.create_task(watch.disk()),
            ]
            ended = await tree.wait()
            for task in watchers:
                task.cancel()
            # The tree has let go of its pipes, so what is left in them is little; a listener may hang all the same.
            await asyncio.wait(pumps, timeout=DRAIN_SECONDS)
            for task in pumps:
                task.cancel()
        if self._stopped.is_set():
            watch.end = PhaseEnd.STOPPED
        elif watch.end is None and egress_spent.is_set():
            watch.end = PhaseEnd.EGRESS_LIMIT  # the command failed of it before we could end it
        elif watch.end is None and _was_killed(ended) and _kernel_kills() > killed_by_kernel:
            watch.end = PhaseEnd.OUT_OF_MEMORY
        elif watch.end is None and await watch.left_too_much():
            watch.end = PhaseEnd.DISK_FULL
        end = watch.verdict(ended)
        return PhaseExit(
            phase=phase.name,
            end=end,
            exit_code=ended.exit_code if end is PhaseEnd.EXITED else None,
            signal=ended.signal if end is PhaseEnd.EXITED else None,
            peak_memory_bytes=max(watch.peak_memory_bytes, ended.peak_rss_bytes),
        )

    async def _pump(self, stream: asyncio.StreamReader, *, is_error: bool) -> None:
        while data := await stream.read(READ_BYTES):
            if is_error and len(self._first_error) < FIRST_ERROR_BYTES:
                self._first_error += data[:FIRST_ERROR_BYTES]
            with _stopping(self._stopped):
                async with self._turn:
                    if not self._stopped.is_set():
                        await self._listener.output(data, is_error=is_error)


@contextmanager
def _stopping(stopped: asyncio.Event) -> Iterator[None]:
    try:
        yield
    except StopBuild:
        stopped.set()


class _TreeWatch:
    """The limits of one tree; the first that is passed kills it and is the end."""

    def __init__(self, tree: ProcessTree, spec: BuildSpec) -> None:
        self.end: PhaseEnd | None = None
        self.peak_memory_bytes = 0
        self._tree = tree
        self._limits = spec.limits
        self._folders = [folder for folder in (spec.source, spec.cache) if folder is not None]
        self._view: SandboxView | None = None

    def verdict(self, ended: TreeExit) -> PhaseEnd:
        """How it ended; a command that got through in the moment when it was found late or too large got through."""
        succeeded = ended.reason is EndReason.EXITED and ended.exit_code == 0
        if self.end is None or (succeeded and self.end in (PhaseEnd.TIMED_OUT, PhaseEnd.OUT_OF_MEMORY)):
            return PhaseEnd.EXITED
        return self.end

    async def after(self, seconds: float) -> None:
        """End it when its time is up."""
        await asyncio.sleep(seconds)
        await self._kill(PhaseEnd.TIMED_OUT)

    async def on(self, event: asyncio.Event, end: PhaseEnd) -> None:
        """End it when something happens."""
        await event.wait()
        await self._kill(end)

    async def memory(self) -> None:
        """End it when all of it together takes too much memory."""
        while self.end is None:
            used = await asyncio.to_thread(self._memory_bytes)
            self.peak_memory_bytes = max(self.peak_memory_bytes, used)
            if used > self._limits.memory_bytes:
                await self._kill(PhaseEnd.OUT_OF_MEMORY)
            await asyncio.sleep(MEMORY_SECONDS)

    async def disk(self) -> None:
        """End it when its folders grow too large, or the disk is about to be full."""
        while self.end is None:
            begun = time.monotonic()
            if await asyncio.to_thread(self._is_disk_filling):
                await self._kill(PhaseEnd.DISK_FULL)
            await asyncio.sleep(max(DISK_SECONDS, DISK_SHARE * (time.monotonic() - begun)))

    async def left_too_much(self) -> bool:
        """Whether the folders are too large now that nothing runs: the command may have been quicker than a look."""
        return await asyncio.to_thread(self._is_over_disk_limit)

    async def _kill(self, end: PhaseEnd) -> None:
        if self.end is None:
            self.end = end
        await self._tree.kill()

    def _memory_bytes(self) -> int:
        view = self._find_view()
        return view.memory_bytes() if view else 0

    def _is_disk_filling(self) -> bool:
        free = os.statvfs(self._folders[0])
        if free.f_bavail * free.f_frsize < RESERVE_BYTES:
            return True
        return self._is_over_disk_limit()

    def _is_over_disk_limit(self) -> bool:
        limit = self._limits.disk_bytes
        view = self._find_view()
        try:
            deleted = view.deleted_bytes(frozenset(os.stat(folder).st_dev for folder in self._folders)) if view else 0
            return deleted + disk_bytes(self._folders, limit_bytes=limit) > limit
        except Unmeasurable:
            return True

    def _find_view(self) -> SandboxView | None:
        if self._view is None:
            self._view = SandboxView.find(self._tree.pid, self._folders[0])
        return self._view


def _was_killed(ended: TreeExit) -> bool:
    return ended.signal == signal.SIGKILL or ended.exit_code == KILLED_CODE


def _kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory, on the whole machine; 0 where it does not say."""
    with suppress(OSError), open("/proc/vmstat", "rb") as file:
        for line in file:
            name, _, value = line.partition(b" ")
            if name == b"oom_kill":
                return int(value)
    return 0
