"""A real Chromium for the tests of the GraphiQL page, and a `Console` that drives one fresh visit to it.

The browser resolves no name but loopback, so a page that needs the internet fails here. Every failed request, every
error on the console and every uncaught exception is collected; a visit ends by asserting that there were none.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, async_playwright, expect

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_NO_INTERNET = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost"
_DEADLINE_MS = 15_000


class ApiServer(Protocol):
    """What the tests need of the `api_server` fixture: a running API and an administrator's way in."""

    url: str
    admin_email: str
    admin_password: str


class Console:
    """One visit to the page, in words of the visitor."""

    def __init__(self, page: Page, api: ApiServer) -> None:
        self.page = page
        self.api = api
        self.faults: list[str] = []
        self.origins: set[str] = set()
        self.expects_refusal = False
        """Whether the API's 401 is part of the test; Chromium writes it to its console as well."""
        page.set_default_timeout(_DEADLINE_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        page.on("request", self._on_request)
        page.on("websocket", lambda socket: self.origins.add(urlsplit(socket.url).netloc))

    async def open(self) -> Response:
        """Go to the page and wait until it can be used."""
        response = await self.page.goto(f"{self.api.url}/graphql")
        assert response is not None
        await self.page.locator(".graphiql-query-editor .view-line").first.wait_for()
        return response

    async def sign_in(self, password: str | None = None) -> None:
        """Fill in the form in the account pane and press the button."""
        await self.page.get_by_label("E-mail or username").fill(self.api.admin_email)
        await self.page.get_by_label("Password").fill(self.api.admin_password if password is None else password)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()

    async def choose_tab(self, name: str) -> None:
        """Bring an operation's tab to the front."""
        await self.page.locator(".graphiql-tabs").get_by_text(name, exact=True).click()
        await expect(self.page.locator(".graphiql-query-editor")).to_contain_text(name)

    async def play(self) -> None:
        """Press the play button."""
        await self.page.get_by_role("button", name="Execute query").click()

    async def expect_answer(self, text: str) -> None:
        """Wait until the answer shows the text."""
        await expect(self.page.locator(".graphiql-response .view-lines")).to_contain_text(text, timeout=_DEADLINE_MS)

    async def expect_live(self, text: str) -> None:
        """Wait until the status line of the live stream shows the text."""
        await expect(self.page.locator(".live-status")).to_contain_text(text, timeout=_DEADLINE_MS)

    async def expect_stored(self, key: str, condition: str) -> None:
        """Wait until `condition`, an expression over `value`, holds for what localStorage has under `graphiql:key`.

        Asked from inside the page: Playwright's own wait needs eval, which the page's policy forbids.
        """
        async with asyncio.timeout(_DEADLINE_MS / 1000):
            await self.page.evaluate(
                f"""() => new Promise(resolve => {{
                    const look = () => {{
                        const value = localStorage.getItem("graphiql:{key}") ?? "";
                        if ({condition}) resolve(); else setTimeout(look, 50);
                    }};
                    look();
                }})"""
            )

    def _on_console(self, message: ConsoleMessage) -> None:
        if self.expects_refusal and "status of 401" in message.text:
            return
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _on_failure(self, request: Request) -> None:
        # Leaving the page cuts short what it still loads, the editors' workers for one; that is no fault of the page.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"failed: {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if self.expects_refusal and response.status == 401:
            return
        if response.status >= 400:
            self.faults.append(f"HTTP {response.status}: {response.url}")

    def _on_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob"):
            self.origins.add(url.netloc)


def _find_browser() -> Path:
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    reason = f"BROWSER TESTS NOT RUN: none of {', '.join(_NAMES)} is installed (Debian: apt-get install chromium)"
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, started once; its own sandbox is off only for root, who cannot have it."""
    executable = _find_browser()
    flags = [_NO_INTERNET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=executable, args=flags)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def console(browser: Browser, api_server: ApiServer) -> AsyncIterator[Console]:
    """A first visit: nothing stored, nobody signed in. Leaving it asserts that nothing went wrong on the page."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    visit = Console(await context.new_page(), api_server)
    yield visit
    await context.close()
    assert visit.faults == []
    assert visit.origins <= {urlsplit(api_server.url).netloc}
