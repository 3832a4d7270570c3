"""Users for administrators: lists, roles, switching accounts off and on, ending them.

What is allowed is decided in `resolvers/user_administration.py` and `resolvers/account_deletion.py`; what a user is, is
`schema/users.py`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from errors import ValidationFailed
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission, Role
from models.user_queries import UserOrderField
from resolvers import access, account_deletion, texts, user_administration
from schema.context import Context
from schema.enums import publish
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, First, Last, paginate
from schema.permissions import requires
from schema.users import User

Info = strawberry.Info[Context, None]

publish(
    UserOrderField,
    "What a list of users is sorted by.",
    CREATED_AT="When the account was opened.",
    USERNAME="The username, without regard to case.",
    EMAIL="The e-mail address, without regard to case.",
)

_KEYS: Final[dict[UserOrderField, tuple[Column, ...]]] = {
    UserOrderField.CREATED_AT: (("id", UUID),),
    UserOrderField.USERNAME: (("username_key", str), ("id", UUID)),
    UserOrderField.EMAIL: (("email_key", str), ("id", UUID)),
}


@strawberry.input(description="Which users.")
class UserFilter:
    """Conditions; all given ones must hold."""

    search: str | None = strawberry.field(
        default=None,
        description="Users with this text in their address, username or name, in any case; up to 200 characters.",
    )
    role: Role | None = strawberry.field(default=None, description="Users with this role.")
    is_active: bool | None = strawberry.field(default=None, description="Users whose account opens, or does not.")


@strawberry.input(description="How a list of users is sorted.")
class UserOrder:
    """An order."""

    field: UserOrderField = strawberry.field(default=UserOrderField.CREATED_AT, description="By what.")
    direction: OrderDirection = strawberry.field(default=OrderDirection.DESC, description="Which way.")


@strawberry.input(description="A user and a role.")
class SetUserRoleInput:
    """A user and a role."""

    id: strawberry.ID = strawberry.field(description="The user.")
    role: Role = strawberry.field(description="What the user may do here from now on.")


@strawberry.type(description="The user has the role.")
class SetUserRolePayload:
    """The user afterwards."""

    user: User = strawberry.field(description="The user, as they are now.")


@strawberry.input(description="A user, and whether their account opens.")
class SetUserActiveInput:
    """A user and a state."""

    id: strawberry.ID = strawberry.field(description="The user.")
    is_active: bool = strawberry.field(description="Whether the account opens from now on.")


@strawberry.type(description="The account opens, or does not.")
class SetUserActivePayload:
    """The user afterwards."""

    user: User = strawberry.field(description="The user, as they are now.")


@strawberry.input(description="Whose account ends.")
class DeleteUserInput:
    """A user."""

    id: strawberry.ID = strawberry.field(description="The user; not yourself.")


@strawberry.type(description="The account is deleted.")
class DeleteUserPayload:
    """Which one it was."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that the user had.")


@strawberry.input(description="Proof that the account is yours.")
class DeleteAccountInput:
    """Proof."""

    password: str | None = strawberry.field(
        default=None, description="Your password; not needed within five minutes of signing in."
    )
    totp_code: str | None = strawberry.field(
        default=None, description="A code of your second factor, or a recovery code, if the account has one."
    )


@strawberry.type(description="Your account is deleted.")
class DeleteAccountPayload:
    """That it is gone."""

    ok: bool = strawberry.field(description="Always true. All sessions have ended, this one too.")


@strawberry.type
class UserAdministrationQuery:
    """What administrators can read of users."""

    @strawberry.field(
        description="All users, newest first unless said otherwise; for administrators.",
        extensions=[requires(Permission.USER_READ)],
    )
    async def users(
        self,
        info: Info,
        filter: Annotated[UserFilter | None, strawberry.argument(description="Which users.")] = None,
        order_by: Annotated[UserOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[User]:
        """One page, in one statement."""
        order = order_by or UserOrder()
        is_descending = order.direction is OrderDirection.DESC
        conditions = _conditions(filter or UserFilter())

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await user_administration.page(
                order=order.field,
                descending=is_descending,
                after=after_key,
                before=before_key,
                backwards=backwards,
                limit=limit,
                **conditions,
            )

        sign = "-" if is_descending else ""
        return await paginate(
            fetch=fetch,
            count=lambda: user_administration.count(**conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            key=tuple((sign + name, kind) for name, kind in _KEYS[order.field]),
            node=lambda row: User.seen_by(info.context.actor, user_administration.account_of(row)),
        )

    @strawberry.field(
        description="A user; for administrators. NOT_FOUND when there is none.",
        extensions=[requires(Permission.USER_READ)],
    )
    async def user(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The user.")]
    ) -> User | None:
        """One user."""
        actor = info.context.actor
        return User.seen_by(actor, await access.user(actor, id, to=Permission.USER_READ))


@strawberry.type
class UserAdministrationMutation:
    """What administrators can do with users, and owners to end their account."""

    @strawberry.mutation(
        description="Give a user a role; it holds on every server within five seconds. CONFLICT with the reason "
        "`lastAdmin` when no active administrator would be left.",
        extensions=[requires(Permission.USER_WRITE)],
    )
    async def set_user_role(
        self, info: Info, input: Annotated[SetUserRoleInput, strawberry.argument(description="Who, and which role.")]
    ) -> SetUserRolePayload:
        """Another role."""
        actor = info.context.actor
        return SetUserRolePayload(
            user=User.seen_by(actor, await user_administration.set_role(actor, input.id, input.role))
        )

    @strawberry.mutation(
        description="Switch an account off or on. Off: its sessions end and its access tokens are refused within five "
        "seconds, what waits is cancelled, what runs is asked to stop, and neither pushes nor hooks deploy; its sites "
        "stay. CONFLICT with the reason `lastAdmin` when no active administrator would be left.",
        extensions=[requires(Permission.USER_WRITE)],
    )
    async def set_user_active(
        self, info: Info, input: Annotated[SetUserActiveInput, strawberry.argument(description="Who, and how.")]
    ) -> SetUserActivePayload:
        """Off or on."""
        actor = info.context.actor
        return SetUserActivePayload(
            user=User.seen_by(actor, await user_administration.set_active(actor, input.id, input.is_active))
        )

    @strawberry.mutation(
        description="Delete another's account, as `deleteAccount` does one's own. CONFLICT with the reason `lastAdmin` "
        "when no active administrator would be left.",
        extensions=[requires(Permission.USER_WRITE)],
    )
    async def delete_user(
        self, info: Info, input: Annotated[DeleteUserInput, strawberry.argument(description="Whose account.")]
    ) -> DeleteUserPayload:
        """The end of another's account."""
        actor = info.context.actor
        account = await access.user(actor, input.id, to=Permission.USER_WRITE)
        await account_deletion.delete_user(actor, input.id)
        return DeleteUserPayload(deleted_id=strawberry.ID(encode_id(Prefix.USER, account.id)))

    @strawberry.mutation(
        description="Delete your account for ever: at once it opens nothing, its sites are offline, its address and "
        "username are free; what it had is removed once nothing of it runs. VALIDATION_ERROR without proof that it is "
        "yours, CONFLICT with the reason `lastAdmin` for the last active administrator.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def delete_account(
        self, info: Info, input: Annotated[DeleteAccountInput, strawberry.argument(description="Proof.")]
    ) -> DeleteAccountPayload:
        """The end of one's own account."""
        await account_deletion.delete_own(info.context.actor, password=input.password, totp_code=input.totp_code)
        return DeleteAccountPayload(ok=True)


def _conditions(filter: UserFilter) -> dict[str, Any]:
    """The filter's conditions; raises ValidationFailed with the path."""
    try:
        search = texts.search(filter.search)
    except ValidationFailed as error:
        raise ValidationFailed(error.message, path=["filter", "search"]) from None
    return {"search": search, "role": filter.role, "is_active": filter.is_active}
