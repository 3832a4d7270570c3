"""Properties as clients see them: what crawls have found on offer, its search and its facets.

What is allowed is decided in `resolvers/properties.py` and at the gate. Invariant: money and areas are `Decimal`, and a
facet or the number of all is counted only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from errors import ValidationFailed
from models import database, property_queries, property_search
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Actor, Permission
from models.property_search import Between, Facet, Near, PropertyConditions, PropertyOrderField
from resolvers import access, properties
from schema.context import Context
from schema.enums import publish
from schema.jobs import Job, load_job
from schema.node import Node, register_node
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, Edge, First, Last, paginate
from schema.permissions import requires
from tasks.crawl.property_listings import AreaUnit

Info = strawberry.Info[Context, None]

publish(
    PropertyOrderField,
    "What a list of properties is sorted by. What does not say it comes last in ascending order, in its currency.",
    PRICE="Its currency, then its price; what has no currency comes behind all that have one.",
    AREA="Its area in square metres.",
    PRICE_PER_SQUARE_METRE="Its currency, then its price per square metre.",
    FIRST_SEEN="When a crawl saw it first.",
    LAST_SEEN="When a crawl saw it last.",
    DISTANCE="How far it is from the point of the filter's `near`, without which this is refused.",
)
publish(
    AreaUnit,
    "A unit of area.",
    SQUARE_FEET="The international square foot, 0.09290304 square metres.",
    SQUARE_METRES="The square metre.",
    ACRES="The international acre, 4046.8564224 square metres.",
    HECTARES="10,000 square metres.",
)
_KEYS: Final[dict[PropertyOrderField, tuple[Column, ...]]] = {
    PropertyOrderField.PRICE: (("currency_order", str), ("price_order", int)),
    PropertyOrderField.AREA: (("area_order", int),),
    PropertyOrderField.PRICE_PER_SQUARE_METRE: (("currency_order", str), ("unit_price_order", int)),
    PropertyOrderField.FIRST_SEEN: (("first_seen_at", datetime),),
    PropertyOrderField.LAST_SEEN: (("last_seen_at", datetime),),
    PropertyOrderField.DISTANCE: (("distance_metres", int),),
}
_DOWNWARDS: Final = frozenset({PropertyOrderField.FIRST_SEEN, PropertyOrderField.LAST_SEEN})
"""What is newest, at the start unless a direction is said."""
_PRICE_KEY: Final[tuple[Column, ...]] = (("-seen_at", datetime), ("-id", UUID))


@strawberry.type(description="What a listing asked from a moment on.")
class PropertyPrice:
    """An entry of a price history."""

    price: Decimal | None = strawberry.field(description="The price; null from when it named none.")
    currency: str | None = strawberry.field(description="Its currency (ISO 4217), where the site says it.")
    seen_at: datetime = strawberry.field(description="When a crawl first saw it.")


@strawberry.type(description="A house or flat on offer, as crawls of a site have found it. Each listing of it is one.")
class Property(Node):
    """A listing."""

    source: str = strawberry.field(description="The site: its host, with a port that is not the usual one.")
    source_id: str = strawberry.field(description="The site's own number of the listing.")
    url: str = strawberry.field(description="The listing's page.")
    title: str = strawberry.field(description="Its title.")
    price: Decimal | None = strawberry.field(description="What it asks.")
    currency: str | None = strawberry.field(description="Currency of the price (ISO 4217); never converted.")
    area: Decimal | None = strawberry.field(description="Its floor area, in the unit that the site uses.")
    area_unit: AreaUnit | None = strawberry.field(description="That unit; null where the site does not say.")
    square_metres: Decimal | None = strawberry.field(description="The area in square metres, exactly.")
    price_per_square_metre: Decimal | None = strawberry.field(description="Price by square metre, to 4 decimals.")
    bedrooms: float | None = strawberry.field(description="How many bedrooms.")
    bathrooms: float | None = strawberry.field(description="How many bathrooms; a half is one without a bath.")
    property_type: str | None = strawberry.field(description="What it is, in the site's word.")
    street: str | None = strawberry.field(description="Street and number.")
    city: str | None = strawberry.field(description="The place.")
    region: str | None = strawberry.field(description="State, province or the like.")
    postal_code: str | None = strawberry.field(description="The postal code.")
    country: str | None = strawberry.field(description="The country, as the site says it.")
    latitude: float | None = strawberry.field(description="Degrees north.")
    longitude: float | None = strawberry.field(description="Degrees east.")
    description: str = strawberry.field(description="What the site says of it; may be empty.")
    date_posted: str | None = strawberry.field(description="The date of the offer, as the site says it.")
    first_seen_at: datetime = strawberry.field(description="When a crawl saw it first.")
    last_seen_at: datetime = strawberry.field(description="When a crawl saw it last.")
    last_changed_at: datetime = strawberry.field(description="When a crawl last saw something of it change.")
    gone_at: datetime | None = strawberry.field(
        description="Since when it is gone: a complete run of its job did not see it any more. Null while it is there."
    )
    distance_kilometres: float | None = strawberry.field(
        description="How far it is from the point of the filter's `near`, to the metre; null where none was given."
    )
    key: strawberry.Private[UUID]
    job_id: strawberry.Private[UUID | None]
    images_text: strawberry.Private[str]

    @strawberry.field(description="URLs of its pictures, up to 200.")
    def images(self) -> list[str]:
        """Read when it is asked for."""
        images: list[str] = database.from_json(self.images_text)
        return images

    @strawberry.field(description="The job whose run saw it last; null when the job is deleted.")
    async def job(self, info: Info) -> Job | None:
        """Loaded for all properties of the answer at once."""
        if self.job_id is None or not info.context.actor.may(Permission.JOB_READ):
            return None
        return await load_job(info.context, self.job_id)

    @strawberry.field(description="What it asked over time, newest first.")
    async def price_history(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[PropertyPrice]:
        """One page of prices."""

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await property_queries.prices(
                self.key, after=after_key, before=before_key, backwards=backwards, limit=limit
            )

        return await paginate(
            fetch=fetch,
            count=lambda: property_queries.count_prices(self.key),
            first=first,
            after=after,
            last=last,
            before=before,
            key=_PRICE_KEY,
            node=lambda row: PropertyPrice(price=row["price"], currency=row["currency"], seen_at=row["seen_at"]),
        )


@strawberry.type(description="How many properties have a value.")
class PropertyFacetValue:
    """A value and its number."""

    value: str = strawberry.field(description="The value.")
    count: int = strawberry.field(description="How many properties have it.")


@strawberry.type(description="How many properties have so many bedrooms.")
class BedroomsFacetValue:
    """A number and how often it is there."""

    value: float = strawberry.field(description="How many bedrooms.")
    count: int = strawberry.field(description="How many properties have that many.")


@strawberry.type(description="What properties ask in one currency.")
class PropertyPriceRange:
    """A lowest and a highest price."""

    currency: str = strawberry.field(description="The currency (ISO 4217).")
    min: Decimal = strawberry.field(description="The lowest price.")
    max: Decimal = strawberry.field(description="The highest price.")
    count: int = strawberry.field(description="How many properties have a price in it.")


@strawberry.type(
    description="What a list of properties could be narrowed by. Each facet respects the search and all filters but "
    "its own, is counted only when it is asked for, and has up to 100 values, the largest first."
)
class PropertyFacets:
    """Facets of a list."""

    actor: strawberry.Private[Actor]
    wanted: strawberry.Private[PropertyConditions]

    @strawberry.field(description="Currencies of prices.")
    async def currencies(self) -> list[PropertyFacetValue]:
        """Counted when it is asked for."""
        return await self._values(Facet.CURRENCY)

    @strawberry.field(description="Cities; one that is written in several ways is one.")
    async def cities(self) -> list[PropertyFacetValue]:
        """Counted when it is asked for."""
        return await self._values(Facet.CITY)

    @strawberry.field(description="Types, in the sites' words.")
    async def property_types(self) -> list[PropertyFacetValue]:
        """Counted when it is asked for."""
        return await self._values(Facet.PROPERTY_TYPE)

    @strawberry.field(description="Sites.")
    async def sources(self) -> list[PropertyFacetValue]:
        """Counted when it is asked for."""
        return await self._values(Facet.SOURCE)

    @strawberry.field(description="Numbers of bedrooms.")
    async def bedrooms(self) -> list[BedroomsFacetValue]:
        """Counted when it is asked for."""
        rows = await property_search.values(self.actor, self.wanted, Facet.BEDROOMS)
        return [BedroomsFacetValue(value=row["value"], count=row["count"]) for row in rows]

    @strawberry.field(description="The lowest and highest price, one range per currency.")
    async def price_ranges(self) -> list[PropertyPriceRange]:
        """Looked up when it is asked for."""
        rows = await property_search.price_ranges(self.actor, self.wanted)
        return [
            PropertyPriceRange(currency=row["currency"], min=row["min"], max=row["max"], count=row["count"])
            for row in rows
        ]

    async def _values(self, facet: Facet) -> list[PropertyFacetValue]:
        rows = await property_search.values(self.actor, self.wanted, facet)
        return [PropertyFacetValue(value=row["value"], count=row["count"]) for row in rows]


@strawberry.type(description="One page of a list of properties.")
class PropertyConnection(Connection[Property]):
    """A page, and what the list could be narrowed by."""

    actor: strawberry.Private[Actor]
    wanted: strawberry.Private[PropertyConditions]

    @strawberry.field(description="What the list could be narrowed by.")
    def facets(self) -> PropertyFacets:
        """Each facet is counted by itself."""
        return PropertyFacets(actor=self.actor, wanted=self.wanted)


@strawberry.input(description="A range of exact numbers; both ends belong to it, one left out is open.")
class DecimalRange:
    """Bounds."""

    min: Decimal | None = strawberry.field(default=None, description="The lowest.")
    max: Decimal | None = strawberry.field(default=None, description="The highest.")


@strawberry.input(description="A range of numbers; both ends belong to it, one left out is open.")
class FloatRange:
    """Bounds."""

    min: float | None = strawberry.field(default=None, description="The lowest.")
    max: float | None = strawberry.field(default=None, description="The highest.")


@strawberry.input(description="Around a point.")
class NearFilter:
    """A circle on the earth."""

    latitude: float = strawberry.field(description="Degrees north, from -90 to 90.")
    longitude: float = strawberry.field(description="Degrees east, from -180 to 180.")
    kilometres: float = strawberry.field(description="How far around it: above 0, up to 500.")


@strawberry.input(
    description="Which properties; all given conditions must hold. Places are compared without case and accents."
)
class PropertyFilter:
    """Conditions."""

    price: DecimalRange | None = strawberry.field(
        default=None, description="What it asks, in whatever currency unless `currency` is given."
    )
    currency: str | None = strawberry.field(default=None, description="Properties with a price in this currency.")
    area: DecimalRange | None = strawberry.field(default=None, description="Its area in square metres.")
    bedrooms: FloatRange | None = strawberry.field(default=None, description="How many bedrooms.")
    bathrooms: FloatRange | None = strawberry.field(default=None, description="How many bathrooms.")
    property_type: str | None = strawberry.field(default=None, description="Its type, in the site's word, exactly.")
    location: str | None = strawberry.field(
        default=None,
        description="Words of street, city, region, postal code or country, or their beginnings; all must be there.",
    )
    city: str | None = strawberry.field(default=None, description="The whole name of the city.")
    region: str | None = strawberry.field(default=None, description="The whole name of the region.")
    country: str | None = strawberry.field(default=None, description="The country, as the site says it.")
    source: str | None = strawberry.field(default=None, description="The site, as a property's `source` says it.")
    near: NearFilter | None = strawberry.field(default=None, description="Properties around a point.")
    is_gone: bool | None = strawberry.field(
        default=None, description="True for what is gone, false for what is there; both where it is left out."
    )
    job_id: strawberry.ID | None = strawberry.field(default=None, description="What this job saw last.")
    price_changed_since: datetime | None = strawberry.field(
        default=None, description="Properties whose price changed then or later; a first price is no change."
    )
    first_seen_from: datetime | None = strawberry.field(
        default=None, description="Properties that were first seen then or later."
    )


@strawberry.input(description="How a list of properties is sorted.")
class PropertyOrder:
    """An order."""

    field: PropertyOrderField = strawberry.field(default=PropertyOrderField.FIRST_SEEN, description="By what.")
    direction: OrderDirection | None = strawberry.field(
        default=None,
        description="Which way. Left out: what was seen last, what is cheapest, smallest or nearest at the start.",
    )


@strawberry.type
class PropertiesQuery:
    """What can be read of properties."""

    @strawberry.field(
        description="A property. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.PROPERTY_READ)],
    )
    async def property(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The property.")]
    ) -> Property | None:
        """One property."""
        return property_of(await access.listing(info.context.actor, id, to=Permission.PROPERTY_READ))

    @strawberry.field(
        description="The properties that your crawls have found (administrators: everybody's), those first that were "
        "first seen last, unless said otherwise.",
        extensions=[requires(Permission.PROPERTY_READ)],
    )
    async def properties(
        self,
        info: Info,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Words of title, number, type, place or description, up to 8 and 200 characters, all of "
                "which must be there; case, accents and endings do not matter."
            ),
        ] = None,
        filter: Annotated[PropertyFilter | None, strawberry.argument(description="Which properties.")] = None,
        order_by: Annotated[PropertyOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> PropertyConnection:
        """One page of properties, in one statement."""
        actor = info.context.actor
        wanted = properties.checked(_conditions(search, filter or PropertyFilter()))
        order, is_descending = _order(order_by or PropertyOrder(), wanted)

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await property_search.page(
                actor,
                wanted,
                order=order,
                descending=is_descending,
                after=after_key,
                before=before_key,
                backwards=backwards,
                limit=limit,
            )

        sign = "-" if is_descending else ""
        page = await paginate(
            fetch=fetch,
            first=first,
            after=after,
            last=last,
            before=before,
            key=[(sign + name, kind) for name, kind in (*_KEYS[order], ("id", UUID))],
            node=property_of,
        )
        edges: list[Edge[Property]] = page.edges
        return PropertyConnection(
            edges=edges,
            page_info=page.page_info,
            count=lambda: property_search.count(actor, wanted),
            actor=actor,
            wanted=wanted,
        )


def property_of(row: Row) -> Property:
    """The property in a row with `models.property_queries.COLUMNS`, whatever else is in it."""
    metres = row.get("distance_metres")
    return Property(
        id=strawberry.ID(encode_id(Prefix.PROPERTY, row["id"])),
        area_unit=row["area_unit"] and AreaUnit(row["area_unit"]),
        distance_kilometres=None if metres is None else metres / 1000,
        key=row["id"],
        job_id=row["job_id"],
        images_text=row["images"],
        **{name: row[name] for name in _PLAIN},
    )


_PLAIN: Final = (
    *("source", "source_id", "url", "title", "price", "currency", "area", "square_metres", "price_per_square_metre"),
    *("bedrooms", "bathrooms", "property_type", "street", "city", "region", "postal_code", "country", "latitude"),
    *("longitude", "description", "date_posted", "first_seen_at", "last_seen_at", "last_changed_at", "gone_at"),
)
"""Fields that are columns by the same name."""


async def load_property(context: Context, property_id: UUID) -> Property | None:
    """The property, if the actor may see it; loaded for all who ask in one turn."""
    if not context.actor.may(Permission.PROPERTY_READ):
        return None
    row = await context.load(_load_properties, property_id)
    return None if row is None else property_of(row)


register_node(Prefix.PROPERTY)(load_property)


async def _load_properties(context: Context, property_ids: list[UUID]) -> Sequence[Row | None]:
    found = await properties.find(context.actor, property_ids)
    return [found.get(property_id) for property_id in property_ids]


def _conditions(search: str | None, filter: PropertyFilter) -> PropertyConditions:
    """The conditions that a client gave, unchecked."""
    near = filter.near
    return PropertyConditions(
        search=search,
        location=filter.location,
        price=_between(filter.price),
        currency=filter.currency,
        area=_between(filter.area),
        bedrooms=_between(filter.bedrooms),
        bathrooms=_between(filter.bathrooms),
        property_type=filter.property_type,
        city=filter.city,
        region=filter.region,
        country=filter.country,
        source=filter.source,
        near=None if near is None else Near(near.latitude, near.longitude, near.kilometres),
        is_gone=filter.is_gone,
        job_id=None if filter.job_id is None else access.uuid_of(filter.job_id, Prefix.JOB),
        price_changed_since=filter.price_changed_since,
        first_seen_from=filter.first_seen_from,
    )


def _between(given: DecimalRange | FloatRange | None) -> Between:
    return Between() if given is None else Between(given.min, given.max)


def _order(order_by: PropertyOrder, wanted: PropertyConditions) -> tuple[PropertyOrderField, bool]:
    """What to sort by, and whether downwards."""
    if order_by.field is PropertyOrderField.DISTANCE and wanted.near is None:
        raise ValidationFailed("A distance needs a point: give `filter.near`.", path=["orderBy", "field"])
    if order_by.direction is None:
        return order_by.field, order_by.field in _DOWNWARDS
    return order_by.field, order_by.direction is OrderDirection.DESC
