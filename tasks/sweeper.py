"""The sweeper: in every worker, finds what was lost and puts it right.

Expired leases go back to the queue or end; finished logs move to storage. SKIP LOCKED lets all workers sweep at
once, so there is no leader to lose. What fails is tried again at the next round.
"""

from __future__ import annotations

import asyncio
import random

import asyncpg
import structlog

from adapters import events, metrics
from adapters.storage import Storage
from errors import SwitchyardError
from models import leases
from models.database import is_outage
from models.events import ExecutionChanged
from models.executions import ExecutionStatus
from settings import Settings
from tasks import log_compaction, queue

SWEEP_LIMIT = 100
_log = structlog.get_logger("switchyard.sweeper")


async def run(settings: Settings, pool: asyncpg.Pool, storage: Storage) -> None:
    """Sweep every few seconds until cancelled."""
    while True:
        try:
            await _sweep_leases(settings, pool)
            await log_compaction.compact_due(pool, storage)
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise
            _log.warning("sweep_failed", error=repr(error))
        # Workers that started together should not sweep together.
        await asyncio.sleep(settings.sweep_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only


async def _sweep_leases(settings: Settings, pool: asyncpg.Pool) -> None:
    async with pool.acquire(timeout=2) as connection:
        swept = await leases.sweep(
            connection, limit=SWEEP_LIMIT, compact_log_after_seconds=settings.log_compact_after_seconds
        )
    metrics.current().sweeps.inc()
    for lost in swept:
        metrics.current().swept.labels(lost.kind).inc()
        _log.warning("worker_lost", execution_id=str(lost.execution_id), status=lost.status.value)
        await events.publish(ExecutionChanged(lost.execution_id, lost.owner_id))
        if lost.status is ExecutionStatus.QUEUED:
            await queue.ring(lost.kind, lost.execution_id)
