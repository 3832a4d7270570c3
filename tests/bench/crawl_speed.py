"""Pages per second of a real crawl, next to a plain Scrapy project that writes JSON Lines on the same site.

Both read the same generated site (one list of links to detail pages, one item each) with the same AutoThrottle, delays,
concurrency and robots.txt; each figure is from the first page served to the last. Ours stores every page in PostgreSQL
in the transaction that acknowledges it, checks each item and counts each host; Scrapy appends to a file. Processor time
is that of Scrapy with its start, and of worker and crawler with theirs, without PostgreSQL; it says more than pages per
second where other programs share the machine.

    python -m tests.bench.crawl_speed [pages]
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.crawl_place import LinkedSite, start_crawl
from tests.bench.place import place

PLAIN = """
import scrapy

class Plain(scrapy.Spider):
    name = "plain"
    start_urls = ["{url}/"]
    custom_settings = {{
        "ROBOTSTXT_OBEY": True, "AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 0.01,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": 8.0, "AUTOTHROTTLE_MAX_DELAY": 30.0, "CONCURRENT_REQUESTS": 16,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 8, "DOWNLOAD_DELAY": 0.0, "TELNETCONSOLE_ENABLED": False,
        "LOG_LEVEL": "INFO", "FEEDS": {{"{file}": {{"format": "jsonlines"}}}},
    }}

    def parse(self, response):
        for link in response.css("a.detail::attr(href)").getall():
            yield response.follow(link, self.detail)
        for link in response.css("a[rel=next]::attr(href)").getall():
            yield response.follow(link, self.parse)

    def detail(self, response):
        yield {{"url": response.url, "name": response.css("h1::text").get(),
               "price": response.css(".price::text").get()}}
"""
ROUNDS = 3


def plain(site: LinkedSite, folder: Path) -> tuple[float, float]:
    """Pages per second and milliseconds of processor time per page of the plain project."""
    file = folder / f"{time.monotonic_ns()}.jsonl"
    spider = folder / "plain.py"
    spider.write_text(PLAIN.format(url=site.url, file=file))
    site.forget()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(sys.executable).with_name("scrapy")), "runspider", str(spider)]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.defpath}, cwd=folder)
    assert len(file.read_text().splitlines()) == site.details
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return site.pages_per_second(), spent * 1000 / site.served


def spent_by(worker: int) -> float:
    """Seconds of processor time of a worker and of all its children that have ended."""
    times = psutil.Process(worker).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


async def main(details: int = 1_000) -> None:
    """Print medians and the ratio."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, LinkedSite(details) as site:
        async with place(**site.settings) as here:
            worker = await here.worker()
            for _ in range(ROUNDS):
                theirs.append(await asyncio.to_thread(plain, site, Path(folder)))
                site.forget()
                before = spent_by(worker.pid)
                run = await start_crawl(here, site)
                await here.final(run, seconds=600)
                stored = await here.db.fetchval("SELECT items_scraped FROM job_runs WHERE execution_id = $1", run)
                assert stored == details, stored
                ours.append((site.pages_per_second(), (spent_by(worker.pid) - before) * 1000 / site.served))
    print(f"{details:,} pages with an item each, {ROUNDS} rounds, alternately")
    for column, unit in enumerate(("pages/s", "processor ms/page")):
        a, b = (statistics.median(each[column] for each in rounds) for rounds in (ours, theirs))
        print(f"{unit:18} plain Scrapy {b:7.2f}   Switchyard {a:7.2f}   ratio {a / b:.2f}")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
