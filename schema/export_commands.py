"""Commands on exports: ask for one, stop and delete one."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from models.item_exports import ItemExportFormat
from models.permissions import Permission
from resolvers import item_exports
from resolvers.item_exports import Wish
from schema.context import Context
from schema.item_exports import ItemExport, load_item_export
from schema.item_filters import ItemFilter, checked
from schema.permissions import requires

Info = strawberry.Info[Context, None]


@strawberry.input(description="Another name for a field.")
class RenameFieldInput:
    """A field and its new name."""

    from_: str = strawberry.field(name="from", description="The field, or a path with dots.")
    to: str = strawberry.field(description="Its name in the file, as it is: dots in it mean nothing.")


@strawberry.input(
    description="What to export, and how. Items are filtered, unwound, reduced to fields, renamed, flattened and "
    "limited, in this order."
)
class ExportItemsInput:
    """A new export."""

    run_id: strawberry.ID = strawberry.field(
        description="The run: its items and those of the runs it went on from. Of a run that still works, those that "
        "are there when the export begins."
    )
    format: ItemExportFormat = strawberry.field(description="What to make.")
    fields: list[str] | None = strawberry.field(
        default=None,
        description="Only these fields, in this order; `address.city` names one inside of another. Tables have them as "
        "columns even if no item does. At most 500; all when left out, those that the spider is asked for first.",
    )
    omit: list[str] | None = strawberry.field(default=None, description="All fields but these; at most 500.")
    rename: list[RenameFieldInput] | None = strawberry.field(
        default=None,
        description="Other names for fields; at most 500. The export fails if an item has a field of that name.",
    )
    flatten: bool | None = strawberry.field(
        default=None,
        description="Whether nested objects become fields such as `address.city`. When left out: in tables yes, in "
        "JSONL no. Tables have nested values that stay as JSON text.",
    )
    separator: str | None = strawberry.field(
        default=None,
        description="What stands between the names of flattened fields: 1 to 3 characters, a dot if not said.",
    )
    unwind: str | None = strawberry.field(
        default=None,
        description="A field that is a list: each of its elements gets a row of its own, in the place of the list. "
        "Items without such a list keep their one row.",
    )
    filter: ItemFilter | None = strawberry.field(default=None, description="Only these items.")
    limit: int | None = strawberry.field(default=None, description="Rows at most, from the start.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with the export that the first call made."
    )


@strawberry.input(description="Which export to stop.")
class CancelItemExportInput:
    """An export to stop."""

    id: strawberry.ID = strawberry.field(description="The export.")


@strawberry.input(description="Which export goes.")
class DeleteItemExportInput:
    """An export to delete."""

    id: strawberry.ID = strawberry.field(description="The export; it must have ended.")


@strawberry.type(description="An export.")
class ItemExportPayload:
    """What the commands answer with."""

    export: ItemExport = strawberry.field(description="The export, as it is now.")


@strawberry.type(description="An export that is gone.")
class DeleteItemExportPayload:
    """An export that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class ItemExportsMutation:
    """What users do with exports."""

    @strawberry.mutation(
        description="Have a file made of a run's items. VALIDATION_ERROR with the path of options that do not fit; "
        "RATE_LIMIT_EXCEEDED when too many of yours wait.",
        extensions=[requires(Permission.JOB_RUN)],
    )
    async def export_items(
        self, info: Info, input: Annotated[ExportItemsInput, strawberry.argument(description="What, and how.")]
    ) -> ItemExportPayload:
        """A new export."""
        wish = Wish(
            fields=input.fields,
            omit=input.omit or (),
            rename=[(each.from_, each.to) for each in input.rename or ()],
            flatten=input.flatten,
            separator=input.separator,
            unwind=input.unwind,
            limit=input.limit,
            filter=checked(input.filter, path=["input", "filter"]),
        )
        export_id = await item_exports.export(
            info.context.actor, input.run_id, format=input.format, wish=wish, idempotency_key=input.idempotency_key
        )
        return await _payload(info.context, export_id)

    @strawberry.mutation(
        description="Stop an export: it is CANCELLED within seconds and leaves no file. One that has ended stays as it "
        "is.",
        extensions=[requires(Permission.EXECUTION_CANCEL)],
    )
    async def cancel_item_export(
        self, info: Info, input: Annotated[CancelItemExportInput, strawberry.argument(description="Which export.")]
    ) -> ItemExportPayload:
        """A request to stop."""
        return await _payload(info.context, await item_exports.cancel(info.context.actor, input.id))

    @strawberry.mutation(
        description="Delete an export with its file and its log. CONFLICT while it waits or works.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def delete_item_export(
        self, info: Info, input: Annotated[DeleteItemExportInput, strawberry.argument(description="Which export.")]
    ) -> DeleteItemExportPayload:
        """The end of an export."""
        await item_exports.delete(info.context.actor, input.id)
        return DeleteItemExportPayload(deleted_id=input.id)


async def _payload(context: Context, export_id: UUID) -> ItemExportPayload:
    return ItemExportPayload(export=await load_item_export(context, export_id))
