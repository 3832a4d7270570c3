"""Scrapy's scheduler here: a small buffer of leased requests, nothing more.

The queue of a crawl is the worker's table. This buffer holds only what the worker has leased to this process, so a
process that dies forgets nothing that matters. It decides which of the leased requests goes next: the host with the
fewest running downloads, as long as it is not paused (Retry-After), not due yet (Crawl-delay) and below its own
concurrency. Retries and redirects come back through `enqueue_request` and stay the same lease.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from scrapy.core.scheduler import BaseScheduler
from scrapy.crawler import Crawler
from scrapy.http import Request

from tasks.crawl.crawler.spiders.base import session_of

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session

LEASE = "lease"
"""Key of `Request.meta`: the worker's id of the request."""
NOT_BEFORE = "notBefore"
"""Key of `Request.meta`: monotonic time before which a retry must wait."""


@dataclass
class _Host:
    waiting: deque[Request] = field(default_factory=deque)
    running: int = 0
    next_start_at: float = 0.0
    interval_seconds: float = 0.0
    is_known: bool = False
    """A host is asked for one page first: with its robots.txt comes how fast the others may follow."""


class LeaseScheduler(BaseScheduler):
    """The leased requests that have not been handed to the downloader yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._hosts: dict[str, _Host] = {}
        self._running: dict[str, str] = {}
        self._later: list[tuple[float, int, Request]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        session.scheduler = self

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy builds its components this way; the session travels on the spider."""
        return cls(session_of(crawler))

    @property
    def running(self) -> int:
        """Leases that are being fetched or extracted."""
        return len(self._running)

    @property
    def buffered(self) -> int:
        """Leases that wait here."""
        return len(self._later) + sum(len(host.waiting) for host in self._hosts.values())

    def has_pending_requests(self) -> bool:
        """Always: whether there is more to do is the worker's to say, so Scrapy must never end by itself."""
        return True

    def enqueue_request(self, request: Request) -> bool:
        """Take in a new lease, or one that comes back as a retry or a redirect."""
        came_back = self.release(request.meta[LEASE])
        if request.meta.get(NOT_BEFORE, 0.0) > time.monotonic():
            heapq.heappush(self._later, (request.meta[NOT_BEFORE], next(self._order), request))
            return True
        waiting = self._host(request).waiting
        if came_back:
            waiting.appendleft(request)
        else:
            waiting.append(request)
        return True

    def next_request(self) -> Request | None:
        """The request to fetch now, if one may be fetched now."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, request = heapq.heappop(self._later)
            self._host(request).waiting.appendleft(request)
        if not self._session.may_start_page():
            return None
        ready = [host for host in self._startable() if host.next_start_at <= now]
        if not ready:
            self._wake_at(min(self._times(), default=None))
            return None
        host = min(ready, key=lambda each: each.running)
        request = host.waiting.popleft()
        host.running += 1
        host.next_start_at = max(host.next_start_at, now + host.interval_seconds)
        self._running[request.meta[LEASE]] = host_of(request.url)
        return request

    def release(self, lease: str) -> bool:
        """The lease is no longer running: it ended or came back. Whether it was running."""
        name = self._running.pop(lease, None)
        if name is None:
            return False
        self._hosts[name].running -= 1
        self._hosts[name].is_known = True
        return True

    def pause_host(self, url: str, seconds: float) -> None:
        """Start nothing on the URL's host for so long: it said that it is asked too much."""
        host = self._hosts.setdefault(host_of(url), _Host())
        host.next_start_at = max(host.next_start_at, time.monotonic() + seconds)

    def space_out(self, url: str, interval_seconds: float) -> None:
        """From now on leave so much time between two starts on the URL's host (robots.txt Crawl-delay)."""
        host = self._hosts.setdefault(host_of(url), _Host())
        if host.interval_seconds != interval_seconds:
            host.interval_seconds = interval_seconds
            host.next_start_at = max(host.next_start_at, time.monotonic() + interval_seconds)

    def close(self, reason: str) -> None:
        """Nothing to keep: what is buffered is still leased, and goes back when the process ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _host(self, request: Request) -> _Host:
        return self._hosts.setdefault(host_of(request.url), _Host())

    def _startable(self) -> Iterator[_Host]:
        limit = self._session.start.throttle.concurrency_per_host
        return (
            host for host in self._hosts.values() if host.waiting and host.running < (limit if host.is_known else 1)
        )

    def _times(self) -> Iterator[float]:
        yield from (host.next_start_at for host in self._startable())
        if self._later:
            yield self._later[0][0]

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            delay = max(0.0, when - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._session.nudge)


def host_of(url: str) -> str:
    """The host name, lower case, without port."""
    return urlsplit(url).hostname or ""
