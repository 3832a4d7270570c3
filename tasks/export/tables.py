"""Tables of rows whose columns are known: CSV files and workbooks. A row at a time is in memory.

Rows are flat; a column that a row lacks is an empty cell. What a cell looks like is `tasks/export/cells.py`'s.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import xlsxwriter

from tasks.export.cells import csv_cell, csv_text, sheet_text, write_sheet_cell

MAX_SHEET_ROWS: Final = 1_048_575
"""Excel's limit less the header."""
_BUFFER_BYTES: Final = 256 * 1024

Rows = Iterable[Mapping[str, Any]]


def write_csv(target: Path, columns: Sequence[str], rows: Rows) -> None:
    """Write a CSV file; raises OSError.

    RFC 4180; the mark at the start makes spreadsheets read UTF-8. Text is always quoted: where the list separator is a
    semicolon, one inside bare text would begin a cell that may be a formula.
    """
    with target.open("w", encoding="utf-8-sig", newline="", buffering=_BUFFER_BYTES) as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow([csv_text(column) for column in columns])
        writer.writerows([csv_cell(row.get(column)) for column in columns] for row in rows)


def write_xlsx(
    target: Path, columns: Sequence[str], rows: Rows, *, is_abandoned: Callable[[], bool] = lambda: False
) -> None:
    """Write a workbook, with as many sheets as its rows take; raises OSError.

    XlsxWriter keeps the sheets beside `target` until the end. With `is_abandoned` nothing is put together from them.
    """
    workbook = xlsxwriter.Workbook(str(target), {"constant_memory": True, "tmpdir": str(target.parent)})
    workbook.use_zip64()
    try:
        header = workbook.add_format({"bold": True})
        sheet = _new_sheet(workbook, columns, header)
        for number, row in enumerate(rows):
            if number and number % MAX_SHEET_ROWS == 0:
                sheet = _new_sheet(workbook, columns, header)
            for column, name in enumerate(columns):
                write_sheet_cell(sheet, number % MAX_SHEET_ROWS + 1, column, row.get(name))
        if not is_abandoned():
            workbook.close()
    finally:
        for sheet in workbook.worksheets():
            sheet._opt_close()  # XlsxWriter has no way to give up a file


def _new_sheet(workbook: Any, columns: Sequence[str], header: Any) -> Any:
    sheet = workbook.add_worksheet(f"Items {len(workbook.worksheets()) + 1}")
    for number, column in enumerate(columns):
        sheet.write_string(0, number, sheet_text(column), header)
    sheet.freeze_panes(1, 0)
    return sheet
