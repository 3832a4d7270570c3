"""Products: what is sold, its pictures, what it cost over time, and where crawls have found it.

Invariants kept by the database: slug, SKU and EAN are unique, prices and stock are not negative, money has a currency.
`sku_key` is the form under which a SKU is unique. Search columns are generated (`models/migrations`), so they cannot
differ from what they are made of. Queries are in `models/product_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.fields import CASCADE, SET_NULL
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.jobs import Job
from models.media import Media
from models.users import User


class PriceSource(StrEnum):
    """What set a price."""

    MANUAL = "MANUAL"
    IMPORT = "IMPORT"
    DOCUMENT = "DOCUMENT"
    CRAWL = "CRAWL"


class Product(Model):
    """A product. `price` and `currency` are both there or both not; `version` grows with each change."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    name = fields.CharField(max_length=255)
    slug = fields.CharField(max_length=255)
    sku = fields.CharField(max_length=64, null=True)
    sku_key = fields.CharField(max_length=64, null=True)
    ean = fields.CharField(max_length=14, null=True)
    description = fields.TextField(default="")
    price = fields.DecimalField(max_digits=14, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    unit = fields.CharField(max_length=16, null=True)
    stock = fields.DecimalField(max_digits=14, decimal_places=3, null=True)
    category = fields.CharField(max_length=120, null=True)
    attributes: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)
    is_active = fields.BooleanField(default=True)
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table, invariants and the indexes of lists; those of the search are in a migration of their own."""

        table = "products"
        constraints = (
            UniqueConstraint(fields=("slug",), name="products_slug"),
            UniqueConstraint(fields=("sku_key",), name="products_sku"),
            UniqueConstraint(fields=("ean",), name="products_ean"),
            CheckConstraint(check="price >= 0", name="products_price_check"),
            CheckConstraint(check="stock >= 0", name="products_stock_check"),
            CheckConstraint(check="(price IS NULL) = (currency IS NULL)", name="products_money_check"),
            CheckConstraint(check="currency ~ '^[A-Z]{3}$'", name="products_currency_check"),
            CheckConstraint(check="ean ~ '^([0-9]{8}|[0-9]{12,14})$'", name="products_ean_check"),
            CheckConstraint(check="(sku IS NULL) = (sku_key IS NULL)", name="products_sku_check"),
        )
        indexes = (
            Index(fields=("category", "id"), name="products_category"),
            Index(fields=("currency", "price", "id"), name="products_price"),
            Index(fields=("updated_at", "id"), name="products_updated"),
        )


class ProductMedia(Model):
    """A picture, document or video of a product, in its place."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    product: fields.ForeignKeyRelation[Product] = fields.ForeignKeyField(
        "models.Product", related_name=False, on_delete=CASCADE
    )
    media: fields.ForeignKeyRelation[Media] = fields.ForeignKeyField(
        "models.Media", related_name=False, on_delete=CASCADE
    )
    position = fields.IntField()
    alt = fields.CharField(max_length=255, default="")

    class Meta:
        """Table and key."""

        table = "product_media"
        constraints = (UniqueConstraint(fields=("product_id", "media_id"), name="product_media_key"),)
        indexes = (Index(fields=("media_id",), name="product_media_media"),)


class ProductPrice(Model):
    """What a product cost from a moment on; null from when it had no price."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    product: fields.ForeignKeyRelation[Product] = fields.ForeignKeyField(
        "models.Product", related_name=False, on_delete=CASCADE
    )
    price = fields.DecimalField(max_digits=14, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    source = fields.CharEnumField(PriceSource, max_length=16)
    changed_by: fields.ForeignKeyNullableRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=SET_NULL, null=True
    )
    changed_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table and indexes."""

        table = "product_prices"
        indexes = (Index(fields=("product_id", "id"), name="product_prices_product"),)


class ProductSource(Model):
    """A listing of a product on a site, as crawls have seen it.

    `product` is null when somebody has deleted the product: the listing is known then, and makes no new one.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    product: fields.ForeignKeyNullableRelation[Product] = fields.ForeignKeyField(
        "models.Product", related_name=False, on_delete=SET_NULL, null=True
    )
    job: fields.ForeignKeyNullableRelation[Job] = fields.ForeignKeyField(
        "models.Job", related_name=False, on_delete=SET_NULL, null=True
    )
    dataset_id = fields.UUIDField()
    run_id = fields.UUIDField()
    source = fields.CharField(max_length=255)
    source_id = fields.CharField(max_length=255)
    url = fields.TextField()
    price = fields.DecimalField(max_digits=14, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    first_seen_at = fields.DatetimeField()
    last_seen_at = fields.DatetimeField()
    gone_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and key."""

        table = "product_sources"
        constraints = (UniqueConstraint(fields=("source", "source_id"), name="product_sources_listing"),)
        indexes = (
            Index(fields=("product_id", "id"), name="product_sources_product"),
            Index(fields=("job_id",), name="product_sources_job"),
        )
