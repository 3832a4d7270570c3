"""Text out of a file that somebody sent: plain text, Markdown, CSV and HTML.

Encodings: UTF-8 and UTF-16 by their marks, else UTF-8, else Latin-1, which fits all bytes. Offsets of findings are
those of the text that comes out of here, not of the file. Invariant: a file that is not understood raises, it never
becomes a text of noise. Left out: PDF and images, whose parsers need a process of their own; whoever has one passes
another `Extract`.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final

import lxml.etree
import lxml.html

Extract = Callable[[str, bytes], str]
"""From the name of a file and its bytes to its text; raises UnsupportedFile or UnreadableFile."""

_TEXT: Final = frozenset({"", ".txt", ".text", ".md", ".markdown", ".rst", ".log"})
_TABLE: Final = frozenset({".csv", ".tsv"})
_HTML: Final = frozenset({".html", ".htm", ".xhtml"})
READABLE: Final = _TEXT | _TABLE | _HTML
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Magic numbers of what is often sent under the name of a text.
_BINARY: Final = (b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")
_BLOCKS_WORDS: Final = """
    address article aside blockquote body caption dd div dl dt fieldset figcaption figure footer form h1 h2 h3
    h4 h5 h6 header hr li main nav ol p pre section table tr ul title option
"""
_BLOCKS: Final = frozenset(_BLOCKS_WORDS.split())
_SILENT: Final = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object"})


class UnsupportedFile(Exception):
    """A kind of file that is not read here; the message says which are."""


class UnreadableFile(Exception):
    """A file of a kind that is read, whose content is broken."""


def extract(filename: str, content: bytes) -> str:
    """The text of a file, by its extension; raises UnsupportedFile or UnreadableFile."""
    extension = PurePosixPath(filename.replace("\\", "/")).suffix.lower()
    if extension not in READABLE or content.startswith(_BINARY):
        raise UnsupportedFile("Only text, Markdown, CSV and HTML files are read here.")
    text = decode(content)
    if extension in _HTML:
        return _text_of_html(text)
    if extension in _TABLE:
        return _text_of_table(text, "\t" if extension == ".tsv" else None)
    return text


def decode(content: bytes) -> str:
    """Bytes as text, without byte order mark; raises UnreadableFile for what is no text."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise UnreadableFile("The file begins with a byte order mark that the rest contradicts.") from None
        text = content.decode("latin-1")
    if "\0" in text:
        raise UnreadableFile("The file holds NUL characters, so it is no text.")
    return text


def _text_of_table(text: str, delimiter: str | None) -> str:
    """One paragraph per row, its cells joined by semicolons."""
    if delimiter is None:
        first = text[: text.find("\n") + 1] or text[:10_000]
        delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UnreadableFile(f"The table cannot be read: {error}.") from None
    return "\n\n".join("; ".join(cell.strip() for cell in row if cell.strip()) for row in rows if any(row))


def _text_of_html(text: str) -> str:
    """What a reader of the page would see, a paragraph for each block; a broken page is read as browsers do."""
    parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = lxml.etree.fromstring(text.encode("utf-8", "replace"), parser)
    except lxml.etree.LxmlError as error:
        raise UnreadableFile(f"The page cannot be read: {error}.") from None
    # Past 2,048 levels libxml2 stops and keeps quiet about the rest.
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise UnreadableFile("The page is nested too deeply to be read.")
    return "".join(_visible(root)).strip() if root is not None else ""


def _visible(root: lxml.etree._Element) -> Iterator[str]:
    silent = 0
    for event, element in lxml.etree.iterwalk(root, events=("start", "end")):
        is_silent, is_block = element.tag in _SILENT, element.tag in _BLOCKS
        if event == "start":
            silent += is_silent
            if is_block:
                yield "\n\n"
            elif element.tag in ("br", "td", "th"):
                yield "\n" if element.tag == "br" else " "
            if element.text and not silent:
                yield " ".join(element.text.split("\n"))
            continue
        silent -= is_silent
        if is_block:
            yield "\n\n"
        if element.tail and not silent:
            yield " ".join(element.tail.split("\n"))
