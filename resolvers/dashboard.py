"""The dashboard: sums of this week and month, those before them, what is there now, and what is newest.

Weeks are the last seven days and the seven before, months the last thirty and the thirty before, all up to the present
time of day, so that what is compared is equally long. All is read in four statements, three of them at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from models import analytics_queries, database
from models.analytics import RISKS, SUMS
from models.analytics_queries import EVER, KINDS
from models.database import Row
from models.permissions import Actor
from resolvers import periods, statistics_scope
from resolvers.statistics_cache import views
from resolvers.statistics_scope import Whose

RECENT: Final = 5
MONTH_DAYS: Final = 30
WEEK_DAYS: Final = 7

Sums = Mapping[str, int]
"""What is in `models.analytics.SUMS`."""


class Span(StrEnum):
    """The times that a dashboard tells of."""

    EVER = "EVER"
    TODAY = "TODAY"
    WEEK = "WEEK"
    WEEK_BEFORE = "WEEK_BEFORE"
    MONTH = "MONTH"
    MONTH_BEFORE = "MONTH_BEFORE"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What is shown. `standing` has counts of projects; `waiting` and `working` are by kind; `recent` is by kind."""

    at: datetime
    sums: Mapping[tuple[str, Span], Sums]
    risks: Mapping[Span, Mapping[str, int]]
    standing: Row
    waiting: Mapping[str, int]
    working: Mapping[str, int]
    recent: Mapping[str, list[Row]]


async def dashboard(actor: Actor, *, time_zone: str, mine: bool) -> Dashboard:
    """The dashboard of an actor; raises ValidationFailed for what is no time zone."""
    zone = periods.zone_named(time_zone)
    whose = await statistics_scope.whose(actor, mine=mine)
    return await views.get(("dashboard", whose, zone.key), whose.owner_id, lambda: _read(whose, zone))


async def _read(whose: Whose, zone: ZoneInfo) -> Dashboard:
    now = await analytics_queries.now()
    end = periods.floor(now) + periods.QUARTER_HOUR
    today = periods.start_of_day(now.astimezone(zone).date(), zone)
    before = {days: periods.days_before(now, days, zone) for days in (7, 14, 30, 60)}
    spans = {
        Span.TODAY: (today, end),
        Span.WEEK: (before[WEEK_DAYS], end),
        Span.WEEK_BEFORE: (before[2 * WEEK_DAYS], before[WEEK_DAYS]),
        Span.MONTH: (before[MONTH_DAYS], end),
        Span.MONTH_BEFORE: (before[2 * MONTH_DAYS], before[MONTH_DAYS]),
    }
    edges = sorted({*before.values(), today, end})
    counted, standing, newest = await together(
        analytics_queries.sums(whose.scope, (*KINDS, RISKS), edges, ever=True),
        analytics_queries.standing(whose.scope, active_since=before[MONTH_DAYS], today=today),
        analytics_queries.recent(whose.scope, limit=RECENT),
    )
    buckets = {
        span: {number for number, edge in enumerate(edges, start=1) if start <= edge < stop}
        for span, (start, stop) in spans.items()
    }
    buckets[Span.EVER] = {EVER}
    return Dashboard(
        at=now,
        sums={
            (kind, span): _sum(row for row in counted if row["kind"] == kind and row["bucket"] in numbers)
            for kind in KINDS
            for span, numbers in buckets.items()
        },
        risks={
            span: _by_severity(row for row in counted if row["kind"] == RISKS and row["bucket"] in numbers)
            for span, numbers in buckets.items()
        },
        standing=standing,
        waiting=database.from_json(standing["waiting"]) or {},
        working=database.from_json(standing["working"]) or {},
        recent={kind: [row for row in newest if row["kind"] == kind] for kind in KINDS},
    )


async def together(*reading: Coroutine[Any, Any, Any]) -> list[Any]:
    """What all of them bring, read at the same time; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in reading]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def _sum(rows: Iterable[Row]) -> Sums:
    total: Counter[str] = Counter(dict.fromkeys(SUMS, 0))
    for row in rows:
        for name in SUMS:
            total[name] += row[name]
    return total


def _by_severity(rows: Iterable[Row]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total[row["label"].partition(":")[0]] += row["created"]
    return total
