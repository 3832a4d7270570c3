"""`/status`, the state of the service for people, and `/status.atom`, its incidents as a feed.

The page is files of ours that ask `/graphql` as anybody may, and it asks no other origin. Invariant: neither costs the
database more than the page that is kept anyway, however often they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from resolvers import status
from schema import status_feed
from schema.account_pages import CONTENT_SECURITY_POLICY
from settings import Settings

FEED_SECONDS: Final = 30
_FOLDER: Final = Path(__file__).with_name("status_files")
_MEDIA_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_PAGE: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}
_FILE: Final = {"Cache-Control": "no-cache"}


def routes(settings: Settings) -> list[BaseRoute]:
    """The routes of the page, of what it loads, and of the feed."""

    async def feed(request: Request) -> Response:
        rows = (await status.page()).latest
        content = status_feed.feed(settings.base_url, rows)
        changed = status_feed.updated_at(rows).replace(microsecond=0)
        headers = {
            "Cache-Control": f"public, max-age={FEED_SECONDS}",
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            "Last-Modified": format_datetime(changed, usegmt=True),
        }
        if _is_known(request.headers, headers):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="application/atom+xml; charset=utf-8")

    return [
        _route("/status", "status.html", _PAGE),
        _route("/status/files/status.css", "status.css", _FILE),
        _route("/status/files/status.js", "status.js", _FILE),
        Route("/status.atom", feed, methods=["GET"], name="status-feed"),
    ]


def _route(path: str, name: str, headers: Mapping[str, str]) -> Route:
    content = (_FOLDER / name).read_bytes()
    media_type = _MEDIA_TYPES[Path(name).suffix]
    answers = {**headers, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    async def answer(request: Request) -> Response:
        if _is_known(request.headers, answers):
            return Response(status_code=304, headers=answers)
        return Response(content, headers=answers, media_type=media_type)

    return Route(path, answer, methods=["GET"], name=f"status-{name}")


def _is_known(asked: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Whether the client has this already: by its tags, else by its date (RFC 9110 §13.2.2)."""
    if (tags := asked.get("if-none-match")) is not None:
        return tags.strip() == "*" or headers["ETag"] in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    try:
        since = parsedate_to_datetime(asked.get("if-modified-since", ""))
        return "Last-Modified" in headers and parsedate_to_datetime(headers["Last-Modified"]) <= since
    except (ValueError, TypeError):
        return False  # no date, one that is none, or one without a time zone
