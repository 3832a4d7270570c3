"""A list of 50 runs with tool and requester, against a bare Starlette route that returns the same JSON from one SQL.

Both are served by uvicorn in a process of their own, take the same load in turn, and are compared by requests per
second and by the CPU time of the serving process, which load elsewhere does not move.
"""

from __future__ import annotations

import asyncio
import json
import time

import psutil

from tests.bench.place import place
from tests.harness.processes import Api

RUNS = 50
REQUESTS = 600
CONNECTIONS = 4
ROUNDS = 3
DOCUMENT = """{ jobRuns(first: 50) { edges { node { id status progress attempt queuedAt startedAt finishedAt
    itemsScraped pagesCrawled closeReason tool { id slug name } requestedBy { id username name } } } } }"""


async def main() -> None:
    """Print requests per second and CPU per request of both, and the ratios."""
    async with place() as here:
        for _ in range(RUNS):
            execution_id = await here.execution("CRAWL")  # and no worker
            await here.job_run_row(execution_id)
        body = json.dumps({"query": DOCUMENT}).encode()
        expected = (await here.client.run(DOCUMENT, token=here.person.token))["jobRuns"]["edges"]
        assert len(expected) == RUNS
        bare = Api(
            ["-m", "tests.bench.bare"],
            environment={**here.environment, "BARE_OWNER": str(here.owner_id)},
            log=here.folder / "bare.log",
        )
        here.programs.append(bare)
        await bare.ready()
        results: dict[str, list[tuple[float, float]]] = {"switchyard": [], "bare": []}
        for _ in range(ROUNDS):
            for name, server in (("switchyard", here.api), ("bare", bare)):
                results[name].append(await _load(server, body, here.person.token))
    middle = {name: sorted(rounds)[ROUNDS // 2] for name, rounds in results.items()}
    for name, (rate, cpu) in middle.items():
        print(f"{name:11} {rate:8.0f} requests/s  {cpu * 1e6:8.0f} µs of CPU per request")
    (rate, cpu), (bare_rate, bare_cpu) = middle["switchyard"], middle["bare"]
    print(f"ratio to bare: requests/s {rate / bare_rate:.2f}, CPU {cpu / bare_cpu:.2f}")


async def _load(server: Api, body: bytes, token: str) -> tuple[float, float]:
    process = psutil.Process(server.pid)
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
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
