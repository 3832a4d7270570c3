"""The status page in a real browser: what it shows, on a phone too, and that it follows what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from models.status import Service, ServiceState
from tasks.status.rounds import record
from tasks.status.verdicts import Finding
from tests.conftest import ApiServer
from tests.factories import Person
from tests.harness.client import GraphQLClient
from tests.harness.executions import Desk, open_desk

CREATE = "mutation ($input: CreateIncidentInput!) { createIncident(input: $input) { incident { id } } }"
UPDATE = "mutation ($input: UpdateIncidentInput!) { updateIncident(input: $input) { incident { id } } }"


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, api_server: ApiServer) -> AsyncIterator[Page]:
    """A visit with a phone; leaving it asserts that nothing went wrong and that nobody else was asked for anything."""
    context = await browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    visited = await context.new_page()
    faults: list[str] = []
    origins: set[str] = set()
    visited.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    visited.on("pageerror", lambda error: faults.append(str(error)))
    visited.on("request", lambda request: origins.add(urlsplit(request.url).netloc))
    visited.on("websocket", lambda socket: origins.add(urlsplit(socket.url).netloc))
    yield visited
    await context.close()
    assert faults == []
    assert origins == {urlsplit(api_server.url).netloc}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_shows_the_state_and_follows_it(
    page: Page, api_server: ApiServer, client: GraphQLClient, admin: Person, desk: Desk
) -> None:
    async with desk.pool.acquire() as connection:
        await found(connection, Service.API, ServiceState.OPERATIONAL)
    await page.goto(f"{api_server.url}/status")
    await expect(page.get_by_role("status")).to_have_text("Everything works.")
    await expect(page.get_by_role("img", name="90 days, 0 of them with trouble").first).to_be_visible()
    await expect(page.locator("#live")).to_have_text("Live.")
    told = {"title": "<b>Slow</b>", "message": "One\ntwo", "impact": "CRITICAL", "services": ["API"]}
    made = await client.run(CREATE, {"input": told}, token=admin.token)
    await expect(page.get_by_role("heading", name="<b>Slow</b>")).to_be_visible()
    await expect(page.get_by_role("status")).to_have_text("The service is not available.")
    assert not await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    over = {"id": made["createIncident"]["incident"]["id"], "state": "RESOLVED", "message": "Over."}
    await client.run(UPDATE, {"input": over}, token=admin.token)
    await expect(page.locator("#past").get_by_text("Over.")).to_be_visible()
    await expect(page.get_by_role("heading", name="Going on now")).to_be_hidden()


async def found(connection: asyncpg.Connection, service: Service, state: ServiceState) -> None:
    """A probe, now."""
    await record(connection, [Finding(service, state, 5.0)], await connection.fetchval("SELECT clock_timestamp()"))
