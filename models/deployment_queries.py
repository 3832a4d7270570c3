"""Deployments as they are made, read and changed: plain rows beside their executions.

`models/execution_rows.py` selects what every answer shows; here are the pieces that only deployments have: making one,
setting aside those that a newer push replaces, the steps they went through, what they have in storage.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from models import database
from models.database import Row
from models.deployments import KIND, DeploymentTrigger
from models.projects import DeploymentEnvironment, SupersedePolicy

_SUPERSEDED_TRIGGERS: Final = [
    trigger.value for trigger in (DeploymentTrigger.PUSH, DeploymentTrigger.PULL_REQUEST, DeploymentTrigger.DEPLOY_HOOK)
]
"""What was asked for by a person is not set aside by a machine."""


async def insert(execution_id: UUID, project_id: UUID, columns: Mapping[str, Any]) -> None:
    """Add what a deployment has beside its execution; JSON columns are given as text."""
    names = list(columns)
    casts = {"configuration": "::jsonb"}
    places = "".join(f", ${place}{casts.get(name, '')}" for place, name in enumerate(names, start=3))
    await database.rows(
        f"INSERT INTO deployments (execution_id, project_id, {', '.join(names)}) VALUES ($1, $2{places})",
        execution_id,
        project_id,
        *columns.values(),
    )


async def snapshot(execution_id: UUID) -> Row | None:
    """What a redeployment copies."""
    return await database.row(
        """SELECT d.project_id, d.environment, d.branch, d.commit_hash, d.commit_message, d.commit_author,
                  d.pull_request, d.is_fork, d.clone_url, d.configuration::text AS configuration,
                  d.sealed_environment, d.alias
           FROM deployments d WHERE d.execution_id = $1""",
        execution_id,
    )


async def older_of_branch(
    project_id: UUID,
    *,
    newer: UUID,
    branch: str,
    environment: DeploymentEnvironment,
    alias: str,
    policy: SupersedePolicy,
) -> list[UUID]:
    """Deployments of a branch that a newer push replaces: pushed as well, and not begun or not done, by the policy."""
    if policy is SupersedePolicy.NONE:
        return []
    statuses = ["QUEUED"] if policy is SupersedePolicy.QUEUED else ["QUEUED", "RUNNING"]
    found = await database.rows(
        """SELECT e.id FROM executions e JOIN deployments d ON d.execution_id = e.id
           WHERE d.project_id = $1 AND d.branch = $2 AND d.environment = $3 AND d.alias = $4
             AND d.trigger = ANY($5::text[]) AND e.status = ANY($6::text[]) AND e.id <> $7 ORDER BY e.id""",
        project_id,
        branch,
        environment.value,
        alias,
        _SUPERSEDED_TRIGGERS,
        statuses,
        newer,
    )
    return [row["id"] for row in found]


async def mark_superseded(execution_ids: Sequence[UUID], *, by: UUID) -> None:
    """Write down which deployment replaced others."""
    await database.rows(
        "UPDATE deployments SET superseded_by_id = $2 WHERE execution_id = ANY($1::uuid[])", list(execution_ids), by
    )


async def latest(project_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The newest deployment of each project."""
    found = await database.rows(
        """SELECT asked.id, newest.execution_id FROM unnest($1::uuid[]) AS asked(id)
           CROSS JOIN LATERAL (SELECT execution_id FROM deployments WHERE project_id = asked.id
                               ORDER BY execution_id DESC LIMIT 1) AS newest""",
        list(project_ids),
    )
    return {row["id"]: row["execution_id"] for row in found}


async def at_alias(project_ids: Sequence[UUID], alias: str) -> dict[UUID, UUID]:
    """The deployment that an alias of each project leads to."""
    found = await database.rows(
        "SELECT project_id, deployment_id FROM site_aliases WHERE project_id = ANY($1::uuid[]) AND name = $2",
        list(project_ids),
        alias,
    )
    return {row["project_id"]: row["deployment_id"] for row in found}


async def steps(execution_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """Every change of status and stage of deployments' latest attempts, oldest first, with when they were asked for."""
    found = await database.rows(
        """SELECT v.execution_id, v.at, v.status, v.stage, v.attempt FROM execution_events v
           JOIN executions e ON e.id = v.execution_id
           WHERE v.execution_id = ANY($1::uuid[]) AND (v.attempt = e.attempt OR v.attempt = 0)
           ORDER BY v.id LIMIT 20000""",
        list(execution_ids),
    )
    grouped: dict[UUID, list[Row]] = {execution_id: [] for execution_id in execution_ids}
    for row in found:
        grouped[row["execution_id"]].append(row)
    return grouped


async def publications(
    project_id: UUID, *, after: int | None, before: int | None, backwards: bool, limit: int
) -> list[Row]:
    """Moves of a project's addresses, newest first; backwards from the oldest."""
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"""SELECT id, alias, deployment_id, previous_id, reason, user_id, at FROM site_publications
            WHERE project_id = $1 AND id < $2 AND id > $3 ORDER BY id {direction} LIMIT $4""",
        project_id,
        after if after is not None else 2**63 - 1,
        before or 0,
        limit,
    )


async def count_publications(project_id: UUID) -> int:
    """How many there are in all."""
    return int(await database.value("SELECT count(*) FROM site_publications WHERE project_id = $1", project_id))


async def lock_final(execution_id: UUID) -> Row | None:
    """A deployment's status and addresses, kept as they are until the end of the transaction; None when it is gone."""
    row = await database.row(
        """SELECT e.status, e.log_object->>'key' AS log_key, d.project_id, d.number, d.is_fork, d.file_count
           FROM executions e JOIN deployments d ON d.execution_id = e.id
           WHERE e.id = $1 AND e.kind = $2 FOR UPDATE OF e""",
        execution_id,
        KIND,
    )
    if row is None:
        return None
    names = await database.rows("SELECT name FROM site_aliases WHERE deployment_id = $1 FOR UPDATE", execution_id)
    return {**row, "aliases": [found["name"] for found in names]}


async def delete(execution_id: UUID) -> None:
    """Remove a deployment with its files' rows, its log and the addresses that lead to it."""
    await database.rows("DELETE FROM executions WHERE id = $1", execution_id)
