"""GitHub for people: connecting an account, and looking at its repositories and branches.

Connecting takes two steps of the same session. The state that goes to GitHub is bound to the session that asked; what
comes back with the browser ends in a code for the app, and only that session can redeem it. So nobody is made to
connect their GitHub to somebody else's account, or somebody else's GitHub to theirs: a browser that was lured through
either half holds nothing that its session could use. Tokens are exchanged on redemption and stored sealed.

Invariants: an account at GitHub belongs to one user here; lists are what the user's own token shows, never another's.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from adapters import github, github_api, one_time_codes
from adapters.git import normalise_repository
from adapters.github import GitHub, TokenRefused
from adapters.secret_box import CannotOpen
from adapters.short_cache import ShortCache
from errors import Conflict, RateLimitExceeded, ServiceUnavailable, SwitchyardError, Unauthorized, ValidationFailed
from models import github_queries
from models.audit import AuditEvent
from models.connections import Provider
from models.database import Row
from models.ids import new_id
from models.permissions import Actor, Permission
from models.sealed import CONNECTION_TOKEN
from models.transaction import after_commit, unit_of_work
from resolvers import access, sessions, texts
from resolvers.redirects import valid_redirect, with_query
from tasks import github_hooks, outbox

STATE_SECONDS: Final = 600
CODE_SECONDS: Final = 60
CACHE_SECONDS: Final = 300
CALLBACK_PATH: Final = "/auth/github/callback"

_STATE: Final = "github-state"
_CODE: Final = "github-code"
_MAX_GITHUB_CODE_LENGTH: Final = 512
_lists: Final = ShortCache("github", seconds=CACHE_SECONDS)


@dataclass(frozen=True, slots=True)
class ListedRepository:
    """A repository in a list; `pushed_epoch` is what the list is sorted by, in seconds, 0 for never."""

    full_name: str
    default_branch: str
    is_private: bool
    pushed_at: str | None
    pushed_epoch: int


@dataclass(frozen=True, slots=True)
class ListedBranch:
    """A branch in a list; `rank` is 0 for the default branch, which comes first."""

    name: str
    commit_hash: str
    is_protected: bool
    rank: int


class WebhookStatus(StrEnum):
    """Whether GitHub tells us of pushes to a project's repository."""

    ACTIVE = "ACTIVE"
    PENDING = "PENDING"
    FAILED = "FAILED"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class WebhookState:
    """How a project's webhook stands, and the last refusal in words."""

    status: WebhookStatus
    message: str | None = None


# -- connecting


async def connect(actor: Actor, *, redirect_to: str) -> str:
    """Where the actor allows us to act for them at GitHub; from there the browser comes back to `redirect_to`.

    Raises ValidationFailed when that is no page of an allowed app, ServiceUnavailable when GitHub is not set up here
    or Redis is away.
    """
    user_id = _signed_in(actor)
    settings = sessions.settings()
    target = valid_redirect(redirect_to)
    verifier = secrets.token_urlsafe(48)  # RFC 7636 §4.1: 43 to 128 characters
    client = github.current()
    client.check_configured()
    state = await one_time_codes.keep(
        settings,
        _STATE,
        {**_bound_to(actor, user_id), "verifier": verifier, "redirectTo": target},
        seconds=STATE_SECONDS,
    )
    return client.authorization_url(
        redirect_uri=_callback_url(), state=state, verifier=verifier, scopes=github.CONNECT_SCOPES
    )


async def come_back(*, state: str, code: str | None, error: str | None) -> str:
    """Where a browser goes that GitHub sent back: to the app, with a code that its session can redeem, or an error.

    Raises ValidationFailed for a state that is wrong, used or too old: then nobody knows where it should go.
    """
    settings = sessions.settings()
    begun = await one_time_codes.take(settings, _STATE, state)
    if begun is None:
        raise ValidationFailed("This authorization was used already, or is too old; connect GitHub again.")
    if not code or error or len(code) > _MAX_GITHUB_CODE_LENGTH:
        refusal = "access_denied" if error == "access_denied" else "failed"
        return with_query(begun["redirectTo"], provider="github", error=refusal)
    ours = await one_time_codes.keep(settings, _CODE, {**begun, "code": code}, seconds=CODE_SECONDS)
    return with_query(begun["redirectTo"], provider="github", code=ours)


async def complete(actor: Actor, *, code: str) -> Row:
    """Redeem the code that came with the browser, and store the connection; the row without its token.

    Raises Conflict when the code is wrong, used, too old or of another session, when GitHub does not confirm, grants
    too little, or the account is connected to another user.
    """
    user_id = _signed_in(actor)
    begun = await one_time_codes.take(sessions.settings(), _CODE, code)
    if begun is None or {name: begun[name] for name in ("userId", "sessionId", "provider")} != _bound_to(
        actor, user_id
    ):
        # In the same words: who holds somebody else's code learns nothing, and the code is used up.
        await _record(actor, "connectGithub", outcome=Conflict.code.value, reason="codeRefused")
        raise github.CodeRefused
    client = github.current()
    granted = await client.exchange_code(begun["code"], verifier=begun["verifier"], redirect_uri=_callback_url())
    if not set(github.CONNECT_SCOPES) <= set(granted.scopes):
        raise Conflict(
            "GitHub granted less than is needed to deploy; connect again and allow it.", reason="scopesMissing"
        )
    account = await github_api.account(client, granted.token)
    connection_id = new_id()
    sealed = sessions.secret_box().seal(granted.token, place=CONNECTION_TOKEN.place(connection_id))
    async with unit_of_work():
        stored = await github_queries.store_connection(
            connection_id,
            user_id=user_id,
            subject=account.subject,
            login=account.login,
            avatar_url=account.avatar_url,
            scopes=" ".join(granted.scopes)[:500],
            sealed_token=sealed,
        )
        if stored is None:
            raise Conflict(f"The GitHub account {account.login} is connected to another user here.", reason="taken")
        await _record(actor, "connectGithub", connection_id=connection_id, login=account.login)
        for project_id in await github_queries.projects_without_hook(user_id):
            # Under a key of its own: one that GitHub refused with the old connection may still be there.
            await outbox.post(
                github_hooks.TOPIC, f"ensure:{project_id}:{connection_id}", {"projectId": str(project_id)}
            )
    return stored


async def disconnect(actor: Actor) -> bool:
    """Forget the actor's connection and have GitHub forget the token; False when there was none."""
    user_id = _signed_in(actor)
    async with unit_of_work():
        removed = await github_queries.delete_connection(user_id)
        if removed is None:
            return False
        await _record(actor, "disconnectGithub", connection_id=removed["id"], login=removed["login"])
        after_commit(lambda: revoke(removed))
    return True


async def connection(actor: Actor) -> Row | None:
    """The actor's connection."""
    return await github_queries.connection_of(_signed_in(actor))


# -- acting for a user


@asynccontextmanager
async def acting_for(user_id: UUID) -> AsyncIterator[tuple[GitHub, str]]:
    """The client and the token of a user, for calls of `adapters.github_api`; a refused token is noted.

    Raises Conflict when the user has not connected GitHub, or has to do it again.
    """
    connection_id, client, token = await _authority(user_id)
    async with _noting_refusal(connection_id):
        yield client, token


async def may_see(user_id: UUID, repository: str) -> bool:
    """Whether a user's own account may see a repository; remembered for five minutes, refusals too.

    Raises ServiceUnavailable and RateLimitExceeded when GitHub does not say.
    """
    try:
        connection_id, client, token = await _authority(user_id)
    except Conflict:
        return False

    async def fetch() -> bool:
        try:
            async with _noting_refusal(connection_id):
                await github_api.repository(client, token, repository)
        except (ServiceUnavailable, RateLimitExceeded):
            raise
        except SwitchyardError:
            return False
        return True

    return bool(await _lists.get(sessions.settings(), f"{connection_id}:sees:{repository.lower()}", fetch))


async def repositories(actor: Actor, *, search: str | None, refresh: bool) -> list[ListedRepository]:
    """The actor's repositories with a text in their name, the last pushed to first."""
    user_id = _signed_in(actor)
    access.allow(actor, Permission.REPOSITORY_READ)
    wanted = (texts.search(search) or "").lower()
    connection_id, client, token = await _authority(user_id)

    async def fetch() -> list[dict[str, Any]]:
        async with _noting_refusal(connection_id):
            found = await github_api.repositories(client, token)
        return [asdict(_listed_repository(each)) for each in found]

    entries = await _lists.get(sessions.settings(), f"{connection_id}:repositories", fetch, refresh=refresh)
    listed = [ListedRepository(**entry) for entry in entries]
    return sorted(
        (each for each in listed if wanted in each.full_name.lower()),
        key=lambda each: (-each.pushed_epoch, each.full_name),
    )


async def branches(actor: Actor, *, repository: str, refresh: bool) -> list[ListedBranch]:
    """The branches of a repository that the actor's account may see, the default one first; raises NotFound."""
    user_id = _signed_in(actor)
    access.allow(actor, Permission.REPOSITORY_READ)
    full_name = normalise_repository(repository, sessions.settings(), path=["repository"]).full_name
    if full_name is None:
        raise ValidationFailed("Only repositories on GitHub have a list of branches here.", path=["repository"])
    connection_id, client, token = await _authority(user_id)

    async def fetch() -> list[dict[str, Any]]:
        async with _noting_refusal(connection_id):
            # First the one that tells whether there is such a repository at all.
            default = (await github_api.repository(client, token, full_name)).default_branch
            found = await github_api.branches(client, token, full_name)
        return [
            asdict(ListedBranch(each.name, each.commit_hash, each.is_protected, int(each.name != default)))
            for each in found
        ]

    key = f"{connection_id}:branches:{full_name.lower()}"
    entries = await _lists.get(sessions.settings(), key, fetch, refresh=refresh)
    return sorted((ListedBranch(**entry) for entry in entries), key=lambda each: (each.rank, each.name))


# -- webhooks of projects


async def webhook_states(projects: Sequence[Row]) -> dict[UUID, WebhookState]:
    """Whether GitHub tells us of each of these projects, which passed the gate."""
    messages = await github_queries.hook_messages([project["id"] for project in projects])
    return {project["id"]: _webhook_state(project, messages.get(project["id"])) for project in projects}


def _webhook_state(project: Row, message: Row | None) -> WebhookState:
    if message is not None and message["given_up_at"] is not None and project["github_hook_id"] is None:
        return WebhookState(WebhookStatus.FAILED, message["last_error"])
    if project["github_hook_id"] is not None:
        return WebhookState(WebhookStatus.ACTIVE)
    if message is not None:
        return WebhookState(WebhookStatus.PENDING, message["last_error"])
    return WebhookState(WebhookStatus.NONE)


# -- inside


def _signed_in(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id


async def _authority(user_id: UUID) -> tuple[UUID, GitHub, str]:
    """A user's connection, the client and the opened token; raises Conflict when there is none that holds."""
    row = await github_queries.connection_of(user_id)
    if row is None:
        raise Conflict("Connect GitHub first.", reason="notConnected")
    if row["refused_at"] is not None:
        raise TokenRefused
    try:
        token = sessions.secret_box().open(row["sealed_token"], place=CONNECTION_TOKEN.place(row["id"]))
    except CannotOpen:
        raise TokenRefused from None
    return row["id"], github.current(), token


@asynccontextmanager
async def _noting_refusal(connection_id: UUID) -> AsyncIterator[None]:
    try:
        yield
    except TokenRefused:
        await github_queries.mark_refused(connection_id)
        raise


async def revoke(removed: Row) -> None:
    """Have GitHub forget the token of a connection that is gone here: a row with `id` and `sealed_token`."""
    token = sessions.secret_box().open(removed["sealed_token"], place=CONNECTION_TOKEN.place(removed["id"]))
    await github.current().revoke_token(token)


def _listed_repository(found: github_api.Repository) -> ListedRepository:
    pushed: datetime | None = found.pushed_at
    return ListedRepository(
        full_name=found.full_name,
        default_branch=found.default_branch,
        is_private=found.is_private,
        pushed_at=None if pushed is None else pushed.isoformat(),
        pushed_epoch=0 if pushed is None else int(pushed.timestamp()),
    )


def _bound_to(actor: Actor, user_id: UUID) -> dict[str, str | None]:
    """What a state and a code hold for: this user, this session, this provider."""
    session = None if actor.session_id is None else str(actor.session_id)
    return {"userId": str(user_id), "sessionId": session, "provider": Provider.GITHUB.value}


def _callback_url() -> str:
    return f"{sessions.settings().base_url}{CALLBACK_PATH}"


async def _record(
    actor: Actor, action: str, *, connection_id: UUID | None = None, outcome: str = "success", **details: str
) -> None:
    await AuditEvent.record(
        actor, action, target_type="connection", target_id=connection_id, outcome=outcome, details=details
    )
