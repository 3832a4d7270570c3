"""Products as they are read and changed: plain rows, by id or by one of their keys; prices and pictures of them.

Invariants: whoever makes a product or changes one's keys holds `lock_writes`, so what `holders` says stays true until
the transaction ends; each change makes the version one larger. Lists and searches are in `models/product_search.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from models import database, keyset
from models.database import Row
from models.ids import new_id
from models.products import PriceSource

# Columns that are written, with the types of their values.
_WRITTEN: Final[Mapping[str, str]] = {
    "name": "text",
    "slug": "text",
    "sku": "text",
    "sku_key": "text",
    "ean": "text",
    "description": "text",
    "price": "numeric",
    "currency": "text",
    "unit": "text",
    "stock": "numeric",
    "category": "text",
    "attributes": "jsonb",
    "is_active": "boolean",
}
EMPTY: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_WRITTEN),
    "description": "",
    "attributes": {},
    "is_active": True,
}
"""What a new product has where nothing is said."""

COLUMNS: Final = (
    "p.id, p.name, p.slug, p.sku, p.sku_key, p.ean, p.description, p.price, p.currency, p.unit, p.stock, p.category,"
    " p.attributes::text AS attributes, p.is_active, p.version, p.created_at, p.updated_at"
)
_GIVEN: Final = f"jsonb_to_recordset($1::jsonb) AS g(id uuid, {', '.join(f'{n} {t}' for n, t in _WRITTEN.items())})"


LOCK_WRITES: Final = "SELECT pg_advisory_xact_lock(hashtextextended('products', 0))"
"""Waits for everybody else who makes products or changes them; until the transaction ends they wait for us."""

INSERT: Final = f"""
INSERT INTO products (id, {", ".join(_WRITTEN)}, version, created_at, updated_at)
SELECT g.id, {", ".join(f"g.{name}" for name in _WRITTEN)}, 1, clock_timestamp(), clock_timestamp() FROM {_GIVEN}
"""
"""Adds the products that `written` gives."""


async def lock_writes() -> None:
    """Wait for everybody else who makes products or changes them; until the transaction ends they wait for us."""
    await database.rows(LOCK_WRITES)


async def find(product_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the products that exist, inactive ones included: the caller is the gate."""
    found = await database.rows(f"SELECT {COLUMNS} FROM products p WHERE p.id = ANY($1::uuid[])", list(product_ids))
    return {row["id"]: row for row in found}


async def find_slug(slug: str) -> Row | None:
    """The product with this slug."""
    return await database.row(f"SELECT {COLUMNS} FROM products p WHERE p.slug = $1", slug)


async def holders(
    *, slugs: Sequence[str] = (), sku_keys: Sequence[str] = (), eans: Sequence[str] = (), locked: bool = False
) -> list[Row]:
    """The products that have one of these keys; `locked`, nobody changes them until the transaction ends."""
    return await database.rows(
        f"""SELECT {COLUMNS} FROM products p
            WHERE p.slug = ANY($1::text[]) OR p.sku_key = ANY($2::text[]) OR p.ean = ANY($3::text[])
            ORDER BY p.id {"FOR NO KEY UPDATE" if locked else ""}""",
        list(slugs),
        list(sku_keys),
        list(eans),
    )


async def insert(products: Sequence[Mapping[str, Any]]) -> None:
    """Add products, each with an id and all of the columns; call it after `lock_writes`."""
    await database.rows(INSERT, written(products))


async def update(products: Sequence[Mapping[str, Any]]) -> None:
    """Set all columns of products, each with its id; call it after `lock_writes`."""
    await database.rows(
        f"""UPDATE products p SET {", ".join(f"{name} = g.{name}" for name in _WRITTEN)},
                version = p.version + 1, updated_at = clock_timestamp()
            FROM {_GIVEN} WHERE p.id = g.id""",
        written(products),
    )


async def add_prices(products: Sequence[Mapping[str, Any]], *, source: PriceSource, changed_by: UUID | None) -> None:
    """Note what products, each with its id, cost from now on."""
    await database.rows(
        """INSERT INTO product_prices (id, product_id, price, currency, source, changed_by_id, changed_at)
           SELECT g.row_id, g.id, g.price, g.currency, $2, $3, clock_timestamp()
           FROM jsonb_to_recordset($1::jsonb) AS g(row_id uuid, id uuid, price numeric, currency text)""",
        database.to_json(
            [
                {"row_id": new_id(), "id": product["id"], "price": product["price"], "currency": product["currency"]}
                for product in products
            ]
        ),
        source.value,
        changed_by,
    )


async def lock(product_id: UUID) -> Row | None:
    """A product as it is now; nobody else changes it until the transaction ends."""
    return await database.row(f"SELECT {COLUMNS} FROM products p WHERE p.id = $1 FOR NO KEY UPDATE", product_id)


async def adjust_stock(product_id: UUID, by: Decimal, *, most: Decimal) -> Decimal | None:
    """Add to a stock, or take from it, and return what there is then.

    None when the product is gone, its stock is not counted, or there would be less than nothing or more than `most`.
    """
    left: Decimal | None = await database.value(
        """UPDATE products SET stock = stock + $2::numeric, version = version + 1, updated_at = clock_timestamp()
           WHERE id = $1 AND stock + $2::numeric BETWEEN 0 AND $3::numeric RETURNING stock""",
        product_id,
        by,
        most,
    )
    return left


async def delete(product_id: UUID) -> bool:
    """Remove a product with its prices and its places of media; False when it is gone already."""
    return await database.value("DELETE FROM products WHERE id = $1 RETURNING id", product_id) is not None


async def prices(
    product_id: UUID, *, after: UUID | None, before: UUID | None, backwards: bool, limit: int
) -> list[Row]:
    """What a product cost, newest first, strictly between two ids; backwards from the oldest."""
    values: list[Any] = [product_id]
    bounds, by = keyset.between(
        "id",
        "${}::uuid",
        values,
        after=None if after is None else (after,),
        before=None if before is None else (before,),
        descending=True,
        backwards=backwards,
    )
    values.append(limit)
    return await database.rows(
        f"""SELECT id, price, currency, source, changed_at FROM product_prices
            WHERE {" AND ".join(["product_id = $1", *bounds])} ORDER BY {by} LIMIT ${len(values)}""",
        *values,
    )


async def count_prices(product_id: UUID) -> int:
    """How many prices a product had."""
    return int(await database.value("SELECT count(*) FROM product_prices WHERE product_id = $1", product_id))


async def media(product_ids: Sequence[UUID]) -> list[Row]:
    """The media of products, each in its place."""
    return await database.rows(
        """SELECT m.product_id, m.media_id, m.position, m.alt, f.kind, f.content_type, f.filename, f.size, f.width,
                  f.height, f.has_thumbnail
           FROM product_media m JOIN media f ON f.id = m.media_id
           WHERE m.product_id = ANY($1::uuid[]) ORDER BY m.product_id, m.position""",
        list(product_ids),
    )


async def sources(product_ids: Sequence[UUID], *, most: int = 100) -> list[Row]:
    """The first listings of each product that crawls have seen, up to `most`."""
    return await database.rows(
        """SELECT s.product_id, s.source, s.source_id, s.url, s.price, s.currency, s.first_seen_at, s.last_seen_at,
                  s.gone_at
           FROM unnest($1::uuid[]) AS wanted(id) CROSS JOIN LATERAL (
               SELECT * FROM product_sources WHERE product_id = wanted.id ORDER BY id LIMIT $2) AS s
           ORDER BY s.product_id, s.id""",
        list(product_ids),
        most,
    )


async def set_media(product_id: UUID, items: Sequence[tuple[UUID, str]]) -> None:
    """Replace the media of a product by these, given as medium and description; call it after `lock`."""
    await database.rows("DELETE FROM product_media WHERE product_id = $1", product_id)
    await database.rows(
        """INSERT INTO product_media (id, product_id, media_id, position, alt)
           SELECT g.id, $1, g.media_id, g.position - 1, g.alt
           FROM unnest($2::uuid[], $3::uuid[], $4::text[]) WITH ORDINALITY AS g(id, media_id, alt, position)""",
        product_id,
        [new_id() for _ in items],
        [media_id for media_id, _ in items],
        [alt for _, alt in items],
    )
    await database.rows(
        "UPDATE products SET version = version + 1, updated_at = clock_timestamp() WHERE id = $1", product_id
    )


async def import_details(import_id: UUID, action: str) -> dict[str, Any]:
    """What the audit trail says of an import."""
    text = await database.value(
        "SELECT details::text FROM audit_events WHERE target_id = $1 AND action = $2", import_id, action
    )
    return {} if text is None else dict(database.from_json(text))


def written(products: Sequence[Mapping[str, Any]]) -> str:
    """Products with all of the columns, each with its id, as a parameter."""
    return database.to_json([{name: product[name] for name in ("id", *_WRITTEN)} for product in products])
