"""Shared events: one execution and one encoding for all who may see the same, and never for anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from resolvers.streams import SharedEvent
from tests.api.surface import Line, Surface, executions, feed, hear, say, surface, until


@pytest_asyncio.fixture(scope="module")
async def api() -> AsyncIterator[Surface]:
    async with surface() as running:
        yield running


@pytest.fixture(autouse=True)
def _reset() -> None:
    feed.events.clear()
    executions.clear()


class Readers:
    """Subscribers on as many sockets as needed."""

    def __init__(self, api: Surface, stack: AsyncExitStack) -> None:
        self.api = api
        self.stack = stack
        self.sockets: list[Any] = []

    async def subscribe(self, count: int, query: str, **variables: Any) -> None:
        before = feed.open
        for number in range(count):
            if number % 40 == 0:
                ws = await self.stack.enter_async_context(self.api.connected())
            await say(ws, id=str(number), type="subscribe", payload={"query": query, "variables": variables})
            self.sockets.append(ws)
        await until(lambda: feed.open == before + count)

    async def answers(self) -> list[Any]:
        """The next answer to each subscription."""
        return [(await hear(ws))["payload"] for ws in self.sockets]


@pytest_asyncio.fixture
async def readers(api: Surface) -> AsyncIterator[Readers]:
    async with AsyncExitStack() as stack:
        yield Readers(api, stack)
    await until(lambda: feed.open == 0)


QUERY = "subscription{shared{lastSequence text}}"


async def test_two_hundred_subscribers_cost_one_execution(readers: Readers) -> None:
    await readers.subscribe(200, QUERY)
    await feed.push(SharedEvent(Line(last_sequence=7), "all"))
    answers = await readers.answers()
    assert answers == [{"data": {"shared": {"lastSequence": 7, "text": "line 7"}}}] * 200
    assert executions == [7]


async def test_an_execution_that_waits_is_shared_by_those_who_ask_meanwhile(readers: Readers) -> None:
    await readers.subscribe(50, "subscription{shared{slowText}}")
    await feed.push(SharedEvent(Line(last_sequence=7), "all"))
    assert await readers.answers() == [{"data": {"shared": {"slowText": "slow 7"}}}] * 50
    assert executions == [7]


async def test_another_selection_is_executed_by_itself(readers: Readers) -> None:
    await readers.subscribe(3, QUERY)
    await readers.subscribe(3, "subscription{shared{text}}")
    await feed.push(SharedEvent(Line(last_sequence=7), "all"))
    assert {len(answer["data"]["shared"]) for answer in await readers.answers()} == {1, 2}
    assert executions == [7, 7]


async def test_variables_below_the_root_field_tell_answers_apart(readers: Readers) -> None:
    query = "subscription($u:Boolean!){shared{...F}} fragment F on Line{text(upper:$u)}"
    await readers.subscribe(2, query, u=True)
    await readers.subscribe(2, query, u=False)
    await feed.push(SharedEvent(Line(last_sequence=7), "all"))
    texts = [answer["data"]["shared"]["text"] for answer in await readers.answers()]
    assert texts == ["LINE 7", "LINE 7", "line 7", "line 7"]
    assert len(executions) == 2


async def test_variables_of_the_root_field_do_not(readers: Readers) -> None:
    query = "subscription($r:String!){shared(rights:$r){text}}"
    await readers.subscribe(2, query, r="a")
    await readers.subscribe(2, query, r="b")
    await feed.push(SharedEvent(Line(last_sequence=7), "all"))
    assert len(await readers.answers()) == 4
    assert executions == [7]


async def test_audiences_never_share(readers: Readers) -> None:
    await readers.subscribe(1, QUERY)
    first = SharedEvent(Line(last_sequence=1), "owner")
    await feed.push(first)
    await readers.answers()
    assert len(first.encodings) == 1
    # The same encodings under another audience must not be found.
    await feed.push(SharedEvent(Line(last_sequence=2), "admins", first.encodings))
    assert (await readers.answers())[0]["data"]["shared"]["text"] == "line 2"


async def test_who_executes_may_leave_and_another_takes_over(api: Surface) -> None:
    query = "subscription{shared{slowText}}"
    async with api.connected() as leaving, api.connected() as staying:
        for ws in (leaving, staying):
            await say(ws, id="1", type="subscribe", payload={"query": query})
        await until(lambda: feed.open == 2)
        await feed.push(SharedEvent(Line(last_sequence=7), "all"))
        await until(lambda: executions)
        leaving.transport.abort()
        assert (await hear(staying))["payload"] == {"data": {"shared": {"slowText": "slow 7"}}}


async def test_an_answer_with_errors_is_nobody_elses(readers: Readers) -> None:
    await readers.subscribe(3, QUERY)
    event = SharedEvent(object(), "all")
    await feed.push(event)
    answers = await readers.answers()
    assert len({answer["errors"][0]["extensions"]["requestId"] for answer in answers}) == 3
    assert event.encodings == {}


async def test_each_subscriber_reads_at_its_own_pace(api: Surface) -> None:
    async with api.connected() as slow, api.connected() as quick:
        for ws in (slow, quick):
            await say(ws, id="1", type="subscribe", payload={"query": QUERY})
        await until(lambda: feed.open == 2)
        slow.transport.pause_reading()
        for number in range(200):
            await feed.push(SharedEvent(Line(last_sequence=number), "all"))
        for number in range(200):
            assert (await hear(quick))["payload"]["data"]["shared"]["lastSequence"] == number
        slow.transport.resume_reading()
        for number in range(200):
            assert (await hear(slow))["payload"]["data"]["shared"]["lastSequence"] == number
