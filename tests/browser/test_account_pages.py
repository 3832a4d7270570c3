"""The pages that links of letters lead to, in a real browser: from the letter to the new password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.conftest import ApiServer, Programs
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient
from tests.harness.processes import CLI
from tests.harness.waiting import eventually

SETTINGS = {
    "RATE_LIMITS": "false",
    "EMAIL_CONFIRMATION": "false",
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
}
OTHER_PASSWORD = "a stapler of seven horses"
VERIFIED = "{ me { emailVerified } }"


@pytest_asyncio.fixture(scope="module", autouse=True)
async def worker(programs: Programs, api_server: ApiServer) -> None:
    """Started after the API, whose address the links name."""
    await programs.start((CLI, "worker"), kind="worker").wait_event("worker_started")


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, api_server: ApiServer) -> AsyncIterator[Page]:
    """A first visit; leaving it asserts that nothing went wrong and that nobody else was asked for anything."""
    context = await browser.new_context()
    visited = await context.new_page()
    faults: list[str] = []
    referrers: list[str] = []
    origins: set[str] = set()
    visited.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    visited.on("pageerror", lambda error: faults.append(str(error)))
    visited.on("request", lambda request: origins.add(urlsplit(request.url).netloc))
    visited.on("request", lambda request: referrers.append(request.headers.get("referer", "")))
    yield visited
    await context.close()
    assert faults == []
    assert origins == {urlsplit(api_server.url).netloc}
    assert not any("token" in referrer for referrer in referrers)


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def link_to(client: GraphQLClient, settings_env: dict[str, str], person: Person, mutation: str) -> str:
    """The link in the letter that a mutation asks for."""
    name = f"{mutation[0].upper()}{mutation[1:]}Input"
    await client.run(
        f"mutation ($input: {name}!) {{ {mutation}(input: $input) {{ ok }} }}", {"input": {"email": person.email}}
    )

    def found() -> str | None:
        for path in Path(settings_env["DATA_DIR"], "mail").glob("*.eml"):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            part = message.get_body(("plain",))
            if person.email in message["To"] and part is not None:
                return next(str(line) for line in part.get_content().splitlines() if line.startswith("http"))
        return None

    return await eventually(found, 10, what="a letter with a link")


async def test_a_forgotten_password_is_set_on_the_page(
    page: Page, client: GraphQLClient, settings_env: dict[str, str], person: Person
) -> None:
    await page.goto(await link_to(client, settings_env, person, "requestPasswordReset"))
    assert urlsplit(page.url).query == ""
    await page.get_by_label("New password").fill("short")
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_role("status")).to_contain_text("at least 8 characters")
    await page.get_by_label("New password").fill(OTHER_PASSWORD)
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_role("status")).to_contain_text("Your password is set")
    await expect(page.get_by_role("button")).to_have_count(0)
    await sign_in(client, person.username, OTHER_PASSWORD)


async def test_opening_a_link_confirms_nothing_and_the_button_does(
    page: Page, client: GraphQLClient, settings_env: dict[str, str], person: Person
) -> None:
    link = await link_to(client, settings_env, person, "requestEmailVerification")
    await page.goto(link)
    button = page.get_by_role("button", name="Confirm the address")
    await button.wait_for()
    assert await client.run(VERIFIED, token=person.token) == {"me": {"emailVerified": False}}
    await button.click()
    await expect(page.get_by_role("status")).to_contain_text("Your address is confirmed")
    assert await client.run(VERIFIED, token=person.token) == {"me": {"emailVerified": True}}
    await page.goto(link)
    await button.click()
    await expect(page.get_by_role("status")).to_contain_text("This link has been used")


async def test_a_page_without_token_says_so(page: Page, api_server: ApiServer) -> None:
    await page.goto(f"{api_server.url}/account/reset")
    await expect(page.get_by_role("status")).to_contain_text("from the link in a letter only")
    await expect(page.get_by_role("button")).to_have_count(0)
