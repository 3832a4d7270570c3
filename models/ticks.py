"""Who does what has to be done now and then, once, by whichever process is there.

A tick is a moment of the database's clock, a multiple of the period. Taking it is one conditional statement, so of any
number of processes one does the work of a tick, and a frozen one that wakes finds that its tick has gone by.
"""

from __future__ import annotations

from datetime import datetime

from asyncpg import Connection
from tortoise import fields
from tortoise.models import Model


class Tick(Model):
    """The last tick of something periodic that anybody took."""

    name = fields.CharField(max_length=64, primary_key=True)
    at = fields.DatetimeField()

    class Meta:
        """Table."""

        table = "ticks"


async def take(connection: Connection, name: str, period_seconds: float) -> datetime | None:
    """Take the present tick; None when somebody has it already."""
    taken: datetime | None = await connection.fetchval(
        """INSERT INTO ticks AS known (name, at)
           VALUES ($1, to_timestamp(floor(extract(epoch FROM now()) / $2) * $2))
           ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE known.at < excluded.at
           RETURNING at""",
        name,
        period_seconds,
    )
    return taken
