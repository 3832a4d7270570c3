"""`/files/{key}`: what the local driver's signed URLs lead to, reading (GET, HEAD) and creating (PUT).

Invariant: nothing is looked up before the signature holds, and what is served can run no script in our origin.
With S3 behind the service its own URLs are used, and here is nothing to find. Who may have a URL is decided where
it is signed, how refusals look by the application's handlers; a body's size is bounded by the signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

import errors
from adapters.storage import LocalStorage, OpenObject, ReadGrant, Storage
from schema.middleware import error_body
from schema.ranges import Unsatisfiable, read_range

STALLED_SECONDS: Final = 30.0
"""A client that neither sends nor takes a byte for so long is gone."""

FILE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private",
    # The link is the permission: a page of any origin that has one may show the image it leads to.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_log = structlog.get_logger("switchyard.api")


def routes(storage_of: Callable[[Request], Storage], *, stalled_seconds: float = STALLED_SECONDS) -> list[BaseRoute]:
    """The route of signed URLs; `storage_of` finds the storage that the lifespan opened."""
    endpoint = _FileEndpoint(storage_of, stalled_seconds=stalled_seconds)
    return [Route("/files/{key:path}", endpoint, methods=["GET", "HEAD", "PUT"], name="files")]


class _FileEndpoint:
    """An ASGI application rather than a function, since an open file has to outlive the making of a response."""

    def __init__(self, storage_of: Callable[[Request], Storage], *, stalled_seconds: float) -> None:
        self._storage_of = storage_of
        self._stalled_seconds = stalled_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._stalled_seconds):
                await send(message)

        request = Request(scope, receive)
        storage = self._storage_of(request)
        if not isinstance(storage, LocalStorage):
            raise errors.NotFound("There are no files here.")
        if request.method == "PUT":
            response = await self._create(request, storage)
            await response(scope, receive, send)
            return
        grant = storage.signer.read_grant(request.path_params["key"], request.url.query)
        async with storage.open(grant.key) as opened:
            try:
                await _present(request, grant, opened)(scope, receive, send_in_time)
            except TimeoutError:
                # Too late for a status: the server cuts the connection of an answer that stays unfinished.
                _log.info("file_reader_stalled", key=grant.key)

    async def _create(self, request: Request, storage: LocalStorage) -> Response:
        grant = storage.signer.create_grant(request.path_params["key"], request.url.query)
        if request.headers.get("content-type") != grant.content_type:
            raise errors.ValidationFailed("Content-Type is not the announced one.", announced=grant.content_type)
        length = request.headers.get("content-length")
        if length is not None and int(length) > grant.size:
            raise errors.PayloadTooLarge("The content is longer than was announced.", size=grant.size)
        async with aclosing(self._body(request)) as body:
            stored = await storage.create(grant, body)
        return Response(status_code=200, headers={"ETag": f'"{stored.etag}"'})

    async def _body(self, request: Request) -> AsyncGenerator[bytes, None]:
        async with aclosing(request.stream()) as stream:
            while True:
                try:
                    async with asyncio.timeout(self._stalled_seconds):
                        chunk = await anext(stream, b"")
                except TimeoutError:
                    raise errors.ValidationFailed("The content stopped arriving.") from None
                if not chunk:
                    return
                yield chunk


def _present(request: Request, grant: ReadGrant, opened: OpenObject) -> Response:
    info = opened.info
    etag = f'"{info.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": grant.disposition,
        "Content-Type": grant.content_type or info.content_type,
        **FILE_HEADERS,
    }
    if _lists(request.headers.get("if-none-match", ""), etag):
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    try:
        wanted = _wanted_range(request, size=info.size, etag=etag)
    except Unsatisfiable:
        refusal = error_body(
            request.scope,
            "The range lies outside the file.",
            status=416,
            extensions={"code": errors.ErrorCode.VALIDATION_ERROR.value, "statusCode": 416, "details": {}},
        )
        refusal.headers["Content-Range"] = f"bytes */{info.size}"
        return refusal
    start, end = wanted or (0, info.size)
    headers["Content-Length"] = str(end - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(opened.read(start, end), status_code=status, headers=headers)


def _wanted_range(request: Request, *, size: int, etag: str) -> tuple[int, int] | None:
    """The range asked for, end exclusive, None for the whole; raises Unsatisfiable."""
    if request.headers.get("if-range", etag) != etag:
        return None
    return read_range(request.headers.get("range", "").encode("latin-1"), size=size)


def _lists(if_none_match: str, etag: str) -> bool:
    return any(listed.strip().removeprefix("W/") in {etag, "*"} for listed in if_none_match.split(","))
