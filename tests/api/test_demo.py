"""Sample data, made and taken away by the command, and looked at as its user does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from models.ids import decode_id
from tests.conftest import WorkerFactory
from tests.factories import LOGIN, Person, new_user
from tests.harness.client import GraphQLClient
from tests.harness.databases import mentions
from tests.harness.processes import CLI, Program, run_cli
from tests.harness.waiting import eventually

SETTINGS = {"WORKER_CRAWL_SLOTS": "0", "WORKER_BUILD_SLOTS": "0", "WORKER_SCAN_SLOTS": "0"}

LOOK = """{
  me { id username }
  dashboard { deployments { total } projects { total active } jobs { queued } scans { risks } }
  analytics(range: {preset: LAST_90_DAYS}) {
    metrics { deployments { value } succeededDeployments { value } failedDeployments { value } jobRuns { value }
      items { value } averageDeploySeconds { value } }
    deploymentStatus { status count }
  }
  projects { totalCount }
  deployments(first: 50) { totalCount edges { node { number status queuedAt history { status } } } }
  jobs { totalCount edges { node { name schedule { isPaused nextRunAt } } } }
  jobRuns(first: 100) { totalCount edges { node { status queuedAt } } }
  scans { totalCount edges { node { status } } }
  notifications { totalCount }
}"""


async def demo(environment: Mapping[str, str], *arguments: str) -> str:
    """What the command printed."""
    return await asyncio.to_thread(run_cli, "demo", *arguments, environment=environment)


async def is_there(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval("SELECT 1 FROM users WHERE username = 'demo' AND deleted_at IS NULL"))


@pytest_asyncio.fixture(scope="module", autouse=True)
async def shipped_tools(settings_env: dict[str, str]) -> None:
    """What `migrate` installs."""
    await asyncio.to_thread(run_cli, "migrate", environment=settings_env)


@pytest.fixture
async def stranger(client: GraphQLClient) -> Person:
    """Whose things nobody touches."""
    return await new_user(client)


async def test_a_month_is_made_once_and_taken_away_without_a_trace(
    client: GraphQLClient,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
    stranger: Person,
    worker_factory: WorkerFactory,
) -> None:
    printed = await demo(settings_env)
    password = re.search(r"Sign in as demo\. Password: (\S+)", printed)
    assert password is not None
    given = {"identifier": "demo", "password": password[1]}
    token = (await client.run(LOGIN, {"input": given}))["login"]["accessToken"]
    found = await client.run(LOOK, token=token)
    await assert_it_adds_up(db, found)

    with pytest.raises(AssertionError, match="there already"):
        await demo(settings_env)
    assert (await client.run(LOOK, token=token))["dashboard"] == found["dashboard"]

    await demo(settings_env, "--remove")
    assert not await is_there(db)
    user_id = decode_id(found["me"]["id"])[1]
    worker_factory()

    async def is_purged() -> bool:
        return await db.fetchval("SELECT 1 FROM users WHERE id = $1", user_id) is None

    await eventually(is_purged, 30)
    assert set(await mentions(db, str(user_id), "demo@switchyard.internal")) <= {"audit_events", "outbox_messages"}
    assert await db.fetchval("SELECT count(*) FROM executions") == 0
    assert (await client.run("{ me { id } }", token=stranger.token))["me"]["id"] == stranger.id
    assert "Sign in as demo" in await demo(settings_env), "it can be made again"


async def assert_it_adds_up(db: asyncpg.Connection, found: dict[str, Any]) -> None:
    """What is shown is what was made, by plain counts."""
    plain = await db.fetchrow(
        """SELECT count(*) FILTER (WHERE kind = 'DEPLOYMENT' AND status = 'SUCCEEDED') AS built,
                  count(*) FILTER (WHERE kind = 'DEPLOYMENT' AND status = 'FAILED') AS failed,
                  count(*) FILTER (WHERE kind = 'DEPLOYMENT') AS deployments,
                  count(*) FILTER (WHERE kind = 'CRAWL') AS runs,
                  (SELECT sum(items_scraped) FROM job_runs) AS items
           FROM executions"""
    )
    metrics = {name: each["value"] for name, each in found["analytics"]["metrics"].items()}
    assert (plain["deployments"] > 60, plain["runs"] > 60, plain["failed"] > 3) == (True, True, True)
    assert found["dashboard"]["deployments"]["total"] == metrics["deployments"] == plain["deployments"]
    assert (metrics["succeededDeployments"], metrics["failedDeployments"]) == (plain["built"], plain["failed"])
    assert (metrics["jobRuns"], metrics["items"]) == (plain["runs"], plain["items"])
    assert (found["projects"]["totalCount"], found["deployments"]["totalCount"]) == (2, plain["deployments"])
    for edge in found["deployments"]["edges"]:
        assert edge["node"]["history"][-1]["status"] == edge["node"]["status"]
    assert_newest_first(found["deployments"])
    assert_newest_first(found["jobRuns"])
    assert found["jobRuns"]["totalCount"] == plain["runs"]
    schedules = [edge["node"]["schedule"] for edge in found["jobs"]["edges"]]
    assert schedules == [{"isPaused": True, "nextRunAt": None}] * 3
    assert [edge["node"]["status"] for edge in found["scans"]["edges"]] == ["QUEUED", "QUEUED"]
    assert found["notifications"]["totalCount"] == 0, "it was long ago"


def assert_newest_first(connection: dict[str, Any]) -> None:
    asked = [edge["node"]["queuedAt"] for edge in connection["edges"]]
    assert asked == sorted(asked, reverse=True)


async def test_cut_off_it_leaves_nothing(
    db: asyncpg.Connection, settings_env: dict[str, str], tmp_path: Any, database_url: str
) -> None:
    if await is_there(db):
        await db.execute(
            "UPDATE users SET username = 'other', username_key = 'other', email_key = 'o' WHERE username = 'demo'"
        )
    before = await db.fetchval("SELECT count(*) FROM executions")
    blocking = await asyncpg.connect(database_url)
    try:
        async with blocking.transaction():
            await blocking.execute("LOCK TABLE scans IN EXCLUSIVE MODE")
            doomed = Program((CLI, "demo"), environment=settings_env, log=tmp_path / "demo.log")

            async def waits() -> bool:
                return bool(
                    await db.fetchval(
                        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'scans'::regclass"
                        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    )
                )

            await eventually(waits, 30, what=str(doomed.log_tail()))
            doomed.kill()
            await doomed.wait_exit()
    finally:
        await blocking.close()
    assert not await is_there(db)
    assert await db.fetchval("SELECT count(*) FROM executions") == before
