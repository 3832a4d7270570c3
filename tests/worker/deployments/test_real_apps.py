"""Real applications from the push to the page: npm installs and builds them in the sandbox, through the egress proxy.

Needs an npm registry; without one the module is skipped and says so. What is measured against a build by hand is in
`tests/bench/deployments.py`.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from models.ids import decode_id
from tests.harness.deploying import Deploying, Site
from tests.harness.git_remote import APPS
from tests.harness.npm_registry import NpmRegistry, require_registry
from tests.harness.waiting import eventually, leftover_processes

CANCEL = "mutation Cancel($input: CancelDeploymentInput!) { cancelDeployment(input: $input) { deployment { id } } }"
UPDATE = "mutation Update($input: UpdateProjectInput!) { updateProject(input: $input) { project { id } } }"
SET_VARIABLES = """
mutation Set($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project { id } } }
"""
CANCEL_SECONDS = 5.0
# The first build that comes here waits for ever, later ones pass: the cache outlives a killed worker.
WAIT_ONCE = 'if mkdir -p "$XDG_CACHE_HOME" && mkdir "$XDG_CACHE_HOME/began"; then sleep 600; fi'


@pytest.fixture(scope="module")
def registry() -> NpmRegistry:
    """The machine's registry."""
    return require_registry()


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], registry: NpmRegistry) -> dict[str, str]:
    """Builds may reach the registry even where its address is not public."""
    opened = f"{settings_env['BUILD_ALLOWED_HOSTS']},{registry.allowed_host}"
    return {**settings_env, **registry.settings, "BUILD_ALLOWED_HOSTS": opened}


@dataclass(frozen=True, slots=True)
class Deployed:
    """An application and its first deployment."""

    site: Site
    first: dict[str, Any]


async def project_of(deploying: Deploying, registry: NpmRegistry, app: str, **configuration: Any) -> Site:
    """An application as a project."""
    site = await deploying.site(APPS / app, **configuration)
    variables = [{"name": name, "value": value} for name, value in registry.variables.items()]
    if variables:
        await deploying.run(SET_VARIABLES, input={"projectId": site.id, "variables": variables})
    return site


@pytest_asyncio.fixture(scope="module")
async def apps(deploying: Deploying, registry: NpmRegistry) -> dict[str, Deployed]:
    """Both applications, deployed at the same time with nothing configured and nothing in their caches."""

    async def deployed(app: str) -> Deployed:
        site = await project_of(deploying, registry, app)
        return Deployed(site, await deploying.deployed(site))

    vite, eleventy = await asyncio.gather(deployed("vite-react"), deployed("eleventy"))
    return {"vite-react": vite, "eleventy": eleventy}


def cache_of(deploying: Deploying, site: Site) -> Path:
    return Path(deploying.programs.environment["DATA_DIR"]) / "caches" / str(decode_id(site.id)[1]) / "files"


def workspaces_of(deploying: Deploying, deployment: str) -> list[Path]:
    builds = Path(deploying.programs.environment["DATA_DIR"]) / "builds"
    return list(builds.glob(f"{decode_id(deployment)[1]}-*"))


def asset_of(page: str, kind: str) -> str:
    found = re.search(rf'(?:src|href)="(/assets/[^"]+\.{kind})"', page)
    assert found is not None, page
    return found[1]


async def publications(db: asyncpg.Connection, site: Site) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await db.fetch(
        "SELECT deployment_id FROM site_publications WHERE project_id = $1 ORDER BY id", decode_id(site.id)[1]
    )
    return rows


async def test_a_cancel_in_the_middle_of_npm_ci_leaves_no_process_no_folder_and_no_page(
    deploying: Deploying, registry: NpmRegistry, db: asyncpg.Connection
) -> None:
    site = await project_of(deploying, registry, "vite-react", installCommand="while npm ci; do :; done")
    deployment = await deploying.deploy(site)

    def installing() -> bool:
        # Every process of the build knows the address of its deployment. The shell's command line names npm, too.
        return any(command.startswith("npm ci") for command in leftover_processes(site.slug).values())

    await eventually(installing, 30, what="npm ci in the sandbox")
    (workspace,) = workspaces_of(deploying, deployment)
    await eventually((workspace / "source" / "node_modules").is_dir, 30, what="packages")
    asked = time.monotonic()
    await deploying.run(CANCEL, input={"id": deployment})
    ended = await deploying.ended(deployment, CANCEL_SECONDS)
    assert leftover_processes(site.slug) == {}, "cancelled means that nothing of it runs"
    assert time.monotonic() - asked < CANCEL_SECONDS
    assert ended["status"] == "CANCELLED"
    assert ended["failure"] is None
    assert {step["name"]: step["status"] for step in ended["steps"]}["INSTALLING"] == "CANCELLED"
    assert not ended["isLive"]
    assert await publications(db, site) == []
    assert (await deploying.get(site.url)).status_code == 404
    assert not workspace.exists()


async def test_vite_and_react_are_recognised_built_and_served(deploying: Deploying, apps: dict[str, Deployed]) -> None:
    site, made = apps["vite-react"].site, apps["vite-react"].first
    assert made["framework"] == "VITE"
    assert made["isLive"]
    assert {step["name"]: step["status"] for step in made["steps"]} == dict.fromkeys(
        ("CLONING", "INSTALLING", "BUILDING", "COLLECTING", "UPLOADING", "PUBLISHING"), "SUCCEEDED"
    )
    log = "\n".join(await deploying.log(made["id"]))
    assert "npm ci" in log
    assert "npm run build" in log
    page = await deploying.get(site.url)
    assert page.status_code == 200
    assert '<div id="root">' in page.text
    assert "immutable" not in page.headers["cache-control"]
    script = await deploying.get(site.url, asset_of(page.text, "js"), **{"Accept-Encoding": "identity"})
    assert script.headers["content-type"].startswith("text/javascript")
    assert "Harbour board" in script.text
    deep = await deploying.get(site.url, "/berths/7", Accept="text/html")
    assert (deep.status_code, deep.text) == (200, page.text)


async def test_a_fingerprinted_asset_is_kept_for_ever_and_travels_in_brotli(
    deploying: Deploying, apps: dict[str, Deployed]
) -> None:
    site = apps["vite-react"].site
    path = asset_of((await deploying.get(site.url)).text, "js")
    plain = await deploying.get(site.url, path, **{"Accept-Encoding": "identity"})
    small = await deploying.get(site.url, path, **{"Accept-Encoding": "br"})
    for answer in (plain, small):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "br"
    assert int(small.headers["content-length"]) < len(plain.content) / 2
    assert small.content == plain.content, "httpx has undone the compression"


async def test_eleventy_is_recognised_built_and_served(deploying: Deploying, apps: dict[str, Deployed]) -> None:
    site, made = apps["eleventy"].site, apps["eleventy"].first
    assert made["framework"] == "ELEVENTY"
    assert made["isLive"]
    page = await deploying.get(site.url)
    assert page.status_code == 200
    assert "<h1>" in page.text
    assert (await deploying.get(site.url, "/posts/neap/")).status_code == 200
    style = await deploying.get(site.url, "/tide.css")
    assert style.text == (APPS / "eleventy" / "tide.css").read_text()
    assert "immutable" not in style.headers["cache-control"], "its name would stay when it changes"
    missing = await deploying.get(site.url, "/posts/none/", Accept="text/html")
    assert missing.status_code == 404, "a site of many pages has no fallback"


async def test_a_later_deployment_installs_from_the_cache_and_sends_only_what_changed(
    deploying: Deploying, apps: dict[str, Deployed]
) -> None:
    site, first = apps["vite-react"].site, apps["vite-react"].first
    assert any((cache_of(deploying, site) / "npm" / "_cacache").rglob("*")), "npm's own cache stays"
    before = await deploying.get(site.url)
    source = (APPS / "vite-react" / "index.html").read_text()
    changed = source.replace("<title>", "<title>Spring tide: ")
    assert changed != source
    await deploying.remote.commit(site.repository, {"index.html": changed})
    # Without the cache this fails: npm may not ask the registry for anything.
    await deploying.run(UPDATE, input={"id": site.id, "installCommand": "npm ci --offline"})
    second = await deploying.deployed(site)
    after = await deploying.get(site.url)
    assert "Spring tide: " in after.text
    assert asset_of(after.text, "js") == asset_of(before.text, "js")
    assert second["fileCount"] == first["fileCount"]
    assert second["uploadedBytes"] == len(after.content), "the page alone"
    assert first["uploadedBytes"] == first["artifactSize"] > 100_000


async def test_a_killed_worker_s_build_is_made_again_from_the_same_commit_and_published_once(
    deploying: Deploying, apps: dict[str, Deployed], db: asyncpg.Connection
) -> None:
    site = apps["vite-react"].site
    published = len(await publications(db, site))
    configuration = {"installCommand": "npm ci --offline", "buildCommand": f"{WAIT_ONCE}; npm run build"}
    await deploying.run(UPDATE, input={"id": site.id, **configuration})
    source = (APPS / "vite-react" / "index.html").read_text()
    wanted = await deploying.remote.commit(site.repository, {"index.html": source.replace("<title>", "<title>Kept ")})
    deployment = await deploying.deploy(site)
    await eventually((cache_of(deploying, site) / "xdg" / "began").is_dir, 30, what="the middle of the build")
    assert any("sleep 600" in command for command in leftover_processes(site.slug).values())
    execution = str(decode_id(deployment)[1])
    (victim,) = [
        program
        for program in deploying.programs.started
        if any(event["execution_id"] == execution for event in program.events("execution_started"))
    ]
    await deploying.remote.commit(site.repository, {"index.html": source.replace("<title>", "<title>Later ")})
    rescuer = await deploying.worker()
    victim.kill()
    await victim.wait_exit()
    await eventually(lambda: not leftover_processes(site.slug), 5, what="the end of the tree of a killed worker")
    made = await deploying.ended(deployment)
    assert made["status"] == "SUCCEEDED", await deploying.log(deployment)
    assert rescuer.events("execution_started")[-1]["execution_id"] == execution
    assert made["attempt"] == 2
    assert made["commitHash"] == wanted
    assert made["isLive"]
    assert "<title>Kept " in (await deploying.get(site.url)).text
    moves = await publications(db, site)
    assert len(moves) == published + 1
    assert moves[-1]["deployment_id"] == decode_id(deployment)[1]
    assert workspaces_of(deploying, deployment) == []
