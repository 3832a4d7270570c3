"""Accounts as clients see them: who am I, register, sign in, renew, sign out.

Invariant: tokens leave either in the answer or in cookies that scripts cannot read, never in both. E-mail addresses
are for their owners and administrators. What is allowed is decided in `resolvers/users.py` and
`resolvers/sessions.py`; names and rules of cookies are `schema/credentials.py`'s and `schema/context.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import strawberry

from errors import Unauthorized, ValidationFailed
from models.database import Row
from models.ids import Prefix, decode_id, encode_id
from models.permissions import Actor, Permission, Role
from models.users import Account
from resolvers import access, account_settings, devices, sessions, users
from resolvers.sessions import SignedIn
from schema.context import Context
from schema.credentials import access_cookie, device_cookie, refresh_cookie
from schema.enums import publish
from schema.node import Node, register_node
from schema.permissions import public, requires

Info = strawberry.Info[Context, None]

_COOKIES = (
    "Set the tokens as HttpOnly cookies instead of returning them: for browser apps, over HTTP only. "
    "`refreshSession` and `logout` find them there."
)

publish(
    Role,
    "What a user is to the installation.",
    USER="Sees and changes what is theirs.",
    ADMIN="Sees everything, and keeps users, tools and the installation.",
)


@strawberry.type(description="A person with an account.")
class User(Node):
    """A user, with as much of them as the viewer may see."""

    username: str = strawberry.field(description="Unique without regard to case; public.")
    name: str = strawberry.field(description="The name to show.")
    email: str | None = strawberry.field(description="Null for everybody but the user and administrators.")
    role: Role = strawberry.field(description="What the user may do here.")
    created_at: datetime = strawberry.field(description="When the account was opened.")

    @strawberry.field(description="The https address of a picture that the user chose; null without one.")
    async def avatar_url(self, info: Info) -> str | None:
        """Loaded for all users of the answer at once."""
        profile = await info.context.load(_load_profiles, decode_id(self.id)[1])
        return None if profile is None else profile["avatar_url"]

    @strawberry.field(description="Whether the address is known to be the user's; null where `email` is.")
    async def email_verified(self, info: Info) -> bool | None:
        """Loaded for all users of the answer at once."""
        if self.email is None:
            return None
        profile = await info.context.load(_load_profiles, decode_id(self.id)[1])
        return None if profile is None else profile["email_verified_at"] is not None

    @classmethod
    def seen_by(cls, viewer: Actor, account: Account) -> User:
        """The user as a viewer may see them."""
        knows_email = viewer.is_admin or (viewer.user_id == account.id and viewer.may(Permission.PROFILE_READ))
        return cls(
            id=strawberry.ID(encode_id(Prefix.USER, account.id)),
            username=account.username,
            name=account.name,
            email=account.email if knows_email else None,
            role=account.role,
            created_at=account.created_at,
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
    cookies: bool = strawberry.field(default=False, description=_COOKIES)


@strawberry.input(description="Who signs in.")
class LoginInput:
    """Who signs in."""

    identifier: str = strawberry.field(description="E-mail address or username.")
    password: str = strawberry.field(description="The password.")
    cookies: bool = strawberry.field(default=False, description=_COOKIES)


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
class UsersQuery:
    """What can be read of users."""

    @strawberry.field(
        description="Whoever asks. UNAUTHORIZED when nobody is signed in.",
        extensions=[requires(Permission.PROFILE_READ)],
    )
    async def me(self, info: Info) -> User | None:
        """The actor's own account."""
        actor = info.context.actor
        return User.seen_by(actor, await users.me(actor))


@strawberry.type
class UsersMutation:
    """What users can do about their accounts and sessions."""

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
        _refuse_cookies_without_http(info.context, wanted=input.cookies)
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
        carried = _carry(info.context, signed_in, in_cookies=input.cookies)
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
        "cookies before.",
        extensions=[public()],
    )
    async def login(
        self,
        info: Info,
        input: Annotated[LoginInput, strawberry.argument(description="Who signs in.")],
    ) -> SessionPayload:
        """A new session."""
        _refuse_cookies_without_http(info.context, wanted=input.cookies)
        signed_in = await users.login(
            identifier=input.identifier,
            password=input.password,
            origin=info.context.origin,
            device_cookie=info.context.cookies.get(device_cookie(info.context.settings)),
        )
        if input.cookies:
            _remember_browser(info.context, signed_in.account)
        return _carry(info.context, signed_in, in_cookies=input.cookies)

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
        return _carry(context, signed_in, in_cookies=given is None)

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


async def load_user(context: Context, user_id: UUID) -> User | None:
    """A user whom something that the viewer may see names; many asked for at once are one query."""
    return await context.load(_load_users, user_id)


@register_node(Prefix.USER)
async def _user_node(context: Context, user_id: UUID) -> User | None:
    actor = context.actor
    is_visible = actor.may(Permission.PROFILE_READ) and access.sees_user(actor, user_id)
    return await load_user(context, user_id) if is_visible else None


async def _load_users(context: Context, user_ids: list[UUID]) -> Sequence[User | None]:
    found = await users.by_ids(user_ids)
    return [User.seen_by(context.actor, found[each]) if each in found else None for each in user_ids]


async def _load_profiles(context: Context, user_ids: list[UUID]) -> Sequence[Row | None]:
    found = await account_settings.profiles(user_ids)
    return [found.get(user_id) for user_id in user_ids]


def _carry(context: Context, signed_in: SignedIn, *, in_cookies: bool) -> SessionPayload:
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


def _remember_browser(context: Context, account: Account) -> None:
    """Not with the session's cookies: it outlives the session, so that its owner can come back."""
    known = devices.remember(context.settings, account.id)
    context.set_cookie(device_cookie(context.settings), known, max_age_seconds=devices.LIFE_SECONDS)


def _drop_cookies(context: Context) -> None:
    if context.response is not None:
        for name in (access_cookie(context.settings), refresh_cookie(context.settings)):
            context.set_cookie(name, "", max_age_seconds=0)


def _refuse_cookies_without_http(context: Context, *, wanted: bool) -> None:
    """Before anything is done, and not after, when the session would exist already."""
    if wanted and context.response is None:
        raise ValidationFailed("Cookies can be set over HTTP only.", path=["cookies"])


async def _end_quietly(context: Context, refresh_token: str) -> None:
    """End the session of a cookie; one that is not ours has been deleted, and that was all that was asked."""
    try:
        await sessions.end(context.actor, refresh_token=refresh_token)
    except Unauthorized:
        return
