"""Writes the file of an export, in a process of its own: `python -m tasks.export.writer`; see `protocol.py`.

JSON Lines are written as items come. A table needs its columns before its first row, so rows are spooled to disk beside
the file and read once more; memory holds one row, or one row group. The process limits its memory before it reads an
item; the size of its files is limited by whoever starts it. It has no credentials and imports neither settings nor
models.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import orjson
from xlsxwriter.exceptions import FileCreateError, FileSizeError

from tasks.export.cells import json_text
from tasks.export.parquet import Column, write_parquet
from tasks.export.protocol import Order, decode_order
from tasks.export.shaping import NameTaken
from tasks.export.tables import write_csv, write_xlsx

TOLD_EVERY_ROWS: Final = 20_000
_BUFFER_BYTES: Final = 256 * 1024

Row = dict[str, Any]
Tell = Callable[[dict[str, Any]], None]


class Refusal(Exception):
    """The file cannot be written; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def main() -> int:
    """Write, answer, end; the exit code is 0 also for a refusal, which is an answer."""
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not meet the answer

    def tell(message: dict[str, Any]) -> None:
        answer_to.write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
        answer_to.flush()

    source = sys.stdin.buffer
    order = decode_order(source.readline())
    resource.setrlimit(resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
    try:
        rows, columns = write(order, source, tell)
    except Refusal as error:
        tell({"refusal": {"code": error.code, "message": str(error)}})
    else:
        tell({"rows": rows, "columns": columns})
    return 0


def write(order: Order, source: IO[bytes], tell: Tell) -> tuple[int, int]:
    """Write the file of an order; how many rows and columns it has. Raises Refusal."""
    try:
        return _write(order, source, tell)
    except NameTaken as error:
        raise Refusal("INVALID_INPUT", str(error)) from None
    except orjson.JSONDecodeError:
        raise Refusal("INVALID_INPUT", "An item is nested too deeply to be read.") from None
    except MemoryError:
        megabytes = order.memory_bytes // 2**20
        raise Refusal("OUT_OF_MEMORY", f"The file takes more memory than the {megabytes:,} MB it may.") from None
    except FileSizeError:
        raise _unwritable(OSError(errno.EFBIG, "too large")) from None
    except FileCreateError as error:
        raise _unwritable(error.args[0] if error.args else error) from None
    except OSError as error:
        raise _unwritable(error) from None


def _write(order: Order, source: IO[bytes], tell: Tell) -> tuple[int, int]:
    target = Path(order.target)
    rows = _shaped(order, source)
    if order.format == "JSONL":
        return _write_lines(target, rows, order.shape.order()), 0
    spool = target.with_name("spool")
    seen: dict[str, Column] = {}
    count = _spool(spool, rows, seen, order)
    columns = order.shape.columns(set(seen))
    again = _read(spool, tell)
    match order.format:
        case "CSV":
            write_csv(target, columns, again)
        case "XLSX":
            write_xlsx(target, columns, again)
        case "PARQUET":
            write_parquet(target, columns, seen, again)
        case other:
            raise ValueError(f"no such format: {other}")
    return count, len(columns)


def _shaped(order: Order, source: IO[bytes]) -> Iterator[Row]:
    rows = (row for line in source for row in order.shape.rows(orjson.loads(line)))
    yield from rows if order.limit is None else islice(rows, order.limit)
    source.close()  # whoever writes there need not go on


def _write_lines(target: Path, rows: Iterable[Row], order: list[str]) -> int:
    count = 0
    with target.open("wb", buffering=_BUFFER_BYTES) as file:
        for row in rows:
            count += 1
            file.write(_line({name: row[name] for name in order if name in row} | row))
    return count


def _spool(spool: Path, rows: Iterable[Row], seen: dict[str, Column], order: Order) -> int:
    """Write rows down and note their columns; how many there are."""
    count = 0
    with spool.open("wb", buffering=_BUFFER_BYTES) as file:
        for row in rows:
            count += 1
            for name, value in row.items():
                column = seen.get(name)
                if column is None:
                    if len(seen) == order.max_columns:
                        raise Refusal(
                            "OUTPUT_TOO_LARGE",
                            f"The table would have more than {order.max_columns:,} columns; name the fields you want.",
                        )
                    column = seen[name] = Column()
                column.see(value)
            file.write(_line(row))
    return count


def _read(spool: Path, tell: Tell) -> Iterator[Row]:
    with spool.open("rb", buffering=_BUFFER_BYTES) as file:
        for number, line in enumerate(file, start=1):
            yield orjson.loads(line)
            if number % TOLD_EVERY_ROWS == 0:
                tell({"written": number})


def _line(row: Row) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # deeper than 254 levels
        return json_text(row).encode() + b"\n"


def _unwritable(error: Any) -> Refusal:
    match getattr(error, "errno", None):
        case errno.ENOSPC | errno.EDQUOT:
            return Refusal("UPLOAD_FAILED", "The disk of the worker is full.")
        case errno.EFBIG:
            return Refusal("OUTPUT_TOO_LARGE", "The file would be larger than exports may be; ask for less at once.")
        case errno.ENOMEM:
            return Refusal("OUT_OF_MEMORY", "The file takes more memory than it may.")
        case _:
            return Refusal("UPLOAD_FAILED", f"The file could not be written: {error}")


if __name__ == "__main__":
    sys.exit(main())
