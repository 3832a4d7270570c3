"""Readers, driven: a child process reads the pages of a document, and another one goes on where one was lost.

A reader is told little and trusted with nothing: it gets a clean environment, a file and a time for each page. One that
dies or hangs takes the page with it that it had begun, and no other. What it says is stored in fenced transactions, a
read's worth at a time. What it says of a page is checked here, because it looked into the file.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.line_streams import READ_BYTES, LineTooLong, line_batches
from adapters.ocr.protocol import MAX_LINE_BYTES, Fault, MessageType, ProtocolError, Start, decode
from adapters.processes import CannotStart, EndReason, Limits, ProcessTree, TreeExit
from models import ocr_job_queries
from models.executions import Failure, FailureCode
from models.leases import LeaseLost
from models.ocr_job_queries import NewPage
from tasks.work import ExecutionFailed, Work

STAGE: Final = "READING"
FIRST_PERCENT: Final = 5
LAST_PERCENT: Final = 90
GATHER_SECONDS: Final = 0.03
MAX_LOSSES_IN_A_ROW: Final = 5
"""So many readers in a row may be lost without a page; then the rest of the document is given up."""
WATCH_SLACK_SECONDS: Final = 30.0
MAX_STRAY_BYTES: Final = 4_000
OPEN_FILES: Final = 64
_MORE_PROGRAMS: Final = ("/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin")
"""Where packagers put `tesseract` on systems without the library."""
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_BROKEN_BY_MEMORY: Final = frozenset({signal.SIGABRT, signal.SIGKILL, signal.SIGTRAP, signal.SIGILL, signal.SIGBUS})
"""How decoders end that get no memory: they stop where they are, or the kernel stops them."""


@dataclass(slots=True)
class Progress:
    """What is there of a document, earlier attempts included. `failed` says why a page is not."""

    done: set[int]
    pages: int | None = None
    failed: dict[int, tuple[Fault, str]] = field(default_factory=dict)


class Reading:
    """A document that is read to its end."""

    def __init__(self, work: Work, start: Start, progress: Progress) -> None:
        self._work = work
        self._start = start
        self._progress = progress
        self._begun: tuple[int, float] | None = None
        self._has_ended = False

    async def run(self) -> None:
        """Read what is not read yet; pages that cannot be are in `progress.failed`.

        Raises ExecutionFailed when the document cannot be read at all, LeaseLost.
        """
        losses = 0
        while True:
            known = len(self._progress.done)
            lost = await self._one_reader()
            if lost is None:
                return
            if self._begun is None:
                raise ExecutionFailed(_failure(*lost))
            await self._fail(self._begun[0], *lost)
            losses = 0 if len(self._progress.done) > known else losses + 1
            if losses >= MAX_LOSSES_IN_A_ROW:
                await self._work.log.error(f"{losses} pages in a row ended their reader; the rest is given up.")
                return

    async def _one_reader(self) -> tuple[Fault, str] | None:
        """Let a reader read; None when it came to the end, else what became of it."""
        self._begun = None
        self._has_ended = False
        environment = {
            "PATH": os.pathsep.join((os.defpath, *_MORE_PROGRAMS)),
            "PYTHONPATH": str(_CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
            "OMP_THREAD_LIMIT": "1",  # pages are small: threads cost Tesseract more than they bring
        }
        command = [sys.executable, "-m", "adapters.ocr.reader"]
        is_late = False
        try:
            async with self._work.spawn(
                command, env=environment, cwd=_CHECKOUT, limits=Limits(open_files=OPEN_FILES, file_bytes=0)
            ) as tree:
                tree.stdin.write(self._next_start().encode())
                tree.stdin.close()
                errors = asyncio.create_task(_last_words(tree.stderr), name="ocr-stderr")
                try:
                    await self._listen(tree)
                except TimeoutError:
                    is_late = True
                except (ProtocolError, LineTooLong) as error:
                    await self._work.log.error(f"The reader said something that is not understood: {error}")
                exit = await (tree.wait() if self._has_ended else tree.kill())
                stray = (await errors).decode("utf-8", "replace").strip()
        except CannotStart as error:
            if time.monotonic() >= self._work.lease_deadline:
                raise LeaseLost from error
            return Fault.START_ERROR, f"The reader could not be started: {error}"
        if exit.reason is EndReason.DEADLINE:
            raise LeaseLost
        if self._has_ended:
            return None
        if stray:
            await self._work.log.debug(f"The reader's last words: {stray[-500:]}")
        return (Fault.TIMED_OUT, self._late()) if is_late else self._fault_of(exit)

    def _next_start(self) -> Start:
        return replace(self._start, skip=sorted(self._progress.done | set(self._progress.failed)))

    async def _listen(self, tree: ProcessTree) -> None:
        """Take what the reader says up to its end; raises TimeoutError when it says nothing for too long."""
        patience = 2 * self._start.page_seconds + WATCH_SLACK_SECONDS
        async with aclosing(_closing(line_batches(tree.stdout, limit_bytes=MAX_LINE_BYTES))) as batches:
            while True:
                async with asyncio.timeout(patience):
                    lines = await anext(batches, None)
                if lines is None:
                    return
                await self._take([decode(line) for line in lines])
                await asyncio.sleep(GATHER_SECONDS)

    async def _take(self, messages: Sequence[Mapping[str, Any]]) -> None:
        pages: list[NewPage] = []
        notes: list[tuple[bool, str]] = []
        for message in messages:
            match message["type"]:
                case MessageType.DOCUMENT:
                    self._progress.pages = int(message["pages"])
                case MessageType.REFUSED:
                    raise ExecutionFailed(_failure(Fault(message["code"]), str(message["message"])))
                case MessageType.BEGUN:
                    self._begun = (int(message["number"]), time.monotonic())
                case MessageType.PAGE:
                    page = _page(message)
                    pages.append(page)
                    notes.append((True, self._note(page)))
                case MessageType.FAILED:
                    number, reason = int(message["number"]), str(message["message"])[:500]
                    self._progress.failed[number] = (Fault(message["code"]), reason)
                    notes.append((False, f"Page {number}: not read. {reason}"))
                case MessageType.END:
                    self._has_ended = True
        await self._store(pages)
        for is_good, note in notes:
            await (self._work.log.info(note) if is_good else self._work.log.warning(note))

    async def _store(self, pages: Sequence[NewPage]) -> None:
        total = self._progress.pages
        if total is None:
            return

        async def write(connection: asyncpg.Connection) -> None:
            await ocr_job_queries.add_pages(connection, self._work.id, pages, page_count=total)

        await self._work.persist(write)
        self._progress.done.update(page.number for page in pages)
        settled = len(self._progress.done) + len(self._progress.failed)
        percent = FIRST_PERCENT + (LAST_PERCENT - FIRST_PERCENT) * settled // max(1, total)
        await self._work.advance(percent, stage=STAGE)

    async def _fail(self, number: int, fault: Fault, reason: str) -> None:
        self._progress.failed[number] = (fault, reason)
        await self._work.log.warning(f"Page {number}: not read. {reason}")

    def _note(self, page: NewPage) -> str:
        seconds = time.monotonic() - self._begun[1] if self._begun else 0.0
        how = "text layer" if page.source == "TEXT_LAYER" else "recognised"
        certainty = "" if page.confidence is None else f", confidence {page.confidence:.0f}"
        tilt = f", lay turned by {page.rotation:g}°" if page.rotation else ""
        return f"Page {page.number}: {how}, {len(page.words):,} words{certainty}{tilt}, {seconds:.1f} s."

    def _late(self) -> str:
        return f"Reading it took longer than {self._start.page_seconds:g} s."

    def _fault_of(self, exit: TreeExit) -> tuple[Fault, str]:
        if exit.signal == signal.SIGXCPU:
            return Fault.TIMED_OUT, self._late()
        memory = self._start.memory_bytes
        if exit.signal in _BROKEN_BY_MEMORY or exit.peak_rss_bytes > memory * 0.8:
            return (
                Fault.OUT_OF_MEMORY,
                f"It needs more memory than the {memory // 2**20:,} MB that a document may take.",
            )
        how = f"signal {exit.signal}" if exit.signal is not None else f"exit code {exit.exit_code}"
        return Fault.INVALID_INPUT, f"The reader broke on it ({how})."


def failure_of(progress: Progress) -> Failure | None:
    """Why a document of which no page was read has none; None when some were read."""
    if progress.done or not progress.failed:
        return None
    number = min(progress.failed)
    fault, reason = progress.failed[number]
    return _failure(fault, f"No page could be read. Page {number}: {reason}")


def _failure(fault: Fault, message: str) -> Failure:
    return Failure(FailureCode(fault.value), message, STAGE, retryable=fault is Fault.TIMED_OUT)


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    """The end of what libraries print beside the protocol; all of it is read, or the reader would wait for us."""
    kept = b""
    while chunk := await stream.read(READ_BYTES):
        kept = (kept + chunk)[-MAX_STRAY_BYTES:]
    return kept


async def _closing(source: AsyncIterator[list[bytes]]) -> Any:
    async for lines in source:
        yield lines


def _page(message: Mapping[str, Any]) -> NewPage:
    """The page in a message; raises ProtocolError."""
    try:
        confidence = message["confidence"]
        return NewPage(
            number=int(message["number"]),
            source=str(message["source"]),
            engine=None if message["engine"] is None else str(message["engine"])[:64],
            width=float(message["width"]),
            height=float(message["height"]),
            rotation=float(message["rotation"]),
            confidence=None if confidence is None else float(confidence),
            text=str(message["text"]),
            words=[[str(text), *map(float, box), certainty] for text, *box, certainty in message["words"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a page is not whole: {error}") from None
