"""Who is at work: every process of the installation says so every few seconds.

A row lives as long as its process; one that was killed is not believed in after its `expires_at`, three beats later,
and is removed after a day. The table is not logged, because nothing in it is older than a beat: after a crash of
PostgreSQL it is empty and fills by itself. Times are PostgreSQL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint
from tortoise.models import Model

from models.database import rows, to_json
from models.ids import new_id

BEATS_BELIEVED: Final = 3
"""How many beats may be missing before a process counts as gone."""


class ProcessRole(StrEnum):
    """What a process is for."""

    API = "API"
    WORKER = "WORKER"


class Process(Model):
    """A process that runs. `kinds` is what a worker offers, `sample` what it last said of itself."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    name = fields.CharField(max_length=100)
    role = fields.CharEnumField(ProcessRole, max_length=16)
    host = fields.CharField(max_length=255)
    pid = fields.IntField()
    version = fields.CharField(max_length=64)
    started_at = fields.DatetimeField()
    seen_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    kinds: fields.JSONField[list[dict[str, Any]]] = fields.JSONField()
    sample: fields.JSONField[dict[str, Any]] = fields.JSONField()

    class Meta:
        """Table, invariants and the index of what is removed."""

        table = "processes"
        constraints = (CheckConstraint(check="role IN ('API', 'WORKER')", name="processes_role_check"),)
        indexes = (Index(fields=("expires_at",), name="processes_expires"),)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process is for as long as it lives."""

    id: UUID
    name: str
    role: ProcessRole
    host: str
    pid: int
    version: str


async def beat(
    process: Identity, *, kinds: list[dict[str, Any]], sample: dict[str, Any], period_seconds: float
) -> None:
    """Say that a process is at work, and forget those that were gone a day ago."""
    await rows(
        """WITH old AS (DELETE FROM processes WHERE expires_at < now() - interval '1 day' AND id <> $1)
           INSERT INTO processes AS known
               (id, name, role, host, pid, version, started_at, seen_at, expires_at, kinds, sample)
           VALUES ($1, $2, $3, $4, $5, $6, now(), now(), now() + make_interval(secs => $7), $8::jsonb, $9::jsonb)
           ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, expires_at = excluded.expires_at,
               kinds = excluded.kinds, sample = excluded.sample""",
        process.id,
        process.name,
        process.role.value,
        process.host,
        process.pid,
        process.version,
        period_seconds * BEATS_BELIEVED,
        to_json(kinds),
        to_json(sample),
    )


async def leave(process_id: UUID) -> None:
    """Say that a process ends."""
    await rows("DELETE FROM processes WHERE id = $1", process_id)
