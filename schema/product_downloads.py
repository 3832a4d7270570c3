"""`/exports/products/{conditions}`: products as CSV, for whoever has the signed link (`exportProducts`).

Invariant: nothing is looked up before the signature holds. The file is written while it is sent, in little memory.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, Route

from adapters.storage import UrlSigner
from resolvers import product_exports
from settings import Settings

PATH: Final = "/exports/products/"
CONTENT_TYPE: Final = "text/csv"
_PURPOSE: Final = b"switchyard signed product export urls v1"


def link(token: str, settings: Settings) -> str:
    """A link that expires to the products that fit the conditions in a token of `resolvers.product_exports`."""
    return _signer(settings).read_url(
        token,
        expires_seconds=settings.download_url_seconds,
        filename=f"products-{datetime.now(UTC):%Y-%m-%d}.csv",
        content_type=CONTENT_TYPE,
        inline=False,
    )


def routes(settings: Settings) -> list[BaseRoute]:
    """The route that those links lead to."""
    signer = _signer(settings)

    async def download(request: Request) -> StreamingResponse:
        grant = signer.read_grant(request.path_params["conditions"], request.url.query)
        return StreamingResponse(
            product_exports.read(product_exports.read_token(grant.key)),
            media_type=f"{CONTENT_TYPE}; charset=utf-8",
            headers={"Content-Disposition": grant.disposition, "Cache-Control": "private, no-store"},
        )

    return [Route(PATH + "{conditions}", download, methods=["GET"])]


def _signer(settings: Settings) -> UrlSigner:
    return UrlSigner(base_url=settings.base_url, keyring=settings.keyring, path=PATH, purpose=_PURPOSE)
