"""The catalogue through the API: who sees and changes which tools, what a bad one is told, and how it ships."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from models.ids import Prefix, encode_id
from tasks.crawl.spiders import SPIDERS
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.processes import run_cli

TOOL = "id slug name category description states icon isActive spider createdAt updatedAt"
CREATE = f"mutation ($input: CreateToolInput!) {{ createTool(input: $input) {{ tool {{ {TOOL} inputSchema }} }} }}"
UPDATE = f"mutation ($input: UpdateToolInput!) {{ updateTool(input: $input) {{ tool {{ {TOOL} inputSchema }} }} }}"
DELETE = "mutation ($input: DeleteToolInput!) { deleteTool(input: $input) { deletedId } }"
ONE = f"query ($id: ID!) {{ tool(id: $id) {{ {TOOL} }} }}"
LIST = """
query ($filter: ToolFilter, $search: String, $orderBy: ToolOrder, $first: Int, $after: String, $last: Int,
       $before: String) {
  tools(filter: $filter, search: $search, orderBy: $orderBy, first: $first, after: $after, last: $last,
        before: $before) {
    totalCount
    edges { cursor node { id slug name } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
CREATE_JOB = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id } } }"
NARROW = {"type": "object", "required": ["startUrls"], "properties": {"startUrls": {"maxItems": 1}}}


def a_tool(**changes: Any) -> dict[str, Any]:
    return {"name": f"Tool {secrets.token_hex(4)}", "category": "Tests", "spider": "catalogue", **changes}


async def created(client: GraphQLClient, admin: Person, **changes: Any) -> dict[str, Any]:
    data = await client.run(CREATE, {"input": a_tool(**changes)}, token=admin.token)
    tool: dict[str, Any] = data["createTool"]["tool"]
    return tool


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


async def slugs(client: GraphQLClient, person: Person, **variables: Any) -> list[str]:
    page = (await client.run(LIST, variables, token=person.token))["tools"]
    return [edge["node"]["slug"] for edge in page["edges"]]


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


# -- who


async def test_strangers_see_and_change_nothing(client: GraphQLClient, admin: Person) -> None:
    tool = await created(client, admin)
    attempts: list[tuple[str, dict[str, Any]]] = [
        (LIST, {}),
        (ONE, {"id": tool["id"]}),
        (CREATE, {"input": a_tool()}),
        (UPDATE, {"input": {"id": tool["id"], "name": "Mine"}}),
        (DELETE, {"input": {"id": tool["id"]}}),
    ]
    for document, variables in attempts:
        assert (await refused(client, document, variables))["code"] == "UNAUTHORIZED"
    node = await client.run("query ($id: ID!) { node(id: $id) { id } }", {"id": tool["id"]})
    assert node == {"node": None}


async def test_users_change_no_tools(
    client: GraphQLClient, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    tool = await created(client, admin)
    before = await db.fetch("SELECT * FROM tools ORDER BY id")
    attempts: list[tuple[str, dict[str, Any]]] = [
        (CREATE, {"input": a_tool()}),
        (UPDATE, {"input": {"id": tool["id"], "name": "Mine"}}),
        (DELETE, {"input": {"id": tool["id"]}}),
    ]
    for document, variables in attempts:
        assert (await refused(client, document, variables, token=person.token))["code"] == "FORBIDDEN"
    assert await db.fetch("SELECT * FROM tools ORDER BY id") == before


async def test_inactive_tools_are_for_administrators(client: GraphQLClient, admin: Person, person: Person) -> None:
    active, inactive = await created(client, admin), await created(client, admin, isActive=False)
    both = {"ids": [active["id"], inactive["id"]]}
    nodes = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert (await refused(client, ONE, {"id": inactive["id"]}, token=person.token))["code"] == "NOT_FOUND"
    assert (await client.run(nodes, both, token=person.token))["nodes"] == [{"id": active["id"]}, None]
    assert (await client.run(nodes, both, token=admin.token))["nodes"] == [{"id": active["id"]}, {"id": inactive["id"]}]
    for filter in (None, {"isActive": False}, {"isActive": True}):
        assert inactive["slug"] not in await slugs(client, person, filter=filter, first=100)
    assert await slugs(client, person, filter={"isActive": False}) == []
    assert inactive["slug"] in await slugs(client, admin, filter={"isActive": False}, first=100)
    seen = (await client.run(ONE, {"id": inactive["id"]}, token=admin.token))["tool"]
    assert (seen["id"], seen["isActive"]) == (inactive["id"], False)


@pytest.mark.parametrize(
    "id_",
    ["", "tool", "tool_", encode_id(Prefix.TOOL, NOBODYS_ID), encode_id(Prefix.JOB, NOBODYS_ID), "tool_" + "z" * 26],
)
async def test_what_is_no_tool_is_not_found(client: GraphQLClient, admin: Person, id_: str) -> None:
    attempts: list[tuple[str, dict[str, Any]]] = [
        (ONE, {"id": id_}),
        (UPDATE, {"input": {"id": id_, "name": "x"}}),
        (DELETE, {"input": {"id": id_}}),
    ]
    for document, variables in attempts:
        assert (await refused(client, document, variables, token=admin.token))["code"] == "NOT_FOUND"


# -- bad tools


def doubling(steps: int) -> dict[str, Any]:
    """Two to the power of `steps` references to follow."""
    definitions = {f"d{step}": {"allOf": [{"$ref": f"#/$defs/d{step + 1}"}] * 2} for step in range(steps)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{steps}": {}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": ""}, ["name"]),
        ({"name": " \t"}, ["name"]),
        ({"name": "x" * 121}, ["name"]),
        ({"name": "two\nlines"}, ["name"]),
        ({"name": "right-to-left \u202e"}, ["name"]),
        ({"category": ""}, ["category"]),
        ({"category": "x" * 65}, ["category"]),
        ({"description": "x" * 4_001}, ["description"]),
        ({"description": "bell \u0007"}, ["description"]),
        ({"icon": ""}, ["icon"]),
        ({"icon": "x" * 65}, ["icon"]),
        ({"states": ["ok", ""]}, ["states", 1]),
        ({"states": ["x"] * 201}, ["states"]),
        ({"slug": ""}, ["slug"]),
        ({"slug": "Upper"}, ["slug"]),
        ({"slug": "a--b"}, ["slug"]),
        ({"slug": "slug\n"}, ["slug"]),
        ({"slug": "x" * 65}, ["slug"]),
        ({"spider": "tarantula"}, ["spider"]),
        ({"spider": ""}, ["spider"]),
        ({"inputSchema": []}, ["inputSchema"]),
        ({"inputSchema": True}, ["inputSchema"]),
        ({"inputSchema": "{}"}, ["inputSchema"]),
        ({"inputSchema": {"type": "objekt"}}, ["inputSchema", "type"]),
        ({"inputSchema": {"properties": {"a": {"pattern": "("}}}}, ["inputSchema", "properties", "a", "pattern"]),
        ({"inputSchema": {"$schema": "http://json-schema.org/draft-07/schema#"}}, ["inputSchema", "$schema"]),
        ({"inputSchema": {"$ref": "http://127.0.0.1:9/schema"}}, ["inputSchema", "$ref"]),
        ({"inputSchema": {"$ref": "file:///etc/passwd"}}, ["inputSchema", "$ref"]),
        ({"inputSchema": {"items": [{"$ref": "#/$defs/none"}]}}, ["inputSchema", "items"]),
        ({"inputSchema": {"allOf": [{"$ref": "#/$defs/none"}]}}, ["inputSchema", "allOf", 0, "$ref"]),
        ({"inputSchema": {"$ref": "#/a/b", "a": [1]}}, ["inputSchema", "$ref"]),
        ({"inputSchema": {"$ref": "#/a", "a": {"type": 7}}}, ["inputSchema", "$ref"]),
        ({"inputSchema": {"$ref": "#/a", "a": 5}}, ["inputSchema", "$ref"]),
        (
            {"inputSchema": {"not": {"$id": "urn:y", "$ref": "#/$defs/n"}, "$defs": {"n": {}}}},
            ["inputSchema", "not", "$id"],
        ),
        ({"inputSchema": {"$ref": "#"}}, ["inputSchema"]),
        ({"inputSchema": doubling(40)}, ["inputSchema"]),
        ({"inputSchema": {"description": "x" * 65_536}}, ["inputSchema"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
async def test_a_bad_tool_is_refused_with_the_path(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, changes: dict[str, Any], path: list[str | int]
) -> None:
    tool = await created(client, admin)
    before = await db.fetch("SELECT * FROM tools ORDER BY id")
    calls = [(CREATE, a_tool(**changes))]
    if "spider" not in changes:
        calls.append((UPDATE, {"id": tool["id"], **changes}))
    for document, fields in calls:
        error = await refused(client, document, {"input": fields}, token=admin.token)
        assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", *path])
    assert await db.fetch("SELECT * FROM tools ORDER BY id") == before


@pytest.mark.parametrize(
    "changes", [{"name": "NUL \0"}, {"inputSchema": {"title": "\0"}}, {"inputSchema": nested(70)}, {"name": None}]
)
async def test_what_no_text_may_hold_is_refused(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, changes: dict[str, Any]
) -> None:
    before = await db.fetchval("SELECT count(*) FROM tools")
    error = await refused(client, CREATE, {"input": a_tool(**changes)}, token=admin.token)
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"]["path"][:2] == ["input", next(iter(changes))]
    assert await db.fetchval("SELECT count(*) FROM tools") == before


async def test_a_whole_number_too_large_for_storage_is_refused_when_it_stands_in_the_document(
    client: GraphQLClient, admin: Person
) -> None:
    document = """mutation { createTool(input: {name: "Large", category: "Tests", spider: "catalogue",
        inputSchema: {maximum: 123456789012345678901234567890}}) { tool { id } } }"""
    error = await refused(client, document, {}, token=admin.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "inputSchema"])


async def test_a_taken_slug_is_a_conflict(client: GraphQLClient, admin: Person) -> None:
    first, second = await created(client, admin), await created(client, admin)
    for document, fields in [
        (CREATE, a_tool(slug=first["slug"])),
        (UPDATE, {"id": second["id"], "slug": first["slug"]}),
    ]:
        error = await refused(client, document, {"input": fields}, token=admin.token)
        assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input", "slug"])


async def test_a_tool_that_a_job_uses_is_not_deleted(
    client: GraphQLClient, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    tool = await created(client, admin)
    job = {
        "toolId": tool["id"],
        "name": "Keeps it",
        "startUrls": ["https://example.com/"],
        "config": {"fields": [{"name": "title", "css": "h1"}]},
    }
    await client.run(CREATE_JOB, {"input": job}, token=person.token)
    error = await refused(client, DELETE, {"input": {"id": tool["id"]}}, token=admin.token)
    assert (error["code"], error["details"]["jobs"]) == ("CONFLICT", 1)
    assert await db.fetchval("SELECT count(*) FROM tools WHERE slug = $1", tool["slug"]) == 1


# -- good ones


async def test_a_tool_has_what_it_was_given_and_the_spiders_schema(
    client: GraphQLClient, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    fields = a_tool(
        name="  Ünïque Tool & Co.  ", description="Two\nlines", states=["CA", "NY", "CA"], icon="tool", slug=None
    )
    tool = (await client.run(CREATE, {"input": fields}, token=admin.token))["createTool"]["tool"]
    assert tool["name"] == "Ünïque Tool & Co."
    assert tool["slug"] == "unique-tool-co"
    assert (tool["states"], tool["icon"], tool["description"]) == (["CA", "NY"], "tool", "Two\nlines")
    assert tool["inputSchema"] == SPIDERS["catalogue"].input_schema
    assert tool["createdAt"].endswith("Z")
    seen = await client.run(
        "query ($id: ID!) { tool(id: $id) { slug inputSchema outputSchema exampleInput } }",
        {"id": tool["id"]},
        token=person.token,
    )
    assert seen["tool"] == {
        "slug": "unique-tool-co",
        "inputSchema": SPIDERS["catalogue"].input_schema,
        "outputSchema": SPIDERS["catalogue"].output_schema,
        "exampleInput": SPIDERS["catalogue"].example_input,
    }
    event = await db.fetchrow("SELECT * FROM audit_events WHERE action = 'createTool' ORDER BY id DESC LIMIT 1")
    assert (event["target_type"], encode_id(Prefix.TOOL, event["target_id"])) == ("tool", tool["id"])


async def test_names_that_make_the_same_slug_get_numbers(client: GraphQLClient, admin: Person) -> None:
    name = f"Same {secrets.token_hex(4)}"
    made = [(await created(client, admin, name=name))["slug"] for _ in range(3)]
    assert made == [made[0], f"{made[0]}-2", f"{made[0]}-3"]
    assert (await created(client, admin, name="工具"))["slug"].startswith("tool")


async def test_an_update_changes_what_it_names_and_nothing_else(client: GraphQLClient, admin: Person) -> None:
    tool = await created(client, admin, icon="star", states=["CA"], inputSchema=NARROW)
    assert tool["inputSchema"] == NARROW
    data = await client.run(UPDATE, {"input": {"id": tool["id"]}}, token=admin.token)
    assert data["updateTool"]["tool"] == tool
    changes = {"icon": None, "isActive": False, "inputSchema": None, "slug": tool["slug"]}
    changed = (await client.run(UPDATE, {"input": {"id": tool["id"], **changes}}, token=admin.token))["updateTool"][
        "tool"
    ]
    assert changed.pop("updatedAt") > tool.pop("updatedAt")
    assert changed == {**tool, **changes, "inputSchema": SPIDERS["catalogue"].input_schema}


async def test_a_deleted_tool_is_gone(client: GraphQLClient, admin: Person) -> None:
    tool = await created(client, admin)
    data = await client.run(DELETE, {"input": {"id": tool["id"]}}, token=admin.token)
    assert data["deleteTool"] == {"deletedId": tool["id"]}
    assert (await refused(client, ONE, {"id": tool["id"]}, token=admin.token))["code"] == "NOT_FOUND"


# -- lists


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"first": 0}, ["first"]),
        ({"first": 101}, ["first"]),
        ({"last": -1}, ["last"]),
        ({"first": 1, "last": 1}, ["last"]),
        ({"after": "nonsense"}, ["after"]),
        ({"before": "\u00e9"}, ["before"]),
        ({"search": "x" * 201}, ["search"]),
    ],
)
async def test_a_page_that_cannot_be_is_refused(
    client: GraphQLClient, person: Person, variables: dict[str, Any], path: list[str]
) -> None:
    error = await refused(client, LIST, variables, token=person.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", path)


async def test_a_cursor_of_another_order_is_refused(client: GraphQLClient, admin: Person) -> None:
    await created(client, admin)
    page = (await client.run(LIST, {"first": 1}, token=admin.token))["tools"]
    variables = {"after": page["pageInfo"]["endCursor"], "orderBy": {"field": "CREATED_AT"}}
    assert (await refused(client, LIST, variables, token=admin.token))["details"]["path"] == ["after"]


async def test_lists_are_sorted_paged_and_counted(client: GraphQLClient, admin: Person, person: Person) -> None:
    category = f"Sorted {secrets.token_hex(4)}"
    names = ["beta", "Alpha", "gamma", "Beta", "delta"]
    made = [await created(client, admin, name=name, category=category) for name in names]
    of_mine = {"filter": {"category": category}}
    by_name = sorted(made, key=lambda tool: (tool["name"].lower(), tool["id"]))
    for order, expected in [
        (None, by_name),
        ({"field": "NAME", "direction": "DESC"}, by_name[::-1]),
        ({"field": "CREATED_AT"}, made),
        ({"field": "CREATED_AT", "direction": "DESC"}, made[::-1]),
    ]:
        wanted = [tool["slug"] for tool in expected]
        forwards: list[str] = []
        backwards: list[str] = []
        after = before = None
        for _ in range(3):
            page = (
                await client.run(LIST, {**of_mine, "orderBy": order, "first": 2, "after": after}, token=person.token)
            )["tools"]
            forwards += [edge["node"]["slug"] for edge in page["edges"]]
            after = page["pageInfo"]["endCursor"]
            assert page["totalCount"] == 5
            page = (
                await client.run(LIST, {**of_mine, "orderBy": order, "last": 2, "before": before}, token=person.token)
            )["tools"]
            backwards = [edge["node"]["slug"] for edge in page["edges"]] + backwards
            before = page["pageInfo"]["startCursor"]
        assert (forwards, backwards) == (wanted, wanted)


async def test_a_search_takes_its_text_literally(client: GraphQLClient, admin: Person, person: Person) -> None:
    mark = secrets.token_hex(4)
    plain = await created(client, admin, name=f"Books {mark}")
    percent = await created(client, admin, name=f"100%_{mark}\\", description="")
    assert await slugs(client, person, search=f"books {mark.upper()}") == [plain["slug"]]
    assert await slugs(client, person, search=f"100%_{mark}\\") == [percent["slug"]]
    assert await slugs(client, person, search=f"100_%{mark}") == []
    assert {plain["slug"], percent["slug"]} <= set(await slugs(client, person, search=mark))
    assert await slugs(client, person, search=mark, filter={"spider": "property_listings"}) == []


# -- what ships


async def test_the_shipped_catalogue_is_installed_once_and_then_left_alone(
    client: GraphQLClient, admin: Person, person: Person, settings_env: dict[str, str]
) -> None:
    assert "Installed the tool catalogue." in run_cli("migrate", environment=settings_env)
    found = (await client.run(LIST, {"search": "property"}, token=person.token))["tools"]["edges"]
    ids = {edge["node"]["slug"]: edge["node"]["id"] for edge in found}
    catalogue = (await client.run(LIST, {"search": "catalogue"}, token=person.token))["tools"]["edges"][0]["node"]
    renamed = {"id": catalogue["id"], "slug": "renamed", "description": "Mine now."}
    await client.run(UPDATE, {"input": renamed}, token=admin.token)
    await client.run(DELETE, {"input": {"id": ids["property-listings"]}}, token=admin.token)
    assert "Installed" not in run_cli("migrate", environment=settings_env)
    assert await slugs(client, admin, search="mine now") == ["renamed"]
    assert not {"catalogue", "property-listings"} & set(await slugs(client, admin, first=100))
