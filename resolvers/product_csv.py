"""Products as lines of a CSV file (RFC 4180): what is written can be read again, and so can what others write.

Read are UTF-8 with or without its mark and Latin-1, headers in Spanish and English, the separators of both. Pure: a
file becomes lines, a line becomes columns. Invariants: no cell that is written is a formula to a spreadsheet (OWASP,
CSV injection), and reading takes back exactly what was added for that; a file is read line by line, never as a whole.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from errors import PayloadTooLarge, ValidationFailed

MAX_BYTES: Final = 10 * 2**20
MAX_LINES: Final = 50_000
MAX_CELL_LENGTH: Final = 40_000
_CHUNK_BYTES: Final = 65_536

COLUMNS: Final = (
    "slug",
    "name",
    "sku",
    "ean",
    "description",
    "price",
    "currency",
    "unit",
    "stock",
    "category",
    "attributes",
    "active",
)
"""The header of a file that is written."""

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n|%]")
_NUMBERS: Final = ("price", "stock")
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_NAMES: Final[Mapping[str, str]] = {
    alias: column
    for column, aliases in {
        "slug": "slug",
        "name": "name,nombre,producto,titulo,title,product",
        "sku": "sku,referencia,ref,codigo,code,reference",
        "ean": "ean,ean13,gtin,upc,barcode,codigo de barras",
        "description": "description,descripcion",
        "price": "price,precio,pvp",
        "currency": "currency,moneda,divisa",
        "unit": "unit,unidad",
        "stock": "stock,existencias,cantidad,inventario,quantity",
        "category": "category,categoria,familia",
        "attributes": "attributes,atributos",
        "active": "active,activo,is active,visible",
    }.items()
    for alias in aliases.split(",")
}
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "yes", "si", "1", "verdadero", "activo", "active", "x"), True),
    **dict.fromkeys(("false", "no", "0", "falso", "inactivo", "inactive"), False),
}


class CsvDelimiter(StrEnum):
    """What parts the cells of a line."""

    AUTO = "AUTO"
    COMMA = "COMMA"
    SEMICOLON = "SEMICOLON"
    TAB = "TAB"


class DecimalMark(StrEnum):
    """What parts a number's fraction."""

    AUTO = "AUTO"
    POINT = "POINT"
    COMMA = "COMMA"


_DELIMITERS: Final = {CsvDelimiter.COMMA: ",", CsvDelimiter.SEMICOLON: ";", CsvDelimiter.TAB: "\t"}


@dataclass(frozen=True, slots=True)
class CsvShape:
    """How a file is to be read; `columns` are ours by their places, None for those that are not."""

    encoding: str
    delimiter: str
    decimal_mark: str
    columns: tuple[str | None, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CsvLine:
    """A line of a file: the number that an editor shows, and cells by column; `fault` when it cannot be read."""

    number: int
    cells: Mapping[str, str]
    fault: str | None = None


def written(rows: Iterable[Mapping[str, Any]], *, header: bool) -> bytes:
    """Products, each with all columns, as lines of a file in UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_harmless(_cell(row, column)) for column in COLUMNS])
    return text.getvalue().encode()


def shape_of(path: Path, *, delimiter: CsvDelimiter, decimal_mark: DecimalMark) -> CsvShape:
    """Look through a file; blocks. Raises ValidationFailed, or PayloadTooLarge for more than MAX_LINES lines."""
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        first = file.readline(MAX_CELL_LENGTH)
    parted_by = _DELIMITERS.get(delimiter) or max(
        _DELIMITERS.values(), key=lambda mark: (first.count(mark), mark == ",")
    )
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=parted_by)
        try:
            header = next(reader, [])
        except csv.Error:
            header = []
        columns = tuple(_NAMES.get(_plain(name)) for name in header)
        known = [column for column in columns if column is not None]
        if not known:
            raise ValidationFailed(
                "The first line names no column that is known, such as name, sku or price.", path=["input", "file"]
            )
        if len(known) > len(set(known)):
            raise ValidationFailed("The first line names a column twice.", path=["input", "file"])
        unknown = tuple(name for name, column in zip(header, columns, strict=True) if column is None and name.strip())
        shape = CsvShape(encoding, parted_by, ".", columns, unknown)
    votes = set[str]()
    for count, line in enumerate(lines_of(path, shape), start=1):
        if count > MAX_LINES:
            raise PayloadTooLarge(f"The file has more than {MAX_LINES:,} lines.", path=["input", "file"])
        votes |= {_vote(line.cells.get(column, "")) for column in _NUMBERS}
    if decimal_mark is not DecimalMark.AUTO:
        mark = "." if decimal_mark is DecimalMark.POINT else ","
    elif {".", ","} <= votes:
        raise ValidationFailed(
            "Numbers have their fractions behind commas and behind points; say which with `decimalMark`.",
            path=["input", "decimalMark"],
        )
    else:
        # 1.234 says nothing; whoever parts cells by semicolons most likely needs the comma for fractions.
        mark = next(iter(votes - {""}), "," if parted_by == ";" else ".")
    return CsvShape(encoding, parted_by, mark, columns, unknown)


def lines_of(path: Path, shape: CsvShape) -> Iterator[CsvLine]:
    """The lines behind the header, blank ones left out; blocks."""
    with path.open(encoding=shape.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=shape.delimiter)
        next(reader, None)
        number = reader.line_num + 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield CsvLine(number, {}, f"The line cannot be read: {error}.")
                return
            if any(cell.strip() for cell in cells):
                yield _line(number, cells, shape)
            number = reader.line_num + 1


def columns_of(line: CsvLine, shape: CsvShape) -> dict[str, Any]:
    """The columns of a product that a line has, unchecked; raises ValidationFailed with the column as path.

    An empty cell is a column without a value.
    """
    if line.fault is not None:
        raise ValidationFailed(line.fault)
    found: dict[str, Any] = {}
    for column, text in line.cells.items():
        if column == "active":
            if text:
                found["is_active"] = _boolean(text)
        elif column in _NUMBERS:
            found[column] = _number(text, column, shape.decimal_mark) if text else None
        elif column == "attributes":
            found[column] = _attributes(text) if text else {}
        elif column == "description":
            found[column] = text
        elif text or column not in ("name", "slug"):
            found[column] = text or None
        elif column == "name":
            raise ValidationFailed("A product needs a name.", path=["name"])
    if "price" in found and found["price"] is None and "currency" in found:
        found["currency"] = None  # lists of prices name the currency in every line
    return found


def _line(number: int, cells: list[str], shape: CsvShape) -> CsvLine:
    if len(cells) > len(shape.columns) and any(cell.strip() for cell in cells[len(shape.columns) :]):
        return CsvLine(number, {}, "The line has more cells than the first one has names.")
    named = {
        column: _bare(cell).strip() for column, cell in zip(shape.columns, cells, strict=False) if column is not None
    }
    if any("\0" in cell or len(cell) > MAX_CELL_LENGTH for cell in named.values()):
        return CsvLine(number, {}, "A cell is too long, or no text.")
    return CsvLine(number, named)


def _encoding(path: Path) -> str:
    """UTF-8, its mark taken away, if all of the file is; else what older spreadsheets write."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig"


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column == "active":
        return "true" if row["is_active"] else "false"
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if column == "attributes":
        return orjson.dumps(value).decode() if value else ""
    return str(value)


def _harmless(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _bare(cell: str) -> str:
    """A cell without the apostrophe that keeps it from being a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _plain(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.strip().lower())
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(re.split(r"[\s_-]+", letters.strip()))


def _vote(text: str) -> str:
    """The mark that can only be that of a fraction; nothing where it might part thousands."""
    places = [(place, character) for place, character in enumerate(text) if character in ".,"]
    if not places:
        return ""
    last, mark = places[-1]
    if len({character for _, character in places}) == 2:
        return mark
    if len(places) > 1:
        return "," if mark == "." else "."
    digits_before, digits_behind = text[:last].strip().lstrip("'"), text[last + 1 :].strip()
    return "" if len(digits_behind) == 3 and digits_before.strip("0") else mark


def _number(text: str, column: str, mark: str) -> Decimal:
    thousands = "," if mark == "." else "."
    plain = re.sub(r"[\s'\u00a0\u202f]", "", text)
    grouped = plain.partition(mark)[0].split(thousands)
    if len(grouped) > 1 and not all(len(group) == 3 for group in grouped[1:]):
        raise ValidationFailed("This is not a number.", path=[column])
    plain = plain.replace(thousands, "").replace(mark, ".")
    if len(plain) > 40 or not _NUMBER.fullmatch(plain):
        raise ValidationFailed("This is not a number.", path=[column])
    return Decimal(plain)


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(_plain(text))
    if value is None:
        raise ValidationFailed("This takes true or false.", path=["active"])
    return value


def _attributes(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValidationFailed("Attributes are a JSON object.", path=["attributes"]) from None
