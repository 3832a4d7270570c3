"""The arq side of a worker: one arq worker per kind, which hears the doorbell and wakes the engine.

The arq job ends at once; the execution runs in the engine. So arq's own time limits, retries and in-progress
keys never matter, and a Redis that goes away or comes back empty cannot disturb what runs. A worker without a
free slot leaves the ring for others.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import structlog
from arq.worker import Worker, func
from redis.exceptions import RedisError

from adapters.cancellation import end
from settings import Settings
from tasks.executions import Engine
from tasks.queue import RING, close, open_arq, queue_name

POLL_SECONDS: Final = 0.05
_RESTART_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 86_400
_log = structlog.get_logger("switchyard.doorman")


async def answer(settings: Settings, engine: Engine, kind: str) -> None:
    """Hear the rings of a kind until cancelled; starts arq again whenever Redis drops it."""
    while True:
        try:
            await _listen(settings, engine, kind)
        except (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            _log.warning("doorbell_away", kind=kind, error=repr(error))
        await asyncio.sleep(_RESTART_SECONDS)


async def _listen(settings: Settings, engine: Engine, kind: str) -> None:
    async def ring(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
        engine.wake(kind)

    redis = open_arq(settings)
    worker = Worker(
        functions=[func(ring, name=RING, max_tries=1, keep_result=0)],
        queue_name=queue_name(settings.redis_namespace, kind),
        redis_pool=redis,
        handle_signals=False,
        poll_delay=POLL_SECONDS,
        max_jobs=20,
        job_timeout=10,
        keep_result=0,
        max_tries=1,
        retry_jobs=False,
        queue_read_limit=1000,
        health_check_interval=_QUIET_SECONDS,
        job_serializer=redis.job_serializer,
        job_deserializer=redis.job_deserializer,
    )
    watch = asyncio.create_task(_leave_rings_to_others(worker, engine, kind), name=f"doorman-{kind}")
    try:
        await worker.main()
    finally:
        await end(watch)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await close(redis)


async def _leave_rings_to_others(worker: Worker, engine: Engine, kind: str) -> None:
    """arq takes no job while this is false; the engine looks for work by itself when a slot gets free."""
    while True:
        worker.allow_pick_jobs = engine.free_slots(kind) > 0
        await asyncio.sleep(POLL_SECONDS)
