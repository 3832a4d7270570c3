"""How long from asking to starting, with the doorbell and, as the baseline, without it (workers look by themselves)."""

from __future__ import annotations

import asyncio

import settings
from tasks import queue
from tests.bench.place import Place, percentile, place

ROUNDS = 200
ROUNDS_WITHOUT_BELL = 40


async def main() -> None:
    """Print p50 and p95 in milliseconds, and the ratio to the baseline."""
    async with place() as here:
        await here.worker("-m", "tests.bench.kinds")
        loaded = settings.Settings.model_validate({name.lower(): value for name, value in here.environment.items()})
        async with queue.connected(loaded):
            await _measure(here, 10, ring=True)
            rung = await _measure(here, ROUNDS, ring=True)
            silent = await _measure(here, ROUNDS_WITHOUT_BELL, ring=False)
    for name, values in (("doorbell", rung), ("no doorbell", silent)):
        p50, p95 = percentile(values, 0.5) * 1000, percentile(values, 0.95) * 1000
        print(f"enqueue to start, {name:12} p50 {p50:7.1f} ms  p95 {p95:7.1f} ms  (n={len(values)})")
    print(f"ratio to no doorbell: p50 {percentile(rung, 0.5) / percentile(silent, 0.5):.3f}")


async def _measure(here: Place, rounds: int, *, ring: bool) -> list[float]:
    waits = []
    for number in range(rounds):
        execution_id = await here.execution("QUICK")
        if ring:
            await queue.ring("QUICK", execution_id)
        row = await here.final(execution_id)
        waits.append((row["started_at"] - row["queued_at"]).total_seconds())
        await asyncio.sleep(0.01 * (number % 7))  # so that rounds do not fall in step with the polls
    return waits
