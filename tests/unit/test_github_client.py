"""The client of GitHub's API against a stand-in that holds both sides against GitHub's published description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from adapters import github, github_api
from adapters.github import CodeRefused, GitHub, Refused, TokenRefused
from adapters.github_api import Branch
from errors import Forbidden, NotFound, RateLimitExceeded, ServiceUnavailable, SwitchyardError, ValidationFailed
from settings import Settings
from tests.harness import github_schema
from tests.harness.github_server import Fault, GitHubServer

REPOSITORY = "octocat/site"
COMMIT = "a" * 40


@pytest.fixture
async def server() -> AsyncIterator[GitHubServer]:
    async with GitHubServer().running() as running:
        yield running
        assert running.violations == []


def settings_for(server: GitHubServer, base_settings: dict[str, str], **changes: str) -> Settings:
    values = {**base_settings, "DATABASE_URL": "postgres://nobody@127.0.0.1/none", **server.settings, **changes}
    return Settings.model_validate({name.lower(): value for name, value in values.items()})


@pytest.fixture
async def client(server: GitHubServer, base_settings: dict[str, str]) -> AsyncIterator[GitHub]:
    async with github.connected(settings_for(server, base_settings)) as opened:
        yield opened


@pytest.fixture
def token(server: GitHubServer) -> str:
    return server.add_user("octocat")


# -- refusals and faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.UNAUTHORIZED, TokenRefused),
        (Fault.FORBIDDEN, Forbidden),
        (Fault.RATE_LIMITED, RateLimitExceeded),
        (Fault.SECONDARY_LIMIT, RateLimitExceeded),
        (Fault.NOT_FOUND, NotFound),
        (Fault.MOVED, NotFound),
        (Fault.BROKEN, ServiceUnavailable),
        (Fault.CUT_OFF, ServiceUnavailable),
        (Fault.GARBAGE, ServiceUnavailable),
        (Fault.OTHER_SHAPE, ServiceUnavailable),
        (Fault.HUGE, ServiceUnavailable),
    ],
)
async def test_every_bad_answer_has_an_error_of_ours_that_does_not_show_the_token(
    client: GitHub, server: GitHubServer, token: str, fault: Fault, error: type[SwitchyardError]
) -> None:
    server.fail(fault, times=2)  # a connection that is cut off may be tried a second time
    with pytest.raises(error) as caught:
        await github_api.account(client, token)
    assert type(caught.value) is error
    assert token not in str(caught.value)
    assert not server.calls_of("GET", "^/user$")[1:] or fault is Fault.CUT_OFF  # a redirect is not followed


async def test_a_limit_says_when_to_come_back(client: GitHub, server: GitHubServer, token: str) -> None:
    for fault, expected in ((Fault.RATE_LIMITED, 120), (Fault.SECONDARY_LIMIT, 7)):
        server.fail(fault)
        with pytest.raises(RateLimitExceeded) as caught:
            await github_api.account(client, token)
        assert caught.value.retry_after_seconds == pytest.approx(expected, abs=2)


async def test_a_silent_github_is_given_up(server: GitHubServer, base_settings: dict[str, str], token: str) -> None:
    server.fail(Fault.HANGING)
    async with github.connected(settings_for(server, base_settings), call_seconds=0.2) as client:
        async with asyncio.timeout(5):
            with pytest.raises(ServiceUnavailable):
                await github_api.account(client, token)
    assert server.hanging.is_set()


async def test_a_github_that_is_away_is_unavailable(base_settings: dict[str, str]) -> None:
    async with GitHubServer().running() as server:
        gone = settings_for(server, base_settings)
    async with github.connected(gone) as client:
        with pytest.raises(ServiceUnavailable):
            await github_api.account(client, "gho_x")


@pytest.mark.parametrize(
    "name", ["", "owner", "a/b/c", "../user", "a/..", "a/b?x=1", "a/b#c", "a/%2e%2e", "a /b", "ö/b"]
)
async def test_a_repository_that_is_no_name_is_never_asked_for(
    client: GitHub, server: GitHubServer, token: str, name: str
) -> None:
    with pytest.raises(ValidationFailed):
        await github_api.repository(client, token, name)
    assert server.calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client, token: github_api.head_commit(client, token, REPOSITORY, "../../user"),
        lambda client, token: github_api.head_commit(client, token, REPOSITORY, ""),
        lambda client, token: github_api.file_names(client, token, REPOSITORY, branch="main", folder="a/../../.."),
    ],
)
async def test_no_path_leads_out_of_its_place(
    client: GitHub, server: GitHubServer, token: str, call: Callable[[GitHub, str], Awaitable[Any]]
) -> None:
    server.add_repository(REPOSITORY)
    with pytest.raises((NotFound, ValidationFailed)):
        await call(client, token)
    assert server.calls == []


# -- authorization


async def authorized(client: GitHub, *, verifier: str = "v" * 64) -> str:
    """The code that a browser comes back with."""
    url = client.authorization_url(
        redirect_uri="http://127.0.0.1/back", state="state", verifier=verifier, scopes=("repo",)
    )
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


@pytest.mark.parametrize(
    "changes", [{"verifier": "w" * 64}, {"redirect_uri": "http://127.0.0.1/elsewhere"}, {"code": "guessed"}]
)
async def test_a_code_without_its_proof_is_refused_and_used_up(client: GitHub, changes: dict[str, str]) -> None:
    good = {"code": await authorized(client), "verifier": "v" * 64, "redirect_uri": "http://127.0.0.1/back"}
    bad = {**good, **changes}
    with pytest.raises(CodeRefused):
        await client.exchange_code(bad.pop("code"), **bad)
    if "code" not in changes:
        with pytest.raises(CodeRefused):
            await client.exchange_code(good.pop("code"), **good)


async def test_a_code_brings_a_token_once(client: GitHub, server: GitHubServer) -> None:
    code = await authorized(client)
    granted = await client.exchange_code(code, verifier="v" * 64, redirect_uri="http://127.0.0.1/back")
    assert (granted.scopes, server.tokens[granted.token]) == (("repo",), "octocat")
    assert granted.token not in repr(granted)
    with pytest.raises(CodeRefused):
        await client.exchange_code(code, verifier="v" * 64, redirect_uri="http://127.0.0.1/back")
    await client.revoke_token(granted.token)
    with pytest.raises(TokenRefused):
        await github_api.account(client, granted.token)
    await client.revoke_token(granted.token)


async def test_wrong_credentials_of_ours_are_the_operators_matter(
    server: GitHubServer, base_settings: dict[str, str]
) -> None:
    async with github.connected(settings_for(server, base_settings, GITHUB_CLIENT_SECRET="old")) as client:
        with pytest.raises(ServiceUnavailable, match="GITHUB_CLIENT_SECRET"):
            await client.exchange_code("x", verifier="v", redirect_uri="http://127.0.0.1/back")
    async with github.connected(settings_for(server, base_settings, GITHUB_CLIENT_ID="")) as client:
        with pytest.raises(ServiceUnavailable, match="GITHUB_CLIENT_ID"):
            client.check_configured()


# -- what is read and written


async def test_account_and_verified_address(client: GitHub, server: GitHubServer, token: str) -> None:
    account = await github_api.account(client, token)
    assert (account.login, account.subject) == ("octocat", str(server.users["octocat"]))
    assert await github_api.verified_email(client, token) == "octocat@example.com"


async def test_lists_are_read_to_their_end_but_not_without_end(
    client: GitHub, server: GitHubServer, token: str
) -> None:
    for number in range(250):
        server.add_repository(f"octocat/site-{number}")
    server.add_repository("somebody/else")
    assert len(await github_api.repositories(client, token)) == 250
    repository = server.add_repository(REPOSITORY, branches={f"b{number}": COMMIT for number in range(1_200)})
    found = await github_api.branches(client, token, REPOSITORY)
    assert len(found) == 1_000
    assert len(server.calls_of("GET", "/branches$")) == 10
    repository.branches = {"main": COMMIT}
    assert await github_api.branches(client, token, REPOSITORY) == [Branch("main", COMMIT, True)]


async def test_one_bad_page_fails_the_list(client: GitHub, server: GitHubServer, token: str) -> None:
    for number in range(150):
        server.add_repository(f"octocat/site-{number}")
    server.fail(Fault.BROKEN, "page=2$")
    with pytest.raises(ServiceUnavailable):
        await github_api.repositories(client, token)


async def test_commits_and_files_of_a_branch(client: GitHub, server: GitHubServer, token: str) -> None:
    server.add_repository(
        REPOSITORY,
        branches={"main": COMMIT, "feature/é #1": "b" * 40},
        files={"package.json": '{"name": "ü"}', "web/index.html": "<h1>", "web/src/main.ts": ""},
    )
    commit = await github_api.head_commit(client, token, REPOSITORY, "feature/é #1")
    assert (commit.commit_hash, commit.message, commit.author) == ("b" * 40, "Say hello", "octocat")
    assert await github_api.file_names(client, token, REPOSITORY, branch="main") == ["package.json", "web/"]
    assert await github_api.file_names(client, token, REPOSITORY, branch="main", folder="./web/") == [
        "index.html",
        "src/",
    ]
    text = await github_api.file_text(client, token, REPOSITORY, branch="main", path="package.json")
    assert text == '{"name": "ü"}'
    for path in ("missing.json", "web"):
        assert await github_api.file_text(client, token, REPOSITORY, branch="main", path=path) is None
    with pytest.raises(NotFound):
        await github_api.file_names(client, token, REPOSITORY, branch="main", folder="package.json")


async def test_hooks_deployments_and_statuses(client: GitHub, server: GitHubServer, token: str) -> None:
    repository = server.add_repository(REPOSITORY)
    url = "https://switchyard.example/webhooks/github"
    hook = await github_api.create_hook(client, token, REPOSITORY, url=url, secret="s")
    with pytest.raises(Refused, match="already exists"):
        await github_api.create_hook(client, token, REPOSITORY, url=url, secret="s")
    await github_api.update_hook(client, token, REPOSITORY, hook.id, url=url, secret="new")
    assert repository.hooks[hook.id]["config"]["secret"] == "new"
    assert await github_api.find_hook(client, token, REPOSITORY, url=url) == hook
    for _ in range(2):
        await github_api.delete_hook(client, token, REPOSITORY, hook.id)
    assert await github_api.find_hook(client, token, REPOSITORY, url=url) is None
    made = await github_api.create_deployment(
        client, token, REPOSITORY, commit=COMMIT, environment="site/preview", is_production=False, mark="dep_1"
    )
    found = [
        await github_api.find_deployment(
            client, token, REPOSITORY, commit=COMMIT, environment="site/preview", mark=mark
        )
        for mark in ("dep_1", "dep_2")
    ]
    assert found == [made, None]
    assert await github_api.latest_deployment_state(client, token, REPOSITORY, made) is None
    await github_api.create_deployment_status(
        client, token, REPOSITORY, made, state="success", description="x" * 500, log_url="https://a.example",
        environment_url="https://b.example",
    )  # fmt: skip
    assert await github_api.latest_deployment_state(client, token, REPOSITORY, made) == "success"
    await github_api.create_commit_status(
        client, token, REPOSITORY, COMMIT, context="switchyard/site", state="pending", description="d", target_url="https://a.example"
    )  # fmt: skip
    assert await github_api.commit_status(client, token, REPOSITORY, COMMIT, context="Switchyard/Site") == (
        "pending",
        "d",
    )


# -- the stand-in itself


@pytest.mark.parametrize(("method", "template"), github_schema.operations())
def test_a_wrong_answer_or_request_would_be_noticed(method: str, template: str) -> None:
    status = {"POST": 201, "DELETE": 204}.get(method, 200)
    assert github_schema.answer_faults(method, template, status, {"id": "text"})
    assert github_schema.answer_faults(method, template, 599, None)
    assert github_schema.request_faults(method, template, {"state": 1, "config": 2, "access_token": 3, "ref": 4}, {})
    assert github_schema.request_faults(method, template, None, {"invented": "1"})


@pytest.mark.parametrize("name", ["push", "pull_request", "ping"])
def test_payloads_are_as_github_documents_them(name: str) -> None:
    assert github_schema.webhook_faults(name, github_schema.payload(name)) == []
    assert github_schema.webhook_faults(name, {"action": "opened", "repository": 1})
