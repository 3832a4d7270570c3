"""Tools as clients see them: the catalogue of what can be crawled.

A tool's input schema may be large, so it is loaded only when it is asked for, for all tools of an answer at once.
What is allowed is decided in `resolvers/tools.py` and at the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from models import database
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission
from models.tools import ToolOrderField
from resolvers import access, texts, tools
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, First, Last, paginate
from schema.permissions import requires
from schema.scalars import JSON
from tasks.crawl.spiders import SPIDERS

Info = strawberry.Info[Context, None]

publish(
    ToolOrderField,
    "What a list of tools is sorted by.",
    NAME="Its name, without regard to case.",
    CREATED_AT="When it was added.",
)
_KEYS: Final[dict[ToolOrderField, tuple[str, type]]] = {
    ToolOrderField.NAME: ("tool_name", str),
    ToolOrderField.CREATED_AT: ("tool_created_at", datetime),
}


@strawberry.type(description="A catalogue entry: something that knows how to crawl one kind of site.")
class Tool(Node):
    """A tool."""

    slug: str = strawberry.field(description="A name for addresses and programs; unique.")
    name: str = strawberry.field(description="The name to show.")
    category: str = strawberry.field(description="What kind of tool it is, in the installation's own words.")
    description: str = strawberry.field(description="What it does, for those who choose one.")
    states: list[str] = strawberry.field(
        description="The states or regions that it covers; empty if that says nothing."
    )
    icon: str | None = strawberry.field(description="Name of an icon.")
    is_active: bool = strawberry.field(description="Whether jobs can be made with it and run.")
    spider: str = strawberry.field(description="The spider that does the work.")
    created_at: datetime = strawberry.field(description="When it was added.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    key: strawberry.Private[UUID]

    @strawberry.field(description="JSON Schema (draft 2020-12) of a job's input.")
    async def input_schema(self, info: Info) -> JSON:
        """Loaded for all tools of the answer at once."""
        return await info.context.load(_load_input_schemas, self.key)

    @strawberry.field(
        description="JSON Schema (draft 2020-12) of the items that the spider brings home; a job's input may narrow "
        "it. Null when this installation does not have the spider any more."
    )
    def output_schema(self) -> JSON | None:
        """From the spider's contract."""
        spider = SPIDERS.get(self.spider)
        return None if spider is None else JSON(spider.output_schema)

    @strawberry.field(
        description="An input that the spider takes, to begin with: for the practice site that comes with Switchyard. "
        "Null when this installation does not have the spider any more."
    )
    def example_input(self) -> JSON | None:
        """From the spider's contract."""
        spider = SPIDERS.get(self.spider)
        return None if spider is None else JSON(spider.example_input)


@strawberry.input(description="Which tools.")
class ToolFilter:
    """Conditions; all given ones must hold."""

    category: str | None = strawberry.field(default=None, description="Tools of exactly this category.")
    is_active: bool | None = strawberry.field(
        default=None, description="Active or inactive ones; only administrators see any of the latter."
    )
    spider: str | None = strawberry.field(default=None, description="Tools with this spider.")


@strawberry.input(description="How a list of tools is sorted.")
class ToolOrder:
    """An order."""

    field: ToolOrderField = strawberry.field(default=ToolOrderField.NAME, description="By what.")
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description="Which way.")


@strawberry.input(description="A new tool.")
class CreateToolInput:
    """What a new tool needs."""

    name: str = strawberry.field(description="The name to show, up to 120 characters.")
    category: str = strawberry.field(description="What kind of tool it is, up to 64 characters.")
    spider: str = strawberry.field(description="The spider that does the work; it cannot change later.")
    slug: str | None = strawberry.field(
        default=None,
        description="Up to 64 characters: a to z and digits, in words joined by hyphens. Made from the name if left "
        "out.",
    )
    description: str = strawberry.field(default="", description="What it does, up to 4,000 characters.")
    states: list[str] = strawberry.field(
        default_factory=list, description="The states or regions that it covers: up to 200, of up to 64 characters."
    )
    icon: str | None = strawberry.field(default=None, description="Name of an icon, up to 64 characters.")
    is_active: bool = strawberry.field(default=True, description="Whether jobs can be made with it and run.")
    input_schema: JSON | None = strawberry.field(
        default=None,
        description="JSON Schema (draft 2020-12) of a job's input, up to 64 KiB, that refers to nothing outside of it. "
        "Inputs must fit the spider's own as well, which is taken if this is left out.",
    )


@strawberry.input(description="Changes of a tool; what is left out stays as it is.")
class UpdateToolInput:
    """Which tool changes, and what of it."""

    id: strawberry.ID = strawberry.field(description="The tool.")
    name: strawberry.Maybe[str] = strawberry.field(description="As in `CreateToolInput`.")
    category: strawberry.Maybe[str] = strawberry.field(description="As in `CreateToolInput`.")
    slug: strawberry.Maybe[str] = strawberry.field(description="As in `CreateToolInput`.")
    description: strawberry.Maybe[str] = strawberry.field(description="As in `CreateToolInput`.")
    states: strawberry.Maybe[list[str]] = strawberry.field(description="As in `CreateToolInput`.")
    icon: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateToolInput`; null for none.")
    is_active: strawberry.Maybe[bool] = strawberry.field(
        description="Whether jobs can be made with it and run. An inactive tool keeps its jobs."
    )
    input_schema: strawberry.Maybe[JSON | None] = strawberry.field(
        description="As in `CreateToolInput`; null brings back the spider's own. Jobs keep the inputs they have."
    )

    def changes(self) -> dict[str, Any]:
        """The given columns by their names."""
        given = {
            "name": self.name,
            "category": self.category,
            "slug": self.slug,
            "description": self.description,
            "states": self.states,
            "icon": self.icon,
            "is_active": self.is_active,
            "input_schema": self.input_schema,
        }
        return {column: some.value for column, some in given.items() if some is not None}


@strawberry.input(description="Which tool goes.")
class DeleteToolInput:
    """A tool to delete."""

    id: strawberry.ID = strawberry.field(description="The tool.")


@strawberry.type(description="A new tool.")
class CreateToolPayload:
    """A new tool."""

    tool: Tool = strawberry.field(description="The tool.")


@strawberry.type(description="A tool that changed.")
class UpdateToolPayload:
    """A tool that changed."""

    tool: Tool = strawberry.field(description="The tool as it is now.")


@strawberry.type(description="A tool that is gone.")
class DeleteToolPayload:
    """A tool that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class ToolsQuery:
    """What can be read of tools."""

    @strawberry.field(
        description="The catalogue, by name unless said otherwise. Administrators see inactive tools too.",
        extensions=[requires(Permission.TOOL_READ)],
    )
    async def tools(
        self,
        info: Info,
        filter: Annotated[ToolFilter | None, strawberry.argument(description="Which tools.")] = None,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Only tools with this text in name, slug, category or description, in any case; up to 200 "
                "characters."
            ),
        ] = None,
        order_by: Annotated[ToolOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Tool]:
        """One page of tools, in one statement."""
        actor = info.context.actor
        order = order_by or ToolOrder()
        is_descending = order.direction is OrderDirection.DESC
        wanted = filter or ToolFilter()
        conditions = {
            "is_active": wanted.is_active,
            "category": wanted.category,
            "spider": wanted.spider,
            "search": texts.search(search),
        }

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await tools.page(
                actor,
                order=order.field,
                descending=is_descending,
                after=after_key,
                before=before_key,
                backwards=backwards,
                limit=limit,
                **conditions,
            )

        return await paginate(
            fetch=fetch,
            count=lambda: tools.count(actor, **conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            key=_key(_KEYS[order.field], is_descending),
            node=tool_of,
        )

    @strawberry.field(
        description="A tool. NOT_FOUND when there is none, or it is inactive and you are no administrator.",
        extensions=[requires(Permission.TOOL_READ)],
    )
    async def tool(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The tool.")]
    ) -> Tool | None:
        """One tool."""
        return tool_of(await access.tool(info.context.actor, id, to=Permission.TOOL_READ))


@strawberry.type
class ToolsMutation:
    """What administrators do with the catalogue."""

    @strawberry.mutation(
        description="Add a tool. CONFLICT when the slug is taken.", extensions=[requires(Permission.TOOL_WRITE)]
    )
    async def create_tool(
        self, info: Info, input: Annotated[CreateToolInput, strawberry.argument(description="The tool.")]
    ) -> CreateToolPayload:
        """A new tool."""
        row = await tools.create(
            info.context.actor,
            name=input.name,
            category=input.category,
            spider=input.spider,
            slug=input.slug,
            description=input.description,
            states=input.states,
            icon=input.icon,
            input_schema=input.input_schema,
            is_active=input.is_active,
        )
        return CreateToolPayload(tool=tool_of(row))

    @strawberry.mutation(
        description="Change a tool. CONFLICT when the slug is another tool's.",
        extensions=[requires(Permission.TOOL_WRITE)],
    )
    async def update_tool(
        self, info: Info, input: Annotated[UpdateToolInput, strawberry.argument(description="What changes.")]
    ) -> UpdateToolPayload:
        """A changed tool."""
        return UpdateToolPayload(tool=tool_of(await tools.update(info.context.actor, input.id, input.changes())))

    @strawberry.mutation(
        description="Delete a tool that no job uses; CONFLICT when one does. Deactivate such a tool instead.",
        extensions=[requires(Permission.TOOL_WRITE)],
    )
    async def delete_tool(
        self, info: Info, input: Annotated[DeleteToolInput, strawberry.argument(description="Which tool.")]
    ) -> DeleteToolPayload:
        """The end of a tool."""
        await tools.delete(info.context.actor, input.id)
        return DeleteToolPayload(deleted_id=input.id)


def tool_of(row: Row) -> Tool:
    """The tool in a row with `models.tools.TOOL_COLUMNS`, whatever else is in it."""
    return Tool(
        id=strawberry.ID(encode_id(Prefix.TOOL, row["tool_id"])),
        slug=row["tool_slug"],
        name=row["tool_name"],
        category=row["tool_category"],
        description=row["tool_description"],
        states=database.from_json(row["tool_states"]),
        icon=row["tool_icon"],
        is_active=row["tool_is_active"],
        spider=row["tool_spider"],
        created_at=row["tool_created_at"],
        updated_at=row["tool_updated_at"],
        key=row["tool_id"],
    )


tool_of_run = tool_of
"""A run's row has the same columns."""


@register_node(Prefix.TOOL)
async def _tool_node(context: Context, tool_id: UUID) -> Tool | None:
    if not context.actor.may(Permission.TOOL_READ):
        return None
    row = await context.load(_load_tools, tool_id)
    is_visible = row is not None and access.sees_tool(context.actor, is_active=row["tool_is_active"])
    return tool_of(row) if row is not None and is_visible else None


async def _load_tools(_context: Context, tool_ids: list[UUID]) -> Sequence[Row | None]:
    found = await tools.by_ids(tool_ids)
    return [found.get(tool_id) for tool_id in tool_ids]


async def _load_input_schemas(_context: Context, tool_ids: list[UUID]) -> Sequence[JSON]:
    found = await tools.input_schemas(tool_ids)
    return [JSON(found.get(tool_id, {})) for tool_id in tool_ids]


def _key(column: tuple[str, type], is_descending: bool) -> tuple[Column, ...]:
    sign = "-" if is_descending else ""
    return (sign + column[0], column[1]), (f"{sign}tool_id", UUID)
