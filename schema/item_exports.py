"""Exports as clients see them: executions that make a file of a run's items."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated
from uuid import UUID

import strawberry

from models import item_export_queries
from models.database import Row, from_json
from models.execution_rows import Condition, in_statuses
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.item_exports import KIND, ItemExportFormat
from models.permissions import Permission
from resolvers import access, item_exports, runs
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, common, register_kind
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.runs import JobRun, run_of
from schema.scalars import JSON, BigInt

Info = strawberry.Info[Context, None]

publish(
    ItemExportFormat,
    "Formats of exports.",
    JSONL="One JSON object per line.",
    CSV="A table in UTF-8; text that would be a formula has an apostrophe before it.",
    XLSX="A workbook, with a further sheet for each 1,048,575 rows.",
    PARQUET="Columns with the types that all of their values have: int64, double, bool, string and lists of these; "
    "what is mixed or nested is JSON text. Compressed with Zstandard.",
)


@strawberry.type(description="A file that is made of a run's items.")
class ItemExport(Execution, Node):
    """An export."""

    format: ItemExportFormat = strawberry.field(description="What it is made as.")
    filename: str = strawberry.field(description="The name it is downloaded under.")
    content_type: str = strawberry.field(description="Its media type.")
    row_count: BigInt | None = strawberry.field(description="Rows in it; null until it is made.")
    size: BigInt | None = strawberry.field(description="Bytes; null until it is made.")
    sha256: str | None = strawberry.field(description="SHA-256 of its content, in hexadecimal; null until it is made.")
    expires_at: datetime | None = strawberry.field(
        description="Until when the file is kept, a week unless set otherwise; null until it is made."
    )

    @strawberry.field(description="What was asked for, defaults filled in, in the words of `ExportItemsInput`.")
    def options(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(from_json(self.row["export_options"]))

    @strawberry.field(description="The run whose items it has.")
    async def run(self, info: Info) -> JobRun | None:
        """Loaded for many exports at once."""
        row = await info.context.load(_load_runs, self.row["export_run_id"])
        return None if row is None else run_of(row, info.context)

    @strawberry.field(
        description="A link that downloads the file; it expires, an hour from now unless set otherwise. Null until the "
        "file is made, and once it is not kept any more."
    )
    async def download_url(self) -> str | None:
        """Signed for whoever asked."""
        return await item_exports.download_url(self.row)


@strawberry.input(description="Which exports.")
class ItemExportFilter:
    """Conditions; all given ones must hold."""

    run_id: strawberry.ID | None = strawberry.field(default=None, description="Of this run.")
    formats: list[ItemExportFormat] | None = strawberry.field(default=None, description="In one of these formats.")
    statuses: list[ExecutionStatus] | None = strawberry.field(default=None, description="In one of these.")


@strawberry.type
class ItemExportsQuery:
    """What can be read of exports."""

    @strawberry.field(
        description="Your exports (administrators: everybody's), newest first.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def item_exports(
        self,
        info: Info,
        filter: Annotated[ItemExportFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[ItemExport]:
        """One page of exports, in one statement."""
        context = info.context
        conditions = _conditions(filter)
        return await paginate(
            fetch=by_one_key(partial(item_exports.page, context.actor, conditions=conditions)),
            count=partial(item_exports.count, context.actor, conditions=conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: item_export_of(row, context),
        )

    @strawberry.field(
        description="An export. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def item_export(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The export.")]
    ) -> ItemExport | None:
        """One export."""
        row = await access.item_export(info.context.actor, id, to=Permission.JOB_READ)
        return item_export_of(row, info.context)


@register_kind(KIND)
def item_export_of(row: Row, context: Context) -> ItemExport:
    """The export in a row of `models.execution_rows`."""
    return ItemExport(
        id=strawberry.ID(encode_id(Prefix.EXPORT, row["id"])),
        format=ItemExportFormat(row["export_format"]),
        filename=row["export_filename"],
        content_type=row["export_content_type"],
        row_count=row["export_row_count"],
        size=row["export_size"],
        sha256=row["export_sha256"],
        expires_at=row["export_expires_at"],
        **common(row, context),
    )


async def load_item_export(context: Context, export_id: UUID) -> ItemExport:
    """An export that the viewer may see; raises NotFound."""
    return item_export_of(await access.visible_execution(context.actor, export_id, to=Permission.JOB_READ), context)


@register_node(Prefix.EXPORT)
async def _item_export_node(context: Context, export_id: UUID) -> ItemExport | None:
    if not context.actor.may(Permission.JOB_READ):
        return None
    row = await context.load(_load_exports, export_id)
    return None if row is None else item_export_of(row, context)


async def _load_exports(context: Context, export_ids: list[UUID]) -> Sequence[Row | None]:
    found = await item_exports.find(context.actor, export_ids)
    return [found.get(export_id) for export_id in export_ids]


async def _load_runs(context: Context, run_ids: list[UUID]) -> Sequence[Row | None]:
    found = await runs.find(context.actor, run_ids)
    return [found.get(run_id) for run_id in run_ids]


def _conditions(filter: ItemExportFilter | None) -> list[Condition]:
    if filter is None:
        return []
    conditions = []
    if filter.run_id is not None:
        conditions.append(item_export_queries.of_run(access.uuid_of(filter.run_id, Prefix.RUN)))
    if filter.formats:
        conditions.append(item_export_queries.in_formats([format.value for format in filter.formats]))
    if filter.statuses:
        conditions.append(in_statuses([status.value for status in filter.statuses]))
    return conditions
