from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("models", "0017_schedule_constraints")]

    initial = False

    operations = [
        ops.CreateModel(
            name="CrawlDay",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
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
                ("day", fields.DateField()),
                ("pages", fields.BigIntField(default=0)),
            ],
            options={
                "table": "crawl_days",
                "app": "models",
                "pk_attr": "id",
                "table_description": "How many pages a user's crawls fetched on one day.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ItemVersion",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Job",
                        source_field="job_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("identity", fields.BinaryField()),
                ("content", fields.BinaryField()),
                ("source_id", fields.TextField(null=True, unique=False)),
                ("url", fields.TextField(unique=False)),
                ("seen_in", fields.UUIDField()),
                ("gone_in", fields.UUIDField(null=True)),
            ],
            options={
                "table": "item_versions",
                "app": "models",
                "indexes": [Index(fields=["gone_in", "id"], name="item_versions_gone")],
                "pk_attr": "id",
                "table_description": "What a job last stored under an identity, as a hash.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RejectedItem",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "dataset",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="dataset_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("run_id", fields.UUIDField()),
                ("key", fields.CharField(max_length=128)),
                ("url", fields.TextField(unique=False)),
                ("data", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("faults", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("rejected_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "rejected_items",
                "app": "models",
                "indexes": [Index(fields=["dataset_id", "id"], name="rejected_items_dataset")],
                "pk_attr": "id",
                "table_description": "An item that does not fit its spider's output, and where.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RunHost",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
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
                ("host", fields.CharField(max_length=255)),
                ("requests", fields.BigIntField(default=0)),
                ("pages", fields.BigIntField(default=0)),
                ("bytes", fields.BigIntField(default=0)),
                ("retried", fields.BigIntField(default=0)),
                ("throttled", fields.BigIntField(default=0)),
                ("failed", fields.BigIntField(default=0)),
                ("robots", fields.BigIntField(default=0)),
                ("blocked", fields.BigIntField(default=0)),
                ("off_site", fields.BigIntField(default=0)),
                ("depth", fields.BigIntField(default=0)),
                ("duplicate", fields.BigIntField(default=0)),
                ("not_http", fields.BigIntField(default=0)),
                ("too_long", fields.BigIntField(default=0)),
            ],
            options={
                "table": "run_hosts",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What a run asked of one host and what came of it.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="JobRun",
            name="items_gone",
            field=fields.BigIntField(null=True),
        ),
    ]
