"""Answers to visitors of sites: how a head, a few words, a whole file or a stream leave.

Invariants: every answer says what its bytes are and carries an id; a client that takes nothing, and a store that gives
nothing, are left after STALLED_SECONDS. One line per request is logged at DEBUG only, since a site may be asked for
thousands of files a second; faults are logged where they are met.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final

import structlog
from starlette.types import Receive, Scope, Send

from adapters.cancellation import end
from adapters.storage import StorageUnavailable
from models.ids import new_id

ASK_AGAIN: Final = b"public, max-age=0, must-revalidate"
STALLED_SECONDS: Final = 30.0

_LOGGER: Final = "switchyard.sites"
_switch = logging.getLogger(_LOGGER)
_log = structlog.get_logger(_LOGGER)

Headers = list[tuple[bytes, bytes]]


class SiteAnswer:
    """The way back to one client. Every answer has an id and says what its bytes are."""

    def __init__(self, scope: Scope, send: Send, *, stalled_seconds: float = STALLED_SECONDS) -> None:
        self.is_head = scope.get("method") == "HEAD"
        self.is_started = False
        self._scope = scope
        self._send = send
        self._stalled_seconds = stalled_seconds

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head."""
        self.is_started = True
        request_id = new_id().hex
        if _switch.isEnabledFor(logging.DEBUG):
            _log.debug("site_request", request_id=request_id, path=self._scope["path"], status=status)
        headers = [*headers, (b"x-request-id", request_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send everything."""
        await self.start(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def empty(self, status: int, headers: Headers) -> None:
        """Send a head alone."""
        await self.whole(status, headers, b"")

    async def text(self, status: int, text: str, headers: Headers | None = None) -> None:
        """Send a few words of ours."""
        body = f"{status} {HTTPStatus(status).phrase}\n\n{text}\n".encode()
        own = {
            b"content-type": b"text/plain; charset=utf-8",
            b"content-length": b"%d" % len(body),
            b"x-content-type-options": b"nosniff",
            b"cache-control": b"no-store",
        } | dict(headers or ())
        await self.whole(status, list(own.items()), b"" if self.is_head else body)

    async def moved(self, location: str, status: int) -> None:
        """Send the visitor somewhere else."""
        headers = [(b"location", location.encode("ascii")), (b"cache-control", ASK_AGAIN)]
        await self.text(status, f"See {location}", headers)

    async def stream(
        self, status: int, headers: Headers, chunks: AsyncGenerator[bytes, None], receive: Receive
    ) -> None:
        """Send as storage gives, until the client leaves.

        Raises TimeoutError when one of the two stands still, StorageUnavailable when storage never began.
        """
        try:
            async with asyncio.timeout(self._stalled_seconds):
                chunk = await anext(chunks, b"")
        except TimeoutError as error:
            raise StorageUnavailable("The file store does not answer in time.") from error
        await self.start(status, headers)
        leaving = asyncio.create_task(_left(receive))
        try:
            while chunk and not leaving.done():
                async with asyncio.timeout(self._stalled_seconds):
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                    chunk = await anext(chunks, b"")
        finally:
            await end(leaving)
        await self._send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
