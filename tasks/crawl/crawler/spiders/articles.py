"""The articles spider: finds articles by links, sitemaps and feeds, and reads their text without being told how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.http import TextResponse

from tasks.crawl.articles import NAME
from tasks.crawl.crawler.spiders.article_data import article_from
from tasks.crawl.crawler.spiders.base import ALL_LINKS, NEXT_LINKS, Fault, Follow, base_url, links_in, spider_meta
from tasks.crawl.crawler.spiders.sitemap_data import Entry
from tasks.crawl.crawler.spiders.sitemap_reading import Found, SitemapReader
from tasks.crawl.selectors import to_xpath

if TYPE_CHECKING:
    from tasks.crawl.crawler.session import Session


class ArticlesSpider(SitemapReader):
    """See `tasks.crawl.articles` for the input."""

    name = NAME
    callbacks: ClassVar[frozenset[str]] = SitemapReader.callbacks | {"read_list", "read_article"}

    def __init__(self, *, session: Session) -> None:
        super().__init__(session=session)
        given = self.input
        self._has_lists = "articleLinks" in given or "articlePattern" in given
        self._article_links = to_xpath(given["articleLinks"]) if "articleLinks" in given else ALL_LINKS
        self._pattern = re.compile(given.get("articlePattern", ""))
        self._next_page = to_xpath(given["nextPage"]) if "nextPage" in given else NEXT_LINKS
        self._max_list_pages: int = given.get("maxListPages", 1_000)
        self._min_characters: int = given.get("minCharacters", 250)

    def seeds(self) -> Iterator[Follow]:
        """The start URLs, lists or articles, and the sitemaps."""
        callback = "read_list" if self._has_lists else "read_article"
        for url in self.input.get("startUrls", ()):
            yield Follow(url, callback, meta={"page": 1})
        yield from self.sitemap_seeds(self.input.get("sitemaps", ()))

    def listed(self, entry: Entry, sitemap_url: str) -> Iterator[Found]:
        """The article behind an entry."""
        if self._pattern.search(entry.loc):
            yield Follow(entry.loc, "read_article")

    def read_list(self, response: TextResponse) -> Iterator[Follow]:
        """Links to articles, and the next page."""
        for url in links_in(response, self._article_links):
            if self._pattern.search(url):
                yield Follow(url, "read_article", priority=1)
        page = spider_meta(response)["page"]
        if page < self._max_list_pages:
            for url in list(links_in(response, self._next_page))[:1]:
                yield Follow(url, "read_list", deeper=False, meta={"page": page + 1})

    def read_article(self, response: TextResponse) -> Iterator[Fault | dict[str, Any]]:
        """One article, or a fault that says that there is none."""
        article = article_from(response.selector.root, response.text, url=response.url, base=base_url(response))
        if article is None or article["characters"] < self._min_characters:
            found = 0 if article is None else article["characters"]
            yield Fault(f"No article found: the main text has {found:,} characters of {self._min_characters:,}.")
        else:
            yield article
