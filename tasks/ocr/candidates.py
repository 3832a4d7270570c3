"""Products in documents: the one way in for whoever has pages.

Rows that name something and its price are candidates, with their place and text as evidence. Invariants: pure, never
raises, time linear in the words but for sorting, at most MAX_CANDIDATES. How sure candidates are is
`tasks/ocr/judging.py`'s matter; layout, money, codes and quantities have their own modules.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from tasks.ocr.codes import find_gtin, find_sku
from tasks.ocr.judging import Row, judged, letters
from tasks.ocr.layout import Cell, Columns, Line, Role, folded, header, lines, regions
from tasks.ocr.money import Convention, Money, convention, parse_money
from tasks.ocr.page_words import Candidate, PageWords
from tasks.ocr.quantities import Quantity, parse_quantity

MAX_CANDIDATES: Final = 5_000
MAX_NAME_WORDS: Final = 16
MAX_MORE_LINES: Final = 3
MAX_PITCH: Final = 1.3
"""A line belongs to the one above if it is no further than so many usual distances between lines."""

_LABELLED, _GONE_ON, _GUESSED, _LOOSE, _STACKED = 1.0, 0.97, 0.9, 0.75, 0.8
"""How well a field's place is known: under a header, under one of an earlier page, by gaps, within prose, on lines."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODE_FIRST: Final = re.compile(r"[A-Z]{1,6}[-._/][0-9]{2,}[A-Z0-9-]{0,12}|[A-Z]{1,5}[0-9]{3,10}|[0-9]{12,14}")
_SUMS: Final = _words(
    "total totales subtotal sub suma base iva igv itbis itbms iibb vat tax taxes impuesto impuestos descuento discount "
    "dto saldo balance anticipo importe neto net gross bruto portes flete freight shipping envio recargo amount grand "
    "retencion irpf percepcion propina tip due"
)
_SUM_WORDS: Final = _SUMS | _words(
    "a al con de del la el los las por y sin incl incluido incluidos imponible general factura pagar pagado parcial "
    "final of the to and including sales order invoice payable paid eur usd ars mxn euros pesos gastos handling "
    "delivery transporte exento gravado gravada productos articulos items"
)
_PROSE: Final = _words(
    "tel telefono fax movil call phone llame llamar www http https iban nif cif cuit rfc ruc nit fecha date vigencia "
    "vencimiento pedido pedidos orders minimo minimum pagina page factura invoice cliente customer whatsapp email"
)
_JOINS: Final = _words("de del con sin para por en y e o a al the of with and for in or to")
_INITIALS: Final = re.compile(r"(?<=\b\w)\.(?=\w\b|\s|$)")
"""The full stops of I.V.A."""
_PHONE: Final = re.compile(r"\(?\+?[0-9]{2,4}\)?[ -]?[0-9]{3,4}[- ][0-9]{3,4}")


def find_candidates(pages: Sequence[PageWords], *, default_currency: str | None) -> list[Candidate]:
    """The products that pages may name, in their order. Pure, never raises."""
    habit = convention((word.text for page in pages for word in page.words), default_currency)
    search = _Search(habit)
    found: list[Row] = []
    for page in pages:
        found.extend(search.page(page))
        if len(found) >= MAX_CANDIDATES:
            break
    return judged(found[:MAX_CANDIDATES], default_currency, habit)


class _Search:
    """The search through a document, which remembers the columns of the page before."""

    def __init__(self, habit: Convention) -> None:
        self._habit = habit
        self._columns: dict[int, Columns] = {}
        self._group = 0

    def page(self, page: PageWords) -> list[Row]:
        """The rows of a page that may be products."""
        found: list[Row] = []
        for place, region in enumerate(regions(lines(page, self._parted), self._is_price, self._is_text)):
            found.extend(self._region(page.number, place, region))
        return found

    def _region(self, number: int, place: int, region: Sequence[Line]) -> list[Row]:
        columns, is_new = self._columns.get(place), False
        self._group += 1
        pitches = [after.middle - before.middle for before, after in pairwise(region)]
        pitch = MAX_PITCH * statistics.median(pitches) if pitches else 0.0
        found: list[Row] = []
        above: Row | None = None  # its name may go on in the next line
        waiting: Row | None = None  # its price may stand in the next line
        before: Line | None = None
        for line in region:
            is_near = before is not None and line.middle - before.middle <= pitch
            before = line
            if (heads := header(line)) is not None:
                columns, is_new, above, waiting = heads, True, None, None
                self._columns[place] = heads
                self._group += 1
                continue
            row = self._row(number, line, columns, is_new=is_new)
            if row is None:
                above = waiting = None
            elif row.price is not None:
                if waiting is not None and is_near and _fits_below(waiting, row):
                    row = _stacked(waiting, row)
                waiting = None
                above = row if self._is_product(row) else None
                if above is not None:
                    found.append(above)
            elif above is not None and is_near and _goes_on(above, row):
                above.name.extend(row.name)
                above.lines.append(line)
            elif row.has_code and row.price_cell is not None and row.is_labelled:
                found.append(row)  # its price cannot be read: people shall see that
                above, waiting = row, None
            else:
                above, waiting = None, row
        return found

    def _row(self, number: int, line: Line, columns: Columns | None, *, is_new: bool) -> Row | None:
        if columns is not None and line.pieces > 1:
            row = self._by_columns(number, line, columns, _LABELLED if is_new else _GONE_ON)
            if row is not None:
                return row
        return self._by_content(number, line, _GUESSED if columns is None else _LOOSE)

    def _by_columns(self, number: int, line: Line, columns: Columns, structure: float) -> Row | None:
        under = columns.assigned(line.cells)
        name = under.get(Role.NAME)
        if name is None or letters(name.text) < 2:
            return None
        row = Row(number, self._group, [line], list(name.words), structure, is_labelled=True)
        row.price_cell, amount = under.get(Role.PRICE), under.get(Role.AMOUNT)
        if Role.PRICE not in columns.roles and amount is not None:
            row.price_cell, amount, row.structure = amount, None, structure * 0.8
        if row.price_cell is not None:
            row.price = parse_money(row.price_cell.text, self._habit)
        row.amount = parse_money(amount.text, self._habit) if amount is not None else None
        if row.price_cell is None and row.amount is not None:
            return None
        self._add_codes(row, under)
        self._add_quantity(row, under.get(Role.QUANTITY), under.get(Role.UNIT))
        return row

    def _add_codes(self, row: Row, under: dict[Role, Cell]) -> None:
        for role in (Role.EAN, Role.CODE):
            cell = under.get(role)
            if cell is not None and row.ean is None:
                row.ean = find_gtin(cell.text, is_labelled=role is Role.EAN)
                row.ean_cell = cell if row.ean is not None else None
        code = under.get(Role.CODE)
        if code is not None and code is not row.ean_cell:
            row.sku, row.sku_cell = find_sku(code.text, is_labelled=True), code
        if row.ean is None and Role.EAN not in under:
            for cell in under.values():
                self._add_loose_gtin(row, cell)

    def _add_loose_gtin(self, row: Row, cell: Cell) -> bool:
        if row.ean is None and (found := find_gtin(cell.text, is_labelled=False)) is not None:
            row.ean, row.ean_cell = (found[0], found[1] * 0.85), cell
            return True
        return False

    def _add_quantity(self, row: Row, count: Cell | None, unit: Cell | None) -> None:
        told = parse_quantity(count.text, self._habit) if count is not None else None
        each = parse_quantity(unit.text, self._habit) if unit is not None else None
        if told is not None and count is not None:
            row.quantity, row.quantity_words = told, list(count.words)
            if each is not None and unit is not None and told.unit is None:
                inner = each.unit if each.number is None else f"{each.number.normalize():f} {each.unit or ''}".strip()
                sure = min(told.certainty, each.certainty)
                row.quantity = Quantity(told.number, inner[:16] if inner else None, sure)
                row.quantity_words += unit.words
        elif unit is not None:
            row.unit_cell = unit
            if each is not None:
                # A bare number among units: a letter was taken for a digit, or lost.
                sure = each.certainty * (0.5 if each.unit is None else 1.0)
                row.quantity, row.quantity_words = replace(each, certainty=sure), list(unit.words)

    def _by_content(self, number: int, line: Line, structure: float) -> Row | None:
        texts = [cell for cell in line.cells if self._is_text(cell)]
        prices = [(cell, money) for cell in line.cells if (money := self._price(cell)) is not None]
        if not texts and not prices:
            return None
        row = Row(number, self._group, [line], [], structure if line.pieces > 1 else structure * _LOOSE)
        if prices:
            row.price_cell, row.price, is_sure = self._unit_price(line, prices)
            row.structure *= 1.0 if is_sure else 0.7
            row.amount = prices[-1][1] if is_sure and len(prices) > 1 else None
        names = [cell for cell in texts if row.price_cell is None or cell.left < row.price_cell.left] or texts
        if names:
            row.name = list(max(names, key=lambda cell: letters(cell.text)).words)
        for cell in line.cells:
            if self._is_text(cell) or self._is_price(cell) or self._add_loose_gtin(row, cell):
                continue
            if row.sku is None and (sku := find_sku(cell.text, is_labelled=False)) is not None:
                row.sku, row.sku_cell = sku, cell
            elif row.quantity is None and (told := parse_quantity(cell.text, self._habit)) is not None:
                row.quantity = replace(told, certainty=told.certainty * (0.9 if told.unit else 0.7))
                row.quantity_words = list(cell.words)
        return row

    def _unit_price(self, line: Line, prices: Sequence[tuple[Cell, Money]]) -> tuple[Cell, Money, bool]:
        """Of several amounts the one that times a count in the line makes the next; else the last."""
        cell, money = prices[-1]
        if len(prices) == 1:
            return cell, money, True
        counts = [int(text) for other in line.cells if re.fullmatch(r"[0-9]{1,5}", text := other.text)]
        for (one, single), (_, product) in pairwise(prices):
            if any(single.amount * count == product.amount for count in counts[:4]):
                return one, single, True
        return cell, money, False

    def _is_product(self, row: Row) -> bool:
        text = row.text
        if letters(text) < 3:
            return False
        if row.has_code and row.is_labelled:
            return True
        tokens = re.findall(r"[^\W\d_]+", _INITIALS.sub("", folded(text)))
        if not tokens or (tokens[0] in _SUM_WORDS and set(tokens) <= _SUM_WORDS and not _SUMS.isdisjoint(tokens)):
            return False
        if tokens[0] in {"total", "subtotal"}:
            row.structure *= 0.5
        if row.is_labelled:
            return True
        whole = row.lines[0].text
        is_sentence = whole.rstrip().endswith(".") and row.lines[0].pieces == 1
        is_prose = not _PROSE.isdisjoint(re.findall(r"[^\W\d_]+", folded(whole))) or _PHONE.search(whole) is not None
        return not (is_sentence or is_prose or len(row.name) > MAX_NAME_WORDS)

    def _parted(self, cell: Cell, is_first: bool) -> list[Cell]:
        """A cell that holds more than one thing: a code before a name, a price behind it."""
        words = cell.words
        parts: list[Cell] = []
        if is_first and len(words) > 1 and _CODE_FIRST.fullmatch(words[0].text):
            parts.append(Cell(words[:1]))
            words = words[1:]
        for count in (3, 2, 1):
            if len(words) <= count:
                continue
            money = parse_money(Cell(words[-count:]).text, self._habit, has_spaces=False)
            if money is not None and money.looks_priced and letters(Cell(words[:-count]).text) >= 3:
                return [*parts, Cell(words[:-count]), Cell(words[-count:])]
        return [*parts, Cell(words)]

    def _price(self, cell: Cell) -> Money | None:
        money = parse_money(cell.text, self._habit)
        return money if money is not None and money.looks_priced else None

    def _is_price(self, cell: Cell) -> bool:
        return self._price(cell) is not None

    def _is_text(self, cell: Cell) -> bool:
        if letters(cell.text) < 3 or self._is_price(cell):
            return False
        is_code = len(cell.words) == 1 and find_sku(cell.text, is_labelled=False) is not None
        return not is_code and parse_quantity(cell.text, self._habit) is None


def _fits_below(waiting: Row, row: Row) -> bool:
    """Whether a price stands below the name it belongs to: alone, or with the rest of a name that has a code."""
    if not waiting.name:
        return False
    if not row.name and row.price_cell is not None:
        return row.price_cell.right > waiting.name[0].left and row.price_cell.left < waiting.name[-1].right
    return waiting.has_code and not row.has_code and waiting.is_labelled


def _stacked(waiting: Row, row: Row) -> Row:
    joined = replace(
        row,
        name=[*waiting.name, *row.name],
        lines=[*waiting.lines, *row.lines],
        structure=min(waiting.structure, row.structure) * _STACKED,
    )
    if not row.has_code:
        joined.sku, joined.sku_cell = waiting.sku, waiting.sku_cell
        joined.ean, joined.ean_cell = waiting.ean, waiting.ean_cell
    return joined


def _goes_on(above: Row, row: Row) -> bool:
    """Whether a line without a price is the rest of the name above: it stands below its beginning and is no heading."""
    line = row.lines[0]
    if not row.name or row.has_code or len(above.lines) > MAX_MORE_LINES or len(line.cells) > 1:
        return False
    first, begin = row.name[0], above.name[0]
    height = max(word.height for word in above.name)
    if abs(first.left - begin.left) > height or max(word.height for word in row.name) > 1.35 * height:
        return False
    text, name = row.text, above.text
    if not text or not name or (text.isupper() and not name.isupper()) or _PHONE.search(text):
        return False
    is_indented = above.lines[0].cells[0].left < begin.left - height
    goes_on = text[0].islower() or text[0] in "(+/" or name.endswith((",", "-", "/"))
    return is_indented or goes_on or folded(name.split()[-1]) in _JOINS
