"""What a deployment is built from: its snapshot, opened, and the commands that follow from it and from the files.

The snapshot was made when the deployment was asked for (`resolvers/deployment_queue.py`); nothing here looks at the
project as it is now, but for the token that fetches its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from adapters.git import Remote, Revision, normalise_repository
from adapters.sandbox.contract import Network, Phase
from adapters.secret_box import CannotOpen, SecretBox
from errors import ValidationFailed
from models.database import from_json
from models.deployments import DeploymentStep
from models.executions import Failure, FailureCode
from models.projects import DeploymentEnvironment
from models.sealed import DEPLOYMENT_ENVIRONMENT
from settings import Settings
from tasks.build.detection import Framework
from tasks.github_tokens import token_of
from tasks.work import ExecutionFailed, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deployment's snapshot."""

    deployment_id: UUID
    project_id: UUID
    owner_id: UUID
    number: int
    environment: DeploymentEnvironment
    trigger: str
    branch: str
    commit: str | None
    alias: str
    is_fork: bool
    queued_at: datetime
    requested_by: UUID | None
    url: str
    remote: Remote
    configuration: Mapping[str, Any]
    variables: Mapping[str, str] = field(repr=False)

    @property
    def revision(self) -> Revision:
        """What to check out."""
        return Revision(branch=self.branch, commit=self.commit)

    @property
    def root_directory(self) -> str:
        """The folder that is built, relative to the checkout."""
        return str(self.configuration["root_directory"])

    def secrets(self) -> list[tuple[str, str]]:
        """Names and values that no log may show."""
        token = self.remote.token
        return [*self.variables.items(), *([("repository token", token)] if token else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """How a checkout is built: empty commands are none."""

    install: str
    build: str
    output_directory: str
    is_single_page: bool


async def load(work: Work, settings: Settings, box: SecretBox, pool: asyncpg.Pool) -> Plan:
    """The snapshot of an execution; raises ExecutionFailed when it does not open or its repository is not allowed."""
    row: asyncpg.Record | None = None

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal row
        row = await connection.fetchrow(
            """SELECT d.project_id, d.number, d.environment, d.trigger, d.branch, d.commit_hash, d.alias, d.is_fork,
                      d.clone_url, d.configuration::text AS configuration, d.sealed_environment, d.site_key,
                      p.slug, p.owner_id, e.queued_at, e.requested_by_id
               FROM deployments d JOIN projects p ON p.id = d.project_id JOIN executions e ON e.id = d.execution_id
               WHERE d.execution_id = $1""",
            work.id,
        )

    await work.persist(read)
    if row is None:
        raise LookupError(f"execution {work.id} has no deployment")
    try:
        repository = normalise_repository(row["clone_url"], settings)
    except ValidationFailed as error:
        raise ExecutionFailed(Failure(FailureCode.INVALID_INPUT, error.message)) from None
    try:
        sealed = row["sealed_environment"]
        variables = orjson.loads(box.open(sealed, place=DEPLOYMENT_ENVIRONMENT.place(work.id))) if sealed else {}
    except CannotOpen as error:
        message = f"The variables of this deployment cannot be opened: {error}. The operator has to put the key back."
        raise ExecutionFailed(Failure(FailureCode.INTERNAL, message)) from None
    owner = None if repository.full_name is None else await token_of(pool, settings, row["owner_id"])
    return Plan(
        deployment_id=work.id,
        project_id=row["project_id"],
        owner_id=row["owner_id"],
        number=row["number"],
        environment=DeploymentEnvironment(row["environment"]),
        trigger=row["trigger"],
        branch=row["branch"],
        commit=row["commit_hash"],
        alias=row["alias"],
        is_fork=row["is_fork"],
        queued_at=row["queued_at"],
        requested_by=row["requested_by_id"],
        url=settings.site_url(f"{row['site_key']}-{row['slug']}"),
        remote=Remote(repository=repository, token=None if owner is None else owner.token),
        configuration=from_json(row["configuration"]),
        variables=variables,
    )


def commands(plan: Plan, framework: Framework) -> Commands:
    """What runs: as configured, and where nothing is, what suits the files."""
    given = plan.configuration

    def chosen(name: str, found: str | None) -> str:
        configured = given.get(name)
        return configured if configured is not None else found or ""

    single_page = given.get("spa_fallback")
    return Commands(
        install=chosen("install_command", framework.install_command),
        build=chosen("build_command", framework.build_command),
        output_directory=chosen("output_directory", framework.output_directory) or ".",
        is_single_page=framework.is_single_page if single_page is None else bool(single_page),
    )


def phases(plan: Plan, chosen: Commands, commit: str, settings: Settings) -> list[Phase]:
    """The phases that install and build; none for a project that is served as it is."""
    told = {
        "SWITCHYARD": "1",
        "SWITCHYARD_BRANCH": plan.branch,
        "SWITCHYARD_COMMIT": commit,
        "SWITCHYARD_DEPLOYMENT_NUMBER": str(plan.number),
        "SWITCHYARD_ENVIRONMENT": plan.environment.value.lower(),
        "SWITCHYARD_URL": plan.url,
    }
    made = []
    if chosen.install:
        # Of npm, pnpm and Yarn 2; names that others do not know do no harm.
        scripts = {} if plan.configuration["install_scripts"] else {
            "npm_config_ignore_scripts": "true",
            "YARN_ENABLE_SCRIPTS": "false",
        }  # fmt: skip
        made.append(
            Phase(
                name=DeploymentStep.INSTALLING,
                command=chosen.install,
                environment={**told, **scripts, **plan.variables},
                network=Network.EGRESS,
                timeout_seconds=settings.build_install_seconds,
            )
        )
    if chosen.build:
        made.append(
            Phase(
                name=DeploymentStep.BUILDING,
                command=chosen.build,
                environment={**told, **plan.variables},
                network=Network.EGRESS if plan.configuration["build_network"] else Network.NONE,
                timeout_seconds=settings.build_command_seconds,
            )
        )
    return made
