"""The heartbeat of a process, API or worker: it says every few seconds that it is there, and how it is.

Invariants: a database that is away costs two lines in the log, one when it goes and one when it is back; a beat never
waits longer than its period; a process that ends in order is gone at once, one that does not is gone three beats later
(`models/processes.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from adapters import machine, metrics
from adapters.cancellation import end
from adapters.machine import MachineMeter, ProcessMeter
from errors import SwitchyardError
from models import processes
from models.database import is_outage
from models.ids import new_id
from models.processes import Identity, ProcessRole
from settings import Settings

LEAVE_SECONDS: Final = 1.0

_log = structlog.get_logger("switchyard.heartbeat")

Slots = Callable[[], dict[str, tuple[int, int]]]
"""Of each kind that is offered, how many places there are and how many are taken."""

meter: MachineMeter | None = None
"""What the process knows of its machine, never older than a beat; for readers to go on from."""


@asynccontextmanager
async def beating(
    settings: Settings, role: ProcessRole, name: str, *, slots: Slots = dict, pool: str = "main"
) -> AsyncIterator[None]:
    """Beat for the life of the process; `pool` is the one of its pools that the sample tells of."""
    global meter
    identity = Identity(new_id(), name, role, machine.HOST[:255], os.getpid(), metrics.VERSION)
    meter = MachineMeter(settings.data_dir)
    task = asyncio.create_task(_beat_for_ever(settings, identity, slots, pool, meter), name="heartbeat")
    try:
        yield
    finally:
        await end(task)
        meter = None
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await processes.leave(identity.id)
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise


async def _beat_for_ever(
    settings: Settings, identity: Identity, slots: Slots, pool: str, machine_meter: MachineMeter
) -> None:
    period = settings.heartbeat_seconds
    loop = asyncio.get_running_loop()
    process_meter = ProcessMeter()
    is_away = False
    while True:
        due = loop.time() + period
        try:
            await asyncio.to_thread(machine_meter.read)
            sample = _sample(process_meter, pool)
            _show_disk(settings)
            kinds = [{"kind": kind, "slots": all_, "busy": busy} for kind, (all_, busy) in sorted(slots().items())]
            async with asyncio.timeout(period):
                await processes.beat(identity, kinds=kinds, sample=sample, period_seconds=period)
            if is_away:
                _log.info("heartbeat_written_again", process=identity.name)
            is_away = False
        except Exception as error:
            if not (is_outage(error) or isinstance(error, SwitchyardError)):
                raise
            if not is_away:
                _log.warning("heartbeat_not_written", process=identity.name, error=repr(error))
            is_away = True
        await asyncio.sleep(max(0.0, due - loop.time()))


def _sample(process_meter: ProcessMeter, pool: str) -> dict[str, Any]:
    counted = metrics.current()
    cpu_percent, resident_bytes = process_meter.read()
    return {
        "cpu_percent": cpu_percent,
        "resident_bytes": resident_bytes,
        "loop_lag_milliseconds": round(metrics.total(counted.loop_lag) * 1_000, 1),
        "pool_open": int(metrics.total(counted.pool, pool=pool, state="open")),
        "pool_in_use": int(metrics.total(counted.pool, pool=pool, state="in_use")),
        "pool_limit": int(metrics.total(counted.pool, pool=pool, state="limit")),
        "pool_waiting": int(metrics.total(counted.pool_waiting, pool=pool)),
        "sockets": int(metrics.total(counted.sockets)),
        "subscriptions": int(metrics.total(counted.subscriptions)),
        "cache_hits": int(metrics.total(counted.cache_lookups, result="hit")),
        "cache_misses": int(metrics.total(counted.cache_lookups, result="miss")),
        "event_losses": int(metrics.total(counted.reconnects)),
    }


def _show_disk(settings: Settings) -> None:
    size, free = machine.disk_of(settings.data_dir)
    metrics.current().disk.labels("total").set(size)
    metrics.current().disk.labels("free").set(free)
