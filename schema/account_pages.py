"""`/account/verify` and `/account/reset`: where links of letters lead when no app is named by APP_URL.

Invariants: a page is the same for every token, which the server never looks at here; opening one changes nothing; no
script is inline, nothing is asked of another origin, and the address with the token is told to nobody (no Referer, not
kept by caches). What a token is good for is decided when the script sends it to `/graphql`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tasks.account_letters import RESET_PATH, VERIFY_PATH

_FOLDER: Final = Path(__file__).with_name("account_files")
_FILES_PATH: Final = "/account/files"
_MEDIA_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
_PAGE: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}
_FILE: Final = {"Cache-Control": "no-cache"}


def routes() -> list[BaseRoute]:
    """The routes of both pages and of what they load."""
    pages = {VERIFY_PATH: "verify.html", RESET_PATH: "reset.html"}
    files = {f"{_FILES_PATH}/{name}": name for name in ("account.css", "account.js")}
    return [
        *(_route(path, name, _PAGE) for path, name in pages.items()),
        *(_route(path, name, _FILE) for path, name in files.items()),
    ]


def _route(path: str, name: str, headers: dict[str, str]) -> Route:
    content = (_FOLDER / name).read_bytes()
    media_type = _MEDIA_TYPES[Path(name).suffix]

    async def answer(_: Request) -> Response:
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, answer, methods=["GET"], name=f"account-{name}")
