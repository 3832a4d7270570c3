"""The ways into an account and out of it: register, sign in, renew, sign out.

Invariant: tokens leave either in the answer or in cookies that scripts cannot read, never in both. What is allowed is
decided in `resolvers/users.py` and `resolvers/sessions.py`; names and rules of cookies are `schema/credentials.py`'s
and `schema/context.py`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import strawberry

from errors import Unauthorized, ValidationFailed
from models.permissions import Actor
from models.users import Account
from resolvers import devices, sessions, users
from resolvers.sessions import SignedIn
from schema.context import Context
from schema.credentials import access_cookie, device_cookie, refresh_cookie
from schema.permissions import public
from schema.users import User

Info = strawberry.Info[Context, None]

COOKIES = (
    "Set the tokens as HttpOnly cookies instead of returning them: for browser apps, over HTTP only. "
    "`refreshSession` and `logout` find them there."
)


@strawberry.input(description="A new account.")
class RegisterInput:
    """What a new account needs."""

    username: str = strawberry.field(
        description="3 to 32 characters: letters a to z, digits, dot, underscore and hyphen. Unique without regard "
        "to case."
    )
    email: str = strawberry.field(description="Where the account can be reached. Unique without regard to case.")
    password: str = strawberry.field(
        description="At least 8 characters (an installation may ask for more) and at most 1,024 bytes; not a common "
        "password, and more than one's own name. No characters are prescribed."
    )
    name: str | None = strawberry.field(
        default=None, description="The name to show, up to 120 characters; the username if left out."
    )
    cookies: bool = strawberry.field(default=False, description=COOKIES)


@strawberry.input(description="Who signs in.")
class LoginInput:
    """Who signs in."""

    identifier: str = strawberry.field(description="E-mail address or username.")
    password: str = strawberry.field(description="The password.")
    totp_code: str | None = strawberry.field(
        default=None,
        description="For an account with a second factor: the code that the app shows, or a recovery code.",
    )
    cookies: bool = strawberry.field(default=False, description=COOKIES)


@strawberry.input(description="Which session goes on.")
class RefreshSessionInput:
    """Which session goes on."""

    refresh_token: str | None = strawberry.field(
        default=None,
        description="The refresh token given last. Without it the cookie's is used, and the next ones are set as "
        "cookies again.",
    )


@strawberry.input(description="Which session ends.")
class LogoutInput:
    """Which session ends."""

    refresh_token: str | None = strawberry.field(
        default=None,
        description="A refresh token of the session that ends. Without it, that of the access token or of the cookies.",
    )


@strawberry.type(description="A session and the tokens that carry it.")
class SessionPayload:
    """A session, with its tokens unless cookies carry them."""

    user: User = strawberry.field(description="Whose session it is.")
    access_token: str | None = strawberry.field(
        description="Goes with each request as `Authorization: Bearer …`. Null when cookies carry the session."
    )
    refresh_token: str | None = strawberry.field(
        description="For `refreshSession`, once: each answer brings the next. Asked again within ten seconds, because "
        "the answer got lost, it brings the same next one; shown later than that, it ends the session. Null when "
        "cookies carry the session."
    )
    expires_at: datetime = strawberry.field(description="When the access token expires.")


@strawberry.type(description="A new account: with a session, or waiting for its address to be confirmed.")
class RegisterPayload:
    """A session as in `SessionPayload`, or nothing of it."""

    confirmation_required: bool = strawberry.field(
        description="Whether the account works only once its address is confirmed. Then all else is null, whether the "
        "address had an account before or not: a letter tells its owner."
    )
    user: User | None = strawberry.field(description="Whose session it is.")
    access_token: str | None = strawberry.field(description="As in `SessionPayload`.")
    refresh_token: str | None = strawberry.field(description="As in `SessionPayload`.")
    expires_at: datetime | None = strawberry.field(description="As in `SessionPayload`.")


@strawberry.type(description="The session has ended.")
class LogoutPayload:
    """That it is done."""

    ok: bool = strawberry.field(description="Always true: who signs out twice is signed out.")


@strawberry.type
class SignInMutation:
    """The ways into an account and out of it."""

    @strawberry.mutation(
        description="Open an account and its first session. CONFLICT, with the `path`, when e-mail address or username "
        "is taken. Where addresses have to be confirmed, no session is opened, a letter is sent in any case, and an "
        "address that is taken is no conflict: see `confirmationRequired`. RATE_LIMIT_EXCEEDED after too many "
        "registrations.",
        extensions=[public()],
    )
    async def register(
        self,
        info: Info,
        input: Annotated[RegisterInput, strawberry.argument(description="The account.")],
    ) -> RegisterPayload:
        """A new account, signed in."""
        refuse_cookies_without_http(info.context, wanted=input.cookies)
        signed_in = await users.register(
            username=input.username,
            email=input.email,
            password=input.password,
            name=input.name,
            origin=info.context.origin,
        )
        if signed_in is None:
            return RegisterPayload(
                confirmation_required=True, user=None, access_token=None, refresh_token=None, expires_at=None
            )
        carried = carry(info.context, signed_in, in_cookies=input.cookies)
        return RegisterPayload(
            confirmation_required=False,
            user=carried.user,
            access_token=carried.access_token,
            refresh_token=carried.refresh_token,
            expires_at=carried.expires_at,
        )

    @strawberry.mutation(
        description="Sign in. UNAUTHORIZED, in the same words, whether the account does not exist, is deactivated, is "
        "not confirmed where it has to be, or the password is wrong. RATE_LIMIT_EXCEEDED after too many failures of "
        "the address or for the account; those of strangers do not hold up a browser that its owner signed in with by "
        "cookies before. Where the account has a second factor and the password was right, `details.reason` is "
        "`totpRequired` without a code, which is no failure, and `totpWrong` with a wrong or used one; five of those "
        "in fifteen minutes are RATE_LIMIT_EXCEEDED.",
        extensions=[public()],
    )
    async def login(
        self,
        info: Info,
        input: Annotated[LoginInput, strawberry.argument(description="Who signs in.")],
    ) -> SessionPayload:
        """A new session."""
        refuse_cookies_without_http(info.context, wanted=input.cookies)
        signed_in = await users.login(
            identifier=input.identifier,
            password=input.password,
            origin=info.context.origin,
            device_cookie=info.context.cookies.get(device_cookie(info.context.settings)),
            totp_code=input.totp_code,
        )
        if input.cookies:
            remember_browser(info.context, signed_in.account)
        return carry(info.context, signed_in, in_cookies=input.cookies)

    @strawberry.mutation(
        description="Exchange the refresh token for the next pair. UNAUTHORIZED when the session has ended, with "
        "`details.reason`.",
        extensions=[public()],
    )
    async def refresh_session(
        self,
        info: Info,
        input: Annotated[RefreshSessionInput | None, strawberry.argument(description="Which session goes on.")] = None,
    ) -> SessionPayload:
        """The session with its next tokens."""
        context = info.context
        given = input.refresh_token if input else None
        token = given or context.cookies.get(refresh_cookie(context.settings))
        if not token:
            raise Unauthorized("There is no refresh token, neither in the input nor in a cookie.", reason="missing")
        try:
            signed_in = await sessions.refresh(token, context.origin)
        except Unauthorized:
            if given is None:
                _drop_cookies(context)
            raise
        return carry(context, signed_in, in_cookies=given is None)

    @strawberry.mutation(
        description="Sign out: end the session, and delete its cookies if there are any.", extensions=[public()]
    )
    async def logout(
        self,
        info: Info,
        input: Annotated[LogoutInput | None, strawberry.argument(description="Which session ends.")] = None,
    ) -> LogoutPayload:
        """The end of a session."""
        context = info.context
        given = input.refresh_token if input else None
        kept = context.cookies.get(refresh_cookie(context.settings))
        if kept is not None:
            _drop_cookies(context)
        if given is None and context.actor.is_anonymous and kept:
            # The access cookie has run out before the refresh cookie: that one still names the session.
            await _end_quietly(context, kept)
        else:
            await sessions.end(context.actor, refresh_token=given)
        return LogoutPayload(ok=True)


def carry(context: Context, signed_in: SignedIn, *, in_cookies: bool) -> SessionPayload:
    """The answer that has the tokens, or sets the cookies that have them."""
    owner = Actor(user_id=signed_in.account.id, role=signed_in.account.role)
    if in_cookies:
        now = datetime.now(UTC)
        for name, token, until in (
            (access_cookie(context.settings), signed_in.access_token, signed_in.expires_at),
            (refresh_cookie(context.settings), signed_in.refresh_token, signed_in.refresh_until),
        ):
            context.set_cookie(name, token, max_age_seconds=int((until - now).total_seconds()))
    return SessionPayload(
        user=User.seen_by(owner, signed_in.account),
        access_token=None if in_cookies else signed_in.access_token,
        refresh_token=None if in_cookies else signed_in.refresh_token,
        expires_at=signed_in.expires_at,
    )


def remember_browser(context: Context, account: Account) -> None:
    """Let the browser be known, beyond the life of the session, so that its owner can come back."""
    known = devices.remember(context.settings, account.id)
    context.set_cookie(device_cookie(context.settings), known, max_age_seconds=devices.LIFE_SECONDS)


def _drop_cookies(context: Context) -> None:
    if context.response is not None:
        for name in (access_cookie(context.settings), refresh_cookie(context.settings)):
            context.set_cookie(name, "", max_age_seconds=0)


def refuse_cookies_without_http(context: Context, *, wanted: bool) -> None:
    """Raise ValidationFailed before anything is done, and not after, when the session would exist already."""
    if wanted and context.response is None:
        raise ValidationFailed("Cookies can be set over HTTP only.", path=["cookies"])


async def _end_quietly(context: Context, refresh_token: str) -> None:
    """End the session of a cookie; one that is not ours has been deleted, and that was all that was asked."""
    try:
        await sessions.end(context.actor, refresh_token=refresh_token)
    except Unauthorized:
        return
