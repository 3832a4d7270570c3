"""Ending background tasks for certain, and naming what ended a group of them.

On Python 3.11 `asyncio.wait_for` can swallow a cancellation that arrives in the tick in which its inner wait
ends, and redis-py uses it for each command. A task that talks to Redis is therefore cancelled again until it ends.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.5


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until all are done. What they raised stays with them, for whoever awaits them."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error of a group: what went wrong before all else was called off."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
