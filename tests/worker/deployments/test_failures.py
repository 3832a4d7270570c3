"""Deployments that fail: each with the code, the step and the words that tell what to do, and nothing published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness.deploying import Deploying
from tests.harness.git_remote import Link
from tests.harness.processes import CLI

SETTINGS = {
    "BUILD_OUTPUT_MEGABYTES": "4",
    "BUILD_OUTPUT_FILES": "100",
    "BUILD_LOG_MEGABYTES": "1",
    "BUILD_MEMORY_MEGABYTES": "128",
    "BUILD_DISK_MEGABYTES": "64",
    "BUILD_COMMAND_SECONDS": "3",
    "BUILD_INSTALL_SECONDS": "60",
}


@dataclass(frozen=True)
class Case:
    """A project that cannot be deployed, and why."""

    name: str
    code: str
    stage: str
    says: str
    build: str = ""
    files: Mapping[str, Any] = field(default_factory=lambda: {"readme.txt": "x"})
    configuration: Mapping[str, Any] = field(default_factory=dict)
    what: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


CASES = [
    Case("unknown branch", "CLONE_FAILED", "CLONING", "branch", what={"branch": "no-such-branch"}),
    Case("unknown commit", "CLONE_FAILED", "CLONING", "commit", what={"commit": "0" * 40}),
    Case(
        "unknown root directory",
        "INVALID_INPUT",
        "CLONING",
        "no folder apps/web",
        configuration={"rootDirectory": "apps/web"},
    ),
    Case(
        "install that fails",
        "INSTALL_FAILED",
        "INSTALLING",
        "cannot find the thing",
        configuration={"installCommand": "echo 'error: cannot find the thing' >&2; exit 7"},
        exit_code=7,
    ),
    Case(
        "build that fails",
        "COMMAND_FAILED",
        "BUILDING",
        "exit code 3. It said: Error: no entry",
        build="echo 'Error: no entry'; exit 3",
        exit_code=3,
    ),
    Case("build that hangs", "TIMED_OUT", "BUILDING", "longer than 3 s", build="sleep 600 & sleep 600"),
    Case("build that prints without end", "LOG_LIMIT_EXCEEDED", "BUILDING", "more than 1 MB", build="yes switchyard"),
    Case("build that prints one endless line", "LOG_LIMIT_EXCEEDED", "BUILDING", "1 MB", build="tr '\\0' x </dev/zero"),
    Case("build without output", "OUTPUT_MISSING", "COLLECTING", "no folder public", build="true"),
    Case("empty output", "OUTPUT_MISSING", "COLLECTING", "", build="mkdir public"),
    Case(
        "output of too many bytes",
        "OUTPUT_TOO_LARGE",
        "COLLECTING",
        "4 MB",
        build="mkdir public; head -c 6000000 /dev/urandom > public/big.bin",
    ),
    Case(
        "output of too many files",
        "OUTPUT_TOO_LARGE",
        "COLLECTING",
        "100",
        build="mkdir public; for n in $(seq 1 120); do echo $n > public/$n.txt; done",
    ),
    Case(
        "output with a link that leads out",
        "INVALID_INPUT",
        "COLLECTING",
        "passwd",
        build="mkdir public; ln -s /etc/passwd public/passwd.txt; echo x > public/index.html",
    ),
    Case(
        "output directory that is a link",
        "OUTPUT_MISSING",
        "COLLECTING",
        "public",
        build="ln -s /etc public",
    ),
    Case(
        "committed link that leads out",
        "INVALID_INPUT",
        "COLLECTING",
        "shadow",
        files={"index.html": "x", "shadow.txt": Link("/etc/shadow")},
        configuration={"outputDirectory": ".", "buildCommand": ""},
    ),
    Case(
        "build that fills the disk",
        "OUTPUT_TOO_LARGE",
        "BUILDING",
        "64 MB of disk",
        build="for n in $(seq 1 40); do head -c 8000000 /dev/zero > f$n; done; sleep 2",
    ),
    Case(
        "build that eats memory",
        "OUT_OF_MEMORY",
        "BUILDING",
        "128 MB",
        build='python3 -c "x = [bytearray(1 << 20) for _ in range(4000)]"; sleep 2',
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_says_where_and_why(deploying: Deploying, case: Case) -> None:
    configuration = {"installCommand": "", "buildCommand": case.build, "outputDirectory": "public"}
    site = await deploying.site(case.files, **{**configuration, **case.configuration})
    found = await deploying.ended(await deploying.deploy(site, **case.what))
    failure = found["failure"]
    assert found["status"] == "FAILED", await deploying.log(found["id"])
    assert (failure["code"], failure["stage"], failure["exitCode"]) == (case.code, case.stage, case.exit_code), failure
    assert case.says in failure["message"]
    assert not found["isLive"]
    assert (await deploying.get(site.url)).status_code == 404
    assert (await deploying.get(found["url"])).status_code == 404
    failed = [step["name"] for step in found["steps"] if step["status"] == "FAILED"]
    assert failed == [case.stage]


async def test_a_failed_deployment_leaves_the_live_one_alone(deploying: Deploying) -> None:
    site = await deploying.site({"index.html": "good"}, installCommand="", buildCommand="", outputDirectory=".")
    live = await deploying.deployed(site)
    update = "mutation ($input: UpdateProjectInput!) { updateProject(input: $input) { project { id } } }"
    await deploying.run(update, input={"id": site.id, "buildCommand": "exit 1"})
    bad = await deploying.ended(await deploying.deploy(site))
    assert bad["status"] == "FAILED"
    assert (await deploying.get(site.url)).text == "good"
    assert (await deploying.read(live["id"]))["isLive"]


async def test_a_repository_that_wants_a_login_says_so(deploying: Deploying) -> None:
    site = await deploying.site({"index.html": "secret"})
    deploying.remote.require_token(site.repository, "s3cret-token")
    found = await deploying.ended(await deploying.deploy(site))
    assert found["failure"]["code"] == "CLONE_FAILED"
    assert "login" in found["failure"]["message"]


async def test_an_empty_repository_says_so(deploying: Deploying) -> None:
    site = await deploying.site({"index.html": "x"})
    await deploying.remote.git(site.repository, "update-ref", "-d", "refs/heads/main")
    found = await deploying.ended(await deploying.deploy(site))
    assert found["failure"]["code"] == "CLONE_FAILED"
    assert "no commits" in found["failure"]["message"] or "empty" in found["failure"]["message"]


@pytest.mark.parametrize("address", ["http://169.254.169.254/team/site", "http://10.0.0.1/team/site"])
async def test_a_repository_at_an_internal_address_is_refused(deploying: Deploying, address: str) -> None:
    document = "mutation ($input: CreateProjectInput!) { createProject(input: $input) { project { id } } }"
    answer = await deploying.client.raw(
        document, {"input": {"name": "Site", "repository": address}}, token=deploying.owner.token
    )
    assert answer.json()["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"


async def test_a_repository_whose_name_leads_inside_is_blocked(deploying: Deploying) -> None:
    port = deploying.remote.allowed_host.partition(":")[2]
    # Allowed is 127.0.0.1 and this port, in this spelling; another name for the same machine is not.
    project = await deploying.project("http://team.invalid-host.example/team/site")
    found = await deploying.ended(await deploying.deploy(project["id"]))
    assert port
    assert found["failure"]["code"] == "CLONE_FAILED"


async def test_without_a_sandbox_nothing_is_built_and_the_operator_is_told_what_to_install(
    deploying: Deploying,
) -> None:
    for program in deploying.programs.started:
        if program.argv[-1] == "worker" and program.exit_code is None:
            await program.stop()
    worker = deploying.programs.start([CLI, "worker"], kind="worker", PATH="/nowhere")
    await worker.wait_event("worker_started")
    site = await deploying.site({"index.html": "x"}, installCommand="", buildCommand="touch /tmp/built")
    found = await deploying.ended(await deploying.deploy(site))
    assert found["failure"]["code"] == "START_ERROR"
    assert "bubblewrap" in found["failure"]["message"]
    assert found["failure"]["stage"] != "BUILDING"
    await worker.stop()
