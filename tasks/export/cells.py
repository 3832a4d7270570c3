"""Cells of tables: what a value becomes in CSV and in a workbook. No cell is a formula, whatever a page says.

OWASP, CSV injection: CSV is all that needs a change of the text for it; a workbook has cells that are text. The module
imports nothing of ours, so that children without credentials can use it.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

MAX_CELL_CHARACTERS: Final = 32_767
"""Excel's limit."""
# The full-width forms are what Excel turns into the plain ones.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_EXACT: Final = 1e15
"""Excel knows fifteen digits: what has more stays whole as text."""


def json_text(value: Any) -> str:
    """A value as JSON, however deep it is."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # deeper than 254 levels
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def csv_cell(value: Any) -> Any:
    """What `csv.writer` gets with QUOTE_NONNUMERIC: numbers as they are, the rest as text that is no formula."""
    match value:
        case None:
            return ""
        case str():
            return csv_text(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return value
        case _:
            return csv_text(json_text(value))


def csv_text(text: str) -> str:
    """The text, behind an apostrophe where it would begin a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def write_sheet_cell(sheet: Any, row: int, column: int, value: Any) -> None:
    """Write a value into a sheet of XlsxWriter; null leaves the cell empty."""
    match value:
        case None:
            return
        case str():
            sheet.write_string(row, column, sheet_text(value))
        case bool():
            sheet.write_boolean(row, column, value)
        case int() | float() if abs(value) < _EXACT:
            sheet.write_number(row, column, value)
        case _:
            sheet.write_string(row, column, sheet_text(json_text(value)))


def sheet_text(text: str) -> str:
    """Text that is stored as text: what XlsxWriter would copy into the sheet as markup, or XML cannot say, is not left.

    XlsxWriter in constant-memory mode takes `<r>…</r>` for its own rich text and does not escape it.
    """
    text = text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")[:MAX_CELL_CHARACTERS]
    return f" {text}"[:MAX_CELL_CHARACTERS] if text.startswith("<r>") else text
