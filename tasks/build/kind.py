"""The kind of execution that deploys: clone, install, build, collect, upload, publish.

What is untrusted (the repository, its build) runs in a build runner and gets nothing of ours but its own variables.
Invariants: an attempt that was lost is repeated from the same commit, and publishes nothing; files are served only by
the transaction that ends the deployment as SUCCEEDED, which also moves its address; no variable's value and no token
reaches the log. A cancelled build is CANCELLED once nothing of it runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from adapters.git import Commit, NoCommit, clone_failure, clone_phase, read_commit
from adapters.sandbox import open_runner
from adapters.sandbox.contract import BuildLimits, BuildResult, BuildRunner, BuildSpec, PhaseEnd, RunnerUnavailable
from adapters.secret_box import SecretBox
from adapters.storage import ChecksumMismatch, Storage, StorageUnavailable
from errors import Conflict
from models import site_queries
from models.database import to_json
from models.deployments import KIND, DeploymentStep, DeploymentTrigger
from models.events import SiteChanged
from models.executions import ExecutionStatus, Failure, FailureCode
from models.site_rules import SiteRules
from settings import Settings
from tasks.build import failures, plan, uploads, workspaces
from tasks.build.artifacts import Artifact, ArtifactError, collect
from tasks.build.detection import Framework, detect_folder
from tasks.build.plan import Commands, Plan
from tasks.build.reporter import Reporter
from tasks.build.uploads import Uploaded
from tasks.masking import Masker
from tasks.work import ExecutionFailed, Outcome, Work

PROGRESS: Final = {
    DeploymentStep.CLONING: 3,
    DeploymentStep.INSTALLING: 15,
    DeploymentStep.BUILDING: 45,
    DeploymentStep.COLLECTING: 80,
    DeploymentStep.UPLOADING: 84,
    DeploymentStep.PUBLISHING: 97,
}
_UPLOAD_SPAN: Final = PROGRESS[DeploymentStep.PUBLISHING] - PROGRESS[DeploymentStep.UPLOADING] - 1
MAX_FILE_BYTES: Final = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build made, while its folders are there."""

    artifact: Artifact
    framework: Framework
    chosen: Commands
    seconds: float


class DeploymentKind:
    """Deployments."""

    name = KIND
    is_short = False
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    def __init__(
        self, settings: Settings, storage: Storage, pool: asyncpg.Pool, runner: BuildRunner | None = None
    ) -> None:
        self.slots = settings.worker_build_slots
        self.running_per_owner = settings.max_builds_per_user
        self._settings = settings
        self._storage = storage
        self._pool = pool
        self._runner = runner or open_runner(settings)
        self._box = SecretBox(settings.keyring)

    async def run(self, work: Work) -> Outcome:
        """Build and publish; every end but a lost lease is an outcome."""
        snapshot = await plan.load(work, self._settings, self._box, self._pool)
        await workspaces.clear_leftovers(self._settings.data_dir, work)
        reporter = await self._reporter(work, snapshot)
        try:
            await self._runner.reap(str(work.id))
            async with workspaces.workspace(self._settings.data_dir, work) as folder:
                built = await self._build(work, snapshot, reporter, folder)
                uploaded = await self._upload(work, snapshot, built.artifact)
        except RunnerUnavailable as error:
            raise ExecutionFailed(Failure(FailureCode.START_ERROR, f"Builds cannot run here: {error}")) from None
        except ArtifactError as error:
            raise ExecutionFailed(Failure(error.code, str(error), DeploymentStep.COLLECTING)) from None
        await work.advance(PROGRESS[DeploymentStep.PUBLISHING], stage=DeploymentStep.PUBLISHING)
        return await self._publication(work, snapshot, built, uploaded)

    # -- the steps

    async def _build(self, work: Work, snapshot: Plan, reporter: Reporter, folder: Path) -> Built:
        begun = time.monotonic()
        source, commit = await self._clone(work, snapshot, reporter, folder)
        snapshot = replace(snapshot, commit=commit.hash)
        framework = await self._recognise(work, snapshot, source)
        chosen = plan.commands(snapshot, framework)
        for note in framework.notes:
            await work.log.warning(note)
        output = await self._run_commands(work, snapshot, chosen, reporter, source)
        seconds = time.monotonic() - begun
        await work.advance(PROGRESS[DeploymentStep.COLLECTING], stage=DeploymentStep.COLLECTING)
        if output is None:
            raise ExecutionFailed(failures.output_missing(chosen.output_directory))
        artifact = await collect(
            output,
            max_bytes=self._settings.build_output_megabytes * 2**20,
            max_files=self._settings.build_output_files,
        )
        await work.log.info(f"The output has {len(artifact.files):,} files with {failures.size(artifact.size)}.")
        for notice in artifact.notices:
            await work.log.warning(notice)
        return Built(artifact=artifact, framework=framework, chosen=chosen, seconds=seconds)

    async def _clone(self, work: Work, snapshot: Plan, reporter: Reporter, folder: Path) -> tuple[Path, Commit]:
        wanted = f"commit {snapshot.commit[:12]}" if snapshot.commit else f"branch {snapshot.branch}"
        await work.advance(PROGRESS[DeploymentStep.CLONING], stage=DeploymentStep.CLONING)
        await work.log.info(f"Cloning {snapshot.remote.repository.display}, {wanted}.")
        phase = clone_phase(
            snapshot.remote,
            snapshot.revision,
            self._settings,
            with_submodules=bool(snapshot.configuration["submodules"]),
        )
        source = folder / "source"
        await asyncio.to_thread(source.mkdir, 0o700)
        spec = BuildSpec(build_id=str(work.id), source=source, phases=[phase], limits=self._limits())
        result = await self._runner.run(spec, reporter, work.spawn)
        end = result.exits[-1]
        if not end.is_success or result.output is None:
            told = clone_failure(end, snapshot.remote, snapshot.revision, self._settings)
            raise ExecutionFailed(failures.of_clone(end, told, is_blocked=bool(reporter.refusals)))
        try:
            commit = await asyncio.to_thread(read_commit, result.output)
        except NoCommit as error:
            raise ExecutionFailed(
                Failure(FailureCode.CLONE_FAILED, f"The checkout is not complete: {error}.", DeploymentStep.CLONING)
            ) from None
        await work.persist(lambda connection: _store_commit(connection, work.id, commit))
        await work.log.info(f"At {commit.hash[:12]}: {commit.subject}")
        return result.output, commit

    async def _recognise(self, work: Work, snapshot: Plan, source: Path) -> Framework:
        try:
            framework = await asyncio.to_thread(detect_folder, source, snapshot.root_directory)
        except FileNotFoundError:
            message = f"The repository has no folder {snapshot.root_directory}; correct the project's root directory."
            raise ExecutionFailed(Failure(FailureCode.INVALID_INPUT, message, DeploymentStep.CLONING)) from None
        await work.log.info(f"Framework: {framework.name}.")
        return framework

    async def _run_commands(
        self, work: Work, snapshot: Plan, chosen: Commands, reporter: Reporter, source: Path
    ) -> Path | None:
        """Install and build; the output folder, None when there is none. Raises ExecutionFailed."""
        commit = snapshot.commit or ""
        phases = plan.phases(snapshot, chosen, commit, self._settings)
        if not phases:
            await work.log.info("Nothing is installed and nothing built: the files are served as they are.")
        async with self._cache(work, snapshot) as cache:
            spec = BuildSpec(
                build_id=str(work.id),
                source=source,
                phases=phases,
                limits=self._limits(),
                working_directory=snapshot.root_directory,
                output_directory=chosen.output_directory,
                cache=cache,
            )
            result = await self._runner.run(spec, reporter, work.spawn)
            self._raise_failure(result, reporter)
            limit = self._settings.build_cache_megabytes * 2**20
            if cache is not None and await workspaces.bound_cache(cache, limit_bytes=limit):
                await work.log.warning(f"The dependency cache was larger than {failures.size(limit)} and was emptied.")
        return result.output

    def _raise_failure(self, result: BuildResult, reporter: Reporter) -> None:
        if result.exits and not result.exits[-1].is_success:
            end = result.exits[-1]
            if end.end is PhaseEnd.STOPPED and reporter.is_log_full:
                raise ExecutionFailed(failures.log_limit(self._settings, end.phase))
            raise ExecutionFailed(failures.of_phase(end, reporter.last_error_line(), self._settings))

    async def _upload(self, work: Work, snapshot: Plan, artifact: Artifact) -> Uploaded:
        await work.advance(PROGRESS[DeploymentStep.UPLOADING], stage=DeploymentStep.UPLOADING)

        async def progress(part: float) -> None:
            await work.advance(PROGRESS[DeploymentStep.UPLOADING] + int(part * _UPLOAD_SPAN))

        try:
            async with asyncio.timeout(self._settings.build_upload_seconds):
                uploaded = await uploads.upload(
                    artifact,
                    project_id=snapshot.project_id,
                    storage=self._storage,
                    pool=self._pool,
                    progress=progress,
                )
        except TimeoutError:
            message = f"Storing the files took longer than {self._settings.build_upload_seconds} s."
            raise ExecutionFailed(
                Failure(FailureCode.TIMED_OUT, message, DeploymentStep.UPLOADING, retryable=True)
            ) from None
        except (StorageUnavailable, Conflict, ChecksumMismatch, OSError) as error:
            message = f"The files could not be stored: {error}"
            raise ExecutionFailed(
                Failure(FailureCode.UPLOAD_FAILED, message, DeploymentStep.UPLOADING, retryable=True)
            ) from None
        kept = artifact.size - uploaded.uploaded_bytes
        await work.log.info(
            f"Stored {uploaded.uploaded_files:,} new files with {failures.size(uploaded.uploaded_bytes)}; "
            f"{failures.size(max(0, kept))} were there already."
        )
        return uploaded

    async def _publication(self, work: Work, snapshot: Plan, built: Built, uploaded: Uploaded) -> Outcome:
        rules = SiteRules(
            redirects=built.artifact.redirects,
            headers=built.artifact.headers,
            spa_fallback=built.chosen.is_single_page,
        )

        async def write(connection: asyncpg.Connection) -> None:
            await uploads.record(connection, work.id, built.artifact, uploaded)
            await connection.execute(
                """UPDATE deployments SET framework = $2, routing = $3::jsonb, file_count = $4, artifact_size = $5,
                       uploaded_bytes = $6, build_seconds = $7 WHERE execution_id = $1""",
                work.id,
                built.framework.id.value,
                to_json(rules.to_json()),
                len(built.artifact.files),
                built.artifact.size,
                uploaded.uploaded_bytes,
                built.seconds,
            )
            await connection.execute(
                "UPDATE projects SET framework = $2 WHERE id = $1 AND framework IS DISTINCT FROM $2",
                snapshot.project_id,
                built.framework.id.value,
            )
            await site_queries.publish(
                connection,
                project_id=snapshot.project_id,
                alias=snapshot.alias,
                deployment_id=work.id,
                decided_at=snapshot.queued_at,
                reason=DeploymentTrigger(snapshot.trigger),
                user_id=snapshot.requested_by,
            )

        await work.log.info(f"Ready at {snapshot.url}")
        return Outcome(ExecutionStatus.SUCCEEDED, write=write, news=(SiteChanged(snapshot.project_id),))

    # -- what the steps share

    async def _reporter(self, work: Work, snapshot: Plan) -> Reporter:
        # In a thread: long values have many forms.
        masker = await asyncio.to_thread(Masker, snapshot.secrets())
        if masker.unmasked_names:
            names = ", ".join(masker.unmasked_names)
            await work.log.warning(f"Too short or too common to be masked in this log: {names}.")
        return Reporter(work, masker, limit_bytes=self._settings.build_log_megabytes * 2**20)

    @asynccontextmanager
    async def _cache(self, work: Work, snapshot: Plan) -> AsyncIterator[Path | None]:
        """The project's dependency cache; none for forks, whose code could leave something in it for others."""
        if snapshot.is_fork or self._settings.build_cache_megabytes == 0:
            yield None
            return
        async with workspaces.cache(self._settings.data_dir, snapshot.project_id) as cache:
            if cache is None:
                await work.log.info("Another build of this project has the dependency cache; going without it.")
            yield cache

    def _limits(self) -> BuildLimits:
        settings = self._settings
        return BuildLimits(
            memory_bytes=settings.build_memory_megabytes * 2**20,
            processes=settings.build_processes,
            disk_bytes=settings.build_disk_megabytes * 2**20,
            egress_bytes=settings.build_egress_megabytes * 2**20,
            file_bytes=min(MAX_FILE_BYTES, settings.build_disk_megabytes * 2**20),
        )


async def _store_commit(connection: asyncpg.Connection, deployment_id: UUID, commit: Commit) -> None:
    """What the next attempt, a redeployment and everybody who looks will build from and see."""
    await connection.execute(
        """UPDATE deployments SET commit_hash = $2, commit_message = $3, commit_author = $4, committed_at = $5
           WHERE execution_id = $1""",
        deployment_id,
        commit.hash,
        commit.message[:10_000],
        commit.author_name[:255],
        commit.committed_at,
    )
