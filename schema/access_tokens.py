"""Access tokens as clients see them: for scripts and CI, shown once and never again.

Invariant: the token leaves in the answer of `createAccessToken` alone. What is allowed is decided in
`resolvers/access_tokens.py`; no token makes or lists tokens.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from models import database
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission, TokenScope
from resolvers import access_tokens
from schema.context import Context
from schema.enums import publish
from schema.permissions import requires

Info = strawberry.Info[Context, None]

publish(
    TokenScope,
    "What an access token may do; the wider ones include the narrower. No token reaches what is about the account: "
    "passwords, sessions, tokens, notifications, preferences, the connection to GitHub.",
    READ="Reads what is its owner's.",
    WRITE="Also makes, changes, runs, stops and deletes what is its owner's.",
    ADMIN="Also has an administrator's rights, for as long as its owner is one. Without it a token of an administrator "
    "reaches what is theirs and no more.",
)


@strawberry.type(description="A token for scripts and CI, without the token itself.")
class AccessToken:
    """A token's row."""

    id: strawberry.ID = strawberry.field(description="For `revokeAccessToken`.")
    name: str = strawberry.field(description="What its owner calls it.")
    last_four: str = strawberry.field(description="The token's last four characters, to recognise it by.")
    scopes: list[TokenScope] = strawberry.field(description="All scopes that it has, the narrowest first.")
    project_ids: list[strawberry.ID] | None = strawberry.field(
        description="The projects that it is good for, and nothing else; null for all that its scopes reach."
    )
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime | None = strawberry.field(description="When it ends; null for never.")
    last_used_at: datetime | None = strawberry.field(description="When it was last used, to the minute.")
    last_used_ip: str | None = strawberry.field(description="From where it was used then.")


@strawberry.input(description="A new access token.")
class CreateAccessTokenInput:
    """What a new token needs."""

    name: str = strawberry.field(description="What it is for, up to 120 characters.")
    scopes: list[TokenScope] = strawberry.field(
        description="What it may do: the widest one counts. ADMIN is for administrators."
    )
    project_ids: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="Up to 100 projects of your own, for a token that sees and touches these with their deployments, "
        "logs, variables and hooks, and nothing else: it makes no projects, and gives none another repository. "
        "Left out, it is good for all that its scopes reach. Not with ADMIN.",
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends, within a year from now; never, if left out."
    )


@strawberry.input(description="Which access token ends.")
class RevokeAccessTokenInput:
    """A token to end."""

    id: strawberry.ID = strawberry.field(description="The token's id.")


@strawberry.type(description="A new access token.")
class CreateAccessTokenPayload:
    """The one time that the token is shown."""

    token: str = strawberry.field(
        description="Goes with each request as `Authorization: Bearer …`. Keep it: it is shown this once. Its form is "
        "`swp_[0-9A-Za-z]{36}`, the last six characters being a check sum."
    )
    access_token: AccessToken = strawberry.field(description="What is kept of it.")


@strawberry.type(description="An access token that has ended.")
class RevokeAccessTokenPayload:
    """That it is done."""

    revoked_id: strawberry.ID = strawberry.field(description="The token's id.")


@strawberry.type
class AccessTokensQuery:
    """What can be read of access tokens."""

    @strawberry.field(
        description="Your access tokens, newest first, without those you revoked; not for access tokens themselves.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def access_tokens(self, info: Info) -> list[AccessToken]:
        """As many as the installation lets a user have."""
        return [_access_token(row) for row in await access_tokens.own(info.context.actor)]


@strawberry.type
class AccessTokensMutation:
    """Commands on access tokens."""

    @strawberry.mutation(
        description="Make an access token for scripts and CI. FORBIDDEN for the scope ADMIN unless you are an "
        "administrator; NOT_FOUND, with the `path`, for a project that is not yours; CONFLICT when you have as many "
        "tokens as you may.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def create_access_token(
        self, info: Info, input: Annotated[CreateAccessTokenInput, strawberry.argument(description="The token.")]
    ) -> CreateAccessTokenPayload:
        """A new token."""
        made = await access_tokens.create(
            info.context.actor,
            name=input.name,
            scopes=input.scopes,
            project_ids=input.project_ids,
            expires_at=input.expires_at,
        )
        return CreateAccessTokenPayload(token=made.token, access_token=_access_token(made.row))

    @strawberry.mutation(
        description="End an access token for ever: within five seconds nothing accepts it, and streams that it opened "
        "are closed. One that has ended already stays so.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def revoke_access_token(
        self, info: Info, input: Annotated[RevokeAccessTokenInput, strawberry.argument(description="Which one.")]
    ) -> RevokeAccessTokenPayload:
        """The end of a token."""
        await access_tokens.revoke(info.context.actor, input.id)
        return RevokeAccessTokenPayload(revoked_id=input.id)


def _access_token(row: Row) -> AccessToken:
    project_ids: list[str] | None = database.from_json(row["project_ids"])
    return AccessToken(
        id=strawberry.ID(encode_id(Prefix.ACCESS_TOKEN, row["id"])),
        name=row["name"],
        last_four=row["last_four"],
        scopes=list(TokenScope(row["scope"]).included),
        project_ids=None
        if project_ids is None
        else [strawberry.ID(encode_id(Prefix.PROJECT, UUID(each))) for each in project_ids],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        last_used_ip=row["last_used_ip"],
    )
