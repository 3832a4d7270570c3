"""What crawls write of properties: seen, changed, gone.

A batch is one statement, so a listing, what it asked until now and its history cannot disagree, and a batch that is
repeated changes nothing but when it was seen. Invariants: listings of a batch are locked in one order by everybody, so
no two runs wait in a circle; an entry of the history is there exactly where price or currency differ from the entry
before. Functions take the connection of the crawl's own transaction.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from models.database import to_json
from models.ids import new_id

# What a listing says of itself, with the types of the columns.
_SAID: Final[Mapping[str, str]] = {
    "url": "text",
    "title": "text",
    "price": "numeric",
    "currency": "text",
    "area": "numeric",
    "area_unit": "text",
    "square_metres": "numeric",
    "bedrooms": "float8",
    "bathrooms": "float8",
    "property_type": "text",
    "street": "text",
    "city": "text",
    "region": "text",
    "postal_code": "text",
    "country": "text",
    "latitude": "float8",
    "longitude": "float8",
    "description": "text",
    "images": "jsonb",
    "date_posted": "text",
}
_NAMES: Final = ", ".join(_SAID)
_OLD: Final = ", ".join(f"p.{name}" for name in _SAID)
_NEW: Final = ", ".join(f"excluded.{name}" for name in _SAID)
_TYPES: Final = ", ".join(f"{name} {kind}" for name, kind in _SAID.items())
_OTHER_PRICE: Final = "(p.price, p.currency) IS DISTINCT FROM (excluded.price, excluded.currency)"

# The moment is read behind the lock of a row, so two runs that meet at one leave its history in order.
_SEE: Final = f"""
WITH kept AS (
    INSERT INTO properties AS p (id, owner_id, job_id, dataset_id, run_id, source, source_id, {_NAMES}, price_id,
        first_seen_at, last_seen_at, last_changed_at, price_changed_at)
    SELECT id, $2, $3, $4, $5, source, source_id, {_NAMES}, price_id, now.at, now.at, now.at, now.at
    FROM jsonb_to_recordset($1::jsonb)
            AS given(id uuid, price_id uuid, source text, source_id text, {_TYPES}),
        (SELECT clock_timestamp() AS at) AS now
    ORDER BY source, source_id
    ON CONFLICT (owner_id, source, source_id) DO UPDATE SET
        job_id = excluded.job_id, dataset_id = excluded.dataset_id, run_id = excluded.run_id,
        ({_NAMES}) = ROW({_NEW}),
        price_id = CASE WHEN {_OTHER_PRICE} THEN excluded.price_id ELSE p.price_id END,
        price_changed_at = CASE WHEN {_OTHER_PRICE} THEN clock_timestamp() ELSE p.price_changed_at END,
        last_changed_at = CASE WHEN ({_OLD}) IS DISTINCT FROM ({_NEW}) THEN clock_timestamp()
                               ELSE p.last_changed_at END,
        last_seen_at = clock_timestamp(), gone_at = NULL
    RETURNING p.id, p.price_id, p.price, p.currency, p.price_changed_at
)
INSERT INTO property_prices (id, property_id, price, currency, seen_at, run_id)
SELECT price_id, kept.id, price, currency, price_changed_at, $5 FROM kept WHERE price_id = ANY($6::uuid[])
"""

# A listing that another run saw since this one began is not gone, whatever this one missed. Sites of which this run saw
# nothing at all have moved, or the job looks elsewhere now; and what could not be fetched is not known to be gone.
_MISSED: Final = """
    SELECT p.id FROM {table} p
    WHERE p.job_id = $1 AND p.dataset_id <> $2 AND p.gone_at IS NULL
      AND p.last_seen_at < (SELECT coalesce(started_at, queued_at) FROM executions WHERE id = $2)
      AND p.source IN (SELECT s.source FROM {table} s WHERE s.job_id = $1 AND s.dataset_id = $2)
      AND p.url <> ALL($3::text[])
    ORDER BY p.source, p.source_id FOR UPDATE OF p
"""
_MARK: Final = """
WITH missed AS ({missed}), marked AS (
    UPDATE {table} SET gone_at = clock_timestamp() FROM missed WHERE {table}.id = missed.id RETURNING 1
)
SELECT count(*) FROM marked
"""


async def see(
    connection: asyncpg.Connection,
    listings: Sequence[Mapping[str, Any]],
    *,
    owner_id: UUID,
    job_id: UUID,
    dataset_id: UUID,
    run_id: UUID,
) -> None:
    """Add listings that are new to an owner and renew those that are not, each once in the batch."""
    given = [{**listing, "id": new_id(), "price_id": new_id()} for listing in listings]
    await connection.execute(
        _SEE, to_json(given), owner_id, job_id, dataset_id, run_id, [each["price_id"] for each in given]
    )


async def mark_gone(
    connection: asyncpg.Connection, *, table: str, job_id: UUID, dataset_id: UUID, spared_urls: Sequence[str]
) -> int:
    """Mark what a complete dataset of a job did not see, in `properties` or `product_sources`; how many there are."""
    statement = _MARK.format(table=table, missed=_MISSED.format(table=table))
    return int(await connection.fetchval(statement, job_id, dataset_id, list(spared_urls)))
