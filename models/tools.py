"""Tools: the catalogue of what can be crawled and how a job's input must look.

A tool names one spider and narrows its input by a JSON Schema (draft 2020-12). Inactive tools keep their
jobs, but start no run. Reads are plain rows whose columns begin with `tool_`, here and in every join; the input
schema, which may be large, is read by itself.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from tortoise import fields
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models import database, keyset
from models.database import Row
from models.ids import new_id
from models.permissions import Actor


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


class ToolOrderField(StrEnum):
    """What a list of tools can be sorted by."""

    NAME = "NAME"
    CREATED_AT = "CREATED_AT"


TOOL_COLUMNS: Final = (
    "t.id AS tool_id, t.slug AS tool_slug, t.name AS tool_name, t.category AS tool_category,"
    " t.description AS tool_description, t.states::text AS tool_states, t.icon AS tool_icon, t.spider AS tool_spider,"
    " t.is_active AS tool_is_active, t.created_at AS tool_created_at, t.updated_at AS tool_updated_at"
)

INSTALLED: Final = "installTool"
"""The act in the audit trail by which a shipped tool is known to have been here."""

# Columns and the casts of values that they are compared with, by what clients sort by.
_SORT_COLUMNS: Final[Mapping[ToolOrderField, tuple[str, str]]] = {
    ToolOrderField.NAME: ("lower(t.name), t.id", "lower(${}::text), ${}::uuid"),
    ToolOrderField.CREATED_AT: ("t.created_at, t.id", "${}::timestamptz, ${}::uuid"),
}


async def find(tool_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the tools that exist, inactive ones included."""
    found = await database.rows(f"SELECT {TOOL_COLUMNS} FROM tools t WHERE t.id = ANY($1::uuid[])", list(tool_ids))
    return {row["tool_id"]: row for row in found}


async def input_schemas(tool_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The input schemas of tools, as JSON text."""
    found = await database.rows(
        "SELECT id, input_schema::text AS input_schema FROM tools WHERE id = ANY($1::uuid[])", list(tool_ids)
    )
    return {row["id"]: row["input_schema"] for row in found}


async def visible(
    actor: Actor,
    *,
    is_active: bool | None,
    category: str | None,
    spider: str | None,
    search: str | None,
    order: ToolOrderField,
    descending: bool,
    after: tuple[Any, ...] | None,
    before: tuple[Any, ...] | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Tools that an actor may see, strictly between two sort keys; backwards from the end of the order."""
    where, values = _conditions(actor, is_active, category, spider, search)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, values, after=after, before=before, descending=descending, backwards=backwards
    )
    values.append(limit)
    return await database.rows(
        f"SELECT {TOOL_COLUMNS} FROM tools t WHERE {' AND '.join(where + bounds)} ORDER BY {by} LIMIT ${len(values)}",
        *values,
    )


async def count_visible(
    actor: Actor, *, is_active: bool | None, category: str | None, spider: str | None, search: str | None
) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, is_active, category, spider, search)
    return int(await database.value(f"SELECT count(*) FROM tools t WHERE {' AND '.join(where)}", *values))


async def insert(
    *,
    slug: str,
    name: str,
    category: str,
    description: str,
    states: Sequence[str],
    icon: str | None,
    spider: str,
    input_schema: Mapping[str, Any],
    is_active: bool,
) -> UUID | None:
    """Add a tool and return its id; None when the slug is taken."""
    created: UUID | None = await database.value(
        "INSERT INTO tools (id, slug, name, category, description, states, icon, spider, input_schema, is_active,"
        " created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $8, $9::jsonb, $10, now(), now())"
        " ON CONFLICT DO NOTHING RETURNING id",
        new_id(),
        slug,
        name,
        category,
        description,
        database.to_json(list(states)),
        icon,
        spider,
        database.to_json(dict(input_schema)),
        is_active,
    )
    return created


async def was_installed(slug: str) -> bool:
    """Whether a shipped tool was installed here before, whatever has become of it, or its slug is taken."""
    return bool(
        await database.value(
            """SELECT EXISTS (SELECT 1 FROM tools WHERE slug = $1)
                   OR EXISTS (SELECT 1 FROM audit_events WHERE action = $2 AND details->>'slug' = $1)""",
            slug,
            INSTALLED,
        )
    )


_UPDATABLE: Final[Mapping[str, str]] = {
    "slug": "",
    "name": "",
    "category": "",
    "description": "",
    "states": "::jsonb",
    "icon": "",
    "input_schema": "::jsonb",
    "is_active": "",
}


async def update(tool_id: UUID, changes: Mapping[str, Any]) -> bool:
    """Set columns of a tool by their names; False when it is gone or the slug is another tool's."""
    if "slug" in changes:
        # Whoever takes the same slug at the same time waits here; the unique constraint would end the transaction.
        await database.rows("SELECT pg_advisory_xact_lock(hashtextextended('tools:slug', 0))")
        if await database.value("SELECT 1 FROM tools WHERE slug = $1 AND id <> $2", changes["slug"], tool_id):
            return False
    assignments = "".join(f", {name} = ${place}{_UPDATABLE[name]}" for place, name in enumerate(changes, start=2))
    values = [database.to_json(value) if _UPDATABLE[name] else value for name, value in changes.items()]
    updated = await database.value(
        f"UPDATE tools SET updated_at = now(){assignments} WHERE id = $1 RETURNING id", tool_id, *values
    )
    return updated is not None


async def count_uses(tool_id: UUID) -> int:
    """How many jobs use a tool; locks it against new ones until the end of the transaction."""
    await database.rows("SELECT 1 FROM tools WHERE id = $1 FOR UPDATE", tool_id)
    return int(await database.value("SELECT count(*) FROM jobs WHERE tool_id = $1", tool_id))


async def delete(tool_id: UUID) -> None:
    """Remove a tool that no job uses."""
    await database.rows("DELETE FROM tools WHERE id = $1", tool_id)


def containing(text: str) -> str:
    """The ILIKE pattern of texts that contain this one; `%` and `_` in it mean themselves."""
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def _conditions(
    actor: Actor, is_active: bool | None, category: str | None, spider: str | None, search: str | None
) -> tuple[list[str], list[Any]]:
    where, values = ["true" if actor.is_admin else "t.is_active"], list[Any]()
    for column, wanted in (("t.is_active", is_active), ("t.category", category), ("t.spider", spider)):
        if wanted is not None:
            values.append(wanted)
            where.append(f"{column} = ${len(values)}")
    if search:
        values.append(containing(search))
        where.append("concat_ws(' ', t.name, t.slug, t.category, t.description) ILIKE $" + str(len(values)))
    return where, values
