"""Browsers that an account was signed in with: what their cookie says, and what it is worth.

The cookie proves one thing, that somebody signed in to an account with this browser within a year. It opens nothing: it
only keeps those who guess at the account from a distance from locking its owner out (`resolvers/limits.py`). It names
no session, outlives all of them, and is worthless to another account.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import Final
from uuid import UUID

from settings import Settings

LIFE_SECONDS: Final = 365 * 86_400
_COOKIE: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{16})\.([0-9a-f]{64})", re.ASCII)


def remember(settings: Settings, user_id: UUID) -> str:
    """The value of the cookie of a browser that its owner has just signed in with."""
    body = f"{user_id.hex}.{int(time.time())}.{secrets.token_hex(8)}"
    return f"{body}.{_signature(next(iter(settings.keyring.values())), body)}"


def recognise(settings: Settings, cookie: str | None, user_id: UUID | None) -> str | None:
    """A name for the browser, if its cookie is ours, of this account and younger than a year."""
    parts = _COOKIE.fullmatch(cookie or "")
    if parts is None or user_id is None:
        return None
    owner, issued_at, browser, signature = parts.groups()
    body = f"{owner}.{issued_at}.{browser}"
    is_ours = any(hmac.compare_digest(_signature(key, body), signature) for key in settings.keyring.values())
    if not is_ours or owner != user_id.hex or time.time() - int(issued_at) > LIFE_SECONDS:
        return None
    return f"{owner}.{browser}"


def _signature(key: bytes, body: str) -> str:
    purpose = hmac.digest(key, b"switchyard known device", hashlib.sha256)
    return hmac.digest(purpose, body.encode(), hashlib.sha256).hex()
