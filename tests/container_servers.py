"""Stand-ins for a Docker Engine and a Kubernetes API server: they take only the requests that the real ones document,
refuse any other, and play the answers that a test writes down. And what both runners' tests have in common.

What the stand-ins do not do is run anything: a command's output and end are the script's.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import ssl
import struct
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from adapters.processes import Limits, ProcessTree, TreeStillAlive, spawn
from adapters.sandbox.contract import BuildLimits, BuildSpec, Phase, PhaseExit, StopBuild

API = "/v1.44"
CUT, HANG, OOM, DISK = "cut", "hang", "oom", "disk"

CONTAINER_KEYS = {
    *("Image", "User", "WorkingDir", "Entrypoint", "Cmd", "Env", "Labels", "Tty", "HostConfig"),
    *("AttachStdin", "OpenStdin", "StdinOnce", "AttachStdout", "AttachStderr"),
}
HOST_KEYS = {
    *("ReadonlyRootfs", "CapDrop", "SecurityOpt", "Privileged", "PidsLimit", "Memory", "MemorySwap", "Mounts", "Tmpfs"),
    *("NetworkMode", "IpcMode", "Init", "AutoRemove", "RestartPolicy", "LogConfig", "Ulimits"),
}
EXEC_KEYS = {*("Cmd", "Env", "WorkingDir", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "Privileged")}


@dataclass
class Play:
    """What a command does: what it writes, as (stream, bytes), and how it ends, an exit code or one of the words."""

    output: Sequence[tuple[int, bytes]] = ()
    end: int | str = 0
    piece_bytes: int = 65_536
    lost_bytes: int = 0  # of the end of the output


@dataclass
class FakeContainer:
    """A container as the engine knows it."""

    id: str
    name: str
    body: dict[str, Any]
    running: bool = False
    started: bool = False
    oom_killed: bool = False
    networks: set[str] = field(default_factory=set)
    archives: list[bytes] = field(default_factory=list)
    volume_bytes: int = 1_000
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_held: bool = False
    commands: list[dict[str, Any]] = field(default_factory=list)

    def end(self) -> None:
        self.running = False
        self.ended.set()


@dataclass
class FakeExec:
    """A command in a container."""

    container: FakeContainer
    body: dict[str, Any]
    running: bool = True
    exit_code: int | None = None


class FakeEngine:
    """A Docker Engine on a unix socket or a loopback port."""

    def __init__(self) -> None:
        self.url = ""
        self.images = {"node:22-bookworm"}
        self.networks = {"builds": True}  # name → internal
        self.containers: dict[str, FakeContainer] = {}
        self.removed: list[FakeContainer] = []
        self.execs: dict[str, FakeExec] = {}
        self.plays: dict[str, Play] = {}
        self.archives: dict[str, bytes] = {}  # path → what GET …/archive sends
        self.requests: list[str] = []
        self.faults: dict[
            str, list[int | str]
        ] = {}  # "METHOD path pattern" → statuses or CUT, HANG, used up one by one
        self.version: dict[str, Any] = {"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.44"}
        self.info: dict[str, Any] = {"MemoryLimit": True, "PidsLimit": True, "SecurityOptions": ["name=rootless"]}
        self.networks_during: dict[str, set[str]] = {}
        self._numbers = iter(range(1, 1_000))

    @asynccontextmanager
    async def listening(self, *, socket: Path | None = None) -> AsyncIterator[FakeEngine]:
        app = web.Application(client_max_size=2**30, middlewares=[self._recorded])
        app.add_routes(
            [
                web.get("/_ping", self._ping),
                web.get("/version", self._version),
                web.get(f"{API}/info", self._info),
                web.get(f"{API}/images/{{name:.+}}/json", self._image),
                web.get(f"{API}/networks/{{name}}", self._network),
                web.post(f"{API}/networks/{{name}}/{{verb:connect|disconnect}}", self._switch_network),
                web.post(f"{API}/containers/create", self._create),
                web.get(f"{API}/containers/{{id}}/json", self._inspect),
                web.post(f"{API}/containers/{{id}}/start", self._start),
                web.post(f"{API}/containers/{{id}}/kill", self._kill),
                web.post(f"{API}/containers/{{id}}/wait", self._wait),
                web.post(f"{API}/containers/{{id}}/attach", self._attach),
                web.delete(f"{API}/containers/{{id}}", self._remove),
                web.put(f"{API}/containers/{{id}}/archive", self._put_archive),
                web.get(f"{API}/containers/{{id}}/archive", self._get_archive),
                web.get(f"{API}/containers/{{id}}/stats", self._stats),
                web.post(f"{API}/containers/{{id}}/exec", self._exec),
                web.post(f"{API}/exec/{{id}}/start", self._start_exec),
                web.get(f"{API}/exec/{{id}}/json", self._inspect_exec),
                web.get(f"{API}/system/df", self._disk),
            ]
        )
        # Handlers end with their connection, which is how an engine learns that an attached client is gone.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            if socket is not None:
                await web.UnixSite(runner, str(socket)).start()
                self.url = f"unix://{socket}"
            else:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.url = f"tcp://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            for container in self.containers.values():
                container.end()
            await runner.cleanup()

    @property
    def only(self) -> FakeContainer:
        """The one container there is or was."""
        found = {container.id: container for container in [*self.containers.values(), *self.removed]}
        assert len(found) == 1, list(found)
        return next(iter(found.values()))

    def asked(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [request for request in self.requests if re.search(pattern, request)]

    @web.middleware
    async def _recorded(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        line = f"{request.method} {request.raw_path}"
        self.requests.append(line)
        for pattern, faults in self.faults.items():
            if faults and re.search(pattern, line):
                fault = faults.pop(0)
                if fault == HANG:
                    await asyncio.Event().wait()
                if fault == CUT:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                return _refuse(int(fault), "as the test says")
        try:
            response: web.StreamResponse = await handler(request)
        except AssertionError as error:
            return _refuse(400, f"invalid request: {error}")
        return response

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response(self.version)

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def _image(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.images:
            return _refuse(404, f"No such image: {name}")
        return web.json_response({"Id": "sha256:1", "RepoTags": [name]})

    async def _network(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.networks:
            return _refuse(404, f"network {name} not found")
        return web.json_response({"Name": name, "Internal": self.networks[name]})

    async def _switch_network(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert request.match_info["name"] in self.networks
        container = self.containers[body["Container"]]
        if request.match_info["verb"] == "connect":
            assert body.keys() == {"Container"}
            container.networks.add(request.match_info["name"])
        else:
            assert body == {"Container": container.id, "Force": True}
            container.networks.remove(request.match_info["name"])
        return web.Response()

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body.keys() == CONTAINER_KEYS, body.keys() ^ CONTAINER_KEYS
        assert body["HostConfig"].keys() == HOST_KEYS, body["HostConfig"].keys() ^ HOST_KEYS
        name = request.query["name"]
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name)
        if body["Image"] not in self.images:
            return _refuse(404, f"No such image: {body['Image']}")
        if any(container.name == name for container in self.containers.values()):
            return _refuse(409, f'Conflict. The container name "/{name}" is already in use')
        container = FakeContainer(f"{next(self._numbers):064x}", name, body)
        if body["HostConfig"]["NetworkMode"] != "none":
            assert body["HostConfig"]["NetworkMode"] in self.networks
            container.networks.add(body["HostConfig"]["NetworkMode"])
        self.containers[container.id] = container
        return web.json_response({"Id": container.id, "Warnings": []}, status=201)

    def _found(self, request: web.Request) -> FakeContainer | None:
        reference = request.match_info["id"]
        return next((one for one in self.containers.values() if reference in (one.id, one.name)), None)

    async def _inspect(self, request: web.Request) -> web.Response:
        container = self._found(request)
        if container is None:
            return _refuse(404, "No such container")
        return web.json_response(
            {
                "Id": container.id,
                "Name": f"/{container.name}",
                "Config": {"Labels": container.body["Labels"]},
                "State": {"Running": container.running, "OOMKilled": container.oom_killed},
                "Mounts": [{"Type": "volume", "Name": f"volume-{container.id}", "Destination": "/workspace"}],
            }
        )

    async def _start(self, request: web.Request) -> web.Response:
        container = self._found(request)
        assert container is not None
        assert not container.started
        container.running = container.started = True
        return web.Response(status=204)

    async def _kill(self, request: web.Request) -> web.Response:
        container = self._found(request)
        if container is None:
            return _refuse(404, "No such container")
        if not container.running:
            return _refuse(409, "container is not running")
        container.end()
        return web.Response(status=204)

    async def _wait(self, request: web.Request) -> web.Response:
        container = self._found(request)
        assert container is not None
        assert request.query == {"condition": "not-running"}
        await container.ended.wait()
        return web.json_response({"StatusCode": 137})

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        container = self._found(request)
        if container is None:
            return _refuse(404, "No such container")
        assert request.query == {"stream": "1", "stdin": "1"}
        assert request.headers["Upgrade"] == "tcp"
        response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", "Upgrade": "tcp"})
        await response.prepare(request)
        container.is_held = True
        try:
            await container.ended.wait()
        finally:
            container.is_held = False
            container.end()  # StdinOnce: the first process reads end-of-file, and ends
        assert request.transport is not None
        request.transport.close()
        return response

    async def _remove(self, request: web.Request) -> web.Response:
        container = self._found(request)
        if container is None:
            return _refuse(404, "No such container")
        assert request.query == {"force": "1", "v": "1"}
        container.end()
        self.removed.append(self.containers.pop(container.id))
        return web.Response(status=204)

    async def _put_archive(self, request: web.Request) -> web.Response:
        container = self._found(request)
        assert container is not None
        assert request.query["path"] == "/workspace"  # the root is read-only
        container.archives.append(await request.read())
        return web.Response()

    async def _get_archive(self, request: web.Request) -> web.StreamResponse:
        container = self._found(request)
        assert container is not None
        assert not container.running, "something could still write"
        path = request.query["path"]
        if path not in self.archives:
            return _refuse(404, f"Could not find the file {path} in container {container.id}")
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await response.prepare(request)
        await response.write(self.archives[path])
        return response

    async def _stats(self, request: web.Request) -> web.Response:
        assert request.query == {"stream": "false", "one-shot": "true"}
        return web.json_response({"memory_stats": {"usage": 5_000_000, "stats": {"inactive_file": 1_000_000}}})

    async def _disk(self, request: web.Request) -> web.Response:
        assert request.query == {"type": "volume"}
        volumes = [
            {"Name": f"volume-{one.id}", "UsageData": {"Size": one.volume_bytes, "RefCount": 1}}
            for one in self.containers.values()
        ]
        return web.json_response({"Volumes": [{"Name": "other", "UsageData": {"Size": 10**12}}, *volumes]})

    async def _exec(self, request: web.Request) -> web.Response:
        container = self._found(request)
        if container is None:
            return _refuse(404, "No such container")
        if not container.running:
            return _refuse(409, f"container {container.id} is not running")
        body = await request.json()
        assert body.keys() == EXEC_KEYS, body.keys() ^ EXEC_KEYS
        container.commands.append(body)
        self.networks_during[body["Cmd"][-1]] = set(container.networks)
        number = f"exec-{next(self._numbers)}"
        self.execs[number] = FakeExec(container, body)
        return web.json_response({"Id": number}, status=201)

    async def _start_exec(self, request: web.Request) -> web.StreamResponse:
        assert await request.json() == {"Detach": False, "Tty": False}
        execution = self.execs[request.match_info["id"]]
        play = self.plays.get(execution.body["Cmd"][-1], Play())
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.docker.multiplexed-stream"})
        response.force_close()
        response._length_check = False
        await response.prepare(request)
        container = execution.container
        data = b"".join(struct.pack(">BxxxI", stream, len(text)) + text for stream, text in play.output)
        data = data[: len(data) - play.lost_bytes]
        for offset in range(0, len(data), play.piece_bytes):
            await response.write(data[offset : offset + play.piece_bytes])
        if play.end == CUT:
            assert request.transport is not None
            request.transport.abort()
            return response
        if play.end == DISK:
            container.volume_bytes = 10**12
        if play.end in (HANG, DISK):
            await container.ended.wait()
        if play.end == OOM:
            container.oom_killed = True
        execution.exit_code = play.end if isinstance(play.end, int) else 137
        execution.running = False
        return response

    async def _inspect_exec(self, request: web.Request) -> web.Response:
        execution = self.execs[request.match_info["id"]]
        return web.json_response({"Running": execution.running, "ExitCode": execution.exit_code})


NAMESPACE = "switchyard-builds"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
TOKEN = "token-of-the-worker"
POD_KEYS = {
    *("restartPolicy", "automountServiceAccountToken", "enableServiceLinks", "hostUsers", "securityContext", "volumes"),
    *("terminationGracePeriodSeconds", "initContainers", "containers"),
}
CONTAINER_OF_POD_KEYS = {
    *("name", "image", "command", "workingDir", "env", "resources", "securityContext", "volumeMounts"),
}


@dataclass
class PodPlay:
    """What a container of a pod does: its log, where the connections to it break, and how it ends."""

    log: bytes = b""  # lines with timestamps
    cuts: list[int] = field(default_factory=list)  # bytes that each connection gets before it breaks
    end: int | str = 0  # an exit code, HANG, OOM, or "evicted: message"


@dataclass
class FakePod:
    """A pod as the server knows it: one container after the other, each only once the one before has succeeded."""

    name: str
    job: dict[str, Any]
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    received: bytes = b""

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.job["spec"]["template"]["spec"]
        return spec

    def start_next(self, after: str | None) -> None:
        order = [container["name"] for container in [*self.spec["initContainers"], *self.spec["containers"]]]
        following = order[0] if after is None else order[order.index(after) + 1]
        self.states[following] = {"running": {}}


class FakeCluster:
    """A Kubernetes API server with one node on which nothing runs."""

    def __init__(self) -> None:
        self.url = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, FakePod] = {}
        self.last_pod: FakePod | None = None
        self.last_secret: dict[str, Any] = {}
        self.requests: list[str] = []
        self.faults: dict[str, list[int | str]] = {}
        self.plays: dict[str, PodPlay] = {}
        self.output: list[bytes | int | str] = []  # of each fetch: an archive, an exit code, or CUT
        self.source_faults: list[int | str] = []
        self.denied: set[tuple[str, str]] = set()
        self.token = TOKEN
        self.waiting: dict[str, Any] | None = None  # keeps every pod from starting
        self.keeps_pods = False
        self.deadlines: list[int] = []
        self.drops_host_users = False
        self._numbers = iter(range(1, 1_000))

    @asynccontextmanager
    async def listening(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeCluster]:
        app = web.Application(middlewares=[self._recorded])
        app.add_routes(
            [
                web.get("/version", self._version),
                web.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review),
                web.post(JOBS, self._create_job),
                web.get(f"{JOBS}/{{name}}", self._get_job),
                web.patch(f"{JOBS}/{{name}}", self._patch_job),
                web.delete(f"{JOBS}/{{name}}", self._delete_job),
                web.post(f"{CORE}/secrets", self._create_secret),
                web.get(f"{CORE}/pods", self._list_pods),
                web.get(f"{CORE}/pods/{{name}}/log", self._log),
                web.get(f"{CORE}/pods/{{name}}/exec", self._exec),
            ]
        )
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            for pod in self.pods.values():
                pod.ended.set()
            await runner.cleanup()

    def asked(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [request for request in self.requests if re.search(pattern, request)]

    @web.middleware
    async def _recorded(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        line = f"{request.method} {request.raw_path}"
        self.requests.append(line)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        for pattern, faults in self.faults.items():
            if faults and re.search(pattern, line):
                fault = faults.pop(0)
                if fault == CUT:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                return _status(int(fault), "as the test says")
        try:
            response: web.StreamResponse = await handler(request)
        except AssertionError as error:
            return _status(422, f"invalid: {error}")
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.35.0"})

    async def _review(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["kind"] == "SelfSubjectAccessReview"
        asked = body["spec"]["resourceAttributes"]
        assert asked["namespace"] == NAMESPACE
        resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        return web.json_response({"status": {"allowed": (asked["verb"], resource) not in self.denied}}, status=201)

    async def _create_job(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["apiVersion"], body["kind"]) == ("batch/v1", "Job")
        name = body["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
        for value in body["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)
        pod = body["spec"]["template"]["spec"]
        assert pod.keys() - {"runtimeClassName"} == POD_KEYS, pod.keys() ^ POD_KEYS
        for container in [*pod["initContainers"], *pod["containers"]]:
            assert container.keys() == CONTAINER_OF_POD_KEYS
            for variable in container["env"]:
                assert variable.keys() == {"name", "valueFrom"}
        if request.query.get("dryRun") == "All":
            if self.drops_host_users:
                del pod["hostUsers"]
            return web.json_response(body, status=201)
        assert not request.query
        if name in self.jobs:
            return _status(409, f'jobs.batch "{name}" already exists')
        body["metadata"]["uid"] = f"uid-{next(self._numbers)}"
        self.jobs[name] = body
        pod_of_job = FakePod(f"{name}-x{next(self._numbers)}", body)
        if self.waiting is None:
            pod_of_job.start_next(None)
        else:
            pod_of_job.states["source"] = {"waiting": self.waiting}
        self.pods[pod_of_job.name] = self.last_pod = pod_of_job
        return web.json_response(body, status=201)

    async def _get_job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        return _status(404, "not found") if job is None else web.json_response(job)

    async def _patch_job(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        body = await request.json()
        job = self.jobs[request.match_info["name"]]
        assert body.keys() == {"spec"}
        assert body["spec"].keys() == {"activeDeadlineSeconds"}
        job["spec"] |= body["spec"]
        self.deadlines.append(body["spec"]["activeDeadlineSeconds"])
        return web.json_response(job)

    async def _delete_job(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.jobs:
            return _status(404, "not found")
        body = await request.json()
        assert body["propagationPolicy"] == "Background"
        if body["preconditions"]["uid"] != self.jobs[name]["metadata"]["uid"]:
            return _status(409, "the UID in the precondition does not match")
        uid = self.jobs.pop(name)["metadata"]["uid"]
        for secret, found in list(self.secrets.items()):
            if any(owner["uid"] == uid for owner in found["metadata"]["ownerReferences"]):
                del self.secrets[secret]
        self.end_pods(name, remove=not self.keeps_pods)
        return web.json_response({"kind": "Status", "status": "Success"})

    def end_pods(self, job: str, *, remove: bool = True) -> None:
        """What the node does when a Job is deleted or over."""
        for pod in list(self.pods.values()):
            if pod.job["metadata"]["name"] == job:
                pod.ended.set()
                if remove:
                    del self.pods[pod.name]

    async def _create_secret(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["apiVersion"], body["kind"]) == ("v1", "Secret")
        for key in body["stringData"]:
            assert re.fullmatch(r"[-._a-zA-Z0-9]+", key)
        owner = body["metadata"]["ownerReferences"][0]
        assert self.jobs[owner["name"]]["metadata"]["uid"] == owner["uid"]
        self.secrets[body["metadata"]["name"]] = self.last_secret = body
        return web.json_response(body, status=201)

    async def _list_pods(self, request: web.Request) -> web.Response:
        label, _, value = request.query["labelSelector"].partition("=")
        found = [
            pod for pod in self.pods.values() if pod.job["spec"]["template"]["metadata"]["labels"].get(label) == value
        ]
        return web.json_response({"kind": "PodList", "items": [self._pod(pod) for pod in found]})

    def _pod(self, pod: FakePod) -> dict[str, Any]:
        names = [container["name"] for container in pod.spec["initContainers"]]
        statuses = [{"name": name, "state": state} for name, state in pod.states.items()]
        failed = bool(pod.reason) or any(state.get("terminated", {}).get("exitCode") for state in pod.states.values())
        return {
            "metadata": {"name": pod.name},
            "status": {
                "phase": "Failed" if failed else "Running",
                **({"reason": pod.reason, "message": pod.message} if pod.reason else {}),
                "initContainerStatuses": [status for status in statuses if status["name"] in names],
                "containerStatuses": [status for status in statuses if status["name"] not in names],
            },
        }

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = self.pods.get(request.match_info["name"])
        if pod is None:
            return _status(404, "pod not found")
        container = request.query["container"]
        assert request.query["follow"] == request.query["timestamps"] == "true"
        play = self.plays.get(container, PodPlay())
        since = request.query.get("sinceTime", "")
        lines = play.log.splitlines(keepends=True)
        data = b"".join(line for line in lines if line[:19] >= since[:19].encode())
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if play.cuts:
            await response.write(data[: play.cuts.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data)
        if play.end == HANG:
            await pod.ended.wait()
        elif isinstance(play.end, str) and play.end.startswith("evicted: "):
            pod.reason, pod.message = "Evicted", play.end.removeprefix("evicted: ")
        elif "terminated" not in pod.states[container]:
            code = 137 if play.end == OOM else int(play.end)
            reason = "OOMKilled" if play.end == OOM else "Error" if code else "Completed"
            pod.states[container] = {"terminated": {"exitCode": code, "reason": reason}}
            if code == 0:
                pod.start_next(container)
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod = self.pods.get(request.match_info["name"])
        if pod is None:
            return _status(404, "pod not found")
        assert request.headers["Sec-WebSocket-Protocol"] == "v4.channel.k8s.io"
        container, command = request.query["container"], request.query.getall("command")
        assert "running" in pod.states[container]
        assert (request.query["stdout"], request.query["stderr"], request.query["tty"]) == ("true", "true", "false")
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), max_msg_size=2**20)
        await socket.prepare(request)
        if container == "source":
            assert request.query["stdin"] == "true"
            code = await self._receive(socket, pod, int(command[-1]))
        else:
            assert request.query["stdin"] == "false"
            code = await self._send(socket)
        if code is None:
            assert request.transport is not None
            request.transport.abort()
            return socket
        outcome: dict[str, Any] = {"status": "Success"}
        if code:
            await socket.send_bytes(b"\x02sh: it failed\n")
            causes = [{"reason": "ExitCode", "message": str(code)}]
            outcome = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        await socket.send_bytes(b"\x03" + json.dumps(outcome).encode())
        await socket.close()
        return socket

    async def _receive(self, socket: web.WebSocketResponse, pod: FakePod, size: int) -> int | None:
        received = b""
        while len(received) < size:
            message = await socket.receive()
            if not isinstance(message.data, bytes):
                return None
            assert message.data[:1] == b"\0"
            received += message.data[1:]
            if self.source_faults:
                fault = self.source_faults.pop(0)
                return None if fault == CUT else int(fault)
        assert len(received) == size
        pod.received = received
        pod.states["source"] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        pod.start_next("source")
        return 0

    async def _send(self, socket: web.WebSocketResponse) -> int | None:
        play = self.output.pop(0) if self.output else 44
        if isinstance(play, int):
            return play
        if play == CUT:
            await socket.send_bytes(b"\x01" + bytes(512))
            return None
        assert isinstance(play, bytes)
        for offset in range(0, len(play), 32_768):
            await socket.send_bytes(b"\x01" + play[offset : offset + 32_768])
        return 0


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code)


SECRET = "hunter2-of-the-project"
NO_LIMITS = Limits()


class Listener:
    """Keeps what it hears; stops the build when told to."""

    def __init__(self, *, stop_at: bytes | None = None) -> None:
        self.events: list[str] = []
        self.text = {False: b"", True: b""}
        self.heard = asyncio.Event()
        self._stop_at = stop_at

    async def phase_started(self, phase: Phase) -> None:
        self.events.append(f"started {phase.name}")

    async def phase_ended(self, exit: PhaseExit) -> None:
        self.events.append(f"ended {exit.phase} {exit.end}")

    async def output(self, data: bytes, *, is_error: bool) -> None:
        self.text[is_error] += data
        self.heard.set()
        if self._stop_at is not None and self._stop_at in data:
            raise StopBuild

    async def refused(self, target: str, reason: str) -> None:
        raise AssertionError("nobody tells of the proxy here")


class Trees:
    """`spawn` as a worker gives it; remembers the trees."""

    def __init__(self) -> None:
        self.trees: list[ProcessTree] = []
        self.commands: list[Sequence[str]] = []
        self.has_strays = False

    @asynccontextmanager
    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        limits: Limits = NO_LIMITS,
        pass_fds: Sequence[int] = (),
    ) -> AsyncIterator[ProcessTree]:
        assert not env
        self.commands.append(argv)
        try:
            async with spawn(argv, env=env, cwd=cwd, deadline=math.inf, limits=limits, pass_fds=pass_fds) as tree:
                self.trees.append(tree)
                yield tree
        except (TreeStillAlive, asyncio.CancelledError) as error:
            self.has_strays = isinstance(error, TreeStillAlive) or isinstance(error.__cause__, TreeStillAlive)
            raise


def spec_of(folder: Path, *phases: Phase, **values: Any) -> BuildSpec:
    source = folder / "checkout"
    (source / "site").mkdir(parents=True, exist_ok=True)
    (source / "site/index.js").write_text("source text")
    limits = BuildLimits(
        memory_bytes=512 * 2**20, processes=128, disk_bytes=10_000_000, egress_bytes=1_000, file_bytes=5_000_000
    )
    values = {"working_directory": "site", "output_directory": "dist", **values}
    return BuildSpec(build_id="dep_1", source=source, phases=phases, limits=limits, **values)


def phase(name: str, **values: Any) -> Phase:
    return Phase(name=name, command=f"run {name}", **{"timeout_seconds": 20.0, **values})


def folder_archive(name: str, files: dict[str, bytes]) -> bytes:
    """A folder as the engine or `tar` sends it: every member below `name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        root = tarfile.TarInfo(name)
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        for path, content in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _refuse(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"message": message}), content_type="application/json")
