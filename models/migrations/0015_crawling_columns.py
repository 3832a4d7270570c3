from tortoise import migrations
from tortoise.migrations import operations as ops
from models.jobs import CloseReason, RunTrigger
from models.notifications import NotificationKind
from tortoise import fields
from tortoise.migrations.constraints import CheckConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0014_search")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Tick",
            fields=[
                ("name", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "ticks",
                "app": "models",
                "pk_attr": "name",
                "table_description": "The last tick of something periodic that anybody took.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Job",
            name="alarm_percent",
            field=fields.SmallIntField(default=50, db_default=50),
        ),
        ops.AddField(
            model_name="Job",
            name="only_changes",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AddField(
            model_name="Job",
            name="saves_products",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AddConstraint(
            model_name="Job",
            constraint=CheckConstraint(check="alarm_percent BETWEEN 0 AND 100", name="jobs_alarm_check"),
        ),
        ops.AlterField(
            model_name="JobRun",
            name="close_reason",
            field=fields.CharEnumField(null=True, enum_type=CloseReason, max_length=32),
        ),
        ops.AlterField(
            model_name="JobRun",
            name="trigger",
            field=fields.CharEnumField(default=RunTrigger.API, enum_type=RunTrigger, max_length=16),
        ),
        ops.AddField(
            model_name="JobRun",
            name="expected_items",
            field=fields.BigIntField(null=True),
        ),
        ops.AddField(
            model_name="JobRun",
            name="is_incomplete",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AddField(
            model_name="JobRun",
            name="items_rejected",
            field=fields.BigIntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name="JobRun",
            name="items_unchanged",
            field=fields.BigIntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name="JobRun",
            name="only_changes",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AddField(
            model_name="JobRun",
            name="requests_dropped",
            field=fields.BigIntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name="JobRun",
            name="saves_products",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AlterField(
            model_name="Notification",
            name="kind",
            field=fields.CharEnumField(enum_type=NotificationKind, max_length=32),
        ),
    ]
