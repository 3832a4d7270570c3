"""Signing in with GitHub and Google, and the identities of an account: what a browser app calls.

Invariant: tokens leave as in `schema/sign_in.py`; the cookie that binds a sign-in to its browser is set here and read
here and in `schema/oauth.py`. What is allowed is decided in `resolvers/oauth_sign_in.py` and `resolvers/identities.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from models.connections import IdentityProvider
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Actor, Permission
from resolvers import identities, oauth_sign_in
from schema.context import Context
from schema.credentials import oauth_cookie
from schema.enums import publish
from schema.node import Node, register_node
from schema.permissions import public, requires
from schema.sign_in import COOKIES, carry, refuse_cookies_without_http, remember_browser
from schema.users import User

Info = strawberry.Info[Context, None]

publish(
    IdentityProvider,
    "Whom people can sign in with.",
    GITHUB="GitHub, or the GitHub Enterprise Server of this installation.",
    GOOGLE="Google, or the OpenID provider of this installation.",
)


@strawberry.type(description="An account at a provider that signs in to yours.")
class Identity(Node):
    """An identity, as its owner sees it."""

    provider: IdentityProvider = strawberry.field(description="Where the account is.")
    email: str = strawberry.field(description="The address there, as the provider verified it last.")
    login: str = strawberry.field(description="What the account is called there.")
    created_at: datetime = strawberry.field(description="When it was linked.")
    last_used_at: datetime | None = strawberry.field(description="When somebody signed in with it last.")


@strawberry.input(description="Where to sign in, and where the browser goes afterwards.")
class StartOAuthInput:
    """Where to, and back to where."""

    provider: IdentityProvider = strawberry.field(description="Whom to sign in with.")
    redirect_to: str = strawberry.field(
        description="A page of this service or of an app in ALLOWED_ORIGINS, without a fragment. The browser comes "
        "back to it with the parameters `provider` (`github` or `google`) and `code`, for `completeOAuth` within 60 "
        "seconds, or `error`: `access_denied` or `failed`."
    )
    password: str | None = strawberry.field(
        default=None,
        description="Your password, if you are signed in and want to link the provider; not needed within five "
        "minutes of signing in.",
    )


@strawberry.type(description="Where the browser goes to sign in.")
class StartOAuthPayload:
    """The address."""

    authorization_url: str = strawberry.field(description="Send the browser there, within ten minutes.")


@strawberry.input(description="What came back with the browser.")
class CompleteOAuthInput:
    """The code of ours."""

    code: str = strawberry.field(
        description="The `code` from the address, or the one in `details.code` of an error that asked for more."
    )
    totp_code: str | None = strawberry.field(
        default=None, description="The second factor, or a recovery code, if the account has one."
    )
    cookies: bool = strawberry.field(default=False, description=COOKIES)


@strawberry.type(description="A session as in `SessionPayload`, or an identity that was added to your account.")
class CompleteOAuthPayload:
    """A session and what opened it."""

    user: User = strawberry.field(description="Whose account it is.")
    access_token: str | None = strawberry.field(
        description="As in `SessionPayload`; null too when an identity was linked and your session goes on."
    )
    refresh_token: str | None = strawberry.field(description="As `accessToken`.")
    expires_at: datetime | None = strawberry.field(
        description="When the access token expires; null when an identity was linked."
    )
    is_new_account: bool = strawberry.field(description="Whether the account was opened just now.")
    identity: Identity = strawberry.field(description="What signed in, or was linked.")


@strawberry.input(description="Which identity goes.")
class UnlinkIdentityInput:
    """Which one."""

    id: strawberry.ID = strawberry.field(description="One of your identities.")
    password: str | None = strawberry.field(
        default=None, description="Your password; not needed within five minutes of signing in."
    )


@strawberry.type(description="The identity opens the account no more.")
class UnlinkIdentityPayload:
    """What is left."""

    identities: list[Identity] = strawberry.field(description="Your identities that are left.")


@strawberry.type
class OAuthSignInQuery:
    """Whom one can sign in with, and whom one does."""

    @strawberry.field(
        description="The providers that one can sign in with here: which buttons an app shows.", extensions=[public()]
    )
    async def sign_in_providers(self) -> list[IdentityProvider]:
        """Those that the operator has set up."""
        return identities.set_up()

    @strawberry.field(
        description="The accounts elsewhere that sign in to yours, at most one of each provider, oldest first.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def identities(self, info: Info) -> list[Identity]:
        """The actor's own."""
        return [_identity_of(row) for row in await identities.of_actor(info.context.actor)]


@strawberry.type
class OAuthSignInMutation:
    """Signing in at a provider."""

    @strawberry.mutation(
        name="startOAuth",
        description="Begin to sign in with a provider, over HTTP only: the answer sets a cookie, and only this browser "
        "can end what it began. In a session it begins to link the provider to your account, for which "
        "VALIDATION_ERROR asks for a proof of who you are (`details.reason` is `proofTooOld`). SERVICE_UNAVAILABLE "
        "when the provider is not set up here or does not answer.",
        extensions=[public()],
    )
    async def start_oauth(
        self,
        info: Info,
        input: Annotated[StartOAuthInput, strawberry.argument(description="Whom, and back to where.")],
    ) -> StartOAuthPayload:
        """An address at the provider."""
        context = info.context
        refuse_cookies_without_http(context, wanted=True)
        name = oauth_cookie(context.settings)
        begun = await oauth_sign_in.start(
            context.actor,
            input.provider,
            redirect_to=input.redirect_to,
            password=input.password,
            browser=context.cookies.get(name),
        )
        context.set_cookie(name, begun.browser, max_age_seconds=oauth_sign_in.BROWSER_SECONDS)
        return StartOAuthPayload(authorization_url=begun.authorization_url)

    @strawberry.mutation(
        name="completeOAuth",
        description="End what `startOAuth` began, in the same browser, whose cookie has to come along. Opens a session "
        "of the account that the identity is linked to, else of the account with the same address if the provider has "
        "verified it, else of a new one. An account whose address was not confirmed loses its password, sessions, "
        "tokens and second factor first. UNAUTHORIZED when the account does not open, or with `details.reason` "
        "`totpRequired` or `totpWrong`: then call again with `totpCode` and with `details.code` in place of the code. "
        "Errors that pass by themselves have a `details.code` as well. CONFLICT with `details.reason`: `codeRefused`, "
        "`emailNotVerified`, `scopesMissing`, `providerTaken` when the account has another identity of the provider, "
        "`taken` when the identity is another account's.",
        extensions=[public()],
    )
    async def complete_oauth(
        self,
        info: Info,
        input: Annotated[CompleteOAuthInput, strawberry.argument(description="What came back.")],
    ) -> CompleteOAuthPayload:
        """A session, or another identity."""
        context = info.context
        refuse_cookies_without_http(context, wanted=input.cookies)
        done = await oauth_sign_in.complete(
            context.actor,
            code=input.code,
            totp_code=input.totp_code,
            browser=context.cookies.get(oauth_cookie(context.settings)),
        )
        identity = _identity_of(done.identity)
        if done.signed_in is None:
            owner = Actor(user_id=done.account.id, role=done.account.role)
            return CompleteOAuthPayload(
                user=User.seen_by(owner, done.account),
                access_token=None,
                refresh_token=None,
                expires_at=None,
                is_new_account=False,
                identity=identity,
            )
        if input.cookies:
            remember_browser(context, done.account)
        carried = carry(context, done.signed_in, in_cookies=input.cookies)
        return CompleteOAuthPayload(
            user=carried.user,
            access_token=carried.access_token,
            refresh_token=carried.refresh_token,
            expires_at=carried.expires_at,
            is_new_account=done.is_new_account,
            identity=identity,
        )

    @strawberry.mutation(
        description="Let an account elsewhere sign in to yours no more; sessions go on. NOT_FOUND for what is no "
        "identity of yours, CONFLICT with the reason `lastMethod` when nothing else would let you in: set a password "
        "by `requestPasswordReset` first. VALIDATION_ERROR asks for a proof of who you are.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def unlink_identity(
        self,
        info: Info,
        input: Annotated[UnlinkIdentityInput, strawberry.argument(description="Which identity.")],
    ) -> UnlinkIdentityPayload:
        """The end of an identity."""
        actor = info.context.actor
        await identities.unlink(actor, input.id, password=input.password)
        return UnlinkIdentityPayload(identities=[_identity_of(row) for row in await identities.of_actor(actor)])


def _identity_of(row: Row) -> Identity:
    return Identity(
        id=strawberry.ID(encode_id(Prefix.IDENTITY, row["id"])),
        provider=IdentityProvider(row["provider"]),
        email=row["email"],
        login=row["login"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
    )


@register_node(Prefix.IDENTITY)
async def _identity_node(context: Context, identity_id: UUID) -> Identity | None:
    actor = context.actor
    row = await identities.find(actor, identity_id) if actor.may(Permission.ACCOUNT_READ) else None
    return None if row is None else _identity_of(row)
