"""What counting costs: `{ me { id } }` of somebody signed in, with counters and without, and one scrape.

The two APIs are processes of their own on one database, take the same load in turn, and are compared by their CPU time
per request: the middle of the ratios of many short rounds, which a busy machine disturbs least.
"""

from __future__ import annotations

import statistics
import time

import httpx

from tests.bench.limits import load
from tests.bench.place import place
from tests.harness.processes import Api

ROUNDS = 11
SCRAPES = 20


async def main() -> None:
    """Print CPU per request of both, the ratio, and the time of a scrape."""
    async with place() as here:
        bare = Api(
            ["-m", "tests.bench.uncounted"],
            environment={**here.environment, "BASE_URL": here.api.url},
            log=here.folder / "uncounted.log",
        )
        here.programs.append(bare)
        await bare.ready()
        counted: list[float] = []
        uncounted: list[float] = []
        for number in range(ROUNDS):
            # In turn first and second, so that what grows or falls meanwhile favours neither.
            for is_counted in (True, False) if number % 2 else (False, True):
                _, cpu = await load(here.api if is_counted else bare, here.person.token)
                (counted if is_counted else uncounted).append(cpu)
        ratio = statistics.median(one / other for one, other in zip(counted, uncounted, strict=True))
        print(f"counted {statistics.median(counted) * 1e6:.0f} µs of CPU per request")
        print(f"not counted {statistics.median(uncounted) * 1e6:.0f} µs of CPU per request")
        print(f"ratio to not counted: CPU {ratio:.3f}")
        async with httpx.AsyncClient(trust_env=False) as client:
            started = time.perf_counter()
            for _ in range(SCRAPES):
                answer = await client.get(f"{here.api.url}/metrics")
            seconds = (time.perf_counter() - started) / SCRAPES
        print(f"a scrape: {seconds * 1e3:.1f} ms, {len(answer.content) / 1024:.0f} KiB")
