"""The ASGI application and the server around it: routes, lifespan, middleware, the socket, the signals.

Invariants: every handle that the process needs is opened in the lifespan, in order, and closed in reverse; after
SIGTERM the process is not ready at once, tells its sockets 1012 and ends with code 0 within seconds, whatever its
clients do. What a request means is not known here: that is `schema`'s.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, cast

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Route, WebSocketRoute
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters import events, github, metrics, openid, webhook_sender
from adapters.loop_lag import LoopLag
from adapters.storage import Storage, open_storage
from adapters.structured_logs import set_up_logging
from models import database
from models.ids import new_id
from models.processes import ProcessRole
from resolvers import access_tokens, limits, sessions, standing, statistics_cache, status, system, webhook_endpoints
from schema import (
    account_pages,
    build_schema,
    deploy_hooks,
    files,
    log_downloads,
    oauth,
    pages,
    product_downloads,
    status_pages,
    webhooks,
)
from schema import metrics as metrics_page
from schema.context import AppState
from schema.credentials import Gate
from schema.execution import Operations
from schema.health import Health
from schema.http import GraphQLEndpoint
from schema.middleware import (
    FAULT_HANDLERS,
    REFUSAL_HANDLERS,
    AccessLog,
    RequestIdentity,
    SecurityHeaders,
)
from schema.rate_headers import RateLimitHeaders
from schema.site_cache import SiteCache
from schema.sites import SiteHosts, Sites
from schema.uploads import PREFLIGHT_HEADERS
from schema.websocket import GraphQLSocket
from settings import Settings
from tasks import heartbeat, queue

PREFLIGHT_SECONDS: Final = 7_200  # as long as Chromium keeps one
STALLED_PEER_MILLISECONDS: Final = 15_000
HEAD_MAX_BYTES: Final = 65_536
KEEP_ALIVE_SECONDS: Final = 75  # longer than the 60 s that balancers keep an idle connection, so that they close first
GRACE_SECONDS: Final = 10
BACKLOG: Final = 1_024
GC_THRESHOLDS: Final = (20_000, 20, 50)

_log = structlog.get_logger("switchyard.api")


def create_app(settings: Settings) -> Starlette:
    """The application; nothing is opened before its lifespan starts."""
    health = Health(settings, storage=lambda: app.state.storage)
    cache = SiteCache(storage=lambda: app.state.storage, body_bytes=settings.site_cache_megabytes * 2**20)
    sites = Sites(cache, storage=lambda: app.state.storage, strict_transport=settings.is_production)
    routes = _routes(settings, health)
    app = Starlette(
        routes=routes,
        middleware=[Middleware(SiteHosts, sites=sites, settings=settings), *_middleware(settings, routes)],
        exception_handlers=REFUSAL_HANDLERS,
        lifespan=lambda app: _opened(app, settings, cache),
    )
    app.state.health = health
    app.router.redirect_slashes = False  # it would believe the Host header
    return app


def _routes(settings: Settings, health: Health) -> list[BaseRoute]:
    operations = Operations(build_schema(), settings, count=limits.count_operation, reading=limits.reading)
    gate = Gate(
        settings,
        authenticate=access_tokens.authenticate,
        expires_at=access_tokens.expires_at,
        watch=standing.watch,
    )
    surface = AppState()
    endpoint = GraphQLEndpoint(operations, gate, surface, page=pages.graphiql)
    return [
        Route("/graphql", endpoint, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", GraphQLSocket(operations, gate, surface)),
        *pages.routes(),
        *account_pages.routes(),
        *status_pages.routes(settings),
        *files.routes(_storage_of),
        *log_downloads.routes(settings),
        *product_downloads.routes(settings),
        *deploy_hooks.routes(),
        *oauth.routes(settings),
        *webhooks.routes(settings),
        *metrics_page.routes(settings),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
    ]


def _middleware(settings: Settings, routes: Sequence[BaseRoute]) -> list[Middleware]:
    """Outermost first: what is added to answers must wrap everything that may refuse."""
    paths = frozenset(route.path.split("/")[1] for route in routes if isinstance(route, Route))
    return [
        Middleware(RequestIdentity, trusted_proxies=settings.trusted_proxies),
        Middleware(AccessLog, writes=settings.access_log, paths=paths),
        Middleware(SecurityHeaders, strict_transport=settings.is_production),
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT"),
            allow_headers=(
                *("Authorization", "If-None-Match", "Last-Event-ID", "Range", "X-CSRF-Token", "X-Request-ID"),
                *PREFLIGHT_HEADERS,
            ),
            allow_credentials=True,
            expose_headers=(
                "Content-Disposition",
                "Content-Range",
                "ETag",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
            ),
            max_age=PREFLIGHT_SECONDS,
        ),
        Middleware(RateLimitHeaders),
        Middleware(ExceptionMiddleware, handlers=FAULT_HANDLERS),
    ]


@asynccontextmanager
async def _opened(app: Starlette, settings: Settings, cache: SiteCache) -> AsyncIterator[None]:
    set_up_logging(settings)
    async with AsyncExitStack() as stack:
        counted = stack.enter_context(metrics.opened())
        counted.watch_pool("main", database.pool_state)
        await stack.enter_async_context(database.connected(settings))
        await stack.enter_async_context(events.connected(settings))
        await stack.enter_async_context(queue.connected(settings))
        await stack.enter_async_context(github.connected(settings))
        await stack.enter_async_context(openid.connected(settings))
        await stack.enter_async_context(webhook_sender.connected(settings, places=webhook_endpoints.TESTS_AT_ONCE))
        app.state.storage = await stack.enter_async_context(open_storage(settings))
        await stack.enter_async_context(sessions.opened(settings))
        stack.enter_context(access_tokens.opened())
        await stack.enter_async_context(standing.opened(settings))
        lag: LoopLag = app.state.health.loop_lag
        stack.enter_context(lag.watched())
        counted.loop_lag.set_function(lambda: lag.worst_milliseconds / 1_000)
        await stack.enter_async_context(limits.opened(settings))
        await stack.enter_async_context(status.opened())
        await stack.enter_async_context(cache.opened(events.hub()))
        await stack.enter_async_context(system.opened(settings))
        name = f"{socket.gethostname()[:32]}:{os.getpid()}:{str(new_id())[-6:]}"
        await stack.enter_async_context(heartbeat.beating(settings, ProcessRole.API, name))
        stack.enter_context(statistics_cache.views.opened(events.hub()))
        yield


def _storage_of(connection: HTTPConnection) -> Storage:
    storage: Storage = connection.app.state.storage
    return storage


# -- the server


async def serve(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT; logs `api_listening` with the port once requests are welcome.

    Raises OSError when the address is taken and SystemExit when the application does not start.
    """
    set_up_logging(settings)
    listener = listening_socket(settings.host, settings.port)
    if settings.port == 0 and "base_url" not in settings.model_fields_set:
        # Any free port was asked for and no public address: nobody could name it beforehand.
        port = listener.getsockname()[1]
        settings = settings.model_copy(update={"port": port, "base_url": f"http://{settings.host}:{port}"})
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        # Any callable that makes a protocol will do, says the code, if not the type.
        http=cast(Any, partial(DeadlineHttpProtocol, timeout_seconds=settings.body_timeout_seconds)),
        ws="websockets-sansio",
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `RequestIdentity` does that, for named proxies only
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with listener:
        await ApiServer(config, health=app.state.health, drain_seconds=settings.drain_seconds).serve([listener])
    _log.info("api_stopped")


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket whose connections give up on a peer that takes nothing for fifteen seconds.

    Without that a client that stops reading keeps its subscription for ever: closing waits for the buffer to drain.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_PEER_MILLISECONDS)
        listener.bind(address)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class ApiServer(uvicorn.Server):
    """uvicorn with our signals: it drains first, and a signal that was obeyed is not raised again at the end."""

    def __init__(self, config: uvicorn.Config, *, health: Health, drain_seconds: float) -> None:
        super().__init__(config)
        self._health = health
        self._drain_seconds = drain_seconds
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say where; what lives now lives as long as the process, so the collector may forget it."""
        await super().startup(sockets=sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        for listener in sockets or ():
            host, port, *_ = listener.getsockname()
            _log.info("api_listening", host=host, port=port)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server for as long as it serves."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            _log.info("api_draining", seconds=self._drain_seconds)
            self._health.drain()
            asyncio.get_running_loop().call_later(self._drain_seconds, self._close)
        else:
            self._close()
            self.force_exit = self._signals > 2

    def _close(self) -> None:
        self.should_exit = True


class DeadlineHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on a request's head, and on a body that nobody reads any more.

    Otherwise a client that opens a connection and says nothing, or half a header, or headers without end, has it for
    ever. The body that an endpoint reads is the endpoint's to bound (`schema/http.py`, `schema/files.py`).
    """

    def __init__(self, *arguments: Any, timeout_seconds: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._timeout_seconds = timeout_seconds
        self._expiry: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base class
        """Give the first request its time."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse a head that is too long."""
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """Give this request its time, unless it has it from the start of the connection."""
        super().on_message_begin()
        self._is_in_head = True
        if self._expiry is None:
            self._arm()

    def on_headers_complete(self) -> None:
        """What follows is body."""
        super().on_headers_complete()
        self._is_in_head = False
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        """The request has arrived."""
        super().on_message_complete()
        self._disarm()

    def handle_websocket_upgrade(self) -> None:
        """Leave deadlines to the WebSocket from here on."""
        self._disarm()
        super().handle_websocket_upgrade()

    def _arm(self) -> None:
        self._expiry = self.loop.call_later(self._timeout_seconds, self._expire)

    def _disarm(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire(self) -> None:
        # The type says that there is always a cycle, but before the first head there is none.
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._arm()
        else:
            self.transport.abort()
