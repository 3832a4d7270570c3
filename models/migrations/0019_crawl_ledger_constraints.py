from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0018_crawl_ledger")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="CrawlDay",
            constraint=UniqueConstraint(fields=("owner_id", "day"), name="crawl_days_day"),
        ),
        ops.AddConstraint(
            model_name="ItemVersion",
            constraint=UniqueConstraint(fields=("job_id", "identity"), name="item_versions_identity"),
        ),
        ops.AddConstraint(
            model_name="RejectedItem",
            constraint=UniqueConstraint(fields=("dataset_id", "key"), name="rejected_items_once"),
        ),
        ops.AddConstraint(
            model_name="RunHost",
            constraint=UniqueConstraint(fields=("run_id", "host"), name="run_hosts_host"),
        ),
    ]
