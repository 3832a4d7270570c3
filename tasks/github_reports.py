"""Telling GitHub how a deployment fares: its deployment, that deployment's statuses, and the commit's status.

Each message says only that something changed; what is told is the state now, by one teller per deployment at a time.
GitHub is asked what it was told last, so a message that comes twice adds nothing, and nothing is told after an end. A
deployment is found again by the mark in its payload when its id got lost between GitHub and the database.

Nothing is told of projects that are not on GitHub or whose owner has not connected it, and nothing more where GitHub
refuses for good. What may work later is raised, and the outbox comes back with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters import github, github_api
from adapters.github import GitHub, Refused, TokenRefused
from errors import Forbidden, NotFound, ServiceUnavailable
from models import github_queries
from models.database import Row
from models.executions import ExecutionStatus, FailureCode
from models.ids import Prefix, encode_id
from models.projects import DeploymentEnvironment
from models.site_paths import deployment_label
from settings import Settings
from tasks.github_tokens import OwnerToken, noting_refusal, token_of
from tasks.outbox import Handler

TOPIC: Final = "github.report"
MAX_ROUNDS: Final = 3
"""How often the state may change while it is told; what changes after that has a message of its own."""

_PLATFORM_FAULTS: Final = frozenset(
    {FailureCode.INTERNAL.value, FailureCode.WORKER_LOST.value, FailureCode.UPLOAD_FAILED.value}
)
_FINAL_STATES: Final = frozenset({"success", "failure", "error", "inactive"})
_FINAL_COMMIT_STATES: Final = frozenset({"success", "failure", "error"})
_log = structlog.get_logger("switchyard.github")


@dataclass(frozen=True, slots=True)
class Report:
    """A state in GitHub's words: of the deployment and of the commit."""

    deployment_state: str
    commit_state: str
    description: str

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self.deployment_state in _FINAL_STATES


def reporting(settings: Settings, pool: asyncpg.Pool) -> Handler:
    """The handler of the topic."""
    return partial(report, pool=pool, settings=settings)


async def report(payload: Mapping[str, Any], pool: asyncpg.Pool, settings: Settings) -> None:
    """Tell GitHub the state of the deployment `executionId`; raises what may be better later."""
    execution_id = UUID(payload["executionId"])
    row = await github_queries.reported(pool, execution_id)
    owner = await _teller(pool, settings, row)
    if row is None or owner is None:
        return
    try:
        async with _alone(pool, execution_id) as connection, noting_refusal(connection, owner):
            await _tell_until_told(connection, settings, owner, execution_id)
    except (TokenRefused, Forbidden, NotFound, Refused) as error:
        _log.warning("github_report_refused", execution_id=str(execution_id), error=error.message)


def said_of(row: Row) -> Report:
    """What is said of a deployment in its present state."""
    status = ExecutionStatus(row["status"])
    number = row["number"]
    if status is ExecutionStatus.QUEUED:
        return Report("queued", "pending", f"Deployment {number} waits")
    if status is ExecutionStatus.RUNNING:
        return Report("in_progress", "pending", f"Deployment {number} is being built")
    if status is ExecutionStatus.SUCCEEDED:
        return Report("success", "success", f"Deployment {number} is ready")
    if status is ExecutionStatus.CANCELLED:
        return Report("inactive", "error", f"Deployment {number} was cancelled")
    state = "error" if row["failure_code"] in _PLATFORM_FAULTS else "failure"
    reason = (row["failure_message"] or row["failure_code"] or "it failed").splitlines()[0]
    return Report(state, state, f"Deployment {number} failed: {reason}")


async def _teller(pool: asyncpg.Pool, settings: Settings, row: Row | None) -> OwnerToken | None:
    if row is None or row["repository_full_name"] is None or row["commit_hash"] is None:
        return None  # deleted, elsewhere, or not known yet what is built: a later change will be told
    return await token_of(pool, settings, row["owner_id"])


@asynccontextmanager
async def _alone(pool: asyncpg.Pool, execution_id: UUID) -> AsyncIterator[asyncpg.Connection]:
    """Hold the deployment's turn, on a connection that is in no transaction; raises ServiceUnavailable when it is held.

    The turn ends with the connection, so a worker that was killed blocks nobody. What the teller reads and writes goes
    over the same connection: a small pool could not give it a second one.
    """
    key = f"{TOPIC}:{execution_id}"
    async with pool.acquire(timeout=5) as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):
            raise ServiceUnavailable("Another worker is telling GitHub about this deployment.")
        try:
            yield connection
        finally:
            await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)


async def _tell_until_told(
    connection: asyncpg.Connection, settings: Settings, owner: OwnerToken, execution_id: UUID
) -> None:
    told: Report | None = None
    for _ in range(MAX_ROUNDS):
        row = await github_queries.reported(connection, execution_id)
        if row is None or said_of(row) == told:
            return
        told = said_of(row)
        await _tell(connection, settings, owner, row, told)


async def _tell(connection: asyncpg.Connection, settings: Settings, owner: OwnerToken, row: Row, said: Report) -> None:
    client, token, repository = github.current(), owner.token, row["repository_full_name"]
    site_url = settings.site_url(deployment_label(row["site_key"], row["slug"]))
    target_url = site_url if said.deployment_state == "success" else settings.base_url
    # The commit first: of a fork's commit GitHub keeps no deployments.
    await _tell_of_commit(client, token, row, said, target_url)
    if row["is_fork"]:
        return
    deployment_id = row["github_deployment_id"] or await _announce(connection, client, token, row)
    if deployment_id is None:
        return
    known = await github_api.latest_deployment_state(client, token, repository, deployment_id)
    # `inactive` may also be GitHub's own word for what a newer deployment replaced.
    if known == said.deployment_state or known in _FINAL_STATES:
        return
    await github_api.create_deployment_status(
        client,
        token,
        repository,
        deployment_id,
        state=said.deployment_state,
        description=said.description,
        log_url=settings.base_url,
        environment_url=site_url if said.deployment_state == "success" else None,
    )


async def _tell_of_commit(client: GitHub, token: str, row: Row, said: Report, target_url: str) -> None:
    """A commit has one status per project; another deployment of the same commit may replace an end with its own."""
    context = f"switchyard/{row['slug']}"
    repository, commit = row["repository_full_name"], row["commit_hash"]
    known = await github_api.commit_status(client, token, repository, commit, context=context)
    description = said.description[: github_api.STATUS_DESCRIPTION_LENGTH]
    if known == (said.commit_state, description):
        return
    if known is not None and not said.is_final and _is_end_of(known, row["number"]):
        return
    await github_api.create_commit_status(
        client,
        token,
        repository,
        commit,
        context=context,
        state=said.commit_state,
        description=description,
        target_url=target_url,
    )


def _is_end_of(known: tuple[str, str], number: int) -> bool:
    state, description = known
    return state in _FINAL_COMMIT_STATES and description.startswith(f"Deployment {number} ")


async def _announce(connection: asyncpg.Connection, client: GitHub, token: str, row: Row) -> int | None:
    """The deployment at GitHub, found or made, and written down; None when ours is gone meanwhile."""
    mark = encode_id(Prefix.DEPLOYMENT, row["id"])
    is_production = row["environment"] == DeploymentEnvironment.PRODUCTION.value
    # Projects of one repository are environments of their own: a newer deployment of one replaces none of another.
    environment = f"{row['slug']}/{row['environment'].lower()}"
    repository, commit = row["repository_full_name"], row["commit_hash"]
    found = await github_api.find_deployment(
        client, token, repository, commit=commit, environment=environment, mark=mark
    )
    if found is None:
        found = await github_api.create_deployment(
            client,
            token,
            repository,
            commit=commit,
            environment=environment,
            is_production=is_production,
            mark=mark,
        )
    return await github_queries.keep_github_deployment(connection, row["id"], found)
