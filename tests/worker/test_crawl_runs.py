"""Crawls as users run them: real workers, crawlers and sites, and exact counts whatever happens on the way."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import psutil
import pytest
import pytest_asyncio
from openpyxl import load_workbook

from models.executions import Claim
from models.ids import new_id
from models.leases import LeaseLost
from models.logs import NewLine
from resolvers import runs
from tasks.crawl.crawl import Crawl, Progress
from tasks.crawl.frontier import MAX_STARTS, Size
from tasks.crawl.kind import KIND
from tasks.crawl.plan import Plan
from tasks.log_writer import LogWriter
from tasks.work import FencedWrite, Work
from tests.conftest import Programs, WorkerFactory
from tests.harness.processes import CLI
from tests.harness.waiting import eventually
from tests.sites import sacramento
from tests.sites.sacramento import SacramentoSite
from tests.sites.server import Answer, Asked, SiteServer
from tests.worker.crawl_rows import (
    Crawls,
    catalogue_input,
    crawler_of,
    crawlers_of,
    listings_input,
    living,
    new_crawls,
    open_crawls,
    settings_of,
    tree_of,
)
from tests.worker.engine import CuttingProxy

SETTINGS = {
    "CRAWL_START_DELAY_SECONDS": "0.01",
    "CRAWL_TARGET_CONCURRENCY": "8",
    "WORKER_CRAWL_SLOTS": "8",
    "MAX_RUNNING_PER_USER": "8",
}
LEASE_SECONDS = 6.0  # as in tests/conftest.py
CANCEL_SECONDS = 5.0
HAND_BACK_SECONDS = 3.0


@pytest_asyncio.fixture(scope="module")
async def pool(settings_env: dict[str, str]) -> AsyncIterator[asyncpg.Pool]:
    async with open_crawls(settings_env) as pool:
        yield pool


@pytest_asyncio.fixture
async def crawls(pool: asyncpg.Pool) -> Crawls:
    return await new_crawls(pool)


@pytest.fixture
def full_site() -> Iterator[SiteServer]:
    with SiteServer(SacramentoSite()) as server:
        yield server


@pytest.fixture
def site() -> Iterator[SiteServer]:
    """The first two hundred homes, on ten list pages."""
    with SiteServer(SacramentoSite(count=200)) as server:
        yield server


def by_number(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: int(item["sourceId"].removeprefix("SAC-")))


async def until_hits(site: SiteServer, count: int) -> None:
    await asyncio.to_thread(site.wait_for_hits, count, timeout_seconds=30)


async def check_complete(crawls: Crawls, run: UUID, site: SiteServer, row: asyncpg.Record, *, homes: int) -> None:
    """Everything came home once, and what could not is counted and listed."""
    expected = SacramentoSite(count=homes)
    assert (row["status"], row["close_reason"], row["progress"]) == ("SUCCEEDED", "FINISHED", 100)
    assert by_number(await crawls.items(run)) == expected.expected(site.url)
    assert await crawls.failed(run, site) == {
        sacramento.ROBOTS: "ROBOTS",
        sacramento.METADATA: "BLOCKED_URL",
        sacramento.LOOP: "REDIRECTS",
        sacramento.GONE: "HTTP_STATUS",
    }
    assert site.hits[sacramento.ROBOTS] == 0
    pages = expected.list_pages + homes + 1  # one redirects to a listing
    assert await crawls.states(run) == {"DONE": pages, "FAILED": 4}
    counted = ("items_scraped", "pages_crawled", "requests_blocked", "requests_robots", "errors_count")
    assert [row[name] for name in counted] == [homes, pages, 1, 1, 2]
    assert row["bytes_downloaded"] > 1_000 * homes
    assert 500 < row["cpu_milliseconds"] < 600_000
    assert 30 * 2**20 < row["peak_memory_bytes"] < 2**30


# -- all of it


@pytest.mark.slow
async def test_every_listing_comes_home_field_by_field_and_what_did_not_is_counted(
    crawls: Crawls, worker_factory: WorkerFactory, full_site: SiteServer, settings_env: dict[str, str]
) -> None:
    full_site.hold_after(300)
    worker = worker_factory(CRAWL_ALLOWED_HOSTS=full_site.allowed_host)
    run = await crawls.start(listings_input(full_site))
    await until_hits(full_site, 301)
    tree = tree_of(worker)
    check_knows_nothing(await crawler_of(worker), tree, full_site, settings_env)
    full_site.release()
    row = await crawls.ended(run)
    await check_complete(crawls, run, full_site, row, homes=932)
    assert row["requests_throttled"] == len(sacramento.THROTTLED)
    assert row["attempt"] == 1
    await eventually(lambda: not living(tree), 2, what="the end of the crawler")
    assert not tree_of(worker)
    await check_files(crawls, run, rows=932)


def check_knows_nothing(
    crawler: psutil.Process, tree: list[psutil.Process], site: SiteServer, settings_env: dict[str, str]
) -> None:
    """The crawler and those above it hold no secret and no way to PostgreSQL or Redis."""
    assert crawler in tree
    for process in tree:
        environment = process.environ()
        assert not {"DATABASE_URL", "REDIS_URL", "SECRET_KEYS"} & environment.keys()
        text = "\n".join([*process.cmdline(), *environment.values()])
        assert not [name for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEYS") if settings_env[name] in text]
        assert peers_of(process) <= {site.port}
        assert not [each for each in process.net_connections(kind="unix") if str(each.laddr) + str(each.raddr)]
        files = [link.readlink() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert not [file for file in files if str(file).startswith(str(Path(settings_env["DATA_DIR"])))]
    assert peers_of(crawler) == {site.port}


def peers_of(process: psutil.Process) -> set[int]:
    ports = {getattr(each.raddr, "port", 0) for each in process.net_connections(kind="inet")}
    return ports - {0}


@pytest.mark.slow
async def test_four_killed_crawlers_and_a_killed_worker_cost_nothing_and_add_nothing(
    crawls: Crawls, worker_factory: WorkerFactory, full_site: SiteServer
) -> None:
    worker = worker_factory(CRAWL_ALLOWED_HOSTS=full_site.allowed_host)
    run = await crawls.start(listings_input(full_site))
    seen: set[psutil.Process] = set()
    killed: list[psutil.Process] = []

    async def kill_crawler_at(hits: int) -> None:
        """Kill it with pages on their way from the site and others on their way to the worker."""
        full_site.hold_after(hits)
        await until_hits(full_site, hits + 1)
        killed.append(await crawler_of(worker, other_than=killed))
        seen.update(tree_of(worker))
        killed[-1].kill()
        await eventually(lambda: not living(killed), 2)
        full_site.release()

    await kill_crawler_at(3)  # the list page is stored, or is not
    await kill_crawler_at(250)
    await until_hits(full_site, 400)
    seen.update(tree_of(worker))
    worker.kill()
    await eventually(lambda: not living(seen), 3, what="the end of the tree of a killed worker")
    worker = worker_factory(CRAWL_ALLOWED_HOSTS=full_site.allowed_host)
    await crawls.until_attempt(run, 2, within=LEASE_SECONDS + 4)
    at = full_site.hits.total()
    await kill_crawler_at(at + 150)
    await kill_crawler_at(at + 300)
    row = await crawls.ended(run)
    await check_complete(crawls, run, full_site, row, homes=932)
    assert (row["attempt"], row["lost_workers"]) == (2, 1)
    assert row["requests_throttled"] <= len(sacramento.THROTTLED), "what was not reported before a death is not counted"
    lost = [message for message in await crawls.messages(run) if message.startswith("The crawler was lost (signal 9)")]
    assert len(lost) == 4
    await eventually(lambda: not living(seen) and not tree_of(worker), 2, what="the end of all processes")
    await check_files(crawls, run, rows=932)


@pytest.mark.slow
async def test_commits_whose_answer_is_lost_are_not_done_twice_and_lose_no_request(
    crawls: Crawls, worker_factory: WorkerFactory, site: SiteServer, database_url: str
) -> None:
    async with CuttingProxy(database_url) as proxy:
        site.hold_after(30)
        worker = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host, DATABASE_URL=proxy.url)
        run = await crawls.start(listings_input(site))
        for hits in (31, 70, 110):
            await until_hits(site, hits)
            proxy.cut(b"COMMIT\x00", 2)
            site.hold_after(hits + 30)
            site.release()
        row = await crawls.ended(run)
        await worker.stop()
        assert proxy.answers_met == 6
    await check_complete(crawls, run, site, row, homes=200)
    assert row["requests_throttled"] == 2
    assert row["attempt"] == 1


# -- stopped and resumed


@pytest.mark.slow
async def test_a_cancelled_crawl_keeps_what_it_had_and_a_resumed_one_ends_with_all(
    crawls: Crawls, worker_factory: WorkerFactory, site: SiteServer
) -> None:
    worker = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    site.hold_after(90)
    run = await crawls.start(listings_input(site))
    await until_hits(site, 91)
    await crawls.until_items(run, 40)
    tree = tree_of(worker)
    asked_at = time.monotonic()
    await crawls.cancel(run)
    row = await crawls.ended(run, within=CANCEL_SECONDS)
    assert not living(tree), "CANCELLED is written only once the processes are gone"
    assert time.monotonic() - asked_at < CANCEL_SECONDS
    assert (row["status"], row["close_reason"], row["failure_code"]) == ("CANCELLED", "STOPPED_BY_USER", None)
    kept = await crawls.items(run)
    assert 40 <= len(kept) < 200
    assert row["items_scraped"] == len(kept)
    assert "LEASED" not in await crawls.states(run)
    await check_files(crawls, run, rows=len(kept))
    before = await crawls.files(run)

    site.release()
    second = await crawls.resume(run)
    row = await crawls.ended(second)
    await check_complete(crawls, second, site, row, homes=200)
    assert (row["trigger"], row["resumed_from_id"], row["dataset_id"]) == ("RESUME", run, run)
    await check_files(crawls, second, rows=200)
    assert await crawls.files(run) == before
    assert await runs.count_items(run, run) == len(kept)
    assert await runs.count_items(second, run) == 200


async def check_files(crawls: Crawls, run: UUID, *, rows: int) -> None:
    """The files say what the database says, all three of them, and are what their rows say."""
    items = await crawls.items(run)
    assert len(items) == rows
    files = await crawls.files(run)
    assert files.keys() == {"JSONL", "CSV", "XLSX"}
    for row, data in files.values():
        assert (row["size"], row["sha256"], row["row_count"]) == (len(data), hashlib.sha256(data).hexdigest(), rows)
    assert [orjson.loads(line) for line in files["JSONL"][1].splitlines()] == items
    flat = [flattened(item) for item in items]
    text = files["CSV"][1].decode("utf-8-sig")
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [{name: as_csv(value) for name, value in item.items()} for item in flat] == table
    sheet = load_workbook(io.BytesIO(files["XLSX"][1]), read_only=True).active
    header, *cells = sheet.iter_rows(values_only=True)
    assert [dict(zip(header, values, strict=True)) for values in cells] == [
        {name: orjson.dumps(value).decode() if isinstance(value, list) else value for name, value in item.items()}
        for item in flat
    ]


def flattened(item: dict[str, Any]) -> dict[str, Any]:
    address = {f"address.{name}": value for name, value in item["address"].items()}
    return {name: value for name, value in item.items() if name != "address"} | address


def as_csv(value: Any) -> str:
    if isinstance(value, list):
        return orjson.dumps(value).decode()
    return "" if value is None else str(value)


# -- the worker leaves


@pytest.mark.slow
async def test_a_draining_worker_hands_its_crawl_over(
    crawls: Crawls, worker_factory: WorkerFactory, site: SiteServer
) -> None:
    first = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    site.hold_after(90)
    run = await crawls.start(listings_input(site))
    await until_hits(site, 91)
    await crawls.until_items(run, 40)
    tree = tree_of(first)
    told_at = time.monotonic()
    first.terminate()

    async def is_queued() -> bool:
        return bool((await crawls.row(run))["status"] == "QUEUED")

    await eventually(is_queued, HAND_BACK_SECONDS, what="the hand-back")
    assert not living(tree)
    assert await first.wait_exit() == 0
    assert time.monotonic() - told_at < HAND_BACK_SECONDS + 2
    site.release()
    worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    row = await crawls.ended(run)
    await check_complete(crawls, run, site, row, homes=200)
    assert (row["attempt"], row["lost_workers"]) == (2, 0)
    starts = await crawls.db.fetchval("SELECT max(starts) FROM crawl_requests WHERE dataset_id = $1", run)
    assert starts == 1, "a worker that leaves is not the fault of the pages it had in hand"


@pytest.mark.slow
async def test_a_frozen_worker_that_wakes_up_writes_nothing(
    crawls: Crawls, worker_factory: WorkerFactory, site: SiteServer
) -> None:
    first = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    site.hold_after(90)
    run = await crawls.start(listings_input(site))
    await until_hits(site, 91)
    await crawls.until_items(run, 40)
    tree = tree_of(first)
    first.freeze()
    site.release()  # the crawler goes on until its supervisor ends it: its pages wait in the pipe
    await until_hits(site, 100)
    second = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    await crawls.until_attempt(run, 2, within=LEASE_SECONDS + 4)
    assert not living(tree), "the tree of a frozen worker was gone before another one began"
    first.thaw()
    row = await crawls.ended(run)
    await check_complete(crawls, run, site, row, homes=200)
    assert (row["attempt"], row["lost_workers"]) == (2, 1)
    await first.wait_event("lease_lost", execution_id=str(run))
    assert not first.events("execution_crashed")
    assert not second.events("execution_crashed")
    resumed = [message.startswith("Attempt 2 starts") for message in await crawls.messages(run)]
    assert sum(resumed) == 1


class Unrenewed:
    """The engine's side of a worker whose lease nobody renews."""

    def __init__(self, *, is_lost: bool) -> None:
        self.is_lost = is_lost

    def fenced(self, claim: Claim) -> AbstractAsyncContextManager[asyncpg.Connection]:
        raise LeaseLost

    async def persist(self, work: Work, write: FencedWrite) -> None:
        if self.is_lost:
            raise LeaseLost

    async def advance(self, work: Work, progress: int, stage: str | None) -> None:
        pass

    async def append_lines(self, claim: Claim, after_sequence: int, lines: list[NewLine]) -> None:
        pass

    def announce_lines(self, claim: Claim, last_sequence: int) -> None:
        pass


@pytest.mark.parametrize(
    ("lease_seconds", "is_lost"),
    [(60.0, True), (0.7, False), (-1.0, False)],  # a crawler needs a second to load Scrapy
    ids=["told by the database", "ended by the supervisor", "too late to start"],
)
async def test_a_crawl_that_loses_its_lease_says_just_that(
    settings_env: dict[str, str], lease_seconds: float, is_lost: bool
) -> None:
    ledger = Unrenewed(is_lost=is_lost)
    claim = Claim(new_id(), KIND, new_id(), 1, None, 0, 0, 60.0)
    log = LogWriter(ledger, claim, head_bytes=2**20, tail_bytes=2**10)
    now = time.monotonic()
    work = Work(ledger, claim, log, deadline=now + 60, lease_deadline=now + lease_seconds)
    run_input = catalogue_input("http://127.0.0.1:9/")
    plan = Plan(claim.execution_id, claim.execution_id, new_id(), claim.owner_id, "catalogue", run_input)
    progress = Progress(items=0, pages=0, bytes=0, pages_today=0, is_seeded=False, size=Size())
    with pytest.raises(LeaseLost):
        await Crawl(settings_of(settings_env), work, plan, progress).run()


# -- pages that kill


@pytest.mark.slow
async def test_a_page_that_kills_every_crawler_fails_and_its_neighbours_come_home(
    crawls: Crawls, worker_factory: WorkerFactory
) -> None:
    names = [f"/page/{number}" for number in range(30)]
    links = "".join(f'<a href="{name}">page</a>' for name in ("/poison", *names))
    worker_pid = 0

    def deadly(asked: Asked) -> Answer:
        if asked.target == "/poison":
            for crawler in crawlers_of(worker_pid):
                crawler.kill()
            return Answer(status=503)
        if asked.target == "/robots.txt":
            return Answer(status=404)
        return Answer(links if asked.target == "/" else f"<h1>{asked.target}</h1>")

    with SiteServer(deadly) as server:
        worker = worker_factory(CRAWL_ALLOWED_HOSTS=server.allowed_host)
        worker_pid = worker.pid
        run = await crawls.start(catalogue_input(f"{server.url}/", detailLinks={"css": "a"}), spider="catalogue")
        row = await crawls.ended(run)
        assert (row["status"], row["close_reason"]) == ("SUCCEEDED", "FINISHED")
        assert sorted(item["title"] for item in await crawls.items(run)) == sorted(names)
        assert await crawls.failed(run, server) == {"/poison": "INTERNAL"}
        assert row["errors_count"] == 1
        assert server.hits["/poison"] == MAX_STARTS

        first_page_kills = await crawls.start(catalogue_input(f"{server.url}/poison"), spider="catalogue")
        row = await crawls.ended(first_page_kills)
        assert (row["status"], row["failure_code"]) == ("FAILED", "INTERNAL")
        assert f"ended {MAX_STARTS} times" in row["failure_message"]
        assert server.hits["/poison"] == 2 * MAX_STARTS


# -- every other end, side by side on one worker

Ended = dict[str, asyncpg.Record]


@pytest_asyncio.fixture(scope="module")
async def small_site() -> AsyncIterator[SiteServer]:
    with SiteServer(SacramentoSite(count=100)) as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def stuck_site() -> AsyncIterator[SiteServer]:
    with SiteServer(SacramentoSite(count=100)) as server:
        server.hold_after(40)
        yield server


@pytest_asyncio.fixture(scope="module")
async def silent_site() -> AsyncIterator[SiteServer]:
    with SiteServer(SacramentoSite(count=1)) as server:
        server.hold_after(0)
        yield server


class Ends:
    """Runs that end in all ways: what each left, by its name."""

    def __init__(self, crawls: Crawls) -> None:
        self.crawls = crawls
        self.runs: dict[str, list[UUID]] = {}
        self.rows: dict[str, list[asyncpg.Record]] = {}

    async def follow(self, name: str, run: UUID, *resumed_with: dict[str, int]) -> None:
        """Wait for the end of a run, and of those that go on from it with other limits."""
        self.runs[name], self.rows[name] = [run], [await self.crawls.ended(run)]
        for limits in resumed_with:
            self.runs[name].append(await self.crawls.resume(self.runs[name][-1], limits))
            self.rows[name].append(await self.crawls.ended(self.runs[name][-1]))


LISTS = {
    "items": {"css": "li"},
    "nextPage": {"css": "a[rel=next]"},
    "fields": [{"name": "link", "css": "a + a", "attribute": "href", "type": "url"}],
}
"""Twenty items a page, from the list pages alone."""


@pytest_asyncio.fixture(scope="module")
async def ends(
    pool: asyncpg.Pool, programs: Programs, small_site: SiteServer, stuck_site: SiteServer, silent_site: SiteServer
) -> AsyncIterator[Ends]:
    """All of them under way at once, and over."""
    crawls = await new_crawls(pool)
    ends = Ends(crawls)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    lists = catalogue_input(f"{small_site.url}/homes?page=2", **LISTS)
    listings = listings_input(small_site)
    forbidden = [f"http://127.0.0.1:{small_site.port + 1}/", "http://169.254.169.254/latest/", "http://10.0.0.1/"]
    broken_selector = {"startUrls": [small_site.url], "fields": [{"name": "title", "css": "div["}]}

    never_begun = await crawls.start(listings)
    await crawls.cancel(never_begun)
    async with asyncio.TaskGroup() as group:

        def add(name: str, run: UUID, *resumed_with: dict[str, int]) -> None:
            group.create_task(ends.follow(name, run, *resumed_with))

        add(
            "items",
            await crawls.start(lists, spider="catalogue", limits={"maxItems": 33}),
            {"maxItems": 50},
            {"maxItems": 1_000},
        )
        add("pages", await crawls.start(listings, limits={"maxPages": 7}), {"maxPages": 1_000})
        add("time", await crawls.start(listings_input(stuck_site), limits={"timeoutSeconds": 8}))
        add("memory", await crawls.start(listings_input(silent_site), unchecked_limits={"memoryMegabytes": 32}))
        add("blocked", await crawls.start(catalogue_input(*forbidden), spider="catalogue"))
        add("unreachable", await crawls.start(catalogue_input(f"http://{closed}/"), spider="catalogue"))
        add("selector", await crawls.start(broken_selector, spider="catalogue"))
        add("spider", await crawls.start(listings, spider="no_such_spider"))
        add("never begun", never_begun, {})
        worker = programs.start(
            (CLI, "worker"),
            kind="worker",
            CRAWL_ALLOWED_HOSTS=",".join(
                [small_site.allowed_host, stuck_site.allowed_host, silent_site.allowed_host, closed]
            ),
        )
    await worker.stop()  # before other tests of the module queue theirs
    yield ends


async def test_the_item_limit_is_exact_however_often_it_is_raised(ends: Ends, small_site: SiteServer) -> None:
    reasons = [(row["status"], row["close_reason"], row["items_scraped"]) for row in ends.rows["items"]]
    assert reasons == [
        ("SUCCEEDED", "ITEM_LIMIT", 33),
        ("SUCCEEDED", "ITEM_LIMIT", 50),
        ("SUCCEEDED", "FINISHED", 80),
    ]
    items = await ends.crawls.items(ends.runs["items"][-1])
    assert sorted(item["link"] for item in items) == sorted(f"{small_site.url}/homes/{n}" for n in range(21, 101))


async def test_the_page_limit_is_exact_and_a_resumed_run_ends_with_all(ends: Ends, small_site: SiteServer) -> None:
    first, second = ends.rows["pages"]
    assert (first["status"], first["close_reason"], first["pages_crawled"]) == ("SUCCEEDED", "PAGE_LIMIT", 7)
    await check_complete(ends.crawls, ends.runs["pages"][1], small_site, second, homes=100)


async def test_a_crawl_past_its_time_fails_and_keeps_its_files(ends: Ends) -> None:
    [row] = ends.rows["time"]
    assert (row["status"], row["failure_code"], row["close_reason"]) == ("FAILED", "TIMED_OUT", "TIME_LIMIT")
    assert row["failure_retryable"]
    assert 8 <= row["worked_seconds"] < 8 + CANCEL_SECONDS
    assert row["items_scraped"] > 0
    await check_files(ends.crawls, ends.runs["time"][0], rows=row["items_scraped"])


async def test_a_crawler_above_its_memory_ends_the_run(ends: Ends) -> None:
    [row] = ends.rows["memory"]
    assert (row["status"], row["failure_code"], row["close_reason"]) == ("FAILED", "OUT_OF_MEMORY", "MEMORY_LIMIT")
    assert (await ends.crawls.files(ends.runs["memory"][0])).keys() == {"JSONL", "CSV", "XLSX"}


async def test_start_urls_that_are_all_refused_fail_the_run(ends: Ends) -> None:
    [row] = ends.rows["blocked"]
    assert (row["status"], row["failure_code"], row["requests_blocked"]) == ("FAILED", "BLOCKED_URL", 3)
    assert not row["failure_retryable"]


async def test_a_site_that_does_not_answer_fails_the_run(ends: Ends) -> None:
    [row] = ends.rows["unreachable"]
    assert (row["status"], row["failure_code"], row["errors_count"]) == ("FAILED", "SERVICE_UNAVAILABLE", 1)
    assert row["failure_retryable"]


async def test_a_faulty_selector_is_named_with_its_path(ends: Ends) -> None:
    [row] = ends.rows["selector"]
    assert (row["status"], row["failure_code"], row["close_reason"]) == ("FAILED", "START_ERROR", "START_ERROR")
    assert row["failure_message"].endswith("(fields.0.css)")


async def test_a_spider_that_does_not_exist_is_a_start_error(ends: Ends) -> None:
    [row] = ends.rows["spider"]
    assert (row["status"], row["failure_code"], row["close_reason"]) == ("FAILED", "START_ERROR", "START_ERROR")
    assert "no_such_spider" in row["failure_message"]


async def test_a_run_that_was_cancelled_before_it_began_can_be_resumed(ends: Ends, small_site: SiteServer) -> None:
    first, second = ends.rows["never begun"]
    assert (first["status"], first["close_reason"], first["attempt"]) == ("CANCELLED", None, 0)
    await check_complete(ends.crawls, ends.runs["never begun"][1], small_site, second, homes=100)
