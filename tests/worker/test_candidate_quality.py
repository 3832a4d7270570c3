"""How many of the products on paper are found, and how many found ones are there: floors under what is measured.

`make bench ARGS=candidates` measures all ways of scanning. Here are text layers and one page that a scanner saw.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.ocr.sheets import PdfFile
from tests.harness import paper
from tests.harness.found_products import scored, searched
from tests.harness.paper import VARIANTS, Paper
from tests.harness.readers import Readers


@pytest.mark.parametrize("sheet", paper.PAPERS)
def test_all_products_of_a_text_layer_are_found_and_no_others(tmp_path: Path, sheet: Callable[[], Paper]) -> None:
    (tmp_path / "paper.pdf").write_bytes(sheet().pdf)
    file = PdfFile(str(tmp_path / "paper.pdf"), dpi=200)
    pages = []
    for number in range(1, file.pages + 1):
        layer = file.layer(number)
        assert layer is not None
        width, height = file.size(number)
        words = [[word.text, word.left, word.top, word.right, word.bottom, word.confidence] for word in layer.words]
        pages.append({"number": number, "width": width, "height": height, "words": words})
    found = searched(sheet(), pages)
    score = scored(sheet(), found, at_least=0.85)
    assert (score.precision, score.recall, len(found)) == (1.0, 1.0, len(sheet().products))
    assert score.fields == dict.fromkeys(score.fields, 1.0)


def test_products_of_a_scan_are_found_and_certain_ones_are_right(tmp_path: Path) -> None:
    scan = paper.scanned(paper.dollar_list, VARIANTS[1])
    pages = Readers(tmp_path, ["eng"]).read(scan.png(), is_pdf=False).pages
    found = searched(scan.paper, pages)
    assert scored(scan.paper, found).recall >= 0.9
    assert scored(scan.paper, found).precision >= 0.9
    certain = scored(scan.paper, found, at_least=0.85)
    assert certain.precision == 1.0
    assert certain.recall >= 0.8
    assert certain.fields["sku"] >= 0.9
