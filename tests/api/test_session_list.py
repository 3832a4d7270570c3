"""Where one is signed in: the list, and the end of sessions that holds on every server within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from models.ids import Prefix, decode_id, encode_id, new_id
from tests.conftest import ApiServer
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket
from tests.harness.processes import Api
from tests.harness.waiting import eventually

SETTINGS = {"RATE_LIMITS": "false", "EMAIL_CONFIRMATION": "false"}
REVOCATION_SECONDS = 5.0

ME = "{ me { id } }"
SESSIONS = """
query ($first: Int, $after: String, $last: Int, $before: String) {
  sessions(first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { cursor node { id userAgent ip createdAt lastUsedAt current } } pageInfo { hasNextPage }
  }
}
"""
REVOKE = "mutation ($input: RevokeSessionInput!) { revokeSession(input: $input) { ok } }"
REVOKE_OTHERS = "mutation { revokeOtherSessions { revokedCount } }"
NODE = "query ($id: ID!) { node(id: $id) { id ... on Session { current } } }"


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


async def code_of(client: GraphQLClient, document: str, variables: dict[str, Any], **more: Any) -> str | None:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    return caught.value.code


async def listed(client: GraphQLClient, token: str, **page: Any) -> list[dict[str, Any]]:
    connection = (await client.run(SESSIONS, page, token=token))["sessions"]
    return [edge["node"] for edge in connection["edges"]]


async def session_of(client: GraphQLClient, person: Person) -> str:
    [current] = [each["id"] for each in await listed(client, person.token) if each["current"]]
    assert isinstance(current, str)
    return current


async def test_sessions_of_others_cannot_be_ended_or_seen_by_administrators_neither(
    client: GraphQLClient, person: Person, admin: Person, db: asyncpg.Connection
) -> None:
    theirs = await session_of(client, person)
    stranger = await new_user(client)
    assert await code_of(client, REVOKE, {"input": {"id": theirs}}) == "UNAUTHORIZED"
    for other in (stranger, admin):
        for id_text in (theirs, encode_id(Prefix.SESSION, new_id()), other.id, "ses_nonsense", ""):
            assert await code_of(client, REVOKE, {"input": {"id": id_text}}, token=other.token) == "NOT_FOUND"
        assert await client.run(NODE, {"id": theirs}, token=other.token) == {"node": None}
        assert theirs not in [each["id"] for each in await listed(client, other.token)]
    assert await client.run(NODE, {"id": theirs}) == {"node": None}
    assert (await client.run(ME, token=person.token))["me"]["id"] == person.id
    acts = "SELECT count(*) FROM audit_events WHERE action = 'revokeSession' AND target_id = $1"
    assert await db.fetchval(acts, decode_id(theirs)[1]) == 0


async def test_nobody_has_no_sessions(client: GraphQLClient) -> None:
    assert await code_of(client, SESSIONS, {}) == "UNAUTHORIZED"
    assert await code_of(client, REVOKE_OTHERS, {}) == "UNAUTHORIZED"


async def test_an_ended_session_is_out_everywhere_within_five_seconds(
    client: GraphQLClient, elsewhere: GraphQLClient, second: Api, person: Person, db: asyncpg.Connection
) -> None:
    lost = await sign_in(client, person.username, person.password)
    lost_id = await session_of(client, lost)
    assert (await elsewhere.run(ME, token=lost.token))["me"]["id"] == person.id
    async with (
        open_socket(second.ws_url, token=lost.token) as theirs,
        open_socket(second.ws_url, token=person.token) as ours,
    ):
        assert await client.run(REVOKE, {"input": {"id": lost_id}}, token=person.token) == {
            "revokeSession": {"ok": True}
        }
        assert (await client.raw(ME, token=lost.token)).status_code == 401
        assert (await theirs.closed(REVOCATION_SECONDS)).code in (4401, 4403)

        async def is_out() -> bool:
            return (await elsewhere.raw(ME, token=lost.token)).status_code == 401

        await eventually(is_out, REVOCATION_SECONDS)
        await ours.start(ME)
        assert (await ours.receive())["payload"]["data"]["me"]["id"] == person.id
    row = await db.fetchrow(
        "SELECT outcome, actor_id FROM audit_events WHERE action = 'revokeSession' AND target_id = $1",
        decode_id(lost_id)[1],
    )
    assert tuple(row) == ("success", decode_id(person.id)[1])


async def test_ending_the_other_sessions_spares_the_one_in_use(client: GraphQLClient, person: Person) -> None:
    others = [await sign_in(client, person.username, person.password) for _ in range(3)]
    answer = await client.run(REVOKE_OTHERS, token=others[1].token)
    assert answer == {"revokeOtherSessions": {"revokedCount": 3}}
    for other in (person, others[0], others[2]):
        assert (await client.raw(ME, token=other.token)).status_code == 401
    assert [each["current"] for each in await listed(client, others[1].token)] == [True]
    assert await client.run(REVOKE_OTHERS, token=others[1].token) == {"revokeOtherSessions": {"revokedCount": 0}}


async def test_ending_a_session_twice_and_ones_own_is_no_error(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    other = await sign_in(client, person.username, person.password)
    other_id = await session_of(client, other)
    answers = await asyncio.gather(
        *(client.run(REVOKE, {"input": {"id": other_id}}, token=person.token) for _ in range(4))
    )
    assert answers == [{"revokeSession": {"ok": True}}] * 4
    acts = "SELECT count(*) FROM audit_events WHERE action = 'revokeSession' AND target_id = $1"
    assert await db.fetchval(acts, decode_id(other_id)[1]) == 1
    await client.run(REVOKE, {"input": {"id": await session_of(client, person)}}, token=person.token)
    assert (await client.raw(ME, token=person.token)).status_code == 401


async def test_a_session_shows_the_device_and_only_while_it_holds(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    client.http.headers["user-agent"] = "Browser of a phone"
    try:
        phone = await sign_in(client, person.username, person.password)
    finally:
        del client.http.headers["user-agent"]
    newest, oldest = await listed(client, person.token)
    assert (newest["userAgent"], newest["ip"], newest["current"]) == ("Browser of a phone", "127.0.0.1", False)
    assert (oldest["current"], oldest["createdAt"].endswith("Z"), oldest["lastUsedAt"].endswith("Z")) == (True,) * 3
    assert await client.run(NODE, {"id": newest["id"]}, token=phone.token) == {
        "node": {"id": newest["id"], "current": True}
    }
    for end in ("expires_at = now()", "last_used_at = now() - interval '15 days'", "revoked_at = now()"):
        ended = await sign_in(client, person.username, person.password)
        ended_id = await session_of(client, ended)
        await db.execute(f"UPDATE sessions SET {end} WHERE id = $1", decode_id(ended_id)[1])
        assert [each["id"] for each in await listed(client, person.token)] == [newest["id"], oldest["id"]]
        assert await client.run(NODE, {"id": ended_id}, token=person.token) == {"node": None}


async def test_pages_join_without_gap_in_both_directions(client: GraphQLClient, person: Person) -> None:
    for _ in range(4):
        await sign_in(client, person.username, person.password)
    whole = (await client.run(SESSIONS, token=person.token))["sessions"]
    assert whole["totalCount"] == 5
    ids = [edge["node"]["id"] for edge in whole["edges"]]
    assert ids == sorted(ids, reverse=True)
    middle = whole["edges"][2]["cursor"]
    after = await listed(client, person.token, first=10, after=middle)
    before = await listed(client, person.token, last=10, before=middle)
    assert [each["id"] for each in [*before, *after]] == [*ids[:2], *ids[3:]]
    first = (await client.run(SESSIONS, {"first": 2}, token=person.token))["sessions"]
    assert first["pageInfo"]["hasNextPage"] is True
    assert await code_of(client, SESSIONS, {"after": "nonsense"}, token=person.token) == "VALIDATION_ERROR"
