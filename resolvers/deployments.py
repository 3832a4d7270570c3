"""Deployments: asked for, stopped, repeated, promoted and removed by people.

A deployment never changes what it serves. Production moves between deployments in one statement, so rolling back takes
no build; what is served by an address is never removed. Queueing itself is `resolvers/deployment_queue.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from adapters import events
from adapters.git import check_branch, check_commit
from errors import Conflict
from models import deployment_queries, execution_rows, project_queries, site_queries
from models.audit import AuditEvent
from models.database import Row
from models.deployments import KIND, DeploymentTrigger
from models.events import ExecutionChanged, SiteChanged, TotalsChanged
from models.executions import ExecutionStatus
from models.idempotency import once
from models.ids import new_id
from models.permissions import Actor, Permission
from models.projects import DeploymentEnvironment
from models.sites import PRODUCTION_ALIAS
from models.transaction import unit_of_work
from resolvers import access, deployment_queue, executions, limits, projects
from resolvers.deployment_queue import Source
from tasks import execution_news, outbox


async def create(
    actor: Actor,
    project_id: str,
    *,
    branch: str | None,
    commit: str | None,
    environment: DeploymentEnvironment | None,
    idempotency_key: str | None,
) -> UUID:
    """Queue a deployment; its id, or that of the first use of the key.

    Without a branch it is the project's, without a commit the branch's newest when the build begins, without an
    environment production for the project's branch and preview for others. Raises RateLimitExceeded when too many wait,
    and when the user made too many within an hour.
    """
    project = await access.project(actor, project_id, to=Permission.DEPLOYMENT_WRITE)
    valid_branch = check_branch(branch, path=["input", "branch"]) if branch is not None else project["branch"]
    valid_commit = None if commit is None else check_commit(commit, path=["input", "commit"])
    chosen = environment or projects.environment_of(project, valid_branch)

    deployment_id = new_id()

    async def make() -> None:
        slot.use()
        await deployment_queue.enqueue(
            project,
            Source(branch=valid_branch, commit_hash=valid_commit),
            environment=chosen,
            trigger=_asked_by(actor),
            requested_by=actor.user_id,
            deployment_id=deployment_id,
        )
        await _record(actor, "createDeployment", deployment_id, project=str(project["id"]), branch=valid_branch)

    async with limits.deployment(actor.user_id or project["owner_id"]) as slot, unit_of_work():
        return await once(
            actor.user_id or project["owner_id"],
            "createDeployment",
            idempotency_key,
            request={"project": project["id"], "branch": branch, "commit": valid_commit, "environment": environment},
            target_id=deployment_id,
            make=make,
        )


async def redeploy(actor: Actor, deployment_id: str, *, idempotency_key: str | None) -> UUID:
    """Queue a deployment of exactly the same: commit, configuration and variables as they were then.

    It is a new one like any other; raises RateLimitExceeded like `create`.
    """
    row = await access.deployment(actor, deployment_id, to=Permission.DEPLOYMENT_WRITE)

    again_id = new_id()

    async def make() -> None:
        slot.use()
        await deployment_queue.enqueue_again(
            row["project_id"], row["id"], again_id=again_id, requested_by=actor.user_id
        )
        await _record(actor, "redeploy", again_id, of=str(row["id"]))

    async with limits.deployment(actor.user_id or row["owner_id"]) as slot, unit_of_work():
        return await once(
            actor.user_id or row["owner_id"],
            "redeploy",
            idempotency_key,
            request={"deployment": row["id"]},
            target_id=again_id,
            make=make,
        )


async def cancel(actor: Actor, deployment_id: str) -> UUID:
    """Stop a deployment; a final one stays as it is."""
    row = await access.deployment(actor, deployment_id, to=Permission.EXECUTION_CANCEL)
    await executions.cancel(actor, row["id"], action="cancelDeployment")
    found: UUID = row["id"]
    return found


async def promote(actor: Actor, deployment_id: str) -> UUID:
    """Let production lead to a deployment that was built, older or newer: at once, without a build.

    Deployments that were asked for before this moment do not take production over when they are done. Raises Conflict
    for one that was not built, and for a fork's.
    """
    row = await access.deployment(actor, deployment_id, to=Permission.DEPLOYMENT_WRITE)
    async with unit_of_work():
        # One after the other, so that each knows what it replaces, and whether that is a step back.
        if not await project_queries.lock(row["project_id"]):
            raise access.missing()
        found = await deployment_queries.lock_final(row["id"])
        if found is None:
            raise access.missing()
        if found["status"] != ExecutionStatus.SUCCEEDED:
            raise Conflict("Only a deployment that succeeded can be promoted.", status=found["status"])
        if found["is_fork"]:
            raise Conflict("A fork's code is never promoted to production; merge it instead.")
        live = (await deployment_queries.at_alias([found["project_id"]], PRODUCTION_ALIAS)).get(found["project_id"])
        before = await deployment_queries.lock_final(live) if live is not None else None
        is_rollback = before is not None and before["number"] > found["number"]
        # Also of what is live already: it was decided anew, so what is being built now does not replace it.
        moved = await site_queries.promote(
            project_id=found["project_id"],
            alias=PRODUCTION_ALIAS,
            deployment_id=row["id"],
            reason=DeploymentTrigger.ROLLBACK if is_rollback else _asked_by(actor),
            user_id=actor.user_id,
        )
        if moved.has_moved:
            await events.publish(SiteChanged(found["project_id"]))
            for changed in (row["id"], live):
                if changed is not None:
                    await events.publish(ExecutionChanged(changed, row["owner_id"]))
            await execution_news.promoted(row["id"], row["owner_id"])
        await _record(
            actor, "promoteDeployment", row["id"], project=str(found["project_id"]), before=live and str(live)
        )
    promoted: UUID = row["id"]
    return promoted


async def delete(actor: Actor, deployment_id: str) -> None:
    """Remove a deployment with its files and its log; raises Conflict while it waits, works or is live."""
    row = await access.deployment(actor, deployment_id, to=Permission.DEPLOYMENT_WRITE)
    async with unit_of_work():
        found = await deployment_queries.lock_final(row["id"])
        if found is None:
            raise access.missing()
        if not ExecutionStatus(found["status"]).is_final:
            raise Conflict("The deployment waits or works; cancel it first.")
        if PRODUCTION_ALIAS in found["aliases"]:
            raise Conflict("Production leads to this deployment; promote another one first.")
        await deployment_queries.delete(row["id"])
        await _record(actor, "deleteDeployment", row["id"], project=str(found["project_id"]), number=found["number"])
        if found["log_key"]:
            projects.delete_objects_after_commit([found["log_key"]])
        await events.publish(SiteChanged(found["project_id"]))
        await events.publish(TotalsChanged(row["owner_id"]))
        await outbox.post("site.garbage", str(row["id"]), {"projectId": str(found["project_id"])})


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the deployments that an actor may see."""
    return await execution_rows.visible(actor, kind=KIND, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await execution_rows.count_visible(actor, kind=KIND, **filters)


async def find(actor: Actor, deployment_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the deployments that an actor may see, in one statement."""
    found = await execution_rows.find(deployment_ids)
    return {key: row for key, row in found.items() if row["kind"] == KIND and access.sees_execution(actor, row)}


def _asked_by(actor: Actor) -> DeploymentTrigger:
    """A person, or a program with an access token of theirs."""
    return DeploymentTrigger.MANUAL if actor.access_token_id is None else DeploymentTrigger.API


async def _record(actor: Actor, action: str, deployment_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="deployment", target_id=deployment_id, details=details)
