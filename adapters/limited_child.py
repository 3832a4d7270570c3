"""Children that look into what strangers sent: started within limits, waited for, and never left behind.

As a module it starts them; as a program (`python limited_child.py LIMITS COMMAND…`) it takes the limits on and becomes
the command. Invariants: the limits hold before the command's first instruction; the child is a supervised tree
(`adapters/processes.py`), so it ends with its owner, and leaving `run` in any way leaves nothing of it alive; what it
writes is read to the end and kept up to a limit. Its environment holds nothing of ours.

Left out: the network and the file system, which the child sees as its owner does; work that has a lease, whose children
`Work.spawn` starts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": os.defpath, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
"""All that children get: each further arena of glibc's is 64 MB of address space, which the limit counts."""

MAX_OPEN_FILES: Final = 64
_KINDS: Final = {
    "memory": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "file": resource.RLIMIT_FSIZE,
    "files": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
}
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended: exactly one of `exit_code` and `signal` is set, and `output` is what it wrote to stdout.

    `is_late` says that its time was over, `is_cut` that it wrote more than it may: it was killed for either. `errors`
    is the end of what it wrote to stderr, for logs only.
    """

    exit_code: int | None
    signal: int | None
    output: bytes
    errors: bytes = b""
    is_late: bool = False
    is_cut: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it ended by itself, with code 0 and all of its output here."""
        return self.exit_code == 0 and not self.is_late and not self.is_cut


async def run(
    argv: Sequence[str],
    *,
    memory_bytes: int,
    cpu_seconds: int,
    wall_seconds: float,
    max_output_bytes: int,
    stdin: bytes = b"",
    file_bytes: int = 0,
    cwd: str | Path = "/",
    environment: Mapping[str, str] = ENVIRONMENT,
) -> ChildEnd:
    """Run a command to its end, or kill it at the end of its time; `file_bytes` is the largest file it may write.

    `memory_bytes` is address space, of which libraries take some hundred megabytes before they do anything. Raises
    `adapters.processes.CannotStart` and `TreeStillAlive`.
    """
    import asyncio
    import time

    from adapters.processes import spawn

    limits = {
        "memory": memory_bytes,
        "cpu": cpu_seconds,
        "file": file_bytes,
        "files": MAX_OPEN_FILES,
        "core": 0,
    }
    command = [sys.executable, "-I", "-S", __file__, json.dumps(limits), *argv]
    deadline = time.monotonic() + wall_seconds
    async with spawn(command, env=environment, cwd=cwd, deadline=deadline + 1.0) as tree:
        output = asyncio.create_task(_read(tree.stdout, max_output_bytes), name="child-output")
        errors = asyncio.create_task(_read_tail(tree.stderr), name="child-errors")
        feeding = asyncio.create_task(_feed(tree.stdin, stdin), name="child-input")
        is_late = False
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + wall_seconds):
                written, is_cut = await output
                end = await tree.kill() if is_cut else await tree.wait()
        except TimeoutError:
            is_late, is_cut, written = True, False, b""
            end = await tree.kill()
        finally:
            for task in (output, errors, feeding):
                task.cancel()
            _, told, _ = await asyncio.gather(output, errors, feeding, return_exceptions=True)
    return ChildEnd(
        exit_code=end.exit_code,
        signal=end.signal,
        output=written,
        errors=told if isinstance(told, bytes) else b"",
        is_late=is_late,
        is_cut=is_cut,
    )


async def _read(reader: asyncio.StreamReader, limit: int) -> tuple[bytes, bool]:
    """What a child writes, and whether it is more than the limit, which ends the reading."""
    held = bytearray()
    while chunk := await reader.read(_READ_BYTES):
        held += chunk
        if len(held) > limit:
            return b"", True
    return bytes(held), False


async def _read_tail(reader: asyncio.StreamReader) -> bytes:
    import asyncio

    tail = b""
    try:
        while chunk := await reader.read(_READ_BYTES):
            tail = (tail + chunk)[-2_048:]
    except asyncio.CancelledError:
        pass  # the child is gone, and nobody needs the rest
    return tail


async def _feed(writer: asyncio.StreamWriter, content: bytes) -> None:
    try:
        writer.write(content)
        await writer.drain()
        writer.close()
    except (BrokenPipeError, ConnectionResetError):
        return  # it ended before it had read all; its end says why


def become(limits: Mapping[str, int], argv: Sequence[str]) -> None:
    """Take the limits on, none of them wider than what we have, and become the command."""
    for name, value in limits.items():
        ceiling = resource.getrlimit(_KINDS[name])[1]
        bounded = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        # The kernel sends SIGXCPU at the soft limit and kills at the hard one.
        resource.setrlimit(_KINDS[name], (bounded, bounded))
    os.execv(argv[0], list(argv))  # noqa: S606 - starting the owner's command is the purpose


if __name__ == "__main__":
    become(json.loads(sys.argv[1]), sys.argv[2:])
