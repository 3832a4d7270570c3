"""Where a quotation stands in a text: exactly, or but for spaces, quotation marks and dashes; or nowhere.

Services quote what they read, and models quote loosely. Invariants: a span is one of the text that was given, and what
is not found has none, so a span is never a guess; a quotation that comes again is found at its next place first; the
time is linear in the text for each quotation. Offsets count characters (code points); pages are divided by form feeds
and counted from 1.
"""

from __future__ import annotations

import unicodedata
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

_SAME: Final = {
    **dict.fromkeys("“”„‟«»″＂", '"'),
    **dict.fromkeys("‘’‚‛‹›′＇`´", "'"),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    "…": "...",
    "\u00ad": "",
    "\u200b": "",
    "\ufeff": "",
}
_ELLIPSES: Final = (" ", "...", "[...]", '"', "'")
MIN_LOOSE_CHARACTERS: Final = 8
"""Shorter quotations are looked for exactly only: nearly nothing is somewhere in every text."""


@dataclass(frozen=True, slots=True)
class Span:
    """`text[start:end]`, and the page it begins on; None for a text without pages."""

    start: int
    end: int
    page: int | None


class Locator:
    """Finds quotations in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._page_ends = array("Q", (place for place, each in enumerate(text) if each == "\f"))
        self._plain: tuple[str, array[int]] | None = None
        self._found_until: dict[str, int] = {}

    def locate(self, quotation: str, *, hint: int | None = None) -> Span | None:
        """The span of a quotation; `hint` is where its sender says it begins, which is believed if it is so."""
        if not quotation.strip():
            return None
        if hint is not None and self._text.startswith(quotation, hint):
            return self._span(hint, hint + len(quotation))
        start = self._next(self._text, quotation)
        if start >= 0:
            return self._span(start, start + len(quotation))
        return self._locate_loosely(quotation)

    def _locate_loosely(self, quotation: str) -> Span | None:
        wanted = _without_ellipses(_plain(quotation)[0])
        if len(wanted) < MIN_LOOSE_CHARACTERS:
            return None
        if self._plain is None:
            self._plain = _plain(self._text)
        plain, places = self._plain
        start = self._next(plain, wanted)
        return self._span(places[start], places[start + len(wanted) - 1] + 1) if start >= 0 else None

    def _next(self, text: str, quotation: str) -> int:
        """Where a quotation is behind its last place, else where it is first; -1 if nowhere."""
        start = text.find(quotation, self._found_until.get(quotation, 0))
        if start < 0 and quotation in self._found_until:
            start = text.find(quotation)
        if start >= 0:
            self._found_until[quotation] = start + len(quotation)
        return start

    def _span(self, start: int, end: int) -> Span:
        return Span(start, end, bisect_right(self._page_ends, start) + 1 if self._page_ends else None)


def _plain(text: str) -> tuple[str, array[int]]:
    """The text in its plainest writing, and for each character of it the place where that comes from."""
    written: list[str] = []
    places: array[int] = array("Q")
    is_space = True  # also what would be one at the start
    for place, each in enumerate(text):
        if each.isspace():
            if not is_space:
                written.append(" ")
                places.append(place)
            is_space = True
            continue
        same = _SAME.get(each)
        if same is None:
            same = each if each < "\x80" else unicodedata.normalize("NFKC", each)
        for character in same:
            written.append(character)
            places.append(place)
        is_space = is_space and not same
    return "".join(written).rstrip(), places


def _without_ellipses(text: str) -> str:
    before = ""
    while text != before:
        before = text
        for mark in _ELLIPSES:
            text = text.removeprefix(mark).removesuffix(mark)
    return text
