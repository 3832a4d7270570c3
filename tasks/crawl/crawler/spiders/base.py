"""What the spiders have in common: callbacks that only read a page and say what they found.

A callback is a generator over `Follow`, `Fault` and items (mappings). It keeps no state between pages, because the
next page may be read by another process; what it must know travels in `Follow.meta`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import urldefrag, urljoin

from parsel import Selector
from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.http import Response, TextResponse

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session

ALL_LINKS = "//a[@href]"
NEXT_LINKS = "//*[self::a or self::link][contains(concat(' ', normalize-space(@rel), ' '), ' next ')]"
META = "spiderMeta"
"""Key of `Request.meta` that holds the spider's own."""
PART = "part"
"""Key of `Follow.meta` that makes the same address another request: a further part of a document that is too long to
be answered at once."""
ANY_CONTENT = "anyContent"
"""Key of `request_meta` for callbacks that read what is not text, too."""


@dataclass(frozen=True)
class Follow:
    """A link to read with the named callback. Pages of one list are not `deeper` than its first."""

    url: str
    callback: str
    deeper: bool = True
    priority: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """Something on the page that could not be read; `path` leads to the rule in the input."""

    message: str
    path: tuple[str | int, ...] = ()


class SessionSpider(Spider):
    """A spider whose requests come from the worker."""

    callbacks: ClassVar[frozenset[str]]
    """Names that a request may give as callback."""
    request_meta: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What requests of a callback tell Scrapy (its `Request.meta`), and ANY_CONTENT; by callback."""

    def __init__(self, *, session: Session) -> None:
        super().__init__()
        self.session = session
        self.input = session.start.input

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        """Scrapy's way to build it; joins the session to the crawl."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.session.attach(crawler, spider)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """Nothing: the first requests go to the worker as `seed` and come back leased."""
        for nothing in list[Any]():
            yield nothing

    def seeds(self) -> Iterable[Follow]:
        """Where the crawl begins."""
        raise NotImplementedError

    def identity(self, callback: str, item: Mapping[str, Any]) -> str | None:
        """What makes an item that a callback gave the same one on whatever page it is found; None: its page and place.

        Of several items with one identity a run keeps the first.
        """
        return None


def session_of(crawler: Crawler) -> Session:
    """How Scrapy's components find the session; raises TypeError for a foreign spider."""
    if not isinstance(crawler.spider, SessionSpider):
        raise TypeError(f"not a spider of ours: {crawler.spider!r}")
    return crawler.spider.session


def links_in(response: TextResponse, xpath: str, node: Selector | None = None) -> Iterable[str]:
    """Absolute URLs, in order, of what an XPath finds: elements with href, or the attribute or text itself.

    Looks through the whole page, or through one part of it.
    """
    base = base_url(response)
    for found in (response.selector if node is None else node).xpath(xpath):
        href = found.get() if isinstance(found.root, str) else href_of(found)
        if href and (href := href.strip()):
            try:
                yield urldefrag(urljoin(base, href)).url
            except ValueError:  # a malformed address such as http://[
                continue


def href_of(element: Selector) -> str | None:
    """The link of an element, or of the first link inside it."""
    return element.xpath("(@href | .//a/@href)[1]").get()


def base_url(response: TextResponse) -> str:
    """What relative links of the page are relative to."""
    return urljoin(response.url, response.selector.xpath("//base/@href").get("").strip())


def spider_meta(response: Response) -> Mapping[str, Any]:
    """What the `Follow` that led here had in `meta`."""
    meta: Mapping[str, Any] = response.meta[META]
    return meta
