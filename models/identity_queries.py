"""What the database knows of identities: accounts at providers, and the accounts here that they open.

Invariants: an account at a provider opens one account here, of which it is the only one of its provider; whoever
decides who gets in holds a lock on the subject, then on the user's row, in this order, and reads after it. What is
decided is `resolvers/identities.py`'s.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from models import database
from models.connections import IdentityProvider, Provider
from models.database import Row
from models.ids import new_id
from models.users import ACCOUNT_COLUMNS, Account, email_key, to_account

_COLUMNS: Final = "id, user_id, provider, email, login, created_at, last_used_at"
_OPENED: Final = (
    "u.id AS user_id, u.username, u.is_active, u.email_key, u.email_verified_at, u.password_hash,"
    " u.totp_confirmed_at IS NOT NULL AS has_second_factor"
)


# -- who gets in


async def lock_subject(provider: IdentityProvider, subject: str) -> None:
    """Let whoever signs in with the same account at a provider wait until the unit of work ends."""
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"identity:{provider}:{subject}")


async def known(provider: IdentityProvider, subject: str, *, locked: bool = False) -> Row | None:
    """The account that an identity opens, with `identity_id`; its user's row locked if that is wanted."""
    return await database.row(
        f"""SELECT {_OPENED}, i.id AS identity_id FROM identities i JOIN users u ON u.id = i.user_id
            WHERE i.provider = $1 AND i.subject = $2 {"FOR NO KEY UPDATE OF u" if locked else ""}""",
        provider.value,
        subject,
    )


async def with_email(email: str, *, locked: bool = False) -> Row | None:
    """The account of an address, active or not; its row locked if that is wanted."""
    return await database.row(
        f"SELECT {_OPENED} FROM users u WHERE u.email_key = $1 {'FOR NO KEY UPDATE' if locked else ''}",
        email_key(email),
    )


async def lock_user(user_id: UUID) -> Row | None:
    """An account by its id, its row locked until the unit of work ends."""
    return await database.row(f"SELECT {_OPENED} FROM users u WHERE u.id = $1 FOR NO KEY UPDATE", user_id)


async def note_sign_in(user_id: UUID, *, email: str | None, confirmed_only: bool) -> Account | None:
    """Write down a sign-in; a verified `email` that is the account's own confirms it.

    None when the user is inactive, or the address is not confirmed and has to be.
    """
    found = await database.row(
        f"""UPDATE users u SET last_login_at = now(),
                email_verified_at = coalesce(email_verified_at, CASE WHEN email_key = $2 THEN now() END)
            WHERE id = $1 AND is_active
              AND NOT ($3::boolean AND email_verified_at IS NULL AND email_key IS DISTINCT FROM $2)
            RETURNING {ACCOUNT_COLUMNS}""",
        user_id,
        None if email is None else email_key(email),
        confirmed_only,
    )
    return None if found is None else to_account(found)


# -- identities


async def add(user_id: UUID, provider: IdentityProvider, subject: str, *, email: str, login: str) -> Row | None:
    """Let an account at a provider open an account here; None when either has another already."""
    return await database.row(
        f"""INSERT INTO identities (id, user_id, provider, subject, email, login, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, now()) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}""",
        new_id(),
        user_id,
        provider.value,
        subject,
        email,
        login,
    )


async def note_use(identity_id: UUID, *, email: str | None, login: str) -> None:
    """Write down that somebody signed in with it, and what the provider calls them now."""
    await database.rows(
        "UPDATE identities SET last_used_at = now(), email = coalesce($2, email), login = $3 WHERE id = $1 RETURNING 1",
        identity_id,
        email,
        login,
    )


async def of_user(user_id: UUID) -> Sequence[Row]:
    """A user's identities, oldest first; at most one of each provider."""
    return await database.rows(f"SELECT {_COLUMNS} FROM identities WHERE user_id = $1 ORDER BY id", user_id)


async def find(identity_id: UUID) -> Row | None:
    """An identity."""
    return await database.row(f"SELECT {_COLUMNS} FROM identities WHERE id = $1", identity_id)


async def remove(user_id: UUID, identity_id: UUID) -> Row | None:
    """Take an identity away from its user; None when it was gone already."""
    return await database.row(
        f"DELETE FROM identities WHERE id = $1 AND user_id = $2 RETURNING {_COLUMNS}", identity_id, user_id
    )


# -- an account whose owner is somebody else than who opened it


async def disown(user_id: UUID) -> Row | None:
    """Take away all that lets somebody into an account, but sessions and tokens; the connection to GitHub there was.

    The address counts as confirmed afterwards. Sessions and access tokens are `models/account_queries.py`'s.
    """
    await database.rows(
        """UPDATE users SET password_hash = NULL, sealed_totp = NULL, totp_confirmed_at = NULL, totp_last_step = NULL,
               email_verified_at = now() WHERE id = $1 RETURNING id""",
        user_id,
    )
    for table in ("recovery_codes", "one_time_links", "identities"):
        await database.rows(f"DELETE FROM {table} WHERE user_id = $1 RETURNING id", user_id)
    return await database.row(
        "DELETE FROM oauth_connections WHERE user_id = $1 AND provider = $2 RETURNING id, sealed_token",
        user_id,
        Provider.GITHUB.value,
    )
