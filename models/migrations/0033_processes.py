"""Processes that are at work: a small table that is written often, so it is not logged and keeps room on its pages."""

from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.data import JSON_DUMPS
from tortoise.indexes import Index
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint

from models.ids import new_id
from models.processes import ProcessRole

_FORWARD = [
    "ALTER TABLE processes SET UNLOGGED",
    "ALTER TABLE processes SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0032_status_constraints")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Process",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("name", fields.CharField(max_length=100)),
                ("role", fields.CharEnumField(enum_type=ProcessRole, max_length=16)),
                ("host", fields.CharField(max_length=255)),
                ("pid", fields.IntField()),
                ("version", fields.CharField(max_length=64)),
                ("started_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("seen_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("kinds", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("sample", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "processes",
                "app": "models",
                "indexes": [Index(fields=["expires_at"], name="processes_expires")],
                "pk_attr": "id",
                "table_description": (
                    "A process that runs. `kinds` is what a worker offers, `sample` what it last said of itself."
                ),
            },
            bases=["Model"],
        ),
        ops.AddConstraint("Process", CheckConstraint(check="role IN ('API', 'WORKER')", name="processes_role_check")),
        ops.RunSQL(_FORWARD, reverse_sql=["ALTER TABLE processes SET LOGGED"]),
    ]
