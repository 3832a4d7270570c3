"""Invariants of exports, and the index that the sweep finds expired files by: of those that are still there."""

from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint

_FORWARD = "CREATE INDEX item_exports_stored ON item_exports (expires_at) WHERE key IS NOT NULL"
_BACKWARD = "DROP INDEX item_exports_stored"


class Migration(migrations.Migration):
    dependencies = [("models", "0023_exports")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="ItemExport",
            constraint=CheckConstraint(
                check="format IN ('JSONL', 'CSV', 'XLSX', 'PARQUET')", name="item_exports_format_check"
            ),
        ),
        ops.AddConstraint(
            model_name="ItemExport",
            constraint=CheckConstraint(
                check="num_nonnulls(row_count, size, sha256, expires_at) IN (0, 4)", name="item_exports_file_check"
            ),
        ),
        ops.AddConstraint(
            model_name="ItemExport",
            constraint=CheckConstraint(check="key IS NULL OR size IS NOT NULL", name="item_exports_key_check"),
        ),
        ops.AlterModelOptions(
            name="ItemExport",
            options={
                "table": "item_exports",
                "app": "models",
                "constraints": [
                    CheckConstraint(
                        check="format IN ('JSONL', 'CSV', 'XLSX', 'PARQUET')", name="item_exports_format_check"
                    ),
                    CheckConstraint(
                        check="num_nonnulls(row_count, size, sha256, expires_at) IN (0, 4)",
                        name="item_exports_file_check",
                    ),
                    CheckConstraint(check="key IS NULL OR size IS NOT NULL", name="item_exports_key_check"),
                ],
                "indexes": [Index(fields=["run_id", "execution_id"], name="item_exports_run")],
                "pk_attr": "execution_id",
                "table_description": "What an export adds to its execution: what was asked for, and what came of it.",
            },
        ),
        ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD),
    ]
