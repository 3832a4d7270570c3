"""The catalogue spider: fields by selectors, from lists or from the detail pages behind their links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from parsel import Selector
from scrapy.http import TextResponse

from tasks.crawl.catalogue import NAME
from tasks.crawl.crawler.spiders.base import Fault, Follow, SessionSpider, base_url, links_in, spider_meta
from tasks.crawl.crawler.spiders.reading import read_fields, says_nothing
from tasks.crawl.selectors import FieldRule, to_xpath

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session


class CatalogueSpider(SessionSpider):
    """See `tasks.crawl.catalogue` for the input."""

    name = NAME
    callbacks: ClassVar[frozenset[str]] = frozenset({"read_list", "read_items"})

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        self._fields = [FieldRule.compile(rule) for rule in self.input["fields"]]
        self._items = self._xpath("items")
        self._detail_links = self._xpath("detailLinks")
        self._next_page = self._xpath("nextPage")
        self._max_list_pages: int = self.input.get("maxListPages", 1_000)

    def seeds(self) -> Iterable[Follow]:
        """The start URLs, each the first page of a list."""
        return [Follow(url, "read_list", meta={"page": 1}) for url in self.input["startUrls"]]

    def read_list(self, response: TextResponse) -> Iterator[Follow | Fault | dict[str, Any]]:
        """Items or links to details, and the next page."""
        if self._detail_links is None:
            yield from self.read_items(response)
        else:
            for url in links_in(response, self._detail_links):
                yield Follow(url, "read_items", priority=1)
        page = spider_meta(response).get("page", 1)
        if self._next_page is not None and page < self._max_list_pages:
            for url in list(links_in(response, self._next_page))[:1]:
                yield Follow(url, "read_list", deeper=False, meta={"page": page + 1})

    def read_items(self, response: TextResponse) -> Iterator[Fault | dict[str, Any]]:
        """One item for each container, or one for the page; an item that has no field at all is none."""
        base = base_url(response)
        nodes: Iterable[Selector] = [response.selector] if self._items is None else response.selector.xpath(self._items)
        for node in nodes:
            values, faults = read_fields(self._fields, node, base)
            yield from faults
            if not says_nothing(values):
                yield {"url": response.url, **values}

    def _xpath(self, name: str) -> str | None:
        return to_xpath(self.input[name]) if name in self.input else None
