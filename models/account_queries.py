"""What an owner does with an account: links from letters, another password, the list of sessions, the profile.

Invariants: of a link only the hash is stored, it works once, and a newer one of the same purpose voids it; a link
proves the address it was sent to and nothing of a later one. Opening accounts is `models/users.py`'s, tokens and their
rotation `models/sessions.py`'s.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from asyncpg import Connection
from tortoise.exceptions import IntegrityError

from models import database
from models.credentials import LinkPurpose
from models.database import Row
from models.ids import new_id
from models.sessions import RevokedReason
from models.users import email_key, username_key, username_taken

TOKEN_BYTES: Final = 32

_SESSION_COLUMNS: Final = "s.id, s.user_agent, s.ip, s.created_at, s.last_used_at"
_LIVE: Final = (
    "s.revoked_at IS NULL AND s.expires_at > clock_timestamp()"
    " AND s.last_used_at > clock_timestamp() - make_interval(days => $2)"
)
_USABLE: Final = (
    "l.token_hash = $1 AND l.purpose = $2 AND l.used_at IS NULL AND l.expires_at > clock_timestamp()"
    " AND u.id = l.user_id AND u.is_active AND u.email = l.email"
)


# -- links


def link_hash(token: str) -> str:
    """What is stored of a link's token: SHA-256, as the token is random and long."""
    return hashlib.sha256(token.encode()).hexdigest()


async def renew_link(
    connection: Connection, user_id: UUID, purpose: LinkPurpose, *, email: str, life_seconds: float
) -> str:
    """A new token of 256 bits, in the transaction of a connection that has locked the user; older ones are void."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await connection.execute("DELETE FROM one_time_links WHERE user_id = $1 AND purpose = $2", user_id, purpose.value)
    await connection.execute(
        """INSERT INTO one_time_links (id, user_id, purpose, token_hash, email, created_at, expires_at)
           VALUES ($1, $2, $3, $4, $5, now(), now() + make_interval(secs => $6))""",
        new_id(),
        user_id,
        purpose.value,
        link_hash(token),
        email,
        life_seconds,
    )
    return token


async def find_link(token: str, purpose: LinkPurpose) -> Row | None:
    """Whom a link that still works is for: `user_id`, `username`, `email`."""
    return await database.row(
        f"SELECT u.id AS user_id, u.username, u.email FROM one_time_links l, users u WHERE {_USABLE}",
        link_hash(token),
        purpose.value,
    )


async def use_link(token: str, purpose: LinkPurpose) -> UUID | None:
    """Use a link up: its user, or None when it does not work (any more).

    One statement: of any number of calls with one token exactly one gets the user.
    """
    found: UUID | None = await database.value(
        f"UPDATE one_time_links l SET used_at = now() FROM users u WHERE {_USABLE} RETURNING l.user_id",
        link_hash(token),
        purpose.value,
    )
    return found


async def confirm_email(user_id: UUID) -> bool:
    """Write down that the address is the user's; False when that was known already."""
    changed = await database.row(
        "UPDATE users SET email_verified_at = now() WHERE id = $1 AND email_verified_at IS NULL RETURNING id", user_id
    )
    return changed is not None


# -- passwords


async def find_own(user_id: UUID) -> Row | None:
    """What proofs and letters need of an active user; `password_hash` may be null."""
    return await database.row(
        "SELECT id, username, email, password_hash, email_verified_at FROM users WHERE id = $1 AND is_active", user_id
    )


async def set_password(user_id: UUID, password_hash: str, *, before: str | None = None) -> bool:
    """Set a password, if the hash `before`, when given, is still the one that holds; whether it was set."""
    changed = await database.row(
        """UPDATE users SET password_hash = $2, password_changed_at = now()
           WHERE id = $1 AND ($3::varchar IS NULL OR password_hash = $3) RETURNING id""",
        user_id,
        password_hash,
        before,
    )
    return changed is not None


async def working_tokens(user_id: UUID) -> list[str]:
    """The names of the access tokens that still work, oldest first."""
    found = await database.rows(
        """SELECT name FROM access_tokens
           WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) ORDER BY id""",
        user_id,
    )
    return [each["name"] for each in found]


async def revoke_tokens(user_id: UUID) -> int:
    """End all access tokens of a user; how many."""
    ended = await database.rows(
        "UPDATE access_tokens SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL RETURNING id", user_id
    )
    return len(ended)


# -- sessions


async def find_session(user_id: UUID, session_id: UUID, *, idle_days: int) -> Row | None:
    """A session of a user that holds now."""
    return await database.row(
        f"SELECT {_SESSION_COLUMNS} FROM sessions s WHERE s.user_id = $1 AND s.id = $3 AND {_LIVE}",
        user_id,
        idle_days,
        session_id,
    )


async def owns_session(user_id: UUID, session_id: UUID) -> bool:
    """Whether a session is, or was, a user's."""
    return bool(await database.value("SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2", session_id, user_id))


async def session_page(
    user_id: UUID, *, idle_days: int, after: UUID | None, before: UUID | None, backwards: bool, limit: int
) -> Sequence[Row]:
    """Sessions of a user that hold now, newest first, strictly between two ids; backwards from the end of the list."""
    return await database.rows(
        f"""SELECT {_SESSION_COLUMNS} FROM sessions s WHERE s.user_id = $1 AND {_LIVE}
              AND ($3::uuid IS NULL OR s.id < $3) AND ($4::uuid IS NULL OR s.id > $4)
            ORDER BY s.id {"ASC" if backwards else "DESC"} LIMIT $5""",
        user_id,
        idle_days,
        after,
        before,
        limit,
    )


async def count_sessions(user_id: UUID, *, idle_days: int) -> int:
    """How many sessions of a user hold now."""
    found = await database.value(
        f"SELECT count(*) FROM sessions s WHERE s.user_id = $1 AND {_LIVE}", user_id, idle_days
    )
    return int(found)


async def revoke_sessions(user_id: UUID, *, reason: RevokedReason, but: UUID | None = None) -> int:
    """End a user's sessions, all or all but one; how many had not ended yet."""
    ended = await database.rows(
        """UPDATE sessions SET revoked_at = now(), revoked_reason = $2
           WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $3::uuid RETURNING id""",
        user_id,
        reason.value,
        but,
    )
    return len(ended)


# -- profile


async def change_profile(user_id: UUID, changes: Mapping[str, Any]) -> None:
    """Set some of `name`, `username` and `avatar_url`; raises Conflict when the username is another's.

    The database decides that, so it holds for two who want one name at once. The unit of work is lost with it.
    """
    columns = dict(changes)
    if "username" in columns:
        columns["username_key"] = username_key(columns["username"])
    names = [name for name in ("name", "username", "username_key", "avatar_url") if name in columns]
    try:
        await database.rows(
            f"UPDATE users SET {', '.join(f'{name} = ${place}' for place, name in enumerate(names, start=2))}"
            " WHERE id = $1 RETURNING id",
            user_id,
            *(columns[name] for name in names),
        )
    except IntegrityError as error:
        raise username_taken() from error


async def find_profiles(user_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Picture, confirmation, second factor and state of those of the users that exist."""
    found = await database.rows(
        "SELECT id, avatar_url, email_verified_at, totp_confirmed_at, is_active, last_login_at FROM users"
        " WHERE id = ANY($1::uuid[])",
        list(user_ids),
    )
    return {each["id"]: each for each in found}


async def signed_in_within(session_id: UUID, seconds: float) -> bool:
    """Whether a session began at most so long ago."""
    return bool(
        await database.value(
            "SELECT 1 FROM sessions WHERE id = $1 AND created_at > clock_timestamp() - make_interval(secs => $2)",
            session_id,
            seconds,
        )
    )


async def find_by_email(connection: Connection, email: str) -> Any:
    """The active user of an address, locked until the transaction of the connection ends; None when there is none."""
    return await connection.fetchrow(
        """SELECT id, name, username, email, email_verified_at FROM users
           WHERE email_key = $1 AND is_active FOR NO KEY UPDATE""",
        email_key(email),
    )


async def username_is_taken(username: str) -> bool:
    """Whether somebody has this username."""
    return bool(await database.value("SELECT 1 FROM users WHERE username_key = $1", username_key(username)))
