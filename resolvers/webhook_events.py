"""What GitHub's events mean: from a payload to what could be deployed, and from there to what a project does with it.

Pure rules, no database. Pushes to branches and pull requests that were opened, reopened or got commits can be deployed,
everything else is ignored with a reason for people. A fork's address is never taken from the payload: it is made of the
settings' GitHub and the fork's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adapters.git import check_branch
from adapters.github_shapes import (
    boolean,
    commit_hash,
    full_name,
    integer,
    listing,
    optional_text,
    text,
)
from errors import ValidationFailed
from models.database import Row
from models.deployments import DeploymentTrigger
from models.projects import DeploymentEnvironment
from resolvers.deployment_queue import Source
from settings import Settings

MOST_COMMITS_WITH_FILES: Final = 20
"""A push with more commits is deployed whatever it changed: their lists of files may be incomplete."""

PULL_REQUEST_ACTIONS: Final = frozenset({"opened", "synchronize", "reopened"})
SKIPPED: Final = "The commit's message asks not to deploy it."
NOTHING_BELOW: Final = "Nothing in the project's folder changed."
SKIPPED_WITH_PUSH: Final = (SKIPPED, NOTHING_BELOW)
"""Reasons of a push that hold for the pull request of the same commit too: its event does not tell."""

_BRANCH_REF: Final = "refs/heads/"
_MAX_MESSAGE: Final = 10_000
_MAX_PULL_REQUEST: Final = 2**31 - 1
_MARKER: Final = re.compile(r"\[(skip ci|ci skip|no ci|skip deploy|deploy skip)\]", re.IGNORECASE)
_TRAILER: Final = re.compile(r"^skip-checks:\s*true\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that deploys nothing, and why: for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something in a repository that projects may deploy. `changed_files` is None where they are not all known."""

    repository: str
    is_private: bool
    source: Source
    commit: str
    trigger: DeploymentTrigger
    is_skipped: bool = False
    changed_files: frozenset[str] | None = None


def read(event: str, payload: Mapping[str, Any], settings: Settings) -> Change | Ignored:
    """What an event could deploy; raises UnexpectedShape for a payload that is not as GitHub documents it."""
    if event == "ping":
        return Ignored("pong")
    try:
        if event == "push":
            return _push(payload)
        if event == "pull_request":
            return _pull_request(payload, settings)
    except ValidationFailed as refusal:
        return Ignored(f"The branch cannot be deployed: {refusal.message}")
    return Ignored(f"Events of the kind {event} deploy nothing.")


def decide(project: Row, change: Change) -> DeploymentEnvironment | Ignored:
    """Where a project deploys a change to, or why it does not."""
    if not project["auto_deploy"]:
        return Ignored("The project does not deploy by itself.")
    is_its_branch = change.source.branch == project["branch"] and not change.source.is_fork
    if change.trigger is DeploymentTrigger.PULL_REQUEST and is_its_branch:
        return Ignored("The pull request is from the production branch, whose pushes are deployed.")
    if not is_its_branch and not project["preview_deployments"]:
        return Ignored("The project makes no previews.")
    if change.is_skipped:
        return Ignored(SKIPPED)
    if change.changed_files is not None and not _touches(project["root_directory"], change.changed_files):
        return Ignored(NOTHING_BELOW)
    return DeploymentEnvironment.PRODUCTION if is_its_branch else DeploymentEnvironment.PREVIEW


def repository_of(payload: Mapping[str, Any]) -> str | None:
    """The repository that a payload is about, if it is about one."""
    return optional_text(payload, "repository", "full_name", max_length=255)


def is_skipped(message: str) -> bool:
    """Whether a commit's message asks not to be deployed: a marker anywhere, or the trailer `skip-checks: true`.

    Source: GitHub's documentation, "Skipping workflow runs".
    """
    last_paragraph = re.split(r"\n\s*\n", message.strip())[-1]
    return _MARKER.search(message) is not None or _TRAILER.search(last_paragraph) is not None


def _push(payload: Mapping[str, Any]) -> Change | Ignored:
    ref = text(payload, "ref")
    if boolean(payload, "deleted"):
        return Ignored("The branch or tag was deleted.")
    if not ref.startswith(_BRANCH_REF):
        return Ignored("Only pushes to branches are deployed.")
    commit = commit_hash(payload, "after")
    message = optional_text(payload, "head_commit", "message", max_length=_MAX_MESSAGE) or ""
    return Change(
        repository=full_name(payload, "repository", "full_name"),
        is_private=boolean(payload, "repository", "private"),
        source=Source(
            branch=check_branch(ref.removeprefix(_BRANCH_REF)),
            commit_hash=commit,
            commit_message=message or None,
            commit_author=optional_text(payload, "head_commit", "author", "username", max_length=255)
            or optional_text(payload, "head_commit", "author", "name", max_length=255),
        ),
        commit=commit,
        trigger=DeploymentTrigger.PUSH,
        is_skipped=is_skipped(message),
        changed_files=_changed_files(payload, commit),
    )


def _pull_request(payload: Mapping[str, Any], settings: Settings) -> Change | Ignored:
    action = text(payload, "action", max_length=64)
    if action not in PULL_REQUEST_ACTIONS:
        return Ignored(f"Pull requests that are {action.replace('_', ' ')} deploy nothing; previews stay.")
    if optional_text(payload, "pull_request", "head", "repo", "full_name") is None:
        return Ignored("The fork that the pull request came from is gone.")
    repository = full_name(payload, "repository", "full_name")
    head = full_name(payload, "pull_request", "head", "repo", "full_name")
    number = integer(payload, "pull_request", "number")
    if number > _MAX_PULL_REQUEST:
        return Ignored("The pull request's number is too large.")
    commit = commit_hash(payload, "pull_request", "head", "sha")
    is_fork = head.lower() != repository.lower()
    return Change(
        repository=repository,
        is_private=boolean(payload, "repository", "private"),
        source=Source(
            branch=check_branch(text(payload, "pull_request", "head", "ref")),
            commit_hash=commit,
            commit_message=optional_text(payload, "pull_request", "title", max_length=_MAX_MESSAGE),
            commit_author=optional_text(payload, "pull_request", "user", "login", max_length=255),
            pull_request=number,
            is_fork=is_fork,
            clone_url=f"{settings.github_url}/{head}" if is_fork else None,
        ),
        commit=commit,
        trigger=DeploymentTrigger.PULL_REQUEST,
    )


def _changed_files(payload: Mapping[str, Any], commit: str) -> frozenset[str] | None:
    """Every file that a push changed; None for new and rewritten branches and whenever the list may be incomplete."""
    if boolean(payload, "created") or boolean(payload, "forced"):
        return None
    commits = listing(payload, "commits")
    if not 1 <= len(commits) <= MOST_COMMITS_WITH_FILES or text(commits[-1], "id") != commit:
        return None
    files = [file for each in commits for kind in ("added", "removed", "modified") for file in listing(each, kind)]
    return frozenset(str(file) for file in files) or None


def _touches(root_directory: str, files: frozenset[str]) -> bool:
    folder = root_directory.strip("/")
    return folder in ("", ".") or any(file.startswith(f"{folder.removeprefix('./')}/") for file in files)
