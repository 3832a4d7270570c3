"""Pages as tables: lines by baseline, cells by gaps, columns by the words that head them, regions side by side.

Places are in thousandths of the page's width, down as well as across, so a table that goes on over pages keeps its
columns whatever their resolution. Invariant: time is linear in the words of a page but for sorting. What cells mean
is `tasks/ocr/candidates.py`'s matter.
"""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adapters.ocr.boxes import Box, rows
from tasks.ocr.page_words import PageWords

SCALE: Final = 1_000.0
CELL_GAP: Final = 0.8
"""A gap as wide as so many heights of the letters parts two cells; a blank is a third of one."""
ONE_LITRE: Final = 10.0
"""Thousandths of the page behind a number within which a stroke is the letter l and no line of a table."""
MAX_LABELS: Final = 24
MAX_REGIONS: Final = 4
MIN_GUTTER_LINES: Final = 2
_LEADERS: Final = re.compile(r"[.…_·\-–—=|]{3,}|[|_…]+")


class Role(StrEnum):
    """What a column holds."""

    NAME = "NAME"
    CODE = "CODE"
    EAN = "EAN"
    PRICE = "PRICE"
    AMOUNT = "AMOUNT"
    QUANTITY = "QUANTITY"
    UNIT = "UNIT"
    OTHER = "OTHER"


_PHRASES: Final = {
    Role.NAME: "descripcion description producto productos product products articulo articulos article item items "
    "nombre name detalle details detail concepto denominacion designacion mercaderia",
    Role.CODE: "codigo cod code sku ref refer referencia reference clave modelo model part art nro|articulo "
    "item|no item|code product|code part|no part|number codigo|articulo cod|art cod|articulo codigo|producto "
    "cod|producto ref|articulo id",
    Role.EAN: "ean ean13 ean8 ean|13 ean|8 gtin upc barcode barras codigo|de|barras cod|barras codigo|barras "
    "cod|de|barras bar|code ean|upc codigo|ean",
    Role.PRICE: "precio precios price prices pvp p|v|p pu p|u p|unit p|unitario p|unit|price precio|unitario "
    "precio|unit unit|price price|each precio|ud precio|unidad unitario tarifa costo coste rate valor|unitario",
    Role.AMOUNT: "importe importes amount total totales monto subtotal line|total precio|total total|price ext|price",
    Role.QUANTITY: "cant cantidad cantidades qty quantity uds unidades units stock existencias bultos disponible "
    "order|qty",
    Role.UNIT: "unidad unidades|de|medida unit um u|m ud envase presentacion formato pack packaging size medida "
    "contenido empaque unidad|medida unidad|de|medida uom",
    Role.OTHER: "iva vat tax dto dto% descuento discount disc desc marca brand foto image categoria category color "
    "familia rubro linea observaciones notes",
}  # fmt: skip
_ROLES: Final = {phrase.replace("|", " "): role for role, text in _PHRASES.items() for phrase in text.split()}
_JOINED: Final = {
    frozenset({Role.CODE, Role.NAME}): Role.CODE,
    frozenset({Role.CODE, Role.EAN}): Role.EAN,
    frozenset({Role.PRICE, Role.UNIT}): Role.PRICE,
    frozenset({Role.PRICE, Role.AMOUNT}): Role.AMOUNT,
    frozenset({Role.PRICE, Role.OTHER}): Role.PRICE,
    frozenset({Role.AMOUNT, Role.OTHER}): Role.AMOUNT,
}
"""What a label means that has words of two columns."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Words of one line that stand together."""

    words: tuple[Box, ...]

    @property
    def text(self) -> str:
        """The words, joined by blanks."""
        return " ".join(word.text for word in self.words)

    @property
    def left(self) -> float:
        """Where it begins."""
        return self.words[0].left

    @property
    def right(self) -> float:
        """Where it ends."""
        return max(word.right for word in self.words)

    @property
    def height(self) -> float:
        """The height of its highest word."""
        return max(word.height for word in self.words)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of cells. `pieces` is how many cells there were by gaps alone, before content parted some.

    `down` is the height of its page, in the unit of places.
    """

    cells: tuple[Cell, ...]
    middle: float
    pieces: int
    down: float

    @property
    def words(self) -> list[Box]:
        """Its words from left to right."""
        return [word for cell in self.cells for word in cell.words]

    @property
    def text(self) -> str:
        """Its words, joined by blanks."""
        return " ".join(cell.text for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Label:
    """The head of a column."""

    role: Role
    left: float
    right: float

    def distance(self, cell: Cell) -> float:
        """How far a cell is from standing under it: columns are flush left, flush right or centred."""
        left, right = cell.left, cell.right
        apart = max(0.0, left - self.right, self.left - right)
        edges = min(abs(left - self.left), abs(right - self.right), abs(left + right - self.left - self.right) / 2)
        return edges + 2 * apart


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a header tells of."""

    labels: tuple[Label, ...]

    @property
    def roles(self) -> frozenset[Role]:
        """What they hold."""
        return frozenset(label.role for label in self.labels)

    def assigned(self, cells: Sequence[Cell]) -> dict[Role, Cell]:
        """The cells under each label; those of one role are one cell."""
        found: dict[Role, list[Box]] = {}
        for cell in cells:
            label = min(self.labels, key=lambda label: label.distance(cell))
            found.setdefault(label.role, []).extend(cell.words)
        return {role: Cell(tuple(words)) for role, words in found.items()}


def lines(page: PageWords, parted: Callable[[Cell, bool], list[Cell]]) -> list[Line]:
    """The lines of a page from above; `parted` may take a cell apart, and is told whether it is the line's first."""
    down = _height(page)
    found = rows(_boxes(page, down))
    if not found:
        return []
    usual = statistics.median(box.height for row in found for box in row)
    result = []
    for row in found:
        cells = _cells(row, CELL_GAP * max(usual, statistics.median(box.height for box in row)))
        fine = [part for place, cell in enumerate(cells) for part in parted(cell, place == 0)]
        result.append(Line(tuple(fine), statistics.fmean(box.middle for box in row), len(cells), down))
    return result


def header(line: Line) -> Columns | None:
    """The columns, if a line heads a table: labels of at least two kinds in two cells, and few other words."""
    if len(line.cells) < 2 or re.search(r"[0-9][.,][0-9]", line.text):
        return None
    labels = [label for cell in line.cells for label in _labels(cell)]
    known = [label for label in labels if label.role is not Role.OTHER]
    roles = {label.role for label in known}
    cells = sum(any(label.role is not Role.OTHER for label in _labels(cell)) for cell in line.cells)
    if cells < 2 or len(roles) < 2 or 2 * len(known) < len(labels) or len(labels) > MAX_LABELS:
        return None
    return Columns(tuple(labels)) if roles & {Role.NAME, Role.PRICE, Role.AMOUNT, Role.CODE} else None


def regions(
    whole: Sequence[Line], is_price: Callable[[Cell], bool], is_text: Callable[[Cell], bool]
) -> list[list[Line]]:
    """The page as columns of text side by side; most have one. Lines that run across belong to the left one."""
    found: list[list[Line]] = []
    rest = list(whole)
    while len(found) < MAX_REGIONS - 1 and (gutter := _gutter(rest, is_price, is_text)) is not None:
        left: list[Line] = []
        right: list[Line] = []
        for line in rest:
            if any(cell.left < gutter < cell.right for cell in line.cells):
                left.append(line)
                continue
            for side, cells in (
                (left, tuple(cell for cell in line.cells if cell.right <= gutter)),
                (right, tuple(cell for cell in line.cells if cell.left >= gutter)),
            ):
                if cells:
                    side.append(Line(cells, line.middle, min(line.pieces, len(cells)), line.down))
        found.append(left)
        rest = right
    return [*found, rest]


def folded(text: str) -> str:
    """Text without accents and case."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)).casefold()


def _height(page: PageWords) -> float:
    sides = (page.width, page.height)
    ratio = page.height / page.width if all(math.isfinite(side) and side > 0 for side in sides) else math.sqrt(2)
    return SCALE * min(max(ratio, 0.01), 100.0)


def _boxes(page: PageWords, down: float) -> list[Box]:
    found: list[Box] = []
    for word in page.words:
        places = (word.left, word.top, word.right, word.bottom)
        if not all(-1 <= place <= 2 for place in places) or word.right < word.left or word.bottom <= word.top:
            continue
        text = " ".join(word.text.split())
        if (
            text == "|"
            and found
            and found[-1].text.isdecimal()
            and 0 <= word.left * SCALE - found[-1].right < ONE_LITRE
        ):
            text = "l"
        if not text or _LEADERS.fullmatch(text):
            continue
        left, top, right, bottom = word.left * SCALE, word.top * down, word.right * SCALE, word.bottom * down
        found.append(Box(text, left, top, right, bottom, word.confidence))
    return found


def _cells(row: Sequence[Box], gap: float) -> list[Cell]:
    parts: list[list[Box]] = []
    right = -math.inf
    for box in row:
        if not parts or box.left - right > gap:
            parts.append([box])
        else:
            parts[-1].append(box)
        right = max(right, box.right) if len(parts[-1]) > 1 else box.right
    return [Cell(tuple(part)) for part in parts]


def _labels(cell: Cell) -> list[Label]:
    tokens = [re.sub(r"[^\w%]+", " ", folded(word.text)).strip() for word in cell.words[:MAX_LABELS]]
    found: list[Label] = []
    place = 0
    while place < len(tokens):
        for count in (3, 2, 1):
            role = _ROLES.get(" ".join(" ".join(tokens[place : place + count]).split()))
            if role is not None:
                break
        words = cell.words[place : place + count]
        place += count
        label = Label(role or Role.OTHER, words[0].left, max(word.right for word in words))
        if found and (joined := _joined(found[-1].role, role)) is not None:
            label = Label(joined, found.pop().left, label.right)
        found.append(label)
    return found


def _joined(before: Role, role: Role | None) -> Role | None:
    if role is None or role is before:
        return before
    return _JOINED.get(frozenset({before, role}))


def _gutter(whole: Sequence[Line], is_price: Callable[[Cell], bool], is_text: Callable[[Cell], bool]) -> float | None:
    """Where a page parts: behind prices that are followed by a text with a price of its own, in several lines."""
    gaps: list[tuple[float, float]] = []
    for line in whole:
        columns = header(line)
        if columns is not None and len(columns.labels) == len({label.role for label in columns.labels}):
            return None
        has_text = False
        cells = line.cells
        last = max((place for place, cell in enumerate(cells) if is_price(cell)), default=-1)
        for place, cell in enumerate(cells[:-2]):
            has_text = has_text or is_text(cell)
            if has_text and place + 1 < last and is_price(cell) and is_text(cells[place + 1]):
                gaps.append((cell.right, cells[place + 1].left))
                break
    if len(gaps) < MIN_GUTTER_LINES:
        return None
    end = statistics.median_low(gap[1] for gap in gaps)
    begin = max((gap[0] for gap in gaps if gap[0] < end), default=end)
    return (begin + end) / 2
