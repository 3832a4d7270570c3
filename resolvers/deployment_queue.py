"""Queueing deployments: the one way in for people, pushes, pull requests and hooks.

Invariants: number, snapshot of configuration and variables, execution and what it replaces are one transaction; what
takes the same address is built one at a time, in the order it was asked for; a fork's code gets neither production nor
any variable. Who may ask is decided by the callers.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from adapters import events
from errors import ValidationFailed
from models import database, deployment_queries, execution_commands, project_queries
from models.database import Row
from models.deployments import KIND, DeploymentTrigger
from models.events import CancelRequested, ExecutionChanged
from models.execution_commands import CancelOutcome
from models.ids import new_id
from models.projects import DeploymentEnvironment, SupersedePolicy
from models.sealed import DEPLOYMENT_ENVIRONMENT, ENVIRONMENT_VALUE
from models.sites import PRODUCTION_ALIAS
from resolvers import access, sessions
from tasks import queue

MAX_MESSAGE_LENGTH: Final = 10_000
MAX_AUTHOR_LENGTH: Final = 255
_MAX_LABEL: Final = 63  # RFC 1035 §2.3.4
_SEPARATOR: Final = "--"
_DIGEST_LENGTH: Final = 6
# What a branch cannot have as it is: addresses of other kinds, and what looks like an address with a piece of a hash.
_NOT_PLAIN: Final = re.compile(rf"{PRODUCTION_ALIAS}|pr-.*|(?:.*-)?[0-9a-f]{{{_DIGEST_LENGTH}}}")
_KEY_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY_LENGTH: Final = 16
_REPLACING: Final = frozenset({DeploymentTrigger.PUSH, DeploymentTrigger.PULL_REQUEST, DeploymentTrigger.DEPLOY_HOOK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is built. Without a commit it is the branch's newest when the build begins; `clone_url` is a fork's."""

    branch: str
    commit_hash: str | None = None
    commit_message: str | None = None
    commit_author: str | None = None
    pull_request: int | None = None
    is_fork: bool = False
    clone_url: str | None = None


async def enqueue(
    project: Row,
    source: Source,
    *,
    environment: DeploymentEnvironment,
    trigger: DeploymentTrigger,
    requested_by: UUID | None,
    deployment_id: UUID | None = None,
) -> UUID:
    """Queue a deployment of a project with its present configuration; call it inside a unit of work. Returns its id.

    Deployments of the same branch that a push replaces are cancelled, as the project's policy says. Raises NotFound
    when the project is gone, RateLimitExceeded when too many of its owner's wait.
    """
    deployment_id = deployment_id or new_id()
    taken = await project_queries.take_number(project["id"])
    if taken is None:
        raise access.missing()
    number, project = taken
    variables = {} if source.is_fork else await _variables(project["id"], environment)
    columns = {
        "branch": source.branch,
        "commit_hash": source.commit_hash,
        "commit_message": source.commit_message and source.commit_message[:MAX_MESSAGE_LENGTH],
        "commit_author": source.commit_author and source.commit_author[:MAX_AUTHOR_LENGTH],
        "pull_request": source.pull_request,
        "is_fork": source.is_fork,
        "clone_url": source.clone_url or project["repository"],
        "configuration": database.to_json({name: project[name] for name in project_queries.CONFIGURATION_COLUMNS}),
    }
    await _insert(
        deployment_id,
        project,
        number,
        columns,
        variables=variables,
        environment=environment,
        trigger=trigger,
        requested_by=requested_by,
    )
    if trigger in _REPLACING:
        await _replace_older(project, source, environment, newer=deployment_id)
    return deployment_id


async def enqueue_again(project_id: UUID, deployment_id: UUID, *, again_id: UUID, requested_by: UUID | None) -> None:
    """Queue a deployment that repeats another one: the same commit, configuration and variables, as they were then.

    Call it inside a unit of work; raises as `enqueue`.
    """
    snapshot = await deployment_queries.snapshot(deployment_id)
    taken = await project_queries.take_number(project_id)
    if snapshot is None or taken is None:
        raise access.missing()
    number, project = taken
    sealed = snapshot["sealed_environment"]
    opened = sessions.secret_box().open(sealed, place=DEPLOYMENT_ENVIRONMENT.place(deployment_id)) if sealed else "{}"
    copied = ("branch", "commit_hash", "commit_message", "commit_author", "pull_request", "is_fork", "clone_url")
    await _insert(
        again_id,
        project,
        number,
        {
            **{name: snapshot[name] for name in copied},
            "configuration": snapshot["configuration"],
            "redeploy_of_id": deployment_id,
        },
        variables=orjson.loads(opened),
        environment=DeploymentEnvironment(snapshot["environment"]),
        trigger=DeploymentTrigger.REDEPLOY,
        requested_by=requested_by,
    )


def alias_of(project_slug: str, source: Source, environment: DeploymentEnvironment) -> str:
    """The address under a project that a deployment takes: `production`, `pr-<number>` or one of its branch.

    Only a fork's has its pull request's number. A pull request within the repository is its branch's: the push and the
    pull request that name a commit come in any order, and whichever is first must not decide about the address. Two
    branches never share one: what had to be changed or cut for a host name carries a piece of the branch's hash.
    """
    if environment is DeploymentEnvironment.PRODUCTION:
        return PRODUCTION_ALIAS
    if source.is_fork and source.pull_request is not None:
        return f"pr-{source.pull_request}"
    room = _MAX_LABEL - len(_SEPARATOR) - len(project_slug)
    label = re.sub(r"[^a-z0-9]+", "-", source.branch.lower()).strip("-")
    if label == source.branch and len(label) <= room and not _NOT_PLAIN.fullmatch(label):
        return label
    digest = hashlib.sha256(source.branch.encode()).hexdigest()[:_DIGEST_LENGTH]
    stem = label[: room - _DIGEST_LENGTH - 1].strip("-")
    # A hash of digits alone would make it the address of a fork's pull request.
    return f"{'branch-pr' if stem == 'pr' else stem}-{digest}".strip("-")


async def _insert(
    deployment_id: UUID,
    project: Row,
    number: int,
    columns: dict[str, Any],
    *,
    variables: dict[str, str],
    environment: DeploymentEnvironment,
    trigger: DeploymentTrigger,
    requested_by: UUID | None,
) -> None:
    if columns["is_fork"] and environment is not DeploymentEnvironment.PREVIEW:
        raise ValidationFailed("A fork's code is never deployed to production.", path=["input", "environment"])
    settings = sessions.settings()
    source = Source(branch=columns["branch"], pull_request=columns["pull_request"], is_fork=columns["is_fork"])
    alias = alias_of(project["slug"], source, environment)
    await execution_commands.create(
        deployment_id,
        kind=KIND,
        owner_id=project["owner_id"],
        requested_by=requested_by,
        timeout_seconds=settings.build_timeout_seconds,
        max_attempts=settings.max_attempts,
        max_queued=settings.max_queued_per_user,
        turn_key=f"{project['id']}:{alias}",
    )
    place = DEPLOYMENT_ENVIRONMENT.place(deployment_id)
    sealed = sessions.secret_box().seal(orjson.dumps(variables), place=place) if variables else None
    await deployment_queries.insert(
        deployment_id,
        project["id"],
        {
            **columns,
            "number": number,
            "environment": environment.value,
            "trigger": trigger.value,
            "sealed_environment": sealed,
            "site_key": "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_LENGTH)),
            "alias": alias,
        },
    )
    await events.publish(ExecutionChanged(deployment_id, project["owner_id"]))
    await queue.ring(KIND, deployment_id)


async def _replace_older(project: Row, source: Source, environment: DeploymentEnvironment, *, newer: UUID) -> None:
    older = await deployment_queries.older_of_branch(
        project["id"],
        newer=newer,
        branch=source.branch,
        environment=environment,
        alias=alias_of(project["slug"], source, environment),
        policy=SupersedePolicy(project["supersede"]),
    )
    replaced = []
    for execution_id in older:
        outcome = await execution_commands.request_cancel(execution_id, by=None)
        if outcome is CancelOutcome.FINAL:
            continue
        replaced.append(execution_id)
        await events.publish(CancelRequested(execution_id))
        await events.publish(ExecutionChanged(execution_id, project["owner_id"]))
    if replaced:
        await deployment_queries.mark_superseded(replaced, by=newer)


async def _variables(project_id: UUID, environment: DeploymentEnvironment) -> dict[str, str]:
    """Names and values of a project's variables, opened."""
    return {
        row["name"]: sessions.secret_box().open(row["sealed_value"], place=ENVIRONMENT_VALUE.place(row["id"]))
        for row in await project_queries.sealed_variables(project_id, environment)
    }
