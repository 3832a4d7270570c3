"""Deployments as users make them: a project on the module's git remote, an API, a worker with the real sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.conftest import ApiServer, Programs
from tests.factories import Person
from tests.harness.client import GraphQLClient
from tests.harness.git_remote import GitRemote
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually

DEPLOYMENT = """
fragment D on Deployment {
  id status stage progress attempt number environment trigger branch commitHash commitMessage author url isLive aliases
  fileCount artifactSize uploadedBytes buildDuration currentStage framework cancelRequestedAt cpuSeconds
  peakMemoryBytes
  failure { code message stage exitCode signal retryable }
  stages { name status startedAt finishedAt error } steps { name status }
  supersededBy { id } redeployOf { id }
}
"""
CREATE_PROJECT = """
mutation Create($input: CreateProjectInput!) { createProject(input: $input) { project { id slug url } } }
"""
DEPLOY = "mutation Deploy($input: CreateDeploymentInput!) { createDeployment(input: $input) { deployment { ...D } } }"
READ = "query Read($id: ID!) { deployment(id: $id) { ...D } }"
LOG = """
query Log($id: ID!, $after: String) {
  deployment(id: $id) { logs(first: 1000, after: $after) {
    pageInfo { hasNextPage endCursor } edges { node { sequence level message stage } } } }
}
"""
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """A project of somebody."""

    id: str
    slug: str
    url: str
    repository: str


class Deploying:
    """What a user does, and a look at what comes of it."""

    def __init__(self, client: GraphQLClient, api: ApiServer, programs: Programs, remote: GitRemote) -> None:
        self.client = client
        self.api = api
        self.programs = programs
        self.remote = remote
        self.owner: Person
        self._http = httpx.AsyncClient(timeout=30, trust_env=False)

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def worker(self, **settings: str) -> Program:
        """A ready worker."""
        started = self.programs.start([CLI, "worker"], kind="worker", **settings)
        await started.wait_event("worker_started")
        return started

    async def run(self, document: str, *, person: Person | None = None, **variables: Any) -> dict[str, Any]:
        """An operation as the owner, or somebody else."""
        text = document + (DEPLOYMENT if "...D" in document else "")
        return await self.client.run(text, variables, token=(person or self.owner).token)

    async def site(
        self, files: Mapping[str, Any] | Path, *, person: Person | None = None, **configuration: Any
    ) -> Site:
        """A project on a repository of its own with these files."""
        name = f"team/site-{secrets.token_hex(4)}"
        if isinstance(files, Path):
            await self.remote.push_folder(name, files)
        else:
            await self.remote.create(name, files)
        project = await self.project(self.remote.url(name), person=person, **configuration)
        return Site(project["id"], project["slug"], project["url"], name)

    async def project(self, repository: str, *, person: Person | None = None, **configuration: Any) -> dict[str, Any]:
        """A project."""
        fields = {"name": "Site", "repository": repository, **configuration}
        made = await self.run(CREATE_PROJECT, person=person, input=fields)
        project: dict[str, Any] = made["createProject"]["project"]
        return project

    async def deploy(self, site: Site | str, *, person: Person | None = None, **what: Any) -> str:
        """Ask for a deployment; its id."""
        project = site if isinstance(site, str) else site.id
        made = await self.run(DEPLOY, person=person, input={"projectId": project, **what})
        return str(made["createDeployment"]["deployment"]["id"])

    async def read(self, deployment: str) -> dict[str, Any]:
        """A deployment now."""
        found: dict[str, Any] = (await self.run(READ, id=deployment))["deployment"]
        return found

    async def ended(self, deployment: str, within: float = END_SECONDS) -> dict[str, Any]:
        """A deployment once it is final."""

        async def final() -> dict[str, Any] | None:
            found = await self.read(deployment)
            return found if found["status"] in FINAL else None

        ended: dict[str, Any] = await eventually(final, within, what=f"the end of {deployment}")
        return ended

    async def deployed(self, site: Site | str, *, within: float = END_SECONDS, **what: Any) -> dict[str, Any]:
        """A deployment that succeeded."""
        found = await self.ended(await self.deploy(site, **what), within)
        assert found["status"] == "SUCCEEDED", (found, await self.log(found["id"]))
        return found

    async def until(self, deployment: str, *, stage: str, within: float = END_SECONDS) -> dict[str, Any]:
        """A deployment once it has reached a step."""

        async def reached() -> dict[str, Any] | None:
            found = await self.read(deployment)
            assert found["status"] not in FINAL, (found, await self.log(deployment))
            return found if found["stage"] == stage else None

        there: dict[str, Any] = await eventually(reached, within, what=f"{stage} of {deployment}")
        return there

    async def until_line(self, deployment: str, text: str, within: float = END_SECONDS) -> None:
        """Wait until the log has a line; the command itself, which is logged too, does not count."""

        async def said() -> bool:
            return text in await self.log(deployment)

        await eventually(said, within, what=f"{text!r} in the log of {deployment}")

    async def log(self, deployment: str) -> list[str]:
        """The messages of a log."""
        lines: list[str] = []
        after = None
        while True:
            page = (await self.run(LOG, id=deployment, after=after))["deployment"]["logs"]
            lines += [edge["node"]["message"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return lines
            after = page["pageInfo"]["endCursor"]

    def stored_files(self) -> list[str]:
        """Keys of all files of sites in the module's storage."""
        records = (Path(self.programs.environment["DATA_DIR"]) / "files" / "objects").rglob("*.json")
        keys = [orjson.loads(record.read_bytes())["key"] for record in records]
        return sorted(key for key in keys if key.startswith("sites/"))

    async def get(self, url: str, path: str = "/", **headers: str) -> httpx.Response:
        """A page of a site, asked for by its host name."""
        host = url.removeprefix("http://").split("/")[0]
        return await self._http.get(f"{self.api.url}{path}", headers={"Host": host, **headers})
