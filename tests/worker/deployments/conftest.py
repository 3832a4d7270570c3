"""Fixtures of the tests of deployments: a git server, settings that open it, somebody who deploys, a worker.

A module adds to the settings of its programs with its own `SETTINGS`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conftest import ApiServer, Programs
from tests.factories import new_user
from tests.harness.client import GraphQLClient
from tests.harness.deploying import Deploying
from tests.harness.git_remote import GitRemote

DEPLOYMENT_SETTINGS = {
    "GIT_PROTOCOLS": "https,http",
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "4",
    "MAX_BUILDS_PER_USER": "4",
}


@pytest_asyncio.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitRemote]:
    """The module's git server."""
    async with GitRemote(tmp_path_factory.mktemp("remote")) as running:
        yield running


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], remote: GitRemote) -> dict[str, str]:
    """The module's settings, with the git server opened to clones."""
    opened = ",".join(filter(None, (settings_env.get("BUILD_ALLOWED_HOSTS"), remote.allowed_host)))
    return {**DEPLOYMENT_SETTINGS, **settings_env, "BUILD_ALLOWED_HOSTS": opened}


@pytest_asyncio.fixture(scope="module")
async def deploying(
    remote: GitRemote, api_server: ApiServer, client: GraphQLClient, programs: Programs
) -> AsyncIterator[Deploying]:
    """Somebody with an account and a worker that builds."""
    ready = Deploying(client, api_server, programs, remote)
    ready.owner = await new_user(client)
    await ready.worker()
    try:
        yield ready
    finally:
        await ready.close()
