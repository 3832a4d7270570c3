"""The outbox: what has to be told to the world outside, written in the transaction that makes it true.

A message is a row until its work is done: delivered at least once, repeated with growing pauses, given up after many
tries. A key makes a message unique within its topic while it is there, so the same thing is not told twice for two
reasons; a message that was told is gone, and its key is free. Changes of a deployment's status write theirs by a
trigger, because they have several authors (the worker, the sweeper, a person). Whoever takes a message holds it until
`due_at`; `attempts` is the fencing token, so that a teller who comes late puts nothing off that another one has.
Who does the work is in `tasks/outbox.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection
from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model

from models import database

KEPT_DAYS: Final = 30
"""How long a message that was given up can be looked at."""

MAX_ERROR_LENGTH: Final = 500


class OutboxMessage(Model):
    """Something to tell. `due_at` is also the lease of whoever is telling it; `given_up_at` ends the tries.

    For a message that was given up, `due_at` is when it is forgotten.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    topic = fields.CharField(max_length=64)
    key = fields.CharField(max_length=200)
    payload: fields.JSONField[dict[str, Any]] = fields.JSONField()
    due_at = fields.DatetimeField(auto_now_add=True)
    attempts = fields.IntField(default=0)
    last_error = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    given_up_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, key and the index of what is due."""

        table = "outbox_messages"
        constraints = (UniqueConstraint(fields=("topic", "key"), name="outbox_messages_key"),)
        indexes = (Index(fields=("topic", "due_at"), name="outbox_messages_due"),)


@dataclass(frozen=True, slots=True)
class TakenMessage:
    """A message in somebody's hands; `attempts` counts this one too."""

    id: int
    topic: str
    key: str
    payload: Mapping[str, Any]
    attempts: int


_PUT: Final = """
INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)
VALUES ($1, $2, $3::jsonb, now() + make_interval(secs => $4), 0, now())
ON CONFLICT (topic, key) DO NOTHING RETURNING id
"""

# Every topic has places of its own, so that one with many due messages leaves the others theirs.
_TAKE: Final = """
WITH due AS (
    SELECT message.id FROM unnest($1::text[], $2::int[]) AS free(topic, places)
    CROSS JOIN LATERAL (
        SELECT id FROM outbox_messages
        WHERE topic = free.topic AND due_at <= now() AND given_up_at IS NULL
        ORDER BY due_at LIMIT free.places FOR UPDATE SKIP LOCKED
    ) AS message
)
UPDATE outbox_messages SET attempts = attempts + 1, due_at = now() + make_interval(secs => $3)
FROM due WHERE outbox_messages.id = due.id
RETURNING outbox_messages.id, topic, key, payload::text AS payload, attempts
"""


async def put(topic: str, key: str, payload: Mapping[str, Any], *, due_in_seconds: float = 0) -> bool:
    """Add a message in the current unit of work; False when the topic has one with this key already."""
    return await database.value(_PUT, topic, key, database.to_json(dict(payload)), due_in_seconds) is not None


async def put_with(
    connection: Connection, topic: str, key: str, payload: Mapping[str, Any], *, due_in_seconds: float = 0
) -> bool:
    """`put` in the transaction of a connection."""
    text = database.to_json(dict(payload))
    return await connection.fetchval(_PUT, topic, key, text, due_in_seconds) is not None


async def take(connection: Connection, places: Mapping[str, int], *, lease_seconds: float) -> list[TakenMessage]:
    """Due messages of these topics, at most so many of each, for so long; nobody else gets them meanwhile."""
    rows = await connection.fetch(_TAKE, list(places), list(places.values()), lease_seconds)
    return [
        TakenMessage(row["id"], row["topic"], row["key"], database.from_json(row["payload"]), row["attempts"])
        for row in rows
    ]


async def settle(connection: Connection, message: TakenMessage) -> None:
    """Forget a message that was told, whoever holds it by now."""
    await connection.execute("DELETE FROM outbox_messages WHERE id = $1", message.id)


async def put_off(connection: Connection, message: TakenMessage, *, error: str | None, seconds: float) -> None:
    """Let a message wait and be told again; without an error the attempt does not count."""
    await connection.execute(
        """UPDATE outbox_messages SET due_at = now() + make_interval(secs => $3), last_error = coalesce($4, last_error),
               attempts = CASE WHEN $4::text IS NULL THEN attempts - 1 ELSE attempts END
           WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL""",
        message.id,
        message.attempts,
        seconds,
        error and error[:MAX_ERROR_LENGTH],
    )


async def give_up(connection: Connection, message: TakenMessage, *, error: str) -> None:
    """Never tell a message again; it is kept for a while for whoever asks what became of it."""
    await connection.execute(
        """UPDATE outbox_messages SET given_up_at = now(), due_at = now() + make_interval(days => $4), last_error = $3
           WHERE id = $1 AND attempts = $2 AND given_up_at IS NULL""",
        message.id,
        message.attempts,
        error[:MAX_ERROR_LENGTH],
        KEPT_DAYS,
    )


async def forget_given_up(connection: Connection) -> None:
    """Remove messages that were given up long ago: for them, `due_at` is when."""
    await connection.execute("DELETE FROM outbox_messages WHERE due_at <= now() AND given_up_at IS NOT NULL")
