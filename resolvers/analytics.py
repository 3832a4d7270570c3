"""Analytics: a range in buckets, compared with the one before it.

A `Report` reads its parts when they are asked for, each in one statement and kept for a minute
(`resolvers/statistics_cache.py`). Buckets without anything are there, with zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from models import analytics_queries, database, deployments
from models.analytics import SUMS
from models.analytics_queries import KINDS
from models.database import Row
from models.permissions import Actor
from resolvers import periods, statistics_scope
from resolvers.periods import AnalyticsPreset, Period
from resolvers.statistics_cache import views
from resolvers.statistics_scope import Whose

MAX_TOOLS: Final = 50
MAX_CATEGORIES: Final = 20

Part = TypeVar("Part")
Sums = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sums of `models.analytics.SUMS` from `start` up to `end`."""

    start: datetime
    end: datetime
    sums: Sums


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations in ms that ended from `start` up to `end`; all but `count` are None when there are none."""

    start: datetime
    end: datetime
    count: int
    average: float | None
    shortest: int | None
    longest: int | None
    p95: int | None


@dataclass(frozen=True, slots=True)
class RiskCategory:
    """A category of risks: counts by severity in all, and in each bucket."""

    category: str
    severities: Mapping[str, int]
    counts: Sequence[int]


async def report(
    actor: Actor,
    *,
    preset: AnalyticsPreset | None,
    start: datetime | None,
    end: datetime | None,
    project_id: str | None,
    time_zone: str,
    mine: bool,
) -> Report:
    """A report of a preset, or from `start` to `end`; raises ValidationFailed, NotFound for somebody else's project."""
    zone = periods.zone_named(time_zone)
    whose = await statistics_scope.whose(actor, mine=mine, project_id=project_id)
    if start is not None and end is not None:
        return Report(whose, periods.between(start, end, zone))
    chosen = preset or AnalyticsPreset.LAST_30_DAYS

    async def of_preset() -> Period:
        return periods.of_preset(chosen, zone, await analytics_queries.now())

    return Report(whose, await views.get(("period", whose, chosen, zone.key), whose.owner_id, of_preset))


class Report:
    """A range of somebody's numbers."""

    def __init__(self, whose: Whose, period: Period) -> None:
        self.period = period
        self._whose = whose
        self._edges = period.edges()

    @property
    def zone(self) -> ZoneInfo:
        """The zone whose days and weeks are told."""
        return self.period.zone

    async def buckets(self, kind: str) -> list[Bucket]:
        """Sums of a kind, bucket by bucket."""
        sums = await self._sums()
        return [
            Bucket(start, end, _sum([sums[kind, number]] if (kind, number) in sums else []))
            for number, (start, end) in enumerate(pairwise(self._edges))
        ]

    async def weeks(self, kind: str) -> list[Bucket]:
        """The same by ISO weeks, the first and the last as far as they are in the range."""
        buckets = await self.buckets(kind)
        return [
            Bucket(start, end, _sum(bucket.sums for bucket in buckets if start <= bucket.start < end))
            for start, end in pairwise(self.period.weeks())
        ]

    async def total(self, kind: str) -> Sums:
        """Sums over the range."""
        return _sum(bucket.sums for bucket in await self.buckets(kind))

    async def previous(self, kind: str) -> Sums:
        """Sums over the range before."""
        sums = await self._sums()
        return sums.get((kind, _PREVIOUS), _sum([]))

    async def hours(self) -> list[int]:
        """How many deployments were asked for at each of the 24 hours of the day."""

        async def read() -> dict[int, int]:
            start, end = self.period.start, self.period.end
            changes, seconds = periods.offsets(start, end, self.zone)
            return await analytics_queries.created_by_hour(
                self._whose.scope, deployments.KIND, start, end, changes=changes, offsets_seconds=seconds
            )

        found = await self._part("hours", read)
        return [found.get(hour, 0) for hour in range(24)]

    async def durations(self, kind: str, measure: str) -> tuple[list[Durations], Durations]:
        """Bucket by bucket, and over the range; `measure` as `models.analytics_queries.durations` takes it."""

        async def read() -> list[Row]:
            return await analytics_queries.durations(self._whose.scope, kind, measure, self._edges)

        found = {row["bucket"]: row for row in await self._part(("durations", kind, measure), read)}
        pairs = enumerate(pairwise(self._edges), start=1)
        series = [_durations(found.get(number), start, end) for number, (start, end) in pairs]
        return series, _durations(found.get(None), self.period.start, self.period.end)

    async def tools(self) -> list[Row]:
        """Runs by tool, the tool with the most first."""

        async def read() -> list[Row]:
            return await analytics_queries.by_tool(
                self._whose.scope, self.period.start, self.period.end, limit=MAX_TOOLS
            )

        return await self._part("tools", read)

    async def unfinished(self, kind: str) -> tuple[int, int]:
        """How many of a kind wait and how many work, now."""

        async def read() -> Row:
            start = self.period.start
            return await analytics_queries.standing(self._whose.scope, active_since=start, today=start)

        found = await self._part("standing", read)
        waiting, working = (database.from_json(found[name]) or {} for name in ("waiting", "working"))
        return waiting.get(kind, 0), working.get(kind, 0)

    async def risks(self) -> tuple[int, int]:
        """How many risks were found in the range and in the one before."""
        rows = await self._risk_rows()
        in_range = sum(row["count"] for row in rows if self._bucket(row) >= 0)
        return in_range, sum(row["count"] for row in rows if self._bucket(row) == _PREVIOUS)

    async def risk_categories(self) -> list[RiskCategory]:
        """Risks of the range by category, the category with the most first, at most twenty."""
        severities: dict[str, Counter[str]] = {}
        counts: dict[str, Counter[int]] = {}
        for row in await self._risk_rows():
            number = self._bucket(row)
            if number >= 0:
                severity, _, category = row["label"].partition(":")
                severities.setdefault(category, Counter())[severity] += row["count"]
                counts.setdefault(category, Counter())[number] += row["count"]
        most = sorted(severities, key=lambda category: (-severities[category].total(), category))[:MAX_CATEGORIES]
        numbers = range(len(self._edges) - 1)
        return [
            RiskCategory(category, severities[category], [counts[category][number] for number in numbers])
            for category in most
        ]

    async def _sums(self) -> Mapping[tuple[str, int], Sums]:
        async def read() -> list[Row]:
            return await analytics_queries.sums(self._whose.scope, KINDS, self._all_edges)

        found = await self._part("sums", read)
        return {(row["kind"], self._bucket(row)): row for row in found}

    async def _risk_rows(self) -> list[Row]:
        async def read() -> list[Row]:
            return await analytics_queries.risks(self._whose.scope, self._all_edges)

        return await self._part("risks", read)

    @property
    def _all_edges(self) -> list[datetime]:
        """Those of the range before, what may lie between, and those of the range."""
        period = self.period
        gap = [period.previous_end] if period.previous_end < period.start else []
        return [period.previous_start, *gap, *self._edges]

    def _bucket(self, row: Row) -> int:
        """The number of a row's bucket in the range, from 0, or `_PREVIOUS`, or `_GAP`."""
        number: int = row["bucket"] - 1
        before = len(self._all_edges) - len(self._edges)
        if number >= before:
            return number - before
        return _PREVIOUS if number == 0 else _GAP

    async def _part(self, name: object, read: Callable[[], Awaitable[Part]]) -> Part:
        key = ("analytics", self._whose, self.period, name)
        return await views.get(key, self._whose.owner_id, read)


_PREVIOUS: Final = -1
_GAP: Final = -2


def _sum(found: Iterable[Any]) -> Sums:
    total = dict.fromkeys(SUMS, 0)
    for sums in found:
        for name in SUMS:
            total[name] += sums[name]
    return total


def _durations(row: Row | None, start: datetime, end: datetime) -> Durations:
    if row is None or not row["count"]:
        return Durations(start, end, 0, None, None, None, None)
    return Durations(start, end, row["count"], row["sum"] / row["count"], row["min"], row["max"], row["p95"])
