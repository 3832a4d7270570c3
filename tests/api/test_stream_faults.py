"""Streams when something fails: Redis dies, the database goes, a reader stops reading, a token runs out.

Also what many readers cost: one encoding per selection, one Redis connection per process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from adapters import embedded, events
from adapters.embedded import RedisServer
from adapters.events import EventBus
from models.events import LogAppended
from models.ids import Prefix, encode_id
from models.permissions import Actor
from models.users import find_accounts
from resolvers.tokens import TokenKeys
from schema import build_schema
from schema.context import AppState, Context
from schema.execution import Frame, Operations
from schema.requests import OperationRequest
from tests.api.test_streams import EXECUTION, EXECUTIONS, LOGS, Reader, log_variables
from tests.conftest import ApiServer
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, StreamClosed, Subscription, open_socket, subscribe
from tests.harness.executions import Desk, Hand, numbered, open_desk, run_id, settings_of, uuid_of
from tests.harness.processes import Api
from tests.harness.waiting import eventually
from tests.harness.wire import Wire

SETTINGS = {"MAX_SOCKETS_PER_USER": "200"}
MIB = 2**20


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


# -- Redis


class Island:
    """An API process with a Redis of its own, and a desk that tells it there what happens."""

    def __init__(self, api: Api, redis: RedisServer, desk: Desk, control: Redis) -> None:
        self.api = api
        self.redis = redis
        self.desk = desk
        self.control = control

    async def listeners(self) -> int:
        """How many connections listen for events."""
        return len(await self.control.client_list(_type="pubsub"))


@pytest_asyncio.fixture(scope="module")
async def island(
    desk: Desk, api_server: ApiServer, settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Island]:
    async with embedded.redis(tmp_path_factory.mktemp("redis"), durable=False) as server:
        settings = settings_of({**settings_env, "REDIS_URL": server.url})
        control = events.open_redis(settings)
        bus = EventBus(control, f"{settings.redis_namespace}:events")
        api = await api_server.second(REDIS_URL=server.url)
        yield Island(api, server, Desk(desk.pool, bus.send), control)
        await control.aclose()


async def test_one_connection_listens_for_all_subscribers(island: Island, owner: Person) -> None:
    hand = await island.desk.started(owner)
    await hand.write("line 1")
    before = len(await island.control.client_list())
    async with AsyncExitStack() as stack:
        for document in [LOGS, EXECUTION, EXECUTIONS] * 10:
            variables = {} if document is EXECUTIONS else {"id": run_id(hand.id)}
            stream = await stack.enter_async_context(
                subscribe(island.api.ws_url, document, variables, token=owner.token)
            )
            await stream.next()
        assert await island.listeners() == 1
        assert len(await island.control.client_list()) <= before


async def test_streams_go_on_without_redis_and_recover(island: Island, owner: Person) -> None:
    hand = await island.desk.started(owner)
    await hand.write("line 1")
    reader = Reader()
    async with (
        subscribe(island.api.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log,
        subscribe(island.api.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=owner.token) as state,
        subscribe(island.api.ws_url, EXECUTIONS, token=owner.token) as all_states,
    ):
        await reader.read(log, up_to=1)
        await state.next()
        await all_states.next()
        await island.redis.kill()
        await hand.write("line 2", quietly=True)
        # Nobody is told from here on. The first second goes into noticing.
        await reader.read(log, up_to=2)
        assert min([await seconds_until_heard(reader, log, hand) for _ in range(3)]) < 1
        await island.desk.pool.execute("UPDATE executions SET progress = 50 WHERE id = $1", hand.id)
        assert (await state.next(3))["execution"]["progress"] == 50
        await until_progress(all_states, 50)
        # New subscribers are served as well.
        async with subscribe(island.api.ws_url, LOGS, log_variables(hand.id), token=owner.token) as late:
            await Reader().read(late, up_to=hand.sequence)

        await island.redis.restart_immediate()
        await eventually(island.listeners, 10)
        await hand.write("first after the gap")
        await reader.read(log, up_to=hand.sequence)
        # Pokes arrive again: twenty lines would take polling at least ten seconds.
        async with asyncio.timeout(9):
            for _ in range(20):
                await hand.write("one of twenty")
                await reader.read(log, up_to=hand.sequence)
        await hand.finish()
        await reader.read(log)


async def test_end_that_comes_while_redis_is_away_completes_the_stream(island: Island, owner: Person) -> None:
    hand = await island.desk.started(owner)
    reader = Reader()
    async with subscribe(island.api.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log:
        await hand.write("line 1")
        await reader.read(log, up_to=1)
        await island.redis.kill()
        await hand.write("line 2", quietly=True)
        await hand.finish()
        await reader.read(log)
    assert reader.last == 2
    await island.redis.restart_immediate()
    await eventually(island.listeners, 10)


async def seconds_until_heard(reader: Reader, log: Subscription, hand: Hand) -> float:
    started = time.monotonic()
    await hand.write("one more", quietly=True)
    await reader.read(log, up_to=hand.sequence)
    return time.monotonic() - started


async def until_progress(stream: Subscription, progress: int) -> None:
    """Read what comes of all executions until one has come so far."""
    async with asyncio.timeout(7):
        while (await stream.next())["executions"]["progress"] != progress:
            continue


# -- the database


async def test_streams_wait_while_the_database_is_away(
    api_server: ApiServer, settings_env: dict[str, str], desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write("line 1")
    reader = Reader()
    async with Wire(settings_env["DATABASE_URL"]) as wire:
        api = await api_server.second(DATABASE_URL=wire.url)
        async with (
            subscribe(api.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log,
            subscribe(api.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=owner.token) as state,
            subscribe(api.ws_url, EXECUTIONS, token=owner.token) as all_states,
        ):
            await reader.read(log, up_to=1)
            await state.next()
            await all_states.next()
            wire.cut()
            await hand.write("line 2")
            await hand.advance(60)
            await eventually(lambda: len(api.events("feed_waits")) >= 3, 8)
            wire.mend()
            await reader.read(log, up_to=2)
            assert (await state.next())["execution"]["progress"] == 60
            await until_progress(all_states, 60)
        await api.stop()


async def test_stream_waits_while_all_connections_are_busy(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    api = await api_server.second(DATABASE_POOL_SIZE="2")
    hand = await desk.started(owner)
    job = encode_id(Prefix.JOB, await desk.job(owner))
    run_job = "mutation($id: ID!) { runJob(input: {jobId: $id}) { run { status } } }"
    async with (
        GraphQLClient(api.graphql_url) as client,
        subscribe(api.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log,
    ):
        await hand.write("line 1")
        await log.next()
        async with desk.holding_back(owner) as all_wait:
            calls = [asyncio.create_task(client.run(run_job, {"id": job}, token=owner.token)) for _ in range(2)]
            await all_wait(2)
            await hand.write("line 2")
            await api.wait_event("feed_waits", 4)
        await asyncio.gather(*calls)
        assert (await log.next())["logs"]["lastSequence"] == 2


async def test_fault_of_our_own_ends_the_stream_and_tells_nothing(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log:
        await hand.write("line 1")
        await log.next()
        await hand.write("line 2", quietly=True)
        await desk.pool.execute("ALTER TABLE log_chunks RENAME COLUMN line_count TO other")
        try:
            await desk.tell(LogAppended(hand.id, 2))
            with pytest.raises(GraphQLFailure) as failed:
                await log.next(4)
        finally:
            await desk.pool.execute("ALTER TABLE log_chunks RENAME COLUMN other TO line_count")
    assert failed.value.code == "INTERNAL_SERVER_ERROR"
    assert "line_count" not in str(failed.value.errors)


# -- readers that do not read


def resident_bytes(api: Api) -> int:
    """Memory of a process as it is now."""
    for line in Path(f"/proc/{api.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def test_readers_that_stall_slow_nobody_and_are_caught_up_from_storage(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    api = await api_server.second()
    hand = await desk.started(owner)
    await hand.write("line 1")
    readers = [Reader() for _ in range(20)]
    async with AsyncExitStack() as stack:

        async def subscribed(reader: Reader) -> Subscription:
            variables = log_variables(hand.id, reader.last)
            return await stack.enter_async_context(subscribe(api.ws_url, LOGS, variables, token=owner.token))

        async def catch_up(reader: Reader, stream: Subscription) -> None:
            stream.socket.connection.transport.resume_reading()
            try:
                await reader.read(stream)
            except StreamClosed as closed:
                if closed.code != 1013:  # on a slow machine its ten seconds are over
                    raise
                await reader.read(await subscribed(reader))

        stalled = [await subscribed(reader) for reader in readers]
        for reader, stream in zip(readers, stalled, strict=True):
            await reader.read(stream, up_to=1)
            stream.socket.connection.transport.pause_reading()
        quick_reader = Reader()
        quick = await subscribed(quick_reader)
        before = resident_bytes(api)
        while hand.sequence < 4_000:  # 16 MB, which for the stalled ones together would be 320
            await hand.write(*numbered(hand.sequence + 1, hand.sequence + 64, width=4_000), chunk=16)
            async with asyncio.timeout(5):  # those that stall are given ten
                await quick_reader.read(quick, up_to=hand.sequence)
        grown = resident_bytes(api) - before
        assert grown < 32 * MIB, f"{grown / MIB:.0f} MiB for twenty readers that do not read"
        await hand.finish()
        await quick_reader.read(quick)
        for stream in stalled[3:]:
            stream.socket.connection.transport.abort()
        async with asyncio.TaskGroup() as group:
            for reader, stream in zip(readers[:3], stalled, strict=False):
                group.create_task(catch_up(reader, stream))
    assert [reader.last for reader in readers[:3]] == [hand.sequence] * 3


# -- credentials


async def test_socket_whose_token_runs_out_is_closed_and_may_renew_before(
    api_server: ApiServer, settings_env: dict[str, str], desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    settings = settings_of(settings_env).model_copy(update={"base_url": api_server.url})
    account = (await find_accounts([uuid_of(owner)]))[uuid_of(owner)]
    session = await desk.pool.fetchval("SELECT id FROM sessions WHERE user_id = $1 LIMIT 1", uuid_of(owner))

    def token(seconds: int) -> str:
        return TokenKeys(settings.model_copy(update={"access_token_seconds": seconds})).issue_access(account, session)[
            0
        ]

    short = token(5)
    async with (
        open_socket(api_server.ws_url, token=short) as first,
        open_socket(api_server.ws_url, token=short) as other,
    ):
        renewing = Subscription(first, await first.start(EXECUTION, {"id": run_id(hand.id)}))
        ending = Subscription(other, await other.start(EXECUTION, {"id": run_id(hand.id)}))
        await renewing.next()
        await ending.next()
        await first.send({"type": "ping", "payload": {"authorization": f"Bearer {token(60)}"}})
        assert (await first.receive())["payload"] == {"renewed": True}
        assert (await other.closed(10)).code == 4403
        await hand.advance(50)
        assert (await renewing.next())["execution"]["progress"] == 50


# -- what many readers cost


class Local:
    """The surface in this process, so that one can look at the very bytes that subscribers are given."""

    def __init__(self, settings_env: dict[str, str]) -> None:
        self.settings = settings_of(settings_env)
        self.operations = Operations(build_schema(), self.settings)
        self.state = AppState()

    async def read(self, document: str, variables: dict[str, Any], person: Person, frames: list[Frame]) -> None:
        """Subscribe for somebody until cancelled."""
        context = Context(Actor(user_id=uuid_of(person), role=person.role), self.settings, self.state)
        operation = self.operations.prepare(
            OperationRequest(query=document, variables=variables, operation_name=None), request_id=None
        )
        async with aclosing(self.operations.subscribe(operation, variables, context)) as source:
            async for frame in source:
                frames.append(frame)  # noqa: PERF401 - looked at while it grows


@pytest.mark.parametrize("document", [LOGS, EXECUTION, EXECUTIONS], ids=["logs", "execution", "executions"])
async def test_event_is_encoded_once_per_selection(
    document: str, settings_env: dict[str, str], desk: Desk, client: GraphQLClient, admin: Person
) -> None:
    person = await new_user(client)
    local = Local(settings_env)
    hand = await desk.started(person)
    other_selection = document.replace("lines { sequence", "lines { stage sequence").replace("status", "status attempt")
    variables = {} if document is EXECUTIONS else {"id": run_id(hand.id)}
    who_reads_what = [(document, person)] * 30 + [(other_selection, person)] * 5 + [(document, admin)] * 5
    frames: list[list[Frame]] = [[] for _ in who_reads_what]
    readers = [
        asyncio.create_task(local.read(selection, variables, reader, found))
        for (selection, reader), found in zip(who_reads_what, frames, strict=True)
    ]
    await eventually(lambda: local.state.open_subscriptions == 40)
    await hand.write("line 1")
    await eventually(lambda: all(frames))
    for found in frames:
        found.clear()
    await (hand.write("line 2") if document is LOGS else hand.advance(50))
    await eventually(lambda: all(frames))
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert local.state.open_subscriptions == 0
    payloads = [found[-1].payload for found in frames]
    assert b"50" in payloads[0] or b"line 2" in payloads[0]
    # The same object, and not just the same text.
    assert len({id(payload) for payload in payloads[:30]}) == 1
    assert len({id(payload) for payload in payloads[30:35]}) == 1
    assert payloads[30] is not payloads[0]
    assert len({id(payload) for payload in payloads[35:]}) == 1
    # Administrators see more of people; of lines everybody sees the same.
    assert (payloads[35] is payloads[0]) == (document is LOGS)
