"""Signed URLs: a capability to read or to create one object, until it expires; of the local driver and of logs.

Invariant: a signature covers the method, the key and every parameter, so that nothing can be added, dropped or
moved to another object; it is checked, in constant time, before anything else is looked at. Keys are derived from
the service's keyring for this purpose alone; the key id travels in the URL, so that older links live through a
rotation. Serving is left to `schema/files.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import errors
from adapters.storage.contract import (
    INLINE_CONTENT_TYPES,
    check_content_type,
    check_expiry,
    check_key,
    check_sha256,
    check_size,
)

PATH: Final = "/files/"
_PURPOSE: Final = b"switchyard signed file urls v1"
_UNSAFE_IN_FILENAME: Final = re.compile(r'[\x00-\x1f\x7f"\\/]')


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGrant:
    """What a read URL allows, and how the object is to be presented."""

    key: str
    content_type: str | None
    disposition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGrant:
    """What an upload URL allows: one new object of exactly this size, type and checksum."""

    key: str
    size: int
    content_type: str
    sha256: str


class UrlSigner:
    """Makes and checks the URLs of one API; the first key of the keyring signs, all of them verify.

    `path` is where they lead, `purpose` keeps links of one kind from being taken for another's.
    """

    def __init__(
        self,
        *,
        base_url: str,
        keyring: Mapping[str, bytes],
        now: Callable[[], float] = time.time,
        path: str = PATH,
        purpose: bytes = _PURPOSE,
    ) -> None:
        self._base_url = base_url
        self._path = path
        self._keys = {kid: _derive(key, purpose) for kid, key in keyring.items()}
        self._signing_kid = next(iter(self._keys))
        self._now = now

    def read_url(
        self, key: str, *, expires_seconds: int, filename: str | None, content_type: str | None, inline: bool
    ) -> str:
        """A URL for GET and HEAD."""
        parameters = {"disposition": content_disposition(filename, content_type=content_type, inline=inline)}
        if content_type is not None:
            parameters["type"] = check_content_type(content_type)
        return self._url("GET", key, parameters, expires_seconds=expires_seconds)

    def create_url(self, key: str, *, expires_seconds: int, size: int, content_type: str, sha256: str) -> str:
        """A URL for PUT."""
        parameters = {
            "size": str(check_size(size)),
            "type": check_content_type(content_type),
            "sha256": check_sha256(sha256),
        }
        return self._url("PUT", key, parameters, expires_seconds=expires_seconds)

    def read_grant(self, key: str, query: str) -> ReadGrant:
        """What the raw query string of a GET allows; raises Forbidden when forged, tampered with or expired."""
        parameters = self._verified("GET", key, query)
        return ReadGrant(key=key, content_type=parameters.get("type"), disposition=parameters["disposition"])

    def create_grant(self, key: str, query: str) -> CreateGrant:
        """What the raw query string of a PUT allows; raises Forbidden when forged, tampered with or expired."""
        parameters = self._verified("PUT", key, query)
        return CreateGrant(
            key=key, size=int(parameters["size"]), content_type=parameters["type"], sha256=parameters["sha256"]
        )

    def _url(self, method: str, key: str, parameters: Mapping[str, str], *, expires_seconds: int) -> str:
        check_key(key)
        expires = int(self._now()) + check_expiry(expires_seconds)
        signed = sorted({**parameters, "expires": str(expires), "kid": self._signing_kid}.items())
        signature = _signature(self._keys[self._signing_kid], method, key, signed)
        return f"{self._base_url}{self._path}{quote(key)}?{urlencode([*signed, ('signature', signature)])}"

    def _verified(self, method: str, key: str, query: str) -> dict[str, str]:
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=16, errors="strict")
        except ValueError:
            pairs = []
        signed = sorted(pair for pair in pairs if pair[0] != "signature")
        parameters = dict(signed)
        signing_key = self._keys.get(parameters.get("kid", ""))
        given = dict(pairs).get("signature", "")
        expected = b"" if signing_key is None else _signature(signing_key, method, key, signed).encode()
        if not expected or not hmac.compare_digest(expected, given.encode()):
            raise errors.Forbidden("This link is not valid.")
        if int(parameters["expires"]) <= self._now():
            raise errors.Forbidden("This link has expired.")
        return parameters


def content_disposition(filename: str | None, *, content_type: str | None, inline: bool) -> str:
    """The header for a download, or for showing what cannot carry script (RFC 6266, RFC 8187).

    Old clients read the plain-ASCII `filename`; all others prefer `filename*`.
    """
    shown = "inline" if inline and content_type in INLINE_CONTENT_TYPES else "attachment"
    if filename is None:
        return shown
    name = _UNSAFE_IN_FILENAME.sub("_", filename)[:200].encode(errors="replace").decode() or "file"
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"{shown}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _derive(key: bytes, purpose: bytes) -> bytes:
    # HKDF-Expand (RFC 5869 §2.3) of one block: the keyring's keys are uniformly random, so no extract step is due.
    return hmac.digest(key, purpose + b"\x01", "sha256")


def _signature(signing_key: bytes, method: str, key: str, parameters: Sequence[tuple[str, str]]) -> str:
    # No method and no valid key holds a line feed, and urlencode leaves none: the three parts cannot be confused.
    message = "\n".join((method, key, urlencode(parameters)))
    return hmac.new(signing_key, message.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
