"""Users: who has an account.

Invariants kept by the database: e-mail and username are unique without regard to case. Passwords are argon2id
hashes and never leave this module but to be verified. Sessions are in `models/sessions.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tortoise import fields
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from errors import Conflict
from models.database import Row, row, rows, value
from models.ids import new_id
from models.permissions import Role


class User(Model):
    """A person with an account. `email_key` and `username_key` are the case-folded forms that must be unique.

    `password_hash` is null for who signs in with another provider only. `sealed_totp` is a second factor, which counts
    once `totp_confirmed_at` is set; `totp_last_step` is the step of the code used last, so that none works twice. With
    `deleted_at` the account is nobody's any more, and goes as soon as all that was theirs has gone.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    email = fields.CharField(max_length=254)
    email_key = fields.CharField(max_length=254)
    username = fields.CharField(max_length=32)
    username_key = fields.CharField(max_length=32)
    name = fields.CharField(max_length=120)
    password_hash = fields.CharField(max_length=255, null=True)
    role = fields.CharEnumField(Role, max_length=16, default=Role.USER)
    is_active = fields.BooleanField(default=True)
    avatar_url = fields.CharField(max_length=1024, null=True)
    email_verified_at = fields.DatetimeField(null=True)
    password_changed_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_login_at = fields.DatetimeField(null=True)
    sealed_totp = fields.TextField(null=True)
    totp_confirmed_at = fields.DatetimeField(null=True)
    totp_last_step = fields.BigIntField(null=True)
    deleted_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and invariants."""

        table = "users"
        constraints = (
            UniqueConstraint(fields=("email_key",), name="users_email_key"),
            UniqueConstraint(fields=("username_key",), name="users_username_key"),
            CheckConstraint(check="role IN ('USER', 'ADMIN')", name="users_role_check"),
            CheckConstraint(
                check="totp_confirmed_at IS NULL OR sealed_totp IS NOT NULL", name="users_second_factor_check"
            ),
            CheckConstraint(check="deleted_at IS NULL OR NOT is_active", name="users_deleted_check"),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """A user as everybody else reads it: all but the password."""

    id: UUID
    email: str
    username: str
    name: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against; no password opens an account without a hash."""

    user_id: UUID
    password_hash: str | None


ACCOUNT_COLUMNS = "u.id, u.email, u.username, u.name, u.role, u.created_at"


def email_key(email: str) -> str:
    """The form under which an e-mail address is unique."""
    return unicodedata.normalize("NFC", email).lower()


def username_key(username: str) -> str:
    """The form under which a username is unique."""
    return unicodedata.normalize("NFKC", username).casefold()


def to_account(found: Row) -> Account:
    """The account in a row that has `ACCOUNT_COLUMNS`."""
    return Account(
        id=found["id"],
        email=found["email"],
        username=found["username"],
        name=found["name"],
        role=Role(found["role"]),
        created_at=found["created_at"],
    )


async def create_account(
    *, email: str, username: str, name: str, password_hash: str, role: Role, confirmed: bool = False
) -> Account:
    """Add a user; raises Conflict whose `path` names the taken value, the e-mail first.

    `confirmed` means that the address is known to be theirs.
    """
    account = await add_account(
        email=email, username=username, name=name, password_hash=password_hash, role=role, confirmed=confirmed
    )
    if account is not None:
        return account
    if await value("SELECT 1 FROM users WHERE email_key = $1", email_key(email)):
        raise Conflict("This e-mail address has an account already.", path=["email"])
    raise username_taken()


async def add_account(
    *, email: str, username: str, name: str, password_hash: str | None, role: Role, confirmed: bool = False
) -> Account | None:
    """Add a user, or None when the address or the username is taken."""
    created = await row(
        "INSERT INTO users AS u (id, email, email_key, username, username_key, name, password_hash, role, is_active,"
        " created_at, email_verified_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, true, now(), CASE WHEN $9::boolean THEN now() END)"
        f" ON CONFLICT DO NOTHING RETURNING {ACCOUNT_COLUMNS}",
        new_id(),
        email,
        email_key(email),
        username,
        username_key(username),
        name,
        password_hash,
        role.value,
        confirmed,
    )
    return None if created is None else to_account(created)


def username_taken() -> Conflict:
    """What whoever wants a username hears when it is another's."""
    return Conflict("This username is taken.", path=["username"])


async def find_accounts(user_ids: Sequence[UUID]) -> dict[UUID, Account]:
    """Those of the users that exist and are not deleted."""
    found = await rows(
        f"SELECT {ACCOUNT_COLUMNS} FROM users u WHERE u.id = ANY($1::uuid[]) AND u.deleted_at IS NULL", list(user_ids)
    )
    return {each["id"]: to_account(each) for each in found}


async def find_credentials(identifier: str) -> Credentials | None:
    """The password hash behind an e-mail address or a username; inactive users included, they are refused later."""
    if "@" in identifier:
        found = await row("SELECT id, password_hash FROM users WHERE email_key = $1", email_key(identifier))
    else:
        found = await row("SELECT id, password_hash FROM users WHERE username_key = $1", username_key(identifier))
    return None if found is None else Credentials(user_id=found["id"], password_hash=found["password_hash"])


async def note_login(verified: Credentials, *, new_hash: str | None, confirmed_only: bool = False) -> Account | None:
    """Write down a login whose password was right, with its new hash if there is one.

    None when the user is inactive, when the password changed while the old one was being verified, or when the
    address is not confirmed and has to be.
    """
    found = await row(
        "UPDATE users u SET last_login_at = now(), password_hash = coalesce($3, password_hash)"
        " WHERE id = $1 AND is_active AND password_hash = $2 AND NOT ($4::boolean AND email_verified_at IS NULL)"
        f" RETURNING {ACCOUNT_COLUMNS}",
        verified.user_id,
        verified.password_hash,
        new_hash,
        confirmed_only,
    )
    return None if found is None else to_account(found)


async def any_admin_exists() -> bool:
    """Whether somebody administers this installation."""
    return bool(await value("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'ADMIN' AND is_active)"))
