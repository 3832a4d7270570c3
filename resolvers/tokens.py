"""The two tokens of a session: how they are written and read.

The access token is a JWT (RFC 9068's `at+jwt`), HS256 and nothing else, signed with the newest key of the ring
and accepted under any of them by its `kid`. The refresh token is `sws_<session>.<counter>.<HMAC>`; nothing of it
is stored, so the successor of a token can be given again. Reading proves that we wrote a token; whether its
session still holds is decided in `resolvers/sessions.py`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt

from errors import Unauthorized
from models.ids import MalformedId, Prefix, decode_id, encode_id
from models.users import Account
from settings import Settings

AUDIENCE: Final = "switchyard"
LEEWAY_SECONDS: Final = 10
_ALGORITHM: Final = "HS256"
_TYPE: Final = "at+jwt"
_MAX_TOKEN_LENGTH: Final = 8_192
_MAX_REMEMBERED: Final = 10_000
_REFRESH_PREFIX: Final = "sws"
_REFRESH: Final = re.compile(r"(sws_[0-9a-z]{26})\.(0|[1-9][0-9]{0,8})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token proves: whose session it was when it was issued, and until when it may be shown."""

    user_id: UUID
    session_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a refresh token proves: that it once was the current one of a session."""

    session_id: UUID
    counter: int


class TokenKeys:
    """The keyring of one installation, at work. Raises Unauthorized for every token that is not ours."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keyring
        self._newest = next(iter(self._keys))
        self._issuer = settings.base_url
        self._access_life = timedelta(seconds=settings.access_token_seconds)
        # One key, one purpose: a signature made for one of these can never pass for another.
        self._refresh_keys = [_subkey(key, b"refresh token") for key in self._keys.values()]
        self._remembered: dict[str, AccessClaims] = {}
        self._trail_key = _subkey(self._keys[self._newest], b"audit trail")
        self._jwt = jwt.PyJWT(
            options={
                "require": ["sub", "sid", "iat", "exp", "iss", "aud"],
                "strict_aud": True,
                "enforce_minimum_key_length": True,
            }
        )

    def issue_access(self, account: Account, session_id: UUID) -> tuple[str, datetime]:
        """An access token and the moment when it expires."""
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = now + self._access_life
        token = self._jwt.encode(
            {
                "sub": encode_id(Prefix.USER, account.id),
                "sid": encode_id(Prefix.SESSION, session_id),
                "email": account.email,
                "name": account.name,
                "role": account.role.value,
                "iat": now,
                "exp": expires_at,
                "iss": self._issuer,
                "aud": AUDIENCE,
            },
            self._keys[self._newest],
            algorithm=_ALGORITHM,
            headers={"kid": self._newest, "typ": _TYPE},
        )
        return token, expires_at

    def read_access(self, token: str) -> AccessClaims:
        """The claims of an access token; raises Unauthorized with the reason `expired` or `invalid`.

        A token that was verified is remembered: it comes with every request, and only time can spoil it.
        """
        claims = self._remembered.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._remembered) >= _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[token] = claims
        elif claims.expires_at.timestamp() <= time.time() - LEEWAY_SECONDS:
            raise _expired()
        return claims

    def issue_refresh(self, session_id: UUID, counter: int) -> str:
        """The refresh token that is current while the session's counter is `counter`: always the same text."""
        body = f"{encode_id(_REFRESH_PREFIX, session_id)}.{counter}"
        return f"{body}.{_signature(self._refresh_keys[0], body)}"

    def read_refresh(self, token: str) -> RefreshClaims:
        """Session and counter of a refresh token; raises Unauthorized with the reason `invalid`."""
        parts = _REFRESH.fullmatch(token)
        if parts is None:
            raise _invalid()
        session, counter, signature = parts.groups()
        body = f"{session}.{counter}"
        if not any(hmac.compare_digest(_signature(key, body), signature) for key in self._refresh_keys):
            raise _invalid()
        return RefreshClaims(session_id=_id(_REFRESH_PREFIX, session), counter=int(counter))

    def pseudonym(self, text: str) -> str:
        """A keyed hash for the audit trail: equal texts look equal, and the text cannot be guessed from it."""
        return hmac.digest(self._trail_key, text.encode(errors="replace"), hashlib.sha256).hex()[:32]

    def _verify(self, token: str) -> AccessClaims:
        """Check a token in full; PyJWT looks at neither `typ` nor `kid` by itself."""
        if len(token) > _MAX_TOKEN_LENGTH:
            raise _invalid()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != _TYPE:
                raise _invalid()
            key = self._keys.get(header.get("kid", ""))
            if key is None:
                raise _invalid()
            claims = self._jwt.decode(
                token, key, algorithms=[_ALGORITHM], audience=AUDIENCE, issuer=self._issuer, leeway=LEEWAY_SECONDS
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except (jwt.InvalidTokenError, UnicodeEncodeError):
            raise _invalid() from None
        return AccessClaims(
            user_id=_id(Prefix.USER, claims["sub"]),
            session_id=_id(Prefix.SESSION, claims["sid"]),
            expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
        )


def _subkey(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"switchyard " + purpose, hashlib.sha256)


def _signature(key: bytes, body: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, body.encode(), hashlib.sha256)).decode().rstrip("=")


def _id(prefix: str, text: Any) -> UUID:
    try:
        found, decoded = decode_id(text)
    except (MalformedId, AttributeError):
        raise _invalid() from None
    if found != prefix:
        raise _invalid()
    return decoded


def _expired() -> Unauthorized:
    return Unauthorized("The access token has expired; refresh the session.", reason="expired")


def _invalid() -> Unauthorized:
    return Unauthorized("The token is not valid; sign in again.", reason="invalid")
