"""The few calls of the Docker Engine API that builds need, over its unix socket or plain TCP.

Invariant: every call ends by its deadline, no answer is held beyond `ANSWER_BYTES`, and whatever goes wrong is an
`EngineError`. Proxies and other variables of the environment are not looked at. The module knows no builds.

Facts are from the Engine API reference, version 1.44 (Engine 25), the oldest that Engine 29 still speaks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

API_VERSION: Final = (1, 44)
PREFIX: Final = "/v{}.{}".format(*API_VERSION)
CONNECT_SECONDS: Final = 10.0
CALL_SECONDS: Final = 60.0
TRANSFER_IDLE_SECONDS: Final = 60.0
ANSWER_BYTES: Final = 4 * 2**20
READ_BYTES: Final = 64 * 1024
STREAM_ERROR, STREAM_STDERR = 3, 2

Json = dict[str, Any]
"""What the engine sends: parsed JSON, of which callers take what they check."""


class EngineError(Exception):
    """The engine refused, failed, or did not answer; `status` is None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where the engine listens: a unix socket, or else host and port."""

    socket: str | None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, url: str) -> EngineAddress:
        """Read `unix:///path` or `tcp://host:port`; raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
            return cls(parts.path)
        if parts.scheme == "tcp" and parts.hostname and parts.port and not parts.username and parts.path in ("", "/"):
            return cls(None, parts.hostname, parts.port)
        raise ValueError(f"{url!r} is neither unix:///path nor tcp://host:port")

    @property
    def for_holder(self) -> str:
        """The address as `holder.py` takes it."""
        return f"unix:{self.socket}" if self.socket else f"tcp:{self.host}:{self.port}"

    @property
    def base(self) -> str:
        """The start of every URL; a unix socket has no host, and the name given is not looked up."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "http://docker" if self.socket else f"http://{host}:{self.port}"


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[Engine]:
    """A client for one build. Raises EngineError for an address that is none."""
    try:
        address = EngineAddress.parse(url)
    except ValueError as error:
        raise EngineError(f"DOCKER_HOST: {error}") from None
    connector: aiohttp.BaseConnector = (
        aiohttp.UnixConnector(address.socket, limit=0) if address.socket else aiohttp.TCPConnector(limit=0)
    )
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, read_bufsize=READ_BYTES, auto_decompress=False
    ) as session:
        yield Engine(address, session)


class Engine:
    """The engine's API. Every method raises EngineError; made by `open_engine`."""

    def __init__(self, address: EngineAddress, session: aiohttp.ClientSession) -> None:
        self.address = address
        self._session = session

    async def get(self, path: str, **query: str) -> Json:
        """GET a JSON object."""
        return await self._call("GET", path, query)

    async def post(self, path: str, body: Json | None = None, **query: str) -> Json:
        """POST a JSON object; an empty answer is an empty object."""
        return await self._call("POST", path, query, body)

    async def delete(self, path: str, **query: str) -> None:
        """DELETE."""
        await self._call("DELETE", path, query)

    async def ping(self) -> None:
        """Raise EngineError unless an engine answers."""
        async with self._request("GET", "/_ping", versioned=False) as answer:
            await _content(answer)

    async def version(self) -> Json:
        """What the engine is, whatever versions of the API it speaks."""
        async with self._request("GET", "/version", versioned=False) as answer:
            return _parse(await _content(answer))

    async def put_archive(self, container: str, path: str, archive: AsyncIterable[bytes]) -> None:
        """Unpack a tar archive into a folder of a container; no deadline but that of standing still."""
        headers = {"Content-Type": "application/x-tar"}
        query = {"path": path, "noOverwriteDirNonDir": "true"}
        async with self._request(
            "PUT", f"/containers/{container}/archive", query=query, data=archive, headers=headers, timeout=_TRANSFER
        ) as answer:
            await _content(answer)

    @asynccontextmanager
    async def get_archive(self, container: str, path: str) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """A path of a container as a tar archive, whose members start with the path's last component."""
        request = self._request("GET", f"/containers/{container}/archive", query={"path": path}, timeout=_TRANSFER)
        async with request as answer, aclosing(_stream(answer)) as archive:
            yield archive

    @asynccontextmanager
    async def start_exec(self, exec_id: str) -> AsyncIterator[AsyncGenerator[tuple[bool, bytes], None]]:
        """Start a command; yields what it writes, as (whether to standard error, bytes), until it has ended.

        No deadline: the command's is the caller's.
        """
        body = {"Detach": False, "Tty": False}
        request = self._request("POST", f"/exec/{exec_id}/start", json=body, timeout=_STREAM)
        async with request as answer, aclosing(_frames(_stream(answer))) as frames:
            yield frames

    async def _call(self, method: str, path: str, query: Mapping[str, str], body: Json | None = None) -> Json:
        async with self._request(method, path, query=query, json=body) as answer:
            content = await _content(answer)
            return _parse(content) if content.strip() else {}

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        versioned: bool = True,
        timeout: aiohttp.ClientTimeout | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = (
            self.address.base
            + (PREFIX if versioned else "")
            + quote(path, safe="/:@")
            + (f"?{urlencode(query)}" if query else "")
        )
        if timeout is not None:
            options["timeout"] = timeout
        with _translated(f"{method} {path}"):
            # Escaped already: a path in the query would otherwise lose the escapes of its slashes.
            answer = await self._session.request(method, URL(url, encoded=True), allow_redirects=False, **options)
        async with answer:
            if answer.status >= 300:
                raise EngineError(await _reason(answer), status=answer.status)
            yield answer


_TRANSFER: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=TRANSFER_IDLE_SECONDS)
_STREAM: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=None)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise EngineError(f"the Docker Engine does not answer ({what})") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineError(f"the Docker Engine cannot be reached ({what}): {error}") from None


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    held = bytearray()
    async for chunk in _stream(answer):
        held += chunk
        if len(held) > ANSWER_BYTES:
            raise EngineError(f"an answer of the Docker Engine is longer than {ANSWER_BYTES} bytes")
    return bytes(held)


def _parse(content: bytes) -> Json:
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise EngineError("an answer of the Docker Engine is no JSON object")
    return parsed


async def _reason(answer: aiohttp.ClientResponse) -> str:
    try:
        message = str(_parse(await _content(answer)).get("message", ""))
    except EngineError:
        message = ""
    return f"the Docker Engine refused with {answer.status}: {message[:500] or answer.reason}"


async def _stream(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    while True:
        with _translated("reading"):
            chunk = await answer.content.readany()
        if not chunk:
            return
        yield chunk


async def _frames(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[bool, bytes], None]:
    """Undo the multiplexing (Engine API, "Stream format"): one byte of stream, three zeros, four of length, big-endian.

    The pieces of a frame are passed on as they come, so its announced length takes no memory.
    """
    head = bytearray()
    stream = left = 0
    async for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if left:
                piece = bytes(rest[:left])
                rest = rest[len(piece) :]
                left -= len(piece)
                if stream == STREAM_ERROR:
                    raise EngineError(f"the Docker Engine broke a command off: {piece[:500].decode(errors='replace')}")
                yield stream == STREAM_STDERR, piece
                continue
            taken = rest[: 8 - len(head)]
            head += taken
            rest = rest[len(taken) :]
            if len(head) == 8:
                if head[0] > STREAM_ERROR or any(head[1:4]):
                    raise EngineError("the output of a command is not framed as the Engine API says")
                stream, left = head[0], int.from_bytes(head[4:], "big")
                head.clear()
    if left or head:
        raise EngineError("the connection to the Docker Engine was cut")


async def until_gone(engine: Engine, container: str, *, timeout_seconds: float) -> None:
    """Wait until a container that is being removed is gone; raises EngineError when it stays."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    await engine.get(f"/containers/{container}/json")
                except EngineError as error:
                    if error.status == 404:
                        return
                    raise
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise EngineError(f"the container {container} is not removed in {timeout_seconds:g} s") from None
