"""One crawl inside this process: joins Scrapy's engine to the worker's pipes.

Keeps the invariant that this process owns nothing: requests come leased, pages leave whole, and when anything ends the
process early, what was not answered is the worker's to lease again. Limits count what earlier attempts brought too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import psutil
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from tasks.crawl.crawler.channel import Channel
from tasks.crawl.crawler.counters import Counters, HostCount
from tasks.crawl.crawler.failures import Stopping
from tasks.crawl.crawler.output_check import OutputCheck
from tasks.crawl.crawler.pages import CALLBACK, DEPTH, WIRE_BYTES, PageRunner, storable
from tasks.crawl.crawler.protocol import (
    PROTOCOL_VERSION,
    CloseReason,
    LeasedRequest,
    MessageType,
    NewRequest,
    ProtocolError,
    Start,
)
from tasks.crawl.crawler.scheduler import LEASE, LeaseScheduler, host_of
from tasks.crawl.crawler.spiders.base import META, PART, Follow, SessionSpider

STATS_SECONDS: Final = 1.0
FINISH_SECONDS: Final = 10.0
"""How long the worker may take to read the last messages."""
LEASES_PER_DOWNLOAD: Final = 3
"""Leased ahead, so that fetching goes on while the worker stores a page and looks for the next ones."""
MAX_LOG_CHARACTERS: Final = 8_000
EXIT_TERMINATED: Final = 143


class Session:
    """State and conduct of the crawl; Scrapy's components find it as `crawler.spider.session`."""

    scheduler: LeaseScheduler
    spider: SessionSpider

    def __init__(self, start: Start, channel: Channel, check: OutputCheck) -> None:
        self.start = start
        self.check = check
        self.channel = channel
        self.counters = Counters()
        self._pages = PageRunner(self)
        self._asked = 0
        self._capacity = start.throttle.concurrency * LEASES_PER_DOWNLOAD
        self._stop_reason: str | None = None
        self._is_terminated = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._crawler: Crawler
        self._hosts: frozenset[str]

    # -- joined to Scrapy

    def attach(self, crawler: Crawler, spider: SessionSpider) -> None:
        """Listen to the crawler's signals; called while Scrapy builds the spider."""
        self._crawler = crawler
        self.spider = spider
        self._hosts = frozenset(_site(host_of(seed.url)) for seed in spider.seeds())
        for handler, event in (
            (self._opened, signals.spider_opened),
            (self._closed, signals.spider_closed),
            (self._downloaded, signals.response_downloaded),
            (self._sent, signals.request_left_downloader),
            (self._callback_raised, signals.spider_error),
        ):
            crawler.signals.connect(handler, signal=event)

    async def _opened(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the worker's business
        await self.channel.open(receive=self._receive, relieved=self.nudge)
        self.channel.send({"type": "ready", "version": PROTOCOL_VERSION})
        if not self.start.resume:
            seeds = [self.new_request(seed, 0).to_message() for seed in self.spider.seeds()]
            self.channel.send({"type": "seed", "requests": seeds})
        self._spawn(self._report())
        if not self._limit_reached():
            self._ask()

    async def _closed(self, reason: str) -> None:
        for task in self._tasks - {asyncio.current_task()}:
            if task.get_name() == "report":
                task.cancel()
        self._send_stats()
        news = self.counters.take_news()
        self.channel.send({"type": "closed", "reason": reason, "detail": None, "path": [], "hosts": news})
        await self.channel.finish(timeout_seconds=FINISH_SECONDS)

    def _downloaded(self, response: Response, request: Request) -> None:
        size = len(response.body)
        request.meta[WIRE_BYTES] = request.meta.get(WIRE_BYTES, 0) + size
        self.counters.bytes += size
        self.counters.note(host_of(request.url), HostCount.BYTES, size)

    def _sent(self, request: Request) -> None:
        self.counters.note(host_of(request.url), HostCount.REQUESTS)

    def _callback_raised(self, failure: Failure, response: Response | Failure) -> None:
        self._pages.on_error(failure, response)

    def _terminate(self) -> None:
        # Signals are counted by themselves: the first one may well follow a `stop` message that is being obeyed.
        if self._is_terminated:
            os._exit(EXIT_TERMINATED)
        self._is_terminated = True
        self.stop(CloseReason.STOPPED)

    # -- the worker's messages

    def _receive(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case MessageType.REQUESTS:
                leased = [LeasedRequest.from_message(each) for each in message["requests"]]
                self._asked -= len(leased)
                for each in leased:
                    self._lease(each)
            case MessageType.IDLE:
                self.stop(CloseReason.FINISHED)
            case MessageType.STOP:
                self.stop(str(message.get("reason") or CloseReason.STOPPED.value))
            case unknown:
                raise ProtocolError(f"the worker sent {unknown!r}")

    def _lease(self, leased: LeasedRequest) -> None:
        if self.stopping or self._crawler.engine.spider is None:
            return
        if leased.callback not in self.spider.callbacks:
            raise ProtocolError(f"{self.spider.name} has no callback {leased.callback!r}")
        request = Request(
            leased.url,
            method=leased.method,
            callback=self._pages.on_page,
            errback=self._pages.on_failure,
            meta={
                **self.spider.request_meta.get(leased.callback, {}),
                **{LEASE: leased.id, CALLBACK: leased.callback, DEPTH: leased.depth, META: dict(leased.meta)},
            },
            dont_filter=True,
        )
        self._crawler.engine.crawl(request)

    def _ask(self) -> None:
        """Ask for as many requests as there is room for, in lots, so that a page is not answered by one request."""
        held = self.scheduler.buffered + self.scheduler.running + self._asked
        room = self._capacity - held
        if not self.stopping and room >= (self._capacity // 4 or 1):
            self._asked += room
            self.channel.send({"type": "want", "count": room})

    # -- what the components ask

    @property
    def stopping(self) -> bool:
        """Whether no new pages are started."""
        return self._stop_reason is not None

    def may_start_page(self) -> bool:
        """Whether another page may be fetched: the worker keeps up and the page limit has room for those running."""
        limit = self.start.limits.max_pages
        running = self.start.totals.pages + self.counters.pages + self.scheduler.running
        return not self.stopping and not self.channel.congested and (limit is None or running < limit)

    def items_left(self) -> int | None:
        """How many items the run may still bring; None without a limit."""
        limit = self.start.limits.max_items
        return None if limit is None else max(0, limit - self.start.totals.items - self.counters.items)

    def ended(self, lease: str) -> None:
        """A request was answered or given back."""
        self.scheduler.release(lease)
        if not self._limit_reached():
            self._ask()

    def on_site(self, url: str) -> bool:
        """Whether links may lead there: the hosts of the seeds, with or without www, and the allowed domains."""
        host = host_of(url)
        domains = self.start.input.get("allowedDomains", ())
        return _site(host) in self._hosts or any(
            host == domain.lower() or host.endswith(f".{domain.lower()}") for domain in domains
        )

    def fingerprint(self, request: Request | None) -> str:
        """Scrapy's request fingerprint, in hex: method, canonical URL and body; and the part, where there are some."""
        if request is None:
            raise ValueError("a response without a request")
        fingerprint: bytes = self._crawler.request_fingerprinter.fingerprint(request)
        part = request.meta.get(META, {}).get(PART)
        return fingerprint.hex() if part is None else hashlib.sha1(fingerprint + str(part).encode()).hexdigest()  # noqa: S324

    def new_request(self, follow: Follow, depth: int) -> NewRequest:
        """A link as the worker's frontier stores it; raises ValueError for a malformed URL."""
        request = Request(follow.url, meta={META: follow.meta})
        return NewRequest(
            url=request.url,
            fingerprint=self.fingerprint(request),
            callback=follow.callback,
            depth=depth,
            priority=follow.priority,
            meta=follow.meta,
        )

    def note_throttled(self, url: str) -> None:
        """A host said that it is asked too much."""
        self.counters.throttled += 1
        self.counters.note(host_of(url), HostCount.THROTTLED)

    def note_retry(self, url: str, reason: str, delay_seconds: float) -> None:
        """A request will be tried again."""
        self.counters.retries += 1
        self.counters.note(host_of(url), HostCount.RETRIED)
        self.log("WARNING", f"{url}: {reason}, trying again in {delay_seconds:.1f} s", "fetch")

    def log(self, level: str, message: str, stage: str) -> None:
        """A line for the run's log; while the worker does not keep up, only errors, and the rest is counted."""
        if self.channel.congested and level != "ERROR":
            self.counters.logs_dropped += 1
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = storable(message[:MAX_LOG_CHARACTERS])
        self.channel.send({"type": "log", "level": level, "message": line, "time": now, "stage": stage})

    def nudge(self) -> None:
        """Let the engine ask the scheduler again now; by itself it does so every five seconds."""
        # Scrapy offers this publicly only together with a new request (`engine.crawl`).
        slot = self._crawler.engine._slot
        if slot is not None:
            slot.nextcall.schedule()

    # -- the end

    def stop(self, reason: str) -> None:
        """Finish the pages being fetched, start no others, close; the first reason stands."""
        if self.stopping:
            return
        self._stop_reason = str(reason)
        self.log("INFO", f"Stopping: {self._stop_reason}", "close")
        # Requests that wait for their turn inside the downloader would hold up the end by their delays.
        for slot in self._crawler.engine.downloader.slots.values():
            while slot.queue:
                _, waiting = slot.queue.popleft()
                waiting.errback(Stopping("the crawl stops"))
        self._spawn(self._crawler.engine.close_spider_async(reason=self._stop_reason))

    def _limit_reached(self) -> bool:
        limits, totals = self.start.limits, self.start.totals
        if limits.max_pages is not None and totals.pages + self.counters.pages >= limits.max_pages:
            self.stop(CloseReason.PAGE_LIMIT)
        elif limits.max_bytes is not None and totals.bytes + self.counters.bytes >= limits.max_bytes:
            self.stop(CloseReason.BYTE_LIMIT)
        elif self.items_left() == 0:
            self.stop(CloseReason.ITEM_LIMIT)
        return self.stopping

    async def _report(self) -> None:
        limit = self.start.limits.memory_megabytes
        process = psutil.Process()
        while True:
            await asyncio.sleep(STATS_SECONDS)
            self._send_stats()
            if limit is not None and process.memory_info().rss > limit * 2**20:
                self.stop(CloseReason.MEMORY_LIMIT)

    def _send_stats(self) -> None:
        running, buffered = self.scheduler.running, self.scheduler.buffered
        self.channel.send(self.counters.to_message(in_flight=running, buffered=buffered))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class LogLines(logging.Handler):
    """Hands warnings of Scrapy and Twisted to the run's log."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.WARNING)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """One line per record; the exception's name and text instead of its trace."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._session.log(record.levelname if record.levelname != "CRITICAL" else "ERROR", message, "crawler")


def _site(host: str) -> str:
    return host.removeprefix("www.")
