"""How well the risk rules find labelled risks (precision, recall, F1 per category), and how long a long text takes."""

from __future__ import annotations

import time

from adapters.scanner import MAX_CHARACTERS, Category, scan, shipped_rules
from tests.risk_sentences import Score, parts, score


async def main() -> None:
    """Print a table for each part; dev is the one that rules were tuned on."""
    prose = "\n\n".join(sentence.text for sentences in parts().values() for sentence in sentences)
    text = (prose * (MAX_CHARACTERS // len(prose) + 1))[:MAX_CHARACTERS]
    started = time.process_time()
    scan(text)
    print(f"{MAX_CHARACTERS} characters in {time.process_time() - started:.2f} s of CPU")
    print(f"ruleset {shipped_rules().hash}, {len(shipped_rules().rules)} rules")
    for part, sentences in parts().items():
        print(f"{part}: {len(sentences)} sentences\n{'':12}precision  recall      F1  right invented missed")
        for name, result in score(sentences, categories_found, Category).items():
            print(f"{name:12}{_row(result)}")


def categories_found(text: str) -> set[str]:
    """The categories of the findings in a text."""
    return {finding.category.value for finding in scan(text).findings}


def _row(result: Score) -> str:
    shares = f"{result.precision:9.2f} {result.recall:7.2f} {result.f1:7.2f}"
    return f"{shares} {result.right:6} {result.invented:8} {result.missed:6}"
