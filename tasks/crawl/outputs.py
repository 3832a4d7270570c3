"""Output files of a run: the items of its dataset as JSON Lines, CSV and XLSX, in storage.

Items are read once, in pages, and written once to a local JSON Lines file, from which the two tables are made, so
memory does not grow with their number. Tables are `tasks/export/tables.py`'s, whose cells are no formulas. Keys carry
the attempt, so a file of a lost worker is never mistaken for ours.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

import asyncpg
import orjson

from adapters.storage import Storage
from models.database import from_json
from models.ids import Prefix, encode_id, new_id
from models.jobs import FileFormat
from tasks.export import tables
from tasks.export.shaping import flat

PAGE_ITEMS: Final = 1_000
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
            await asyncio.to_thread(tables.write_csv, paths[FileFormat.CSV], known, _rows(jsonl, abandoned))
            await asyncio.to_thread(
                tables.write_xlsx,
                paths[FileFormat.XLSX],
                known,
                _rows(jsonl, abandoned),
                is_abandoned=abandoned.is_set,
            )
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
        columns.update(flat(data))
        lines.write(orjson.dumps(ordered, option=orjson.OPT_APPEND_NEWLINE))


def _flat_order(order: list[str], columns: set[str]) -> Iterator[str]:
    rank = {name: number for number, name in enumerate(order)}
    yield from sorted(columns, key=lambda column: (rank.get(column.split(".")[0], len(rank)), column))


def _rows(jsonl: Path, abandoned: threading.Event) -> Iterator[dict[str, Any]]:
    with jsonl.open("rb") as lines:
        for line in lines:
            if abandoned.is_set():
                return
            yield flat(orjson.loads(line))
