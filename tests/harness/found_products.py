"""Products that were found on paper, held against those that are on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tasks.ocr.candidates import find_candidates
from tasks.ocr.layout import folded
from tasks.ocr.page_words import Candidate, PageWords, Word
from tests.harness.paper import Paper, PaperProduct


@dataclass(frozen=True, slots=True)
class Score:
    """How candidates compare. Right is one with page, name, price and currency of a product; accents and case aside.

    `fields` has, for each other field, the share of right candidates in which it is as the paper says.
    """

    found: int
    right: int
    wanted: int
    fields: Mapping[str, float]

    @property
    def precision(self) -> float:
        """How many of those found are right; 1 when none was found."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """How many of those wanted were found."""
        return self.right / self.wanted


def searched(paper: Paper, messages: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    """The candidates in the pages that a reader told of."""
    pages = [
        PageWords(page["number"], page["width"], page["height"], tuple(Word(*word) for word in page["words"]))
        for page in messages
    ]
    return find_candidates(pages, default_currency=paper.default_currency)


def scored(paper: Paper, candidates: Sequence[Candidate], *, at_least: float = 0.0) -> Score:
    """The score of the candidates of at least that confidence."""
    kept = [candidate for candidate in candidates if candidate.confidence >= at_least]
    truth: dict[tuple[int, str, Decimal | None, str | None], PaperProduct] = {
        (one.page, folded(one.name), one.price, one.currency): one for one in paper.products
    }
    pairs: list[tuple[Candidate, PaperProduct]] = []
    for candidate in kept:
        product = truth.pop((candidate.page, folded(candidate.name), candidate.price, candidate.currency), None)
        if product is not None:
            pairs.append((candidate, product))
    fields = {
        name: sum(getattr(one, name) == getattr(other, name) for one, other in pairs) / max(1, len(pairs))
        for name in ("name", "sku", "ean", "quantity", "unit")
    }
    return Score(len(kept), len(pairs), len(paper.products), fields)
