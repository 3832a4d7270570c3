"""The catalogue of tools: what administrators keep and everybody who is signed in reads.

Invariants: a tool's spider is one that this installation has and never changes, because the inputs of its jobs were
made for it; a tool that jobs use is deactivated and not deleted. The catalogue that ships is installed once, and
what administrators make of it afterwards, be it its end, is left alone.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from errors import Conflict, ValidationFailed
from models import database, tools
from models.audit import AuditEvent
from models.database import Row
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, json_schemas, texts
from tasks.crawl.spiders import SPIDERS

MAX_NAME_LENGTH: Final = 120
MAX_SLUG_LENGTH: Final = 64
MAX_CATEGORY_LENGTH: Final = 64
MAX_ICON_LENGTH: Final = 64
MAX_STATE_LENGTH: Final = 64
MAX_STATES: Final = 200
MAX_DESCRIPTION_LENGTH: Final = 4_000

_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_NUMBERED_SLUGS: Final = 20


@dataclass(frozen=True, slots=True)
class _Shipped:
    slug: str
    name: str
    category: str
    description: str
    icon: str
    spider: str


CATALOGUE: Final = (
    _Shipped(
        slug="catalogue",
        name="Catalogue",
        category="Commerce",
        description="Reads any list of similar things: products, books, events, quotes. Say with CSS or XPath "
        "selectors what to read of each of them, and where the links to detail pages and to the next page of the "
        "list are. Prices come out as exact decimals, whatever the site writes around them.",
        icon="shopping-bag",
        spider="catalogue",
    ),
    _Shipped(
        slug="property-listings",
        name="Property listings",
        category="Real estate",
        description="Brings home offers of houses and flats in one shape: price and currency, area, rooms, address, "
        "position, pictures. Reads what sites tell search engines (schema.org and Open Graph) by itself, so that "
        "start URLs are often all it needs; selectors fill in or correct the rest.",
        icon="home",
        spider="property_listings",
    ),
    _Shipped(
        slug="directory-search",
        name="Directory search",
        category="People and firms",
        description="Reads registers that are searched by state and name: people, firms, licences. Give the address of "
        "a search with {state}, {startingName} or {username} in it; every page of every search is walked, every entry "
        "taken once, from the starting name on. A run can begin where another one ended.",
        icon="users",
        spider="directory_search",
    ),
    _Shipped(
        slug="sitemap",
        name="Sitemap",
        category="Whole sites",
        description="Finds the pages that a site names in its sitemaps, indexes of them and feeds, filtered by address "
        "and by the date of their last change. Lists them, or reads each page by selectors.",
        icon="map",
        spider="sitemap",
    ),
    _Shipped(
        slug="articles",
        name="Articles",
        category="News and blogs",
        description="Brings home articles without being told how a site is built: the main text without menus, "
        "banners and comments, with title, author, date, language, pictures and tags. Finds them by links, sitemaps "
        "or feeds.",
        icon="newspaper",
        spider="articles",
    ),
)
"""The tools that an installation starts with."""


async def create(
    actor: Actor,
    *,
    name: str,
    category: str,
    spider: str,
    slug: str | None = None,
    description: str = "",
    states: Sequence[str] = (),
    icon: str | None = None,
    input_schema: Any = None,
    is_active: bool = True,
) -> Row:
    """Add a tool; without a slug it gets one made from its name, without an input schema the spider's.

    Raises ValidationFailed with the path of the faulty value, Conflict when the slug is taken.
    """
    access.allow(actor, Permission.TOOL_WRITE)
    if spider not in SPIDERS:
        raise ValidationFailed(f"There are these spiders: {', '.join(SPIDERS)}.", path=["input", "spider"])
    values = await _checked(
        {"name": name, "category": category, "description": description, "states": states, "icon": icon},
        spider=spider,
    )
    schema = await _checked_schema(input_schema, spider)
    candidates = [_valid_slug(slug)] if slug is not None else _slugs_of(values["name"])
    async with unit_of_work():
        for candidate in candidates:
            tool_id = await tools.insert(
                slug=candidate, spider=spider, input_schema=schema, is_active=is_active, **values
            )
            if tool_id is not None:
                await _record(actor, "createTool", tool_id, slug=candidate)
                return (await tools.find([tool_id]))[tool_id]
    raise _slug_taken()


async def update(actor: Actor, tool_id: str, changes: Mapping[str, Any]) -> Row:
    """Change columns of a tool, by their names; all but id and spider can change.

    An input schema of None brings back the spider's. Raises as `create`; NotFound.
    """
    row = await access.tool(actor, tool_id, to=Permission.TOOL_WRITE)
    values = await _checked(changes, spider=row["tool_spider"])
    if not values:
        return row
    async with unit_of_work():
        if not await tools.update(row["tool_id"], values):
            if "slug" in values and await tools.find([row["tool_id"]]):
                raise _slug_taken()
            raise access.missing()
        await _record(actor, "updateTool", row["tool_id"], changed=sorted(values))
        return (await tools.find([row["tool_id"]]))[row["tool_id"]]


async def delete(actor: Actor, tool_id: str) -> None:
    """Remove a tool; raises Conflict when jobs use it."""
    row = await access.tool(actor, tool_id, to=Permission.TOOL_WRITE)
    async with unit_of_work():
        uses = await tools.count_uses(row["tool_id"])
        if uses:
            raise Conflict(f"{uses} jobs use this tool. Deactivate it: they stay, and no run starts.", jobs=uses)
        await tools.delete(row["tool_id"])
        await _record(actor, "deleteTool", row["tool_id"], slug=row["tool_slug"])


async def page(actor: Actor, **conditions: Any) -> list[Row]:
    """A page of the tools that an actor may see; conditions as `models.tools.visible` takes them."""
    return await tools.visible(actor, **conditions)


async def count(actor: Actor, **conditions: Any) -> int:
    """How many there are in all."""
    return await tools.count_visible(actor, **conditions)


async def by_ids(tool_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The tools that exist among these; who may see what of them is the caller's concern."""
    return await tools.find(tool_ids)


async def input_schemas(tool_ids: Sequence[UUID]) -> dict[UUID, Any]:
    """The input schemas of tools."""
    return {tool_id: database.from_json(text) for tool_id, text in (await tools.input_schemas(tool_ids)).items()}


async def install_catalogue() -> list[str]:
    """Add the tools that ship and were never installed; their slugs. Needs nothing but the database.

    A tool that was renamed or deleted since does not come back: the audit trail remembers that it was installed.
    """
    installed = []
    for tool in CATALOGUE:
        async with unit_of_work():
            if await tools.was_installed(tool.slug):
                continue
            tool_id = await tools.insert(
                slug=tool.slug,
                name=tool.name,
                category=tool.category,
                description=tool.description,
                states=(),
                icon=tool.icon,
                spider=tool.spider,
                input_schema=SPIDERS[tool.spider].input_schema,
                is_active=True,
            )
            if tool_id is not None:
                await _record(Actor(), tools.INSTALLED, tool_id, slug=tool.slug)
                installed.append(tool.slug)
    return installed


async def _checked(values: Mapping[str, Any], *, spider: str) -> dict[str, Any]:
    """The given columns, each checked; raises ValidationFailed with the path of the faulty one."""
    result = dict(values)
    for column, max_length in (("name", MAX_NAME_LENGTH), ("category", MAX_CATEGORY_LENGTH)):
        if column in values:
            result[column] = texts.line(values[column], path=["input", column], max_length=max_length)
    if "slug" in values:
        result["slug"] = _valid_slug(values["slug"])
    if "description" in values:
        result["description"] = texts.prose(
            values["description"], path=["input", "description"], max_length=MAX_DESCRIPTION_LENGTH
        )
    if values.get("icon") is not None:
        result["icon"] = texts.line(values["icon"], path=["input", "icon"], max_length=MAX_ICON_LENGTH)
    if "states" in values:
        result["states"] = _valid_states(values["states"])
    if "input_schema" in values:
        result["input_schema"] = await _checked_schema(values["input_schema"], spider)
    return result


async def _checked_schema(schema: Any, spider: str) -> Mapping[str, Any]:
    if schema is not None:
        # Large ones take tens of milliseconds.
        return await asyncio.to_thread(json_schemas.checked, schema, path=["input", "inputSchema"])
    if spider not in SPIDERS:
        raise Conflict(f"The tool's spider, {spider}, is not part of this installation.")
    return SPIDERS[spider].input_schema


def _valid_states(states: Sequence[str]) -> list[str]:
    if len(states) > MAX_STATES:
        raise ValidationFailed(f"A tool has at most {MAX_STATES} states.", path=["input", "states"])
    tidy = [
        texts.line(state, path=["input", "states", position], max_length=MAX_STATE_LENGTH)
        for position, state in enumerate(states)
    ]
    return list(dict.fromkeys(tidy))


def _valid_slug(slug: str) -> str:
    if len(slug) > MAX_SLUG_LENGTH or not _SLUG.fullmatch(slug):
        raise ValidationFailed(
            f"A slug has up to {MAX_SLUG_LENGTH} characters: a to z and digits, in words joined by hyphens.",
            path=["input", "slug"],
        )
    return slug


def _slugs_of(name: str) -> Iterator[str]:
    """Slugs for a name, the plain one first, then numbered ones; `tool` for a name without Latin letters."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain)[: MAX_SLUG_LENGTH - 3].strip("-") or "tool"
    yield stem
    for number in range(2, _NUMBERED_SLUGS + 1):
        yield f"{stem}-{number}"


def _slug_taken() -> Conflict:
    return Conflict("Another tool has this slug.", path=["input", "slug"])


async def _record(actor: Actor, action: str, tool_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="tool", target_id=tool_id, details=details)
