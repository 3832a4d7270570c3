"""The egress proxy: the only way from a build to the internet, one vetted connection at a time.

It speaks what HTTP clients speak to a proxy (RFC 9110 §9.3.6, RFC 9112 §3.2): `CONNECT host:port` for a tunnel, and the
absolute form `GET http://host/…` for the few that still fetch without TLS.

Invariant: a connection leaves only to an address that the guard has judged, and to exactly that address: the name is
looked up once. Nothing goes out beyond `limit_bytes`, counted in both directions. On a connection one request is
answered, with its body framed by one Content-Length, so nothing can be smuggled behind it. Leaving `serving` ends every
connection.

It leaves out who may use it (whoever reaches the socket), caching, and what is said inside a tunnel.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from adapters.addresses import AddressGuard, BlockedAddress, UnknownHost, resolve

HEAD_BYTES: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 120.0
CLOSE_SECONDS: Final = 5.0
ACCEPT_PAUSE_SECONDS: Final = 0.1
MAX_CONNECTIONS: Final = 100

# How texts look; the guard judges what they mean.
AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/?#\s%]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
REQUEST_LINE = re.compile(r"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>[!-~]+) HTTP/1\.[01]", re.ASCII)
ABSOLUTE_FORM = re.compile(
    r"http://(?P<authority>[^/?#]+)(?P<path>/[^#]*)?(?P<query>\?[^#]*)?", re.ASCII | re.IGNORECASE
)
FIELD = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[^\r\n\0]*)", re.ASCII)
LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)

# RFC 9110 §7.6.1 and §11.7
FOR_THE_PROXY = ("connection", "proxy-connection", "proxy-authenticate", "proxy-authorization")
HOP_BY_HOP = frozenset((*FOR_THE_PROXY, "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"))
REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    411: "Length Required",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}

Refused = Callable[[str, str], Awaitable[None]]


class Refusal(Exception):
    """The request gets this answer and nothing else."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text


class EgressSpent(Exception):
    """More bytes than allowed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes on: where to, and for the absolute form with which head and body."""

    host: str
    port: int
    head: bytes = b""
    body_bytes: int = 0

    @property
    def is_tunnel(self) -> bool:
        """Whether CONNECT asked for it."""
        return not self.head


@dataclass(frozen=True, slots=True)
class Link:
    """A client and the server it is connected to; `idle` runs out when nothing moves between them."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    idle: asyncio.Timeout


class EgressProxy:
    """A proxy with one count of bytes, which goes on over several `serving` blocks.

    `refused` is told `host:port` and the guard's reason, and holds up only the connection that asked. `limit_bytes`
    None is no limit. `exhausted` is set once the limit was passed; from then on every connection ends.
    """

    def __init__(
        self,
        guard: AddressGuard,
        *,
        limit_bytes: int | None,
        refused: Refused,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.exhausted = asyncio.Event()
        self.relayed_bytes = 0
        self._guard = guard
        self._limit_bytes = limit_bytes
        self._refused = refused
        self._max_connections = max_connections

    @asynccontextmanager
    async def serving(self, listening: socket.socket) -> AsyncIterator[None]:
        """Serve a listening stream socket inside the block, which closes it at the end.

        Connections above the maximum wait in the socket's backlog. What `refused` raises ends the block with it.
        """
        listening.setblocking(False)
        try:
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(listening))
                try:
                    yield
                finally:
                    accepting.cancel()
        finally:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        free = asyncio.Semaphore(self._max_connections)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                await free.acquire()
                try:
                    accepted, _ = await loop.sock_accept(listening)
                except OSError:  # out of descriptors, or the client is already gone
                    free.release()
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                serving = connections.create_task(self._serve(accepted))
                serving.add_done_callback(partial(_let_go, accepted, free))

    async def _serve(self, accepted: socket.socket) -> None:
        """One connection from its first byte to its last."""
        try:
            client, to_client = await asyncio.open_connection(sock=accepted, limit=HEAD_BYTES)
        except OSError:
            return  # it is already gone
        try:
            try:
                await self._answer(client, to_client)
            except Refusal as refusal:
                to_client.write(_refusal_answer(refusal))
            to_client.close()
            async with asyncio.timeout(CLOSE_SECONDS):
                await to_client.wait_closed()
        except (OSError, TimeoutError, EgressSpent):
            pass  # one side went away, or nothing moved for too long: the other one sees it close
        finally:
            to_client.transport.abort()

    async def _answer(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        head = await _read_head(client)
        if head is None:
            return
        request = _parse(head)
        server, to_server = await self._connect(request.host, request.port)
        try:
            async with asyncio.timeout(IDLE_SECONDS) as idle:
                link = Link(client, to_client, server, to_server, idle)
                await (self._tunnel(link) if request.is_tunnel else self._forward(request, link))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # one direction failed, the other was cancelled
        finally:
            to_server.transport.abort()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Look the name up once, have every address judged, dial what was judged; raises Refusal."""
        if self.exhausted.is_set():
            raise Refusal(403, "The build has used up the data it may send and receive.")
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            addresses = await resolve(self._guard, host, port)
        except BlockedAddress as blocked:
            await self._refused(target, blocked.reason)
            raise Refusal(403, f"{target} may not be opened: {blocked.reason}.") from None
        except UnknownHost as unknown:
            raise Refusal(502, f"{unknown}.") from None
        why = "no answer"
        deadline = asyncio.get_running_loop().time() + CONNECT_SECONDS
        for place, address in enumerate(addresses):
            left = deadline - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(left / (len(addresses) - place)):
                    return await asyncio.open_connection(str(address), port, limit=READ_BYTES)
            except TimeoutError:
                why = "no answer"
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else "refused"
        raise Refusal(504 if why == "no answer" else 502, f"{target} cannot be reached: {why}.")

    async def _tunnel(self, link: Link) -> None:
        """Both directions until both have ended; each may end before the other."""
        link.to_client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relay(link.client, link.to_server, link.idle))
            group.create_task(self._relay(link.server, link.to_client, link.idle))

    async def _forward(self, request: Request, link: Link) -> None:
        """Head and body there, the answer back until the server closes; what the client sends beyond stays unread."""
        self._count(len(request.head))
        link.to_server.write(request.head)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._relay_exactly(request.body_bytes, link.client, link.to_server, link.idle))
            await self._relay(link.server, link.to_client, link.idle)
            sending.cancel()

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        while chunk := await source.read(READ_BYTES):
            await self._pass_on(chunk, sink, idle)
        if not sink.is_closing():
            sink.write_eof()

    async def _relay_exactly(
        self, left: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter, idle: asyncio.Timeout
    ) -> None:
        while left and (chunk := await source.read(min(left, READ_BYTES))):
            left -= len(chunk)
            await self._pass_on(chunk, sink, idle)
        if left:
            raise ConnectionResetError("the client went away within its request")

    async def _pass_on(self, chunk: bytes, sink: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        self._count(len(chunk))
        sink.write(chunk)
        await sink.drain()
        idle.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)

    def _count(self, amount: int) -> None:
        """Count before sending, so that nothing above the limit leaves."""
        self.relayed_bytes += amount
        if self._limit_bytes is not None and self.relayed_bytes > self._limit_bytes:
            self.exhausted.set()
            raise EgressSpent


def _let_go(accepted: socket.socket, free: asyncio.Semaphore, _: asyncio.Task[None]) -> None:
    accepted.close()  # the transport's to close, unless the task was cancelled before there was one
    free.release()


async def _read_head(client: asyncio.StreamReader) -> bytes | None:
    """The head of the request with its empty line; None when the client closed without one. Raises Refusal."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            return await client.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise Refusal(431, f"The head of a request may have {HEAD_BYTES} bytes.") from None
    except TimeoutError:
        raise Refusal(408, "The request did not arrive in time.") from None


def _parse(head: bytes) -> Request:
    """Read a head strictly (RFC 9112 §2.2: no bare line feeds, no folded lines); raises Refusal."""
    request_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    line = REQUEST_LINE.fullmatch(request_line)
    fields = [FIELD.fullmatch(text) for text in lines]
    if line is None or None in fields:
        raise Refusal(400, "The request is malformed.")
    if line["method"] == "CONNECT":
        host, port = _authority(line["target"], default_port=None)
        return Request(host, port)
    absolute = ABSOLUTE_FORM.fullmatch(line["target"])
    if absolute is None:
        raise Refusal(400, "This is a proxy: it takes CONNECT host:port, and http:// URLs.")
    host, port = _authority(absolute["authority"], default_port=80)
    pairs = [(field["name"], field["value"].rstrip(" \t")) for field in fields if field is not None]
    path = (absolute["path"] or "/") + (absolute["query"] or "")
    return Request(host, port, _origin_head(line["method"], path, absolute["authority"], pairs), _body_bytes(pairs))


def _authority(text: str, *, default_port: int | None) -> tuple[str, int]:
    match = AUTHORITY.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else default_port
    if match is None or port is None or not 0 < port < 65_536:
        raise Refusal(400, "The target of the request is not host:port.")
    return match["v6"] or match["name"], port


def _body_bytes(fields: list[tuple[str, str]]) -> int:
    """The length of the body, which only one Content-Length may give; raises Refusal."""
    if any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise Refusal(411, "The body of a request needs a Content-Length here; https has no such limit.")
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    if not lengths:
        return 0
    if len(lengths) > 1 or LENGTH.fullmatch(lengths[0]) is None:
        raise Refusal(400, "The request is malformed.")
    return int(lengths[0])


def _origin_head(method: str, path: str, authority: str, fields: list[tuple[str, str]]) -> bytes:
    """The head for the server itself: origin form, the host of the URL, and nothing that was for the proxy."""
    dropped = HOP_BY_HOP | {"host"}
    dropped |= {
        option.strip().lower() for name, value in fields if name.lower() == "connection" for option in value.split(",")
    } - {"content-length"}
    kept = [f"{name}: {value}" for name, value in fields if name.lower() not in dropped]
    lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}", *kept, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _refusal_answer(refusal: Refusal) -> bytes:
    body = f"Switchyard: {refusal.text}\n".encode()
    return (
        f"HTTP/1.1 {refusal.status} {REASONS[refusal.status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
