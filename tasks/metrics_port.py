"""The port of a worker for its operators: `/metrics` and `/healthz`, served by its event loop.

A port that is taken is said in the log and stops no work: what a worker is for is not being watched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from adapters import metrics, scraping
from adapters.loop_lag import LoopLag
from settings import Settings

_log = structlog.get_logger("switchyard.metrics")


@asynccontextmanager
async def served(settings: Settings, lag: LoopLag) -> AsyncIterator[None]:
    """Serve while this is open, if METRICS_PORT names a port."""
    if not settings.metrics_port:
        yield
        return

    async def read(request: web.Request) -> web.Response:
        status = scraping.refusal(settings.metrics_token, peer=request.remote, headers=request.headers)
        if status is not None:
            return web.Response(status=status, headers={"WWW-Authenticate": "Bearer"} if status == 401 else None)
        return web.Response(body=metrics.current().text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "loopLagMilliseconds": lag.worst_milliseconds})

    application = web.Application()
    application.add_routes([web.get("/metrics", read), web.get("/healthz", alive)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.metrics_host, settings.metrics_port).start()
            _log.info("metrics_served", host=settings.metrics_host, port=settings.metrics_port)
        except OSError as error:
            _log.error("metrics_not_served", port=settings.metrics_port, error=repr(error))
        yield
    finally:
        await runner.cleanup()
