"""How well the risk rules find labelled risks: precision, recall and F1 per category, for each part of the sentences."""

from __future__ import annotations

from adapters.scanner import Category, scan, shipped_rules
from tests.risk_sentences import Score, halves, score


async def main() -> None:
    """Print a table for each half; the held-out one is the one to quote."""
    print(f"ruleset {shipped_rules().hash}, {len(shipped_rules().rules)} rules")
    for half, sentences in halves().items():
        print(f"{half}: {len(sentences)} sentences\n{'':12}precision  recall      F1  right invented missed")
        for name, result in score(sentences, categories_found, Category).items():
            print(f"{name:12}{_row(result)}")


def categories_found(text: str) -> set[str]:
    """The categories of the findings in a text."""
    return {finding.category.value for finding in scan(text).findings}


def _row(result: Score) -> str:
    shares = f"{result.precision:9.2f} {result.recall:7.2f} {result.f1:7.2f}"
    return f"{shares} {result.right:6} {result.invented:8} {result.missed:6}"
