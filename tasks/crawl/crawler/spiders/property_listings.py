"""The property listings spider: finds listings by their links, reads them by their structured data and by selectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.http import TextResponse

from tasks.crawl.crawler.spiders.base import (
    ALL_LINKS,
    NEXT_LINKS,
    Fault,
    Follow,
    SessionSpider,
    base_url,
    links_in,
    spider_meta,
)
from tasks.crawl.crawler.spiders.listing_data import listing_from, overridden
from tasks.crawl.property_listings import NAME
from tasks.crawl.selectors import Extraction, ValueFault, to_xpath

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session


class PropertyListingsSpider(SessionSpider):
    """See `tasks.crawl.property_listings` for the input."""

    name = NAME
    callbacks: ClassVar[frozenset[str]] = frozenset({"read_list", "read_listing"})

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        given = self.input
        self._has_lists = "detailLinks" in given or "detailPattern" in given
        self._detail_links = to_xpath(given["detailLinks"]) if "detailLinks" in given else ALL_LINKS
        self._detail_pattern = re.compile(given.get("detailPattern", ""))
        self._next_page = to_xpath(given["nextPage"]) if "nextPage" in given else NEXT_LINKS
        self._max_list_pages: int = given.get("maxListPages", 1_000)
        self._overrides = {name: Extraction.compile(rule) for name, rule in given.get("fields", {}).items()}

    def seeds(self) -> Iterable[Follow]:
        """The start URLs: lists, or listings when the input says nothing of links."""
        callback = "read_list" if self._has_lists else "read_listing"
        return [Follow(url, callback, meta={"page": 1}) for url in self.input["startUrls"]]

    def read_list(self, response: TextResponse) -> Iterator[Follow]:
        """Links to listings, and the next page."""
        for url in links_in(response, self._detail_links):
            if self._detail_pattern.search(url):
                yield Follow(url, "read_listing", priority=1)
        page = spider_meta(response).get("page", 1)
        if page < self._max_list_pages:
            for url in list(links_in(response, self._next_page))[:1]:
                yield Follow(url, "read_list", deeper=False, meta={"page": page + 1})

    def read_listing(self, response: TextResponse) -> Iterator[Fault | dict[str, Any]]:
        """One listing, or a fault that says that there is none."""
        base = base_url(response)
        listing = listing_from(
            response.selector.root,
            url=response.url,
            currency=self.input.get("currency"),
            area_unit=self.input.get("areaUnit"),
        )
        for name, extraction in self._overrides.items():
            texts = list(extraction.texts(response.selector))
            if not texts:
                continue
            try:
                overridden(listing, name, texts, base)
            except ValueFault as fault:
                yield Fault(f"{name}: {fault}", ("fields", name))
        if listing["title"] is None and listing["price"] is None:
            yield Fault("No listing found: neither structured data nor the selectors give a title or a price.")
            return
        yield listing
