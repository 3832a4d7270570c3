"""One build in its pod: waiting for containers, following their logs, why they end, and fetching the output.

Invariant: a phase has ended only once its container has, and all of its log was passed on before. What the cluster says
of a pod decides: eviction for storage is the build's fault, eviction for the node's needs is not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from adapters.sandbox import kubernetes_bodies as bodies
from adapters.sandbox.archives import ArchiveRefused, ArchiveTooLarge
from adapters.sandbox.containers import NO_NETWORK, output_directory, receive_output, too_large
from adapters.sandbox.contract import (
    BuildListener,
    BuildResult,
    BuildSpec,
    Network,
    Phase,
    PhaseEnd,
    PhaseExit,
    RunnerUnavailable,
    StopBuild,
)
from adapters.sandbox.kubernetes_api import Cluster, ClusterError, CommandFailed, Json
from adapters.sandbox.kubernetes_logs import LogPlace

START_SECONDS: Final = 300.0
NEXT_SECONDS: Final = 60.0
POLL_FAILURES: Final = 20
LOG_FAILURES: Final = 20
FETCH_ATTEMPTS: Final = 3
FETCH_SECONDS: Final = 600.0
HOPELESS: Final = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError"})


class _PodOver(Exception):
    """The cluster ended the pod for a reason that is the build's."""

    def __init__(self, end: PhaseEnd) -> None:
        super().__init__(end)
        self.end = end


class Build:
    """One pod and what is known of it; `poll` is in seconds."""

    def __init__(
        self,
        cluster: Cluster,
        spec: BuildSpec,
        listener: BuildListener,
        attempt: str,
        *,
        has_network: bool,
        poll: float,
    ) -> None:
        self._cluster = cluster
        self._spec = spec
        self._listener = listener
        self._selector = f"{bodies.ATTEMPT_LABEL}={attempt}"
        self._is_network_announced = has_network
        self._poll = poll
        self._name = ""

    async def until_running(self, container: str, *, patience_seconds: float = START_SECONDS) -> str:
        """Wait until a container has started; the pod's name.

        Raises RunnerUnavailable when it cannot, or does not in time; ClusterError when the pod is lost.
        """
        reason = "no pod"
        try:
            async with asyncio.timeout(patience_seconds):
                while True:
                    pod = await self._look()
                    state = _state(pod, container)
                    if "running" in state or "terminated" in state:
                        return self._name
                    waiting = state.get("waiting") or {}
                    reason = _why_waiting(pod) or str(waiting.get("message") or waiting.get("reason") or reason)
                    if waiting.get("reason") in HOPELESS:
                        raise RunnerUnavailable(f"The container of a build cannot start: {reason[:500]}")
                    await asyncio.sleep(self._poll)
        except TimeoutError:
            raise RunnerUnavailable(
                f"The pod of a build did not start in {patience_seconds:g} s: {reason[:500]}"
            ) from None

    async def run_phases(self) -> list[PhaseExit]:
        """The phases until one fails."""
        exits: list[PhaseExit] = []
        for number, phase in enumerate(self._spec.phases):
            exits.append(await self._run_phase(bodies.phase_container(number), phase))
            await self._listener.phase_ended(exits[-1])
            if not exits[-1].is_success:
                break
        return exits

    async def collect(self, exits: list[PhaseExit]) -> BuildResult:
        """Fetch the output of a build that succeeded, from a container in which nothing of it runs."""
        if not all(exit.is_success for exit in exits):
            return BuildResult(exits=exits, output=None)
        try:
            await self.until_running(bodies.OUTPUT_CONTAINER, patience_seconds=NEXT_SECONDS)
        except _PodOver as over:
            raise ClusterError(f"the pod was ended before its output was fetched: {over.end}") from None
        try:
            return BuildResult(exits=exits, output=await self._fetch())
        except ArchiveTooLarge:
            return BuildResult(exits=too_large(exits), output=None)

    async def _fetch(self) -> Path | None:
        command = ["/bin/sh", "-c", bodies.SEND, output_directory(self._spec)]
        attempt = 0
        while True:
            attempt += 1
            try:
                async with (
                    asyncio.timeout(FETCH_SECONDS),
                    self._cluster.receive(self._name, bodies.OUTPUT_CONTAINER, command) as archive,
                ):
                    return await receive_output(archive, self._spec, strip=0)
            except ArchiveTooLarge:
                raise
            except (ClusterError, CommandFailed, ArchiveRefused, TimeoutError) as error:
                if isinstance(error, CommandFailed) and error.exit_code == bodies.NO_FOLDER_CODE:
                    return None
                if attempt == FETCH_ATTEMPTS:
                    raise ClusterError(f"the output did not arrive: {error}") from None

    async def _run_phase(self, container: str, phase: Phase) -> PhaseExit:
        is_started = False
        terminated: Json = {}
        end = PhaseEnd.EXITED
        begun = time.monotonic()
        patience = asyncio.timeout(None)
        try:
            await self.until_running(container, patience_seconds=NEXT_SECONDS)
            await self._listener.phase_started(phase)
            is_started = True
            begun = time.monotonic()
            async with patience:
                patience.reschedule(asyncio.get_running_loop().time() + phase.timeout_seconds)
                if phase.network is Network.EGRESS and not self._is_network_announced:
                    self._is_network_announced = True
                    await self._listener.output(NO_NETWORK, is_error=True)
                terminated = await self._follow(container)
        except StopBuild:
            end = PhaseEnd.STOPPED
        except TimeoutError:
            if not patience.expired():
                raise
            end = PhaseEnd.TIMED_OUT
        except _PodOver as over:
            end = over.end
        if not is_started:
            await self._listener.phase_started(phase)
        if terminated.get("reason") == "OOMKilled":
            end = PhaseEnd.OUT_OF_MEMORY
        code = terminated.get("exitCode")
        return PhaseExit(
            phase=phase.name,
            end=end,
            exit_code=int(code) if end is PhaseEnd.EXITED and code is not None else None,
            seconds=time.monotonic() - begun,
        )

    async def _follow(self, container: str) -> Json:
        """Pass the log on until the container has ended; how it did."""
        place = LogPlace()
        failures = 0
        while True:
            is_whole = False
            try:
                async with self._cluster.log(self._name, container, since=place.since) as chunks:
                    async for chunk in chunks:
                        if new := place.take(chunk):
                            failures = 0
                            await self._listener.output(new, is_error=False)
                is_whole = True
            except ClusterError:
                failures += 1
                if failures == LOG_FAILURES:
                    raise
            pod = await self._look()
            terminated = _state(pod, container).get("terminated")
            if terminated is not None and is_whole:
                return dict(terminated)
            place.reconnect()
            await asyncio.sleep(self._poll)

    async def _look(self) -> Json:
        """The pod, empty while there is none yet; raises _PodOver or ClusterError when it is over before its time."""
        failures = 0
        while True:
            try:
                items = (await self._cluster.get(self._cluster.pods, labelSelector=self._selector)).get("items") or []
                break
            except ClusterError:
                failures += 1
                if failures == POLL_FAILURES:
                    raise
                await asyncio.sleep(self._poll)
        if not items:
            if self._name:
                raise await self._why_gone()
            return {}
        pod: Json = items[0]
        self._name = str(pod["metadata"]["name"])
        status = pod.get("status") or {}
        if pod["metadata"].get("deletionTimestamp"):
            raise await self._why_gone()
        if status.get("phase") == "Failed" and status.get("reason"):
            raise _why_failed(str(status["reason"]), str(status.get("message", "")))
        return pod

    async def _why_gone(self) -> Exception:
        job = await self._cluster.get(f"{self._cluster.jobs}/{bodies.job_name(self._spec.build_id)}")
        for condition in (job.get("status") or {}).get("conditions") or ():
            if condition.get("reason") == "DeadlineExceeded" and condition.get("status") == "True":
                return _PodOver(PhaseEnd.TIMED_OUT)
        return ClusterError("the pod of the build was deleted")


def _state(pod: Json, container: str) -> dict[str, Any]:
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((found.get("state") or {} for found in statuses if found.get("name") == container), {})


def _why_waiting(pod: Json) -> str | None:
    """Why no node takes the pod."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message"))
    return None


def _why_failed(reason: str, message: str) -> Exception:
    if reason == "DeadlineExceeded":
        return _PodOver(PhaseEnd.TIMED_OUT)
    # The kubelet names what was exceeded; "The node was low on resource" is not the build's doing.
    if reason == "Evicted" and "low on resource" not in message:
        return _PodOver(PhaseEnd.DISK_FULL)
    return ClusterError(f"the cluster ended the pod of the build ({reason}): {message[:500]}")
