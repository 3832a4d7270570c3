"""Products from a file: each line makes a product or changes the one that has its SKU, EAN or slug.

Invariants: a file is imported as a whole or, when a line does not fit, not at all; a dry run does everything and keeps
nothing; one transaction, in chunks, while other writers of products wait. Rules are those of
`resolvers/product_rules.py`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from errors import PayloadTooLarge, Unauthorized, ValidationFailed
from models import product_keys, product_queries
from models.audit import AuditEvent
from models.database import Row
from models.idempotency import once
from models.ids import new_id
from models.permissions import Actor, Permission
from models.products import PriceSource
from models.transaction import unit_of_work
from resolvers import access, product_csv, product_rules
from resolvers.product_csv import CsvDelimiter, CsvLine, CsvShape, DecimalMark
from resolvers.products import columns_of, merged

ACTION: Final = "importProducts"
CHUNK_LINES: Final = 500
MAX_ERRORS: Final = 100
"""Errors that are told; all are counted."""

_KEYS: Final = {"sku_key": "sku", "ean": "ean", "slug": "slug"}


class OnConflict(StrEnum):
    """What to do with a line whose product is there already."""

    UPDATE = "UPDATE"
    SKIP = "SKIP"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line; `path` names the column."""

    line: int
    path: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or would do; nothing was kept of a dry run and of one with errors."""

    is_kept: bool
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    error_count: int = 0
    errors: tuple[LineError, ...] = ()
    unknown_columns: tuple[str, ...] = ()


class _Undone(Exception):
    """Ends a transaction that nothing may be kept of."""


@dataclass(slots=True)
class _Work:
    """An import on its way: what was counted, and which line used which key."""

    actor: Actor
    on_conflict: OnConflict
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    error_count: int = 0
    errors: list[LineError] = field(default_factory=list)
    used: dict[tuple[str, str], int] = field(default_factory=dict)

    def fail(self, line: int, message: str, *path: str) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(LineError(line, path, message))

    def result(self, shape: CsvShape, *, is_kept: bool) -> Imported:
        return Imported(
            is_kept=is_kept,
            created=self.created,
            updated=self.updated,
            unchanged=self.unchanged,
            skipped=self.skipped,
            error_count=self.error_count,
            errors=tuple(self.errors),
            unknown_columns=shape.unknown,
        )


async def run(
    actor: Actor,
    path: Path,
    *,
    sha256: str,
    is_dry: bool,
    on_conflict: OnConflict,
    delimiter: CsvDelimiter,
    decimal_mark: DecimalMark,
    idempotency_key: str | None,
) -> Imported:
    """Import a file that lies on disk for so long.

    Raises ValidationFailed for a file that is none of products, PayloadTooLarge. Lines that do not fit are told in the
    result.
    """
    access.allow(actor, Permission.PRODUCT_WRITE)
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    if (await asyncio.to_thread(path.stat)).st_size > product_csv.MAX_BYTES:
        raise PayloadTooLarge(f"The file has more than {product_csv.MAX_BYTES:,} bytes.", path=["input", "file"])
    shape = await asyncio.to_thread(product_csv.shape_of, path, delimiter=delimiter, decimal_mark=decimal_mark)
    work = _Work(actor, on_conflict)
    import_id = new_id()

    async def make() -> None:
        await _import(work, path, shape)
        if is_dry or work.error_count:
            raise _Undone
        await AuditEvent.record(
            actor,
            ACTION,
            target_type="product_import",
            target_id=import_id,
            details={
                "sha256": sha256,
                "created": work.created,
                "updated": work.updated,
                "unchanged": work.unchanged,
                "skipped": work.skipped,
            },
        )

    request = {"sha256": sha256, "on_conflict": on_conflict, "delimiter": delimiter, "decimal_mark": decimal_mark}
    try:
        async with unit_of_work():
            key = None if is_dry else idempotency_key
            made = await once(actor.user_id, ACTION, key, request=request, target_id=import_id, make=make)
    except _Undone:
        return work.result(shape, is_kept=False)
    if made == import_id:
        return work.result(shape, is_kept=True)
    return await _earlier(made, shape)


async def _import(work: _Work, path: Path, shape: CsvShape) -> None:
    await product_queries.lock_writes()
    lines = product_csv.lines_of(path, shape)
    while chunk := await asyncio.to_thread(_checked, lines, shape):
        await _write(work, chunk)


def _checked(lines: Any, shape: CsvShape) -> list[tuple[CsvLine, dict[str, Any] | ValidationFailed]]:
    """The next lines with their columns, or what is wrong with them; blocks."""
    checked: list[tuple[CsvLine, dict[str, Any] | ValidationFailed]] = []
    for line in itertools.islice(lines, CHUNK_LINES):
        try:
            checked.append((line, product_rules.checked(product_csv.columns_of(line, shape), path=())))
        except ValidationFailed as refusal:
            checked.append((line, refusal))
    return checked


async def _write(work: _Work, chunk: Sequence[tuple[CsvLine, dict[str, Any] | ValidationFailed]]) -> None:
    sound = []
    for line, columns in chunk:
        if isinstance(columns, ValidationFailed):
            work.fail(line.number, columns.message, *_path(columns))
        elif _is_first_use(work, line.number, columns):
            sound.append((line.number, columns))
    there = await _holders([columns for _, columns in sound])
    created, updated, priced = [], [], []
    for number, columns in sound:
        holders = {row["id"]: row for key in _KEYS for row in there.get((key, columns.get(key)), ())}
        if len(holders) > 1:
            work.fail(number, "SKU, EAN and slug of this line belong to different products.")
            continue
        if any(("id", str(product_id)) in work.used for product_id in holders):
            work.fail(number, "An earlier line is about the same product.")
            continue
        work.used.update({("id", str(product_id)): number for product_id in holders})
        before = columns_of(next(iter(holders.values()))) if holders else {**product_queries.EMPTY, "id": new_id()}
        after = merged(before, columns)
        if after["sku_key"] == before["sku_key"]:
            after["sku"] = before["sku"]  # found by it, in whatever spelling
        if not _is_wanted(work, number, columns, is_new=not holders) or not _is_complete(work, number, after):
            continue
        if not holders:
            created.append(after)
            work.used["id", str(after["id"])] = number
        elif after != before:
            updated.append(after)
        else:
            work.unchanged += 1
            continue
        if (after["price"], after["currency"]) != (before["price"], before["currency"]):
            priced.append(after)
    await _name_slugs(work, created)
    if created:
        await product_queries.insert(created)
    if updated:
        await product_queries.update(updated)
    if priced:
        await product_queries.add_prices(priced, source=PriceSource.IMPORT, changed_by=work.actor.user_id)
    work.created += len(created)
    work.updated += len(updated)


def _is_first_use(work: _Work, number: int, columns: Mapping[str, Any]) -> bool:
    """Whether no earlier line has a key of this one."""
    keys = [(key, columns[key]) for key in _KEYS if columns.get(key) is not None]
    for key in keys:
        if key in work.used:
            work.fail(number, f"Line {work.used[key]} has the same.", _KEYS[key[0]])
            return False
    work.used.update(dict.fromkeys(keys, number))
    return True


def _is_wanted(work: _Work, number: int, columns: Mapping[str, Any], *, is_new: bool) -> bool:
    if is_new:
        if "name" not in columns:
            work.fail(number, "There is no such product, and a new one needs a name.", "name")
        return "name" in columns
    if work.on_conflict is OnConflict.FAIL:
        work.fail(number, "The product is there already.")
    elif work.on_conflict is OnConflict.SKIP:
        work.skipped += 1
    return work.on_conflict is OnConflict.UPDATE


def _is_complete(work: _Work, number: int, columns: Mapping[str, Any]) -> bool:
    try:
        product_rules.complete(columns, path=())
    except ValidationFailed as refusal:
        work.fail(number, refusal.message, *_path(refusal))
        return False
    return True


async def _holders(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, Any], list[Row]]:
    """The products that have keys of these lines, by key."""
    wanted = {key: [columns[key] for columns in lines if columns.get(key) is not None] for key in _KEYS}
    found: dict[tuple[str, Any], list[Row]] = {}
    # Locked, because all columns are written back, and stock may be adjusted meanwhile.
    for row in await product_queries.holders(
        slugs=wanted["slug"], sku_keys=wanted["sku_key"], eans=wanted["ean"], locked=True
    ):
        for key in _KEYS:
            if row[key] is not None:
                found.setdefault((key, row[key]), []).append(row)
    return found


async def _name_slugs(work: _Work, products: Sequence[dict[str, Any]]) -> None:
    """Give slugs to new products that have none: of the name, with the end of the id where that is taken."""
    nameless = [product for product in products if product["slug"] is None]
    stems = {product["id"]: product_keys.slug_of(product["name"]) for product in nameless}
    taken = {row["slug"] for row in await product_queries.holders(slugs=sorted(set(stems.values())))}
    for product in nameless:
        stem = stems[product["id"]]
        is_taken = stem in taken or ("slug", stem) in work.used
        product["slug"] = f"{stem}-{product['id'].hex[-8:]}" if is_taken else stem
        work.used["slug", product["slug"]] = work.used["id", str(product["id"])]


async def _earlier(import_id: UUID, shape: CsvShape) -> Imported:
    """What an import did that its key was used for before."""
    details = await product_queries.import_details(import_id, ACTION)
    return Imported(
        is_kept=True,
        created=details.get("created", 0),
        updated=details.get("updated", 0),
        unchanged=details.get("unchanged", 0),
        skipped=details.get("skipped", 0),
        unknown_columns=shape.unknown,
    )


def _path(refusal: ValidationFailed) -> list[str]:
    return [str(part) for part in refusal.details["path"][:1]]
