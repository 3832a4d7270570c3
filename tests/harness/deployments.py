"""Projects and deployments as rows: the least valid ones, and their status as workers and people leave it.

Written with plain statements, without the API and without a worker; triggers of the database do what they always do.
"""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

import asyncpg

from models.database import to_json
from models.executions import FINAL_STATUSES, ExecutionStatus
from models.ids import new_id
from models.sites import PRODUCTION_ALIAS

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_JSON_COLUMNS = ("configuration", "routing")


async def insert_owner(connection: asyncpg.Connection, **fields: Any) -> UUID:
    """A user, by columns of `users`; nobody can sign in as them."""
    name = f"user-{secrets.token_hex(5)}"
    email = fields.get("email", f"{name}@example.com")
    columns = {
        "id": new_id(),
        "email": email,
        "email_key": email.lower(),
        "username": name,
        "username_key": name,
        "name": name.title(),
        "password_hash": "none",
        "role": "USER",
        "is_active": True,
        **fields,
    }
    await _insert(connection, "users", columns, stamps=("created_at",))
    user_id: UUID = columns["id"]
    return user_id


async def insert_project(connection: asyncpg.Connection, owner_id: UUID, **fields: Any) -> UUID:
    """A project of somebody, by columns of `projects`."""
    slug = f"site-{secrets.token_hex(4)}"
    repository = f"https://git.example.com/{slug}.git"
    columns = {
        "id": new_id(),
        "owner_id": owner_id,
        "name": "Website",
        "slug": slug,
        "repository": repository,
        "repository_key": repository,
        "branch": "main",
        "root_directory": ".",
        "auto_deploy": True,
        "preview_deployments": True,
        "supersede": "QUEUED",
        "install_scripts": False,
        "build_network": True,
        "submodules": False,
        "deployment_count": 0,
        **fields,
    }
    await _insert(connection, "projects", columns, stamps=("created_at", "updated_at"))
    project_id: UUID = columns["id"]
    return project_id


async def insert_deployment(connection: asyncpg.Connection, project_id: UUID, **fields: Any) -> UUID:
    """A queued deployment, by columns of `deployments`; the next number is its own. Its id."""
    execution_id = new_id()
    async with connection.transaction():
        project = await connection.fetchrow(
            "UPDATE projects SET deployment_count = deployment_count + 1 WHERE id = $1"
            " RETURNING owner_id, repository, deployment_count",
            project_id,
        )
        assert project is not None
        await connection.execute(
            """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                   timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
               VALUES ($1, 'DEPLOYMENT', $2, 'QUEUED', 0, 0, 0, 3, 600, 0, now(), false, 0, 0)""",
            execution_id,
            project["owner_id"],
        )
        columns = {
            "execution_id": execution_id,
            "project_id": project_id,
            "number": project["deployment_count"],
            "environment": "PRODUCTION",
            "trigger": "MANUAL",
            "branch": "main",
            "clone_url": project["repository"],
            "configuration": {},
            "site_key": "".join(secrets.choice(_ALPHABET) for _ in range(16)),
            "alias": PRODUCTION_ALIAS,
            "is_fork": False,
            **fields,
        }
        await _insert(connection, "deployments", columns)
    return execution_id


async def set_status(
    connection: asyncpg.Connection, execution_id: UUID, status: ExecutionStatus, *, failure: str | None = None
) -> None:
    """Give an execution a status, as `models/leases.py` and `models/execution_commands.py` do."""
    is_running = status is ExecutionStatus.RUNNING
    await connection.execute(
        """UPDATE executions SET status = $2::varchar, attempt = attempt + $3,
               worker = CASE WHEN $4 THEN 'tests' END,
               lease_until = CASE WHEN $4 THEN clock_timestamp() + interval '1 hour' END,
               claimed_at = CASE WHEN $4 THEN clock_timestamp() ELSE claimed_at END,
               started_at = CASE WHEN $4 THEN coalesce(started_at, clock_timestamp()) ELSE started_at END,
               finished_at = CASE WHEN $5 THEN clock_timestamp() END,
               failure_code = CASE WHEN $2::varchar = 'FAILED' THEN 'COMMAND_FAILED' END,
               failure_message = CASE WHEN $2::varchar = 'FAILED' THEN $6::text END
           WHERE id = $1""",
        execution_id,
        status.value,
        int(is_running),
        is_running,
        status in FINAL_STATUSES,
        failure,
    )


async def make_live(connection: asyncpg.Connection, execution_id: UUID) -> None:
    """Let the address that a deployment takes lead to it."""
    await connection.execute(
        """INSERT INTO site_aliases (project_id, name, deployment_id, decided_at, updated_at)
           SELECT project_id, alias, execution_id, now(), now() FROM deployments WHERE execution_id = $1
           ON CONFLICT (project_id, name) DO UPDATE SET deployment_id = excluded.deployment_id""",
        execution_id,
    )


async def _insert(
    connection: asyncpg.Connection, table: str, columns: dict[str, Any], *, stamps: tuple[str, ...] = ()
) -> None:
    places = [f"${place}{'::jsonb' if name in _JSON_COLUMNS else ''}" for place, name in enumerate(columns, start=1)]
    values = [to_json(value) if name in _JSON_COLUMNS else value for name, value in columns.items()]
    await connection.execute(
        f"INSERT INTO {table} ({', '.join((*columns, *stamps))})"
        f" VALUES ({', '.join((*places, *('now()' for _ in stamps)))})",
        *values,
    )
