"""Who is asking: the token of a request or a socket, whether it may be believed, and when it stops to hold.

A bearer token wins over a cookie. A cookie counts only when the browser says that our own page or an allowed one made
the request, because cookies come along by themselves (OWASP ASVS 5.0 §3.5). A bad bearer token refuses the request; a
bad cookie leaves the caller anonymous, since a browser cannot choose not to send it and must still be able to sign in.
A token of a script comes as a bearer token only. What a token proves is decided by `resolvers/sessions.py` and
`resolvers/access_tokens.py`, which are handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import structlog

from errors import ServiceUnavailable, Unauthorized
from models.permissions import Actor, Origin
from resolvers.access_token_text import looks_like_access_token
from settings import Settings

RETRY_SECONDS: Final = 1.0
"""How soon to look again at credentials that could not be looked at."""

_LONGEST_WAIT_SECONDS: Final = 3_600.0

_log = structlog.get_logger("switchyard.graphql")
RawHeaders = list[tuple[bytes, bytes]]


class Watcher(Protocol):
    """What wakes up when credentials may hold no longer, or for something else."""

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for a change, at most so long."""


def access_cookie(settings: Settings) -> str:
    """The name of the cookie that carries the access token."""
    return _cookie_name(settings, "switchyard_access")


def refresh_cookie(settings: Settings) -> str:
    """The name of the cookie that carries the refresh token."""
    return _cookie_name(settings, "switchyard_refresh")


def device_cookie(settings: Settings) -> str:
    """The name of the cookie that says that somebody signed in with this browser before."""
    return _cookie_name(settings, "switchyard_device")


def oauth_cookie(settings: Settings) -> str:
    """The name of the cookie of a browser that began to sign in at a provider."""
    return _cookie_name(settings, "switchyard_oauth")


def _cookie_name(settings: Settings, name: str) -> str:
    # A browser takes `__Host-` only with Secure, so plain http on one's own machine goes without (RFC 6265bis §4.1.3).
    return f"__Host-{name}" if settings.base_url.startswith("https://") else name


@dataclass(frozen=True, slots=True)
class Caller:
    """An actor, the token that proves it (None when anonymous), and the cookies that may be believed."""

    actor: Actor
    token: str | None = None
    cookies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gate:
    """Turns headers into callers.

    `authenticate` raises Unauthorized with `details.reason` expired, invalid or revoked. `expires_at` is None for a
    token that does not expire. `watch` opens a watcher of the credentials that an actor has shown; it wakes up within
    seconds of their change, whether an event told of it or not (`resolvers/standing.py`).
    """

    settings: Settings
    authenticate: Callable[[str, Origin], Awaitable[Actor]]
    expires_at: Callable[[str], datetime | None]
    watch: Callable[[Actor], AbstractAsyncContextManager[Watcher]]

    async def caller_of(self, headers: RawHeaders, origin: Origin) -> Caller:
        """The caller of a request; raises Unauthorized for a bad bearer token, ServiceUnavailable when nobody knows."""
        authorization = cookie_header = None
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"cookie":
                cookie_header = value if cookie_header is None else cookie_header + b"; " + value
        cookies = self._cookies(headers, cookie_header) if cookie_header is not None else {}
        if authorization is not None:
            token = bearer_token(authorization.decode("latin-1"))
            return Caller(await self.authenticate(token, origin), token, cookies)
        token = cookies.get(access_cookie(self.settings), "")
        # Tokens of scripts are not for browsers, which send cookies along by themselves.
        if token and not looks_like_access_token(token):
            try:
                return Caller(await self.authenticate(token, origin), token, cookies)
            except Unauthorized:
                _log.debug("cookie_refused", request_id=origin.request_id)
        return Caller(Actor(origin=origin), None, cookies)

    def allows_origin(self, headers: RawHeaders) -> bool:
        """Whether no foreign page made this request: it names no origin, ours, or one of ALLOWED_ORIGINS."""
        origin = _single(headers, b"origin")
        return origin is None or self._is_ours(origin, _single(headers, b"host"))

    async def ended(self, token: str, actor: Actor, renewed: Callable[[Actor], None]) -> Unauthorized:
        """Wait until a token holds no longer and return why; tells `renewed` the actor each time that it still does.

        Looks again when its watcher wakes up. While the database is away the token's own end still counts.
        """
        expires_at = actor.valid_until or self.expires_at(token)
        async with self.watch(actor) as watcher:
            left_seconds = _LONGEST_WAIT_SECONDS
            while True:
                if expires_at is not None:
                    left_seconds = min(left_seconds, (expires_at - datetime.now(UTC)).total_seconds())
                if left_seconds <= 0:
                    return Unauthorized("The access token has expired; send a new one.", reason="expired")
                await watcher.wait(left_seconds)
                left_seconds = _LONGEST_WAIT_SECONDS
                try:
                    renewed(await self.authenticate(token, actor.origin))
                except Unauthorized as error:
                    return error
                except ServiceUnavailable as error:
                    left_seconds = RETRY_SECONDS
                    _log.warning("session_not_checked", error=error.message, request_id=actor.origin.request_id)

    def _cookies(self, headers: RawHeaders, cookie_header: bytes) -> dict[str, str]:
        if not self._browser_vouches(headers):
            return {}
        try:
            parsed = SimpleCookie(cookie_header.decode("latin-1"))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in parsed.items()}

    def _browser_vouches(self, headers: RawHeaders) -> bool:
        origin = _single(headers, b"origin")
        if origin is not None:
            return self._is_ours(origin, _single(headers, b"host"))
        return _single(headers, b"sec-fetch-site") in (b"same-origin", b"none")

    def _is_ours(self, origin: bytes, host: bytes | None) -> bool:
        text = origin.decode("latin-1").lower()
        own = urlsplit(self.settings.base_url)
        if text == f"{own.scheme}://{own.netloc}".lower() or text in self.settings.allowed_origins:
            return True
        scheme, separator, netloc = text.partition("://")
        # Behind a proxy only the host tells where we are; a page of another host cannot forge it.
        return bool(separator) and scheme == own.scheme and netloc.encode("latin-1") == (host or b"").lower()


def bearer_token(authorization: Any) -> str:
    """The token of `Bearer …` (RFC 6750 §2.1); raises Unauthorized for anything else."""
    if isinstance(authorization, str):
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and (token := token.strip()):
            return token
    raise Unauthorized("The authorization must be `Bearer` and a token.", reason="invalid")


def _single(headers: RawHeaders, wanted: bytes) -> bytes | None:
    """The value of a header; one that is there twice is nobody's."""
    values = [value for name, value in headers if name == wanted]
    return None if not values else values[0] if len(values) == 1 else b""
