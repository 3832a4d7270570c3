"""What spiders that begin with sitemaps have in common: from robots.txt over indexes to the entries that are wanted.

A sitemap may name more pages than fit into one message. It is then read in parts, each a request of its own that tells
where the part before ended, so that a crawl that is killed in between neither loses nor repeats anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urljoin, urlsplit

from scrapy.http import Response

from tasks.crawl.crawler.spiders.base import ANY_CONTENT, PART, Fault, Follow, SessionSpider, spider_meta
from tasks.crawl.crawler.spiders.sitemap_data import (
    MAX_BYTES,
    MAX_ENTRIES,
    Entry,
    SitemapError,
    entries,
    latest_moment,
    sitemaps_in_robots,
)
from tasks.crawl.sitemap import moment

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session

MAX_LEVELS: Final = 3
"""Indexes inside indexes; the protocol has none."""
PART_ENTRIES: Final = 9_000
PART_CHARACTERS: Final = 1_000_000
"""Both of one part: its entries have to fit into one message, of 8 MiB and 10,000 links or items."""
LEVEL: Final = "level"
_CLIENT_ERRORS: Final = list(range(400, 500))

Found = Follow | Fault | dict[str, Any]


class SitemapReader(SessionSpider):
    """Reads sitemaps; what becomes of an entry is decided by `listed`."""

    callbacks: ClassVar[frozenset[str]] = frozenset({"read_robots", "read_sitemap"})
    request_meta: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "read_robots": {"handle_httpstatus_list": _CLIENT_ERRORS},
        "read_sitemap": {ANY_CONTENT: True, "download_maxsize": MAX_BYTES},
    }

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        self._since = moment(self.input.get("modifiedSince"))
        self._included = [re.compile(pattern) for pattern in self.input.get("includePatterns", ())]
        self._excluded = [re.compile(pattern) for pattern in self.input.get("excludePatterns", ())]

    def sitemap_seeds(self, urls: Sequence[str]) -> Iterable[Follow]:
        """Requests for robots.txt files and sitemaps; an address without path stands for its site."""
        for url in urls:
            path = urlsplit(url).path
            if path in ("", "/", "/robots.txt"):
                yield Follow(urljoin(url, "/robots.txt"), "read_robots", deeper=False)
            else:
                yield Follow(url, "read_sitemap", deeper=False, meta={LEVEL: 0})

    def read_robots(self, response: Response) -> Iterator[Found]:
        """The sitemaps that a site names; the usual address when it names none."""
        named = list(sitemaps_in_robots(response.text, response.url)) if response.status == HTTPStatus.OK else []
        for url in named or [urljoin(response.url, "/sitemap.xml")]:
            yield Follow(url, "read_sitemap", deeper=False, meta={LEVEL: 0})

    def read_sitemap(self, response: Response) -> Iterator[Found]:
        """The entries that are wanted, a part of them; then the next part."""
        meta = spider_meta(response)
        begin, characters = meta.get(PART, 0), 0
        try:
            for number, entry in enumerate(entries(response.body, response.url)):
                if number >= MAX_ENTRIES:
                    yield Fault(f"A sitemap has at most {MAX_ENTRIES:,} entries; the rest of this one is not read.")
                    return
                if number < begin:
                    continue
                if number - begin >= PART_ENTRIES or characters > PART_CHARACTERS:
                    yield Follow(response.url, "read_sitemap", deeper=False, priority=2, meta={**meta, PART: number})
                    return
                characters += len(entry.loc) + len(response.url)
                if not self._is_old(entry):
                    yield from self._nested(entry, meta) if entry.is_sitemap else self._wanted(entry, response.url)
        except SitemapError as error:
            yield Fault(str(error))

    def listed(self, entry: Entry, sitemap_url: str) -> Iterator[Found]:
        """What becomes of an entry that passed all filters."""
        raise NotImplementedError

    def _nested(self, entry: Entry, meta: Mapping[str, Any]) -> Iterator[Found]:
        level = meta[LEVEL] + 1
        if level > MAX_LEVELS:
            yield Fault(f"Sitemaps are followed {MAX_LEVELS} levels deep; {entry.loc[:200]} is deeper.")
        else:
            yield Follow(entry.loc, "read_sitemap", deeper=False, priority=2, meta={LEVEL: level})

    def _wanted(self, entry: Entry, sitemap_url: str) -> Iterator[Found]:
        if self._included and not any(pattern.search(entry.loc) for pattern in self._included):
            return
        if not any(pattern.search(entry.loc) for pattern in self._excluded):
            yield from self.listed(entry, sitemap_url)

    def _is_old(self, entry: Entry) -> bool:
        latest = latest_moment(entry.lastmod) if entry.lastmod is not None else None
        return self._since is not None and latest is not None and latest < self._since
