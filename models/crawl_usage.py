"""How much a user crawls: pages of today (UTC), runs that work and wait."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database
from models.database import Row
from models.github_queries import Executor

TODAY: Final = "(now() AT TIME ZONE 'UTC')::date"
KEPT_DAYS: Final = 400


async def count_pages(executor: Executor, owner_id: UUID, pages: int) -> int:
    """Add pages to a user's day; returns what the day has now. Holds the day's row until the end of the transaction."""
    [row] = await executor.fetch(
        f"""INSERT INTO crawl_days (owner_id, day, pages) VALUES ($1, {TODAY}, $2)
            ON CONFLICT (owner_id, day) DO UPDATE SET pages = crawl_days.pages + excluded.pages
            RETURNING pages""",  # noqa: S608 - a constant of this module
        owner_id,
        pages,
    )
    return int(row["pages"])


async def pages_today(executor: Executor, owner_id: UUID) -> int:
    """Pages that a user's crawls fetched today."""
    rows = await executor.fetch(
        f"SELECT pages FROM crawl_days WHERE owner_id = $1 AND day = {TODAY}",  # noqa: S608 - a constant of this module
        owner_id,
    )
    return sum(row["pages"] for row in rows)


async def usage(owner_id: UUID) -> Row:
    """Pages of today, when the day ends, and how many crawls work and wait."""
    found = await database.row(
        f"""SELECT coalesce((SELECT pages FROM crawl_days WHERE owner_id = $1 AND day = {TODAY}), 0) AS pages,
                  ({TODAY} + 1)::timestamp AT TIME ZONE 'UTC' AS ends_at,
                  ceil(extract(epoch FROM ({TODAY} + 1)::timestamp AT TIME ZONE 'UTC' - now()))::int AS seconds_left,
                  count(*) FILTER (WHERE status = 'RUNNING') AS running,
                  count(*) FILTER (WHERE status = 'QUEUED') AS waiting
            FROM executions WHERE owner_id = $1 AND kind = 'CRAWL' AND status IN ('QUEUED', 'RUNNING')""",  # noqa: S608 - a constant of this module
        owner_id,
    )
    if found is None:
        raise LookupError("an aggregate without a row")
    return found


async def forget_old_days(owner_id: UUID) -> None:
    """Remove days that nobody asks for any more."""
    await database.rows(
        f"DELETE FROM crawl_days WHERE owner_id = $1 AND day < {TODAY} - {KEPT_DAYS}",  # noqa: S608 - constants of this module
        owner_id,
    )
