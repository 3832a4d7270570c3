"""Products in documents: the one way in for whoever has pages. The rules are not written yet, so none are found."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.ocr.page_words import Candidate, PageWords


def find_candidates(pages: Sequence[PageWords], *, default_currency: str | None) -> list[Candidate]:
    """The products that pages may name, in their order. Pure, never raises."""
    del pages, default_currency
    return []
