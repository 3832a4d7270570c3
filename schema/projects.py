"""Projects as clients see them: a repository, how it is built, where its site is.

Values of variables can be written and never read. Commands are in `schema/project_commands.py`; what is allowed is
decided in `resolvers/projects.py` and at the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from uuid import UUID

import strawberry

from models import deployment_queries, project_queries
from models.database import Row
from models.deployments import DeploymentTrigger
from models.ids import Prefix, encode_id
from models.permissions import Permission, Role
from models.project_queries import ProjectOrderField
from models.projects import DeploymentEnvironment, SupersedePolicy
from models.site_paths import alias_label
from models.sites import PRODUCTION_ALIAS
from models.users import Account
from resolvers import access, deployments, projects, texts
from resolvers.github import WebhookState, WebhookStatus, webhook_states
from schema.context import Context
from schema.enums import publish
from schema.executions import build
from schema.node import Node, register_node
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.users import User, load_user

if TYPE_CHECKING:
    from schema.deployments import Deployment

Info = strawberry.Info[Context, None]
AnyDeployment = Annotated["Deployment", strawberry.lazy("schema.deployments")]
_BY_NUMBER: Final = (("-id", int),)
MASK: Final = "••••••••"

publish(
    ProjectOrderField,
    "What a list of projects is sorted by.",
    CREATED_AT="When it was made.",
    NAME="Its name, without regard to case.",
    UPDATED_AT="When it last changed.",
)
publish(
    DeploymentEnvironment,
    "What a deployment is for: it decides which variables it gets and which address it takes.",
    PRODUCTION="The project's own address.",
    PREVIEW="An address of its branch or pull request.",
)
publish(
    SupersedePolicy,
    "What a newer push does to older deployments of the same branch that are not done. Those that a person asked for "
    "are left alone.",
    NONE="Nothing.",
    QUEUED="Those that wait are cancelled.",
    ALL="Those that wait or work are cancelled.",
)
publish(
    WebhookStatus,
    "How a project's webhook at GitHub stands.",
    NONE="There is none.",
    PENDING="It is being made.",
    ACTIVE="GitHub tells of every push.",
    FAILED="It could not be made; the message says why.",
)
publish(
    DeploymentTrigger,
    "What made a deployment, or moved an address to it. Expect new values.",
    MANUAL="A person.",
    PUSH="A push to the repository.",
    PULL_REQUEST="A pull request, opened or pushed to.",
    REDEPLOY="A person who had an earlier one made again.",
    ROLLBACK="A person who moved production back to an earlier one.",
    DEPLOY_HOOK="A call to a deploy hook.",
    API="A program with an access token.",
)
_KEYS: Final[dict[ProjectOrderField, tuple[Column, ...]]] = {
    ProjectOrderField.CREATED_AT: (("id", UUID),),
    ProjectOrderField.NAME: (("name", str), ("id", UUID)),
    ProjectOrderField.UPDATED_AT: (("updated_at", datetime), ("id", UUID)),
}


@strawberry.type(description="A variable of builds. Its value is kept encrypted and is never shown.")
class EnvironmentVariable:
    """A variable without its value."""

    id: strawberry.ID = strawberry.field(description="The variable's id.")
    name: str = strawberry.field(description="The name that builds see.")
    environment: DeploymentEnvironment = strawberry.field(description="The deployments that get it.")
    masked_value: str = strawberry.field(description="Dots, as many whatever the value is.")
    created_at: datetime = strawberry.field(description="When it was first set.")
    updated_at: datetime = strawberry.field(description="When it was last set.")


@strawberry.type(description="A secret address that deploys one branch when it is posted to.")
class DeployHook:
    """A deploy hook without its address."""

    id: strawberry.ID = strawberry.field(description="The hook's id.")
    name: str = strawberry.field(description="The name to show.")
    branch: str = strawberry.field(description="The branch that it deploys.")
    environment: DeploymentEnvironment = strawberry.field(description="What the deployments are for.")
    created_at: datetime = strawberry.field(description="When it was made.")
    last_used_at: datetime | None = strawberry.field(description="When it last made a deployment.")


@strawberry.type(description="How the webhook of a project's repository stands.")
class ProjectWebhook:
    """A webhook's state."""

    status: WebhookStatus = strawberry.field(description="Where it stands.")
    message: str | None = strawberry.field(description="What GitHub last refused, in words.")


@strawberry.type(description="One move of an address: which deployment it has led to since then.")
class Publication:
    """A publication."""

    url: str = strawberry.field(description="The address.")
    reason: DeploymentTrigger = strawberry.field(description="What moved it.")
    at: datetime = strawberry.field(description="When.")
    row: strawberry.Private[Row]

    @strawberry.field(description="Where it leads since then; null once that deployment is deleted.")
    async def deployment(self, info: Info) -> AnyDeployment | None:
        """Loaded for all publications of the answer at once."""
        return await _deployment(info.context, self.row["deployment_id"])

    @strawberry.field(description="Where it led before; null for its first one, and once that deployment is deleted.")
    async def previous(self, info: Info) -> AnyDeployment | None:
        """Loaded for all publications of the answer at once."""
        return await _deployment(info.context, self.row["previous_id"])

    @strawberry.field(description="Who moved it; null for a machine.")
    async def moved_by(self, info: Info) -> User | None:
        """Loaded for all publications of the answer at once."""
        user_id: UUID | None = self.row["user_id"]
        return None if user_id is None else await load_user(info.context, user_id)


@strawberry.type(description="A repository and how it becomes a site.")
class Project(Node):
    """A project."""

    name: str = strawberry.field(description="The name to show.")
    slug: str = strawberry.field(description="Its name in addresses; unique, and never changes.")
    repository: str = strawberry.field(description="The address that it is cloned from.")
    repository_full_name: str | None = strawberry.field(description="`owner/name` where that is at GitHub.")
    branch: str = strawberry.field(description="The branch that goes to production.")
    root_directory: str = strawberry.field(description="The folder of the repository that is built; `.` for all of it.")
    framework: str | None = strawberry.field(description="The framework that its last build recognised.")
    install_command: str | None = strawberry.field(
        description="What installs dependencies; empty for nothing, null for what suits the files."
    )
    build_command: str | None = strawberry.field(
        description="What builds; empty for nothing, null for what suits the files."
    )
    output_directory: str | None = strawberry.field(
        description="The folder that is served, below `rootDirectory`; null for what suits the files."
    )
    spa_fallback: bool | None = strawberry.field(
        description="Whether unknown paths are answered with `index.html`; null for what suits the framework."
    )
    auto_deploy: bool = strawberry.field(description="Whether a push to GitHub deploys.")
    preview_deployments: bool = strawberry.field(
        description="Whether other branches and pull requests are deployed too, to preview."
    )
    supersede: SupersedePolicy = strawberry.field(description="What a newer push does to older deployments.")
    install_scripts: bool = strawberry.field(description="Whether install scripts of npm packages run.")
    build_network: bool = strawberry.field(
        description="Whether the build command reaches the internet; installing always does."
    )
    submodules: bool = strawberry.field(description="Whether submodules are cloned as well.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    url: str = strawberry.field(description="The address of production.")
    row: strawberry.Private[Row]

    @strawberry.field(description="Whose it is.")
    def owner(self, info: Info) -> User | None:
        """From the same row."""
        row = self.row
        account = Account(
            id=row["owner_id"],
            email=row["owner_email"],
            username=row["owner_username"],
            name=row["owner_name"],
            role=Role(row["owner_role"]),
            created_at=row["owner_created_at"],
        )
        return User.seen_by(info.context.actor, account)

    @strawberry.field(description="The deployment that production leads to; null before the first one succeeded.")
    async def live_deployment(self, info: Info) -> AnyDeployment | None:
        """Loaded for all projects of the answer at once."""
        return await _deployment(info.context, await info.context.load(_load_live, self.row["id"]))

    @strawberry.field(description="The newest deployment, however it stands.")
    async def latest_deployment(self, info: Info) -> AnyDeployment | None:
        """Loaded for all projects of the answer at once."""
        return await _deployment(info.context, await info.context.load(_load_latest, self.row["id"]))

    @strawberry.field(description="Every move of its addresses from one deployment to another, newest first.")
    async def publications(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[Publication]:
        """One page of them."""
        return await paginate(
            fetch=by_one_key(partial(deployment_queries.publications, self.row["id"])),
            count=partial(deployment_queries.count_publications, self.row["id"]),
            first=first,
            after=after,
            last=last,
            before=before,
            key=_BY_NUMBER,
            node=lambda row: _publication(row, self.slug, info.context),
        )

    @strawberry.field(description="Its variables, without their values.")
    async def environment_variables(self, info: Info) -> list[EnvironmentVariable]:
        """Loaded for all projects of the answer at once."""
        rows: list[Row] = await info.context.load(_load_variables, self.row["id"])
        return [
            EnvironmentVariable(
                id=strawberry.ID(encode_id(Prefix.VARIABLE, row["id"])),
                name=row["name"],
                environment=DeploymentEnvironment(row["environment"]),
                masked_value=MASK,
                created_at=row["created_at"],
                updated_at=row["updated_at"],
            )
            for row in rows
        ]

    @strawberry.field(
        description="How GitHub's webhook for it stands: without one, pushes do not deploy unless the operator has set "
        "one up for many repositories."
    )
    async def webhook(self, info: Info) -> ProjectWebhook:
        """Loaded for all projects of the answer at once."""
        state: WebhookState = await info.context.load(_load_webhooks, self.row["id"])
        return ProjectWebhook(status=state.status, message=state.message)

    @strawberry.field(description="Its deploy hooks, without their addresses.")
    async def deploy_hooks(self, info: Info) -> list[DeployHook]:
        """Loaded for all projects of the answer at once."""
        rows: list[Row] = await info.context.load(_load_hooks, self.row["id"])
        return [deploy_hook_of(row) for row in rows]


@strawberry.input(description="How a list of projects is sorted.")
class ProjectOrder:
    """An order."""

    field: ProjectOrderField = strawberry.field(default=ProjectOrderField.CREATED_AT, description="By what.")
    direction: OrderDirection = strawberry.field(default=OrderDirection.DESC, description="Which way.")


@strawberry.type
class ProjectsQuery:
    """What can be read of projects."""

    @strawberry.field(
        description="Your projects (administrators: everybody's), newest first unless said otherwise.",
        extensions=[requires(Permission.PROJECT_READ)],
    )
    async def projects(
        self,
        info: Info,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Only projects with this text in their name, slug or repository, in any case; "
                "up to 200 characters."
            ),
        ] = None,
        order_by: Annotated[ProjectOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Project]:
        """One page of projects with their owners, in one statement."""
        context = info.context
        order = order_by or ProjectOrder()
        is_descending = order.direction is OrderDirection.DESC
        wanted = texts.search(search)

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await projects.page(
                context.actor,
                search=wanted,
                order=order.field,
                descending=is_descending,
                after=after_key,
                before=before_key,
                backwards=backwards,
                limit=limit,
            )

        sign = "-" if is_descending else ""
        return await paginate(
            fetch=fetch,
            count=lambda: projects.count(context.actor, search=wanted),
            first=first,
            after=after,
            last=last,
            before=before,
            key=tuple((sign + name, kind) for name, kind in _KEYS[order.field]),
            node=lambda row: project_of(row, context),
        )

    @strawberry.field(
        description="A project. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.PROJECT_READ)],
    )
    async def project(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The project.")]
    ) -> Project | None:
        """One project."""
        row = await access.project(info.context.actor, id, to=Permission.PROJECT_READ)
        return project_of(row, info.context)


def project_of(row: Row, context: Context) -> Project:
    """The project in a row of `models.project_queries`."""
    plain = (
        "name",
        "slug",
        "repository",
        "repository_full_name",
        "branch",
        "root_directory",
        "framework",
        "install_command",
        "build_command",
        "output_directory",
        "spa_fallback",
        "auto_deploy",
        "preview_deployments",
        "install_scripts",
        "build_network",
        "submodules",
        "created_at",
        "updated_at",
    )
    return Project(
        id=strawberry.ID(encode_id(Prefix.PROJECT, row["id"])),
        supersede=SupersedePolicy(row["supersede"]),
        url=context.settings.site_url(row["slug"]),
        row=row,
        **{name: row[name] for name in plain},
    )


def deploy_hook_of(row: Row) -> DeployHook:
    """The deploy hook in a row of `models.project_queries.hooks`."""
    return DeployHook(
        id=strawberry.ID(encode_id(Prefix.DEPLOY_HOOK, row["id"])),
        name=row["name"],
        branch=row["branch"],
        environment=DeploymentEnvironment(row["environment"]),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
    )


async def load_project(context: Context, project_id: UUID) -> Project | None:
    """A project that the viewer may see, loaded with others of the answer."""
    row = await context.load(_load_projects, project_id)
    return None if row is None else project_of(row, context)


@register_node(Prefix.PROJECT)
async def _project_node(context: Context, project_id: UUID) -> Project | None:
    if not context.actor.may(Permission.PROJECT_READ):
        return None
    return await load_project(context, project_id)


async def _load_projects(context: Context, project_ids: list[UUID]) -> Sequence[Row | None]:
    found = await projects.by_ids(context.actor, project_ids)
    return [found.get(project_id) for project_id in project_ids]


async def _load_variables(_context: Context, project_ids: list[UUID]) -> Sequence[list[Row]]:
    return _grouped(project_ids, await project_queries.variables(project_ids))


async def _load_webhooks(_context: Context, project_ids: list[UUID]) -> Sequence[WebhookState]:
    # Rows cannot be keys; and what stands about a hook is as fresh as the messages beside it.
    rows = await project_queries.find(project_ids)
    found = await webhook_states(list(rows.values()))
    return [found.get(project_id, WebhookState(WebhookStatus.NONE)) for project_id in project_ids]


async def _load_hooks(_context: Context, project_ids: list[UUID]) -> Sequence[list[Row]]:
    return _grouped(project_ids, await project_queries.hooks(project_ids))


def _publication(row: Row, slug: str, context: Context) -> Publication:
    return Publication(
        url=context.settings.site_url(alias_label(row["alias"], slug)),
        reason=DeploymentTrigger(row["reason"]),
        at=row["at"],
        row=row,
    )


async def _deployment(context: Context, deployment_id: UUID | None) -> Deployment | None:
    """A deployment as its kind's type; who may see the project may see it."""
    row = None if deployment_id is None else await context.load(_load_deployments, deployment_id)
    return None if row is None else cast("Deployment", build(row, context))


async def _load_deployments(context: Context, deployment_ids: list[UUID]) -> Sequence[Row | None]:
    found = await deployments.find(context.actor, deployment_ids)
    return [found.get(deployment_id) for deployment_id in deployment_ids]


async def _load_live(_context: Context, project_ids: list[UUID]) -> Sequence[UUID | None]:
    found = await deployment_queries.at_alias(project_ids, PRODUCTION_ALIAS)
    return [found.get(project_id) for project_id in project_ids]


async def _load_latest(_context: Context, project_ids: list[UUID]) -> Sequence[UUID | None]:
    found = await deployment_queries.latest(project_ids)
    return [found.get(project_id) for project_id in project_ids]


def _grouped(project_ids: list[UUID], rows: list[Row]) -> list[list[Row]]:
    grouped: dict[UUID, list[Row]] = {project_id: [] for project_id in project_ids}
    for row in rows:
        grouped[row["project_id"]].append(row)
    return [grouped[project_id] for project_id in project_ids]
