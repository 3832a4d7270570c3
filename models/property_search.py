"""Lists of properties: filters, search, order, pages, and how many there are of what.

Every list begins with the owner's condition. Sort keys are whole numbers and moments that columns hold, but for the
distance, which is made of the row and the point alone, in whole metres; the id decides between equals, so pages hold.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import database, keyset, near, search_words
from models.database import Row
from models.permissions import Actor
from models.property_queries import COLUMNS

MAX_FACET_VALUES: Final = 100
"""Values in a facet, the largest first."""

UNKNOWN: Final = 2**63 - 1
"""The sort key of what a property does not say."""

_KEY_STEPS: Final = 10_000
"""Sort keys are in ten-thousandths."""


class PropertyOrderField(StrEnum):
    """What a list of properties can be sorted by."""

    PRICE = "PRICE"
    AREA = "AREA"
    PRICE_PER_SQUARE_METRE = "PRICE_PER_SQUARE_METRE"
    FIRST_SEEN = "FIRST_SEEN"
    LAST_SEEN = "LAST_SEEN"
    DISTANCE = "DISTANCE"


@dataclass(frozen=True, slots=True)
class Between:
    """A lowest and a highest value, both included; None for no bound."""

    min: Decimal | float | None = None
    max: Decimal | float | None = None


class Near(NamedTuple):
    """A point and how far around it, in degrees and kilometres."""

    latitude: float
    longitude: float
    kilometres: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyConditions:
    """Which properties; all conditions must hold. Texts fit without case and accents."""

    search: str | None = None
    location: str | None = None
    price: Between = Between()
    currency: str | None = None
    area: Between = Between()
    bedrooms: Between = Between()
    bathrooms: Between = Between()
    property_type: str | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    source: str | None = None
    near: Near | None = None
    is_gone: bool | None = None
    job_id: UUID | None = None
    price_changed_since: datetime | None = None
    first_seen_from: datetime | None = None


# Columns and the casts of values that they are compared with, by what clients sort by.
_SORT_COLUMNS: Final[Mapping[PropertyOrderField, tuple[str, str]]] = {
    PropertyOrderField.PRICE: ("p.currency_order, p.price_order, p.id", "${}::text, ${}::bigint, ${}::uuid"),
    PropertyOrderField.AREA: ("p.area_order, p.id", "${}::bigint, ${}::uuid"),
    PropertyOrderField.PRICE_PER_SQUARE_METRE: (
        "p.currency_order, p.unit_price_order, p.id",
        "${}::text, ${}::bigint, ${}::uuid",
    ),
    PropertyOrderField.FIRST_SEEN: ("p.first_seen_at, p.id", "${}::timestamptz, ${}::uuid"),
    PropertyOrderField.LAST_SEEN: ("p.last_seen_at, p.id", "${}::timestamptz, ${}::uuid"),
    PropertyOrderField.DISTANCE: ("p.distance_metres, p.id", "${}::bigint, ${}::uuid"),
}
_PAGE_COLUMNS: Final = f"{COLUMNS}, p.currency_order, p.price_order, p.area_order, p.unit_price_order"


async def page(
    actor: Actor,
    conditions: PropertyConditions,
    *,
    order: PropertyOrderField,
    descending: bool,
    after: tuple[Any, ...] | None = None,
    before: tuple[Any, ...] | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Properties strictly between two sort keys; backwards from the end of the order. DISTANCE needs a point."""
    query = await prepared(actor, conditions)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, query.values, after=after, before=before, descending=descending, backwards=backwards
    )
    query.values.append(limit)
    return await database.rows(
        f"""SELECT * FROM {query.properties(_PAGE_COLUMNS)} WHERE {" AND ".join(["true", *bounds])}
            ORDER BY {by} LIMIT ${len(query.values)}""",
        *query.values,
    )


async def count(actor: Actor, conditions: PropertyConditions) -> int:
    """How many there are in all."""
    query = await prepared(actor, conditions)
    return int(await database.value(f"SELECT count(*) FROM {query.properties('p.id')}", *query.values))


class Facet(StrEnum):
    """What a list can be narrowed by, value by value."""

    CURRENCY = "currency"
    CITY = "city"
    PROPERTY_TYPE = "property_type"
    SOURCE = "source"
    BEDROOMS = "bedrooms"


async def values(actor: Actor, conditions: PropertyConditions, facet: Facet) -> list[Row]:
    """The values of what fits all conditions but that of the facet, each with its `count`, largest first."""
    own: dict[str, Any] = {facet.value: Between() if facet is Facet.BEDROOMS else None}
    query = await prepared(actor, replace(conditions, **own))
    # Sites write a city in one way or another; all of them are one, shown in one of the ways.
    by = "city_key" if facet is Facet.CITY else facet.value
    return await database.rows(
        f"""SELECT min(p.value) AS value, count(*) AS count
            FROM {query.properties(f"p.{by} AS form, p.{facet.value} AS value")}
            WHERE p.form IS NOT NULL GROUP BY p.form ORDER BY count(*) DESC, p.form LIMIT {MAX_FACET_VALUES}""",
        *query.values,
    )


async def price_ranges(actor: Actor, conditions: PropertyConditions) -> list[Row]:
    """The lowest and highest price, per currency, of what fits all conditions but those of the price."""
    query = await prepared(actor, replace(conditions, price=Between()))
    return await database.rows(
        f"""SELECT p.currency, min(p.price) AS min, max(p.price) AS max, count(*) AS count
            FROM {query.properties("p.currency, p.price")}
            WHERE p.currency IS NOT NULL GROUP BY p.currency ORDER BY p.currency""",
        *query.values,
    )


async def prepared(actor: Actor, conditions: PropertyConditions) -> Query:
    """The conditions as SQL; texts are brought to their form by the database, which has the dictionaries."""
    found = conditions.search and search_words.all_of(await search_words.forms(conditions.search))
    placed = conditions.location and search_words.all_of(await search_words.forms(conditions.location))
    places = {name: text for name in ("city", "region", "country") if (text := getattr(conditions, name)) is not None}
    forms: list[Row] = []
    if places:
        forms = await database.rows(
            """SELECT search_form(given) AS form FROM unnest($1::text[]) WITH ORDINALITY AS texts(given, place)
               ORDER BY place""",
            list(places.values()),
        )
    return Query(
        actor,
        conditions,
        words={"search_words": found, "location_words": placed},
        keys={f"{name}_key": row["form"] for name, row in zip(places, forms, strict=True)},
    )


class Query:
    """Conditions as SQL, and the parameters that they take.

    `words` are texts of tsqueries, by column, None where nothing was asked or asked for no word; `keys` are forms.
    """

    def __init__(
        self,
        actor: Actor,
        conditions: PropertyConditions,
        *,
        words: Mapping[str, str | None],
        keys: Mapping[str, str],
    ) -> None:
        self.values: list[Any] = []
        self._distance: str | None = None
        self._filters = [*self._owned(actor), *self._filtered(conditions)]
        for column, form in keys.items():
            self._filters.append(f"p.{column} = {self._put(form)}::text")
        asked = {"search_words": conditions.search, "location_words": conditions.location}
        for column, query in words.items():
            if asked[column] is not None:
                self._filters.append("false" if query is None else f"p.{column} @@ {self._put(query)}::text::tsquery")

    def properties(self, columns: str) -> str:
        """What stands behind FROM: rows `p` with these columns of `properties p`, and near a point the distance."""
        if self._distance is not None:
            columns += f", round({self._distance})::bigint AS distance_metres"
        return f"(SELECT {columns} FROM properties p WHERE {' AND '.join(self._filters)}) p"

    def _owned(self, actor: Actor) -> list[str]:
        if actor.is_admin:
            return ["true"]
        # For nobody it is null, which no owner equals.
        return [f"p.owner_id = {self._put(actor.user_id)}::uuid", *([] if actor.covers(None) else ["false"])]

    def _filtered(self, wanted: PropertyConditions) -> list[str]:
        where = self._priced(wanted.price)
        for column, kind, bounds in (
            ("square_metres", "numeric", wanted.area),
            ("bedrooms", "float8", wanted.bedrooms),
            ("bathrooms", "float8", wanted.bathrooms),
        ):
            if bounds.min is not None:
                where.append(f"p.{column} >= {self._put(bounds.min)}::{kind}")
            if bounds.max is not None:
                where.append(f"p.{column} <= {self._put(bounds.max)}::{kind}")
        for column, kind, value in (
            ("currency_order", "text", wanted.currency),
            ("property_type", "text", wanted.property_type),
            ("source", "text", wanted.source),
            ("job_id", "uuid", wanted.job_id),
        ):
            if value is not None:
                where.append(f"p.{column} = {self._put(value)}::{kind}")
        if wanted.is_gone is not None:
            where.append(f"p.gone_at IS {'NOT NULL' if wanted.is_gone else 'NULL'}")
        if wanted.price_changed_since is not None:
            # The first price of a listing is no change of it.
            where.append(
                f"p.price_changed_at >= {self._put(wanted.price_changed_since)}::timestamptz"
                " AND p.price_changed_at > p.first_seen_at"
            )
        if wanted.first_seen_from is not None:
            where.append(f"p.first_seen_at >= {self._put(wanted.first_seen_from)}::timestamptz")
        return where + self._near(wanted.near)

    def _priced(self, bounds: Between) -> list[str]:
        """By the sort key, which is as exact as a price: then a list by price begins where the range does."""
        where = []
        if bounds.min is not None:
            least = (Decimal(bounds.min) * _KEY_STEPS).to_integral_value(ROUND_CEILING)
            where.append(f"p.price_order >= {self._put(min(int(least), UNKNOWN))}::bigint")
        if bounds.max is not None:
            most = (Decimal(bounds.max) * _KEY_STEPS).to_integral_value(ROUND_FLOOR)
            where.append(f"p.price_order <= {self._put(min(int(most), UNKNOWN))}::bigint")
        return [*where, f"p.price_order < {UNKNOWN}"] if where else []

    def _near(self, around: Near | None) -> list[str]:
        if around is None:
            return []
        boxes = []
        north_of_equator, east_of_greenwich = (round(each, near.DECIMALS) for each in around[:2])
        for box in near.boxes(north_of_equator, east_of_greenwich, around.kilometres):
            south, west, north, east = (f"{self._put(each)}::float8" for each in box)
            boxes.append(f"p.place <@ box(point({west}, {south}), point({east}, {north}))")
        latitude, longitude = f"{self._put(north_of_equator)}::float8", f"{self._put(east_of_greenwich)}::float8"
        self._distance = near.distance_metres(latitude, longitude, of="p")
        return [f"({' OR '.join(boxes)})", f"{self._distance} <= {self._put(around.kilometres * 1000)}::float8"]

    def _put(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"
