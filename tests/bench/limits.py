"""What security costs: `{ me { id } }` of somebody signed in, with limits and without, and without looking at sessions.

Beside it, decisions per second. The three APIs are processes of their own on one database and one Redis, take the same
load in turn, and are compared by requests per second and by their CPU time. Decisions are asked of Redis over one loop
by ten callers at once.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time

import psutil
from redis.asyncio import Redis

from adapters.rate_limits import Charge, Limiter, Policy
from tests.bench.place import place
from tests.harness.processes import CLI, Api

REQUESTS = 2_000
CONNECTIONS = 4
ROUNDS = 5
DECISIONS = 10_000
CALLERS = 10
ENDLESS = 1_000_000


async def main() -> None:
    """Print requests per second and CPU per request of each, the ratios, and decisions per second."""
    async with place() as here:
        limited = Api(
            [CLI, "api"],
            environment={
                **here.environment,
                "RATE_LIMITS": "true",
                "RATE_LIMIT_COST_PER_MINUTE": str(ENDLESS),
                "BASE_URL": here.api.url,
            },
            log=here.folder / "limited.log",
        )
        here.programs.append(limited)
        await limited.ready()
        bare = Api(
            ["-m", "tests.bench.unguarded"],
            environment={**here.environment, "BASE_URL": here.api.url, "BENCH_OWNER": str(here.owner_id)},
            log=here.folder / "bare.log",
        )
        here.programs.append(bare)
        await bare.ready()
        servers = {"neither": bare, "off": here.api, "on": limited}
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, server in servers.items():
                results[name].append(await load(server, here.person.token))
        middle = {name: sorted(rounds)[ROUNDS // 2] for name, rounds in results.items()}
        for name, (rate, cpu) in middle.items():
            print(f"limits {name:7} {rate:7.0f} requests/s  {cpu * 1e6:6.0f} µs of CPU per request")
        rate, cpu = middle["on"]
        for name, without in (("off", "without limits"), ("neither", "without limits and session checks")):
            free_rate, free_cpu = middle[name]
            print(f"ratio to {without}: requests/s {rate / free_rate:.2f}, CPU {cpu / free_cpu:.2f}")
        for buckets in (1, 3):
            per_second = await _decisions(here.environment["REDIS_URL"], buckets)
            print(f"{per_second:.0f} decisions/s about {buckets} bucket(s)")


async def _decisions(redis_url: str, buckets: int) -> float:
    async with Redis.from_url(redis_url) as redis:
        limiter = Limiter(redis, f"bench-{secrets.token_hex(4)}", budget_seconds=10)
        charges = [Charge(Policy(f"bench{number}", ENDLESS, 60), "somebody") for number in range(buckets)]

        async def ask() -> None:
            for _ in range(DECISIONS // CALLERS):
                await limiter.take(charges)

        started = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(CALLERS)))
        return DECISIONS / (time.monotonic() - started)


async def load(server: Api, token: str) -> tuple[float, float]:
    """Ask many times; requests per second, and seconds of CPU per request."""
    process = psutil.Process(server.pid)
    body = json.dumps({"query": "{ me { id } }"}).encode()
    request = (
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    before, started = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.gather(*(_one_connection(server.port, request) for _ in range(CONNECTIONS)))
    seconds = time.monotonic() - started
    return REQUESTS / seconds, (sum(process.cpu_times()[:2]) - before) / REQUESTS


async def _one_connection(port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(REQUESTS // CONNECTIONS):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        assert b"usr_" in await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
