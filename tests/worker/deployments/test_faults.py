"""Deployments under fire: cancelled, killed, frozen, raced. One outcome each, nothing published twice, nothing left."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from pathlib import Path
from typing import Any

import asyncpg

from models.ids import decode_id
from tests.factories import new_user
from tests.harness.client import GraphQLClient
from tests.harness.deploying import Deploying, Site
from tests.harness.processes import Program
from tests.harness.waiting import eventually, leftover_processes

CANCEL = """
mutation Cancel($input: CancelDeploymentInput!) {
  cancelDeployment(input: $input) { deployment { id status cancelRequestedAt } }
}
"""
# Leaves daemons that belong to no session and no parent any more, then works on.
STUBBORN = (
    "trap '' TERM; for n in 1 2 3; do (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' &) ; done; "
    "echo started-{mark}; while :; do sleep 1; done"
)


def workspaces(deploying: Deploying) -> list[str]:
    """Folders of builds that are there."""
    folder = Path(deploying.programs.environment["DATA_DIR"]) / "builds"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def worker_of(deploying: Deploying) -> Program:
    """The worker that lives."""
    living = [
        program for program in deploying.programs.started if program.argv[-1] == "worker" and program.exit_code is None
    ]
    assert len(living) == 1
    return living[0]


async def stubborn(deploying: Deploying) -> tuple[Site, str]:
    """A project whose build never ends and does not want to be ended; the mark on its processes."""
    mark = secrets.token_hex(6)
    site = await deploying.site(
        {"readme.txt": "x"}, installCommand="", buildCommand=STUBBORN.format(mark=mark), outputDirectory="out"
    )
    return site, f"started-{mark}"


async def test_cancelled_means_that_nothing_of_the_build_runs_any_more(deploying: Deploying) -> None:
    site, mark = await stubborn(deploying)
    deployment = await deploying.deploy(site)
    await deploying.until_line(deployment, mark)
    assert leftover_processes(mark)
    asked = time.monotonic()
    answer = (await deploying.run(CANCEL, input={"id": deployment}))["cancelDeployment"]["deployment"]
    assert answer["cancelRequestedAt"] is not None
    found = await deploying.ended(deployment, within=5)
    assert time.monotonic() - asked < 5
    assert found["status"] == "CANCELLED"
    assert leftover_processes(mark) == {}
    assert [step["status"] for step in found["steps"] if step["name"] == "BUILDING"] == ["CANCELLED"]
    assert (await deploying.get(site.url)).status_code == 404
    assert not any(decode_id(deployment)[1].hex in name.replace("-", "") for name in workspaces(deploying))
    again = (await deploying.run(CANCEL, input={"id": deployment}))["cancelDeployment"]["deployment"]
    assert again["status"] == "CANCELLED"


async def test_a_deployment_that_waits_is_cancelled_at_once(deploying: Deploying) -> None:
    site, mark = await stubborn(deploying)
    first = await deploying.deploy(site)
    await deploying.until_line(first, mark)
    second = await deploying.deploy(site)
    answer = (await deploying.run(CANCEL, input={"id": second}))["cancelDeployment"]["deployment"]
    assert answer["status"] == "CANCELLED"
    assert (await deploying.read(first))["status"] == "RUNNING"
    await deploying.run(CANCEL, input={"id": first})
    await deploying.ended(first)


async def test_a_build_whose_worker_is_killed_is_made_again_from_the_same_commit_and_published_once(
    deploying: Deploying, db: asyncpg.Connection
) -> None:
    mark = secrets.token_hex(6)
    site = await deploying.site(
        {"v.txt": "first"},
        installCommand="",
        buildCommand=f"echo building-{mark}; sleep 2; mkdir out; cp v.txt out/index.html",
        outputDirectory="out",
    )
    commit = await deploying.remote.tip(site.repository)
    deployment = await deploying.deploy(site)
    await deploying.until_line(deployment, f"building-{mark}")
    await deploying.remote.commit(site.repository, {"v.txt": "second"})
    worker_of(deploying).kill()
    await eventually(lambda: not leftover_processes(f"building-{mark}"), 3, what="the end of the killed worker's build")
    await deploying.worker()
    found = await deploying.ended(deployment)
    assert (found["status"], found["attempt"], found["commitHash"]) == ("SUCCEEDED", 2, commit)
    assert (await deploying.get(site.url)).text == "first"
    moves = await db.fetch("SELECT 1 FROM site_publications WHERE project_id = $1", decode_id(site.id)[1])
    assert len(moves) == 1
    files = await db.fetchval(
        "SELECT count(*) FROM deployment_files WHERE deployment_id = $1", decode_id(deployment)[1]
    )
    assert files == 1
    await eventually(lambda: workspaces(deploying) == [], 5, what="the removal of both attempts' folders")
    log = await deploying.log(deployment)
    assert any(line.startswith("Attempt 2 starts") for line in log)


async def test_a_frozen_worker_publishes_nothing_when_it_wakes(deploying: Deploying, db: asyncpg.Connection) -> None:
    mark = secrets.token_hex(6)
    site = await deploying.site(
        {"v.txt": "x"},
        installCommand="",
        buildCommand=f"echo building-{mark}; sleep 1; mkdir out; cp v.txt out/index.html",
        outputDirectory="out",
    )
    frozen = worker_of(deploying)
    deployment = await deploying.deploy(site)
    await deploying.until_line(deployment, f"building-{mark}")
    frozen.freeze()
    await deploying.worker()
    found = await deploying.ended(deployment)
    assert (found["status"], found["attempt"]) == ("SUCCEEDED", 2)
    frozen.thaw()
    await frozen.wait_event("lease_lost", execution_id=str(decode_id(deployment)[1]))
    assert (await deploying.read(deployment)) == found
    assert len(await db.fetch("SELECT 1 FROM site_publications WHERE project_id = $1", decode_id(site.id)[1])) == 1
    await frozen.stop()


async def test_a_worker_that_is_told_to_stop_hands_its_build_over_unspent(deploying: Deploying) -> None:
    mark = secrets.token_hex(6)
    site = await deploying.site(
        {"v.txt": "x"},
        installCommand="",
        buildCommand=f"echo building-{mark}; sleep 2; mkdir out; cp v.txt out/index.html",
        outputDirectory="out",
    )
    first = worker_of(deploying)
    deployment = await deploying.deploy(site)
    await deploying.until_line(deployment, f"building-{mark}")
    await first.stop()
    assert (await deploying.read(deployment))["status"] == "QUEUED"
    assert leftover_processes(f"building-{mark}") == {}
    await deploying.worker()
    assert (await deploying.ended(deployment))["status"] == "SUCCEEDED"


async def test_deployments_of_one_address_are_built_in_order_and_users_take_turns(
    deploying: Deploying, client: GraphQLClient, db: asyncpg.Connection
) -> None:
    other = await new_user(client)
    build: dict[str, Any] = {
        "installCommand": "",
        "buildCommand": "mkdir out; echo x > out/index.html",
        "outputDirectory": "out",
    }
    many = [await deploying.site({"a": str(number)}, **build) for number in range(3)]
    few = await deploying.site({"b": "1"}, person=other, **build)
    worker = worker_of(deploying)
    await worker.stop()
    queued = [(site, await deploying.deploy(site)) for _ in range(6) for site in many]
    queued += [(few, await deploying.deploy(few, person=other)) for _ in range(3)]
    await deploying.worker(WORKER_BUILD_SLOTS="2")
    ids = [decode_id(deployment)[1] for _, deployment in queued]

    async def all_done() -> bool:
        left = await db.fetchval(
            "SELECT count(*) FROM executions WHERE id = ANY($1::uuid[]) AND finished_at IS NULL", ids
        )
        return bool(left == 0)

    await eventually(all_done, 60, what="the end of all deployments")
    rows = await db.fetch(
        """SELECT e.status, e.started_at, e.finished_at, d.number, d.project_id, e.owner_id FROM executions e
           JOIN deployments d ON d.execution_id = e.id WHERE e.id = ANY($1::uuid[]) ORDER BY e.started_at""",
        ids,
    )
    assert {row["status"] for row in rows} == {"SUCCEEDED"}
    for project in {row["project_id"] for row in rows}:
        mine = [row for row in rows if row["project_id"] == project]
        assert [row["number"] for row in mine] == sorted(row["number"] for row in mine)
        for earlier, later in itertools.pairwise(mine):
            assert earlier["finished_at"] <= later["started_at"]
    owners = [row["owner_id"] for row in rows]
    last_of_few = max(place for place, owner in enumerate(owners) if owner == decode_id(other.id)[1])
    assert last_of_few < 10, "three of one user are not held up by eighteen of another"


async def test_two_builds_of_a_project_do_not_share_a_cache_at_the_same_time(deploying: Deploying) -> None:
    mark = secrets.token_hex(6)
    build = f"echo building-{mark}; echo $XDG_CACHE_HOME; sleep 2; mkdir out; echo x > out/index.html"
    site = await deploying.site({"a": "1"}, installCommand="", buildCommand=build, outputDirectory="out")
    await deploying.remote.commit(site.repository, {"a": "2"}, branch="other")
    one, two = await asyncio.gather(deploying.deploy(site), deploying.deploy(site, branch="other"))
    ended = await asyncio.gather(deploying.ended(one), deploying.ended(two))
    assert [found["status"] for found in ended] == ["SUCCEEDED", "SUCCEEDED"]
    logs = await deploying.log(one) + await deploying.log(two)
    assert sum("has the dependency cache" in line for line in logs) == 1
