"""Builds as tests run them: a runner on this machine, a listener that remembers, commands inside and outside."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from adapters import processes
from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import (
    BuildLimits,
    BuildResult,
    BuildSpec,
    Network,
    Phase,
    PhaseExit,
    Spawn,
)
from settings import Settings

LIMITS = BuildLimits(
    memory_bytes=256 * 2**20,
    processes=64,
    disk_bytes=64 * 2**20,
    egress_bytes=8 * 2**20,
    file_bytes=48 * 2**20,
    open_files=1_024,
)
# This Python, for the probes: wherever it is installed, it becomes a tool of the build.
PYTHON_HOME = Path(sys.base_prefix)
PYTHON = str(PYTHON_HOME / "bin" / f"python3.{sys.version_info.minor}")


def sandbox_settings(**values: Any) -> Settings:
    """Settings that let builds use the tests' Python."""
    key = base64.b64encode(b"k" * 32).decode()
    required = {
        "database_url": "postgres://nobody@127.0.0.1/none",
        "redis_url": "redis://127.0.0.1",
        "secret_keys": f"t:{key}",
    }
    tools = () if PYTHON_HOME.is_relative_to("/usr") else (str(PYTHON_HOME),)
    return Settings(**{**required, "build_tool_paths": tools, **values})


class Memory:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started: list[str] = []
        self.ended: list[PhaseExit] = []
        self.stdout = b""
        self.stderr = b""
        self.refusals: list[tuple[str, str]] = []
        self.printed = asyncio.Event()

    async def phase_started(self, phase: Phase) -> None:
        self.calls.append(f"started {phase.name}")
        self.started.append(phase.name)

    async def phase_ended(self, exit: PhaseExit) -> None:
        self.calls.append(f"ended {exit.phase}")
        self.ended.append(exit)

    async def output(self, data: bytes, *, is_error: bool) -> None:
        self.calls.append("output")
        if is_error:
            self.stderr += data
        else:
            self.stdout += data
            self.printed.set()

    async def refused(self, target: str, reason: str) -> None:
        self.calls.append("refused")
        self.refusals.append((target, reason))


@dataclass(frozen=True)
class Ran:
    """What became of one command."""

    result: BuildResult
    listener: Memory

    @property
    def exit(self) -> PhaseExit:
        return self.result.exits[-1]

    @property
    def text(self) -> str:
        """Standard output, and the error output behind it."""
        return (self.listener.stdout + self.listener.stderr).decode(errors="replace").strip()


@dataclass
class Bench:
    """A runner, and a checkout to run commands in."""

    source: Path
    runner: BubblewrapRunner
    cache: Path | None = None
    limits: BuildLimits = LIMITS
    environment: Mapping[str, str] = field(default_factory=dict)

    async def run(
        self,
        command: str,
        *,
        network: Network = Network.NONE,
        timeout_seconds: float = 20.0,
        spawn: Spawn | None = None,
        listener: Memory | None = None,
        **limits: int,
    ) -> Ran:
        """Run one command in the sandbox."""
        phase = Phase(
            name="probe",
            command=command,
            environment=self.environment,
            network=network,
            timeout_seconds=timeout_seconds,
        )
        return await self.build([phase], spawn=spawn, listener=listener, limits=replace(self.limits, **limits))

    async def build(
        self,
        phases: Sequence[Phase],
        *,
        spawn: Spawn | None = None,
        listener: Memory | None = None,
        limits: BuildLimits | None = None,
        **fields: Any,
    ) -> Ran:
        """Run phases in the sandbox."""
        heard = listener or Memory()
        spec = BuildSpec(
            build_id="test",
            source=self.source,
            phases=phases,
            limits=limits or self.limits,
            cache=self.cache,
            **fields,
        )
        result = await self.runner.run(spec, heard, spawn or supervised())
        return Ran(result, heard)

    async def python(self, code: str, **options: Any) -> Ran:
        """Run a program of Python in the sandbox."""
        (self.source / "probe.py").write_text(code)
        return await self.run(f"{PYTHON} -I -S probe.py", **options)


@contextmanager
def folder_for_everybody() -> Iterator[Path]:
    """A folder that every user of the machine comes to; pytest keeps its own closed."""
    with tempfile.TemporaryDirectory(prefix="switchyard-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def supervised(seconds: float = math.inf) -> Spawn:
    """`spawn` as a worker gives it, with a lease that lasts so long."""
    return partial(processes.spawn, deadline=time.monotonic() + seconds)


async def outside(command: str, *, cwd: Path | None = None) -> tuple[int, str]:
    """The same command without a sandbox: its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        text, _ = await process.communicate()
    return process.returncode or 0, text.decode(errors="replace").strip()


async def outside_python(code: str, folder: Path) -> str:
    """A program of Python without a sandbox."""
    (folder / "probe.py").write_text(code)
    _, text = await outside(f"{PYTHON} -I -S probe.py", cwd=folder)
    return text
