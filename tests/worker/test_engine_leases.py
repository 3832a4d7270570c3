"""Leases of work that writes so much that its row is hardly ever free."""

from __future__ import annotations

import asyncio

import asyncpg

from models.executions import ExecutionStatus
from tests.worker.engine import Bench, bench, benches, hold

__all__ = ["bench", "benches"]

LOCKED_SECONDS = 0.95
FREE_SECONDS = 0.15


async def test_a_row_that_its_own_work_keeps_locked_does_not_lose_its_lease(bench: Bench) -> None:
    await bench.worker(slots=1)
    execution = await bench.queue({"sleep": 9})
    await bench.until(execution, status=ExecutionStatus.RUNNING)
    connection = await asyncpg.connect(bench.settings.database_url.get_secret_value())
    try:
        async with asyncio.timeout(30):
            while (await bench.row(execution))["status"] == "RUNNING":
                async with connection.transaction():
                    await connection.execute("SELECT 1 FROM executions WHERE id = $1 FOR NO KEY UPDATE", execution)
                    await hold(LOCKED_SECONDS)
                await hold(FREE_SECONDS)
    finally:
        await connection.close()
    await bench.verdict(execution, ExecutionStatus.SUCCEEDED)
