"""What a crawler process counts: the `stats` message, and what each host was asked for since it was last told.

News of hosts travel in `page`, `failed` and `closed` messages, so that they are stored in the transaction of the page
that they come with, once. Nothing here grows with the length of a crawl.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class HostCount(StrEnum):
    """What is counted of a host by the crawler; pages and failures the worker counts from their messages."""

    REQUESTS = "requests"
    """Requests sent to it: retries, redirects and robots.txt included."""
    BYTES = "bytes"
    RETRIED = "retried"
    THROTTLED = "throttled"


class Drop(StrEnum):
    """Why a link was not followed; counted for the host that it was found on, and not worth a line of the log each."""

    OFF_SITE = "offSite"
    DEPTH = "depth"
    DUPLICATE = "duplicate"
    NOT_HTTP = "notHttp"
    TOO_LONG = "tooLong"


@dataclass
class Counters:
    """Counts of this process; the worker adds up those of a run's attempts."""

    pages: int = 0
    items: int = 0
    rejected: int = 0
    bytes: int = 0
    retries: int = 0
    throttled: int = 0
    errors: int = 0
    logs_dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    started_at: float = field(default_factory=time.monotonic)
    _news: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, host: str, what: HostCount | Drop, count: int = 1) -> None:
        """Count something of a host."""
        self._news.setdefault(host, Counter())[what.value] += count

    def take_news(self) -> dict[str, Mapping[str, int]]:
        """What was counted of hosts since the last time."""
        news, self._news = self._news, {}
        return dict(news)

    def put_back(self, news: Mapping[str, Mapping[str, int]]) -> None:
        """The news were not told after all."""
        for host, counts in news.items():
            self._news.setdefault(host, Counter()).update(counts)

    def to_message(self, *, in_flight: int, buffered: int) -> dict[str, Any]:
        """The `stats` message."""
        return {
            "type": "stats",
            "elapsedSeconds": round(time.monotonic() - self.started_at, 3),
            "pages": self.pages,
            "items": self.items,
            "rejected": self.rejected,
            "bytes": self.bytes,
            "retries": self.retries,
            "throttled": self.throttled,
            "errors": self.errors,
            "logsDropped": self.logs_dropped,
            "failed": dict(self.failed),
            "inFlight": in_flight,
            "buffered": buffered,
        }
