"""Sample data: the account that has it, and rows whose times are in the past.

The account is known by its id, which clients cannot choose: whatever it is called by now, it is the demo's, and no
other account ever is. It is inactive until all that belongs to it is there. What the data tells is `resolvers/demo`'s.
"""

# ruff: noqa: S608 - names of tables and columns are constants of our own; values travel as parameters

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from errors import Conflict
from models import database, product_queries
from models.database import Row
from models.users import email_key, username_key

DEMO_USER_ID: Final = UUID("00dc6acf-ac00-7000-8000-64656d6f0001")
"""A UUIDv7 of the year 2000: before all others, and of no moment at which anybody registered."""

_LOCK: Final = 7_240_311_755  # any number, the same in every process


@asynccontextmanager
async def alone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Nobody else makes or removes the demo meanwhile; raises Conflict when somebody does. Killed, it is free."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        raise Conflict("The demo is being made or removed at this moment; try again when that has ended.")
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def account() -> Row | None:
    """The demo's account: `username`, `email`, `is_active`, `deleted_at`; None when there is none."""
    return await database.row("SELECT username, email, is_active, deleted_at FROM users WHERE id = $1", DEMO_USER_ID)


async def others_have_work() -> bool:
    """Whether anybody else has something that sums over everybody would tell apart from the demo's."""
    return bool(
        await database.value(
            """SELECT EXISTS (SELECT 1 FROM executions WHERE owner_id <> $1)
                   OR EXISTS (SELECT 1 FROM jobs WHERE owner_id <> $1)
                   OR EXISTS (SELECT 1 FROM projects WHERE owner_id <> $1)""",
            DEMO_USER_ID,
        )
    )


async def add_account(*, email: str, username: str, name: str, created_at: datetime) -> bool:
    """Add the demo's account, to which no password leads yet; False when its address or username is another's.

    No letters are sent to its address, which nobody reads.
    """
    added = await database.value(
        """INSERT INTO users (id, email, email_key, username, username_key, name, role, is_active, created_at,
               email_verified_at)
           VALUES ($1, $2, $3, $4, $5, $6, 'USER', false, $7, $7) ON CONFLICT DO NOTHING RETURNING id""",
        DEMO_USER_ID,
        email,
        email_key(email),
        username,
        username_key(username),
        name,
        created_at,
    )
    if added is None:
        return False
    await database.rows(
        """INSERT INTO preferences (user_id, theme, email_notifications, deployment_success, deployment_failure,
               job_notifications, updated_at)
           VALUES ($1, 'SYSTEM', false, true, true, true, now())""",
        DEMO_USER_ID,
    )
    return True


async def open_account(password_hash: str) -> bool:
    """Let the account be used from now on; False when it is open already, or gone."""
    opened = await database.value(
        """UPDATE users SET is_active = true, password_hash = $2, password_changed_at = now()
           WHERE id = $1 AND NOT is_active AND deleted_at IS NULL RETURNING id""",
        DEMO_USER_ID,
        password_hash,
    )
    return opened is not None


async def insert(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, which all have the columns of the first, in their order; bytes are given as `\\x…`."""
    if not rows:
        return
    columns = ", ".join(f'"{name}"' for name in rows[0])
    await database.rows(
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)",
        database.to_json(list(rows)),
    )


async def silence(execution_ids: Sequence[UUID]) -> None:
    """Take back what triggers have put into the outbox in the same transaction: nobody is told of the past."""
    await database.rows(
        """DELETE FROM outbox_messages WHERE topic IN ('deployment.status', 'execution.news')
               AND payload->>'executionId' = ANY($1::text[])""",
        [str(execution_id) for execution_id in execution_ids],
    )


async def set_past(table: str, row_id: UUID, *, created_at: datetime) -> None:
    """Let a job or a project have been made earlier."""
    await database.rows(f"UPDATE {table} SET created_at = $2, updated_at = $2 WHERE id = $1", row_id, created_at)


async def set_last_run(job_id: UUID, *, created_at: datetime, last_run_at: datetime | None) -> None:
    """Let a schedule have been made earlier, and have fired."""
    await database.rows(
        "UPDATE job_schedules SET created_at = $2, updated_at = $2, last_run_at = $3 WHERE job_id = $1",
        job_id,
        created_at,
        last_run_at,
    )


async def set_deployment_count(project_id: UUID, count: int) -> None:
    """Let the next deployment have the next number."""
    await database.rows("UPDATE projects SET deployment_count = $2 WHERE id = $1", project_id, count)


async def tools() -> dict[str, UUID]:
    """An active tool of each spider, the oldest one."""
    found = await database.rows(
        "SELECT DISTINCT ON (spider) spider, id FROM tools WHERE is_active ORDER BY spider, created_at"
    )
    return {row["spider"]: row["id"] for row in found}


async def now() -> datetime:
    """The database's clock."""
    moment: datetime = await database.value("SELECT clock_timestamp()")
    return moment


async def forget_purge() -> None:
    """Take back the message by which a worker would remove an account that is gone."""
    await database.rows("DELETE FROM outbox_messages WHERE topic = 'account.purge' AND key = $1", str(DEMO_USER_ID))


# -- the catalogue of products, which is everybody's


async def may_fill_catalogue() -> bool:
    """Whether nobody has products here; until the end of the transaction nobody makes any."""
    await product_queries.lock_writes()
    return not await database.value("SELECT EXISTS (SELECT 1 FROM products)")


async def remove_products() -> int:
    """Remove products that nothing but the demo's jobs has found on any site, and where they were found; how many.

    What an administrator's crawl has found there since is the administrator's.
    """
    await product_queries.lock_writes()
    gone = await database.rows(
        """WITH listed AS (
               DELETE FROM product_sources s USING jobs j WHERE j.id = s.job_id AND j.owner_id = $1
               RETURNING s.id, s.product_id
           )
           DELETE FROM products p
           WHERE p.id IN (SELECT product_id FROM listed) AND NOT EXISTS (
               SELECT 1 FROM product_sources s WHERE s.product_id = p.id AND s.id NOT IN (SELECT id FROM listed))
           RETURNING p.id""",
        DEMO_USER_ID,
    )
    return len(gone)


# -- what is there, for those who count and complete it


async def built_deployments() -> list[Row]:
    """Deployments that were built and lack files: `id`, `project_id`, `repository`, and what was built."""
    return await database.rows(
        """SELECT d.execution_id AS id, d.project_id, p.repository, d.number, d.branch, d.commit_hash
           FROM deployments d JOIN projects p ON p.id = d.project_id JOIN executions e ON e.id = d.execution_id
           WHERE p.owner_id = $1 AND e.status = 'SUCCEEDED' AND d.clone_url = p.repository
             AND NOT EXISTS (SELECT 1 FROM deployment_files f WHERE f.deployment_id = d.execution_id)
           ORDER BY d.project_id, d.number""",
        DEMO_USER_ID,
    )


async def runs_without_files() -> list[Row]:
    """Of each job of the demo the newest run that came to its end, unless it has its files: `id`, `spider`, `input`."""
    return await database.rows(
        """SELECT id, spider, input FROM (
               SELECT DISTINCT ON (r.job_id) e.id, r.spider, r.input::text AS input
               FROM job_runs r JOIN executions e ON e.id = r.execution_id
               WHERE e.owner_id = $1 AND e.status = 'SUCCEEDED' ORDER BY r.job_id, e.id DESC
           ) AS newest WHERE NOT EXISTS (SELECT 1 FROM output_files f WHERE f.run_id = newest.id)""",
        DEMO_USER_ID,
    )


async def items_of(run_id: UUID) -> list[Row]:
    """The items of a run in their order, as JSON text in `data`."""
    return await database.rows("SELECT data::text AS data FROM items WHERE run_id = $1 ORDER BY id", run_id)


async def jobs() -> dict[str, UUID]:
    """The demo's jobs by the spider of their tool, the oldest of each."""
    found = await database.rows(
        """SELECT DISTINCT ON (t.spider) t.spider, j.id FROM jobs j JOIN tools t ON t.id = j.tool_id
           WHERE j.owner_id = $1 ORDER BY t.spider, j.id""",
        DEMO_USER_ID,
    )
    return {row["spider"]: row["id"] for row in found}


async def media() -> list[UUID]:
    """The media of the demo."""
    found = await database.rows("SELECT id FROM media WHERE owner_id = $1 ORDER BY id", DEMO_USER_ID)
    return [row["id"] for row in found]


async def counts() -> dict[str, int]:
    """How much of each the demo has now."""
    found = await database.row(
        """SELECT
             (SELECT count(*) FROM jobs WHERE owner_id = $1) AS jobs,
             (SELECT count(*) FROM executions WHERE owner_id = $1 AND kind = 'CRAWL') AS runs,
             (SELECT count(*) FROM items i JOIN executions e ON e.id = i.run_id WHERE e.owner_id = $1) AS items,
             (SELECT count(*) FROM properties WHERE owner_id = $1) AS properties,
             (SELECT count(DISTINCT s.product_id) FROM product_sources s JOIN jobs j ON j.id = s.job_id
              WHERE j.owner_id = $1) AS products,
             (SELECT count(*) FROM projects WHERE owner_id = $1) AS projects,
             (SELECT count(*) FROM executions WHERE owner_id = $1 AND kind = 'DEPLOYMENT') AS deployments,
             (SELECT count(*) FROM executions WHERE owner_id = $1 AND kind = 'SCAN') AS scans,
             (SELECT count(*) FROM scan_risks r JOIN executions e ON e.id = r.scan_id WHERE e.owner_id = $1) AS risks,
             (SELECT count(*) FROM executions WHERE owner_id = $1 AND kind = 'OCR') AS documents,
             (SELECT count(*) FROM notifications WHERE user_id = $1) AS notifications""",
        DEMO_USER_ID,
    )
    return {} if found is None else {name: int(count) for name, count in found.items()}


async def working_here(host: str, kind: str) -> bool:
    """Whether a worker of this machine takes executions of a kind."""
    return bool(
        await database.value(
            """SELECT EXISTS (SELECT 1 FROM processes WHERE role = 'WORKER' AND host = $1 AND expires_at > now()
                              AND kinds @> jsonb_build_array(jsonb_build_object('kind', $2::text)))""",
            host,
            kind,
        )
    )
