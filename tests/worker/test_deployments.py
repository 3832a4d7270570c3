"""Deployments as users make them: real repositories, sandboxes and workers, and one outcome whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import ApiServer, Programs
from tests.harness.client import GraphQLClient
from tests.harness.deploying import Deploying, open_deploying
from tests.harness.git_remote import APPS, GitRemote

SETTINGS = {
    "GIT_PROTOCOLS": "https,http",
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "4",
    "MAX_BUILDS_PER_USER": "4",
    "BUILD_OUTPUT_MEGABYTES": "8",
    "BUILD_OUTPUT_FILES": "200",
    "BUILD_LOG_MEGABYTES": "1",
}


@pytest_asyncio.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitRemote]:
    async with GitRemote(tmp_path_factory.mktemp("remote")) as running:
        yield running


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], remote: GitRemote) -> dict[str, str]:
    return {**settings_env, "BUILD_ALLOWED_HOSTS": remote.allowed_host}


@pytest_asyncio.fixture(scope="module")
async def deploying(
    remote: GitRemote, api_server: ApiServer, client: GraphQLClient, programs: Programs
) -> AsyncIterator[Deploying]:
    async with open_deploying(client, api_server, programs, remote) as ready:
        await ready.worker()
        yield ready


async def test_a_plain_site_goes_live_without_a_build(deploying: Deploying) -> None:
    site = await deploying.site(APPS / "plain")
    made = await deploying.deployed(site)
    assert made["isLive"] and made["progress"] == 100 and made["number"] == 1
    assert made["environment"] == "PRODUCTION" and made["currentStage"] is None
    assert [stage["status"] for stage in made["stages"]] == ["SUCCEEDED"] * 3
    page = await deploying.get(site.url)
    assert page.status_code == 200
