"""What a run's ledger says: hosts, items that did not fit, items that are gone; and how much its owner crawls.

Callers have passed the gate to the run; lists are in the order of their rows.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from errors import Unauthorized
from models import crawl_usage, database
from models.database import Row
from models.permissions import Actor
from resolvers import sessions
from tasks.crawl.ledger import COLUMNS

_HOSTS: Final = "run_hosts WHERE run_id = $1"
_REJECTED: Final = "rejected_items WHERE dataset_id = $1 AND run_id <= $2"
_GONE: Final = "item_versions WHERE gone_in = $1"


async def hosts(run_id: UUID, **bounds: Any) -> list[Row]:
    """A page of what hosts were asked for."""
    return await _page(f"id, host, {', '.join(COLUMNS)}", _HOSTS, [run_id], **bounds)


async def count_hosts(run_id: UUID) -> int:
    """How many there are in all."""
    return await _count(_HOSTS, [run_id])


async def rejected_items(run_id: UUID, dataset_id: UUID, **bounds: Any) -> list[Row]:
    """A page of a run's items that did not fit, and of those of the runs it went on from."""
    columns = "id, url, data::text AS data, faults::text AS faults, rejected_at"
    return await _page(columns, _REJECTED, [dataset_id, run_id], **bounds)


async def count_rejected_items(run_id: UUID, dataset_id: UUID) -> int:
    """How many are kept."""
    return await _count(_REJECTED, [dataset_id, run_id])


async def gone_items(run_id: UUID, **bounds: Any) -> list[Row]:
    """A page of what a run missed first and no later one has seen."""
    return await _page("id, url, source_id", _GONE, [run_id], **bounds)


async def count_gone_items(run_id: UUID) -> int:
    """How many there are in all."""
    return await _count(_GONE, [run_id])


async def usage(actor: Actor) -> Row:
    """How much the actor crawls, and may."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    settings = sessions.settings()
    return {
        **await crawl_usage.usage(actor.user_id),
        "pages_per_day": settings.crawl_pages_per_day,
        "running_limit": settings.max_running_per_user,
    }


async def _page(
    columns: str,
    source: str,
    values: Sequence[Any],
    *,
    after: int | None,
    before: int | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    place = len(values)
    return await database.rows(
        f"""SELECT {columns} FROM {source} AND id > ${place + 1} AND id < ${place + 2}
            ORDER BY id {"DESC" if backwards else "ASC"} LIMIT ${place + 3}""",
        *values,
        after or 0,
        before if before is not None else 2**63 - 1,
        limit,
    )


async def _count(source: str, values: Sequence[Any]) -> int:
    return int(await database.value(f"SELECT count(*) FROM {source}", *values))
