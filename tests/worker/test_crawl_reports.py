"""What runs report beside their items: hosts, items that do not fit, changes, completeness, the pages of a day.

One API, one worker and one shop whose goods change between visits; looked at through GraphQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from models.ids import decode_id
from tests.conftest import Programs, Template
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually
from tests.sites.server import Answer, Asked, SiteServer
from tests.worker.crawl_rows import crawler_of

PAGES_PER_DAY: Final = 1_000
SETTINGS = {
    "CRAWL_START_DELAY_SECONDS": "0.01",
    "CRAWL_TARGET_CONCURRENCY": "8",
    "CRAWL_PAGES_PER_DAY": str(PAGES_PER_DAY),
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_OCR_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "0",
}
END_SECONDS: Final = 60.0
IN_HAND: Final = 8
"""Requests that a crawler has under way at once, as set above."""

CREATE_TOOL = "mutation ($input: CreateToolInput!) { createTool(input: $input) { tool { id } } }"
CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id } run { id } } }"
UPDATE = "mutation ($input: UpdateJobInput!) { updateJob(input: $input) { job { id } } }"
RUN = "mutation ($input: RunJobInput!) { runJob(input: $input) { run { id } } }"
RESUME = "mutation ($input: ResumeJobRunInput!) { resumeJobRun(input: $input) { run { id } } }"
STATUS = "query ($id: ID!) { jobRun(id: $id) { status } }"
DELETE = "mutation ($input: DeleteJobInput!) { deleteJob(input: $input) { deletedId } }"
USAGE = "query { crawlUsage { pagesToday pagesPerDay dayEndsAt running runningLimit waiting } }"
PARTS: Final = (("items", "dataset_id"), ("rejected_items", "dataset_id"), ("run_hosts", "run_id"))
REPORT = """
query ($id: ID!) { jobRun(id: $id) {
  status closeReason attempt itemsScraped itemsRejected itemsUnchanged itemsGone pagesCrawled requestsDropped
  requestsThrottled requestsBlocked requestsDisallowed errorsCount bytesDownloaded
  completeness { expectedItems items percent isIncomplete }
  items(first: 100) { totalCount edges { node { data } } }
  rejectedItems(first: 100) { totalCount edges { node { url data faults { path message value } } } }
  goneItems(first: 100) { totalCount edges { node { url sourceId } } }
  hosts(first: 100) { totalCount edges { node { host requests pages bytes retried throttled failed disallowed blocked
    dropped { offSite depth duplicate notHttp tooLong } } } }
  logs(first: 500) { edges { node { level message } } }
} }
"""


@dataclass
class Shop:
    """A page of links, and a page for each of the goods: number → name, price. Without a name they do not fit."""

    goods: dict[int, tuple[str | None, str]] = field(default_factory=dict)
    awkward: tuple[str, ...] = ()
    busy: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()

    def __call__(self, asked: Asked) -> Answer:
        if asked.target == "/robots.txt":
            return Answer("User-agent: *\nDisallow: /private\n")
        if asked.target == "/":
            links = [*(f"/goods/{number}" for number in self.goods), *self.awkward]
            return Answer("".join(f'<a href="{link}">more</a>' for link in links))
        if asked.target == "/to-metadata":
            return Answer(status=302, headers={"Location": "http://169.254.169.254/latest/"})
        number = int(asked.target.removeprefix("/goods/")) if asked.target.startswith("/goods/") else None
        if number is None or number not in self.goods:
            return Answer(status=404)
        if number in self.broken:
            return Answer(status=500)
        if number in self.busy and not asked.earlier:
            return Answer(status=429, headers={"Retry-After": "0"})
        name, price = self.goods[number]
        heading = "" if name is None else f"<h1>{name}</h1>"
        return Answer(f'{heading}<b class="sku">A-{number}</b><i class="price">{price}</i>')


CONFIG: Final = {
    "detailLinks": {"css": "a"},
    "fields": [
        {"name": "name", "css": "h1", "required": True},
        {"name": "sourceId", "css": ".sku"},
        {"name": "price", "css": ".price", "type": "decimal"},
    ],
}


@pytest_asyncio.fixture(scope="module")
async def tool(client: GraphQLClient, template: Template) -> str:
    admin = await sign_in(client, template.admin_email, template.admin_password)
    fields = {"name": "Shops", "category": "Tests", "spider": "catalogue"}
    tool_id: str = (await client.run(CREATE_TOOL, {"input": fields}, token=admin.token))["createTool"]["tool"]["id"]
    return tool_id


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


class Street:
    """Where the shop is; each test has its own."""

    shop = Shop()

    def __call__(self, asked: Asked) -> Answer:
        return self.shop(asked)


@pytest.fixture(scope="module")
def street() -> Street:
    return Street()


@pytest.fixture(scope="module")
def site(street: Street) -> Iterator[SiteServer]:
    with SiteServer(street) as server:
        yield server


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], site: SiteServer) -> dict[str, str]:
    """The API and the workers may open the site."""
    return {**settings_env, "CRAWL_ALLOWED_HOSTS": site.allowed_host}


@pytest.fixture
def shop(street: Street) -> Shop:
    street.shop = Shop({number: (f"Thing {number}", f"{number}.00") for number in range(1, 11)})
    return street.shop


@pytest_asyncio.fixture
async def worker(programs: Programs) -> AsyncIterator[Program]:
    started = programs.start([CLI, "worker"], kind="worker")
    yield started
    await started.stop()


@dataclass
class Visits:
    """One job of one person."""

    client: GraphQLClient
    person: Person
    job_id: str = ""

    async def create(self, tool: str, site: SiteServer, **more: Any) -> str:
        """Make the job and start its first run."""
        given = {"toolId": tool, "name": "Shop", "startUrls": [f"{site.url}/"], "config": CONFIG, "run": True, **more}
        made = (await self.client.run(CREATE, {"input": given}, token=self.person.token))["createJob"]
        self.job_id = made["job"]["id"]
        run_id: str = made["run"]["id"]
        return run_id

    async def start(self, **limits: int) -> str:
        """Start another run."""
        given = {"jobId": self.job_id, "limits": limits}
        run_id: str = (await self.client.run(RUN, {"input": given}, token=self.person.token))["runJob"]["run"]["id"]
        return run_id

    async def resume(self, run_id: str) -> str:
        """Go on with a run."""
        data = await self.client.run(RESUME, {"input": {"id": run_id}}, token=self.person.token)
        new_id: str = data["resumeJobRun"]["run"]["id"]
        return new_id

    async def report(self, run_id: str) -> dict[str, Any]:
        """All that a run says, once it has ended."""

        async def has_ended() -> bool:
            run = (await self.client.run(STATUS, {"id": run_id}, token=self.person.token))["jobRun"]
            return run["status"] not in ("QUEUED", "RUNNING")

        await eventually(has_ended, END_SECONDS, what="the end of the run")
        run: dict[str, Any] = (await self.client.run(REPORT, {"id": run_id}, token=self.person.token))["jobRun"]
        return run

    async def visit(self, **limits: int) -> dict[str, Any]:
        """Run again, to the end."""
        return await self.report(await self.start(**limits))


def nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    assert connection["totalCount"] == len(connection["edges"])
    return [edge["node"] for edge in connection["edges"]]


async def test_hosts_and_items_that_do_not_fit_are_reported_to_the_last_one(
    client: GraphQLClient, person: Person, tool: str, shop: Shop, site: SiteServer, worker: Program
) -> None:
    shop.goods[3] = (None, "3.00")
    shop.goods[4] = (None, "4.00")
    shop.busy = frozenset({5, 6})
    shop.awkward = (
        *("/goods/1", "/goods/2", "/private/1", "/to-metadata", "/goods/999", "http://elsewhere.test/"),
        *("mailto:a@example.com", f"/goods/{'9' * 3_000}"),
    )
    visits = Visits(client, person)
    before = site.hits.total()
    run = await visits.report(await visits.create(tool, site))
    assert (run["status"], run["closeReason"], run["attempt"]) == ("SUCCEEDED", "FINISHED", 1)
    assert (run["itemsScraped"], run["itemsRejected"], run["pagesCrawled"]) == (8, 2, 11)
    assert sorted(item["data"]["name"] for item in nodes(run["items"])) == sorted(
        f"Thing {number}" for number in (1, 2, 5, 6, 7, 8, 9, 10)
    )
    rejected = sorted(nodes(run["rejectedItems"]), key=lambda item: str(item["url"]))
    assert [item["url"] for item in rejected] == [f"{site.url}/goods/3", f"{site.url}/goods/4"]
    assert rejected[0]["data"] == {"url": f"{site.url}/goods/3", "name": None, "sourceId": "A-3", "price": "3.00"}
    assert rejected[0]["faults"] == [
        {"path": ["name"], "message": 'the value is not of type "string"', "value": "null"}
    ]
    hosts = {each["host"]: each for each in nodes(run["hosts"])}
    here, metadata = hosts["127.0.0.1"], hosts["169.254.169.254"]
    assert here["requests"] == site.hits.total() - before, "robots.txt, retries and redirects are requests too"
    assert (here["pages"], here["throttled"], here["retried"], here["failed"]) == (11, 2, 2, 1)
    assert (here["disallowed"], here["blocked"], metadata["blocked"]) == (1, 0, 1)
    assert here["bytes"] >= run["bytesDownloaded"] > 0
    dropped = {"offSite": 1, "depth": 0, "duplicate": 2, "notHttp": 1, "tooLong": 1}
    assert here["dropped"] == dropped
    assert run["requestsDropped"] == sum(dropped.values())
    assert (run["requestsThrottled"], run["requestsBlocked"], run["requestsDisallowed"]) == (2, 1, 1)
    assert any("rejected" in line["node"]["message"] for line in run["logs"]["edges"])
    assert (run["itemsUnchanged"], run["itemsGone"], run["completeness"]) == (0, None, None)
    depth = await visits.visit(maxDepth=0)
    assert nodes(depth["hosts"])[0]["dropped"]["depth"] == 15, "depth goes before what is known already"
    assert depth["pagesCrawled"] == 1


async def test_only_changes_are_kept_and_what_is_gone_or_missing_is_told(
    client: GraphQLClient,
    person: Person,
    tool: str,
    shop: Shop,
    site: SiteServer,
    worker: Program,
    db: asyncpg.Connection,
) -> None:
    shop.goods[3] = (None, "3.00")
    visits = Visits(client, person)
    first = await visits.report(await visits.create(tool, site, onlyChanges=True))
    assert (first["itemsScraped"], first["itemsUnchanged"], first["itemsRejected"]) == (9, 0, 1)
    second = await visits.visit()
    assert (second["itemsScraped"], second["itemsUnchanged"], second["itemsRejected"]) == (0, 9, 1)
    assert (second["itemsGone"], second["completeness"]) == (0, None), "one run is too little to compare with"

    everything = dict(shop.goods)
    shop.goods[5] = ("Thing 5", "5.50")
    del shop.goods[7]
    shop.goods[11] = ("Thing 11", "11.00")
    third_id = await visits.start()
    third = await visits.report(third_id)
    assert sorted(item["data"]["name"] for item in nodes(third["items"])) == ["Thing 11", "Thing 5"]
    assert (third["itemsScraped"], third["itemsUnchanged"], third["itemsGone"]) == (2, 7, 1)
    assert nodes(third["goneItems"]) == [{"url": f"{site.url}/goods/7", "sourceId": "A-7"}]
    assert third["completeness"] == {"expectedItems": 9, "items": 9, "percent": 100.0, "isIncomplete": False}

    shop.goods = {number: each for number, each in everything.items() if number in (1, 2, 3)}
    fourth = await visits.visit()
    assert fourth["completeness"] == {"expectedItems": 9, "items": 2, "percent": 22.2, "isIncomplete": True}
    assert fourth["itemsGone"] is None, "so few may as well be the crawl's fault"
    warnings = [line["node"]["message"] for line in fourth["logs"]["edges"] if line["node"]["level"] == "WARNING"]
    assert "This run found 2 items; its job usually has about 9." in warnings

    shop.goods = dict(everything)
    shop.broken = frozenset({8})
    fifth = await visits.visit()
    assert fifth["itemsGone"] is None, "a page was lost"
    assert (fifth["itemsScraped"], fifth["itemsUnchanged"]) == (1, 7), "the price of one is as it was at first"
    assert not nodes((await visits.report(third_id))["goneItems"]), "it is back"

    quiet = {"id": visits.job_id, "onlyChanges": False, "alarmPercent": 0}
    await client.run(UPDATE, {"input": quiet}, token=person.token)
    assert await db.fetchval("SELECT count(*) FROM item_versions WHERE job_id = $1", decode_id(visits.job_id)[1]) == 0
    shop.goods, shop.broken = {1: everything[1]}, frozenset()
    last = await visits.visit()
    assert (last["itemsScraped"], last["itemsUnchanged"], last["completeness"]) == (1, 0, None)
    of_job = "SELECT execution_id FROM job_runs WHERE job_id = $1"
    runs = [row["execution_id"] for row in await db.fetch(of_job, decode_id(visits.job_id)[1])]
    await client.run(DELETE, {"input": {"id": visits.job_id}}, token=person.token)
    left = [
        await db.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = ANY($1)", runs) for table, column in PARTS
    ]
    assert left == [0] * len(PARTS)


async def test_killed_crawlers_and_workers_count_nothing_twice(
    client: GraphQLClient,
    person: Person,
    tool: str,
    shop: Shop,
    site: SiteServer,
    programs: Programs,
    db: asyncpg.Connection,
) -> None:
    shop.goods = {number: (None if number % 3 == 0 else f"Thing {number}", "1.00") for number in range(120)}
    visits = Visits(client, person)
    before = site.hits.total()
    first = programs.start([CLI, "worker"], kind="worker")
    site.hold_after(before + 40)
    run_id = await visits.create(tool, site, onlyChanges=True)
    recorded = partial(
        db.fetchval, "SELECT pages_crawled >= $2 FROM job_runs WHERE execution_id = $1", decode_id(run_id)[1]
    )
    await asyncio.to_thread(site.wait_for_hits, before + 41)
    await eventually(partial(recorded, 39), END_SECONDS, what="all but robots.txt recorded")
    (await crawler_of(first)).kill()
    site.hold_after(before + 90)
    await asyncio.to_thread(site.wait_for_hits, before + 91)
    await eventually(partial(recorded, 90 - 2 - IN_HAND), END_SECONDS, what="all that was answered, recorded")
    first.kill()
    site.release()
    second = programs.start([CLI, "worker"], kind="worker")
    run = await visits.report(run_id)
    assert (run["status"], run["itemsScraped"], run["itemsRejected"], run["pagesCrawled"]) == ("SUCCEEDED", 80, 40, 121)
    assert len(nodes(run["rejectedItems"])) == 40
    [host] = nodes(run["hosts"])
    assert host["pages"] == 121
    sent = site.hits.total() - before
    assert sent - 2 * IN_HAND - 4 <= host["requests"] <= sent, "what was in hand at a kill is not counted"
    again = await visits.visit()
    assert (again["itemsScraped"], again["itemsUnchanged"], again["itemsRejected"], again["itemsGone"]) == (
        0,
        80,
        40,
        0,
    )
    today = await db.fetchval("SELECT pages FROM crawl_days WHERE owner_id = $1", decode_id(person.id)[1])
    assert today == 242
    await second.stop()


async def test_a_day_has_so_many_pages_and_a_run_goes_on_the_next_day(
    client: GraphQLClient,
    person: Person,
    tool: str,
    shop: Shop,
    site: SiteServer,
    worker: Program,
    db: asyncpg.Connection,
) -> None:
    owner = decode_id(person.id)[1]
    shop.goods = {number: (f"Thing {number}", "1.00") for number in range(30)}
    await db.execute(
        "INSERT INTO crawl_days (owner_id, day, pages) VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2)",
        owner,
        PAGES_PER_DAY - 12,
    )
    visits = Visits(client, person)
    run_id = await visits.create(tool, site)
    run = await visits.report(run_id)
    assert (run["status"], run["closeReason"], run["pagesCrawled"]) == ("SUCCEEDED", "DAILY_PAGE_LIMIT", 12)
    usage = (await client.run(USAGE, token=person.token))["crawlUsage"]
    assert (usage["pagesToday"], usage["pagesPerDay"]) == (PAGES_PER_DAY, PAGES_PER_DAY)
    assert (usage["running"], usage["waiting"]) == (0, 0)
    queued = await db.fetchval("SELECT count(*) FROM executions")
    for attempt in (visits.start(), visits.resume(run_id)):
        with pytest.raises(GraphQLFailure) as caught:
            await attempt
        assert caught.value.extensions["code"] == "RATE_LIMIT_EXCEEDED"
        assert 0 < caught.value.extensions["retryAfterSeconds"] <= 86_400
    assert await db.fetchval("SELECT count(*) FROM executions") == queued
    await db.execute("UPDATE crawl_days SET day = day - 1 WHERE owner_id = $1", owner)
    rest = await visits.report(await visits.resume(run_id))
    assert (rest["closeReason"], rest["pagesCrawled"], rest["itemsScraped"]) == ("FINISHED", 31, 30)
    assert nodes(rest["hosts"])[0]["pages"] == 31, "a run that goes on begins with the ledger it goes on from"
