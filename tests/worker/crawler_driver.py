"""A worker in a hundred lines: keeps the frontier in memory and drives real crawler processes over real pipes.

It does what the contract in `tasks.crawl.crawler.protocol` asks of a worker, a page being stored in one step, and
nothing more, so that what a test proves with it is proven of the crawler.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.crawl.crawler.protocol import MAX_LINE_BYTES, Limits, Start, Throttle, decode, encode

ROOT = Path(__file__).parents[2]
FAST = Throttle(concurrency=8, concurrency_per_host=8, start_delay_seconds=0.0, target_concurrency=64.0, retries=3)


@dataclass
class Frontier:
    """What PostgreSQL holds in earnest."""

    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    leased: dict[str, str] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeated_items: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    pages: int = 0
    seeded: bool = False

    def add(self, requests: list[dict[str, Any]]) -> None:
        """New requests, once each."""
        for request in requests:
            if self.requests.setdefault(request["fingerprint"], request) is request:
                self.waiting.append(request["fingerprint"])

    def lease(self, count: int) -> list[dict[str, Any]]:
        """Up to so many, best first."""
        self.waiting.sort(key=lambda each: -self.requests[each]["priority"])
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        self.leased.update({f"lease-{fingerprint}": fingerprint for fingerprint in taken})
        keys = ("url", "method", "depth", "meta", "callback")
        return [{"id": f"lease-{each}", **{key: self.requests[each][key] for key in keys}} for each in taken]

    def store(self, page: Mapping[str, Any]) -> None:
        """A page: its items, its requests, the acknowledgement."""
        self.pages += 1
        for item in page["items"]:
            self.repeated_items += item["key"] in self.items
            self.items.setdefault(item["key"], item["data"])
        self.errors += page["errors"]
        self.add(page["requests"])
        if page["complete"]:
            del self.leased[page["requestId"]]

    def release(self) -> None:
        """The crawler is gone: what it had not answered waits again."""
        self.waiting += self.leased.values()
        self.leased.clear()


class Crawler:
    """One crawler process and the worker's side of its pipes."""

    def __init__(self, process: asyncio.subprocess.Process, frontier: Frontier) -> None:
        self.process = process
        self.frontier = frontier
        self.logs: list[dict[str, Any]] = []
        self.stats: list[dict[str, Any]] = []
        self.types: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.closed: dict[str, Any] | None = None
        self._credit = 0

    async def run(
        self, *, until: Callable[[Crawler], bool] = lambda _: False, timeout_seconds: float = 60.0
    ) -> Crawler:
        """Serve the crawler until its pipe ends or `until` says so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_seconds):
            while line := await self.process.stdout.readline():
                self.take(decode(line))
                if until(self):
                    return self
            await self.process.wait()
        return self

    def take(self, message: dict[str, Any]) -> None:
        """Do what the message asks."""
        assert self.closed is None, f"{message} came after closed"
        self.types[message["type"]] += 1
        for counts in message.get("hosts", {}).values():
            self.hosts.update(counts)
        match message["type"]:
            case "seed":
                self.frontier.add(message["requests"])
                self.frontier.seeded = True
            case "want":
                self._credit += message["count"]
            case "page":
                self.frontier.store(message)
            case "failed":
                self.frontier.failed.append(message)
                del self.frontier.leased[message["requestId"]]
            case "log":
                self.logs.append(message)
            case "stats":
                self.stats.append(message)
            case "closed":
                self.closed = message
        if self.closed is None and self.frontier.seeded:
            self._feed()

    def send(self, message: Mapping[str, Any]) -> None:
        """To the crawler; a crawler that is gone is found out by reading."""
        assert self.process.stdin is not None
        self.process.stdin.write(encode(message))

    def signal(self, number: signal.Signals) -> None:
        """To this process alone."""
        os.kill(self.process.pid, number)

    def _feed(self) -> None:
        leased = self.frontier.lease(self._credit)
        if leased:
            self._credit -= len(leased)
            self.send({"type": "requests", "requests": leased})
        elif not self.frontier.leased and not self.frontier.waiting:
            self.send({"type": "idle"})


@asynccontextmanager
async def crawling(
    start: Start,
    frontier: Frontier,
    *,
    extra_environment: Mapping[str, str] | None = None,
    line_limit: int = MAX_LINE_BYTES + 1,
    first_line: bytes | None = None,
) -> AsyncIterator[Crawler]:
    """Start a crawler; whatever the test does, the process is gone at the end and its leases are free."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(extra_environment or {})}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tasks.crawl.crawler",
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=line_limit,
    )
    crawler = Crawler(process, frontier)
    try:
        assert process.stdin is not None
        process.stdin.write(first_line or encode(start.to_message()))
        yield crawler
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        frontier.release()


async def crawl(start: Start, frontier: Frontier | None = None, **more: Any) -> Crawler:
    """Run one crawler to its end."""
    async with crawling(start, frontier or Frontier()) as crawler:
        return await crawler.run(**more)


def start_message(spider: str, spider_input: Mapping[str, Any], *, allowed: list[str], **more: Any) -> Start:
    """A `start` for tests: quick, and as safe as in earnest."""
    values: dict[str, Any] = {"throttle": FAST, "limits": Limits(), **more}
    return Start(
        run="run_test",
        spider=spider,
        input=spider_input,
        user_agent="SwitchyardTest/1.0",
        allowed_hosts=allowed,
        **values,
    )
