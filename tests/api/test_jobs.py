"""Jobs through the API: whose they are, which inputs are refused and how, and that a repeat makes nothing twice."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters.storage import open_storage
from models import database
from models.ids import Prefix, decode_id, encode_id, new_id
from models.permissions import Actor
from schema import build_schema
from schema.context import AppState, Context
from schema.execution import Operations
from schema.pagination import write_cursor
from schema.requests import OperationRequest
from settings import Settings
from tests.factories import NOBODYS_ID, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure

SETTINGS = {"CRAWL_ALLOWED_HOSTS": "127.0.0.1:8900,localhost:8901", "MAX_JOBS_PER_USER": "12"}

JOB = "id name createdAt updatedAt input tool { id slug } owner { id username email }"
CREATE = f"""
mutation ($input: CreateJobInput!) {{ createJob(input: $input) {{ job {{ {JOB} }} run {{ id status input limits }} }} }}
"""
UPDATE = f"mutation ($input: UpdateJobInput!) {{ updateJob(input: $input) {{ job {{ {JOB} }} }} }}"
DELETE = "mutation ($input: DeleteJobInput!) { deleteJob(input: $input) { deletedId } }"
ONE = f"query ($id: ID!) {{ job(id: $id) {{ {JOB} }} }}"
NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
LIST = """
query ($filter: JobFilter, $search: String, $orderBy: JobOrder, $first: Int, $after: String, $last: Int,
       $before: String) {
  jobs(filter: $filter, search: $search, orderBy: $orderBy, first: $first, after: $after, last: $last,
       before: $before) {
    totalCount
    edges { cursor node { id name tool { id name } owner { username } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
CREATE_TOOL = "mutation ($input: CreateToolInput!) { createTool(input: $input) { tool { id slug } } }"
UPDATE_TOOL = "mutation ($input: UpdateToolInput!) { updateTool(input: $input) { tool { id } } }"

URLS = ["https://example.com/shop"]
CONFIG = {"fields": [{"name": "title", "css": "h1"}]}


@pytest_asyncio.fixture(scope="module")
async def make_tool(client: GraphQLClient, template: Any) -> Any:
    """`await make_tool(**changes)`: the id of a new tool."""
    admin = await sign_in(client, template.admin_email, template.admin_password)

    async def make(**changes: Any) -> str:
        fields = {"name": f"Tool {secrets.token_hex(4)}", "category": "Tests", "spider": "catalogue", **changes}
        tool_id: str = (await client.run(CREATE_TOOL, {"input": fields}, token=admin.token))["createTool"]["tool"]["id"]
        return tool_id

    return make


@pytest_asyncio.fixture(scope="module")
async def tool(make_tool: Any) -> str:
    """The id of a tool with the catalogue spider's own schema."""
    tool_id: str = await make_tool()
    return tool_id


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


def a_job(tool_id: str, **changes: Any) -> dict[str, Any]:
    return {"toolId": tool_id, "name": "Shop", "startUrls": URLS, "config": CONFIG, **changes}


async def created(client: GraphQLClient, person: Person, tool_id: str, **changes: Any) -> dict[str, Any]:
    data = await client.run(CREATE, {"input": a_job(tool_id, **changes)}, token=person.token)
    job: dict[str, Any] = data["createJob"]["job"]
    return job


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


async def everything(db: asyncpg.Connection) -> list[Any]:
    """What a refusal must leave as it was."""
    tables = ("jobs", "job_runs", "executions", "idempotency_keys")
    return [await db.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]


# -- who


async def test_strangers_see_and_change_nothing(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    job = await created(client, person, tool)
    before = await everything(db)
    attempts: list[tuple[str, dict[str, Any]]] = [
        (LIST, {}),
        (ONE, {"id": job["id"]}),
        (CREATE, {"input": a_job(tool)}),
        (UPDATE, {"input": {"id": job["id"], "name": "Mine"}}),
        (DELETE, {"input": {"id": job["id"]}}),
    ]
    for document, variables in attempts:
        assert (await refused(client, document, variables))["code"] == "UNAUTHORIZED"
    assert (await client.run(NODES, {"ids": [job["id"]]}))["nodes"] == [None]
    assert await everything(db) == before


async def test_jobs_of_others_do_not_exist(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    job, other = await created(client, person, tool), await new_user(client)
    before = await everything(db)
    answers = []
    for id_ in (job["id"], encode_id(Prefix.JOB, new_id())):
        attempts: list[tuple[str, dict[str, Any]]] = [
            (ONE, {"id": id_}),
            (UPDATE, {"input": {"id": id_, "name": "Mine"}}),
            (DELETE, {"input": {"id": id_}}),
        ]
        for document, variables in attempts:
            error = await refused(client, document, variables, token=other.token)
            answers.append((error["message"], error["code"], error["details"]))
    assert len({str(answer) for answer in answers}) == 1
    assert answers[0][1] == "NOT_FOUND"
    assert (await client.run(NODES, {"ids": [job["id"]]}, token=other.token))["nodes"] == [None]
    assert (await client.run(LIST, token=other.token))["jobs"] == {
        "totalCount": 0,
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }
    error = await refused(client, LIST, {"filter": {"ownerId": person.id}}, token=other.token)
    assert (error["code"], error["details"]["path"]) == ("NOT_FOUND", ["filter", "ownerId"])
    assert await everything(db) == before


async def test_administrators_see_and_change_all(
    client: GraphQLClient, admin: Person, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    job = await created(client, person, tool)
    assert (await client.run(ONE, {"id": job["id"]}, token=admin.token))["job"] == job
    assert (await client.run(NODES, {"ids": [job["id"]]}, token=admin.token))["nodes"] == [{"id": job["id"]}]
    page = (await client.run(LIST, {"filter": {"ownerId": person.id}}, token=admin.token))["jobs"]
    assert [edge["node"]["id"] for edge in page["edges"]] == [job["id"]]
    assert job["id"] in {edge["node"]["id"] for edge in (await client.run(LIST, token=admin.token))["jobs"]["edges"]}
    await client.run(UPDATE, {"input": {"id": job["id"], "name": "Renamed"}}, token=admin.token)
    assert (await client.run(ONE, {"id": job["id"]}, token=person.token))["job"]["name"] == "Renamed"
    event = await db.fetchrow("SELECT * FROM audit_events WHERE action = 'updateJob' ORDER BY id DESC LIMIT 1")
    assert (event["actor_id"], event["target_id"]) == (decode_id(admin.id)[1], decode_id(job["id"])[1])


# -- bad inputs


async def test_a_job_needs_a_tool_that_exists_and_is_active(
    client: GraphQLClient, admin: Person, person: Person, make_tool: Any, db: asyncpg.Connection
) -> None:
    inactive = await make_tool(isActive=False)
    before = await everything(db)
    for tool_id, code in [
        ("", "NOT_FOUND"),
        ("nonsense", "NOT_FOUND"),
        (encode_id(Prefix.TOOL, NOBODYS_ID), "NOT_FOUND"),
        (person.id, "NOT_FOUND"),
        (inactive, "CONFLICT"),
    ]:
        error = await refused(client, CREATE, {"input": a_job(tool_id)}, token=person.token)
        assert (error["code"], error["details"]["path"]) == (code, ["input", "toolId"])
    assert await everything(db) == before


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "x" * 121}, ["name"]),
        ({"name": "two\nlines"}, ["name"]),
        ({"startUrls": None}, ["startUrls"]),
        ({"startUrls": []}, ["startUrls"]),
        ({"startUrls": ["https://example.com/", "nonsense"]}, ["startUrls", 1]),
        ({"startUrls": ["ftp://example.com/"]}, ["startUrls", 0]),
        ({"startUrls": ["https://example.com/", "https://example.com/"]}, ["startUrls"]),
        ({"startUrls": [f"https://example.com/{n}" for n in range(1_001)]}, ["startUrls"]),
        ({"state": "CA"}, ["state"]),
        ({"username": "ada"}, ["username"]),
        ({"startingName": "A"}, ["startingName"]),
        ({"config": None}, ["config", "fields"]),
        ({"config": {}}, ["config", "fields"]),
        ({"config": []}, ["config"]),
        ({"config": "{}"}, ["config"]),
        ({"config": {**CONFIG, "colour": "red"}}, ["config", "colour"]),
        ({"config": {**CONFIG, "startUrls": URLS}}, ["startUrls"]),
        ({"config": {**CONFIG, "startUrls": ["nonsense"]}, "startUrls": None}, ["config", "startUrls", 0]),
        ({"config": {"fields": [{"name": "title"}]}}, ["config", "fields", 0]),
        ({"config": {"fields": [{"css": "h1"}]}}, ["config", "fields", 0, "name"]),
        ({"config": {"fields": [{"name": "title", "css": "h1["}]}}, ["config", "fields", 0, "css"]),
        ({"config": {"fields": [{"name": "title", "xpath": "//["}]}}, ["config", "fields", 0, "xpath"]),
        ({"config": {"fields": [{"name": "t", "css": "a", "regex": "("}]}}, ["config", "fields", 0, "regex"]),
        ({"config": {"fields": [{"name": "t", "css": "a", "note": "x" * 262_144}]}}, []),
        ({"idempotencyKey": ""}, ["idempotencyKey"]),
        ({"idempotencyKey": "k" * 256}, ["idempotencyKey"]),
        ({"limits": {"maxPages": 0}, "run": True}, ["limits", "maxPages"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
async def test_an_input_that_does_not_fit_is_refused_with_the_path(
    client: GraphQLClient,
    person: Person,
    tool: str,
    db: asyncpg.Connection,
    changes: dict[str, Any],
    path: list[str | int],
) -> None:
    before = await everything(db)
    error = await refused(client, CREATE, {"input": a_job(tool, **changes)}, token=person.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", *path])
    assert "reason" not in error["details"]
    assert len(error["message"]) < 500
    assert await everything(db) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "NUL \0"},
        {"config": {"fields": [{"name": "title", "css": "\0"}]}},
        {"config": {"\0": 1}},
        {"startUrls": ["https://example.com/\0"]},
        {"config": json.loads("[" * 70 + "]" * 70)},
        {"startUrls": [None]},
        {"name": None},
        {"run": None},
        {"limits": {"maxPages": 2**40}},
        {"owner": "me"},
    ],
)
async def test_what_is_no_input_at_all_is_refused(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection, changes: dict[str, Any]
) -> None:
    before = await everything(db)
    error = await refused(client, CREATE, {"input": a_job(tool, **changes)}, token=person.token)
    assert error["code"] == "VALIDATION_ERROR"
    assert await everything(db) == before


async def test_half_a_surrogate_pair_is_refused(client: GraphQLClient, person: Person, tool: str) -> None:
    body = json.dumps({"query": CREATE, "variables": {"input": a_job(tool, config={"x": "\ud800"})}})
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json"}
    answer = (await client.http.post(client.url, content=body, headers=headers)).json()
    assert answer["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"
    assert answer["errors"][0]["extensions"]["details"]["path"] == ["input", "config", "x"]


async def test_a_whole_number_too_large_for_storage_is_refused_when_it_stands_in_the_document(
    client: GraphQLClient, person: Person, tool: str
) -> None:
    document = f"""mutation {{ createJob(input: {{toolId: "{tool}", name: "Large", startUrls: ["https://example.com"],
        config: {{maxListPages: 123456789012345678901234567890}}}}) {{ job {{ id }} }} }}"""
    error = await refused(client, document, {}, token=person.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input"])


async def test_all_faults_are_listed_up_to_twenty(client: GraphQLClient, person: Person, tool: str) -> None:
    config = {"fields": [{"name": f"f{n}", "css": 1} for n in range(30)], "colour": "red"}
    error = await refused(client, CREATE, {"input": a_job(tool, startUrls=[], config=config)}, token=person.token)
    faults = error["details"]["faults"]
    assert len(faults) == 20
    assert all(fault["path"][0] == "input" and fault["message"] for fault in faults)
    assert faults[0]["path"] == error["details"]["path"]
    two = await refused(
        client, CREATE, {"input": a_job(tool, startUrls=None, config={"fields": []})}, token=person.token
    )
    assert {tuple(fault["path"]) for fault in two["details"]["faults"]} == {
        ("input", "startUrls"),
        ("input", "config", "fields"),
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://LOCALHOST:80/",
        "http://shop.localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://①②⑦.⓪.⓪.①/",
        "http://10.0.0.8/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "HTTP://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "https://example.com:22/",
        "http://127.0.0.1:8901/",
        "http://localhost:8900/",
        "http://127.0.0.1\n/",
    ],
)
async def test_addresses_inside_are_refused_in_any_spelling(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection, url: str
) -> None:
    before = await everything(db)
    attempts: list[tuple[dict[str, Any], list[str | int]]] = [
        ({"startUrls": [*URLS, url]}, ["input", "startUrls", 1]),
        ({"startUrls": None, "config": {**CONFIG, "startUrls": [url]}}, ["input", "config", "startUrls", 0]),
    ]
    for changes, path in attempts:
        error = await refused(client, CREATE, {"input": a_job(tool, run=True, **changes)}, token=person.token)
        assert error["code"] == "VALIDATION_ERROR"
        assert (error["details"]["path"], error["details"]["reason"]) == (path, "BLOCKED_URL")
        assert "secret" not in json.dumps(error)
    assert await everything(db) == before


async def test_hosts_that_the_operator_opened_may_be_crawled(client: GraphQLClient, person: Person, tool: str) -> None:
    urls = ["http://127.0.0.1:8900/shop", "http://localhost:8901/", "https://example.com:443/", "http://example.com"]
    assert (await created(client, person, tool, startUrls=urls))["input"]["startUrls"] == urls


async def test_the_tools_own_schema_narrows_the_spiders(client: GraphQLClient, person: Person, make_tool: Any) -> None:
    narrow = {"properties": {"startUrls": {"maxItems": 1}, "colour": {"type": "string"}}, "required": ["maxListPages"]}
    tool_id = await make_tool(inputSchema=narrow)
    two = ["https://example.com/1", "https://example.com/2"]
    attempts: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["config", "maxListPages"]),
        ({"startUrls": two, "config": {**CONFIG, "maxListPages": 1}}, ["startUrls"]),
        ({"config": {**CONFIG, "maxListPages": 1, "colour": "red"}}, ["config", "colour"]),
        ({"config": {"maxListPages": 1}}, ["config", "fields"]),
    ]
    for changes, path in attempts:
        error = await refused(client, CREATE, {"input": a_job(tool_id, **changes)}, token=person.token)
        assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", *path])
    await created(client, person, tool_id, config={**CONFIG, "maxListPages": 1})


async def test_a_schema_that_cannot_be_followed_is_a_conflict(
    client: GraphQLClient, person: Person, make_tool: Any
) -> None:
    endless = {"properties": {"fields": {"$ref": "#/properties/fields"}}}
    error = await refused(client, CREATE, {"input": a_job(await make_tool(inputSchema=endless))}, token=person.token)
    assert error["code"] == "CONFLICT"


async def test_nobody_has_more_jobs_than_the_limit(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    await db.execute(
        """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
           SELECT gen_random_uuid(), $1, $2, 'Job ' || n, '{}', now(), now() FROM generate_series(1, 10) n""",
        decode_id(person.id)[1],
        decode_id(tool)[1],
    )
    variables = {"input": a_job(tool)}
    answers = await asyncio.gather(*(client.raw(CREATE, variables, token=person.token) for _ in range(6)))
    errors = [body["errors"][0]["extensions"] for answer in answers if (body := answer.json()).get("errors")]
    assert [error["code"] for error in errors] == ["CONFLICT"] * 4
    assert errors[0]["details"]["limit"] == 12
    assert (await client.run(LIST, token=person.token))["jobs"]["totalCount"] == 12


# -- making one


async def test_a_job_keeps_its_input_as_one_object(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    job = await created(client, person, tool, name="  Lamps & Söns ", state=None)
    assert job["name"] == "Lamps & Söns"
    assert job["input"] == {**CONFIG, "startUrls": URLS}
    assert (job["tool"]["id"], job["owner"]) == (
        tool,
        {"id": person.id, "username": person.username, "email": person.email},
    )
    assert (await client.run(ONE, {"id": job["id"]}, token=person.token))["job"] == job
    in_config = await created(client, person, tool, startUrls=None, config={**CONFIG, "startUrls": URLS})
    assert in_config["input"] == job["input"]
    event = await db.fetchrow("SELECT * FROM audit_events WHERE target_id = $1", decode_id(job["id"])[1])
    assert (event["action"], event["actor_id"]) == ("createJob", decode_id(person.id)[1])


async def test_a_job_made_to_run_has_a_run_in_the_queue(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    variables = {"input": a_job(tool, run=True, limits={"maxPages": 5})}
    made = (await client.run(CREATE, variables, token=person.token))["createJob"]
    assert (made["run"]["status"], made["run"]["limits"]) == ("QUEUED", {"maxPages": 5})
    assert made["run"]["input"] == made["job"]["input"]
    row = await db.fetchrow("SELECT * FROM job_runs WHERE execution_id = $1", decode_id(made["run"]["id"])[1])
    assert row["job_id"] == decode_id(made["job"]["id"])[1]
    assert (await client.run(CREATE, {"input": a_job(tool)}, token=person.token))["createJob"]["run"] is None


SETTINGS_OF = "onlyChanges savesProducts alarmPercent"


async def test_what_a_job_does_with_its_items_is_set_changed_and_kept_by_its_runs(
    client: GraphQLClient, admin: Person, tool: str
) -> None:
    document = f"""mutation ($input: CreateJobInput!) {{ createJob(input: $input) {{
        job {{ id {SETTINGS_OF} }} run {{ onlyChanges savesProducts job {{ {SETTINGS_OF} }} }} }} }}"""
    plain = (await client.run(document, {"input": a_job(tool)}, token=admin.token))["createJob"]["job"]
    assert {**plain, "id": ""} == {"id": "", "onlyChanges": False, "savesProducts": False, "alarmPercent": 50}
    given = {"onlyChanges": True, "savesProducts": True, "alarmPercent": 0}
    made = (await client.run(document, {"input": a_job(tool, run=True, **given)}, token=admin.token))["createJob"]
    assert {**made["job"], **given} == made["job"]
    assert made["run"] == {"onlyChanges": True, "savesProducts": True, "job": given}
    update = f"""mutation ($input: UpdateJobInput!) {{ updateJob(input: $input) {{
        job {{ {SETTINGS_OF} }} }} }}"""
    change = {"id": made["job"]["id"], "onlyChanges": False, "alarmPercent": 80}
    changed = (await client.run(update, {"input": change}, token=admin.token))["updateJob"]["job"]
    assert {**changed, "onlyChanges": False, "savesProducts": True, "alarmPercent": 80} == changed
    runs = "query { jobRuns(first: 1) { edges { node { onlyChanges savesProducts } } } }"
    [edge] = (await client.run(runs, token=admin.token))["jobRuns"]["edges"]
    assert edge["node"] == {"onlyChanges": True, "savesProducts": True}


async def test_settings_that_are_not_allowed_make_no_job(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    job = await created(client, person, tool)
    before = await everything(db)
    for changes, code in (({"savesProducts": True}, "FORBIDDEN"), ({"alarmPercent": 101}, "VALIDATION_ERROR")):
        error = await refused(client, CREATE, {"input": a_job(tool, **changes)}, token=person.token)
        assert error["code"] == code
        error = await refused(client, UPDATE, {"input": {"id": job["id"], **changes}}, token=person.token)
        assert error["code"] == code
    assert await everything(db) == before


async def test_a_repeated_key_makes_one_job_and_one_run(
    client: GraphQLClient, admin: Person, person: Person, make_tool: Any, db: asyncpg.Connection
) -> None:
    tool_id = await make_tool()
    variables = {"input": a_job(tool_id, run=True, idempotencyKey="k" * 255)}
    answers = await asyncio.gather(*(client.run(CREATE, variables, token=person.token) for _ in range(5)))
    assert {(made["createJob"]["job"]["id"], made["createJob"]["run"]["id"]) for made in answers} == {
        (answers[0]["createJob"]["job"]["id"], answers[0]["createJob"]["run"]["id"])
    }
    await client.run(UPDATE_TOOL, {"input": {"id": tool_id, "isActive": False}}, token=admin.token)
    assert await client.run(CREATE, variables, token=person.token) == answers[0]
    assert await db.fetchval("SELECT count(*) FROM jobs WHERE owner_id = $1", decode_id(person.id)[1]) == 1
    assert await db.fetchval("SELECT count(*) FROM executions WHERE owner_id = $1", decode_id(person.id)[1]) == 1
    for changes in ({"name": "Another"}, {"run": False}, {"config": {"fields": [{"name": "x", "css": "h2"}]}}):
        other = {"input": {**variables["input"], **changes}}
        error = await refused(client, CREATE, other, token=person.token)
        assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input", "idempotencyKey"])


async def test_keys_of_others_are_others(client: GraphQLClient, person: Person, tool: str) -> None:
    other = await new_user(client)
    made = [await created(client, who, tool, idempotencyKey="same") for who in (person, other)]
    assert made[0]["id"] != made[1]["id"]
    assert made[1]["owner"]["id"] == other.id


async def test_a_key_whose_first_use_was_refused_is_free(client: GraphQLClient, person: Person, tool: str) -> None:
    await refused(client, CREATE, {"input": a_job(tool, config={}, idempotencyKey="k")}, token=person.token)
    await created(client, person, tool, idempotencyKey="k")


async def test_a_key_whose_job_is_gone_is_a_conflict(client: GraphQLClient, person: Person, tool: str) -> None:
    job = await created(client, person, tool, idempotencyKey="k")
    await client.run(DELETE, {"input": {"id": job["id"]}}, token=person.token)
    error = await refused(client, CREATE, {"input": a_job(tool, idempotencyKey="k")}, token=person.token)
    assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input", "idempotencyKey"])


# -- changing one


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": ""}, ["name"]),
        ({"startUrls": None}, ["startUrls"]),
        ({"startUrls": ["nonsense"]}, ["startUrls", 0]),
        ({"config": None}, ["config", "fields"]),
        ({"config": {**CONFIG, "startUrls": ["nonsense"]}}, ["config", "startUrls", 0]),
        ({"state": "CA"}, ["state"]),
        ({"config": 1}, ["config"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
async def test_a_change_that_does_not_fit_leaves_the_job_as_it_was(
    client: GraphQLClient, person: Person, tool: str, changes: dict[str, Any], path: list[str | int]
) -> None:
    job = await created(client, person, tool)
    error = await refused(client, UPDATE, {"input": {"id": job["id"], **changes}}, token=person.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", *path])
    assert (await client.run(ONE, {"id": job["id"]}, token=person.token))["job"] == job


async def test_a_name_cannot_be_taken_away(client: GraphQLClient, person: Person, tool: str) -> None:
    job = await created(client, person, tool)
    error = await refused(client, UPDATE, {"input": {"id": job["id"], "name": None}}, token=person.token)
    assert error["code"] == "VALIDATION_ERROR"


async def test_an_update_changes_what_it_names_and_nothing_else(
    client: GraphQLClient, person: Person, tool: str
) -> None:
    job = await created(client, person, tool)

    async def updated(**changes: Any) -> dict[str, Any]:
        data = await client.run(UPDATE, {"input": {"id": job["id"], **changes}}, token=person.token)
        found: dict[str, Any] = data["updateJob"]["job"]
        return found

    assert await updated() == job
    renamed = await updated(name="New name")
    assert {**renamed, "updatedAt": ""} == {**job, "name": "New name", "updatedAt": ""}
    assert renamed["updatedAt"] > job["updatedAt"]
    other_urls = ["https://example.com/other"]
    assert (await updated(startUrls=other_urls))["input"] == {**CONFIG, "startUrls": other_urls}
    config = {"fields": [{"name": "price", "css": ".price"}], "maxListPages": 2}
    assert (await updated(config=config))["input"] == {**config, "startUrls": other_urls}
    assert (await updated(config={**CONFIG, "startUrls": URLS}))["input"] == {**CONFIG, "startUrls": URLS}


async def test_changes_that_overlap_are_all_kept(client: GraphQLClient, person: Person, tool: str) -> None:
    job = await created(client, person, tool)
    config = {"fields": [{"name": "price", "css": ".price"}]}
    await asyncio.gather(
        *(
            client.run(UPDATE, {"input": {"id": job["id"], **changes}}, token=person.token)
            for changes in ({"name": "Both"}, {"config": config}, {"startUrls": ["https://example.com/both"]})
        )
    )
    now = (await client.run(ONE, {"id": job["id"]}, token=person.token))["job"]
    assert (now["name"], now["input"]) == ("Both", {**config, "startUrls": ["https://example.com/both"]})


# -- deleting one


async def test_a_job_with_a_run_under_way_is_not_deleted(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection
) -> None:
    made = (await client.run(CREATE, {"input": a_job(tool, run=True)}, token=person.token))["createJob"]
    run_id = decode_id(made["run"]["id"])[1]
    before = await everything(db)
    for lease in (None, "status = 'RUNNING', worker = 'w', lease_until = now() + interval '1 hour'"):
        if lease:
            await db.execute(f"UPDATE executions SET {lease} WHERE id = $1", run_id)
            before = await everything(db)
        error = await refused(client, DELETE, {"input": {"id": made["job"]["id"]}}, token=person.token)
        assert error["code"] == "CONFLICT"
        assert await everything(db) == before


async def test_a_job_goes_with_all_that_its_runs_brought_home(
    client: GraphQLClient, person: Person, tool: str, db: asyncpg.Connection, settings: Settings
) -> None:
    kept = await created(client, person, tool)
    made = (await client.run(CREATE, {"input": a_job(tool, run=True)}, token=person.token))["createJob"]
    run_id, job_id = decode_id(made["run"]["id"])[1], decode_id(made["job"]["id"])[1]
    file, log = f"runs/{run_id}/items.jsonl", f"logs/{run_id}"
    async with open_storage(settings) as storage:
        for key in (file, log):
            await storage.put(key, b"{}", content_type="application/x-ndjson")
        await _finish(db, run_id, file=file, log=log)
        data = await client.run(DELETE, {"input": {"id": made["job"]["id"]}}, token=person.token)
        assert data["deleteJob"] == {"deletedId": made["job"]["id"]}
        assert [await storage.head(key) for key in (file, log)] == [None, None]
    for table, column in [
        ("jobs", "id"),
        ("job_runs", "job_id"),
        ("executions", "id"),
        ("items", "dataset_id"),
        ("crawl_requests", "dataset_id"),
        ("output_files", "run_id"),
        ("execution_events", "execution_id"),
    ]:
        assert not await db.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = ANY($1)", [run_id, job_id]), table
    assert (await refused(client, ONE, {"id": made["job"]["id"]}, token=person.token))["code"] == "NOT_FOUND"
    assert (await client.run(LIST, token=person.token))["jobs"]["edges"][0]["node"]["id"] == kept["id"]
    event = await db.fetchrow("SELECT * FROM audit_events WHERE action = 'deleteJob' AND target_id = $1", job_id)
    assert event["actor_id"] == decode_id(person.id)[1]


async def _finish(db: asyncpg.Connection, run_id: Any, *, file: str, log: str) -> None:
    await db.execute(
        "UPDATE executions SET status = 'SUCCEEDED', finished_at = now(), log_object = $2 WHERE id = $1",
        run_id,
        json.dumps({"key": log}),
    )
    await db.execute(
        """INSERT INTO output_files (id, run_id, format, key, filename, content_type, size, sha256, row_count,
               created_at)
           VALUES (gen_random_uuid(), $1, 'JSONL', $2, 'items.jsonl', 'application/x-ndjson', 2, '', 1, now())""",
        run_id,
        file,
    )
    await db.execute(
        """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
           SELECT $1, $1, n::text, 'https://example.com', '{}', now() FROM generate_series(1, 3) n""",
        run_id,
    )
    await db.execute(
        """INSERT INTO crawl_requests (dataset_id, fingerprint, url, payload, depth, rank, state, starts)
           VALUES ($1, 'x', 'https://example.com', '{}', 0, 0, 'PENDING', 0)""",
        run_id,
    )


@pytest.fixture
def settings(settings_env: dict[str, str]) -> Settings:
    """The settings of the module's programs."""
    return Settings(**{name.lower(): value for name, value in settings_env.items()})  # type: ignore[arg-type]


# -- lists


async def listed(client: GraphQLClient, person: Person, **variables: Any) -> list[str]:
    page = (await client.run(LIST, variables, token=person.token))["jobs"]
    return [edge["node"]["name"] for edge in page["edges"]]


@pytest.mark.parametrize(
    ("variables", "code", "path"),
    [
        ({"first": 0}, "VALIDATION_ERROR", ["first"]),
        ({"first": 101}, "VALIDATION_ERROR", ["first"]),
        ({"last": 101}, "VALIDATION_ERROR", ["last"]),
        ({"first": 1, "last": 1}, "VALIDATION_ERROR", ["last"]),
        ({"after": ""}, "VALIDATION_ERROR", ["after"]),
        ({"after": "nonsense"}, "VALIDATION_ERROR", ["after"]),
        ({"before": "\u00e9" * 2_000}, "VALIDATION_ERROR", ["before"]),
        ({"search": "x" * 201}, "VALIDATION_ERROR", ["search"]),
        ({"filter": {"toolId": "nonsense"}}, "NOT_FOUND", ["filter", "toolId"]),
        ({"filter": {"ownerId": "nonsense"}}, "NOT_FOUND", ["filter", "ownerId"]),
    ],
)
async def test_a_page_that_cannot_be_is_refused(
    client: GraphQLClient, person: Person, variables: dict[str, Any], code: str, path: list[str]
) -> None:
    error = await refused(client, LIST, variables, token=person.token)
    assert (error["code"], error["details"]["path"]) == (code, path)


@pytest.mark.parametrize(
    "moment",
    [
        None,
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
async def test_a_forged_cursor_reads_nothing_that_it_should_not(
    client: GraphQLClient, person: Person, tool: str, moment: Any
) -> None:
    job, other = await created(client, person, tool), await new_user(client)
    columns = (("-updated_at", datetime), ("-id", UUID))
    after = write_cursor((moment, new_id()), columns)
    variables = {"after": after, "orderBy": {"field": "UPDATED_AT"}}
    body = (await client.raw(LIST, variables, token=other.token)).json()
    assert "errors" not in body or body["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"
    assert job["id"] not in str(body)


async def test_lists_are_sorted_paged_counted_and_filtered(
    client: GraphQLClient, person: Person, make_tool: Any
) -> None:
    tools = [await make_tool(), await make_tool()]
    names = ["beta", "Alpha 100%", "gamma", "delta", "Epsilon"]
    jobs = [await created(client, person, tools[number % 2], name=name) for number, name in enumerate(names)]
    await client.run(UPDATE, {"input": {"id": jobs[0]["id"], "startUrls": URLS}}, token=person.token)
    by_name = ["Alpha 100%", "beta", "delta", "Epsilon", "gamma"]
    for order, expected in [
        (None, names[::-1]),
        ({"field": "CREATED_AT", "direction": "ASC"}, names),
        ({"field": "NAME", "direction": "ASC"}, by_name),
        ({"field": "NAME"}, by_name[::-1]),
        ({"field": "UPDATED_AT"}, ["beta", *names[:0:-1]]),
    ]:
        assert await _paged(client, person, order) == (expected, expected)
    assert await listed(client, person, filter={"toolId": tools[1]}) == ["delta", "Alpha 100%"]
    assert await listed(client, person, filter={"ownerId": person.id}, first=1) == ["Epsilon"]
    assert await listed(client, person, search="ALPHA 100%") == ["Alpha 100%"]
    assert await listed(client, person, search="%") == ["Alpha 100%"]
    assert await listed(client, person, search="_") == []


async def _paged(client: GraphQLClient, person: Person, order: Any) -> tuple[list[str], list[str]]:
    """All names, read forwards and read backwards, two at a time."""
    forwards: list[str] = []
    backwards: list[str] = []
    after = before = None
    for _ in range(3):
        variables = {"orderBy": order, "first": 2, "after": after}
        page = (await client.run(LIST, variables, token=person.token))["jobs"]
        forwards += [edge["node"]["name"] for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        assert page["totalCount"] == 5
        page = (await client.run(LIST, {"orderBy": order, "last": 2, "before": before}, token=person.token))["jobs"]
        backwards = [edge["node"]["name"] for edge in page["edges"]] + backwards
        before = page["pageInfo"]["startCursor"]
    return forwards, backwards


class Statements(logging.Handler):
    """What Tortoise sends to PostgreSQL."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
async def statements(settings: Settings) -> AsyncIterator[Statements]:
    """The statements of this process, with its own connection to the module's database."""
    found, logger = Statements(), logging.getLogger("tortoise.db_client")
    level = logger.level
    async with database.connected(settings):
        logger.addHandler(found)
        logger.setLevel(logging.DEBUG)
        try:
            yield found
        finally:
            logger.setLevel(level)
            logger.removeHandler(found)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("edges { node { id name createdAt tool { name states } owner { email } } }", 1),
        ("totalCount edges { node { name tool { name } owner { username } } }", 2),
        ("edges { node { input tool { inputSchema exampleInput } } }", 3),
    ],
)
async def test_a_list_takes_as_many_statements_however_long_it_is(
    client: GraphQLClient,
    person: Person,
    tool: str,
    settings: Settings,
    statements: Statements,
    selection: str,
    expected: int,
) -> None:
    operations = Operations(build_schema(), settings)
    operation = operations.prepare(
        OperationRequest(f"{{ jobs(first: 100) {{ {selection} }} }}", {}, None), request_id=None
    )
    taken = []
    for count in (1, 5):
        for _ in range(count):
            await created(client, person, tool)
        statements.texts.clear()
        context = Context(actor=Actor(user_id=decode_id(person.id)[1]), settings=settings, state=AppState())
        answer = json.loads(await operations.execute(operation, {}, context))
        assert "errors" not in answer
        taken.append(statements.texts.copy())
    assert [len(texts) for texts in taken] == [expected, expected], _shown(taken)


def _shown(taken: Sequence[Sequence[str]]) -> str:
    return "\n\n".join(text for texts in taken for text in texts)
