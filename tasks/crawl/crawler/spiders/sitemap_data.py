"""Sitemaps and feeds as entries, whatever they are written in: XML of four kinds, or lines of text.

The documents are strangers'. Expat reads them piece by piece, so that a large one is never a tree in memory and the
deadline of a page is noticed in between; a document type declaration, where entities are made, ends the reading before
it is looked at. What came before a fault counts.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin
from xml.parsers import expat

MAX_BYTES: Final = 52_428_800
MAX_ENTRIES: Final = 50_000
"""Both as the sitemap protocol has it (sitemaps.org, "Sitemap file location")."""
MAX_VALUE_CHARACTERS: Final = 4_096
_PIECE_BYTES: Final = 65_536

_GZIP: Final = b"\x1f\x8b"
_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_BARE_AMPERSAND: Final = re.compile(
    rb"<!\[CDATA\[.*?\]\]>|&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)", re.DOTALL
)
_W3C_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)\s*(Z|[+-]\d\d:?\d\d)?)?)?)?", re.ASCII
)

# The elements that are entries, each with what its children mean.
_SITEMAP: Final = {"loc": "loc", "lastmod": "lastmod", "changefreq": "changefreq", "priority": "priority"}
_FEED_ITEM: Final = {"link": "loc", "pubDate": "lastmod", "date": "lastmod"}
_ATOM_ENTRY: Final = {"link": "loc", "updated": "lastmod", "published": "published"}
_ENTRIES: Final = {
    ("urlset", "url"): _SITEMAP,
    ("sitemapindex", "sitemap"): _SITEMAP,
    ("channel", "item"): _FEED_ITEM,
    ("RDF", "item"): _FEED_ITEM,
    ("feed", "entry"): _ATOM_ENTRY,
}
_ROOTS: Final = frozenset({"urlset", "sitemapindex", "rss", "RDF", "feed"})


class SitemapError(Exception):
    """The document is no sitemap, or not to the end; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a sitemap; `lastmod` in the form of ISO 8601."""

    loc: str
    lastmod: str | None = None
    changefreq: str | None = None
    priority: float | None = None
    is_sitemap: bool = False
    """Whether it names another sitemap instead of a page."""


def entries(body: bytes, url: str) -> Iterator[Entry]:
    """The entries of a document that was found at `url`; raises SitemapError where it cannot be read any more."""
    text = _unpacked(body)
    start = text[:200].removeprefix(_MARKS[0]).lstrip()
    if start.startswith((b"<", *_MARKS[1:])):
        yield from _XmlReader(url).read(text)
    else:
        yield from _lines(text, url)


def sitemaps_in_robots(text: str, url: str) -> Iterator[str]:
    """The addresses in the `Sitemap:` lines of a robots.txt, which belong to no group (RFC 9309 §2.2.4)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "sitemap" and (address := value.split("#", 1)[0].strip()):
            yield _joined(url, address)


def latest_moment(lastmod: str) -> datetime | None:
    """The last point of time that an ISO 8601 text, which may be only a year or a day, can mean; None for no date."""
    match = _W3C_DATE.fullmatch(lastmod)
    if match is None:
        return None
    year, month, day, time, _ = match.groups()
    try:
        if time is not None:
            found = datetime.fromisoformat(lastmod)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        begin = datetime(int(year), int(month or 12), int(day or 1), tzinfo=UTC)
        if day is not None:
            return begin + timedelta(days=1, microseconds=-1)
        return (begin.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def tidy_date(text: str) -> str | None:
    """A date as sitemaps (W3C) or feeds (RFC 5322) write it, in the form of ISO 8601; None for anything else."""
    text = text.strip()
    match = _W3C_DATE.fullmatch(text)
    if match is not None:
        year, month, day, time, zone = match.groups()
        if time is None:
            found = text
        else:
            zone = zone if not zone or zone == "Z" or ":" in zone else f"{zone[:3]}:{zone[3:]}"
            found = f"{year}-{month}-{day}T{time}{zone or ''}"
        return found if latest_moment(found) is not None else None
    try:
        return parsedate_to_datetime(text).isoformat()
    except (ValueError, OverflowError, IndexError):
        return None


def _unpacked(body: bytes) -> bytes:
    """The document itself, if it is packed by gzip; raises SitemapError for what is broken or too large."""
    if not body.startswith(_GZIP):
        if len(body) > MAX_BYTES:
            raise _too_large()
        return body
    found = bytearray()
    while body:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            found += unpacker.decompress(body, MAX_BYTES - len(found) + 1)
        except zlib.error as error:
            raise SitemapError(f"Not gzip to its end: {error}.") from None
        if len(found) > MAX_BYTES:
            raise _too_large()
        if not unpacker.eof:
            raise SitemapError("Not gzip to its end: it is cut off.")
        body = unpacker.unused_data.lstrip(b"\x00")  # some programs fill the last block up
    return bytes(found)


def _lines(text: bytes, url: str) -> Iterator[Entry]:
    found = False
    for line in text.splitlines():
        address = line.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        if address.startswith(("http://", "https://")) and len(address) <= MAX_VALUE_CHARACTERS:
            found = True
            yield Entry(_joined(url, address))
    if not found:
        raise SitemapError("Not a sitemap: neither XML nor a list of addresses.")


class _XmlReader:
    """Expat's events, gathered to entries."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: deque[Entry] = deque()
        self._path: list[str] = []
        self._values: dict[str, str] | None = None
        self._meanings: dict[str, str] = {}
        self._entry_depth = 0
        self._text: list[str] | None = None

    def read(self, document: bytes) -> Iterator[Entry]:
        """The entries in order; raises SitemapError at the first fault."""
        if not document.startswith(_MARKS[1:]):
            document = _BARE_AMPERSAND.sub(_with_ampersand, document)
        document = document.removeprefix(_MARKS[0]).lstrip()
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._say
        for start in range(0, len(document) + 1, _PIECE_BYTES):
            piece = document[start : start + _PIECE_BYTES]
            try:
                parser.Parse(piece, start + _PIECE_BYTES > len(document))
            except expat.ExpatError as error:
                yield from self._taken()
                raise SitemapError(f"Not well-formed XML: {error}.") from None
            yield from self._taken()

    def _taken(self) -> Iterator[Entry]:
        while self._found:
            yield self._found.popleft()

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if not self._path and name not in _ROOTS:
            raise SitemapError(f"Not a sitemap: the document is <{name[:50]}>.")
        parent = self._path[-1] if self._path else ""
        self._path.append(name)
        if self._values is None:
            if (meanings := _ENTRIES.get((parent, name))) is not None:
                self._values, self._meanings, self._entry_depth = {}, meanings, len(self._path)
        elif len(self._path) == self._entry_depth + 1 and name in self._meanings:
            self._text = []
            if "href" in attributes and attributes.get("rel", "alternate") == "alternate":
                self._values.setdefault("loc", attributes["href"])

    def _end(self, name: str) -> None:
        name = self._path.pop()
        if self._values is None:
            return
        depth = len(self._path) + 1
        if depth == self._entry_depth + 1 and self._text is not None:
            if value := "".join(self._text).strip()[:MAX_VALUE_CHARACTERS]:
                self._values.setdefault(self._meanings[name], value)
            self._text = None
        elif depth == self._entry_depth:
            if entry := self._entry(self._values, is_sitemap=name == "sitemap"):
                self._found.append(entry)
            self._values = None

    def _say(self, text: str) -> None:
        # Text of elements inside, such as <image:loc>, is not the entry's.
        if self._text is not None and len(self._path) == self._entry_depth + 1:
            self._text.append(text)

    def _entry(self, values: dict[str, str], *, is_sitemap: bool) -> Entry | None:
        if "loc" not in values:
            return None
        frequency = values.get("changefreq", "").lower()
        return Entry(
            _joined(self._url, values["loc"]),
            tidy_date(values.get("lastmod") or values.get("published") or ""),
            frequency or None,
            _priority(values.get("priority", "")),
            is_sitemap,
        )


def _with_ampersand(match: re.Match[bytes]) -> bytes:
    return b"&amp;" if match[0] == b"&" else match[0]


def _refuse_doctype(*_: object) -> None:
    raise SitemapError("Sitemaps have no document type declaration; this one is not read.")


def _priority(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def _joined(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError:  # http://[
        return address


def _too_large() -> SitemapError:
    return SitemapError(f"A sitemap has at most {MAX_BYTES:,} bytes; this one is not read.")
