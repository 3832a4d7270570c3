"""What every worker offers to do now and then: of each tick, one of them does the work.

Work that fails is logged and comes again with the next tick; an outage of the database costs ticks, never the worker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import structlog

from errors import SwitchyardError
from models import ticks
from models.database import is_outage

LOOKS_PER_PERIOD: Final = 4

_log = structlog.get_logger("switchyard.periodic")


async def every(
    period_seconds: float,
    name: str,
    pool: asyncpg.Pool,
    work: Callable[[], Awaitable[object]],
    *,
    missed: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Do the work of each tick that this process is the first to take, until cancelled.

    `missed` is done at each look at which the database did not answer.
    """
    while True:
        try:
            async with pool.acquire(timeout=2) as connection:
                is_ours = await ticks.take(connection, name, period_seconds) is not None
            if is_ours:
                await work()
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise
            _log.warning("periodic_work_failed", work=name, error=repr(error))
            if missed is not None and is_outage(error):
                await missed()
        # Workers that started together should not look together.
        await asyncio.sleep(period_seconds / LOOKS_PER_PERIOD * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
