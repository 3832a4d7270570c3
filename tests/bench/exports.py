"""Exports: rows a second and memory for each format, against a plain script that knows the columns beforehand.

The script reads the same items through a cursor and writes them in one pass: no execution, no child, no filter, no
columns to be found. Memory of a small and of a large export is compared, too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import psutil

from models.ids import Prefix, decode_id, encode_id, new_id
from tests.bench.place import CHECKOUT, Place, place

ITEMS: Final = 1_000_000
FEW: Final = 10_000
FORMATS: Final = ("JSONL", "CSV", "PARQUET", "XLSX")
MEGABYTE: Final = 2**20
ASK: Final = """mutation ($run: ID!, $format: ItemExportFormat!) {
    exportItems(input: { runId: $run, format: $format }) { export { id } } }"""
FILL: Final = """
INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
SELECT $1, $1, n::text, 'https://a.example/homes/' || n, jsonb_build_object(
    'title', 'Home number ' || n, 'url', 'https://a.example/homes/' || n, 'price', (n % 900000)::text || '.00',
    'rooms', n % 7, 'area', n % 200 + 0.5, 'furnished', n % 2 = 0,
    'address', jsonb_build_object('city', 'City ' || n % 50, 'zip', n % 99999),
    'description', md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text)), now()
FROM generate_series(1::int, $2::int) n
"""


@dataclass
class Peaks:
    """The most memory that a worker and its child had, and the processor time they took."""

    worker: int = 0
    child: int = 0
    worker_seconds: float = 0.0


async def main() -> None:
    """Print rows a second, the ratio to the script, and memory."""
    idle = {f"WORKER_{kind}_SLOTS": "0" for kind in ("CRAWL", "BUILD", "SCAN", "OCR")}
    async with place(**idle) as here:
        runs = {count: await _run(here, count) for count in (FEW, ITEMS)}
        size = await here.db.fetchval("SELECT avg(octet_length(data::text)) FROM items")
        print(f"{ITEMS:,} items of {size:.0f} bytes")
        worker = await here.worker()
        for format in FORMATS:
            few_peaks, _ = await _export(here, worker.pid, runs[FEW], format)
            peaks, seconds = await _export(here, worker.pid, runs[ITEMS], format)
            plain = await _script(here, runs[ITEMS], format)
            print(
                f"{format:8} {ITEMS / seconds:9,.0f} rows/s   script {ITEMS / plain:9,.0f} rows/s"
                f"   ratio of times {seconds / plain:.2f}   worker's processor time {peaks.worker_seconds:.1f} s"
            )
            print(
                f"         memory at {FEW:,} and {ITEMS:,} items:"
                f" worker {few_peaks.worker / MEGABYTE:.0f} and {peaks.worker / MEGABYTE:.0f} MB,"
                f" child {few_peaks.child / MEGABYTE:.0f} and {peaks.child / MEGABYTE:.0f} MB"
                f" (ratio {peaks.child / few_peaks.child:.2f})"
            )


async def _run(here: Place, count: int) -> UUID:
    run_id = await here.execution("CRAWL")
    await here.job_run_row(run_id)
    await here.db.execute(FILL, run_id, count, timeout=600)
    await here.db.execute("UPDATE job_runs SET items_scraped = $2 WHERE execution_id = $1", run_id, count)
    await here.db.execute("ANALYZE items")
    return run_id


async def _export(here: Place, worker: int, run_id: UUID, format: str) -> tuple[Peaks, float]:
    """An export through the API and a worker; what it took, and its seconds of work."""
    peaks = Peaks()
    _forget_peak(worker)
    before = psutil.Process(worker).cpu_times()
    watch = asyncio.create_task(_watch(worker, peaks))
    answer = await here.client.run(
        ASK, {"run": encode_id(Prefix.RUN, run_id), "format": format}, token=here.person.token
    )
    row = await here.final(decode_id(answer["exportItems"]["export"]["id"])[1], seconds=1_800)
    watch.cancel()
    after = psutil.Process(worker).cpu_times()
    peaks.worker_seconds = after.user + after.system - before.user - before.system
    assert row["status"] == "SUCCEEDED", dict(row)
    return peaks, (row["finished_at"] - row["started_at"]).total_seconds()


async def _watch(worker: int, peaks: Peaks) -> None:
    process = psutil.Process(worker)
    while True:
        peaks.worker = max(peaks.worker, _peak(worker))
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                if "tasks.export.writer" in child.cmdline()[:4]:
                    peaks.child = max(peaks.child, _peak(child.pid))
        await asyncio.sleep(0.05)


def _forget_peak(process: int) -> None:
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _peak(process: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1_024
    return 0


async def _script(here: Place, run_id: UUID, format: str) -> float:
    """Seconds that the plain script takes."""
    target = here.folder / f"plain-{new_id()}"
    began = time.monotonic()
    command = (sys.executable, "-m", "tests.bench.exports", here.environment["DATABASE_URL"], str(run_id), format)
    process = await asyncio.create_subprocess_exec(*command, str(target), cwd=CHECKOUT)
    assert await process.wait() == 0
    target.unlink()
    return time.monotonic() - began


# -- the script

COLUMNS: Final = (
    *("title", "url", "price", "rooms", "area", "furnished", "address.city", "address.zip", "description"),
)


async def write_plainly(url: str, run_id: str, format: str, target: str) -> None:
    """What one writes who needs one file once."""
    import csv

    import orjson
    import pyarrow
    import xlsxwriter
    from pyarrow import parquet

    connection = await asyncpg.connect(url)
    with open(target, "wb") as file:  # noqa: ASYNC230 - it does nothing else
        text = open(target, "w", newline="") if format == "CSV" else None  # noqa: ASYNC230, SIM115
        table = csv.writer(text) if text else None
        book = xlsxwriter.Workbook(target, {"constant_memory": True}) if format == "XLSX" else None
        sheet = book.add_worksheet() if book else None
        types = [pyarrow.string()] * 3 + [pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()]
        types += [pyarrow.string(), pyarrow.int64(), pyarrow.string()]
        schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
        arrow = parquet.ParquetWriter(target, schema, compression="zstd") if format == "PARQUET" else None
        group: list[list[object]] = []
        async with connection.transaction():
            query = "SELECT data::text FROM items WHERE dataset_id = $1 ORDER BY id"
            number = 0
            async for row in connection.cursor(query, UUID(run_id), prefetch=2_000):
                if format == "JSONL":
                    file.write(row[0].encode() + b"\n")
                    continue
                item = orjson.loads(row[0])
                address = item.pop("address")
                cells = [item[name] for name in COLUMNS[:6]]
                cells += [address["city"], address["zip"], item["description"]]
                if table is not None:
                    table.writerow(cells)
                elif sheet is not None:
                    number += 1
                    sheet.write_row(number, 0, cells)
                elif arrow is not None:
                    group.append(cells)
                    if len(group) == 10_000:
                        arrow.write_table(_table(pyarrow, schema, group))
                        group = []
        if arrow is not None and group:
            arrow.write_table(_table(pyarrow, schema, group))
        for open_one in (text, book, arrow):
            if open_one is not None:
                open_one.close()
    await connection.close()


def _table(pyarrow: object, schema: object, group: list[list[object]]) -> object:
    columns = list(map(list, zip(*group, strict=True)))
    arrays = [pyarrow.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]  # type: ignore[attr-defined, call-overload] # untyped
    return pyarrow.table(arrays, schema=schema)  # type: ignore[attr-defined] # untyped


if __name__ == "__main__":
    asyncio.run(write_plainly(*sys.argv[1:]))
