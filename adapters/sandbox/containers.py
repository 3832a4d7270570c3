"""What a build finds in a container, whoever runs it: folders, environment, its user, and what its output becomes.

Invariant: nothing of the worker's own environment is in a phase's; the user is never root. Names and limits of engine
and cluster are theirs (`docker_bodies`, `kubernetes_bodies`).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adapters.sandbox.archives import ArchiveLimits, in_thread, unpack
from adapters.sandbox.contract import BuildSpec, Network, Phase, PhaseEnd, PhaseExit

USER: Final = 1_000
WORKSPACE: Final = "/workspace"
SOURCE: Final = f"{WORKSPACE}/source"
CACHE: Final = f"{WORKSPACE}/cache"
HOME: Final = f"{WORKSPACE}/home"
"""All below one volume: a volume's own folder belongs to root, folders in it can be given to the build. And HOME is not
in memory, where caches of package managers would count as the build's memory."""

TEMPORARY: Final = "/tmp"  # noqa: S108 - inside the container
NO_NETWORK: Final = (
    b"This build has no network: BUILD_PROXY_URL is not set, which tells where `switchyard egress-proxy` is.\n"
)


def environment(phase: Phase, spec: BuildSpec, *, proxy_url: str | None, has_cache: bool) -> dict[str, str]:
    """All variables of a phase but PATH, which is the image's; what the phase gives wins.

    Raises ValueError for a name or a value that no environment can hold.
    """
    variables = {
        "HOME": HOME,
        "USER": "build",
        "SHELL": "/bin/sh",
        "TMPDIR": TEMPORARY,
        "LANG": "C.UTF-8",
        "CI": "1",
        "NODE_OPTIONS": f"--max-old-space-size={max(spec.limits.memory_bytes * 3 // 4 // 2**20, 32)}",
        "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    }
    if has_cache:
        variables |= {
            "XDG_CACHE_HOME": f"{CACHE}/xdg",
            "npm_config_cache": f"{CACHE}/npm",
            "npm_config_store_dir": f"{CACHE}/pnpm",
            "YARN_CACHE_FOLDER": f"{CACHE}/yarn",
            "BUN_INSTALL_CACHE_DIR": f"{CACHE}/bun",
            "COREPACK_HOME": f"{CACHE}/corepack",
            "PIP_CACHE_DIR": f"{CACHE}/pip",
        }
    if proxy_url is not None and phase.network is Network.EGRESS:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            variables |= {name: proxy_url, name.lower(): proxy_url}
        for name in ("npm_config_proxy", "npm_config_https_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"):
            variables[name] = proxy_url
        variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
        variables["NODE_USE_ENV_PROXY"] = "1"  # fetch of Node.js 22.21, 24 and newer
    variables |= phase.environment
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{name!r} is no name, or its value no value, of an environment variable")
    return variables


def working_directory(spec: BuildSpec) -> str:
    """Where commands run, in the container; raises ValueError when it would be outside the source."""
    return _inside(SOURCE, spec.working_directory)


def output_directory(spec: BuildSpec) -> str:
    """What becomes the output, in the container; raises ValueError when it would be outside the source."""
    return _inside(working_directory(spec), spec.output_directory)


async def receive_output(archive: AsyncIterable[bytes], spec: BuildSpec, *, strip: int) -> Path | None:
    """Unpack the output beside the source, None when it is no folder; nothing is left on failure.

    Raises ArchiveRefused, OSError, and whatever the archive raises.
    """
    target = spec.source.with_name(f"{spec.source.name}.output")
    await in_thread(remove_folder, target)  # of an attempt whose connection was cut
    try:
        is_folder = await unpack(archive, target, ArchiveLimits(content_bytes=spec.limits.disk_bytes), strip=strip)
    except BaseException:
        await to_the_end(in_thread(remove_folder, target))
        raise
    return target if is_folder else None


def too_large(exits: list[PhaseExit]) -> list[PhaseExit]:
    """The exits of a build whose output is beyond its limits: the last phase filled the disk."""
    return [*exits[:-1], replace(exits[-1], end=PhaseEnd.DISK_FULL)]


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it, none is fine; links are removed, not followed."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


@asynccontextmanager
async def ending_with(clean_up: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Leave the block only once a bounded clean-up is through, come what may; a cancellation wins over its fault."""
    cancelled: asyncio.CancelledError | None = None
    try:
        yield
    except asyncio.CancelledError as error:
        cancelled = error
        raise
    finally:
        await to_the_end(clean_up(), cancelled=cancelled)


async def to_the_end(work: Coroutine[Any, Any, None], *, cancelled: asyncio.CancelledError | None = None) -> None:
    """Await a bounded clean-up whole; a cancellation, earlier or meanwhile, takes effect after it and wins."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception() or cancelled.__cause__  # it may carry what failed inside
    task.result()


def _inside(folder: str, relative: str) -> str:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise ValueError(f"{relative!r} is no path inside the source")
    return str(PurePosixPath(folder) / path)
