"""Children within limits: what they may not do, and that nothing of them outlives the wait for them."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters import limited_child
from adapters.limited_child import ChildEnd
from tests.harness.waiting import eventually


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def run(code: str, **changes: Any) -> ChildEnd:
    limits: dict[str, Any] = {
        "memory_bytes": 256 * 2**20,
        "cpu_seconds": 5,
        "wall_seconds": 10,
        "max_output_bytes": 100_000,
    }
    return await limited_child.run([sys.executable, "-I", "-S", "-c", code], **{**limits, **changes})


async def test_a_child_reads_answers_and_ends() -> None:
    end = await run("import sys; print(len(sys.stdin.read())); sys.exit(3)", stdin=b"abc" * 100_000)
    assert (end.exit_code, end.signal, end.output, end.is_good) == (3, None, b"300000\n", False)
    end = await run("import sys; sys.stdout.write(sys.stdin.read()[::-1])", stdin=b"abc" * 30_000)
    assert (end.output, end.is_good) == (b"cba" * 30_000, True)


async def test_a_child_has_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEYS", "hunter2")
    end = await run("import os; print(sorted(os.environ), len(os.listdir('/proc/self/fd')))")
    assert end.output == b"['LANG', 'MALLOC_ARENA_MAX', 'PATH'] 4\n"


async def test_memory_is_bounded() -> None:
    end = await run("bytearray(2**29)")
    assert end.exit_code == 1
    assert b"MemoryError" in end.errors


async def test_processor_time_is_bounded() -> None:
    end = await run("while True: pass", cpu_seconds=1)
    assert (end.signal, end.is_late, end.is_good) == (signal.SIGKILL, False, False)


async def test_nothing_is_written_to_disk(tmp_path: Path) -> None:
    end = await run(f"import os; os.write(os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_WRONLY), b'x')")
    assert (end.exit_code, (tmp_path / "x").read_bytes()) == (1, b"")


async def test_a_slow_child_is_killed_with_its_children() -> None:
    before = children()
    end = await run("import os, sys, time; os.fork(); print(os.getpid(), flush=True); time.sleep(60)", wall_seconds=0.8)
    assert (end.is_late, end.is_good, end.exit_code) == (True, False, None)
    assert children() - before == set()


async def test_a_child_that_writes_without_end_is_killed() -> None:
    end = await run("while True: print('x' * 1000)")
    assert (end.is_cut, end.is_good, end.output) == (True, False, b"")


async def test_nothing_is_left_when_the_wait_is_broken_off() -> None:
    before = children()
    waiting = asyncio.create_task(run("import time; time.sleep(60)"))
    await eventually(lambda: len(children() - before) > 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() - before == set()
