"""The directory search spider: searches by state and name, page after page, each entry once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from parsel import Selector
from scrapy.http import TextResponse

from tasks.crawl.crawler.spiders.base import Fault, Follow, SessionSpider, base_url, links_in, spider_meta
from tasks.crawl.crawler.spiders.reading import read_fields, says_nothing
from tasks.crawl.directory_search import NAME, collation_key, expanded, has_names_from, states
from tasks.crawl.selectors import Extraction, FieldRule, to_xpath

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session


class DirectorySearchSpider(SessionSpider):
    """See `tasks.crawl.directory_search` for the input."""

    name = NAME
    callbacks: ClassVar[frozenset[str]] = frozenset({"read_list", "read_entry"})

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        given = self.input
        self._template: str = given["urlTemplate"]
        self._counts_pages = "{page}" in self._template
        self._entries = to_xpath(given["entries"])
        self._name = Extraction.compile(given["name"])
        self._fields = [FieldRule.compile(rule) for rule in given.get("fields", ())]
        self._detail_link = to_xpath(given["detailLink"]) if "detailLink" in given else None
        self._next_page = to_xpath(given["nextPage"]) if "nextPage" in given else None
        self._first_page: int = given.get("firstPage", 1)
        self._page_step: int = given.get("pageStep", 1)
        self._max_list_pages: int = given.get("maxListPages", 1_000)
        self._starts_at = collation_key(given.get("startingName", ""))
        self._identified_by: list[str] | None = given.get("identifiedBy")

    def seeds(self) -> Iterator[Follow]:
        """The first page of each search; beginnings of names that all come before the starting name are none."""
        starting_name: str = self.input.get("startingName", "")
        prefixes: list[str] = self.input.get("startingNames") or [starting_name]
        for state in states(self.input):
            for prefix in prefixes:
                if has_names_from(prefix, starting_name):
                    yield self._page({"state": state, "prefix": prefix}, 1)

    def read_list(self, response: TextResponse) -> Iterator[Follow | Fault | dict[str, Any]]:
        """The entries of one page of a search, and its next page."""
        search = spider_meta(response)
        base, digest = base_url(response), hashlib.sha256()
        count = 0
        for node in response.selector.xpath(self._entries):
            name = self._name.first(node)
            count += 1
            digest.update(f"{name}\n".encode("utf-8", "replace"))
            if name is None or collation_key(name) >= self._starts_at:
                yield from self._entry(response, base, node, {"name": name, "state": search["state"]})
        page = search["page"]
        if page >= self._max_list_pages:
            return
        if self._counts_pages:
            # Some sites answer numbers beyond the last page with the last page.
            if count and digest.hexdigest() != search.get("before"):
                yield self._page({**search, "before": digest.hexdigest()}, page + 1)
        elif self._next_page is not None:
            for url in list(links_in(response, self._next_page))[:1]:
                yield Follow(url, "read_list", deeper=False, meta={**search, "page": page + 1})

    def read_entry(self, response: TextResponse) -> Iterator[Fault | dict[str, Any]]:
        """The page of one entry; its name is the list's."""
        known = spider_meta(response)
        values, faults = read_fields(self._fields, response.selector, base_url(response))
        yield from faults
        yield {"url": response.url, "name": known["name"], "state": known["state"], **values}

    def identity(self, callback: str, item: Mapping[str, Any]) -> str | None:
        """By what it says, not by its page: searches overlap, and lists move while they are read."""
        if self._identified_by is not None:
            return orjson.dumps([item.get(name) for name in self._identified_by]).decode()
        if callback == "read_entry":
            return None
        said = {name: value for name, value in item.items() if name != "url"}
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()

    def _entry(
        self, response: TextResponse, base: str, node: Selector, known: dict[str, Any]
    ) -> Iterator[Follow | Fault | dict[str, Any]]:
        if self._detail_link is not None and known["name"] is not None:
            links = list(links_in(response, self._detail_link, node))[:1]
            yield from (Follow(url, "read_entry", priority=1, meta=known) for url in links)
            if links:
                return
        values, faults = read_fields(self._fields, node, base)
        if known["name"] is None and says_nothing(values):
            return  # the head of a table, say
        yield from faults
        yield {"url": response.url, **known, **values}

    def _page(self, search: Mapping[str, Any], page: int) -> Follow:
        values = {
            "state": search["state"] or "",
            "startingName": search["prefix"],
            "username": self.input.get("username", ""),
            "page": str(self._first_page + (page - 1) * self._page_step),
        }
        return Follow(expanded(self._template, values), "read_list", deeper=False, meta={**search, "page": page})
