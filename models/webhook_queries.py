"""The inbox of webhooks: deliveries as they are stored, shown, and what each did to each project.

Invariants: a delivery id is stored once, and whoever sends it a second time at the same moment waits for the first; an
effect that made a deployment is never replaced. A delivery is seen by administrators and by owners of projects that it
had an effect on.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from models import database
from models.connections import Provider
from models.database import Row
from models.ids import new_id
from models.permissions import Actor
from models.webhooks import DeliveryStatus

_SELECT: Final = """
SELECT w.id, w.delivery_id, w.event, w.action, w.repository, w.status, w.message, w.attempts, w.received_at,
       w.processed_at
FROM webhook_deliveries w
"""
RECENT_DELIVERIES: Final = 100
"""How far back pushes of a repository are looked through for one commit."""


async def insert(*, delivery_id: str, event: str, action: str | None, repository: str | None, body: str) -> UUID | None:
    """Store a delivery that nothing has come of yet; None when the id is there already."""
    created: UUID | None = await database.value(
        """INSERT INTO webhook_deliveries
               (id, provider, delivery_id, event, action, repository, body, status, message, attempts, received_at,
                processed_at)
           VALUES ($1, $2, $3, $4, $5, lower($6), $7, $8, '', 1, now(), now())
           ON CONFLICT (provider, delivery_id) DO NOTHING RETURNING id""",
        new_id(),
        Provider.GITHUB.value,
        delivery_id,
        event,
        action,
        repository,
        body,
        DeliveryStatus.IGNORED.value,
    )
    return created


async def of_delivery_id(delivery_id: str) -> Row | None:
    """The delivery that GitHub calls so."""
    return await database.row(
        f"{_SELECT} WHERE w.provider = $1 AND w.delivery_id = $2", Provider.GITHUB.value, delivery_id
    )


async def find(row_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the deliveries that exist: the caller is the gate."""
    found = await database.rows(f"{_SELECT} WHERE w.id = ANY($1::uuid[])", list(row_ids))
    return {row["id"]: row for row in found}


async def find_visible(actor: Actor, row_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the deliveries that an actor may see."""
    where, values = _conditions(actor)
    values.append(list(row_ids))
    found = await database.rows(
        f"{_SELECT} WHERE {' AND '.join(where)} AND w.id = ANY(${len(values)}::uuid[])", *values
    )
    return {row["id"]: row for row in found}


async def lock(row_id: UUID) -> Row | None:
    """A delivery with its body; nobody else processes it until the end of the transaction."""
    return await database.row("SELECT id, event, body FROM webhook_deliveries WHERE id = $1 FOR UPDATE", row_id)


async def settle(row_id: UUID, status: DeliveryStatus, message: str, *, is_replay: bool) -> None:
    """Write down what became of a delivery."""
    await database.rows(
        """UPDATE webhook_deliveries SET status = $2, message = $3, processed_at = now(), attempts = attempts + $4
           WHERE id = $1""",
        row_id,
        status.value,
        message,
        int(is_replay),
    )


async def bodies(row_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The bodies of deliveries, as JSON text."""
    found = await database.rows("SELECT id, body FROM webhook_deliveries WHERE id = ANY($1::uuid[])", list(row_ids))
    return {row["id"]: row["body"] for row in found}


async def visible(
    actor: Actor,
    *,
    project_id: UUID | None = None,
    status: DeliveryStatus | None = None,
    event: str | None = None,
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Deliveries that an actor may see, newest first; backwards from the end."""
    where, values = _conditions(actor, project_id, status, event)
    for bound, operator in ((after, "<"), (before, ">")):
        if bound is not None:
            values.append(bound)
            where.append(f"w.id {operator} ${len(values)}")
    values.append(limit)
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY w.id {direction} LIMIT ${len(values)}", *values
    )


async def count_visible(
    actor: Actor, *, project_id: UUID | None = None, status: DeliveryStatus | None = None, event: str | None = None
) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, project_id, status, event)
    return int(await database.value(f"SELECT count(*) FROM webhook_deliveries w WHERE {' AND '.join(where)}", *values))


# -- effects


async def effects(actor: Actor, row_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """What deliveries did to projects that an actor may see."""
    found = await database.rows(
        """SELECT f.delivery_id, f.project_id, f.deployment_id, f.message
           FROM webhook_effects f JOIN projects p ON p.id = f.project_id
           WHERE f.delivery_id = ANY($1::uuid[]) AND ($2 OR p.owner_id = $3::uuid)
             AND ($4::uuid[] IS NULL OR p.id = ANY($4)) ORDER BY f.id""",
        list(row_ids),
        actor.is_admin,
        actor.user_id,
        None if actor.project_ids is None else list(actor.project_ids),
    )
    grouped: dict[UUID, list[Row]] = {row_id: [] for row_id in row_ids}
    for row in found:
        grouped[row["delivery_id"]].append(row)
    return grouped


async def all_effects(row_id: UUID) -> dict[UUID, UUID | None]:
    """The deployment, or None, that a delivery came to for each project."""
    found = await database.rows("SELECT project_id, deployment_id FROM webhook_effects WHERE delivery_id = $1", row_id)
    return {row["project_id"]: row["deployment_id"] for row in found}


async def put_effect(row_id: UUID, project_id: UUID, *, deployment_id: UUID | None, message: str) -> None:
    """Write down what a delivery did to a project; one that made a deployment keeps it."""
    await database.rows(
        """INSERT INTO webhook_effects (delivery_id, project_id, deployment_id, message) VALUES ($1, $2, $3, $4)
           ON CONFLICT (delivery_id, project_id) DO UPDATE SET
               deployment_id = excluded.deployment_id, message = excluded.message
           WHERE webhook_effects.deployment_id IS NULL""",
        row_id,
        project_id,
        deployment_id,
        message,
    )


# -- one push, one deployment


async def lock_projects(project_ids: Sequence[UUID]) -> None:
    """Let nobody else queue deployments of these projects until the end of the transaction.

    All at once and in one order, before any of them is queued: two deliveries that overlap wait, and do not deadlock.
    """
    await database.rows("SELECT 1 FROM projects WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", list(project_ids))


async def deployment_of_commit(project_id: UUID, *, branch: str, commit_hash: str, environment: str) -> UUID | None:
    """The newest deployment that GitHub's word made of this commit of this branch, unless it was cancelled."""
    found: UUID | None = await database.value(
        """SELECT d.execution_id FROM deployments d JOIN executions e ON e.id = d.execution_id
           WHERE d.project_id = $1 AND d.branch = $2 AND d.environment = $3 AND d.commit_hash = $4 AND NOT d.is_fork
             AND d.trigger IN ('PUSH', 'PULL_REQUEST') AND e.status <> 'CANCELLED'
           ORDER BY d.execution_id DESC LIMIT 1""",
        project_id,
        branch,
        environment,
        commit_hash,
    )
    return found


async def note_pull_request(deployment_id: UUID, number: int) -> None:
    """Write down which pull request a pushed commit belongs to."""
    await database.rows(
        "UPDATE deployments SET pull_request = $2 WHERE execution_id = $1 AND pull_request IS NULL",
        deployment_id,
        number,
    )


async def skipped_push(project_id: UUID, *, repository: str, commit_hash: str, reasons: Sequence[str]) -> str | None:
    """Why the push of a commit was not deployed, if that was for one of these reasons."""
    found: str | None = await database.value(
        """SELECT f.message FROM (
               SELECT id, body FROM webhook_deliveries WHERE repository = lower($2) ORDER BY id DESC LIMIT $5
           ) AS recent JOIN webhook_effects f ON f.delivery_id = recent.id AND f.project_id = $1
           WHERE f.deployment_id IS NULL AND f.message = ANY($4::text[])
             AND position('"after":"' || $3::text || '"' in recent.body) > 0
           ORDER BY recent.id DESC LIMIT 1""",
        project_id,
        repository,
        commit_hash,
        list(reasons),
        RECENT_DELIVERIES,
    )
    return found


def _conditions(
    actor: Actor,
    project_id: UUID | None = None,
    status: DeliveryStatus | None = None,
    event: str | None = None,
) -> tuple[list[str], list[Any]]:
    values: list[Any] = [Provider.GITHUB.value]
    where = ["w.provider = $1"]
    if not actor.is_admin:
        values += [
            actor.user_id,  # for nobody it is null, which no owner equals
            None if actor.project_ids is None else list(actor.project_ids),
        ]
        where.append(
            "EXISTS (SELECT 1 FROM webhook_effects f JOIN projects p ON p.id = f.project_id"
            f" WHERE f.delivery_id = w.id AND p.owner_id = ${len(values) - 1}::uuid"
            f" AND (${len(values)}::uuid[] IS NULL OR p.id = ANY(${len(values)})))"
        )
    if project_id is not None:
        values.append(project_id)
        where.append(
            "EXISTS (SELECT 1 FROM webhook_effects f"
            f" WHERE f.delivery_id = w.id AND f.project_id = ${len(values)}::uuid)"
        )
    for column, wanted in (("w.status", status), ("w.event", event)):
        if wanted is not None:
            values.append(str(wanted))
            where.append(f"{column} = ${len(values)}")
    return where, values
