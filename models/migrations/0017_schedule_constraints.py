from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0016_schedules")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="JobSchedule",
            constraint=CheckConstraint(
                check="NOT is_paused OR (next_run_at IS NULL AND waiting_tick_at IS NULL)",
                name="job_schedules_pause_check",
            ),
        ),
        ops.AddConstraint(
            model_name="JobSchedule",
            constraint=CheckConstraint(
                check="is_paused OR pause_reason IS NULL", name="job_schedules_reason_check"
            ),
        ),
        ops.AlterModelOptions(
            name="JobSchedule",
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
        ),
        ops.AddConstraint(
            model_name="ScheduleTick",
            constraint=UniqueConstraint(fields=("job_id", "tick_at"), name="schedule_ticks_once"),
        ),
        ops.AddConstraint(
            model_name="ScheduleTick",
            constraint=CheckConstraint(
                check="(outcome = 'STARTED') = (run_id IS NOT NULL)", name="schedule_ticks_run_check"
            ),
        ),
    ]
