"""The egress proxy: what it opens, what it refuses, and that nothing stays behind.

Servers of the test listen on loopback, which the guard refuses unless the test lists them: the positive control.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from adapters.addresses import AddressGuard
from adapters.sandbox import egress
from adapters.sandbox.egress import HEAD_BYTES, EgressProxy
from tests.harness.waiting import eventually

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WAIT_SECONDS = 10.0


@dataclass
class Place:
    """A proxy under test: how to reach it, and what it refused."""

    proxy: EgressProxy
    port: int
    refused: list[tuple[str, str]] = field(default_factory=list)

    async def open(self, request: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Everything that comes back for a request, up to the end."""
        reader, writer = await self.open(request)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def tunnel(self, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel that was granted."""
        reader, writer = await self.open(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return reader, writer


@asynccontextmanager
async def proxy(
    *allowed: str, limit_bytes: int | None = None, max_connections: int = egress.MAX_CONNECTIONS
) -> AsyncIterator[Place]:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    refused: list[tuple[str, str]] = []

    async def note(target: str, reason: str) -> None:
        refused.append((target, reason))

    guard = AddressGuard.from_settings(allowed)
    made = EgressProxy(guard, limit_bytes=limit_bytes, refused=note, max_connections=max_connections)
    before = asyncio.all_tasks()
    async with made.serving(listening):
        yield Place(made, port, refused)
    assert listening.fileno() == -1
    assert asyncio.all_tasks() <= before, "the proxy left tasks behind"


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """A server of ours on loopback; its port."""
    served = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield served.sockets[0].getsockname()[1]
    finally:
        served.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back once the other side has said all of it."""
    try:
        writer.write(b"said:" + await reader.read())
    finally:
        writer.close()


class Recorder:
    """A web server that keeps the request and answers `hello`."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
        self.requests.append(head + body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()


def get(url: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {url} HTTP/1.1", "Host: ignored.example", *fields, "", ""]).encode()


# -- refused


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "metadata.localhost",
    ],
)
@pytest.mark.parametrize("form", ["tunnel", "absolute"])
async def test_private_addresses_are_refused_in_every_spelling(host: str, form: str) -> None:
    async with proxy() as place:
        request = f"CONNECT {host}:80 HTTP/1.1\r\n\r\n".encode() if form == "tunnel" else get(f"http://{host}/x")
        answer = await place.ask(request)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"may not be opened" in answer
    [(target, reason)] = place.refused
    assert target == f"{host}:80"
    assert reason


async def test_a_name_is_refused_when_its_address_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = answers_of(monkeypatch, {"inside.example": "127.0.0.1"})
    async with server(echo) as port, proxy() as place:
        answer = await place.ask(b"CONNECT inside.example:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403")
        assert place.refused == [("inside.example:443", "of its address 127.0.0.1, it is this machine")]
    assert lookups == ["inside.example"]
    assert port


async def test_a_name_is_looked_up_once_and_the_judged_address_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second answer would be another one; rebinding lives from that.
    async with server(echo) as port:
        lookups = answers_of(monkeypatch, {"first.example": "127.0.0.1"}, then="127.0.0.2")
        async with proxy(f"first.example:{port}") as place:
            reader, writer = await place.tunnel(f"first.example:{port}")
            writer.write_eof()
            assert await reader.read() == b"said:"
            writer.close()
    assert lookups == ["first.example"]


async def test_ports_other_than_those_of_the_web_are_refused() -> None:
    async with proxy() as place:
        answer = await place.ask(b"CONNECT 93.184.215.14:22 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403")
    assert place.refused == [("93.184.215.14:22", "port 22 is not open")]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET https://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://user:word@127.0.0.1:1/ HTTP/1.1\r\n\r\n",
        b"CONNECT a.example HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:0 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:70000 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:443 HTTP/2.0\r\n\r\n",
        b"CONNECT user@a.example:443 HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nX: 1\n\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nX : 1\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na",
    ],
)
async def test_what_is_not_clearly_one_request_is_refused_unopened(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = answers_of(monkeypatch, {})
    async with proxy() as place:
        assert (await place.ask(request_bytes)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert lookups == []


async def test_a_body_of_chunks_is_refused_because_its_end_is_not_known_beforehand() -> None:
    async with proxy() as place:
        request = b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
        assert (await place.ask(request)).startswith(b"HTTP/1.1 411 Length Required\r\n")


async def test_a_head_above_its_limit_is_refused() -> None:
    async with proxy() as place:
        answer = await place.ask(b"GET http://a.example/ HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_does_not_arrive_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "HEAD_SECONDS", 0.05)
    async with proxy() as place:
        assert (await place.ask(b"CONNECT a.exam")).startswith(b"HTTP/1.1 408 ")


async def test_a_name_without_address_is_a_bad_gateway_and_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    answers_of(monkeypatch, {})
    async with proxy() as place:
        answer = await place.ask(b"CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert place.refused == []


async def test_a_server_that_does_not_answer_is_a_bad_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    async with proxy(f"127.0.0.1:{port}") as place:
        answer = await place.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"refused" in answer


async def test_a_server_that_takes_no_connection_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        async with AsyncExitStack() as stack:
            # A full queue of connections: the kernel lets further ones wait.
            for _ in range(3):
                waiting = socket.socket()
                waiting.setblocking(False)
                stack.callback(waiting.close)
                waiting.connect_ex(("127.0.0.1", port))
            async with proxy(f"127.0.0.1:{port}") as place:
                answer = await place.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")


# -- opened


async def test_a_tunnel_carries_both_ways_and_either_side_may_end_first() -> None:
    async with server(echo) as port, proxy(f"127.0.0.1:{port}") as place:
        reader, writer = await place.tunnel(f"127.0.0.1:{port}")
        writer.write(b"x" * 1_000_000)
        writer.write_eof()  # the server answers only now
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reader.read() == b"said:" + b"x" * 1_000_000
        writer.close()
        assert place.proxy.relayed_bytes == 2_000_005
    assert place.refused == []


async def test_what_a_client_sends_right_behind_its_connect_goes_through_the_tunnel() -> None:
    async with server(echo) as port, proxy(f"127.0.0.1:{port}") as place:
        reader, writer = await place.open(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nearly".encode())
        writer.write_eof()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reader.read() == b"HTTP/1.1 200 Connection established\r\n\r\nsaid:early"
        writer.close()


async def test_the_absolute_form_reaches_the_server_as_an_ordinary_request() -> None:
    recorder = Recorder()
    async with server(recorder) as port, proxy(f"127.0.0.1:{port}") as place:
        answer = await place.ask(
            get(
                f"http://127.0.0.1:{port}?a=b",
                "Accept: */*",
                "Proxy-Authorization: Basic c2VjcmV0",
                "Connection: keep-alive, X-Mine",
                "X-Mine: 1",
                "Upgrade: h2c",
                "Proxy-Connection: keep-alive",
                "TE: trailers",
            )
        )
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    expected = f"GET /?a=b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    assert recorder.requests == [expected.encode()]


async def test_a_second_request_on_a_connection_reaches_nobody() -> None:
    recorder = Recorder()
    async with server(recorder) as port, proxy(f"127.0.0.1:{port}") as place:
        first = f"POST http://127.0.0.1:{port}/a HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody".encode()
        answer = await place.ask(first + get(f"http://127.0.0.1:{port}/smuggled"))
    assert answer.endswith(b"hello")
    [request] = recorder.requests
    assert request.startswith(b"POST /a HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nbody")


async def test_a_redirect_is_the_clients_to_follow_and_is_judged_again() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with server(redirect) as port, proxy(f"127.0.0.1:{port}") as place:
        assert b"Location: http://169.254.169.254/" in await place.ask(get(f"http://127.0.0.1:{port}/"))
        assert place.refused == []
        assert (await place.ask(get("http://169.254.169.254/"))).startswith(b"HTTP/1.1 403")
        assert place.refused == [
            ("169.254.169.254:80", "of its address 169.254.169.254, it is link-local, where clouds keep their metadata")
        ]


# -- bounded


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_bytes_are_counted_both_ways_and_nothing_passes_beyond_the_limit(direction: str) -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if direction == "down":
                writer.write(b"x" * 5_000_000)
            while chunk := await reader.read(65_536):
                received.extend(chunk)
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    async with server(serve) as port, proxy(f"127.0.0.1:{port}", limit_bytes=1_000_000) as place:
        reader, writer = await place.tunnel(f"127.0.0.1:{port}")
        if direction == "up":
            writer.write(b"x" * 5_000_000)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                received.extend(await reader.read())
        except ConnectionResetError:
            pass
        assert place.proxy.exhausted.is_set()
        assert len(received) <= 1_000_000
        writer.transport.abort()
        answer = await place.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"used up" in answer


async def test_a_reader_that_does_not_read_holds_up_the_writer() -> None:
    written = 0
    blocked = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            while True:
                writer.write(b"x" * 65_536)
                written += 65_536
                async with asyncio.timeout(1.0):
                    await writer.drain()
        except TimeoutError:
            blocked.set()
        finally:
            writer.transport.abort()

    async with server(flood) as port, proxy(f"127.0.0.1:{port}") as place:
        reader, writer = await place.tunnel(f"127.0.0.1:{port}")
        reader._transport.pause_reading()  # type: ignore[attr-defined] # a client that takes nothing
        async with asyncio.timeout(WAIT_SECONDS):
            await blocked.wait()
        # What fits into sockets, and a few buffers of ours; without back-pressure it would be all there is.
        assert place.proxy.relayed_bytes < 32_000_000
        writer.transport.abort()


async def test_a_tunnel_in_which_nothing_moves_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "IDLE_SECONDS", 0.1)
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            gone.set()
            writer.close()

    async with server(wait) as port, proxy(f"127.0.0.1:{port}") as place:
        reader, writer = await place.tunnel(f"127.0.0.1:{port}")
        async with asyncio.timeout(WAIT_SECONDS):
            await ended(reader)
            await gone.wait()
        writer.transport.abort()


async def test_connections_above_the_maximum_wait_their_turn() -> None:
    async with server(echo) as port, proxy(f"127.0.0.1:{port}", max_connections=1) as place:
        reader, writer = await place.tunnel(f"127.0.0.1:{port}")
        second, to_second = await place.open(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        answered = asyncio.ensure_future(second.readuntil(b"\r\n\r\n"))
        await asyncio.wait({answered}, timeout=0.2)
        assert not answered.done()
        writer.write_eof()
        assert await reader.read() == b"said:"
        writer.close()
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await answered).startswith(b"HTTP/1.1 200")
        to_second.transport.abort()


async def test_leaving_the_block_ends_every_connection() -> None:
    held: list[asyncio.StreamReader] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(reader)
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            held.remove(reader)

    async with server(hold) as port:
        async with proxy(f"127.0.0.1:{port}") as place:
            reader, writer = await place.tunnel(f"127.0.0.1:{port}")
            unfinished, to_unfinished = await place.open(b"GET http://a.exam")
            await eventually(lambda: len(held) == 1)
        for each in (reader, unfinished):
            async with asyncio.timeout(WAIT_SECONDS):
                await ended(each)
        await eventually(lambda: not held)
        for closing in (writer, to_unfinished):
            closing.transport.abort()


async def test_a_listener_that_fails_ends_the_block_with_its_error() -> None:
    async def fail(target: str, reason: str) -> None:
        raise LookupError(target)

    listening = socket.create_server(("127.0.0.1", 0))
    failing = EgressProxy(AddressGuard.from_settings(()), limit_bytes=None, refused=fail)
    _, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"CONNECT 10.0.0.1:443 HTTP/1.1\r\n\r\n")
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(WAIT_SECONDS), failing.serving(listening):
            await asyncio.Event().wait()
    writer.transport.abort()
    assert raised.group_contains(LookupError, match=r"10\.0\.0\.1:443")


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait for the end of a connection, orderly or not."""
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""


def answers_of(monkeypatch: pytest.MonkeyPatch, names: dict[str, str], *, then: str | None = None) -> list[str]:
    """Stand in for the resolver of the machine, the one thing here beyond it; returns the names asked for.

    Literal addresses are nobody's to answer, so they are not in the list. `then` is what names answer from the second
    time on.
    """
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: int, **more: int) -> list[object]:
        if host in ("127.0.0.1", "127.0.0.2"):
            return list(real(host, port, *rest, **more))
        asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = then if then and asked.count(host) > 1 else names[host]
        return list(real(address, port, *rest, **more))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked
