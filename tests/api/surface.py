"""A small schema behind the real endpoints, served by uvicorn on loopback: what the surface tests talk to.

It needs no database. Its fields show one behaviour each: answering, refusing, failing, hanging, streaming.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import strawberry
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from errors import Conflict, ServiceUnavailable, Unauthorized
from models.permissions import Actor, Origin, Permission, Role
from resolvers.streams import SharedEvent
from schema import assemble
from schema.context import AppState, Context
from schema.credentials import Gate
from schema.execution import Deadlines, Operations
from schema.http import GraphQLEndpoint
from schema.middleware import RequestIdentity
from schema.pagination import After, Before, Connection, First, Last, paginate
from schema.permissions import public, requires
from schema.scalars import JSON, BigInt
from schema.websocket import GraphQLSocket, SocketTimes
from settings import Settings

Info = strawberry.Info[Context, None]
DEADLINE_SECONDS = 5.0

ADA = UUID(int=1)
BOB = UUID(int=2)


@strawberry.interface
class Shape:
    name: str


@strawberry.type
class Circle(Shape):
    radius: float


@strawberry.type
class Square(Shape):
    side: float


@strawberry.type
class Thing:
    id: strawberry.ID
    size: int

    @strawberry.field
    async def parent(self) -> Thing:
        return Thing(id=strawberry.ID(f"{self.id}p"), size=1)

    @strawberry.field
    async def things(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[Thing]:
        return await page(first, after, last, before)

    @strawberry.field
    async def parts(self) -> list[Thing]:
        return [self]


async def page(first: int | None, after: str | None, last: int | None, before: str | None) -> Connection[Thing]:
    async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[dict[str, Any]]:
        numbers = [
            number
            for number in range(1, 251)
            if (after_key is None or number > after_key[0]) and (before_key is None or number < before_key[0])
        ]
        chosen = numbers[::-1][:limit] if backwards else numbers[:limit]
        return [{"id": number} for number in chosen]

    async def count() -> int:
        counted.append(1)
        return 250

    return await paginate(
        fetch=fetch,
        count=count,
        first=first,
        after=after,
        last=last,
        before=before,
        key=(("id", int),),
        node=lambda row: Thing(id=strawberry.ID(str(row["id"])), size=row["id"]),
    )


counted: list[int] = []


@strawberry.input
class Deep:
    name: str
    counts: list[int] = strawberry.field(default_factory=list)
    inner: Deep | None = None


@strawberry.type
class Query:
    @strawberry.field(extensions=[public()])
    def hello(self, name: str = "world") -> str:
        return f"Hello {name}"

    @strawberry.field(extensions=[public()])
    async def later(self) -> str:
        await asyncio.sleep(0)
        return "later"

    @strawberry.field(extensions=[requires(Permission.ACCOUNT_READ)])
    async def me(self, info: Info) -> str:
        return str(info.context.actor.user_id)

    @strawberry.field(extensions=[requires(Permission.TOOL_WRITE)])
    def for_admins(self) -> str:
        return "secret"

    @strawberry.field(extensions=[public()])
    def echo(self, value: JSON) -> JSON:
        return value

    @strawberry.field(extensions=[public()])
    def moment(self, at: datetime) -> datetime:
        return at

    @strawberry.field(extensions=[public()])
    def big(self, number: BigInt) -> BigInt:
        return number

    @strawberry.field(extensions=[public()])
    def small(self, number: int) -> int:
        return number

    @strawberry.field(extensions=[public()])
    def overflow(self) -> int | None:
        return 2**40

    @strawberry.field(extensions=[public()])
    def deep(self, input: Deep) -> str:
        return input.name

    @strawberry.field(extensions=[public()])
    def shapes(self) -> list[Shape]:
        return [Circle(name="c", radius=1.5), Square(name="s", side=2.0)]

    @strawberry.field(extensions=[public()])
    def thing(self) -> Thing:
        return Thing(id=strawberry.ID("1"), size=1)

    @strawberry.field(extensions=[public()])
    async def things(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[Thing]:
        return await page(first, after, last, before)

    @strawberry.field(extensions=[public()])
    def conflict(self) -> str | None:
        raise Conflict("Already there.", taken="name")

    @strawberry.field(extensions=[public()])
    async def fault(self) -> str | None:
        raise RuntimeError("password=hunter2")

    @strawberry.field(extensions=[public()])
    def outage(self) -> str | None:
        raise ConnectionRefusedError("10.0.0.5:5432")

    @strawberry.field(extensions=[public()])
    def unwritable(self) -> JSON:
        return JSON({"x": object()})

    @strawberry.field(extensions=[public()])
    async def hang(self) -> str:
        await asyncio.Event().wait()
        return "never"

    @strawberry.field(extensions=[public()])
    async def doubled(self, info: Info, number: int) -> int:
        return await info.context.load(_double, number)


batches: list[list[int]] = []


async def _double(context: Context, numbers: list[int]) -> list[int]:
    batches.append(numbers)
    return [number * 2 for number in numbers]


@strawberry.type
class Mutation:
    @strawberry.mutation(extensions=[public()])
    async def touch(self, info: Info, cookie: bool = False) -> str:
        if cookie:
            info.context.set_cookie("switchyard_access", "ada", max_age_seconds=60)
        return "touched"

    @strawberry.mutation(extensions=[public()])
    async def hang(self) -> str:
        await asyncio.Event().wait()
        return "never"


@strawberry.type
class Line:
    last_sequence: int

    @strawberry.field
    def text(self, upper: bool = False) -> str:
        executions.append(self.last_sequence)
        return f"LINE {self.last_sequence}" if upper else f"line {self.last_sequence}"

    @strawberry.field
    async def slow_text(self) -> str:
        executions.append(self.last_sequence)
        await asyncio.sleep(0.01)
        return f"slow {self.last_sequence}"

    @strawberry.field
    async def loaded(self, info: Info) -> int:
        return await info.context.load(_double, 1)


executions: list[int] = []


@dataclass
class Feed:
    """Events that the tests push; `open` counts the subscriptions whose source has not been cleaned up."""

    open: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    events: list[SharedEvent] = field(default_factory=list)
    kept: list[AsyncGenerator[str, None]] = field(default_factory=list)
    pushed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def event(self, position: int) -> SharedEvent:
        async with self.pushed:
            await self.pushed.wait_for(lambda: len(self.events) > position)
        return self.events[position]

    async def push(self, event: SharedEvent) -> None:
        async with self.pushed:
            self.events.append(event)
            self.pushed.notify_all()


feed = Feed()


async def _flood() -> AsyncGenerator[str, None]:
    feed.open += 1
    try:
        while True:
            yield "x" * 10_000
    finally:
        feed.open -= 1
        feed.closed.set()


@strawberry.type
class Subscription:
    @strawberry.subscription(extensions=[public()])
    async def count(self, to: int, after_sequence: int = 0) -> AsyncGenerator[Line, None]:
        feed.open += 1
        try:
            for number in range(after_sequence + 1, to + 1):
                yield Line(last_sequence=number)
        finally:
            feed.open -= 1
            feed.closed.set()

    @strawberry.subscription(extensions=[requires(Permission.ACCOUNT_READ)])
    async def mine(self, info: Info) -> AsyncGenerator[str, None]:
        feed.open += 1
        try:
            while True:
                yield str(info.context.actor.role.value)
                await asyncio.sleep(0.02)
        finally:
            feed.open -= 1
            feed.closed.set()

    @strawberry.subscription(extensions=[public()])
    async def quiet(self) -> AsyncGenerator[str, None]:
        feed.open += 1
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a cleanup that has to wait is waited for
            feed.open -= 1
            feed.closed.set()

    @strawberry.subscription(extensions=[public()])
    async def flood(self) -> AsyncGenerator[str, None]:
        """Never waits for anything."""
        async with aclosing(_flood()) as source:
            async for text in source:
                yield text

    @strawberry.subscription(extensions=[public()])
    def kept(self) -> AsyncGenerator[str, None]:
        """A source that somebody else holds on to, so that it is not closed for want of references."""
        source = _flood()
        feed.kept.append(source)
        return source

    @strawberry.subscription(extensions=[public()])
    async def shared(self, rights: str = "all") -> AsyncGenerator[Line, None]:
        feed.open += 1
        try:
            for position in itertools.count():
                yield await feed.event(position)  # type: ignore[misc]
        finally:
            feed.open -= 1
            feed.closed.set()

    @strawberry.subscription(extensions=[public()])
    async def breaks(self) -> AsyncGenerator[str, None]:
        yield "first"
        raise RuntimeError("password=hunter2")

    @strawberry.subscription(extensions=[public()])
    async def refused(self) -> AsyncGenerator[str, None]:
        raise Conflict("Not now.")
        yield "never"


def build() -> strawberry.Schema:
    return assemble(queries=[Query], mutations=[Mutation], subscriptions=[Subscription], types=[Circle, Square])


class Sessions:
    """Stands for `resolvers.sessions`: tokens are names; tests revoke them and let them expire."""

    def __init__(self) -> None:
        self.actors = {
            "ada": Actor(ADA, Role.USER),
            "ada2": Actor(ADA, Role.USER),
            "bob": Actor(BOB, Role.USER),
            "root": Actor(UUID(int=3), Role.ADMIN),
        }
        self.expiries: dict[str, datetime] = {}
        self.revoked: set[str] = set()
        self.away = False
        self.checks = 0
        self.watchers: set[_Watcher] = set()

    async def authenticate(self, token: str, origin: Origin) -> Actor:
        self.checks += 1
        await asyncio.sleep(0)
        if self.away:
            raise ServiceUnavailable("The database does not answer.")
        if token in self.revoked:
            raise Unauthorized("The session was revoked.", reason="revoked")
        if token not in self.actors:
            raise Unauthorized("The token is not valid.", reason="invalid")
        if token in self.expiries and self.expiries[token] <= datetime.now(UTC):
            raise Unauthorized("The access token has expired.", reason="expired")
        actor = self.actors[token]
        return Actor(actor.user_id, actor.role, actor.session_id, origin)

    def expires_at(self, token: str) -> datetime | None:
        return self.expiries.get(token)

    def expire_in(self, token: str, seconds: float) -> None:
        self.expiries[token] = datetime.now(UTC) + timedelta(seconds=seconds)

    def changed(self) -> None:
        for watcher in self.watchers:
            watcher.event.set()

    @asynccontextmanager
    async def watch(self, actor: Actor) -> AsyncIterator[_Watcher]:
        watcher = _Watcher()
        self.watchers.add(watcher)
        try:
            yield watcher
        finally:
            self.watchers.remove(watcher)


class _Watcher:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        return True


def settings(**overrides: Any) -> Settings:
    key = base64.b64encode(bytes(32)).decode()
    return Settings(
        database_url=SecretStr("postgres://nobody@127.0.0.1/none"),
        redis_url=SecretStr("redis://127.0.0.1/0"),
        secret_keys=SecretStr(f"k1:{key}"),
        **{"allowed_origins": "https://spa.example", **overrides},
    )


@dataclass
class Surface:
    """A running server and what the tests need of it."""

    url: str
    sessions: Sessions
    state: AppState
    operations: Operations
    socket: GraphQLSocket
    client: httpx.AsyncClient

    async def post(self, query: str, /, *, token: str | None = None, accept: str = "", **body: Any) -> httpx.Response:
        headers = {"accept": accept or "application/graphql-response+json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return await self.client.post("/graphql", json={"query": query, **body}, headers=headers)

    def connect(self, **options: Any) -> connect:
        options.setdefault("subprotocols", ["graphql-transport-ws"])
        return connect(self.url.replace("http", "ws") + "/graphql", max_size=None, **options)

    @asynccontextmanager
    async def connected(self, token: str | None = None, **options: Any) -> AsyncIterator[ClientConnection]:
        async with self.connect(**options) as ws:
            payload = {"authorization": f"Bearer {token}"} if token else {}
            await say(ws, type="connection_init", payload=payload)
            assert await hear(ws) == {"type": "connection_ack"}
            yield ws


async def say(ws: ClientConnection, **message: Any) -> None:
    await ws.send(orjson.dumps(message).decode())


async def hear(ws: ClientConnection) -> Any:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return orjson.loads(await ws.recv())


async def closed(ws: ClientConnection) -> int:
    """The close code, whatever comes before it."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ws.wait_closed()
    assert ws.close_code is not None
    return ws.close_code


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for may be anything
            await asyncio.sleep(0.005)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # pytest keeps its own


async def _page(request: Request) -> Response:
    return PlainTextResponse("<!doctype html>", media_type="text/html")


@asynccontextmanager
async def surface(
    *, times: SocketTimes | None = None, deadlines: Deadlines | None = None, **overrides: Any
) -> AsyncIterator[Surface]:
    """Serve the small schema until the block ends."""
    configured = settings(**overrides)
    sessions = Sessions()
    gate = Gate(configured, sessions.authenticate, sessions.expires_at, sessions.watch)
    operations = Operations(build(), configured, deadlines)
    state = AppState()
    socket_app = GraphQLSocket(operations, gate, state, times)
    endpoint = GraphQLEndpoint(operations, gate, state, page=_page)
    app = RequestIdentity(
        Starlette(routes=[Route("/graphql", endpoint), WebSocketRoute("/graphql", socket_app)]),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        await until(lambda: server.started)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS) as client:
            yield Surface(url, sessions, state, operations, socket_app, client)
    finally:
        server.should_exit = True
        await serving
