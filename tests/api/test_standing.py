"""Credentials that end while nobody can tell: open streams end within five seconds of the commit, and it costs little.

The API process of these tests never reaches Redis, as if every event were lost; the acts come from another process or
from the database itself.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import pytest_asyncio

from models.ids import decode_id
from tests.api.test_streams import EXECUTION, EXECUTIONS
from tests.conftest import ApiServer
from tests.factories import new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket, subscribe, subscribe_sse
from tests.harness.executions import Desk, open_desk, run_id
from tests.harness.processes import Api
from tests.harness.relay import Relay

WITHIN_SECONDS = 5.0
BYSTANDERS = 40
SETTINGS = {"MAX_SOCKETS_PER_USER": "100"}
SESSIONS = "{ sessions { edges { node { id current } } } }"
REVOKE = "mutation ($input: RevokeSessionInput!) { revokeSession(input: $input) { ok } }"
MAKE_TOKEN = """
mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { token accessToken { id } } }
"""
REVOKE_TOKEN = "mutation ($input: RevokeAccessTokenInput!) { revokeAccessToken(input: $input) { revokedId } }"


@dataclass(frozen=True, slots=True)
class Deaf:
    """An API process that hears of nothing; `relay` counts what it says to the database."""

    api: Api
    client: GraphQLClient
    relay: Relay


@pytest_asyncio.fixture(scope="module")
async def deaf(api_server: ApiServer, settings_env: dict[str, str]) -> AsyncIterator[Deaf]:
    async with Relay(settings_env["DATABASE_URL"]) as relay:
        api = await api_server.second(DATABASE_URL=relay.url, REDIS_URL="redis://127.0.0.1:1/0")
        async with GraphQLClient(api.graphql_url) as client:
            yield Deaf(api, client, relay)
        await api.stop()


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


async def until_closed(stream: AsyncExitStack, deaf: Deaf, token: str) -> asyncio.Task[float]:
    """A socket that watches; the moment at which it was closed for want of credentials."""
    socket = await stream.enter_async_context(open_socket(deaf.api.ws_url, token=token))
    await socket.start(EXECUTIONS)

    async def closed() -> float:
        assert (await socket.closed(WITHIN_SECONDS + 1)).code == 4401
        return time.monotonic()

    return asyncio.create_task(closed())


async def until_refused(stream: AsyncExitStack, deaf: Deaf, token: str) -> asyncio.Task[float]:
    """An event stream; the moment at which it said that the credentials hold no longer."""
    events = await stream.enter_async_context(subscribe_sse(deaf.client, EXECUTIONS, token=token))

    async def refused() -> float:
        name, data = await anext(events)
        assert (name, data["errors"][0]["extensions"]["code"]) == ("next", "UNAUTHORIZED")
        return time.monotonic()

    return asyncio.create_task(refused())


async def test_streams_end_in_time_though_every_event_is_lost_and_others_cost_nothing(
    client: GraphQLClient, deaf: Deaf, db: asyncpg.Connection
) -> None:
    revoked, gone, scripted = [await new_user(client) for _ in range(3)]
    made = (await client.run(MAKE_TOKEN, {"input": {"name": "CI", "scopes": ["READ"]}}, token=scripted.token))[
        "createAccessToken"
    ]
    elsewhere = await sign_in(client, revoked.username, revoked.password)
    listed = (await client.run(SESSIONS, token=elsewhere.token))["sessions"]["edges"]
    [session_id] = [edge["node"]["id"] for edge in listed if not edge["node"]["current"]]
    other = await new_user(client)
    bystanders = [await sign_in(client, other.username, other.password) for _ in range(BYSTANDERS)]
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(open_socket(deaf.api.ws_url, token=bystander.token))
            for bystander in [*bystanders, scripted, elsewhere]
        ]
        ends = [
            await open_one(stack, deaf, token)
            for token in (revoked.token, gone.token, made["token"])
            for open_one in (until_closed, until_refused)
        ]
        asked_before = deaf.relay.requests
        started = time.monotonic()
        await client.run(REVOKE, {"input": {"id": session_id}}, token=elsewhere.token)
        await client.run(REVOKE_TOKEN, {"input": {"id": made["accessToken"]["id"]}}, token=scripted.token)
        await db.execute("UPDATE users SET is_active = false WHERE id = $1", decode_id(gone.id)[1])
        assert [end - started < WITHIN_SECONDS for end in await asyncio.gather(*ends)] == [True] * 6
        asked = deaf.relay.requests - asked_before
        for socket in others:
            await socket.send({"type": "ping"})
            assert await socket.receive() == {"type": "pong"}
    # A few pieces of text for each look and for each that was woken: not one for each socket that is open.
    woken = {event["user_id"] for event in deaf.api.events("standing_changed")}
    assert len(woken) == 3
    assert asked < BYSTANDERS * 4, asked


async def test_lost_rights_reach_streams_in_time_though_every_event_is_lost(
    client: GraphQLClient, deaf: Deaf, desk: Desk, db: asyncpg.Connection
) -> None:
    hand = await desk.started(await new_user(client))
    another, progress = await new_user(client), itertools.cycle(range(1, 100))
    await db.execute("UPDATE users SET role = 'ADMIN' WHERE id = $1", decode_id(another.id)[1])
    watching = await sign_in(client, another.username, another.password)
    async with subscribe(deaf.api.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=watching.token) as stream:
        await stream.next()
        started = time.monotonic()
        await db.execute("UPDATE users SET role = 'USER' WHERE id = $1", decode_id(another.id)[1])
        refusal = None
        while refusal is None:
            await hand.advance(next(progress))
            try:
                await stream.next(WITHIN_SECONDS)
            except GraphQLFailure as failed:
                refusal = failed.code
        assert time.monotonic() - started < WITHIN_SECONDS
    assert refusal == "NOT_FOUND"


async def test_a_deaf_process_looks_again_as_soon_as_the_database_is_back(
    client: GraphQLClient, deaf: Deaf, db: asyncpg.Connection
) -> None:
    person = await new_user(client)
    async with AsyncExitStack() as stack:
        end = await until_closed(stack, deaf, person.token)
        warned = len(deaf.api.events("standing_not_checked"))
        await db.execute("UPDATE sessions SET revoked_at = now() WHERE user_id = $1", decode_id(person.id)[1])
        deaf.relay.silence()
        deaf.relay.speak()  # ends the connections, as a restart of the database does
        started = time.monotonic()
        assert await end - started < WITHIN_SECONDS
    assert len(deaf.api.events("standing_not_checked")) - warned <= 2
