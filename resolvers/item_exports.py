"""Exports of a run's items: asked for, stopped, removed and listed.

An export belongs to the run's owner, whoever asked for it, and goes with the run. Options are checked when it is asked
for, and stored as they will be carried out: whoever reads them need not know the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from adapters import events, storage
from errors import Conflict, ValidationFailed
from models import execution_commands, execution_rows, item_export_queries, item_filters
from models.audit import AuditEvent
from models.database import Row
from models.events import ExecutionChanged
from models.executions import ExecutionStatus
from models.idempotency import once
from models.ids import Prefix, encode_id, new_id
from models.item_exports import KIND, ItemExportFormat
from models.item_filters import ItemFilter
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, executions, projects, sessions
from resolvers.item_filters import MAX_PATH_CHARACTERS, Path, field_path
from tasks import queue

MAX_FIELDS: Final = 500
MAX_SEPARATOR_CHARACTERS: Final = 3
MAX_ROWS: Final = 2**31 - 1
CONTENT_TYPES: Final[Mapping[ItemExportFormat, str]] = {
    ItemExportFormat.JSONL: "application/jsonl",
    ItemExportFormat.CSV: "text/csv; charset=utf-8",
    ItemExportFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ItemExportFormat.PARQUET: "application/vnd.apache.parquet",
}

_EXPORT: Final = "exportItems"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client wants of the rows; None and nothing mean the usual."""

    fields: Sequence[str] | None = None
    omit: Sequence[str] = ()
    rename: Sequence[tuple[str, str]] = ()
    flatten: bool | None = None
    separator: str | None = None
    unwind: str | None = None
    limit: int | None = None
    filter: ItemFilter = item_filters.EVERYTHING


async def export(
    actor: Actor, run_id: str, *, format: ItemExportFormat, wish: Wish, idempotency_key: str | None
) -> UUID:
    """Queue an export of a run's items; its id, or that of the first use of the key.

    Raises ValidationFailed with the path, RateLimitExceeded when too many wait, Conflict when the owner is not active.
    """
    run = await access.run(actor, run_id, to=Permission.JOB_RUN)
    options = checked_options(format, wish)
    export_id = new_id()

    async def make() -> None:
        settings = sessions.settings()
        found = await item_export_queries.lock_run(run["id"])
        if found is None:
            raise access.missing()
        owner_id = found["owner_id"]
        await execution_commands.create(
            export_id,
            kind=KIND,
            owner_id=owner_id,
            requested_by=actor.user_id,
            timeout_seconds=settings.export_timeout_seconds,
            max_attempts=settings.max_attempts,
            max_queued=settings.max_queued_per_user,
        )
        await item_export_queries.insert(
            export_id,
            run_id=run["id"],
            format=format,
            options=options,
            filename=f"{encode_id(Prefix.EXPORT, export_id)}.{format.value.lower()}",
            content_type=CONTENT_TYPES[format],
        )
        await _record(actor, _EXPORT, export_id, run=str(run["id"]), format=format.value)
        await events.publish(ExecutionChanged(export_id, owner_id))
        await queue.ring(KIND, export_id)

    async with unit_of_work():
        return await once(
            actor.user_id or run["owner_id"],
            _EXPORT,
            idempotency_key,
            request={"run": run["id"], "format": format.value, "options": options},
            target_id=export_id,
            make=make,
        )


def checked_options(format: ItemExportFormat, wish: Wish) -> dict[str, Any]:
    """What a worker is to do; raises ValidationFailed with the path of what does not fit."""
    flatten = format is not ItemExportFormat.JSONL if wish.flatten is None else wish.flatten
    if wish.separator is not None:
        if not flatten:
            raise ValidationFailed("A separator is for names of flattened fields only.", path=["input", "separator"])
        if not 1 <= len(wish.separator) <= MAX_SEPARATOR_CHARACTERS or not wish.separator.isprintable():
            raise ValidationFailed(
                f"A separator has 1 to {MAX_SEPARATOR_CHARACTERS} printable characters.", path=["input", "separator"]
            )
    if wish.limit is not None and not 1 <= wish.limit <= MAX_ROWS:
        raise ValidationFailed(f"An export has 1 to {MAX_ROWS:,} rows.", path=["input", "limit"])
    if wish.fields is not None and not wish.fields:
        raise ValidationFailed("Name a field, or leave the list out for all of them.", path=["input", "fields"])
    fields = None if wish.fields is None else _paths(wish.fields, ["input", "fields"])
    omit = _paths(wish.omit, ["input", "omit"])
    return {
        "fields": fields,
        "omit": omit,
        "rename": _renames(wish.rename, fields),
        "flatten": flatten,
        "separator": wish.separator or ".",
        "unwind": None if wish.unwind is None else field_path(wish.unwind, path=["input", "unwind"]),
        "limit": wish.limit,
        "filter": item_filters.encode(wish.filter),
    }


async def cancel(actor: Actor, export_id: str) -> UUID:
    """Stop an export; a final one stays as it is."""
    row = await access.item_export(actor, export_id, to=Permission.EXECUTION_CANCEL)
    await executions.cancel(actor, row["id"], action="cancelItemExport")
    found: UUID = row["id"]
    return found


async def delete(actor: Actor, export_id: str) -> None:
    """Remove an export with its file and its log; raises Conflict while it waits or works."""
    row = await access.item_export(actor, export_id, to=Permission.JOB_WRITE)
    async with unit_of_work():
        found = await item_export_queries.lock(row["id"])
        if found is None:
            raise access.missing()
        if not ExecutionStatus(found["status"]).is_final:
            raise Conflict("The export waits or is being made; cancel it first.", status=found["status"])
        await item_export_queries.delete(row["id"])
        await _record(actor, "deleteItemExport", row["id"], run=str(row["export_run_id"]))
        if keys := [key for key in (found["key"], found["log_key"]) if key]:
            projects.delete_objects_after_commit(keys)


async def download_url(export: Row) -> str | None:
    """A link to the file of an export that expires; None when there is none, or none any more."""
    if export["export_key"] is None:
        return None
    return await storage.current().presigned_get(
        export["export_key"],
        expires_seconds=sessions.settings().download_url_seconds,
        filename=export["export_filename"],
        content_type=export["export_content_type"],
    )


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the exports that an actor may see."""
    return await execution_rows.visible(actor, kind=KIND, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await execution_rows.count_visible(actor, kind=KIND, **filters)


async def find(actor: Actor, export_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the exports that an actor may see, in one statement."""
    found = await execution_rows.find(export_ids)
    return {key: row for key, row in found.items() if row["kind"] == KIND and access.sees_execution(actor, row)}


def _paths(paths: Sequence[str], path: Path) -> list[str]:
    if len(paths) > MAX_FIELDS:
        raise ValidationFailed(f"This takes at most {MAX_FIELDS} fields.", path=path, limit=MAX_FIELDS)
    seen: set[str] = set()
    for number, text in enumerate(paths):
        field_path(text, path=[*path, number])
        if text in seen:
            raise ValidationFailed("This field is named twice.", path=[*path, number])
        seen.add(text)
    return list(paths)


def _renames(names: Sequence[tuple[str, str]], fields: Sequence[str] | None) -> list[dict[str, str]]:
    path = ["input", "rename"]
    if len(names) > MAX_FIELDS:
        raise ValidationFailed(f"This takes at most {MAX_FIELDS} fields.", path=path, limit=MAX_FIELDS)
    renamed = {old for old, _ in names}
    kept = {field for field in fields or () if field not in renamed}
    old_ones: set[str] = set()
    new_ones: set[str] = set()
    for number, (old, new) in enumerate(names):
        field_path(old, path=[*path, number, "from"])
        if old in old_ones:
            raise ValidationFailed("This field is renamed twice.", path=[*path, number, "from"])
        if not 1 <= len(new) <= MAX_PATH_CHARACTERS:
            raise ValidationFailed(f"A name has 1 to {MAX_PATH_CHARACTERS} characters.", path=[*path, number, "to"])
        if new in new_ones or new in kept:
            raise ValidationFailed("Two fields would have this name.", path=[*path, number, "to"])
        old_ones.add(old)
        new_ones.add(new)
    return [{"from": old, "to": new} for old, new in names]


async def _record(actor: Actor, action: str, export_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="itemExport", target_id=export_id, details=details)
