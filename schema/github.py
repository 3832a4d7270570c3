"""GitHub as clients see it: connecting an account, choosing a repository and a branch.

Invariant: no token of GitHub's is ever part of an answer. How connecting is kept from being turned against somebody is
explained in `resolvers/github.py`; the browser's way back is `schema/oauth.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import strawberry

from models.database import Row
from models.permissions import Permission
from resolvers import github
from resolvers.github import ListedBranch, ListedRepository
from schema.context import Context
from schema.pagination import After, Before, Column, Connection, First, Last, paginate
from schema.permissions import requires

Info = strawberry.Info[Context, None]
Listed = TypeVar("Listed", ListedRepository, ListedBranch)

_BY_PUSH: Final[tuple[Column, ...]] = (("-pushed_epoch", int), ("full_name", str))
_BY_RANK: Final[tuple[Column, ...]] = (("rank", int), ("name", str))

Refresh = Annotated[
    bool, strawberry.argument(description="Ask GitHub now; without it answers may be five minutes old.")
]


@strawberry.type(description="Your account at GitHub, as you connected it.")
class GithubAccount:
    """A connection."""

    login: str = strawberry.field(description="The account's name at GitHub.")
    avatar_url: str | None = strawberry.field(description="Its picture.")
    scopes: list[str] = strawberry.field(description="What GitHub lets us do for you.")
    connected_at: datetime = strawberry.field(description="When you connected it.")
    needs_reconnecting: bool = strawberry.field(
        description="GitHub does not accept the connection any more: connect it again."
    )


@strawberry.type(description="A repository at GitHub that you may see.")
class GithubRepository:
    """A repository."""

    full_name: str = strawberry.field(description="`owner/name`, as `createProject` takes it.")
    default_branch: str = strawberry.field(description="Its default branch.")
    is_private: bool = strawberry.field(description="Whether it is private.")
    pushed_at: datetime | None = strawberry.field(description="When somebody last pushed to it.")


@strawberry.type(description="A branch of a repository at GitHub.")
class GithubBranch:
    """A branch."""

    name: str = strawberry.field(description="Its name.")
    commit_hash: str = strawberry.field(description="Its newest commit.")
    is_protected: bool = strawberry.field(description="Whether GitHub protects it.")
    is_default: bool = strawberry.field(description="Whether it is the repository's default branch.")


@strawberry.input(description="Where to come back to.")
class ConnectGithubInput:
    """The beginning of connecting."""

    redirect_to: str = strawberry.field(
        description="The page of your app that the browser comes back to: of this service or of one of its allowed "
        "origins, without a fragment. It is given `provider=github` and either `code`, for "
        "`completeGithubConnection` within 60 seconds, or `error`."
    )


@strawberry.type(description="Where to go next.")
class ConnectGithubPayload:
    """The address at GitHub."""

    authorization_url: str = strawberry.field(
        description="Send the browser there within ten minutes; it works once, and for the session that asked."
    )


@strawberry.input(description="What the browser brought back.")
class CompleteGithubConnectionInput:
    """The end of connecting."""

    code: str = strawberry.field(description="The `code` that came to `redirectTo`.")


@strawberry.type(description="The account is connected.")
class CompleteGithubConnectionPayload:
    """The connection."""

    connection: GithubAccount = strawberry.field(description="The connection.")


@strawberry.type(description="The account is not connected any more.")
class DisconnectGithubPayload:
    """That it is done."""

    was_connected: bool = strawberry.field(description="Whether there was a connection until now.")


@strawberry.type
class GithubQuery:
    """What can be read of GitHub."""

    @strawberry.field(
        description="Your account at GitHub; null when you have not connected one.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def github_connection(self, info: Info) -> GithubAccount | None:
        """The actor's connection."""
        row = await github.connection(info.context.actor)
        return None if row is None else _connection(row)

    @strawberry.field(
        description="Your repositories at GitHub, the last pushed to first; up to a thousand. CONFLICT when GitHub is "
        "not connected, or has to be connected again (`details.reason`).",
        extensions=[requires(Permission.REPOSITORY_READ)],
    )
    async def github_repositories(
        self,
        info: Info,
        search: Annotated[
            str | None, strawberry.argument(description="Only those with this text in `owner/name`, in any case.")
        ] = None,
        refresh: Refresh = False,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[GithubRepository]:
        """One page of them, from a list that is kept for five minutes."""
        listed = await github.repositories(info.context.actor, search=search, refresh=refresh)
        return await _page(listed, _BY_PUSH, _repository, first=first, after=after, last=last, before=before)

    @strawberry.field(
        description="The branches of a repository at GitHub, the default one first; up to a thousand. NOT_FOUND when "
        "your account at GitHub may not see it, CONFLICT as in `githubRepositories`.",
        extensions=[requires(Permission.REPOSITORY_READ)],
    )
    async def github_branches(
        self,
        info: Info,
        repository: Annotated[str, strawberry.argument(description="`owner/name`.")],
        refresh: Refresh = False,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[GithubBranch]:
        """One page of them, from a list that is kept for five minutes."""
        listed = await github.branches(info.context.actor, repository=repository, refresh=refresh)
        return await _page(listed, _BY_RANK, _branch, first=first, after=after, last=last, before=before)


@strawberry.type
class GithubMutation:
    """Commands on the connection."""

    @strawberry.mutation(
        description="Begin to connect your account at GitHub. SERVICE_UNAVAILABLE when this installation has no GitHub "
        "application.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def connect_github(
        self,
        info: Info,
        input: Annotated[ConnectGithubInput, strawberry.argument(description="Where to come back to.")],
    ) -> ConnectGithubPayload:
        """The first step."""
        return ConnectGithubPayload(
            authorization_url=await github.connect(info.context.actor, redirect_to=input.redirect_to)
        )

    @strawberry.mutation(
        description="Finish connecting, in the session that began. CONFLICT, with `details.reason`, when the code is "
        "not good (`codeRefused`), GitHub granted too little (`scopesMissing`), or the account is another user's "
        "already (`taken`).",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def complete_github_connection(
        self,
        info: Info,
        input: Annotated[CompleteGithubConnectionInput, strawberry.argument(description="What came back.")],
    ) -> CompleteGithubConnectionPayload:
        """The second step."""
        row = await github.complete(info.context.actor, code=input.code)
        return CompleteGithubConnectionPayload(connection=_connection(row))

    @strawberry.mutation(
        description="Forget your account at GitHub, and have GitHub forget the token. Projects stay; private "
        "repositories can then not be cloned.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def disconnect_github(self, info: Info) -> DisconnectGithubPayload:
        """The end of a connection."""
        return DisconnectGithubPayload(was_connected=await github.disconnect(info.context.actor))


async def _page(listed: Sequence[Listed], columns: Sequence[Column], node: Any, **arguments: Any) -> Connection[Any]:
    """One page of a list that is sorted by these columns; keyset, like all others, as the list may be renewed."""

    async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Listed]:
        within = [
            each
            for each in listed
            if (after_key is None or _sort_key(after_key, columns) < _sort_key(_values(each, columns), columns))
            and (before_key is None or _sort_key(_values(each, columns), columns) < _sort_key(before_key, columns))
        ]
        return within[::-1][:limit] if backwards else within[:limit]

    async def count() -> int:
        return len(listed)

    return await paginate(fetch=fetch, count=count, key=columns, node=node, **arguments)


def _values(each: ListedRepository | ListedBranch, columns: Sequence[Column]) -> tuple[Any, ...]:
    return tuple(getattr(each, name.removeprefix("-")) for name, _ in columns)


def _sort_key(values: Sequence[Any], columns: Sequence[Column]) -> tuple[Any, ...]:
    """Values as they compare; a forged cursor may hold nulls, which come first."""
    key: list[Any] = []
    for value, (name, kind) in zip(values, columns, strict=True):
        known = kind() if value is None else value
        key.append(-known if name.startswith("-") else known)
    return tuple(key)


def _connection(row: Row) -> GithubAccount:
    return GithubAccount(
        login=row["login"],
        avatar_url=row["avatar_url"],
        scopes=row["scopes"].split(),
        connected_at=row["created_at"],
        needs_reconnecting=row["refused_at"] is not None,
    )


def _repository(each: ListedRepository) -> GithubRepository:
    return GithubRepository(
        full_name=each.full_name,
        default_branch=each.default_branch,
        is_private=each.is_private,
        pushed_at=None if each.pushed_at is None else datetime.fromisoformat(each.pushed_at),
    )


def _branch(each: ListedBranch) -> GithubBranch:
    return GithubBranch(
        name=each.name, commit_hash=each.commit_hash, is_protected=each.is_protected, is_default=each.rank == 0
    )
