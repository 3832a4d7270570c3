"""The address guard inside Scrapy: no crawl reaches an address that is not public, unless a setting opens it.

Two places, one decision (`adapters.addresses`). `GuardedResolver` is the reactor's only resolver: every connection
goes through it, literal addresses in any spelling included, and what it checked is what is connected, so a name that
changes its answer gains nothing. `GuardMiddleware` asks the same resolver before the download, because Twisted keeps
no cause when a resolver refuses, and the person who gave the URL should read why.

Scrapy must run on the Twisted reactor for this: without it, Scrapy 2.19 resolves names elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

from scrapy.crawler import Crawler
from scrapy.exceptions import CannotResolveHostError
from scrapy.http import Request
from scrapy.settings import BaseSettings
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution
from zope.interface import implementer

from adapters.addresses import AddressGuard, BlockedAddress, UnknownHost, resolve
from tasks.crawl.crawler.failures import Refused
from tasks.crawl.crawler.protocol import FailureReason
from tasks.crawl.crawler.scheduler import LEASE
from tasks.crawl.crawler.spiders.base import session_of

if TYPE_CHECKING:
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    from tasks.crawl.crawler.session import Session

ALLOWED_HOSTS_SETTING: Final = "CRAWL_ALLOWED_HOSTS"
PORTS_SETTING: Final = "CRAWL_PORTS"
CACHE_SECONDS: Final = 60.0
CACHE_ENTRIES: Final = 1_000

TwistedAddress = IPv4Address | IPv6Address


def guard_from(settings: BaseSettings) -> AddressGuard:
    """The guard that this process's settings describe."""
    ports = [int(port) for port in settings.getlist(PORTS_SETTING)]
    return AddressGuard.from_settings(settings.getlist(ALLOWED_HOSTS_SETTING), ports=ports)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str, task: asyncio.Task[None]) -> None:
        self.name = name
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()


@implementer(IHostnameResolver)
class GuardedResolver:
    """Resolves names to checked addresses, IPv4 and IPv6, remembered for a minute."""

    def __init__(self, reactor: AsyncioSelectorReactor, guard: AddressGuard) -> None:
        self._reactor = reactor
        self._guard = guard
        self._answers: dict[tuple[str, int], tuple[float, Sequence[TwistedAddress]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: AsyncioSelectorReactor) -> Self:
        """Scrapy passes its process object here: only its settings count."""
        return cls(reactor, guard_from(crawler.settings))

    def install_on_reactor(self) -> None:
        """Replace every other way the reactor has to find an address."""
        self._reactor.installNameResolver(cast(IHostnameResolver, self))

    async def lookup(self, host: str, port: int) -> Sequence[TwistedAddress]:
        """The addresses to connect to; raises BlockedAddress or UnknownHost."""
        known = self._answers.get((host, port))
        if known is not None and known[0] > time.monotonic():
            return known[1]
        addresses = [
            (IPv6Address if address.version == 6 else IPv4Address)("TCP", str(address), port)
            for address in await resolve(self._guard, host, port)
        ]
        if len(self._answers) >= CACHE_ENTRIES:
            self._answers.clear()
        self._answers[host, port] = (time.monotonic() + CACHE_SECONDS, addresses)
        return addresses

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Twisted's interface: no address is handed over unless all of the name's addresses passed."""

        async def answer() -> None:
            try:
                addresses = await self.lookup(hostName, portNumber)
            except (BlockedAddress, UnknownHost):
                addresses = ()
            for address in addresses:
                resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        resolution = _Resolution(hostName, task)
        resolutionReceiver.resolutionBegan(resolution)
        return cast(IHostResolution, resolution)


class GuardMiddleware:
    """First of the downloader's middlewares: refuses URLs, robots.txt and redirect targets included, with a reason."""

    def __init__(self, guard: AddressGuard, resolver: GuardedResolver, session: Session) -> None:
        self._guard = guard
        self._resolver = resolver
        self._session = session

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Raises RuntimeError when the reactor resolves names without the guard."""
        from twisted.internet import reactor

        resolver = cast("AsyncioSelectorReactor", reactor).nameResolver
        if not isinstance(resolver, GuardedResolver):
            raise RuntimeError("the guarded resolver is not installed")
        return cls(guard_from(crawler.settings), resolver, session_of(crawler))

    async def process_request(self, request: Request) -> None:
        """Raises Refused for what may not be fetched, CannotResolveHostError for a name without address."""
        request.meta.pop("proxy", None)  # a proxy would resolve names for itself
        try:
            self._guard.check_url(request.url)
            if LEASE in request.meta and request.meta.get("redirect_times") and not self._session.on_site(request.url):
                raise Refused(FailureReason.OFF_SITE, f"Redirected to {request.url[:300]}, which is another site.")
            parts = urlsplit(request.url)
            await self._resolver.lookup(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        except BlockedAddress as error:
            raise Refused(FailureReason.BLOCKED_URL, str(error)) from error
        except UnknownHost as error:
            raise CannotResolveHostError(str(error)) from error
