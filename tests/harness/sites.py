"""Sites as builds leave them: rows and objects made by the code that workers use, without a worker and without a build.

Owner, project, execution and deployment are inserted as they are; files are collected from a folder, uploaded and
recorded, and addresses moved, by `tasks/build` and `models/site_queries.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from adapters import events, storage
from models import database, site_queries
from models.database import to_json
from models.deployments import DeploymentTrigger
from models.events import Event, SiteChanged
from models.ids import new_id
from models.site_queries import Publication
from models.site_rules import SiteRules
from models.sites import PRODUCTION_ALIAS
from models.transaction import unit_of_work
from tasks.build import uploads
from tasks.build.artifacts import Artifact, collect
from tests.harness.executions import settings_of

Files = Mapping[str, bytes | str]


@dataclass(frozen=True, slots=True)
class SiteProject:
    """A project's row."""

    id: UUID
    slug: str
    owner_id: UUID


@dataclass(frozen=True, slots=True)
class SiteDeployment:
    """A deployment's row, and what its build made, if it is done."""

    id: UUID
    project: SiteProject
    site_key: str
    queued_at: datetime
    uploaded: uploads.Uploaded | None = None

    @property
    def label(self) -> str:
        """Its own address."""
        return f"{self.site_key}-{self.project.slug}"


class SiteDesk:
    """Makes sites in a module's database and storage; `tell` carries events to the API processes."""

    def __init__(self, pool: asyncpg.Pool, files: Path, tell: Callable[[Event], Awaitable[None]]) -> None:
        self.pool = pool
        self.tell = tell
        self._files = files

    async def project(self, slug: str | None = None) -> SiteProject:
        """A project of somebody."""
        project = SiteProject(new_id(), slug or f"site-{secrets.token_hex(4)}", new_id())
        await self.pool.execute(
            """INSERT INTO users (id, email, email_key, username, username_key, name, password_hash, role, is_active,
                   created_at)
               VALUES ($1, $2, $2, $3, $3, 'Owner', 'x', 'USER', true, now())""",
            project.owner_id,
            f"{project.owner_id.hex}@example.com",
            project.owner_id.hex,
        )
        await self.pool.execute(
            """INSERT INTO projects (id, owner_id, name, slug, repository, repository_key, branch, root_directory,
                   auto_deploy, preview_deployments, supersede, install_scripts, build_network, submodules,
                   deployment_count, created_at, updated_at)
               VALUES ($1, $2, $3, $3, 'https://git.example/a/b', 'git.example/a/b', 'main', '.', true, true, 'QUEUED',
                   false, true, false, 0, now(), now())""",
            project.id,
            project.owner_id,
            project.slug,
        )
        return project

    async def running(self, project: SiteProject) -> SiteDeployment:
        """A deployment whose build works."""
        deployment_id, site_key = new_id(), secrets.token_hex(8)
        queued_at = await self.pool.fetchval(
            """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                   timeout_seconds, worked_seconds, queued_at, claimed_at, worker, lease_until, failure_retryable,
                   log_sequence, log_bytes)
               VALUES ($1, 'DEPLOYMENT', $2, 'RUNNING', 0, 1, 0, 3, 600, 0, clock_timestamp(), now(), 'tests',
                   now() + interval '1 hour', false, 0, 0) RETURNING queued_at""",
            deployment_id,
            project.owner_id,
        )
        await self.pool.execute(
            """WITH counted AS (
                   UPDATE projects SET deployment_count = deployment_count + 1 WHERE id = $2 RETURNING *
               )
               INSERT INTO deployments (execution_id, project_id, number, environment, trigger, branch, is_fork,
                   clone_url, configuration, site_key, alias)
               SELECT $1, id, deployment_count, 'PRODUCTION', 'PUSH', branch, false, repository, '{}', $3,
                   'production' FROM counted""",
            deployment_id,
            project.id,
            site_key,
        )
        return SiteDeployment(deployment_id, project, site_key, queued_at)

    async def artifact(self, files: Files) -> Artifact:
        """What a build with this output leaves."""
        folder = self._files / secrets.token_hex(8)
        write_files(folder, files)
        return await collect(folder, max_bytes=2**30, max_files=100_000)

    async def finish(
        self,
        deployment: SiteDeployment,
        files: Files,
        *,
        alias: str | None = PRODUCTION_ALIAS,
        spa_fallback: bool = False,
        quietly: bool = False,
    ) -> SiteDeployment:
        """End a build with this output, as its worker does, and move an address to it; `quietly` tells nobody."""
        artifact = await self.artifact(files)
        project_id = deployment.project.id
        uploaded = await uploads.upload(artifact, project_id=project_id, storage=storage.current(), pool=self.pool)
        async with self.pool.acquire() as connection, connection.transaction():
            await uploads.record(connection, deployment.id, artifact, uploaded)
            await connection.execute(
                "UPDATE deployments SET routing = $2 WHERE execution_id = $1",
                deployment.id,
                to_json(SiteRules(artifact.redirects, artifact.headers, spa_fallback).to_json()),
            )
            if alias is not None:
                await self.publish(deployment, alias=alias, connection=connection)
            await connection.execute(
                """UPDATE executions SET status = 'SUCCEEDED', finished_at = now(), worker = NULL, lease_until = NULL
                   WHERE id = $1""",
                deployment.id,
            )
        if not quietly:
            await self.tell(SiteChanged(project_id))
        return SiteDeployment(deployment.id, deployment.project, deployment.site_key, deployment.queued_at, uploaded)

    async def deploy(
        self,
        project: SiteProject,
        files: Files,
        *,
        alias: str | None = PRODUCTION_ALIAS,
        spa_fallback: bool = False,
    ) -> SiteDeployment:
        """A deployment from its start to its end."""
        return await self.finish(await self.running(project), files, alias=alias, spa_fallback=spa_fallback)

    async def publish(
        self, deployment: SiteDeployment, *, alias: str = PRODUCTION_ALIAS, connection: asyncpg.Connection | None = None
    ) -> Publication:
        """Move an address as a worker does: what was decided later than the deployment was asked for stays."""
        return await site_queries.publish(
            connection or self.pool,
            project_id=deployment.project.id,
            alias=alias,
            deployment_id=deployment.id,
            decided_at=deployment.queued_at,
            reason=DeploymentTrigger.PUSH,
            user_id=None,
        )

    async def promote(
        self, deployment: SiteDeployment, *, alias: str = PRODUCTION_ALIAS, quietly: bool = False
    ) -> Publication:
        """Move an address as a person does; `quietly` tells nobody, like an event that got lost."""
        async with unit_of_work():
            publication = await site_queries.promote(
                project_id=deployment.project.id,
                alias=alias,
                deployment_id=deployment.id,
                reason=DeploymentTrigger.ROLLBACK,
                user_id=None,
            )
        if not quietly:
            await self.tell(SiteChanged(deployment.project.id))
        return publication

    async def remove(self, deployment: SiteDeployment) -> None:
        """Delete a deployment."""
        await self.pool.execute("DELETE FROM executions WHERE id = $1", deployment.id)
        await self.tell(SiteChanged(deployment.project.id))


@asynccontextmanager
async def open_site_desk(environment: Mapping[str, str], files: Path) -> AsyncIterator[SiteDesk]:
    """A desk in the environment of a module's programs; outputs of builds are written into `files`."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        storage.open_storage(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield SiteDesk(pool, files, events.publish)


def write_files(folder: Path, files: Files) -> None:
    """Put files into a folder, which is made."""
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
