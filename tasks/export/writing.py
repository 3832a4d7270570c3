"""Writers of exports, driven: a child gets an order and items, and answers with what became of them.

The child is told little and trusted with nothing: it gets a clean environment, limits of memory and of the size of its
files, and dies with the lease. Reading waits while it is busy, so this process holds one page.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import orjson

from adapters.line_streams import READ_BYTES, LineTooLong, lines
from adapters.processes import CannotStart, EndReason, Limits, ProcessTree, TreeExit
from models.executions import Failure, FailureCode
from models.leases import LeaseLost
from tasks.export.protocol import MAX_ANSWER_LINE_BYTES, Order
from tasks.work import ExecutionFailed, Work

OPEN_FILES: Final = 1_024
"""A workbook has an open file for each of its sheets."""
MAX_STRAY_BYTES: Final = 4_000
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_BROKEN_BY_MEMORY: Final = frozenset({signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS})
"""How programs end that get no memory, or whom the kernel chose when there was none left."""

Page = bytes
"""Items, one in a line; no newline at the end."""
Tell = Callable[[int], Awaitable[None]]


async def write(work: Work, order: Order, pages: AsyncIterator[Page], *, file_bytes: int, tell: Tell) -> int:
    """Have the file of an order written; how many rows it has. `tell` hears now and then how many are written.

    Raises ExecutionFailed with the reason, LeaseLost, and what `pages` raises.
    """
    command = [sys.executable, "-m", "tasks.export.writer"]
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(_CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # each further arena takes 64 MB of the address space that is limited
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
    }
    limits = Limits(open_files=OPEN_FILES, file_bytes=file_bytes)
    try:
        async with work.spawn(command, env=environment, cwd=_CHECKOUT, limits=limits) as tree:
            answer, end, stray = await _converse(tree, order, pages, tell)
    except CannotStart as error:
        if time.monotonic() >= work.lease_deadline:
            raise LeaseLost from error
        raise
    if end.reason is EndReason.DEADLINE:
        raise LeaseLost
    if "refusal" in answer:
        raise _failed(work, FailureCode(answer["refusal"]["code"]), answer["refusal"]["message"])
    if "rows" in answer:
        return int(answer["rows"])
    if stray:
        await work.log.debug(f"The writer's last words: {stray[-500:]}")
    if end.signal in _BROKEN_BY_MEMORY:
        raise _failed(work, FailureCode.OUT_OF_MEMORY, "The writer of the file was ended, most likely for its memory.")
    how = f"signal {end.signal}" if end.signal is not None else f"exit code {end.exit_code}"
    raise _failed(work, FailureCode.INTERNAL, f"The writer of the file broke ({how}).")


async def _converse(
    tree: ProcessTree, order: Order, pages: AsyncIterator[Page], tell: Tell
) -> tuple[dict[str, Any], TreeExit, str]:
    """The last answer of the writer, its end, and what it said besides."""
    answer = asyncio.create_task(_listen(tree.stdout, tell), name="export-answer")
    stray = asyncio.create_task(_last_words(tree.stderr), name="export-stderr")
    try:
        try:
            tree.stdin.write(order.encode())
            async for page in pages:
                tree.stdin.write(page)
                tree.stdin.write(b"\n")
                await tree.stdin.drain()
            tree.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has enough, or it ended: its answer says which
        said = await answer
        end = await tree.wait()
        return said, end, (await stray).decode("utf-8", "replace").strip()
    finally:
        answer.cancel()
        stray.cancel()


async def _listen(stream: asyncio.StreamReader, tell: Tell) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    try:
        async with aclosing(lines(stream, limit_bytes=MAX_ANSWER_LINE_BYTES)) as said:  # type: ignore[type-var] # a generator
            async for line in said:
                answer = orjson.loads(line)
                if "written" in answer:
                    await tell(int(answer["written"]))
    except (LineTooLong, orjson.JSONDecodeError):
        return {}
    return answer


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await stream.read(READ_BYTES):
        kept = (kept + chunk)[-MAX_STRAY_BYTES:]
    return kept


def _failed(work: Work, code: FailureCode, message: str) -> ExecutionFailed:
    is_passing = code in {FailureCode.UPLOAD_FAILED, FailureCode.INTERNAL}
    return ExecutionFailed(Failure(code, message, work.log.stage, retryable=is_passing))
