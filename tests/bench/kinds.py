"""Kinds to measure with, and a worker that runs them: `python -m tests.bench.kinds`.

QUICK does nothing. SLEEP waits until it is cancelled. CHATTER runs a child that says what a crawler says when it
logs, as fast as it can, and stores the lines as a crawl does.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg

import settings
from adapters.line_streams import line_batches
from adapters.storage import Storage
from settings import Settings
from tasks import worker
from tasks.crawl.crawl import log_line
from tasks.crawl.crawler import protocol
from tasks.work import SUCCEEDED, Outcome, Work

CHATTER_LINES = 200_000
CHATTER = f"""
import sys
line = ('{{"type":"log","level":"INFO","message":"200 http://127.0.0.1:8900/shop/page: 1 items, 9 links, 5,120 bytes",'
        '"time":"2026-01-01T00:00:00.000+00:00","stage":"page"}}\\n').encode() * 100
for _ in range({CHATTER_LINES // 100}):
    sys.stdout.buffer.write(line)
"""


class Quick:
    """Ends at once."""

    name = "QUICK"
    slots = 4
    running_per_owner = 4
    is_short = True
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    async def run(self, work: Work) -> Outcome:
        """Nothing."""
        return SUCCEEDED


class Sleep(Quick):
    """Waits."""

    name = "SLEEP"
    is_short = False

    async def run(self, work: Work) -> Outcome:
        """Nothing, for long; a second attempt ends at once."""
        if work.claim.attempt == 1:
            await asyncio.sleep(600)
        return SUCCEEDED


class Chatter(Quick):
    """Logs."""

    name = "CHATTER"

    async def run(self, work: Work) -> Outcome:
        """Store all that the child says."""
        async with work.spawn([sys.executable, "-c", CHATTER], env={}, cwd="/") as tree:
            async for lines in line_batches(tree.stdout, limit_bytes=protocol.MAX_LINE_BYTES):
                await work.log.write_lines([log_line(protocol.decode(line)) for line in lines])
            await tree.wait()
        return SUCCEEDED


def kinds(_settings: Settings, _storage: Storage, _pool: asyncpg.Pool) -> list[Quick]:
    """All of them."""
    return [Quick(), Sleep(), Chatter()]


if __name__ == "__main__":
    loaded = settings.load()
    asyncio.run(worker.run(loaded, kinds))
