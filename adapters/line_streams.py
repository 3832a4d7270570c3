"""Lines of a stream, many at a time: the fast way to read what a child process writes.

A line above the limit is an error and not a hang or an endless buffer. What the lines mean is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

READ_BYTES: Final = 256 * 1024


class LineTooLong(Exception):
    """The child wrote a line above the limit; what follows on that stream cannot be trusted."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"a line is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


async def line_batches(reader: asyncio.StreamReader, *, limit_bytes: int) -> AsyncIterator[list[bytes]]:
    """The lines of a stream without their newlines, as many at a time as one read brings; never an empty list.

    A last line without newline counts. Holds at most `limit_bytes` and one read. Raises LineTooLong at the first line
    above the limit, after the lines before it.
    """
    held: list[bytes] = []
    held_bytes = 0
    while chunk := await reader.read(READ_BYTES):
        lines = chunk.split(b"\n")
        tail = lines.pop()
        if lines:
            lines[0] = b"".join((*held, lines[0]))
            held, held_bytes = [], 0
            if max(map(len, lines)) > limit_bytes:
                good = next(index for index, line in enumerate(lines) if len(line) > limit_bytes)
                if good:
                    yield lines[:good]
                raise LineTooLong(limit_bytes)
            yield lines
        held.append(tail)
        held_bytes += len(tail)
        if held_bytes > limit_bytes:
            raise LineTooLong(limit_bytes)
    if held_bytes:
        yield [b"".join(held)]


async def lines(reader: asyncio.StreamReader, *, limit_bytes: int) -> AsyncIterator[bytes]:
    """The same, line by line, for streams that are not busy."""
    async for batch in line_batches(reader, limit_bytes=limit_bytes):
        for line in batch:
            yield line
