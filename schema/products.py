"""Products as clients see them: a catalogue that anybody may read, its search and its facets.

What is allowed is decided in `resolvers/products.py` and at the gate; commands are in `schema/product_commands.py`.
Invariant: money is `Decimal`, and a facet or the number of all is counted only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import strawberry

from errors import ValidationFailed
from models import database, product_queries, product_search
from models.database import Row
from models.ids import Prefix, encode_id
from models.product_search import ProductConditions, ProductOrderField
from models.products import PriceSource
from resolvers import access, product_media, products
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, Edge, First, Last, by_one_key, paginate
from schema.permissions import public
from schema.scalars import JSON

Info = strawberry.Info[Context, None]
Value = TypeVar("Value")

publish(
    ProductOrderField,
    "What a list of products is sorted by.",
    RELEVANCE="How well it fits the search; without a search, its name.",
    NAME="Its name, without regard to case and accents.",
    PRICE="Its currency, then its price; what has no price comes last in ascending order.",
    UPDATED="When it last changed.",
    CREATED="When it was added.",
)
publish(
    PriceSource,
    "What set a price.",
    MANUAL="An administrator.",
    IMPORT="A file that was imported.",
    DOCUMENT="A document that was read.",
    CRAWL="A site where a crawl has found it.",
)
_KEYS: Final[dict[ProductOrderField, tuple[Column, ...]]] = {
    ProductOrderField.RELEVANCE: (("score", int),),
    ProductOrderField.NAME: (("search_name", str),),
    ProductOrderField.PRICE: (("currency_order", str), ("price_order", int)),
    ProductOrderField.UPDATED: (("updated_at", datetime),),
    ProductOrderField.CREATED: (),
}
_DOWNWARDS: Final = frozenset({ProductOrderField.RELEVANCE, ProductOrderField.UPDATED, ProductOrderField.CREATED})
"""What is best, or newest, at the start unless a direction is said."""


@strawberry.type(description="A picture, document or video of a product.")
class ProductMedia:
    """A medium in its place."""

    media_id: strawberry.ID = strawberry.field(description="The medium.")
    alt: str = strawberry.field(description="What it shows, for those who cannot see it; may be empty.")
    content_type: str = strawberry.field(description="Its media type, such as image/png.")
    width: int | None = strawberry.field(description="In pixels, where there are pixels.")
    height: int | None = strawberry.field(description="In pixels, where there are pixels.")
    row: strawberry.Private[Row]

    @strawberry.field(description="A link to the file that works for a while.")
    async def url(self) -> str:
        """Signed when it is asked for."""
        return await product_media.url(self.row)


@strawberry.type(description="What a product cost from a moment on.")
class ProductPrice:
    """An entry of a price history."""

    price: Decimal | None = strawberry.field(description="The price; null from when it had none.")
    currency: str | None = strawberry.field(description="Its currency (ISO 4217).")
    source: PriceSource = strawberry.field(description="What set it.")
    changed_at: datetime = strawberry.field(description="From when on.")


@strawberry.type(description="A listing of a product on a site, as crawls have seen it.")
class ProductSource:
    """Where a product was found."""

    source: str = strawberry.field(description="The site: its host, with a port that is not the usual one.")
    source_id: str = strawberry.field(description="What tells the listing from others of the site.")
    url: str = strawberry.field(description="The listing's page.")
    price: Decimal | None = strawberry.field(description="What it costs there, when that could be read.")
    currency: str | None = strawberry.field(description="Currency of that price (ISO 4217).")
    first_seen_at: datetime = strawberry.field(description="When a crawl saw it first.")
    last_seen_at: datetime = strawberry.field(description="When a crawl saw it last.")
    gone_at: datetime | None = strawberry.field(
        description="Since when it is gone: a complete run of its job did not see it any more."
    )


@strawberry.type(description="Something that is sold.")
class Product(Node):
    """A product."""

    name: str = strawberry.field(description="The name to show.")
    slug: str = strawberry.field(description="A name for addresses; unique, and stable unless somebody changes it.")
    sku: str | None = strawberry.field(description="The shop's own number; unique without regard to case and spaces.")
    ean: str | None = strawberry.field(description="Its GTIN: 8, 13 or 14 digits; unique.")
    description: str = strawberry.field(description="What there is to say of it.")
    price: Decimal | None = strawberry.field(description="The price of one unit; null when it has none.")
    currency: str | None = strawberry.field(description="Currency of the price (ISO 4217).")
    unit: str | None = strawberry.field(description="What is counted, such as kg or box.")
    stock: Decimal | None = strawberry.field(description="How much there is, in units; null when that is not counted.")
    category: str | None = strawberry.field(description="What it is sorted under.")
    is_active: bool = strawberry.field(description="Whether everybody sees it; inactive ones are for administrators.")
    version: int = strawberry.field(description="Grows with each change; for `updateProduct`.")
    created_at: datetime = strawberry.field(description="When it was added.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    key: strawberry.Private[UUID]
    attributes_text: strawberry.Private[str]

    @strawberry.field(description="More about it: names with values, or with lists or objects of values.")
    def attributes(self) -> JSON:
        """Read when it is asked for."""
        return JSON(database.from_json(self.attributes_text))

    @strawberry.field(description="Whether there is some: more than nothing, or as much as one likes.")
    def in_stock(self) -> bool:
        """What is not counted is there."""
        return self.stock is None or self.stock > 0

    @strawberry.field(description="Its pictures, documents and videos, in their order: up to 20.")
    async def media(self, info: Info) -> list[ProductMedia]:
        """Loaded for all products of the answer at once."""
        return [_medium_of(row) for row in await info.context.load(_load_media, self.key)]

    @strawberry.field(
        description="Sites where crawls have found it, up to 100, those first that were found first. Empty for whoever "
        "may not change products."
    )
    async def sources(self, info: Info) -> list[ProductSource]:
        """Loaded for all products of the answer at once."""
        return [
            ProductSource(**{name: value for name, value in row.items() if name != "product_id"})
            for row in await info.context.load(_load_sources, self.key)
        ]

    @strawberry.field(description="What it cost, newest first.")
    async def price_history(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[ProductPrice]:
        """One page of prices."""

        async def page(**bounds: Any) -> list[Row]:
            return await product_queries.prices(self.key, **bounds)

        return await paginate(
            fetch=by_one_key(page),
            count=lambda: product_queries.count_prices(self.key),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: ProductPrice(
                price=row["price"],
                currency=row["currency"],
                source=PriceSource(row["source"]),
                changed_at=row["changed_at"],
            ),
        )


@strawberry.type(description="How many products have a value.")
class ProductFacetValue:
    """A value and its number."""

    value: str = strawberry.field(description="The value.")
    count: int = strawberry.field(description="How many products have it.")


@strawberry.type(description="What products cost in one currency.")
class ProductPriceRange:
    """A lowest and a highest price."""

    currency: str = strawberry.field(description="The currency (ISO 4217).")
    min: Decimal = strawberry.field(description="The lowest price.")
    max: Decimal = strawberry.field(description="The highest price.")


@strawberry.type(
    description="What a list of products could be narrowed by. Each facet respects the search and all filters but its "
    "own, and is counted only when it is asked for."
)
class ProductFacets:
    """Facets of a list."""

    wanted: strawberry.Private[ProductConditions | None]

    @strawberry.field(description="Categories with their numbers, largest first, up to 100.")
    async def categories(self) -> list[ProductFacetValue]:
        """Counted when it is asked for."""
        rows: list[Row] = await _or(self.wanted, product_search.categories, [])
        return [ProductFacetValue(value=row["value"], count=row["count"]) for row in rows]

    @strawberry.field(description="The lowest and highest price, one range per currency.")
    async def price_ranges(self) -> list[ProductPriceRange]:
        """Looked up when it is asked for."""
        rows: list[Row] = await _or(self.wanted, product_search.price_ranges, [])
        return [ProductPriceRange(currency=row["currency"], min=row["min"], max=row["max"]) for row in rows]

    @strawberry.field(description="How many are in stock.")
    async def in_stock(self) -> int:
        """Counted when it is asked for."""
        return await _or(self.wanted, product_search.count_in_stock, 0)


@strawberry.type(description="One page of a list of products.")
class ProductConnection(Connection[Product]):
    """A page, and what the list could be narrowed by."""

    wanted: strawberry.Private[ProductConditions | None]

    @strawberry.field(description="What the list could be narrowed by.")
    def facets(self) -> ProductFacets:
        """Each facet is counted by itself."""
        return ProductFacets(wanted=self.wanted)


@strawberry.input(description="An attribute that products have.")
class ProductAttributeFilter:
    """A name and a value."""

    name: str = strawberry.field(description="Name of the attribute.")
    value: str = strawberry.field(
        description="Its value as text, exactly. It also finds the number or boolean that the text names, and lists "
        "that have it."
    )


@strawberry.input(description="Which products; all given conditions must hold.")
class ProductFilter:
    """Conditions."""

    category: str | None = strawberry.field(default=None, description="Products of exactly this category.")
    categories: list[str] | None = strawberry.field(
        default=None, description="Products of one of these categories: up to 50."
    )
    price_min: Decimal | None = strawberry.field(
        default=None, description="Products that cost at least that, in whatever currency unless `currency` is given."
    )
    price_max: Decimal | None = strawberry.field(
        default=None, description="Products that cost at most that, in whatever currency unless `currency` is given."
    )
    currency: str | None = strawberry.field(default=None, description="Products with a price in this currency.")
    in_stock: bool | None = strawberry.field(
        default=None, description="True for what is there or not counted, false for what is sold out."
    )
    is_active: bool | None = strawberry.field(
        default=None, description="Active or inactive ones; only administrators see any of the latter."
    )
    attributes: list[ProductAttributeFilter] = strawberry.field(
        default_factory=list, description="Attributes that products have, all of them: up to 10."
    )
    updated_after: datetime | None = strawberry.field(default=None, description="Products that changed after that.")


@strawberry.input(description="How a list of products is sorted.")
class ProductOrder:
    """An order."""

    field: ProductOrderField = strawberry.field(description="By what.")
    direction: OrderDirection | None = strawberry.field(
        default=None,
        description="Which way. Left out: what fits best, what is newest, the first name and the lowest price at the "
        "start.",
    )


@strawberry.type
class ProductsQuery:
    """What can be read of products."""

    @strawberry.field(
        description="The product with this id or slug. NOT_FOUND when there is none, or it is inactive and you are no "
        "administrator.",
        extensions=[public()],
    )
    async def product(
        self,
        info: Info,
        id: Annotated[strawberry.ID | None, strawberry.argument(description="The product.")] = None,
        slug: Annotated[str | None, strawberry.argument(description="Its slug, instead of the id.")] = None,
    ) -> Product | None:
        """One product."""
        if (id is None) == (slug is None):
            raise ValidationFailed("Give either `id` or `slug`.", path=["id"])
        if id is not None:
            return product_of(await access.product(info.context.actor, id))
        return product_of(await products.find_slug(info.context.actor, slug or ""))

    @strawberry.field(
        description="The catalogue: what fits best first with a search, else by name, unless said otherwise. "
        "Administrators see inactive products too.",
        extensions=[public()],
    )
    async def products(
        self,
        info: Info,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="A SKU or EAN, the start of a name, or words in Spanish or English, up to 8 and 200 "
                "characters; case, accents, plurals and small typing errors do not matter."
            ),
        ] = None,
        filter: Annotated[ProductFilter | None, strawberry.argument(description="Which products.")] = None,
        order_by: Annotated[ProductOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> ProductConnection:
        """One page of products, in one statement."""
        wanted = products.visible(info.context.actor, conditions_of(search, filter))
        order, is_descending = _order(order_by, wanted)

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            if wanted is None:
                return []
            return await products.page(
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
            node=product_of,
        )
        edges: list[Edge[Product]] = page.edges
        return ProductConnection(
            edges=edges,
            page_info=page.page_info,
            count=lambda: _or(wanted, product_search.count, 0),
            wanted=wanted,
        )


def conditions_of(search: str | None, filter: ProductFilter | None) -> ProductConditions:
    """The conditions that a client gave, unchecked."""
    if filter is None:
        return ProductConditions(search=search)
    categories = None if filter.categories is None else set(filter.categories)
    if filter.category is not None:
        categories = {filter.category} if categories is None else categories & {filter.category}
    return ProductConditions(
        search=search,
        categories=None if categories is None else tuple(sorted(categories)),
        price_min=filter.price_min,
        price_max=filter.price_max,
        currency=filter.currency,
        in_stock=filter.in_stock,
        is_active=filter.is_active,
        attributes=tuple((attribute.name, attribute.value) for attribute in filter.attributes),
        updated_after=filter.updated_after,
    )


def product_of(row: Row) -> Product:
    """The product in a row with `models.product_queries.COLUMNS`, whatever else is in it."""
    return Product(
        id=strawberry.ID(encode_id(Prefix.PRODUCT, row["id"])),
        name=row["name"],
        slug=row["slug"],
        sku=row["sku"],
        ean=row["ean"],
        description=row["description"],
        price=row["price"],
        currency=row["currency"],
        unit=row["unit"],
        stock=row["stock"],
        category=row["category"],
        is_active=row["is_active"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        key=row["id"],
        attributes_text=row["attributes"],
    )


async def load_product(context: Context, product_id: UUID) -> Product | None:
    """The product, if the actor may see it; loaded for all who ask in one turn."""
    row = await context.load(_load_products, product_id)
    return None if row is None else product_of(row)


register_node(Prefix.PRODUCT)(load_product)


async def _load_products(context: Context, product_ids: list[UUID]) -> Sequence[Row | None]:
    found = await products.find(context.actor, product_ids)
    return [found.get(product_id) for product_id in product_ids]


async def _load_media(_context: Context, product_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await product_media.of_products(product_ids)
    return [found[product_id] for product_id in product_ids]


async def _load_sources(context: Context, product_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await products.sources(context.actor, product_ids)
    return [found[product_id] for product_id in product_ids]


def _medium_of(row: Row) -> ProductMedia:
    return ProductMedia(
        media_id=strawberry.ID(encode_id(Prefix.MEDIA, row["media_id"])),
        alt=row["alt"],
        content_type=row["content_type"],
        width=row["width"],
        height=row["height"],
        row=row,
    )


def _order(order_by: ProductOrder | None, wanted: ProductConditions | None) -> tuple[ProductOrderField, bool]:
    """What to sort by, and whether downwards."""
    is_searched = wanted is not None and wanted.search is not None
    field = ProductOrderField.RELEVANCE if order_by is None else order_by.field
    if field is ProductOrderField.RELEVANCE and not is_searched:
        field = ProductOrderField.NAME
    direction = None if order_by is None else order_by.direction
    return field, field in _DOWNWARDS if direction is None else direction is OrderDirection.DESC


async def _or(
    wanted: ProductConditions | None, read: Callable[[ProductConditions], Awaitable[Value]], nothing: Value
) -> Value:
    """What is read of these products; `nothing` where no product can fit."""
    return nothing if wanted is None else await read(wanted)
