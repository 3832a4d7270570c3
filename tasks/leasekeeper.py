"""The heartbeat of a worker: renews leases and hears requests to stop, on a connection of its own.

One statement renews all leases. A lease that the answer lacks is lost; one whose renewal does not come
through in time is given up a margin before others may take it, counted on this machine's monotonic clock
from the moment the last successful renewal was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
import structlog

from models import leases
from models.database import connect_alone, is_outage
from settings import Settings

if TYPE_CHECKING:
    from tasks.executions import Held

CANCEL_POLL_SECONDS: Final = 1.0
PASSED_OVER_SECONDS: Final = 0.1
"""A row that its own worker was just writing is tried again so soon: a busy one is locked half of the time."""

_log = structlog.get_logger("switchyard.leases")


class Leasekeeper:
    """Keeps the leases of `held` alive."""

    def __init__(self, settings: Settings, held: Mapping[UUID, Held]) -> None:
        self._settings = settings
        self._held = held
        self._connection: asyncpg.Connection | None = None
        self._look = asyncio.Event()
        self._next_renewal = 0.0

    def look_for_cancels(self) -> None:
        """Look now instead of at the next tick."""
        self._look.set()

    async def run(self) -> None:
        """Renew and look until cancelled."""
        tick = min(CANCEL_POLL_SECONDS, self._settings.heartbeat_seconds)
        try:
            while True:
                self._give_up_overdue()
                try:
                    await self._beat()
                except Exception as error:
                    if not is_outage(error):
                        raise
                    _log.warning("heartbeat_failed", error=repr(error))
                    await self._drop_connection()
                self._look.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(tick)):
                        await self._look.wait()
        finally:
            await self._drop_connection()

    def _pause(self, tick: float) -> float:
        return max(0.0, min(tick, self._next_renewal - time.monotonic())) if self._held else tick

    async def _beat(self) -> None:
        if not self._held:
            return
        if self._connection is None:
            self._connection = await connect_alone(
                self._settings, command_timeout_seconds=self._settings.lease_seconds / 5
            )
        now = time.monotonic()
        if now >= self._next_renewal:
            self._next_renewal = now + self._settings.heartbeat_seconds
            await self._renew(self._connection, now)
        else:
            for execution_id in await leases.cancels_among(self._connection, list(self._held)):
                self._request_cancel(execution_id)

    async def _renew(self, connection: asyncpg.Connection, sent_at: float) -> None:
        # What was given up must run out: renewed, it would be kept from others once more for a whole lease.
        asked = {id: held.work.claim.attempt for id, held in self._held.items() if not held.is_lost}
        renewals = await leases.renew(connection, list(asked.items()), lease_seconds=self._settings.lease_seconds)
        if not all(renewal.is_extended for renewal in renewals.values()):
            self._next_renewal = sent_at + PASSED_OVER_SECONDS
        for execution_id, attempt in asked.items():
            held = self._held.get(execution_id)
            if held is None or held.work.claim.attempt != attempt:
                continue
            renewal = renewals.get(execution_id)
            if renewal is None:
                # Final already, when the renewal crossed with the end; else somebody else holds it.
                held.lose()
                continue
            if renewal.is_extended:
                held.work.renew(sent_at + self._settings.lease_margin_seconds)
            if renewal.is_cancel_requested:
                self._request_cancel(execution_id)

    def _request_cancel(self, execution_id: UUID) -> None:
        held = self._held.get(execution_id)
        if held is not None:
            held.work.cancel_requested.set()

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            if now >= held.work.lease_deadline:
                held.lose()

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
