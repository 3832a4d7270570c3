"""The writing end of an execution's log: batches lines, numbers them through the database, bounds them.

Lines leave in batches of 500 lines or 64 KiB, at the latest 100 ms after the first. The buffer is bounded: a
writer that is too fast waits. Behind the head limit lines are kept only as a tail, which is written at the
end behind a line that says how many are missing; numbers stay without a gap. What the database has not
acknowledged is not promised.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol

from models.executions import Claim
from models.leases import LeaseLost
from models.logs import MAX_CHUNK_LINES, MAX_LINE_BYTES, LogLevel, NewLine

MAX_BATCH_BYTES: Final = 65_536
MAX_BUFFER_BYTES: Final = 1_048_576
FLUSH_SECONDS: Final = 0.1
_LINE_OVERHEAD_BYTES: Final = 48
_NEEDS_CARE: Final = re.compile(r"[\x00\r\n]")


class Ledger(Protocol):
    """What the writer needs of the engine: a persistent append and a word to the readers."""

    async def append_lines(self, claim: Claim, after_sequence: int, lines: list[NewLine]) -> None:
        """Store lines through outages shorter than the lease; raises LeaseLost."""

    def announce_lines(self, claim: Claim, last_sequence: int) -> None:
        """Tell readers that there are lines; never waits."""


class LogWriter:
    """The log of one attempt. Use `flush` before a state that readers must see after the lines."""

    def __init__(self, ledger: Ledger, claim: Claim, *, head_bytes: int, tail_bytes: int) -> None:
        self.last_sequence = claim.log_sequence
        self.stage: str | None = claim.stage
        self._ledger = ledger
        self._claim = claim
        self._head_left = head_bytes - claim.log_bytes
        self._tail_bytes_limit = tail_bytes
        self._tail: deque[NewLine] = deque()
        self._tail_bytes = 0
        self._omitted = 0
        self._pending: deque[NewLine] = deque()
        self._pending_bytes = 0
        self._has_lines = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_urgent = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._last_flush = 0.0
        self._is_closed = False

    async def debug(self, message: str) -> None:
        """Write a line for those who look closely."""
        await self.write(LogLevel.DEBUG, message)

    async def info(self, message: str) -> None:
        """Write a line."""
        await self.write(LogLevel.INFO, message)

    async def warning(self, message: str) -> None:
        """Write a line that deserves a look."""
        await self.write(LogLevel.WARNING, message)

    async def error(self, message: str) -> None:
        """Write a line about a fault."""
        await self.write(LogLevel.ERROR, message)

    async def write(self, level: LogLevel, message: str, *, timestamp_ms: int | None = None) -> None:
        """Write a message; line feeds split it, and a line over 8 KiB becomes marked pieces."""
        now = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        await self.write_lines((NewLine(now, level, message, self.stage),))

    async def write_lines(self, lines: Iterable[NewLine]) -> None:
        """Write many lines at once, split as `write` does; waits while the buffer is full. Raises LeaseLost."""
        for line in _fitting(lines):
            if self._is_closed:
                raise LeaseLost
            size = _size(line)
            if self._head_left <= 0:
                self._keep_in_tail(line, size)
                continue
            self._head_left -= size
            self._pending.append(line)
            self._pending_bytes += size
            if len(self._pending) >= MAX_CHUNK_LINES or self._pending_bytes >= MAX_BATCH_BYTES:
                self._is_urgent.set()
            if self._pending_bytes >= MAX_BUFFER_BYTES:
                self._has_room.clear()
                self._has_lines.set()
                await self._has_room.wait()
        if self._pending:
            self._has_lines.set()

    async def flush(self) -> None:
        """Wait until everything written so far is stored."""
        while (self._pending or not self._is_idle.is_set()) and not self._is_closed:
            self._is_urgent.set()
            self._has_lines.set()
            self._is_idle.clear()
            await self._is_idle.wait()
        if self._is_closed:
            raise LeaseLost

    async def finish(self) -> None:
        """Write the tail, if there is one, and flush: the last lines of the attempt."""
        if self._tail:
            lines = list(self._tail)
            self._tail.clear()
            if self._omitted:
                text = f"… {self._omitted} lines left out: the log is full …"
                lines.insert(0, NewLine(time.time_ns() // 1_000_000, LogLevel.WARNING, text, self.stage))
            self._head_left = self._tail_bytes_limit + 2 * MAX_LINE_BYTES
            await self.write_lines(lines)
        await self.flush()

    async def run(self) -> None:
        """Store batches until cancelled; what ends it otherwise ends the attempt."""
        try:
            while True:
                if not self._pending:
                    self._has_lines.clear()
                    self._is_urgent.clear()
                    self._is_idle.set()
                    await self._has_lines.wait()
                await self._gather_batch()
                await self._store(self._take())
        finally:
            self._is_closed = True
            self._has_room.set()
            self._is_idle.set()

    async def _gather_batch(self) -> None:
        """Wait for more lines, unless the last batch left long ago or this one is full."""
        self._is_idle.clear()
        wait = self._last_flush + FLUSH_SECONDS - time.monotonic()
        if wait <= 0 or self._is_urgent.is_set():
            return
        try:
            async with asyncio.timeout(wait):
                await self._is_urgent.wait()
        except TimeoutError:
            return

    def _take(self) -> list[NewLine]:
        batch: list[NewLine] = []
        size = 0
        while self._pending and len(batch) < MAX_CHUNK_LINES and size < MAX_BATCH_BYTES:
            line = self._pending.popleft()
            size += _size(line)
            batch.append(line)
        self._pending_bytes -= size
        if self._pending_bytes < MAX_BUFFER_BYTES // 2:
            self._has_room.set()
        if self._pending_bytes < MAX_BATCH_BYTES and len(self._pending) < MAX_CHUNK_LINES:
            self._is_urgent.clear()
        return batch

    async def _store(self, batch: list[NewLine]) -> None:
        await self._ledger.append_lines(self._claim, self.last_sequence, batch)
        self.last_sequence += len(batch)
        self._last_flush = time.monotonic()
        self._ledger.announce_lines(self._claim, self.last_sequence)

    def _keep_in_tail(self, line: NewLine, size: int) -> None:
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > self._tail_bytes_limit:
            dropped = self._tail.popleft()
            self._tail_bytes -= _size(dropped)
            self._omitted += 1


def _fitting(lines: Iterable[NewLine]) -> Iterable[NewLine]:
    """Lines as they can be stored: one line each, of bounded length, in characters that UTF-8 and PostgreSQL have."""
    for line in lines:
        message = line.message
        if len(message) <= MAX_LINE_BYTES and message.isascii() and not _NEEDS_CARE.search(message):
            yield line
            continue
        for text in message.replace("\x00", "\ufffd").split("\n"):
            for number, piece in enumerate(_cut(text.rstrip("\r"))):
                yield replace(line, message=piece, is_continuation=line.is_continuation or number > 0)


def _size(line: NewLine) -> int:
    """About what a line takes in the database."""
    text = line.message
    return (len(text) if text.isascii() else len(text.encode())) + _LINE_OVERHEAD_BYTES


def _cut(text: str) -> Iterable[str]:
    """Pieces of at most 8 KiB of UTF-8, cut between characters; what UTF-8 cannot say becomes a question mark."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_LINE_BYTES:
        yield data.decode()
        return
    start = 0
    while start < len(data):
        end = min(start + MAX_LINE_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end].decode()
        start = end
