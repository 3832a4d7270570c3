"""A supplier's price list that the demo has uploaded and read: a PDF of one page, its words, the products in it.

The page is read as `adapters/ocr/reader.py` reads one, in this process, because the file is our own.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from adapters.ocr.recognition import ReadPage, read_page
from adapters.ocr.sheets import open_document
from errors import ServiceUnavailable
from models.demo import DEMO_USER_ID
from models.documents import KIND
from models.executions import ExecutionStatus
from models.ids import id_at
from models.media import MediaKind, MediaStatus
from resolvers.demo.past import Ended, Said
from tasks.ocr.candidates import find_candidates
from tasks.ocr.page_words import Candidate, PageWords, Word

FILENAME: Final = "price-list-spring.pdf"
CONTENT_TYPE: Final = "application/pdf"
CURRENCY: Final = "EUR"
_DAYS_AGO: Final = 11.2
_DPI: Final = 300
_COLUMNS: Final = (56, 150, 360, 470)
_TITLE: Final = "Household goods, spring price list"
_HEADER: Final = ("SKU", "Product", "Unit", "Price")
_GOODS: Final = (
    ("HG-1010", "Enamel jug, white", "1 l", "18,90 EUR"),
    ("HG-1021", "Bread knife, beech handle", "1 pc", "24,50 EUR"),
    ("HG-1033", "Tea towel, striped", "2 pcs", "9,80 EUR"),
    ("HG-1047", "Cast iron pan", "28 cm", "46,00 EUR"),
    ("HG-1052", "Soap dish, olive wood", "1 pc", "7,25 EUR"),
    ("HG-1068", "Clothes pegs, ash", "50 pcs", "5,60 EUR"),
    ("HG-1074", "Wool blanket, grey", "1 pc", "89,00 EUR"),
    ("HG-1090", "Candle, beeswax", "4 pcs", "16,40 EUR"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The medium and what was read of it."""

    media_id: UUID
    ended: Ended
    content: bytes
    page: ReadPage
    candidates: list[Candidate]


def pdf() -> bytes:
    """The file, always the same bytes."""
    lines = [_at(_COLUMNS[0], 780, 16, _TITLE)]
    for place, row in enumerate((_HEADER, *_GOODS)):
        lines += [_at(left, 740 - 24 * place, 11, text) for left, text in zip(_COLUMNS, row, strict=True)]
    stream = "\n".join(lines).encode("latin-1")
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    )
    written = b"%PDF-1.4\n"
    offsets = []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, len(written))
    return written + b"xref\n0 %d\n0000000000 65535 f \n" % count + table + end


def read(*, now: datetime, timeout_seconds: float) -> PriceList:
    """Read the list, as it was read some days ago. Takes some milliseconds of processor time."""
    content = pdf()
    with tempfile.TemporaryDirectory(prefix="switchyard-demo-") as folder:
        file = Path(folder) / FILENAME
        file.write_bytes(content)
        document = open_document(str(file), is_pdf=True, dpi=_DPI, max_pixels=10_000_000)
        page = read_page(document, 1, _no_engine, force_ocr=False, seconds=10.0)
    words = tuple(
        Word(str(text), float(left), float(top), float(right), float(bottom), certainty)
        for text, left, top, right, bottom, certainty in page.to_message()["words"]
    )
    candidates = find_candidates([PageWords(1, page.width, page.height, words)], default_currency=CURRENCY)
    at = now - timedelta(days=_DAYS_AGO)
    ended = Ended(
        kind=KIND,
        queued_at=at,
        status=ExecutionStatus.SUCCEEDED,
        timeout_seconds=timeout_seconds,
        worked_seconds=1.1,
        stages=[(0.05, "FETCHING"), (0.2, "READING"), (0.9, "SEARCHING")],
        lines=[
            Said(0.7, "READING", f"Page 1: text layer, {len(words):,} words, 0.1 s."),
            Said(1.0, "SEARCHING", f"1 pages with {len(words):,} words; {len(candidates):,} products may be in them."),
        ],
    )
    return PriceList(
        media_id=id_at(at - timedelta(minutes=2)), ended=ended, content=content, page=page, candidates=candidates
    )


def _no_engine() -> Any:
    raise ServiceUnavailable("The price list of the demo has lost its text layer.")


def _at(left: int, bottom: int, size: int, text: str) -> str:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F1 {size} Tf {left} {bottom} Td ({escaped}) Tj ET"


# -- rows


def media_row(made: PriceList) -> dict[str, Any]:
    """The row of `media`."""
    return {
        "id": made.media_id,
        "owner_id": DEMO_USER_ID,
        "status": MediaStatus.READY.value,
        "filename": FILENAME,
        "content_type": CONTENT_TYPE,
        "size": len(made.content),
        "sha256": hashlib.sha256(made.content).hexdigest(),
        "kind": MediaKind.PDF.value,
        "pages": 1,
        "has_thumbnail": False,
        "created_at": made.ended.queued_at - timedelta(minutes=2),
        "completed_at": made.ended.queued_at - timedelta(minutes=1),
    }


def job_row(made: PriceList) -> dict[str, Any]:
    """The row of `ocr_jobs`."""
    return {
        "execution_id": made.ended.id,
        "media_id": made.media_id,
        "filename": FILENAME,
        "languages": ["eng"],
        "force_ocr": False,
        "default_currency": CURRENCY,
        "page_count": 1,
        "pages_read": 1,
        "confidence": made.page.confidence,
        "candidate_count": len(made.candidates),
        "engine": made.page.engine,
    }


def page_row(made: PriceList) -> dict[str, Any]:
    """The row of `document_pages`."""
    said = made.page.to_message()
    names = ("source", "width", "height", "rotation", "confidence", "text", "words")
    return {
        "id": id_at(made.ended.finished_at),
        "job_id": made.ended.id,
        "number": 1,
        **{name: said[name] for name in names},
    }


def candidate_rows(made: PriceList) -> list[dict[str, Any]]:
    """Rows of `product_candidates`, which wait for an administrator."""
    names = ("page", "box", "evidence", "name", "sku", "ean", "price", "currency", "quantity", "unit", "confidences")
    return [
        {
            "id": id_at(made.ended.finished_at),
            "job_id": made.ended.id,
            "position": position,
            **{name: getattr(candidate, name) for name in names},
            "confidence": candidate.confidence,
            "state": "PENDING",
        }
        for position, candidate in enumerate(made.candidates, start=1)
    ]
