"""An OpenID provider over HTTP: where people sign in, what a code is exchanged for, and whom an ID token names.

Invariants: a call ends within ten seconds, an answer is at most 1 MiB after decompression, no redirect is followed; an
ID token is believed only after its signature, by a key of the provider and the algorithm that the key is for, and its
issuer, audience, times and nonce were checked (OpenID Connect Core §3.1.3.7). Discovery document and keys are kept for
an hour; a token with an unknown key is a reason to look again, at most five times a minute. Failures leave as errors
of the contract. Tokens are neither kept nor logged.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import aiohttp
import jwt
import orjson
import structlog
from yarl import URL

from adapters.github import code_challenge
from adapters.github_shapes import UnexpectedShape, listing, mapping, optional_text, text
from errors import Conflict, ServiceUnavailable
from settings import Settings

CALL_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 2**20
KEPT_SECONDS: Final = 3_600.0
REFRESHES_PER_MINUTE: Final = 5
SCOPES: Final = ("openid", "email", "profile")

_DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_CHUNK_BYTES: Final = 65_536
_LEEWAY_SECONDS: Final = 60
_OLDEST_TOKEN_SECONDS: Final = 600
_MAX_SUBJECT_LENGTH: Final = 255
_MAX_TOKEN_LENGTH: Final = 16_384
_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "nonce")
# By the type of the key, and the curve if it has one: what a token claims of itself is not asked.
_ALGORITHMS: Final = {"RSA": "RS256", "EC P-256": "ES256"}
_log = structlog.get_logger("switchyard.openid")


class CodeRefused(Conflict):
    """The sign-in did not hold: the code is wrong, used or expired, or the ID token proves nothing to us."""

    def __init__(self) -> None:
        super().__init__("Google did not confirm the sign-in; start again.", reason="codeRefused")


@dataclass(frozen=True, slots=True)
class Identified:
    """Whom an ID token names. `email` is None unless the provider has verified it."""

    subject: str
    email: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class _Provider:
    """What the discovery document says, as far as it is needed."""

    authorization_url: str
    token_url: str
    keys_url: str


class OpenId:
    """An OpenID provider and our client at it."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._issuer = settings.google_issuer
        self._client_id = settings.google_client_id
        self._client_secret = settings.google_client_secret
        self._lock = asyncio.Lock()
        self._failed_at = float("-inf")
        self._provider: _Provider | None = None
        self._provider_read_at = 0.0
        self._keys: list[jwt.PyJWK] = []
        self._keys_read_at = 0.0
        self._refreshes: deque[float] = deque(maxlen=REFRESHES_PER_MINUTE)
        self._jwt = jwt.PyJWT(options={"require": list(_REQUIRED), "enforce_minimum_key_length": True})

    @property
    def is_configured(self) -> bool:
        """Whether there is a client to sign in with."""
        return bool(self._client_id and self._client_secret)

    async def authorization_url(self, *, redirect_uri: str, state: str, verifier: str, nonce: str) -> str:
        """Where a person signs in; PKCE with S256 (RFC 7636 §4.2). Raises ServiceUnavailable."""
        client_id, _ = self._client()
        provider = await self._discovered()
        query = {
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": " ".join(SCOPES),
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        separator = "&" if "?" in provider.authorization_url else "?"
        return f"{provider.authorization_url}{separator}{urlencode(query)}"

    async def identify(self, code: str, *, verifier: str, redirect_uri: str, nonce: str) -> Identified:
        """Whom a code stands for; raises CodeRefused and ServiceUnavailable."""
        client_id, client_secret = self._client()
        provider = await self._discovered()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
            "client_id": client_id,
            "client_secret": client_secret,
        }
        status, answer = await self._exchange("POST", provider.token_url, form=form)
        try:
            if status in (400, 401):
                if optional_text(answer, "error") in ("invalid_client", "unauthorized_client"):
                    raise ServiceUnavailable("Google does not know this installation: GOOGLE_CLIENT_SECRET is wrong.")
                raise CodeRefused
            if status != 200:
                raise _unavailable()
            return await self._read_token(text(answer, "id_token", max_length=_MAX_TOKEN_LENGTH), nonce=nonce)
        except UnexpectedShape as error:
            raise _not_understood(str(error)) from None

    # -- the ID token

    async def _read_token(self, token: str, *, nonce: str) -> Identified:
        client_id, _ = self._client()
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._key(kid)
            if key is None:
                raise jwt.InvalidTokenError("unknown key")
            claims = self._jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                audience=client_id,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
            )
            _check_claims(claims, client_id=client_id, nonce=nonce)
            return _identified(claims)
        except (jwt.PyJWTError, UnexpectedShape) as error:
            _log.warning("id_token_refused", error=repr(error))
            raise CodeRefused from None

    async def _key(self, kid: Any) -> jwt.PyJWK | None:
        """The key of an id, after another look if it is not known; without an id the only key there is (Core §10.1)."""
        provider = await self._discovered()
        async with self._alone():
            if not self._keys or time.monotonic() - self._keys_read_at > KEPT_SECONDS:
                await self._read_keys(provider)
            found = self._known(kid)
            if found is None and self._may_refresh():
                await self._read_keys(provider)
                found = self._known(kid)
            return found

    def _known(self, kid: Any) -> jwt.PyJWK | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == kid), None)

    def _may_refresh(self) -> bool:
        now = time.monotonic()
        if len(self._refreshes) == REFRESHES_PER_MINUTE and now - self._refreshes[0] < 60:
            return False
        self._refreshes.append(now)
        return True

    async def _read_keys(self, provider: _Provider) -> None:
        status, answer = await self._exchange("GET", provider.keys_url)
        if status != 200:
            raise _unavailable()
        try:
            self._keys = [key for entry in listing(answer, "keys") if (key := _usable(entry)) is not None]
        except UnexpectedShape as error:
            raise _not_understood(str(error)) from None
        self._keys_read_at = time.monotonic()

    # -- the provider

    async def _discovered(self) -> _Provider:
        async with self._alone():
            if self._provider is None or time.monotonic() - self._provider_read_at > KEPT_SECONDS:
                self._provider = await self._read_document()
                self._provider_read_at = time.monotonic()
            return self._provider

    async def _read_document(self) -> _Provider:
        status, answer = await self._exchange("GET", f"{self._issuer}{_DISCOVERY_PATH}")
        if status != 200:
            raise _unavailable()
        try:
            if text(answer, "issuer") != self._issuer:  # OpenID Connect Discovery §4.3
                raise UnexpectedShape("issuer")
            return _Provider(
                authorization_url=self._endpoint(answer, "authorization_endpoint"),
                token_url=self._endpoint(answer, "token_endpoint"),
                keys_url=self._endpoint(answer, "jwks_uri"),
            )
        except UnexpectedShape as error:
            raise _not_understood(str(error)) from None

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One question about document or keys at a time; whoever waited for one that failed has their answer.

        Otherwise those who wait would try one after the other, ten seconds each, at a provider that is silent.
        """
        began = time.monotonic()
        async with self._lock:
            if self._failed_at > began:
                raise _unavailable()
            try:
                yield
            except ServiceUnavailable:
                self._failed_at = time.monotonic()
                raise

    def _endpoint(self, answer: Any, name: str) -> str:
        """An address of the provider; one that is not encrypted only where the issuer is not either."""
        found = text(answer, name)
        try:
            parts = urlsplit(found)
        except ValueError:
            raise UnexpectedShape(name) from None
        if parts.scheme not in {"https", urlsplit(self._issuer).scheme} or not parts.netloc or parts.fragment:
            raise UnexpectedShape(name)
        return found

    async def _exchange(self, method: str, address: str, *, form: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        status: int | None = None
        try:
            async with self._session.request(
                method, URL(address, encoded=True), data=form, allow_redirects=False
            ) as response:
                status = response.status
                content = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _log.warning("openid_lost", method=method, error=repr(error))
            raise _unavailable() from None
        finally:
            _log.debug("openid_called", method=method, status=status)
        try:
            return status, mapping(orjson.loads(content))
        except (orjson.JSONDecodeError, UnexpectedShape):
            raise (_unavailable() if status >= 500 else _not_understood("the answer is no JSON object")) from None

    def _client(self) -> tuple[str, str]:
        if not self._client_id or not self._client_secret:
            raise ServiceUnavailable(
                "Google is not set up here: the operator has to give GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET."
            )
        return self._client_id, self._client_secret.get_secret_value()


_client: OpenId | None = None


@asynccontextmanager
async def connected(settings: Settings, *, call_seconds: float = CALL_SECONDS) -> AsyncIterator[OpenId]:
    """Open the client for the life of the process; nothing is asked of the provider yet."""
    global _client
    before = _client
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=call_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Switchyard", "Accept": "application/json"},
        trust_env=False,
    ) as session:
        _client = OpenId(session, settings)
        try:
            yield _client
        finally:
            _client = before


def current() -> OpenId:
    """The client of this process."""
    if _client is None:
        raise LookupError("openid.connected() is not open in this process")
    return _client


def _check_claims(claims: Mapping[str, Any], *, client_id: str, nonce: str) -> None:
    """What the library does not check: whom a token for several is for, which sign-in it is of, whether it is fresh."""
    party, audience = claims.get("azp"), claims["aud"]
    if party is None and isinstance(audience, list) and len(audience) > 1:
        raise jwt.InvalidAudienceError("several audiences and no authorized party")
    if party is not None and party != client_id:
        raise jwt.InvalidAudienceError("another authorized party")
    given = claims["nonce"]
    if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
        raise jwt.InvalidTokenError("another nonce")
    if time.time() - float(claims["iat"]) > _OLDEST_TOKEN_SECONDS:
        raise jwt.InvalidIssuedAtError("issued too long ago")


def _identified(claims: Mapping[str, Any]) -> Identified:
    subject, email = claims["sub"], claims.get("email")
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise UnexpectedShape("sub")
    # Nothing but true will do: some providers write "false" as text.
    is_verified = claims.get("email_verified") is True
    return Identified(
        subject=subject,
        email=email if is_verified and isinstance(email, str) else None,
        name=optional_text(claims, "name", max_length=120),
    )


def _usable(entry: Any) -> jwt.PyJWK | None:
    """A key for signatures, with the algorithm that it is for; None for keys that we have no use for."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    algorithm = _ALGORITHMS.get(f"{entry.get('kty')} {entry.get('crv', '')}".strip())
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        return jwt.PyJWK.from_dict(entry, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, decompressed; raises ServiceUnavailable as soon as it is too long."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()
            raise _not_understood("the answer is too long")
    return bytes(content)


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable("Google does not answer; try again in a moment.")


def _not_understood(why: str) -> ServiceUnavailable:
    _log.warning("openid_not_understood", why=why)
    return ServiceUnavailable(f"Google answered in a way that we do not understand: {why}.")
