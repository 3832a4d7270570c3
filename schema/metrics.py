"""`GET /metrics`: what this process counts and how the installation is, for Prometheus.

Who may read it is `adapters/scraping.py`'s; the installation is read from the database at most every five seconds.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from adapters import metrics, scraping
from errors import NotFound, Unauthorized
from resolvers import system
from settings import Settings

PATH = "/metrics"


def routes(settings: Settings) -> list[BaseRoute]:
    """The route of the metrics."""

    async def read(request: Request) -> Response:
        status = scraping.refusal(
            settings.metrics_token,
            peer=request.client.host if request.client else None,
            headers=request.headers,
            neighbours=not settings.is_production,
        )
        if status == 401:
            raise Unauthorized("Show METRICS_TOKEN as a bearer token.")
        if status is not None:
            raise NotFound("Not Found")
        text = metrics.current().text(await system.board().families())
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    return [Route(PATH, read, methods=["GET"])]
