"""Subscriptions over plain HTTP: server-sent events, as the `graphql-sse` protocol's distinct connections mode.

One POST, one stream: `next` events with results, then `complete`. Errors of GraphQL travel as a `next` event too, since
a client that asked for events reads no other body. Invariants: the source is closed as soon as the client leaves, the
operation ends or the credentials do; something is sent every 15 seconds, so that proxies keep the connection and a
client that vanished is noticed. `id:` carries the last log sequence, which a client sends back to resume.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from graphql import OperationType
from starlette.types import Receive, Scope, Send

from models.permissions import Actor
from schema.context import Context
from schema.credentials import Caller, Gate
from schema.documents import RequestRefused
from schema.errors import shape_refusal
from schema.execution import Frame, Operations, encode_errors
from schema.middleware import name_operation
from schema.requests import OperationRequest

HEARTBEAT_SECONDS: Final = 15.0
SEND_SECONDS: Final = 10.0
RESUMED_VARIABLE: Final = "afterSequence"
"""The variable that Last-Event-ID sets anew when a client connects again."""

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
]
_COMPLETE: Final = b"event: complete\ndata:\n\n"
_HEARTBEAT: Final = b":\n\n"


class EventStream:
    """The answer to one request that takes events."""

    def __init__(self, operations: Operations, gate: Gate, caller: Caller, context: Context) -> None:
        self.operations = operations
        self.gate = gate
        self.caller = caller
        self.context = context
        self.context.response = None  # the headers are gone before the operation starts

    async def respond(
        self, request: OperationRequest, last_event_id: int | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Stream until the operation, the credentials or the connection ends."""
        loop = asyncio.get_running_loop()
        self._asgi_send = send
        self._ended: asyncio.Future[bytes | None] = loop.create_future()
        self._sent_at = loop.time()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with asyncio.TaskGroup() as group:
            work = [self._run(request, last_event_id, scope), self._until_left(receive), self._beat()]
            if self.caller.token is not None:
                work.append(self._until_refused(self.caller.token))
            tasks = [group.create_task(part) for part in work]
            farewell = await self._ended
            for task in tasks:
                task.cancel()
        if farewell is not None:
            await self._send(farewell, more=False)

    def _end(self, farewell: bytes | None) -> None:
        """Stop, with last words or, where nobody hears them, without; the first to call this decides."""
        if not self._ended.done():
            self._ended.set_result(farewell)

    async def _run(self, request: OperationRequest, last_event_id: int | None, scope: Scope) -> None:
        try:
            operation = await self.operations.read(request, self.context)
            name_operation(scope, operation.name)
            variables = request.variables
            if last_event_id is not None and RESUMED_VARIABLE in operation.variable_names:
                variables = {**variables, RESUMED_VARIABLE: last_event_id}
            if operation.kind is not OperationType.SUBSCRIPTION:
                result = Frame(await self.operations.execute(operation, variables, self.context), None)
                self._end(_event(result) + _COMPLETE)
                return
            async with aclosing(self.operations.subscribe(operation, variables, self.context)) as frames:
                async for frame in frames:
                    await self._send(_event(frame))
                    await asyncio.sleep(0)  # a source that never waits must not keep the loop for itself
        except RequestRefused as refused:
            self._end(_event(Frame(encode_errors(refused.errors), None)) + _COMPLETE)
        else:
            self._end(_COMPLETE)

    async def _until_left(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end(None)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.01, self._sent_at + HEARTBEAT_SECONDS - loop.time()))
            if loop.time() - self._sent_at >= HEARTBEAT_SECONDS:
                await self._send(_HEARTBEAT)

    async def _until_refused(self, token: str) -> None:
        error = await self.gate.ended(token, self.context.actor, self._renew)
        shaped = shape_refusal(error, request_id=self.context.request_id)
        self._end(_event(Frame(encode_errors([shaped]), None)) + _COMPLETE)

    def _renew(self, actor: Actor) -> None:
        self.context.actor = actor

    async def _send(self, chunk: bytes, *, more: bool = True) -> None:
        """Send, or give up on a client that has not read for ten seconds."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._asgi_send({"type": "http.response.body", "body": chunk, "more_body": more})
        except TimeoutError:
            self._end(None)
            if more:
                await asyncio.Event().wait()  # until cancelled, which is next
        self._sent_at = asyncio.get_running_loop().time()


def _event(frame: Frame) -> bytes:
    """A `next` event; our JSON has no line breaks, so it is one line of data."""
    identifier = b"" if frame.last_sequence is None else b"id: %d\n" % frame.last_sequence
    return b"event: next\n" + identifier + b"data: " + frame.payload + b"\n\n"
