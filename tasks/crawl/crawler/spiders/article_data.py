"""An article out of a page: its main text by trafilatura, what it says of itself from structured data first.

Structured data (schema.org, Open Graph) is what a site means to say; where there is none, trafilatura's reading of the
markup stands in. Nothing here asks the network, and no state is kept: trafilatura's store of texts that it has seen
before is not used, and its other caches are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urljoin

from lxml.html import HtmlElement
from trafilatura import bare_extraction
from trafilatura.settings import Document

from tasks.crawl.articles import MAX_TAGS, MAX_TEXT_CHARACTERS
from tasks.crawl.crawler.spiders.structured_data import (
    MAX_IMAGES,
    Node,
    first,
    first_node,
    images_of,
    linked_data,
    microdata,
    open_graph,
    text_of,
    types_of,
)

MAX_LINE_CHARACTERS: Final = 300
ARTICLE_TYPES: Final = frozenset(
    {"Article", "NewsArticle", "BlogPosting", "Report", "ScholarlyArticle", "TechArticle", "OpinionNewsArticle"}
    | {"AnalysisNewsArticle", "ReportageNewsArticle", "ReviewNewsArticle", "LiveBlogPosting", "SocialMediaPosting"}
)
_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?(?:\.\d{1,9})?) ?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_BYLINE: Final = re.compile(r"(?:by|von|por|par|di|av|door)\s+", re.IGNORECASE)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*", re.ASCII)


def article_from(root: HtmlElement, html: str, *, url: str, base: str) -> dict[str, Any] | None:
    """The article of a page, None when trafilatura finds no text; fields that the page does not give are None.

    `root` is the page's tree, which stays as it is, and `html` what it was parsed from.
    """
    extracted = bare_extraction(
        html,
        url=url,
        include_comments=False,
        include_tables=True,
        include_images=True,
        with_metadata=True,
        deduplicate=False,
        date_extraction_params={"extensive_search": True, "original_date": True, "max_date": _tomorrow()},
    )
    if not isinstance(extracted, Document) or not extracted.text:
        return None
    nodes = [node for node in (*linked_data(root), *microdata(root, url)) if types_of(node) & ARTICLE_TYPES]
    graph = open_graph(root)
    title = _line(text_of(first(nodes, "headline", "name")) or graph.get("og:title") or extracted.title)
    author = _line(", ".join(_names(nodes)) or (extracted.author and extracted.author.replace("; ", ", ")))
    text = _main_text(extracted.text, title, author)
    return {
        "url": url,
        "canonicalUrl": _canonical(root, graph, url, base),
        "title": title,
        "author": author,
        "date": _date(first(nodes, "datePublished", "dateCreated"))
        or _date(_meta(root, "article:published_time"))
        or _date(extracted.date),
        "dateModified": _date(first(nodes, "dateModified")) or _date(_meta(root, "article:modified_time")),
        "language": _language(root, nodes, graph),
        "siteName": _line(
            graph.get("og:site_name")
            or text_of(first([publisher], "name") if (publisher := first_node(nodes, "publisher")) else None)
            or _meta(root, "application-name")
        ),
        "description": text_of(first(nodes, "description")) or graph.get("og:description") or extracted.description,
        "text": text,
        "characters": len(text),
        "images": _images(nodes, graph, extracted, base),
        "tags": _tags(root, nodes, extracted),
    }


def _tomorrow() -> str:
    """Dates beyond it are no dates of publication; clocks and zones differ by a day."""
    return (datetime.now(UTC) + timedelta(days=1)).date().isoformat()


def _main_text(text: str, title: str | None, author: str | None) -> str:
    """The text without a heading and a byline that only repeat title and author."""
    lines = text[:MAX_TEXT_CHARACTERS].splitlines()
    while lines and _repeats(lines[0], title, author):
        del lines[0]
    return "\n".join(lines)


def _repeats(line: str, title: str | None, author: str | None) -> bool:
    said = " ".join(line.lstrip("# ").split()).casefold()
    if not said:
        return True
    names = [name.strip().casefold() for name in (author or "").split(",") if name.strip()]
    byline = _BYLINE.match(said)
    return said == (title or "").casefold() or (
        len(said) < MAX_LINE_CHARACTERS
        and bool(names)
        and (said in names or (byline is not None and said[byline.end() :].startswith(tuple(names)) and len(said) < 80))
    )


def _names(nodes: Iterable[Node]) -> Iterator[str]:
    """The authors' names, of the first node that has some."""
    for node in nodes:
        given = node.get("author") or node.get("creator")
        names = [text_of(each) for each in (given if isinstance(given, list) else [given])]
        if names := [name for name in dict.fromkeys(names) if name and not name.startswith(("http://", "https://"))]:
            yield from names
            return


def _date(value: Any) -> str | None:
    match = _DATE.fullmatch(text_of(value))
    if match is None:
        return None
    day, time, zone = match.groups()
    zone = zone if not zone or zone == "Z" or ":" in zone else f"{zone[:3]}:{zone[3:]}"
    text = day if time is None else f"{day}T{time}{zone or ''}"
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text


def _meta(root: HtmlElement, name: str) -> str:
    """The content of a meta element, empty without one."""
    found = root.xpath("//meta[@property = $name or @name = $name or @itemprop = $name]/@content", name=name)
    return next((text for each in found if (text := str(each).strip())), "")


def _canonical(root: HtmlElement, graph: dict[str, str], url: str, base: str) -> str:
    links = root.xpath("//link[translate(@rel, 'CANOIL', 'canoil') = 'canonical']/@href")
    for each in (*links, graph.get("og:url")):
        if each and (found := _absolute(base, str(each))):
            return found
    return url


def _absolute(base: str, address: str) -> str | None:
    try:
        found = urljoin(base, address.strip())
    except ValueError:  # http://[
        return None
    return found if found.startswith(("http://", "https://")) else None


def _language(root: HtmlElement, nodes: Iterable[Node], graph: dict[str, str]) -> str | None:
    said = (
        *root.xpath("/html/@lang | /html/@xml:lang"),
        text_of(first(nodes, "inLanguage")),
        _meta(root, "content-language")
        or next(iter(root.xpath("//meta[@http-equiv='content-language']/@content")), ""),
        graph.get("og:locale", ""),
    )
    return next((each.strip().replace("_", "-") for each in said if _LANGUAGE.fullmatch(str(each).strip())), None)


def _images(nodes: list[Node], graph: dict[str, str], extracted: Document, base: str) -> list[str]:
    found = images_of(nodes, graph, base)
    for picture in extracted.body.iter("graphic"):
        if address := _absolute(base, picture.get("src", "")):
            found.append(address)
    return [each for each in dict.fromkeys(found) if each.startswith(("http://", "https://"))][:MAX_IMAGES]


def _tags(root: HtmlElement, nodes: Iterable[Node], extracted: Document) -> list[str]:
    keywords = next((node["keywords"] for node in nodes if node.get("keywords")), None)
    given = [
        *(keywords if isinstance(keywords, list) else text_of(keywords).split(",")),
        *root.xpath("//meta[@property = 'article:tag']/@content"),
        *root.xpath("//a[contains(concat(' ', normalize-space(@rel), ' '), ' tag ')]//text()"),
        *_meta(root, "keywords").split(","),
        *(extracted.tags or ()),
    ]
    found: dict[str, str] = {}
    for each in given:
        if tag := " ".join(text_of(each).split()):
            found.setdefault(tag.casefold(), tag)
    return list(found.values())[:MAX_TAGS]


def _line(text: str | None) -> str | None:
    return " ".join((text or "").split())[: 4 * MAX_LINE_CHARACTERS] or None
