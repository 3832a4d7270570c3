"""Deployments as users make them, from a repository to a page: real git, real sandboxes, real workers."""

from __future__ import annotations

import asyncpg
import orjson

from models.ids import decode_id
from tests.harness.client import GraphQLClient, subscribe
from tests.harness.deploying import Deploying
from tests.harness.git_remote import APPS
from tests.harness.waiting import eventually

SET_VARIABLES = """
mutation Set($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project { id } } }
"""
PROMOTE = """
mutation Promote($input: PromoteDeploymentInput!) { promoteDeployment(input: $input) { deployment { ...D } } }
"""
REDEPLOY = "mutation Redeploy($input: RedeployInput!) { redeploy(input: $input) { deployment { ...D } } }"
PUBLICATIONS = """
query ($id: ID!) { project(id: $id) {
  liveDeployment { id } latestDeployment { id }
  publications { totalCount edges { node { url reason at movedBy { id } deployment { id } previous { id } } } }
} }
"""
UPDATE = "mutation Update($input: UpdateProjectInput!) { updateProject(input: $input) { project { id } } }"
DELETE = "mutation Delete($input: DeleteDeploymentInput!) { deleteDeployment(input: $input) { deletedId } }"
DELETE_PROJECT = "mutation Delete($input: DeleteProjectInput!) { deleteProject(input: $input) { deletedId } }"

SHOW_ENVIRONMENT = 'mkdir out && printf "%s" "$GREETING" > out/index.html && env | sort > out/env.txt'


async def test_a_plain_site_goes_live_without_a_build(deploying: Deploying) -> None:
    site = await deploying.site(APPS / "plain")
    made = await deploying.deployed(site)
    assert made["isLive"]
    assert made["progress"] == 100
    assert made["number"] == 1
    assert made["attempt"] == 1
    assert made["environment"] == "PRODUCTION"
    assert made["currentStage"] is None
    assert made["commitHash"] == await deploying.remote.tip(site.repository)
    assert made["author"] == "Ada Keeper"
    assert [stage["status"] for stage in made["stages"]] == ["SUCCEEDED"] * 3
    steps = {step["name"]: step["status"] for step in made["steps"]}
    assert steps == {
        "CLONING": "SUCCEEDED",
        "INSTALLING": "SKIPPED",
        "BUILDING": "SKIPPED",
        "COLLECTING": "SUCCEEDED",
        "UPLOADING": "SUCCEEDED",
        "PUBLISHING": "SUCCEEDED",
    }
    for address in (site.url, made["url"]):
        page = await deploying.get(address)
        assert page.status_code == 200
        assert page.text == (APPS / "plain" / "index.html").read_text()
    assert "Nothing is installed and nothing built: the files are served as they are." in await deploying.log(
        made["id"]
    )


async def test_commands_run_with_the_variables_of_their_environment_and_the_log_shows_none_of_them(
    deploying: Deploying,
) -> None:
    site = await deploying.site(
        {"readme.txt": "x"},
        installCommand='echo "installing with $TOKEN"',
        # Besides, a second of a processor and a hundred megabytes, each ended by a program that measures it itself.
        buildCommand="(ulimit -t 1; while :; do :; done); dd if=/dev/zero of=/dev/null bs=100M count=1; "
        f'echo "built for $TOKEN"; echo "$TOKEN" | base64; {SHOW_ENVIRONMENT}',
        outputDirectory="out",
    )
    variables = [
        {"name": "TOKEN", "value": "correct-horse-battery"},
        {"name": "GREETING", "value": "to all", "environments": ["PRODUCTION"]},
        {"name": "GREETING", "value": "to some", "environments": ["PREVIEW"]},
    ]
    await deploying.run(SET_VARIABLES, input={"projectId": site.id, "variables": variables})
    await deploying.remote.commit(site.repository, {"more.txt": "y"}, branch="feature/blue")
    live = await deploying.deployed(site)
    preview = await deploying.deployed(site, branch="feature/blue")
    assert (await deploying.get(live["url"])).text == "to all"
    assert (await deploying.get(preview["url"])).text == "to some"
    assert preview["environment"] == "PREVIEW"
    assert not preview["isLive"]
    assert len(preview["aliases"]) == 1
    assert (await deploying.get(preview["aliases"][0])).text == "to some"
    log = await deploying.log(live["id"])
    assert "installing with ***" in log
    assert "built for ***" in log
    assert not any("correct-horse" in line or "Y29ycmVjdC1ob3JzZ" in line for line in log)
    assert 'echo "installing with $TOKEN"' in " ".join(log), "the command is shown as it was configured"
    environment = dict(line.split("=", 1) for line in (await deploying.get(live["url"], "/env.txt")).text.splitlines())
    assert environment["SWITCHYARD_COMMIT"] == live["commitHash"]
    assert environment["CI"] == "1"
    for made in (live, preview):
        assert 1 <= made["cpuSeconds"] < 5
        assert 100 * 2**20 <= made["peakMemoryBytes"] < 150 * 2**20
    assert not any(name.startswith(("DATABASE", "REDIS", "SECRET")) for name in environment)


async def test_a_redeployment_brings_back_exactly_what_was_deployed(deploying: Deploying) -> None:
    site = await deploying.site(
        {"v.txt": "1"}, buildCommand=f"{SHOW_ENVIRONMENT}; cp v.txt out/", outputDirectory="out"
    )
    first = {"projectId": site.id, "variables": [{"name": "GREETING", "value": "first"}]}
    await deploying.run(SET_VARIABLES, input=first)
    old = await deploying.deployed(site)
    await deploying.remote.commit(site.repository, {"v.txt": "2"})
    second = {"projectId": site.id, "variables": [{"name": "GREETING", "value": "second"}]}
    await deploying.run(SET_VARIABLES, input=second)
    await deploying.run(UPDATE, input={"id": site.id, "buildCommand": "false", "outputDirectory": "elsewhere"})
    again_id = (await deploying.run(REDEPLOY, input={"id": old["id"]}))["redeploy"]["deployment"]["id"]
    again = await deploying.ended(again_id)
    assert again["status"] == "SUCCEEDED", await deploying.log(again_id)
    assert again["commitHash"] == old["commitHash"]
    assert again["trigger"] == "REDEPLOY"
    assert again["redeployOf"] == {"id": old["id"]}
    assert again["isLive"]
    assert (await deploying.get(site.url)).text == "first"
    assert (await deploying.get(site.url, "/v.txt")).text == "1"


async def test_production_moves_between_deployments_without_a_build_and_the_later_decision_wins(
    deploying: Deploying, db: asyncpg.Connection
) -> None:
    site = await deploying.site(
        {"v.txt": "1"},
        buildCommand='mkdir out; cp v.txt out/index.html; if [ "$(cat v.txt)" = 3 ]; then sleep 3; fi',
        outputDirectory="out",
    )
    one = await deploying.deployed(site)
    await deploying.remote.commit(site.repository, {"v.txt": "2"})
    two = await deploying.deployed(site)
    assert (await deploying.get(site.url)).text == "2"
    await deploying.remote.commit(site.repository, {"v.txt": "3"})
    three = await deploying.deploy(site)
    await deploying.until(three, stage="BUILDING")
    back = (await deploying.run(PROMOTE, input={"id": one["id"]}))["promoteDeployment"]["deployment"]
    assert back["isLive"]
    assert (await deploying.get(site.url)).text == "1"
    late = await deploying.ended(three)
    assert (late["status"], late["isLive"]) == ("SUCCEEDED", False), "it was asked for before production was moved"
    assert (await deploying.get(site.url)).text == "1"
    assert (await deploying.get(late["url"])).text == "3", "its own address answers all the same"
    await deploying.run(PROMOTE, input={"id": late["id"]})
    assert (await deploying.get(site.url)).text == "3"
    found = (await deploying.run(PUBLICATIONS, id=site.id))["project"]
    moves = [edge["node"] for edge in found["publications"]["edges"]]
    assert [move["reason"] for move in moves] == ["MANUAL", "ROLLBACK", "MANUAL", "MANUAL"], "newest first"
    assert (moves[1]["deployment"]["id"], moves[1]["previous"]["id"]) == (one["id"], two["id"])
    assert [move["url"] for move in moves] == [site.url] * 4
    assert moves[1]["movedBy"]["id"] == deploying.owner.id
    assert found["publications"]["totalCount"] == 4
    assert (found["liveDeployment"]["id"], found["latestDeployment"]["id"]) == (late["id"], late["id"])


async def test_a_commit_can_be_named_and_unchanged_files_do_not_travel_again(deploying: Deploying) -> None:
    big = "x" * 50_000
    site = await deploying.site({"index.html": "old", "big.txt": big})
    commit = await deploying.remote.tip(site.repository)
    await deploying.remote.commit(site.repository, {"index.html": "newer"})
    newest = await deploying.deployed(site)
    assert newest["uploadedBytes"] == len("newer") + len(big)
    named = await deploying.deployed(site, commit=commit)
    assert named["commitHash"] == commit
    assert (await deploying.get(site.url)).text == "old"
    assert named["uploadedBytes"] == len("old"), "the big file was there already"
    assert named["artifactSize"] == len("old") + len(big)
    assert named["fileCount"] == 2


async def test_a_folder_of_the_repository_can_be_the_project(deploying: Deploying) -> None:
    site = await deploying.site(
        {"apps/web/index.html": "web", "apps/api/index.html": "api", "index.html": "top"}, rootDirectory="apps/web"
    )
    await deploying.deployed(site)
    assert (await deploying.get(site.url)).text == "web"
    assert (await deploying.get(site.url, "/apps/api/")).status_code == 404


async def test_a_deployment_is_followed_live_to_its_end(deploying: Deploying, client: GraphQLClient) -> None:
    site = await deploying.site(
        {"a": "b"}, buildCommand="mkdir out; echo hello > out/index.html", outputDirectory="out"
    )
    deployment = await deploying.deploy(site)
    document = "subscription ($id: ID!) { execution(id: $id) { status progress ... on Deployment { number isLive } } }"
    url, token = deploying.api.ws_url, deploying.owner.token
    async with subscribe(url, document, {"id": deployment}, token=token) as events:
        states = [event["execution"] async for event in events]
    assert states[-1] == {"status": "SUCCEEDED", "progress": 100, "number": 1, "isLive": True}
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    document = "subscription ($id: ID!) { logs(executionId: $id) { lines { message } complete } }"
    async with subscribe(url, document, {"id": deployment}, token=token) as events:
        lines = [line["message"] async for event in events for line in event["logs"]["lines"]]
    assert lines == await deploying.log(deployment)


async def test_what_is_deleted_leaves_nothing_behind(deploying: Deploying, db: asyncpg.Connection) -> None:
    before = deploying.stored_files()
    site = await deploying.site({"index.html": "one", "shared.txt": "shared"})
    old = await deploying.deployed(site)
    await deploying.remote.commit(site.repository, {"index.html": "two"})
    await deploying.deployed(site)
    await deploying.run(DELETE, input={"id": old["id"]})
    assert (await deploying.get(old["url"])).status_code == 404
    assert (await deploying.get(site.url)).text == "two", "what others use stays"
    await deploying.run(DELETE_PROJECT, input={"id": site.id})
    assert (await deploying.get(site.url)).status_code == 404
    project = decode_id(site.id)[1]
    for table in ("deployments", "site_aliases", "site_blobs", "site_publications", "environment_variables"):
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE project_id = $1", project) == 0, table
    await eventually(lambda: deploying.stored_files() == before, 10, what="the removal of the files")


async def test_the_configuration_that_was_used_can_be_read(deploying: Deploying) -> None:
    site = await deploying.site({"index.html": "x"}, spaFallback=True)
    made = await deploying.deployed(site)
    found = await deploying.run("query ($id: ID!) { deployment(id: $id) { configuration } }", id=made["id"])
    assert orjson.loads(orjson.dumps(found["deployment"]["configuration"]))["spaFallback"] is True
