"""What dashboards count: one fact per execution, changes of sums, and the sums.

Invariants: a fact says what its execution and the row of its kind say, because triggers write it (migration
`0030_rollup_triggers`); `rollups` and `rollup_deltas` together are the sums over all facts, in every snapshot. Only
`fold` moves the one into the other. Numbers are whole, so nothing drifts as it is added and subtracted. Queries are in
`models/analytics_queries.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from typing import Final
from uuid import UUID

from asyncpg import Connection
from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model

from models.executions import Execution, ExecutionStatus

EVERYBODY: Final = UUID(int=0)
"""Stands for all owners in `rollups`."""

RISKS: Final = "RISK"
"""The `kind` of sums of risks; their `label` is severity and category, as `HIGH:Budget`."""

SUMS: Final = (
    *("created", "succeeded", "failed", "cancelled", "begun", "waited_ms", "worked_ms", "succeeded_ms", "built_ms"),
    *("items", "pages", "downloaded_bytes", "artifact_bytes", "uploaded_bytes", "log_bytes"),
)
"""What is summed; `worked_ms` is of all that ended, `succeeded_ms` of those that succeeded."""

_FOLD_LOCK: Final = 7_240_311_502  # any number, the same in every process


class ExecutionFact(Model):
    """What counts of one execution. `outcome` is its final status; `target_id` its project or tool."""

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    owner_id = fields.UUIDField()
    kind = fields.CharField(max_length=16)
    target_id = fields.UUIDField(null=True)
    queued_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    outcome = fields.CharEnumField(ExecutionStatus, max_length=16, null=True)
    waited_ms = fields.BigIntField(null=True)
    worked_ms = fields.BigIntField(null=True)
    built_ms = fields.BigIntField(null=True)
    items = fields.BigIntField(default=0)
    pages = fields.BigIntField(default=0)
    downloaded_bytes = fields.BigIntField(default=0)
    artifact_bytes = fields.BigIntField(default=0)
    uploaded_bytes = fields.BigIntField(default=0)
    log_bytes = fields.BigIntField(default=0)
    risks: fields.JSONField[dict[str, int]] = fields.JSONField(null=True)

    class Meta:
        """Table and indexes; two more, with all that durations need, are in the migration."""

        table = "execution_facts"
        indexes = (
            Index(fields=("target_id", "finished_at"), name="execution_facts_target_ended"),
            Index(fields=("target_id", "queued_at"), name="execution_facts_target_asked"),
        )


class _Sums(Model):
    """What both tables of sums have: whose, of what, when, and the sums."""

    owner_id = fields.UUIDField()
    kind = fields.CharField(max_length=16)
    label = fields.CharField(max_length=80)
    at = fields.DatetimeField()
    created = fields.BigIntField()
    succeeded = fields.BigIntField()
    failed = fields.BigIntField()
    cancelled = fields.BigIntField()
    begun = fields.BigIntField()
    waited_ms = fields.BigIntField()
    worked_ms = fields.BigIntField()
    succeeded_ms = fields.BigIntField()
    built_ms = fields.BigIntField()
    items = fields.BigIntField()
    pages = fields.BigIntField()
    downloaded_bytes = fields.BigIntField()
    artifact_bytes = fields.BigIntField()
    uploaded_bytes = fields.BigIntField()
    log_bytes = fields.BigIntField()

    class Meta:
        """No table of its own."""

        abstract = True


class RollupDelta(_Sums):
    """A change of sums that is not folded yet. `at` is the beginning of a quarter-hour."""

    id = fields.BigIntField(primary_key=True, generated=True)

    class Meta:
        """Table."""

        table = "rollup_deltas"


class Rollup(_Sums):
    """Sums of one owner, or of everybody, for one quarter-hour, or for all time: then `at` is `-infinity`."""

    id = fields.BigIntField(primary_key=True, generated=True)

    class Meta:
        """Table and key, in the order of reading."""

        table = "rollups"
        constraints = (UniqueConstraint(fields=("owner_id", "kind", "at", "label"), name="rollups_key"),)


_COLUMNS: Final = ", ".join(SUMS)

# Of each delta four sums know: its owner's and everybody's, for its quarter-hour and for all time.
_FOLD: Final = f"""
WITH gone AS (
    DELETE FROM rollup_deltas WHERE id IN (SELECT id FROM rollup_deltas ORDER BY id LIMIT $1) RETURNING *
), summed AS (
    SELECT owner.id AS owner_id, kind, label, moment.at, {", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)}
    FROM gone
    CROSS JOIN LATERAL (VALUES (gone.owner_id), ('{EVERYBODY}'::uuid)) AS owner(id)
    CROSS JOIN LATERAL (VALUES (gone.at), ('-infinity'::timestamptz)) AS moment(at)
    GROUP BY owner.id, kind, label, moment.at
), stored AS (
    INSERT INTO rollups (owner_id, kind, label, at, {_COLUMNS})
    SELECT owner_id, kind, label, at, {_COLUMNS} FROM summed
    ON CONFLICT (owner_id, kind, at, label)
        DO UPDATE SET {", ".join(f"{name} = rollups.{name} + excluded.{name}" for name in SUMS)}
    RETURNING id, {_COLUMNS}
)
SELECT (SELECT count(*) FROM gone) AS folded,
       array(SELECT id FROM stored WHERE ({_COLUMNS}) = ({", ".join("0" for _ in SUMS)})) AS empty
"""


async def fold(connection: Connection, *, limit: int) -> int:
    """Move at most so many deltas into the sums; how many it were, 0 also while another process folds.

    Sums of nothing are removed.
    """
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _FOLD_LOCK):
            return 0
        done = (await connection.fetch(_FOLD, limit))[0]
        if done["empty"]:
            await connection.execute("DELETE FROM rollups WHERE id = ANY($1::bigint[])", done["empty"])
        return int(done["folded"])


async def has_sums(connection: Connection, owner_id: UUID) -> bool:
    """Whether anything is kept of an owner: sums that are not zero, or changes that are not folded yet."""
    return bool(
        await connection.fetchval(
            """SELECT EXISTS (SELECT FROM rollups WHERE owner_id = $1)
                   OR EXISTS (SELECT FROM rollup_deltas WHERE owner_id = $1)""",
            owner_id,
        )
    )
