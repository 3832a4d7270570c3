"""How well products are found: precision and recall per paper and way of scanning, all and those certain enough.

The baseline is what one would write without thinking: each line of text that ends with an amount is a product, named by
what stands before it but for a code at the front. Both are held against the same truth; a product counts with the right
name, price and currency.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tasks.ocr.page_words import Candidate
from tests.harness import paper
from tests.harness.found_products import scored, searched
from tests.harness.paper import PAPERS, VARIANTS, Paper
from tests.harness.readers import Readers, has_spanish

CERTAIN = 0.85
_LINE = re.compile(r"(.*?)[\s$€]*([0-9][0-9.,]*)\s*€?$")


async def main() -> None:
    """Print the table."""
    languages = ["spa", "eng"] if has_spanish() else ["eng"]
    print(f"languages {'+'.join(languages)}; in %; certain: confidence of at least {CERTAIN}")
    heads = (
        "precision",
        "recall",
        "certain p.",
        "certain r.",
        "plain p.",
        "plain r.",
        "name",
        "sku",
        "ean",
        "quantity",
    )
    print(f"{'':26}" + "".join(f"{head:>11}" for head in heads))
    totals = [0, 0, 0, 0]
    seconds, count = 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        readers = Readers(Path(name), languages)
        for sheet in PAPERS:
            for way, file in _ways(sheet):
                pages = readers.read(file, is_pdf=True).pages
                started = time.process_time()
                found = searched(sheet(), pages)
                seconds, count = seconds + time.process_time() - started, count + len(pages)
                every, certain = scored(sheet(), found), scored(sheet(), found, at_least=CERTAIN)
                plain = scored(sheet(), _plain(sheet(), pages))
                shares = (
                    *(every.precision, every.recall, certain.precision, certain.recall, plain.precision, plain.recall),
                    *(every.fields[field] for field in ("name", "sku", "ean", "quantity")),
                )
                print(f"{sheet().name:14}{way:12}" + "".join(f"{100 * share:11.1f}" for share in shares))
                if way != "text layer":
                    counts = (every.wanted, every.right, certain.found, certain.right)
                    totals = [total + one for total, one in zip(totals, counts, strict=True)]
    wanted, right, certain_found, certain_right = totals
    print(
        f"scans: {right} of {wanted} products found right; {certain_right} of {certain_found} certain ones are right; "
        f"{1_000 * seconds / count:.1f} ms of processor time a page"
    )


def _ways(sheet: Callable[[], Paper]) -> list[tuple[str, bytes]]:
    return [("text layer", sheet().pdf), *((way.name, paper.scanned(sheet, way).pdf()) for way in VARIANTS)]


def _plain(sheet: Paper, pages: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    found = []
    for page in pages:
        for line in page["text"].splitlines():
            match = _LINE.fullmatch(line)
            digits = re.sub(r"[.,]", "", match[2]) if match else ""
            if match is None or not match[1].strip() or len(digits) > 12:
                continue
            price = Decimal(digits) / 100
            name = re.sub(r"^(\S*[0-9]\S*\s+)+", "", match[1].strip())
            if price and name:
                found.append(_candidate(page["number"], name, price, sheet.default_currency))
    return found


def _candidate(page: int, name: str, price: Decimal, currency: str | None) -> Candidate:
    box = (0.0, 0.0, 1.0, 1.0)
    return Candidate(
        page=page, box=box, evidence=name, name=name, confidence=1.0, confidences={}, price=price, currency=currency
    )
