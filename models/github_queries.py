"""What the database knows of GitHub: connections of users, webhooks of projects, deployments that GitHub was told of.

Invariants: a token leaves only sealed; a refusal is noted for the connection whose token was refused, and a newer one
has another id; the id of a GitHub deployment is written once. Functions that take a `connection` are for workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import UUID

from asyncpg import Connection, Pool

from models import database
from models.connections import Provider
from models.database import Row

_CONNECTION_COLUMNS = "id, user_id, subject, login, avatar_url, scopes, sealed_token, created_at, refused_at"

Executor: TypeAlias = Connection | Pool


async def connection_of(user_id: UUID) -> Row | None:
    """A user's connection to GitHub."""
    return await database.row(
        f"SELECT {_CONNECTION_COLUMNS} FROM oauth_connections WHERE user_id = $1 AND provider = $2",  # noqa: S608
        user_id,
        Provider.GITHUB.value,
    )


async def store_connection(
    connection_id: UUID,
    *,
    user_id: UUID,
    subject: str,
    login: str,
    avatar_url: str | None,
    scopes: str,
    sealed_token: str,
) -> Row | None:
    """Make a user's connection, or replace the one they have, under a new id; None when somebody else has the account.

    The id changes because the token is sealed for it, and because what was cached under the old one is stale then.
    """
    # Two users who connect the same account at once wait for each other here; the unique constraint keeps the rule.
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"github:{subject}")
    if await database.value(
        "SELECT 1 FROM oauth_connections WHERE provider = $1 AND subject = $2 AND user_id <> $3",
        Provider.GITHUB.value,
        subject,
        user_id,
    ):
        return None
    return await database.row(
        f"""INSERT INTO oauth_connections
                (id, user_id, provider, subject, login, avatar_url, scopes, sealed_token, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), now())
            ON CONFLICT (user_id, provider) DO UPDATE SET
                id = excluded.id, subject = excluded.subject, login = excluded.login,
                avatar_url = excluded.avatar_url, scopes = excluded.scopes, sealed_token = excluded.sealed_token,
                created_at = now(), updated_at = now(), refused_at = NULL
            RETURNING {_CONNECTION_COLUMNS}""",  # noqa: S608
        connection_id,
        user_id,
        Provider.GITHUB.value,
        subject,
        login,
        avatar_url,
        scopes,
        sealed_token,
    )


async def delete_connection(user_id: UUID) -> Row | None:
    """Remove a user's connection; what it was, None when there was none."""
    return await database.row(
        f"DELETE FROM oauth_connections WHERE user_id = $1 AND provider = $2 RETURNING {_CONNECTION_COLUMNS}",  # noqa: S608
        user_id,
        Provider.GITHUB.value,
    )


async def mark_refused(connection_id: UUID) -> None:
    """Note that GitHub does not accept a token any more."""
    await database.rows(_MARK_REFUSED, connection_id)


_MARK_REFUSED = "UPDATE oauth_connections SET refused_at = now() WHERE id = $1 AND refused_at IS NULL"


async def mark_refused_with(connection: Executor, connection_id: UUID) -> None:
    """`mark_refused` for workers."""
    await connection.execute(_MARK_REFUSED, connection_id)


async def connection_with(connection: Executor, user_id: UUID) -> Row | None:
    """A user's connection that GitHub has not refused, for workers."""
    found = await connection.fetchrow(
        f"""SELECT {_CONNECTION_COLUMNS} FROM oauth_connections
            WHERE user_id = $1 AND provider = $2 AND refused_at IS NULL""",  # noqa: S608
        user_id,
        Provider.GITHUB.value,
    )
    return None if found is None else dict(found)


# -- webhooks of projects


async def project_with(connection: Executor, project_id: UUID) -> Row | None:
    """What making a webhook for a project needs to know."""
    found = await connection.fetchrow(
        """SELECT id, owner_id, repository_full_name, auto_deploy, preview_deployments, github_hook_id
           FROM projects WHERE id = $1""",
        project_id,
    )
    return None if found is None else dict(found)


async def projects_without_hook(user_id: UUID) -> list[UUID]:
    """A user's projects that deploy by themselves and that GitHub does not tell us of."""
    found = await database.rows(
        """SELECT id FROM projects WHERE owner_id = $1 AND repository_full_name IS NOT NULL AND auto_deploy
               AND github_hook_id IS NULL ORDER BY id""",
        user_id,
    )
    return [row["id"] for row in found]


async def note_hook(connection: Executor, project_id: UUID, *, repository: str, hook_id: int | None) -> bool:
    """Write down a project's webhook; False when the project is gone or has another repository by now."""
    changed = await connection.fetchval(
        "UPDATE projects SET github_hook_id = $3 WHERE id = $1 AND repository_full_name = $2 RETURNING id",
        project_id,
        repository,
        hook_id,
    )
    return changed is not None


async def is_hook_used(connection: Executor, repository: str, hook_id: int) -> bool:
    """Whether a project is told of by a webhook; projects of one repository share one."""
    return bool(
        await connection.fetchval(
            """SELECT EXISTS (SELECT 1 FROM projects
                              WHERE github_hook_id = $1 AND lower(repository_full_name) = lower($2))""",
            hook_id,
            repository,
        )
    )


async def hook_messages(project_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The newest message about each project's webhook that is waiting or was given up."""
    found = await database.rows(
        """SELECT DISTINCT ON (payload->>'projectId') (payload->>'projectId')::uuid AS project_id,
                  last_error, given_up_at
           FROM outbox_messages WHERE topic = 'github.hook' AND payload->>'projectId' = ANY($1::text[])
           ORDER BY payload->>'projectId', id DESC""",
        [str(project_id) for project_id in project_ids],
    )
    return {row["project_id"]: row for row in found}


# -- reports


async def reported(connection: Executor, execution_id: UUID) -> Row | None:
    """A deployment as GitHub should know it: what is built, for whom, and how it fares now."""
    found = await connection.fetchrow(
        """SELECT e.id, e.status, e.failure_code, e.failure_message, d.number, d.environment, d.commit_hash, d.is_fork,
                  d.site_key, d.github_deployment_id, p.slug, p.owner_id, p.repository_full_name
           FROM executions e JOIN deployments d ON d.execution_id = e.id JOIN projects p ON p.id = d.project_id
           WHERE e.id = $1""",
        execution_id,
    )
    return None if found is None else dict(found)


async def keep_github_deployment(connection: Executor, execution_id: UUID, github_deployment_id: int) -> int | None:
    """Write down the id of a deployment at GitHub, once; the id that holds, None when the deployment is gone."""
    kept: Any = await connection.fetchval(
        """UPDATE deployments SET github_deployment_id = coalesce(github_deployment_id, $2)
           WHERE execution_id = $1 RETURNING github_deployment_id""",
        execution_id,
        github_deployment_id,
    )
    return None if kept is None else int(kept)
