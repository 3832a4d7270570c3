"""What owners do with their account: the address, the password, where they are signed in, what others see of them.

Invariant: what anybody may ask by an e-mail address is answered the same whether it has an account or not. What is
allowed is decided in `resolvers/account_links.py`, `resolvers/account_settings.py` and `resolvers/session_list.py`;
opening accounts and sessions is `schema/users.py`'s.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import strawberry

from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission
from resolvers import account_links, account_settings, session_list
from schema.context import Context
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import public, requires
from schema.users import User

Info = strawberry.Info[Context, None]

_SENT = "Always true, whether the address has an account or not: only its owner learns more, from the letter."


@strawberry.type(description="Where you are signed in: one device, from a sign-in to its end.")
class Session(Node):
    """A session, as its owner sees it."""

    user_agent: str | None = strawberry.field(description="The browser or program that signed in, as it named itself.")
    ip: str | None = strawberry.field(description="The address from which it signed in.")
    created_at: datetime = strawberry.field(description="When it signed in.")
    last_used_at: datetime = strawberry.field(
        description="When it last asked for new tokens, which a session in use does each time its access token expires."
    )
    current: bool = strawberry.field(description="Whether this is the session that asks.")


@strawberry.input(description="The address to confirm.")
class RequestEmailVerificationInput:
    """The address to confirm."""

    email: str = strawberry.field(description="The address of the account.")


@strawberry.type(description="That a letter is sent if there is a reason for one.")
class RequestEmailVerificationPayload:
    """That it was asked for."""

    ok: bool = strawberry.field(description=_SENT)


@strawberry.input(description="A link from a letter.")
class VerifyEmailInput:
    """A link from a letter."""

    token: str = strawberry.field(description="The `token` of the link.")


@strawberry.type(description="The address is confirmed.")
class VerifyEmailPayload:
    """That it is confirmed."""

    ok: bool = strawberry.field(description="Always true. Sign in next: a link opens no session.")


@strawberry.input(description="The address of an account whose password is forgotten.")
class RequestPasswordResetInput:
    """Whose password."""

    email: str = strawberry.field(description="The address of the account.")


@strawberry.type(description="That a letter is sent if there is a reason for one.")
class RequestPasswordResetPayload:
    """That it was asked for."""

    ok: bool = strawberry.field(description=_SENT)


@strawberry.input(description="A link from a letter and a new password.")
class ResetPasswordInput:
    """A link and a password."""

    token: str = strawberry.field(description="The `token` of the link.")
    password: str = strawberry.field(description="The new password, under the same rules as in `register`.")


@strawberry.type(description="The password is set.")
class ResetPasswordPayload:
    """That it is set."""

    ok: bool = strawberry.field(description="Always true. All sessions have ended; sign in with the new password.")


@strawberry.input(description="The present password and a new one.")
class ChangePasswordInput:
    """Both passwords."""

    current_password: str = strawberry.field(description="The present password.")
    new_password: str = strawberry.field(description="The new password, under the same rules as in `register`.")


@strawberry.type(description="The password is changed.")
class ChangePasswordPayload:
    """What else came of it."""

    revoked_count: int = strawberry.field(description="How many other sessions have ended by it.")


@strawberry.input(description="Which session ends.")
class RevokeSessionInput:
    """Which one."""

    id: strawberry.ID = strawberry.field(description="One of your sessions; the one that asks, too.")


@strawberry.type(description="The session has ended.")
class RevokeSessionPayload:
    """That it has ended."""

    ok: bool = strawberry.field(description="Always true: a session that had ended before stays so.")


@strawberry.type(description="All other sessions have ended.")
class RevokeOtherSessionsPayload:
    """How many."""

    revoked_count: int = strawberry.field(description="How many have ended now.")


@strawberry.input(description="Changes of your profile; what is left out stays as it is.")
class UpdateProfileInput:
    """What changes."""

    name: strawberry.Maybe[str] = strawberry.field(description="The name to show, up to 120 characters.")
    username: strawberry.Maybe[str] = strawberry.field(description="As in `RegisterInput`.")
    avatar_url: strawberry.Maybe[str | None] = strawberry.field(
        description="The https address of a picture, at most 1,024 characters; null takes it away."
    )

    def changes(self) -> dict[str, Any]:
        """The given columns."""
        given = {name: getattr(self, name) for name in ("name", "username", "avatar_url")}
        return {name: some.value for name, some in given.items() if some is not None}


@strawberry.type(description="Your profile, changed.")
class UpdateProfilePayload:
    """The profile afterwards."""

    user: User = strawberry.field(description="You, as you are now.")


@strawberry.type
class AccountQuery:
    """What owners can read of their account."""

    @strawberry.field(
        description="Where you are signed in, newest first.", extensions=[requires(Permission.ACCOUNT_READ)]
    )
    async def sessions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Session]:
        """One page, in one statement."""
        actor = info.context.actor
        return await paginate(
            fetch=by_one_key(partial(session_list.page, actor)),
            count=lambda: session_list.count(actor),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: _session_of(row, actor.session_id),
        )


@strawberry.type
class AccountMutation:
    """What owners can do with their account."""

    @strawberry.mutation(
        description="Send a letter with a link that confirms the address, if it has an account that waits for it. The "
        "link works once, for 24 hours; a newer one voids it. RATE_LIMIT_EXCEEDED when asked for too often.",
        extensions=[public()],
    )
    async def request_email_verification(
        self,
        info: Info,
        input: Annotated[RequestEmailVerificationInput, strawberry.argument(description="The address.")],
    ) -> RequestEmailVerificationPayload:
        """Asks for a letter."""
        await account_links.request_verification(input.email, info.context.origin)
        return RequestEmailVerificationPayload(ok=True)

    @strawberry.mutation(
        description="Confirm an address by the link from a letter. VALIDATION_ERROR when the link has been used, has "
        "expired or never worked.",
        extensions=[public()],
    )
    async def verify_email(
        self, info: Info, input: Annotated[VerifyEmailInput, strawberry.argument(description="The link.")]
    ) -> VerifyEmailPayload:
        """Uses the link up."""
        await account_links.verify(input.token, info.context.origin)
        return VerifyEmailPayload(ok=True)

    @strawberry.mutation(
        description="Send a letter with a link that sets a new password, if the address has an account. The link works "
        "once, for an hour; a newer one voids it. RATE_LIMIT_EXCEEDED when asked for too often.",
        extensions=[public()],
    )
    async def request_password_reset(
        self,
        info: Info,
        input: Annotated[RequestPasswordResetInput, strawberry.argument(description="Whose password.")],
    ) -> RequestPasswordResetPayload:
        """Asks for a letter."""
        await account_links.request_reset(input.email, info.context.origin)
        return RequestPasswordResetPayload(ok=True)

    @strawberry.mutation(
        description="Set a new password by the link from a letter. Ends all sessions and opens none; access tokens go "
        "on, unless the address had never been confirmed. VALIDATION_ERROR when the link does not work, or when the "
        "password will not do, which leaves the link as it was.",
        extensions=[public()],
    )
    async def reset_password(
        self,
        info: Info,
        input: Annotated[ResetPasswordInput, strawberry.argument(description="The link and the password.")],
    ) -> ResetPasswordPayload:
        """Uses the link up."""
        await account_links.reset(input.token, input.password, info.context.origin)
        return ResetPasswordPayload(ok=True)

    @strawberry.mutation(
        description="Change your password. Ends all other sessions; access tokens go on. A letter tells you. "
        "RATE_LIMIT_EXCEEDED after too many wrong passwords.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def change_password(
        self,
        info: Info,
        input: Annotated[ChangePasswordInput, strawberry.argument(description="The present and the new password.")],
    ) -> ChangePasswordPayload:
        """Another password."""
        ended = await account_settings.change_password(
            info.context.actor, current=input.current_password, new=input.new_password
        )
        return ChangePasswordPayload(revoked_count=ended)

    @strawberry.mutation(
        description="Sign a device out: within five seconds its tokens are refused and its WebSockets closed. "
        "NOT_FOUND for what is no session of yours.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def revoke_session(
        self, info: Info, input: Annotated[RevokeSessionInput, strawberry.argument(description="Which session.")]
    ) -> RevokeSessionPayload:
        """The end of a session."""
        await session_list.end_one(info.context.actor, input.id)
        return RevokeSessionPayload(ok=True)

    @strawberry.mutation(
        description="Sign all other devices out, as `revokeSession` does one.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def revoke_other_sessions(self, info: Info) -> RevokeOtherSessionsPayload:
        """The end of all but one."""
        return RevokeOtherSessionsPayload(revoked_count=await session_list.end_others(info.context.actor))

    @strawberry.mutation(
        description="Change your name, your username or your picture. CONFLICT, with the `path`, when the username is "
        "another's.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def update_profile(
        self, info: Info, input: Annotated[UpdateProfileInput, strawberry.argument(description="What changes.")]
    ) -> UpdateProfilePayload:
        """The profile, changed."""
        actor = info.context.actor
        account = await account_settings.update_profile(actor, input.changes())
        return UpdateProfilePayload(user=User.seen_by(actor, account))


def _session_of(row: Row, current: UUID | None) -> Session:
    return Session(
        id=strawberry.ID(encode_id(Prefix.SESSION, row["id"])),
        user_agent=row["user_agent"],
        ip=row["ip"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        current=row["id"] == current,
    )


@register_node(Prefix.SESSION)
async def _session_node(context: Context, session_id: UUID) -> Session | None:
    actor = context.actor
    row = await session_list.find(actor, session_id) if actor.may(Permission.ACCOUNT_READ) else None
    return None if row is None else _session_of(row, actor.session_id)
