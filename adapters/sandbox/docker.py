"""Builds in containers of a Docker Engine: one container each, phases as commands in it.

Invariant: when `run` ends, its container is gone; when the worker dies, freezes or loses its lease before, the holder's
connection ends, and with it the container's first process and all others (`holder.py`). A container is told from that
of another attempt by a label of its own, so a worker that lost its build never removes the next attempt's.

docs/decisions/0015 says what is bounded and how. It leaves out pulling images and making networks: these are the
operator's, and `probe` says what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from secrets import token_hex
from typing import Any, Final

import structlog

from adapters.cancellation import first_error
from adapters.processes import ProcessTree
from adapters.sandbox import docker_bodies, holder
from adapters.sandbox.archives import (
    ArchiveRefused,
    PackedFolder,
    pack,
)
from adapters.sandbox.containers import (
    USER,
    WORKSPACE,
    ending_with,
    output_directory,
    working_directory,
)
from adapters.sandbox.contract import (
    BuildLimits,
    BuildListener,
    BuildResult,
    BuildSpec,
    Capability,
    Network,
    RunnerUnavailable,
    Spawn,
)
from adapters.sandbox.docker_api import API_VERSION, PREFIX, Engine, EngineError, Json, open_engine
from adapters.sandbox.docker_build import Build
from adapters.sandbox.docker_containers import container_name, exit_code, remove, remove_attempt, text_of
from settings import Settings

HELD_SECONDS: Final = 40.0
PROBE_SECONDS: Final = 30.0
USAGE_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class DockerRunner:
    """Runs builds on the engine at `docker_host`; `usage_seconds` is how often disk and memory are looked at."""

    def __init__(self, settings: Settings, *, usage_seconds: float = USAGE_SECONDS) -> None:
        self._settings = settings
        self._usage_seconds = usage_seconds

    @property
    def _network(self) -> str | None:
        """The network for phases that want one; without a proxy in it there is nobody to talk to."""
        return self._settings.docker_network if self._settings.build_proxy_url else None

    async def probe(self) -> Capability:
        """Look at engine, image and network, and run a command in a container made like a build's."""
        settings = self._settings
        async with _available(), open_engine(settings.docker_host) as engine:
            await engine.ping()
            version = await engine.version()
            _check_version(version)
            info = await engine.get("/info")
            for name, what in (("MemoryLimit", "memory"), ("PidsLimit", "processes")):
                if info.get(name) is False:
                    raise RunnerUnavailable(f"The Docker Engine cannot limit {what}: enable that cgroup controller.")
            await self._check_image(engine)
            await self._check_network(engine)
            await self._try_container(engine)
        is_rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or ())
        network = f"network {self._network}" if self._network else "no network (BUILD_PROXY_URL, DOCKER_NETWORK)"
        return Capability(
            runner="docker",
            detail=f"Docker Engine {version.get('Version')}{' rootless' if is_rootless else ''}, API "
            f"{'.'.join(map(str, API_VERSION))}, image {settings.build_image}, {network}",
        )

    async def run(self, spec: BuildSpec, listener: BuildListener, spawn: Spawn) -> BuildResult:
        """Run the phases in a fresh container; also raises TreeStillAlive when its removal cannot be confirmed."""
        paths = working_directory(spec), output_directory(spec)
        wants_network = any(phase.network is Network.EGRESS for phase in spec.phases)
        network = self._network if wants_network else None
        proxy_url = self._settings.build_proxy_url
        name, attempt = container_name(spec.build_id), token_hex(8)
        is_held = False

        async def remove_unheld() -> None:
            if not is_held:
                await remove_attempt(engine, name, attempt)

        async with _available(), open_engine(self._settings.docker_host) as engine, ending_with(remove_unheld):
            container = await self._create(engine, spec, network, attempt)
            await self._send(engine, container, spec)
            target = f"{PREFIX}/containers/{container}/attach?stream=1&stdin=1"
            argv = [sys.executable, "-I", "-S", holder.__file__, engine.address.for_holder, target]
            async with (
                spawn(argv, env={}, cwd="/") as tree,
                # Inside the tree's block: who spawned it learns there that something may be left.
                ending_with(lambda: remove(engine, container)),
            ):
                is_held = True
                await _until_held(tree)
                await engine.post(f"/containers/{container}/start")
                build = Build(engine, container, spec, listener, network, proxy_url, paths)
                return await self._watched(build, tree)

    async def reap(self, build_id: str) -> None:
        """Remove the container of a build, whichever attempt's it is."""
        async with _available(), open_engine(self._settings.docker_host) as engine:
            await remove(engine, container_name(build_id))

    async def _create(self, engine: Engine, spec: BuildSpec, network: str | None, attempt: str) -> str:
        name = container_name(spec.build_id)
        labels = {docker_bodies.BUILD_LABEL: spec.build_id, docker_bodies.ATTEMPT_LABEL: attempt}
        body = docker_bodies.container(
            image=self._settings.build_image, limits=spec.limits, network=network, labels=labels
        )
        try:
            made = await engine.post("/containers/create", body, name=name)
        except EngineError as error:
            if error.status == 404:
                raise RunnerUnavailable(self._missing_image()) from None
            if error.status != 409:
                raise
            # An earlier attempt's, whose worker is lost; this attempt holds the lease now.
            await remove(engine, name)
            made = await engine.post("/containers/create", body, name=name)
        return text_of(made, "Id")

    async def _send(self, engine: Engine, container: str, spec: BuildSpec) -> None:
        folders = [PackedFolder(None, "home"), PackedFolder(spec.source, "source")]
        if spec.cache is not None:
            folders.append(PackedFolder(None, "cache"))
        async with aclosing(pack(folders, owner=USER)) as archive:
            await engine.put_archive(container, WORKSPACE, archive)
        if spec.cache is None:
            return
        try:
            async with aclosing(pack([PackedFolder(spec.cache, "cache")], owner=USER)) as archive:
                await engine.put_archive(container, WORKSPACE, archive)
        except (ArchiveRefused, OSError) as error:
            # Another build of the project replaces it at this moment; package managers check what they find.
            _log.info("build_cache_not_sent", build=spec.build_id, reason=str(error))

    async def _watched(self, build: Build, tree: ProcessTree) -> BuildResult:
        try:
            async with asyncio.TaskGroup() as group:
                watches = [
                    group.create_task(build.end_with(tree)),
                    group.create_task(build.watch_usage(self._usage_seconds)),
                ]
                exits = await build.run_phases()
                for watch in watches:
                    watch.cancel()
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None
        return await build.collect(exits)

    async def _check_image(self, engine: Engine) -> None:
        try:
            await engine.get(f"/images/{self._settings.build_image}/json")
        except EngineError as error:
            if error.status == 404:
                raise RunnerUnavailable(self._missing_image()) from None
            raise

    async def _check_network(self, engine: Engine) -> None:
        network = self._network
        if network is None:
            return
        try:
            found = await engine.get(f"/networks/{network}")
        except EngineError as error:
            if error.status == 404:
                advice = f"docker network create --internal {network}"
                raise RunnerUnavailable(f"The network {network} does not exist; make it: {advice}") from None
            raise
        if found.get("Internal") is not True:
            raise RunnerUnavailable(
                f"The network {network} reaches beyond the proxy; make it anew: "
                f"docker network rm {network} && docker network create --internal {network}"
            )

    async def _try_container(self, engine: Engine) -> None:
        limits = BuildLimits(
            memory_bytes=self._settings.build_memory_megabytes * 2**20,
            processes=self._settings.build_processes,
            disk_bytes=self._settings.build_disk_megabytes * 2**20,
            egress_bytes=0,
            file_bytes=self._settings.build_disk_megabytes * 2**20,
        )
        name, attempt = container_name(f"probe-{token_hex(4)}"), token_hex(8)
        labels = {docker_bodies.BUILD_LABEL: "probe", docker_bodies.ATTEMPT_LABEL: attempt}
        body = docker_bodies.container(
            image=self._settings.build_image, limits=limits, network=self._network, labels=labels
        )
        async with ending_with(lambda: remove_attempt(engine, name, attempt)):
            container = text_of(await engine.post("/containers/create", body, name=name), "Id")
            async with aclosing(pack([PackedFolder(None, "home")], owner=USER)) as archive:
                await engine.put_archive(container, WORKSPACE, archive)
            await engine.post(f"/containers/{container}/start")
            await _try_command(engine, container)

    def _missing_image(self) -> str:
        image = self._settings.build_image
        return f"The image {image} is not on the Docker Engine; fetch it: docker pull {image}"


async def _try_command(engine: Engine, container: str) -> None:
    line = f"touch {WORKSPACE}/home/probe && ! touch /probe 2>/dev/null"
    body = docker_bodies.command(line, directory=WORKSPACE, environment={})
    exec_id = text_of(await engine.post(f"/containers/{container}/exec", body), "Id")
    output = bytearray()
    try:
        async with asyncio.timeout(PROBE_SECONDS), engine.start_exec(exec_id) as frames:
            async for _, data in frames:
                output += data[: 1_000 - len(output)]
    except TimeoutError:
        raise RunnerUnavailable(f"A command in a container did not end in {PROBE_SECONDS:g} s.") from None
    if (code := await exit_code(engine, exec_id)) != 0:
        said = output.decode(errors="replace").strip()
        raise RunnerUnavailable(f"A container cannot be used for builds (exit code {code}): {said}")


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except EngineError as error:
        message = str(error)
        raise RunnerUnavailable(f"{message[:1].upper()}{message[1:]}.") from error


async def _until_held(tree: ProcessTree) -> None:
    try:
        async with asyncio.timeout(HELD_SECONDS):
            if await tree.stdout.readline() == b"held\n":
                return
            reason = (await tree.stderr.read(1_000)).decode(errors="replace").strip()
    except TimeoutError:
        reason = "no answer"
    raise EngineError(f"the container's input cannot be held: {reason}")


def _check_version(version: Json) -> None:
    spoken = tuple(_numbers(version.get(key)) for key in ("MinAPIVersion", "ApiVersion"))
    if not spoken[0] <= API_VERSION <= spoken[1]:
        wanted = ".".join(map(str, API_VERSION))
        raise RunnerUnavailable(
            f"Docker Engine {version.get('Version')} does not speak API version {wanted}: use Engine 25 or newer."
        )


def _numbers(text: Any) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        return tuple(int(part) for part in str(text).split("."))
    return ()
