"""Access tokens through the API: what is refused, what scopes and projects keep away, how they are made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from models.events import SessionsChanged
from models.ids import Prefix, encode_id, new_id
from resolvers.access_token_text import hash_of, new_access_token
from tests.factories import Person, new_user
from tests.harness import projects as studios
from tests.harness.client import GraphQLClient, GraphQLFailure, StreamClosed, open_socket, subscribe, subscribe_sse
from tests.harness.executions import run_id
from tests.harness.projects import NODES, Studio, open_studio, uuid
from tests.harness.waiting import eventually

MAX_TOKENS = 6
SETTINGS = {"MAX_ACCESS_TOKENS_PER_USER": str(MAX_TOKENS)}

TOKEN = "id name lastFour scopes projectIds createdAt expiresAt lastUsedAt lastUsedIp"
CREATE = f"""
mutation ($input: CreateAccessTokenInput!) {{
  it: createAccessToken(input: $input) {{ token accessToken {{ {TOKEN} }} }}
}}
"""
REVOKE = "mutation ($input: RevokeAccessTokenInput!) { it: revokeAccessToken(input: $input) { revokedId } }"
LIST = f"{{ it: accessTokens {{ {TOKEN} }} }}"
ME = "{ it: me { id email role } }"
PROJECTS = "{ it: projects { totalCount nodes: edges { node { id } } } }"
DEPLOYMENTS = "{ it: deployments { totalCount nodes: edges { node { id } } } }"
JOBS = "{ it: jobs { totalCount } }"
RUNS = "{ it: jobRuns { totalCount } }"
ALL = "subscription { it: executions { id } }"
ONE = "subscription ($id: ID!) { it: execution(id: $id) { id requestedBy { id email } } }"
LOG = "subscription ($id: ID!) { it: logs(executionId: $id) { lastSequence } }"
NEW_TOOL = (
    'mutation { it: createTool(input: {name: "A tool", category: "tests", description: "", spider: "catalogue", '
    "inputSchema: {}}) { tool { id } } }"
)


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def made(studio: Studio, owner: Person, *scopes: str, **fields: Any) -> dict[str, Any]:
    given = {"name": "CI", "scopes": list(scopes) or ["WRITE"], **fields}
    answer: dict[str, Any] = await studio.run(owner, CREATE, input=given)
    return answer


async def holder(studio: Studio, owner: Person, *scopes: str, **fields: Any) -> Person:
    """The owner's script: acts for them with a token."""
    return replace(owner, token=(await made(studio, owner, *scopes, **fields))["token"])


async def refusal(studio: Studio, person: Person | None, document: str, **variables: Any) -> tuple[str | None, Any]:
    """The code, and what the details say of the reason, the permission or the path."""
    failure = await studio.refused(person, document, **variables)
    details = failure.extensions["details"]
    return failure.code, details.get("reason") or details.get("permission") or details.get("path")


def ids(found: dict[str, Any]) -> tuple[int, list[str]]:
    return found["totalCount"], [each["node"]["id"] for each in found["nodes"]]


# -- what is no token, or none any more


async def test_what_is_no_token_is_refused(studio: Studio, person: Person) -> None:
    token = (await made(studio, person))["token"]
    tampered = token[:-1] + ("a" if token[-1] != "a" else "b")
    for text in (tampered, token[:-1], "swp_", "swp_" + "0" * 36, new_access_token()):
        assert await refusal(studio, replace(person, token=text), ME) == ("UNAUTHORIZED", "invalid")
        with pytest.raises(StreamClosed) as closed:
            async with open_socket(studio.client.url.replace("http", "ws"), token=text):
                pass
        assert closed.value.code == 4401


async def test_a_revoked_token_is_dead_and_so_are_its_streams(
    studio: Studio, person: Person, graphql_ws_url: str
) -> None:
    token = await made(studio, person)
    script = replace(person, token=token["token"])
    async with (
        open_socket(graphql_ws_url, token=script.token) as socket,
        subscribe_sse(studio.client, ALL, token=script.token) as events,
    ):
        await socket.start(ALL)
        revocation = {"id": token["accessToken"]["id"]}
        assert await studio.run(person, REVOKE, input=revocation) == {"revokedId": revocation["id"]}
        assert await refusal(studio, script, ME) == ("UNAUTHORIZED", "revoked")
        assert (await socket.closed()).code == 4401
        async with aclosing(events) as said:  # type: ignore[type-var]
            assert "UNAUTHORIZED" in str(await anext(said))
    assert await studio.run(person, LIST) == []
    before = await studio.state()
    assert await studio.run(person, REVOKE, input=revocation) == {"revokedId": revocation["id"]}
    assert await studio.state() == before


async def test_a_token_ends_in_time_and_so_do_its_streams(studio: Studio, person: Person, graphql_ws_url: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    script = await holder(studio, person, expiresAt=soon.isoformat())
    async with open_socket(graphql_ws_url, token=script.token) as socket:
        await socket.start(ALL)
        assert (await socket.closed(5)).code == 4403
    assert datetime.now(UTC) >= soon
    assert await refusal(studio, script, ME) == ("UNAUTHORIZED", "expired")


async def test_a_deactivated_user_has_no_tokens(studio: Studio, person: Person) -> None:
    script = await holder(studio, person)
    await studio.run(script, ME)
    await studio.pool.execute("UPDATE users SET is_active = false WHERE id = $1", uuid(person.id))
    await studio.desk.tell(SessionsChanged(uuid(person.id)))

    async def is_refused() -> bool:
        return (await studio.client.raw(ME, token=script.token)).status_code == 401

    assert await eventually(is_refused)


async def test_a_token_in_a_cookie_is_nobody(studio: Studio, person: Person) -> None:
    script = await holder(studio, person)
    for token, code in ((person.token, None), (script.token, "UNAUTHORIZED")):
        headers = {"cookie": f"switchyard_access={token}", "sec-fetch-site": "same-origin"}
        errors = (await studio.client.raw(ME, headers=headers)).json().get("errors")
        assert (errors and errors[0]["extensions"]["code"]) == code


# -- making them


async def test_tokens_are_their_owners_alone(studio: Studio, person: Person, admin: Person) -> None:
    token = await made(studio, person)
    other = await new_user(studio.client)
    id_ = token["accessToken"]["id"]
    for somebody in (other, admin):
        for foreign in (id_, encode_id(Prefix.SESSION, uuid(id_)), "nonsense"):
            assert (await refusal(studio, somebody, REVOKE, input={"id": foreign}))[0] == "NOT_FOUND"
        assert id_ not in [each["id"] for each in await studio.run(somebody, LIST)]
        assert await studio.run(somebody, NODES, ids=[id_]) == [None]
    assert (await refusal(studio, None, LIST))[0] == "UNAUTHORIZED"
    assert [each["id"] for each in await studio.run(person, LIST)] == [id_]


async def test_what_does_not_fit_is_refused_with_its_path(studio: Studio, person: Person) -> None:
    other = await new_user(studio.client)
    own, foreign = [(await studio.project(each))["id"] for each in (person, other)]
    now = datetime.now(UTC)
    faulty: list[tuple[list[str], dict[str, Any]]] = [
        *((["name"], {"name": name}) for name in ("", "  ", "a\nb", "x" * 121)),
        (["scopes"], {"scopes": []}),
        *((["expiresAt"], {"expiresAt": (now + timedelta(days=days)).isoformat()}) for days in (-1, 0, 367)),
        (["projectIds"], {"projectIds": []}),
        (["projectIds"], {"projectIds": [own] * 101}),
    ]
    for path, fields in faulty:
        failure = await refusal(studio, person, CREATE, input={"name": "CI", "scopes": ["READ"], **fields})
        assert failure == ("VALIDATION_ERROR", ["input", *path])
    for id_ in (foreign, person.id, "nonsense"):
        fields = {"name": "CI", "scopes": ["READ"], "projectIds": [own, id_]}
        assert await refusal(studio, person, CREATE, input=fields) == ("NOT_FOUND", ["input", "projectIds", 1])
    assert await studio.run(person, LIST) == []


async def test_only_administrators_make_administrators_tokens(studio: Studio, person: Person, admin: Person) -> None:
    given = {"name": "CI", "scopes": ["READ", "ADMIN"]}
    assert await refusal(studio, person, CREATE, input=given) == ("FORBIDDEN", ["input", "scopes"])
    project = await studio.project(admin)
    narrowed = {**given, "projectIds": [project["id"]]}
    assert await refusal(studio, admin, CREATE, input=narrowed) == ("VALIDATION_ERROR", ["input", "projectIds"])
    theirs = await studio.project(person)
    foreign = {"name": "CI", "scopes": ["READ"], "projectIds": [theirs["id"]]}
    assert await refusal(studio, admin, CREATE, input=foreign) == ("NOT_FOUND", ["input", "projectIds", 0])


async def test_there_are_so_many_and_no_more(studio: Studio, person: Person) -> None:
    tokens = [await made(studio, person) for _ in range(MAX_TOKENS)]
    failure = await studio.refused(person, CREATE, input={"name": "CI", "scopes": ["READ"]})
    assert (failure.code, failure.extensions["details"]["limit"]) == ("CONFLICT", MAX_TOKENS)
    await studio.run(person, REVOKE, input={"id": tokens[0]["accessToken"]["id"]})
    await made(studio, person)
    assert len(await studio.run(person, LIST)) == MAX_TOKENS


async def test_a_token_is_shown_once_and_kept_as_a_hash(studio: Studio, person: Person) -> None:
    answer = await made(studio, person, "READ", "WRITE", name=" Nightly ")
    token, shown = answer["token"], answer["accessToken"]
    assert shown == {
        **shown, "name": "Nightly", "lastFour": token[-4:], "scopes": ["READ", "WRITE"], "projectIds": None,
        "expiresAt": None, "lastUsedAt": None, "lastUsedIp": None,
    }  # fmt: skip
    kept = await studio.pool.fetchrow("SELECT * FROM access_tokens WHERE id = $1", uuid(shown["id"]))
    assert kept["token_hash"] == hash_of(token)
    trail = await studio.pool.fetch("SELECT * FROM audit_events WHERE target_id = $1", uuid(shown["id"]))
    assert [(event["action"], event["actor_id"]) for event in trail] == [("createAccessToken", uuid(person.id))]
    assert token not in str((tuple(kept), [tuple(event) for event in trail], await studio.run(person, LIST)))


async def test_use_is_written_down_once_a_minute(studio: Studio, person: Person) -> None:
    script = await holder(studio, person)

    async def used_again() -> Any:
        await studio.desk.tell(SessionsChanged(uuid(person.id)))  # so that the row is read anew
        await studio.run(script, ME)
        return await studio.pool.fetchrow(
            "SELECT last_used_at, last_used_ip FROM access_tokens WHERE user_id = $1", uuid(person.id)
        )

    first = await used_again()
    assert first["last_used_ip"] == "127.0.0.1"
    assert await used_again() == first
    await studio.pool.execute(
        "UPDATE access_tokens SET last_used_at = last_used_at - interval '61 seconds' WHERE user_id = $1",
        uuid(person.id),
    )

    async def is_written() -> bool:
        return bool((await used_again())["last_used_at"] > first["last_used_at"])

    assert await eventually(is_written)


# -- scopes


async def test_a_reader_changes_nothing(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    script = await holder(studio, person, "READ")
    commands: list[tuple[str, str, dict[str, Any]]] = [
        ("project:create", studios.CREATE, {"name": "Website", "repository": studios.REPOSITORY}),
        ("project:write", studios.UPDATE, {"id": project["id"], "name": "Mine"}),
        ("project:write", studios.DELETE, {"id": project["id"]}),
        ("project:write", studios.SET, {"projectId": project["id"], "variables": []}),
        ("project:write", studios.CREATE_HOOK, {"projectId": project["id"], "name": "Mine"}),
        ("deployment:write", studios.DEPLOY, {"projectId": project["id"]}),
        ("account:write", CREATE, {"name": "CI", "scopes": ["READ"]}),
    ]
    for permission, document, given in commands:
        assert await refusal(studio, script, document, input=given) == ("FORBIDDEN", permission)
    assert (await studio.run(script, ME))["id"] == person.id
    assert ids(await studio.run(script, PROJECTS)) == (1, [project["id"]])


async def test_no_token_makes_lists_or_ends_tokens(studio: Studio, admin: Person) -> None:
    token = await made(studio, admin, "ADMIN")
    script = replace(admin, token=token["token"])
    for document, given in ((CREATE, {"name": "CI", "scopes": ["READ"]}), (REVOKE, {"id": token["accessToken"]["id"]})):
        assert await refusal(studio, script, document, input=given) == ("FORBIDDEN", "account:write")
    assert await refusal(studio, script, LIST) == ("FORBIDDEN", "account:read")
    await studio.run(admin, REVOKE, input={"id": token["accessToken"]["id"]})


async def test_an_administrators_token_is_an_ordinary_users_without_the_scope(
    studio: Studio, person: Person, admin: Person
) -> None:
    project = await studio.project(person)
    writer = await made(studio, admin, "WRITE")
    script = replace(admin, token=writer["token"])
    assert await studio.run(script, NODES, ids=[project["id"], person.id]) == [None, None]
    assert (await refusal(studio, script, studios.ONE, id=project["id"]))[0] == "NOT_FOUND"
    assert project["id"] not in ids(await studio.run(script, PROJECTS))[1]
    assert await refusal(studio, script, NEW_TOOL) == ("FORBIDDEN", "tool:write")
    full = await made(studio, admin, "ADMIN")
    script = replace(admin, token=full["token"])
    assert (await studio.run(script, studios.ONE, id=project["id"]))["owner"] == {"id": person.id}
    assert (await studio.run(script, NODES, ids=[person.id])) == [{"__typename": "User", "id": person.id}]
    for each in (writer, full):
        await studio.run(admin, REVOKE, input={"id": each["accessToken"]["id"]})


async def test_what_a_token_does_is_told_apart(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    token = await made(studio, person)
    script = replace(person, token=token["token"])
    deployment = await studio.deployment(script, project["id"])
    assert (deployment["trigger"], deployment["requestedBy"]) == ("API", {"id": person.id})
    assert (await studio.deployment(person, project["id"]))["trigger"] == "MANUAL"
    event = await studio.pool.fetchrow(
        "SELECT actor_id, session_id, access_token_id FROM audit_events WHERE target_id = $1", uuid(deployment["id"])
    )
    assert tuple(event) == (uuid(person.id), None, uuid(token["accessToken"]["id"]))


# -- tokens for projects


async def test_a_token_for_a_project_reaches_nothing_else(studio: Studio, person: Person, graphql_ws_url: str) -> None:
    granted, other = [(await studio.project(person))["id"] for _ in range(2)]
    mine, others = (await studio.deployment(person, granted))["id"], (await studio.deployment(person, other))["id"]
    job = await studio.desk.job(person)
    run = run_id(await studio.desk.queued(person, job=job))
    hook = (await studio.hook(person, other))["deployHook"]["id"]
    script = await holder(studio, person, "WRITE", projectIds=[granted, granted])

    assert ids(await studio.run(script, PROJECTS)) == (1, [granted])
    assert ids(await studio.run(script, DEPLOYMENTS)) == (1, [mine])
    assert [each["id"] for each in await studio.run(script, "{ it: recentDeployments { id } }")] == [mine]
    hidden = [other, others, encode_id(Prefix.JOB, job), run, person.id]
    shown = await studio.run(script, NODES, ids=[granted, mine, *hidden])
    assert [each and each["id"] for each in shown] == [granted, mine, *[None] * len(hidden)]

    given: list[tuple[str, dict[str, Any]]] = [
        (studios.ONE, {"id": other}),
        (studios.ONE_DEPLOYMENT, {"id": others}),
        (studios.UPDATE, {"input": {"id": other, "name": "Mine"}}),
        (studios.DELETE, {"input": {"id": other}}),
        (studios.SET, {"input": {"projectId": other, "variables": []}}),
        (studios.CREATE_HOOK, {"input": {"projectId": other, "name": "Mine"}}),
        (studios.DELETE_HOOK, {"input": {"id": hook}}),
        (studios.DEPLOY, {"input": {"projectId": other}}),
        (studios.CANCEL, {"input": {"id": others}}),
        (studios.REDEPLOY, {"input": {"id": others}}),
        (studios.PROMOTE, {"input": {"id": others}}),
        (studios.DELETE_DEPLOYMENT, {"input": {"id": others}}),
    ]
    for document, variables in given:
        assert (await refusal(studio, script, document, **variables))[0] == "NOT_FOUND"
    for document, permission in [
        (ME, "profile:read"),
        (JOBS, "job:read"),
        (RUNS, "job:read"),
        ("{ it: tools { totalCount } }", "tool:read"),
        (NEW_TOOL, "tool:write"),
        ("{ it: githubRepositories { totalCount } }", "repository:read"),
        ('{ it: githubBranches(repository: "a/b") { totalCount } }', "repository:read"),
        ('{ it: detectFramework(repository: "a/b") { name } }', "project:create"),
        ("{ it: notifications { totalCount } }", "account:read"),
    ]:
        assert await refusal(studio, script, document) == ("FORBIDDEN", permission)
    for id_ in (others, run):
        for document in (ONE, LOG):
            async with subscribe(graphql_ws_url, document, {"id": id_}, token=script.token) as stream:
                with pytest.raises(GraphQLFailure) as failure:
                    await stream.next()
                assert failure.value.code == "NOT_FOUND"


async def test_a_token_for_a_project_sees_only_its_deliveries(studio: Studio, person: Person) -> None:
    granted, other = [(await studio.project(person))["id"] for _ in range(2)]
    both, foreign = [
        await studio.pool.fetchval(
            """INSERT INTO webhook_deliveries (id, provider, delivery_id, event, repository, body, status, message,
                   attempts, received_at, processed_at)
               VALUES ($1, 'GITHUB', $2, 'push', 'a/b', '{}', 'PROCESSED', 'Done.', 1, now(), now()) RETURNING id""",
            new_id(),
            f"delivery-{place}",
        )
        for place in range(2)
    ]
    for delivery, project in ((both, granted), (both, other), (foreign, other)):
        await studio.pool.execute(
            "INSERT INTO webhook_effects (delivery_id, project_id, message) VALUES ($1, $2, 'Looked.')",
            delivery,
            uuid(project),
        )
    script = await holder(studio, person, "READ", projectIds=[granted])
    document = "{ it: webhookDeliveries { totalCount edges { node { id effects { project { id } } } } } }"
    assert (await studio.run(person, document))["totalCount"] == 2
    seen = await studio.run(script, document)
    shown = encode_id(Prefix.WEBHOOK_DELIVERY, both)
    assert (seen["totalCount"], seen["edges"]) == (
        1,
        [{"node": {"id": shown, "effects": [{"project": {"id": granted}}]}}],
    )
    hidden = encode_id(Prefix.WEBHOOK_DELIVERY, foreign)
    assert await studio.run(script, NODES, ids=[hidden]) == [None]


async def test_a_token_for_a_project_does_what_belongs_to_it(studio: Studio, person: Person) -> None:
    granted = (await studio.project(person))["id"]
    script = await holder(studio, person, "WRITE", projectIds=[granted])
    await studio.run(script, studios.UPDATE, input={"id": granted, "name": "Renamed"})
    await studio.set(script, granted, {"name": "A", "value": "b"})
    hook = (await studio.hook(script, granted))["deployHook"]["id"]
    await studio.run(script, studios.DELETE_HOOK, input={"id": hook})
    deployment = await studio.deployment(script, granted)
    await studio.run(script, studios.CANCEL, input={"id": deployment["id"]})


async def test_a_token_for_a_project_chooses_no_repository(studio: Studio, person: Person) -> None:
    granted = (await studio.project(person))["id"]
    script = await holder(studio, person, "WRITE", projectIds=[granted])
    new = {"name": "Website", "repository": studios.REPOSITORY}
    assert await refusal(studio, script, studios.CREATE, input=new) == ("FORBIDDEN", "project:create")
    moved = {"id": granted, "repository": "https://git.example.com/team/secret.git"}
    assert await refusal(studio, script, studios.UPDATE, input=moved) == ("FORBIDDEN", "project:create")
    await studio.run(script, studios.UPDATE, input={"id": granted, "repository": studios.REPOSITORY})


async def test_streams_of_a_narrow_token_and_its_owner_are_not_mixed(
    studio: Studio, person: Person, graphql_ws_url: str
) -> None:
    granted, other = [(await studio.project(person))["id"] for _ in range(2)]
    script = await holder(studio, person, "READ", projectIds=[granted])
    others = (await studio.deployment(person, other))["id"]
    mine = (await studio.deployment(person, granted))["id"]
    async with (
        subscribe(graphql_ws_url, ALL, token=person.token) as all_of_owner,
        subscribe(graphql_ws_url, ALL, token=script.token) as all_of_script,
    ):
        assert {(await all_of_owner.next())["it"]["id"] for _ in range(2)} == {mine, others}
        assert (await all_of_script.next())["it"]["id"] == mine
        later, last = [(await studio.deployment(person, each))["id"] for each in (other, granted)]
        assert {(await all_of_owner.next())["it"]["id"] for _ in range(2)} == {later, last}
        assert (await all_of_script.next())["it"]["id"] == last
    async with (
        subscribe(graphql_ws_url, ONE, {"id": mine}, token=person.token) as one_of_owner,
        subscribe(graphql_ws_url, ONE, {"id": mine}, token=script.token) as one_of_script,
    ):
        assert (await one_of_owner.next())["it"]["requestedBy"] == {"id": person.id, "email": person.email}
        assert (await one_of_script.next())["it"]["requestedBy"] == {"id": person.id, "email": None}
