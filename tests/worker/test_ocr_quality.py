"""How well documents are read, on paper whose content is known: floors under what `make bench ARGS=ocr` measures.

Also which text layers are trusted, and that a page keeps to its time. The readers are real children, without a worker.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from adapters.ocr.boxes import Box, rows, slope_degrees, straightened, text_of
from adapters.ocr.engines import TesseractProgram
from adapters.ocr.layer import is_text
from adapters.ocr.protocol import Start
from adapters.ocr.sheets import Pictures
from tests.harness import paper
from tests.harness.paper import VARIANTS, Paper, Variant
from tests.harness.readers import Readers, has_spanish

CLEAN, COARSE, FINE, NOISY = VARIANTS
needs_spanish = pytest.mark.skipif(
    not has_spanish(), reason="SPANISH IS NOT INSTALLED: put tesseract-ocr-spa there, or documents in it go untested"
)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    return Readers(tmp_path_factory.mktemp("english"), ["eng"])


@pytest.fixture(scope="module")
def spanish(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    return Readers(tmp_path_factory.mktemp("spanish"), ["spa", "eng"])


# -- letters


@needs_spanish
@pytest.mark.parametrize(
    ("sheet", "variant", "worst"),
    [
        (paper.euro_invoice, COARSE, 0.02),
        (paper.price_list, NOISY, 0.02),
        (paper.two_columns, COARSE, 0.02),
    ],
)
def test_spanish_scans_are_read_with_few_errors(
    spanish: Readers, sheet: Callable[[], Paper], variant: Variant, worst: float
) -> None:
    scan = paper.scanned(sheet, variant, pages=1)
    [page] = spanish.read(scan.png(), is_pdf=False).pages
    assert scan.paper.errors(page["text"]) <= worst
    assert page["confidence"] >= 85
    assert page["rotation"] == pytest.approx(-variant.tilt_degrees, abs=0.15)


def test_english_scans_in_a_pdf_are_read_with_few_errors(english: Readers) -> None:
    scan = paper.scanned(paper.dollar_list, FINE)
    [page] = english.read(scan.pdf(), is_pdf=True).pages
    assert (page["source"], round(page["width"]), round(page["height"])) == ("OCR", 595, 842)
    assert scan.paper.errors(page["text"]) <= 0.01


def test_rows_are_straight_whatever_the_tilt(english: Readers) -> None:
    scan = paper.scanned(paper.dollar_list, COARSE)
    [page] = english.read(scan.png(), is_pdf=False).pages
    for line in scan.paper.lines[0][2:4]:
        first, last = line.split()[0], line.split()[-1]
        places = [word for word in page["words"] if word[0] in (first, last)][:2]
        assert abs(places[0][4] - places[1][4]) < 0.003  # of the page; a row is 0.02 high


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_sheet_on_its_side_or_head_is_read_upright(english: Readers, quarters: int) -> None:
    upright = paper.scanned(paper.dollar_list, CLEAN).pages[0]
    file = io.BytesIO()
    paper.turned(upright, quarters).save(file, "PNG", dpi=(200, 200))
    [page] = english.read(file.getvalue(), is_pdf=False).pages
    assert paper.dollar_list().errors(page["text"]) <= 0.01
    assert page["rotation"] == {1: -90.0, 2: 180.0}[quarters]
    assert (page["width"], page["height"]) == upright.size


# -- text layers


@pytest.mark.parametrize("sheet", paper.PAPERS)
def test_a_text_layer_has_no_errors(english: Readers, sheet: Callable[[], Paper]) -> None:
    said = english.read(sheet().pdf, is_pdf=True)
    assert [page["source"] for page in said.pages] == ["TEXT_LAYER"] * len(sheet().lines)
    assert [sheet().errors(page["text"], page["number"]) for page in said.pages] == [0.0] * len(sheet().lines)


@pytest.mark.parametrize(
    "layer",
    ["7KLV OD\\HU LV VKLIWHG DQG QRW ZKDW RQH VHHV RQ WKH SDJH", "Scanned 3", "\u00b7\u00b7 -- \u00b7\u00b7 --"],
)
def test_a_layer_that_is_not_what_one_sees_counts_as_none(english: Readers, layer: str) -> None:
    [page] = english.read(scan_with_layer(layer), is_pdf=True).pages
    assert page["source"] == "OCR"
    assert paper.dollar_list().errors(page["text"]) <= 0.05


def test_a_layer_that_a_scanner_left_is_taken(english: Readers) -> None:
    whole = " ".join(" ".join(paper.dollar_list().lines[0]).split())
    [page] = english.read(scan_with_layer(whole), is_pdf=True).pages
    assert (page["source"], page["text"]) == ("TEXT_LAYER", whole)


def test_letters_tell_whether_they_are_text() -> None:
    assert is_text(["Lista", "de", "precios"])
    assert is_text(["7790895000782", "$", "4.899,90"])
    assert is_text(["Прайс", "лист"])
    assert not is_text(["\ue001\ue002\ue003", "\ue004"])
    assert not is_text(["\ufffd\ufffd", "ab"])
    assert not is_text(["..", "--", "__", "a"])
    assert not is_text([])


# -- pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path, kind: str) -> None:
    turned_right = Image.Exif()
    turned_right[0x0112] = 6
    Image.new("RGB", (2_340, 1_000), "white").save(tmp_path / "photo", kind, exif=turned_right)
    picture, dpi = Pictures(str(tmp_path / "photo"), max_pixels=10_000_000).picture(1)
    assert (picture.size, picture.mode, dpi) == ((1_000, 2_340), "L", 200)


# -- time


def test_a_page_that_takes_too_long_fails_and_the_next_is_read(english: Readers) -> None:
    scan = paper.scanned(paper.dollar_list, CLEAN)
    said = english.read(scan.png(), is_pdf=False, page_seconds=0.001)
    assert [message["type"] for message in said.messages] == ["document", "begun", "failed", "end"]
    assert said.messages[2]["code"] == "TIMED_OUT"


def test_a_reader_without_a_start_says_so(english: Readers) -> None:
    process, _ = english.start(b"", is_pdf=True)
    out, stray = process.communicate(b'{"path": 1}\n', timeout=30)
    assert (process.returncode, out) == (2, b"")
    assert b"no start message" in stray


def test_pages_that_are_done_are_not_touched(english: Readers) -> None:
    said = english.read(paper.price_list().pdf, is_pdf=True, skip=[1])
    assert [message.get("number") for message in said.messages] == [None, 2, 2, None]


def test_a_start_survives_its_way() -> None:
    start = Start(
        path="/x", is_pdf=True, languages=["eng"], data_path="/y", force_ocr=False, dpi=200, max_pages=1, max_pixels=1,
        page_seconds=1.0, memory_bytes=1, skip=[3],
    )  # fmt: skip
    assert Start.decode(start.encode()) == start


# -- places


def test_a_tilt_is_told_from_words_and_taken_back() -> None:
    flat = [Box(f"w{place}", 100.0 * place, 400.0, 100.0 * place + 60, 420.0, 90.0) for place in range(8)]
    tilted = straightened(flat, -1.5, 800, 1_000)
    assert slope_degrees([tilted]) == pytest.approx(1.5, abs=0.02)
    back = straightened(tilted, 1.5, 800, 1_000)
    assert [box.middle for box in back] == pytest.approx([410.0] * 8, abs=0.01)


def test_rows_come_from_above_and_words_from_the_left() -> None:
    boxes = [Box("c", 50, 30, 60, 40), Box("b", 50, 2, 60, 12), Box("a", 10, 0, 20, 10), Box("far", 0, 200, 9, 210)]
    assert text_of(rows(boxes)) == "a b\nc\n\nfar"


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="the program tesseract is not installed")
def test_the_program_reads_as_the_library_does(english: Readers) -> None:
    scan = paper.scanned(paper.dollar_list, COARSE)
    program = TesseractProgram(english.data_path, ["eng"])
    sight = program.read(scan.pages[0], dpi=150, seconds=60)
    straight = straightened(sight.words, sight.slope, *scan.pages[0].size)
    assert scan.paper.errors(text_of(rows(straight))) <= 0.02
    assert sight.slope == pytest.approx(-1.2, abs=0.3)
    assert program.turned(paper.turned(scan.pages[0], 1), seconds=60) == 270


def scan_with_layer(text: str) -> bytes:
    """A picture of a page with a text that nobody sees, as scanners put it there."""
    file = io.BytesIO()
    drawing = Canvas(file, pagesize=(paper.WIDTH, paper.HEIGHT))
    picture: Image.Image = paper.scanned(paper.dollar_list, CLEAN).pages[0]
    drawing.drawImage(ImageReader(picture.copy()), 0, 0, paper.WIDTH, paper.HEIGHT)
    hidden = drawing.beginText(50, 700)
    hidden.setTextRenderMode(3)
    hidden.setFont("Helvetica", 1)
    hidden.textOut(text)
    drawing.drawText(hidden)
    drawing.save()
    return file.getvalue()
