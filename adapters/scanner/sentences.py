"""Sentences of English and Spanish text, as spans of it, with the page that each stands on.

Lines come first: an empty line, a form feed, a list item, a heading or a row of a table ends what stands before it,
and other line breaks are where a PDF or an editor wrapped a paragraph. Inside of such a block a sentence ends at .
! ? or … unless the point belongs to an abbreviation, an initial, a number or a date. Invariants: spans are in
order, do not overlap, begin and end with a character that is no space, and are at most `MAX_SENTENCE` long. The
time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_SENTENCE: Final = 2_000
_HEADING_CHARACTERS: Final = 60
_LOOK_BACK: Final = 24

_LINE_END: Final = re.compile(r"\r\n|[\n\r\v\x85\u2028\u2029\f]")
_LIST_MARK: Final = re.compile(r"(?:[-*+•‣▪●◦–—·]|\(?(?:\d{1,3}|[a-z])[.)]|\(?[A-Z]\)|#{1,6}|>)[ \t\xa0]+")
_SPACE_BEFORE: Final = re.compile(r"[ \t\xa0]*")
_STOP: Final = re.compile(r"[.!?…]+")
_CLOSING: Final = frozenset("\"'”’»)]}*_")
_OPENING: Final = frozenset("\"'“‘«([{*_¿¡")
_ABBREVIATIONS_WORDS: Final = """
    mr mrs ms dr prof sr jr st no nos vs etc e.g i.e eg ie approx inc ltd co corp dept fig art sec ch vol pp p
    ed est max min jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m sra srta dra ing lic arq d dª núm
    num pág págs pag cap apdo avda aprox ej p.ej ee.uu s.a s.l máx mín tel ref ene abr ago dic
"""
_ABBREVIATIONS: Final = frozenset(_ABBREVIATIONS_WORDS.split())


class Sentence(NamedTuple):
    """`text[start:end]` is the sentence. Pages count from 1; None when the text has no form feed."""

    start: int
    end: int
    page: int | None


def split_sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a text, without marks of lists and headings."""
    has_pages = "\f" in text
    for start, end, page in _blocks(text):
        for first, last in _sentences_of_block(text, start, end):
            yield from _pieces(text, first, last, page if has_pages else None)


def _blocks(text: str) -> Iterator[tuple[int, int, int]]:
    """What belongs together over line breaks, with its page."""
    block_start = previous_end = -1
    previous_line = (0, 0)
    page = 1
    for start, end, closes_page in _lines(text):
        content = _SPACE_BEFORE.match(text, start, end)
        first = content.end() if content else start
        mark = _LIST_MARK.match(text, first, end)
        is_blank = first == end or (text[first].isspace() and not text[first:end].strip())
        if block_start >= 0 and (is_blank or mark or _stands_alone(text, previous_line, first)):
            yield block_start, previous_end, page
            block_start = -1
        if not is_blank:
            if block_start < 0:
                block_start = mark.end() if mark else first
            previous_line, previous_end = (first, end), end
        if closes_page:
            if block_start >= 0:
                yield block_start, previous_end, page
                block_start = -1
            page += 1
    if block_start >= 0:
        yield block_start, previous_end, page


def _lines(text: str) -> Iterator[tuple[int, int, bool]]:
    start = 0
    for match in _LINE_END.finditer(text):
        yield start, match.start(), match[0] == "\f"
        start = match.end()
    if start < len(text):
        yield start, len(text), False


def _stands_alone(text: str, line: tuple[int, int], following: int) -> bool:
    """Whether a line is a heading, a row or a short item, so that the next one is not its continuation."""
    start, end = line
    if text[start] in "|#" or text[following : following + 1] == "|":
        return True
    tail = text[max(start, end - _LOOK_BACK) : end].rstrip()
    if tail.endswith(":"):
        return True
    begins_anew = text[following : following + 1].isupper() or text[following : following + 1].isdigit()
    return begins_anew and end - start <= _HEADING_CHARACTERS and not tail.endswith((",", "-", ";"))


def _sentences_of_block(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for match in _STOP.finditer(text, start, end):
        stop = match.end()
        while stop < end and text[stop] in _CLOSING:
            stop += 1
        # A stop in the middle of a word, a number or an address is none.
        if (stop < end and not text[stop].isspace()) or stop < begin:
            continue
        if match[0] == "." and _goes_on(text, begin, match.start(), stop, end):
            continue
        yield begin, stop
        begin = stop
    if begin < end:
        yield begin, end


def _goes_on(text: str, begin: int, point: int, stop: int, end: int) -> bool:
    """Whether the sentence goes on after a single point."""
    following = text[stop : min(stop + _LOOK_BACK, end)].lstrip()
    next_letter = next((char for char in following if char not in _OPENING), "")
    if next_letter.islower():
        return True
    before = text[max(begin, point - _LOOK_BACK) : point].split()
    word = before[-1].lstrip("(¿¡\"'“«") if before else ""
    if not word:
        return False
    if word.casefold() in _ABBREVIATIONS:
        # "No." before a number is one; at the end of a sentence it is an answer.
        return word.casefold() not in ("no", "etc", "co", "d", "p", "min", "max") or next_letter.isdigit()
    return len(word) == 1 and word.isupper() and next_letter.isupper()


def _pieces(text: str, start: int, end: int, page: int | None) -> Iterator[Sentence]:
    """A span without the spaces around it, cut where it is too long, at a space if there is one near."""
    while start < end:
        while start < end and text[start].isspace():
            start += 1
        stop = end
        if end - start > MAX_SENTENCE:
            stop = start + MAX_SENTENCE
            space = max(text.rfind(char, start + MAX_SENTENCE // 2, stop) for char in " \n\t")
            stop = space if space > 0 else stop
        last = stop
        while last > start and text[last - 1].isspace():
            last -= 1
        if last > start:
            yield Sentence(start, last, page)
        start = stop
