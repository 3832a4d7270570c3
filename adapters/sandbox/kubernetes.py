"""Builds as Jobs of a Kubernetes cluster: one pod each, phases as its init containers, in order.

Invariant: when `run` ends, no pod of the build is left. A worker that dies or freezes stops moving the Job's deadline,
and the cluster ends the Job LEASE_SECONDS after the last move; a worker that loses its lease removes it at once. An
attempt is told from another by a label and the Job's uid, so none removes what is not its own.

Checkout and output go through the API server, into and out of a waiting container. docs/decisions/0015 says why, what
is bounded and how, and what the operator has to set up. It leaves out caches: a pod has no place of its own for one.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from secrets import token_hex
from typing import Any, Final

import structlog

from adapters.cancellation import first_error
from adapters.processes import ProcessTree, TreeStillAlive
from adapters.sandbox import kubernetes_bodies as bodies
from adapters.sandbox.archives import PackedFolder, pack, packed_bytes
from adapters.sandbox.containers import USER, ending_with, environment, output_directory, working_directory
from adapters.sandbox.contract import (
    BuildLimits,
    BuildListener,
    BuildResult,
    BuildSpec,
    Capability,
    Phase,
    RunnerUnavailable,
    Spawn,
)
from adapters.sandbox.kubernetes_api import Cluster, ClusterError, CommandFailed, Json, open_cluster
from adapters.sandbox.kubernetes_build import START_SECONDS, Build
from settings import Settings

LEASE_SECONDS: Final = 90.0
RENEW_SECONDS: Final = 20.0
POLL_SECONDS: Final = 1.0
TRANSFER_SECONDS: Final = 600.0
TRANSFER_ATTEMPTS: Final = 3
REMOVE_SECONDS: Final = 90.0

# Ends only with its owner or by its deadline; what it is for is to end.
HOLDER: Final = (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()")

NEEDED_RIGHTS: Final = (
    *(("batch", "jobs", "", verb) for verb in ("create", "get", "patch", "delete")),
    ("", "pods", "", "list"),
    ("", "pods", "log", "get"),
    # A WebSocket begins with GET; newer servers ask for `create` as well.
    *(("", "pods", "exec", verb) for verb in ("get", "create")),
    ("", "secrets", "", "create"),
)

_log = structlog.get_logger(__name__)


class KubernetesRunner:
    """Runs builds in `kubernetes_namespace`; `poll_seconds` is how often a pod is looked at."""

    def __init__(self, settings: Settings, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._settings = settings
        self._poll_seconds = poll_seconds

    async def probe(self) -> Capability:
        """Check the rights, and have the server judge a Job like a build's without running it."""
        settings = self._settings
        async with _available(), open_cluster(settings) as cluster:
            version = await cluster.get("/version")
            missing = [right for right in NEEDED_RIGHTS if not await self._may(cluster, *right)]
            if missing:
                words = ", ".join(f"{verb} {resource}{'/' if sub else ''}{sub}" for _, resource, sub, verb in missing)
                raise RunnerUnavailable(f"The worker lacks rights in {settings.kubernetes_namespace}: {words}.")
            limits = BuildLimits(
                memory_bytes=settings.build_memory_megabytes * 2**20,
                processes=settings.build_processes,
                disk_bytes=settings.build_disk_megabytes * 2**20,
                egress_bytes=0,
                file_bytes=settings.build_disk_megabytes * 2**20,
            )
            phase = Phase(name="probe", command="true", timeout_seconds=1)
            spec = BuildSpec(build_id=f"probe-{token_hex(4)}", source=settings.data_dir, phases=[phase], limits=limits)
            judged = await cluster.create(cluster.jobs, self._job(spec, [{}], token_hex(8)), dryRun="All")
        pod = judged.get("spec", {}).get("template", {}).get("spec", {})
        users = "user namespaces" if pod.get("hostUsers") is False else "no user namespaces (an older cluster)"
        network = f"proxy {settings.build_proxy_url}" if settings.build_proxy_url else "no network (BUILD_PROXY_URL)"
        return Capability(
            runner="kubernetes",
            detail=f"Kubernetes {version.get('gitVersion')}, namespace {settings.kubernetes_namespace}, image "
            f"{settings.build_image}, {users}, {network}; the network policy is not checked",
        )

    async def run(self, spec: BuildSpec, listener: BuildListener, spawn: Spawn) -> BuildResult:
        """Run the phases in a fresh pod; also raises TreeStillAlive when its end cannot be confirmed."""
        output_directory(spec)
        proxy_url = self._settings.build_proxy_url
        variables = [environment(phase, spec, proxy_url=proxy_url, has_cache=False) for phase in spec.phases]
        name, attempt = bodies.job_name(spec.build_id), token_hex(8)
        async with (
            _available(),
            open_cluster(self._settings) as cluster,
            spawn(HOLDER, env={}, cwd="/") as tree,
            # Inside the tree's block: who spawned it learns there that something may be left.
            ending_with(lambda: self._remove(cluster, name, attempt)),
        ):
            uid = await self._create(cluster, self._job(spec, variables, attempt))
            await cluster.create(cluster.secrets, bodies.secret(spec.build_id, variables, job_uid=uid))
            build = Build(cluster, spec, listener, attempt, has_network=proxy_url is not None, poll=self._poll_seconds)
            try:
                async with asyncio.TaskGroup() as group:
                    watches = [
                        group.create_task(_until_lost(tree)),
                        group.create_task(self._keep(cluster, name, _longest_seconds(spec))),
                    ]
                    result = await self._run_build(cluster, spec, build)
                    for watch in watches:
                        watch.cancel()
            except BaseExceptionGroup as failures:
                raise first_error(failures) from None
            return result

    async def reap(self, build_id: str) -> None:
        """Remove the Job of a build, whichever attempt's it is, and wait until its pods are gone."""
        async with _available(), open_cluster(self._settings) as cluster:
            await self._remove(cluster, bodies.job_name(build_id), None)

    def _job(self, spec: BuildSpec, variables: list[dict[str, str]], attempt: str) -> Json:
        return bodies.job(
            spec,
            variables,
            image=self._settings.build_image,
            attempt=attempt,
            directory=working_directory(spec),
            runtime_class=self._settings.kubernetes_runtime_class,
            active_seconds=math.ceil(LEASE_SECONDS),
        )

    async def _create(self, cluster: Cluster, job: Json) -> str:
        try:
            made = await cluster.create(cluster.jobs, job)
        except ClusterError as error:
            if error.status != 409:
                raise
            # An earlier attempt's, whose worker is lost; this attempt holds the lease now.
            await self._remove(cluster, job["metadata"]["name"], None)
            made = await cluster.create(cluster.jobs, job)
        return _uid(made)

    async def _run_build(self, cluster: Cluster, spec: BuildSpec, build: Build) -> BuildResult:
        pod = await build.until_running(bodies.SOURCE_CONTAINER)
        await self._send(cluster, pod, spec)
        exits = await build.run_phases()
        return await build.collect(exits)

    async def _send(self, cluster: Cluster, pod: str, spec: BuildSpec) -> None:
        folders = [PackedFolder(spec.source, "source")]
        size = await packed_bytes(folders, owner=USER)
        for attempt in range(1, TRANSFER_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(TRANSFER_SECONDS), aclosing(pack(folders, owner=USER)) as archive:
                    command = ["/bin/sh", "-c", bodies.RECEIVE, str(size)]
                    await cluster.send(pod, bodies.SOURCE_CONTAINER, command, archive)
                return
            except (ClusterError, CommandFailed, TimeoutError) as error:
                if attempt == TRANSFER_ATTEMPTS:
                    raise ClusterError(f"the source could not be sent: {error}") from None

    async def _keep(self, cluster: Cluster, name: str, longest_seconds: float) -> None:
        """Move the Job's deadline while this worker lives; raises ClusterError when that failed for too long."""
        begun = moved = time.monotonic()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            until = min(time.monotonic() - begun + LEASE_SECONDS, longest_seconds)
            try:
                await cluster.patch(f"{cluster.jobs}/{name}", {"spec": {"activeDeadlineSeconds": math.ceil(until)}})
                moved = time.monotonic()
            except ClusterError as error:
                if time.monotonic() - moved > LEASE_SECONDS:
                    raise
                _log.warning("build_deadline_not_moved", job=name, reason=str(error))

    async def _remove(self, cluster: Cluster, name: str, attempt: str | None) -> None:
        """Delete the Job, if it is this attempt's (None: any), and wait for its pods; raises TreeStillAlive."""
        label, value = (bodies.ATTEMPT_LABEL, attempt) if attempt else (bodies.JOB_LABEL, name)
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            reason = "its pods do not end"
            try:
                await _delete_job(cluster, name, attempt)
                if not (await cluster.get(cluster.pods, labelSelector=f"{label}={value}")).get("items"):
                    return
            except ClusterError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise TreeStillAlive(f"the job {name} may still run: {reason}")
            await asyncio.sleep(self._poll_seconds)

    async def _may(self, cluster: Cluster, group: str, resource: str, subresource: str, verb: str) -> bool:
        namespace = self._settings.kubernetes_namespace
        attributes = {"namespace": namespace, "group": group, "resource": resource, "verb": verb}
        if subresource:
            attributes["subresource"] = subresource
        review = await cluster.create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return (review.get("status") or {}).get("allowed") is True


async def _delete_job(cluster: Cluster, name: str, attempt: str | None) -> None:
    path = f"{cluster.jobs}/{name}"
    try:
        found = await cluster.get(path)
        labels: dict[str, Any] = found["metadata"].get("labels") or {}
        if attempt is None or labels.get(bodies.ATTEMPT_LABEL) == attempt:
            await cluster.delete(path, uid=_uid(found))
    except ClusterError as error:
        if error.status not in (404, 409):  # gone, or a later one of the name
            raise


async def _until_lost(tree: ProcessTree) -> None:
    await tree.wait()
    raise ClusterError("this worker's hold on the build is lost")


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except ClusterError as error:
        message = str(error)
        raise RunnerUnavailable(f"{message[:1].upper()}{message[1:]}.") from error


def _longest_seconds(spec: BuildSpec) -> float:
    """When a Job must be over, whoever keeps it: start, both transfers, and all phases in full."""
    return START_SECONDS + 2 * TRANSFER_SECONDS + sum(phase.timeout_seconds + 60 for phase in spec.phases)


def _uid(found: Json) -> str:
    uid = (found.get("metadata") or {}).get("uid")
    if not isinstance(uid, str) or not uid:
        raise ClusterError("an answer of the Kubernetes API server lacks the uid")
    return uid
