"""Which of many credentials hold now, in one statement: what open streams were started with."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from models import database
from models.permissions import Role


async def holding(session_ids: Sequence[UUID], token_ids: Sequence[UUID], *, idle_days: int) -> dict[UUID, Role]:
    """The role of the owner of each session and access token that holds now, by the credential's id.

    A session holds as `models.sessions` says. A token's own end is left to whoever showed it, who knows it beforehand.
    """
    found = await database.rows(
        """SELECT s.id, u.role FROM sessions s JOIN users u ON u.id = s.user_id
           WHERE s.id = ANY($1::uuid[]) AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
             AND s.last_used_at > clock_timestamp() - make_interval(days => $3) AND u.is_active
           UNION ALL
           SELECT t.id, u.role FROM access_tokens t JOIN users u ON u.id = t.user_id
           WHERE t.id = ANY($2::uuid[]) AND t.revoked_at IS NULL AND u.is_active""",
        list(session_ids),
        list(token_ids),
        idle_days,
    )
    return {row["id"]: Role(row["role"]) for row in found}
