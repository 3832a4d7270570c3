"""Deployments as clients see them: an execution with what it built, where that is served, and what it went through.

Commands are in `schema/deployment_commands.py`; what is allowed is decided in `resolvers/deployments.py` and at the
gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from models import database, deployment_queries, execution_rows
from models.database import Row
from models.deployments import KIND, DeploymentStep, DeploymentTrigger
from models.execution_rows import Condition
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.permissions import Permission
from models.projects import DeploymentEnvironment
from models.site_paths import alias_label, deployment_label
from models.sites import PRODUCTION_ALIAS
from resolvers import access, deployment_stages, deployments, texts
from resolvers.deployment_stages import DeploymentStageName, Span, StageStatus
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, common, register_kind
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.projects import Project, load_project
from schema.scalars import JSON, BigInt

Info = strawberry.Info[Context, None]
RECENT: Final = 5
MAX_RECENT: Final = 50

publish(
    DeploymentStageName,
    "The stages of every deployment, in their order.",
    QUEUED="It waits for its turn.",
    BUILDING="It is cloned, installed and built.",
    DEPLOYING="Its files are stored, and its address moves to it.",
)
publish(
    DeploymentStep,
    "The steps of every deployment, in their order; finer than stages.",
    CLONING="The commit is fetched.",
    INSTALLING="Dependencies are installed.",
    BUILDING="The build command runs.",
    COLLECTING="The output is read and checked.",
    UPLOADING="Files that are new are stored.",
    PUBLISHING="The address moves, in one step.",
)
publish(
    StageStatus,
    "Where a stage or a step stands.",
    PENDING="It has not begun.",
    RUNNING="It is under way.",
    SUCCEEDED="Done.",
    FAILED="It failed, and the deployment with it.",
    CANCELLED="The deployment was stopped here.",
    SKIPPED="It was not needed, or not reached.",
)


@strawberry.type(description="A stage of a deployment's latest attempt.")
class DeploymentStage:
    """A stage."""

    name: DeploymentStageName = strawberry.field(description="Which one.")
    status: StageStatus = strawberry.field(description="Where it stands.")
    started_at: datetime | None = strawberry.field(description="When it began.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    error: str | None = strawberry.field(description="Why it failed.")

    @strawberry.field(description="Seconds from its start to its end, or until now.")
    def duration_seconds(self) -> float | None:
        """From its times."""
        return _seconds(self.started_at, self.finished_at)


@strawberry.type(description="A step of a deployment's latest attempt.")
class DeploymentStepTime:
    """A step."""

    name: DeploymentStep = strawberry.field(description="Which one.")
    status: StageStatus = strawberry.field(description="Where it stands.")
    started_at: datetime | None = strawberry.field(description="When it began.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    error: str | None = strawberry.field(description="Why it failed.")

    @strawberry.field(description="Seconds from its start to its end, or until now.")
    def duration_seconds(self) -> float | None:
        """From its times."""
        return _seconds(self.started_at, self.finished_at)


@strawberry.type(description="One build of a project, and what it serves. What it serves never changes.")
class Deployment(Execution, Node):
    """A deployment."""

    number: int = strawberry.field(description="1, 2, 3 … within the project.")
    environment: DeploymentEnvironment = strawberry.field(description="What it is for.")
    trigger: DeploymentTrigger = strawberry.field(description="What made it.")
    branch: str = strawberry.field(description="The branch that is built.")
    commit_hash: str | None = strawberry.field(
        description="The commit that is built; null until it is known, at the latest once cloned."
    )
    commit_message: str | None = strawberry.field(description="What the commit says.")
    author: str | None = strawberry.field(description="Who wrote the commit.")
    committed_at: datetime | None = strawberry.field(description="When the commit was made.")
    pull_request: int | None = strawberry.field(description="The pull request that it previews.")
    is_fork: bool = strawberry.field(description="Whether the code is a fork's; those get no variables.")
    framework: str | None = strawberry.field(description="The framework that was recognised.")
    current_stage: DeploymentStageName | None = strawberry.field(
        description="The stage it is in or ended in; null once it has succeeded."
    )
    url: str = strawberry.field(description="Its own address, for ever; answers once it has succeeded.")
    is_live: bool = strawberry.field(description="Whether production leads to it now.")
    aliases: list[str] = strawberry.field(description="All addresses that lead to it now, besides its own.")
    file_count: int | None = strawberry.field(description="Files that it serves; null until it has succeeded.")
    artifact_size: BigInt | None = strawberry.field(description="Bytes of all its files.")
    uploaded_bytes: BigInt | None = strawberry.field(
        description="Bytes that had to be stored for it; the rest earlier deployments have in common with it."
    )
    build_duration: float | None = strawberry.field(
        description="Seconds from the start of the clone to the end of the build; null until it is built."
    )
    project_key: strawberry.Private[UUID]

    @strawberry.field(description="The project that it is a deployment of.")
    async def project(self, info: Info) -> Project | None:
        """Loaded for all deployments of the answer at once."""
        return await load_project(info.context, self.project_key)

    @strawberry.field(description="What it went through, in three stages.")
    async def stages(self, info: Info) -> list[DeploymentStage]:
        """Loaded for all deployments of the answer at once."""
        changes: list[Row] = await info.context.load(_load_steps, self.row["id"])
        return [
            DeploymentStage(name=DeploymentStageName(span.name), **_times(span))
            for span in deployment_stages.stages(self.row, changes)
        ]

    @strawberry.field(description="The same, in finer steps.")
    async def steps(self, info: Info) -> list[DeploymentStepTime]:
        """Loaded for all deployments of the answer at once."""
        changes: list[Row] = await info.context.load(_load_steps, self.row["id"])
        return [
            DeploymentStepTime(name=DeploymentStep(span.name), **_times(span))
            for span in deployment_stages.steps(self.row, changes)
        ]

    @strawberry.field(description="The configuration it is built with: the project's, as it was when it was asked for.")
    def configuration(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(_in_camel_case(database.from_json(self.row["configuration"])))

    @strawberry.field(description="The newer deployment that took its place before it was done.")
    async def superseded_by(self, info: Info) -> Deployment | None:
        """Loaded for all deployments of the answer at once."""
        return await _related(info.context, self.row["superseded_by_id"])

    @strawberry.field(description="The deployment that it repeats.")
    async def redeploy_of(self, info: Info) -> Deployment | None:
        """Loaded for all deployments of the answer at once."""
        return await _related(info.context, self.row["redeploy_of_id"])


@strawberry.input(description="Which deployments.")
class DeploymentFilter:
    """Conditions; all given ones must hold."""

    search: str | None = strawberry.field(
        default=None,
        description="With this text in the commit's message or hash, the branch or the project's name, in any case.",
    )
    status: list[ExecutionStatus] | None = strawberry.field(default=None, description="In one of these.")
    stage: DeploymentStageName | None = strawberry.field(
        default=None, description="In this stage, or ended in it without success."
    )
    project_id: strawberry.ID | None = strawberry.field(default=None, description="Of this project.")
    environment: DeploymentEnvironment | None = strawberry.field(default=None, description="For this.")


@strawberry.type
class DeploymentsQuery:
    """What can be read of deployments."""

    @strawberry.field(
        description="Your deployments (administrators: everybody's), newest first.",
        extensions=[requires(Permission.DEPLOYMENT_READ)],
    )
    async def deployments(
        self,
        info: Info,
        filter: Annotated[DeploymentFilter | None, strawberry.argument(description="Which deployments.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Deployment]:
        """One page of deployments, in one statement."""
        context = info.context
        conditions = _conditions(filter or DeploymentFilter())

        return await paginate(
            fetch=by_one_key(partial(deployments.page, context.actor, conditions=conditions)),
            count=lambda: deployments.count(context.actor, conditions=conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: deployment_of(row, context),
        )

    @strawberry.field(
        description="A deployment. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.DEPLOYMENT_READ)],
    )
    async def deployment(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The deployment.")]
    ) -> Deployment | None:
        """One deployment."""
        row = await access.deployment(info.context.actor, id, to=Permission.DEPLOYMENT_READ)
        return deployment_of(row, info.context)

    @strawberry.field(
        description="Your newest deployments, of all projects.",
        extensions=[requires(Permission.DEPLOYMENT_READ)],
    )
    async def recent_deployments(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many: 1 to 50.")] = RECENT,
    ) -> list[Deployment]:
        """The newest ones, in one statement."""
        context = info.context
        size = texts.within(first, 1, MAX_RECENT, path=["first"])
        return [deployment_of(row, context) for row in await deployments.page(context.actor, limit=size)]


@register_kind(KIND)
def deployment_of(row: Row, context: Context) -> Deployment:
    """The deployment in a row of `models.execution_rows`."""
    aliases: list[str] = database.from_json(row["aliases"]) or []
    return Deployment(
        id=strawberry.ID(encode_id(Prefix.DEPLOYMENT, row["id"])),
        number=row["number"],
        environment=DeploymentEnvironment(row["environment"]),
        trigger=DeploymentTrigger(row["deployment_trigger"]),
        branch=row["branch"],
        commit_hash=row["commit_hash"],
        commit_message=row["commit_message"],
        author=row["commit_author"],
        committed_at=row["committed_at"],
        pull_request=row["pull_request"],
        is_fork=row["is_fork"],
        framework=row["deployment_framework"],
        current_stage=deployment_stages.current_stage(row),
        url=context.settings.site_url(deployment_label(row["site_key"], row["project_slug"])),
        is_live=PRODUCTION_ALIAS in aliases,
        aliases=[context.settings.site_url(alias_label(name, row["project_slug"])) for name in aliases],
        file_count=row["file_count"],
        artifact_size=None if row["artifact_size"] is None else BigInt(row["artifact_size"]),
        uploaded_bytes=None if row["uploaded_bytes"] is None else BigInt(row["uploaded_bytes"]),
        build_duration=row["build_seconds"],
        project_key=row["project_id"],
        **common(row, context),
    )


async def load_deployment(context: Context, deployment_id: UUID) -> Deployment:
    """A deployment that the viewer may see; raises NotFound."""
    row = await access.visible_execution(context.actor, deployment_id, to=Permission.DEPLOYMENT_READ)
    return deployment_of(row, context)


@register_node(Prefix.DEPLOYMENT)
async def _deployment_node(context: Context, deployment_id: UUID) -> Deployment | None:
    if not context.actor.may(Permission.DEPLOYMENT_READ):
        return None
    return await _related(context, deployment_id)


async def _related(context: Context, deployment_id: UUID | None) -> Deployment | None:
    if deployment_id is None:
        return None
    row = await context.load(_load_deployments, deployment_id)
    return None if row is None else deployment_of(row, context)


async def _load_deployments(context: Context, deployment_ids: list[UUID]) -> Sequence[Row | None]:
    found = await deployments.find(context.actor, deployment_ids)
    return [found.get(deployment_id) for deployment_id in deployment_ids]


async def _load_steps(_context: Context, deployment_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await deployment_queries.steps(deployment_ids)
    return [found[deployment_id] for deployment_id in deployment_ids]


def _conditions(filter: DeploymentFilter) -> list[Condition]:
    search = texts.search(filter.search)
    given = [
        search and execution_rows.mentioning(search),
        filter.status and execution_rows.in_statuses([status.value for status in filter.status]),
        filter.project_id and execution_rows.of_project(access.uuid_of(filter.project_id, Prefix.PROJECT)),
        filter.environment and execution_rows.in_environment(filter.environment.value),
    ]
    if filter.stage is DeploymentStageName.QUEUED:
        given.append(execution_rows.waiting())
    elif filter.stage is not None:
        names: list[str | None] = [step.value for step in deployment_stages.STEPS_OF[filter.stage]]
        # As `deployment_stages.current_stage` has it: begun, and not yet at a step.
        before_steps = [None] if filter.stage is DeploymentStageName.BUILDING else []
        given.append(execution_rows.stopped_in([*before_steps, *names]))
    return [condition for condition in given if condition]


def _times(span: Span) -> dict[str, Any]:
    return {
        "status": span.status,
        "started_at": span.started_at,
        "finished_at": span.finished_at,
        "error": span.error,
    }


def _seconds(started_at: datetime | None, finished_at: datetime | None) -> float | None:
    if started_at is None:
        return None
    return max(0.0, ((finished_at or datetime.now(started_at.tzinfo)) - started_at).total_seconds())


def _in_camel_case(configuration: dict[str, Any]) -> dict[str, Any]:
    def camel(name: str) -> str:
        head, *tail = name.split("_")
        return head + "".join(part.title() for part in tail)

    return {camel(name): value for name, value in configuration.items()}
