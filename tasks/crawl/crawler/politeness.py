"""Being a good guest: retries that wait as long as the server asks, robots.txt as RFC 9309 reads it.

Retries stay inside the lease of their request. Pauses are bounded: a server that asks for more than the limit is not
asked again by this run, its request ends with the status.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Self

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware, get_retry_request
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import CannotResolveHostError, IgnoreRequest
from scrapy.http import Request, Response
from scrapy.robotstxt import RobotParser

from tasks.crawl.crawler.failures import Refused, Stopping
from tasks.crawl.crawler.protocol import FailureReason
from tasks.crawl.crawler.scheduler import LEASE, NOT_BEFORE, host_of
from tasks.crawl.crawler.spiders.base import session_of

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session

THROTTLING_STATUSES: Final = frozenset({429, 503})
FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_CRAWL_DELAY_SECONDS: Final = 30.0


class PoliteRetry(RetryMiddleware):
    """Retries after the time the server names, else after 1, 2, 4 … seconds with jitter."""

    session: Session

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to build it, plus the session."""
        middleware = super().from_crawler(crawler)
        middleware.session = session_of(crawler)
        return middleware

    def process_response(self, request: Request, response: Response) -> Request | Response:  # type: ignore[override]
        """A response whose status is worth another try becomes that try."""
        if response.status not in self.retry_http_codes:
            return response
        throttled = response.status in THROTTLING_STATUSES
        asked = retry_after_seconds(response) if throttled else None
        if throttled:
            self.session.note_throttled(request.url)
        if asked is not None and asked > self.session.start.throttle.max_retry_after_seconds:
            self.session.log(
                "WARNING",
                f"{host_of(request.url)} asks for a pause of {asked:.0f} s, which is too long: gave up",
                "fetch",
            )
            return response
        delay = self._backoff_seconds(request) if asked is None else asked
        if throttled:
            self.session.scheduler.pause_host(request.url, delay)
        return self._again(request, f"status {response.status}", delay) or response

    def process_exception(self, request: Request, exception: Exception) -> Request | None:  # type: ignore[override]
        """A connection that failed is tried again; what we refused ourselves is not."""
        if not isinstance(exception, self.exceptions_to_retry):
            return None
        if isinstance(exception, CannotResolveHostError) and request.meta.get("retry_times", 0) >= 1:
            return None
        return self._again(request, type(exception).__name__, self._backoff_seconds(request))

    def _again(self, request: Request, reason: str, delay_seconds: float) -> Request | None:
        # Only leased requests have a place to wait; robots.txt is asked for again by the next page.
        if LEASE not in request.meta or self.session.stopping:
            return None
        retry = get_retry_request(request, spider=self.session.spider, reason=reason)
        if retry is not None:
            retry.meta[NOT_BEFORE] = time.monotonic() + delay_seconds
            self.session.note_retry(request.url, reason, delay_seconds)
        return retry

    def _backoff_seconds(self, request: Request) -> float:
        return float(FIRST_BACKOFF_SECONDS * 2 ** request.meta.get("retry_times", 0) * random.uniform(0.5, 1.0))  # noqa: S311


class ReportingRobots(RobotsTxtMiddleware):
    """Scrapy's middleware, with the refusal as a reason instead of a silence, and the delay that a site asks for."""

    def process_request_2(self, rp: RobotParser | None, request: Request) -> None:
        """Raises Refused for a page that robots.txt disallows, Stopping for one that waited for it too long."""
        session = session_of(self.crawler)
        if session.stopping:
            raise Stopping("the crawl stops")
        try:
            super().process_request_2(rp, request)
        except IgnoreRequest:
            raise Refused(FailureReason.ROBOTS, "robots.txt of the site does not allow this page.") from None
        if rp is None:
            return
        delay = rp.crawl_delay(self.crawler.settings["ROBOTSTXT_USER_AGENT"])
        if delay:
            session.scheduler.space_out(request.url, min(delay, MAX_CRAWL_DELAY_SECONDS))


class RobotsStatus:
    """What a robots.txt that is not there means: 4xx allows everything, 5xx nothing (RFC 9309 §2.3.1.3–4)."""

    def process_response(self, request: Request, response: Response) -> Response:
        """Scrapy would read an error page as if it were a robots.txt."""
        if not request.meta.get("dont_obey_robotstxt") or response.status < 400:
            return response
        return response.replace(body=b"" if response.status < 500 else b"User-agent: *\nDisallow: /\n")


def retry_after_seconds(response: Response) -> float | None:
    """The pause that Retry-After asks for, in either of its forms (RFC 9110 §10.2.3); None if it asks for none."""
    headers: Mapping[str, bytes | None] = response.headers
    value = (headers.get("Retry-After") or b"").decode("latin-1").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
