from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ids import new_id
from models.status import IncidentImpact, IncidentState, Service, ServiceState
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.base import OnDelete
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0030_rollup_triggers")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Incident",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("title", fields.CharField(max_length=200)),
                ("state", fields.CharEnumField(enum_type=IncidentState, max_length=16)),
                ("impact", fields.CharEnumField(enum_type=IncidentImpact, max_length=16)),
                ("services", ArrayField(element_type="TEXT")),
                ("automatic_service", fields.CharEnumField(null=True, enum_type=Service, max_length=16)),
                ("taken_over_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("started_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("resolved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("update_count", fields.IntField(default=0)),
            ],
            options={
                "table": "incidents",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Something that users notice. `automatic_service` is the service whose probes opened it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="IncidentUpdate",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "incident",
                    fields.ForeignKeyField(
                        "models.Incident",
                        source_field="incident_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                ("state", fields.CharEnumField(enum_type=IncidentState, max_length=16)),
                ("message", fields.TextField(unique=False)),
                ("is_automatic", fields.BooleanField(default=False)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "incident_updates",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What was said of an incident at a moment, and the state from then on. `number` counts from 1 in its incident.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ServiceChange",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("service", fields.CharEnumField(enum_type=Service, max_length=16)),
                ("state", fields.CharEnumField(enum_type=ServiceState, max_length=16)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "service_changes",
                "app": "models",
                "indexes": [Index(fields=["service", "id"], name="service_changes_service")],
                "pk_attr": "id",
                "table_description": "A state that a service had from a moment on.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ServiceCheck",
            fields=[
                (
                    "service",
                    fields.CharEnumField(
                        primary_key=True, unique=True, db_index=True, enum_type=Service, max_length=16
                    ),
                ),
                ("verdict", fields.CharEnumField(enum_type=ServiceState, max_length=16)),
                ("milliseconds", fields.FloatField(null=True)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "service_checks",
                "app": "models",
                "pk_attr": "service",
                "table_description": "The last result of a check that is too heavy to be made with every probe.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ServiceCondition",
            fields=[
                (
                    "service",
                    fields.CharEnumField(
                        primary_key=True, unique=True, db_index=True, enum_type=Service, max_length=16
                    ),
                ),
                ("state", fields.CharEnumField(enum_type=ServiceState, max_length=16)),
                ("since", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("verdict", fields.CharEnumField(enum_type=ServiceState, max_length=16)),
                ("probed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("milliseconds", fields.FloatField(null=True)),
                ("failures", fields.IntField(default=0)),
                ("impairments", fields.IntField(default=0)),
                ("successes", fields.IntField(default=0)),
                ("failing_since", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "service_states",
                "app": "models",
                "pk_attr": "service",
                "table_description": "How a service is now; `failures` and `impairments` are probes in a row that found it down or not quite well.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ServiceHour",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("service", fields.CharEnumField(enum_type=Service, max_length=16)),
                ("hour", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("operational", fields.IntField(default=0)),
                ("degraded", fields.IntField(default=0)),
                ("down", fields.IntField(default=0)),
                ("worst", fields.SmallIntField(default=0)),
                ("milliseconds_sum", fields.FloatField(default=0)),
                ("milliseconds_min", fields.FloatField(null=True)),
                ("milliseconds_max", fields.FloatField(null=True)),
                ("histogram", ArrayField(element_type="INT")),
            ],
            options={
                "table": "service_hours",
                "app": "models",
                "pk_attr": "id",
                "table_description": "The probes of one service in one hour (UTC): how many found what, and how long answers took.",
            },
            bases=["Model"],
        ),
    ]
