"""Connecting GitHub and looking at it through the API, against a stand-in for GitHub."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from models.ids import decode_id
from tests.conftest import ApiServer, Programs, Template
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.github_accounts import (
    ACCOUNT,
    COMPLETE,
    CONNECT,
    allow,
    begin,
    code_for,
    complete,
    connect,
    location_of,
    parameter,
)
from tests.harness.github_server import Fault, GitHubServer

APP = "https://app.example.com"
MINE = f"{{ githubConnection {{ {ACCOUNT} }} }}"
DISCONNECT = "mutation { disconnectGithub { wasConnected } }"
REPOSITORIES = """
query ($search: String, $refresh: Boolean! = false, $first: Int, $after: String, $last: Int, $before: String) {
  githubRepositories(search: $search, refresh: $refresh, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    edges { cursor node { fullName defaultBranch isPrivate pushedAt } }
    pageInfo { hasNextPage hasPreviousPage endCursor startCursor }
  }
}
"""
BRANCHES = """
query ($repository: String!, $refresh: Boolean! = false, $first: Int, $after: String) {
  githubBranches(repository: $repository, refresh: $refresh, first: $first, after: $after) {
    totalCount
    edges { node { name commitHash isProtected isDefault } }
    pageInfo { endCursor }
  }
}
"""


@pytest_asyncio.fixture(scope="module")
async def github() -> AsyncIterator[GitHubServer]:
    """The stand-in."""
    async with GitHubServer().running() as server:
        yield server
        assert server.violations == []


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template, github: GitHubServer) -> ApiServer:
    """An API whose GitHub is the stand-in."""
    programs.environment.update({**github.settings, "ALLOWED_ORIGINS": APP})
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    return server


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest.fixture
def login() -> str:
    """An account at GitHub that nobody has used."""
    return f"octo-{secrets.token_hex(5)}"


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], person: Person | None) -> Any:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, token=person.token if person else None)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


async def stored(db: asyncpg.Connection, person: Person) -> Any:
    return await db.fetchrow("SELECT * FROM oauth_connections WHERE user_id = $1", decode_id(person.id)[1])


# -- connecting: who, and where to


async def test_strangers_can_do_nothing(client: GraphQLClient) -> None:
    for document, variables in (
        (MINE, {}),
        (CONNECT, {"input": {"redirectTo": APP}}),
        (COMPLETE, {"input": {"code": "x"}}),
        (DISCONNECT, {}),
        (REPOSITORIES, {}),
        (BRANCHES, {"repository": "a/b"}),
    ):
        assert (await refused(client, document, variables, None))["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "redirect_to",
    [
        "",
        "/relative",
        "https://evil.example/",
        "https://app.example.com.evil.example/",
        "https://app.example.com@evil.example/",
        "https://user@app.example.com/",
        "http://app.example.com/",
        "https://app.example.com:444/",
        "https://app.example.com\\@evil.example/",
        "https://app.example.com/#token",
        "https://app.example.com/\tx",
        "//app.example.com/",
        "javascript:alert(1)",
        "https://[app.example.com/",
        f"https://app.example.com/{'x' * 2_000}",
    ],
)
async def test_a_browser_is_sent_back_to_allowed_apps_only(
    client: GraphQLClient, person: Person, redirect_to: str
) -> None:
    error = await refused(client, CONNECT, {"input": {"redirectTo": redirect_to}}, person)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "redirectTo"])


async def test_an_installation_without_an_application_says_so(api_server: ApiServer, person: Person) -> None:
    bare = await api_server.second(GITHUB_CLIENT_ID="", BASE_URL=api_server.url)
    async with GraphQLClient(bare.graphql_url) as client:
        error = await refused(client, CONNECT, {"input": {"redirectTo": APP}}, person)
    assert (error["code"], "GITHUB_CLIENT_ID" in error["message"]) == ("SERVICE_UNAVAILABLE", True)


async def test_without_redis_there_is_no_connecting(api_server: ApiServer, person: Person) -> None:
    alone = await api_server.second(REDIS_URL="redis://127.0.0.1:1/0", BASE_URL=api_server.url)
    async with GraphQLClient(alone.graphql_url) as client:
        error = await refused(client, CONNECT, {"input": {"redirectTo": APP}}, person)
        assert error["code"] == "SERVICE_UNAVAILABLE"
        error = await refused(client, COMPLETE, {"input": {"code": "x"}}, person)
        assert error["code"] == "SERVICE_UNAVAILABLE"


# -- connecting: what comes back


async def callback(api_server: ApiServer, **parameters: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(f"{api_server.url}/auth/github/callback", params=parameters)


async def test_a_wrong_or_used_state_leads_nowhere(
    client: GraphQLClient, api_server: ApiServer, person: Person, db: asyncpg.Connection
) -> None:
    back = await allow(await begin(client, person))
    await location_of(back)
    for parameters in (
        {},
        {"code": "x"},
        {"code": "x", "state": ""},
        {"code": "x", "state": "guessed"},
        {"code": "x", "state": "s" * 5_000},
        {"code": parameter(back, "code"), "state": parameter(back, "state")},
    ):
        answer = await callback(api_server, **parameters)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "VALIDATION_ERROR")
    assert await stored(db, person) is None


async def test_whoever_says_no_at_github_comes_back_with_that(
    client: GraphQLClient, api_server: ApiServer, person: Person
) -> None:
    for error, told in (("access_denied", "access_denied"), ("<script>", "failed")):
        state = parameter(await begin(client, person, redirect_to=f"{APP}/settings?tab=git"), "state")
        answer = await callback(api_server, state=state, error=error)
        assert answer.headers["location"] == f"{APP}/settings?tab=git&provider=github&error={told}"


async def test_the_way_back_carries_a_code_of_ours_and_nothing_of_githubs(
    client: GraphQLClient, person: Person, github: GitHubServer, db: asyncpg.Connection
) -> None:
    exchanged = len(github.calls_of("POST", "access_token"))
    url = await begin(client, person)
    assert {parameter(url, "scope"), parameter(url, "code_challenge_method")} == {"repo", "S256"}
    back = await allow(url)
    target = await location_of(back)
    assert parameter(back, "code") not in target
    # The browser alone connects nothing: not even a token was asked for.
    assert (await stored(db, person), len(github.calls_of("POST", "access_token"))) == (None, exchanged)


async def test_a_code_of_somebody_else_connects_nothing_and_is_used_up(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    attacker, github.browser_login = await new_user(client), login
    for begun_by, redeemed_by in ((attacker, person), (person, attacker)):
        code = await code_for(client, begun_by)
        for redeeming in (redeemed_by, begun_by):
            error = await refused(client, COMPLETE, {"input": {"code": code}}, redeeming)
            assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "codeRefused")
    assert (await stored(db, person), await stored(db, attacker)) == (None, None)
    refusal = await db.fetchrow(
        "SELECT * FROM audit_events WHERE actor_id = $1 AND action = 'connectGithub'", decode_id(attacker.id)[1]
    )
    assert refusal["outcome"] == "CONFLICT"


async def test_a_code_holds_for_the_session_that_began(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    github.browser_login = login
    elsewhere = await sign_in(client, person.username, person.password)
    error = await refused(client, COMPLETE, {"input": {"code": await code_for(client, person)}}, elsewhere)
    assert error["details"]["reason"] == "codeRefused"


@pytest.mark.parametrize("code", ["", "guessed", "x" * 10_000, "é"])
async def test_a_guessed_code_is_refused(client: GraphQLClient, person: Person, code: str) -> None:
    error = await refused(client, COMPLETE, {"input": {"code": code}}, person)
    assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "codeRefused")


async def test_states_and_codes_do_not_live_long(
    client: GraphQLClient, person: Person, settings_env: dict[str, str], github: GitHubServer, login: str
) -> None:
    github.browser_login = login
    async with Redis.from_url(settings_env["REDIS_URL"]) as redis:
        url = await begin(client, person)
        pattern = f"{settings_env['REDIS_NAMESPACE']}:once:github-*"
        lives = {key: await redis.ttl(key) async for key in redis.scan_iter(pattern)}
        assert lives
        assert max(lives.values()) <= 600
        before = set(lives)
        code = parameter(await location_of(await allow(url)), "code")
        fresh = {key async for key in redis.scan_iter(pattern)} - before
        assert [0 < await redis.ttl(key) <= 60 for key in fresh] == [True]
        for key in fresh:
            await redis.delete(key)  # as its time would
    assert (await refused(client, COMPLETE, {"input": {"code": code}}, person))["code"] == "CONFLICT"


async def test_a_code_works_once_when_it_is_shown_twice_at_once(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    github.browser_login = login
    code = await code_for(client, person)
    results = await asyncio.gather(*(complete(client, person, code) for _ in range(2)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["GraphQLFailure", "dict"]
    assert (await stored(db, person))["login"] == login


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.GARBAGE, Fault.CUT_OFF, Fault.HUGE])
async def test_a_github_that_fails_on_the_last_step_leaves_nothing(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, fault: Fault, db: asyncpg.Connection
) -> None:
    github.browser_login = login
    for path in ("access_token", "/user$"):
        code = await code_for(client, person)
        github.fail(fault, path, times=2 if fault is Fault.CUT_OFF and path == "/user$" else 1)
        error = await refused(client, COMPLETE, {"input": {"code": code}}, person)
        assert error["code"] == "SERVICE_UNAVAILABLE"
    assert await stored(db, person) is None
    github._faults.clear()


async def test_less_than_was_asked_for_is_not_enough(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    github.browser_login, github.granted_scopes = login, "repo:status,read:org"
    try:
        error = await refused(client, COMPLETE, {"input": {"code": await code_for(client, person)}}, person)
    finally:
        github.granted_scopes = "repo"
    assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "scopesMissing")
    assert await stored(db, person) is None


async def test_an_account_belongs_to_one_user(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    other = await new_user(client)
    await connect(client, person, github, login)
    github.browser_login = login
    error = await refused(client, COMPLETE, {"input": {"code": await code_for(client, other)}}, other)
    assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "taken")
    assert await stored(db, other) is None
    # Two who come at the same moment: one of them has it.
    rivals = [await new_user(client) for _ in range(2)]
    github.browser_login = f"{login}-2"
    codes = [await code_for(client, rival) for rival in rivals]
    results = await asyncio.gather(
        *(complete(client, rival, code) for rival, code in zip(rivals, codes, strict=True)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["GraphQLFailure", "dict"]


# -- a connection


async def test_a_connection_is_shown_without_its_token_which_is_stored_sealed(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    assert (await client.run(MINE, token=person.token))["githubConnection"] is None
    connection = await connect(client, person, github, login)
    assert {name: connection[name] for name in ("login", "scopes", "needsReconnecting")} == {
        "login": login,
        "scopes": ["repo"],
        "needsReconnecting": False,
    }
    assert (await client.run(MINE, token=person.token))["githubConnection"] == connection
    token = next(token for token, owner in github.tokens.items() if owner == login)
    row = await stored(db, person)
    assert token not in str(dict(row))
    assert row["sealed_token"].startswith("v1.")
    event = await db.fetchrow(
        "SELECT * FROM audit_events WHERE action = 'connectGithub' AND actor_id = $1", decode_id(person.id)[1]
    )
    assert (event["outcome"], event["target_id"]) == ("success", row["id"])
    assert token not in event["details"]


async def test_connecting_again_replaces_the_connection(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    await connect(client, person, github, login)
    first = await stored(db, person)
    await db.execute("UPDATE oauth_connections SET refused_at = now() WHERE id = $1", first["id"])
    assert (await client.run(MINE, token=person.token))["githubConnection"]["needsReconnecting"] is True
    again = await connect(client, person, github, f"{login}-other")
    assert (again["login"], again["needsReconnecting"]) == (f"{login}-other", False)
    assert (await stored(db, person))["id"] != first["id"]


async def test_connecting_has_webhooks_made_for_projects_that_wait_for_one(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    create = "mutation ($input: CreateProjectInput!) { createProject(input: $input) { project { id } } }"
    project = {"name": f"Site {secrets.token_hex(4)}", "repository": f"{login}/site"}
    made = (await client.run(create, {"input": project}, token=person.token))["createProject"]["project"]
    project_id = str(decode_id(made["id"])[1])
    await db.execute("DELETE FROM outbox_messages")
    await connect(client, person, github, login)
    payloads = await db.fetch("SELECT payload->>'projectId' AS id FROM outbox_messages WHERE topic = 'github.hook'")
    assert [row["id"] for row in payloads] == [project_id]


async def test_disconnecting_forgets_the_token_here_and_at_github(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    await connect(client, person, github, login)
    for was_connected in (True, False):
        data = await client.run(DISCONNECT, token=person.token)
        assert data["disconnectGithub"] == {"wasConnected": was_connected}
    assert await stored(db, person) is None
    assert login not in github.tokens.values()
    actions = await db.fetch(
        "SELECT action FROM audit_events WHERE actor_id = $1 AND action = 'disconnectGithub'", decode_id(person.id)[1]
    )
    assert len(actions) == 1


async def test_a_github_that_is_broken_keeps_nobody_from_disconnecting(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, db: asyncpg.Connection
) -> None:
    await connect(client, person, github, login)
    github.fail(Fault.BROKEN, "/applications/")
    await client.run(DISCONNECT, token=person.token)
    assert await stored(db, person) is None


# -- lists


async def names(client: GraphQLClient, person: Person, **variables: Any) -> list[str]:
    page = (await client.run(REPOSITORIES, variables, token=person.token))["githubRepositories"]
    return [edge["node"]["fullName"] for edge in page["edges"]]


async def test_without_a_connection_there_are_no_lists(client: GraphQLClient, person: Person) -> None:
    for document, variables in ((REPOSITORIES, {}), (BRANCHES, {"repository": "a/b"})):
        error = await refused(client, document, variables, person)
        assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "notConnected")


async def test_a_refused_token_is_noted_and_not_tried_again(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    github.fail(Fault.UNAUTHORIZED, "/user/repos")
    asked = len(github.calls)
    for _ in range(2):
        error = await refused(client, REPOSITORIES, {}, person)
        assert (error["code"], error["details"]["reason"]) == ("CONFLICT", "tokenRefused")
    assert len(github.calls) == asked + 1
    assert (await client.run(MINE, token=person.token))["githubConnection"]["needsReconnecting"] is True


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.RATE_LIMITED, "RATE_LIMIT_EXCEEDED"),
        (Fault.BROKEN, "SERVICE_UNAVAILABLE"),
        (Fault.OTHER_SHAPE, "SERVICE_UNAVAILABLE"),
        (Fault.FORBIDDEN, "FORBIDDEN"),
    ],
)
async def test_a_list_that_github_does_not_give_is_not_remembered(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str, fault: Fault, code: str
) -> None:
    await connect(client, person, github, login)
    github.add_repository(f"{login}/site")
    github.fail(fault, "/user/repos")
    error = await refused(client, REPOSITORIES, {}, person)
    assert error["code"] == code
    assert ("retryAfterSeconds" in error) is (fault is Fault.RATE_LIMITED)
    assert await names(client, person) == [f"{login}/site"]


async def test_lists_are_fetched_once_until_they_are_refreshed(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    github.add_repository(f"{login}/one")
    asked = len(github.calls_of("GET", "/user/repos"))
    assert await asyncio.gather(*(names(client, person) for _ in range(5))) == [[f"{login}/one"]] * 5
    github.add_repository(f"{login}/two", pushed_at="2026-02-02T00:00:00Z")
    assert await names(client, person) == [f"{login}/one"]
    assert len(github.calls_of("GET", "/user/repos")) == asked + 1
    assert await names(client, person, refresh=True) == [f"{login}/two", f"{login}/one"]
    assert await names(client, person) == [f"{login}/two", f"{login}/one"]
    assert len(github.calls_of("GET", "/user/repos")) == asked + 2


async def test_lists_are_remembered_without_redis_too(
    api_server: ApiServer, client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    github.add_repository(f"{login}/one")
    alone = await api_server.second(REDIS_URL="redis://127.0.0.1:1/0", BASE_URL=api_server.url)
    asked = len(github.calls_of("GET", "/user/repos"))
    async with GraphQLClient(alone.graphql_url) as other:
        for _ in range(2):
            assert await names(other, person) == [f"{login}/one"]
    assert len(github.calls_of("GET", "/user/repos")) == asked + 1


async def test_repositories_are_searched_and_paged_in_the_order_of_pushes(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    other = await new_user(client)
    await connect(client, other, github, f"{login}-b")
    for number, pushed_at in enumerate(("2026-01-01T00:00:00Z", None, "2026-03-01T00:00:00Z", "2026-01-01T00:00:00Z")):
        github.add_repository(f"{login}/Site-{number}", pushed_at=pushed_at, is_private=number == 2)
    expected = [f"{login}/Site-{number}" for number in (2, 0, 3, 1)]
    assert await names(client, person) == expected
    assert await names(client, other) == []
    assert await names(client, person, search="SITE-3") == [f"{login}/Site-3"]
    forwards: list[str] = []
    backwards: list[str] = []
    after = before = None
    for _ in range(2):
        page = (await client.run(REPOSITORIES, {"first": 2, "after": after}, token=person.token))["githubRepositories"]
        forwards += [edge["node"]["fullName"] for edge in page["edges"]]
        assert page["totalCount"] == 4
        after = page["pageInfo"]["endCursor"]
        page = (await client.run(REPOSITORIES, {"last": 2, "before": before}, token=person.token))["githubRepositories"]
        backwards = [edge["node"]["fullName"] for edge in page["edges"]] + backwards
        before = page["pageInfo"]["startCursor"]
    assert (forwards, backwards) == (expected, expected)
    first = (await client.run(REPOSITORIES, {"first": 1}, token=person.token))["githubRepositories"]["edges"][0]["node"]
    assert first == {
        "fullName": f"{login}/Site-2",
        "defaultBranch": "main",
        "isPrivate": True,
        "pushedAt": "2026-03-01T00:00:00Z",
    }


async def test_branches_begin_with_the_default_one(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    github.add_repository(
        f"{login}/site", branches={"a": "a" * 40, "main": "b" * 40, "feature/x": "c" * 40}, default_branch="main"
    )
    page = (await client.run(BRANCHES, {"repository": f"{login}/SITE"}, token=person.token))["githubBranches"]
    assert [edge["node"]["name"] for edge in page["edges"]] == ["main", "a", "feature/x"]
    assert page["edges"][0]["node"] == {
        "name": "main",
        "commitHash": "b" * 40,
        "isProtected": True,
        "isDefault": True,
    }


async def test_a_repository_that_the_account_may_not_see_does_not_exist(
    client: GraphQLClient, person: Person, github: GitHubServer, login: str
) -> None:
    await connect(client, person, github, login)
    github.add_repository("somebody/secret", is_private=True)
    for repository, code in (
        ("somebody/secret", "NOT_FOUND"),
        ("somebody/missing", "NOT_FOUND"),
        ("nonsense", "VALIDATION_ERROR"),
        ("https://gitlab.com/a/b", "VALIDATION_ERROR"),
        ("../user", "VALIDATION_ERROR"),
    ):
        assert (await refused(client, BRANCHES, {"repository": repository}, person))["code"] == code
