"""Media as they are found again: plain rows, and where their objects are in storage.

Invariants: what a user's media take is summed up and added to under one lock, so no race goes past a quota; a medium
leaves PENDING once. Functions with an `executor` are for workers.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from models import database, keyset
from models.database import Row
from models.github_queries import Executor
from models.media import MediaKind, MediaStatus
from models.permissions import Actor
from models.tools import containing

KEY_PREFIX: Final = "media/"
"""Where the objects of all media are."""

COLUMNS: Final = (
    "m.id, m.owner_id, m.status, m.filename, m.content_type, m.size, m.sha256, m.kind, m.width, m.height, m.pages,"
    " m.duration_seconds, m.has_thumbnail, m.rejection, m.created_at, m.completed_at, m.upload_until"
)


def object_key(media_id: UUID) -> str:
    """Where the file itself is."""
    return f"{KEY_PREFIX}{media_id}/original"


def thumbnail_key(media_id: UUID) -> str:
    """Where its thumbnail is, if it has one."""
    return f"{KEY_PREFIX}{media_id}/thumbnail"


def keys_of(media_id: UUID) -> list[str]:
    """Every object that a medium may have."""
    return [object_key(media_id), thumbnail_key(media_id)]


async def find(media_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The media that exist among these, whoever owns them: the caller is the gate."""
    found = await database.rows(f"SELECT {COLUMNS} FROM media m WHERE m.id = ANY($1::uuid[])", list(media_ids))
    return {row["id"]: row for row in found}


async def visible(
    actor: Actor,
    *,
    kind: MediaKind | None,
    status: MediaStatus | None,
    search: str | None,
    after: UUID | None,
    before: UUID | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Media that an actor may see, newest first, strictly between two ids; backwards from the oldest."""
    where, values = _conditions(actor, kind, status, search)
    bounds, by = keyset.between(
        "m.id",
        "${}::uuid",
        values,
        after=None if after is None else (after,),
        before=None if before is None else (before,),
        descending=True,
        backwards=backwards,
    )
    values.append(limit)
    return await database.rows(
        f"SELECT {COLUMNS} FROM media m WHERE {' AND '.join(where + bounds)} ORDER BY {by} LIMIT ${len(values)}",
        *values,
    )


async def count_visible(actor: Actor, *, kind: MediaKind | None, status: MediaStatus | None, search: str | None) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, kind, status, search)
    return int(await database.value(f"SELECT count(*) FROM media m WHERE {' AND '.join(where)}", *values))


async def lock_usage(owner_id: UUID) -> Row:
    """What a user's media take, as `bytes` and `pending`; nobody else adds to it until the transaction ends."""
    await database.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"media:{owner_id}")
    found = await database.row(
        """SELECT coalesce(sum(size), 0)::bigint AS bytes, count(*) FILTER (WHERE status = 'PENDING') AS pending
           FROM media WHERE owner_id = $1 AND status IN ('PENDING', 'READY')""",
        owner_id,
    )
    return found or {"bytes": 0, "pending": 0}


async def insert(
    media_id: UUID,
    *,
    owner_id: UUID,
    filename: str,
    content_type: str,
    size: int,
    sha256: str,
    upload_seconds: int,
) -> None:
    """Add the promise of a medium; call it after `lock_usage`."""
    await database.rows(
        """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, has_thumbnail, created_at,
               upload_until)
           VALUES ($1, $2, 'PENDING', $3, $4, $5, $6, false, now(), now() + make_interval(secs => $7))""",
        media_id,
        owner_id,
        filename,
        content_type,
        size,
        sha256,
        upload_seconds,
    )


async def make_ready(
    media_id: UUID,
    *,
    kind: MediaKind,
    width: int | None,
    height: int | None,
    pages: int | None,
    duration_seconds: float | None,
    has_thumbnail: bool,
) -> bool:
    """Write down what was found in a medium; False when it is not PENDING any more."""
    done = await database.value(
        """UPDATE media SET status = 'READY', kind = $2, width = $3, height = $4, pages = $5, duration_seconds = $6,
               has_thumbnail = $7, completed_at = now(), upload_until = NULL
           WHERE id = $1 AND status = 'PENDING' RETURNING id""",
        media_id,
        kind.value,
        width,
        height,
        pages,
        duration_seconds,
        has_thumbnail,
    )
    return done is not None


async def reject(media_id: UUID, reason: str) -> bool:
    """Write down why a medium is refused; False when it is not PENDING any more."""
    done = await database.value(
        """UPDATE media SET status = 'REJECTED', rejection = $2, completed_at = now(), upload_until = NULL
           WHERE id = $1 AND status = 'PENDING' RETURNING id""",
        media_id,
        reason,
    )
    return done is not None


async def delete(media_id: UUID) -> bool:
    """Remove a medium from wherever it is used; False when it is gone already."""
    return await database.value("DELETE FROM media WHERE id = $1 RETURNING id", media_id) is not None


# -- for workers


async def without_objects(executor: Executor, media_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the media that should have no objects: they are gone or were refused."""
    kept = await executor.fetch(
        "SELECT id FROM media WHERE id = ANY($1::uuid[]) AND status <> 'REJECTED'", list(media_ids)
    )
    return set(media_ids) - {row["id"] for row in kept}


async def abandoned(executor: Executor, *, grace_seconds: int, kept_days: int, limit: int) -> list[UUID]:
    """Promises that nobody kept, for so long after their time, and media that were refused so many days ago."""
    found = await executor.fetch(
        """(SELECT id FROM media
            WHERE status = 'PENDING' AND upload_until < now() - make_interval(secs => $1)
            ORDER BY upload_until LIMIT $3)
           UNION ALL
           (SELECT id FROM media
            WHERE status = 'REJECTED' AND completed_at < now() - make_interval(days => $2) LIMIT $3)""",
        grace_seconds,
        kept_days,
        limit,
    )
    return [row["id"] for row in found]


async def forget(executor: Executor, media_ids: Sequence[UUID], *, grace_seconds: int) -> None:
    """Remove media that are still abandoned, or refused."""
    await executor.execute(
        """DELETE FROM media WHERE id = ANY($1::uuid[]) AND (
               status = 'REJECTED' OR (status = 'PENDING' AND upload_until < now() - make_interval(secs => $2)))""",
        list(media_ids),
        grace_seconds,
    )


def _conditions(
    actor: Actor, kind: MediaKind | None, status: MediaStatus | None, search: str | None
) -> tuple[list[str], list[Any]]:
    where, values = ["true"], list[Any]()
    if not actor.is_admin:
        values.append(actor.user_id)
        where = [f"m.owner_id = ${len(values)}"]
    for column, wanted in (("m.kind", kind), ("m.status", status)):
        if wanted is not None:
            values.append(wanted.value)
            where.append(f"{column} = ${len(values)}")
    if search:
        values.append(containing(search))
        where.append(f"m.filename ILIKE ${len(values)}")
    return where, values
