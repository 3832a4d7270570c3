"""Idempotency keys: a repeated request finds what the first one made.

The key belongs to its owner and operation, and is written in the transaction that makes the thing, so either
both exist or neither does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import orjson
from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.models import Model

from errors import Conflict, ValidationFailed
from models import database
from models.users import User

MAX_KEY_LENGTH = 255


class IdempotencyKey(Model):
    """What a key of an owner led to."""

    id = fields.BigIntField(primary_key=True, generated=True)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    operation = fields.CharField(max_length=64)
    key = fields.CharField(max_length=MAX_KEY_LENGTH)
    request_hash = fields.CharField(max_length=64)
    target_id = fields.UUIDField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table and key."""

        table = "idempotency_keys"
        unique_together = (("owner_id", "operation", "key"),)


async def earlier(owner_id: UUID, operation: str, key: str | None, *, request: Mapping[str, Any]) -> UUID | None:
    """The id of what an earlier use of the key made, None for the first use; raises like `once`.

    For those who would check what `once` will not need: it saves them work, and decides nothing.
    """
    if key is None:
        return None
    _check(key)
    return await _made(owner_id, operation, key, _hash(request))


async def once(
    owner_id: UUID,
    operation: str,
    key: str | None,
    *,
    request: Mapping[str, Any],
    target_id: UUID,
    make: Callable[[], Awaitable[None]],
) -> UUID:
    """Run `make` unless the key was used before; return the id of what the first use made.

    Call it inside a unit of work. A second use that races waits for the first one's commit. Raises Conflict
    when the key was used with another request, ValidationFailed when it is empty or too long.
    """
    if key is None:
        await make()
        return target_id
    _check(key)
    request_hash = _hash(request)
    inserted = await database.row(
        """INSERT INTO idempotency_keys (owner_id, operation, key, request_hash, target_id, created_at)
           VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT (owner_id, operation, key) DO NOTHING RETURNING id""",
        owner_id,
        operation,
        key,
        request_hash,
        target_id,
    )
    if inserted is not None:
        await make()
        return target_id
    first_id = await _made(owner_id, operation, key, request_hash)
    if first_id is None:
        raise Conflict("This idempotency key is being forgotten; use another.", path=["input", "idempotencyKey"])
    return first_id


def _check(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise ValidationFailed(
            f"An idempotency key has 1 to {MAX_KEY_LENGTH} characters.", path=["input", "idempotencyKey"]
        )


def _hash(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(request), option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()


async def _made(owner_id: UUID, operation: str, key: str, request_hash: str) -> UUID | None:
    first = await database.row(
        "SELECT request_hash, target_id FROM idempotency_keys WHERE owner_id = $1 AND operation = $2 AND key = $3",
        owner_id,
        operation,
        key,
    )
    if first is None:
        return None
    if first["request_hash"] != request_hash:
        raise Conflict("This idempotency key was used with a different request.", path=["input", "idempotencyKey"])
    target: UUID = first["target_id"]
    return target
