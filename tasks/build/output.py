"""What a build prints, on its way into the log: bytes cut anywhere become lines that anyone may read.

Invariant: nothing is stored that was not masked, and what is held is bounded however the build prints: without a line
feed, without an end to an escape sequence, for ever. In this order: sequences of the terminal go, secrets are masked,
lines are split; a line that was rewritten with carriage returns keeps its last state, and one above 8 KiB leaves in
marked pieces as it grows.

Both streams count alike. Compilers report errors on standard output, and package managers write progress to standard
error, so a line is a warning or an error only when it says so: whoever filters a log by level wants those lines and
not half of every successful build. What the exit code means is decided by the caller.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import replace
from typing import Final

from adapters.sandbox.contract import StopBuild
from models.logs import MAX_LINE_BYTES, LogLevel, NewLine
from tasks.log_writer import LogWriter
from tasks.masking import Masker, MaskingStream
from tasks.terminal_text import TerminalText

TAIL_LINES: Final = 50
MAX_MESSAGE_CHARACTERS: Final = 500
_SLICE_BYTES: Final = 32_768

# What lines begin with is looked at only where one of these stands: in most blocks of output, nowhere. Lower case.
_OF_ERRORS: Final = ("err", "fatal", "fail", "panic", "exception", "traceback")
_OF_WARNINGS: Final = ("warn", "deprecated")
_TELLING: Final = tuple(word.encode() for word in (*_OF_ERRORS, *_OF_WARNINGS))
_TOOL: Final = r"^[^a-z✓✔√]{0,24}(?:(?:npm|pnpm|yarn|bun|pip|cargo|gyp|next|vite|webpack|gatsby|remote)[\s:!\]]{1,3})?"
_ERROR: Final = re.compile(
    rf"""{_TOOL}(?:err!|err_\w+|fatal|panic(?:ked)?|\w{{0,40}}(?:error|exception))(?=[\s:!\]]|$)
    | ^\W{{0,12}}(?:(?:build|compilation|command|task)\s+failed\b|failed\s+to\b|traceback\s\()
    | [\s:\])-](?:fatal\s)?\w{{0,40}}error(?:\s\w{{1,12}}\d)?: | \berr!\s | \berror\s\d+$""",
    re.VERBOSE,
)
_WARNING: Final = re.compile(
    rf"""{_TOOL}(?:warn|deprecated|\w{{0,40}}warning)(?=[\s:!\]]|$)
    | [\s:\])-]\w{{0,40}}warning(?:\s\w{{1,12}}\d)?:""",
    re.VERBOSE,
)
# Errors that tell only that there was one, or where to read more on a machine that is gone.
_TELLS_NOTHING: Final = re.compile(
    r"""complete\slog\sof\sthis\srun|debug\.log | npm\s(?:err!|error)\s(?:code|errno|path|command|signal|cwd|syscall)\b
    | elifecycle | exit(?:ed)?\s(?:with\s)?(?:exit\s)?(?:code|status) | command\sfailed | \berror\s\d+$""",
    re.IGNORECASE | re.VERBOSE,
)


class BuildOutput:
    """The output of one build. `exceeded` tells, once the build was stopped, that it printed more than it may."""

    def __init__(self, log: LogWriter, masker: Masker, *, limit_bytes: int) -> None:
        self.exceeded = False
        self._log = log
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        self._channels = {is_error: _Channel(masker) for is_error in (False, True)}
        self._tail: deque[NewLine] = deque(maxlen=TAIL_LINES)
        self._is_new_phase = False

    async def write(self, data: bytes, *, is_error: bool) -> None:
        """Take what the build wrote to standard output or error; waits while the log is full.

        Raises StopBuild past `limit_bytes`, after the lines up to there, and LeaseLost.
        """
        if self._is_new_phase:
            self._is_new_phase = False
            self._tail.clear()
        self.exceeded = self.exceeded or len(data) > self._left_bytes
        data = data[: self._left_bytes]
        self._left_bytes -= len(data)
        channel = self._channels[is_error]
        for at in range(0, len(data), _SLICE_BYTES):
            await self._store(channel.feed(data[at : at + _SLICE_BYTES], self._log.stage))
            # Lines that fit into the log's buffer never wait; leases must be renewed all the same.
            await asyncio.sleep(0)
        if self.exceeded:
            raise StopBuild(f"the build printed more than {self._limit_bytes} bytes")

    async def close(self) -> None:
        """Store what is held, at the end of a phase; the next phase may be written then. Raises LeaseLost."""
        for channel in self._channels.values():
            await self._store(channel.close(self._log.stage))
        self._is_new_phase = True

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of the phase that are not empty, masked and cut to 500 characters."""
        return tuple(_shortened(line.message) for line in self._tail)

    def last_error_line(self) -> str | None:
        """The line that best tells why the phase failed, masked, at most 500 characters; None when there is no line.

        A line that only announces (`error during build:`) brings the next one along.
        """
        lines = list(self._tail)
        errors = [index for index, line in enumerate(lines) if line.level is LogLevel.ERROR]
        telling = [index for index in errors if not _TELLS_NOTHING.search(lines[index].message)]
        mentions = [index for index, line in enumerate(lines) if "error" in line.message.casefold()]
        for found in (telling, errors, mentions, range(len(lines))):
            if found:
                text = lines[found[-1]].message.strip()
                if text.endswith(":") and found[-1] + 1 < len(lines):
                    text = f"{text} {lines[found[-1] + 1].message.strip()}"
                return _shortened(text)
        return None

    async def _store(self, lines: list[NewLine]) -> None:
        if not lines:
            return
        self._tail.extend(line for line in lines if line.message.strip() and not line.is_continuation)
        await self._log.write_lines(lines)


class _Channel:
    """One of the two streams: what is between the bytes and the lines."""

    __slots__ = ("_is_continued", "_level", "_masking", "_partial", "_terminal")

    def __init__(self, masker: Masker) -> None:
        self._terminal = TerminalText()
        self._masking = MaskingStream(masker)
        self._partial = b""
        self._is_continued = False  # pieces of the line at hand were given out, at this level:
        self._level = LogLevel.INFO

    def feed(self, data: bytes, stage: str | None) -> list[NewLine]:
        """The lines that are complete by now, and pieces of one that is too long."""
        return self._split(self._masking.feed(self._terminal.feed(data)), stage)

    def close(self, stage: str | None) -> list[NewLine]:
        """All that is held, as if a line feed had come."""
        rest = self._masking.feed(self._terminal.close()) + self._masking.close()
        return self._split(rest + b"\n", stage) if self._partial or rest else []

    def _split(self, data: bytes, stage: str | None) -> list[NewLine]:
        complete, feed, self._partial = (self._partial + data).rpartition(b"\n")
        timestamp = time.time_ns() // 1_000_000
        lines: list[NewLine] = []
        if feed:
            if b"\r" in complete:
                complete = b"\n".join(map(_last_state, complete.split(b"\n")))
            messages = complete.decode("utf-8", "replace").split("\n")
            lowered = complete.lower()
            if any(word in lowered for word in _TELLING):
                lines = [NewLine(timestamp, level_of(message), message, stage) for message in messages]
            else:
                lines = [NewLine(timestamp, LogLevel.INFO, message, stage) for message in messages]
            if self._is_continued:
                self._is_continued = False
                lines[0] = replace(lines[0], level=self._level, is_continuation=True)
        if len(self._partial) > MAX_LINE_BYTES:
            lines += self._pieces(timestamp, stage)
        return lines

    def _pieces(self, timestamp: int, stage: str | None) -> list[NewLine]:
        """Pieces of the line at hand, until what is left of it is short."""
        if b"\r" in self._partial:
            overwritten, _, newest = self._partial.rpartition(b"\r")
            self._partial = newest if newest.strip() else _last_state(overwritten) + b"\r"
        lines = []
        while len(self._partial) > MAX_LINE_BYTES + 1:  # something is left always, be it with a carriage return
            end = MAX_LINE_BYTES
            while end > MAX_LINE_BYTES - 4 and self._partial[end] & 0xC0 == 0x80:  # inside of a character
                end -= 1
            message = self._partial[:end].decode("utf-8", "replace")
            self._partial = self._partial[end:]
            if not self._is_continued:
                self._level = level_of(message)
            lines.append(NewLine(timestamp, self._level, message, stage, self._is_continued))
            self._is_continued = True
        return lines


def level_of(message: str) -> LogLevel:
    """What a line of a build says of itself: ERROR or WARNING in the way that tools begin such lines, else INFO."""
    beginning = message[:MAX_MESSAGE_CHARACTERS].lower()
    if any(word in beginning for word in _OF_ERRORS) and _ERROR.search(beginning):
        return LogLevel.ERROR
    if any(word in beginning for word in _OF_WARNINGS) and _WARNING.search(beginning):
        return LogLevel.WARNING
    return LogLevel.INFO


def _last_state(line: bytes) -> bytes:
    """What is seen last of a line that was written again and again."""
    return next((state for state in reversed(line.split(b"\r")) if state.strip()), b"")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[: MAX_MESSAGE_CHARACTERS - 1]}…"
