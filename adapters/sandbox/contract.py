"""What every build runner promises: the Protocol, the values that cross it, its errors.

Invariant: a build sees its own checkout, its cache and a tool chain, and nothing else: not the service's files,
environment or processes, not loopback, not the private network. What it may reach goes through the egress proxy. When
`run` returns or raises, by whatever way, nothing of the build runs any more, and what it left is bounded by its limits.
Runners know nothing of executions, of logs or of what the commands mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from adapters.processes import Limits, ProcessTree


class Network(StrEnum):
    """What a phase may reach."""

    NONE = "NONE"
    EGRESS = "EGRESS"  # the public internet, through the proxy that judges every address


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One command of a build. `command` is a line for `/bin/sh -c`; the environment is all that it gets of ours."""

    name: str
    command: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: Network = Network.NONE
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLimits:
    """Bounds of one build: all of its processes together, but `file_bytes` and `open_files`, which each has."""

    memory_bytes: int
    processes: int
    disk_bytes: int
    egress_bytes: int
    file_bytes: int
    open_files: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """A build. `source` is a folder on this machine that the runner may change and the caller removes.

    `working_directory` is a POSIX path relative to `source`, `output_directory` one relative to the working directory.
    `cache` is a folder that survives the build, None where there must be none. `build_id` names the build wherever it
    runs, so that `reap` finds what a lost worker left.
    """

    build_id: str
    source: Path
    phases: Sequence[Phase]
    limits: BuildLimits
    working_directory: str = "."
    output_directory: str = "."
    cache: Path | None = None


class PhaseEnd(StrEnum):
    """How a phase ended."""

    EXITED = "EXITED"  # by itself; `exit_code` or `signal` tells how
    TIMED_OUT = "TIMED_OUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_FULL = "DISK_FULL"  # more than `disk_bytes`
    EGRESS_LIMIT = "EGRESS_LIMIT"
    STOPPED = "STOPPED"  # the listener asked for it


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseExit:
    """The end of one phase."""

    phase: str
    end: PhaseEnd
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    @property
    def is_success(self) -> bool:
        """Whether the next phase may start."""
        return self.end is PhaseEnd.EXITED and self.exit_code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What became of a build: the ends of the phases that ran, the last one deciding.

    `output` is a folder on this machine with the content of the output directory, None when a phase failed or when
    there is no such directory. Its content is hostile: symbolic links, devices and names of any kind.
    """

    exits: Sequence[PhaseExit]
    output: Path | None


class BuildListener(Protocol):
    """Whoever watches a build. Calls come one after the other; a slow listener slows the build."""

    async def phase_started(self, phase: Phase) -> None:
        """A phase begins."""

    async def phase_ended(self, exit: PhaseExit) -> None:
        """A phase has ended; all of its output was given before."""

    async def output(self, data: bytes, *, is_error: bool) -> None:
        """Bytes that the build wrote to standard output or error, cut anywhere. Raises StopBuild to end the build."""

    async def refused(self, target: str, reason: str) -> None:
        """The egress proxy refused a connection to `host:port`."""


class StopBuild(Exception):
    """Raised by a listener: the phase ends at once as STOPPED, and no other one starts."""


class Spawn(Protocol):
    """Starts a process tree that cannot outlive the caller's lease: `adapters.processes.spawn` with its deadline."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        limits: Limits = ...,
        pass_fds: Sequence[int] = ...,
    ) -> AbstractAsyncContextManager[ProcessTree]:
        """The tree, killed when the block is left."""


class RunnerUnavailable(Exception):
    """Builds cannot run here; the message says what is missing and what to install or set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What a probe found: `detail` names versions and limits that hold, for `doctor` and the worker's log."""

    runner: str
    detail: str


class BuildRunner(Protocol):
    """Runs builds in isolation."""

    async def probe(self) -> Capability:
        """Run a real, small sandbox; raises RunnerUnavailable when builds could not be isolated here."""

    async def run(self, spec: BuildSpec, listener: BuildListener, spawn: Spawn) -> BuildResult:
        """Run the phases until one fails; raises RunnerUnavailable when none could be started.

        Cancelling the call ends the build; it returns only once nothing of it runs. The tree that `spawn` gives is the
        worker's hold on the build: when the worker dies or loses its lease, the build dies too.
        """

    async def reap(self, build_id: str) -> None:
        """End and remove what an earlier, lost worker left of a build; nothing to do is fine."""
