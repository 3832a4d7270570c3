"""Memory of crawler and worker along a crawl of a hundred thousand pages that a site makes on the fly.

Prints resident sets at each tenth of the crawl; what matters is that the last ones are like the first. The baseline is
the same crawl at its first tenth.

    python -m tests.bench.crawl_memory [pages]
"""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

import psutil

from tests.bench.crawl_place import LinkedSite, start_crawl
from tests.bench.place import Place, place

TENTHS = 10


def crawler_memory(worker: int) -> float:
    """Megabytes of the crawler; nothing while there is none."""
    for process in psutil.Process(worker).children(recursive=True):
        try:
            command = process.cmdline()
            if "tasks.crawl.crawler" in command and command[-1] == "tasks.crawl.crawler" and "-m" in command:
                found = process.memory_info().rss
                if found > 40 * 2**20:  # its supervisor has the same command line and is small
                    return float(found) / 2**20
        except psutil.NoSuchProcess:
            continue
    return 0.0


async def follow(here: Place, run: UUID, worker: int, site: LinkedSite) -> list[tuple[int, float, float]]:
    """Pages, and megabytes of crawler and worker, at each tenth."""
    found: list[tuple[int, float, float]] = []
    ended = asyncio.create_task(here.final(run, seconds=7_200))
    while not ended.done():
        await asyncio.wait([ended], timeout=0.2)
        if site.served >= site.details * (len(found) + 1) / TENTHS - site.details / TENTHS / 2:
            found.append((site.served, crawler_memory(worker), psutil.Process(worker).memory_info().rss / 2**20))
    row = await ended
    assert row["status"] == "SUCCEEDED", row["failure_message"]
    return found


async def main(details: int = 100_000) -> None:
    """Print the table and the growth."""
    with LinkedSite(details) as site:
        async with place(**site.settings) as here:
            worker = await here.worker()
            run = await start_crawl(here, site)
            found = await follow(here, run, worker.pid, site)
    print(f"{details:,} pages with an item each: {site.pages_per_second():.0f} pages/s")
    print(f"{'pages':>9}  {'crawler MB':>10}  {'worker MB':>9}")
    for pages, crawler, own in found:
        print(f"{pages:9,}  {crawler:10.1f}  {own:9.1f}")
    (_, crawler, own), (_, last_crawler, last_own) = found[0], found[TENTHS - 1]
    print(f"ratio of the last tenth to the first: crawler {last_crawler / crawler:.2f}, worker {last_own / own:.2f}")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
