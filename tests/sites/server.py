"""A web server for tests: real sockets on loopback, answers from a Python function, counts what it served.

It runs on a thread with its own event loop, so that a test, its worker and the crawler it drives do not share one.
A gate holds back answers after a number of pages, which gives tests a moment to act "in the middle of a crawl"
without ever sleeping.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Answer:
    """What the site says to one request."""

    body: str | bytes = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """What a site is asked: path with query, how many times it was asked for that before, and by whom."""

    target: str
    earlier: int
    headers: Mapping[str, str]


class SiteServer:
    """Serves `site` on 127.0.0.1 at a free port while the `with` block lasts."""

    def __init__(self, site: Callable[[Asked], Answer], *, tls: ssl.SSLContext | None = None) -> None:
        self._site = site
        self._tls = tls
        self._changed = threading.Condition()
        self._hits: Counter[str] = Counter()
        self._hold_after: int | None = None
        self._loop = asyncio.new_event_loop()
        self._opened: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="site server")
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def allowed_host(self) -> str:
        """How the allow-list of crawls names this server."""
        return f"127.0.0.1:{self.port}"

    @property
    def hits(self) -> Counter[str]:
        """How often each target was asked for."""
        with self._changed:
            return self._hits.copy()

    def wait_for_hits(self, count: int, *, timeout_seconds: float = 20.0) -> None:
        """Block until so many requests came in altogether; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._hits.total() >= count, timeout_seconds):
                raise TimeoutError(f"{self._hits.total()} of {count} requests after {timeout_seconds} s")

    def hold_after(self, count: int) -> None:
        """Answer no request beyond this number, counted from the start, until `release`."""
        with self._changed:
            self._hold_after = count
        self._loop.call_soon_threadsafe(self._opened.clear)

    def release(self) -> None:
        """Answer everything again."""
        with self._changed:
            self._hold_after = None
        self._loop.call_soon_threadsafe(self._opened.set)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the site server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop, self._opened = asyncio.Event(), asyncio.Event()
        self._opened.set()
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._opened.set()
        for writer in self._clients.values():
            writer.transport.abort()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a crawler that was killed
        finally:
            del self._clients[task]
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        with self._changed:
            earlier = self._hits[target]
            self._hits[target] += 1
            held = self._hold_after is not None and self._hits.total() > self._hold_after
            self._changed.notify_all()
        if held:
            await self._opened.wait()
        answer = self._site(Asked(target, earlier, headers))
        if answer.delay_seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(answer.delay_seconds):
                    await self._stop.wait()
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        fields = {"Content-Type": "text/html; charset=utf-8", **answer.headers, "Content-Length": str(len(body))}
        block = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {answer.status} Answer\r\n{block}\r\n".encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        return True
