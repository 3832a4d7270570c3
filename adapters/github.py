"""GitHub over HTTP: one client per process, its deadlines, and what each refusal means.

Invariants: a call ends within ten seconds, an answer is at most 5 MiB after decompression, no redirect and no address
that GitHub names is followed, and tokens are in headers only, never in an address or the log. Failures leave as errors
of the contract. Which calls there are is `adapters/github_api.py`'s; GitHub Enterprise Server differs in its two
base addresses only.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
import structlog
from yarl import URL

from adapters.github_shapes import UnexpectedShape, mapping, optional_text, text
from errors import Conflict, Forbidden, NotFound, RateLimitExceeded, ServiceUnavailable
from settings import Settings

CALL_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 5 * 2**20
CONNECTIONS: Final = 20
API_VERSION: Final = "2022-11-28"
CONNECT_SCOPES: Final = ("repo",)
"""The scope `repo` covers code, deployments, commit statuses and webhooks of repositories, private ones too."""
SIGN_IN_SCOPES: Final = ("read:user", "user:email")
"""Who somebody is, and their addresses: a sign-in gives no rights over anything."""

_DEFAULT_RETRY_SECONDS: Final = 60.0  # what GitHub's documentation asks for where an answer names no time
_LONGEST_RETRY_SECONDS: Final = 3_600.0
_CHUNK_BYTES: Final = 65_536
_log = structlog.get_logger("switchyard.github")


class TokenRefused(Conflict):
    """GitHub takes the token no longer: it was revoked, or has expired."""

    def __init__(self) -> None:
        super().__init__("GitHub does not accept the connection any more; connect GitHub again.", reason="tokenRefused")


class Refused(Conflict):
    """GitHub understood the request and will not do it, now or later."""


class CodeRefused(Conflict):
    """The authorization did not hold: the code is wrong, used or expired, or the proof does not fit it."""

    def __init__(self) -> None:
        super().__init__("GitHub did not confirm the authorization; start again.", reason="codeRefused")


@dataclass(frozen=True, slots=True)
class Granted:
    """What an authorization brought."""

    token: str = field(repr=False)
    scopes: tuple[str, ...]


class GitHub:
    """A GitHub and our application at it."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._url = settings.github_url
        self._api_url = settings.github_api_url
        self._client_id = settings.github_client_id
        self._client_secret = settings.github_client_secret

    @property
    def is_configured(self) -> bool:
        """Whether there is an OAuth application to sign in with."""
        return bool(self._client_id and self._client_secret)

    def check_configured(self) -> None:
        """Raise ServiceUnavailable unless there is an OAuth application to connect accounts with."""
        self._application()

    def authorization_url(self, *, redirect_uri: str, state: str, verifier: str, scopes: tuple[str, ...]) -> str:
        """Where a person allows us to act for them; PKCE with S256 (RFC 7636 §4.2)."""
        client_id, _ = self._application()
        query = {
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(scopes),
            "state": state,
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
            "allow_signup": "false",
        }
        return f"{self._url}/login/oauth/authorize?{urlencode(query)}"

    async def exchange_code(self, code: str, *, verifier: str, redirect_uri: str) -> Granted:
        """The token of an authorization; raises CodeRefused."""
        client_id, client_secret = self._application()
        form = {
            "client_id": client_id,
            "client_secret": client_secret,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        }
        answer = await self._exchange(
            "POST", f"{self._url}/login/oauth/access_token", headers={"Accept": "application/json"}, form=form
        )
        with understood():
            # Refusals come with status 200 here.
            refusal = optional_text(answer, "error")
            if refusal == "incorrect_client_credentials":
                raise ServiceUnavailable("GitHub does not know this installation: GITHUB_CLIENT_SECRET is wrong.")
            if refusal is not None:
                raise CodeRefused
            if text(answer, "token_type").lower() != "bearer":
                raise UnexpectedShape("token_type")
            scopes = text(answer, "scope").replace(",", " ").split()
            return Granted(token=text(answer, "access_token"), scopes=tuple(scopes))

    async def revoke_token(self, token: str) -> None:
        """Make a token worthless; one that is so already is no error."""
        client_id, client_secret = self._application()
        basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        try:
            await self._exchange(
                "DELETE",
                f"{self._api_url}/applications/{client_id}/token",
                headers={**_API_HEADERS, "Authorization": f"Basic {basic}"},
                body={"access_token": token},
            )
        except (NotFound, Refused):
            return

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON answer of the API to a call, None if it is empty; `path` is encoded already.

        Raises TokenRefused, Forbidden, NotFound, Refused, RateLimitExceeded and ServiceUnavailable.
        """
        address = f"{self._api_url}{path}" + (f"?{urlencode(query)}" if query else "")
        return await self._exchange(
            method, address, headers={**_API_HEADERS, "Authorization": f"Bearer {token}"}, body=body
        )

    async def _exchange(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Any:
        data: bytes | Mapping[str, str] | None = form
        if body is not None:
            data, headers = orjson.dumps(body), {**headers, "Content-Type": "application/json"}
        started = time.perf_counter()
        status: int | None = None
        try:
            async with self._session.request(
                method, URL(address, encoded=True), headers=headers, data=data, allow_redirects=False
            ) as response:
                status = response.status
                content = await _read(response)
                refuse(response.status, response.headers, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("github_lost", method=method, error=repr(error))
            raise ServiceUnavailable("GitHub does not answer; try again in a moment.") from None
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000, 2)
            _log.debug("github_called", method=method, status=status, milliseconds=milliseconds)
        if not content:
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise _not_understood("the answer is no JSON") from None

    def _application(self) -> tuple[str, str]:
        if not self._client_id or not self._client_secret:
            raise ServiceUnavailable(
                "GitHub is not set up here: the operator has to give GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET."
            )
        return self._client_id, self._client_secret.get_secret_value()


_API_HEADERS: Final = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": API_VERSION}
_client: GitHub | None = None


@asynccontextmanager
async def connected(settings: Settings, *, call_seconds: float = CALL_SECONDS) -> AsyncIterator[GitHub]:
    """Open the client for the life of the process; nothing is asked of GitHub yet."""
    global _client
    before = _client
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=call_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Switchyard"},  # GitHub refuses requests without one
        trust_env=False,
    ) as session:
        _client = GitHub(session, settings)
        try:
            yield _client
        finally:
            _client = before


def current() -> GitHub:
    """The client of this process."""
    if _client is None:
        raise LookupError("github.connected() is not open in this process")
    return _client


class understood:
    """Turn an answer of an unexpected shape into ServiceUnavailable."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnexpectedShape):
            raise _not_understood(str(error)) from None


def code_challenge(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def refuse(status: int, headers: Mapping[str, str], content: bytes) -> None:
    """Raise what an answer of GitHub's API means, unless it is a success."""
    if 200 <= status < 300:
        return
    if status == 401:
        raise TokenRefused
    if status == 429 or (status == 403 and _is_rate_limit(headers, content)):
        raise RateLimitExceeded(
            "GitHub asks us to wait before we call again.", retry_after_seconds=_retry_seconds(headers)
        )
    if status in (403, 451):
        raise Forbidden("GitHub does not let the connected account do this.")
    if status in (301, 302, 307, 308):
        raise NotFound("GitHub has this under another name now; use the new one.")
    if status in (404, 410):
        raise NotFound("GitHub has no such thing, or the connected account may not see it.")
    if 400 <= status < 500:
        raise Refused(f"GitHub refuses: {_message(content)}", githubStatus=status)
    raise ServiceUnavailable("GitHub has trouble at the moment; try again in a moment.", githubStatus=status)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, decompressed; raises ServiceUnavailable as soon as it is too long."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()
            raise _not_understood("the answer is too long")
    return bytes(content)


def _is_rate_limit(headers: Mapping[str, str], content: bytes) -> bool:
    """A 403 may mean either; secondary limits show in a header or, at times, in the words only."""
    return "Retry-After" in headers or headers.get("X-RateLimit-Remaining") == "0" or b"rate limit" in content[:4_096]


def _retry_seconds(headers: Mapping[str, str]) -> float:
    after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
    if after.isdecimal() and len(after) < 10:
        seconds = float(after)
    elif headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal() and len(reset) < 12:
        seconds = float(reset) - time.time()
    else:
        seconds = _DEFAULT_RETRY_SECONDS
    return min(max(1.0, round(seconds, 1)), _LONGEST_RETRY_SECONDS)


def _message(content: bytes) -> str:
    """What GitHub says of a refusal, its details too, short enough to show."""
    try:
        answer = mapping(orjson.loads(content))
        parts = [text(answer, "message")]
        for error in answer.get("errors") or ():
            said = error if isinstance(error, str) else optional_text(error, "message") or optional_text(error, "code")
            parts += [said] if said else []
    except (orjson.JSONDecodeError, UnexpectedShape, TypeError):
        return "it does not say why."
    return "; ".join(parts)[:500]


def _not_understood(why: str) -> ServiceUnavailable:
    _log.warning("github_not_understood", why=why)
    return ServiceUnavailable(f"GitHub answered in a way that we do not understand: {why}.")
