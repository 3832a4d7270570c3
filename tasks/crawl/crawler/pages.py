"""From a response to one message: runs the spider's callback and sends all it produced, or why there is nothing.

Every leased request ends here exactly once, in `page` or in `failed`, or not at all when the crawl stops first (then
it is still the worker's). Nothing reaches Scrapy's own queue or pipelines. A callback that raises, or that runs longer
than the page's deadline, yields a page with errors and with what it had produced until then.
"""

from __future__ import annotations

import hashlib
import math
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from scrapy.http import Request, Response, TextResponse
from twisted.python.failure import Failure

from tasks.crawl.crawler.counters import Drop
from tasks.crawl.crawler.failures import Stopping, explain
from tasks.crawl.crawler.protocol import CloseReason, FailureReason, NewRequest, ProtocolError
from tasks.crawl.crawler.scheduler import LEASE, host_of
from tasks.crawl.crawler.spiders.base import ANY_CONTENT, Fault, Follow

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session

CALLBACK: Final = "callback"
DEPTH: Final = "depth"
WIRE_BYTES: Final = "wireBytes"

MAX_URL_CHARACTERS: Final = 2_083
MAX_ITEMS_PER_PAGE: Final = 10_000
MAX_LINKS_PER_PAGE: Final = 10_000
MAX_ERRORS_PER_PAGE: Final = 50
MAX_NESTING: Final = 20


class PageTooSlow(Exception):
    """The extraction of one page took longer than the run allows."""


@dataclass
class _Produced:
    response: Response
    items: list[tuple[int, Any]] = field(default_factory=list)
    """With the position among all that the page had."""
    rejected: list[tuple[int, Any, list[dict[str, Any]]]] = field(default_factory=list)
    """The same with what is wrong."""
    dropped: Counter[Drop] = field(default_factory=Counter)
    requests: dict[str, NewRequest] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fault(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        if len(self.errors) < MAX_ERRORS_PER_PAGE:
            self.errors.append({"message": storable(message[:1_000]), "path": list(path)})


class PageRunner:
    """The callback and the errback of every leased request."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: dict[str, _Produced] = {}

    def on_page(self, response: Response) -> None:
        """Scrapy's callback; an exception leaves through Scrapy, which reports it to `on_error`."""
        lease = response.meta[LEASE]
        if not isinstance(response, TextResponse) and not response.meta.get(ANY_CONTENT):
            kind = (response.headers.get("Content-Type") or b"unknown").decode("latin-1")
            self._failed(
                response.request, FailureReason.UNSUPPORTED_CONTENT, f"Not text but {kind[:100]}.", response.status
            )
            return
        produced = self._open[lease] = _Produced(response)
        callback = getattr(self._session.spider, response.meta[CALLBACK])
        with deadline(self._session.start.limits.page_seconds):
            for each in callback(response):
                self._take(produced, each)
        del self._open[lease]
        self._send(produced)

    def on_error(self, failure: Failure, response: Response | Failure) -> None:
        """Scrapy's spider_error signal: the callback raised."""
        produced = self._open.pop(response.meta[LEASE], None) if isinstance(response, Response) else None
        if produced is None:
            return
        if isinstance(failure.value, PageTooSlow):
            produced.fault(f"The extraction took longer than {self._session.start.limits.page_seconds:g} s.")
        else:
            produced.fault(f"{type(failure.value).__name__}: {failure.getErrorMessage()}")
        self._send(produced)

    def on_failure(self, failure: Failure) -> None:
        """Scrapy's errback: there is no page."""
        request: Request = failure.request  # type: ignore[attr-defined]
        error = failure.value
        if isinstance(error, Stopping):
            self._session.ended(request.meta[LEASE])
        elif error is not None:
            self._failed(request, *explain(error))

    def _take(self, produced: _Produced, each: Follow | Fault | Mapping[str, Any]) -> None:
        match each:
            case Follow():
                self._link(produced, each)
            case Fault():
                produced.fault(each.message, each.path)
            case _:
                position = len(produced.items) + len(produced.rejected)
                if position >= MAX_ITEMS_PER_PAGE:
                    raise ValueError(f"more than {MAX_ITEMS_PER_PAGE:,} items on one page")
                item = storable(each)
                if faults := self._session.check.faults(item):
                    produced.rejected.append((position, item, faults))
                else:
                    produced.items.append((position, item))

    def _link(self, produced: _Produced, follow: Follow) -> None:
        session = self._session
        depth = produced.response.meta[DEPTH] + (1 if follow.deeper else 0)
        limit = session.start.limits.max_depth
        if not follow.url.startswith(("http://", "https://")):
            drop = Drop.NOT_HTTP
        elif len(follow.url) > MAX_URL_CHARACTERS or len(produced.requests) >= MAX_LINKS_PER_PAGE:
            drop = Drop.TOO_LONG
        elif not session.on_site(follow.url):
            drop = Drop.OFF_SITE
        elif limit is not None and depth > limit:
            drop = Drop.DEPTH
        else:
            request = session.new_request(follow, depth)
            if request.fingerprint not in produced.requests:
                produced.requests[request.fingerprint] = request
                return
            drop = Drop.DUPLICATE
        produced.dropped[drop] += 1

    def _send(self, produced: _Produced) -> None:
        session, response = self._session, produced.response
        lease, left = response.meta[LEASE], session.items_left()
        if left == 0:
            session.ended(lease)  # unanswered: a run that goes on with a higher limit will fetch it again
            return
        complete = left is None or len(produced.items) <= left
        items = produced.items if complete else produced.items[:left]
        requests = [each.to_message() for each in produced.requests.values()] if complete else []
        # What does not fit is told only with the whole page, which is read again when it was cut short.
        rejected = produced.rejected if complete else []
        fingerprint, callback = session.fingerprint(response.request), response.meta[CALLBACK]
        if complete:
            for drop, count in produced.dropped.items():
                session.counters.note(host_of(response.url), drop, count)
        news = session.counters.take_news()
        size = response.meta.get(WIRE_BYTES, len(response.body))
        message = {
            "type": "page",
            "requestId": lease,
            "url": response.url,
            "fingerprint": fingerprint,
            "status": response.status,
            "bytes": size,
            "milliseconds": round(response.meta.get("download_latency", 0.0) * 1000),
            "items": [{"key": self._key(fingerprint, callback, index, item), "data": item} for index, item in items],
            "rejected": [
                {"key": self._key(fingerprint, callback, index, item), "data": item, "faults": faults}
                for index, item, faults in rejected
            ],
            "requests": requests,
            "errors": produced.errors,
            "complete": complete,
            "hosts": news,
        }
        try:
            session.channel.send(message)
        except ProtocolError as error:
            session.counters.put_back(news)
            self._failed(response.request, FailureReason.OUTPUT_TOO_LARGE, str(error), response.status)
            return
        session.counters.pages += 1
        session.counters.items += len(items)
        session.counters.rejected += len(rejected)
        session.counters.errors += len(produced.errors)
        for fault in produced.errors:
            session.log("ERROR", f"{response.url}: {fault['message']}", "extract")
        if rejected:
            _, _, [fault, *_] = rejected[0]
            where = ".".join(str(part) for part in fault["path"]) or "the item"
            session.log(
                "WARNING", f"{response.url}: {len(rejected)} items rejected, {where}: {fault['message']}", "extract"
            )
        session.log(
            "INFO",
            f"{response.status} {response.url}: {len(items)} items, {len(requests)} links, {size:,} bytes",
            "page",
        )
        session.ended(lease)
        if not complete or (left is not None and len(items) == left):
            session.stop(CloseReason.ITEM_LIMIT)

    def _key(self, fingerprint: str, callback: str, index: int, item: Any) -> str:
        identity = self._session.spider.identity(callback, item) if isinstance(item, Mapping) else None
        return item_key(fingerprint, callback, index) if identity is None else identity_key(identity)

    def _failed(self, request: Request | None, reason: FailureReason, detail: str, status: int | None) -> None:
        if request is None:
            raise ValueError("a response without a request")
        session = self._session
        session.counters.failed[reason.value] += 1
        session.log("WARNING", f"{reason}: {request.url}: {detail}", "fetch")
        session.channel.send(
            {
                "type": "failed",
                "requestId": request.meta[LEASE],
                "url": request.url,
                "reason": reason.value,
                "detail": storable(detail[:1_000]),
                "status": status,
                "redirectedFrom": request.meta.get("redirect_urls", []),
                "hosts": session.counters.take_news(),
            }
        )
        session.ended(request.meta[LEASE])


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise PageTooSlow in the main thread after so long, and again until the block is left.

    Python's `re` looks for signals while it matches, so this ends a pattern that backtracks for ever; libxml2 does
    not, so a monstrous XPath ends when it ends, and the worker's own watch on silent crawlers is the bound.
    """

    def ring(signum: int, frame: FrameType | None) -> None:
        raise PageTooSlow

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)


def item_key(fingerprint: str, callback: str, index: int) -> str:
    """The same for the same item of the same page, however often and on whatever way the page is reached."""
    return hashlib.sha256(f"{fingerprint}:{callback}:{index}".encode()).hexdigest()[:40]


def identity_key(identity: str) -> str:
    """The key of an item that its spider tells apart by what it says, not by where it is."""
    return hashlib.sha256(f"identity:{identity}".encode()).hexdigest()[:40]


def storable(value: Any, nesting: int = 0) -> Any:
    """The value as JSON that PostgreSQL stores: no NUL, no lone surrogates, no NaN, no endless nesting or integers."""
    match value:
        case None | bool():
            return value
        case str():
            return (
                value.replace("\x00", "").encode("utf-8", "replace").decode()
                if not value.isascii() or "\x00" in value
                else value
            )
        case int():
            return value if abs(value) < 2**53 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return format(value, "f")
        case Mapping() if nesting < MAX_NESTING:
            return {str(storable(str(key))): storable(each, nesting + 1) for key, each in value.items()}
        case list() | tuple() if nesting < MAX_NESTING:
            return [storable(each, nesting + 1) for each in value]
    return storable(str(value))
