"""Previews: all that a short crawl finds, and nothing of it anywhere afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio

from tests.conftest import ApiServer, Template
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.processes import Api
from tests.harness.waiting import eventually
from tests.sites.server import Answer, Asked, SiteServer

SETTINGS = {"CRAWL_START_DELAY_SECONDS": "0.01", "PREVIEW_SLOTS": "2"}

CREATE_TOOL = "mutation ($input: CreateToolInput!) { createTool(input: $input) { tool { id } } }"
CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id } } }"
PREVIEW = """
mutation ($input: PreviewJobInput!) { previewJob(input: $input) {
  closeReason detail
  pages { url status milliseconds bytes items links errors }
  items { url data }
  rejectedItems { url data faults { path message value } }
  failedRequests { url reason detail }
  lines { time level message }
  hosts { host requests pages failed dropped { offSite duplicate } }
} }
"""
CONFIG: Final = {
    "detailLinks": {"css": "a"},
    "fields": [{"name": "name", "css": "h1", "required": True}, {"name": "note", "css": "p"}],
}


def shop(asked: Asked) -> Answer:
    """A list of four things, the second without a name, and one that is gone."""
    if asked.target == "/":
        links = [*(f"/thing/{number}" for number in range(1, 4)), "/gone", "/thing/1", "http://elsewhere.test/"]
        return Answer("".join(f'<a href="{link}">more</a>' for link in links))
    if asked.target.startswith("/thing/"):
        return Answer("<p>no name</p>" if asked.target == "/thing/2" else f"<h1>{asked.target}</h1>")
    return Answer(status=404)


@pytest.fixture(scope="module")
def site() -> Iterator[SiteServer]:
    with SiteServer(shop) as server:
        yield server


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], site: SiteServer) -> dict[str, str]:
    """The API may open the site."""
    return {**settings_env, "CRAWL_ALLOWED_HOSTS": site.allowed_host}


@pytest_asyncio.fixture(scope="module")
async def tool(client: GraphQLClient, template: Template) -> str:
    admin = await sign_in(client, template.admin_email, template.admin_password)
    fields = {"name": "Shops", "category": "Tests", "spider": "catalogue"}
    tool_id: str = (await client.run(CREATE_TOOL, {"input": fields}, token=admin.token))["createTool"]["tool"]["id"]
    return tool_id


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def every_table(db: asyncpg.Connection) -> dict[str, int]:
    """How many rows each table has."""
    tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"]: await db.fetchval(f'SELECT count(*) FROM "{row["tablename"]}"') for row in tables}


async def refused(client: GraphQLClient, given: dict[str, Any], person: Person) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(PREVIEW, {"input": given}, token=person.token)
    extensions: dict[str, Any] = caught.value.extensions
    return extensions


def crawlers(server: Api) -> list[psutil.Process]:
    """Processes that the API has started for previews."""
    found = []
    for process in psutil.Process(server.pid).children(recursive=True):
        try:
            if "tasks.crawl.crawler" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_a_preview_shows_all_that_it_found_and_leaves_no_row(
    client: GraphQLClient, person: Person, tool: str, site: SiteServer, db: asyncpg.Connection, api_server: ApiServer
) -> None:
    given = {"toolId": tool, "startUrls": [f"{site.url}/"], "config": CONFIG}
    before = await every_table(db)
    found = (await client.run(PREVIEW, {"input": given}, token=person.token))["previewJob"]
    assert await every_table(db) == before
    assert (found["closeReason"], found["detail"]) == ("FINISHED", None)
    assert sorted((page["url"], page["status"], page["items"], page["links"]) for page in found["pages"]) == [
        (f"{site.url}/", 200, 0, 4),
        (f"{site.url}/thing/1", 200, 1, 0),
        (f"{site.url}/thing/2", 200, 0, 0),
        (f"{site.url}/thing/3", 200, 1, 0),
    ]
    assert sorted(item["data"]["name"] for item in found["items"]) == ["/thing/1", "/thing/3"]
    [rejected] = found["rejectedItems"]
    assert (rejected["url"], rejected["faults"][0]["path"]) == (f"{site.url}/thing/2", ["name"])
    assert [(each["url"], each["reason"]) for each in found["failedRequests"]] == [(f"{site.url}/gone", "HTTP_STATUS")]
    [host] = found["hosts"]
    assert (host["requests"], host["pages"], host["failed"]) == (site.hits.total(), 4, 1)
    assert host["dropped"] == {"offSite": 1, "duplicate": 1}
    assert any("/thing/2: 1 items rejected" in line["message"] for line in found["lines"])
    assert not crawlers(api_server)


async def test_a_job_is_previewed_with_parts_of_its_input_changed(
    client: GraphQLClient, person: Person, tool: str, site: SiteServer, db: asyncpg.Connection
) -> None:
    job = {"toolId": tool, "name": "Shop", "startUrls": [f"{site.url}/"], "config": CONFIG}
    job_id = (await client.run(CREATE, {"input": job}, token=person.token))["createJob"]["job"]["id"]
    stranger = await new_user(client)
    before = await every_table(db)
    given = {"jobId": job_id, "startUrls": [f"{site.url}/thing/1"], "config": {"fields": CONFIG["fields"]}, "pages": 1}
    found = (await client.run(PREVIEW, {"input": given}, token=person.token))["previewJob"]
    assert [item["data"] for item in found["items"]] == [
        {"url": f"{site.url}/thing/1", "name": "/thing/1", "note": None}
    ]
    assert found["closeReason"] == "PAGE_LIMIT"
    for wrong, code, path in (
        ({"jobId": job_id}, "NOT_FOUND", ["input", "jobId"]),
        ({"jobId": job_id, "toolId": tool}, "VALIDATION_ERROR", ["input", "toolId"]),
        ({}, "VALIDATION_ERROR", ["input", "toolId"]),
        ({**given, "jobId": None, "toolId": tool, "pages": 6}, "VALIDATION_ERROR", ["input", "pages"]),
        ({"toolId": tool, "startUrls": ["http://10.0.0.1/"], "config": CONFIG}, "VALIDATION_ERROR", None),
    ):
        error = await refused(client, wrong, stranger)
        assert error["code"] == code
        if path:
            assert error["details"]["path"] == path
    assert await every_table(db) == before


async def test_who_hangs_up_ends_the_crawl_and_few_run_at_once(
    client: GraphQLClient, person: Person, tool: str, site: SiteServer, api_server: ApiServer
) -> None:
    others = [await new_user(client) for _ in range(2)]
    given = {"toolId": tool, "startUrls": [f"{site.url}/"], "config": CONFIG}
    hits = site.hits.total()
    site.hold_after(hits)

    async def ask(who: Person) -> Any:
        return await client.run(PREVIEW, {"input": given}, token=who.token)

    asking = [asyncio.create_task(ask(who)) for who in (person, others[0])]
    await asyncio.to_thread(site.wait_for_hits, hits + 2)
    assert len(crawlers(api_server)) == 2
    for who in (person, others[1]):
        error = await refused(client, given, who)
        assert (error["code"], error["retryAfterSeconds"]) == ("RATE_LIMIT_EXCEEDED", 5.0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await eventually(lambda: not crawlers(api_server), 5, what="the end of the crawlers")
    site.release()

    async def is_free() -> bool:
        try:
            return bool((await ask(person))["previewJob"]["closeReason"] == "FINISHED")
        except GraphQLFailure:
            return False

    assert await eventually(is_free, 20, what="a preview of one's own again")


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
async def test_an_api_that_ends_takes_its_previews_along(
    is_killed: bool, person: Person, tool: str, site: SiteServer, api_server: ApiServer
) -> None:
    given = {"toolId": tool, "startUrls": [f"{site.url}/"], "config": CONFIG}
    doomed = await api_server.second()
    hits = site.hits.total()
    site.hold_after(hits)
    async with GraphQLClient(doomed.graphql_url) as client:
        asking = asyncio.create_task(client.run(PREVIEW, {"input": given}, token=person.token))
        await asyncio.to_thread(site.wait_for_hits, hits + 1)
        at_work = crawlers(doomed)
        assert at_work
        if is_killed:
            doomed.kill()
        else:
            doomed.terminate()
            site.release()
        await doomed.wait_exit()
        await eventually(lambda: not any(map(is_alive, at_work)), 10, what="the end of the crawlers")
        if is_killed:
            with pytest.raises(httpx.TransportError):
                await asking
        else:
            found = (await asking)["previewJob"]
            assert found["closeReason"] == "FINISHED", "who waits is answered before the end"
    site.release()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
