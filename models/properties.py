"""Properties: houses and flats that crawls have found on offer, and what they cost over time.

Invariants kept by the database: a listing is one row of its owner, whichever of their jobs sees it and however often; a
place is whole or missing; an area whose unit is known has its size in square metres. `price_id` names the entry of the
history that the price is in. Generated columns (place, forms to search and sort by, price per square metre) are made by
`models/migrations`. Written by `models/property_ledger.py`, read by `models/property_queries.py` and
`models/property_search.py`.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.fields import CASCADE, SET_NULL
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.jobs import Job
from models.users import User


class Property(Model):
    """A listing of a site. `source` is the site's host, `source_id` the site's own number of it.

    `dataset_id` and `run_id` say where it was seen last; `gone_at` since when a complete run has not seen it any more.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    job: fields.ForeignKeyNullableRelation[Job] = fields.ForeignKeyField(
        "models.Job", related_name=False, on_delete=SET_NULL, null=True
    )
    dataset_id = fields.UUIDField()
    run_id = fields.UUIDField()
    source = fields.CharField(max_length=255)
    source_id = fields.CharField(max_length=255)
    url = fields.TextField()
    title = fields.CharField(max_length=500)
    price = fields.DecimalField(max_digits=16, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    area = fields.DecimalField(max_digits=16, decimal_places=6, null=True)
    area_unit = fields.CharField(max_length=16, null=True)
    square_metres = fields.DecimalField(max_digits=30, decimal_places=14, null=True)
    bedrooms = fields.FloatField(null=True)
    bathrooms = fields.FloatField(null=True)
    property_type = fields.CharField(max_length=120, null=True)
    street = fields.CharField(max_length=255, null=True)
    city = fields.CharField(max_length=120, null=True)
    region = fields.CharField(max_length=120, null=True)
    postal_code = fields.CharField(max_length=32, null=True)
    country = fields.CharField(max_length=120, null=True)
    latitude = fields.FloatField(null=True)
    longitude = fields.FloatField(null=True)
    description = fields.TextField(default="")
    images: fields.JSONField[list[str]] = fields.JSONField(default=list)
    date_posted = fields.CharField(max_length=40, null=True)
    price_id = fields.UUIDField()
    first_seen_at = fields.DatetimeField()
    last_seen_at = fields.DatetimeField()
    last_changed_at = fields.DatetimeField()
    price_changed_at = fields.DatetimeField()
    gone_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, key and invariants; most indexes are on generated columns and in a migration of their own."""

        table = "properties"
        constraints = (
            UniqueConstraint(fields=("owner_id", "source", "source_id"), name="properties_listing"),
            CheckConstraint(check="price >= 0", name="properties_price_check"),
            CheckConstraint(
                check="currency IS NULL OR (currency ~ '^[A-Z]{3}$' AND price IS NOT NULL)",
                name="properties_currency_check",
            ),
            CheckConstraint(
                check="(area_unit IS NULL) = (square_metres IS NULL) AND (area IS NOT NULL OR area_unit IS NULL)",
                name="properties_area_check",
            ),
            CheckConstraint(check="area > 0 AND square_metres > 0", name="properties_area_size_check"),
            CheckConstraint(
                check="area_unit IN ('SQUARE_FEET', 'SQUARE_METRES', 'ACRES', 'HECTARES')",
                name="properties_area_unit_check",
            ),
            CheckConstraint(
                check="(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90"
                " AND longitude BETWEEN -180 AND 180",
                name="properties_place_check",
            ),
        )
        indexes = (
            Index(fields=("job_id",), name="properties_job"),
            Index(fields=("first_seen_at", "id"), name="properties_first_seen"),
            Index(fields=("price_changed_at",), name="properties_price_changed"),
        )


class PropertyPrice(Model):
    """What a listing asked from a moment on; null from when it named no price."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    property: fields.ForeignKeyRelation[Property] = fields.ForeignKeyField(
        "models.Property", related_name=False, on_delete=CASCADE
    )
    price = fields.DecimalField(max_digits=16, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    seen_at = fields.DatetimeField()
    run_id = fields.UUIDField()

    class Meta:
        """Table and index."""

        table = "property_prices"
        indexes = (Index(fields=("property_id", "seen_at", "id"), name="property_prices_property"),)
