"""Deploy hooks: a secret address that is shown once, kept as a hash, and deploys for whoever posts to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from models.ids import Prefix, encode_id
from resolvers.projects import MAX_HOOKS
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.projects import CREATE_HOOK, DELETE, DELETE_HOOK, ONE, UPDATE, Studio, open_studio, uuid

MAX_QUEUED = 4
SETTINGS = {"MAX_QUEUED_PER_USER": str(MAX_QUEUED)}


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def http(api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever has the address: no session, no token."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as sender:
        yield sender


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture
async def project(studio: Studio, person: Person) -> str:
    """The id of a project."""
    project_id: str = (await studio.project(person))["id"]
    return project_id


def key_of(url: str) -> str:
    (key,) = parse_qs(urlsplit(url).query)["key"]
    return key


# -- who


async def test_hooks_of_others_do_not_exist(
    studio: Studio, person: Person, project: str, client: GraphQLClient
) -> None:
    hook = (await studio.hook(person, project))["deployHook"]["id"]
    other = await new_user(client)
    assert (await studio.refused(None, DELETE_HOOK, input={"id": hook})).code == "UNAUTHORIZED"
    foreign_kind = encode_id(Prefix.PROJECT, uuid(hook))
    for id_ in (hook, encode_id(Prefix.DEPLOY_HOOK, NOBODYS_ID), foreign_kind, "nonsense"):
        assert (await studio.refused(other, DELETE_HOOK, input={"id": id_})).code == "NOT_FOUND"
    for id_ in (foreign_kind, "nonsense"):
        assert (await studio.refused(person, DELETE_HOOK, input={"id": id_})).code == "NOT_FOUND"


async def test_administrators_delete_hooks_of_everybody(
    studio: Studio, person: Person, project: str, admin: Person, http: httpx.AsyncClient
) -> None:
    made = await studio.hook(person, project)
    hook = made["deployHook"]["id"]
    assert await studio.run(admin, DELETE_HOOK, input={"id": hook}) == {"deletedId": hook}
    assert (await http.post(made["url"])).status_code == 404


# -- making


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "x" * 121), ("name", "a\nb"), ("branch", ""), ("branch", "-x"), ("branch", "a..b")],
)
async def test_hook_that_does_not_fit_is_refused(
    studio: Studio, person: Person, project: str, field: str, value: str
) -> None:
    failure = await studio.refused(person, CREATE_HOOK, input={"projectId": project, "name": "Timer", field: value})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["input", field])


async def test_number_of_hooks_is_limited_for_requests_at_once(studio: Studio, person: Person, project: str) -> None:
    answers = await asyncio.gather(
        *(studio.hook(person, project) for _ in range(MAX_HOOKS + 3)), return_exceptions=True
    )
    assert [answer.code for answer in answers if isinstance(answer, GraphQLFailure)] == ["CONFLICT"] * 3
    hooks = (await studio.run(person, ONE, id=project))["deployHooks"]
    assert len(hooks) == MAX_HOOKS
    await studio.run(person, DELETE_HOOK, input={"id": hooks[0]["id"]})
    await studio.hook(person, project)


async def test_address_is_shown_once_and_kept_as_a_hash(
    studio: Studio, person: Person, project: str, api_server: ApiServer
) -> None:
    made = await studio.hook(person, project)
    key = key_of(made["url"])
    assert made["url"].startswith(f"{api_server.url}/hooks/deploy?key=")
    assert len(key) >= 32
    kept = await studio.pool.fetchval(
        "SELECT token_hash FROM deploy_hooks WHERE id = $1", uuid(made["deployHook"]["id"])
    )
    assert kept == hashlib.sha256(key.encode()).hexdigest()
    tables = await studio.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        found = await studio.pool.fetch(
            f'SELECT 1 FROM "{table["tablename"]}" t WHERE strpos(t::text, $1) > 0',
            key,
        )
        assert found == [], table["tablename"]
    again = await studio.run(person, ONE, id=project)
    assert [hook["id"] for hook in again["deployHooks"]] == [made["deployHook"]["id"]]
    assert key not in json.dumps(again)
    assert key != key_of((await studio.hook(person, project))["url"])


# -- posting


async def test_post_without_a_key_that_opens_is_a_page_that_is_not_there(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient, api_server: ApiServer
) -> None:
    made = await studio.hook(person, project)
    key = key_of(made["url"])
    hash_ = hashlib.sha256(key.encode()).hexdigest()
    before = await studio.state()
    addresses = [
        "",
        "?key=",
        f"?key={key[:-1]}",
        f"?key={key}x",
        f"?key={hash_}",
        f"?other={key}",
        "?key=%00",
        "?key=%ff",
    ]
    answers = [await http.post(f"{api_server.url}/hooks/deploy{address}") for address in addresses]
    assert [answer.status_code for answer in answers] == [404] * len(addresses)
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert (await http.request(method, made["url"])).status_code == 405
    assert await studio.state() == before


async def test_post_queues_a_deployment_of_its_branch(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient, api_server: ApiServer
) -> None:
    made = await studio.hook(person, project)
    await studio.set(person, project, {"name": "A", "value": "b", "environments": ["PRODUCTION"]})
    answer = await http.post(made["url"], content=b"{" * 100, headers={"content-type": "application/json"})
    assert answer.status_code == 202
    (deployment_id,) = answer.json().values()
    assert list(answer.json()) == ["deploymentId"]
    deployment = await studio.read(person, deployment_id)
    assert deployment == {
        **deployment, "status": "QUEUED", "number": 1, "environment": "PRODUCTION", "trigger": "DEPLOY_HOOK",
        "branch": "main", "commitHash": None, "requestedBy": None, "isFork": False,
    }  # fmt: skip
    assert await studio.is_rung(deployment_id)
    assert await studio.variables(deployment_id) == {"A": "b"}
    (hook,) = (await studio.run(person, ONE, id=project))["deployHooks"]
    assert hook["lastUsedAt"] is not None
    assert key_of(made["url"]) not in api_server.log.read_text()
    told = "SELECT actor_id, request_id FROM audit_events WHERE action = 'deployByHook' AND target_id = $1"
    [event] = await studio.pool.fetch(told, uuid(deployment_id))
    assert (event["actor_id"], event["request_id"]) == (None, answer.headers["x-request-id"])


async def test_hook_keeps_branch_and_environment_when_the_project_changes(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient
) -> None:
    wanted: list[tuple[dict[str, Any], str, str]] = [
        ({}, "main", "PRODUCTION"),
        ({"branch": "next"}, "next", "PREVIEW"),
        ({"branch": "next", "environment": "PRODUCTION"}, "next", "PRODUCTION"),
        ({"environment": "PREVIEW"}, "main", "PREVIEW"),
    ]
    hooks = [await studio.hook(person, project, **fields) for fields, _, _ in wanted]
    await studio.run(person, UPDATE, input={"id": project, "branch": "other", "supersede": "NONE"})
    for hook, (_, branch, environment) in zip(hooks, wanted, strict=True):
        assert (hook["deployHook"]["branch"], hook["deployHook"]["environment"]) == (branch, environment)
        deployment = await studio.read(person, (await http.post(hook["url"])).json()["deploymentId"])
        assert (deployment["branch"], deployment["environment"]) == (branch, environment)


async def test_newer_call_replaces_the_one_that_waits(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient
) -> None:
    url = (await studio.hook(person, project))["url"]
    first, second = [(await http.post(url)).json()["deploymentId"] for _ in range(2)]
    replaced = await studio.read(person, first)
    assert (replaced["status"], replaced["supersededBy"]) == ("CANCELLED", {"id": second})


async def test_hook_stops_when_too_many_wait(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient
) -> None:
    url = (await studio.hook(person, project))["url"]
    for _ in range(MAX_QUEUED):
        await studio.deployment(person, project)
    before = await studio.state()
    answer = await http.post(url)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert await studio.state() == before


async def test_hook_that_is_deleted_or_whose_project_is_gone_deploys_nothing(
    studio: Studio, person: Person, project: str, http: httpx.AsyncClient
) -> None:
    first, second = [await studio.hook(person, project) for _ in range(2)]
    await studio.run(person, DELETE_HOOK, input={"id": first["deployHook"]["id"]})
    assert (await studio.refused(person, DELETE_HOOK, input={"id": first["deployHook"]["id"]})).code == "NOT_FOUND"
    assert (await http.post(first["url"])).status_code == 404
    assert [hook["id"] for hook in (await studio.run(person, ONE, id=project))["deployHooks"]] == [
        second["deployHook"]["id"]
    ]
    await studio.run(person, DELETE, input={"id": project})
    assert (await http.post(second["url"])).status_code == 404
