"""What crawls write of products: found on a site, taken for one that there is or made, and what it costs there.

Everything happens behind the lock of all who write products (`models/product_queries.LOCK_WRITES`), which is taken
first, so that keys that are free stay so and nobody waits in a circle. Invariants: a listing is one row; a product
changes its price when one of its listings says another one than it said before, and nothing else of it ever changes; a
listing whose product was deleted makes none again. Functions take the connection of the crawl's own transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from models import product_keys, product_queries
from models.database import to_json
from models.ids import new_id
from models.permissions import ROLE_PERMISSIONS, Permission, Role
from models.products import PriceSource


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProduct:
    """A product as a site shows it; all fits the columns. `price` and `currency` are both there or both not."""

    source: str
    source_id: str
    url: str
    name: str
    price: Decimal | None = None
    currency: str | None = None
    sku: str | None = None
    ean: str | None = None
    description: str = ""
    category: str | None = None

    @property
    def sku_key(self) -> str | None:
        """The form under which the SKU is unique."""
        return None if self.sku is None else product_keys.sku_key(self.sku)


async def may_write(connection: asyncpg.Connection, owner_id: UUID) -> bool:
    """Whether an owner may change products, now."""
    role = await connection.fetchval("SELECT role FROM users WHERE id = $1 AND is_active", owner_id)
    return role is not None and Permission.PRODUCT_WRITE in ROLE_PERMISSIONS[Role(role)]


async def see(
    connection: asyncpg.Connection, found: Sequence[FoundProduct], *, job_id: UUID, dataset_id: UUID, run_id: UUID
) -> None:
    """Take in products that a site shows, each listing once in the batch."""
    await connection.execute(product_queries.LOCK_WRITES)
    known = await _known(connection, found)
    product_ids, new = await _matched(connection, found, known)
    if new:
        await _name_slugs(connection, new)
        await connection.execute(product_queries.INSERT, product_queries.written(new))
    await _set_prices(connection, found, known, product_ids)
    await connection.execute(
        """INSERT INTO product_sources AS s (id, product_id, job_id, dataset_id, run_id, source, source_id, url, price,
               currency, first_seen_at, last_seen_at)
           SELECT id, product_id, $2, $3, $4, source, source_id, url, price, currency, now.at, now.at
           FROM jsonb_to_recordset($1::jsonb)
                   AS given(id uuid, product_id uuid, source text, source_id text, url text, price numeric,
                            currency text),
               (SELECT clock_timestamp() AS at) AS now
           ORDER BY source, source_id
           ON CONFLICT (source, source_id) DO UPDATE SET
               product_id = excluded.product_id, job_id = excluded.job_id, dataset_id = excluded.dataset_id,
               run_id = excluded.run_id, url = excluded.url, price = excluded.price, currency = excluded.currency,
               last_seen_at = excluded.last_seen_at, gone_at = NULL""",
        to_json(
            [
                {
                    "id": new_id(),
                    "product_id": product_ids.get((each.source, each.source_id)),
                    "source": each.source,
                    "source_id": each.source_id,
                    "url": each.url,
                    "price": each.price,
                    "currency": each.currency,
                }
                for each in found
            ]
        ),
        job_id,
        dataset_id,
        run_id,
    )


_Listing = tuple[str, str]


async def _known(connection: asyncpg.Connection, found: Sequence[FoundProduct]) -> dict[_Listing, asyncpg.Record]:
    rows = await connection.fetch(
        """SELECT s.source, s.source_id, s.product_id, s.price, s.currency
           FROM product_sources s JOIN unnest($1::text[], $2::text[]) AS given(source, source_id)
               USING (source, source_id)""",
        [each.source for each in found],
        [each.source_id for each in found],
    )
    return {(row["source"], row["source_id"]): row for row in rows}


async def _matched(
    connection: asyncpg.Connection, found: Sequence[FoundProduct], known: Mapping[_Listing, asyncpg.Record]
) -> tuple[dict[_Listing, UUID], list[dict[str, Any]]]:
    """The product of each listing, by its EAN or SKU where the listing is unknown, and those that have to be made."""
    rows = await connection.fetch(
        "SELECT id, ean, sku_key FROM products WHERE ean = ANY($1::text[]) OR sku_key = ANY($2::text[])",
        [each.ean for each in found if each.ean is not None],
        [key for each in found if (key := each.sku_key) is not None],
    )
    by_ean = {row["ean"]: row["id"] for row in rows if row["ean"] is not None}
    by_sku = {row["sku_key"]: row["id"] for row in rows if row["sku_key"] is not None}
    product_ids: dict[_Listing, UUID] = {}
    new: list[dict[str, Any]] = []
    for each in found:
        listing = (each.source, each.source_id)
        row = known.get(listing)
        product_id = row and row["product_id"]
        if product_id is None:
            product_id = by_ean.get(each.ean) or by_sku.get(each.sku_key)
        if product_id is None and row is None:
            product_id = new_id()
            new.append(_columns(each, product_id))
            if each.ean is not None:
                by_ean[each.ean] = product_id
            if each.sku_key is not None:
                by_sku[each.sku_key] = product_id
        if product_id is not None:
            product_ids[listing] = product_id
    return product_ids, new


def _columns(found: FoundProduct, product_id: UUID) -> dict[str, Any]:
    # Without a price: that is set, and noted, as for those that are there already.
    return {
        **product_queries.EMPTY,
        "id": product_id,
        "name": found.name,
        "sku": found.sku,
        "sku_key": found.sku_key,
        "ean": found.ean,
        "description": found.description,
        "category": found.category,
    }


async def _name_slugs(connection: asyncpg.Connection, products: Sequence[dict[str, Any]]) -> None:
    """Give slugs to new products: of the name, with the end of the id where that is taken."""
    stems = {product["id"]: product_keys.slug_of(product["name"]) for product in products}
    rows = await connection.fetch("SELECT slug FROM products WHERE slug = ANY($1::text[])", sorted(set(stems.values())))
    taken = {row["slug"] for row in rows}
    for product in products:
        stem = stems[product["id"]]
        product["slug"] = f"{stem}-{product['id'].hex[-8:]}" if stem in taken else stem
        taken.add(stem)


async def _set_prices(
    connection: asyncpg.Connection,
    found: Sequence[FoundProduct],
    known: Mapping[_Listing, asyncpg.Record],
    product_ids: Mapping[_Listing, UUID],
) -> None:
    """Give products the prices that listings say for the first time; of several the last one holds."""
    prices: dict[UUID, FoundProduct] = {}
    for each in found:
        listing = (each.source, each.source_id)
        row = known.get(listing)
        said_before = None if row is None else (row["price"], row["currency"])
        if each.price is not None and (each.price, each.currency) != said_before and listing in product_ids:
            prices[product_ids[listing]] = each
    if not prices:
        return
    await connection.execute(
        """WITH given AS (
               SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::text[])
                   AS given(row_id, id, price, currency)
           ), changed AS (
               UPDATE products p SET price = g.price, currency = g.currency, version = p.version + 1,
                   updated_at = clock_timestamp()
               FROM given g
               WHERE p.id = g.id AND (p.price, p.currency) IS DISTINCT FROM (g.price, g.currency::varchar)
               RETURNING p.id
           )
           INSERT INTO product_prices (id, product_id, price, currency, source, changed_at)
           SELECT g.row_id, g.id, g.price, g.currency, $5, clock_timestamp() FROM given g JOIN changed USING (id)""",
        [new_id() for _ in prices],
        list(prices),
        [each.price for each in prices.values()],
        [each.currency for each in prices.values()],
        PriceSource.CRAWL.value,
    )
