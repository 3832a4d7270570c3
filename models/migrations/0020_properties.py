from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ids import new_id
from models.products import PriceSource
from orjson import loads
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0019_crawl_ledger_constraints")]

    initial = False

    operations = [
        ops.CreateModel(
            name="ProductSource",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "product",
                    fields.ForeignKeyField(
                        "models.Product",
                        source_field="product_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Job",
                        source_field="job_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("dataset_id", fields.UUIDField()),
                ("run_id", fields.UUIDField()),
                ("source", fields.CharField(max_length=255)),
                ("source_id", fields.CharField(max_length=255)),
                ("url", fields.TextField(unique=False)),
                ("price", fields.DecimalField(null=True, max_digits=14, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                ("first_seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("last_seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("gone_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "product_sources",
                "app": "models",
                "indexes": [
                    Index(fields=["product_id", "id"], name="product_sources_product"),
                    Index(fields=["job_id"], name="product_sources_job"),
                ],
                "pk_attr": "id",
                "table_description": "A listing of a product on a site, as crawls have seen it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Property",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Job",
                        source_field="job_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("dataset_id", fields.UUIDField()),
                ("run_id", fields.UUIDField()),
                ("source", fields.CharField(max_length=255)),
                ("source_id", fields.CharField(max_length=255)),
                ("url", fields.TextField(unique=False)),
                ("title", fields.CharField(max_length=500)),
                ("price", fields.DecimalField(null=True, max_digits=16, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                ("area", fields.DecimalField(null=True, max_digits=16, decimal_places=6)),
                ("area_unit", fields.CharField(null=True, max_length=16)),
                ("square_metres", fields.DecimalField(null=True, max_digits=30, decimal_places=14)),
                ("bedrooms", fields.FloatField(null=True)),
                ("bathrooms", fields.FloatField(null=True)),
                ("property_type", fields.CharField(null=True, max_length=120)),
                ("street", fields.CharField(null=True, max_length=255)),
                ("city", fields.CharField(null=True, max_length=120)),
                ("region", fields.CharField(null=True, max_length=120)),
                ("postal_code", fields.CharField(null=True, max_length=32)),
                ("country", fields.CharField(null=True, max_length=120)),
                ("latitude", fields.FloatField(null=True)),
                ("longitude", fields.FloatField(null=True)),
                ("description", fields.TextField(default="", unique=False)),
                ("images", fields.JSONField(default=list, encoder=JSON_DUMPS, decoder=loads)),
                ("date_posted", fields.CharField(null=True, max_length=40)),
                ("price_id", fields.UUIDField()),
                ("first_seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("last_seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("last_changed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("price_changed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("gone_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "properties",
                "app": "models",
                "indexes": [
                    Index(fields=["job_id"], name="properties_job"),
                    Index(fields=["first_seen_at", "id"], name="properties_first_seen"),
                    Index(fields=["price_changed_at"], name="properties_price_changed"),
                ],
                "pk_attr": "id",
                "table_description": "A listing of a site. `source` is the site's host, `source_id` the site's own number of it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="PropertyPrice",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "property",
                    fields.ForeignKeyField(
                        "models.Property",
                        source_field="property_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("price", fields.DecimalField(null=True, max_digits=16, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                ("seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("run_id", fields.UUIDField()),
            ],
            options={
                "table": "property_prices",
                "app": "models",
                "indexes": [Index(fields=["property_id", "seen_at", "id"], name="property_prices_property")],
                "pk_attr": "id",
                "table_description": "What a listing asked from a moment on; null from when it named no price.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="JobRun",
            name="items_skipped",
            field=fields.BigIntField(default=0, db_default=0),
        ),
        ops.AlterField(
            model_name="ProductPrice",
            name="source",
            field=fields.CharEnumField(enum_type=PriceSource, max_length=16),
        ),
    ]
