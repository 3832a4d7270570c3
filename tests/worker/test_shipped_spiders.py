"""Directories, sitemaps, articles and a stranger's spider, crawled by a real worker from sites with known truth."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from models.ids import decode_id
from tasks.crawl.spiders import SPIDERS
from tests.conftest import Programs
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.processes import CHECKOUT, CLI
from tests.sites import articles, sitemaps
from tests.sites.articles import ArticleSite
from tests.sites.people import COUNT, STATES, PeopleSite
from tests.sites.server import Answer, Asked, SiteServer
from tests.sites.sitemaps import SitemapSite
from tests.worker.crawl_rows import Crawls, new_crawls, open_crawls
from tests.worker.crawler_driver import Frontier, crawl, crawling, start_message

SETTINGS = {
    "CRAWL_START_DELAY_SECONDS": "0.01",
    "CRAWL_TARGET_CONCURRENCY": "8",
    "WORKER_CRAWL_SLOTS": "4",
    "MAX_RUNNING_PER_USER": "4",
}
PEOPLE = PeopleSite()
CREATE_TOOL = """
mutation Make($input: CreateToolInput!) { createTool(input: $input) { tool { id outputSchema exampleInput } } }
"""


class Sites:
    """All of them on one server, by the first part of the path."""

    def __init__(self) -> None:
        self._articles, self._sitemaps = ArticleSite(), SitemapSite()

    def __call__(self, asked: Asked) -> Answer:
        if asked.target.startswith("/people"):
            return PEOPLE(asked)
        if asked.target.startswith("/articles/"):
            return self._articles(Asked(asked.target.removeprefix("/articles"), asked.earlier, asked.headers))
        return self._sitemaps(asked)


@pytest.fixture(scope="module")
def site() -> Iterator[SiteServer]:
    with SiteServer(Sites()) as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def pool(settings_env: dict[str, str]) -> AsyncIterator[asyncpg.Pool]:
    async with open_crawls(settings_env) as pool:
        yield pool


@pytest_asyncio.fixture
async def crawls(pool: asyncpg.Pool) -> Crawls:
    return await new_crawls(pool)


@pytest.fixture(scope="module", autouse=True)
def packages(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two installed distributions, which all programs of this module have on their path."""
    folder = install_packages(tmp_path_factory.mktemp("packages"))
    programs.environment["PYTHONPATH"] = f"{CHECKOUT}:{folder}"
    return folder


@pytest.fixture(scope="module", autouse=True)
def worker(programs: Programs, packages: Path, site: SiteServer) -> None:
    programs.environment["CRAWL_ALLOWED_HOSTS"] = site.allowed_host
    programs.start((CLI, "worker"), kind="worker")


def valid(spider: str, spider_input: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether the items are what the contract promises for this input."""
    check = Draft202012Validator(dict(SPIDERS[spider].narrow_output(spider_input)))
    assert [error.message for item in items for error in check.iter_errors(item)] == []
    return True


async def crawled(
    crawls: Crawls, spider: str, spider_input: dict[str, Any], **limits: int
) -> tuple[asyncpg.Record, list[dict[str, Any]]]:
    """The ended run of an input, and its items."""
    run = await crawls.start(spider_input, spider=spider, limits=limits)
    row = await crawls.ended(run)
    items = await crawls.items(run)
    assert valid(spider, spider_input, items)
    return row, items


def multiset(items: list[dict[str, Any]], *without: str) -> Counter[str]:
    return Counter(repr(sorted((key, item[key]) for key in item if key not in without)) for item in items)


# -- directories


def directory(site: SiteServer, query: str, **more: Any) -> dict[str, Any]:
    return {
        "urlTemplate": f"{site.url}/people{query}",
        "entries": {"css": "tr.entry"},
        "name": {"css": "a.name"},
        "fields": [
            {"name": "district", "css": "td.district", "regex": "\\d+", "type": "integer"},
            {"name": "profile", "css": "a.name", "attribute": "href", "type": "url"},
        ],
        **more,
    }


async def test_a_directory_of_56_states_comes_home_once_although_its_pages_overlap_and_the_last_repeats(
    crawls: Crawls, site: SiteServer
) -> None:
    given = directory(site, "?state={state}&page={page}", states=list(STATES))
    row, items = await crawled(crawls, "directory_search", given)
    assert (row["status"], row["close_reason"], row["items_scraped"]) == ("SUCCEEDED", "FINISHED", COUNT)
    assert multiset(items, "url") == multiset(PEOPLE.expected(site.url))


async def test_state_and_starting_name_of_a_job_choose_what_is_read(
    crawls: Crawls, client: GraphQLClient, admin: Person, site: SiteServer
) -> None:
    person = await new_user(client)
    given = directory(site, "?state={state}", nextPage={"css": "a.next"})
    given_tool = {"name": "Directories", "category": "tests", "spider": "directory_search"}
    tool = (await client.run(CREATE_TOOL, {"input": given_tool}, token=admin.token))["createTool"]["tool"]
    assert tool["exampleInput"]["urlTemplate"]
    assert "name" in tool["outputSchema"]["required"]
    made = await client.run(
        "mutation Make($input: CreateJobInput!) { createJob(input: $input) { run { id } } }",
        {
            "input": {
                "name": "Wyoming",
                "toolId": tool["id"],
                "run": True,
                "state": "WY",
                "startingName": "ibanez",
                "config": given,
            }
        },
        token=person.token,
    )
    run: UUID = decode_id(made["createJob"]["run"]["id"])[1]
    row = await crawls.ended(run)
    expected = PEOPLE.expected(site.url, states=("WY",), start="ibanez")
    assert 0 < len(expected) < len(PEOPLE.expected(site.url, states=("WY",)))
    assert any(item["name"].startswith("Ibáñez") for item in PEOPLE.expected(site.url, start="ibanez"))
    assert row["status"] == "SUCCEEDED"
    assert multiset(await crawls.items(run), "url") == multiset(expected)


async def test_a_run_that_ended_early_goes_on_from_its_last_name(crawls: Crawls, site: SiteServer) -> None:
    given = directory(site, "?state={state}&from={startingName}", state="WV", nextPage={"css": "a.next"})
    expected = PEOPLE.expected(site.url, states=("WV",))
    row, first = await crawled(crawls, "directory_search", {**given, "startingName": "A"}, maxItems=9)
    assert row["close_reason"] == "ITEM_LIMIT"
    _, second = await crawled(crawls, "directory_search", {**given, "startingName": first[-1]["name"]})
    assert len(first) == 9
    assert multiset([*first[:-1], *second], "url") == multiset(expected)
    assert len(first) + len(second) == len(expected) + 1, "the last name is read again, and nothing before it"


async def test_an_alphabet_is_stepped_through_from_a_name_on(crawls: Crawls, site: SiteServer) -> None:
    letters = [chr(letter) for letter in range(ord("A"), ord("Z") + 1)]
    given = directory(
        site, "?prefix={startingName}", startingNames=letters, startingName="müller, KAI", nextPage={"css": "a.next"}
    )
    before = site.hits
    row, items = await crawled(crawls, "directory_search", given)
    expected = [{**item, "state": None} for item in PEOPLE.expected(site.url, start="muller, kai")]
    assert row["status"] == "SUCCEEDED"
    assert multiset(items, "url") == multiset(expected)
    asked = {target for target, hits in site.hits.items() if hits > before[target]}
    assert "/people?prefix=M" in asked
    assert not {f"/people?prefix={letter}" for letter in letters if letter < "M"} & asked


async def test_a_user_name_is_looked_up_and_pages_of_entries_are_read(crawls: Crawls, site: SiteServer) -> None:
    fields = [{"name": "seat", "css": ".seat", "required": True}]
    one = {
        **directory(site, "/{username}", username="7", fields=fields),
        "entries": {"css": "body"},
        "name": {"css": "h1"},
    }
    several = directory(site, "?state={state}", state="AK", detailLink={"css": "a.name"}, fields=fields)
    (_, found), (_, details) = await asyncio.gather(
        crawled(crawls, "directory_search", one), crawled(crawls, "directory_search", several)
    )
    member = next(each for each in PEOPLE.members if each.number == 7)
    assert [(item["name"], item["seat"], item["state"]) for item in found] == [
        (member.name, f"District {member.district}", None)
    ]
    expected = PEOPLE.expected(site.url, states=("AK",))[:20]
    assert multiset(details) == multiset(
        [
            {"url": item["profile"], "name": item["name"], "state": "AK", "seat": f"District {item['district']}"}
            for item in expected
        ]
    )


# -- sitemaps


async def test_sitemaps_are_found_filtered_and_listed_once_and_enemies_are_told(
    crawls: Crawls, site: SiteServer
) -> None:
    given = {"startUrls": [site.url], "modifiedSince": "2025-01-01", "excludePatterns": ["/pages/11$", "print="]}
    run = await crawls.start(given, spider="sitemap")
    row = await crawls.ended(run)
    items = await crawls.items(run)
    assert valid("sitemap", given, items)
    wanted = {
        number: date
        for number in range(1, sitemaps.PAGES + 1)
        if number != 11 and ((date := sitemaps.changed(number)) is None or date > "2025")
    }
    assert {item["loc"]: item["lastmod"] for item in items} == {
        f"{site.url}/pages/{number}": date for number, date in wanted.items()
    }
    assert len(items) == len(wanted), "pages 25 to 30 are in two sitemaps"
    odd = next(item for item in items if item["loc"].endswith("/13"))
    even = next(item for item in items if item["loc"].endswith("/14"))
    assert (odd["changefreq"], odd["priority"]) == ("weekly", 0.8)
    assert (even["changefreq"], even["priority"]) == (None, None)
    assert row["status"] == "SUCCEEDED"
    assert site.hits["/maps/old.xml"] == 0, "the index says that it is old"
    told = "\n".join(await crawls.messages(run))
    assert "hostile.xml: Sitemaps have no document type declaration" in told
    assert "deep-4.xml: Sitemaps are followed 3 levels deep" not in told
    assert "deep-5.xml is deeper" in told or "deep-4.xml is deeper" in told
    assert "root:" not in told
    assert "aaaaaaaaaa" not in told


async def test_pages_of_a_sitemap_are_read_where_robots_allow_it(crawls: Crawls, site: SiteServer) -> None:
    given = {
        "startUrls": [f"{site.url}/maps/plain.xml"],
        "includePatterns": ["/pages/[0-9]$", "elsewhere"],
        "fields": [{"name": "title", "css": "h1"}, {"name": "price", "css": ".price", "type": "decimal"}],
    }
    row, items = await crawled(crawls, "sitemap", given)
    assert sorted(item["title"] for item in items) == [f"Page {number}" for number in range(1, 10) if number != 7]
    assert {item["price"] for item in items} == {f"{number}.50" for number in range(1, 10) if number != 7}
    assert {item["url"]: item["lastmod"] for item in items}[f"{site.url}/pages/5"] is None
    assert row["requests_robots"] == 1


async def test_a_sitemap_too_long_for_one_message_is_read_in_parts_and_a_killed_crawler_loses_none(
    site: SiteServer,
) -> None:
    given = {"startUrls": [f"{site.url}/maps/large.txt"]}
    frontier = Frontier()
    start = start_message("sitemap", given, allowed=[site.allowed_host])
    async with crawling(start, frontier) as crawler:
        await crawler.run(until=lambda each: each.frontier.pages == 1)
        crawler.signal(signal.SIGKILL)
    last = await crawl(start_message("sitemap", given, allowed=[site.allowed_host], resume=True), frontier)
    assert last.closed is not None
    assert last.closed["reason"] == "FINISHED"
    numbers = {int(item["loc"].rsplit("/", 1)[1]) for item in frontier.items.values()}
    assert numbers == set(range(1, 20_001))
    assert len(frontier.items) == 20_000
    assert frontier.pages == 3


async def test_pages_of_foreign_hosts_are_dropped_and_counted(site: SiteServer) -> None:
    given = {"startUrls": [f"{site.url}/maps/plain.xml"], "includePatterns": ["elsewhere", "/pages/1$"]}
    crawler = await crawl(start_message("sitemap", given, allowed=[site.allowed_host]))
    assert [item["loc"] for item in crawler.frontier.items.values()] == [f"{site.url}/pages/1"]
    assert crawler.hosts["offSite"] == 1


# -- articles


async def test_articles_are_read_as_they_were_written(crawls: Crawls, site: SiteServer) -> None:
    by_links = {"startUrls": [f"{site.url}/articles/list"], "articlePattern": "/articles/.+/|/about$"}
    by_feed = {"sitemaps": [f"{site.url}/articles/feed.xml"]}
    run = await crawls.start(by_links, spider="articles")
    (_, fed), row = await asyncio.gather(crawled(crawls, "articles", by_feed), crawls.ended(run))
    items = await crawls.items(run)
    assert valid("articles", by_links, items)
    found = {item["url"].removeprefix(f"{site.url}/articles"): item for item in items}
    assert set(found) == {page.path for page in articles.PAGES}
    assert await crawls.failed(run, site) == {"/articles/about": "HTTP_STATUS"}
    assert row["errors_count"] == 2
    told = await crawls.messages(run)
    assert any(articles.SHORT in line and "the main text has 15 characters of 250" in line for line in told)
    assert {item["url"] for item in fed} == {f"{site.url}/articles{page.path}" for page in articles.PAGES[:3]}

    missed = Counter[str]()
    for page in articles.PAGES:
        item = found[page.path]
        for field in ("title", "author", "date", "language"):
            missed[field] += item[field] != getattr(page, field)
        missed["text"] += sum(phrase not in item["text"] for phrase in page.must)
        missed["around"] += sum(phrase in item["text"] for phrase in page.must_not)
        assert item["characters"] == len(item["text"])
        if page.site_name:
            assert item["siteName"] == page.site_name
        if page.tags:
            assert item["tags"] == list(page.tags)
        if page.images:
            assert item["images"] == [image if "//" in image else site.url + image for image in page.images]
    # One page is a layout table without a heading: its title keeps the paper's name, its text the menu beside it.
    assert missed == Counter(title=1, around=1)
    assert found["/release/clock"]["canonicalUrl"] == f"{site.url}/press/2026/clock"
    assert found["/graph/ofen"]["dateModified"] == "2025-01-02"


# -- addresses


@pytest.mark.parametrize(
    ("spider", "config", "path"),
    [
        ("articles", {"sitemaps": ["http://a.example/", "http://169.254.169.254/feed"]}, ["sitemaps", 1]),
        ("sitemap", {"startUrls": ["http://10.0.0.1/sitemap.xml"]}, ["startUrls", 0]),
        (
            "directory_search",
            {
                "urlTemplate": "http://[::1]/{state}",
                "state": "CA",
                "entries": {"css": "li"},
                "name": {"css": "b"},
            },
            ["urlTemplate"],
        ),
    ],
)
async def test_no_key_of_an_input_leads_to_an_address_that_is_not_public(
    spider: str, config: dict[str, Any], path: list[str | int], client: GraphQLClient, admin: Person
) -> None:
    given = {"name": "Guarded", "category": "tests", "spider": spider}
    tool = (await client.run(CREATE_TOOL, {"input": given}, token=admin.token))["createTool"]["tool"]
    create = "mutation Make($input: CreateJobInput!) { createJob(input: $input) { job { id } } }"
    job = {"name": "Guarded", "toolId": tool["id"], "config": config}
    with pytest.raises(GraphQLFailure) as refusal:
        await client.run(create, {"input": job}, token=admin.token)
    assert refusal.value.code == "VALIDATION_ERROR"
    assert refusal.value.extensions["details"]["reason"] == "BLOCKED_URL"
    assert refusal.value.extensions["details"]["path"] == ["input", "config", *path]


# -- spiders of other packages


def install_packages(folder: Path) -> Path:
    """Two distributions as an installer leaves them: one that is right, one with every fault there is."""
    (folder / "page_titles.py").write_text(
        dedent(
            """
            from tasks.crawl.contracts import SpiderDefinition

            SCHEMA = {"type": "object", "required": ["startUrls"], "additionalProperties": False,
                      "properties": {"startUrls": {"type": "array", "items": {"type": "string"}}}}
            OUTPUT = {"type": "object", "required": ["url", "title"], "properties": {"title": {"type": "string"}}}

            def spider(name="page_titles", schema=SCHEMA, crawler_class="page_titles_spider:PageTitles"):
                return SpiderDefinition(
                    name=name, title="Titles", description="Reads titles.", input_schema=schema, output_schema=OUTPUT,
                    example_input={"startUrls": ["http://a.example/"]}, narrow_output=lambda given: OUTPUT,
                    crawler_class=crawler_class,
                )

            contract = spider()
            without_class = spider("without_class", crawler_class="page_titles_spider:Nobody")
            bad_schema = spider("bad_schema", schema={"type": "nonsense"})
            catalogue = spider("catalogue")
            number = 7
            """
        )
    )
    (folder / "page_titles_spider.py").write_text(
        dedent(
            """
            from tasks.crawl.crawler.spiders.base import Follow, SessionSpider

            print("a stray line")  # must not meet the protocol

            class PageTitles(SessionSpider):
                name = "page_titles"
                callbacks = frozenset({"read"})

                def seeds(self):
                    return [Follow(url, "read") for url in self.input["startUrls"]]

                def read(self, response):
                    yield {"url": response.url, "title": response.css("h1::text").get()}
            """
        )
    )
    (folder / "leaves_at_once.py").write_text("raise SystemExit(1)\n")
    for name, entries in (
        ("page-titles", ["page_titles = page_titles:contract"]),
        (
            "faulty-spiders",
            [
                "absent = no_such_module:contract",
                "leaves = leaves_at_once:contract",
                "number = page_titles:number",
                "bad_schema = page_titles:bad_schema",
                "catalogue = page_titles:catalogue",
                "without_class = page_titles:without_class",
            ],
        ),
    ):
        information = folder / f"{name.replace('-', '_')}-1.2.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (information / "entry_points.txt").write_text("\n".join(["[switchyard.spiders]", *entries]) + "\n")
    return folder


async def test_an_installed_spider_is_a_spider_from_the_tool_to_the_items(
    client: GraphQLClient, admin: Person, crawls: Crawls, site: SiteServer
) -> None:
    given = {"name": "Titles", "category": "tests", "spider": "page_titles"}
    tool = (await client.run(CREATE_TOOL, {"input": given}, token=admin.token))["createTool"]["tool"]
    assert tool["outputSchema"]["required"] == ["url", "title"]
    create = "mutation Make($input: CreateJobInput!) { createJob(input: $input) { run { id } } }"
    job = {"name": "One page", "toolId": tool["id"], "run": True, "startUrls": [f"{site.url}/pages/3"]}
    made = await client.run(create, {"input": job}, token=admin.token)
    run = decode_id(made["createJob"]["run"]["id"])[1]
    row = await crawls.ended(run)
    assert row["status"] == "SUCCEEDED", await crawls.messages(run)
    assert await crawls.items(run) == [{"url": f"{site.url}/pages/3", "title": "Page 3"}]
    with pytest.raises(GraphQLFailure) as refusal:
        await client.run(create, {"input": {**job, "config": {"more": 1}}}, token=admin.token)
    assert refusal.value.code == "VALIDATION_ERROR"


async def test_a_faulty_installed_spider_costs_nobody_else_and_says_why(
    client: GraphQLClient, admin: Person, crawls: Crawls, packages: Path
) -> None:
    given = {"name": "Faulty", "category": "tests", "spider": "absent"}
    with pytest.raises(GraphQLFailure) as refusal:
        await client.run(CREATE_TOOL, {"input": given}, token=admin.token)
    assert refusal.value.code == "VALIDATION_ERROR"
    spider_input = {"startUrls": ["http://a.example/"]}
    runs = [await crawls.start(spider_input, spider=spider) for spider in ("absent", "without_class")]
    rows = [await crawls.ended(run) for run in runs]
    assert [(row["status"], row["failure_code"]) for row in rows] == [("FAILED", "START_ERROR")] * 2
    assert "of faulty-spiders 1.2 cannot be used: ModuleNotFoundError" in rows[0]["failure_message"]
    assert "'Nobody'" in rows[1]["failure_message"]
    script = "from tasks.crawl.crawler.classes import faulty_spiders\nfor each in faulty_spiders(): print(*each)"
    looked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        cwd=CHECKOUT,
        env={"PYTHONPATH": f"{CHECKOUT}:{packages}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = looked.stdout.splitlines()
    told = {line.split()[0]: line for line in lines if " faulty-spiders 1.2 " in line}
    assert set(told) == {"absent", "leaves", "number", "bad_schema", "catalogue", "without_class"}, looked.stdout
    assert "has this name" in told["catalogue"]
    assert "of type int" in told["number"]
    assert "nonsense" in told["bad_schema"]
    assert "SystemExit" in told["leaves"]
