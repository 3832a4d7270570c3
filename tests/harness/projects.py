"""Projects and deployments as users make them through the API, without a worker: deployments wait until a test acts.

What pushes and pull requests queue is queued by the code that they use, in the environment of the module's programs.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
import pytest
from redis.asyncio import Redis

from adapters import events
from models import project_queries
from models.deployments import KIND, DeploymentTrigger
from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, decode_id, encode_id
from models.projects import DeploymentEnvironment
from models.sealed import DEPLOYMENT_ENVIRONMENT
from models.transaction import unit_of_work
from resolvers import deployment_queue, sessions
from resolvers.deployment_queue import Source
from tasks import queue
from tests.factories import Person
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, open_desk, settings_of
from tests.harness.waiting import eventually

REPOSITORY = "https://git.example.com/team/site.git"
PROJECT = """
fragment P on Project {
  id name slug repository repositoryFullName branch rootDirectory framework installCommand buildCommand outputDirectory
  spaFallback autoDeploy previewDeployments supersede installScripts buildNetwork submodules createdAt updatedAt url
  owner { id } environmentVariables { id name environment maskedValue createdAt updatedAt }
  deployHooks { id name branch environment createdAt lastUsedAt }
}
"""
DEPLOYMENT = """
fragment D on Deployment {
  id status stage number environment trigger branch commitHash commitMessage author pullRequest isFork currentStage url
  isLive aliases configuration requestedBy { id } project { id slug } supersededBy { id } redeployOf { id }
  stages { name status startedAt finishedAt error } steps { name status startedAt finishedAt error }
}
"""
CREATE = "mutation ($input: CreateProjectInput!) { it: createProject(input: $input) { project { ...P } } }"
UPDATE = "mutation ($input: UpdateProjectInput!) { it: updateProject(input: $input) { project { ...P } } }"
DELETE = "mutation ($input: DeleteProjectInput!) { it: deleteProject(input: $input) { deletedId } }"
SET = """
mutation ($input: SetEnvironmentVariablesInput!) { it: setEnvironmentVariables(input: $input) { project { ...P } } }
"""
CREATE_HOOK = """
mutation ($input: CreateDeployHookInput!) {
  it: createDeployHook(input: $input) { url deployHook { id name branch environment lastUsedAt } }
}
"""
DELETE_HOOK = "mutation ($input: DeleteDeployHookInput!) { it: deleteDeployHook(input: $input) { deletedId } }"
ONE = "query ($id: ID!) { it: project(id: $id) { ...P } }"
DEPLOY = "mutation ($input: CreateDeploymentInput!) { it: createDeployment(input: $input) { deployment { ...D } } }"
CANCEL = "mutation ($input: CancelDeploymentInput!) { it: cancelDeployment(input: $input) { deployment { ...D } } }"
REDEPLOY = "mutation ($input: RedeployInput!) { it: redeploy(input: $input) { deployment { ...D } } }"
PROMOTE = "mutation ($input: PromoteDeploymentInput!) { it: promoteDeployment(input: $input) { deployment { ...D } } }"
DELETE_DEPLOYMENT = "mutation ($input: DeleteDeploymentInput!) { it: deleteDeployment(input: $input) { deletedId } }"
ONE_DEPLOYMENT = "query ($id: ID!) { it: deployment(id: $id) { ...D } }"
NODES = "query ($ids: [ID!]!) { it: nodes(ids: $ids) { __typename id } }"

_TABLES = (
    *("projects", "environment_variables", "deploy_hooks", "executions", "deployments", "execution_events"),
    *("idempotency_keys", "site_aliases", "site_publications", "outbox_messages", "audit_events"),
)


class Studio:
    """What users do with projects, what pushes do, and what the database then holds."""

    def __init__(self, client: GraphQLClient, desk: Desk, redis: Redis, queue_name: str) -> None:
        self.client = client
        self.desk = desk
        self.pool = desk.pool
        self._redis = redis
        self._queue = queue_name

    async def run(self, person: Person | None, document: str, **variables: Any) -> Any:
        """The answer of an operation's field `it`."""
        fragments = (text for mark, text in (("...P", PROJECT), ("...D", DEPLOYMENT)) if mark in document)
        text = document + "".join(fragments)
        return (await self.client.run(text, variables, token=person.token if person else None))["it"]

    async def refused(self, person: Person | None, document: str, **variables: Any) -> GraphQLFailure:
        """The error of an operation that leaves everything as it was: rows, the outbox, the queue."""
        before = await self.state()
        with pytest.raises(GraphQLFailure) as failure:
            await self.run(person, document, **variables)
        assert await self.state() == before
        return failure.value

    async def state(self) -> list[Any]:
        """All that a command on projects and deployments can change."""
        rows = [await self.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in _TABLES]
        return [*rows, await self._redis.zrange(self._queue, 0, -1)]

    async def until_waiting(self, count: int) -> None:
        """Wait until so many statements wait for a lock of the module's database."""

        async def all_wait() -> bool:
            waiting = await self.pool.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
            return bool(waiting >= count)

        await eventually(all_wait, what=f"{count} waiting for a lock")

    async def is_rung(self, deployment_id: str) -> bool:
        """Whether workers were told of a deployment."""
        members = await self._redis.zrange(self._queue, 0, -1)
        return any(str(uuid(deployment_id)).encode() in member for member in members)

    async def project(self, person: Person, **fields: Any) -> dict[str, Any]:
        """A project."""
        made = await self.run(person, CREATE, input={"name": "Website", "repository": REPOSITORY, **fields})
        project: dict[str, Any] = made["project"]
        return project

    async def deployment(self, person: Person, project_id: str, **fields: Any) -> dict[str, Any]:
        """A deployment that waits."""
        made = await self.run(person, DEPLOY, input={"projectId": project_id, **fields})
        deployment: dict[str, Any] = made["deployment"]
        return deployment

    async def read(self, person: Person, deployment_id: str) -> dict[str, Any]:
        """A deployment now."""
        found: dict[str, Any] = await self.run(person, ONE_DEPLOYMENT, id=deployment_id)
        return found

    async def hook(self, person: Person, project_id: str, **fields: Any) -> dict[str, Any]:
        """A deploy hook with its address."""
        made: dict[str, Any] = await self.run(
            person, CREATE_HOOK, input={"projectId": project_id, "name": "Timer", **fields}
        )
        return made

    async def set(self, person: Person, project_id: str, *variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Change variables; the project after that."""
        made = await self.run(person, SET, input={"projectId": project_id, "variables": list(variables), **more})
        project: dict[str, Any] = made["project"]
        return project

    async def finish(self, deployment_id: str, status: ExecutionStatus = ExecutionStatus.SUCCEEDED) -> None:
        """End a deployment that waits, as its worker would, without an address moving to it."""
        failure = Failure(FailureCode.COMMAND_FAILED, "It broke.") if status is ExecutionStatus.FAILED else None
        await (await self.desk.claim(uuid(deployment_id))).finish(status, failure=failure)

    async def enqueue(
        self,
        project_id: str,
        branch: str = "main",
        *,
        trigger: DeploymentTrigger = DeploymentTrigger.PUSH,
        environment: DeploymentEnvironment = DeploymentEnvironment.PRODUCTION,
        **source: Any,
    ) -> str:
        """Queue a deployment as a push does."""
        project = (await project_queries.find([uuid(project_id)]))[uuid(project_id)]
        async with unit_of_work():
            made = await deployment_queue.enqueue(
                project,
                Source(branch=branch, **source),
                environment=environment,
                trigger=trigger,
                requested_by=None,
            )
        return deployment_id_of(made)

    async def variables(self, deployment_id: str) -> dict[str, str]:
        """The variables that a deployment's build gets, opened as its worker opens them."""
        sealed = await self.pool.fetchval(
            "SELECT sealed_environment FROM deployments WHERE execution_id = $1", uuid(deployment_id)
        )
        if sealed is None:
            return {}
        place = DEPLOYMENT_ENVIRONMENT.place(uuid(deployment_id))
        opened: dict[str, str] = orjson.loads(sessions.secret_box().open(sealed, place=place))
        return opened


@asynccontextmanager
async def open_studio(client: GraphQLClient, environment: Mapping[str, str]) -> AsyncIterator[Studio]:
    """A studio on the module's database, queue and keys."""
    settings = settings_of(environment)
    async with open_desk(environment) as desk, queue.connected(settings), sessions.opened(settings):
        redis = events.open_redis(settings)
        try:
            yield Studio(client, desk, redis, queue.queue_name(settings.redis_namespace, KIND))
        finally:
            await redis.aclose()


def uuid(id_text: str) -> UUID:
    """The key of the row that an id names."""
    return decode_id(id_text)[1]


def deployment_id_of(execution: UUID) -> str:
    """The id of a deployment that clients see."""
    return encode_id(Prefix.DEPLOYMENT, execution)


def new_slug() -> str:
    """A slug that no other project has."""
    return f"site-{secrets.token_hex(6)}"
