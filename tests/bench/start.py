"""`make run` from a fresh clone and again: seconds until the greeting, and their ratio."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

from tests.bench.place import CHECKOUT

GREETING = "Switchyard is ready"


async def main() -> None:
    """Print both times."""
    with tempfile.TemporaryDirectory(prefix="switchyard-start-") as folder:
        clone = Path(folder) / "clone"
        git = await asyncio.create_subprocess_exec("git", "clone", "--quiet", str(CHECKOUT), str(clone))
        assert await git.wait() == 0
        first = await _start(clone)
        print(f"first start, installing everything: {first:.1f} s")
        again = sorted([await _start(clone) for _ in range(3)])[1]
        print(f"start again, median of 3: {again:.1f} s; ratio to the first {again / first:.3f}")


async def _start(clone: Path) -> float:
    names = ("DATABASE_URL", "REDIS_URL", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *("make", "run", "PORT=8177"),
        cwd=clone,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(300):
            while line := await process.stdout.readline():
                if GREETING in line.decode():
                    return time.monotonic() - started
        raise AssertionError("it ended without a greeting")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        await process.wait()
