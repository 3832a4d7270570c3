"""Stand-ins for a Docker Engine and a Kubernetes API server: they take only the requests that the real ones document,
refuse any other, and play the answers that a test writes down.

What they do not do is run anything: a command's output and end are the script's.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import struct
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

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
