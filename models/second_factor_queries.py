"""Second factors in the database: off, waiting to be confirmed, on; and the recovery codes beside them.

Invariants: a code works once, by one statement that compares and sets; whatever changes a factor or spends a code locks
the user first and the codes after, so two such never wait for each other; a code counts only for the factor that it
was checked against, which `totp_confirmed_at` names. Secrets come and go sealed, recovery codes hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from models import database
from models.database import Row
from models.ids import new_id

# -- reading


async def find(user_id: UUID) -> Row | None:
    """The factor of an active user: `sealed_totp` and `totp_confirmed_at`, null without one, `totp_last_step`.

    `now_seconds` is the database's clock, since servers must agree on the step of a code.
    """
    return await database.row(
        """SELECT id, username, email, email_verified_at, sealed_totp, totp_confirmed_at, totp_last_step,
                  extract(epoch FROM clock_timestamp())::float8 AS now_seconds
           FROM users WHERE id = $1 AND is_active""",
        user_id,
    )


async def find_recovery_code(user_id: UUID, prefix: str) -> Row | None:
    """`id` and `code_hash` of the one unused recovery code of a user that begins so."""
    return await database.row(
        "SELECT id, code_hash FROM recovery_codes WHERE user_id = $1 AND prefix = $2 AND used_at IS NULL",
        user_id,
        prefix,
    )


async def count_left(user_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many unused recovery codes those of the users have that have a second factor."""
    found = await database.rows(
        """SELECT u.id, count(c.id) AS codes FROM users u
           LEFT JOIN recovery_codes c ON c.user_id = u.id AND c.used_at IS NULL
           WHERE u.id = ANY($1::uuid[]) AND u.totp_confirmed_at IS NOT NULL GROUP BY u.id""",
        list(user_ids),
    )
    return {each["id"]: each["codes"] for each in found}


# -- spending, inside a unit of work


async def spend_step(user_id: UUID, step: int, *, confirmed_at: datetime) -> bool:
    """Use the code of a step up; False when it, or one of a later step, was used, or the factor is another now."""
    spent = await database.row(
        """UPDATE users SET totp_last_step = $2
           WHERE id = $1 AND coalesce(totp_last_step, -1) < $2 AND totp_confirmed_at = $3 RETURNING id""",
        user_id,
        step,
        confirmed_at,
    )
    return spent is not None


async def spend_recovery_code(user_id: UUID, code_id: UUID, *, confirmed_at: datetime) -> bool:
    """Use a recovery code up; False when it was used, or the factor is another now."""
    spent = await database.row(
        """WITH owner AS MATERIALIZED (
               SELECT id FROM users WHERE id = $1 AND totp_confirmed_at = $3 FOR NO KEY UPDATE
           )
           UPDATE recovery_codes c SET used_at = now() FROM owner
           WHERE c.user_id = owner.id AND c.id = $2 AND c.used_at IS NULL RETURNING c.id""",
        user_id,
        code_id,
        confirmed_at,
    )
    return spent is not None


async def has_none(user_id: UUID) -> bool:
    """Whether a user has no second factor, which stays so until the unit of work ends."""
    found = await database.row("SELECT totp_confirmed_at FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id)
    return found is None or found["totp_confirmed_at"] is None


# -- changing, inside a unit of work


async def enrol(user_id: UUID, sealed_secret: str) -> bool:
    """Keep a secret that waits to be confirmed, in the place of one that waits already; False when a factor is on."""
    kept = await database.row(
        """UPDATE users SET sealed_totp = $2, totp_last_step = NULL
           WHERE id = $1 AND is_active AND totp_confirmed_at IS NULL RETURNING id""",
        user_id,
        sealed_secret,
    )
    return kept is not None


async def confirm(user_id: UUID, *, sealed_secret: str, step: int) -> bool:
    """Switch a waiting factor on, its first code used; False when it is on, or another secret waits by now."""
    confirmed = await database.row(
        """UPDATE users SET totp_confirmed_at = clock_timestamp(), totp_last_step = $3
           WHERE id = $1 AND is_active AND totp_confirmed_at IS NULL AND sealed_totp = $2 RETURNING id""",
        user_id,
        sealed_secret,
        step,
    )
    return confirmed is not None


async def replace_recovery_codes(user_id: UUID, hashes: Sequence[tuple[str, str]]) -> None:
    """Give a user these recovery codes, prefix and hash each, and no others; after the user's row is locked."""
    await database.rows("DELETE FROM recovery_codes WHERE user_id = $1", user_id)
    await database.rows(
        """INSERT INTO recovery_codes (id, user_id, prefix, code_hash, created_at)
           SELECT given.id, $1, given.prefix, given.code_hash, now()
           FROM unnest($2::uuid[], $3::text[], $4::text[]) AS given (id, prefix, code_hash)""",
        user_id,
        [new_id() for _ in hashes],
        [prefix for prefix, _ in hashes],
        [code_hash for _, code_hash in hashes],
    )


async def remove(user_id: UUID) -> bool:
    """Take a factor away, on or waiting, and its recovery codes; False when there was none."""
    removed = await database.row(
        """UPDATE users SET sealed_totp = NULL, totp_confirmed_at = NULL, totp_last_step = NULL
           WHERE id = $1 AND sealed_totp IS NOT NULL RETURNING id""",
        user_id,
    )
    await database.rows("DELETE FROM recovery_codes WHERE user_id = $1", user_id)
    return removed is not None
