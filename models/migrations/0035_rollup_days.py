from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("models", "0034_retention")]

    initial = False

    operations = [
        ops.CreateModel(
            name="RollupDay",
            fields=[
                ("owner_id", fields.UUIDField()),
                ("kind", fields.CharField(max_length=16)),
                ("label", fields.CharField(max_length=80)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("created", fields.BigIntField()),
                ("succeeded", fields.BigIntField()),
                ("failed", fields.BigIntField()),
                ("cancelled", fields.BigIntField()),
                ("begun", fields.BigIntField()),
                ("waited_ms", fields.BigIntField()),
                ("worked_ms", fields.BigIntField()),
                ("succeeded_ms", fields.BigIntField()),
                ("built_ms", fields.BigIntField()),
                ("items", fields.BigIntField()),
                ("pages", fields.BigIntField()),
                ("downloaded_bytes", fields.BigIntField()),
                ("artifact_bytes", fields.BigIntField()),
                ("uploaded_bytes", fields.BigIntField()),
                ("log_bytes", fields.BigIntField()),
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
            ],
            options={
                "table": "rollup_days",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Sums of the quarter-hours of one day in UTC, kept by a trigger on `rollups`.",
            },
            bases=["Model"],
        ),
    ]
