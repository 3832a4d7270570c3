"""What executions used of their workers' machines; of those that ended before, nothing is known."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint


class Migration(migrations.Migration):
    """Two columns."""

    dependencies = [("models", "0034_retention")]

    initial = False

    operations = [
        ops.AddField(
            model_name="Execution",
            name="cpu_milliseconds",
            field=fields.BigIntField(null=True),
        ),
        ops.AddField(
            model_name="Execution",
            name="peak_memory_bytes",
            field=fields.BigIntField(null=True),
        ),
        ops.AddConstraint(
            model_name="Execution",
            constraint=CheckConstraint(
                check="cpu_milliseconds >= 0 AND peak_memory_bytes >= 0", name="executions_usage_check"
            ),
        ),
    ]
