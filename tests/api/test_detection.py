"""A look at a repository before there is a project: through GitHub for connected accounts, by a clone for the rest."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import ApiServer, Programs, Template
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.git_remote import APPS, GitRemote
from tests.harness.github_accounts import connect
from tests.harness.github_server import Fault, GitHubServer

APP = "https://app.example.com"
SETTINGS = {"GIT_PROTOCOLS": "https,http", "ALLOWED_ORIGINS": APP}
DETECT = """
query ($repository: String!, $branch: String, $rootDirectory: String) {
  detectFramework(repository: $repository, branch: $branch, rootDirectory: $rootDirectory) {
    framework name installCommand buildCommand outputDirectory spaFallback packageManager notes
  }
}
"""
PACKAGE = '{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "^8.0.0"}}'


@pytest_asyncio.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitRemote]:
    async with GitRemote(tmp_path_factory.mktemp("remote")) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def github() -> AsyncIterator[GitHubServer]:
    async with GitHubServer().running() as server:
        yield server
        assert server.violations == []


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template, github: GitHubServer, remote: GitRemote) -> ApiServer:
    programs.environment.update({**github.settings, "BUILD_ALLOWED_HOSTS": remote.allowed_host})
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    return server


@pytest_asyncio.fixture(scope="module")
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def detected(client: GraphQLClient, person: Person, **arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await client.run(DETECT, arguments, token=person.token))["detectFramework"]
    return found


async def refusal(client: GraphQLClient, person: Person | None, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(DETECT, arguments, token=person.token if person else None)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


def left_over(programs: Programs) -> list[Path]:
    folder = Path(programs.environment["DATA_DIR"]) / "detections"
    return list(folder.iterdir()) if folder.is_dir() else []


async def test_strangers_look_at_nothing(client: GraphQLClient, remote: GitRemote) -> None:
    assert (await refusal(client, None, repository=remote.url("team/any")))["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "arguments",
    [
        {"repository": "ssh://git@a.example/b"},
        {"repository": "https://user:secret@a.example/b"},
        {"repository": "http://127.0.0.1:1/b"},
        {"repository": "a/b", "branch": "-x"},
        {"repository": "a/b", "rootDirectory": "../up"},
    ],
    ids=lambda arguments: str(arguments),
)
async def test_what_no_project_could_have_is_refused(
    client: GraphQLClient, person: Person, arguments: dict[str, str]
) -> None:
    found = await refusal(client, person, **arguments)
    assert found["code"] == "VALIDATION_ERROR"
    assert found["details"]["path"]


async def test_a_repository_elsewhere_is_looked_at_in_the_sandbox_and_forgotten(
    client: GraphQLClient, person: Person, remote: GitRemote, programs: Programs
) -> None:
    await remote.push_folder("team/vite", APPS / "vite-react")
    found = await detected(client, person, repository=remote.url("team/vite"))
    assert found["framework"] == "VITE"
    assert (found["installCommand"], found["buildCommand"]) == ("npm ci", "npm run build")
    assert (found["outputDirectory"], found["spaFallback"]) == ("dist", True)
    assert left_over(programs) == []


async def test_a_branch_and_a_folder_of_it_can_be_looked_at(
    client: GraphQLClient, person: Person, remote: GitRemote
) -> None:
    await remote.create("team/mono", {"index.html": "x"})
    await remote.commit("team/mono", {"apps/web/package.json": PACKAGE}, branch="next")
    arguments = {"repository": remote.url("team/mono"), "branch": "next", "rootDirectory": "apps/web"}
    assert (await detected(client, person, **arguments))["framework"] == "VITE"
    missing = await refusal(client, person, **{**arguments, "rootDirectory": "apps/none"})
    assert (missing["code"], missing["details"]["path"]) == ("VALIDATION_ERROR", ["rootDirectory"])


async def test_a_repository_that_cannot_be_cloned_says_why(
    client: GraphQLClient, person: Person, remote: GitRemote, programs: Programs
) -> None:
    await remote.create("team/secret", {"index.html": "x"})
    remote.require_token("team/secret", "s3cret")
    found = await refusal(client, person, repository=remote.url("team/secret"))
    assert found["code"] == "VALIDATION_ERROR"
    assert "login" in found["message"]
    unknown = await refusal(client, person, repository=remote.url("team/mono"), branch="no-such")
    assert "no-such" in unknown["message"]
    assert left_over(programs) == []


async def test_a_connected_account_is_asked_file_by_file(client: GraphQLClient, github: GitHubServer) -> None:
    person, login = await new_user(client), f"octo-{secrets.token_hex(5)}"
    files = {"web/package.json": PACKAGE, "web/package-lock.json": "{}", "docs/conf.py": "", "README.md": "x"}
    github.add_repository(f"{login}/app", is_private=True, members={login}, files=files)
    await connect(client, person, github, login)
    found = await detected(client, person, repository=f"{login}/app", rootDirectory="web")
    assert (found["framework"], found["installCommand"]) == ("VITE", "npm ci")
    read = {call.path for call in github.calls_of("GET", f"/repos/{login}/app/contents")}
    assert not any(path.endswith("package-lock.json") for path in read), "that it is there is enough"
    assert not any("README" in path for path in read)
    missing = await refusal(client, person, repository=f"{login}/none")
    assert (missing["code"], missing["details"]["path"]) == ("VALIDATION_ERROR", ["repository"])
    github.fail(Fault.BROKEN, f"/repos/{login}/app", times=10)
    broken = await refusal(client, person, repository=f"{login}/app")
    assert broken["code"] == "SERVICE_UNAVAILABLE"
