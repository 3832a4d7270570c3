"""A receiver of webhooks on loopback: keeps what came, answers as told, holds what it shall hold.

Each path is an endpoint of its own. Answers are taken one per request, in order; without any a request is fine.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from tests.harness.waiting import eventually


@dataclass(frozen=True)
class Answer:
    """What a request is answered with; `cut_off` closes the connection instead, `held` waits for `release` first."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_off: bool = False
    held: bool = False


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        """What receivers tell repetitions by."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """The body, read without a look at the signature."""
        read: dict[str, Any] = json.loads(self.body)
        return read

    def verified(self, secret: str) -> dict[str, Any]:
        """The body, as the reference library of the specification reads it; raises for a wrong signature."""
        read: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return read


class WebhookReceiver:
    """The stand-in. Its state is there to be read and changed by tests."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: dict[str, list[Received]] = defaultdict(list)
        self.answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.under_way: dict[str, int] = defaultdict(int)
        self.most_under_way: dict[str, int] = defaultdict(int)
        self._released = asyncio.Event()

    @property
    def allowed(self) -> str:
        """What a program that sends here has in WEBHOOK_ALLOWED_HOSTS."""
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        """The address of an endpoint."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def answer(self, name: str, *answers: Answer) -> None:
        """What the next requests of an endpoint are answered with."""
        self.answers[name] += answers

    def release(self) -> None:
        """Let go of what is held, now and from now on until `hold_again`."""
        self._released.set()

    def hold_again(self) -> None:
        """Hold what comes from now on."""
        self._released = asyncio.Event()

    async def received(self, name: str, count: int = 1, *, seconds: float = 10) -> list[Received]:
        """Wait until so many requests came to an endpoint; all of them."""
        requests = self.requests[name]
        await eventually(lambda: len(requests) >= count, seconds, what=f"{count} requests at {name}")
        return requests

    async def _take(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        # Of a body that is cut off nothing is kept.
        received = Received({key.lower(): value for key, value in request.headers.items()}, await request.read())
        self.requests[name].append(received)
        answer = self.answers[name].popleft() if self.answers[name] else Answer()
        self.under_way[name] += 1
        self.most_under_way[name] = max(self.most_under_way[name], self.under_way[name])
        try:
            if answer.held:
                await self._released.wait()
        finally:
            self.under_way[name] -= 1
        if answer.cut_off:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """A receiver that listens."""
    receiver = WebhookReceiver()
    app = web.Application()
    app.router.add_post("/{name}", receiver._take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.release()
        await runner.cleanup()
