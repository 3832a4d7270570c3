"""One build in its container: the phases as commands, what they use, why they end, and what is fetched at the end.

Invariant: a phase without network runs in a container that is disconnected from every network. Output is fetched only
once no process of the container is left. The container itself is made and removed by `docker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from secrets import token_hex
from typing import Final

import structlog

from adapters.processes import ProcessTree
from adapters.sandbox import docker_bodies
from adapters.sandbox.archives import ArchiveLimits, ArchiveRefused, ArchiveTooLarge, in_thread, unpack
from adapters.sandbox.containers import (
    CACHE,
    NO_NETWORK,
    WORKSPACE,
    environment,
    receive_output,
    remove_folder,
    to_the_end,
    too_large,
)
from adapters.sandbox.contract import (
    BuildListener,
    BuildResult,
    BuildSpec,
    Network,
    Phase,
    PhaseEnd,
    PhaseExit,
    StopBuild,
)
from adapters.sandbox.docker_api import Engine, EngineError, Json
from adapters.sandbox.docker_containers import LOOKS, PAUSE_SECONDS, exit_code, kill, text_of

USAGE_FAILURES: Final = 5
KILLED_CODE: Final = 128 + 9

_log = structlog.get_logger(__name__)


class Build:
    """One running container and what is known of it."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        spec: BuildSpec,
        listener: BuildListener,
        network: str | None,
        proxy_url: str | None,
        paths: tuple[str, str],
    ) -> None:
        self._engine = engine
        self._container = container
        self._spec = spec
        self._listener = listener
        self._network = network
        self._proxy_url = proxy_url if network else None
        self._directory, self._output = paths
        self._is_connected = network is not None
        self._is_network_announced = False
        self._had_oom = False
        self._is_disk_full = False
        self._peak_memory_bytes = 0

    async def run_phases(self) -> list[PhaseExit]:
        """The phases until one fails."""
        exits: list[PhaseExit] = []
        for phase in self._spec.phases:
            exits.append(await self._run_phase(phase))
            await self._listener.phase_ended(exits[-1])
            if not exits[-1].is_success:
                break
        return exits

    async def collect(self, exits: list[PhaseExit]) -> BuildResult:
        """Stop everything, and fetch output and cache of a build that succeeded."""
        if not all(exit.is_success for exit in exits):
            return BuildResult(exits=exits, output=None)
        await kill(self._engine, self._container)
        await self._engine.post(f"/containers/{self._container}/wait", condition="not-running")
        output: Path | None = None
        try:
            async with self._engine.get_archive(self._container, self._output) as archive:
                output = await receive_output(archive, self._spec, strip=1)
        except ArchiveTooLarge:
            exits = too_large(exits)
        except ArchiveRefused as error:
            raise EngineError(f"the output did not arrive: {error}") from None
        except EngineError as error:
            if error.status != 404:
                raise
        if self._spec.cache is not None:
            await self._fetch_cache(self._spec.cache)
        return BuildResult(exits=exits, output=output)

    async def end_with(self, tree: ProcessTree) -> None:
        """Kill the container once its holder has ended: the lease is lost, or the engine let go."""
        await tree.wait()
        await kill(self._engine, self._container)

    async def watch_usage(self, pause_seconds: float) -> None:
        """Kill the container when its volume is too large; keep its largest memory."""
        mounts = (await self._engine.get(f"/containers/{self._container}/json")).get("Mounts") or ()
        volume = next((mount.get("Name") for mount in mounts if mount.get("Destination") == WORKSPACE), None)
        failures = 0
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                disk_bytes = await self._disk_bytes(volume)
                await self._look_at_memory()
                failures = 0
            except EngineError:
                failures += 1
                if failures == USAGE_FAILURES:
                    raise
                continue
            if disk_bytes > self._spec.limits.disk_bytes:
                self._is_disk_full = True
                await kill(self._engine, self._container)

    async def _run_phase(self, phase: Phase) -> PhaseExit:
        await self._set_network(phase.network is Network.EGRESS and self._network is not None)
        variables = environment(phase, self._spec, proxy_url=self._proxy_url, has_cache=self._spec.cache is not None)
        body = docker_bodies.command(phase.command, directory=self._directory, environment=variables)
        self._peak_memory_bytes = 0
        await self._listener.phase_started(phase)
        begun = time.monotonic()
        code: int | None = None
        end = PhaseEnd.EXITED
        try:
            async with asyncio.timeout(phase.timeout_seconds) as patience:
                code = await self._run_command(phase, body)
        except StopBuild:
            end = PhaseEnd.STOPPED
        except TimeoutError:
            if not patience.expired():
                raise
            end = PhaseEnd.TIMED_OUT
        if end is not PhaseEnd.EXITED:
            await kill(self._engine, self._container)
        elif code != 0:
            end = await self._why_failed(code)
        return PhaseExit(
            phase=phase.name,
            end=end,
            exit_code=code if end is PhaseEnd.EXITED else None,
            seconds=time.monotonic() - begun,
            peak_memory_bytes=self._peak_memory_bytes,
        )

    async def _run_command(self, phase: Phase, body: Json) -> int | None:
        """The exit code, None when the container ended under it."""
        if phase.network is Network.EGRESS and self._network is None and not self._is_network_announced:
            self._is_network_announced = True
            await self._listener.output(NO_NETWORK, is_error=True)
        try:
            exec_id = text_of(await self._engine.post(f"/containers/{self._container}/exec", body), "Id")
            async with self._engine.start_exec(exec_id) as frames:
                async for is_error, data in frames:
                    await self._listener.output(data, is_error=is_error)
            return await exit_code(self._engine, exec_id)
        except EngineError:
            if await self._is_running():
                raise
            return None

    async def _why_failed(self, code: int | None) -> PhaseEnd:
        """What stands behind an exit code that is not 0; raises EngineError when the container went without cause."""
        for _ in range(LOOKS):
            if self._is_disk_full:
                return PhaseEnd.DISK_FULL
            state = (await self._engine.get(f"/containers/{self._container}/json")).get("State") or {}
            if state.get("OOMKilled") and (not self._had_oom or code in (None, KILLED_CODE)):
                self._had_oom = True
                return PhaseEnd.OUT_OF_MEMORY
            if code not in (None, KILLED_CODE):
                break
            await asyncio.sleep(PAUSE_SECONDS)  # the event comes a little after the end of the process
        if not state.get("Running"):
            raise EngineError("the container ended by itself: its holder or the Docker Engine was lost")
        if code is None:
            raise EngineError("the Docker Engine lost a command")
        return PhaseEnd.EXITED

    async def _set_network(self, connect: bool) -> None:
        if self._network is None or connect == self._is_connected:
            return
        if connect:
            await self._engine.post(f"/networks/{self._network}/connect", {"Container": self._container})
        else:
            body = {"Container": self._container, "Force": True}
            await self._engine.post(f"/networks/{self._network}/disconnect", body)
        self._is_connected = connect

    async def _is_running(self) -> bool:
        state = (await self._engine.get(f"/containers/{self._container}/json")).get("State") or {}
        return bool(state.get("Running"))

    async def _disk_bytes(self, volume: str | None) -> int:
        """Size of the build's volume as the engine sees it, which no file mode hides from it."""
        for found in (await self._engine.get("/system/df", type="volume")).get("Volumes") or ():
            if found.get("Name") == volume:
                return int((found.get("UsageData") or {}).get("Size") or 0)
        return 0

    async def _look_at_memory(self) -> None:
        query = {"stream": "false", "one-shot": "true"}
        memory = (await self._engine.get(f"/containers/{self._container}/stats", **query)).get("memory_stats") or {}
        details = memory.get("stats") or {}
        # Like `docker stats`: file pages that can be dropped at any time are not the build's.
        droppable = details.get("inactive_file") or details.get("total_inactive_file") or 0
        self._peak_memory_bytes = max(self._peak_memory_bytes, int(memory.get("usage") or 0) - int(droppable))

    async def _fetch_cache(self, cache: Path) -> None:
        """Replace the cache folder by what the build left; the old one stays when that does not arrive."""
        fresh = cache.with_name(f"{cache.name}.{token_hex(6)}")
        limits = ArchiveLimits(content_bytes=self._spec.limits.disk_bytes)
        try:
            async with self._engine.get_archive(self._container, CACHE) as archive:
                if await unpack(archive, fresh, limits, strip=1):
                    await in_thread(_replace, cache, fresh)
        except (EngineError, ArchiveRefused, OSError) as error:
            _log.warning("build_cache_not_kept", build=self._spec.build_id, reason=str(error))
        finally:
            await to_the_end(in_thread(remove_folder, fresh))


def _replace(cache: Path, fresh: Path) -> None:
    stale = cache.with_name(f"{fresh.name}.old")
    with contextlib.suppress(FileNotFoundError):
        cache.rename(stale)
    fresh.rename(cache)
    remove_folder(stale)
