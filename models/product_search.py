"""Lists of products: filters, search, order, pages, and how many there are of what.

A search has four tiers, each above the next: SKU or EAN exactly; the name begins with the text; all words are there, as
prefixes or by their stem; all words resemble words of the name. Inside a tier the score is a number made of the row and
the text alone, and the id decides between equals, so pages by (score, id) hold. Without case and accents throughout.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import orjson

from models import database, keyset, search_words
from models.database import Row
from models.product_queries import COLUMNS

MAX_CATEGORIES: Final = 100
"""Categories in a facet, the largest first."""

ENOUGH: Final = 50
"""So many products that have the words as they are written, and nobody looks for those that resemble them."""

_SHORTEST_TYPO: Final = 5
"""Shorter words have too few trigrams to say what they were meant to be."""

_EAN: Final = re.compile(r"[0-9]{8,14}")


class ProductOrderField(StrEnum):
    """What a list of products can be sorted by."""

    RELEVANCE = "RELEVANCE"
    NAME = "NAME"
    PRICE = "PRICE"
    UPDATED = "UPDATED"
    CREATED = "CREATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductConditions:
    """Which products; all conditions must hold. `attributes` are names with the text of a value."""

    search: str | None = None
    categories: tuple[str, ...] | None = None
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    currency: str | None = None
    in_stock: bool | None = None
    is_active: bool | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    updated_after: datetime | None = None


# Columns and the casts of values that they are compared with, by what clients sort by.
_SORT_COLUMNS: Final[Mapping[ProductOrderField, tuple[str, str]]] = {
    ProductOrderField.RELEVANCE: ("p.score, p.id", "${}::int, ${}::uuid"),
    ProductOrderField.NAME: ("p.search_name, p.id", "${}::text, ${}::uuid"),
    ProductOrderField.PRICE: ("p.currency_order, p.price_order, p.id", "${}::text, ${}::bigint, ${}::uuid"),
    ProductOrderField.UPDATED: ("p.updated_at, p.id", "${}::timestamptz, ${}::uuid"),
    ProductOrderField.CREATED: ("p.id", "${}::uuid"),
}
_PAGE_COLUMNS: Final = (
    f"{COLUMNS}, p.search_name, coalesce(p.currency, '~') COLLATE \"C\" AS currency_order,"
    " (coalesce(p.price, 0) * 10000)::bigint AS price_order"
)


async def page(
    conditions: ProductConditions,
    *,
    order: ProductOrderField,
    descending: bool,
    after: tuple[Any, ...] | None = None,
    before: tuple[Any, ...] | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Products strictly between two sort keys; backwards from the end of the order. RELEVANCE needs a search."""
    query = await prepared(conditions)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, query.values, after=after, before=before, descending=descending, backwards=backwards
    )
    query.values.append(limit)
    return await database.rows(
        f"""SELECT * FROM {query.products(_PAGE_COLUMNS)} WHERE {" AND ".join(["true", *bounds])}
            ORDER BY {by} LIMIT ${len(query.values)}""",
        *query.values,
    )


async def count(conditions: ProductConditions) -> int:
    """How many there are in all."""
    query = await prepared(conditions)
    return int(await database.value(f"SELECT count(*) FROM {query.products('p.id')}", *query.values))


async def categories(conditions: ProductConditions) -> list[Row]:
    """The categories of what fits all conditions but that of the category, largest first."""
    query = await prepared(replace(conditions, categories=None))
    return await database.rows(
        f"""SELECT p.category AS value, count(*) AS count FROM {query.products("p.category")}
            WHERE p.category IS NOT NULL GROUP BY p.category
            ORDER BY count(*) DESC, p.category LIMIT {MAX_CATEGORIES}""",
        *query.values,
    )


async def price_ranges(conditions: ProductConditions) -> list[Row]:
    """The lowest and highest price, per currency, of what fits all conditions but those of the price."""
    query = await prepared(replace(conditions, price_min=None, price_max=None))
    return await database.rows(
        f"""SELECT p.currency, min(p.price) AS min, max(p.price) AS max FROM {query.products("p.currency, p.price")}
            WHERE p.price IS NOT NULL GROUP BY p.currency ORDER BY p.currency""",
        *query.values,
    )


async def count_in_stock(conditions: ProductConditions) -> int:
    """How many are in stock of what fits all conditions but that of the stock."""
    return await count(replace(conditions, in_stock=True))


async def prepared(conditions: ProductConditions) -> Query:
    """The conditions as SQL; what is looked for is brought to its form by the database, which has the dictionaries."""
    if conditions.search is None:
        return Query(conditions, [])
    return Query(conditions, await search_words.forms(conditions.search))


class Query:
    """Conditions as SQL, and the parameters that they take; `forms` are the search's and those of its words."""

    def __init__(self, conditions: ProductConditions, forms: Sequence[tuple[str, str]]) -> None:
        self.values: list[Any] = []
        self._filters = self._filtered(conditions)
        self._tiers: list[tuple[str, str]] = []
        if conditions.search is not None:
            text, words = forms[0][0], [(form, query) for form, query in forms[1:] if query]
            self._search(search_words.plain(conditions.search), text, words)

    def products(self, columns: str) -> str:
        """What stands behind FROM: rows `p` with these columns of `products p`, and a search's `score`."""
        where = " AND ".join(["true", *self._filters])
        if not self._tiers:
            return f"(SELECT {columns} FROM products p WHERE {where}) p"
        # No row is in two tiers, so each tier is one scan of its own index, and no condition is looked at twice.
        scans = (
            f"SELECT {columns}, {score} AS score FROM products p WHERE {where} AND {condition}"
            for condition, score in self._tiers
        )
        return f"({' UNION ALL '.join(scans)}) p"

    def _filtered(self, wanted: ProductConditions) -> list[str]:
        where = []
        if wanted.categories is not None:
            where.append(f"p.category = ANY({self._put(list(wanted.categories))}::text[])")
        if wanted.currency is not None:
            where.append(f"p.currency = {self._put(wanted.currency)}")
        if wanted.price_min is not None:
            where.append(f"p.price >= {self._put(wanted.price_min)}::numeric")
        if wanted.price_max is not None:
            where.append(f"p.price <= {self._put(wanted.price_max)}::numeric")
        if wanted.in_stock is not None:
            where.append("(p.stock > 0 OR p.stock IS NULL)" if wanted.in_stock else "p.stock = 0")
        if wanted.is_active is not None:
            where.append("p.is_active" if wanted.is_active else "NOT p.is_active")
        if wanted.updated_after is not None:
            where.append(f"p.updated_at > {self._put(wanted.updated_after)}::timestamptz")
        for name, value in wanted.attributes:
            either = (f"p.attributes @> {self._put(database.to_json({name: part}))}::jsonb" for part in _read_as(value))
            where.append(f"({' OR '.join(either)})")
        return where

    def _search(self, plain: str, text: str, words: list[tuple[str, str]]) -> None:
        key = "".join(plain.casefold().split())
        exact = f"p.sku_key = {self._put(key)}::text"
        digits = key.replace("-", "")
        if _EAN.fullmatch(digits):
            same = {digits, digits.rjust(13, "0"), digits.removeprefix("0")}
            exact = f"({exact} OR p.ean = ANY({self._put(sorted(same))}::text[]))"
        escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        begins = f"p.search_name LIKE {self._put(escaped + '%')}::text"
        shorter = "999 - least(length(p.search_name), 999)"
        # `IS NOT TRUE`, because there are products without a SKU.
        beyond = f"({exact}) IS NOT TRUE"
        self._tiers = [(exact, "4000000"), (f"{begins} AND {beyond}", f"3000000 + {shorter}")]
        if not words:
            return
        beyond += f" AND NOT {begins}"
        has_words = f"p.search_words @@ {self._put(' & '.join(f'({query})' for _, query in words))}::text::tsquery"
        singulars = [f"{self._put(_singular(form))}::text" for form, _ in words]
        in_name = " + ".join(f"(strpos(p.search_name, {singular}) > 0)::int" for singular in singulars)
        self._tiers.append((f"{has_words} AND {beyond}", f"2000000 + 1000 * ({in_name}) + {shorter}"))
        if not any(_may_be_misspelt(form) for form, _ in words):
            return
        places = [f"{self._put(form)}::text" for form, _ in words]
        alike = " AND ".join(
            f"{place} <% p.search_name"
            if _may_be_misspelt(form)
            else f"p.search_words @@ {self._put(query)}::text::tsquery"
            for place, (form, query) in zip(places, words, strict=True)
        )
        likeness = " + ".join(f"word_similarity({place}, p.search_name)" for place in places)
        # Whether there is enough without them does not depend on filters, or pages and facets would not agree.
        found = f"SELECT 1 FROM products p WHERE p.is_active AND {has_words} LIMIT {ENOUGH}"
        wanted = f"(SELECT count(*) FROM ({found}) AS found) < {ENOUGH}"
        self._tiers.append(
            (f"{wanted} AND {alike} AND NOT {has_words} AND {beyond}", f"1000000 + (1000 * ({likeness}))::int")
        )

    def _put(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def _singular(word: str) -> str:
    """A word without what most plurals end with: names that have it in either number are above descriptions."""
    return re.sub("(?<=...)e?s$", "", word)


def _may_be_misspelt(word: str) -> bool:
    return len(word) >= _SHORTEST_TYPO and not word.isdigit()


def _read_as(value: str) -> list[Any]:
    """What an attribute may be whose value is this text: the text, a list that has it, or the number that it names."""
    found: list[Any] = [value, [value]]
    try:
        scalar = orjson.loads(value)
    except orjson.JSONDecodeError:
        return found
    return [*found, scalar, [scalar]] if isinstance(scalar, bool | int | float) else found
