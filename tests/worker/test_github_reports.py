"""What GitHub is told of deployments, and the webhooks it is asked for: once, in order, whoever fails or comes late."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters import github as client
from adapters.secret_box import SecretBox
from errors import RateLimitExceeded, ServiceUnavailable, SwitchyardError
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id, new_id
from models.sealed import CONNECTION_TOKEN
from settings import Settings
from tasks.github_hooks import keep_hook
from tasks.github_reports import report
from tasks.outbox import GiveUp
from tests.harness.deployments import insert_deployment, insert_owner, insert_project, set_status
from tests.harness.github_server import Fault, GitHubServer, Repository
from tests.harness.waiting import eventually

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
COMMIT = "a" * 40
HOOK_URL = "https://yard.example/webhooks/github"


@pytest_asyncio.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    # As small as a worker's may be: nobody may need a second connection while holding one.
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2, command_timeout=10) as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[GitHubServer]:
    async with GitHubServer().running() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def settings(settings_env: dict[str, str], server: GitHubServer) -> Settings:
    values = {
        **settings_env,
        **server.settings,
        "GITHUB_WEBHOOK_SECRET": "newest,older",
        "BASE_URL": "https://yard.example",
        "SITES_DOMAIN": "sites.example",
    }
    return Settings.model_validate({name.lower(): value for name, value in values.items()})


class Yard:
    """An owner with a connection, a repository and a project of it; and the handlers, as a worker calls them."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, server: GitHubServer) -> None:
        self.pool, self.settings, self.server = pool, settings, server
        self.login = f"octo-{secrets.token_hex(4)}"
        self.full_name = f"{self.login}/site"
        self.repository: Repository = server.add_repository(self.full_name, is_private=True)
        self.owner_id: UUID
        self.project_id: UUID
        self.slug = f"site-{secrets.token_hex(4)}"

    async def open(self) -> None:
        self.owner_id = await insert_owner(self.pool)
        self.project_id = await self.project(slug=self.slug)
        connection_id, token = new_id(), self.server.add_user(self.login)
        await self.pool.execute(
            """INSERT INTO oauth_connections (id, user_id, provider, subject, login, scopes, sealed_token, created_at,
                   updated_at) VALUES ($1, $2, 'GITHUB', $3, $4, 'repo', $5, now(), now())""",
            connection_id,
            self.owner_id,
            self.login,
            self.login,
            SecretBox(self.settings.keyring).seal(token, place=CONNECTION_TOKEN.place(connection_id)),
        )

    async def project(self, **fields: Any) -> UUID:
        return await insert_project(self.pool, self.owner_id, **{"repository_full_name": self.full_name, **fields})

    async def deployment(self, **fields: Any) -> UUID:
        async with self.pool.acquire() as connection:
            return await insert_deployment(connection, self.project_id, **{"commit_hash": COMMIT, **fields})

    async def become(self, execution_id: UUID, status: ExecutionStatus, **how: Any) -> None:
        async with self.pool.acquire() as connection:
            await set_status(connection, execution_id, status, **how)

    async def report(self, execution_id: UUID) -> None:
        await report({"executionId": str(execution_id)}, self.pool, self.settings)

    async def keep_hook(self, **payload: Any) -> None:
        await keep_hook(payload or {"projectId": str(self.project_id)}, self.pool, self.settings)

    async def hook_id(self, project_id: UUID | None = None) -> int | None:
        found: int | None = await self.pool.fetchval(
            "SELECT github_hook_id FROM projects WHERE id = $1", project_id or self.project_id
        )
        return found

    @property
    def deployment_states(self) -> list[str]:
        return [each["state"] for states in self.repository.deployment_statuses.values() for each in states]

    @property
    def commit_states(self) -> list[tuple[str, str]]:
        statuses = self.repository.commit_statuses.get(COMMIT, [])
        return [(each["state"], each["description"]) for each in statuses]

    @property
    def told(self) -> tuple[int, int, int]:
        """How many deployments, statuses of them and statuses of the commit GitHub has."""
        return len(self.repository.deployments), len(self.deployment_states), len(self.commit_states)


@pytest.fixture
async def yard(pool: asyncpg.Pool, settings: Settings, server: GitHubServer) -> AsyncIterator[Yard]:
    opened = Yard(pool, settings, server)
    await opened.open()
    async with client.connected(settings, call_seconds=5):
        yield opened


# -- reports: when nothing is told


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM oauth_connections WHERE user_id = $1",
        "UPDATE oauth_connections SET refused_at = now() WHERE user_id = $1",
        "UPDATE oauth_connections SET sealed_token = 'v1.gone.AAAA' WHERE user_id = $1",
        "UPDATE projects SET repository_full_name = NULL WHERE owner_id = $1",
        "UPDATE deployments SET commit_hash = NULL FROM projects p WHERE p.id = project_id AND p.owner_id = $1",
        "DELETE FROM executions WHERE owner_id = $1",
    ],
)
async def test_where_there_is_nothing_to_tell_github_is_not_asked(yard: Yard, change: str) -> None:
    deployment = await yard.deployment()
    await yard.pool.execute(change, yard.owner_id)
    await yard.report(deployment)
    assert yard.server.calls == []


@pytest.mark.parametrize(
    ("fault", "error", "place"),
    [
        (fault, error, place)
        for fault, error in (
            (Fault.BROKEN, ServiceUnavailable),
            (Fault.OTHER_SHAPE, ServiceUnavailable),
            (Fault.RATE_LIMITED, RateLimitExceeded),
            (Fault.NOT_FOUND, None),
            (Fault.FORBIDDEN, None),
            (Fault.UNAUTHORIZED, None),
        )
        for place in ("/status$", "/statuses/", "/deployments$", "/deployments/[0-9]+/statuses")
        # Of the answer to a new status of a commit nothing is read.
        if (fault, place) != (Fault.OTHER_SHAPE, "/statuses/")
    ],
)
async def test_what_may_work_later_is_raised_and_told_then_and_a_refusal_is_the_end(
    yard: Yard, fault: Fault, error: type[SwitchyardError] | None, place: str
) -> None:
    deployment = await yard.deployment()
    yard.server.fail(fault, place.replace("$", r"(\?|$)"))
    if error is None:
        await yard.report(deployment)
    else:
        with pytest.raises(error):
            await yard.report(deployment)
        await yard.report(deployment)
        assert yard.told == (1, 1, 1)
    refused = await yard.pool.fetchval("SELECT refused_at FROM oauth_connections WHERE user_id = $1", yard.owner_id)
    assert (refused is not None) is (fault is Fault.UNAUTHORIZED)


async def test_a_commit_that_github_does_not_have_is_the_end(yard: Yard) -> None:
    yard.repository.branches = {"main": "b" * 40}
    await yard.report(await yard.deployment())
    assert yard.repository.deployments == {}


# -- reports: what is told


@pytest.mark.parametrize(
    ("status", "failure_code", "deployment_state", "commit_state", "words"),
    [
        (QUEUED, None, "queued", "pending", "waits"),
        (RUNNING, None, "in_progress", "pending", "is being built"),
        (SUCCEEDED, None, "success", "success", "is ready"),
        (FAILED, "COMMAND_FAILED", "failure", "failure", "failed: npm run build ended with 1"),
        (FAILED, "INTERNAL", "error", "error", "failed: npm"),
        (FAILED, "WORKER_LOST", "error", "error", "failed: npm"),
        (FAILED, "UPLOAD_FAILED", "error", "error", "failed: npm"),
        (CANCELLED, None, "inactive", "error", "was cancelled"),
    ],
)
async def test_each_state_has_its_words_at_github(
    yard: Yard,
    status: ExecutionStatus,
    failure_code: str | None,
    deployment_state: str,
    commit_state: str,
    words: str,
) -> None:
    deployment = await yard.deployment()
    if status is not QUEUED:
        await yard.become(deployment, status, failure="npm run build ended with 1\nsecond line " + "x" * 500)
    if failure_code is not None:
        await yard.pool.execute("UPDATE executions SET failure_code = $2 WHERE id = $1", deployment, failure_code)
    await yard.report(deployment)
    (told,) = [each for states in yard.repository.deployment_statuses.values() for each in states]
    (beside,) = yard.repository.commit_statuses[COMMIT]
    assert (told["state"], beside["state"]) == (deployment_state, commit_state)
    assert words in told["description"]
    assert told["description"] == beside["description"]
    assert "second" not in told["description"]
    assert beside["context"] == f"switchyard/{yard.slug}"
    key = await yard.pool.fetchval("SELECT site_key FROM deployments WHERE execution_id = $1", deployment)
    site = f"https://{key}-{yard.slug}.sites.example" if status is SUCCEEDED else ""
    assert (told["environment_url"], beside["target_url"]) == (site, site or "https://yard.example")


@pytest.mark.parametrize(("environment", "is_transient"), [("PRODUCTION", False), ("PREVIEW", True)])
async def test_a_deployment_is_announced_once_with_what_it_is(yard: Yard, environment: str, is_transient: bool) -> None:
    deployment = await yard.deployment(environment=environment)
    for status in (QUEUED, RUNNING, SUCCEEDED):
        if status is not QUEUED:
            await yard.become(deployment, status)
        await yard.report(deployment)
    (announced,) = yard.repository.deployments.values()
    assert {name: announced[name] for name in ("sha", "environment", "payload", "transient_environment")} == {
        "sha": COMMIT,
        "environment": f"{yard.slug}/{environment.lower()}",
        "payload": {"switchyard": encode_id(Prefix.DEPLOYMENT, deployment)},
        "transient_environment": is_transient,
    }
    assert yard.deployment_states == ["queued", "in_progress", "success"]
    kept = await yard.pool.fetchval("SELECT github_deployment_id FROM deployments WHERE execution_id = $1", deployment)
    assert kept == announced["id"]


async def test_of_a_forks_commit_only_the_commit_is_told(yard: Yard) -> None:
    await yard.report(await yard.deployment(environment="PREVIEW", is_fork=True, pull_request=7))
    assert yard.told == (0, 0, 1)


# -- reports: repeated, late, at once


@pytest.mark.parametrize("status", list(ExecutionStatus))
async def test_what_was_told_is_not_told_again(yard: Yard, status: ExecutionStatus) -> None:
    deployment = await yard.deployment()
    if status is not QUEUED:
        await yard.become(deployment, status, failure="it broke")
    for _ in range(2):
        await yard.report(deployment)
    assert yard.told == (1, 1, 1)


async def test_a_deployment_whose_id_got_lost_is_found_again(yard: Yard) -> None:
    deployment = await yard.deployment()
    await yard.report(deployment)
    await yard.pool.execute("UPDATE deployments SET github_deployment_id = NULL WHERE execution_id = $1", deployment)
    await yard.become(deployment, RUNNING)
    await yard.report(deployment)
    assert (len(yard.repository.deployments), yard.deployment_states) == (1, ["queued", "in_progress"])


@pytest.mark.parametrize(
    ("state", "commit_state", "words"),
    [
        ("success", "success", "is ready"),
        ("failure", "failure", "failed: it broke"),
        ("error", "error", "failed: it broke"),
        ("inactive", "error", "was cancelled"),
    ],
)
async def test_nothing_is_told_after_an_end(yard: Yard, state: str, commit_state: str, words: str) -> None:
    deployment = await yard.deployment()
    await yard.report(deployment)
    # The end was told by another teller; this one still sees what was before.
    (states,) = yard.repository.deployment_statuses.values()
    states.append({**states[-1], "state": state})
    beside = yard.repository.commit_statuses[COMMIT]
    beside.append({**beside[-1], "state": commit_state, "description": f"Deployment 1 {words}"})
    told = yard.told
    await yard.become(deployment, RUNNING)
    await yard.report(deployment)
    assert yard.told == told


async def test_a_site_that_a_newer_one_replaced_is_not_called_live_again(yard: Yard) -> None:
    deployment = await yard.deployment()
    await yard.become(deployment, SUCCEEDED)
    await yard.report(deployment)
    (states,) = yard.repository.deployment_statuses.values()
    states.append({**states[-1], "state": "inactive"})  # GitHub's own doing
    await yard.report(deployment)
    assert yard.deployment_states == ["success", "inactive"]


async def test_another_deployment_of_the_same_commit_begins_anew(yard: Yard) -> None:
    for number in (1, 2):
        deployment = await yard.deployment()
        await yard.report(deployment)
        await yard.become(deployment, SUCCEEDED)
        await yard.report(deployment)
        assert yard.commit_states[-2:] == [
            ("pending", f"Deployment {number} waits"),
            ("success", f"Deployment {number} is ready"),
        ]
    assert len(yard.repository.deployments) == 2


async def test_one_tells_at_a_time_and_what_changes_meanwhile_is_told_in_order(yard: Yard) -> None:
    deployment = await yard.deployment()
    yard.server.fail(Fault.HELD, "/deployments$")
    first = asyncio.create_task(yard.report(deployment))
    await yard.server.hanging.wait()
    await yard.become(deployment, SUCCEEDED)
    with pytest.raises(ServiceUnavailable):
        await yard.report(deployment)
    yard.server.release()
    await first
    assert yard.deployment_states == ["queued", "success"]
    await yard.report(deployment)
    assert (len(yard.repository.deployments), yard.deployment_states) == (1, ["queued", "success"])


async def test_a_teller_that_is_cancelled_leaves_the_turn_to_the_next(yard: Yard) -> None:
    deployment = await yard.deployment()
    yard.server.fail(Fault.HELD, "/deployments$")
    first = asyncio.create_task(yard.report(deployment))
    await yard.server.hanging.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    yard.server.release()
    await yard.report(deployment)
    assert yard.deployment_states == ["queued"]


# -- webhooks


@pytest.mark.parametrize(
    ("change", "settings_change"),
    [
        ("DELETE FROM oauth_connections WHERE user_id = $1", {}),
        ("UPDATE projects SET repository_full_name = NULL WHERE owner_id = $1", {}),
        ("UPDATE projects SET auto_deploy = false WHERE owner_id = $1", {}),
        ("DELETE FROM projects WHERE owner_id = $1", {}),
        (None, {"github_webhook_secret": None}),
        (None, {"base_url": "http://localhost:8000"}),
        (None, {"base_url": "https://10.0.0.7"}),
    ],
)
async def test_where_no_webhook_is_wanted_or_possible_github_is_not_asked(
    yard: Yard, change: str | None, settings_change: dict[str, Any]
) -> None:
    if change is not None:
        await yard.pool.execute(change, yard.owner_id)
    yard.settings = yard.settings.model_copy(update=settings_change)
    await yard.keep_hook()
    assert yard.server.calls == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.NOT_FOUND, GiveUp),
        (Fault.FORBIDDEN, GiveUp),
        (Fault.UNAUTHORIZED, GiveUp),
        (Fault.BROKEN, ServiceUnavailable),
        (Fault.RATE_LIMITED, RateLimitExceeded),
    ],
)
async def test_a_webhook_that_github_refuses_is_given_up_and_others_come_later(
    yard: Yard, fault: Fault, error: type[Exception]
) -> None:
    yard.server.fail(fault, "/hooks")
    with pytest.raises(error):
        await yard.keep_hook()
    assert (yard.repository.hooks, await yard.hook_id()) == ({}, None)
    if fault in (Fault.BROKEN, Fault.RATE_LIMITED):
        await yard.keep_hook()
        assert await yard.hook_id() in yard.repository.hooks


async def test_an_owner_who_may_not_administer_the_repository_is_told_so(yard: Yard) -> None:
    yard.repository.is_private = False
    yard.repository.members.clear()
    with pytest.raises(GiveUp, match="administrator"):
        await yard.keep_hook()


async def test_a_repository_has_one_webhook_for_all_of_its_projects_as_long_as_there_is_one(yard: Yard) -> None:
    second = await yard.project()
    for project_id in (yard.project_id, second, second):
        await yard.keep_hook(projectId=str(project_id))
    (hook,) = yard.repository.hooks.values()
    assert {name: hook[name] for name in ("events", "active")} == {"events": ["push", "pull_request"], "active": True}
    assert hook["config"] == {"url": HOOK_URL, "content_type": "json", "secret": "newest", "insecure_ssl": "0"}
    assert [await yard.hook_id(each) for each in (yard.project_id, second)] == [hook["id"]] * 2
    gone = {"remove": hook["id"], "repository": yard.full_name, "ownerId": str(yard.owner_id)}
    await yard.pool.execute("DELETE FROM projects WHERE id = $1", second)
    await yard.keep_hook(**gone)
    assert list(yard.repository.hooks) == [hook["id"]]
    await yard.pool.execute("UPDATE projects SET auto_deploy = false WHERE id = $1", yard.project_id)
    await yard.keep_hook()
    assert (yard.repository.hooks, await yard.hook_id()) == ({}, None)
    await yard.keep_hook(**gone)


async def test_a_webhook_made_under_another_secret_gets_the_newest(yard: Yard) -> None:
    await yard.keep_hook()
    (hook,) = yard.repository.hooks.values()
    hook["config"]["secret"] = "forgotten"
    hook["active"] = False
    await yard.keep_hook()
    assert (hook["config"]["secret"], hook["active"]) == ("newest", True)


async def test_two_who_make_the_same_webhook_at_once_have_it_both(yard: Yard) -> None:
    second = await yard.project()
    yard.server.fail(Fault.HELD, "/hooks$")
    first = asyncio.create_task(yard.keep_hook())  # has looked, found none, and is about to make one
    await eventually(lambda: yard.server.calls_of("POST", "/hooks$"), what="the first to make it")
    await yard.keep_hook(projectId=str(second))
    yard.server.release()
    await first
    (hook_id,) = yard.repository.hooks
    assert [await yard.hook_id(each) for each in (yard.project_id, second)] == [hook_id] * 2


async def test_a_project_that_moved_meanwhile_leaves_no_webhook_behind(yard: Yard) -> None:
    yard.server.fail(Fault.HELD, "/hooks$")
    making = asyncio.create_task(yard.keep_hook())
    await eventually(lambda: yard.server.calls_of("POST", "/hooks$"), what="its making")
    await yard.pool.execute("UPDATE projects SET repository_full_name = 'else/where' WHERE id = $1", yard.project_id)
    yard.server.release()
    await making
    assert (yard.repository.hooks, await yard.hook_id()) == ({}, None)
