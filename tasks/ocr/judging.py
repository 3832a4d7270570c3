"""How sure candidates are: what each word, each row and the whole table say about every field.

A field's confidence is the least certain word in it, times how sure its parsing is, times how well its place is known,
times what speaks for or against its value. A candidate is as certain as the weaker of its name and price. Pure.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from adapters.ocr.boxes import Box
from tasks.ocr.codes import shape
from tasks.ocr.layout import SCALE, Cell, Line
from tasks.ocr.money import Convention, Money, currency_of
from tasks.ocr.page_words import Candidate
from tasks.ocr.quantities import Quantity, parse_quantity, quantity_in_name

MAX_NAME: Final = 255
MAX_EVIDENCE: Final = 1_000
FAR_PRICE: Final = 100
"""Times the median of its column, either way: a separator may have been lost."""
ALIGNED: Final = 8.0
"""Thousandths of the page within which prices of one column end."""
FEW: Final = 3
MENDED: Final = 0.4
"""How sure a unit is that was read as a digit."""
_GRAMS: Final = re.compile(r"([0-9]{1,5}) ?[9q]")
_BULLETS: Final = " \t.…·•*-–—_|:;,~"


@dataclass(slots=True)
class Row:
    """A row that may be a product. `structure` says how well the place of its fields is known, 0 to 1.

    `group` is the table it is of; codes come with how sure their parsing is.
    """

    page: int
    group: int
    lines: list[Line]
    name: list[Box]
    structure: float
    price: Money | None = None
    price_cell: Cell | None = None
    sku: tuple[str, float] | None = None
    sku_cell: Cell | None = None
    ean: tuple[str, float] | None = None
    ean_cell: Cell | None = None
    quantity: Quantity | None = None
    quantity_words: list[Box] = field(default_factory=list)
    unit_cell: Cell | None = None
    amount: Money | None = None
    is_labelled: bool = False

    @property
    def text(self) -> str:
        """The name as it stands."""
        return " ".join(word.text for word in self.name).strip(_BULLETS)

    @property
    def has_code(self) -> bool:
        """Whether a code names it."""
        return self.sku is not None or self.ean is not None


def judged(found: Sequence[Row], default_currency: str | None, habit: Convention) -> list[Candidate]:
    """The rows as candidates, in their order."""
    groups: dict[int, list[Row]] = {}
    for row in found:
        groups.setdefault(row.group, []).append(row)
    for rows in groups.values():
        _mend(rows)
    tables = {group: _Table(rows) for group, rows in groups.items()}
    return [tables[row.group].candidate(row, default_currency, habit) for row in found]


def letters(text: str) -> int:
    """How many letters a text has."""
    return sum(map(str.isalpha, text))


def _mend(rows: Sequence[Row]) -> None:
    """Put right what the rest of the table says was misread: grams taken for nines, prices that lost a separator."""
    units = [row.quantity.unit for row in rows if row.quantity is not None and row.quantity.unit is not None]
    are_units = len(units) >= FEW or "g" in units
    for row in rows:
        cell, told = row.unit_cell, row.quantity
        if cell is not None and are_units and (told is None or told.unit is None):
            found = _GRAMS.fullmatch(cell.text)
            if found is not None:
                row.quantity, row.quantity_words = Quantity(Decimal(found[1]), "g", MENDED), list(cell.words)
        count = told.number if told is not None else None
        if row.price is None or row.amount is None or not count:
            continue
        each = (row.amount.amount / count).quantize(Decimal("0.01"))
        if (
            each != row.price.amount
            and each * count == row.amount.amount
            and _digits(each) == _digits(row.price.amount)
        ):
            row.price = replace(row.price, amount=each, decimals=2, certainty=0.9)


def _digits(amount: Decimal) -> str:
    return f"{amount:f}".replace(".", "").strip("0")


class _Table:
    """What the rows of one table say about each."""

    def __init__(self, rows: Sequence[Row]) -> None:
        prices = [row.price for row in rows if row.price is not None]
        self._median = statistics.median(price.amount for price in prices) if prices else Decimal(1)
        self._have_decimals = len(prices) >= FEW and sum(price.decimals > 0 for price in prices) > 0.7 * len(prices)
        self._ends = sorted(row.price_cell.right for row in rows if row.price_cell is not None)
        shapes = Counter(shape(row.sku[0]) for row in rows if row.sku is not None)
        [(usual, count)] = shapes.most_common(1) or [("", 0)]
        self._shape = usual if count > FEW and count > 0.7 * shapes.total() else None

    def candidate(self, row: Row, default_currency: str | None, habit: Convention) -> Candidate:
        """The row as a candidate."""
        structure = row.structure * (1.0 if row.is_labelled or self._is_aligned(row) else 0.8)
        name = row.text[:MAX_NAME].strip()
        sure = {"name": _least(row.name) * _readable(name) * structure}
        currency = None
        if row.price is not None and row.price_cell is not None:
            least = _least(row.price_cell.words)
            sure["price"] = least * row.price.certainty * structure * self._validity(row.price, row)
            currency, certainty = currency_of(row.price, default_currency)
            if currency is not None:
                sure["currency"] = least * certainty
        if row.sku is not None and row.sku_cell is not None:
            fits = self._shape is None or shape(row.sku[0]) == self._shape
            sure["sku"] = _least(row.sku_cell.words) * row.sku[1] * structure * (1.0 if fits else 0.6)
        if row.ean is not None and row.ean_cell is not None:
            sure["ean"] = _least(row.ean_cell.words) * row.ean[1] * structure
        amount = _quantity(row, habit, structure, sure)
        return Candidate(
            page=row.page,
            box=_around(row.lines),
            evidence="\n".join(line.text for line in row.lines)[:MAX_EVIDENCE],
            name=name,
            sku=row.sku[0] if row.sku else None,
            ean=row.ean[0] if row.ean else None,
            price=row.price.amount if row.price else None,
            currency=currency,
            quantity=amount.number if amount else None,
            unit=amount.unit if amount else None,
            confidences={key: round(value, 3) for key, value in sure.items()},
            confidence=round(min(sure["name"], sure.get("price", 0.0)), 3),
        )

    def _is_aligned(self, row: Row) -> bool:
        """Whether other prices end where this one does."""
        if row.price_cell is None:
            return False
        end = row.price_cell.right
        return bisect_right(self._ends, end + ALIGNED) - bisect_left(self._ends, end - ALIGNED) >= FEW

    def _validity(self, price: Money, row: Row) -> float:
        """What speaks against a price: its column, and the amount that it should make."""
        validity = 1.0
        count = row.quantity.number if row.quantity is not None else None
        if row.amount is not None and count is not None:
            if abs(price.amount * count - row.amount.amount) <= Decimal("0.01") * max(count, Decimal(1)):
                return 1.0
            validity = 0.7
        if self._have_decimals and price.decimals == 0:
            validity *= 0.5
        times = max(price.amount / self._median, self._median / price.amount)
        if times > FAR_PRICE:
            validity *= 0.85 if times <= 10 * FAR_PRICE else 0.5
        return validity


def _quantity(row: Row, habit: Convention, structure: float, sure: dict[str, float]) -> Quantity | None:
    amount, words = row.quantity, row.quantity_words
    if amount is None:
        amount, words, structure = quantity_in_name(row.text, habit), row.name[-3:], structure * 0.8
    if amount is None and row.price is not None and row.price.per and row.price_cell is not None:
        unit = parse_quantity(row.price.per, habit)
        amount, words = unit if unit is not None and unit.number is None else None, list(row.price_cell.words)
    if amount is not None:
        certainty = _least(words) * amount.certainty * structure
        sure.update({"quantity": certainty} if amount.number is not None else {})
        sure.update({"unit": certainty} if amount.unit is not None else {})
    return amount


def _least(words: Sequence[Box]) -> float:
    """The confidence of the least certain word, 0 to 1. Signs without a letter or digit say little and do not count."""
    known = [
        word.confidence
        for word in words
        if word.confidence is not None and any(sign.isalnum() or sign in "$€£" for sign in word.text)
    ]
    # Comparisons with what is no number are false: such a word counts for nothing.
    return min((value / 100 if 0 <= value <= 100 else float(value > 100) for value in known), default=1.0)


def _readable(name: str) -> float:
    """How much a name looks like one: letters, digits, blanks and what names have between them."""
    good = sum(sign.isalnum() or sign in " .,;:'’\"()/%&+-°ºª²" for sign in name)
    share = good / max(1, len(name))
    return share if letters(name) >= 3 else share * 0.6


def _around(lines: Sequence[Line]) -> tuple[float, float, float, float]:
    words = [word for line in lines for word in line.words]
    down = lines[0].down
    edges = (
        min(word.left for word in words) / SCALE,
        min(word.top for word in words) / down,
        max(word.right for word in words) / SCALE,
        max(word.bottom for word in words) / down,
    )
    left, top, right, bottom = (round(min(max(edge, 0.0), 1.0), 5) for edge in edges)
    return left, top, right, bottom
