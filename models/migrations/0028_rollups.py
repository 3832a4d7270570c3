from tortoise import migrations
from tortoise.migrations import operations as ops
from models.executions import ExecutionStatus
from orjson import loads
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0027_execution_news")]

    initial = False

    operations = [
        ops.CreateModel(
            name="ExecutionFact",
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
                ("owner_id", fields.UUIDField()),
                ("kind", fields.CharField(max_length=16)),
                ("target_id", fields.UUIDField(null=True)),
                ("queued_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("outcome", fields.CharEnumField(null=True, enum_type=ExecutionStatus, max_length=16)),
                ("waited_ms", fields.BigIntField(null=True)),
                ("worked_ms", fields.BigIntField(null=True)),
                ("built_ms", fields.BigIntField(null=True)),
                ("items", fields.BigIntField(default=0)),
                ("pages", fields.BigIntField(default=0)),
                ("downloaded_bytes", fields.BigIntField(default=0)),
                ("artifact_bytes", fields.BigIntField(default=0)),
                ("uploaded_bytes", fields.BigIntField(default=0)),
                ("log_bytes", fields.BigIntField(default=0)),
                ("risks", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "execution_facts",
                "app": "models",
                "indexes": [
                    Index(fields=["target_id", "finished_at"], name="execution_facts_target_ended"),
                    Index(fields=["target_id", "queued_at"], name="execution_facts_target_asked"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What counts of one execution. `outcome` is its final status; `target_id` its project or tool.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Rollup",
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
                "table": "rollups",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Sums of one owner, or of everybody, for one quarter-hour, or for all time: then `at` is `-infinity`.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RollupDelta",
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
                "table": "rollup_deltas",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A change of sums that is not folded yet. `at` is the beginning of a quarter-hour.",
            },
            bases=["Model"],
        ),
    ]
