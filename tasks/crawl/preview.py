"""A crawl of a few pages that leaves nothing: for looking at an input before it is kept.

The crawler process is the one of real runs, so robots.txt, the address guard, limits and the check of items hold; the
frontier is in memory. Nothing is written anywhere. The process dies when this one does, when the caller is cancelled,
and at the deadline.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from adapters import processes
from adapters.line_streams import LineTooLong, line_batches
from adapters.processes import ProcessTree
from models.jobs import CloseReason
from models.logs import LogLevel, NewLine
from settings import Settings
from tasks.crawl import ledger
from tasks.crawl.crawl import CHECKOUT, crawler_environment, log_line
from tasks.crawl.crawler import protocol
from tasks.crawl.crawler.protocol import MessageType

MAX_PAGES: Final = 5
MAX_ITEMS: Final = 100
MAX_LINES: Final = 500
MAX_BYTES: Final = 4 * 2**20
"""What is told of items, as JSON; those beyond are counted on their page and left out."""
CRAWL_SECONDS: Final = 20.0
END_SECONDS: Final = 25.0
MEMORY_MEGABYTES: Final = 512
WATCH_SECONDS: Final = 0.5


@dataclass(slots=True)
class Preview:
    """What a short crawl found; `items` and `rejected` are {url, data} and {url, data, faults}."""

    close_reason: CloseReason | None = None
    detail: str | None = None
    pages: list[Mapping[str, Any]] = field(default_factory=list)
    failed: list[Mapping[str, Any]] = field(default_factory=list)
    items: list[Mapping[str, Any]] = field(default_factory=list)
    rejected: list[Mapping[str, Any]] = field(default_factory=list)
    lines: list[NewLine] = field(default_factory=list)
    hosts: ledger.Entries = field(default_factory=dict)


async def crawl(settings: Settings, *, spider: str, spider_input: Mapping[str, Any], pages: int) -> Preview:
    """Crawl up to so many pages; raises `adapters.processes.CannotStart`."""
    preview = _Crawl(settings, spider, spider_input, pages)
    command = [sys.executable, "-m", "tasks.crawl.crawler"]
    deadline = time.monotonic() + END_SECONDS + processes.KILL_SECONDS
    async with processes.spawn(command, env=crawler_environment(), cwd=CHECKOUT, deadline=deadline) as tree:
        await preview.drive(tree)
    return preview.found


class _Crawl:
    def __init__(self, settings: Settings, spider: str, spider_input: Mapping[str, Any], pages: int) -> None:
        self.found = Preview()
        self._start = protocol.Start(
            run="preview",
            spider=spider,
            input=spider_input,
            user_agent=settings.crawl_user_agent,
            allowed_hosts=settings.crawl_allowed_hosts,
            limits=protocol.Limits(
                max_pages=min(pages, MAX_PAGES),
                max_items=MAX_ITEMS,
                memory_megabytes=min(MEMORY_MEGABYTES, settings.crawl_memory_megabytes),
            ),
            throttle=protocol.Throttle(
                concurrency=MAX_PAGES,
                start_delay_seconds=settings.crawl_start_delay_seconds,
                target_concurrency=settings.crawl_target_concurrency,
                timeout_seconds=CRAWL_SECONDS / 2,
            ),
        )
        self._known: set[str] = set()
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._leased: set[str] = set()
        self._wanted = 0
        self._bytes = 0
        self._is_seeded = self._is_end_sent = False

    async def drive(self, tree: ProcessTree) -> None:
        """Serve the crawler until it has closed, is out of time or too large."""
        self._say(tree, self._start.to_message())
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(self._watch(tree), name="preview-watch"),
                group.create_task(self._keep_stray_text(tree), name="preview-stderr"),
            ]
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._listen(tree)
            except TimeoutError:
                self._force(CloseReason.TIME_LIMIT, "The preview took too long.")
            except (protocol.ProtocolError, LineTooLong) as error:
                self._force(None, f"The crawler said something that is not understood: {error}")
            finally:
                for watcher in watchers:
                    watcher.cancel()

    async def _listen(self, tree: ProcessTree) -> None:
        async for lines in line_batches(tree.stdout, limit_bytes=protocol.MAX_LINE_BYTES):
            for line in lines:
                self._take(protocol.decode(line))
            self._feed(tree)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case MessageType.SEED:
                self._is_seeded = True
                self._add(message["requests"])
            case MessageType.WANT:
                self._wanted += int(message["count"])
            case MessageType.PAGE:
                self._page(message)
            case MessageType.FAILED:
                self._leased.discard(message["requestId"])
                self.found.failed.append(message)
                ledger.failure(message["url"], message["reason"], self.found.hosts)
            case MessageType.LOG if len(self.found.lines) < MAX_LINES:
                self.found.lines.append(log_line(message))
            case MessageType.CLOSED:
                self._close(message)
        ledger.told(message.get("hosts") or {}, self.found.hosts)

    def _page(self, page: Mapping[str, Any]) -> None:
        self._leased.discard(page["requestId"])
        self.found.pages.append({**page, "items": len(page["items"]), "requests": len(page["requests"])})
        for item in page["items"]:
            self._keep(self.found.items, {"url": page["url"], "data": item["data"]})
        for item in page["rejected"]:
            self._keep(self.found.rejected, {"url": page["url"], "data": item["data"], "faults": item["faults"]})
        ledger.page(page["url"], self.found.hosts, duplicates=len(page["requests"]) - self._add(page["requests"]))

    def _keep(self, kept: list[Mapping[str, Any]], item: Mapping[str, Any]) -> None:
        self._bytes += len(orjson.dumps(item))
        if len(kept) < MAX_ITEMS and self._bytes <= MAX_BYTES:
            kept.append(item)

    def _add(self, requests: Sequence[Mapping[str, Any]]) -> int:
        new = [request for request in requests if request["fingerprint"] not in self._known]
        self._known.update(request["fingerprint"] for request in new)
        self._waiting.extend(new)
        return len(new)

    def _feed(self, tree: ProcessTree) -> None:
        """Hand out what waits, best first; say so when there is nothing left."""
        ordered = sorted(self._waiting, key=lambda request: -int(request["priority"]))
        given, self._waiting = ordered[: self._wanted], deque(ordered[self._wanted :])
        if given:
            self._wanted -= len(given)
            self._leased.update(request["fingerprint"] for request in given)
            keys = ("url", "callback", "depth", "method", "meta")
            requests = [{"id": each["fingerprint"], **{key: each[key] for key in keys}} for each in given]
            self._say(tree, {"type": MessageType.REQUESTS, "requests": requests})
        elif self._wanted and self._is_seeded and not self._leased and not self._is_end_sent:
            self._is_end_sent = True
            self._say(tree, {"type": MessageType.IDLE})

    async def _watch(self, tree: ProcessTree) -> None:
        """Ask it to stop when the time is up; end it when it is too large."""
        limit = (self._start.limits.memory_megabytes or MEMORY_MEGABYTES) * 2**20
        asked_at = time.monotonic() + CRAWL_SECONDS
        is_asked = False
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not is_asked and time.monotonic() > asked_at:
                is_asked = True
                self._say(tree, {"type": MessageType.STOP, "reason": CloseReason.TIME_LIMIT.value})
            if await tree.memory_bytes() > limit * 1.25:
                self._force(CloseReason.MEMORY_LIMIT, "The preview used more memory than it may.")
                await tree.kill()

    async def _keep_stray_text(self, tree: ProcessTree) -> None:
        with suppress(LineTooLong):
            async for lines in line_batches(tree.stderr, limit_bytes=2**16):
                for line in lines:
                    if len(self.found.lines) < MAX_LINES:
                        now = int(time.time() * 1000)
                        text = line.decode("utf-8", "replace")[:1_000]
                        self.found.lines.append(NewLine(now, LogLevel.WARNING, text, "crawler"))

    def _close(self, message: Mapping[str, Any]) -> None:
        if self.found.close_reason is None:
            with suppress(ValueError):
                self.found.close_reason = CloseReason(message["reason"])
            self.found.detail = message.get("detail")

    def _force(self, reason: CloseReason | None, detail: str) -> None:
        if self.found.close_reason is None:
            self.found.close_reason, self.found.detail = reason, detail

    def _say(self, tree: ProcessTree, message: Mapping[str, Any]) -> None:
        if not tree.stdin.is_closing():
            tree.stdin.write(protocol.encode(message))
