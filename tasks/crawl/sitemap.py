"""The sitemap spider's contract: what it takes and what it gives. No Scrapy here: the API lists these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tasks.crawl.catalogue import fields, narrowed
from tasks.crawl.contracts import InputFault
from tasks.crawl.input_schemas import ALLOWED_DOMAINS, DRAFT, MODIFIED_SINCE, PATTERN, START_URLS, selector

NAME: Final = "sitemap"
CRAWLER_CLASS: Final = "tasks.crawl.crawler.spiders.sitemap:SitemapSpider"
TITLE: Final = "Sitemap"
DESCRIPTION: Final = (
    "Finds the pages that a site names in its sitemaps, indexes and feeds, filtered by address and date: as a list, or "
    "each page read by selectors."
)

FREQUENCIES: Final = ("always", "hourly", "daily", "weekly", "monthly", "yearly", "never")
PATTERNS: Final[dict[str, Any]] = {
    "type": "array",
    "maxItems": 50,
    "default": [],
    "items": PATTERN,
}

INPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": TITLE,
    "description": DESCRIPTION,
    "type": "object",
    "additionalProperties": False,
    "required": ["startUrls"],
    "properties": {
        "startUrls": {
            **START_URLS,
            "description": "Sitemaps (XML, text, gzip), indexes of them, RSS or Atom feeds, or robots.txt files. An "
            "address without path stands for the site: the sitemaps that its robots.txt names, else /sitemap.xml.",
            "examples": [["https://shop.example/"], ["https://shop.example/sitemap.xml"]],
        },
        "allowedDomains": ALLOWED_DOMAINS,
        "includePatterns": {
            **PATTERNS,
            "title": "Include",
            "description": "Only pages whose URL matches one of these.",
            "examples": [["/products/"]],
        },
        "excludePatterns": {
            **PATTERNS,
            "title": "Exclude",
            "description": "No pages whose URL matches one of these.",
            "examples": [["/tag/", "\\?print="]],
        },
        "modifiedSince": MODIFIED_SINCE,
        "items": selector(
            "Item container",
            "With `fields`: each match is one item and fields are looked up inside it; without it a page is one item.",
        ),
        "fields": {
            **fields("url", "lastmod"),
            "description": "What to read of each page. Left out, no page is opened and the items are the entries.",
        },
    },
    "dependentRequired": {"items": ["fields"]},
}

_LASTMOD: Final[dict[str, Any]] = {
    "title": "Last change",
    "description": "As the sitemap says it, in the form of ISO 8601.",
    "type": ["string", "null"],
    "pattern": "^[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?$",
}

OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": "Page of a sitemap",
    "description": "An entry of a sitemap; with `fields`, what was read of its page.",
    "type": "object",
    "properties": {
        "loc": {"title": "Address of the page", "type": "string", "format": "uri"},
        "lastmod": _LASTMOD,
        "changefreq": {"title": "How often it changes", "enum": [*FREQUENCIES, None]},
        "priority": {"title": "Priority", "type": ["number", "null"], "minimum": 0, "maximum": 1},
        "sitemap": {"title": "The sitemap that names it", "type": "string", "format": "uri"},
        "url": {"title": "URL", "description": "The page it was read from.", "type": "string", "format": "uri"},
    },
    "anyOf": [{"required": ["loc"]}, {"required": ["url"]}],
    "additionalProperties": True,
}
_LIST: Final = ("loc", "lastmod", "changefreq", "priority", "sitemap")
_READ: Final = ("url", "lastmod")

EXAMPLE_INPUT: Final[dict[str, Any]] = {
    "startUrls": ["http://127.0.0.1:8900/sitemap.xml"],
    "includePatterns": ["/shop/"],
    "fields": [
        {"name": "name", "css": "h1", "required": True},
        {"name": "price", "css": ".price", "type": "decimal"},
    ],
}


def output_schema(spider_input: Mapping[str, Any]) -> dict[str, Any]:
    """Entries as they are listed, or the fields that a valid input names; optional ones may be null."""
    names = _READ if "fields" in spider_input else _LIST
    properties = {name: OUTPUT_SCHEMA["properties"][name] for name in names}
    schema = {**OUTPUT_SCHEMA, "properties": properties, "required": list(names)}
    del schema["anyOf"]
    return narrowed(schema, spider_input.get("fields", ()))


def more_faults(spider_input: Mapping[str, Any]) -> Iterator[InputFault]:
    """Whether the date is one."""
    try:
        moment(spider_input.get("modifiedSince"))
    except ValueError as error:
        yield InputFault(("modifiedSince",), f"not a date: {error}")


def moment(text: str | None) -> datetime | None:
    """The point of time that an input names, a date being its beginning in UTC; raises ValueError for none."""
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
