"""What surrounds every request: its id, its address, its log line, its headers, the bounds on its body, its error body.

Pure ASGI, because Starlette's BaseHTTPMiddleware copies every body and breaks disconnects. Invariants: every answer,
a refusal too, carries `X-Request-ID` and the security headers; an address in `X-Forwarded-For` counts only if each hop
behind it is a proxy of ours; the log never sees a query string, a header or a body. Who is asking is not decided here:
that is the context's work, once per operation.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

import orjson
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from adapters import metrics
from errors import ErrorCode, PayloadTooLarge, SwitchyardError
from models.ids import new_id
from models.permissions import Actor, Origin

REQUEST_ID_HEADER: Final = "X-Request-ID"
API_CONTENT_SECURITY_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
SCRIPT_CONTENT_SECURITY_POLICY: Final = "default-src 'self'; frame-ancestors 'none'"
"""A web worker lives under the policy of its own script's answer (CSP 3 §4.2.1) and imports further files of ours."""

HSTS: Final = "max-age=31536000"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
_USER_AGENT_MAX: Final = 512
_STREAM: Final = b"text/event-stream"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "OPTIONS"})
_CLIENT_LEFT: Final = 499
_QUIET_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_CODES: Final = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    409: ErrorCode.CONFLICT,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    429: ErrorCode.RATE_LIMIT_EXCEEDED,
    503: ErrorCode.SERVICE_UNAVAILABLE,
}

_log = structlog.get_logger("switchyard.http")

Network = IPv4Network | IPv6Network


def origin_of(connection: HTTPConnection | Scope) -> Origin:
    """Address, user agent and request id of a request, as `RequestIdentity` found them."""
    scope = connection.scope if isinstance(connection, HTTPConnection) else connection
    origin: Origin = scope.get("state", {}).get("origin") or Origin()
    return origin


def name_operation(scope: Scope, name: str | None) -> None:
    """Tell the access log which GraphQL operation a request ran; the name only, never the text or the variables."""
    scope.setdefault("state", {})["operation_name"] = name


def name_caller(scope: Scope, actor: Actor) -> None:
    """Tell the access log who asks, if they are signed in: their id, and nothing that opens anything."""
    scope.setdefault("state", {})["user_id"] = actor.user_id


class RequestIdentity:
    """Give each request its id and its address, bind both to the log, and return the id to the caller."""

    def __init__(self, app: ASGIApp, *, trusted_proxies: Sequence[str] = ()) -> None:
        self.app = app
        self.trusted_proxies = tuple(ip_network(proxy, strict=False) for proxy in trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `scope["state"]["origin"]` set."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _accepted_request_id(headers.getlist(REQUEST_ID_HEADER)) or new_id().hex
        peer = scope["client"][0] if scope.get("client") else None
        address = client_address(peer, headers.getlist("x-forwarded-for"), self.trusted_proxies)
        user_agent = headers.get("user-agent")
        scope.setdefault("state", {})["origin"] = Origin(
            ip=address,
            user_agent=user_agent[:_USER_AGENT_MAX] if user_agent is not None else None,
            request_id=request_id,
        )
        id_header = (REQUEST_ID_HEADER.lower().encode(), request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), id_header]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self.app(scope, receive, send_with_id)


class AccessLog:
    """One line per request or WebSocket, when it is over, and the count of requests.

    `paths` are the first parts of the paths that there are: whatever else is asked for is counted as `other`.
    """

    def __init__(self, app: ASGIApp, *, writes: bool = True, paths: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.writes = writes
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and log how it went, also when it failed or the client left."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        seen: dict[str, Any] = {"method": scope.get("method", "WEBSOCKET"), "path": scope["path"], "status": None}

        async def watch_sent(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                seen["status"] = message["status"]
                if any(pair[0] == b"content-type" and pair[1].startswith(_STREAM) for pair in message["headers"]):
                    scope["state"]["is_stream"] = True
            elif message["type"] == "websocket.accept":
                seen["status"] = 101
            elif message["type"] == "websocket.close":
                if seen["status"] is None:
                    seen["status"] = 403  # what the server answers when a handshake is refused by closing
                else:
                    seen.setdefault("close_code", message.get("code", 1000))
            await send(message)

        async def watch_received() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                seen.setdefault("close_code", message.get("code", 1005))
            return message

        started = time.perf_counter()
        try:
            await self.app(scope, watch_received, watch_sent)
        finally:
            seconds = time.perf_counter() - started
            if scope["type"] == "http":
                self._count(scope, seen, seconds)
            if self.writes:
                self._write(scope, seen, seconds * 1000)

    def _count(self, scope: Scope, seen: dict[str, Any], seconds: float) -> None:
        first = scope["path"].split("/", 2)[1]
        metrics.current().count_request(
            first if first in self.paths else metrics.OTHER,
            seen["method"] if seen["method"] in _METHODS else metrics.OTHER,
            seen["status"] or _CLIENT_LEFT,
            None if "is_stream" in scope["state"] else seconds,
        )

    @staticmethod
    def _write(scope: Scope, seen: dict[str, Any], milliseconds: float) -> None:
        if (user_id := scope["state"].get("user_id")) is not None:
            seen["user_id"] = str(user_id)
        if (operation := scope["state"].get("operation_name")) is not None:
            seen["operation"] = operation
        quiet = scope["path"] in _QUIET_PATHS and seen["status"] is not None and seen["status"] < 500
        write = _log.debug if quiet else _log.info
        event = "request" if scope["type"] == "http" else "websocket"
        write(event, **seen, milliseconds=round(milliseconds, 2), ip=origin_of(scope).ip)


class SecurityHeaders:
    """Headers that tell browsers to be strict; an answer that sets one of them itself keeps its own.

    Source: OWASP ASVS 5.0, chapter 3.4. The API serves no documents, so its policy allows nothing; pages bring theirs.
    """

    def __init__(self, app: ASGIApp, *, strict_transport: bool) -> None:
        self.app = app
        defaults = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "content-security-policy": API_CONTENT_SECURITY_POLICY,
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=()",
            "cache-control": "no-store",
        }
        if strict_transport:
            defaults["strict-transport-security"] = HSTS
        self.defaults = tuple((name.encode(), value.encode()) for name, value in defaults.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add what its answer lacks."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower(): value for name, value in headers}
                if present.get(b"content-type", b"").startswith(b"text/javascript"):
                    headers.append((b"content-security-policy", SCRIPT_CONTENT_SECURITY_POLICY.encode()))
                    present[b"content-security-policy"] = b""
                message["headers"] = headers + [pair for pair in self.defaults if pair[0] not in present]
            await send(message)

        await self.app(scope, receive, send_strict)


class BodyLimits:
    """Bound the size of a request's body and the time it may take to arrive.

    Reading past the size raises PayloadTooLarge and past the time an HTTPException 408, both in the reader.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that keeps count."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise self._too_large()
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        read_bytes = 0
        is_complete = False

        async def receive_bounded() -> Message:
            nonlocal read_bytes, is_complete
            if is_complete:
                return await receive()  # only the disconnect is left, and that may take as long as the answer does
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"The body did not arrive within {self.timeout_seconds:g} seconds.",
                    headers={"Connection": "close"},
                ) from None
            if message["type"] == "http.request":
                read_bytes += len(message.get("body", b""))
                is_complete = not message.get("more_body", False)
                if read_bytes > self.max_bytes:
                    raise self._too_large()
            return message

        await self.app(scope, receive_bounded, send)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The body is larger than {self.max_bytes} bytes.", maxBytes=self.max_bytes)


async def _refuse(connection: HTTPConnection, error: Exception) -> Response | None:
    """The answer to a refusal by the router or an endpoint: the error shape of GraphQL, over plain HTTP."""
    if isinstance(connection, WebSocket):
        await _close(connection, error)
        return None
    if isinstance(error, SwitchyardError):
        return error_body(connection.scope, error.message, status=error.status, extensions=error.extensions)
    if not isinstance(error, HTTPException):
        raise error
    code = _CODES.get(error.status_code, ErrorCode.VALIDATION_ERROR)
    message = error.detail if error.detail else HTTPStatus(error.status_code).phrase
    answer = error_body(
        connection.scope,
        message,
        status=error.status_code,
        extensions={"code": code.value, "statusCode": error.status_code, "details": {}},
    )
    answer.headers.update(error.headers or {})
    return answer


async def _own_up(connection: HTTPConnection, error: Exception) -> Response | None:
    """The answer to a fault of ours: nothing but the request id; the trace goes to the log."""
    if isinstance(error, ClientDisconnect | WebSocketDisconnect):
        return None if isinstance(connection, WebSocket) else Response(status_code=499)  # nobody reads it
    _log.error("request_failed", path=connection.scope["path"], exc_info=error)
    if isinstance(connection, WebSocket):
        await _close(connection, error)
        return None
    return error_body(
        connection.scope,
        "Something went wrong on our side.",
        status=500,
        extensions={"code": ErrorCode.INTERNAL_SERVER_ERROR.value, "statusCode": 500, "details": {}},
    )


def error_body(scope: Scope, message: str, *, status: int, extensions: dict[str, Any]) -> Response:
    """A JSON answer `{"errors": [{message, extensions}]}` with the request's id in it."""
    extensions = {**extensions, "requestId": origin_of(scope).request_id}
    content = orjson.dumps({"errors": [{"message": message, "extensions": extensions}]}, default=str)
    answer = Response(content, status_code=status, media_type="application/json")
    if (retry_after := extensions.get("retryAfterSeconds")) is not None:
        MutableHeaders(raw=answer.raw_headers)["Retry-After"] = str(max(1, round(retry_after)))
    return answer


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted_proxies: Sequence[Network]) -> str | None:
    """The nearest address that is not a proxy of ours.

    Read from the right, because everything left of the first stranger is that stranger's word. An entry that is
    no address ends the walk at the proxy that wrote it.
    """
    if peer is None:
        return None
    address = _parse_address(peer)
    hops = [hop.strip() for header in forwarded_for for hop in header.split(",")]
    while address is not None and hops and any(address in network for network in trusted_proxies):
        further = _parse_address(hops.pop())
        if further is None:
            break
        address = further
    return str(address) if address is not None else None


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _accepted_request_id(given: Sequence[str]) -> str | None:
    """A caller's id, if it is one and harmless: it ends up in logs, headers and the audit trail."""
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else None


async def _close(socket: WebSocket, error: Exception) -> None:
    code = error.code if isinstance(error, WebSocketException) else 1011
    await socket.close(code)


# Starlette's type for a handler knows Request or WebSocket, not that it calls the same one with both.
REFUSAL_HANDLERS: Final[dict[Any, Any]] = {HTTPException: _refuse, SwitchyardError: _refuse}
FAULT_HANDLERS: Final[dict[Any, Any]] = {Exception: _own_up}
