"""One page, from its sheet to its words: the text layer if there is one, else what an engine recognises.

A sheet that lay on its side, or on its head, is noticed because little of it is recognised; only then is the way up
looked for, which costs as much as reading. Small tilts are no trouble to the engine, so the picture stays as it is and
the boxes are turned; only more than MAX_TILT is turned before it is read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from adapters.ocr import boxes
from adapters.ocr.boxes import Box
from adapters.ocr.engines import Engine, Sight, TookTooLong
from adapters.ocr.layer import clean
from adapters.ocr.protocol import MAX_PAGE_CHARACTERS, MAX_PAGE_WORDS, MAX_WORD_CHARACTERS
from adapters.ocr.sheets import Document

DOUBTFUL: Final = 70.0
"""Mean confidence below which a page may lie on its side: those that do have some 50, upright ones 85 and more."""
MIN_TILT: Final = 0.1
MAX_TILT: Final = 2.5
NOISE: Final = 30.0
"""A sign that is no letter or digit, and less certain than this, is dirt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPage:
    """What was read. `rotation` is by how many degrees the sheet lay turned clockwise; words are of it turned back."""

    source: str
    engine: str | None = None
    width: float
    height: float
    rotation: float
    confidence: float | None
    text: str
    words: list[Box]

    def to_message(self) -> dict[str, Any]:
        """The fields of a `page` message."""
        return {
            "source": self.source,
            "engine": self.engine,
            "width": self.width,
            "height": self.height,
            "rotation": self.rotation,
            "confidence": self.confidence,
            "text": self.text,
            "words": [
                [
                    word.text,
                    *(round(min(1.0, max(0.0, place)), 5) for place in (word.left, word.top, word.right, word.bottom)),
                    None if word.confidence is None else round(word.confidence, 1),
                ]
                for word in self.words
            ],
        }


def read_page(
    document: Document, number: int, open_engine: Callable[[], Engine], *, force_ocr: bool, seconds: float
) -> ReadPage:
    """Read a page; `open_engine` is called when one is needed. Raises Unreadable, TookTooLong, EngineMissing."""
    width, height = document.size(number)
    layer = None if force_ocr else document.layer(number)
    if layer is not None:
        return ReadPage(
            source="TEXT_LAYER",
            width=width,
            height=height,
            rotation=0.0,
            confidence=None,
            text=layer.text,
            words=layer.words,
        )
    engine = open_engine()
    image, dpi = document.picture(number)
    turned, upright, sight = _sight(engine, image, dpi=dpi, deadline=time.monotonic() + seconds)
    if turned in (90, 270):
        width, height = height, width
    slope = sight.slope if abs(sight.slope) >= MIN_TILT else 0.0
    straight = boxes.straightened(_worth_keeping(sight.words), slope, upright.width, upright.height)
    rows = boxes.rows(straight[:MAX_PAGE_WORDS])
    words = [_in_parts(word, upright.width, upright.height) for row in rows for word in row]
    confidence = boxes.mean_confidence(words)
    # How far it lay turned clockwise is how far it was turned anticlockwise to be upright.
    rotation = turned + slope
    return ReadPage(
        source="OCR",
        engine=engine.name,
        width=width,
        height=height,
        rotation=round(rotation if rotation <= 180 else rotation - 360, 2),
        confidence=None if confidence is None else round(confidence, 1),
        text=boxes.text_of(rows)[:MAX_PAGE_CHARACTERS],
        words=words,
    )


def _sight(engine: Engine, image: Image.Image, *, dpi: int, deadline: float) -> tuple[float, Image.Image, Sight]:
    """How far the picture was turned anticlockwise, the picture as it was read, and what was seen."""
    turned = 0.0
    sight = engine.read(image, dpi=dpi, seconds=_left(deadline))
    if _certainty(sight) < DOUBTFUL:
        degrees = engine.turned(image, seconds=_left(deadline))
        if degrees:
            other = image.rotate(degrees, expand=True)
            seen = engine.read(other, dpi=dpi, seconds=_left(deadline))
            if _certainty(seen) > _certainty(sight):
                turned, image, sight = float(degrees), other, seen
    if abs(sight.slope) > MAX_TILT:
        other = image.rotate(sight.slope, Image.Resampling.BICUBIC, fillcolor=255)
        seen = engine.read(other, dpi=dpi, seconds=_left(deadline))
        if _certainty(seen) >= _certainty(sight):
            turned, image, sight = turned + sight.slope, other, seen
    return turned, image, sight


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TookTooLong
    return left


def _certainty(sight: Sight) -> float:
    """The mean confidence, by letters: rubbish comes in short pieces."""
    letters = sum(len(word.text) for word in sight.words)
    return sum((word.confidence or 0.0) * len(word.text) for word in sight.words) / letters if letters else 0.0


def _worth_keeping(words: list[Box]) -> list[Box]:
    kept = []
    for word in words:
        text = clean(word.text)[:MAX_WORD_CHARACTERS]
        is_dirt = (word.confidence or 0.0) < NOISE and not any(map(str.isalnum, text))
        if text and not is_dirt:
            kept.append(Box(text, word.left, word.top, word.right, word.bottom, word.confidence))
    return kept


def _in_parts(word: Box, width: float, height: float) -> Box:
    return Box(
        word.text, word.left / width, word.top / height, word.right / width, word.bottom / height, word.confidence
    )
