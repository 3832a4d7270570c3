"""The kind of execution that makes a file of a run's items: read them, have them written, store the file.

Invariants: what the file is comes into the row in the transaction that ends the export; an attempt begins afresh, and
its object has a key of its own, so that one of a lost attempt is nobody's (`tasks/export/upkeep.py`). Items are read in
short pages and go through this process as text: what is in them is the writer's concern (`tasks/export/writing.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.storage import Storage, StorageUnavailable
from models import item_export_queries, item_filters
from models.database import from_json
from models.executions import ExecutionStatus, Failure, FailureCode
from models.item_exports import KIND, ItemExportFormat
from settings import Settings
from tasks.crawl.spiders import output_columns
from tasks.export.protocol import Order
from tasks.export.shaping import Shape
from tasks.export.writing import Page, write
from tasks.folders import private_folder
from tasks.work import ExecutionFailed, Outcome, Work

READING: Final = "READING"
WRITING: Final = "WRITING"
UPLOADING: Final = "UPLOADING"
MAX_COLUMNS: Final = 2_000
_FOLDER: Final = "exports"
_FIRST_PERCENT: Final = 1
_UPLOAD_PERCENT: Final = 92


@dataclass(slots=True)
class Plan:
    """What is asked for, and how far it is. `items` is about how many there are."""

    row: asyncpg.Record
    options: dict[str, Any]
    items: int
    read_percent: int
    looked_at: int = 0
    matched: int = 0


class ExportKind:
    """Exports."""

    name = KIND
    is_short = False
    # Nothing is kept of an export that stops, so there is nothing to wait for.
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.slots = settings.worker_export_slots
        self.running_per_owner = settings.max_exports_per_user
        self._settings = settings
        self._storage = storage

    async def run(self, work: Work) -> Outcome:
        """Make the file; every end but a lost lease is an outcome."""
        await work.advance(_FIRST_PERCENT, stage=READING)
        plan = await _load(work)
        try:
            async with private_folder(self._settings.data_dir / _FOLDER, work) as folder:
                return await self._make(work, plan, folder)
        except (StorageUnavailable, OSError) as error:
            message = f"The file could not be stored: {error}"
            await work.log.error(message)
            raise ExecutionFailed(Failure(FailureCode.UPLOAD_FAILED, message, work.log.stage, retryable=True)) from None

    async def _make(self, work: Work, plan: Plan, folder: Path) -> Outcome:
        async def tell(written: int) -> None:
            done = written / max(1, plan.matched)
            span = _UPLOAD_PERCENT - plan.read_percent
            await work.advance(plan.read_percent + int(span * min(1.0, done)), stage=WRITING)

        order = self._order(plan, folder / "file")
        rows = await write(
            work,
            order,
            _pages(work, plan),
            file_bytes=self._settings.export_max_megabytes * 2**20,
            tell=tell,
        )
        await work.advance(_UPLOAD_PERCENT, stage=UPLOADING)
        name = plan.row["filename"]
        key = f"{item_export_queries.folder(work.id)}{work.claim.attempt}/{name}"
        stored = await self._storage.put_file(key, Path(order.target), content_type=plan.row["content_type"])
        await work.log.info(f"{name}: {rows:,} rows of {plan.matched:,} items, {stored.size:,} bytes.")

        async def record(connection: asyncpg.Connection) -> None:
            await item_export_queries.record(
                connection,
                work.id,
                key=key,
                size=stored.size,
                sha256=stored.sha256,
                row_count=rows,
                kept_days=self._settings.export_days,
            )

        return Outcome(ExecutionStatus.SUCCEEDED, write=record)

    def _order(self, plan: Plan, target: Path) -> Order:
        options = plan.options
        fields = options["fields"]
        return Order(
            format=plan.row["format"],
            target=str(target),
            shape=Shape(
                unwind=options["unwind"],
                fields=None if fields is None else tuple(fields),
                omit=tuple(options["omit"]),
                rename=tuple((each["from"], each["to"]) for each in options["rename"]),
                separator=options["separator"] if options["flatten"] else None,
                first=tuple(output_columns(plan.row["spider"], from_json(plan.row["input"]))),
            ),
            limit=options["limit"],
            max_columns=MAX_COLUMNS,
            memory_bytes=self._settings.export_memory_megabytes * 2**20,
        )


async def _load(work: Work) -> Plan:
    row: asyncpg.Record | None = None

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal row
        row = await item_export_queries.plan(connection, work.id)

    await work.persist(read)
    if row is None:
        raise LookupError(f"execution {work.id} exports nothing")
    is_one_pass = row["format"] == ItemExportFormat.JSONL
    return Plan(row, from_json(row["options"]), max(1, row["items_scraped"]), 90 if is_one_pass else 50)


async def _pages(work: Work, plan: Plan) -> AsyncIterator[Page]:
    """The items asked for in their order, each page in a short transaction of its own."""
    row, limit = plan.row, plan.options["limit"]
    filter = item_filters.decode(plan.options["filter"])
    after = 0
    page: asyncpg.Record = None

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal page
        page = await item_export_queries.items(
            connection,
            dataset_id=row["dataset_id"],
            run_id=row["run_id"],
            after=after,
            last=row["last_item"],
            filter=filter,
        )

    while True:
        await work.persist(read)
        if not page["looked_at"]:
            return
        after = page["last_id"]
        plan.looked_at += page["looked_at"]
        plan.matched += page["matched"]
        if page["lines"] is not None:
            yield page["lines"]
        percent = plan.read_percent * min(1.0, plan.looked_at / plan.items)
        await work.advance(max(_FIRST_PERCENT, int(percent)), stage=READING)
        # Each item has a row at least.
        if limit is not None and plan.matched >= limit:
            return
