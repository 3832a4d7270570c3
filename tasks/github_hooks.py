"""Webhooks at GitHub: made for projects that deploy by themselves, taken away when the last of them is gone.

A message says that a project may want a webhook, or that one may not be needed any more; what is done depends on the
rows as they are now, so messages may come twice and in any order. Projects of one repository share one webhook. Without
GITHUB_WEBHOOK_SECRET, a public BASE_URL and the owner's connection there is nothing to do: then somebody sets the
webhook up by hand, or deploys without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters import github, github_api
from adapters.addresses import AddressGuard, BlockedAddress
from adapters.github import Refused
from errors import Conflict, Forbidden, NotFound
from models import github_queries
from settings import Settings
from tasks.github_tokens import noting_refusal, token_of
from tasks.outbox import GiveUp, Handler

TOPIC: Final = "github.hook"
HOOK_PATH: Final = "/webhooks/github"
_log = structlog.get_logger("switchyard.github")


def keeping_hooks(settings: Settings, pool: asyncpg.Pool) -> Handler:
    """The handler of the topic."""
    return partial(keep_hook, pool=pool, settings=settings)


async def keep_hook(payload: Mapping[str, Any], pool: asyncpg.Pool, settings: Settings) -> None:
    """Do what a message asks: `{projectId}`, or `{remove, repository, ownerId}` for a project that is gone.

    Raises GiveUp, with words for the project's owner, when GitHub refuses for good; what may work later passes.
    """
    try:
        if "remove" in payload:
            hook_id, repository = int(payload["remove"]), str(payload["repository"])
            await remove_hook(pool, settings, repository, hook_id, owner_id=UUID(payload["ownerId"]))
        else:
            await ensure_hook(pool, settings, UUID(payload["projectId"]))
    except NotFound as error:
        # GitHub says the same of a repository that the account may see but not administer.
        raise GiveUp(f"The webhook needs an administrator of the repository: {error.message}") from None
    except (Forbidden, Conflict) as error:
        raise GiveUp(f"The webhook could not be set up: {error.message}") from None


async def ensure_hook(pool: asyncpg.Pool, settings: Settings, project_id: UUID) -> None:
    """Have GitHub tell us of a project's repository, if the project wants it; raises what GitHub refuses with."""
    project = await github_queries.project_with(pool, project_id)
    if project is None or project["repository_full_name"] is None:
        return
    repository = project["repository_full_name"]
    if not project["auto_deploy"]:
        if project["github_hook_id"] is not None:
            await github_queries.note_hook(pool, project_id, repository=repository, hook_id=None)
            await remove_hook(pool, settings, repository, project["github_hook_id"], owner_id=project["owner_id"])
        return
    secret = _secret(settings)
    owner = await token_of(pool, settings, project["owner_id"])
    if secret is None or owner is None or not is_public(settings.base_url):
        return
    client, url = github.current(), f"{settings.base_url}{HOOK_PATH}"
    async with noting_refusal(pool, owner):
        hook = await github_api.find_hook(client, owner.token, repository, url=url)
        if hook is None:
            try:
                hook = await github_api.create_hook(client, owner.token, repository, url=url, secret=secret)
            except Refused:
                # Made by another worker since we looked.
                hook = await github_api.find_hook(client, owner.token, repository, url=url)
                if hook is None:
                    raise
        else:
            # The secret may have changed; GitHub does not show it.
            await github_api.update_hook(client, owner.token, repository, hook.id, url=url, secret=secret)
    if not await github_queries.note_hook(pool, project_id, repository=repository, hook_id=hook.id):
        await remove_hook(pool, settings, repository, hook.id, owner_id=project["owner_id"])


async def remove_hook(pool: asyncpg.Pool, settings: Settings, repository: str, hook_id: int, *, owner_id: UUID) -> None:
    """Take a webhook away unless a project still uses it; without the owner's connection it stays, and is ignored."""
    if await github_queries.is_hook_used(pool, repository, hook_id):
        return
    owner = await token_of(pool, settings, owner_id)
    if owner is None:
        _log.info("github_hook_left", repository=repository, hook=hook_id)
        return
    async with noting_refusal(pool, owner):
        await github_api.delete_hook(github.current(), owner.token, repository, hook_id)


def is_public(base_url: str) -> bool:
    """Whether GitHub can reach an address: webhooks to this machine or a private network would fail for ever."""
    try:
        AddressGuard(ports=frozenset(range(1, 65_536))).check_url(base_url)
    except BlockedAddress:
        return False
    return True


def _secret(settings: Settings) -> str | None:
    """The newest of the secrets that may sign."""
    if settings.github_webhook_secret is None:
        return None
    return settings.github_webhook_secret.get_secret_value().partition(",")[0].strip() or None
