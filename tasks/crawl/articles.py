"""The articles spider's contract: what it takes and what it gives. No Scrapy here: the API lists these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tasks.crawl.contracts import InputFault
from tasks.crawl.input_schemas import (
    ALLOWED_DOMAINS,
    DRAFT,
    MAX_LIST_PAGES,
    MODIFIED_SINCE,
    PATTERN,
    START_URLS,
    selector,
)
from tasks.crawl.sitemap import moment

NAME: Final = "articles"
CRAWLER_CLASS: Final = "tasks.crawl.crawler.spiders.articles:ArticlesSpider"
TITLE: Final = "Articles"
DESCRIPTION: Final = (
    "Brings home news and blog articles: the main text without menus, banners and comments, and title, author, date, "
    "language, pictures and tags. Needs no selectors."
)

MAX_TEXT_CHARACTERS: Final = 500_000
MAX_TAGS: Final = 100

INPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": TITLE,
    "description": DESCRIPTION,
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["startUrls"]}, {"required": ["sitemaps"]}],
    "properties": {
        "startUrls": {
            **START_URLS,
            "description": "Articles; with `articleLinks` or `articlePattern` pages that link to them.",
            "examples": [["https://post.example/2026/harbour"], ["https://post.example/news"]],
        },
        "sitemaps": {
            **START_URLS,
            "title": "Sitemaps and feeds",
            "description": "Sitemaps, indexes of them, RSS or Atom feeds that name articles; an address without path "
            "stands for the sitemaps that the site's robots.txt names, else /sitemap.xml.",
            "examples": [["https://post.example/feed.xml"]],
        },
        "allowedDomains": ALLOWED_DOMAINS,
        "articleLinks": selector(
            "Links to articles", "Which links of the start pages lead to articles; by default all."
        ),
        "articlePattern": {
            **PATTERN,
            "title": "Pattern of article URLs",
            "description": "Only links and entries whose absolute URL matches lead to articles.",
            "examples": ["/20[0-9]{2}/"],
        },
        "nextPage": selector("Next page", "The link to the following page of a list; by default rel=next."),
        "maxListPages": MAX_LIST_PAGES,
        "modifiedSince": MODIFIED_SINCE,
        "minCharacters": {
            "title": "Shortest text",
            "description": "A page whose main text has fewer characters is not taken for an article.",
            "type": "integer",
            "minimum": 0,
            "maximum": 100_000,
            "default": 250,
        },
    },
}


def _nullable(title: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "type": ["string", "null"], **more}


_DATE: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?)?$"

OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": "Article",
    "type": "object",
    "additionalProperties": False,
    "required": ["url", "canonicalUrl", "title", "text"],
    "properties": {
        "url": {"title": "URL", "description": "The page it was read from.", "type": "string", "format": "uri"},
        "canonicalUrl": {
            "title": "Canonical URL",
            "description": "The address that the page itself gives; its own if it gives none.",
            "type": "string",
            "format": "uri",
        },
        "title": {"title": "Title", "type": "string", "minLength": 1},
        "author": _nullable("Author", description="Several names are joined by commas."),
        "date": _nullable("Published", description="ISO 8601, as exact as the page says it.", pattern=_DATE),
        "dateModified": _nullable("Last change", pattern=_DATE),
        "language": _nullable("Language", description="BCP 47, as the page gives it."),
        "siteName": _nullable("Name of the site"),
        "description": _nullable("Description"),
        "text": {
            "title": "Main text",
            "description": "Paragraphs, headings and lists, a line each.",
            "type": "string",
        },
        "characters": {"title": "Length of the text", "type": "integer", "minimum": 0},
        "images": {
            "title": "Images",
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "maxItems": 200,
        },
        "tags": {"title": "Tags", "type": "array", "items": {"type": "string"}, "maxItems": MAX_TAGS},
    },
}

EXAMPLE_INPUT: Final[dict[str, Any]] = {
    "startUrls": ["http://127.0.0.1:8900/articles"],
    "articlePattern": "/articles/[a-z-]+$",
}


def output_schema(spider_input: Mapping[str, Any]) -> dict[str, Any]:
    """The same for every input."""
    return OUTPUT_SCHEMA


def more_faults(spider_input: Mapping[str, Any]) -> Iterator[InputFault]:
    """Whether the date is one, and used."""
    try:
        moment(spider_input.get("modifiedSince"))
    except ValueError as error:
        yield InputFault(("modifiedSince",), f"not a date: {error}")
    if "modifiedSince" in spider_input and "sitemaps" not in spider_input:
        yield InputFault(("modifiedSince",), "only sitemaps and feeds say when a page changed; `sitemaps` is not given")
