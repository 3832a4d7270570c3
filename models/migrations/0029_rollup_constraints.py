from tortoise import migrations
from tortoise.indexes import Index
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0028_rollups")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="Rollup",
            constraint=UniqueConstraint(fields=("owner_id", "kind", "at", "label"), name="rollups_key"),
        ),
        ops.AlterModelOptions(
            name="ExecutionFact",
            options={
                "table": "execution_facts",
                "app": "models",
                "indexes": [
                    Index(fields=["target_id", "finished_at"], name="execution_facts_target_ended"),
                    Index(fields=["target_id", "queued_at"], name="execution_facts_target_asked"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What counts of one execution. `outcome` is its final status; `target_id` its "
                "project or tool.",
            },
        ),
    ]
