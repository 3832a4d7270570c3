"""Masking: secrets become `***` before anything is stored or told, however they were written.

Invariant: no byte of any occurrence of any form of a secret gets through, wherever the stream is cut and however
occurrences overlap; every other byte gets through unchanged. What is masked is the union of all occurrences, so the
answer does not depend on how the text came. Forms are those that programs write: as it is, each line, base64, hex,
JSON, percent-encoded, XML, quoted for a shell. Values too short or too common to be secrets are left alone and named.

Not known here: a secret that was encrypted, compressed, reversed, encoded twice or printed in parts. Whoever writes the
build can do that; masking guards against accidents.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from tasks.terminal_text import terminal_text

MASK: Final = b"***"
MIN_CHARACTERS: Final = 4
# Longer forms are found by pieces of this size, so little is ever held back, and a part of a key is masked as well.
PIECE_BYTES: Final = 128
# Settings rather than secrets: a log in which each of these is masked could not be read.
_COMMON_WORD: Final = re.compile(
    "true|false|null|none|undefined|enabled|disabled|default|auto|production|preview|development|staging|testing|test"
    "|local|localhost|debug|info|warn|warning|error",
    re.IGNORECASE,
)
# All forms of a value take up to 125 times its size; what is longer in sum is looked for in the usual forms only.
MAX_CHARACTERS_IN_FULL: Final = 16_384
_HEAD_BYTES: Final = 3
_LARGE_SET_BYTES: Final = 262_144
_LINE_ENDS: Final = re.compile(r"[\r\n]+")
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
# What is left as it is by: quote(safe=""), quote(), encodeURIComponent, encodeURI, the user part of a WHATWG URL, and
# application/x-www-form-urlencoded.
_SAFE_IN_URLS: Final = ("", "/", "!'()*", ";,/?:@&=+$!'()*#", "!$%&'()*+,", "*")
# `base64` and MIME break lines at 76 characters, PEM at 64.
_BASE64_COLUMNS: Final = (76, 64)


class Masker:
    """Knows the secrets of one execution, as pairs of a name and a value.

    Above 16,384 characters in sum, the longest values are known in brief (`forms_of`). For 128 KiB it takes up to two
    seconds to make one: use a thread where values may be that long.
    """

    __slots__ = ("_patterns", "unmasked_names")

    def __init__(self, secrets: Iterable[tuple[str, str]]) -> None:
        unmasked: set[str] = set()
        forms: set[bytes] = set()
        characters = 0
        for name, value in sorted(secrets, key=lambda secret: len(secret[1])):
            characters += len(value)
            found = forms_of(value, in_brief=characters > MAX_CHARACTERS_IN_FULL)
            forms |= found
            if value and not found:
                unmasked.add(name)
        self._patterns = _Patterns(piece for form in forms for piece in _pieces(form))
        self.unmasked_names = tuple(sorted(unmasked))
        """Names whose values cannot be masked: say so where the log begins."""

    def mask(self, text: str) -> str:
        """The text with every secret in it replaced."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self._patterns.spans(data)
        if not spans:
            return text
        kept, at = [], 0
        for start, end in spans:
            kept += [data[at:start], MASK]
            at = end
        return b"".join((*kept, data[at:])).decode("utf-8", "surrogatepass")


class MaskingStream:
    """Masks a stream of bytes that is cut anywhere.

    Held back is only the longest end that may be the beginning of a secret, less than `PIECE_BYTES`: a prompt shows
    before its line ends.
    """

    __slots__ = ("_covered", "_ends_masked", "_held", "_patterns")

    def __init__(self, masker: Masker) -> None:
        self._patterns = masker._patterns
        self._held = b""
        self._covered = 0  # so many of the held bytes belong to a secret whose mask was given out
        self._ends_masked = False  # the last thing given out is a mask, and no byte was since

    def feed(self, data: bytes) -> bytes:
        """The masked bytes that can be given out by now."""
        data = self._held + data
        return self._give_out(data, self._patterns.start_of_beginning(data))

    def close(self) -> bytes:
        """What was held back; the next bytes begin anew."""
        given = self._give_out(self._held, len(self._held))
        self._ends_masked = False
        return given

    def _give_out(self, data: bytes, stop: int) -> bytes:
        """Mask what is before `stop` and hold the rest; no secret begins before it and is unfinished."""
        given = []
        at = self._covered
        for start, end in self._patterns.spans(data):
            if start >= stop:
                break
            if start > at:
                given.append(data[at:start])
            if start > at or not self._ends_masked:
                given.append(MASK)
            at = max(at, end)
            self._ends_masked = True
        if at < stop:
            given.append(data[at:stop])
            at = stop
            self._ends_masked = False
        self._held = data[stop:]
        self._covered = at - stop
        return given[0] if len(given) == 1 else b"".join(given)


def forms_of(value: str, *, in_brief: bool = False) -> set[bytes]:
    """Everything that a value may look like in a log, in UTF-8; empty when the value cannot be masked.

    In brief these are the value and its lines, base64, hex, JSON and percent-encoding.

    White space around a value or a line is no secret, and a mask that took a line feed with it would join two lines.
    """
    text = value.strip()
    if not _is_maskable(text):
        return set()
    lines = [line.strip() for line in _LINE_ENDS.split(text)]
    if len(lines) == 1:
        return _forms_of_text(text, in_brief)
    maskable = [line for line in lines if _is_maskable(line)]
    forms = {form for line in maskable for form in _forms_of_text(line, in_brief)}
    if len(maskable) == len(lines):
        # Each line stands for itself, indented or with another end; only base64 mixes it with its neighbours.
        return forms | _long_enough(_base64(text.encode("utf-8", "surrogatepass")))
    with_feeds = _LINE_ENDS.sub("\n", text)
    ends_otherwise = (form.encode("utf-8", "surrogatepass") for form in (with_feeds, with_feeds.replace("\n", "\r\n")))
    return forms | _forms_of_text(text, in_brief) | _long_enough(ends_otherwise)


def _is_maskable(text: str) -> bool:
    return len(text) >= MIN_CHARACTERS and _COMMON_WORD.fullmatch(text) is None


def _forms_of_text(text: str, in_brief: bool) -> set[bytes]:
    data = text.encode("utf-8", "surrogatepass")
    texts = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], quote(data, safe="")}
    if not in_brief:
        texts.update(_json(text), _percent_encoded(text), _xml(text), _quoted(text))
    forms = {form.encode("utf-8", "surrogatepass") for form in texts}
    forms |= {*_base64(data), data.hex().encode(), data.hex().upper().encode(), terminal_text(data)}
    return _long_enough(forms)


def _long_enough(forms: Iterable[bytes]) -> set[bytes]:
    return {form for form in forms if len(form) >= MIN_CHARACTERS}


def _base64(data: bytes) -> Iterator[bytes]:
    """What stays the same wherever the data lies in the encoded text, whose characters have 6 bits."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + data)
        core = encoded[-(-8 * shift // 6) : 8 * (shift + len(data)) // 6]
        yield core
        yield core.translate(_URL_SAFE)
    encoded = base64.b64encode(data)[: 8 * len(data) // 6]
    for columns in _BASE64_COLUMNS:
        if len(encoded) > columns:
            yield from (encoded[at : at + columns] for at in range(0, len(encoded), columns))


def _json(text: str) -> Iterator[str]:
    """As JSON libraries write it, with ASCII alone, with `\\/` (PHP) or without `<`, `>` and `&` (Go)."""
    for is_ascii in (True, False):
        escaped = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
        yield escaped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _percent_encoded(text: str) -> Iterator[str]:
    for safe in _SAFE_IN_URLS:
        encoded = quote(text, safe=safe, errors="surrogatepass")
        for form in (encoded, encoded.replace("%20", "+")):
            yield form
            yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), form)


def _xml(text: str) -> Iterator[str]:
    yield escape(text)
    yield html.escape(text)
    for quotes in (
        {'"': "&quot;"},
        {'"': "&quot;", "'": "&#39;"},
        {'"': "&quot;", "'": "&apos;"},
        {'"': "&#34;", "'": "&#39;"},
    ):
        yield escape(text, quotes)


def _quoted(text: str) -> Iterator[str]:
    """Inside quotes of a shell, of Python and of JavaScript's console, and with backslashes as `printf %q` has them."""
    yield text.replace("'", "'\"'\"'")
    yield text.replace("'", "'\\''")
    yield re.sub(r'(["$`\\])', r"\\\1", text)
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)
    yield repr(text)[1:-1]
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    yield escaped
    yield escaped.replace("'", "\\'")


def _pieces(form: bytes) -> Iterator[bytes]:
    """The form, or pieces that together cover it."""
    last = max(0, len(form) - PIECE_BYTES)
    for at in range(0, last, PIECE_BYTES):
        yield form[at : at + PIECE_BYTES]
    yield form[last:]


class _Patterns:
    """A set of byte strings, each of at least `MIN_CHARACTERS` and at most `PIECE_BYTES`, and where a text has them.

    Aho-Corasick finds the leftmost longest ones, which do not overlap. Occurrences that overlap those are looked up in
    the sorted list; asking the automaton for all of them would take memory for each pattern within a pattern.
    """

    __slots__ = ("_engine", "_heads", "_longest", "_prefixes", "_sorted")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._sorted = sorted(set(patterns))
        self._longest = max(map(len, self._sorted), default=0)
        self._heads = {pattern[:size] for pattern in self._sorted for size in range(1, _HEAD_BYTES + 1)}
        # The faster automata take three times as long to build, which for large sets is seconds.
        is_large = sum(map(len, self._sorted)) > _LARGE_SET_BYTES
        implementation = Implementation.NoncontiguousNFA if is_large else None
        self._engine = BytesAhoCorasick(
            self._sorted, matchkind=MatchKind.LeftmostLongest, implementation=implementation
        )
        # For each pattern the longest other one that it begins with, which comes before it in the order.
        self._prefixes: list[int] = []
        for index, pattern in enumerate(self._sorted):
            shorter = index - 1
            while shorter >= 0 and not pattern.startswith(self._sorted[shorter]):
                shorter = self._prefixes[shorter]
            self._prefixes.append(shorter)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where patterns are: the union of all occurrences, as intervals that do not touch."""
        spans: list[tuple[int, int]] = []
        for _, start, end in self._engine.find_matches_as_indexes(data):
            end = self._reach(data, start, end)
            if spans and start <= spans[-1][1]:
                start, before = spans.pop()
                end = max(before, end)
            spans.append((start, end))
        return spans

    def start_of_beginning(self, data: bytes) -> int:
        """Where the longest end of `data` starts that may become a pattern, or its length when there is none."""
        heads, patterns = self._heads, self._sorted
        for at in range(max(0, len(data) - self._longest + 1), len(data)):
            if data[at : at + _HEAD_BYTES] in heads:
                end = data[at:]
                index = bisect_right(patterns, end)
                if index < len(patterns) and patterns[index].startswith(end):
                    return at
        return len(data)

    def _reach(self, data: bytes, start: int, end: int) -> int:
        """The furthest end of an occurrence that begins inside of one that was found."""
        reach = end
        heads = self._heads
        for at in range(max(start, end - self._longest) + 1, end):
            if data[at : at + _HEAD_BYTES] in heads:
                reach = max(reach, at + self._longest_at(data, at))
        return reach

    def _longest_at(self, data: bytes, at: int) -> int:
        """The length of the longest pattern that stands at a position, or 0."""
        text = data[at : at + self._longest]
        index = bisect_right(self._sorted, text) - 1
        while index >= 0 and not text.startswith(self._sorted[index]):
            index = self._prefixes[index]
        return len(self._sorted[index]) if index >= 0 else 0
