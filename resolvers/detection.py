"""What a repository is made with, before there is a project: for forms that propose commands.

A repository of a connected GitHub account is looked at through GitHub's API, file by file; any other one is cloned in
the same sandbox as builds, small and briefly, and removed. Nothing of it is run, stored or believed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adapters import github_api, processes
from adapters.cancellation import first_error
from adapters.git import Remote, Repository, Revision, check_branch, clone_failure, clone_phase, normalise_repository
from adapters.github import GitHub
from adapters.sandbox import open_runner
from adapters.sandbox.contract import BuildLimits, BuildSpec, Phase, PhaseExit, RunnerUnavailable
from errors import Conflict, NotFound, ServiceUnavailable, Unauthorized, ValidationFailed
from models.permissions import Actor, Permission
from resolvers import access, sessions
from resolvers.github import acting_for
from resolvers.projects import check_folder
from settings import Settings
from tasks.build.detection import Framework, detect, detect_folder, names_of_interest, names_to_read

CLONE_SECONDS: Final = 20
CLONE_MEGABYTES: Final = 100
AT_ONCE: Final = 2
PATIENCE_SECONDS: Final = 5.0
REQUESTS_AT_ONCE: Final = 4
_places = asyncio.Semaphore(AT_ONCE)


async def detect_framework(
    actor: Actor, repository: str, *, branch: str | None, root_directory: str | None
) -> Framework:
    """How a repository would be built; raises ValidationFailed that says why it cannot be looked at."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.PROJECT_CREATE)
    settings = sessions.settings()
    found = normalise_repository(repository, settings, path=["repository"])
    valid_branch = None if branch is None else check_branch(branch, path=["branch"])
    root = "." if root_directory is None else check_folder(root_directory, path=["rootDirectory"])
    if found.full_name is not None:
        try:
            async with acting_for(actor.user_id) as (client, token):
                return await _through_github(client, token, found.full_name, branch=valid_branch, root=root)
        except Conflict:
            pass  # not connected: it may be public
    return await _by_clone(settings, found, branch=valid_branch, root=root)


async def _through_github(client: GitHub, token: str, name: str, *, branch: str | None, root: str) -> Framework:
    try:
        chosen = branch or (await github_api.repository(client, token, name)).default_branch
        top = await _names(client, token, name, chosen, root)
    except NotFound:
        raise ValidationFailed(
            "GitHub shows no such repository, branch or folder to your account.", path=["repository"]
        ) from None
    slots = asyncio.Semaphore(REQUESTS_AT_ONCE)
    present: set[str] = {entry for entry in top if not entry.endswith("/")} & names_of_interest()

    async def look_into(folder: str) -> None:
        async with slots:
            try:
                entries = await _names(client, token, name, chosen, str(PurePosixPath(root, folder)))
            except NotFound:
                return
        present.update({f"{folder}/{entry}" for entry in entries} & names_of_interest())

    contents: dict[str, bytes | None] = {}

    async def read(path: str) -> None:
        async with slots:
            text = await github_api.file_text(client, token, name, branch=chosen, path=str(PurePosixPath(root, path)))
        contents[path] = None if text is None else text.encode()

    folders = {str(PurePosixPath(path).parent) for path in names_of_interest()} - {"."}
    await _together([look_into(folder) for folder in folders if f"{folder.partition('/')[0]}/" in top])
    await _together([read(path) for path in present & names_to_read()])
    return detect({**dict.fromkeys(present), **contents})


async def _together(looks: Sequence[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for look in looks:
                group.create_task(look)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None


async def _names(client: GitHub, token: str, name: str, branch: str, folder: str) -> list[str]:
    shown = "" if folder == "." else folder
    return await github_api.file_names(client, token, name, branch=branch, folder=shown)


async def _by_clone(settings: Settings, repository: Repository, *, branch: str | None, root: str) -> Framework:
    bounded = settings.model_copy(
        update={
            "build_clone_seconds": min(CLONE_SECONDS, settings.build_clone_seconds),
            "git_max_megabytes": min(CLONE_MEGABYTES, settings.git_max_megabytes),
        }
    )
    remote, revision = Remote(repository=repository), Revision(branch=branch)
    async with _place(), _folder(settings) as folder:
        spec = BuildSpec(
            build_id=f"detect-{folder.name}",
            source=folder / "source",
            phases=[clone_phase(remote, revision, bounded)],
            limits=BuildLimits(
                memory_bytes=2**29,
                processes=64,
                disk_bytes=2 * CLONE_MEGABYTES * 2**20,
                egress_bytes=2 * CLONE_MEGABYTES * 2**20,
                file_bytes=2 * CLONE_MEGABYTES * 2**20,
            ),
        )
        spawn = partial(processes.spawn, deadline=time.monotonic() + 2 * CLONE_SECONDS)
        try:
            result = await open_runner(settings).run(spec, _Silence(), spawn)
        except RunnerUnavailable as error:
            raise ServiceUnavailable(f"Repositories outside GitHub cannot be looked at here: {error}") from None
        if result.output is None:
            told = clone_failure(result.exits[-1], remote, revision, bounded)
            raise ValidationFailed(told.message, path=["repository"])
        try:
            return await asyncio.to_thread(detect_folder, result.output, root)
        except FileNotFoundError:
            raise ValidationFailed(f"The repository has no folder {root}.", path=["rootDirectory"]) from None


@asynccontextmanager
async def _place() -> AsyncIterator[None]:
    """A clone costs a process and a disk: few at once, and nobody waits for long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _places.acquire()
    except TimeoutError:
        raise ServiceUnavailable(
            "Other repositories are being looked at; try again in a moment.", retryAfterSeconds=PATIENCE_SECONDS
        ) from None
    try:
        yield
    finally:
        _places.release()


@asynccontextmanager
async def _folder(settings: Settings) -> AsyncIterator[Path]:
    parent = settings.data_dir / "detections"

    def make() -> Path:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=parent))
        (made / "source").mkdir(mode=0o700)
        return made

    folder = await asyncio.to_thread(make)
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class _Silence:
    """A listener that hears nothing: what git says may name what its caller may not see."""

    async def phase_started(self, phase: Phase) -> None:
        """Nothing."""

    async def phase_ended(self, exit: PhaseExit) -> None:
        """Nothing."""

    async def output(self, data: bytes, *, is_error: bool) -> None:
        """Nothing."""

    async def refused(self, target: str, reason: str) -> None:
        """Nothing."""
