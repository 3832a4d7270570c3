"""What is removed when it is old enough: finished logs, datasets, audit events, uploads and small things.

Each rule is one condition on age, asked by the statement that removes, so nothing goes that came into use meanwhile.
Pieces are small and each is whole in itself: whoever stops in between leaves something to do and nothing half done. The
objects of what is removed go through the outbox, in the transaction that removes the rows that named them.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final
from uuid import UUID

from asyncpg import Connection

from models.github_queries import Executor
from models.tools import INSTALLED

OLDEST_AUDIT_DAYS: Final = 30
"""The database refuses to forget audit events that are younger."""


class Subject(StrEnum):
    """What has a time of its own."""

    LOGS = "logs"
    ITEMS = "items"
    AUDIT_EVENTS = "audit_events"
    UPLOADS = "uploads"
    NOTIFICATIONS = "notifications"
    WEBHOOK_DELIVERIES = "webhook_deliveries"
    SESSIONS = "sessions"
    ONE_TIME_LINKS = "one_time_links"
    IDEMPOTENCY_KEYS = "idempotency_keys"


# For each subject a table and a condition, where $1 is the age in days.
_OLD: Final[Mapping[Subject, tuple[str, str]]] = {
    Subject.LOGS: (
        "executions",
        # As the index says it; only logs that have moved to storage, which all do when they are finished.
        "finished_at < now() - make_interval(days => $1) AND log_object IS NOT NULL AND NOT log_object ? 'removedAt'",
    ),
    Subject.ITEMS: (
        "job_runs AS run",
        # The run that a dataset is named after stands for all that share it: none of them may be young or at work.
        """run.execution_id = run.dataset_id
           AND NOT EXISTS (
               SELECT 1 FROM job_runs AS each JOIN executions ON executions.id = each.execution_id
               WHERE each.dataset_id = run.dataset_id
                 AND (finished_at IS NULL OR finished_at >= now() - make_interval(days => $1)))
           AND (EXISTS (SELECT 1 FROM items WHERE dataset_id = run.dataset_id)
                OR EXISTS (SELECT 1 FROM crawl_requests WHERE dataset_id = run.dataset_id)
                OR EXISTS (SELECT 1 FROM rejected_items WHERE dataset_id = run.dataset_id)
                OR EXISTS (SELECT 1 FROM output_files WHERE run_id IN (
                    SELECT execution_id FROM job_runs WHERE dataset_id = run.dataset_id)))""",
    ),
    Subject.AUDIT_EVENTS: (
        "audit_events",
        f"occurred_at < now() - make_interval(days => greatest($1, {OLDEST_AUDIT_DAYS})) AND action <> '{INSTALLED}'",
    ),
    Subject.UPLOADS: (
        "media",
        """status = 'READY' AND completed_at < now() - make_interval(days => $1)
           AND NOT EXISTS (SELECT 1 FROM product_media WHERE media_id = media.id)
           AND NOT EXISTS (SELECT 1 FROM scans WHERE media_id = media.id)
           AND NOT EXISTS (SELECT 1 FROM ocr_jobs WHERE media_id = media.id)""",
    ),
    Subject.NOTIFICATIONS: ("notifications", "created_at < now() - make_interval(days => $1)"),
    Subject.WEBHOOK_DELIVERIES: ("webhook_deliveries", "received_at < now() - make_interval(days => $1)"),
    Subject.SESSIONS: ("sessions", "least(expires_at, revoked_at) < now() - make_interval(days => $1)"),
    Subject.ONE_TIME_LINKS: ("one_time_links", "expires_at < now() - make_interval(days => $1)"),
    Subject.IDEMPOTENCY_KEYS: ("idempotency_keys", "created_at < now() - make_interval(days => $1)"),
}


async def count(executor: Executor, subject: Subject, days: int) -> int:
    """How many are older than so many days: logs, datasets or rows."""
    table, condition = _OLD[subject]
    found = await executor.fetch(f"SELECT count(*) AS old FROM {table} WHERE {condition}", days)
    return int(found[0]["old"])


async def remove_rows(connection: Connection, subject: Subject, days: int, *, limit: int) -> int:
    """Remove a piece of what is nothing but rows; returns how many went."""
    table, condition = _OLD[subject]
    gone = await connection.fetchval(
        f"""WITH old AS (SELECT id FROM {table} WHERE {condition} LIMIT $2 FOR UPDATE SKIP LOCKED),
                 gone AS (DELETE FROM {table} USING old WHERE {table}.id = old.id RETURNING 1)
            SELECT count(*) FROM gone""",
        days,
        limit,
    )
    return int(gone)


async def remove_audit_events(connection: Connection, days: int, *, limit: int) -> int:
    """Remove a piece of the old audit trail, through the one function that may."""
    return int(await connection.fetchval("SELECT forget_audit_events($1, $2)", days, limit))


async def remove_logs(connection: Connection, days: int, *, limit: int) -> list[str]:
    """Write down that some old logs are removed; returns the keys of their objects."""
    table, condition = _OLD[Subject.LOGS]
    rows = await connection.fetch(
        f"""WITH old AS (
                SELECT id, log_object->>'key' AS key FROM {table} WHERE {condition}
                ORDER BY finished_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
            UPDATE executions SET log_object = jsonb_build_object('removedAt', to_jsonb(now()))
            FROM old WHERE executions.id = old.id RETURNING old.key""",
        days,
        limit,
    )
    return [row["key"] for row in rows]


async def remove_uploads(connection: Connection, days: int, *, limit: int) -> list[UUID]:
    """Remove some old media that nothing refers to; returns their ids."""
    table, condition = _OLD[Subject.UPLOADS]
    rows = await connection.fetch(
        f"""WITH old AS (SELECT id FROM {table} WHERE {condition} LIMIT $2 FOR UPDATE SKIP LOCKED)
            DELETE FROM media USING old WHERE media.id = old.id RETURNING media.id""",
        days,
        limit,
    )
    return [row["id"] for row in rows]


async def old_dataset(connection: Connection, days: int) -> UUID | None:
    """A dataset that is old and has something left, with its runs locked against being gone on from."""
    table, condition = _OLD[Subject.ITEMS]
    found = await connection.fetchrow(
        f"SELECT run.dataset_id FROM {table} WHERE {condition} LIMIT 1 FOR UPDATE OF run SKIP LOCKED", days
    )
    return None if found is None else found["dataset_id"]


async def remove_of_dataset(connection: Connection, dataset_id: UUID, *, limit: int) -> tuple[int, list[str]]:
    """Remove a piece of a dataset's rows and files; how many rows went, and the keys of the files."""
    gone = 0
    for table in DATASET_TABLES:
        gone += await connection.fetchval(
            f"""WITH old AS (SELECT id FROM {table} WHERE dataset_id = $1 LIMIT $2),
                     gone AS (DELETE FROM {table} USING old WHERE {table}.id = old.id RETURNING 1)
                SELECT count(*) FROM gone""",
            dataset_id,
            limit,
        )
    files = await connection.fetch(
        """DELETE FROM output_files WHERE run_id IN (SELECT execution_id FROM job_runs WHERE dataset_id = $1)
           RETURNING key""",
        dataset_id,
    )
    return gone + len(files), [row["key"] for row in files]


DATASET_TABLES: Final[Sequence[str]] = ("items", "crawl_requests", "rejected_items")
"""Tables that hold what a dataset is made of, each with `id` and `dataset_id`."""
