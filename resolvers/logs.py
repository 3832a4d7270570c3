"""Reading logs, wherever the lines are: fresh ones in the database, finished ones in storage.

Between two reads a log may move to storage; a reader that finds no rows where there should be some looks again.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

import orjson

from adapters import storage
from errors import ServiceUnavailable
from models import database, logs
from models.logs import Line, LogLevel, LogState

PAGE_LINES: Final = 500
_SCAN_CHUNKS: Final = 32
_SCAN_LIMIT: Final = 4_000
_MOVES: Final = 3
_SEVERITY: Final = {level: number for number, level in enumerate(LogLevel)}


async def read_after(execution_id: UUID, after_sequence: int, *, max_lines: int = PAGE_LINES) -> list[Line]:
    """Stored lines behind a sequence, oldest first; empty only when there is none."""
    for _ in range(_MOVES):
        state = await logs.state(execution_id)
        if state is None or after_sequence >= state.last_sequence:
            return []
        if state.archive is None:
            lines = await logs.chunks_after(execution_id, after_sequence, max_lines=max_lines)
            if lines:
                return lines
            continue
        for block in state.archive["blocks"]:
            if block[0] + block[1] > after_sequence + 1:
                lines = await _read_block(state.archive["key"], block)
                return [line for line in lines if line.sequence > after_sequence][:max_lines]
    raise ServiceUnavailable("The log is being moved; try again in a moment.")


async def read_page(
    execution_id: UUID,
    state: LogState,
    *,
    limit: int,
    after: int | None,
    before: int | None,
    backwards: bool,
    level: LogLevel | None,
    search: str | None,
) -> list[Line]:
    """Up to `limit` lines strictly between two sequences, backwards from the end if so asked.

    `level` is the least serious level wanted; `search` is looked for without regard to case.
    """
    scan = partial(
        _scan, execution_id, limit=limit, after=after, before=before, backwards=backwards, level=level, search=search
    )
    found = await scan(state)
    if len(found) < limit and state.archive is None:
        now = await logs.state(execution_id)
        if now is not None and now.archive is not None:  # its rows may have gone while they were read
            return await scan(replace(state, archive=now.archive))
    return found


async def _scan(
    execution_id: UUID,
    state: LogState,
    *,
    limit: int,
    after: int | None,
    before: int | None,
    backwards: bool,
    level: LogLevel | None,
    search: str | None,
) -> list[Line]:
    levels = [each for each in LogLevel if level is None or _SEVERITY[each] >= _SEVERITY[level]]
    wanted = _matcher(levels, search)
    low, high = after or 0, before if before is not None else state.last_sequence + 1
    found: list[Line] = []
    sources = (
        _archived(state.archive, low, high, backwards, logs.level_bits(levels))
        if state.archive is not None
        else _stored(execution_id, low, high, backwards, logs.level_bits(levels), search)
    )
    async with aclosing(sources):
        async for lines in sources:
            for line in reversed(lines) if backwards else lines:
                if low < line.sequence < high and wanted(line):
                    found.append(line)
                    if len(found) == limit:
                        return found
    return found


def _matcher(levels: Sequence[LogLevel], search: str | None) -> Callable[[Line], bool]:
    allowed = frozenset(levels)
    if not search:
        return lambda line: line.level in allowed
    needle = search.casefold()
    return lambda line: line.level in allowed and needle in line.message.casefold()


async def _stored(
    execution_id: UUID, low: int, high: int, backwards: bool, levels: int, search: str | None
) -> AsyncGenerator[list[Line], None]:
    """Chunks that may hold what is wanted, a bounded number at a time."""
    direction = "DESC" if backwards else "ASC"
    pattern = None
    if search:
        # As `_matcher` compares, so that a line is found wherever it is: PostgreSQL knows case by locale and letter by
        # letter, we by Unicode ("STRASSE" finds "Straße"). Chunks beyond ASCII are therefore all looked into.
        encoded = orjson.dumps(search.casefold()).decode()[1:-1]
        pattern = "%" + encoded.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    for _ in range(_SCAN_LIMIT):
        found = await database.rows(
            f"""SELECT first_sequence, line_count, body FROM log_chunks
                WHERE execution_id = $1 AND first_sequence + line_count > $2 + 1 AND first_sequence < $3
                  AND levels & $4 <> 0
                  AND ($5::text IS NULL OR body ILIKE $5 COLLATE "C" OR octet_length(body) <> char_length(body))
                ORDER BY first_sequence {direction} LIMIT $6""",  # noqa: S608 - one of two words
            execution_id,
            low,
            high,
            levels,
            pattern,
            _SCAN_CHUNKS,
        )
        for chunk in found:
            yield logs.decode_lines(chunk["first_sequence"], chunk["body"])
        if len(found) < _SCAN_CHUNKS:
            return
        last = found[-1]
        if backwards:
            high = last["first_sequence"]
        else:
            low = last["first_sequence"] + last["line_count"] - 1


async def _archived(
    archive: dict[str, Any], low: int, high: int, backwards: bool, levels: int
) -> AsyncGenerator[list[Line], None]:
    blocks = [
        block for block in archive["blocks"] if block[0] + block[1] > low + 1 and block[0] < high and block[2] & levels
    ]
    for block in reversed(blocks) if backwards else blocks:
        yield await _read_block(archive["key"], block)


async def _read_block(key: str, block: Sequence[int]) -> list[Line]:
    first_sequence, _, _, offset, length = block
    async with aclosing(storage.current().get(key, start=offset, end=offset + length)) as chunks:
        parts = [chunk async for chunk in chunks]
    return await asyncio.to_thread(_decode_block, first_sequence, b"".join(parts))


def _decode_block(first_sequence: int, data: bytes) -> list[Line]:
    return logs.decode_lines(first_sequence, gzip.decompress(data).decode())
