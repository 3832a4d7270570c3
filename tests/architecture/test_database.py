"""The database holds what the models promise: the migration tool leaves out constraints of tables it creates."""

from __future__ import annotations

import asyncpg
import pytest
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint

import models

MODELS = [getattr(models, name) for name in models.__all__]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
async def test_every_constraint_of_a_model_is_in_the_database(db: asyncpg.Connection, model: type) -> None:
    meta = model._meta  # type: ignore[attr-defined] # where Tortoise keeps what `class Meta` says
    found = {
        row["conname"]: row["contype"]
        for row in await db.fetch(
            "SELECT conname, contype::text FROM pg_constraint WHERE conrelid = $1::regclass", meta.db_table
        )
    }
    for constraint in meta.constraints:
        kind = {CheckConstraint: "c", UniqueConstraint: "u"}[type(constraint)]
        assert found.get(constraint.name) == kind, f"{meta.db_table} lacks {constraint.name}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
async def test_every_index_of_a_model_is_in_the_database(db: asyncpg.Connection, model: type) -> None:
    meta = model._meta  # type: ignore[attr-defined] # where Tortoise keeps what `class Meta` says
    found = {
        row["indexname"]
        for row in await db.fetch("SELECT indexname FROM pg_indexes WHERE tablename = $1", meta.db_table)
    }
    for index in meta.indexes:
        assert index.name in found, f"{meta.db_table} lacks {index.name}"


async def _new_user(db: asyncpg.Connection) -> object:
    return await db.fetchval(
        """INSERT INTO users (id, email, email_key, username, username_key, name, password_hash, role, is_active,
               created_at)
           SELECT gen, gen::text, gen::text, left(gen::text, 32), left(gen::text, 32), 'x', 'x', 'USER', true, now()
           FROM (SELECT gen_random_uuid() AS gen) AS fresh RETURNING id"""
    )


async def _new_execution(db: asyncpg.Connection, status: str) -> object:
    return await db.fetchval(
        """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
               timeout_seconds, worked_seconds, queued_at, finished_at, failure_retryable, log_sequence, log_bytes)
           VALUES (gen_random_uuid(), 'X', $1, $2::varchar, 0, 0, 0, 3, 60, 0, now(),
                   CASE WHEN $2::varchar = 'CANCELLED' THEN now() END, false, 0, 0) RETURNING id""",
        await _new_user(db),
        status,
    )


async def test_a_final_status_can_never_change(db: asyncpg.Connection) -> None:
    execution_id = await _new_execution(db, "CANCELLED")
    with pytest.raises(asyncpg.RestrictViolationError, match="is final"):
        await db.execute("UPDATE executions SET status = 'QUEUED', finished_at = NULL WHERE id = $1", execution_id)
    assert await db.fetchval("SELECT status FROM executions WHERE id = $1", execution_id) == "CANCELLED"


@pytest.mark.parametrize(
    "change",
    [
        "status = 'RUNNING'",  # without a worker and a lease
        "status = 'SUCCEEDED'",  # without an end
        "status = 'FAILED', finished_at = now()",  # without a failure
        "progress = 101",
        "status = 'DONE'",
    ],
)
async def test_an_execution_that_contradicts_itself_is_refused(db: asyncpg.Connection, change: str) -> None:
    execution_id = await _new_execution(db, "QUEUED")
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE executions SET {change} WHERE id = $1", execution_id)


async def test_history_and_audit_cannot_be_rewritten(db: asyncpg.Connection) -> None:
    execution_id = await _new_execution(db, "QUEUED")
    await db.execute(
        "INSERT INTO execution_events (execution_id, at, status, attempt) VALUES ($1, now(), 'QUEUED', 0)", execution_id
    )
    audit_id = await db.fetchval(
        """INSERT INTO audit_events (id, occurred_at, action, outcome, details)
           VALUES (gen_random_uuid(), now(), 'test', 'success', '{}') RETURNING id"""
    )
    with pytest.raises(asyncpg.RestrictViolationError):
        await db.execute("UPDATE execution_events SET status = 'RUNNING' WHERE execution_id = $1", execution_id)
    with pytest.raises(asyncpg.RestrictViolationError):
        await db.execute("UPDATE audit_events SET action = 'other' WHERE id = $1", audit_id)
    with pytest.raises(asyncpg.RestrictViolationError):
        await db.execute("DELETE FROM audit_events WHERE id = $1", audit_id)
