"""What a wave of log-ins does to everybody else: sixty at once at the shipped Argon2 parameters.

The same wave against an API whose hash costs next to nothing is the baseline. Meanwhile one client asks
`{ me { id } }` over and over, and the process says how late its loop was at worst. Those whom the full queue turns
away come again, so the rate is that of log-ins that succeeded.
"""

from __future__ import annotations

import asyncio
import json
import time

from tests.bench.place import Place, percentile, place
from tests.factories import LOGIN
from tests.harness.client import GraphQLClient
from tests.harness.processes import CLI, Api

ARRIVING = 60
CALM_SECONDS = 1.0
CHEAP_KIB = 8
COME_AGAIN_SECONDS = 0.1
ME = "{ me { id } }"


async def main() -> None:
    """Print log-ins per second, the loop's worst lag and the latency of others, with hashing and without."""
    async with place(ARGON2_MEMORY_KIB=str(CHEAP_KIB)) as here:
        costly = dict(here.environment)
        del costly["ARGON2_MEMORY_KIB"]
        results = {
            "without hashing": await _wave(here, here.api),
            "as shipped": await _wave(here, await _another(here, costly)),
        }
        for name, (rate, lag, calm, waits, turned_away) in results.items():
            print(f"{name:16} {rate:6.1f} log-ins/s, {turned_away} turned away; loop late by {lag:.1f} ms at worst")
            for when, found in (("in peace", calm), ("meanwhile", waits)):
                middle, most, worst = (1_000 * percentile(found, share) for share in (0.5, 0.95, 1))
                print(f"  {{ me }} {when:9} p50 {middle:.1f} ms, p95 {most:.1f} ms, worst {worst:.1f} ms")
        free, full = results["without hashing"], results["as shipped"]
        print(
            f"ratio as shipped to without: log-ins/s {full[0] / free[0]:.3f}, "
            f"{{ me }} p95 {percentile(full[3], 0.95) / percentile(free[3], 0.95):.2f}"
        )


async def _another(here: Place, environment: dict[str, str]) -> Api:
    api = Api([CLI, "api"], environment={**environment, "BASE_URL": here.api.url}, log=here.folder / "costly.log")
    here.programs.append(api)
    await api.ready()
    return api


async def _wave(here: Place, api: Api) -> tuple[float, float, list[float], list[float], int]:
    """Log-ins per second, worst lag in ms, waits of another client before and meanwhile, times turned away."""
    turned_away = 0
    over = asyncio.Event()
    async with GraphQLClient(api.graphql_url) as client, GraphQLClient(api.graphql_url) as other:

        async def log_in() -> None:
            nonlocal turned_away
            fields = {"identifier": here.person.username, "password": here.person.password}
            while True:
                answer = json.loads((await client.raw(LOGIN, {"input": fields})).content)
                if not answer.get("errors"):
                    return
                assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE", answer
                turned_away += 1
                await asyncio.sleep(COME_AGAIN_SECONDS)

        async def ask(until: asyncio.Event) -> list[float]:
            waits = []
            while not until.is_set():
                started = time.monotonic()
                await other.run(ME, token=here.person.token)
                waits.append(time.monotonic() - started)
            return waits

        await log_in()  # the hash of this process's parameters is stored by the first
        calm_over = asyncio.Event()
        asyncio.get_running_loop().call_later(CALM_SECONDS, calm_over.set)
        calm = await ask(calm_over)
        asking = asyncio.create_task(ask(over))
        started = time.monotonic()
        await asyncio.gather(*(log_in() for _ in range(ARRIVING)))
        seconds = time.monotonic() - started
        over.set()
        waits = await asking
        health = await client.http.get(f"{api.url}/healthz")
        return ARRIVING / seconds, health.json()["loopLagMilliseconds"], calm, waits, turned_away
