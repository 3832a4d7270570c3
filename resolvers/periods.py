"""Where days, weeks and hours of a time zone begin, and which moments a range is.

Everything is in whole quarter-hours, as the sums are: all offsets of the last fifty years are multiples of 15 minutes.
Days come from the zone's rules, so one has 23 hours where the clock goes forward and 25 where it goes back.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from errors import ValidationFailed

QUARTER_HOUR: Final = timedelta(minutes=15)
MAX_DAYS: Final = 400
HOURLY_DAYS: Final = 2
"""Ranges up to so many days are told by the hour."""

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MAX_ZONE_LENGTH: Final = 64
_DAY: Final = timedelta(days=1)


class AnalyticsPreset(StrEnum):
    """Ranges that end now."""

    LAST_24_HOURS = "LAST_24_HOURS"
    LAST_7_DAYS = "LAST_7_DAYS"
    LAST_30_DAYS = "LAST_30_DAYS"
    LAST_90_DAYS = "LAST_90_DAYS"
    LAST_12_MONTHS = "LAST_12_MONTHS"


class AnalyticsInterval(StrEnum):
    """How long the buckets of a series are."""

    HOUR = "HOUR"
    DAY = "DAY"


_DAYS: Final = {
    AnalyticsPreset.LAST_7_DAYS: 7,
    AnalyticsPreset.LAST_30_DAYS: 30,
    AnalyticsPreset.LAST_90_DAYS: 90,
    AnalyticsPreset.LAST_12_MONTHS: 365,
}


@dataclass(frozen=True, slots=True)
class Period:
    """A range and the one before it that it is compared with; ends are exclusive, all are whole quarter-hours."""

    start: datetime
    end: datetime
    previous_start: datetime
    previous_end: datetime
    zone: ZoneInfo

    @property
    def interval(self) -> AnalyticsInterval:
        """How long its buckets are."""
        return AnalyticsInterval.HOUR if self.end - self.start <= timedelta(days=HOURLY_DAYS) else AnalyticsInterval.DAY

    def edges(self) -> list[datetime]:
        """Where its buckets begin, and its end; the first and the last bucket may be parts of an hour or a day."""
        begins = _hours if self.interval is AnalyticsInterval.HOUR else _days
        return self._with_ends(begins(self.start, self.end, self.zone))

    def weeks(self) -> list[datetime]:
        """Where ISO weeks begin in it, with its start and its end."""
        days = _days(self.start, self.end, self.zone)
        return self._with_ends(day for day in days if day.astimezone(self.zone).weekday() == 0)

    def _with_ends(self, between: Iterable[datetime]) -> list[datetime]:
        return [self.start, *(moment for moment in between if self.start < moment < self.end), self.end]


def zone_named(name: str) -> ZoneInfo:
    """An IANA time zone; raises ValidationFailed."""
    if len(name) > _MAX_ZONE_LENGTH or name not in _zone_names():
        raise ValidationFailed("There is no such time zone. Give an IANA name: Europe/Madrid.", path=["timeZone"])
    return ZoneInfo(name)


def of_preset(preset: AnalyticsPreset, zone: ZoneInfo, now: datetime) -> Period:
    """A range that ends with the present quarter-hour, and as much before it, up to the same time of day.

    Days are those of the zone, today included; 24 hours are this hour and the 23 before it.
    """
    end = floor(now) + QUARTER_HOUR
    if preset is AnalyticsPreset.LAST_24_HOURS:
        start = max((hour for hour in _hours(end - timedelta(hours=3), end, zone)), default=end) - timedelta(hours=23)
        return Period(start, end, start - _DAY, end - _DAY, zone)
    days = _DAYS[preset]
    today = now.astimezone(zone).date()
    start = start_of_day(today - timedelta(days=days - 1), zone)
    previous_start = start_of_day(today - timedelta(days=2 * days - 1), zone)
    return Period(start, end, previous_start, min(days_before(end, days, zone), start), zone)


def between(start: datetime, end: datetime, zone: ZoneInfo) -> Period:
    """A range that was asked for, widened to whole quarter-hours, and as much before it; raises ValidationFailed."""
    for moment, name in ((start, "from"), (end, "to")):
        if not EARLIEST <= moment <= LATEST:
            raise ValidationFailed("This takes a moment from 2000 to 2199.", path=["range", name])
    if end <= start:
        raise ValidationFailed("The range ends before it begins.", path=["range", "to"])
    start, end = floor(start), floor(end - timedelta(microseconds=1)) + QUARTER_HOUR
    if end - start > timedelta(days=MAX_DAYS):
        raise ValidationFailed(f"A range has at most {MAX_DAYS} days.", path=["range"])
    return Period(start, end, start - (end - start), start, zone)


def floor(moment: datetime) -> datetime:
    """The beginning of the quarter-hour of a moment."""
    return moment - (moment - EARLIEST) % QUARTER_HOUR


def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day. Where the clock skips midnight it is when the clock goes forward (PEP 495, fold 0)."""
    return floor(datetime.combine(day, time(), zone).astimezone(UTC))


def days_before(moment: datetime, days: int, zone: ZoneInfo) -> datetime:
    """The same time of day some days earlier."""
    return floor((moment.astimezone(zone) - timedelta(days=days)).astimezone(UTC))


def offsets(start: datetime, end: datetime, zone: ZoneInfo) -> tuple[list[datetime], list[int]]:
    """When the offset from UTC changes in a range, first of all at its start, and to how many seconds."""
    changes, seconds = [start], [_offset(start, zone)]
    day = start
    while day < end:
        next_day = min(day + _DAY, end)
        if _offset(next_day, zone) != seconds[-1]:
            moment = day
            while moment < next_day:
                moment += QUARTER_HOUR
                if _offset(moment, zone) != seconds[-1]:
                    changes.append(moment)
                    seconds.append(_offset(moment, zone))
        day = next_day
    return changes, seconds


def _days(start: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    return _rising(start_of_day(first + timedelta(days=number), zone) for number in range((last - first).days + 1))


def _hours(start: datetime, end: datetime, zone: ZoneInfo) -> list[datetime]:
    begun = floor(start)
    count = (end - begun) // QUARTER_HOUR
    moments = (begun + number * QUARTER_HOUR for number in range(count))
    return [moment for moment in moments if moment.astimezone(zone).minute == 0]


def _rising(moments: Iterable[datetime]) -> list[datetime]:
    """Without those that are not later than the one before: a zone that crossed the date line has skipped a day."""
    kept: list[datetime] = []
    for moment in moments:
        if not kept or moment > kept[-1]:
            kept.append(moment)
    return kept


def _offset(moment: datetime, zone: ZoneInfo) -> int:
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
