"""What keeps `switchyard run` whole: it starts children again, and knows when the API answers.

The programs here are our own (the API, the worker) or servers of this package. A child that dies is started
again after 0.5 s, then 1 s and so on up to 30 s; one that lived a minute has earned a fresh start. A child is
killed with its supervisor: its work is safe in PostgreSQL, and an orphan would hold the port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from adapters.embedded import children
from adapters.embedded.children import EmbeddedError
from adapters.embedded.server import Server

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0

Announce = Callable[[str], None]


class Child:
    """One of our own programs, with our environment; `keep_running` is its whole life."""

    def __init__(
        self, title: str, argv: Sequence[str | Path], *, folder: Path, announce: Announce, drain_seconds: float
    ) -> None:
        self.title = title
        self.deaths = 0
        self._argv = argv
        self._folder = folder
        self._announce = announce
        self._drain_seconds = drain_seconds
        self._process: subprocess.Popen[bytes] | None = None

    async def keep_running(self) -> None:
        """Run the program, again whenever it ends, until cancelled; then SIGTERM and, past the drain, SIGKILL."""
        delays = _Delays()
        while True:
            process = self._process = children.spawn(
                self._argv, folder=self._folder, environment=os.environ, death_signal=signal.SIGKILL
            )
            try:
                code = await children.exited(process, poll_seconds=0.1)
            finally:
                await children.end(process, ((signal.SIGTERM, self._drain_seconds),))
            self.deaths += 1
            delay = delays.after_death()
            self._announce(f"{self.title} ended ({children.describe_exit(code)}); starting it again in {delay:g} s")
            await asyncio.sleep(delay)

    def kill(self) -> None:
        """End it now, without a drain; for those who ask twice."""
        if self._process is not None:
            children.kill_group(self._process)


async def keep_alive(server: Server, *, announce: Announce) -> None:
    """Start a server again, on its port, whenever it dies; until cancelled."""
    delays = _Delays()
    while True:
        code = await server.exited()
        delay = delays.after_death()
        announce(f"{server.title} ended ({children.describe_exit(code)}); starting it again in {delay:g} s")
        await asyncio.sleep(delay)
        try:
            await server.restart_immediate()
        except EmbeddedError as error:
            announce(str(error))


async def wait_until_ready(probe: Callable[[], Awaitable[bool]], api: Child, *, seconds: float) -> None:
    """Wait until the probe says yes; raises EmbeddedError when the API dies first or the time is up."""
    try:
        async with asyncio.timeout(seconds):
            while not await probe():
                if api.deaths:
                    raise EmbeddedError("The API ended before it was ready; its last lines are above")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise EmbeddedError(f"The API is not ready after {seconds:.0f} s") from None


async def http_status(host: str, port: int, path: str) -> int | None:
    """The status of one GET, or None when nobody answers within two seconds."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    words = line.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


class _Delays:
    """How long to wait before the next start: doubled with each early death."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY_SECONDS
        self._started = time.monotonic()

    def after_death(self) -> float:
        """The pause due now; the next life is counted from its end."""
        now = time.monotonic()
        if now - self._started > STEADY_SECONDS:
            self._next = FIRST_DELAY_SECONDS
        delay = self._next
        self._next = min(delay * 2, LONGEST_DELAY_SECONDS)
        self._started = now + delay
        return delay
