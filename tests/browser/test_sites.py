"""Deployed sites as visitors meet them: in a browser, at their own address, on the same server as the API.

The browser finds `*.localhost` by itself. Vite and React are built for real, so their test needs an npm registry; what
a site may not do to the API is tested with a page that needs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, Request, expect

from tests.harness.deploying import Deploying
from tests.harness.git_remote import APPS, GitRemote
from tests.harness.npm_registry import NoRegistry, NpmRegistry, find_registry, require_registry
from tests.worker.deployments.conftest import DEPLOYMENT_SETTINGS, deploying, remote

__all__ = ["deploying", "remote"]

pytestmark = pytest.mark.browser

SET_VARIABLES = """
mutation Set($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project { id } } }
"""
SIGN_IN = "mutation ($input: LoginInput!) { login(input: $input) { user { email } } }"
ME = "{ me { email } }"
ASK = """
async ([url, query, variables, mode]) => {
    const body = JSON.stringify({query, variables});
    const headers = {"Content-Type": mode === "no-cors" ? "text/plain" : "application/json"};
    try {
        const answer = await fetch(url, {method: "POST", body, headers, mode, credentials: "include"});
        return [answer.type, await answer.text()];
    } catch (error) {
        return ["refused", String(error)];
    }
}
"""
DEADLINE_MS = 15_000


@dataclass
class Visit:
    """A browser that has never been here."""

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(DEADLINE_MS)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on(
            "console",
            lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None,
        )
        self.page.on("requestfailed", lambda request: self.faults.append(f"{request.url}: {request.failure}"))

    async def ask(self, url: str, query: str, variables: dict[str, Any] | None = None, mode: str = "cors") -> list[str]:
        """What a script of the page gets from the API: the kind of its answer and the text."""
        answer: list[str] = await self.page.evaluate(ASK, [url, query, variables or {}, mode])
        return answer


@pytest_asyncio.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """A first visit."""
    context = await browser.new_context(viewport={"width": 1000, "height": 700})
    yield Visit(await context.new_page())
    await context.close()


@dataclass
class Listener:
    """Hears what browsers send to the API's host; cookies are of a host, whatever the port."""

    url: str
    heard: list[Mapping[str, str]]


@pytest_asyncio.fixture
async def api_listener() -> AsyncIterator[Listener]:
    """A server that remembers headers, because a browser does not show those of a request whose answer it withholds."""
    heard: list[Mapping[str, str]] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(request.headers.copy())
        return web.Response(text="heard")

    application = web.Application()
    application.router.add_route("*", "/", hear)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Listener(f"http://localhost:{runner.addresses[0][1]}/", heard)
    await runner.cleanup()


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], remote: GitRemote) -> dict[str, str]:
    """The module's settings, with the git server and, where there is one, the registry opened."""
    try:
        registry = find_registry()
    except NoRegistry:
        return {**DEPLOYMENT_SETTINGS, **settings_env, "BUILD_ALLOWED_HOSTS": remote.allowed_host}
    opened = f"{remote.allowed_host},{registry.allowed_host}"
    return {**DEPLOYMENT_SETTINGS, **settings_env, **registry.settings, "BUILD_ALLOWED_HOSTS": opened}


@pytest.fixture
def registry() -> NpmRegistry:
    """The machine's registry."""
    return require_registry()


def api_url(deploying: Deploying) -> str:
    """The API by the name that sites are below."""
    return f"http://localhost:{deploying.api.port}/graphql"


async def test_a_react_application_renders_counts_and_routes(
    registry: NpmRegistry,
    deploying: Deploying,
    visit: Visit,
    tmp_path: Path,
) -> None:
    site = await deploying.site(APPS / "vite-react")
    given = {**registry.variables, "VITE_GREETING": "the harbour master"}
    variables = [{"name": name, "value": value} for name, value in given.items()]
    await deploying.run(SET_VARIABLES, input={"projectId": site.id, "variables": variables})
    await deploying.deployed(site)

    home = await visit.page.goto(f"{site.url}/")
    assert home is not None
    assert home.status == 200
    await expect(visit.page.get_by_role("heading", name="Harbour board")).to_be_visible()
    await expect(visit.page.get_by_text("announced by the harbour master")).to_be_visible()
    button = visit.page.get_by_role("button")
    await expect(button).to_have_text("Ships in port: 0")
    await button.click()
    await expect(button).to_have_text("Ships in port: 1")
    picture = await visit.page.screenshot(path=tmp_path / "react.png")
    assert len(picture) > 5_000, "the page is blank"

    deep = await visit.page.goto(f"{site.url}/berths/7?tide=high")
    assert deep is not None
    assert deep.status == 200
    await expect(visit.page.get_by_text("/berths/7", exact=True)).to_be_visible()
    await expect(button).to_have_text("Ships in port: 0")
    await visit.page.wait_for_load_state("networkidle")
    assert visit.faults == []
    assert {urlsplit(request.url).netloc for request in visit.requests} == {urlsplit(site.url).netloc}


async def test_a_page_of_a_site_reads_nothing_from_the_api_and_sends_none_of_its_cookies(
    deploying: Deploying, visit: Visit, api_listener: Listener
) -> None:
    site = await deploying.site(APPS / "plain")
    await deploying.deployed(site)
    url = api_url(deploying)
    owner = deploying.owner
    await visit.page.goto(url)
    login = {"input": {"identifier": owner.email, "password": owner.password, "cookies": True}}
    assert owner.email in (await visit.ask(url, SIGN_IN, login))[1]
    assert owner.email in (await visit.ask(url, ME))[1], "on its own pages the API knows the visitor"

    await visit.page.goto(f"{site.url}/")
    await expect(visit.page.get_by_role("heading", name="Lighthouse log")).to_be_visible()
    assert await visit.page.evaluate("document.cookie") == ""
    for mode in ("cors", "no-cors"):
        kind, said = await visit.ask(url, ME, mode=mode)
        assert kind == "refused", said
    listener = api_listener.url
    assert await visit.ask(listener, ME, mode="no-cors") == ["opaque", ""]
    assert api_listener.heard[-1]["Sec-Fetch-Site"] == "cross-site"
    assert "Cookie" not in api_listener.heard[-1]
    await visit.page.goto(listener)
    assert "switchyard_access" in api_listener.heard[-1]["Cookie"], "whoever is sent there by hand has them"


async def test_a_site_s_socket_to_the_api_is_refused(deploying: Deploying, visit: Visit) -> None:
    site = await deploying.site(APPS / "plain")
    await deploying.deployed(site)
    await visit.page.goto(f"{site.url}/")
    address = api_url(deploying).replace("http://", "ws://")
    open_socket = """address => new Promise(resolve => {
        const socket = new WebSocket(address, "graphql-transport-ws");
        socket.onopen = () => socket.send(JSON.stringify({type: "connection_init"}));
        socket.onmessage = event => resolve(event.data);
        socket.onclose = event => resolve(`closed ${event.code}`);
    })"""
    assert (await visit.page.evaluate(open_socket, address)).startswith("closed")
    await visit.page.goto(api_url(deploying))
    assert "connection_ack" in await visit.page.evaluate(open_socket, address), "its own pages may"


async def test_a_site_cannot_set_a_cookie_for_the_api_or_for_another_site(
    deploying: Deploying,
    visit: Visit,
) -> None:
    site = await deploying.site(APPS / "plain")
    other = await deploying.site(APPS / "plain")
    await deploying.deployed(site)
    await deploying.deployed(other)
    await visit.page.goto(f"{site.url}/")
    await visit.page.evaluate("""() => {
        document.cookie = "switchyard_access=planted; domain=localhost; path=/";
        document.cookie = "own=mine; path=/";
        localStorage.setItem("own", "mine");
    }""")
    assert await visit.page.evaluate("document.cookie") == "own=mine"
    context = visit.page.context
    for address in (api_url(deploying), other.url):
        assert await context.cookies(address) == []
    await visit.page.goto(f"{other.url}/")
    assert await visit.page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
