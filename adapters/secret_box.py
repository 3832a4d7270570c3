"""Secrets at rest: texts sealed with a key of the ring, which open only in the row that they were sealed for.

A sealed text is `v1.<key id>.<base64url of nonce and ciphertext>`: AES-256-GCM with a random nonce of 96 bits
(NIST SP 800-38D §8.2.2: good for 2^32 values under one key) and a key that HKDF-SHA256 (RFC 5869) derives for this
purpose alone. Version, key id, table, column and row are authenticated with it, so a text that was moved to another
row, or changed in any bit, does not open. No error shows a value or a key.

The length of a value is not hidden. What is sealed, and how it moves to a new key, is in `models/sealed.py` and
`resolvers/key_rotation.py`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.sealed import Place

__all__ = ["CannotOpen", "Place", "SecretBox", "Tampered", "UnknownKey"]

_VERSION: Final = "v1"
_PURPOSE: Final = b"switchyard sealed values v1"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SEALED: Final = re.compile(r"v1\.(?P<kid>.+)\.(?P<payload>[A-Za-z0-9_-]+)", re.ASCII | re.DOTALL)


class CannotOpen(Exception):
    """A sealed text does not open."""


class UnknownKey(CannotOpen):
    """The ring does not hold the key: it was removed too early, or belongs to another installation."""

    def __init__(self, kid: str) -> None:
        super().__init__(f"SECRET_KEYS holds no key {kid[:64]!r}, which this value is sealed with")
        self.kid = kid


class Tampered(CannotOpen):
    """The text is no sealed value, was changed, or was sealed for another place or with another key of this id."""

    def __init__(self) -> None:
        super().__init__("this is no value that was sealed here, for this place, with the key that it names")


class SecretBox:
    """Seals with the first key of a ring, which is the newest, and opens with any of them."""

    __slots__ = ("_ciphers", "_newest_kid")

    def __init__(self, keyring: Mapping[str, bytes]) -> None:
        if not keyring:
            raise ValueError("a keyring needs at least one key")
        self._ciphers = {kid: AESGCM(_derive(key)) for kid, key in keyring.items()}
        self._newest_kid = next(iter(keyring))

    @property
    def newest_kid(self) -> str:
        """The id of the key that seals."""
        return self._newest_kid

    def seal(self, plaintext: bytes | str, *, place: Place) -> str:
        """The sealed text of a value; raises ValueError for what UTF-8 does not have."""
        data = _utf8(plaintext)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest_kid].encrypt(nonce, data, _authenticated(self._newest_kid, place))
        return f"{_VERSION}.{self._newest_kid}.{_encode(nonce + sealed)}"

    def open(self, token: str, *, place: Place) -> str:
        """The value of a text that was sealed for this place; raises UnknownKey or Tampered."""
        kid, payload = _parse(token)
        cipher = self._ciphers.get(kid)
        if cipher is None:
            raise UnknownKey(kid)
        try:
            data = cipher.decrypt(payload[:_NONCE_BYTES], payload[_NONCE_BYTES:], _authenticated(kid, place))
        except InvalidTag:
            raise Tampered from None
        return data.decode()

    def needs_rotation(self, token: str) -> bool:
        """Whether a text is sealed with another key than the newest; raises Tampered when it is no sealed text."""
        return kid_of(token) != self._newest_kid


def kid_of(token: str) -> str:
    """The id of the key that a text says it is sealed with; raises Tampered when it is no sealed text."""
    return _parse(token)[0]


def size_of(token: str) -> int:
    """Bytes of the value in a sealed text, which takes no key; raises Tampered when it is no sealed text."""
    return len(_parse(token)[1]) - _NONCE_BYTES - _TAG_BYTES


def _parse(token: str) -> tuple[str, bytes]:
    parts = _SEALED.fullmatch(token)
    if parts is None:
        raise Tampered
    encoded = parts["payload"]
    try:
        payload = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        raise Tampered from None
    # One value has one text: base64 ignores the last bits of an odd end, and nothing may be ignored here.
    if len(payload) < _NONCE_BYTES + _TAG_BYTES or _encode(payload) != encoded:
        raise Tampered
    return parts["kid"], payload


def _derive(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key)


def _authenticated(kid: str, place: Place) -> bytes:
    """All that a sealed text depends on; each part behind its length, so that no two places look the same."""
    parts = (_VERSION, kid, place.table, place.column, str(place.row_id))
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _utf8(plaintext: bytes | str) -> bytes:
    try:
        return plaintext.encode() if isinstance(plaintext, str) else plaintext.decode().encode()
    except UnicodeError:
        pass
    # Raised out here because the decoder's error, which would be its context, carries the whole value.
    raise ValueError("the value is not text in UTF-8")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
