"""Containers of builds by name and label: ending them for certain, and reading what their commands came to.

Invariant: after `remove` no process of the container is left, or TreeStillAlive was raised.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from adapters.processes import TreeStillAlive
from adapters.sandbox.docker_api import Engine, EngineError, Json, until_gone
from adapters.sandbox.docker_bodies import ATTEMPT_LABEL

REMOVE_SECONDS: Final = 20.0
LOOKS: Final = 5
PAUSE_SECONDS: Final = 0.1


def container_name(build_id: str) -> str:
    """The name of a build's container; raises ValueError for an id that is no part of a name."""
    if not build_id or not all(sign.isascii() and (sign.isalnum() or sign in "_.-") for sign in build_id):
        raise ValueError(f"{build_id!r} cannot be part of a container's name")
    return f"switchyard-build-{build_id}"


async def kill(engine: Engine, container: str) -> None:
    """End every process of a container; not running, or gone, is fine."""
    try:
        await engine.post(f"/containers/{container}/kill")
    except EngineError as error:
        if error.status not in (404, 409):
            raise


async def remove(engine: Engine, container: str) -> None:
    """Kill and remove a container with its volumes; none is fine. Raises TreeStillAlive when that is not certain."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            try:
                await engine.delete(f"/containers/{container}", force="1", v="1")
            except EngineError as error:
                if error.status == 404:
                    return
                if error.status != 409:  # somebody removes it already
                    raise
                await until_gone(engine, container, timeout_seconds=REMOVE_SECONDS)
            return
        except EngineError as error:
            if time.monotonic() > deadline:
                raise TreeStillAlive(f"the container {container} may still run: {error}") from error
            await asyncio.sleep(0.5)


async def remove_attempt(engine: Engine, name: str, attempt: str) -> None:
    """Remove the container of this name if this attempt made it: the answer that names it may have been lost."""
    try:
        found = await engine.get(f"/containers/{name}/json")
    except EngineError:
        return  # never started, so nothing runs; `reap` finds what is left
    if ((found.get("Config") or {}).get("Labels") or {}).get(ATTEMPT_LABEL) == attempt:
        await remove(engine, text_of(found, "Id"))


async def exit_code(engine: Engine, exec_id: str) -> int | None:
    """What a command ended with; None when the engine does not know, as after the end of its container."""
    for _ in range(LOOKS):
        found = await engine.get(f"/exec/{exec_id}/json")
        if not found.get("Running") and found.get("ExitCode") is not None:
            return int(found["ExitCode"])
        await asyncio.sleep(PAUSE_SECONDS)  # its output ends a little before it does
    return None


def text_of(found: Json, key: str) -> str:
    """A text of an answer; raises EngineError when there is none."""
    value = found.get(key)
    if not isinstance(value, str) or not value:
        raise EngineError(f"an answer of the Docker Engine lacks {key}")
    return value
