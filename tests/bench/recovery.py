"""How long from kill -9 of a worker to the next attempt, with production's lease (20 s) and sweep (2 s)."""

from __future__ import annotations

import time

from tests.bench.place import place

ROUNDS = 3


async def main() -> None:
    """Print each time and its ratio to the lease."""
    async with place() as here:
        spare = await here.worker("-m", "tests.bench.kinds")
        times = []
        for _ in range(ROUNDS):
            spare.freeze()  # so that the victim takes the work
            victim = await here.worker("-m", "tests.bench.kinds")
            execution_id = await here.execution("SLEEP")
            await victim.wait_event("execution_started", execution_id=str(execution_id))
            victim.kill()
            killed = time.monotonic()
            spare.thaw()
            await here.final(execution_id)
            times.append(time.monotonic() - killed)
            print(f"kill -9 to the end of the next attempt: {times[-1]:.1f} s, {times[-1] / 20:.2f} of the lease")
            await victim.wait_exit()
            here.programs.remove(victim)
        print(f"median {sorted(times)[len(times) // 2]:.1f} s")
