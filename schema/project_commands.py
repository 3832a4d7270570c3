"""Commands on projects: make, change and delete one, set its variables, make and delete its deploy hooks."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from models import project_queries
from models.permissions import Permission
from models.projects import DeploymentEnvironment, SupersedePolicy
from resolvers import access, projects
from resolvers.projects import VariableChange
from schema import deploy_hooks
from schema.context import Context
from schema.permissions import requires
from schema.projects import DeployHook, Project, deploy_hook_of, project_of

Info = strawberry.Info[Context, None]


@strawberry.input(description="A new project. What is left out is found by looking at the repository's files.")
class CreateProjectInput:
    """What a new project needs."""

    name: str = strawberry.field(description="The name to show, up to 120 characters.")
    repository: str = strawberry.field(description="`owner/name` at GitHub, or any https address that git can clone.")
    slug: str | None = strawberry.field(
        default=None,
        description="Its name in addresses: up to 40 lower-case letters, digits and single hyphens. It never changes; "
        "made from the name when left out.",
    )
    branch: str | None = strawberry.field(default=None, description="The branch that goes to production: `main`.")
    root_directory: str | None = strawberry.field(default=None, description="The folder that is built: all of it.")
    install_command: str | None = strawberry.field(
        default=None, description="What installs dependencies: one line for the shell; empty for nothing."
    )
    build_command: str | None = strawberry.field(
        default=None, description="What builds: one line for the shell; empty for nothing."
    )
    output_directory: str | None = strawberry.field(
        default=None, description="The folder that is served, below `rootDirectory`."
    )
    spa_fallback: bool | None = strawberry.field(
        default=None, description="Whether unknown paths are answered with `index.html`."
    )
    auto_deploy: bool = strawberry.field(default=True, description="Whether a push to GitHub deploys.")
    preview_deployments: bool = strawberry.field(
        default=True, description="Whether other branches and pull requests are deployed too, to preview."
    )
    supersede: SupersedePolicy = strawberry.field(
        default=SupersedePolicy.QUEUED, description="What a newer push does to older deployments of its branch."
    )
    install_scripts: bool = strawberry.field(
        default=False, description="Whether install scripts of npm packages run; many attacks do."
    )
    build_network: bool = strawberry.field(
        default=True, description="Whether the build command reaches the internet; installing always does."
    )
    submodules: bool = strawberry.field(default=False, description="Whether submodules are cloned as well.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat a call with its key, and it answers with the project that the first call made.",
    )

    def given(self) -> dict[str, Any]:
        """Columns and their values; what was left out is not there."""
        columns = {
            "repository": self.repository,
            "branch": self.branch,
            "root_directory": self.root_directory,
            "install_command": self.install_command,
            "build_command": self.build_command,
            "output_directory": self.output_directory,
            "spa_fallback": self.spa_fallback,
            "auto_deploy": self.auto_deploy,
            "preview_deployments": self.preview_deployments,
            "supersede": self.supersede.value,
            "install_scripts": self.install_scripts,
            "build_network": self.build_network,
            "submodules": self.submodules,
        }
        return {name: value for name, value in columns.items() if value is not None}


@strawberry.input(
    description="Changes of a project; what is left out stays as it is. Deployments that exist keep what they were "
    "made with."
)
class UpdateProjectInput:
    """Which project changes, and what of it."""

    id: strawberry.ID = strawberry.field(description="The project.")
    name: strawberry.Maybe[str] = strawberry.field(description="The name to show, up to 120 characters.")
    repository: strawberry.Maybe[str] = strawberry.field(description="As in `CreateProjectInput`.")
    branch: strawberry.Maybe[str] = strawberry.field(description="The branch that goes to production.")
    root_directory: strawberry.Maybe[str] = strawberry.field(description="The folder that is built.")
    install_command: strawberry.Maybe[str | None] = strawberry.field(
        description="What installs dependencies; null for what suits the files."
    )
    build_command: strawberry.Maybe[str | None] = strawberry.field(
        description="What builds; null for what suits the files."
    )
    output_directory: strawberry.Maybe[str | None] = strawberry.field(
        description="The folder that is served; null for what suits the files."
    )
    spa_fallback: strawberry.Maybe[bool | None] = strawberry.field(
        description="Whether unknown paths are answered with `index.html`; null for what suits the framework."
    )
    auto_deploy: strawberry.Maybe[bool] = strawberry.field(description="Whether a push to GitHub deploys.")
    preview_deployments: strawberry.Maybe[bool] = strawberry.field(
        description="Whether other branches and pull requests are deployed too."
    )
    supersede: strawberry.Maybe[SupersedePolicy] = strawberry.field(
        description="What a newer push does to older deployments of its branch."
    )
    install_scripts: strawberry.Maybe[bool] = strawberry.field(
        description="Whether install scripts of npm packages run."
    )
    build_network: strawberry.Maybe[bool] = strawberry.field(
        description="Whether the build command reaches the internet."
    )
    submodules: strawberry.Maybe[bool] = strawberry.field(description="Whether submodules are cloned as well.")

    def given(self) -> dict[str, Any]:
        """The columns that change and their new values."""
        columns = {
            "repository": self.repository,
            "branch": self.branch,
            "root_directory": self.root_directory,
            "install_command": self.install_command,
            "build_command": self.build_command,
            "output_directory": self.output_directory,
            "spa_fallback": self.spa_fallback,
            "auto_deploy": self.auto_deploy,
            "preview_deployments": self.preview_deployments,
            "supersede": self.supersede,
            "install_scripts": self.install_scripts,
            "build_network": self.build_network,
            "submodules": self.submodules,
        }
        given: dict[str, Any] = {name: some.value for name, some in columns.items() if some is not None}
        if self.supersede is not None:
            given["supersede"] = self.supersede.value.value
        return given


@strawberry.input(description="Which project goes.")
class DeleteProjectInput:
    """A project to delete."""

    id: strawberry.ID = strawberry.field(description="The project.")


@strawberry.input(description="A variable to set, or to take away.")
class EnvironmentVariableInput:
    """One variable."""

    name: str = strawberry.field(description="Up to 128 letters, digits and underscores, not beginning with a digit.")
    value: str | None = strawberry.field(description="Up to 32 KiB; null takes the variable away.")
    environments: list[DeploymentEnvironment] = strawberry.field(
        default_factory=lambda: list(DeploymentEnvironment), description="The deployments that get it: all."
    )


@strawberry.input(description="Which variables of a project change.")
class SetEnvironmentVariablesInput:
    """Variables to set and to take away."""

    project_id: strawberry.ID = strawberry.field(description="The project.")
    variables: list[EnvironmentVariableInput] = strawberry.field(description="At most 400; all are set or none.")
    replace: bool = strawberry.field(default=False, description="Whether variables that are not named go.")


@strawberry.input(description="A new deploy hook.")
class CreateDeployHookInput:
    """What a deploy hook needs."""

    project_id: strawberry.ID = strawberry.field(description="The project.")
    name: str = strawberry.field(description="The name to show, up to 120 characters.")
    branch: str | None = strawberry.field(default=None, description="The branch to deploy: the project's.")
    environment: DeploymentEnvironment | None = strawberry.field(
        default=None, description="What for: production for the project's branch, preview for others."
    )


@strawberry.input(description="Which deploy hook goes.")
class DeleteDeployHookInput:
    """A deploy hook to delete."""

    id: strawberry.ID = strawberry.field(description="The deploy hook.")


@strawberry.type(description="A project.")
class ProjectPayload:
    """What commands on projects answer with."""

    project: Project = strawberry.field(description="The project as it is now.")


@strawberry.type(description="A project that is gone.")
class DeleteProjectPayload:
    """A project that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="A new deploy hook.")
class CreateDeployHookPayload:
    """A new deploy hook and its address."""

    deploy_hook: DeployHook = strawberry.field(description="The deploy hook.")
    url: str = strawberry.field(
        description="Its address, shown only this once: whoever posts to it deploys. Answers with the deployment's id."
    )


@strawberry.type(description="A deploy hook that is gone.")
class DeleteDeployHookPayload:
    """A deploy hook that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class ProjectsMutation:
    """What users do with their projects."""

    @strawberry.mutation(
        description="Make a project. VALIDATION_ERROR with `details.path` for what does not fit; CONFLICT when the "
        "slug is taken, or you have as many projects as you may.",
        extensions=[requires(Permission.PROJECT_CREATE)],
    )
    async def create_project(
        self, info: Info, input: Annotated[CreateProjectInput, strawberry.argument(description="The project.")]
    ) -> ProjectPayload:
        """A new project."""
        row = await projects.create(
            info.context.actor,
            name=input.name,
            slug=input.slug,
            given=input.given(),
            idempotency_key=input.idempotency_key,
        )
        return ProjectPayload(project=project_of(row, info.context))

    @strawberry.mutation(
        description="Change a project. Refuses what `createProject` refuses; CONFLICT when others keep changing it "
        "meanwhile.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def update_project(
        self, info: Info, input: Annotated[UpdateProjectInput, strawberry.argument(description="What changes.")]
    ) -> ProjectPayload:
        """A changed project."""
        name = None if input.name is None else input.name.value
        row = await projects.update(info.context.actor, input.id, name=name, given=input.given())
        return ProjectPayload(project=project_of(row, info.context))

    @strawberry.mutation(
        description="Delete a project with its deployments, sites, logs and files. CONFLICT while a deployment waits "
        "or works: cancel it first.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def delete_project(
        self, info: Info, input: Annotated[DeleteProjectInput, strawberry.argument(description="Which project.")]
    ) -> DeleteProjectPayload:
        """The end of a project."""
        await projects.delete(info.context.actor, input.id)
        return DeleteProjectPayload(deleted_id=input.id)

    @strawberry.mutation(
        description="Set variables of builds, and take away those whose value is null. Values are encrypted, masked in "
        "logs, and never shown again. Deployments that exist keep the values they were made with.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def set_environment_variables(
        self,
        info: Info,
        input: Annotated[SetEnvironmentVariablesInput, strawberry.argument(description="Which variables.")],
    ) -> ProjectPayload:
        """Changed variables."""
        changes = [
            VariableChange(name=variable.name, value=variable.value, environments=tuple(variable.environments))
            for variable in input.variables
        ]
        row = await projects.set_variables(info.context.actor, input.project_id, changes, replace=input.replace)
        return ProjectPayload(project=project_of(row, info.context))

    @strawberry.mutation(
        description="Make a secret address that deploys one branch, for hosts other than GitHub and for timers.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def create_deploy_hook(
        self, info: Info, input: Annotated[CreateDeployHookInput, strawberry.argument(description="The deploy hook.")]
    ) -> CreateDeployHookPayload:
        """A new deploy hook."""
        context = info.context
        made = await projects.create_hook(
            context.actor, input.project_id, name=input.name, branch=input.branch, environment=input.environment
        )
        project = await access.project(context.actor, input.project_id, to=Permission.PROJECT_READ)
        rows = await project_queries.hooks([project["id"]])
        return CreateDeployHookPayload(
            deploy_hook=next(deploy_hook_of(row) for row in rows if row["id"] == made.hook_id),
            url=f"{context.settings.base_url}{deploy_hooks.PATH}?key={made.token}",
        )

    @strawberry.mutation(
        description="Take a deploy hook away: its address works no more.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def delete_deploy_hook(
        self, info: Info, input: Annotated[DeleteDeployHookInput, strawberry.argument(description="Which deploy hook.")]
    ) -> DeleteDeployHookPayload:
        """The end of a deploy hook."""
        await projects.delete_hook(info.context.actor, input.id)
        return DeleteDeployHookPayload(deleted_id=input.id)
