"""Moving an address while visitors are there: no mixture, no error, no step back; also where nobody is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from models import site_queries
from models.deployments import DeploymentTrigger
from models.site_paths import read_label
from tests.conftest import ApiServer
from tests.harness.sites import SiteDeployment, SiteDesk, SiteProject, open_site_desk
from tests.harness.waiting import eventually

PROMOTIONS = 200


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteDesk]:
    async with open_site_desk(settings_env, tmp_path_factory.mktemp("outputs")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def clients(api_server: ApiServer) -> AsyncIterator[list[httpx.AsyncClient]]:
    """One on each of two API processes."""
    second = await api_server.second()
    async with (
        httpx.AsyncClient(base_url=api_server.url, timeout=10, trust_env=False) as one,
        httpx.AsyncClient(base_url=second.url, timeout=10, trust_env=False) as other,
    ):
        yield [one, other]


def site(name: str) -> dict[str, str | bytes]:
    """A page and the script that belongs to it; the script's name comes from its content, as bundlers do."""
    script = f"window.version = '{name}';"
    digest = hashlib.sha256(script.encode()).hexdigest()[:10]
    return {
        "index.html": f'<script src="/assets/app-{digest}.js"></script><b>{name}</b>',
        f"assets/app-{digest}.js": script,
        "version.txt": name,
        "_redirects": "/* /index.html 200",
    }


def script_of(page: str) -> str:
    found = re.search(r'src="([^"]+)"', page)
    assert found is not None
    return found[1]


async def get(client: httpx.AsyncClient, project: SiteProject, path: str) -> httpx.Response:
    return await client.get(path, headers={"Host": f"{project.slug}.localhost"})


async def version(client: httpx.AsyncClient, project: SiteProject) -> str:
    return (await get(client, project, "/version.txt")).text


async def live(project: SiteProject) -> UUID | None:
    label = read_label(project.slug)
    assert label is not None
    target = await site_queries.site_of_label(label)
    return target.deployment_id if target else None


@pytest.mark.parametrize("quietly", [False, True], ids=["told", "untold"])
async def test_visitors_never_see_a_mixture_or_an_error(
    desk: SiteDesk, clients: list[httpx.AsyncClient], quietly: bool
) -> None:
    project = await desk.project()
    deployments = [await desk.deploy(project, site(name)) for name in ("old", "new")]
    seen: set[str] = set()
    over = asyncio.Event()

    async def visitor(number: int) -> int:
        loads = 0
        while not over.is_set() or loads == 0:
            # The page from one process, its script from the other one, as behind a balancer.
            page = await get(clients[number % 2], project, "/")
            script = await get(clients[(number + loads) % 2], project, script_of(page.text))
            assert (page.status_code, script.status_code) == (200, 200)
            (name,) = re.findall(r"<b>(\w+)</b>", page.text)
            assert script.text == f"window.version = '{name}';"
            assert script.headers["content-type"].startswith("text/javascript")
            seen.add(name)
            loads += 1
        return loads

    async def promoter() -> None:
        try:
            for number in range(PROMOTIONS):
                publication = await desk.promote(deployments[number % 2], quietly=quietly)
                assert publication.is_live
        finally:
            over.set()

    async with asyncio.TaskGroup() as group:
        visitors = [group.create_task(visitor(number)) for number in range(4)]
        group.create_task(promoter())
    assert sum(task.result() for task in visitors) > 20
    assert seen == {"old", "new"} or quietly
    for client in clients:
        await eventually(partial(_shows, client, project, "new"), 4)


async def _shows(client: httpx.AsyncClient, project: SiteProject, name: str) -> bool:
    return await version(client, project) == name


async def test_a_move_is_seen_at_once_by_all_processes(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    first, second = await desk.deploy(project, site("one")), await desk.deploy(project, site("two"))
    for name, deployment in (("one", first), ("two", second)) * 5:
        await desk.promote(deployment)
        for client in clients:
            await eventually(partial(_shows, client, project, name), 0.5)


async def test_a_first_deployment_appears_where_nobody_was(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    assert (await get(clients[0], project, "/version.txt")).status_code == 404
    await desk.deploy(project, site("here"))
    await eventually(lambda: _shows(clients[0], project, "here"), 0.5)


async def test_a_move_that_nobody_was_told_of_is_seen_within_two_seconds(
    desk: SiteDesk, clients: list[httpx.AsyncClient]
) -> None:
    project = await desk.project()
    first = await desk.deploy(project, site("before"))
    await desk.deploy(project, site("after"))
    await eventually(lambda: _shows(clients[0], project, "after"))
    await desk.promote(first, quietly=True)
    await eventually(lambda: _shows(clients[0], project, "before"), 2)


# -- files of before


async def test_a_page_loaded_before_the_move_finds_its_files(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    await desk.deploy(project, site("before"))
    page = (await get(clients[0], project, "/")).text
    for number in range(3):
        await desk.deploy(project, site(f"after{number}"))
    await eventually(lambda: _shows(clients[0], project, "after2"))
    script = await get(clients[0], project, script_of(page))
    assert (script.status_code, script.text) == (200, "window.version = 'before';")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (
        script.headers["x-switchyard-deployment"]
        != (await get(clients[0], project, "/")).headers["x-switchyard-deployment"]
    )


async def test_only_fingerprinted_files_come_from_before(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    await desk.deploy(
        project, {"index.html": "1", "secret.html": "x", "secret.txt": "x", "old.js": "x", "report-12345678.pdf": "x"}
    )
    await desk.deploy(project, {"index.html": "2", "version.txt": "2"})
    await eventually(lambda: _shows(clients[0], project, "2"))
    for path in ("/secret.html", "/secret", "/secret.txt", "/old.js", "/report-12345678.pdf"):
        assert (await get(clients[0], project, path)).status_code == 404


async def test_files_of_a_day_ago_are_gone(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    before = await desk.deploy(project, site("before"))
    page = (await get(clients[0], project, "/")).text
    await desk.deploy(project, {"index.html": "2", "version.txt": "2"})
    await desk.pool.execute("ALTER TABLE site_publications DISABLE TRIGGER site_publications_append_only")
    await desk.pool.execute(
        "UPDATE site_publications SET at = at - interval '25 hours' WHERE project_id = $1", project.id
    )
    await desk.pool.execute("ALTER TABLE site_publications ENABLE TRIGGER site_publications_append_only")
    await eventually(lambda: _shows(clients[0], project, "2"))
    assert (await get(clients[0], project, script_of(page))).status_code == 404
    own = await clients[0].get(script_of(page), headers={"Host": f"{before.label}.localhost"})
    assert own.status_code == 200


async def test_files_of_a_deployment_that_was_removed_are_gone(
    desk: SiteDesk, clients: list[httpx.AsyncClient]
) -> None:
    project = await desk.project()
    before = await desk.deploy(project, site("before"))
    page = (await get(clients[0], project, "/")).text
    await desk.deploy(project, {"index.html": "2", "version.txt": "2"})
    await desk.remove(before)
    await eventually(lambda: _shows(clients[0], project, "2"))
    assert (await get(clients[0], project, script_of(page))).status_code == 404


async def test_a_deployments_own_address_shows_itself_only(desk: SiteDesk, clients: list[httpx.AsyncClient]) -> None:
    project = await desk.project()
    await desk.deploy(project, site("before"))
    page = (await get(clients[0], project, "/")).text
    after = await desk.deploy(project, {"index.html": "2"})
    answer = await clients[0].get(script_of(page), headers={"Host": f"{after.label}.localhost"})
    assert answer.status_code == 404


# -- who wins


async def moves(desk: SiteDesk, project: SiteProject) -> list[tuple[UUID, UUID | None]]:
    found = await desk.pool.fetch(
        "SELECT deployment_id, previous_id FROM site_publications WHERE project_id = $1 ORDER BY id", project.id
    )
    return [(row["deployment_id"], row["previous_id"]) for row in found]


async def test_an_older_build_never_replaces_a_newer_one(desk: SiteDesk) -> None:
    project = await desk.project()
    older, newer = await desk.running(project), await desk.running(project)
    await desk.finish(newer, site("newer"))
    await desk.finish(older, site("older"))
    assert await live(project) == newer.id
    assert await moves(desk, project) == [(newer.id, None)]


async def test_a_build_asked_for_before_a_rollback_does_not_undo_it(desk: SiteDesk) -> None:
    project = await desk.project()
    good = await desk.deploy(project, site("good"))
    bad = await desk.deploy(project, site("bad"))
    waiting = await desk.running(project)
    publication = await desk.promote(good)
    assert (publication.is_live, publication.has_moved, publication.previous_id) == (True, True, bad.id)
    await desk.finish(waiting, site("waiting"))
    assert await live(project) == good.id
    later = await desk.deploy(project, site("later"))
    assert await live(project) == later.id


async def test_promoting_what_is_live_keeps_older_builds_out(desk: SiteDesk) -> None:
    project = await desk.project()
    good = await desk.deploy(project, site("good"))
    waiting = await desk.running(project)
    publication = await desk.promote(good)
    assert (publication.is_live, publication.has_moved) == (True, False)
    await desk.finish(waiting, site("waiting"))
    assert await live(project) == good.id
    assert await moves(desk, project) == [(good.id, None)]


async def test_publishing_again_after_a_lost_answer_is_one_move(desk: SiteDesk) -> None:
    project = await desk.project()
    deployment = await desk.deploy(project, site("x"))
    publication = await desk.publish(deployment)
    assert (publication.is_live, publication.has_moved) == (True, False)
    assert await moves(desk, project) == [(deployment.id, None)]


async def test_of_builds_that_end_at_once_the_newest_stays(desk: SiteDesk) -> None:
    for _ in range(10):
        project = await desk.project()
        builds = [await desk.running(project) for _ in range(4)]
        await asyncio.gather(*(desk.publish(build) for build in reversed(builds)))
        assert await live_row(desk, project) == builds[-1].id
        history = await moves(desk, project)
        assert history[-1][0] == builds[-1].id
        order = [builds.index(next(build for build in builds if build.id == moved)) for moved, _ in history]
        assert order == sorted(order)


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("is_newer_faster", [True, False], ids=["newer first", "older first"])
async def test_a_move_that_waits_for_another_one_sees_it(desk: SiteDesk, is_first: bool, is_newer_faster: bool) -> None:
    project = await desk.project()
    if not is_first:
        await desk.deploy(project, site("before"))
    older, newer = await desk.running(project), await desk.running(project)
    faster, slower = (newer, older) if is_newer_faster else (older, newer)
    async with desk.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await desk.publish(faster, connection=connection)
        waiting = asyncio.create_task(desk.publish(slower))
        await eventually(lambda: _waits(desk))
        await transaction.commit()
    publication = await waiting
    assert publication.is_live is not is_newer_faster
    assert await live_row(desk, project) == newer.id
    assert [moved for moved, _ in await moves(desk, project)][-1] == newer.id
    if not is_first:
        assert publication.previous_id == faster.id


async def _waits(desk: SiteDesk) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await desk.pool.fetchval(waiting))


async def live_row(desk: SiteDesk, project: SiteProject) -> UUID:
    found: UUID = await desk.pool.fetchval(
        "SELECT deployment_id FROM site_aliases WHERE project_id = $1 AND name = 'production'", project.id
    )
    return found


async def test_each_move_names_the_one_before(desk: SiteDesk) -> None:
    project = await desk.project()
    deployments = [await desk.deploy(project, site(str(number))) for number in range(4)]
    await asyncio.gather(*(desk.promote(deployments[number % 4], quietly=True) for number in range(20)))
    history = await moves(desk, project)
    for (moved, _), (_, previous) in itertools.pairwise(history):
        assert previous == moved


@pytest.mark.parametrize("what", ["running", "failed", "another project's"])
async def test_what_was_not_built_here_cannot_be_promoted(desk: SiteDesk, what: str) -> None:
    project = await desk.project()
    good = await desk.deploy(project, site("good"))
    other = await desk.running(project)
    if what == "failed":
        await desk.pool.execute(
            """UPDATE executions SET status = 'FAILED', finished_at = now(), worker = NULL, lease_until = NULL,
                   failure_code = 'INTERNAL' WHERE id = $1""",
            other.id,
        )
    elif what == "another project's":
        elsewhere = await desk.deploy(await desk.project(), site("elsewhere"))
        other = SiteDeployment(elsewhere.id, project, elsewhere.site_key, elsewhere.queued_at)
    publication = await desk.promote(other)
    assert (publication.is_live, publication.has_moved) == (False, False)
    assert await live(project) == good.id
    assert await moves(desk, project) == [(good.id, None)]


async def test_a_move_says_why_and_by_whom(desk: SiteDesk) -> None:
    project = await desk.project()
    await desk.deploy(project, site("a"))
    second = await desk.deploy(project, site("b"), alias=None)
    await site_queries.promote(
        project_id=project.id,
        alias="production",
        deployment_id=second.id,
        reason=DeploymentTrigger.MANUAL,
        user_id=project.owner_id,
    )
    row = await desk.pool.fetchrow(
        "SELECT reason, user_id FROM site_publications WHERE project_id = $1 ORDER BY id DESC LIMIT 1", project.id
    )
    assert (row["reason"], row["user_id"]) == ("MANUAL", project.owner_id)
