"""GraphQL over HTTP: POST in, one JSON answer or a stream of events out.

Follows the GraphQL-over-HTTP draft; `tests/api/test_surface_http.py` holds its audits that matter. Invariants: only
`application/json` is read, and forms with files that say by a header of theirs that no foreign page sent them, from
callers who are known; bodies are bounded while they arrive; every answer that is not GraphiQL is JSON. A wrong request
is 400 in the newer media type and 200 in plain JSON, as the draft wants, while 401, 403, 408, 413, 415, 429 and 503 are
themselves in both.

Left out: request ids, CORS and security headers (`schema/middleware.py`), what forms hold (`schema/uploads.py`),
batches, operations by GET.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from errors import PayloadTooLarge, SwitchyardError, Unauthorized, ValidationFailed
from models.permissions import Origin
from schema.context import AppState, Context, ResponseHeaders
from schema.credentials import Caller, Gate, RawHeaders
from schema.documents import Operation, RequestRefused
from schema.errors import shape_refusal
from schema.execution import Operations, encode_errors
from schema.middleware import name_caller, name_operation, origin_of
from schema.multipart import boundary_of
from schema.negotiation import Form, accepted_forms, is_json
from schema.requests import OperationRequest, operation_request, read_json
from schema.sse import EventStream
from schema.uploads import UploadDesk, refuse_without_preflight

_ID_DIGITS: Final = 15

Page = Callable[[Request], Awaitable[Response]]


class ClientLeft(Exception):
    """The connection ended before the body did; there is nobody to answer."""


class _Answered(Exception):
    """A refusal with a status of its own."""

    def __init__(self, status: int, errors: list[dict[str, Any]], headers: RawHeaders | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.errors = errors
        self.headers = headers or []


class GraphQLEndpoint:
    """The ASGI application at `/graphql` for HTTP. `page` answers browsers that open the address."""

    def __init__(self, operations: Operations, gate: Gate, state: AppState, *, page: Page | None = None) -> None:
        self.operations = operations
        self.gate = gate
        self.state = state
        self.settings = gate.settings
        self.page = page
        self.uploads = UploadDesk(gate.settings, operations.cache.schema)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: RawHeaders = scope["headers"]
        if self.page is not None and scope["method"] in ("GET", "HEAD") and b"text/html" in _header(headers, b"accept"):
            await (await self.page(Request(scope, receive)))(scope, receive, send)
            return
        forms = accepted_forms(_header(headers, b"accept").decode("latin-1"))
        form = next((form for form in forms if form is not Form.EVENTS), Form.JSON)
        origin = origin_of(scope)
        try:
            await self._post(scope, receive, send, forms, form, origin)
        except ClientLeft:
            return
        except _Answered as answer:
            await _send(send, answer.status, form, encode_errors(answer.errors), answer.headers)
        except RequestRefused as refused:
            is_plain = form is Form.JSON and refused.status == 400
            await _send(send, 200 if is_plain else refused.status, form, encode_errors(refused.errors))
        except SwitchyardError as error:
            errors = [shape_refusal(error, request_id=origin.request_id)]
            await _send(send, error.status, form, encode_errors(errors), _headers_of(error))

    async def _post(
        self, scope: Scope, receive: Receive, send: Send, forms: Sequence[Form], form: Form, origin: Origin
    ) -> None:
        headers: RawHeaders = scope["headers"]
        if scope["method"] != "POST":
            raise _answer(405, "Operations are sent by POST.", origin, [(b"allow", b"POST")])
        if not forms:
            raise _answer(406, f"This address answers with {', '.join(Form)}.", origin)
        content_type = _header(headers, b"content-type").decode("latin-1")
        boundary = boundary_of(content_type)
        if boundary is not None:
            await self._form(scope, receive, send, form, origin, boundary)
            return
        announced = _header(headers, b"content-length")
        if announced.isdigit() and int(announced) > self.settings.max_body_bytes:
            raise _too_large(self.settings.max_body_bytes)
        if not is_json(content_type):
            raise _answer(415, "The body must be `application/json` in UTF-8, or a form with files.", origin)
        request = operation_request(read_json(await self._body(receive, origin)))
        caller = await self.gate.caller_of(headers, origin)
        name_caller(scope, caller.actor)
        context = self._context(caller, origin)
        context.left = partial(_until_left, receive)
        if forms[0] is Form.EVENTS:
            await self._stream(request, caller, context, scope, receive, send)
            return
        operation = await self.operations.read(request, context)
        name_operation(scope, operation.name)
        if operation.kind is OperationType.SUBSCRIPTION:
            if Form.EVENTS not in forms:
                raise _answer(405, _NO_STREAM, origin, [(b"allow", b"POST")])
            await self._stream(request, caller, context, scope, receive, send)
            return
        body = await self.operations.execute(operation, request.variables, context)
        await _send(send, 200, form, body, context.response.values if context.response else [])

    async def _form(
        self, scope: Scope, receive: Receive, send: Send, form: Form, origin: Origin, boundary: str
    ) -> None:
        """An operation with files; nothing of the body is read before the caller is known."""
        headers: RawHeaders = scope["headers"]
        refuse_without_preflight(headers)
        caller = await self.gate.caller_of(headers, origin)
        name_caller(scope, caller.actor)
        if caller.actor.is_anonymous:
            raise Unauthorized("Sign in first: only users send files.")
        context = self._context(caller, origin)

        async def check(request: OperationRequest) -> Operation:
            operation = await self.operations.read(request, context)
            name_operation(scope, operation.name)
            if operation.kind is OperationType.SUBSCRIPTION:
                raise ValidationFailed("A subscription takes no files.", path=["query"])
            return operation

        async with aclosing(_chunks(receive)) as chunks:
            with self.uploads.form(chunks, boundary, user_id=caller.actor.user_id) as upload:
                try:
                    operation, request = await upload.read(check)
                except TimeoutError:
                    raise _late(origin) from None
                body = await self.operations.execute(operation, request.variables, context)
        await _send(send, 200, form, body, context.response.values if context.response else [])

    def _context(self, caller: Caller, origin: Origin) -> Context:
        return Context(
            caller.actor,
            self.settings,
            self.state,
            cookies=caller.cookies,
            response=ResponseHeaders(),
            request_id=origin.request_id,
        )

    async def _stream(
        self, request: OperationRequest, caller: Caller, context: Context, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # An EventSource repeats the request as it was and adds this header (HTML Living Standard §9.2.4).
        last_id = _header(scope["headers"], b"last-event-id")
        resumed = int(last_id) if last_id.isdigit() and len(last_id) <= _ID_DIGITS else None
        stream = EventStream(self.operations, self.gate, caller, context)
        await stream.respond(request, resumed, scope, receive, send)

    async def _body(self, receive: Receive, origin: Origin) -> bytes:
        """The whole body; raises PayloadTooLarge as soon as it is too long, whatever its header says."""
        limit = self.settings.max_body_bytes
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.body_timeout_seconds):
                async with aclosing(_chunks(receive)) as arriving:
                    async for chunk in arriving:
                        size += len(chunk)
                        if size > limit:
                            raise _too_large(limit)
                        chunks.append(chunk)
        except TimeoutError:
            raise _late(origin) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


_NO_STREAM: Final = (
    "A subscription needs a stream: send `Accept: text/event-stream`, or use a WebSocket with the subprotocol "
    "graphql-transport-ws."
)


async def _chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; raises ClientLeft when the connection ends before it."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _until_left(receive: Receive) -> None:
    """Ends when the connection does; to be asked once the body has arrived."""
    while (await receive())["type"] != "http.disconnect":
        continue


def _late(origin: Origin) -> _Answered:
    return _answer(408, "The body did not arrive in time.", origin, [(b"connection", b"close")])


def _answer(status: int, message: str, origin: Origin, headers: RawHeaders | None = None) -> _Answered:
    error = shape_refusal(ValidationFailed(message), request_id=origin.request_id)
    error["extensions"]["statusCode"] = status
    return _Answered(status, [error], headers)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes.", maxBytes=limit)


def _headers_of(error: SwitchyardError) -> RawHeaders:
    """What HTTP says beside the body: how to sign in (RFC 6750 §3), when to come back (RFC 9110 §10.2.3)."""
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b'Bearer error="invalid_token"')]
    seconds = error.extensions.get("retryAfterSeconds", error.details.get("retryAfterSeconds"))
    return [] if seconds is None else [(b"retry-after", str(max(1, round(seconds))).encode())]


def _header(headers: RawHeaders, wanted: bytes) -> bytes:
    """The value of a header, several joined by commas (RFC 9110 §5.3)."""
    values = [value for name, value in headers if name == wanted]
    return values[0] if len(values) == 1 else b", ".join(values)


async def _send(send: Send, status: int, form: Form, body: bytes, headers: RawHeaders | None = None) -> None:
    start = [
        (b"content-type", f"{form.value}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"vary", b"Accept"),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
