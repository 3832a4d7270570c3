"""`/logs/{execution}`: a log as plain text, for whoever has the signed link (`Execution.logUrl`).

Invariant: nothing is looked up before the signature holds. Lines are read page by page, wherever they are, so a log of
any length takes little memory. A log that still grows ends with what there is when it is reached.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, Route

from adapters.storage import UrlSigner
from errors import NotFound
from models import logs
from models.logs import Line
from resolvers.logs import read_after
from settings import Settings

PATH: Final = "/logs/"
_PURPOSE: Final = b"switchyard signed log urls v1"


def link(execution_id: UUID, settings: Settings) -> str:
    """A link to a log that expires; the caller has let its reader through the gate."""
    return _signer(settings).read_url(
        str(execution_id),
        expires_seconds=settings.download_url_seconds,
        filename=f"log-{execution_id}.txt",
        content_type="text/plain",
        inline=False,
    )


def routes(settings: Settings) -> list[BaseRoute]:
    """The route that those links lead to."""
    signer = _signer(settings)

    async def download(request: Request) -> StreamingResponse:
        grant = signer.read_grant(request.path_params["execution"], request.url.query)
        execution_id = UUID(grant.key)
        if await logs.state(execution_id) is None:
            raise NotFound("This log does not exist, or no longer.")
        return StreamingResponse(
            _text(execution_id),
            media_type="text/plain; charset=utf-8",
            headers={"Content-Disposition": grant.disposition, "Cache-Control": "private, no-store"},
        )

    return [Route(PATH + "{execution}", download, methods=["GET"])]


async def _text(execution_id: UUID) -> AsyncGenerator[bytes, None]:
    sequence = 0
    while lines := await read_after(execution_id, sequence):
        sequence = lines[-1].sequence
        yield "".join(_written(line) for line in lines).encode()


def _written(line: Line) -> str:
    stage = f" [{line.stage}]" if line.stage else ""
    return f"{line.timestamp:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {line.level}{stage} {line.message}\n"


def _signer(settings: Settings) -> UrlSigner:
    return UrlSigner(base_url=settings.base_url, keyring=settings.keyring, path=PATH, purpose=_PURPOSE)
