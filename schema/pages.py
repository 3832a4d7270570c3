"""The GraphiQL page and its files, as built from `schema/console` into `schema/static`.

Invariant: nothing here names another origin, and the page's policy lets the browser ask none. Files whose name carries
a hash of their content may be cached for ever; the page itself is asked for each time and answered by its ETag.
Left out: who may see the page, and the API that answers POST and WebSocket at the same address (`app.py`).
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_STATIC = Path(__file__).parent / "static"
_HASHED = re.compile(r"-[\w-]{8}\.\w+$")
_FOREVER = "public, max-age=31536000, immutable"  # RFC 8246
_ASK_AGAIN = "no-cache"
_COMPRESSION_LEVEL = 6

# CSP Level 3. The editor writes <style> elements and style attributes, hence 'unsafe-inline' for styles alone; its
# icons are data: images; its workers and the WebSocket are of our own origin, and 'self' covers ws: and wss: as well.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ]
)

_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_PAGE = {
    **_EVERYWHERE,
    "Cache-Control": _ASK_AGAIN,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Accept-Encoding",
    "X-Frame-Options": "DENY",
}


def accepts_page(request: Request) -> bool:
    """Whether a GET to the API's address wants the page: browsers name `text/html`, GraphQL clients do not."""
    return any(
        media_range.partition(";")[0].strip().lower() == "text/html"
        for media_range in request.headers.get("accept", "").split(",")
    )


async def graphiql(request: Request) -> Response:
    """The page, for GET and HEAD at the API's address."""
    return await _answer(request, _STATIC / "index.html", _PAGE)


def routes(prefix: str = "/graphql/assets") -> list[BaseRoute]:
    """The routes of the page's files.

    The page asks for them at `graphql/assets/…` relative to itself, so the prefix is the API's address and `/assets`.
    """
    return [Route(f"{prefix}/{{name}}", _asset, methods=["GET"], name="graphiql-asset")]


async def _asset(request: Request) -> Response:
    name: str = request.path_params["name"]
    # Only names that the build wrote are looked up, so none leads out of the folder.
    if name not in _names():
        return Response(status_code=404, headers={"X-Content-Type-Options": "nosniff"})
    lifetime = _FOREVER if _HASHED.search(name) else _ASK_AGAIN
    return await _answer(request, _STATIC / "assets" / name, {**_EVERYWHERE, "Cache-Control": lifetime})


@dataclass(frozen=True, slots=True)
class _File:
    media_type: str
    etag: str
    body: bytes
    gzipped: bytes | None


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(path.name for path in (_STATIC / "assets").iterdir())


@lru_cache(maxsize=64)
def _load(path: Path) -> _File:
    """Read and compress once per process: all files are about 7 MB, 2 MB compressed, and never change under us."""
    body = path.read_bytes()
    gzipped = gzip.compress(body, _COMPRESSION_LEVEL, mtime=0)
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return _File(
        # The system's table may say otherwise, and modules run only as JavaScript.
        media_type="text/javascript" if path.suffix == ".js" else media_type,
        etag=hashlib.sha256(body).hexdigest()[:32],
        body=body,
        gzipped=gzipped if len(gzipped) < len(body) * 0.95 else None,
    )


async def _answer(request: Request, path: Path, headers: dict[str, str]) -> Response:
    file = await asyncio.to_thread(_load, path)
    is_gzipped = file.gzipped is not None and _accepts_gzip(request)
    # Two representations, two strong validators (RFC 9110 §8.8.3.3).
    etag = f'"{file.etag}-gzip"' if is_gzipped else f'"{file.etag}"'
    headers = {**headers, "ETag": etag}
    if _is_known(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    if file.gzipped is not None and is_gzipped:
        return Response(file.gzipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)


def _accepts_gzip(request: Request) -> bool:
    """Whether gzip is named and not refused by a zero weight (RFC 9110 §12.5.3)."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def _is_known(if_none_match: str, etag: str) -> bool:
    """Weak comparison against the client's list (RFC 9110 §13.1.2)."""
    return if_none_match.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
