"""Deployments from end to end: what a sandboxed build costs, how soon a push is live, how the queue is shared.

Baselines are the same work by hand on the same machine: `git clone`, `npm ci` and `npm run build` in plain processes,
and `git clone` with a copy of the files. Repositories come from a git server of the benchmark's own. Rounds of both
sides alternate, because machines change their speed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from models.ids import decode_id
from tests.bench.place import Place, place
from tests.factories import Person, new_user
from tests.harness import github_schema
from tests.harness.deploying import CREATE_PROJECT, DEPLOY, DEPLOYMENT
from tests.harness.git_remote import APPS, GitRemote
from tests.harness.npm_registry import NoRegistry, find_registry

OVERHEAD_ROUNDS = 3
PUSHES = 10
LARGER, SMALLER = (8, 5), (5, 2)
"""Projects, and deployments of each: 40 of one user and 10 of another."""

SLOTS, BUILDS_PER_USER = 4, 2
SET_VARIABLES = """
mutation Set($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project { id } } }
"""
POLL_SECONDS = 0.005
_SECRET = "bench"


async def overhead() -> None:
    """Print how long a change to Vite and React takes by hand and as a deployment, caches warm, and the ratio."""
    try:
        registry = await asyncio.to_thread(find_registry)
    except NoRegistry as error:
        print(f"not measured: {error}")
        return
    async with _open(registry.allowed_host, **registry.settings) as (here, remote):
        await remote.push_folder("bench/vite", APPS / "vite-react")
        project = await _project(here, here.person, remote.url("bench/vite"))
        variables = [{"name": name, "value": value} for name, value in registry.variables.items()]
        if variables:
            await here.client.run(
                SET_VARIABLES, {"input": {"projectId": project["id"], "variables": variables}}, token=here.person.token
            )
        await here.worker()
        by_hand, deployed, parts = [], [], []
        board = (APPS / "vite-react" / "src" / "Board.jsx").read_text()
        for number in range(OVERHEAD_ROUNDS + 1):
            changed = board.replace("Harbour board", f"Harbour board {number}")
            await remote.commit("bench/vite", {"src/Board.jsx": changed})
            seconds = await _build_by_hand(here, remote.url("bench/vite"))
            row = await here.final(await _deploy(here, here.person, project))
            assert row["status"] == "SUCCEEDED", row["failure_message"]
            if number:  # the first round fills both caches
                by_hand.append(seconds)
                deployed.append((row["finished_at"] - row["queued_at"]).total_seconds())
                parts.append(row)
        for name, seconds in (await _phases(here, [row["id"] for row in parts])).items():
            print(f"  {name:39} {seconds:6.2f} s")
        hand, ours = statistics.median(by_hand), statistics.median(deployed)
        print(f"clone, npm ci, npm run build by hand      {hand:6.2f} s")
        print(f"deployment, from QUEUED to SUCCEEDED      {ours:6.2f} s  ratio {ours / hand:.2f}")


async def push_to_live() -> None:
    """Print how long a push of a plain site takes to be served, where the time goes, and the ratio to a copy."""
    async with _open(GITHUB_WEBHOOK_SECRET=_SECRET) as (here, remote):
        await remote.push_folder("bench/plain", APPS / "plain")
        project = await _project(here, here.person, remote.url("bench/plain"))
        await here.worker()
        await here.final(await _deploy(here, here.person, project))
        host = f"{project['slug']}.localhost"
        by_hand, live, answered, executions = [], [], [], []
        for number in range(PUSHES):
            text = f"<h1>Push {number}</h1>"
            commit = await remote.commit("bench/plain", {"index.html": text})
            by_hand.append(await _copy_by_hand(here, remote.url("bench/plain"), text))
            begun = time.monotonic()
            await _push(here, "bench/plain", commit)
            answered.append(time.monotonic() - begun)
            await _until_served(here, host, text)
            live.append(time.monotonic() - begun)
            executions.append(await here.db.fetchval("SELECT id FROM executions ORDER BY queued_at DESC LIMIT 1"))
        print(f"  webhook answered                       {statistics.median(answered) * 1e3:6.0f} ms")
        for name, seconds in (await _phases(here, executions)).items():
            print(f"  {name:38} {seconds * 1e3:6.0f} ms")
        hand, ours = statistics.median(by_hand), statistics.median(live)
        print(f"clone and copy by hand                   {hand * 1e3:6.0f} ms")
        print(f"push to live                             {ours * 1e3:6.0f} ms  ratio {ours / hand:.1f}")


async def queue() -> None:
    """Print how fifty deployments of two users are ordered, and what each user waits for."""
    settings = {"MAX_BUILDS_PER_USER": str(BUILDS_PER_USER), "WORKER_BUILD_SLOTS": str(SLOTS)}
    async with _open(**settings) as (here, remote):
        await remote.create("bench/tiny", {"index.html": "<h1>Hi</h1>"})
        smaller = await new_user(here.client)
        executions = []
        for person, (projects, each) in ((here.person, LARGER), (smaller, SMALLER)):
            made = [
                await _project(
                    here,
                    person,
                    remote.url("bench/tiny"),
                    buildCommand="mkdir out && cp index.html out/",
                    outputDirectory="out",
                )
                for _ in range(projects)
            ]
            executions += [await _deploy(here, person, project) for _ in range(each) for project in made]
        await here.worker()
        rows = [await here.final(execution) for execution in executions]
        assert {row["status"] for row in rows} == {"SUCCEEDED"}
        _report_queue(rows, decode_id(here.person.id)[1], decode_id(smaller.id)[1])


def _report_queue(rows: list[asyncpg.Record], larger: UUID, smaller: UUID) -> None:
    started: Callable[[asyncpg.Record], Any] = lambda row: row["started_at"]  # noqa: E731
    begun = min(map(started, rows))
    last = {owner: max(started(row) for row in rows if row["owner_id"] == owner) for owner in (larger, smaller)}
    waits = {owner: (at - begun).total_seconds() for owner, at in last.items()}
    together = [row["owner_id"] for row in sorted(rows, key=started) if started(row) <= last[smaller]]
    shares = {owner: together.count(owner) for owner in (larger, smaller)}
    turn: Callable[[asyncpg.Record], str] = lambda row: row["turn_key"]  # noqa: E731
    in_order = sorted(rows, key=lambda row: (turn(row), row["queued_at"], row["id"]))
    violations = sum(
        later["started_at"] < earlier["finished_at"]
        for _, group in groupby(in_order, key=turn)
        for earlier, later in pairwise(group)
    )
    took = (max(row["finished_at"] for row in rows) - begun).total_seconds()
    print(f"{len(rows)} deployments in {took:.1f} s, {len(rows) / took:.1f} per second")
    print(f"started before the one in front of them in their turn had ended: {violations}")
    print(f"the last one of 40 began after {waits[larger]:.1f} s, the last one of 10 after {waits[smaller]:.1f} s")
    print(f"ratio of the smaller user's wait to a single line of all: {waits[smaller] / max(waits.values()):.2f}")
    print(
        f"starts while both waited: {shares[larger]} and {shares[smaller]}, "
        f"fairness ratio {shares[larger] / shares[smaller]:.2f}"
    )


# -- both sides


@asynccontextmanager
async def _open(*allowed_hosts: str, **settings: str) -> AsyncIterator[tuple[Place, GitRemote]]:
    """A place to deploy, whose builds reach a git server that counts as GitHub, and these hosts."""
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        async with (
            GitRemote(Path(folder)) as remote,
            place(
                GITHUB_URL=remote.base_url,
                GIT_PROTOCOLS="https,http",
                BUILD_ALLOWED_HOSTS=",".join((remote.allowed_host, *allowed_hosts)),
                WORKER_CRAWL_SLOTS="0",
                **settings,
            ) as here,
        ):
            yield here, remote


async def _project(here: Place, person: Person, repository: str, **configuration: str) -> dict[str, Any]:
    fields = {"name": "Bench", "repository": repository, **configuration}
    project: dict[str, Any] = (await here.client.run(CREATE_PROJECT, {"input": fields}, token=person.token))[
        "createProject"
    ]["project"]
    return project


async def _deploy(here: Place, person: Person, project: Mapping[str, Any]) -> UUID:
    """The execution of a new deployment."""
    made = await here.client.run(DEPLOY + DEPLOYMENT, {"input": {"projectId": project["id"]}}, token=person.token)
    return decode_id(made["createDeployment"]["deployment"]["id"])[1]


async def _push(here: Place, name: str, commit: str) -> None:
    """What GitHub sends after a push."""
    payload = github_schema.payload("push")
    head = {**payload["head_commit"], "id": commit}
    payload.update(ref="refs/heads/main", created=False, head_commit=head, commits=[head], after=commit)
    payload["repository"].update(full_name=name, private=False)
    body = json.dumps(payload).encode()
    answer = await here.client.http.post(
        f"{here.api.url}/webhooks/github",
        content=body,
        headers={
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": secrets.token_hex(16),
            "X-Hub-Signature-256": f"sha256={hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()}",
        },
    )
    assert answer.is_success, answer.text


async def _until_served(here: Place, host: str, text: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await here.client.http.get(here.api.url, headers={"Host": host})).text == text:
                return
            await asyncio.sleep(POLL_SECONDS)


async def _phases(here: Place, executions: list[UUID]) -> dict[str, float]:
    """Seconds in each step, the median."""
    rows = await here.db.fetch(
        """SELECT execution_id, status, stage, at, lead(at) OVER (PARTITION BY execution_id ORDER BY at, id) AS until
           FROM execution_events WHERE execution_id = ANY($1::uuid[]) ORDER BY at""",
        executions,
    )
    times: dict[str, list[float]] = {}
    for row in rows:
        if row["until"] is not None:
            times.setdefault(row["stage"] or row["status"], []).append((row["until"] - row["at"]).total_seconds())
    return {name: statistics.median(found) for name, found in times.items()}


async def _build_by_hand(here: Place, url: str) -> float:
    folder = here.folder / "by-hand"
    environment = {**os.environ, "npm_config_cache": str(here.folder / "npm"), "CI": "1"}
    begun = time.monotonic()
    await _command("git", "clone", "--quiet", "--depth=1", url, str(folder))
    await _command("npm", "ci", cwd=folder, env=environment)
    await _command("npm", "run", "build", cwd=folder, env=environment)
    seconds = time.monotonic() - begun
    assert (folder / "dist" / "index.html").is_file()
    await asyncio.to_thread(shutil.rmtree, folder)
    return seconds


async def _copy_by_hand(here: Place, url: str, text: str) -> float:
    clone, served = here.folder / "clone", here.folder / "served"
    begun = time.monotonic()
    await _command("git", "clone", "--quiet", "--depth=1", url, str(clone))
    await asyncio.to_thread(shutil.copytree, clone, served, ignore=shutil.ignore_patterns(".git"))
    seconds = time.monotonic() - begun
    assert (served / "index.html").read_text() == text
    for folder in (clone, served):
        await asyncio.to_thread(shutil.rmtree, folder)
    return seconds


async def _command(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")
