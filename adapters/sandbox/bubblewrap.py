"""Builds in bubblewrap on the worker's own machine.

Each phase is one supervised tree: deadman, which ends it with the worker's lease; `enter`, which makes the network and
gives up root; bubblewrap, which makes the rest; the command. `view` says what the command sees, `usage` what it takes.

Invariant: without all of its isolation a command is not started, and RunnerUnavailable says why. When `run` returns or
raises, no process of the build is left. No secret is ever on a command line: environments travel in memory files.

It leaves out the meaning of commands, logs, and removing the folders, which are the caller's.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from adapters import processes
from adapters.addresses import AddressGuard
from adapters.cancellation import first_error
from adapters.processes import CannotStart
from adapters.sandbox import enter, seccomp, view
from adapters.sandbox.contract import (
    BuildLimits,
    BuildListener,
    BuildResult,
    BuildSpec,
    Capability,
    Network,
    Phase,
    PhaseEnd,
    PhaseExit,
    RunnerUnavailable,
    Spawn,
    StopBuild,
)
from adapters.sandbox.egress import EgressProxy
from adapters.sandbox.phases import PhaseWatch
from adapters.sandbox.usage import give_to, open_up
from settings import Settings

HTTP_PORTS: Final = (80, 443)
USERS: Final = 1_000  # user ids from `build_uid` on that builds may get
START_SECONDS: Final = 15.0
PROBE_SECONDS: Final = 30.0
# Room for memory that a process maps and does not touch, such as stacks of threads; the watch counts what is touched.
UNTOUCHED_BYTES: Final = 2**30
# The folder is entered by the shell, inside, where a symbolic link leads nowhere else.
COMMAND: Final = ("/bin/sh", "-c", 'cd -- "$1" && exec /bin/sh -c "$2"', "sh")

ADVICE: Final = {
    "mount": "the worker runs as root without the right to mount",
    "network": "the kernel or the container refuses network namespaces",
    "loopback": "the system lets a namespace be made, but not used (AppArmor does that)",
    "user": "the worker runs as root without the right to become another user",
    "exec": "bubblewrap cannot be executed by the user of a build",
}
WAY_OUT: Final = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns, the container's seccomp profile), "
    "or set BUILD_RUNNER to docker or kubernetes"
)


class BubblewrapRunner:
    """Builds as trees of this machine; needs Linux, bubblewrap 0.8 and user namespaces."""

    def __init__(self, settings: Settings) -> None:
        self._guard = AddressGuard.from_settings(settings.build_allowed_hosts, ports=HTTP_PORTS)
        self._tools = settings.build_tool_paths
        self._first_uid = settings.build_uid

    async def probe(self) -> Capability:
        """Run a real, small sandbox; raises RunnerUnavailable when builds could not be isolated here."""
        spawn = partial(processes.spawn, deadline=time.monotonic() + PROBE_SECONDS)
        program = _find_bubblewrap()
        listener = _ProbeListener()
        with tempfile.TemporaryDirectory(prefix="switchyard-probe-") as folder:
            spec = BuildSpec(
                build_id="probe",
                source=Path(folder),
                phases=[Phase(name="probe", command="true", network=Network.EGRESS, timeout_seconds=PROBE_SECONDS)],
                limits=BuildLimits(
                    memory_bytes=2**28, processes=64, disk_bytes=2**24, egress_bytes=0, file_bytes=2**20
                ),
            )
            (end,) = (await self.run(spec, listener, spawn)).exits
        if not end.is_success:
            raise RunnerUnavailable(f"a sandbox starts, but `true` fails in it: {listener.text or end.end}")
        isolation = f"as user {self._first_uid} and up" if os.geteuid() == 0 else "as the worker's own user"
        return Capability(
            runner="sandbox", detail=f"{await _version(program, spawn)}, {isolation}, started in {end.seconds:.2f} s"
        )

    async def run(self, spec: BuildSpec, listener: BuildListener, spawn: Spawn) -> BuildResult:
        """Run the phases until one fails; raises RunnerUnavailable, or ValueError for a path that leads elsewhere."""
        program = _find_bubblewrap()
        parts = _parts(spec.working_directory) + _parts(spec.output_directory)
        exits: list[PhaseExit] = []
        with _build_user(self._first_uid) as uid:
            folders = [folder for folder in (spec.source, spec.cache) if folder is not None]
            if uid:
                await _give_away(folders, uid)
            build = _Build(spec=spec, program=program, uid=uid, tools=self._tools)
            watch = PhaseWatch(spec, listener)
            proxy = EgressProxy(self._guard, limit_bytes=spec.limits.egress_bytes, refused=watch.refused)
            try:
                for phase in spec.phases:
                    exits.append(await _run_phase(build, phase, watch, proxy, spawn))
                    if not exits[-1].is_success:
                        return BuildResult(exits=exits, output=None)
            finally:
                if not uid:
                    for folder in folders:
                        await asyncio.to_thread(open_up, folder)
        return BuildResult(exits=exits, output=_folder_below(spec.source, parts))

    async def reap(self, build_id: str) -> None:
        """Nothing to do: the trees of a lost worker have ended with it (docs/decisions/0003)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """A build and what all of its phases share; `uid` 0 means our own user."""

    spec: BuildSpec
    program: str
    uid: int
    tools: Sequence[str]


async def _run_phase(build: _Build, phase: Phase, watch: PhaseWatch, proxy: EgressProxy, spawn: Spawn) -> PhaseExit:
    try:
        await watch.begin(phase)
    except StopBuild:
        return await watch.conclude(PhaseExit(phase=phase.name, end=PhaseEnd.STOPPED))
    begun = time.monotonic()
    try:
        async with AsyncExitStack() as stack:
            tree, handover = await stack.enter_async_context(_sandbox(build, phase, spawn))
            listening = await _take_over(handover)
            if listening is not None:
                await stack.enter_async_context(proxy.serving(listening))
            found = await watch.until_end(phase, tree, proxy.exhausted)
            said = _last_words(handover)
    except CannotStart as error:
        raise RunnerUnavailable(f"no sandbox can be started: {error}") from None
    except ExceptionGroup as errors:
        raise first_error(errors) from None  # a listener's own error, or of a tree that does not end
    if found.end is PhaseEnd.EXITED and "exit-code" not in said:  # nothing was executed
        if said.startswith("failed"):
            raise RunnerUnavailable(_explain(said))
        if found.signal is None:
            raise RunnerUnavailable(f"bubblewrap cannot make a sandbox ({watch.first_error()}); {WAY_OUT}")
    return await watch.conclude(replace(found, seconds=time.monotonic() - begun))


@asynccontextmanager
async def _sandbox(
    build: _Build, phase: Phase, spawn: Spawn
) -> AsyncIterator[tuple[processes.ProcessTree, socket.socket]]:
    """The tree of one phase, and our end of the socket that `enter` and bubblewrap speak on."""
    limits = build.spec.limits
    folders = [build.spec.source, *([build.spec.cache] if build.spec.cache else []), *map(Path, build.tools)]
    # Staged, when `enter` is root: see there.
    shown = [f"{enter.STAGE}/{place}" if build.uid else str(folder) for place, folder in enumerate(folders)]
    tools = list(zip(shown[len(shown) - len(build.tools) :], build.tools, strict=True))
    sources = view.Sources(workspace=shown[0], cache=shown[1] if build.spec.cache else None, tools=tools)
    environment = view.environment(
        phase.environment,
        tools=build.tools,
        has_cache=build.spec.cache is not None,
        has_proxy=phase.network is Network.EGRESS,
        memory_bytes=limits.memory_bytes,
    )
    with _Descriptors() as descriptors:
        ours, theirs = descriptors.socket_pair()
        files = {path: descriptors.memory_file(text.encode()) for path, text in view.MADE_FILES.items()}
        options = [
            *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
            *("--disable-userns", "--uid", str(view.USER_ID), "--gid", str(view.USER_ID), "--cap-drop", "ALL"),
            *("--die-with-parent", "--new-session", "--hostname", "build"),
            *view.arguments(sources, files=files, memory_bytes=limits.memory_bytes),
            *(word for name, value in environment.items() for word in ("--setenv", name, value)),
            *("--chdir", view.WORKSPACE, "--json-status-fd", str(theirs.fileno())),
            *("--seccomp", str(descriptors.memory_file(seccomp.program(platform.machine())))),
        ]
        arguments = descriptors.memory_file("\0".join(options).encode())
        argv = [
            *(sys.executable, "-I", "-S", enter.__file__, str(theirs.fileno())),
            *([f"uid={build.uid}", *(f"stage={folder}" for folder in folders)] if build.uid else []),
            *([f"port={view.PROXY_PORT}"] if phase.network is Network.EGRESS else []),
            *(f"limit={name}:{value}" for name, value in _resource_limits(limits)),
            *("--", build.program, "--args", str(arguments), "--"),
            *(*COMMAND, build.spec.working_directory, phase.command),
        ]
        async with spawn(argv, env={}, cwd="/", pass_fds=descriptors.to_pass(but=ours)) as tree:
            descriptors.close(but=ours)
            tree.stdin.close()
            yield tree, ours


def _resource_limits(limits: BuildLimits) -> list[tuple[str, int]]:
    """setrlimit(2) for each process; of processes the kernel counts all that the user has."""
    return [
        ("NPROC", limits.processes),
        ("NOFILE", limits.open_files),
        ("FSIZE", limits.file_bytes),
        ("DATA", limits.memory_bytes + UNTOUCHED_BYTES),
        ("CORE", 0),
        ("MSGQUEUE", 0),
    ]


class _Descriptors:
    """Descriptors that a child inherits, closed here at the end of the block."""

    def __init__(self) -> None:
        self._files: list[int] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(but=None)

    def socket_pair(self) -> tuple[socket.socket, socket.socket]:
        """A pair that keeps messages apart."""
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pair[0].setblocking(False)
        self._sockets += pair
        return pair

    def memory_file(self, content: bytes) -> int:
        """A file without a name, to be read from its start."""
        descriptor = os.memfd_create("switchyard")
        self._files.append(descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def to_pass(self, *, but: socket.socket) -> list[int]:
        """The numbers of all but ours."""
        return [*self._files, *(each.fileno() for each in self._sockets if each is not but)]

    def close(self, *, but: socket.socket | None) -> None:
        """Let go, so that the child's end is the end."""
        while self._files:
            os.close(self._files.pop())
        for each in self._sockets:
            if each is not but:
                each.close()


async def _take_over(handover: socket.socket) -> socket.socket | None:
    """The socket that listens in the sandbox, if one was asked for; raises RunnerUnavailable."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(handover, readable.set)
    try:
        async with asyncio.timeout(START_SECONDS):
            await readable.wait()
    except TimeoutError:
        raise RunnerUnavailable("the sandbox is not ready in time") from None
    finally:
        loop.remove_reader(handover)
    message, descriptors, _, _ = socket.recv_fds(handover, 4_096, 1)
    if message != b"ready":
        raise RunnerUnavailable(_explain(message.decode()))
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _last_words(handover: socket.socket) -> str:
    """What bubblewrap said by the end: `exit-code` only if the command was executed."""
    said = b""
    try:
        while message := handover.recv(4_096):
            said += message
    except BlockingIOError:  # somebody was killed and is not yet cleared away
        pass
    return said.decode(errors="replace")


def _explain(message: str) -> str:
    """A failure of `enter`, for people."""
    step, number = message.split()[1:] if message.startswith("failed ") else ("start", "0")
    reason = ADVICE.get(step, f"the step {step} failed")
    return f"the sandbox cannot be made: {reason} ({os.strerror(int(number))}); {WAY_OUT}"


async def _give_away(folders: Sequence[Path], uid: int) -> None:
    try:
        for folder in folders:
            await asyncio.to_thread(give_to, uid, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunnerUnavailable(f"{ADVICE['user']}, or to give folders to one ({reason}); {WAY_OUT}") from None


@contextmanager
def _build_user(first: int) -> Iterator[int]:
    """A user id for one build, 0 where we are not root and cannot change ours.

    No other build of this machine has it: the name of an abstract socket is the lock, which the kernel lifts with our
    last breath. Workers in containers do not see each other's; they then share the count of processes, and no more.
    """
    if os.geteuid() != 0:
        yield 0
        return
    for uid in range(first, first + USERS):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
            try:
                lock.bind(f"\0switchyard/build-user/{uid}")
            except OSError:
                continue
            yield uid
            return
    raise RunnerUnavailable(f"all {USERS} user ids from BUILD_UID on are taken")


def _find_bubblewrap() -> str:
    if sys.platform != "linux":
        raise RunnerUnavailable("the sandbox needs Linux; set BUILD_RUNNER to docker or kubernetes")
    if platform.machine() not in seccomp.MACHINES:
        raise RunnerUnavailable(f"the sandbox does not know the processor {platform.machine()}")
    program = shutil.which("bwrap")
    if program is None:
        raise RunnerUnavailable("bubblewrap is missing: install the package bubblewrap, 0.8 or newer")
    return program


async def _version(program: str, spawn: Spawn) -> str:
    async with spawn([program, "--version"], env={}, cwd="/") as tree:
        text = (await tree.stdout.read(200)).decode(errors="replace").strip()
    return text if re.fullmatch(r"bubblewrap [0-9.]+", text) else "bubblewrap"


def _parts(path: str) -> tuple[str, ...]:
    """The names of a relative path; raises ValueError for one that leads out or is absolute."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise ValueError(f"{path!r} is no path inside a folder")
    return parts.parts


def _folder_below(folder: Path, parts: Sequence[str]) -> Path | None:
    """The folder that the names lead to, None where one of them is missing or a link."""
    for part in parts:
        folder = folder / part
        try:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                return None
        except OSError:
            return None
    return folder


class _ProbeListener:
    """Keeps what a probe prints, for its message."""

    def __init__(self) -> None:
        self.text = ""

    async def phase_started(self, phase: Phase) -> None:
        """Nothing to tell."""

    async def phase_ended(self, exit: PhaseExit) -> None:
        """Nothing to tell."""

    async def output(self, data: bytes, *, is_error: bool) -> None:
        """Keep the beginning."""
        self.text = (self.text + data.decode(errors="replace"))[:500].strip()

    async def refused(self, target: str, reason: str) -> None:
        """A probe opens nothing."""
