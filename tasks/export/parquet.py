"""Parquet files: types that all rows allow, found in a first look at them, then row groups of a bounded size.

A column is int64, double, bool, string, or a list of one of these. Where its values do not agree, where numbers would
lose digits, and for objects and lists of lists, it is text: strings as they are, all else as JSON. Nulls are nulls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tasks.export.cells import json_text

GROUP_ROWS: Final = 10_000
GROUP_CHARACTERS: Final = 16 * 2**20
"""A row group ends with the row that has it reach this much text."""

_INT, _FLOAT, _BOOL, _TEXT, _OTHER, _LIST, _LONG, _HUGE = (1 << bit for bit in range(8))
_KINDS: Final[Mapping[type, int]] = {int: _INT, float: _FLOAT, bool: _BOOL, str: _TEXT, list: _LIST}
_EXACT_IN_DOUBLE: Final = 2**53
_INT64: Final = range(-(2**63), 2**63)
_NAMES: Final[Mapping[int, str]] = {
    0: "string",
    _INT: "int64",
    _INT | _LONG: "int64",
    _FLOAT: "double",
    _INT | _FLOAT: "double",
    _BOOL: "bool",
    _TEXT: "string",
}
"""Types of columns with values of these kinds; others are text."""


@dataclass(slots=True)
class Column:
    """What was seen in a column: kinds of its values, and of the elements of its lists."""

    kinds: int = 0
    elements: int = 0

    def see(self, value: Any) -> None:
        """Look at a value."""
        if value is None:
            return
        self.kinds |= _kind(value)
        if type(value) is list:
            for element in value:
                if element is not None:
                    self.elements |= _kind(element)

    @property
    def type_name(self) -> str:
        """The name of its type; `list:` and a name for lists, `json` for text that is made of other things."""
        if self.kinds == _LIST:
            element = _NAMES.get(self.elements)
            return f"list:{element}" if element is not None else "json"
        return _NAMES.get(self.kinds, "json")


def _kind(value: Any) -> int:
    kind = _KINDS.get(type(value), _OTHER)
    if kind == _INT and not -_EXACT_IN_DOUBLE <= value <= _EXACT_IN_DOUBLE:
        return _INT | (_LONG if value in _INT64 else _HUGE)
    return kind


def write_parquet(
    target: Path, columns: Sequence[str], seen: Mapping[str, Column], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write a Parquet file, compressed with Zstandard; raises OSError, MemoryError."""
    import pyarrow  # 0.2 s and 40 MB that other formats do not pay for
    from pyarrow import parquet

    # One thread: what is written is the bottleneck, and each further one takes address space that the limit counts.
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    names = [seen[column].type_name if column in seen else "string" for column in columns]
    schema = pyarrow.schema(
        [pyarrow.field(column, _arrow(pyarrow, name)) for column, name in zip(columns, names, strict=True)]
    )
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for group in _groups(rows):
            arrays = [
                pyarrow.array(_cells(group, column, name), type=field.type)
                for column, name, field in zip(columns, names, schema, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
            del group, arrays  # or there would be two of them while the next one is read


def _arrow(pyarrow: Any, name: str) -> Any:
    if name.startswith("list:"):
        return pyarrow.list_(_arrow(pyarrow, name.removeprefix("list:")))
    return {
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "string": pyarrow.string(),
        "json": pyarrow.string(),
    }[name]


def _cells(group: Sequence[Mapping[str, Any]], column: str, name: str) -> list[Any]:
    values = [row.get(column) for row in group]
    if name != "json":
        return values
    return [value if value is None or isinstance(value, str) else json_text(value) for value in values]


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(rows)
    while True:
        group: list[Mapping[str, Any]] = []
        characters = 0
        for row in islice(source, GROUP_ROWS):
            group.append(row)
            characters += sum(_length(value) for value in row.values())
            if characters >= GROUP_CHARACTERS:
                break
        if not group:
            return
        yield group


def _length(value: Any) -> int:
    """About how much memory a value takes, in characters."""
    match value:
        case str():
            return len(value)
        case list() | dict():
            return sum(_length(each) for each in (value.values() if isinstance(value, dict) else value)) + 8 * len(
                value
            )
        case _:
            return 8
