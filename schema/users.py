"""Accounts as clients see them: who am I, and who others are.

Invariant: e-mail addresses, and how an account stands, are for its owner and for administrators. The ways into an
account are in `schema/sign_in.py`, what its owner does with it in `schema/account.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import strawberry

from models.database import Row
from models.ids import Prefix, decode_id, encode_id
from models.permissions import Actor, Permission, Role
from models.users import Account
from resolvers import access, account_settings, second_factor, users
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.permissions import requires

Info = strawberry.Info[Context, None]

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

    @strawberry.field(description="Whether signing in asks for a second factor; null where `email` is.")
    async def two_factor_enabled(self, info: Info) -> bool | None:
        """Loaded for all users of the answer at once."""
        if self.email is None:
            return None
        profile = await info.context.load(_load_profiles, decode_id(self.id)[1])
        return None if profile is None else profile["totp_confirmed_at"] is not None

    @strawberry.field(
        description="How many recovery codes of the second factor are left; null without one, and where `email` is."
    )
    async def recovery_codes_left(self, info: Info) -> int | None:
        """Loaded for all users of the answer at once."""
        if self.email is None:
            return None
        return await info.context.load(_load_codes_left, decode_id(self.id)[1])

    @strawberry.field(description="Whether the account opens at all; null where `email` is.")
    async def is_active(self, info: Info) -> bool | None:
        """Loaded for all users of the answer at once."""
        if self.email is None:
            return None
        profile = await info.context.load(_load_profiles, decode_id(self.id)[1])
        return None if profile is None else profile["is_active"]

    @strawberry.field(description="When somebody signed in to the account last; null where `email` is.")
    async def last_login_at(self, info: Info) -> datetime | None:
        """Loaded for all users of the answer at once."""
        if self.email is None:
            return None
        profile = await info.context.load(_load_profiles, decode_id(self.id)[1])
        return None if profile is None else profile["last_login_at"]

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


async def _load_codes_left(context: Context, user_ids: list[UUID]) -> Sequence[int | None]:
    found = await second_factor.codes_left(user_ids)
    return [found.get(user_id) for user_id in user_ids]
