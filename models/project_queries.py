"""Projects as they are read and changed: plain rows with their owner, their variables' names, their deploy hooks.

Values of variables leave the database only sealed, and only for whoever makes a deployment. Invariants: a change names
the version it was made from; a project is deleted with everything that its deployments have, and never under one that
waits or works.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from models import database, endpoint_queries, keyset
from models.database import Row
from models.ids import new_id
from models.permissions import Actor
from models.projects import DeploymentEnvironment
from models.tools import containing


class ProjectOrderField(StrEnum):
    """What a list of projects can be sorted by."""

    CREATED_AT = "CREATED_AT"
    NAME = "NAME"
    UPDATED_AT = "UPDATED_AT"


_COLUMNS: Final = (
    "id, owner_id, name, slug, repository, repository_key, repository_full_name, branch, root_directory, framework,"
    " install_command, build_command, output_directory, spa_fallback, auto_deploy, preview_deployments, supersede,"
    " install_scripts, build_network, submodules, github_hook_id, deployment_count, created_at, updated_at"
)
_SELECT: Final = f"""
SELECT {", ".join(f"p.{column.strip()}" for column in _COLUMNS.split(","))},
       u.email AS owner_email, u.username AS owner_username, u.name AS owner_name, u.role AS owner_role,
       u.created_at AS owner_created_at
FROM projects p JOIN users u ON u.id = p.owner_id
"""

# Columns and the cast of values they are compared with, by what clients sort by. Ids are in the order of creation.
_SORT_COLUMNS: Final[Mapping[ProjectOrderField, tuple[str, str]]] = {
    ProjectOrderField.CREATED_AT: ("p.id", "${}::uuid"),
    ProjectOrderField.NAME: ("lower(p.name), p.id", "lower(${}::text), ${}::uuid"),
    ProjectOrderField.UPDATED_AT: ("p.updated_at, p.id", "${}::timestamptz, ${}::uuid"),
}

CONFIGURATION_COLUMNS: Final = (
    "root_directory",
    "install_command",
    "build_command",
    "output_directory",
    "spa_fallback",
    "install_scripts",
    "build_network",
    "submodules",
)
"""What a deployment keeps a snapshot of."""

_UPDATABLE: Final = frozenset(
    {
        *CONFIGURATION_COLUMNS,
        "name",
        "repository",
        "repository_key",
        "repository_full_name",
        "branch",
        "framework",
        "auto_deploy",
        "preview_deployments",
        "supersede",
        "github_hook_id",
    }
)


async def find(project_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the projects that exist, whoever owns them: the caller is the gate."""
    found = await database.rows(f"{_SELECT} WHERE p.id = ANY($1::uuid[])", list(project_ids))
    return {row["id"]: row for row in found}


async def of_repository(repository_key: str) -> list[Row]:
    """The projects of active owners that are built from a repository, oldest first."""
    return await database.rows(f"{_SELECT} WHERE p.repository_key = $1 AND u.is_active ORDER BY p.id", repository_key)


async def visible(
    actor: Actor,
    *,
    search: str | None = None,
    order: ProjectOrderField = ProjectOrderField.CREATED_AT,
    descending: bool = True,
    after: tuple[Any, ...] | None = None,
    before: tuple[Any, ...] | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Projects that an actor may see, strictly between two sort keys; backwards from the end of the order."""
    where, values = _conditions(actor, search)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns, casts, values, after=after, before=before, descending=descending, backwards=backwards
    )
    where += bounds
    values.append(limit)
    return await database.rows(f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY {by} LIMIT ${len(values)}", *values)


async def count_visible(actor: Actor, *, search: str | None) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, search)
    return int(await database.value(f"SELECT count(*) FROM projects p WHERE {' AND '.join(where)}", *values))


async def count_owned(owner_id: UUID) -> int:
    """How many projects somebody has; until the end of the transaction nobody else adds one for them."""
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"projects:{owner_id}")
    return int(await database.value("SELECT count(*) FROM projects WHERE owner_id = $1", owner_id))


async def insert(project_id: UUID, *, owner_id: UUID, columns: Mapping[str, Any]) -> bool:
    """Add a project; False when its slug is taken."""
    names = list(columns)
    places = "".join(f", ${place}" for place in range(3, len(names) + 3))
    created = await database.value(
        f"INSERT INTO projects (id, owner_id, deployment_count, created_at, updated_at, {', '.join(names)})"
        f" VALUES ($1, $2, 0, now(), now(){places}) ON CONFLICT (slug) DO NOTHING RETURNING id",
        project_id,
        owner_id,
        *columns.values(),
    )
    return created is not None


async def update(project_id: UUID, *, seen_at: datetime, columns: Mapping[str, Any]) -> bool:
    """Change a project as it was at `seen_at`, its `updated_at` then; False when it is gone or has changed since."""
    if unknown := columns.keys() - _UPDATABLE:
        raise KeyError(unknown)
    assignments = "".join(f", {name} = ${place}" for place, name in enumerate(columns, start=3))
    updated = await database.value(
        # Strictly later than before, so that no two versions of a project look alike.
        "UPDATE projects SET updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')"
        f"{assignments}"
        " WHERE id = $1 AND updated_at = $2 RETURNING id",
        project_id,
        seen_at,
        *columns.values(),
    )
    return updated is not None


async def take_number(project_id: UUID) -> tuple[int, Row] | None:
    """The number of the next deployment, and the project as it is now, locked until the end of the transaction.

    None when the project is gone.
    """
    row = await database.row(
        f"UPDATE projects SET deployment_count = deployment_count + 1 WHERE id = $1 RETURNING {_COLUMNS}", project_id
    )
    return None if row is None else (row["deployment_count"], row)


async def lock(project_id: UUID) -> bool:
    """Keep others from changing a project until the end of the transaction; False when it is gone.

    Rows that only refer to it, as workers add them, wait for nobody.
    """
    return await database.value("SELECT 1 FROM projects WHERE id = $1 FOR NO KEY UPDATE", project_id) is not None


async def lock_idle(project_id: UUID) -> bool | None:
    """Keep new deployments of a project away until the end of the transaction.

    False when one waits or works already, None when the project is gone.
    """
    if await database.value("SELECT 1 FROM projects WHERE id = $1 FOR UPDATE", project_id) is None:
        return None
    return not await database.value(
        """SELECT EXISTS (SELECT 1 FROM deployments d JOIN executions e ON e.id = d.execution_id
                          WHERE d.project_id = $1 AND e.status IN ('QUEUED', 'RUNNING'))""",
        project_id,
    )


async def stored_logs(project_id: UUID) -> list[str]:
    """Keys of the finished logs of a project's deployments."""
    found = await database.rows(
        """SELECT e.log_object->>'key' AS key FROM executions e JOIN deployments d ON d.execution_id = e.id
           WHERE d.project_id = $1 AND e.log_object->>'key' IS NOT NULL""",
        project_id,
    )
    return [row["key"] for row in found]


async def delete(project_id: UUID) -> None:
    """Remove a project with its deployments, their files, logs and addresses; call it after `lock_idle`."""
    await endpoint_queries.delete(project_id=project_id)
    await database.rows(
        "DELETE FROM executions WHERE id IN (SELECT execution_id FROM deployments WHERE project_id = $1)", project_id
    )
    await database.rows("DELETE FROM projects WHERE id = $1", project_id)


# -- variables


async def variables(project_ids: Sequence[UUID]) -> list[Row]:
    """Names, environments and times of projects' variables; no values."""
    return await database.rows(
        """SELECT id, project_id, environment, name, created_at, updated_at FROM environment_variables
           WHERE project_id = ANY($1::uuid[]) ORDER BY name, environment""",
        list(project_ids),
    )


async def sealed_variables(project_id: UUID, environment: DeploymentEnvironment) -> list[Row]:
    """The variables of one environment with their sealed values."""
    return await database.rows(
        "SELECT id, name, sealed_value FROM environment_variables WHERE project_id = $1 AND environment = $2",
        project_id,
        environment.value,
    )


async def lock_variables(project_id: UUID) -> dict[tuple[str, str], Row] | None:
    """A project's variables, sealed, by environment and name; nobody else changes them until the transaction ends.

    None when the project is gone.
    """
    if not await lock(project_id):
        return None
    found = await database.rows(
        "SELECT id, environment, name, sealed_value FROM environment_variables WHERE project_id = $1", project_id
    )
    return {(row["environment"], row["name"]): row for row in found}


async def put_variables(project_id: UUID, sealed: Iterable[tuple[UUID, str, str, str]]) -> None:
    """Store variables given as id, environment, name and sealed value; one that exists under its id is replaced."""
    rows = list(sealed)
    await database.rows(
        """INSERT INTO environment_variables (id, project_id, environment, name, sealed_value, created_at, updated_at)
           SELECT id, $1, environment, name, value, now(), now()
           FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS given(id, environment, name, value)
           ON CONFLICT (id) DO UPDATE SET sealed_value = excluded.sealed_value, updated_at = now()""",
        project_id,
        *([row[place] for row in rows] for place in range(4)),
    )


async def delete_variables(variable_ids: Sequence[UUID]) -> None:
    """Forget variables."""
    await database.rows("DELETE FROM environment_variables WHERE id = ANY($1::uuid[])", list(variable_ids))


# -- deploy hooks


async def hooks(project_ids: Sequence[UUID]) -> list[Row]:
    """The deploy hooks of projects; no tokens, which are not kept."""
    return await database.rows(
        """SELECT id, project_id, name, branch, environment, created_at, last_used_at FROM deploy_hooks
           WHERE project_id = ANY($1::uuid[]) ORDER BY id""",
        list(project_ids),
    )


async def insert_hook(
    project_id: UUID, *, name: str, branch: str, environment: DeploymentEnvironment, token_hash: str, most: int
) -> UUID | None:
    """Add a deploy hook; None when the project has as many as it may. Call it after `lock`."""
    created: UUID | None = await database.value(
        """INSERT INTO deploy_hooks (id, project_id, name, branch, environment, token_hash, created_at)
           SELECT $1, $2, $3, $4, $5, $6, now()
           WHERE (SELECT count(*) FROM deploy_hooks WHERE project_id = $2) < $7 RETURNING id""",
        new_id(),
        project_id,
        name,
        branch,
        environment.value,
        token_hash,
        most,
    )
    return created


async def hook(hook_id: UUID) -> Row | None:
    """A deploy hook with its project's owner."""
    return await database.row(
        """SELECT h.id, h.project_id, h.name, p.owner_id FROM deploy_hooks h JOIN projects p ON p.id = h.project_id
           WHERE h.id = $1""",
        hook_id,
    )


async def delete_hook(hook_id: UUID) -> None:
    """Forget a deploy hook."""
    await database.rows("DELETE FROM deploy_hooks WHERE id = $1", hook_id)


async def owner_of_hook(token_hash: str) -> UUID | None:
    """Whose project the hook of a token deploys; None when there is no such hook, or its owner is not active."""
    owner_id: UUID | None = await database.value(
        """SELECT p.owner_id FROM deploy_hooks h JOIN projects p ON p.id = h.project_id
           JOIN users u ON u.id = p.owner_id AND u.is_active WHERE h.token_hash = $1""",
        token_hash,
    )
    return owner_id


async def use_hook(token_hash: str) -> Row | None:
    """The hook of a token, marked as used; None when there is none."""
    return await database.row(
        """UPDATE deploy_hooks SET last_used_at = now() WHERE token_hash = $1
           RETURNING id, project_id, branch, environment""",
        token_hash,
    )


def _conditions(actor: Actor, search: str | None) -> tuple[list[str], list[Any]]:
    where, values = ["true"], list[Any]()
    if not actor.is_admin:
        values.append(actor.user_id)  # for nobody it is null, which no owner equals
        where.append("p.owner_id = $1::uuid")
    if actor.project_ids is not None:
        values.append(list(actor.project_ids))
        where.append(f"p.id = ANY(${len(values)}::uuid[])")
    if search:
        values.append(containing(search))
        where.append(f"concat_ws(' ', p.name, p.slug, p.repository) ILIKE ${len(values)}")
    return where, values
