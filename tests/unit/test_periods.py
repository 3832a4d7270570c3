"""Where days, weeks and hours begin: clocks that change, zones off the hour, skipped days, what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ValidationFailed
from resolvers import periods
from resolvers.periods import QUARTER_HOUR, AnalyticsInterval, AnalyticsPreset


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


MOMENTS = st.integers(0, 25 * 365 * 24 * 60).map(lambda minutes: at("2005-01-01T00:00Z") + timedelta(minutes=minutes))
ZONES = ("UTC", "Europe/Madrid", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago")


def hours_of_days(zone: str, start: str, end: str) -> list[float]:
    edges = periods.between(at(start), at(end), ZoneInfo(zone)).edges()
    return [(later - earlier) / timedelta(hours=1) for earlier, later in pairwise(edges)]


@pytest.mark.parametrize(
    ("zone", "start", "end", "hours"),
    [
        ("UTC", "2026-03-27T00:00Z", "2026-03-31T00:00Z", [24, 24, 24, 24]),
        ("Europe/Madrid", "2026-03-28T00:00+01:00", "2026-03-31T00:00+02:00", [24, 23, 24]),
        ("Europe/Madrid", "2026-10-24T00:00+02:00", "2026-10-27T00:00+01:00", [24, 25, 24]),
        ("America/New_York", "2026-03-07T00:00-05:00", "2026-03-10T00:00-04:00", [24, 23, 24]),
        ("America/New_York", "2026-10-31T00:00-04:00", "2026-11-03T00:00-05:00", [24, 25, 24]),
        ("Asia/Kathmandu", "2026-03-28T00:00+05:45", "2026-03-31T00:00+05:45", [24, 24, 24]),
        # Half an hour forward, half an hour back.
        ("Australia/Lord_Howe", "2026-10-03T00:00+10:30", "2026-10-06T00:00+11:00", [24, 23.5, 24]),
        ("Australia/Lord_Howe", "2026-04-04T00:00+11:00", "2026-04-07T00:00+10:30", [24, 24.5, 24]),
        # The clock goes from 23:59 to 01:00: there is no midnight.
        ("America/Santiago", "2026-09-05T00:00-04:00", "2026-09-08T00:00-03:00", [24, 23, 24]),
        # The 30th of December 2011 was skipped.
        ("Pacific/Apia", "2011-12-29T00:00-10:00", "2012-01-02T00:00+14:00", [24, 24, 24]),
        # Begun and ended within a day.
        ("Europe/Madrid", "2026-03-28T06:10+01:00", "2026-03-31T06:10+02:00", [18, 23, 24, 6.25]),
    ],
)
def test_a_day_is_as_long_as_the_zone_says(zone: str, start: str, end: str, hours: list[float]) -> None:
    assert hours_of_days(zone, start, end) == hours


def test_weeks_begin_on_monday() -> None:
    period = periods.between(at("2026-03-25T00:00+01:00"), at("2026-04-08T00:00+02:00"), ZoneInfo("Europe/Madrid"))
    assert [moment.astimezone(period.zone).isoformat() for moment in period.weeks()] == [
        "2026-03-25T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
        "2026-04-06T00:00:00+02:00",
        "2026-04-08T00:00:00+02:00",
    ]


def test_short_ranges_are_told_by_the_hour_of_the_zone() -> None:
    period = periods.between(at("2026-10-25T00:00+02:00"), at("2026-10-26T00:00+01:00"), ZoneInfo("Europe/Madrid"))
    assert period.interval is AnalyticsInterval.HOUR
    assert len(period.edges()) - 1 == 25
    half = periods.between(at("2026-03-28T00:00Z"), at("2026-03-28T03:00Z"), ZoneInfo("Asia/Kathmandu"))
    assert [edge.minute for edge in half.edges()] == [0, 15, 15, 15, 0]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("now", ["2026-03-29T01:30Z", "2026-10-25T01:10Z", "2026-01-01T00:00Z", "2026-10-03T23:59:59Z"])
@pytest.mark.parametrize("preset", AnalyticsPreset)
def test_presets_are_compared_with_as_much_before(zone: str, now: str, preset: AnalyticsPreset) -> None:
    period = periods.of_preset(preset, ZoneInfo(zone), at(now))
    edges = period.edges()
    assert edges[-1] - QUARTER_HOUR <= at(now) < edges[-1]
    days = {
        AnalyticsPreset.LAST_7_DAYS: 7,
        AnalyticsPreset.LAST_30_DAYS: 30,
        AnalyticsPreset.LAST_90_DAYS: 90,
        AnalyticsPreset.LAST_12_MONTHS: 365,
    }
    assert len(edges) - 1 == days.get(preset, 24)
    assert period.previous_start < period.previous_end <= period.start
    length, before = period.end - period.start, period.previous_end - period.previous_start
    assert abs(length - before) <= timedelta(hours=2)  # the clock may change in either


@given(
    zone=st.sampled_from(ZONES),
    start=MOMENTS,
    minutes=st.integers(1, 400 * 24 * 60 - 30),
)
def test_edges_rise_cover_the_range_and_are_whole_quarter_hours(zone: str, start: datetime, minutes: int) -> None:
    begins = start
    period = periods.between(begins, begins + timedelta(minutes=minutes), ZoneInfo(zone))
    edges = period.edges()
    assert edges[0] <= begins < edges[0] + QUARTER_HOUR
    assert edges[-1] - QUARTER_HOUR < begins + timedelta(minutes=minutes) <= edges[-1]
    assert all(earlier < later for earlier, later in pairwise(edges))
    assert all(periods.floor(edge) == edge for edge in edges)
    assert set(period.weeks()) - {edges[0], edges[-1]} <= set(edges)
    assert len(edges) <= 1_000


@given(zone=st.sampled_from(ZONES), start=MOMENTS)
def test_offsets_are_those_of_every_quarter_hour(zone: str, start: datetime) -> None:
    begins = periods.floor(start)
    ends = begins + timedelta(days=200)
    changes, seconds = periods.offsets(begins, ends, ZoneInfo(zone))
    assert changes[0] == begins
    for number in range(0, (ends - begins) // QUARTER_HOUR, 31):
        moment = begins + number * QUARTER_HOUR
        told = next(offset for change, offset in reversed(list(zip(changes, seconds, strict=True))) if change <= moment)
        offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
        assert offset is not None
        assert told == offset.total_seconds()


@pytest.mark.parametrize("name", ["", "Europe/Atlantis", "EST5EDT,M3.2.0", "../UTC", "UTC+3", "x" * 100_000, "utc\n"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        periods.zone_named(name)
    assert refused.value.details["path"] == ["timeZone"]


@pytest.mark.parametrize(
    ("start", "end", "path"),
    [
        ("2026-01-01T00:00Z", "2026-01-01T00:00Z", ["range", "to"]),
        ("2026-01-02T00:00Z", "2026-01-01T00:00Z", ["range", "to"]),
        ("1999-12-31T00:00Z", "2000-01-02T00:00Z", ["range", "from"]),
        ("2026-01-01T00:00Z", "2300-01-01T00:00Z", ["range", "to"]),
        ("2026-01-01T00:00Z", "2027-02-05T00:01Z", ["range"]),
    ],
)
def test_what_is_no_range_is_refused(start: str, end: str, path: list[str]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        periods.between(at(start), at(end), ZoneInfo("UTC"))
    assert refused.value.details["path"] == path


def test_400_days_are_the_most() -> None:
    start = at("2026-01-01T00:00Z")
    assert len(periods.between(start, start + timedelta(days=400), ZoneInfo("UTC")).edges()) - 1 == 400


def test_days_are_those_of_the_zone() -> None:
    madrid = ZoneInfo("Europe/Madrid")
    assert periods.start_of_day(date(2026, 7, 1), madrid) == at("2026-06-30T22:00Z")
    assert periods.days_before(at("2026-03-30T10:00Z"), 2, madrid) == at("2026-03-28T11:00Z")
