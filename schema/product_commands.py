"""What administrators do with products: make, change, delete them, count their stock, give them media."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, cast

import strawberry

from models.database import Row
from models.permissions import Permission
from resolvers import access, product_media, products
from resolvers.products import ProductDraft
from schema.context import Context
from schema.permissions import requires
from schema.products import Product, product_of
from schema.scalars import JSON

Info = strawberry.Info[Context, None]


@strawberry.input(description="A new product.")
class CreateProductInput:
    """What a product may have from the start."""

    name: str = strawberry.field(description="The name to show, up to 255 characters.")
    slug: str | None = strawberry.field(
        default=None,
        description="A name for addresses, up to 120 characters: a to z and digits, in words joined by hyphens. Made "
        "from the name if left out.",
    )
    sku: str | None = strawberry.field(default=None, description="The shop's own number, up to 64 characters; unique.")
    ean: str | None = strawberry.field(
        default=None, description="Its GTIN: 8, 12, 13 or 14 digits with the right check digit; unique."
    )
    description: str = strawberry.field(default="", description="What there is to say of it, up to 20,000 characters.")
    price: Decimal | None = strawberry.field(
        default=None, description="The price of one unit, not negative, with up to 4 decimals; needs a currency."
    )
    currency: str | None = strawberry.field(
        default=None, description="Currency of the price: three letters (ISO 4217)."
    )
    unit: str | None = strawberry.field(default=None, description="What is counted, up to 16 characters: kg, box.")
    stock: Decimal | None = strawberry.field(
        default=None, description="How much there is, not negative, with up to 3 decimals; null if that is not counted."
    )
    category: str | None = strawberry.field(default=None, description="What it is sorted under, up to 120 characters.")
    attributes: JSON | None = strawberry.field(
        default=None,
        description="A JSON object of up to 50 names and 16 KiB; values may be lists or objects, but no deeper.",
    )
    is_active: bool = strawberry.field(default=True, description="Whether everybody sees it.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Up to 255 characters. Repeat a call with its key, and it answers with the product that the first "
        "call made; CONFLICT when the rest of the input is not the same.",
    )


@strawberry.input(description="Changes of a product; what is left out stays as it is.")
class UpdateProductInput:
    """Which product changes, and what of it."""

    id: strawberry.ID = strawberry.field(description="The product.")
    expected_version: int | None = strawberry.field(
        default=None,
        description="The version that the changes were made from: CONFLICT when it is not the current one. Left out, "
        "they meet whatever is there.",
    )
    name: strawberry.Maybe[str] = strawberry.field(description="As in `CreateProductInput`; the slug stays.")
    slug: strawberry.Maybe[str] = strawberry.field(description="As in `CreateProductInput`. Old links break.")
    sku: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateProductInput`; null for none.")
    ean: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateProductInput`; null for none.")
    description: strawberry.Maybe[str] = strawberry.field(description="As in `CreateProductInput`.")
    price: strawberry.Maybe[Decimal | None] = strawberry.field(
        description="As in `CreateProductInput`; null takes the currency away as well."
    )
    currency: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateProductInput`.")
    unit: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateProductInput`; null for none.")
    stock: strawberry.Maybe[Decimal | None] = strawberry.field(
        description="As in `CreateProductInput`; `adjustStock` is for what comes and goes."
    )
    category: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateProductInput`; null for none.")
    attributes: strawberry.Maybe[JSON] = strawberry.field(
        description="As in `CreateProductInput`; they replace all that there were."
    )
    is_active: strawberry.Maybe[bool] = strawberry.field(description="Whether everybody sees it.")

    def changes(self) -> dict[str, Any]:
        """The given columns by their names."""
        given = {
            "name": self.name,
            "slug": self.slug,
            "sku": self.sku,
            "ean": self.ean,
            "description": self.description,
            "price": self.price,
            "currency": self.currency,
            "unit": self.unit,
            "stock": self.stock,
            "category": self.category,
            "attributes": self.attributes,
            "is_active": self.is_active,
        }
        return {column: some.value for column, some in given.items() if some is not None}


@strawberry.input(description="Which product goes.")
class DeleteProductInput:
    """A product to delete."""

    id: strawberry.ID = strawberry.field(description="The product.")


@strawberry.input(description="What comes or goes of a product.")
class AdjustStockInput:
    """A change of a stock."""

    id: strawberry.ID = strawberry.field(description="The product.")
    by: Decimal = strawberry.field(description="How much comes, or with a minus goes, with up to 3 decimals.")
    reason: str | None = strawberry.field(default=None, description="Why, for the audit trail; up to 255 characters.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="Up to 255 characters. A call that is repeated with its key changes nothing more."
    )


@strawberry.input(description="How much there is of a product.")
class SetStockInput:
    """A stock that was counted."""

    id: strawberry.ID = strawberry.field(description="The product.")
    stock: Decimal = strawberry.field(description="How much there is, not negative, with up to 3 decimals.")
    reason: str | None = strawberry.field(default=None, description="Why, for the audit trail; up to 255 characters.")


@strawberry.input(description="A medium for a product.")
class ProductMediaInput:
    """A medium and what it shows."""

    media_id: strawberry.ID = strawberry.field(description="The medium; it must be ready.")
    alt: str = strawberry.field(default="", description="What it shows, up to 255 characters.")


@strawberry.input(description="The media of a product.")
class SetProductMediaInput:
    """Which product has which media."""

    id: strawberry.ID = strawberry.field(description="The product.")
    items: list[ProductMediaInput] = strawberry.field(
        description="All media that it has from now on, in this order: up to 20, each once."
    )


@strawberry.type(description="A product that was made or changed.")
class ProductPayload:
    """A product."""

    product: Product = strawberry.field(description="The product as it is now.")


@strawberry.type(description="A product that is gone.")
class DeleteProductPayload:
    """A product that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class ProductsMutation:
    """What administrators do with products."""

    @strawberry.mutation(
        description="Add a product. VALIDATION_ERROR with `details.path` for what does not fit; CONFLICT with it when "
        "another product has the slug, SKU or EAN.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def create_product(
        self, info: Info, input: Annotated[CreateProductInput, strawberry.argument(description="The product.")]
    ) -> ProductPayload:
        """A new product."""
        draft = ProductDraft(
            name=input.name,
            slug=input.slug,
            sku=input.sku,
            ean=input.ean,
            description=input.description,
            price=input.price,
            currency=input.currency,
            unit=input.unit,
            stock=input.stock,
            category=input.category,
            attributes={} if input.attributes is None else cast(Mapping[str, Any], input.attributes),
            is_active=input.is_active,
        )
        actor = info.context.actor
        product_id = await products.create(actor, draft, idempotency_key=input.idempotency_key)
        row = (await products.find(actor, [product_id])).get(product_id)
        if row is None:
            raise access.missing()
        return _payload(row)

    @strawberry.mutation(
        description="Change a product. Refuses what `createProduct` refuses; CONFLICT when it is not the expected "
        "version any more.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def update_product(
        self, info: Info, input: Annotated[UpdateProductInput, strawberry.argument(description="What changes.")]
    ) -> ProductPayload:
        """A changed product."""
        actor = info.context.actor
        row = await access.product(actor, input.id, to=Permission.PRODUCT_WRITE)
        return _payload(
            await products.change(actor, row["id"], input.changes(), expected_version=input.expected_version)
        )

    @strawberry.mutation(
        description="Delete a product with its price history. Its media stay.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def delete_product(
        self, info: Info, input: Annotated[DeleteProductInput, strawberry.argument(description="Which product.")]
    ) -> DeleteProductPayload:
        """The end of a product."""
        await products.delete(info.context.actor, input.id)
        return DeleteProductPayload(deleted_id=input.id)

    @strawberry.mutation(
        description="Add to a stock, or take from it, whatever others do to it at the same time. CONFLICT when there "
        "is not so much, or it is not counted.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def adjust_stock(
        self, info: Info, input: Annotated[AdjustStockInput, strawberry.argument(description="What comes or goes.")]
    ) -> ProductPayload:
        """A changed stock."""
        row = await products.adjust_stock(
            info.context.actor, input.id, input.by, reason=input.reason, idempotency_key=input.idempotency_key
        )
        return _payload(row)

    @strawberry.mutation(
        description="Say how much there is, after counting it.", extensions=[requires(Permission.PRODUCT_WRITE)]
    )
    async def set_stock(
        self, info: Info, input: Annotated[SetStockInput, strawberry.argument(description="How much there is.")]
    ) -> ProductPayload:
        """A counted stock."""
        return _payload(await products.set_stock(info.context.actor, input.id, input.stock, reason=input.reason))

    @strawberry.mutation(
        description="Give a product these media and no others. CONFLICT for a medium that is not ready.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def set_product_media(
        self, info: Info, input: Annotated[SetProductMediaInput, strawberry.argument(description="Which media.")]
    ) -> ProductPayload:
        """A product with other media."""
        items = [(item.media_id, item.alt) for item in input.items]
        return _payload(await product_media.replace(info.context.actor, input.id, items))


def _payload(row: Row) -> ProductPayload:
    return ProductPayload(product=product_of(row))
