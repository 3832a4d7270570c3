"""The unit of work: one transaction, and effects that leave only once it is committed.

Effects (ring, publish, mail) are collected inside and dropped on rollback. Nested units join the outer one.
An effect that fails is logged and not raised: the data is safe, and the sweeper repairs what a lost effect
would have started.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import structlog
from tortoise.transactions import in_transaction

from models.database import gate, in_unit_of_work

Effect = Callable[[], Awaitable[object]]

EFFECT_TIMEOUT_SECONDS = 2.0
_effects: ContextVar[list[Effect] | None] = ContextVar("effects", default=None)
_log = structlog.get_logger("switchyard.transaction")


@asynccontextmanager
async def unit_of_work() -> AsyncIterator[None]:
    """Everything inside happens or nothing does; collected effects follow after the commit."""
    if _effects.get() is not None:
        yield
        return
    effects: list[Effect] = []
    effects_token = _effects.set(effects)
    try:
        async with gate():
            marker = in_unit_of_work.set(True)
            try:
                async with in_transaction("default"):
                    yield
            finally:
                in_unit_of_work.reset(marker)
    finally:
        _effects.reset(effects_token)
    for effect in effects:
        await _release(effect)


@asynccontextmanager
async def savepoint() -> AsyncIterator[None]:
    """A part of the current unit of work that fails alone: on an error it is undone, effects and all, and raises on.

    Raises LookupError outside of a unit of work.
    """
    effects = _effects.get()
    if effects is None:
        raise LookupError("savepoint needs a unit of work")
    collected = len(effects)
    try:
        async with in_transaction("default"):
            yield
    except BaseException:
        del effects[collected:]
        raise


def after_commit(effect: Effect) -> None:
    """Run `effect` once the current unit of work is committed; raises LookupError outside of one."""
    effects = _effects.get()
    if effects is None:
        raise LookupError("after_commit needs a unit of work")
    effects.append(effect)


async def _release(effect: Effect) -> None:
    try:
        async with asyncio.timeout(EFFECT_TIMEOUT_SECONDS):
            await effect()
    except Exception as error:  # noqa: BLE001 - an edge: a lost effect must not undo committed work
        _log.warning("effect_failed", effect=getattr(effect, "__qualname__", repr(effect)), error=repr(error))
