"""Exports as they are made, found, read and swept: plain rows beside their executions.

`models/execution_rows.py` selects what every answer shows. Functions with an `executor` are for workers. Invariant: a
key is forgotten only after its object is gone, and an object is called nobody's only when no row names it and no
running attempt may still write it.
"""

# ruff: noqa: S608 - statements are joined from constants of this package; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from models import database, item_filters
from models.database import Row
from models.execution_rows import Condition
from models.github_queries import Executor
from models.item_exports import KIND, ItemExportFormat
from models.item_filters import ItemFilter

PAGE_ITEMS: Final = 2_000
PAGE_BYTES: Final = 2 * 2**20
KEY_PREFIX: Final = "exports/"


def folder(execution_id: UUID) -> str:
    """Where the objects of an export are in storage."""
    return f"{KEY_PREFIX}{execution_id}/"


# -- conditions of lists


def of_run(run_id: UUID) -> Condition:
    """Exports of a run."""
    return Condition("x.run_id = {}", run_id)


def in_formats(formats: Sequence[str]) -> Condition:
    """Exports in one of these formats."""
    return Condition("x.format = ANY({}::text[])", list(formats))


# -- making and removing


async def lock_run(run_id: UUID) -> Row | None:
    """`owner_id` of a run, which stays until the end of the transaction; None when it is gone."""
    return await database.row(
        """SELECT j.owner_id FROM job_runs r JOIN jobs j ON j.id = r.job_id WHERE r.execution_id = $1
           FOR SHARE OF j""",
        run_id,
    )


async def insert(
    execution_id: UUID,
    *,
    run_id: UUID,
    format: ItemExportFormat,
    options: Mapping[str, Any],
    filename: str,
    content_type: str,
) -> None:
    """Add what an export has beside its execution."""
    await database.rows(
        """INSERT INTO item_exports (execution_id, run_id, format, options, filename, content_type)
           VALUES ($1, $2, $3, $4::jsonb, $5, $6)""",
        execution_id,
        run_id,
        format.value,
        database.to_json(dict(options)),
        filename,
        content_type,
    )


async def lock(execution_id: UUID) -> Row | None:
    """Status and keys of an export, kept as they are until the end of the transaction; None when it is gone."""
    return await database.row(
        """SELECT e.status, e.log_object->>'key' AS log_key, x.key
           FROM executions e JOIN item_exports x ON x.execution_id = e.id WHERE e.id = $1 AND e.kind = $2
           FOR UPDATE OF e""",
        execution_id,
        KIND,
    )


async def delete(execution_id: UUID) -> None:
    """Remove an export with its log."""
    await database.rows("DELETE FROM executions WHERE id = $1", execution_id)


# -- for workers


async def plan(executor: Executor, execution_id: UUID) -> asyncpg.Record | None:
    """What is asked for, and of which items: those up to `last_item`, as they are now."""
    return await executor.fetchrow(
        """SELECT x.run_id, x.format, x.options, x.content_type, x.filename, r.dataset_id, r.spider, r.input,
                  r.items_scraped,
                  coalesce((SELECT max(i.id) FROM items i WHERE i.dataset_id = r.dataset_id), 0) AS last_item
           FROM item_exports x JOIN job_runs r ON r.execution_id = x.run_id WHERE x.execution_id = $1""",
        execution_id,
    )


async def items(
    executor: Executor, *, dataset_id: UUID, run_id: UUID, after: int, last: int, filter: ItemFilter
) -> asyncpg.Record:
    """The next items behind an id: `lines` is the JSON of those that meet the filter, one a line; null for none.

    `looked_at` says how many there were, `last_id` where they end. At most PAGE_ITEMS, and no more than PAGE_BYTES but
    for one item: the filter is applied to a page of ids, so that each statement is short whatever it asks.
    """
    values: list[Any] = [dataset_id, run_id, after, last, PAGE_ITEMS, PAGE_BYTES]
    met = " AND ".join(item_filters.conditions(filter, values)) or "true"
    return await executor.fetchrow(
        f"""WITH page AS MATERIALIZED (
                SELECT id, url, scraped_at, data, data::text AS line FROM items
                WHERE dataset_id = $1 AND run_id <= $2 AND id > $3 AND id <= $4 ORDER BY id LIMIT $5
            ), sized AS (
                SELECT *, sum(octet_length(line)) OVER (ORDER BY id) - octet_length(line) AS before FROM page
            ), taken AS MATERIALIZED (
                SELECT * FROM sized WHERE before < $6
            ), met AS (
                SELECT id, line FROM taken WHERE {met}
            )
            SELECT (SELECT count(*) FROM taken) AS looked_at, (SELECT max(id) FROM taken) AS last_id,
                   count(*) AS matched, convert_to(string_agg(line, E'\\n' ORDER BY id), 'UTF8') AS lines
            FROM met""",
        *values,
    )


async def record(
    connection: asyncpg.Connection,
    execution_id: UUID,
    *,
    key: str,
    size: int,
    sha256: str,
    row_count: int,
    kept_days: int,
) -> None:
    """Say what the file of an export is; call it in the transaction that ends it."""
    await connection.execute(
        """UPDATE item_exports SET key = $2, size = $3, sha256 = $4, row_count = $5,
               expires_at = now() + make_interval(days => $6)
           WHERE execution_id = $1""",
        execution_id,
        key,
        size,
        sha256,
        row_count,
        kept_days,
    )


async def expired(executor: Executor, *, limit: int) -> list[tuple[UUID, str]]:
    """Some exports whose file has had its time, with its key."""
    found = await executor.fetch(
        """SELECT execution_id, key FROM item_exports WHERE key IS NOT NULL AND expires_at < now()
           ORDER BY expires_at LIMIT $1""",
        limit,
    )
    return [(row["execution_id"], row["key"]) for row in found]


async def forget_files(executor: Executor, execution_ids: Sequence[UUID]) -> None:
    """Forget the keys of exports whose objects are gone."""
    await executor.execute("UPDATE item_exports SET key = NULL WHERE execution_id = ANY($1::uuid[])", execution_ids)


async def nobodys(executor: Executor, objects: Mapping[str, tuple[UUID, int]]) -> list[str]:
    """Those keys, of objects that an attempt of an export wrote, that nobody has or will have."""
    found = await executor.fetch(
        """SELECT o.key FROM unnest($1::text[], $2::uuid[], $3::int[]) AS o (key, execution_id, attempt)
           WHERE NOT EXISTS (
               SELECT 1 FROM executions e LEFT JOIN item_exports x ON x.execution_id = e.id
               WHERE e.id = o.execution_id
                   AND (x.key = o.key OR (e.status = 'RUNNING' AND e.attempt = o.attempt)))""",
        list(objects),
        [execution_id for execution_id, _ in objects.values()],
        [attempt for _, attempt in objects.values()],
    )
    return [row["key"] for row in found]
