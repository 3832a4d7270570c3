"""Deployments through the API: asked for, replaced, repeated, promoted, removed, listed and followed.

No worker runs: they wait, or are driven by rows as workers drive them. What builds do is in tests/worker/.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from errors import NotFound, ValidationFailed
from models import leases, site_queries
from models.deployments import DeploymentTrigger
from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, encode_id
from models.permissions import Actor
from models.projects import DeploymentEnvironment
from models.sites import PRODUCTION_ALIAS
from resolvers import deployments
from resolvers.deployment_queue import Source, alias_of
from schema import log_downloads
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, subscribe
from tests.harness.executions import Desk, numbered, settings_of
from tests.harness.projects import (
    CANCEL,
    DELETE_DEPLOYMENT,
    DEPLOY,
    DEPLOYMENT,
    NODES,
    ONE_DEPLOYMENT,
    PROMOTE,
    REDEPLOY,
    UPDATE,
    Studio,
    deployment_id_of,
    open_studio,
    uuid,
)
from tests.harness.waiting import eventually
from tests.harness.wire import Wire

MAX_QUEUED = 60
SETTINGS = {"MAX_QUEUED_PER_USER": str(MAX_QUEUED), "MAX_PROJECTS_PER_USER": "1000"}

COMMIT = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
LIST = """
query ($filter: DeploymentFilter, $first: Int, $after: String, $last: Int, $before: String) {
  it: deployments(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
FULL_LIST = """
query ($first: Int) {
  it: deployments(first: $first) { edges { node {
    id project { id owner { id } } stages { name status } steps { name } requestedBy { id } supersededBy { id }
  } } }
}
"""
RECENT = "query ($first: Int! = 5) { it: recentDeployments(first: $first) { id } }"
LOG_URL = "query ($id: ID!) { it: deployment(id: $id) { logUrl } }"


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest.fixture
def desk(studio: Studio) -> Desk:
    return studio.desk


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture
async def project(studio: Studio, person: Person) -> dict[str, Any]:
    return await studio.project(person)


async def refused_input(studio: Studio, person: Person, document: str, **fields: Any) -> GraphQLFailure:
    return await studio.refused(person, document, input=fields)


async def succeeded(studio: Studio, person: Person, project_id: str, **fields: Any) -> str:
    """A deployment that is built, and that no address leads to."""
    made = await studio.deployment(person, project_id, **fields)
    await studio.finish(made["id"])
    return str(made["id"])


# -- who


async def commands_on(id_: str) -> list[tuple[str, dict[str, Any]]]:
    commands = [(document, {"input": {"id": id_}}) for document in (CANCEL, REDEPLOY, PROMOTE, DELETE_DEPLOYMENT)]
    return [(ONE_DEPLOYMENT, {"id": id_}), *commands]


async def test_nobody_sees_and_changes_nothing(studio: Studio, person: Person, project: dict[str, Any]) -> None:
    waiting = (await studio.deployment(person, project["id"]))["id"]
    built = await succeeded(studio, person, project["id"])
    questions: list[tuple[str, dict[str, Any]]] = [
        (LIST, {}), (RECENT, {}), (DEPLOY, {"input": {"projectId": project["id"]}}),
    ]  # fmt: skip
    for document, variables in [*questions, *await commands_on(waiting), *await commands_on(built)]:
        assert (await studio.refused(None, document, **variables)).code == "UNAUTHORIZED"
    assert await studio.run(None, NODES, ids=[waiting, built]) == [None, None]
    assert await deployments.page(Actor(), limit=10) == []
    assert await deployments.count(Actor()) == 0
    assert await deployments.find(Actor(), [uuid(waiting)]) == {}


async def test_deployments_of_others_do_not_exist(
    studio: Studio, person: Person, project: dict[str, Any], client: GraphQLClient
) -> None:
    other = await new_user(client)
    waiting = (await studio.deployment(person, project["id"]))["id"]
    built = await succeeded(studio, person, project["id"])
    foreign = encode_id(Prefix.RUN, uuid(waiting))
    answers = set()
    for id_ in (waiting, built, foreign, project["id"], encode_id(Prefix.DEPLOYMENT, NOBODYS_ID), "nonsense", ""):
        for document, variables in await commands_on(id_):
            failure = await studio.refused(other, document, **variables)
            answers.add((failure.errors[0]["message"], failure.code))
    for id_ in (project["id"], waiting, "nonsense"):
        failure = await refused_input(studio, other, DEPLOY, projectId=id_)
        answers.add((failure.errors[0]["message"], failure.code))
    assert [code for _, code in answers] == ["NOT_FOUND"]
    assert await studio.run(other, NODES, ids=[waiting, built, foreign, "dep_", "nonsense"]) == [None] * 5
    assert (await studio.run(other, LIST))["totalCount"] == 0
    assert (await studio.run(other, LIST, filter={"projectId": project["id"]}))["edges"] == []
    assert await studio.run(other, RECENT) == []


async def test_id_of_one_kind_opens_no_execution_of_another(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    run = await desk.queued(person)
    deployment = (await studio.deployment(person, project["id"]))["id"]
    for document, variables in await commands_on(deployment_id_of(run)):
        assert (await studio.refused(person, document, **variables)).code == "NOT_FOUND"
    as_run = encode_id(Prefix.RUN, uuid(deployment))
    failure = await studio.refused(person, "query ($id: ID!) { it: jobRun(id: $id) { id } }", id=as_run)
    assert failure.code == "NOT_FOUND"
    stop = "mutation ($input: CancelJobRunInput!) { it: cancelJobRun(input: $input) { run { id } } }"
    assert (await refused_input(studio, person, stop, id=as_run)).code == "NOT_FOUND"
    assert await studio.run(person, NODES, ids=[as_run, deployment_id_of(run)]) == [None, None]


async def test_administrators_see_and_may_everything(
    studio: Studio, person: Person, project: dict[str, Any], admin: Person
) -> None:
    made = await studio.deployment(admin, project["id"])
    assert made["requestedBy"] == {"id": admin.id}
    assert await studio.run(admin, NODES, ids=[made["id"]]) == [{"__typename": "Deployment", "id": made["id"]}]
    assert (await studio.read(person, made["id"]))["requestedBy"] in (None, {"id": admin.id})
    again = (await studio.run(admin, REDEPLOY, input={"id": made["id"]}))["deployment"]
    await studio.run(admin, CANCEL, input={"id": again["id"]})
    await studio.finish(made["id"])
    promoted = (await studio.run(admin, PROMOTE, input={"id": made["id"]}))["deployment"]
    assert promoted["isLive"]
    await studio.run(admin, DELETE_DEPLOYMENT, input={"id": again["id"]})
    assert made["id"] in [edge["node"]["id"] for edge in (await studio.run(admin, LIST))["edges"]]
    owner = await studio.pool.fetchval("SELECT owner_id FROM executions WHERE id = $1", uuid(made["id"]))
    assert owner == uuid(person.id)


# -- asking for one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("commit", commit) for commit in ("6113728", COMMIT[:39], COMMIT + "0", "main", "", "g" * 40, "-" + COMMIT)),
        *(("branch", branch) for branch in ("", "--upload-pack=x", "a..b", "HEAD", "a\nb", "refs/heads/", "a b")),
        *(("idempotencyKey", key) for key in ("", "k" * 256)),
    ],
)
async def test_what_git_could_not_fetch_is_refused(
    studio: Studio, person: Person, project: dict[str, Any], field: str, value: str
) -> None:
    failure = await refused_input(studio, person, DEPLOY, projectId=project["id"], **{field: value})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["input", field])


async def test_numbers_are_without_gap_and_without_double(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    first = await studio.deployment(person, project["id"])
    await refused_input(studio, person, DEPLOY, projectId=project["id"], commit="6113728")
    made = await asyncio.gather(*(studio.deployment(person, project["id"]) for _ in range(20)))
    assert first["number"] == 1
    assert sorted(each["number"] for each in made) == list(range(2, 22))
    assert (await studio.deployment(person, (await studio.project(person))["id"]))["number"] == 1


async def test_deployment_is_of_the_projects_branch_for_production_unless_said_otherwise(
    studio: Studio, person: Person
) -> None:
    project = await studio.project(person, branch="trunk", buildCommand="make", outputDirectory="out")
    wanted: list[tuple[dict[str, Any], str, str]] = [
        ({}, "trunk", "PRODUCTION"),
        ({"branch": "main"}, "main", "PREVIEW"),
        ({"branch": "main", "environment": "PRODUCTION"}, "main", "PRODUCTION"),
        ({"environment": "PREVIEW"}, "trunk", "PREVIEW"),
        ({"branch": "trunk", "commit": f" {COMMIT.upper()} "}, "trunk", "PRODUCTION"),
    ]
    for number, (fields, branch, environment) in enumerate(wanted, start=1):
        made = await studio.deployment(person, project["id"], **fields)
        commit = COMMIT if "commit" in fields else None
        assert made == {
            **made, "status": "QUEUED", "number": number, "environment": environment, "trigger": "MANUAL",
            "branch": branch, "commitHash": commit, "isFork": False, "pullRequest": None, "isLive": False,
            "aliases": [], "currentStage": "QUEUED", "requestedBy": {"id": person.id}, "supersededBy": None,
            "project": {"id": project["id"], "slug": project["slug"]}, "redeployOf": None,
        }  # fmt: skip
        assert made["configuration"] == {
            "rootDirectory": ".", "installCommand": None, "buildCommand": "make", "outputDirectory": "out",
            "spaFallback": None, "installScripts": False, "buildNetwork": True, "submodules": False,
        }  # fmt: skip
        assert re.fullmatch(rf"http://[0-9a-z]{{16}}-{project['slug']}\.localhost:\d+", made["url"])
        assert await studio.is_rung(made["id"])


async def test_what_takes_one_address_has_one_turn(studio: Studio, person: Person, project: dict[str, Any]) -> None:
    other = await studio.project(person)
    made = [
        await studio.deployment(person, project["id"]),
        await studio.deployment(person, project["id"], branch="x", environment="PRODUCTION"),
        await studio.deployment(person, project["id"], branch="x"),
        await studio.deployment(person, other["id"]),
    ]
    keys = [
        await studio.pool.fetchval("SELECT turn_key FROM executions WHERE id = $1", uuid(each["id"])) for each in made
    ]
    first, second = uuid(project["id"]), uuid(other["id"])
    assert keys == [f"{first}:production", f"{first}:production", f"{first}:x", f"{second}:production"]


async def test_too_many_that_wait_are_refused_and_leave_no_number(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    await asyncio.gather(*(studio.deployment(person, project["id"]) for _ in range(MAX_QUEUED)))
    failure = await refused_input(studio, person, DEPLOY, projectId=project["id"], idempotencyKey="k")
    assert failure.code == "RATE_LIMIT_EXCEEDED"
    assert failure.extensions["details"]["limit"] == MAX_QUEUED
    newest = (await studio.run(person, RECENT, first=1))[0]["id"]
    assert (await refused_input(studio, person, REDEPLOY, id=newest)).code == "RATE_LIMIT_EXCEEDED"
    await studio.run(person, CANCEL, input={"id": newest})
    made = await studio.deployment(person, project["id"], idempotencyKey="k")
    assert made["number"] == MAX_QUEUED + 1


async def test_repeat_with_its_key_makes_one_deployment(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    calls = [studio.deployment(person, project["id"], idempotencyKey="k") for _ in range(6)]
    made = await asyncio.gather(*calls)
    assert len({each["id"] for each in made}) == 1
    assert (await studio.deployment(person, project["id"]))["number"] == 2
    other = await studio.project(person)
    for changes in ({"branch": "x"}, {"commit": COMMIT}, {"environment": "PREVIEW"}, {"projectId": other["id"]}):
        fields = {"projectId": project["id"], "idempotencyKey": "k", **changes}
        assert (await refused_input(studio, person, DEPLOY, **fields)).code == "CONFLICT"
    again = [
        (await studio.run(person, REDEPLOY, input={"id": made[0]["id"], "idempotencyKey": "k"}))["deployment"]["id"]
        for _ in range(2)
    ]
    assert again[0] == again[1] != made[0]["id"]
    failure = await refused_input(studio, person, REDEPLOY, id=again[0], idempotencyKey="k")
    assert failure.code == "CONFLICT"


# -- addresses

SLUGS = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True).filter(lambda slug: len(slug) <= 40)
PARTS = st.sampled_from(["pr", "production", "feature", "Feature", "fix", "1", "日本", "é", "x" * 60, "dead00"])
BRANCHES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=240),
    st.lists(PARTS, min_size=1, max_size=4).flatmap(
        lambda parts: st.sampled_from(["-", "/", "--", "_"]).map(lambda joint: joint.join(parts))
    ),
)


def preview(slug: str, branch: str, **more: Any) -> str:
    return alias_of(slug, Source(branch=branch, **more), DeploymentEnvironment.PREVIEW)


@given(slug=SLUGS, first=BRANCHES, second=BRANCHES)
def test_branches_have_addresses_of_their_own_that_fit_a_host_name(slug: str, first: str, second: str) -> None:
    alias = preview(slug, first)
    label = f"{alias}--{slug}"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", alias)
    assert len(label) <= 63
    assert alias != PRODUCTION_ALIAS
    assert not re.fullmatch(r"pr-\d+", alias)
    # Somebody could name a branch as another one's address.
    for other in (second, alias, f"{first}-1", first.upper(), f"x{alias}"):
        assert (preview(slug, other) == alias) is (other == first), other
    assert alias_of(slug, Source(branch=first), DeploymentEnvironment.PRODUCTION) == PRODUCTION_ALIAS
    assert preview(slug, first, pull_request=7) == alias


def test_plain_branch_is_its_own_address_and_a_forks_is_its_pull_request() -> None:
    assert preview("shop", "feature-2") == "feature-2"
    assert preview("shop", "main", pull_request=7, is_fork=True) == "pr-7"
    assert re.fullmatch(r"feature-2-[0-9a-f]{6}", preview("shop", "feature/2"))
    assert re.fullmatch(r"production-[0-9a-f]{6}", preview("shop", "production"))
    assert re.fullmatch(r"pr-7-[0-9a-f]{6}", preview("shop", "pr-7"))
    assert len(preview("s" * 40, "main", pull_request=2**31 - 1, is_fork=True)) + 2 + 40 <= 63


def test_branch_whose_hash_is_digits_is_no_pull_request() -> None:
    spellings = ["".join(("PR", *marks)) for marks in itertools.product("!#$%&+,;=@", repeat=2)]
    aliases = [preview("shop", spelling) for spelling in spellings]
    assert any(re.search(r"-\d{6}$", alias) for alias in aliases)
    assert not any(re.fullmatch(r"pr-\d+", alias) for alias in aliases)


# -- replacing


@pytest.mark.parametrize(
    ("policy", "waiting_after", "running_asked_to_stop"),
    [("NONE", "QUEUED", False), ("QUEUED", "CANCELLED", False), ("ALL", "CANCELLED", True)],
)
async def test_push_replaces_older_ones_as_the_project_says(
    studio: Studio, desk: Desk, person: Person, policy: str, waiting_after: str, running_asked_to_stop: bool
) -> None:
    project = (await studio.project(person, supersede=policy))["id"]
    done = await studio.enqueue(project)
    await studio.finish(done)
    running = await studio.enqueue(project)
    hand = await desk.claim(uuid(running))
    waiting = await studio.enqueue(project)
    newest = await studio.enqueue(project)
    found = [await studio.read(person, id_) for id_ in (done, running, waiting, newest)]
    assert [each["status"] for each in found] == ["SUCCEEDED", "RUNNING", waiting_after, "QUEUED"]
    assert found[0]["supersededBy"] is None
    assert found[3]["supersededBy"] is None
    assert found[2]["supersededBy"] == (None if policy == "NONE" else {"id": newest})
    asked = await studio.pool.fetchval("SELECT cancel_requested_at FROM executions WHERE id = $1", hand.id)
    assert (asked is not None) is running_asked_to_stop
    # The third one replaced it already; who came last is what is shown.
    assert found[1]["supersededBy"] == ({"id": newest} if running_asked_to_stop else None)
    assert [each["trigger"] for each in found] == ["PUSH"] * 4


@pytest.mark.parametrize("trigger", [DeploymentTrigger.PULL_REQUEST, DeploymentTrigger.DEPLOY_HOOK])
async def test_whatever_no_person_asked_for_replaces_and_is_replaced(
    studio: Studio, person: Person, project: dict[str, Any], trigger: DeploymentTrigger
) -> None:
    first = await studio.enqueue(project["id"], trigger=trigger)
    second = await studio.enqueue(project["id"])
    third = await studio.enqueue(project["id"], trigger=trigger)
    assert [(await studio.read(person, id_))["supersededBy"] for id_ in (first, second, third)] == [
        {"id": second}, {"id": third}, None,
    ]  # fmt: skip


async def test_what_a_person_asked_for_is_left_alone_and_replaces_nothing(studio: Studio, person: Person) -> None:
    project = (await studio.project(person, supersede="ALL"))["id"]
    pushed = await studio.enqueue(project)
    manual = (await studio.deployment(person, project))["id"]
    assert (await studio.read(person, pushed))["status"] == "QUEUED"
    again = (await studio.run(person, REDEPLOY, input={"id": manual}))["deployment"]["id"]
    newest = await studio.enqueue(project)
    statuses = [(await studio.read(person, id_))["status"] for id_ in (pushed, manual, again, newest)]
    assert statuses == ["CANCELLED", "QUEUED", "QUEUED", "QUEUED"]


async def test_push_leaves_alone_what_takes_another_address(studio: Studio, person: Person) -> None:
    project = (await studio.project(person, supersede="ALL"))["id"]
    other = (await studio.project(person, supersede="ALL"))["id"]
    preview_ = DeploymentEnvironment.PREVIEW
    fork: dict[str, Any] = {"pull_request": 7, "is_fork": True, "clone_url": "https://git.example.com/fork/site"}
    kept = [
        await studio.enqueue(other),
        await studio.enqueue(project, "next", environment=preview_),
        await studio.enqueue(project, environment=preview_),
        await studio.enqueue(project, environment=preview_, trigger=DeploymentTrigger.PULL_REQUEST, **fork),
        await studio.enqueue(
            project, environment=preview_, trigger=DeploymentTrigger.PULL_REQUEST, **{**fork, "pull_request": 8}
        ),
    ]
    replaced = await studio.enqueue(project)
    await studio.enqueue(project)
    assert [(await studio.read(person, id_))["status"] for id_ in kept] == ["QUEUED"] * len(kept)
    assert (await studio.read(person, replaced))["status"] == "CANCELLED"


async def test_fork_gets_no_variables_and_never_production(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    await studio.set(person, project["id"], {"name": "TOKEN", "value": "secret"})
    before = await studio.state()
    with pytest.raises(ValidationFailed):
        await studio.enqueue(project["id"], is_fork=True, pull_request=7)
    assert await studio.state() == before
    fork = await studio.enqueue(
        project["id"], environment=DeploymentEnvironment.PREVIEW, is_fork=True, pull_request=7,
        clone_url="https://git.example.com/fork/site",
    )  # fmt: skip
    again = (await studio.run(person, REDEPLOY, input={"id": fork}))["deployment"]
    assert (again["isFork"], again["pullRequest"], again["environment"]) == (True, 7, "PREVIEW")
    for id_ in (fork, again["id"]):
        assert await studio.variables(id_) == {}
        row = await studio.pool.fetchrow(
            "SELECT clone_url, alias, sealed_environment FROM deployments WHERE execution_id = $1", uuid(id_)
        )
        assert tuple(row) == ("https://git.example.com/fork/site", "pr-7", None)
        await studio.finish(id_)
        assert (await refused_input(studio, person, PROMOTE, id=id_)).code == "CONFLICT"


async def test_push_to_a_project_that_is_gone_queues_nothing(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    await studio.pool.execute("DELETE FROM projects WHERE id = $1", uuid(project["id"]))
    before = await studio.state()
    with pytest.raises((NotFound, KeyError)):
        await studio.enqueue(project["id"])
    assert await studio.state() == before


# -- repeating


@pytest.mark.parametrize("status", list(ExecutionStatus))
async def test_redeployment_copies_what_was_whatever_has_changed(
    studio: Studio, desk: Desk, person: Person, status: ExecutionStatus
) -> None:
    project = await studio.project(person, buildCommand="old", rootDirectory="app", supersede="NONE")
    await studio.set(person, project["id"], {"name": "A", "value": "old"})
    first = await studio.enqueue(
        project["id"], "next", environment=DeploymentEnvironment.PREVIEW, commit_hash=COMMIT, commit_message="Why",
        commit_author="Ada", pull_request=3,
    )  # fmt: skip
    if status is ExecutionStatus.RUNNING:
        await desk.claim(uuid(first))
    elif status is not ExecutionStatus.QUEUED:
        await studio.finish(first, status)
    await studio.set(person, project["id"], {"name": "A", "value": "new"}, {"name": "B", "value": "new"})
    changes = {"buildCommand": "new", "rootDirectory": ".", "branch": "next", "repository": "octo/elsewhere"}
    await studio.run(person, UPDATE, input={"id": project["id"], **changes})
    before = await studio.read(person, first)
    again = (await studio.run(person, REDEPLOY, input={"id": first}))["deployment"]
    copied = (
        "environment",
        "branch",
        "commitHash",
        "commitMessage",
        "author",
        "pullRequest",
        "isFork",
        "configuration",
    )
    assert {name: again[name] for name in copied} == {name: before[name] for name in copied}
    assert again["configuration"]["buildCommand"] == "old"
    assert (again["status"], again["number"], again["trigger"]) == ("QUEUED", 2, "REDEPLOY")
    assert (again["redeployOf"], again["requestedBy"]) == ({"id": first}, {"id": person.id})
    assert again["url"] != before["url"]
    assert await studio.variables(again["id"]) == {"A": "old"}
    rows = await studio.pool.fetch(
        "SELECT clone_url, alias, sealed_environment FROM deployments WHERE execution_id = ANY($1)",
        [uuid(first), uuid(again["id"])],
    )
    assert len({(row["clone_url"], row["alias"]) for row in rows}) == 1
    assert len({row["sealed_environment"] for row in rows}) == 2


# -- promoting


async def publications(studio: Studio, project: str) -> list[tuple[Any, ...]]:
    found = await studio.pool.fetch(
        """SELECT alias, deployment_id, previous_id, reason, user_id FROM site_publications WHERE project_id = $1
           ORDER BY id""",
        uuid(project),
    )
    return [tuple(row) for row in found]


@pytest.mark.parametrize("status", [each for each in ExecutionStatus if each is not ExecutionStatus.SUCCEEDED])
async def test_only_what_succeeded_is_promoted(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], status: ExecutionStatus
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    if status is ExecutionStatus.RUNNING:
        await desk.claim(uuid(made))
    elif status is not ExecutionStatus.QUEUED:
        await studio.finish(made, status)
    failure = await refused_input(studio, person, PROMOTE, id=made)
    assert (failure.code, failure.extensions["details"]["status"]) == ("CONFLICT", status.value)


async def test_promotion_and_rollback_are_told_apart_and_a_second_time_is_quiet(
    studio: Studio, person: Person, project: dict[str, Any], admin: Person
) -> None:
    first, second, draft = [
        await succeeded(studio, person, project["id"], **fields) for fields in ({}, {}, {"branch": "next"})
    ]
    for asker, id_ in ((person, first), (person, first), (person, second), (admin, first), (person, draft)):
        answer = (await studio.run(asker, PROMOTE, input={"id": id_}))["deployment"]
        assert (answer["isLive"], answer["aliases"]) == (True, [project["url"]])
    production, owner = PRODUCTION_ALIAS, uuid(person.id)
    one, two, three = (uuid(id_) for id_ in (first, second, draft))
    assert await publications(studio, project["id"]) == [
        (production, one, None, "MANUAL", owner),
        (production, two, one, "MANUAL", owner),
        (production, one, two, "ROLLBACK", uuid(admin.id)),
        (production, three, one, "MANUAL", owner),
    ]
    assert [(await studio.read(person, id_))["isLive"] for id_ in (first, second, draft)] == [False, False, True]


async def test_promotions_at_once_leave_one_live_and_a_history_without_a_break(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    built = [await succeeded(studio, person, project["id"]) for _ in range(4)]
    await asyncio.gather(*(studio.run(person, PROMOTE, input={"id": id_}) for id_ in built * 3))
    live = [id_ for id_ in built if (await studio.read(person, id_))["isLive"]]
    moves = await publications(studio, project["id"])
    assert [uuid(id_) for id_ in live] == [moves[-1][1]]
    assert [move[2] for move in moves] == [None, *(move[1] for move in moves[:-1])]
    numbers = {uuid(id_): number for number, id_ in enumerate(built)}
    for _, to, before, reason, _ in moves:
        assert reason == ("ROLLBACK" if before is not None and numbers[before] > numbers[to] else "MANUAL")


async def test_addresses_that_lead_to_a_deployment_are_shown(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    built = await succeeded(studio, person, project["id"], branch="next")
    assert (await studio.read(person, built))["aliases"] == []
    async with studio.pool.acquire() as connection:
        queued_at = await connection.fetchval("SELECT queued_at FROM executions WHERE id = $1", uuid(built))
        for alias in ("next", "pr-7", PRODUCTION_ALIAS):
            await site_queries.publish(
                connection, project_id=uuid(project["id"]), alias=alias, deployment_id=uuid(built),
                decided_at=queued_at, reason=DeploymentTrigger.PUSH, user_id=None,
            )  # fmt: skip
    found = await studio.read(person, built)
    scheme, _, host = project["url"].partition("://")
    assert found["isLive"]
    assert found["aliases"] == [f"{scheme}://next--{host}", f"{scheme}://pr-7--{host}", project["url"]]


# -- deleting


async def test_deployment_that_is_not_done_or_is_live_stays(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    assert (await refused_input(studio, person, DELETE_DEPLOYMENT, id=made)).code == "CONFLICT"
    hand = await desk.claim(uuid(made))
    assert (await refused_input(studio, person, DELETE_DEPLOYMENT, id=made)).code == "CONFLICT"
    await hand.finish()
    await studio.run(person, PROMOTE, input={"id": made})
    assert (await refused_input(studio, person, DELETE_DEPLOYMENT, id=made)).code == "CONFLICT"
    newer = await succeeded(studio, person, project["id"])
    await studio.run(person, PROMOTE, input={"id": newer})
    await studio.run(person, DELETE_DEPLOYMENT, input={"id": made})
    assert (await studio.read(person, newer))["isLive"]


@pytest.mark.parametrize("status", [ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED])
async def test_deployment_that_is_done_goes_with_its_rows(
    studio: Studio, person: Person, project: dict[str, Any], status: ExecutionStatus
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    await studio.finish(made, status)
    again = (await studio.run(person, REDEPLOY, input={"id": made}))["deployment"]["id"]
    assert await studio.run(person, DELETE_DEPLOYMENT, input={"id": made}) == {"deletedId": made}
    for table, column in (("executions", "id"), ("deployments", "execution_id"), ("execution_events", "execution_id")):
        query = f"SELECT count(*) FROM {table} WHERE {column} = $1"
        assert await studio.pool.fetchval(query, uuid(made)) == 0, table
    told = await studio.pool.fetchval(
        "SELECT payload->>'projectId' FROM outbox_messages WHERE topic = 'site.garbage' AND key = $1", str(uuid(made))
    )
    assert told == str(uuid(project["id"]))
    for document, variables in await commands_on(made):
        assert (await studio.refused(person, document, **variables)).code == "NOT_FOUND"
    assert (await studio.read(person, again))["redeployOf"] is None
    # Its number is not given again.
    assert (await studio.deployment(person, project["id"]))["number"] == 3


async def test_promotion_and_deletion_at_once_never_leave_production_without_its_deployment(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    for _ in range(4):
        built = await succeeded(studio, person, project["id"])
        answers = await asyncio.gather(
            studio.run(person, PROMOTE, input={"id": built}),
            studio.run(person, DELETE_DEPLOYMENT, input={"id": built}),
            return_exceptions=True,
        )
        failures = [answer.code for answer in answers if isinstance(answer, GraphQLFailure)]
        assert failures in (["CONFLICT"], ["NOT_FOUND"])
        live = await studio.pool.fetchval(
            "SELECT deployment_id FROM site_aliases WHERE project_id = $1", uuid(project["id"])
        )
        assert (live == uuid(built)) is (failures == ["CONFLICT"])


async def test_cancel_stops_what_waits_and_changes_nothing_that_is_done(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    stopped = (await studio.run(person, CANCEL, input={"id": made}))["deployment"]
    assert (stopped["status"], stopped["currentStage"]) == ("CANCELLED", "QUEUED")
    assert (await studio.run(person, CANCEL, input={"id": made}))["deployment"] == stopped
    running = (await studio.deployment(person, project["id"]))["id"]
    await desk.claim(uuid(running))
    assert (await studio.run(person, CANCEL, input={"id": running}))["deployment"]["status"] == "RUNNING"


# -- lists


async def ids(studio: Studio, person: Person, **filter_: Any) -> list[str]:
    page = await studio.run(person, LIST, filter=filter_)
    found = [edge["node"]["id"] for edge in page["edges"]]
    assert page["totalCount"] == len(found)
    return found


async def test_list_is_filtered_by_what_is_said(studio: Studio, desk: Desk, person: Person) -> None:
    shop = await studio.project(person, name="100% Shop", supersede="NONE")
    blog = await studio.project(person, name="My_Blog", supersede="NONE")
    preview_ = DeploymentEnvironment.PREVIEW
    queued = await studio.enqueue(shop["id"], commit_message="Fix 50% of it", commit_hash=COMMIT)
    running = await studio.enqueue(blog["id"], "feat_x", environment=preview_, commit_message="first line\nsecond")
    built = await studio.enqueue(blog["id"], "featax", environment=preview_)
    await desk.claim(uuid(running))
    await studio.finish(built)
    newest_first = [built, running, queued]
    assert await ids(studio, person) == newest_first
    assert await ids(studio, person, projectId=blog["id"]) == [built, running]
    assert await ids(studio, person, environment="PRODUCTION") == [queued]
    assert await ids(studio, person, status=["RUNNING", "SUCCEEDED"]) == [built, running]
    assert await ids(studio, person, status=[]) == newest_first
    assert await ids(studio, person, status=["RUNNING"], environment="PRODUCTION") == []
    searches = {
        "50%": [queued], "100%": [queued], "%": [queued], COMMIT[:7]: [queued], "SECOND": [running],
        "feat_x": [running], "t_x": [running], "FEAT": [built, running], "my_blog": [built, running],
        "\\": [], "nothing": [], "  ": newest_first,
    }  # fmt: skip
    for search, wanted in searches.items():
        assert await ids(studio, person, search=search) == wanted, search
    for bad in ("nonsense", queued, encode_id(Prefix.USER, uuid(blog["id"]))):
        assert (await studio.refused(person, LIST, filter={"projectId": bad})).code == "NOT_FOUND"
    failure = await studio.refused(person, LIST, filter={"search": "x" * 201})
    assert failure.code == "VALIDATION_ERROR"


async def test_pages_forwards_and_backwards_hold_all_once(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    made = [(await studio.deployment(person, project["id"]))["id"] for _ in range(8)][::-1]

    async def pages(backwards: bool) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            bounds = {"last": 3, "before": cursor} if backwards else {"first": 3, "after": cursor}
            page = await studio.run(person, LIST, **bounds)
            assert page["totalCount"] == len(made)
            part = [edge["node"]["id"] for edge in page["edges"]]
            found = part + found if backwards else found + part
            if not page["pageInfo"]["hasPreviousPage" if backwards else "hasNextPage"]:
                return found
            cursor = page["pageInfo"]["startCursor" if backwards else "endCursor"]

    assert await pages(backwards=False) == made
    assert await pages(backwards=True) == made
    first = await studio.run(person, LIST, first=3)
    await studio.run(person, CANCEL, input={"id": made[2]})
    await studio.run(person, DELETE_DEPLOYMENT, input={"id": made[2]})  # the one that the cursor names
    second = await studio.run(person, LIST, first=3, after=first["pageInfo"]["endCursor"])
    assert [edge["node"]["id"] for edge in second["edges"]] == made[3:6]


async def test_newest_ones_are_bounded(studio: Studio, person: Person, project: dict[str, Any]) -> None:
    made = [(await studio.deployment(person, project["id"]))["id"] for _ in range(7)][::-1]
    assert [each["id"] for each in await studio.run(person, RECENT)] == made[:5]
    assert [each["id"] for each in await studio.run(person, RECENT, first=50)] == made
    for first in (0, -1, 51):
        failure = await studio.refused(person, RECENT, first=first)
        assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["first"])


async def test_list_of_fifty_with_project_stages_and_requester_costs_at_most_four_statements(
    studio: Studio, person: Person, api_server: ApiServer, settings_env: dict[str, str]
) -> None:
    projects = [(await studio.project(person))["id"] for _ in range(3)]
    for number in range(50):
        await studio.deployment(person, projects[number % 3])
    replaced = [await studio.enqueue(projects[0]) for _ in range(2)]
    async with Wire(settings_env["DATABASE_URL"]) as wire:
        api = await api_server.second(DATABASE_URL=wire.url)
        async with GraphQLClient(api.graphql_url) as counted:
            counts = []
            for _ in range(6):  # the first times also read the session and, on each connection, the types of columns
                before = wire.count
                answer = (await counted.run(FULL_LIST, {"first": 50}, token=person.token))["it"]
                counts.append(wire.count - before)
            nodes = [edge["node"] for edge in answer["edges"]]
            assert len(nodes) == 50
            assert nodes[1]["supersededBy"] == {"id": replaced[1]}
            assert {node["project"]["id"] for node in nodes} == set(projects)
            assert all(node["stages"][0]["status"] in {"RUNNING", "CANCELLED"} for node in nodes)
            assert 1 <= min(counts[2:]) <= 4
        assert await api.stop() == 0


# -- stages


def spans(found: list[dict[str, Any]]) -> dict[str, str]:
    return {span["name"]: span["status"] for span in found}


def check_times(spans_: list[dict[str, Any]]) -> None:
    """What ran ends where the next one begins; what did not has no times."""
    ran = [span for span in spans_ if span["startedAt"] is not None]
    for span in spans_:
        assert (span["startedAt"] is None) is (span["status"] in {"PENDING", "SKIPPED"})
        assert (span["finishedAt"] is None) is (span["status"] in {"PENDING", "SKIPPED", "RUNNING"})
    for span, following in itertools.pairwise(ran):
        assert span["finishedAt"] == following["startedAt"]


STEPS = ("CLONING", "INSTALLING", "BUILDING", "COLLECTING", "UPLOADING", "PUBLISHING")


@pytest.mark.parametrize("number", range(len(STEPS)))
async def test_stages_of_a_deployment_at_work(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], number: int
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    for step in STEPS[: number + 1]:
        await hand.advance(number, stage=step)
    found = await studio.read(person, made)
    stage = "BUILDING" if number < 4 else "DEPLOYING"
    assert (found["stage"], found["currentStage"]) == (STEPS[number], stage)
    assert spans(found["stages"]) == (
        {"QUEUED": "SUCCEEDED", "BUILDING": "RUNNING", "DEPLOYING": "PENDING"}
        if stage == "BUILDING"
        else {"QUEUED": "SUCCEEDED", "BUILDING": "SUCCEEDED", "DEPLOYING": "RUNNING"}
    )
    wanted = ["SUCCEEDED"] * number + ["RUNNING"] + ["PENDING"] * (5 - number)
    assert [step["status"] for step in found["steps"]] == wanted
    check_times(found["stages"])
    check_times(found["steps"])
    for name in ("QUEUED", "BUILDING", "DEPLOYING"):
        assert await ids(studio, person, stage=name) == ([made] if name == stage else [])


async def test_stages_of_what_waits_and_what_was_stopped_before_it_began(
    studio: Studio, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    found = await studio.read(person, made)
    assert spans(found["stages"]) == {"QUEUED": "RUNNING", "BUILDING": "PENDING", "DEPLOYING": "PENDING"}
    assert set(spans(found["steps"]).values()) == {"PENDING"}
    await studio.run(person, CANCEL, input={"id": made})
    found = await studio.read(person, made)
    assert spans(found["stages"]) == {"QUEUED": "CANCELLED", "BUILDING": "SKIPPED", "DEPLOYING": "SKIPPED"}
    assert set(spans(found["steps"]).values()) == {"SKIPPED"}
    check_times(found["stages"])
    assert await ids(studio, person, stage="QUEUED") == [made]


async def test_stages_of_what_failed_say_where_and_why(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    await hand.advance(5, stage="CLONING")
    await hand.advance(40, stage="BUILDING")
    failure = Failure(FailureCode.COMMAND_FAILED, "It broke.", stage="BUILDING", exit_code=2)
    await hand.finish(ExecutionStatus.FAILED, failure=failure)
    found = await studio.read(person, made)
    assert spans(found["stages"]) == {"QUEUED": "SUCCEEDED", "BUILDING": "FAILED", "DEPLOYING": "SKIPPED"}
    assert [step["status"] for step in found["steps"]] == ["SUCCEEDED", "SKIPPED", "FAILED", *["SKIPPED"] * 3]
    errors = [span["error"] for span in (*found["stages"], *found["steps"])]
    assert [error for error in errors if error] == ["It broke."] * 2
    assert found["currentStage"] == "BUILDING"
    check_times(found["stages"])
    check_times(found["steps"])
    assert await ids(studio, person, stage="BUILDING") == [made]


async def test_what_succeeded_is_in_no_stage(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    for step in STEPS:
        await hand.advance(50, stage=step)
    await hand.finish()
    found = await studio.read(person, made)
    assert found["currentStage"] is None
    assert set(spans([*found["stages"], *found["steps"]]).values()) == {"SUCCEEDED"}
    for name in ("QUEUED", "BUILDING", "DEPLOYING"):
        assert await ids(studio, person, stage=name) == []


async def lose(studio: Studio, execution: Any) -> None:
    """Let the lease of a worker run out, and sweep."""
    await studio.pool.execute(
        "UPDATE executions SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1", execution
    )
    async with studio.pool.acquire() as connection:
        swept = await leases.sweep(connection, limit=10, compact_log_after_seconds=3_600)
    assert [each.execution_id for each in swept] == [execution]


async def test_attempt_that_was_lost_leaves_a_deployment_queued_again(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    await hand.advance(5, stage="CLONING")
    await hand.advance(40, stage="BUILDING")
    await lose(studio, hand.id)
    found = await studio.read(person, made)
    assert (found["status"], found["currentStage"]) == ("QUEUED", "QUEUED")
    assert spans(found["stages"]) == {"QUEUED": "RUNNING", "BUILDING": "PENDING", "DEPLOYING": "PENDING"}
    assert set(spans(found["steps"]).values()) == {"PENDING"}
    assert await ids(studio, person, stage="QUEUED") == [made]
    assert await ids(studio, person, stage="BUILDING") == []


@pytest.mark.parametrize("lost_in", ["CLONING", "BUILDING", None])
async def test_times_are_those_of_the_latest_attempt(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], lost_in: str | None
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    for step in STEPS[: STEPS.index(lost_in) + 1] if lost_in else ():
        await hand.advance(5, stage=step)
    await lose(studio, hand.id)
    requeued_at = await studio.pool.fetchval(
        "SELECT max(at) FROM execution_events WHERE execution_id = $1 AND status = 'QUEUED'", hand.id
    )
    hand = await desk.claim(uuid(made))
    await hand.advance(5, stage="CLONING")
    await hand.advance(20, stage="INSTALLING")
    found = await studio.read(person, made)
    assert [step["status"] for step in found["steps"]] == ["SUCCEEDED", "RUNNING", *["PENDING"] * 4]
    assert spans(found["stages"]) == {"QUEUED": "SUCCEEDED", "BUILDING": "RUNNING", "DEPLOYING": "PENDING"}
    begun = [span["startedAt"] for span in (*found["stages"][1:], *found["steps"]) if span["startedAt"]]
    assert min(begun) >= requeued_at.isoformat().replace("+00:00", "Z")
    check_times(found["stages"])
    check_times(found["steps"])


# -- following


async def test_streams_deliver_deployments_with_their_fields(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], graphql_ws_url: str, client: GraphQLClient
) -> None:
    one = "subscription ($id: ID!) { it: execution(id: $id) { id status ...D } }" + DEPLOYMENT
    all_ = "subscription { it: executions { id status ... on Deployment { number branch currentStage } } }"
    made = (await studio.deployment(person, project["id"]))["id"]
    other = await new_user(client)
    async with subscribe(graphql_ws_url, one, {"id": made}, token=other.token) as stream:
        with pytest.raises(GraphQLFailure) as failure:
            await stream.next()
        assert failure.value.code == "NOT_FOUND"
    async with (
        subscribe(graphql_ws_url, one, {"id": made}, token=person.token) as stream,
        subscribe(graphql_ws_url, all_, token=person.token) as everything,
    ):
        first = (await stream.next())["it"]
        assert first == await studio.read(person, made)
        seen = (await everything.next())["it"]
        assert seen == {"id": made, "status": "QUEUED", "number": 1, "branch": "main", "currentStage": "QUEUED"}
        hand = await desk.claim(uuid(made))
        await hand.advance(40, stage="BUILDING")

        async def until(stream_: Any, **wanted: Any) -> dict[str, Any]:
            while True:
                event: dict[str, Any] = (await stream_.next())["it"]
                if wanted.items() <= event.items():
                    return event

        await until(stream, status="RUNNING", stage="BUILDING", currentStage="BUILDING")
        await until(everything, id=made, status="RUNNING", currentStage="BUILDING")
        await hand.finish()
        await until(stream, status="SUCCEEDED", currentStage=None)
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        later = (await studio.deployment(person, project["id"]))["id"]
        await until(everything, id=later, status="QUEUED", number=2)


async def test_promotion_is_told_to_those_who_follow(
    studio: Studio, person: Person, project: dict[str, Any], graphql_ws_url: str
) -> None:
    built = await succeeded(studio, person, project["id"])
    document = "subscription { it: executions { id ... on Deployment { isLive } } }"
    async with subscribe(graphql_ws_url, document, token=person.token) as stream:
        waiting = (await studio.deployment(person, project["id"]))["id"]  # what shows that the stream is open
        while (await stream.next())["it"]["id"] != waiting:
            pass
        await studio.run(person, PROMOTE, input={"id": built})
        while (await stream.next())["it"] != {"id": built, "isLive": True}:
            pass


async def test_log_of_a_deployment_is_followed_to_its_end(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], graphql_ws_url: str, client: GraphQLClient
) -> None:
    document = "subscription ($id: ID!) { it: logs(executionId: $id) { lines { message } lastSequence complete } }"
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    await hand.write("cloned", "built")
    other = await new_user(client)
    async with subscribe(graphql_ws_url, document, {"id": made}, token=other.token) as stream:
        with pytest.raises(GraphQLFailure):
            await stream.next()
    async with subscribe(graphql_ws_url, document, {"id": made}, token=person.token) as stream:
        messages = [line["message"] for line in (await stream.next())["it"]["lines"]]
        await hand.write("published")
        await hand.finish()
        is_complete = False
        while not is_complete:
            batch = (await stream.next())["it"]
            messages += [line["message"] for line in batch["lines"]]
            is_complete = batch["complete"]
    assert messages == ["cloned", "built", "published"]


# -- downloading logs


async def test_log_downloads_as_text_wherever_its_lines_are(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any]
) -> None:
    made = (await studio.deployment(person, project["id"]))["id"]
    hand = await desk.claim(uuid(made))
    await hand.write(*numbered(1, 1_234), "日本 <b>")
    url = (await studio.run(person, LOG_URL, id=made))["logUrl"]
    growing = await studio.client.http.get(url)  # no token: the link is the permission
    await hand.write("end")
    await hand.finish()
    rows = await studio.client.http.get(url)
    await desk.compact(hand.id)
    moved = await studio.client.http.get(url)
    assert [answer.status_code for answer in (growing, rows, moved)] == [200] * 3
    assert (
        rows.text == moved.text == growing.text + growing.text.splitlines(keepends=True)[-1].replace("日本 <b>", "end")
    )
    lines = moved.text.splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        *(f"line {n}" for n in range(1, 1_235)),
        "日本 <b>",
        "end",
    ]
    assert re.fullmatch(r"2025-06-15T[0-9:]{8}\.\d{3}Z INFO line 1", lines[0])
    assert moved.headers["content-type"] == "text/plain; charset=utf-8"
    assert moved.headers["content-disposition"].startswith("attachment;")
    assert moved.headers["cache-control"] == "private, no-store"


async def test_link_to_a_log_that_was_changed_or_is_over_is_refused(
    studio: Studio, desk: Desk, person: Person, project: dict[str, Any], client: GraphQLClient
) -> None:
    first, second = [(await studio.deployment(person, project["id"]))["id"] for _ in range(2)]
    url = (await studio.run(person, LOG_URL, id=first))["logUrl"]
    other = await new_user(client)
    assert (await studio.refused(other, LOG_URL, id=first)).code == "NOT_FOUND"
    parts = urlsplit(url)
    (expires,) = parse_qs(parts.query)["expires"]
    forged = [
        url.replace(str(uuid(first)), str(uuid(second))),
        url.replace(f"expires={expires}", f"expires={int(expires) + 1}"),
        url.replace("disposition=attachment", "disposition=inline"),
        parts._replace(query="").geturl(),
        f"{url}&extra=1",
        url.replace("/logs/", "/files/"),
    ]
    assert len({url, *forged}) == len(forged) + 1
    assert {(await client.http.get(link)).status_code for link in forged} <= {403, 404}
    assert (await client.http.get(url)).status_code == 200
    assert (await client.http.post(url)).status_code == 405
    await studio.run(person, CANCEL, input={"id": first})
    await studio.run(person, DELETE_DEPLOYMENT, input={"id": first})
    assert (await client.http.get(url)).status_code == 404


async def test_link_to_a_log_expires(
    studio: Studio, person: Person, project: dict[str, Any], client: GraphQLClient, settings_env: dict[str, str]
) -> None:
    made = uuid((await studio.deployment(person, project["id"]))["id"])
    settings = settings_of(settings_env).model_copy(update={"download_url_seconds": 1})
    shown = urlsplit((await studio.run(person, LOG_URL, id=deployment_id_of(made)))["logUrl"])
    link = urlsplit(log_downloads.link(made, settings))._replace(netloc=shown.netloc).geturl()

    async def is_over() -> bool:
        answer = await client.http.get(link)
        assert answer.status_code in {200, 403}
        return answer.status_code == 403

    await eventually(is_over, 4)
