"""GraphQL over WebSocket: the subprotocol `graphql-transport-ws`, as the npm package `graphql-ws` speaks it.

Invariants: a faulty operation ends itself with an `error` message and never its siblings; only a breach of the
protocol closes the socket (4400, 4401, 4408, 4409, 4429). A socket does not outlive its credentials: an expired token
closes it with 4403, after which clients of `graphql-ws` come back with fresh ones, and a revoked one with 4401, after
which they do not. Nothing is queued: a stream waits for its own send, and a peer that does not read for ten seconds is
given up. When a socket ends, however it ends, the sources of its subscriptions are closed at once.

Renewal: `{"type": "ping", "payload": {"authorization": "Bearer …"}}` replaces the token by a newer one of the same
user; the answer is a `pong` with `{"renewed": true}`. Left out: the older subprotocol `graphql-ws`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from graphql import OperationType
from starlette.types import Receive, Scope, Send

from adapters import metrics
from errors import RateLimitExceeded, SwitchyardError, Unauthorized, ValidationFailed
from models.permissions import Actor
from schema.context import AppState, Context
from schema.credentials import Caller, Gate, bearer_token
from schema.documents import RequestRefused
from schema.errors import FormattedError, shape_refusal
from schema.execution import Operations
from schema.middleware import name_caller, origin_of
from schema.requests import OperationRequest, operation_request, read_json, read_leniently

SUBPROTOCOL: Final = "graphql-transport-ws"
ANONYMOUS_SHARE: Final = 5
"""Anonymous sockets are counted by address, behind which there may be an office."""

_MAX_ID_LENGTH: Final = 128
_log = structlog.get_logger("switchyard.graphql")


@dataclass(frozen=True, slots=True)
class SocketTimes:
    """How long a socket waits, in seconds."""

    init: float = 10.0
    send: float = 10.0
    close: float = 2.0
    age: float = 3_600.0


class GraphQLSocket:
    """The ASGI application at `/graphql` for WebSockets."""

    def __init__(self, operations: Operations, gate: Gate, state: AppState, times: SocketTimes | None = None) -> None:
        self.operations = operations
        self.gate = gate
        self.settings = gate.settings
        self.state = state
        self.times = times or SocketTimes()
        self.sockets: Counter[Hashable] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket until it ends."""
        await receive()  # websocket.connect
        if not self.gate.allows_origin(scope["headers"]):
            await send({"type": "websocket.close"})  # before it is accepted this is a 403
            return
        self.state.open_sockets += 1
        sockets = metrics.current().sockets
        sockets.inc()
        try:
            await _Socket(self, scope, receive, send).serve()
        finally:
            self.state.open_sockets -= 1
            sockets.dec()


class _Closed(Exception):
    """The socket is closing: whoever wanted to send may stop."""


class _Socket:
    """One connection."""

    def __init__(self, app: GraphQLSocket, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.scope = scope
        self.receive = receive
        self.asgi_send = send
        self.origin = origin_of(scope)
        self.caller: Caller | None = None
        self.quota_key: Hashable | None = None
        self.running: dict[str, asyncio.Task[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.contexts: set[Context] = set()
        self.hold: asyncio.Task[None] | None = None
        self.operation_count = 0
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[tuple[int, str] | None] = self.loop.create_future()

    async def serve(self) -> None:
        """Accept, read messages and run operations until one side ends it."""
        if SUBPROTOCOL not in self.scope["subprotocols"]:
            await self.asgi_send({"type": "websocket.accept"})
            await self._close(4406, "Subprotocol not acceptable")
            return
        await self.asgi_send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        self.init_timer = self.loop.call_later(
            self.app.times.init, self._end, 4408, "Connection initialisation timeout"
        )
        age_timer = self.loop.call_later(self.app.times.age, self._end, 4403, "Connect again")
        try:
            async with asyncio.TaskGroup() as self.group:
                reader = self.group.create_task(self._read())
                closing = await self.ended
                for task in (reader, *self.tasks, *([self.hold] if self.hold else [])):
                    task.cancel()  # first, so that nothing is sent after the close frame
                if closing is not None:
                    await self._close(*closing)
        finally:
            self.init_timer.cancel()
            age_timer.cancel()
            if self.quota_key is not None:
                self.app.sockets[self.quota_key] -= 1
                if not self.app.sockets[self.quota_key]:
                    del self.app.sockets[self.quota_key]

    def _end(self, code: int | None, reason: str = "") -> None:
        """End the socket, with a close frame unless the peer is gone; the first to call this decides."""
        if not self.ended.done():
            self.ended.set_result(None if code is None else (code, reason))

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self.app.times.close):
                await self.asgi_send({"type": "websocket.close", "code": code, "reason": reason})
        except (TimeoutError, OSError):
            pass  # a peer that reads nothing, or left, learns nothing

    async def _read(self) -> None:
        while not self.ended.done():
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                self._end(None)
                return
            try:
                await self._take(message)
            except ValidationFailed as error:
                self._end(4400, error.message[:100])
            except _Closed:
                return

    async def _take(self, message: Any) -> None:
        """Act on one message; raises ValidationFailed for what the protocol does not know."""
        text = message.get("text")
        if text is None:
            raise ValidationFailed("Messages are text")
        raw = text.encode()
        if len(raw) > self.app.settings.max_message_bytes:
            self._end(1009, "Message too big")
            return
        faulty: ValidationFailed | None = None
        try:
            value = read_json(raw)
        except ValidationFailed as error:
            # Text that cannot be stored is the fault of one operation; anything else is no message at all.
            faulty = error
            value = read_leniently(raw) if error.details["path"] else None
            if not isinstance(value, dict) or value.get("type") != "subscribe":
                raise
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ValidationFailed("Messages are JSON objects with a type")
        payload = value.get("payload")
        if payload is not None and not isinstance(payload, dict):
            raise ValidationFailed("The payload is not an object")
        match value["type"]:
            case "connection_init":
                await self._init(payload or {})
            case "ping":
                await self._pong(payload or {})
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(_id(value), payload, faulty)
            case "complete":
                self._stop(_id(value))
            case _:
                raise ValidationFailed("The message has an unknown type")

    async def _init(self, payload: dict[str, Any]) -> None:
        if self.caller is not None or self.ended.done():
            self._end(4429, "Too many initialisation requests")
            return
        authorization = _authorization(payload)
        try:
            if authorization is not None:
                token = bearer_token(authorization)
                caller = Caller(await self.app.gate.authenticate(token, self.origin), token)
            else:
                caller = await self.app.gate.caller_of(self.scope["headers"], self.origin)
        except SwitchyardError as error:
            self._refuse(error)
            return
        user_id = caller.actor.user_id
        key: Hashable = ("user", user_id) if user_id is not None else ("ip", self.origin.ip)
        limit = self.app.settings.max_sockets_per_user * (1 if user_id is not None else ANONYMOUS_SHARE)
        if self.app.sockets[key] >= limit:
            self._end(4429, "Too many connections")
            return
        self.app.sockets[key] += 1
        self.quota_key = key
        self.init_timer.cancel()
        self.caller = caller
        name_caller(self.scope, caller.actor)
        self._hold()
        await self._send({"type": "connection_ack"})

    async def _pong(self, payload: dict[str, Any]) -> None:
        authorization = _authorization(payload)
        if authorization is None:
            await self._send({"type": "pong"})
            return
        if self.caller is None:
            self._end(4401, "Unauthorized")
            return
        try:
            token = bearer_token(authorization)
            actor = await self.app.gate.authenticate(token, self.origin)
            if actor.user_id != self.caller.actor.user_id:
                raise Unauthorized("The token is another user's.", reason="invalid")
        except SwitchyardError as error:
            self._refuse(error)
            return
        self.caller = Caller(actor, token, self.caller.cookies)
        self._renew(actor)
        self._hold()
        await self._send({"type": "pong", "payload": {"renewed": True}})

    def _hold(self) -> None:
        """Watch the present token, and the one before no longer."""
        if self.hold is not None:
            self.hold.cancel()
            self.hold = None
        if self.caller is not None and self.caller.token is not None:
            self.hold = self.group.create_task(self._until_refused(self.caller.token, self.caller.actor))

    async def _until_refused(self, token: str, actor: Actor) -> None:
        self._refuse(await self.app.gate.ended(token, actor, self._renew))

    def _renew(self, actor: Actor) -> None:
        """Let running operations see what the actor may do now."""
        for context in self.contexts:
            context.actor = actor

    def _refuse(self, error: SwitchyardError) -> None:
        """Close for want of credentials, with the code that tells a client whether to come back."""
        if not isinstance(error, Unauthorized):
            self._end(1013, error.message[:100])
        elif error.details.get("reason") == "expired":
            self._end(4403, "Token expired")
        else:
            self._end(4401, "Unauthorized")

    async def _subscribe(self, id_: str, payload: dict[str, Any] | None, faulty: ValidationFailed | None) -> None:
        if self.caller is None:
            self._end(4401, "Unauthorized")
            return
        if id_ in self.running:
            self._end(4409, f"Subscriber for {id_} already exists")
            return
        request_id = f"{self.origin.request_id}.{self.operation_count}" if self.origin.request_id else None
        self.operation_count += 1
        try:
            # Counted are tasks and not ids: one that still cleans up still costs.
            if len(self.tasks) >= self.app.settings.max_subscriptions_per_socket:
                raise RateLimitExceeded("This socket runs too many operations already.", retry_after_seconds=1)
            if faulty is not None:
                raise faulty
            request = operation_request(payload)
        except SwitchyardError as error:
            await self._send_error(id_, [shape_refusal(error, request_id=request_id)])
            return
        context = Context(
            self.caller.actor,
            self.app.settings,
            self.app.state,
            cookies=self.caller.cookies,
            request_id=request_id,
        )
        task = self.group.create_task(self._run(id_, request, context))
        self.running[id_] = task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _stop(self, id_: str) -> None:
        task = self.running.pop(id_, None)
        if task is not None:
            task.cancel()

    async def _run(self, id_: str, request: OperationRequest, context: Context) -> None:
        self.contexts.add(context)
        prefix = b'{"id":' + orjson.dumps(id_) + b',"type":"next","payload":'
        operations = self.app.operations
        try:
            operation = await operations.read(request, context)
            if operation.kind is OperationType.SUBSCRIPTION:
                async with aclosing(operations.subscribe(operation, request.variables, context)) as frames:
                    async for frame in frames:
                        await self._send_text(prefix + frame.payload + b"}")
                        await asyncio.sleep(0)  # a source that never waits must not keep the loop for itself
            else:
                result = await operations.execute(operation, request.variables, context)
                await self._send_text(prefix + result + b"}")
            self._forget(id_)
            await self._send({"id": id_, "type": "complete"})
        except RequestRefused as refused:
            self._forget(id_)
            await self._send_error(id_, refused.errors)
        except _Closed:
            pass
        finally:
            self._forget(id_)
            self.contexts.discard(context)

    def _forget(self, id_: str) -> None:
        """Free the id before the last message, so that it can be used again; unless a later operation has it by now."""
        if self.running.get(id_) is asyncio.current_task():
            del self.running[id_]

    async def _send_error(self, id_: str, errors: list[FormattedError]) -> None:
        await self._send({"id": id_, "type": "error", "payload": errors})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_text(orjson.dumps(message, default=str))

    async def _send_text(self, raw: bytes) -> None:
        """Send one message; raises _Closed when the socket ends or the peer has not read for too long."""
        if self.ended.done():
            raise _Closed
        try:
            async with asyncio.timeout(self.app.times.send):
                await self.asgi_send({"type": "websocket.send", "text": raw.decode()})
        except TimeoutError:
            _log.info("slow_reader_closed", request_id=self.origin.request_id)
            self._end(1013, "Too slow")
            raise _Closed from None
        except OSError:  # ASGI 2.4: the peer is gone
            self._end(None)
            raise _Closed from None


def _id(message: dict[str, Any]) -> str:
    id_ = message.get("id")
    if not isinstance(id_, str) or not 0 < len(id_) <= _MAX_ID_LENGTH:
        raise ValidationFailed("The id is not a string of at most 128 characters")
    return id_


def _authorization(payload: dict[str, Any]) -> Any:
    """What stands under `authorization`, in whatever case; None when empty, as clients without a token send it."""
    return next((value for key, value in payload.items() if key.lower() == "authorization"), None) or None
