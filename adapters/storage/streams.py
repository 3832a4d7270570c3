"""Streams of bytes: cutting, reading and hashing them, with bounded memory and nothing blocking the event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

_FILE_CHUNK_BYTES = 2**20


async def cut(data: AsyncIterable[bytes] | bytes, *, size: int) -> AsyncGenerator[bytes, None]:
    """Pieces of exactly `size` bytes, the last one shorter; no data is one empty piece."""
    if isinstance(data, bytes):
        for offset in range(0, max(len(data), 1), size):
            yield data[offset : offset + size]
        return
    gathered = bytearray()
    is_first = True
    async for chunk in data:
        rest = memoryview(chunk)
        while rest:
            room = size - len(gathered)
            gathered += rest[:room]
            rest = rest[room:]
            if len(gathered) == size:
                piece = bytes(gathered)
                gathered.clear()
                yield piece
                del piece  # or two pieces would be held while the next one is gathered
                is_first = False
    if gathered or is_first:
        yield bytes(gathered)


async def file_chunks(path: Path) -> AsyncGenerator[bytes, None]:
    """The content of a file. Raises what opening and reading it raises."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _FILE_CHUNK_BYTES):
            yield chunk


async def sha256_of(data: bytes) -> str:
    """Hex SHA-256."""
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
