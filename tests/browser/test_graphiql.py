"""The GraphiQL page as a visitor meets it: in a browser without internet, against the running API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.browser.conftest import Console
from tests.harness.processes import run_cli
from tests.harness.waiting import eventually

pytestmark = pytest.mark.browser

PRACTICE_SITE = "127.0.0.1:8900"
SETTINGS = {
    "CRAWL_ALLOWED_HOSTS": PRACTICE_SITE,
    "BUILD_ALLOWED_HOSTS": PRACTICE_SITE,
    "GIT_PROTOCOLS": "https,http",
}
"""Where the tour's job and its project begin; nothing has to listen there for a run or a deployment to be queued."""


@pytest.fixture(scope="module", autouse=True)
def shipped_tools(settings_env: dict[str, str]) -> None:
    """The tools that an installation starts with."""
    run_cli("migrate", environment=settings_env)


async def test_page_opens_without_asking_any_other_origin(console: Console, tmp_path: Path) -> None:
    response = await console.open()

    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert await console.page.title() == "Switchyard"
    await expect(console.page.get_by_text("Not signed in")).to_be_visible()
    await console.page.wait_for_load_state("networkidle")
    await eventually(lambda: len(console.page.workers) >= 2, 20, what="the editors' workers")
    # An editor without its language shows one colour only.
    await expect(
        console.page.locator(".graphiql-query-editor .mtk1, .graphiql-query-editor .mtk6").first
    ).to_be_visible()
    screenshot = await console.page.screenshot(path=tmp_path / "page.png")
    assert len(screenshot) > 20_000, "the page is blank"


async def test_a_wrong_password_is_told_and_signs_nobody_in(console: Console) -> None:
    await console.open()
    await console.sign_in(password="not the password")

    await expect(console.page.locator(".account-failure")).not_to_be_empty()
    await expect(console.page.get_by_text("Not signed in")).to_be_visible()
    assert await console.page.evaluate("sessionStorage.getItem('switchyard:session')") is None


async def test_signing_in_by_clicks_lets_a_query_run_as_the_visitor(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()

    await console.play()

    await console.expect_answer(console.api.admin_email)


async def test_signing_out_forgets_the_session_here_and_on_the_server(console: Console) -> None:
    await console.open()
    await console.sign_in()
    async with console.page.expect_response(lambda response: "SignOut" in (response.request.post_data or "")) as ended:
        await console.page.get_by_role("button", name="Sign out").click()

    answer = await (await ended.value).json()
    assert "errors" not in answer
    await expect(console.page.get_by_text("Not signed in")).to_be_visible()
    await console.play()
    await console.expect_answer("UNAUTHORIZED")


async def test_a_reload_keeps_the_session_and_the_tabs(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    await console.page.locator(".graphiql-tabs").get_by_role("button", name="Close").first.click()

    # GraphiQL writes its tabs half a second after the last change.
    await console.expect_stored("tabState", "value && !value.includes('Welcome')")
    await console.open()

    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    await expect(console.page.locator(".graphiql-tabs").get_by_text("Welcome", exact=True)).to_have_count(0)
    await expect(console.page.locator(".graphiql-tabs").get_by_text("Tools", exact=True)).to_have_count(1)


async def test_a_refused_token_is_renewed_once_and_the_query_repeated(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    console.expects_refusal = True
    before = await _spoil_access_token(console)
    await console.open()

    await console.play()

    await console.expect_answer(console.api.admin_email)
    session = json.loads(await console.page.evaluate("sessionStorage.getItem('switchyard:session')"))
    assert session["refreshToken"] != before["refreshToken"]


async def test_a_session_that_cannot_be_renewed_ends_with_a_word(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    console.expects_refusal = True
    await _spoil_access_token(console, refreshToken="worthless")
    await console.open()

    await console.play()

    await console.expect_answer("UNAUTHORIZED")
    await expect(console.page.get_by_text("Your session has ended")).to_be_visible()


async def test_the_tour_runs_from_tool_to_live_run_without_copying_ids(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    await console.choose_tab("Tools")
    await console.play()
    await console.expect_answer('"edges"')
    await console.choose_tab("CreateJob")
    await console.play()
    await console.expect_answer('"run"')
    await console.choose_tab("WatchRun")
    await console.play()

    await console.expect_answer('"execution"')
    await console.expect_live("event")


async def test_the_tour_runs_from_project_to_live_build_without_copying_ids(console: Console) -> None:
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    await console.choose_tab("CreateProject")
    await console.play()
    await console.expect_answer('"url"')
    await console.choose_tab("Deploy")
    await console.play()
    await console.expect_answer('"QUEUED"')
    await console.choose_tab("WatchBuild")
    await console.play()

    await console.expect_live("Live")


async def test_a_placeholder_without_value_says_which_tab_gives_it(console: Console) -> None:
    await console.open()
    await console.choose_tab("WatchRun")
    await console.play()

    await console.expect_answer("CreateJob")
    await expect(console.page.locator(".live-status")).to_have_count(0)


async def test_a_password_typed_into_an_operation_is_not_kept(console: Console) -> None:
    await console.open()
    await console.choose_tab("SignIn")
    # The editor closes brackets by itself, so what is typed is one value inside the prefilled object.
    await console.page.locator(".graphiql-editor-tool").get_by_text('"password"').click()
    await console.page.keyboard.press("End")
    await console.page.keyboard.press("ArrowLeft")
    await console.page.keyboard.type("hunter-seven")
    await expect(console.page.locator(".graphiql-editor-tool")).to_contain_text("hunter-seven")
    await console.play()
    await console.expect_answer("errors")

    await console.expect_stored("queries", "value.includes('SignIn')")
    await console.expect_stored("variables", "value.includes('identifier')")
    stored = await console.page.evaluate("JSON.stringify(localStorage)")
    assert "hunter-seven" not in stored


async def test_a_dropped_log_stream_goes_on_after_the_last_sequence(console: Console) -> None:
    server = _LogServer()
    await console.page.route_web_socket("**/graphql", server.serve)
    await console.open()
    await console.sign_in()
    await expect(console.page.get_by_text("Signed in as")).to_be_visible()
    await console.choose_tab("WatchLog")
    await console.page.evaluate("""sessionStorage.setItem('switchyard:ids', '{"@run": "run_1"}')""")
    await console.play()

    await console.expect_live("Complete")

    assert server.cursors == [0, 2, 4]
    assert all(init["payload"]["authorization"].startswith("Bearer ") for init in server.inits)
    lines = console.page.locator(".live-sequence")
    assert await lines.all_inner_texts() == ["1", "2", "3", "4", "5", "6"]
    await console.expect_live("reconnected 2×")


async def _spoil_access_token(console: Console, **changes: str) -> dict[str, Any]:
    """Break the stored access token, as an expired key or a revoked session would; returns the session as it was."""
    session: dict[str, Any] = json.loads(await console.page.evaluate("sessionStorage.getItem('switchyard:session')"))
    spoilt = {**session, "accessToken": "worthless", **changes}
    await console.page.evaluate("text => sessionStorage.setItem('switchyard:session', text)", json.dumps(spoilt))
    return session


class _LogServer:
    """The far end of the socket, as the protocol describes it: two lines per connection, then the line drops.

    Speaks https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md. It repeats one line after each reconnect, as
    a server that rounds the cursor down might, and completes after the sixth.
    """

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.cursors: list[int] = []

    def serve(self, socket: WebSocketRoute) -> None:
        socket.on_message(self._answer(socket))

    def _answer(self, socket: WebSocketRoute) -> Callable[[str | bytes], Awaitable[None]]:
        async def answer(text: str | bytes) -> None:
            message = json.loads(text)
            if message["type"] == "connection_init":
                self.inits.append(message)
                socket.send(json.dumps({"type": "connection_ack"}))
            elif message["type"] == "subscribe":
                await self._stream(socket, message)

        return answer

    async def _stream(self, socket: WebSocketRoute, message: dict[str, Any]) -> None:
        after = message["payload"]["variables"]["afterSequence"]
        self.cursors.append(after)
        lines = [
            {"sequence": sequence, "timestamp": "2026-01-01T10:00:00Z", "level": "INFO", "message": f"line {sequence}"}
            for sequence in range(max(after, 1), after + 3)
        ]
        batch = {"lines": lines, "lastSequence": after + 2, "complete": after == 4}
        socket.send(json.dumps({"id": message["id"], "type": "next", "payload": {"data": {"logs": batch}}}))
        if after == 4:
            socket.send(json.dumps({"id": message["id"], "type": "complete"}))
        else:
            await socket.close(code=1012, reason="restarting")
