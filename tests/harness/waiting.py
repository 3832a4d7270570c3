"""Waiting for a condition: the only form of waiting that tests use."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, overload

POLL_SECONDS = 0.02

Found = TypeVar("Found")


@overload
async def eventually(
    check: Callable[[], Awaitable[Found | None]], timeout_seconds: float = ..., *, what: str | None = ...
) -> Found: ...


@overload
async def eventually(
    check: Callable[[], Found | None], timeout_seconds: float = ..., *, what: str | None = ...
) -> Found: ...


async def eventually(check: Callable[[], Any], timeout_seconds: float = 5.0, *, what: str | None = None) -> Any:
    """Call `check` until its answer is true and return that; AssertionError with the last answer past the deadline."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while True:
        answer = check()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what or check} not within {timeout_seconds:g} s; last answer: {found!r}")
        await asyncio.sleep(POLL_SECONDS)


def leftover_processes(marker: str) -> dict[int, str]:
    """Living processes whose command line or environment contains `marker`, by id; not this one, no zombies."""
    found = {}
    needle = marker.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue  # it ended while we looked, or belongs to somebody else
        if state != b"Z" and (needle in command or needle in environment):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found
