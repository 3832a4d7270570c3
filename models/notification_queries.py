"""Notifications and preferences as they are written and read: plain rows, each only for its user.

Invariant: the ids of a user's notifications grow in the order in which they became visible, so that "after this id" is
a place to go on from which misses nothing. Users without a row of preferences have the defaults of the model.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from asyncpg import Connection

from models import database
from models.database import Row
from models.ids import new_id
from models.notifications import NotificationKind, Preferences

_COLUMNS: Final = "n.id, n.user_id, n.kind, n.title, n.body, n.url, n.execution_id, n.created_at, n.read_at"

CHOICES: Final = ("theme", "email_notifications", "deployment_success", "deployment_failure", "job_notifications")
"""The columns of preferences that users set."""

DEFAULTS: Final[Mapping[str, Any]] = {name: Preferences._meta.fields_map[name].default for name in CHOICES}
_SQL_TYPES: Final = {name: "varchar" if name == "theme" else "boolean" for name in CHOICES}


# -- notifications


async def add_with(
    connection: Connection,
    user_id: UUID,
    *,
    key: str,
    kind: NotificationKind,
    title: str,
    body: str,
    url: str | None = None,
    execution_id: UUID | None = None,
) -> UUID | None:
    """Tell a user something, in the transaction of a connection; its id, or None when it was told already."""
    # Whoever tells the same user something waits for the commit: ids are given in the order in which they show.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"notifications:{user_id}")
    newest = await connection.fetchval(
        "SELECT id FROM notifications WHERE user_id = $1 ORDER BY id DESC LIMIT 1", user_id
    )
    fresh = new_id()
    if newest is not None and fresh.int <= newest.int:
        fresh = UUID(int=newest.int + 1)  # another machine's clock is ahead
    added: UUID | None = await connection.fetchval(
        """INSERT INTO notifications (id, user_id, key, kind, title, body, url, execution_id, created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now()) ON CONFLICT (user_id, key) DO NOTHING RETURNING id""",
        fresh,
        user_id,
        key,
        kind.value,
        title,
        body,
        url,
        execution_id,
    )
    return added


async def find(user_id: UUID, notification_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the notifications that are a user's."""
    found = await database.rows(
        f"SELECT {_COLUMNS} FROM notifications n WHERE n.user_id = $1 AND n.id = ANY($2::uuid[])",
        user_id,
        list(notification_ids),
    )
    return {row["id"]: row for row in found}


async def page(
    user_id: UUID,
    *,
    unread: bool | None,
    after: UUID | None,
    before: UUID | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """A user's notifications, newest first, strictly between two ids; backwards from the end of the list."""
    direction = "ASC" if backwards else "DESC"
    return await database.rows(
        f"""SELECT {_COLUMNS} FROM notifications n
            WHERE n.user_id = $1 AND ($2::boolean IS NULL OR (n.read_at IS NULL) = $2)
              AND ($3::uuid IS NULL OR n.id < $3) AND ($4::uuid IS NULL OR n.id > $4)
            ORDER BY n.id {direction} LIMIT $5""",
        user_id,
        unread,
        after,
        before,
        limit,
    )


async def count(user_id: UUID, *, unread: bool | None) -> int:
    """How many there are in all."""
    return int(
        await database.value(
            """SELECT count(*) FROM notifications
               WHERE user_id = $1 AND ($2::boolean IS NULL OR (read_at IS NULL) = $2)""",
            user_id,
            unread,
        )
    )


async def added_after(user_id: UUID, notification_id: UUID, *, limit: int) -> list[Row]:
    """What a user was told after a notification, oldest first."""
    return await database.rows(
        f"""SELECT {_COLUMNS} FROM notifications n WHERE n.user_id = $1 AND n.id > $2 ORDER BY n.id LIMIT $3""",
        user_id,
        notification_id,
        limit,
    )


async def newest(user_id: UUID) -> UUID | None:
    """The last thing a user was told."""
    found: UUID | None = await database.value(
        "SELECT id FROM notifications WHERE user_id = $1 ORDER BY id DESC LIMIT 1", user_id
    )
    return found


async def mark_read(user_id: UUID, notification_ids: Sequence[UUID] | None) -> int:
    """Mark these, or all for None, as read; how many were not so far."""
    marked = await database.rows(
        """UPDATE notifications SET read_at = now()
           WHERE user_id = $1 AND read_at IS NULL AND ($2::uuid[] IS NULL OR id = ANY($2::uuid[])) RETURNING id""",
        user_id,
        None if notification_ids is None else list(notification_ids),
    )
    return len(marked)


# -- preferences


async def preferences(user_id: UUID) -> Row:
    """What a user wants; `updated_at` is None for the defaults."""
    found = await database.row(f"SELECT {', '.join(CHOICES)}, updated_at FROM preferences WHERE user_id = $1", user_id)
    return found or {**DEFAULTS, "updated_at": None}


async def change_preferences(user_id: UUID, changes: Mapping[str, Any]) -> Row:
    """Set some of the choices, in one statement, and return all: two who change different ones both succeed."""
    given = {name: f"${place}::{_SQL_TYPES[name]}" for place, name in enumerate(CHOICES, start=2)}
    defaults = {name: f"${place}::{_SQL_TYPES[name]}" for place, name in enumerate(CHOICES, start=2 + len(CHOICES))}
    found = await database.row(
        f"""INSERT INTO preferences AS p (user_id, {", ".join(CHOICES)}, updated_at)
            VALUES ($1, {", ".join(f"coalesce({given[name]}, {defaults[name]})" for name in CHOICES)}, now())
            ON CONFLICT (user_id) DO UPDATE SET updated_at = now(),
                {", ".join(f"{name} = coalesce({given[name]}, p.{name})" for name in CHOICES)}
            RETURNING {", ".join(CHOICES)}, updated_at""",
        user_id,
        *(changes.get(name) for name in CHOICES),
        *(DEFAULTS[name] for name in CHOICES),
    )
    if found is None:
        raise LookupError("an upsert that returned no row")
    return found
