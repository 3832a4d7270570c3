from tortoise import migrations
from tortoise.migrations import operations as ops
from models.schedules import MissedRunPolicy, OverlapPolicy, TickOutcome, TickReason
from orjson import loads
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0015_crawling_columns")]

    initial = False

    operations = [
        ops.CreateModel(
            name="JobSchedule",
            fields=[
                (
                    "job",
                    fields.OneToOneField(
                        "models.Job",
                        source_field="job_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("cron_expression", fields.CharField(max_length=100)),
                ("time_zone", fields.CharField(max_length=64)),
                ("is_paused", fields.BooleanField(default=False)),
                ("pause_reason", fields.CharEnumField(null=True, enum_type=TickReason, max_length=32)),
                ("overlap_policy", fields.CharEnumField(enum_type=OverlapPolicy, max_length=16)),
                ("missed_run_policy", fields.CharEnumField(enum_type=MissedRunPolicy, max_length=16)),
                ("limits", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("next_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("waiting_tick_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("inactive_tool_ticks", fields.SmallIntField(default=0, db_default=0)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "job_schedules",
                "app": "models",
                "indexes": [
                    Index(fields=["next_run_at"], name="job_schedules_due"),
                    Index(fields=["waiting_tick_at"], name="job_schedules_waiting"),
                ],
                "pk_attr": "job_id",
                "table_description": "When a job runs by itself.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ScheduleTick",
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
                ("tick_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("outcome", fields.CharEnumField(enum_type=TickOutcome, max_length=16)),
                ("reason", fields.CharEnumField(null=True, enum_type=TickReason, max_length=32)),
                ("run_id", fields.UUIDField(null=True)),
                ("decided_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "schedule_ticks",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What became of one moment of a job's schedule. `run_id` is kept when the run is deleted.",
            },
            bases=["Model"],
        ),
    ]
