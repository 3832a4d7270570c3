"""The calls of GitHub's REST API that Switchyard makes, and the few fields of each answer that it reads.

Every answer's shape is checked (`adapters/github_shapes.py`); one that is not as documented is ServiceUnavailable, like
an answer that never came. Lists are read whole, up to a bound. Source of shapes and limits: GitHub's published OpenAPI
description, which the tests hold both sides against. Deadlines and refusals are `adapters/github.py`'s.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from adapters.github import GitHub, understood
from adapters.github_shapes import (
    boolean,
    commit_hash,
    full_name,
    integer,
    is_full_name,
    listing,
    mapping,
    moment,
    optional_text,
    text,
)
from errors import NotFound, ValidationFailed

PAGE: Final = 100
MAX_PAGES: Final = 10
PAGES_AT_ONCE: Final = 4
MAX_FILE_BYTES: Final = 1_048_576
HOOK_EVENTS: Final = ("push", "pull_request")
STATUS_DESCRIPTION_LENGTH: Final = 140
"""GitHub cuts or refuses longer descriptions of statuses."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is. `subject` stays when the login changes."""

    subject: str
    login: str
    avatar_url: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that an account may see."""

    full_name: str
    default_branch: str
    is_private: bool
    pushed_at: datetime | None
    clone_url: str


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch and its newest commit."""

    name: str
    commit_hash: str
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit; `author` is the login, or the name that git has."""

    commit_hash: str
    message: str
    author: str | None
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook of a repository."""

    id: int
    url: str | None


async def account(github: GitHub, token: str) -> Account:
    """Whose token it is."""
    answer = await github.call("GET", "/user", token=token)
    with understood():
        return Account(
            subject=str(integer(answer, "id")),
            login=text(answer, "login", max_length=120),
            avatar_url=optional_text(answer, "avatar_url"),
        )


async def verified_email(github: GitHub, token: str) -> str | None:
    """The primary e-mail address of the account, if GitHub has verified it; needs the scope `user:email`."""
    answer = await github.call("GET", "/user/emails", token=token, query={"per_page": str(PAGE)})
    with understood():
        for entry in listing(answer):
            if boolean(entry, "primary") and boolean(entry, "verified"):
                # One more than an address has: what is cut to an address would be somebody else's.
                return text(entry, "email", max_length=255)
    return None


async def repositories(github: GitHub, token: str) -> list[Repository]:
    """The repositories that the account owns or works on, the last pushed to first; at most a thousand."""

    async def page(number: int) -> list[Any]:
        query = {"sort": "pushed", "direction": "desc", "per_page": str(PAGE), "page": str(number)}
        return await _list(github, "/user/repos", token, query)

    with understood():
        return [_repository(entry) for entry in await _all_pages(page)]


async def repository(github: GitHub, token: str, name: str) -> Repository:
    """One repository by its `owner/name`; raises NotFound when the account may not see it."""
    answer = await github.call("GET", _repository_path(name), token=token)
    with understood():
        return _repository(answer)


async def branches(github: GitHub, token: str, name: str) -> list[Branch]:
    """The branches of a repository, at most a thousand."""
    path = f"{_repository_path(name)}/branches"

    async def page(number: int) -> list[Any]:
        return await _list(github, path, token, {"per_page": str(PAGE), "page": str(number)})

    with understood():
        return [
            Branch(
                name=text(entry, "name"),
                commit_hash=commit_hash(entry, "commit", "sha"),
                is_protected=boolean(entry, "protected"),
            )
            for entry in await _all_pages(page)
        ]


async def head_commit(github: GitHub, token: str, name: str, branch: str) -> Commit:
    """The newest commit of a branch; raises NotFound when there is no such branch."""
    answer = await github.call("GET", f"{_repository_path(name)}/commits/heads/{_ref(branch)}", token=token)
    with understood():
        return Commit(
            commit_hash=commit_hash(answer, "sha"),
            message=text(answer, "commit", "message", max_length=10_000),
            author=optional_text(answer, "author", "login", max_length=255)
            or optional_text(answer, "commit", "author", "name", max_length=255),
            committed_at=moment(answer, "commit", "committer", "date"),
        )


async def file_names(github: GitHub, token: str, name: str, *, branch: str, folder: str = "") -> list[str]:
    """Names of the files in a folder of a branch, folders with a slash behind; raises NotFound when it is none."""
    answer = await github.call("GET", _contents_path(name, folder), token=token, query={"ref": branch})
    if not isinstance(answer, list):
        raise NotFound("This is a file and no folder.")
    with understood():
        return [text(entry, "name") + ("/" if text(entry, "type") == "dir" else "") for entry in answer]


async def file_text(github: GitHub, token: str, name: str, *, branch: str, path: str) -> str | None:
    """The text of a file of a branch; None when there is none, it is longer than 1 MiB, or not UTF-8."""
    try:
        answer = await github.call("GET", _contents_path(name, path), token=token, query={"ref": branch})
    except NotFound:
        return None
    if not isinstance(answer, dict) or answer.get("type") != "file":
        return None
    with understood():
        # Beyond 1 MiB GitHub leaves the content out and says `none`.
        if text(answer, "encoding") != "base64" or integer(answer, "size") > MAX_FILE_BYTES:
            return None
        encoded = text(answer, "content", max_length=2 * MAX_FILE_BYTES)
    try:
        return base64.b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


# -- webhooks of a repository


async def find_hook(github: GitHub, token: str, name: str, *, url: str) -> Hook | None:
    """The webhook that leads to a URL."""
    answer = await _list(github, f"{_repository_path(name)}/hooks", token, {"per_page": str(PAGE)})
    with understood():
        for entry in answer:
            if optional_text(entry, "config", "url") == url:
                return Hook(id=integer(entry, "id"), url=url)
    return None


async def create_hook(github: GitHub, token: str, name: str, *, url: str, secret: str) -> Hook:
    """Have GitHub tell us of pushes and pull requests; raises Refused when it does so already."""
    body = {"name": "web", **_hook_settings(url, secret)}
    answer = await github.call("POST", f"{_repository_path(name)}/hooks", token=token, body=body)
    with understood():
        return Hook(id=integer(answer, "id"), url=url)


async def update_hook(github: GitHub, token: str, name: str, hook_id: int, *, url: str, secret: str) -> None:
    """Give a webhook the address, the secret and the events that it should have."""
    path = f"{_repository_path(name)}/hooks/{hook_id}"
    await github.call("PATCH", path, token=token, body=_hook_settings(url, secret))


async def delete_hook(github: GitHub, token: str, name: str, hook_id: int) -> None:
    """Remove a webhook; one that is gone is no error."""
    try:
        await github.call("DELETE", f"{_repository_path(name)}/hooks/{hook_id}", token=token)
    except NotFound:
        return


# -- deployments and statuses


async def find_deployment(
    github: GitHub, token: str, name: str, *, commit: str, environment: str, mark: str
) -> int | None:
    """The id of the deployment that carries our mark in its payload."""
    query = {"sha": commit, "environment": environment, "per_page": str(PAGE)}
    answer = await _list(github, f"{_repository_path(name)}/deployments", token, query)
    with understood():
        for entry in answer:
            payload = entry.get("payload") if isinstance(entry, dict) else None
            if isinstance(payload, dict) and payload.get("switchyard") == mark:
                return integer(entry, "id")
    return None


async def create_deployment(
    github: GitHub, token: str, name: str, *, commit: str, environment: str, is_production: bool, mark: str
) -> int:
    """Announce a deployment of a commit; its id. Nothing is merged and no status is waited for."""
    body = {
        "ref": commit,
        "auto_merge": False,
        "required_contexts": [],
        "environment": environment,
        "production_environment": is_production,
        "transient_environment": not is_production,
        "payload": {"switchyard": mark},
        "description": "Deployed by Switchyard",
    }
    answer = await github.call("POST", f"{_repository_path(name)}/deployments", token=token, body=body)
    with understood():
        return integer(answer, "id")


async def latest_deployment_state(github: GitHub, token: str, name: str, deployment_id: int) -> str | None:
    """The state that a deployment was given last."""
    path = f"{_repository_path(name)}/deployments/{deployment_id}/statuses"
    answer = await _list(github, path, token, {"per_page": "1"})  # newest first
    with understood():
        return text(answer[0], "state") if answer else None


async def create_deployment_status(
    github: GitHub,
    token: str,
    name: str,
    deployment_id: int,
    *,
    state: str,
    description: str,
    log_url: str,
    environment_url: str | None,
) -> None:
    """Add a state to a deployment's history."""
    body: dict[str, Any] = {
        "state": state,
        "description": description[:STATUS_DESCRIPTION_LENGTH],
        "log_url": log_url,
        "auto_inactive": True,
    }
    if environment_url is not None:
        body["environment_url"] = environment_url
    path = f"{_repository_path(name)}/deployments/{deployment_id}/statuses"
    await github.call("POST", path, token=token, body=body)


async def commit_status(github: GitHub, token: str, name: str, commit: str, *, context: str) -> tuple[str, str] | None:
    """State and description of the newest status of a commit under a context."""
    query = {"per_page": str(PAGE)}
    answer = await github.call("GET", f"{_repository_path(name)}/commits/{commit}/status", token=token, query=query)
    with understood():
        for entry in listing(answer, "statuses"):
            # Contexts have no case to GitHub.
            if text(entry, "context").lower() == context.lower():
                return text(entry, "state"), optional_text(entry, "description") or ""
    return None


async def create_commit_status(
    github: GitHub,
    token: str,
    name: str,
    commit: str,
    *,
    context: str,
    state: str,
    description: str,
    target_url: str,
) -> None:
    """Say beside a commit how it fares."""
    body = {
        "state": state,
        "context": context,
        "description": description[:STATUS_DESCRIPTION_LENGTH],
        "target_url": target_url,
    }
    await github.call("POST", f"{_repository_path(name)}/statuses/{commit}", token=token, body=body)


def _repository(entry: Any) -> Repository:
    return Repository(
        full_name=full_name(entry, "full_name"),
        default_branch=text(entry, "default_branch"),
        is_private=boolean(entry, "private"),
        pushed_at=moment(entry, "pushed_at"),
        clone_url=text(entry, "clone_url"),
    )


def _hook_settings(url: str, secret: str) -> dict[str, Any]:
    return {
        "active": True,
        "events": list(HOOK_EVENTS),
        "config": {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"},
    }


async def _list(github: GitHub, path: str, token: str, query: dict[str, str]) -> list[Any]:
    answer = await github.call("GET", path, token=token, query=query)
    with understood():
        return [mapping(entry) for entry in listing(answer)]


async def _all_pages(page: Callable[[int], Awaitable[Sequence[Any]]]) -> list[Any]:
    """Entries of all pages up to the bound. Pages behind the first are asked for some at a time, until one is short.

    Numbers are counted here: addresses of further pages in headers would be GitHub's word.
    """
    entries = list(await page(1))
    number = 2
    while len(entries) == PAGE * (number - 1) and number <= MAX_PAGES:
        last = min(number + PAGES_AT_ONCE - 1, MAX_PAGES)
        for found in await _at_once(page, range(number, last + 1)):
            entries += found
        number = last + 1
    return entries


async def _at_once(page: Callable[[int], Awaitable[Sequence[Any]]], numbers: range) -> list[Sequence[Any]]:
    async def ask(number: int) -> Sequence[Any]:
        return await page(number)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(number)) for number in numbers]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _repository_path(name: str) -> str:
    if not is_full_name(name):
        raise ValidationFailed("A repository of GitHub is named `owner/name`.", path=["repository"])
    return f"/repos/{name}"


def _contents_path(name: str, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValidationFailed("The path leads out of the repository.", path=["path"])
    return f"{_repository_path(name)}/contents/{'/'.join(quote(part, safe='') for part in parts)}"


def _ref(branch: str) -> str:
    """A branch inside a path. git allows no `..` in its names (git-check-ref-format), and neither do URLs."""
    if not branch or ".." in branch or branch.startswith("/"):
        raise NotFound("There is no such branch.")
    return quote(branch, safe="/")
