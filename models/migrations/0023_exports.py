from tortoise import migrations
from tortoise.migrations import operations as ops
from models.item_exports import ItemExportFormat
from orjson import loads
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0022_property_search")]

    initial = False

    operations = [
        ops.CreateModel(
            name="ItemExport",
            fields=[
                (
                    "execution",
                    fields.OneToOneField(
                        "models.Execution",
                        source_field="execution_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "run",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="run_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("format", fields.CharEnumField(enum_type=ItemExportFormat, max_length=16)),
                ("options", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("filename", fields.CharField(max_length=160)),
                ("content_type", fields.CharField(max_length=120)),
                ("row_count", fields.BigIntField(null=True)),
                ("size", fields.BigIntField(null=True)),
                ("sha256", fields.CharField(null=True, max_length=64)),
                ("key", fields.CharField(null=True, max_length=512)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "item_exports",
                "app": "models",
                "indexes": [Index(fields=["run_id", "execution_id"], name="item_exports_run")],
                "pk_attr": "execution_id",
                "table_description": "What an export adds to its execution: what was asked for, and what came of it.",
            },
            bases=["Model"],
        ),
    ]
