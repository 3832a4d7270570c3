"""Users for administrators: who sees the list, who keeps rights, and what switching an account off stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from errors import Conflict
from models import project_queries
from models.ids import Prefix, encode_id
from models.permissions import Role
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket
from tests.harness.executions import uuid_of
from tests.harness.processes import Api
from tests.harness.projects import DEPLOY, DEPLOYMENT, REPOSITORY, Studio, open_studio, uuid
from tests.harness.waiting import eventually

SETTINGS = {"RATE_LIMITS": "false", "EMAIL_CONFIRMATION": "false"}
EVERYWHERE_SECONDS = 5.0

ME = "{ me { id role } }"
USERS = """
query ($filter: UserFilter, $orderBy: UserOrder, $first: Int, $after: String, $last: Int, $before: String) {
  it: users(filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { cursor node { id username email name role isActive lastLoginAt twoFactorEnabled createdAt } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
USER = "query ($id: ID!) { it: user(id: $id) { id email isActive } }"
SET_ROLE = "mutation ($input: SetUserRoleInput!) { it: setUserRole(input: $input) { user { id role } } }"
SET_ACTIVE = "mutation ($input: SetUserActiveInput!) { it: setUserActive(input: $input) { user { id isActive } } }"
DELETE = "mutation ($input: DeleteUserInput!) { it: deleteUser(input: $input) { deletedId } }"
NEW_TOKEN = "mutation ($input: CreateAccessTokenInput!) { it: createAccessToken(input: $input) { token } }"
CANCELLED = "SELECT status, cancel_requested_at IS NOT NULL AS asked FROM executions WHERE id = $1"


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def second(api_server: ApiServer) -> Api:
    """Another API process on the same database and Redis."""
    return await api_server.second(PORT="0")


@pytest_asyncio.fixture(scope="module")
async def elsewhere(second: Api) -> AsyncIterator[GraphQLClient]:
    async with GraphQLClient(second.graphql_url) as graphql:
        yield graphql


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def state(db: asyncpg.Connection) -> list[Any]:
    """All that these commands can change."""
    tables = ("users", "sessions", "access_tokens", "audit_events", "executions", "outbox_messages")
    return [await db.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]


async def refused(
    client: GraphQLClient, db: asyncpg.Connection, person: Person | None, document: str, **variables: Any
) -> GraphQLFailure:
    """The error of an operation that leaves everything as it was."""
    before = await state(db)
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, token=person.token if person else None)
    assert await state(db) == before
    return caught.value


async def listed(client: GraphQLClient, admin: Person, **page: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await client.run(USERS, page, token=admin.token))["it"]
    return found


def names(connection: dict[str, Any]) -> list[str]:
    return [edge["node"]["username"] for edge in connection["edges"]]


async def alone(db: asyncpg.Connection, *admins: Person) -> None:
    """Let these be the only administrators."""
    await db.execute(
        "UPDATE users SET role = CASE WHEN id = ANY($1::uuid[]) THEN 'ADMIN' ELSE 'USER' END",
        [uuid_of(admin) for admin in admins],
    )


# -- who


async def test_only_administrators_see_and_keep_users(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    stranger = await new_user(client)
    calls: list[tuple[str, dict[str, Any]]] = [
        (USERS, {}),
        (USER, {"id": stranger.id}),
        (USER, {"id": person.id}),
        (SET_ROLE, {"input": {"id": person.id, "role": "ADMIN"}}),
        (SET_ACTIVE, {"input": {"id": stranger.id, "isActive": False}}),
        (DELETE, {"input": {"id": stranger.id}}),
    ]
    for document, variables in calls:
        assert (await refused(client, db, None, document, **variables)).code == "UNAUTHORIZED"
        assert (await refused(client, db, person, document, **variables)).code == "FORBIDDEN"


async def test_an_administrators_token_needs_the_scope(
    client: GraphQLClient, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    for scope, code in (("WRITE", "FORBIDDEN"), ("ADMIN", None)):
        fields = {"name": scope, "scopes": [scope]}
        token = (await client.run(NEW_TOKEN, {"input": fields}, token=admin.token))["it"]["token"]
        if code is None:
            assert (await client.run(USER, {"id": person.id}, token=token))["it"]["email"] == person.email
        else:
            with pytest.raises(GraphQLFailure) as caught:
                await client.run(USER, {"id": person.id}, token=token)
            assert caught.value.code == code


async def test_ids_that_name_no_user_are_not_found(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    for id_text in (encode_id(Prefix.USER, NOBODYS_ID), encode_id(Prefix.JOB, NOBODYS_ID), "nonsense", ""):
        for document, variables in (
            (USER, {"id": id_text}),
            (SET_ROLE, {"input": {"id": id_text, "role": "ADMIN"}}),
            (SET_ACTIVE, {"input": {"id": id_text, "isActive": False}}),
            (DELETE, {"input": {"id": id_text}}),
        ):
            assert (await refused(client, db, admin, document, **variables)).code == "NOT_FOUND"


# -- lists


async def test_a_list_is_searched_filtered_sorted_and_paged(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    people = [await new_user(client) for _ in range(3)]
    for number, one in enumerate(people):
        await db.execute("UPDATE users SET name = $2 WHERE id = $1", uuid_of(one), f"Ünique 100%_{number}")
    await db.execute("UPDATE users SET is_active = false WHERE id = $1", uuid_of(people[1]))
    everyone = await listed(client, admin, filter={"search": "üNIQUE 100%_"})
    assert (everyone["totalCount"], names(everyone)) == (3, [one.username for one in reversed(people)])
    node = everyone["edges"][2]["node"]
    assert (node["id"], node["email"], node["role"], node["isActive"]) == (people[0].id, people[0].email, "USER", True)
    assert (node["twoFactorEnabled"], node["lastLoginAt"]) == (False, None)
    for found in ({"search": people[0].email.upper()}, {"search": people[0].username[2:].upper()}):
        assert names(await listed(client, admin, filter=found)) == [people[0].username]
    assert names(await listed(client, admin, filter={"search": "unique 100%"})) == []
    assert names(await listed(client, admin, filter={"search": "ünique", "isActive": False})) == [people[1].username]
    assert names(await listed(client, admin, filter={"search": "ünique", "role": "ADMIN"})) == []
    for field in ("USERNAME", "EMAIL", "CREATED_AT"):
        order = {"field": field, "direction": "ASC"}
        wanted = [one.username for one in people]
        wanted = wanted if field == "CREATED_AT" else sorted(wanted)
        page = {"filter": {"search": "ünique"}, "orderBy": order}
        first = await listed(client, admin, **page, first=2)
        assert (names(first), first["pageInfo"]["hasNextPage"]) == (wanted[:2], True)
        rest = await listed(client, admin, **page, first=2, after=first["pageInfo"]["endCursor"])
        assert (names(rest), rest["pageInfo"]["hasNextPage"]) == (wanted[2:], False)
        back = await listed(client, admin, **page, last=1, before=rest["pageInfo"]["startCursor"])
        assert (names(back), back["pageInfo"]["hasPreviousPage"]) == (wanted[1:2], True)


async def test_a_search_has_its_limit(client: GraphQLClient, admin: Person) -> None:
    with pytest.raises(GraphQLFailure) as caught:
        await listed(client, admin, filter={"search": "x" * 201})
    assert (caught.value.code, caught.value.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["filter", "search"])


# -- roles


async def test_a_role_holds_everywhere_within_five_seconds_on_open_sockets_too(
    client: GraphQLClient,
    elsewhere: GraphQLClient,
    second: Api,
    admin: Person,
    person: Person,
    db: asyncpg.Connection,
) -> None:
    async def can_list() -> bool:
        return "errors" not in (await elsewhere.raw(USERS, {}, token=person.token)).json()

    async with open_socket(second.ws_url, token=person.token) as socket:

        async def role_on_socket() -> str:
            await socket.start(ME)
            role: str = (await socket.receive())["payload"]["data"]["me"]["role"]
            assert (await socket.receive())["type"] == "complete"
            return role

        assert (await can_list(), await role_on_socket()) == (False, "USER")
        for role in ("ADMIN", "USER"):
            given = {"input": {"id": person.id, "role": role}}
            assert (await client.run(SET_ROLE, given, token=admin.token))["it"]["user"]["role"] == role

            async def holds(role: str = role) -> bool:
                return await can_list() is (role == "ADMIN") and await role_on_socket() == role

            await eventually(holds, EVERYWHERE_SECONDS)
            before = await state(db)
            await client.run(SET_ROLE, given, token=admin.token)
            assert await state(db) == before, "what is so already is not written down"
    acts = await db.fetch(
        "SELECT actor_id, details::text FROM audit_events WHERE action = 'setUserRole' AND target_id = $1 ORDER BY id",
        uuid_of(person),
    )
    assert [tuple(act) for act in acts] == [
        (uuid_of(admin), '{"after": "ADMIN", "before": "USER"}'),
        (uuid_of(admin), '{"after": "USER", "before": "ADMIN"}'),
    ]


async def test_the_last_active_administrator_stays(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    other = await new_user(client, role=Role.ADMIN, db=db)
    await alone(db, admin, other)
    await client.run(SET_ACTIVE, {"input": {"id": other.id, "isActive": False}}, token=admin.token)
    for document, more in ((SET_ROLE, {"role": "USER"}), (SET_ACTIVE, {"isActive": False})):
        failure = await refused(client, db, admin, document, input={"id": admin.id, **more})
        assert (failure.code, failure.extensions["details"]["reason"]) == ("CONFLICT", "lastAdmin")
    failure = await refused(client, db, admin, DELETE, input={"id": admin.id})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["id"])
    await client.run(SET_ROLE, {"input": {"id": other.id, "role": "USER"}}, token=admin.token)


@pytest.mark.parametrize(
    ("document", "more"), [(SET_ROLE, {"role": "USER"}), (SET_ACTIVE, {"isActive": False}), (DELETE, {})]
)
async def test_two_administrators_who_end_each_other_at_once_leave_one(
    client: GraphQLClient,
    elsewhere: GraphQLClient,
    admin: Person,
    db: asyncpg.Connection,
    studio: Studio,
    document: str,
    more: dict[str, Any],
) -> None:
    pair = [await new_user(client, role=Role.ADMIN, db=db) for _ in range(2)]
    await alone(db, *pair)
    try:
        # Both pass the gate and wait for the same rows.
        async with studio.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT 1 FROM users WHERE role = 'ADMIN' ORDER BY id FOR UPDATE")
            calls = [
                asyncio.create_task(server.raw(document, {"input": {"id": target.id, **more}}, token=actor.token))
                for server, actor, target in ((client, pair[0], pair[1]), (elsewhere, pair[1], pair[0]))
            ]
            await studio.until_waiting(2)
        answers = [answer.json() for answer in await asyncio.gather(*calls)]
        refusals = [answer["errors"][0]["extensions"] for answer in answers if answer.get("errors")]
        assert [(each["code"], each["details"]["reason"]) for each in refusals] == [("CONFLICT", "lastAdmin")]
        assert await db.fetchval("SELECT count(*) FROM users WHERE role = 'ADMIN' AND is_active") == 1
    finally:
        await alone(db, admin)


async def test_whoever_is_no_administrator_any_more_by_the_time_it_counts_changes_nothing(
    client: GraphQLClient, admin: Person, person: Person, db: asyncpg.Connection, studio: Studio
) -> None:
    actor = await new_user(client, role=Role.ADMIN, db=db)
    async with studio.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE users SET role = 'USER' WHERE id = $1", uuid_of(actor))
        given = {"input": {"id": person.id, "role": "ADMIN"}}
        asking = asyncio.create_task(client.raw(SET_ROLE, given, token=actor.token))
        await studio.until_waiting(1)
    assert (await asking).json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await db.fetchval("SELECT role FROM users WHERE id = $1", uuid_of(person)) == "USER"


# -- switching off


async def test_a_deactivated_account_is_out_and_nothing_starts_for_it(
    client: GraphQLClient,
    elsewhere: GraphQLClient,
    second: Api,
    api_server: ApiServer,
    studio: Studio,
    admin: Person,
    person: Person,
    db: asyncpg.Connection,
) -> None:
    fields = {"name": "CI", "scopes": ["WRITE"]}
    token = (await client.run(NEW_TOKEN, {"input": fields}, token=person.token))["it"]["token"]
    project = await studio.project(person)
    hook = (await studio.hook(person, project["id"]))["url"].replace("https://", "http://")
    waiting = uuid((await studio.deployment(person, project["id"]))["id"])
    running = (await studio.desk.started(person)).id
    assert (await elsewhere.run(ME, token=token))["me"]["id"] == person.id
    off = {"input": {"id": person.id, "isActive": False}}
    async with open_socket(second.ws_url, token=person.token) as socket:
        assert (await client.run(SET_ACTIVE, off, token=admin.token))["it"]["user"]["isActive"] is False
        assert (await socket.closed(EVERYWHERE_SECONDS)).code in (4401, 4403)

    async def is_out() -> bool:
        answers = [await elsewhere.raw(ME, token=each) for each in (person.token, token)]
        return [answer.status_code for answer in answers] == [401, 401]

    await eventually(is_out, EVERYWHERE_SECONDS)
    with pytest.raises(GraphQLFailure) as caught:
        await sign_in(client, person.username, person.password)
    assert caught.value.code == "UNAUTHORIZED"
    assert tuple(await db.fetchrow(CANCELLED, waiting)) == ("CANCELLED", True)
    assert tuple(await db.fetchrow(CANCELLED, running)) == ("RUNNING", True)
    reasons = await db.fetch("SELECT DISTINCT revoked_reason FROM sessions WHERE user_id = $1", uuid_of(person))
    assert [tuple(each) for each in reasons] == [("DEACTIVATED",)]

    before = await state(db)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        assert (await http.post(hook)).status_code == 404
    key = (await project_queries.find([uuid(project["id"])]))[uuid(project["id"])]["repository_key"]
    assert key in REPOSITORY
    assert uuid(project["id"]) not in [each["id"] for each in await project_queries.of_repository(key)]
    with pytest.raises(Conflict, match="not active"):
        await studio.enqueue(project["id"])
    failure = await refused(client, db, admin, DEPLOY + DEPLOYMENT, input={"projectId": project["id"]})
    assert (failure.code, failure.extensions["details"]["reason"]) == ("CONFLICT", "ownerInactive")
    await client.run(SET_ACTIVE, off, token=admin.token)
    assert await state(db) == before, "nothing came of it, and what is so already is not written down"

    await client.run(SET_ACTIVE, {"input": {"id": person.id, "isActive": True}}, token=admin.token)
    assert (await client.raw(ME, token=person.token)).status_code == 401, "ended sessions stay so"
    again = await sign_in(client, person.username, person.password)
    assert (await client.run(ME, token=token))["me"]["id"] == person.id
    assert uuid((await studio.deployment(again, project["id"]))["id"]) != waiting


async def test_what_is_being_queued_while_an_account_is_switched_off_is_cancelled_with_the_rest(
    client: GraphQLClient, studio: Studio, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    project = await studio.project(person)
    async with studio.desk.holding_back(person):
        # It has looked at the owner, and waits for the place in the queue.
        making = asyncio.create_task(studio.deployment(person, project["id"]))
        await studio.until_waiting(1)
        off = {"input": {"id": person.id, "isActive": False}}
        switching = asyncio.create_task(client.run(SET_ACTIVE, off, token=admin.token))
        await studio.until_waiting(2)
    made = await making
    await switching
    assert tuple(await db.fetchrow(CANCELLED, uuid(made["id"]))) == ("CANCELLED", True)
