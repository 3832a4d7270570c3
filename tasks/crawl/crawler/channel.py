"""The two pipes to the worker, on the crawler's event loop.

Writing never blocks: what the worker does not read yet waits in a buffer, and above its high-water mark `congested`
asks the scheduler to start no more pages, so the buffer stays bounded by the pages already in flight. Reading needs no
brake: the worker sends no more requests than it was asked for. If either pipe closes, the worker is gone and the
process ends at once: what it holds is leased, not owned.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from tasks.crawl.crawler.protocol import MAX_LINE_BYTES, ProtocolError, decode, encode

HIGH_WATER_BYTES: Final = 2**20
LOW_WATER_BYTES: Final = 2**18
EXIT_ORPHANED: Final = 3
"""Exit code when the worker went away; nobody is left to read it but a person with a process list."""


class Channel:
    """Messages in, messages out."""

    def __init__(self, in_fd: int, out_fd: int, *, already_read: bytes = b"") -> None:
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._already_read = already_read
        self._reader: _Reader | None = None
        self._writer: _Writer | None = None
        self._output: asyncio.WriteTransport | None = None
        self._sealed = False

    @property
    def congested(self) -> bool:
        """Whether the worker reads more slowly than we write."""
        return self._writer is not None and self._writer.paused

    async def open(self, *, receive: Callable[[Mapping[str, Any]], None], relieved: Callable[[], None]) -> None:
        """Connect both pipes; `receive` gets every message, `relieved` is called when congestion ends."""
        loop = asyncio.get_running_loop()
        output, self._writer = await loop.connect_write_pipe(
            lambda: _Writer(relieved), os.fdopen(self._out_fd, "wb", buffering=0)
        )
        output.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        self._output = output
        reader = _Reader(receive)
        self._reader = reader
        await loop.connect_read_pipe(lambda: reader, os.fdopen(self._in_fd, "rb", buffering=0))
        reader.data_received(self._already_read)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message; raises ProtocolError when it does not fit into a line. Nothing leaves after `finish`."""
        if self._output is not None and not self._sealed:
            self._output.write(encode(message))

    async def finish(self, *, timeout_seconds: float) -> None:
        """Let everything leave; raises TimeoutError when the worker does not read it in time."""
        self._sealed = True
        if self._reader is not None:
            self._reader.may_end = True
        if self._output is not None and self._writer is not None:
            self._output.close()
            async with asyncio.timeout(timeout_seconds):
                await self._writer.closed.wait()


class _Writer(asyncio.BaseProtocol):
    def __init__(self, relieved: Callable[[], None]) -> None:
        self.paused = False
        self.closed = asyncio.Event()
        self._relieved = relieved

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._relieved()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            os._exit(EXIT_ORPHANED)
        self.closed.set()


class _Reader(asyncio.Protocol):
    def __init__(self, receive: Callable[[Mapping[str, Any]], None]) -> None:
        self.may_end = False
        self._receive = receive
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._receive(decode(line))
        if len(self._buffer) > MAX_LINE_BYTES:
            raise ProtocolError(f"a line from the worker is longer than {MAX_LINE_BYTES:,} bytes")

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.may_end:
            os._exit(EXIT_ORPHANED)
