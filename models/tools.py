"""Tools: the catalogue of what can be crawled and how a job's input must look.

A tool names one spider and narrows its input by a JSON Schema (draft 2020-12). Inactive tools keep their
jobs, but start no run.
"""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id


class Tool(Model):
    """A catalogue entry."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    slug = fields.CharField(max_length=64)
    name = fields.CharField(max_length=120)
    category = fields.CharField(max_length=64)
    description = fields.TextField(default="")
    states: fields.JSONField[list[str]] = fields.JSONField(default=list)
    icon = fields.CharField(max_length=64, null=True)
    spider = fields.CharField(max_length=64)
    input_schema: fields.JSONField[dict[str, Any]] = fields.JSONField()
    is_active = fields.BooleanField(default=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table and invariants."""

        table = "tools"
        constraints = (
            UniqueConstraint(fields=("slug",), name="tools_slug"),
            CheckConstraint(check="slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'", name="tools_slug_check"),
        )
