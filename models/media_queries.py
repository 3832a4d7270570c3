"""Media as they are found again: plain rows, and where their objects are in storage."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from models import database
from models.database import Row


def object_key(media_id: UUID) -> str:
    """Where the file itself is."""
    return f"media/{media_id}/original"


def thumbnail_key(media_id: UUID) -> str:
    """Where its thumbnail is, if it has one."""
    return f"media/{media_id}/thumbnail"


async def find(media_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The media that exist among these, whoever owns them: the caller is the gate."""
    found = await database.rows(
        """SELECT id, owner_id, status, filename, content_type, size, sha256, kind, width, height, pages,
                  duration_seconds, has_thumbnail, rejection, created_at, completed_at, upload_until
           FROM media WHERE id = ANY($1::uuid[])""",
        list(media_ids),
    )
    return {row["id"]: row for row in found}
