"""What products are looked for in, and what is found: pages of words with places, candidates with evidence.

Plain data between the reader of documents (`tasks/ocr/kind.py`) and the rules (`tasks/ocr/candidates.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its place, in parts (0 to 1) of the upright page from its top left corner.

    Confidence is 0 to 100; None where nobody had to guess, as in text layers.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class PageWords:
    """A page: its number from 1, its size in points or pixels, and its words row by row."""

    number: int
    width: float
    height: float
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A product that a document may name; `models.documents.ProductCandidate` says what the fields mean."""

    page: int
    box: tuple[float, float, float, float]
    evidence: str
    name: str
    confidence: float
    confidences: Mapping[str, float]
    sku: str | None = None
    ean: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
