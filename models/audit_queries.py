"""The audit trail as it is read: by keyset, newest first.

Invariant: every way in has an index. The primary key serves administrators; everybody else has one scan for what they
did and one for what was done to their account, each cut to the page before they are joined.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database
from models.database import Row
from models.ids import new_id
from models.leases import Connection
from models.users import ACCOUNT_COLUMNS, Account, to_account

MOST_COUNTED: Final = 10_000

_COLUMNS: Final = (
    "e.id, e.occurred_at, e.actor_id, e.session_id, e.access_token_id, e.action, e.outcome, e.target_type, e.target_id,"
    " e.ip, e.user_agent, e.request_id, e.details::text AS details, e.access_token_id IS NOT NULL AS by_token"
)
_CONCERNING: Final = ("e.actor_id = {}", "e.target_id = {} AND e.target_type = 'user'")
_SLACK_SECONDS: Final = 60.0
"""An id is made a moment before its event has a time, and perhaps by another clock."""

_SUCCESS: Final = "success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What an event must be; None is no condition. Times are from `occurred_from` on, up to and without the other."""

    actions: Sequence[str] | None = None
    outcomes: Sequence[str] | None = None
    failed_only: bool = False
    actor_id: UUID | None = None
    target_type: str | None = None
    target_id: UUID | None = None
    request_id: str | None = None
    occurred_from: datetime | None = None
    occurred_until: datetime | None = None


async def page(
    viewer_id: UUID | None,
    conditions: Conditions,
    *,
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Events that concern a user, or all for None, newest first; backwards from the end."""
    sql, values = page_statement(
        viewer_id, conditions, after=after, before=before, backwards=backwards, limit=limit, columns=_COLUMNS
    )
    return await database.rows(sql, *values)


async def count(viewer_id: UUID | None, conditions: Conditions) -> int | None:
    """How many there are in all; None when there are more than `MOST_COUNTED`."""
    sql, values = page_statement(viewer_id, conditions, limit=MOST_COUNTED + 1, columns="e.id")
    counted = int(await database.value(f"SELECT count(*) FROM ({sql}) counted", *values))
    return None if counted > MOST_COUNTED else counted


async def find(viewer_id: UUID | None, event_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the events that concern a user, or of all for None."""
    found = await database.rows(
        f"""SELECT {_COLUMNS} FROM audit_events e WHERE e.id = ANY($1::uuid[])
              AND ($2::uuid IS NULL OR e.actor_id = $2 OR (e.target_id = $2 AND e.target_type = 'user'))""",
        list(event_ids),
        viewer_id,
    )
    return {row["id"]: row for row in found}


async def find_actors(user_ids: Sequence[UUID]) -> dict[UUID, Account]:
    """Those of the users who still have their account."""
    found = await database.rows(
        f"SELECT {ACCOUNT_COLUMNS} FROM users u WHERE u.id = ANY($1::uuid[]) AND u.deleted_at IS NULL", list(user_ids)
    )
    return {row["id"]: to_account(row) for row in found}


async def insert_for_system(connection: Connection, action: str, details: dict[str, Any]) -> None:
    """Write down what the command line did, on its own connection; a database that was never migrated has no trail."""
    if await connection.fetchval("SELECT to_regclass('audit_events')") is None:
        return
    await connection.fetchval(
        """INSERT INTO audit_events (id, occurred_at, action, outcome, details)
           VALUES ($1, clock_timestamp(), $2, $3, $4::jsonb) RETURNING id""",
        new_id(),
        action,
        _SUCCESS,
        database.to_json(details),
    )


def page_statement(
    viewer_id: UUID | None,
    conditions: Conditions,
    *,
    columns: str,
    limit: int,
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
) -> tuple[str, list[Any]]:
    """The statement of a page and its parameters."""
    values: list[Any] = []
    where = _conditions(conditions, values)
    for bound, operator in ((after, "<"), (before, ">")):
        if bound is not None:
            where.append(f"e.id {operator} {_place(values, bound)}")
    if viewer_id is None:
        branches = ["true"]
    else:
        viewer = _place(values, viewer_id)
        branches = [branch.format(viewer) for branch in _CONCERNING]
    cut = f"ORDER BY id {'ASC' if backwards else 'DESC'} LIMIT {_place(values, limit)}"
    selects = [
        f"SELECT {columns} FROM audit_events e WHERE {' AND '.join([branch, *where])} {cut}" for branch in branches
    ]
    if len(selects) == 1:
        return selects[0], values
    # What somebody did to their own account comes out of both.
    both = " UNION ALL ".join(f"({select})" for select in selects)
    return f"SELECT DISTINCT ON (id) * FROM ({both}) concerning {cut}", values


def _conditions(wanted: Conditions, values: list[Any]) -> list[str]:
    where = []
    for text, value in (
        ("e.actor_id = {}", wanted.actor_id),
        ("e.target_id = {}", wanted.target_id),
        ("e.target_type = {}", wanted.target_type),
        ("e.request_id = {}", wanted.request_id),
        ("e.action = ANY({}::text[])", wanted.actions and list(wanted.actions)),
        ("e.outcome = ANY({}::text[])", wanted.outcomes and list(wanted.outcomes)),
        ("e.outcome <> {}", _SUCCESS if wanted.failed_only else None),
        ("e.occurred_at >= {}", wanted.occurred_from),
        ("e.occurred_at < {}", wanted.occurred_until),
        ("e.id >= {}", wanted.occurred_from and _earliest_id(wanted.occurred_from.timestamp() - _SLACK_SECONDS)),
        ("e.id < {}", wanted.occurred_until and _earliest_id(wanted.occurred_until.timestamp() + _SLACK_SECONDS)),
    ):
        if value is not None:
            where.append(text.format(_place(values, value)))
    return where


def _earliest_id(epoch_seconds: float) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562 §5.7: 48 bits of milliseconds first); moments before 1970 have none."""
    return UUID(int=int(max(0.0, epoch_seconds) * 1_000) << 80)


def _place(values: list[Any], value: Any) -> str:
    values.append(value)
    return f"${len(values)}"
