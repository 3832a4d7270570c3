"""The subprotocol graphql-transport-ws: what closes a socket, what ends one operation, and what outlives neither."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from models.permissions import Actor, Role
from schema.websocket import SocketTimes
from tests.api.surface import ADA, Surface, batches, closed, executions, feed, hear, say, surface, until


@pytest_asyncio.fixture(scope="module")
async def api() -> AsyncIterator[Surface]:
    async with surface(max_subscriptions_per_socket=3, max_sockets_per_user=2) as running:
        yield running


@pytest.fixture(autouse=True)
def _reset(api: Surface) -> None:
    api.sessions.revoked.clear()
    api.sessions.expiries.clear()
    api.sessions.away = False
    feed.closed.clear()


async def subscribe(ws: Any, id_: str, query: str, **payload: Any) -> None:
    await say(ws, id=id_, type="subscribe", payload={"query": query, **payload})


# -- opening


async def test_another_subprotocol_is_not_acceptable(api: Surface) -> None:
    for offered in ([], ["graphql-ws"]):
        async with api.connect(subprotocols=offered or None) as ws:
            assert await closed(ws) == 4406


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9"])
async def test_a_foreign_page_gets_no_socket(api: Surface, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with api.connect(origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_an_allowed_page_gets_a_socket_by_its_cookie(api: Surface) -> None:
    headers = {"cookie": "switchyard_access=ada"}
    for origin in ("https://spa.example", api.url):
        async with api.connected(origin=origin, additional_headers=headers) as ws:
            await subscribe(ws, "1", "{me}")
            assert (await hear(ws))["payload"]["data"] == {"me": str(ADA)}


async def test_a_cookie_without_an_origin_counts_for_nothing(api: Surface) -> None:
    async with api.connected(additional_headers={"cookie": "switchyard_access=ada"}) as ws:
        await subscribe(ws, "1", "{me}")
        assert (await hear(ws))["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHORIZED"


async def test_who_does_not_initialise_is_closed() -> None:
    async with surface(times=SocketTimes(init=0.05)) as hasty, hasty.connect() as ws:
        await say(ws, type="ping")
        assert await closed(ws) == 4408


async def test_initialising_twice_closes(api: Surface) -> None:
    async with api.connected("ada") as ws:
        await say(ws, type="connection_init")
        assert await closed(ws) == 4429


async def test_subscribing_before_the_acknowledgement_closes(api: Surface) -> None:
    async with api.connect() as ws:
        await subscribe(ws, "1", "{hello}")
        assert await closed(ws) == 4401


@pytest.mark.parametrize(("token", "code"), [("Bearer nobody", 4401), ("ada", 4401), (5, 4401), ("Bearer bob", 4403)])
async def test_bad_credentials_close_and_say_whether_to_come_back(api: Surface, token: Any, code: int) -> None:
    api.sessions.expire_in("bob", -1)
    async with api.connect() as ws:
        await say(ws, type="connection_init", payload={"Authorization": token})
        assert await closed(ws) == code


async def test_sockets_of_one_user_are_counted_and_freed(api: Surface) -> None:
    async with api.connected("ada"):
        async with api.connected("ada2"), api.connect() as third:
            await say(third, type="connection_init", payload={"authorization": "Bearer ada"})
            assert await closed(third) == 4429
        await until(lambda: api.state.open_sockets == 1)
        async with api.connected("ada"), api.connected("bob"):
            assert api.state.open_sockets == 3
    await until(lambda: not api.socket.sockets)


# -- messages


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[]",
        '"x"',
        "1",
        "null",
        "{}",
        '{"type":5}',
        '{"type":"start","id":"1"}',
        '{"type":"subscribe","payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":5,"payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":{},"payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"","payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"1","payload":"{hello}"}',
        '{"type":"subscribe","id":"1","payload":[]}',
        '{"type":"complete"}',
        "[" * 5_000,
        '{"type":"ping","payload":{"a":"\\u0000"}}',
        b'{"type":"ping"}',
    ],
)
async def test_a_breach_of_the_protocol_closes(api: Surface, message: str | bytes) -> None:
    async with api.connected("ada") as ws:
        await ws.send(message)
        assert await closed(ws) == 4400


async def test_a_message_over_the_limit_closes(api: Surface) -> None:
    async with api.connected("ada") as ws:
        await say(ws, type="ping", payload={"x": "x" * 70_000})
        assert await closed(ws) == 1009


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (None, "VALIDATION_ERROR"),
        ({}, "VALIDATION_ERROR"),
        ({"query": None}, "VALIDATION_ERROR"),
        ({"query": "{"}, "VALIDATION_ERROR"),
        ({"query": "{nope}"}, "VALIDATION_ERROR"),
        ({"query": "subscription{nope}"}, "VALIDATION_ERROR"),
        ({"query": "{hello}", "operationName": "A"}, "VALIDATION_ERROR"),
        ({"query": "{hello}", "variables": 1}, "VALIDATION_ERROR"),
        ({"query": "query($n:Int!){small(number:$n)}", "variables": {"n": "x"}}, "VALIDATION_ERROR"),
        ({"query": "{things(first:100){edges{node{things(first:100){edges{node{id}}}}}}}"}, "VALIDATION_ERROR"),
        ({"query": "subscription{refused}"}, "CONFLICT"),
    ],
)
async def test_a_faulty_operation_ends_itself_and_nothing_else(api: Surface, payload: Any, code: str) -> None:
    async with api.connected() as ws:
        await subscribe(ws, "sibling", "subscription{quiet}")
        assert (await hear(ws))["id"] == "sibling"
        await say(ws, id="faulty", type="subscribe", payload=payload)
        answer = await hear(ws)
        assert (answer["id"], answer["type"]) == ("faulty", "error")
        assert answer["payload"][0]["extensions"]["code"] == code
        assert answer["payload"][0]["extensions"]["requestId"]
        await subscribe(ws, "faulty", "{hello}")  # the id is free again
        assert (await hear(ws))["payload"] == {"data": {"hello": "Hello world"}}
        assert await hear(ws) == {"id": "faulty", "type": "complete"}
        assert feed.open == 1


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800"])
async def test_text_that_cannot_be_stored_ends_its_operation_only(api: Surface, escape: str) -> None:
    async with api.connected() as ws:
        await ws.send(
            '{"type":"subscribe","id":"1","payload":'
            f'{{"query":"query($a:JSON!){{echo(value:$a)}}","variables":{{"a":["{escape}"]}}}}}}'
        )
        answer = await hear(ws)
        assert (answer["id"], answer["type"]) == ("1", "error")
        assert answer["payload"][0]["extensions"]["details"]["path"] == ["a", 0]
        await say(ws, type="ping")
        assert await hear(ws) == {"type": "pong"}


async def test_an_id_in_use_closes(api: Surface) -> None:
    async with api.connected() as ws:
        await subscribe(ws, "1", "subscription{quiet}")
        await hear(ws)
        await subscribe(ws, "1", "{hello}")
        assert await closed(ws) == 4409
    await until(lambda: feed.open == 0)


async def test_queries_and_mutations_run_over_a_socket(api: Surface) -> None:
    async with api.connected("ada") as ws:
        for query, data in (("{me}", {"me": str(ADA)}), ("mutation{touch}", {"touch": "touched"})):
            await subscribe(ws, "1", query)
            assert await hear(ws) == {"id": "1", "type": "next", "payload": {"data": data}}
            assert await hear(ws) == {"id": "1", "type": "complete"}
        await subscribe(ws, "1", "mutation{touch(cookie:true)}")
        assert (await hear(ws))["payload"]["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"


async def test_a_subscription_sends_its_events_in_order_and_completes(api: Surface) -> None:
    async with api.connected() as ws:
        await subscribe(ws, "ñ", "subscription($to:Int!){count(to:$to){text}}", variables={"to": 50})
        for number in range(1, 51):
            assert await hear(ws) == {
                "id": "ñ",
                "type": "next",
                "payload": {"data": {"count": {"text": f"line {number}"}}},
            }
        assert await hear(ws) == {"id": "ñ", "type": "complete"}


async def test_a_source_that_breaks_ends_its_operation_and_tells_nothing(api: Surface) -> None:
    async with api.connected() as ws:
        await subscribe(ws, "1", "subscription{breaks}")
        assert (await hear(ws))["payload"] == {"data": {"breaks": "first"}}
        answer = await hear(ws)
        assert answer["type"] == "error"
        assert answer["payload"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert "hunter2" not in str(answer)


async def test_more_operations_than_allowed_are_refused_one_by_one(api: Surface) -> None:
    async with api.connected() as ws:
        for number in range(3):
            await subscribe(ws, str(number), "subscription{quiet}")
            await hear(ws)
        await subscribe(ws, "more", "{hello}")
        assert (await hear(ws))["payload"][0]["extensions"]["code"] == "RATE_LIMIT_EXCEEDED"
        await say(ws, id="0", type="complete")
        await until(lambda: feed.open == 2)
        await subscribe(ws, "more", "{hello}")
        assert (await hear(ws))["type"] == "next"


async def test_loaders_start_over_with_each_event(api: Surface) -> None:
    batches.clear()
    async with api.connected() as ws:
        await subscribe(ws, "1", "subscription{count(to:2){a:loaded b:loaded}}")
        for _ in range(3):
            await hear(ws)
    assert batches == [[1], [1]]


# -- ending


async def test_unsubscribing_closes_the_source_and_nothing_more_comes(api: Surface) -> None:
    async with api.connected() as ws:
        await subscribe(ws, "1", "subscription{flood}")
        await hear(ws)
        await say(ws, id="1", type="complete")
        async with asyncio.timeout(5):
            await feed.closed.wait()
        await say(ws, type="ping")
        while (message := await hear(ws))["type"] != "pong":
            assert message["id"] == "1"
        await say(ws, id="1", type="complete")  # of something that is over: ignored
        await say(ws, type="pong")
        await subscribe(ws, "1", "{hello}")
        assert (await hear(ws))["payload"] == {"data": {"hello": "Hello world"}}


@pytest.mark.parametrize("query", ["subscription{quiet}", "subscription{flood}", "subscription{kept}"])
async def test_a_peer_that_vanishes_leaves_no_source_open(api: Surface, query: str) -> None:
    """With a reset instead of a closing handshake, and from a source that waits as from one that never does."""
    async with api.connected() as ws:
        await subscribe(ws, "1", query)
        await hear(ws)
        assert feed.open == 1
        raw = ws.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ws.transport.abort()
        async with asyncio.timeout(2):
            await feed.closed.wait()
    await until(lambda: feed.open == 0 and api.state.open_subscriptions == 0 and api.state.open_sockets == 0)


async def test_a_source_that_never_waits_starves_nobody(api: Surface) -> None:
    """Its events are small, so that no full buffer makes it wait for the peer either."""
    executions.clear()
    async with api.connected() as flooded, api.connected() as other:
        await subscribe(flooded, "1", "subscription{count(to:20000){text}}")
        await hear(flooded)
        await say(other, type="ping")
        assert await hear(other) == {"type": "pong"}
        assert len(executions) < 10_000
        flooded.transport.abort()  # a closing handshake would have to read all that is under way


async def test_a_peer_that_does_not_read_is_given_up_and_its_source_closed() -> None:
    async with surface(times=SocketTimes(send=0.2, close=0.1)) as strict, strict.connected() as ws:
        await subscribe(ws, "1", "subscription{flood}")
        ws.transport.pause_reading()
        async with asyncio.timeout(5):
            await feed.closed.wait()
        await until(lambda: strict.state.open_sockets == 0)
        ws.transport.abort()


async def test_a_socket_gets_old_and_is_asked_to_come_back() -> None:
    async with surface(times=SocketTimes(age=0.1)) as strict, strict.connected("ada") as ws:
        assert await closed(ws) == 4403


async def test_the_server_going_down_closes_sources() -> None:
    async with surface() as short:
        ws = await short.connect()
        await say(ws, type="connection_init")
        await hear(ws)
        await subscribe(ws, "1", "subscription{quiet}")
        await hear(ws)
    assert feed.open == 0
    with pytest.raises(ConnectionClosed):
        await ws.recv()
    assert ws.close_code == 1012


# -- credentials that end


async def test_an_expired_token_closes_within_a_second(api: Surface) -> None:
    api.sessions.expire_in("ada", 0.3)
    loop = asyncio.get_running_loop()
    async with api.connected("ada") as ws:
        await subscribe(ws, "1", "subscription{mine}")
        started = loop.time()
        assert await closed_after_messages(ws) == 4403
        assert loop.time() - started < 1.3
    await until(lambda: feed.open == 0)


async def test_a_renewed_token_keeps_the_socket_and_its_subscriptions(api: Surface) -> None:
    api.sessions.expire_in("ada", 0.4)
    async with api.connected("ada") as ws:
        await subscribe(ws, "1", "subscription{quiet}")
        await hear(ws)
        await say(ws, type="ping", payload={"authorization": "Bearer ada2"})
        assert await hear(ws) == {"type": "pong", "payload": {"renewed": True}}
        first_end = api.sessions.expiries["ada"] + timedelta(seconds=0.1)
        await until(lambda: datetime.now(UTC) > first_end)
        await say(ws, type="ping")
        assert await hear(ws) == {"type": "pong"}
        assert feed.open == 1


@pytest.mark.parametrize(("token", "code"), [("bob", 4401), ("nobody", 4401), ("root", 4403)])
async def test_renewing_takes_a_good_token_of_the_same_user(api: Surface, token: str, code: int) -> None:
    api.sessions.expire_in("root", -1)
    async with api.connected("ada") as ws:
        await say(ws, type="ping", payload={"authorization": f"Bearer {token}"})
        assert await closed(ws) == code


async def test_a_revoked_session_closes_when_the_event_comes(api: Surface) -> None:
    async with api.connected("ada") as ws:
        await subscribe(ws, "1", "subscription{quiet}")
        await hear(ws)
        api.sessions.revoked.add("ada")
        api.sessions.changed()
        assert await closed(ws) == 4401
    await until(lambda: feed.open == 0)


async def test_a_change_of_role_reaches_running_subscriptions(api: Surface) -> None:
    before = api.sessions.actors["ada"]
    async with api.connected("ada") as ws:
        await subscribe(ws, "1", "subscription{mine}")
        assert (await hear(ws))["payload"] == {"data": {"mine": "USER"}}
        api.sessions.actors["ada"] = Actor(ADA, Role.ADMIN)
        try:
            api.sessions.changed()
            async with asyncio.timeout(5):
                while (await hear(ws))["payload"] != {"data": {"mine": "ADMIN"}}:
                    pass
        finally:
            api.sessions.actors["ada"] = before


async def test_a_database_that_is_away_does_not_close_sockets(api: Surface) -> None:
    async with api.connected("ada") as ws:
        api.sessions.away = True
        checks = api.sessions.checks
        api.sessions.changed()
        await until(lambda: api.sessions.checks > checks)
        await say(ws, type="ping")
        assert await hear(ws) == {"type": "pong"}


async def closed_after_messages(ws: Any) -> int:
    """The close code, reading on until it comes."""
    async with asyncio.timeout(5):
        try:
            while True:
                await ws.recv()
        except ConnectionClosed:
            code: int = ws.close_code
            return code
