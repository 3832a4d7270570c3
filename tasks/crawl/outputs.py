"""Output files of a run: the items of its dataset as JSON Lines, CSV and XLSX, in storage.

Items are read once, in pages, and written once to a local JSON Lines file, from which the two tables are made, so
memory does not grow with their number. No cell of a table is a formula, whatever a crawled page says (OWASP, CSV
injection): CSV is all that needs a change of the text for it. Keys carry the attempt, so a file of a lost worker is
never mistaken for ours.
"""

from __future__ import annotations

import asyncio
import csv
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

import asyncpg
import orjson
import xlsxwriter

from adapters.storage import Storage
from models.database import from_json
from models.ids import Prefix, encode_id, new_id
from models.jobs import FileFormat

PAGE_ITEMS: Final = 1_000
MAX_CELL_CHARACTERS: Final = 32_767  # Excel's limit
MAX_SHEET_ROWS: Final = 1_048_575  # Excel's limit less the header
# The full-width forms are what Excel turns into the plain ones.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
CONTENT_TYPES: Final = {
    FileFormat.JSONL: "application/jsonl",
    FileFormat.CSV: "text/csv; charset=utf-8",
    FileFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is stored and not yet recorded."""

    id: UUID
    format: FileFormat
    key: str
    filename: str
    content_type: str
    size: int
    sha256: str
    row_count: int


async def make_files(
    storage: Storage,
    pages: AsyncIterator[Sequence[Mapping[str, Any]]],
    *,
    run_id: UUID,
    attempt: int,
    first_columns: Iterable[str],
) -> list[NewFile]:
    """Write and store all formats. `pages` are rows with `data`, JSON text; columns come in the order given, others
    behind in alphabetical order.

    Raises StorageUnavailable, OSError when the disk is full.
    """
    order = list(first_columns)
    abandoned = threading.Event()
    with tempfile.TemporaryDirectory(prefix="switchyard-output-", ignore_cleanup_errors=True) as folder:
        paths = {format: Path(folder) / f"items.{format.value.lower()}" for format in FileFormat}
        jsonl = paths[FileFormat.JSONL]
        try:
            rows, columns = await _write_jsonl(jsonl, pages, order)
            known = list(_flat_order(order, columns)) if rows else order
            await asyncio.to_thread(_write_csv, jsonl, paths[FileFormat.CSV], known, abandoned)
            await asyncio.to_thread(_write_xlsx, jsonl, paths[FileFormat.XLSX], known, abandoned)
        finally:
            abandoned.set()  # a thread cannot be cancelled, and a worker that drains must not wait for a long table
        files = []
        for format, path in paths.items():
            key = f"runs/{run_id}/{attempt}/items.{format.value.lower()}"
            stored = await storage.put_file(key, path, content_type=CONTENT_TYPES[format])
            files.append(
                NewFile(
                    id=new_id(),
                    format=format,
                    key=key,
                    filename=f"{encode_id(Prefix.RUN, run_id)}.{format.value.lower()}",
                    content_type=CONTENT_TYPES[format],
                    size=stored.size,
                    sha256=stored.sha256,
                    row_count=rows,
                )
            )
        return files


async def record(connection: asyncpg.Connection, run_id: UUID, files: Iterable[NewFile]) -> None:
    """Make stored files visible on their run."""
    for file in files:
        await connection.execute(
            """INSERT INTO output_files
                   (id, run_id, format, key, filename, content_type, size, sha256, row_count, created_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now()) ON CONFLICT (run_id, format) DO NOTHING""",
            file.id,
            run_id,
            file.format.value,
            file.key,
            file.filename,
            file.content_type,
            file.size,
            file.sha256,
            file.row_count,
        )


async def _write_jsonl(
    target: Path, pages: AsyncIterator[Sequence[Mapping[str, Any]]], order: list[str]
) -> tuple[int, set[str]]:
    """Write all items; returns how many there are and the columns that they have."""
    rows = 0
    columns: set[str] = set()
    with await asyncio.to_thread(target.open, "wb") as lines:
        async for page in pages:
            rows += len(page)
            await asyncio.to_thread(_write_lines, lines, page, order, columns)
    return rows, columns


def _write_lines(lines: IO[bytes], page: Sequence[Mapping[str, Any]], order: list[str], columns: set[str]) -> None:
    for row in page:
        data = from_json(row["data"])
        ordered = {name: data[name] for name in order if name in data} | data
        columns.update(_flat(data))
        lines.write(orjson.dumps(ordered, option=orjson.OPT_APPEND_NEWLINE))


def _flat_order(order: list[str], columns: set[str]) -> Iterator[str]:
    rank = {name: number for number, name in enumerate(order)}
    yield from sorted(columns, key=lambda column: (rank.get(column.split(".")[0], len(rank)), column))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects become columns `outer.inner`; lists stay whole."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _rows(jsonl: Path, abandoned: threading.Event) -> Iterator[dict[str, Any]]:
    with jsonl.open("rb") as lines:
        for line in lines:
            if abandoned.is_set():
                return
            yield _flat(orjson.loads(line))


def _write_csv(jsonl: Path, target: Path, columns: list[str], abandoned: threading.Event) -> None:
    # RFC 4180; the mark at the start makes spreadsheets read UTF-8. Text is always quoted: where the list separator is
    # a semicolon, one inside bare text would begin a cell that may be a formula.
    with target.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow([_safe(column) for column in columns])
        for row in _rows(jsonl, abandoned):
            writer.writerow([_csv_cell(row.get(column)) for column in columns])


def _csv_cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case str():
            return _safe(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return value
        case _:
            return _safe(orjson.dumps(value).decode())


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _write_xlsx(jsonl: Path, target: Path, columns: list[str], abandoned: threading.Event) -> None:
    options = {"constant_memory": True, "tmpdir": str(target.parent)}
    workbook = xlsxwriter.Workbook(str(target), options)
    try:
        header = workbook.add_format({"bold": True})
        sheet = _new_sheet(workbook, columns, header)
        for number, row in enumerate(_rows(jsonl, abandoned)):
            if number and number % MAX_SHEET_ROWS == 0:
                sheet = _new_sheet(workbook, columns, header)
            for column, name in enumerate(columns):
                _write_cell(sheet, number % MAX_SHEET_ROWS + 1, column, row.get(name))
        if not abandoned.is_set():
            workbook.close()
    finally:
        for sheet in workbook.worksheets():
            sheet._opt_close()  # XlsxWriter has no way to give up a file


def _new_sheet(workbook: Any, columns: list[str], header: Any) -> Any:
    sheet = workbook.add_worksheet(f"Items {len(workbook.worksheets()) + 1}")
    for number, column in enumerate(columns):
        sheet.write_string(0, number, _xlsx_text(column), header)
    sheet.freeze_panes(1, 0)
    return sheet


def _write_cell(sheet: Any, row: int, column: int, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            sheet.write_boolean(row, column, value)
        case int() | float() if abs(value) < 1e15:
            sheet.write_number(row, column, value)
        case str():
            sheet.write_string(row, column, _xlsx_text(value))
        case _:
            sheet.write_string(row, column, _xlsx_text(orjson.dumps(value).decode()))


def _xlsx_text(text: str) -> str:
    """Text that is stored as text: what XlsxWriter would copy into the sheet as markup, or XML cannot say, is not left.

    XlsxWriter in constant-memory mode takes `<r>…</r>` for its own rich text and does not escape it.
    """
    text = text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")[:MAX_CELL_CHARACTERS]
    return f" {text}"[:MAX_CELL_CHARACTERS] if text.startswith("<r>") else text
