"""Clients as our users have them: GraphQL over HTTP, over graphql-transport-ws, over server-sent events."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

REPLY_SECONDS = 10.0
PROTOCOL = "graphql-transport-ws"

Variables = Mapping[str, Any]


class GraphQLFailure(Exception):
    """The answer had errors; `errors` as the server sent them."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(
            "; ".join(f"{error.get('extensions', {}).get('code')}: {error['message']}" for error in errors)
        )
        self.errors = errors

    @property
    def code(self) -> str | None:
        """The code of the first error."""
        code: str | None = self.errors[0].get("extensions", {}).get("code")
        return code

    @property
    def extensions(self) -> dict[str, Any]:
        """The extensions of the first error."""
        extensions: dict[str, Any] = self.errors[0].get("extensions", {})
        return extensions


class StreamClosed(Exception):
    """The server closed the WebSocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}")
        self.code = code
        self.reason = reason


class GraphQLClient:
    """Operations over HTTP on one address, connections kept alive."""

    def __init__(self, url: str) -> None:
        self.url = url
        # No proxies and no .netrc of the machine: the address is a loopback one.
        self.http = httpx.AsyncClient(timeout=30, trust_env=False)

    async def __aenter__(self) -> GraphQLClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def run(
        self,
        document: str,
        variables: Variables | None = None,
        *,
        token: str | None = None,
        operation_name: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run an operation and return its data; raises GraphQLFailure when the answer has errors."""
        answer = await self.raw(document, variables, token=token, operation_name=operation_name, headers=headers)
        body = answer.json()
        if body.get("errors"):
            raise GraphQLFailure(body["errors"])
        data: dict[str, Any] = body["data"]
        return data

    async def raw(
        self,
        document: str,
        variables: Variables | None = None,
        *,
        token: str | None = None,
        operation_name: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Run an operation and return the whole answer."""
        body: dict[str, Any] = {"query": document}
        if variables is not None:
            body["variables"] = dict(variables)
        if operation_name is not None:
            body["operationName"] = operation_name
        return await self.http.post(self.url, json=body, headers={**bearer(token), **(headers or {})})


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a token, if there is one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class Socket:
    """A WebSocket that speaks graphql-transport-ws, message by message."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = itertools.count(1)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send anything, well-formed or not."""
        try:
            await self.connection.send(text)
        except ConnectionClosed as closed:
            raise _stream_closed(closed) from None

    async def receive(self, timeout_seconds: float = REPLY_SECONDS) -> dict[str, Any]:
        """The next message, pings answered and left out; raises StreamClosed, or TimeoutError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    message: dict[str, Any] = json.loads(await self.connection.recv())
                    if message["type"] != "ping":
                        return message
                    await self.connection.send(json.dumps({"type": "pong"}))
        except ConnectionClosed as closed:
            raise _stream_closed(closed) from None

    async def closed(self, timeout_seconds: float = REPLY_SECONDS) -> StreamClosed:
        """Wait for the close, whatever comes before it; code and reason."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    await self.receive(timeout_seconds)
                except StreamClosed as closed:
                    return closed

    async def start(self, document: str, variables: Variables | None = None) -> str:
        """Subscribe; the operation's id."""
        operation_id = str(next(self._ids))
        payload = {"query": document, "variables": dict(variables or {})}
        await self.send({"id": operation_id, "type": "subscribe", "payload": payload})
        return operation_id


class Subscription:
    """One subscription on a WebSocket of its own: its events' data, one after the other."""

    def __init__(self, socket: Socket, operation_id: str) -> None:
        self.socket = socket
        self.operation_id = operation_id

    async def next(self, timeout_seconds: float = REPLY_SECONDS) -> dict[str, Any]:
        """The next event's data.

        Raises StopAsyncIteration when the server completed, GraphQLFailure for errors, StreamClosed, TimeoutError.
        """
        message = await self.socket.receive(timeout_seconds)
        assert message.get("id") == self.operation_id, message
        match message["type"]:
            case "next":
                if message["payload"].get("errors"):
                    raise GraphQLFailure(message["payload"]["errors"])
                data: dict[str, Any] = message["payload"]["data"]
                return data
            case "error":
                raise GraphQLFailure(message["payload"])
            case "complete":
                raise StopAsyncIteration
            case other:
                raise AssertionError(f"unexpected message {other}")

    async def stop(self) -> None:
        """Unsubscribe; the socket stays open."""
        await self.socket.send({"id": self.operation_id, "type": "complete"})

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await self.next()


@asynccontextmanager
async def open_socket(
    url: str,
    *,
    token: str | None = None,
    payload: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    initialise: bool = True,
) -> AsyncIterator[Socket]:
    """A WebSocket, acknowledged unless `initialise` is false; raises StreamClosed when it is refused."""
    if payload is None:
        payload = {"authorization": f"Bearer {token}"} if token is not None else {}
    async with connect(
        url,
        subprotocols=[PROTOCOL],  # type: ignore[list-item] # a NewType of str
        additional_headers=dict(headers or {}),
        compression=None,
        open_timeout=REPLY_SECONDS,
        close_timeout=1,
        proxy=None,
    ) as connection:
        socket = Socket(connection)
        if initialise:
            await socket.send({"type": "connection_init", "payload": dict(payload)})
            message = await socket.receive()
            assert message["type"] == "connection_ack", message
        yield socket


@asynccontextmanager
async def subscribe(
    url: str,
    document: str,
    variables: Variables | None = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Subscription]:
    """Subscribe on a fresh WebSocket: `async with subscribe(…) as stream: await stream.next()`."""
    async with open_socket(url, token=token, headers=headers) as socket:
        yield Subscription(socket, await socket.start(document, variables))


@asynccontextmanager
async def subscribe_sse(
    client: GraphQLClient, document: str, variables: Variables | None = None, *, token: str | None = None
) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """Subscribe over plain HTTP: yields the (event, data) pairs of the stream, data parsed where there is any."""
    body = {"query": document, "variables": dict(variables or {})}
    headers = {"Accept": "text/event-stream", **bearer(token)}
    async with client.http.stream("POST", client.url, json=body, headers=headers) as answer:
        assert answer.status_code == 200, (answer.status_code, await answer.aread())
        yield _server_sent(answer.aiter_lines())


async def _server_sent(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    """Parse the event stream format (WHATWG HTML §9.2.6): fields until an empty line; comments are left out."""
    event, data = "message", list[str]()
    async for line in lines:
        name, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if line == "":
            if data or event != "message":
                yield event, json.loads("\n".join(data)) if any(data) else None
            event, data = "message", []
        elif name == "event":
            event = text
        elif name == "data":
            data.append(text)


def _stream_closed(closed: ConnectionClosed) -> StreamClosed:
    frame = closed.rcvd
    return StreamClosed(frame.code if frame else 1006, frame.reason if frame else "")
