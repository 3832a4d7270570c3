"""Codes that work once and for a short time: states of authorizations, and what a browser carries to its app.

Invariants: a code has 256 random bits, whoever shows it first gets what was kept under it and nobody after that, and
Redis holds only its hash. Without Redis there are no codes: there is no second place that all processes share.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

import orjson
from redis.exceptions import RedisError

from adapters import events
from errors import ServiceUnavailable
from settings import Settings

_CODE_BYTES: Final = 32
_MAX_CODE_LENGTH: Final = 128


async def keep(settings: Settings, purpose: str, data: Mapping[str, str | None], *, seconds: int) -> str:
    """Keep data under a new code; raises ServiceUnavailable when Redis is away."""
    code = secrets.token_urlsafe(_CODE_BYTES)
    try:
        await events.bus().redis.set(_key(settings, purpose, code), orjson.dumps(dict(data)), ex=seconds)
    except (RedisError, OSError, TimeoutError):
        raise _unavailable() from None
    return code


async def take(settings: Settings, purpose: str, code: str) -> dict[str, Any] | None:
    """What was kept under a code, this once; None for a code that is wrong, used or too old.

    Raises ServiceUnavailable when Redis is away.
    """
    if len(code) > _MAX_CODE_LENGTH:
        return None
    try:
        kept = await events.bus().redis.getdel(_key(settings, purpose, code))
    except (RedisError, OSError, TimeoutError):
        raise _unavailable() from None
    if kept is None:
        return None
    data: dict[str, Any] = orjson.loads(kept)
    return data


def _key(settings: Settings, purpose: str, code: str) -> str:
    digest = hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
    return f"{settings.redis_namespace}:once:{purpose}:{digest}"


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable("This needs Redis, which does not answer; try again in a moment.")
