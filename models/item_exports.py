"""Exports: files that were asked for of a run's items, in a shape of their own.

An export is an execution of kind EXPORT; its own columns are here under the same id. Invariant kept by the database:
what is told of the file is there whole or not at all. `key` is null again once the file has expired. Queries are in
`models/item_export_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint
from tortoise.models import Model

from models.executions import Execution

KIND: Final = "EXPORT"


class ItemExportFormat(StrEnum):
    """The formats of exports."""

    JSONL = "JSONL"
    CSV = "CSV"
    XLSX = "XLSX"
    PARQUET = "PARQUET"


class ItemExport(Model):
    """What an export adds to its execution: what was asked for, and what came of it."""

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    run: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    format = fields.CharEnumField(ItemExportFormat, max_length=16)
    options: fields.JSONField[dict[str, Any]] = fields.JSONField()
    filename = fields.CharField(max_length=160)
    content_type = fields.CharField(max_length=120)
    row_count = fields.BigIntField(null=True)
    size = fields.BigIntField(null=True)
    sha256 = fields.CharField(max_length=64, null=True)
    key = fields.CharField(max_length=512, null=True)
    expires_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "item_exports"
        constraints = (
            CheckConstraint(check="format IN ('JSONL', 'CSV', 'XLSX', 'PARQUET')", name="item_exports_format_check"),
            CheckConstraint(
                check="num_nonnulls(row_count, size, sha256, expires_at) IN (0, 4)", name="item_exports_file_check"
            ),
            CheckConstraint(check="key IS NULL OR size IS NOT NULL", name="item_exports_key_check"),
        )
        indexes = (Index(fields=("run_id", "execution_id"), name="item_exports_run"),)
