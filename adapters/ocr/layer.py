"""The text layer of a PDF's page: its words with their places, if it can be trusted.

Not every layer is what a reader sees: some scanners leave a stamp or a broken character map under a picture. A layer
that is no text by its letters, or that is next to nothing on a page that is one picture, counts as none. Left out:
languages written without blanks, whose lines come as one word.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

from adapters.ocr.boxes import Box
from adapters.ocr.protocol import MAX_PAGE_CHARACTERS, MAX_PAGE_WORDS, MAX_WORD_CHARACTERS

MIN_CHARACTERS: Final = 3
FEW_CHARACTERS: Final = 200
"""Less than this on a page that is a picture is a stamp or a page number."""
PICTURE_SHARE: Final = 0.6
MAX_JUNK: Final = 0.1
MIN_ALPHANUMERIC: Final = 0.4
MIN_PRONOUNCEABLE: Final = 0.5
MIN_LATIN_WORDS: Final = 8
MAX_OBJECTS: Final = 500
_VOWELS: Final = frozenset("aeiouy")
_JUNK_CATEGORIES: Final = frozenset({"Cc", "Cs", "Co", "Cn"})
_GRID: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """Words in parts of the upright page, and the text in the order of the layer."""

    words: list[Box]
    text: str


def read_layer(page: pypdfium2.PdfPage) -> Layer | None:
    """The text layer of a page; None when there is none that can be trusted."""
    with closing(page.get_textpage()) as text_page:
        words: list[Box] = []
        lines: list[list[str]] = [[]]
        for word, box in _words(page, text_page):
            if word is None:
                lines.append([])
                continue
            lines[-1].append(word)
            words.append(Box(word, *box))
            if len(words) >= MAX_PAGE_WORDS:
                break
    text = "\n".join(" ".join(line) for line in lines if line)[:MAX_PAGE_CHARACTERS]
    if not is_text([word.text for word in words]):
        return None
    characters = sum(len(word.text) for word in words)
    if characters < FEW_CHARACTERS and _picture_share(page) >= PICTURE_SHARE:
        return None
    return Layer(words, text)


def is_text(words: Sequence[str]) -> bool:
    """Whether words look like something that people write: known characters, letters and digits, vowels in words."""
    letters = "".join(words)
    if len(letters) < MIN_CHARACTERS:
        return False
    junk = sum(letter == "\ufffd" or unicodedata.category(letter) in _JUNK_CATEGORIES for letter in letters)
    if junk > MAX_JUNK * len(letters) or sum(map(str.isalnum, letters)) < MIN_ALPHANUMERIC * len(letters):
        return False
    plain = (unicodedata.normalize("NFD", word.lower()) for word in words if len(word) >= 4 and word.isalpha())
    latin = [word for word in plain if "a" <= word[0] <= "z"]
    spoken = sum(not _VOWELS.isdisjoint(word) for word in latin)
    return len(latin) < MIN_LATIN_WORDS or spoken >= MIN_PRONOUNCEABLE * len(latin)


def clean(text: str) -> str:
    """Text as it can be stored: whole characters, no control characters."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return "".join(letter for letter in whole if unicodedata.category(letter) != "Cc")


def _words(
    page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage
) -> Iterator[tuple[str | None, tuple[float, float, float, float]]]:
    """Each word with its box; None for the end of a line."""
    nowhere = (0.0, 0.0, 0.0, 0.0)
    count = min(text_page.count_chars(), MAX_PAGE_CHARACTERS)
    letters: list[str] = []
    around: list[float] = []
    corner = pdfium.FS_RECTF()
    for index in range(count + 1):
        letter = chr(min(pdfium.FPDFText_GetUnicode(text_page, index), 0x10FFFF)) if index < count else " "
        if letter.isspace() or letter == "\0" or len(letters) >= MAX_WORD_CHARACTERS:
            text = clean("".join(letters))
            if text and around:
                yield text, _on_page(page, around)
            letters, around = [], []
            if letter == "\n":
                yield None, nowhere
            if letter.isspace() or letter == "\0":
                continue
        if letter in "\u00ad\ufffe\u0002":
            continue  # hyphens that are only there because a line ended
        letters.append(letter)
        if pdfium.FPDFText_GetLooseCharBox(text_page, index, ctypes.byref(corner)):
            box = (corner.left, corner.bottom, corner.right, corner.top)
            around = list(box) if not around else [*map(min, around[:2], box[:2]), *map(max, around[2:], box[2:])]


def _on_page(page: pypdfium2.PdfPage, around: Sequence[float]) -> tuple[float, float, float, float]:
    """A box in the page's own space as parts of the page as it is shown, which its rotation and crop decide."""
    points = []
    for x, y in ((around[0], around[1]), (around[2], around[3])):
        across, down = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDF_PageToDevice(page, 0, 0, _GRID, _GRID, 0, x, y, ctypes.byref(across), ctypes.byref(down))
        points.append((across.value / _GRID, down.value / _GRID))
    (x1, y1), (x2, y2) = points
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _picture_share(page: pypdfium2.PdfPage) -> float:
    """The largest part of the page that one picture covers."""
    width, height = page.get_size()
    share = 0.0
    objects: Any = page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3)
    for _, found in zip(range(MAX_OBJECTS), objects, strict=False):
        left, bottom, right, top = found.get_bounds()
        share = max(share, abs(right - left) * abs(top - bottom) / max(1.0, width * height))
    return share
