"""Log lines from a crawler-like child to a subscriber: stored, announced, read, executed, encoded and sent.

The baseline reads and decodes the same child's lines from its pipe and does nothing else, in the same run.
"""

from __future__ import annotations

import asyncio
import sys
import time

from models.ids import Prefix, encode_id
from tasks.crawl.crawl import log_line
from tasks.crawl.crawler import protocol
from tests.bench.kinds import CHATTER, CHATTER_LINES
from tests.bench.place import place
from tests.harness.client import subscribe

DOCUMENT = """subscription ($id: ID!) { logs(executionId: $id) {
    lines { sequence timestamp level message } lastSequence complete } }"""
SUBSCRIBERS = (1, 20)


async def main() -> None:
    """Print lines per second for each number of subscribers, and the ratio to the baseline."""
    plain = await _plain_pipe()
    print(f"baseline, pipe and JSON only: {plain:,.0f} lines/s")
    limits = {"LOG_HEAD_BYTES": str(64 * 2**20)}
    async with place(**limits) as here:
        await here.worker("-m", "tests.bench.kinds")
        for count in SUBSCRIBERS:
            execution_id = await here.execution("CHATTER")
            await here.job_run_row(execution_id)
            started = time.monotonic()
            arrived = await asyncio.gather(
                *(_read(here.api.ws_url, encode_id(Prefix.RUN, execution_id), here.person.token) for _ in range(count))
            )
            seconds = time.monotonic() - started
            row = await here.final(execution_id)
            stored = (row["finished_at"] - row["started_at"]).total_seconds()
            assert set(arrived) == {CHATTER_LINES}, arrived
            rate = CHATTER_LINES / seconds
            print(
                f"{count:3} subscribers: {rate:,.0f} lines/s each, {rate * count:,.0f} delivered/s, "
                f"stored in {stored:.1f} s; ratio to the baseline {rate / plain:.3f}"
            )


async def _plain_pipe() -> float:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHATTER, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    started, count, rest = time.monotonic(), 0, b""
    while chunk := await process.stdout.read(262_144):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            log_line(protocol.decode(line))
        count += len(lines)
    await process.wait()
    return count / (time.monotonic() - started)


async def _read(url: str, run_id: str, token: str) -> int:
    """Read to the end, checking that numbers have no gap."""
    position = 0
    async with subscribe(url, DOCUMENT, {"id": run_id}, token=token) as stream:
        async for message in stream:
            batch = message["logs"]
            if batch["lines"]:
                assert batch["lines"][0]["sequence"] == position + 1
            position = batch["lastSequence"]
    return position
