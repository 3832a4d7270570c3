"""An AI service on loopback: it speaks the contract, and fails in every way that a service can.

It is real HTTP over a socket, written by hand, so that it can also do what no library would: send a head byte by byte,
drip without end, say nothing. `requests` keeps what came; faults are taken one per request, in order.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schema.multipart import boundary_of, read_form
from tests.harness.waiting import eventually

HUGE_BYTES = 50 * 2**20
BUSY_MESSAGE = "The model is\u0007 loading;\n try again soon."
DELAY = "The delivery of the servers is delayed by four weeks."
DEFAULT: list[dict[str, Any]] = [{"risk": "A delay", "category": "schedule", "context": DELAY}]


class Fault(StrEnum):
    """How an answer can be bad."""

    BROKEN = "BROKEN"
    BUSY = "BUSY"
    REFUSING = "REFUSING"
    MOVED = "MOVED"
    HTML = "HTML"
    NO_JSON = "NO_JSON"
    OTHER_SHAPE = "OTHER_SHAPE"
    OTHER_SOURCE = "OTHER_SOURCE"
    CUT_OFF = "CUT_OFF"
    HUGE = "HUGE"
    HANGING = "HANGING"
    SLOW_HEAD = "SLOW_HEAD"


@dataclass(frozen=True)
class Received:
    """A request: its head and the fields of its form."""

    head: str
    fields: dict[str, bytes]
    filename: str | None


@dataclass
class AiServer:
    """The stand-in; `async with AiServer() as server` listens on a port of its own."""

    risks: Sequence[Any] = field(default_factory=lambda: list(DEFAULT))
    source: str = "llm"
    beside: dict[str, Any] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    requests: list[Received] = field(default_factory=list)
    looks: int = 0
    hanging: int = 0
    sent_bytes: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """What AI_SERVICE_URL is."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> AiServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone: nobody listens on the port."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def behave(self) -> None:
        """Answer well from now on, and forget what came."""
        self.risks, self.source, self.beside = list(DEFAULT), "llm", {}
        self.always = None
        self.faults.clear()
        self.requests.clear()

    async def until_requests(self, count: int) -> None:
        """Wait until so many requests have come."""
        await eventually(lambda: len(self.requests) >= count, 20, what=f"{count} requests")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if self.always is Fault.CUT_OFF else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.startswith("GET "):
            self.looks += 1
            await self._fail(self.always, reader, writer) if self.always else self._send(writer, 404, b"")
            await writer.drain()
            return
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        boundary = boundary_of(headers["content-type"])
        assert boundary is not None
        parts = read_form(await reader.readexactly(int(headers["content-length"])), boundary)
        filename = next((part.filename for part in parts if part.name == "file"), None)
        self.requests.append(Received(head, {part.name: part.content for part in parts}, filename))
        fault = self.faults.popleft() if self.faults else self.always
        await self._fail(fault, reader, writer) if fault else self._send(writer, 200, self._body())
        await writer.drain()

    def _body(self) -> bytes:
        return json.dumps({"data": list(self.risks), "source": self.source, **self.beside}).encode()

    def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, content_type: str = "application/json"
    ) -> None:
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
        )
        writer.write(head.encode() + body)

    async def _fail(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match fault:
            case Fault.BROKEN:
                self._send(writer, 500, b'{"message": "a stack trace with secrets"}')
            case Fault.BUSY:
                self._send(writer, 503, json.dumps({"error": "BUSY", "message": BUSY_MESSAGE}).encode())
            case Fault.REFUSING:
                self._send(writer, 422, json.dumps({"detail": "This document is no prose. " + "x" * 5_000}).encode())
            case Fault.MOVED:
                self._send(writer, 307, b"")
            case Fault.HTML:
                self._send(writer, 200, b"<html><h1>Welcome to the proxy</h1></html>", "text/html")
            case Fault.NO_JSON:
                self._send(writer, 200, self._body()[:-2])
            case Fault.OTHER_SHAPE:
                self._send(writer, 200, b'{"data": [{"risk": 5}], "source": "llm"}')
            case Fault.OTHER_SOURCE:
                self._send(writer, 200, b'{"data": [], "source": "oracle"}')
            case Fault.CUT_OFF:
                writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
            case Fault.HUGE:
                writer.write(f"HTTP/1.1 200 X\r\nContent-Length: {HUGE_BYTES}\r\n\r\n".encode())
                for _ in range(HUGE_BYTES // 65_536):
                    writer.write(b" " * 65_536)
                    await writer.drain()
                    self.sent_bytes += 65_536
            case Fault.HANGING:
                await self._hang(reader)
            case Fault.SLOW_HEAD:
                for character in b"HTTP/1.1 200 " + b"X" * 10_000:
                    writer.write(bytes([character]))
                    await writer.drain()
                    await asyncio.sleep(0.05)

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Say nothing until the other side has gone."""
        self.hanging += 1
        try:
            await reader.read()
        finally:
            self.hanging -= 1
