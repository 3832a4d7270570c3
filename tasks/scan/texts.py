"""The text of a document, for a scan to be made of it or for quotations to be found in it.

What a parser of some size reads (PDF, HTML) is read in a child that dies with the lease; plain text, Markdown and CSV
are decoded here, in a thread. Invariants: a file that a child reads streams to it and is never whole in the worker; one
that breaks its parser ends as Unreadable, and the worker lives on. Text is cut at what the scanner reads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from adapters import scanner
from adapters.processes import CannotStart, EndReason, Limits, ProcessTree, TreeExit
from models.leases import LeaseLost
from tasks.scan.text_child import HTML, PDF
from tasks.work import Work

PLAIN: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
CSV: Final = "text/csv"
READABLE: Final = frozenset({PLAIN, MARKDOWN, CSV, HTML, PDF})
"""Types whose text is read here; others only a service may read."""

WALL_SECONDS: Final = 60.0
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_MAX_ANSWER_BYTES: Final = 8 * scanner.MAX_CHARACTERS
_LIMITS: Final = Limits(open_files=64, file_bytes=0)
_EXTENSIONS: Final = {PLAIN: ".txt", MARKDOWN: ".md", CSV: ".csv"}


class Unreadable(Exception):
    """No text can be had of this file; the message is for people."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, with a form feed between pages; `is_cut` says that it went on."""

    text: str
    is_cut: bool


async def text_of(work: Work, content_type: str, chunks: AsyncIterator[bytes]) -> Text:
    """The text of a file; raises Unreadable, LeaseLost, and what the chunks raise."""
    if content_type not in READABLE:
        raise Unreadable("Only text, Markdown, CSV, HTML and PDF files are read here.")
    if content_type in (PDF, HTML):
        return await _read_in_child(work, content_type, chunks)
    content = b"".join([chunk async for chunk in chunks])
    try:
        text = await work.compute(scanner.extract, f"document{_EXTENSIONS[content_type]}", content)
    except (scanner.UnreadableFile, scanner.UnsupportedFile) as error:
        raise Unreadable(str(error)) from None
    return Text(text[: scanner.MAX_CHARACTERS], len(text) > scanner.MAX_CHARACTERS)


async def _read_in_child(work: Work, content_type: str, chunks: AsyncIterator[bytes]) -> Text:
    command = [sys.executable, "-m", "tasks.scan.text_child", content_type, str(scanner.MAX_CHARACTERS)]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(_CHECKOUT), "LANG": "C.UTF-8"}
    try:
        async with work.spawn(command, env=environment, cwd=_CHECKOUT, limits=_LIMITS) as tree:
            try:
                async with asyncio.timeout(WALL_SECONDS):
                    answer, end = await _converse(tree, chunks)
            except TimeoutError:
                raise Unreadable("The file takes too long to read.") from None
    except CannotStart as error:
        if time.monotonic() >= work.lease_deadline:
            raise LeaseLost from error
        raise
    if end.reason is EndReason.DEADLINE:
        raise LeaseLost
    if end.exit_code != 0 or len(answer) > _MAX_ANSWER_BYTES:
        raise Unreadable("The file cannot be read within our limits of memory and time, or breaks its reader.")
    found = orjson.loads(answer)
    if "refusal" in found:
        raise Unreadable(str(found["refusal"]))
    return Text(found["text"], found["isCut"])


async def _converse(tree: ProcessTree, chunks: AsyncIterator[bytes]) -> tuple[bytes, TreeExit]:
    """Send the file, take the answer, at most a byte more than it may have; what the child says besides is dropped."""
    drain = asyncio.create_task(_drop(tree.stderr), name="scan-stderr")
    try:
        try:
            async for chunk in chunks:
                tree.stdin.write(chunk)
                await tree.stdin.drain()
            tree.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it ended before it had read all; its end says why
        answer = bytearray()
        while len(answer) <= _MAX_ANSWER_BYTES and (piece := await tree.stdout.read(_MAX_ANSWER_BYTES)):
            answer += piece
        end = await (tree.wait() if len(answer) <= _MAX_ANSWER_BYTES else tree.kill())
        return bytes(answer), end
    finally:
        drain.cancel()


async def _drop(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        continue
