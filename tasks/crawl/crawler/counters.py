"""What a crawler process counts, and the `stats` message it makes of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

MAX_HOSTS_LISTED: Final = 50


class Drop(StrEnum):
    """Why a link was not followed; counted, and not worth a line of the log each."""

    OFF_SITE = "offSite"
    DEPTH = "depth"
    DUPLICATE = "duplicate"
    NOT_HTTP = "notHttp"
    TOO_LONG = "tooLong"


@dataclass
class HostCounters:
    """The same for one host."""

    pages: int = 0
    bytes: int = 0
    failed: int = 0
    throttled: int = 0


@dataclass
class Counters:
    """Counts of this process; the worker adds up those of a run's attempts."""

    pages: int = 0
    items: int = 0
    bytes: int = 0
    retries: int = 0
    throttled: int = 0
    errors: int = 0
    logs_dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostCounters] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    def host(self, name: str) -> HostCounters:
        """The counters of one host."""
        return self.hosts.setdefault(name, HostCounters())

    def to_message(self, *, in_flight: int, buffered: int) -> dict[str, Any]:
        """The `stats` message; only the busiest hosts are listed."""
        busiest = sorted(self.hosts.items(), key=lambda entry: entry[1].pages, reverse=True)[:MAX_HOSTS_LISTED]
        return {
            "type": "stats",
            "elapsedSeconds": round(time.monotonic() - self.started_at, 3),
            "pages": self.pages,
            "items": self.items,
            "bytes": self.bytes,
            "retries": self.retries,
            "throttled": self.throttled,
            "errors": self.errors,
            "logsDropped": self.logs_dropped,
            "failed": dict(self.failed),
            "dropped": dict(self.dropped),
            "inFlight": in_flight,
            "buffered": buffered,
            "byHost": {name: vars(counters) for name, counters in busiest},
        }
