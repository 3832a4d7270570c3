"""Access tokens as they are read and changed: by their hash for whoever shows one, by their owner for lists.

Invariants: the token itself is never stored; one that was revoked stays revoked, and its row stays for the audit trail.
All times are PostgreSQL's.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from models import database
from models.credentials import TokenScope
from models.database import Row
from models.ids import new_id
from models.users import ACCOUNT_COLUMNS, Account, to_account

USE_SECONDS: Final = 60.0
"""The use of a token is written down at most once in this time."""

_COLUMNS: Final = (
    "id, user_id, name, last_four, scope, project_ids::text AS project_ids, created_at, expires_at, last_used_at,"
    " last_used_ip, revoked_at"
)
_UNNOTED: Final = "last_used_at IS NULL OR last_used_at < clock_timestamp() - make_interval(secs => $2)"


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token that was made here, and its owner as they are now; `is_noted` when its use was written down just now."""

    id: UUID
    account: Account
    scope: TokenScope
    project_ids: frozenset[UUID] | None
    expires_at: datetime | None
    is_revoked: bool
    is_noted: bool


async def find_by_hash(token_hash: str) -> KnownToken | None:
    """The token of a hash; one of a deactivated user counts as revoked."""
    found = await database.row(
        f"""SELECT t.id AS token_id, t.scope, t.project_ids::text AS project_ids, t.expires_at,
                   t.revoked_at IS NOT NULL OR NOT u.is_active AS is_revoked, NOT ({_UNNOTED}) AS is_noted,
                   {ACCOUNT_COLUMNS}
            FROM access_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = $1""",
        token_hash,
        USE_SECONDS,
    )
    if found is None:
        return None
    return KnownToken(
        id=found["token_id"],
        account=to_account(found),
        scope=TokenScope(found["scope"]),
        project_ids=_project_ids(found),
        expires_at=found["expires_at"],
        is_revoked=found["is_revoked"],
        is_noted=found["is_noted"],
    )


async def note_use(token_id: UUID, *, ip: str | None) -> None:
    """Write down that a token was used, unless somebody has within the last minute."""
    await database.rows(
        f"UPDATE access_tokens SET last_used_at = clock_timestamp(), last_used_ip = $3 WHERE id = $1 AND ({_UNNOTED})",
        token_id,
        USE_SECONDS,
        ip,
    )


async def of_user(user_id: UUID) -> list[Row]:
    """A user's tokens that were not revoked, newest first; there are as many as the installation allows."""
    return await database.rows(
        f"SELECT {_COLUMNS} FROM access_tokens WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id DESC", user_id
    )


async def find(token_id: UUID) -> Row | None:
    """A token by its id, whoever owns it: the caller is the gate."""
    return await database.row(f"SELECT {_COLUMNS} FROM access_tokens WHERE id = $1", token_id)


async def count_owned(user_id: UUID) -> int:
    """How many tokens of a user were not revoked; until the end of the transaction nobody else adds one for them."""
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"access_tokens:{user_id}")
    return int(
        await database.value("SELECT count(*) FROM access_tokens WHERE user_id = $1 AND revoked_at IS NULL", user_id)
    )


async def insert(
    user_id: UUID,
    *,
    name: str,
    token_hash: str,
    last_four: str,
    scope: TokenScope,
    project_ids: Sequence[UUID] | None,
    expires_at: datetime | None,
) -> Row:
    """Add a token."""
    [created] = await database.rows(
        f"""INSERT INTO access_tokens
                (id, user_id, name, token_hash, last_four, scope, project_ids, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, now(), $8) RETURNING {_COLUMNS}""",
        new_id(),
        user_id,
        name,
        token_hash,
        last_four,
        scope.value,
        None if project_ids is None else database.to_json([str(each) for each in project_ids]),
        expires_at,
    )
    return created


async def revoke(token_id: UUID) -> bool:
    """End a token for ever; False when it had ended before."""
    revoked = await database.value(
        "UPDATE access_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id", token_id
    )
    return revoked is not None


def _project_ids(row: Row) -> frozenset[UUID] | None:
    found = database.from_json(row["project_ids"])
    return None if found is None else frozenset(UUID(each) for each in found)
