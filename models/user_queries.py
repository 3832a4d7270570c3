"""Users as administrators keep them: lists, roles, deactivation, and the end of an account.

Invariants: whoever changes who administers the installation holds the rows of all active administrators, locked in the
order of their ids; a deleted account has no address, name or secret left and opens nothing, whatever rows are still to
be removed; objects of it are known by rows until they are gone from storage. Functions with an `executor` are for
workers.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

import base64
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from asyncpg import Connection

from models import analytics, database, keyset
from models.database import Row
from models.execution_commands import CANCEL_ALL_OF_OWNER
from models.github_queries import Executor
from models.permissions import Role
from models.tools import containing
from models.users import ACCOUNT_COLUMNS


class UserOrderField(StrEnum):
    """What a list of users can be sorted by."""

    CREATED_AT = "CREATED_AT"
    USERNAME = "USERNAME"
    EMAIL = "EMAIL"


# Columns and the cast of values they are compared with, by what clients sort by. Ids are in the order of creation.
_SORT_COLUMNS: Final = {
    UserOrderField.CREATED_AT: ("u.id", "${}::uuid"),
    UserOrderField.USERNAME: ("u.username_key, u.id", "${}::text, ${}::uuid"),
    UserOrderField.EMAIL: ("u.email_key, u.id", "${}::text, ${}::uuid"),
}

PERSONAL_DETAILS: Final = ("login", "email", "username", "name", "filename", "repository", "identifierHash")
"""Keys of an audit event's details that say who somebody is."""

# What is only the account's; a row that somebody holds is passed over: it opens nothing, and goes with the account.
_BELONGINGS: Final = (
    *("sessions", "access_tokens", "identities", "oauth_connections", "one_time_links", "recovery_codes"),
    "notifications",
)


# -- lists


async def visible(
    *,
    search: str | None,
    role: Role | None,
    is_active: bool | None,
    order: UserOrderField,
    descending: bool,
    after: tuple[Any, ...] | None,
    before: tuple[Any, ...] | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Accounts that are not deleted, strictly between two sort keys; backwards from the end of the order."""
    where, values = _conditions(search, role, is_active)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, values, after=after, before=before, descending=descending, backwards=backwards
    )
    values.append(limit)
    return await database.rows(
        f"""SELECT {ACCOUNT_COLUMNS}, u.username_key, u.email_key FROM users u
            WHERE {" AND ".join(where + bounds)} ORDER BY {by} LIMIT ${len(values)}""",
        *values,
    )


async def count(*, search: str | None, role: Role | None, is_active: bool | None) -> int:
    """How many there are in all."""
    where, values = _conditions(search, role, is_active)
    return int(await database.value(f"SELECT count(*) FROM users u WHERE {' AND '.join(where)}", *values))


def _conditions(search: str | None, role: Role | None, is_active: bool | None) -> tuple[list[str], list[Any]]:
    where, values = ["u.deleted_at IS NULL"], list[Any]()
    for column, wanted in (("u.role", role and role.value), ("u.is_active", is_active)):
        if wanted is not None:
            values.append(wanted)
            where.append(f"{column} = ${len(values)}")
    if search:
        values.append(containing(search))
        # A line break is in none of them, so nothing is found across two.
        where.append(f"concat_ws(E'\\n', u.email, u.username, u.name) ILIKE ${len(values)}")
    return where, values


# -- changes


async def lock_with_admins(user_id: UUID) -> tuple[Row | None, set[UUID]]:
    """An account that is not deleted, and the active administrators; all stay as they are until the transaction ends.

    One order for everybody, so nobody waits in a circle; who stopped to be one while we waited is not among them.
    """
    found = await database.rows(
        """SELECT id, role, is_active, email, username, name FROM users
           WHERE (role = 'ADMIN' AND is_active OR id = $1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE""",
        user_id,
    )
    admins = {row["id"] for row in found if row["role"] == Role.ADMIN and row["is_active"]}
    return next((row for row in found if row["id"] == user_id), None), admins


async def set_role(user_id: UUID, role: Role) -> None:
    """Give an account a role."""
    await database.rows("UPDATE users SET role = $2 WHERE id = $1", user_id, role.value)


async def set_active(user_id: UUID, is_active: bool) -> None:
    """Switch an account on or off."""
    await database.rows("UPDATE users SET is_active = $2 WHERE id = $1", user_id, is_active)


# -- the end of an account


def anonymous_username(user_id: UUID) -> str:
    """What takes the place of a deleted account's username: no username that anybody could register has a colon."""
    return "deleted:" + base64.urlsafe_b64encode(user_id.bytes).rstrip(b"=").decode()


async def anonymise(user_id: UUID) -> None:
    """Take everything personal off an account's row; its address and its username are free from then on."""
    await database.rows(
        """UPDATE users SET email = $2, email_key = $2, username = $3, username_key = $3, name = 'Deleted account',
               password_hash = NULL, role = 'USER', is_active = false, avatar_url = NULL, email_verified_at = NULL,
               password_changed_at = NULL, last_login_at = NULL, sealed_totp = NULL, totp_confirmed_at = NULL,
               totp_last_step = NULL, deleted_at = now()
           WHERE id = $1""",
        user_id,
        f"deleted-{user_id}",
        anonymous_username(user_id),
    )


async def delete_belongings(user_id: UUID, *, email: str) -> None:
    """Remove what opens an account, what it was told and wants, its secrets, and letters that wait for its address."""
    for table in _BELONGINGS:
        await database.rows(
            f"""DELETE FROM {table} WHERE id IN
                    (SELECT id FROM {table} WHERE user_id = $1 FOR UPDATE SKIP LOCKED)""",
            user_id,
        )
    await database.rows("DELETE FROM preferences WHERE user_id = $1", user_id)
    await database.rows(
        """DELETE FROM environment_variables WHERE id IN (
               SELECT v.id FROM environment_variables v JOIN projects p ON p.id = v.project_id
               WHERE p.owner_id = $1 FOR UPDATE OF v SKIP LOCKED)""",
        user_id,
    )
    await database.rows(
        """UPDATE webhook_endpoints SET is_active = false, disabled_at = coalesce(disabled_at, now()),
               disabled_reason = coalesce(disabled_reason, 'BY_USER'), sealed_secret = NULL,
               sealed_previous_secret = NULL, previous_secret_until = NULL
           WHERE owner_id = $1""",
        user_id,
    )
    await database.rows(
        "DELETE FROM outbox_messages WHERE topic = 'account.letter' AND lower(payload->>'email') = lower($1)", email
    )


async def project_ids(user_id: UUID) -> list[UUID]:
    """A user's projects."""
    found = await database.rows("SELECT id FROM projects WHERE owner_id = $1 ORDER BY id", user_id)
    return [row["id"] for row in found]


# -- removal, by workers


async def is_deleted(executor: Executor, user_id: UUID) -> bool:
    """Whether an account is deleted and its row still there."""
    found = await executor.fetchval("SELECT 1 FROM users WHERE id = $1 AND deleted_at IS NOT NULL", user_id)
    return found is not None


async def stop_work(executor: Executor, user_id: UUID) -> list[UUID]:
    """Cancel what waits for an owner; the executions that still run, which were asked to stop."""
    found = await executor.fetch(CANCEL_ALL_OF_OWNER, user_id, None)
    return [row["id"] for row in found if row["status"] == "RUNNING"]


async def some_executions(executor: Executor, user_id: UUID, *, limit: int) -> list[Row]:
    """Some executions of an owner: `id`, `kind`, and the `keys` of the objects that their rows name."""
    found = await executor.fetch(
        """SELECT e.id, e.kind, array_remove(
                      ARRAY(SELECT f.key FROM output_files f WHERE f.run_id = e.id)
                      || (SELECT s.file_key FROM scans s WHERE s.execution_id = e.id)
                      || (SELECT x.key FROM item_exports x WHERE x.execution_id = e.id)
                      || (e.log_object->>'key')::varchar, NULL) AS keys
           FROM executions e WHERE e.owner_id = $1 ORDER BY e.id LIMIT $2""",
        user_id,
        limit,
    )
    return [dict(row) for row in found]


async def delete_parts(executor: Executor, execution_ids: Sequence[UUID], *, limit: int) -> bool:
    """Remove some of what executions may have millions of; False once none is left."""
    for table, column in (
        ("items", "dataset_id"),
        ("crawl_requests", "dataset_id"),
        ("rejected_items", "dataset_id"),
        ("deployment_files", "deployment_id"),
        ("log_chunks", "execution_id"),
        ("scan_risks", "scan_id"),
        ("document_pages", "job_id"),
        ("product_candidates", "job_id"),
    ):
        gone = await executor.fetch(
            f"""DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {column} = ANY($1::uuid[]) LIMIT $2)
                RETURNING 1""",
            list(execution_ids),
            limit,
        )
        if gone:
            return True
    return False


async def delete_executions(executor: Executor, execution_ids: Sequence[UUID]) -> None:
    """Remove executions whose parts and objects are gone."""
    await executor.execute("DELETE FROM executions WHERE id = ANY($1::uuid[])", list(execution_ids))


async def next_project(executor: Executor, user_id: UUID) -> UUID | None:
    """A project of an owner that is still there."""
    found: UUID | None = await executor.fetchval(
        "SELECT id FROM projects WHERE owner_id = $1 ORDER BY id LIMIT 1", user_id
    )
    return found


async def delete_blobs(executor: Executor, project_id: UUID, *, limit: int) -> bool:
    """Forget some of a project's content, whose objects are gone; False once none is left."""
    gone = await executor.fetch(
        "DELETE FROM site_blobs WHERE id IN (SELECT id FROM site_blobs WHERE project_id = $1 LIMIT $2) RETURNING 1",
        project_id,
        limit,
    )
    return bool(gone)


async def delete_project(executor: Executor, project_id: UUID) -> None:
    """Remove a project whose deployments and content are gone."""
    await executor.execute("DELETE FROM projects WHERE id = $1", project_id)


async def hand_media_over(executor: Executor, user_id: UUID) -> None:
    """Give what products show to another administrator: it is the catalogue's, whoever uploaded it."""
    await executor.execute(
        """UPDATE media SET owner_id = heir.id FROM
               (SELECT id FROM users WHERE role = 'ADMIN' AND is_active AND id <> $1 ORDER BY id LIMIT 1) AS heir
           WHERE owner_id = $1 AND media.id IN (SELECT media_id FROM product_media)""",
        user_id,
    )


async def some_media(executor: Executor, user_id: UUID, *, limit: int) -> list[UUID]:
    """Some media of an owner."""
    found = await executor.fetch("SELECT id FROM media WHERE owner_id = $1 ORDER BY id LIMIT $2", user_id, limit)
    return [row["id"] for row in found]


async def delete_media(executor: Executor, media_ids: Sequence[UUID]) -> None:
    """Forget media whose objects are gone."""
    await executor.execute("DELETE FROM media WHERE id = ANY($1::uuid[])", list(media_ids))


async def delete_dispatches(executor: Executor, user_id: UUID, *, limit: int) -> bool:
    """Remove some of what an owner's webhooks were told; False once none is left."""
    gone = await executor.fetch(
        """DELETE FROM webhook_dispatches WHERE id IN (
               SELECT d.id FROM webhook_endpoints e JOIN webhook_dispatches d ON d.endpoint_id = e.id
               WHERE e.owner_id = $1 LIMIT $2) RETURNING 1""",
        user_id,
        limit,
    )
    return bool(gone)


async def delete_some(executor: Executor, user_id: UUID, *, limit: int) -> bool:
    """Remove some of an owner's properties, webhooks, jobs, decisions, idempotency keys; False once none is left.

    Where products were found is the catalogue's, and stays.
    """
    detached = await executor.fetch(
        """UPDATE product_sources SET job_id = NULL WHERE id IN (
               SELECT s.id FROM product_sources s JOIN jobs j ON j.id = s.job_id WHERE j.owner_id = $1 LIMIT $2)
           RETURNING 1""",
        user_id,
        limit,
    )
    if detached:
        return True
    own = "owner_id = $1"
    of_jobs = f"job_id IN (SELECT id FROM jobs WHERE {own})"
    # A thousand ticks may hang on each job, too many for one cascade; a schedule that is gone adds none.
    await executor.execute(f"DELETE FROM job_schedules WHERE {of_jobs}", user_id)
    for table, whose in (
        ("webhook_endpoints", own),
        ("schedule_ticks", of_jobs),
        ("item_versions", of_jobs),
        ("properties", own),
        ("jobs", own),
        ("risk_triage", own),
        ("idempotency_keys", own),
        ("crawl_days", own),
    ):
        gone = await executor.fetch(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {whose} LIMIT $2) RETURNING 1",
            user_id,
            limit,
        )
        if gone:
            return True
    return False


async def pseudonymise(executor: Executor, user_id: UUID, *, after: UUID | None, limit: int) -> UUID | None:
    """Take from some audit events what says who and where a user was; the last one looked at, None at the end.

    Of others' acts on the user only those lose anything whose details name somebody: their address is the other's.
    """
    last: UUID | None = await executor.fetchval(
        """WITH page AS (
               SELECT id FROM (
                   (SELECT id FROM audit_events WHERE actor_id = $1 AND ($2::uuid IS NULL OR id > $2)
                    ORDER BY id LIMIT $3)
                   UNION
                   (SELECT id FROM audit_events WHERE target_id = $1 AND ($2::uuid IS NULL OR id > $2)
                    ORDER BY id LIMIT $3)
               ) AS theirs ORDER BY id LIMIT $3
           ), changed AS (
               UPDATE audit_events SET ip = NULL, user_agent = NULL, details = details - $4::text[]
               FROM page WHERE audit_events.id = page.id AND (
                   details ?| $4::text[]
                   OR (coalesce(actor_id, $1) = $1 AND (ip IS NOT NULL OR user_agent IS NOT NULL)))
           )
           SELECT id FROM page ORDER BY id DESC LIMIT 1""",
        user_id,
        after,
        limit,
        list(PERSONAL_DETAILS),
    )
    return last


async def forget(connection: Connection, user_id: UUID) -> bool:
    """Remove a deleted account of which nothing else is left; False when something is. Run it in a transaction."""
    # Whoever makes something of theirs holds this row: what is not there now will never be, and no delta of it either.
    await connection.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", user_id)
    if await connection.fetchval(
        """SELECT EXISTS (SELECT 1 FROM executions WHERE owner_id = $1)
               OR EXISTS (SELECT 1 FROM projects WHERE owner_id = $1)
               OR EXISTS (SELECT 1 FROM media WHERE owner_id = $1)""",
        user_id,
    ) or await analytics.has_sums(connection, user_id):
        return False
    await connection.execute(
        """DELETE FROM outbox_messages WHERE topic NOT IN ('account.purge', 'deployment.status')
               AND $1 IN (payload->>'userId', payload->>'ownerId')""",
        str(user_id),
    )
    await connection.execute("DELETE FROM users WHERE id = $1 AND deleted_at IS NOT NULL", user_id)
    return True
