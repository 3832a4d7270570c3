"""The sitemap spider: what sitemaps name, listed, or read by selectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from parsel import Selector
from scrapy.http import TextResponse

from tasks.crawl.crawler.spiders.base import Fault, Follow, base_url, spider_meta
from tasks.crawl.crawler.spiders.reading import read_fields, says_nothing
from tasks.crawl.crawler.spiders.sitemap_data import Entry
from tasks.crawl.crawler.spiders.sitemap_reading import Found, SitemapReader
from tasks.crawl.selectors import FieldRule, to_xpath
from tasks.crawl.sitemap import FREQUENCIES, NAME

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session


class SitemapSpider(SitemapReader):
    """See `tasks.crawl.sitemap` for the input."""

    name = NAME
    callbacks: ClassVar[frozenset[str]] = SitemapReader.callbacks | {"read_page"}

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        self._fields = [FieldRule.compile(rule) for rule in self.input.get("fields", ())]
        self._items = to_xpath(self.input["items"]) if "items" in self.input else None

    def seeds(self) -> Iterable[Follow]:
        """The sitemaps."""
        return self.sitemap_seeds(self.input["startUrls"])

    def listed(self, entry: Entry, sitemap_url: str) -> Iterator[Found]:
        """An item, or the page to read."""
        if self._fields or not self.session.on_site(entry.loc):
            # Whatever names a foreign host goes this way too, where it is dropped and counted.
            yield Follow(entry.loc, "read_page", meta={"lastmod": entry.lastmod})
            return
        yield {
            "loc": entry.loc,
            "lastmod": entry.lastmod,
            "changefreq": entry.changefreq if entry.changefreq in FREQUENCIES else None,
            "priority": entry.priority,
            "sitemap": sitemap_url,
        }

    def read_page(self, response: TextResponse) -> Iterator[Fault | dict[str, Any]]:
        """One item for each container, or one for the page; an item that has no field at all is none."""
        base, lastmod = base_url(response), spider_meta(response)["lastmod"]
        nodes: Iterable[Selector] = [response.selector] if self._items is None else response.selector.xpath(self._items)
        for node in nodes:
            values, faults = read_fields(self._fields, node, base)
            yield from faults
            if not says_nothing(values):
                yield {"url": response.url, "lastmod": lastmod, **values}

    def identity(self, callback: str, item: Mapping[str, Any]) -> str | None:
        """A page is one entry, however many sitemaps name it."""
        loc: str | None = item.get("loc") if callback == "read_sitemap" else None
        return loc
