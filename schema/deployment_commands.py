"""Commands on deployments: ask for one, stop, repeat, promote and delete one."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from models.permissions import Permission
from models.projects import DeploymentEnvironment
from resolvers import deployments
from schema.context import Context
from schema.deployments import Deployment, load_deployment
from schema.permissions import requires

Info = strawberry.Info[Context, None]


@strawberry.input(description="What to deploy.")
class CreateDeploymentInput:
    """A new deployment."""

    project_id: strawberry.ID = strawberry.field(description="The project.")
    branch: str | None = strawberry.field(default=None, description="The branch: the project's when left out.")
    commit: str | None = strawberry.field(
        default=None, description="A whole commit hash; the branch's newest when left out."
    )
    environment: DeploymentEnvironment | None = strawberry.field(
        default=None, description="What for: production for the project's branch, preview for others."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat a call with its key, and it answers with the deployment that the first call made.",
    )


@strawberry.input(description="Which deployment to stop.")
class CancelDeploymentInput:
    """A deployment to stop."""

    id: strawberry.ID = strawberry.field(description="The deployment.")


@strawberry.input(description="Which deployment to repeat.")
class RedeployInput:
    """A deployment to repeat."""

    id: strawberry.ID = strawberry.field(description="The deployment; it need not have ended.")
    idempotency_key: str | None = strawberry.field(default=None, description="As in `CreateDeploymentInput`.")


@strawberry.input(description="Which deployment production shall lead to.")
class PromoteDeploymentInput:
    """A deployment to promote."""

    id: strawberry.ID = strawberry.field(description="The deployment; it must have succeeded.")


@strawberry.input(description="Which deployment goes.")
class DeleteDeploymentInput:
    """A deployment to delete."""

    id: strawberry.ID = strawberry.field(description="The deployment; it must have ended, and not be live.")


@strawberry.type(description="A deployment.")
class DeploymentPayload:
    """What the commands answer with."""

    deployment: Deployment = strawberry.field(description="The deployment as it is now.")


@strawberry.type(description="A deployment that is gone.")
class DeleteDeploymentPayload:
    """A deployment that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class DeploymentsMutation:
    """What users do with deployments."""

    @strawberry.mutation(
        description="Queue a deployment and answer with it at once. What takes the same address is built one at a "
        "time, in order. RATE_LIMIT_EXCEEDED when too many of yours wait, or you made too many within an hour; a call "
        "that is repeated with its `idempotencyKey` makes none.",
        extensions=[requires(Permission.DEPLOYMENT_WRITE)],
    )
    async def create_deployment(
        self, info: Info, input: Annotated[CreateDeploymentInput, strawberry.argument(description="What to deploy.")]
    ) -> DeploymentPayload:
        """A new deployment."""
        deployment_id = await deployments.create(
            info.context.actor,
            input.project_id,
            branch=input.branch,
            commit=input.commit,
            environment=input.environment,
            idempotency_key=input.idempotency_key,
        )
        return await _payload(info.context, deployment_id)

    @strawberry.mutation(
        description="Stop a deployment: it is CANCELLED once nothing of its build runs any more. One that has ended "
        "stays as it is.",
        extensions=[requires(Permission.EXECUTION_CANCEL)],
    )
    async def cancel_deployment(
        self, info: Info, input: Annotated[CancelDeploymentInput, strawberry.argument(description="Which deployment.")]
    ) -> DeploymentPayload:
        """A request to stop."""
        return await _payload(info.context, await deployments.cancel(info.context.actor, input.id))

    @strawberry.mutation(
        description="Build exactly the same again: the commit, the configuration and the variables as they were then. "
        "It counts as a new deployment.",
        extensions=[requires(Permission.DEPLOYMENT_WRITE)],
    )
    async def redeploy(
        self, info: Info, input: Annotated[RedeployInput, strawberry.argument(description="Which deployment.")]
    ) -> DeploymentPayload:
        """A deployment once more."""
        again_id = await deployments.redeploy(info.context.actor, input.id, idempotency_key=input.idempotency_key)
        return await _payload(info.context, again_id)

    @strawberry.mutation(
        description="Let production lead to a deployment that was built, older or newer: at once, without a build. "
        "Deployments asked for before this moment do not take production over when they are done. CONFLICT for one "
        "that did not succeed, and for a fork's.",
        extensions=[requires(Permission.DEPLOYMENT_WRITE)],
    )
    async def promote_deployment(
        self, info: Info, input: Annotated[PromoteDeploymentInput, strawberry.argument(description="Which deployment.")]
    ) -> DeploymentPayload:
        """A deployment that is live."""
        return await _payload(info.context, await deployments.promote(info.context.actor, input.id))

    @strawberry.mutation(
        description="Delete a deployment with its files and its log. CONFLICT while it waits or works, and while "
        "production leads to it.",
        extensions=[requires(Permission.DEPLOYMENT_WRITE)],
    )
    async def delete_deployment(
        self, info: Info, input: Annotated[DeleteDeploymentInput, strawberry.argument(description="Which deployment.")]
    ) -> DeleteDeploymentPayload:
        """The end of a deployment."""
        await deployments.delete(info.context.actor, input.id)
        return DeleteDeploymentPayload(deleted_id=input.id)


async def _payload(context: Context, deployment_id: UUID) -> DeploymentPayload:
    return DeploymentPayload(deployment=await load_deployment(context, deployment_id))
