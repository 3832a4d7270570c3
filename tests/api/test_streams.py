"""Streams over WebSockets and server-sent events, against API processes of their own and a writer that plays worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, encode_id
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, StreamClosed, Subscription, subscribe, subscribe_sse
from tests.harness.executions import Desk, Hand, numbered, open_desk, run_id, uuid_of
from tests.harness.processes import Api
from tests.harness.waiting import eventually

SETTINGS = {"MAX_SOCKETS_PER_USER": "200"}

LOGS = """
subscription Logs($id: ID!, $afterSequence: Int! = 0) {
  logs(executionId: $id, afterSequence: $afterSequence) {
    lines { sequence timestamp level message stage isContinuation } lastSequence complete
  }
}
"""
EXECUTION = """
subscription Watch($id: ID!) { execution(id: $id) { id status progress stage attempt failure { code message } } }
"""
EXECUTIONS = """
subscription Mine($filter: ExecutionFilter) { executions(filter: $filter) { id status progress } }
"""
LOGOUT = "mutation { logout { __typename } }"


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def second(api_server: ApiServer) -> Api:
    """Another API process on the same database and Redis."""
    return await api_server.second()


@pytest_asyncio.fixture(scope="module")
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


class Reader:
    """What one client has of a log, over any number of connections; every line must be the next one."""

    def __init__(self) -> None:
        self.last = 0
        self.is_complete = False

    def take(self, batch: dict[str, Any]) -> None:
        numbers = [line["sequence"] for line in batch["lines"]]
        assert numbers == list(range(self.last + 1, self.last + 1 + len(numbers)))
        assert not self.is_complete, "something came after the end"
        self.last += len(numbers)
        assert batch["lastSequence"] == self.last
        self.is_complete = batch["complete"]

    async def read(self, stream: Subscription, *, up_to: int | None = None) -> None:
        """Read to a sequence, or until the server completes the stream."""
        while up_to is None or self.last < up_to:
            try:
                self.take((await stream.next(20))["logs"])
            except StopAsyncIteration:
                assert self.is_complete, "the stream completed without saying so"
                assert up_to is None, f"the log ended at {self.last}"
                return


def log_variables(execution: Any, after: int = 0) -> dict[str, Any]:
    return {"id": run_id(execution), "afterSequence": after}


async def read_whole(api: Api, owner: Person, execution: Any, *, after: int = 0) -> Reader:
    reader = Reader()
    reader.last = after
    async with subscribe(api.ws_url, LOGS, log_variables(execution, after), token=owner.token) as stream:
        await reader.read(stream)
    return reader


async def refusal(api: Api, document: str, variables: dict[str, Any], token: str | None) -> GraphQLFailure:
    """How a subscription is refused, over both transports alike."""
    async with subscribe(api.ws_url, document, variables, token=token) as stream:
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next()
    async with GraphQLClient(api.graphql_url) as client:
        headers = {"Accept": "text/event-stream", **({"Authorization": f"Bearer {token}"} if token else {})}
        answer = await client.http.post(client.url, json={"query": document, "variables": variables}, headers=headers)
        assert f'"{refused.value.code}"' in answer.text
    return refused.value


# -- who may not


@pytest.mark.parametrize("document", [LOGS, EXECUTION], ids=["logs", "execution"])
@pytest.mark.parametrize("who", ["other user", "nobody"])
async def test_stream_of_somebody_else_is_refused(
    document: str, who: str, api_server: ApiServer, client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    execution = await desk.finished(owner, lines=1)
    token = (await new_user(client)).token if who == "other user" else None
    refused = await refusal(api_server, document, {"id": run_id(execution)}, token)
    assert refused.code == ("NOT_FOUND" if token else "UNAUTHORIZED")
    assert "line 1" not in str(refused.errors)


@pytest.mark.parametrize("document", [LOGS, EXECUTION], ids=["logs", "execution"])
@pytest.mark.parametrize(
    "faulty",
    [
        "",
        "run_",
        "nonsense",
        "run_0000000000000000000000000!",
        encode_id(Prefix.RUN, NOBODYS_ID),
        encode_id(Prefix.JOB, NOBODYS_ID),
        "run_" + "z" * 26,
    ],
    ids=["empty", "prefix", "nonsense", "alphabet", "unknown", "other kind", "overflow"],
)
async def test_stream_of_what_does_not_exist_is_refused(
    document: str, faulty: str, api_server: ApiServer, owner: Person
) -> None:
    assert (await refusal(api_server, document, {"id": faulty}, owner.token)).code == "NOT_FOUND"


@pytest.mark.parametrize("after", [-1, -(2**31)])
async def test_position_before_the_log_is_refused(after: int, api_server: ApiServer, desk: Desk, owner: Person) -> None:
    execution = await desk.finished(owner, lines=1)
    refused = await refusal(api_server, LOGS, log_variables(execution, after), owner.token)
    assert (refused.code, refused.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["afterSequence"])


async def test_executions_of_nobody_are_refused(api_server: ApiServer) -> None:
    assert (await refusal(api_server, EXECUTIONS, {}, None)).code == "UNAUTHORIZED"


# -- access that is lost


@pytest.mark.parametrize("document", [LOGS, EXECUTION], ids=["logs", "execution"])
@pytest.mark.parametrize(
    "loss",
    ["DELETE FROM executions WHERE id = $1", "UPDATE executions SET owner_id = $2 WHERE id = $1"],
    ids=["deleted", "given away"],
)
async def test_stream_ends_with_the_right_to_it(
    document: str, loss: str, api_server: ApiServer, client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write("secret")
    async with subscribe(api_server.ws_url, document, {"id": run_id(hand.id)}, token=owner.token) as stream:
        await stream.next()
        other = uuid_of(await new_user(client))
        await desk.pool.execute(loss, hand.id, *([other] if "$2" in loss else []))
        await hand.tell_change()
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next(4)
    assert refused.value.code == "NOT_FOUND"


async def test_sign_out_ends_streams(api_server: ApiServer, second: Api, client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    hand = await desk.started(person)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(
                subscribe(api.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=person.token)
            )
            for api in (api_server, second)
        ]
        for stream in streams:
            await stream.next()
        await client.run(LOGOUT, token=person.token)
        assert [(await stream.socket.closed(8)).code for stream in streams] == [4401, 4401]


# -- logs


@pytest.mark.parametrize("is_compacted", [False, True], ids=["in the database", "in storage"])
@pytest.mark.parametrize("after", [0, 1, 499, 500, 501, 1_999, 2_000, 2_001])
async def test_log_that_has_ended_is_replayed_and_completes(
    after: int, is_compacted: bool, api_server: ApiServer, desk: Desk, owner: Person, ended: dict[bool, Any]
) -> None:
    reader = await read_whole(api_server, owner, ended[is_compacted], after=after)
    assert reader.last == max(2_000, after)


@pytest_asyncio.fixture(scope="module")
async def ended(desk: Desk, owner: Person) -> dict[bool, Any]:
    """Two finished logs of 2,000 lines, the second one compacted."""
    found = {is_compacted: await desk.finished(owner, lines=2_000) for is_compacted in (False, True)}
    await desk.compact(found[True])
    return found


async def test_lines_arrive_as_they_were_written(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    texts = ["", '"quoted" \\ and \\n', "\u2028\u2029\x85", "\x1b[31mred\x1b[0m\t", "家 🏠 ß", "x" * 8_192]
    await hand.write(*texts, chunk=2)
    await hand.finish()
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        lines = [line async for batch in stream for line in batch["logs"]["lines"]]
    assert [line["message"] for line in lines] == texts
    assert lines[0]["timestamp"].endswith("Z")
    assert {line["level"] for line in lines} == {"INFO"}


@pytest.mark.parametrize("status", [ExecutionStatus.SUCCEEDED, ExecutionStatus.CANCELLED])
async def test_log_without_lines_completes(
    status: ExecutionStatus, api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    execution = await desk.finished(owner, status=status)
    async with subscribe(api_server.ws_url, LOGS, log_variables(execution), token=owner.token) as stream:
        assert [batch["logs"] async for batch in stream] == [{"lines": [], "lastSequence": 0, "complete": True}]


async def test_log_is_replayed_followed_and_completes_by_itself(
    api_server: ApiServer, second: Api, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 1_200))
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(subscribe(api.ws_url, LOGS, log_variables(hand.id), token=owner.token))
            for api in (api_server, second)
        ]
        readers = [Reader() for _ in streams]
        for reader, stream in zip(readers, streams, strict=True):
            await reader.read(stream, up_to=1_200)
        await hand.write(*numbered(1_201, 1_300), chunk=7)
        for reader, stream in zip(readers, streams, strict=True):
            await reader.read(stream, up_to=1_300)
        await hand.write("the last words")
        await hand.finish()
        for reader, stream in zip(readers, streams, strict=True):
            await reader.read(stream)
            assert reader.last == 1_301


async def test_new_line_arrives_at_once(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        reader = Reader()
        for number in range(1, 21):
            await hand.write(f"line {number}")
            async with asyncio.timeout(2):  # looking without being told happens each five seconds
                await reader.read(stream, up_to=number)


async def test_what_nobody_was_told_of_is_noticed_all_the_same(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    hand, gone = await desk.started(owner), await desk.started(owner)
    async with (
        subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as log,
        subscribe(api_server.ws_url, EXECUTION, {"id": run_id(gone.id)}, token=owner.token) as state,
    ):
        await hand.write("seen")
        await log.next()
        await state.next()
        await hand.write("unseen", quietly=True)
        await desk.pool.execute("DELETE FROM executions WHERE id = $1", gone.id)
        assert (await log.next(9))["logs"]["lastSequence"] == 2
        with pytest.raises(GraphQLFailure) as refused:
            await state.next(4)
    assert refused.value.code == "NOT_FOUND"


async def test_position_ahead_of_the_log_waits_for_it(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 3))
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id, 5), token=owner.token) as stream:
        await hand.write(*numbered(4, 8))
        await hand.finish()
        lines = [line["message"] async for batch in stream for line in batch["logs"]["lines"]]
    assert lines == ["line 6", "line 7", "line 8"]


async def test_log_that_moves_to_storage_while_it_is_read_stays_whole(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 6_000, width=4_000), chunk=16, quietly=True)
    await hand.finish()
    reader = Reader()
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        await reader.read(stream, up_to=1)
        await desk.compact(hand.id)  # the server cannot be far ahead: nobody has read its 24 MB
        assert reader.last < 1_000
        await reader.read(stream)
    assert reader.last == 6_000


async def test_log_that_ended_and_moved_unseen_is_read_to_its_end(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write("line 1")
    reader = Reader()
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        await reader.read(stream, up_to=1)
        await hand.write(*numbered(2, 1_200), quietly=True)
        await hand.finish(quietly=True)
        await desk.compact(hand.id)
        await hand.tell_change()
        await reader.read(stream)
    assert reader.last == 1_200


async def test_client_goes_on_at_another_server(api_server: ApiServer, second: Api, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 100), chunk=9)
    reader = Reader()
    async with subscribe(api_server.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        await reader.read(stream, up_to=30)
        stream.socket.connection.transport.abort()
    await hand.write(*numbered(101, 150), chunk=9)
    async with subscribe(second.ws_url, LOGS, log_variables(hand.id, reader.last), token=owner.token) as stream:
        await reader.read(stream, up_to=150)
        await hand.finish()
        await reader.read(stream)
    assert reader.last == 150


async def test_log_over_plain_http_resumes_by_event_id(
    api_server: ApiServer, client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 10))
    async with subscribe_sse(client, LOGS, log_variables(hand.id), token=owner.token) as stream:
        _, answer = await anext(stream)
        assert answer["data"]["logs"]["lastSequence"] == 10
    await hand.write(*numbered(11, 15))
    await hand.finish()
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {owner.token}", "Last-Event-ID": "10"}
    body = {"query": LOGS, "variables": log_variables(hand.id)}
    answer = await client.http.post(client.url, json=body, headers=headers)
    assert "id: 15" in answer.text
    assert "line 11" in answer.text
    assert "line 10" not in answer.text
    assert answer.text.endswith("event: complete\ndata:\n\n")


async def test_fifty_readers_who_come_and_go_miss_and_repeat_nothing(
    api_server: ApiServer, second: Api, desk: Desk, owner: Person
) -> None:
    total, count = 5_000, 50
    hand = await desk.started(owner)
    chance = random.Random(7)
    reconnections = 0

    async def read(seed: int) -> Reader:
        nonlocal reconnections
        mine, reader = random.Random(seed), Reader()
        while not reader.is_complete:
            api = mine.choice([api_server, second])
            async with subscribe(api.ws_url, LOGS, log_variables(hand.id, reader.last), token=owner.token) as stream:
                match mine.randrange(4):
                    case 0:
                        up_to = None
                    case _:
                        up_to = min(total, reader.last + mine.randint(1, 2_000))
                with suppress(ConnectionClosed):
                    await reader.read(stream, up_to=up_to if reader.last < total else None)
                if mine.random() < 0.5:
                    stream.socket.connection.transport.abort()
            reconnections += 1
        return reader

    async def write() -> None:
        while hand.sequence < total:
            size = min(chance.randint(1, 25), total - hand.sequence)
            await hand.write(*numbered(hand.sequence + 1, hand.sequence + size))
        await hand.finish()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        readers = [group.create_task(read(seed)) for seed in range(count)]
        group.create_task(write())
    assert [reader.result().last for reader in readers] == [total] * count
    assert reconnections > 2 * count


# -- one execution


async def test_execution_sends_its_state_first_and_completes_at_the_end(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    execution = await desk.queued(owner)
    async with subscribe(api_server.ws_url, EXECUTION, {"id": run_id(execution)}, token=owner.token) as stream:
        state = (await stream.next())["execution"]
        assert (state["id"], state["status"], state["attempt"]) == (run_id(execution), "QUEUED", 0)
        hand = await desk.claim(execution)
        assert (await stream.next())["execution"]["status"] == "RUNNING"
        await hand.advance(40, stage="CRAWLING")
        state = (await stream.next())["execution"]
        assert (state["progress"], state["stage"]) == (40, "CRAWLING")
        await hand.finish(ExecutionStatus.FAILED, failure=Failure(FailureCode.TIMED_OUT, "Too slow."))
        state = (await stream.next())["execution"]
        assert (state["status"], state["failure"]) == ("FAILED", {"code": "TIMED_OUT", "message": "Too slow."})
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_execution_that_has_ended_is_sent_once(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    execution = await desk.finished(owner)
    async with subscribe(api_server.ws_url, EXECUTION, {"id": run_id(execution)}, token=owner.token) as stream:
        assert [event["execution"]["status"] async for event in stream] == ["SUCCEEDED"]


async def test_changes_that_come_fast_become_few_and_end_with_the_last(
    api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    async with subscribe(api_server.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=owner.token) as stream:
        await stream.next()
        # Many changes at once, and a poke for each.
        async with asyncio.TaskGroup() as group:
            for progress in range(1, 101):
                group.create_task(hand.advance(progress))
        await hand.finish()
        states = [event["execution"] async for event in stream]
    steps = [state["progress"] for state in states]
    assert steps == sorted(steps)
    assert states[-1] == {**states[-1], "status": "SUCCEEDED", "progress": 100}
    assert len(states) < 100


async def test_poke_without_a_change_sends_nothing(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    async with subscribe(api_server.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=owner.token) as stream:
        await stream.next()
        for _ in range(5):
            await hand.tell_change()
        await hand.finish()
        assert [event["execution"]["status"] async for event in stream] == ["SUCCEEDED"]


# -- all executions


async def next_of(stream: Subscription, count: int) -> list[tuple[str, str]]:
    events = [(await stream.next())["executions"] for _ in range(count)]
    return [(event["id"], event["status"]) for event in events]


async def test_executions_shows_mine_and_to_admins_all(
    api_server: ApiServer, client: GraphQLClient, desk: Desk, admin: Person
) -> None:
    alice, bob = await new_user(client), await new_user(client)
    before = await desk.started(alice)
    await desk.finished(alice)
    async with (
        subscribe(api_server.ws_url, EXECUTIONS, token=alice.token) as hers,
        subscribe(api_server.ws_url, EXECUTIONS, token=bob.token) as his,
        subscribe(api_server.ws_url, EXECUTIONS, token=admin.token) as all_of_them,
    ):
        assert await next_of(hers, 1) == [(run_id(before.id), "RUNNING")]
        of_bob = await desk.started(bob)
        seen = [(await his.next())["executions"]["status"]]
        if seen == ["QUEUED"]:
            seen += [(await his.next())["executions"]["status"]]
        assert seen[-1] == "RUNNING"
        await before.finish(ExecutionStatus.CANCELLED)
        assert await next_of(hers, 1) == [(run_id(before.id), "CANCELLED")]
        await of_bob.finish()
        assert await next_of(his, 1) == [(run_id(of_bob.id), "SUCCEEDED")]
        ends = {(run_id(before.id), "CANCELLED"), (run_id(of_bob.id), "SUCCEEDED")}
        async with asyncio.timeout(5):
            while ends:
                ends -= set(await next_of(all_of_them, 1))
        with pytest.raises(TimeoutError):
            await hers.next(0.3)


async def test_executions_sends_only_changes_into_the_wanted_statuses(
    api_server: ApiServer, client: GraphQLClient, desk: Desk
) -> None:
    person = await new_user(client)
    wanted = {"filter": {"statuses": ["FAILED", "SUCCEEDED"]}}
    async with subscribe(api_server.ws_url, EXECUTIONS, wanted, token=person.token) as stream:
        with pytest.raises(TimeoutError):
            await stream.next(0.2)  # it is open now
        hand = await desk.started(person)
        await hand.finish()
        assert await next_of(stream, 1) == [(run_id(hand.id), "SUCCEEDED")]


async def test_crowd_that_waits_does_not_hide_one_that_runs(
    api_server: ApiServer, client: GraphQLClient, desk: Desk
) -> None:
    person = await new_user(client)
    job = await desk.job(person)
    oldest = await desk.started(person, job=job)
    await desk.pool.execute(
        """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
               timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
           SELECT gen_random_uuid(), kind, owner_id, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0
           FROM executions, generate_series(1, 1100) AS n WHERE id = $1""",
        oldest.id,
    )
    await desk.pool.execute(
        """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id, is_seeded,
               items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked, requests_robots,
               requests_throttled)
           SELECT e.id, r.job_id, r.tool_id, r.spider, r.input, r.limits, 'API', e.id, false, 0, 0, 0, 0, 0, 0, 0
           FROM executions e, job_runs r WHERE e.owner_id = $2 AND e.status = 'QUEUED' AND r.execution_id = $1""",
        oldest.id,
        uuid_of(person),
    )
    wanted = {"filter": {"statuses": ["RUNNING", "SUCCEEDED"]}}
    async with subscribe(api_server.ws_url, EXECUTIONS, wanted, token=person.token) as stream:
        assert await next_of(stream, 1) == [(run_id(oldest.id), "RUNNING")]
        await oldest.finish()
        assert await next_of(stream, 1) == [(run_id(oldest.id), "SUCCEEDED")]
    await desk.pool.execute("DELETE FROM executions WHERE owner_id = $1", uuid_of(person))


# -- the end of a connection


@pytest_asyncio.fixture(scope="module")
async def talkative(api_server: ApiServer) -> Api:
    """An API process whose log tells when it reads for subscribers."""
    return await api_server.second(LOG_LEVEL="DEBUG")


def closed_feeds(api: Api, hand: Hand) -> int:
    return sum(str(hand.id) in event["feed"] for event in api.events("feed_closed"))


@pytest.mark.parametrize("document", [LOGS, EXECUTION], ids=["logs", "execution"])
async def test_reading_stops_when_the_last_socket_dies(
    document: str, talkative: Api, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write("line 1")
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(
                subscribe(talkative.ws_url, document, {"id": run_id(hand.id)}, token=owner.token)
            )
            for _ in range(3)
        ]
        for stream in streams:
            await stream.next()
        opened = [event for event in talkative.events("feed_opened") if str(hand.id) in event["feed"]]
        assert len(opened) == 1
        for stream in streams[1:]:
            stream.socket.connection.transport.abort()
        await hand.write("line 2")
        await hand.advance(50)
        await streams[0].next()
        assert closed_feeds(talkative, hand) == 0
        streams[0].socket.connection.transport.abort()
        await eventually(lambda: closed_feeds(talkative, hand), 5)


async def test_unsubscribing_stops_reading_and_keeps_the_socket(talkative: Api, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    await hand.write("line 1")
    async with subscribe(talkative.ws_url, LOGS, log_variables(hand.id), token=owner.token) as stream:
        await stream.next()
        await stream.stop()
        await eventually(lambda: closed_feeds(talkative, hand), 5)
        await stream.socket.send({"type": "ping"})
        assert (await stream.socket.receive())["type"] == "pong"


async def test_reading_stops_when_a_client_of_plain_http_leaves(talkative: Api, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    await hand.write("line 1")
    async with GraphQLClient(talkative.graphql_url) as client:
        async with subscribe_sse(client, LOGS, log_variables(hand.id), token=owner.token) as stream:
            await anext(stream)
            assert closed_feeds(talkative, hand) == 0
        await eventually(lambda: closed_feeds(talkative, hand), 5)


async def test_server_that_stops_says_so(api_server: ApiServer, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    leaving = await api_server.second(LOG_LEVEL="DEBUG")
    async with subscribe(leaving.ws_url, EXECUTION, {"id": run_id(hand.id)}, token=owner.token) as stream:
        await stream.next()
        leaving.terminate()
        with pytest.raises(StreamClosed) as closed:
            await stream.next()
    assert closed.value.code == 1012
    assert await leaving.wait_exit() == 0
    assert closed_feeds(leaving, hand) == 1
