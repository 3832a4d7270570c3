"""Subscriptions over plain HTTP: the distinct connections mode of `graphql-sse`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_asyncio

from schema import sse
from tests.api.surface import DEADLINE_SECONDS, Surface, feed, surface, until


@pytest_asyncio.fixture(scope="module")
async def api() -> AsyncIterator[Surface]:
    async with surface() as running:
        yield running


@pytest.fixture(autouse=True)
def _reset(api: Surface) -> None:
    api.sessions.revoked.clear()
    api.sessions.expiries.clear()
    feed.closed.clear()


@asynccontextmanager
async def streamed(
    api: Surface, query: str, *, accept: str = "text/event-stream", **options: Any
) -> AsyncIterator[Any]:
    """The blocks of a stream: events as (name, id, data), comments as themselves."""
    headers = {"accept": accept, **options.pop("headers", {})}
    if token := options.pop("token", None):
        headers["authorization"] = f"Bearer {token}"
    async with api.client.stream("POST", "/graphql", json={"query": query, **options}, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        async with aclosing(_blocks(response.aiter_text())) as blocks:
            yield blocks


async def _blocks(chunks: AsyncIterator[str]) -> AsyncGenerator[Any, None]:
    text = ""
    async for chunk in chunks:
        text += chunk
        *blocks, text = text.split("\n\n")
        for block in blocks:
            fields = dict(line.split(":", 1) for line in block.split("\n"))
            if "" in fields:
                yield ":"
                continue
            data = fields["data"].strip()
            yield fields["event"].strip(), fields.get("id", "").strip(), orjson.loads(data) if data else None


async def read(blocks: Any) -> list[Any]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [block async for block in blocks]


COMPLETE = ("complete", "", None)


async def test_a_subscription_sends_its_events_with_their_sequence_and_completes(api: Surface) -> None:
    async with streamed(api, "subscription{count(to:2){text}}") as blocks:
        assert await read(blocks) == [
            ("next", "1", {"data": {"count": {"text": "line 1"}}}),
            ("next", "2", {"data": {"count": {"text": "line 2"}}}),
            COMPLETE,
        ]


async def test_a_client_that_comes_back_goes_on_after_what_it_saw(api: Surface) -> None:
    query = "subscription($afterSequence:Int){count(to:4,afterSequence:$afterSequence){text}}"
    for variables in ({}, {"afterSequence": 1}):
        async with streamed(api, query, variables=variables, headers={"last-event-id": "3"}) as blocks:
            assert await read(blocks) == [("next", "4", {"data": {"count": {"text": "line 4"}}}), COMPLETE]
    for garbage in ("x", "-1", "9" * 30):
        async with streamed(api, query, variables={"afterSequence": 3}, headers={"last-event-id": garbage}) as blocks:
            assert len(await read(blocks)) == 2


@pytest.mark.parametrize("query", ["{", "{nope}", "subscription{nope}"])
async def test_a_wrong_operation_is_told_in_the_stream(api: Surface, query: str) -> None:
    async with streamed(api, query) as blocks:
        (name, _, payload), last = await read(blocks)
        assert (name, last) == ("next", COMPLETE)
        assert payload["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize(("query", "code"), [("refused", "CONFLICT"), ("mine", "UNAUTHORIZED")])
async def test_a_subscription_that_cannot_start_is_told_in_the_stream(api: Surface, query: str, code: str) -> None:
    async with streamed(api, f"subscription{{{query}}}") as blocks:
        (_, _, payload), last = await read(blocks)
        assert last == COMPLETE
        assert payload["errors"][0]["extensions"]["code"] == code


async def test_a_source_that_breaks_ends_the_stream_and_tells_nothing(api: Surface) -> None:
    async with streamed(api, "subscription{breaks}") as blocks:
        _, (_, _, payload), last = await read(blocks)
        assert last == COMPLETE
        assert payload["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert "hunter2" not in str(payload)


async def test_a_query_may_be_streamed_and_prefers_not_to_be(api: Surface) -> None:
    async with streamed(api, "{hello}") as blocks:
        assert await read(blocks) == [("next", "", {"data": {"hello": "Hello world"}}), COMPLETE]
    both = "application/json, text/event-stream"
    assert (await api.post("{hello}", accept=both)).json() == {"data": {"hello": "Hello world"}}
    async with streamed(api, "subscription{count(to:1){text}}", accept=both) as blocks:
        assert len(await read(blocks)) == 2


async def test_a_bad_request_gets_its_status_and_no_stream(api: Surface) -> None:
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    assert (await api.client.post("/graphql", content=b"[", headers=headers)).status_code == 400
    assert (await api.post("subscription{quiet}", accept="text/event-stream", token="nobody")).status_code == 401


@pytest.mark.parametrize("query", ["subscription{quiet}", "subscription{flood}", "subscription{kept}"])
async def test_a_client_that_leaves_has_its_source_closed_at_once(api: Surface, query: str) -> None:
    async with streamed(api, query) as blocks:
        await anext(blocks)
        assert feed.open == 1
    async with asyncio.timeout(2):
        await feed.closed.wait()
    await until(lambda: feed.open == 0 and api.state.open_subscriptions == 0)


async def test_a_quiet_stream_is_kept_alive(api: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    async with streamed(api, "subscription{quiet}") as blocks, asyncio.timeout(DEADLINE_SECONDS):
        await anext(blocks)
        assert await anext(blocks) == ":"
        assert await anext(blocks) == ":"
        assert feed.open == 1


async def test_a_stream_ends_with_its_token(api: Surface) -> None:
    api.sessions.expire_in("ada", 0.2)
    async with streamed(api, "subscription{quiet}", token="ada") as blocks:
        _, (name, _, payload), last = await read(blocks)
        assert (name, last) == ("next", COMPLETE)
        assert payload["errors"][0]["extensions"]["details"]["reason"] == "expired"
    await until(lambda: feed.open == 0)


async def test_a_stream_ends_with_its_session(api: Surface) -> None:
    async with streamed(api, "subscription{quiet}", token="ada") as blocks:
        await anext(blocks)
        api.sessions.revoked.add("ada")
        api.sessions.changed()
        (_, _, payload), last = await read(blocks)
        assert payload["errors"][0]["extensions"]["details"]["reason"] == "revoked"
        assert last == COMPLETE


async def test_a_client_that_does_not_read_is_given_up(api: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.2)
    async with streamed(api, "subscription{flood}") as blocks:
        await anext(blocks)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await feed.closed.wait()
