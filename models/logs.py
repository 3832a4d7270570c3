"""Log lines of executions: numbered 1, 2, 3 … without gap or duplicate.

One statement advances the cursor on the execution, where attempt and cursor are what the writer believes, and
inserts one chunk; so a stale or repeated write adds nothing. Lines of a finished execution move to one object
in storage, whose blocks are indexed on the row (`tasks/log_compaction.py`); readers go through
`resolvers/logs.py`, which knows both places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

from models import database
from models.executions import Claim, ExecutionStatus
from models.leases import Connection

MAX_LINE_BYTES = 8_192
MAX_CHUNK_LINES = 500
REMOVED_AT = "removedAt"
"""Key of `executions.log_object` that says when an old log was removed: it is empty from then on."""


class LogLevel(StrEnum):
    """How serious a line is."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


_LEVEL_BITS = {LogLevel.DEBUG: 1, LogLevel.INFO: 2, LogLevel.WARNING: 4, LogLevel.ERROR: 8}
_LEVEL_LETTERS = {LogLevel.DEBUG: "D", LogLevel.INFO: "I", LogLevel.WARNING: "W", LogLevel.ERROR: "E"}
_LETTER_LEVELS = {letter: level for level, letter in _LEVEL_LETTERS.items()}


@dataclass(frozen=True, slots=True)
class NewLine:
    """A line that has no number yet. `timestamp` is in milliseconds since 1970."""

    timestamp: int
    level: LogLevel
    message: str
    stage: str | None = None
    is_continuation: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A stored line."""

    sequence: int
    timestamp: datetime
    level: LogLevel
    message: str
    stage: str | None
    is_continuation: bool


@dataclass(frozen=True, slots=True)
class LogState:
    """How far a log goes and whether it will grow."""

    last_sequence: int
    status: ExecutionStatus
    owner_id: UUID
    project_id: UUID | None
    archive: dict[str, Any] | None

    @property
    def is_complete(self) -> bool:
        """Whether no line will follow."""
        return self.status.is_final


def encode_lines(lines: Iterable[NewLine]) -> bytes:
    """The body of a chunk, UTF-8: one JSON array per line, ended by line feeds."""
    return b"".join(
        orjson.dumps(
            [line.timestamp, _LEVEL_LETTERS[line.level], line.message, line.stage, 1]
            if line.is_continuation
            else [line.timestamp, _LEVEL_LETTERS[line.level], line.message, line.stage],
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for line in lines
    )


def decode_lines(first_sequence: int, body: str) -> list[Line]:
    """The lines of a chunk."""
    lines = []
    # Not splitlines(): JSON leaves U+2028 and its like as they are inside a message.
    for sequence, text in enumerate(body.split("\n"), first_sequence):
        if not text:
            continue
        values = orjson.loads(text)
        lines.append(
            Line(
                sequence=sequence,
                timestamp=datetime.fromtimestamp(values[0] / 1000, UTC),
                level=_LETTER_LEVELS[values[1]],
                message=values[2],
                stage=values[3],
                is_continuation=len(values) > 4,
            )
        )
    return lines


def level_bits(levels: Iterable[LogLevel]) -> int:
    """A bit per level, to skip chunks that hold none of a wanted level."""
    bits = 0
    for level in levels:
        bits |= _LEVEL_BITS[level]
    return bits


async def append(connection: Connection, claim: Claim, *, after_sequence: int, lines: Sequence[NewLine]) -> bool:
    """Add lines behind `after_sequence`; False when the lease is lost or the cursor is elsewhere."""
    body = encode_lines(lines)
    row = await connection.fetchrow(
        """WITH advanced AS (
               UPDATE executions SET log_sequence = log_sequence + $4, log_bytes = log_bytes + $5
               WHERE id = $1 AND attempt = $2 AND log_sequence = $3 AND status = 'RUNNING' RETURNING id
           )
           INSERT INTO log_chunks (execution_id, first_sequence, line_count, levels, body)
           SELECT id, $3 + 1, $4, $6, $7 FROM advanced RETURNING first_sequence""",
        claim.execution_id,
        claim.attempt,
        after_sequence,
        len(lines),
        len(body),
        level_bits({line.level for line in lines}),
        body.decode(),
    )
    return row is not None


async def last_sequence_of(connection: Connection, claim: Claim) -> int | None:
    """Where the cursor is, if the claim still holds: asked after an answer was lost."""
    row = await connection.fetchrow(
        "SELECT log_sequence FROM executions WHERE id = $1 AND attempt = $2 AND status = 'RUNNING'",
        claim.execution_id,
        claim.attempt,
    )
    return None if row is None else int(row["log_sequence"])


async def state(execution_id: UUID) -> LogState | None:
    """How far the log of an execution goes, or None when there is no such execution."""
    found = await database.row(
        """SELECT e.log_sequence, e.status, e.owner_id, e.log_object, d.project_id
           FROM executions e LEFT JOIN deployments d ON d.execution_id = e.id WHERE e.id = $1""",
        execution_id,
    )
    if found is None:
        return None
    archive = database.from_json(found["log_object"])
    is_removed = archive is not None and REMOVED_AT in archive
    return LogState(
        last_sequence=0 if is_removed else found["log_sequence"],
        status=ExecutionStatus(found["status"]),
        owner_id=found["owner_id"],
        project_id=found["project_id"],
        archive=None if is_removed else archive,
    )


async def chunks_after(execution_id: UUID, after_sequence: int, *, max_lines: int) -> list[Line]:
    """Stored lines behind a sequence, oldest first, whole chunks up to about `max_lines`; none once archived."""
    found = await database.rows(
        """SELECT first_sequence, body FROM (
               SELECT first_sequence, body, sum(line_count) OVER (ORDER BY first_sequence) - line_count AS before
               FROM (SELECT first_sequence, line_count, body FROM log_chunks
                     WHERE execution_id = $1 AND first_sequence > $2::bigint - $4::bigint
                       AND first_sequence + line_count > $2 + 1
                     ORDER BY first_sequence LIMIT 64) AS near
           ) AS counted WHERE before < $3 ORDER BY first_sequence""",
        execution_id,
        after_sequence,
        max_lines,
        MAX_CHUNK_LINES,
    )
    lines: list[Line] = []
    for chunk in found:
        lines.extend(decode_lines(chunk["first_sequence"], chunk["body"]))
    if lines and lines[0].sequence <= after_sequence:
        lines = lines[after_sequence + 1 - lines[0].sequence :]
    return lines
