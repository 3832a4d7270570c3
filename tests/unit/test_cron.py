"""Cron expressions: faults in words, and the right instants whatever the clocks of a zone do."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from models import cron
from models.cron import CronFault, Moment, UnknownZone

MADRID, NEW_YORK, LORD_HOWE, UTC_ZONE = (
    cron.zone(name) for name in ("Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "UTC")
)
ZONES = [MADRID, NEW_YORK, LORD_HOWE, UTC_ZONE, cron.zone("Africa/Cairo"), cron.zone("America/Havana")]
"""Cairo goes forward at midnight; Havana goes back to midnight."""


def found(expression: str, zone: ZoneInfo, after: str, count: int) -> list[Moment]:
    """The first moments after a local time."""
    begin = datetime.fromisoformat(after).replace(tzinfo=zone).astimezone(UTC)
    return list(itertools.islice(cron.moments(cron.parse(expression), zone, after=begin), count))


def shown(moments: list[Moment], zone: ZoneInfo) -> list[str]:
    return [f"{moment.at.astimezone(zone):%d %H:%M %z}" for moment in moments]


# -- what can be read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "five fields"),
        ("* * * *", "has 4"),
        ("* * * * * *", "has 6"),
        ("60 * * * *", "The first field, the minute: “60”"),
        ("0 8,24 * * *", "The second field, the hour: “24”"),
        ("0 0 32 * *", "The third field, the day of the month: “32”"),
        ("0 0 * 13 *", "The fourth field, the month: “13”"),
        ("0 0 * FOO *", "“FOO” is not valid there"),
        ("0 0 * * 8", "The fifth field, the day of the week: “8”"),
        ("0 0 * * MON#6", "The fifth field"),
        ("*/0 * * * *", "“*/0”"),
        ("5-1 * * * *", "“5-1”"),
        ("1,,2 * * * *", "between commas is empty"),
        ("٣ * * * *", "The first field"),
        ("0 0 30 2 *", "none of these months"),
        ("@reboot", "no nickname @reboot"),
        ("1" * 101, "100 characters"),
        ("9" * 20 + " * * * *", "The first field"),
    ],
)
def test_faults_are_named_with_their_field(text: str, told: str) -> None:
    with pytest.raises(CronFault) as fault:
        cron.parse(text)
    assert told in str(fault.value)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("@daily", ["2027-01-01", "2027-01-02", "2027-01-03"]),
        ("@WEEKLY", ["2027-01-03", "2027-01-10", "2027-01-17"]),
        ("  0   0 L * * ", ["2027-01-31", "2027-02-28", "2027-03-31"]),
        ("0 0 * * mon#1", ["2027-01-04", "2027-02-01", "2027-03-01"]),
        ("0 0 * * 5L", ["2027-01-29", "2027-02-26", "2027-03-26"]),
        ("0 0 15 * MON", ["2027-01-04", "2027-01-11", "2027-01-15"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
        ("0 0 1 JAN-MAR/2 *", ["2027-01-01", "2027-03-01", "2028-01-01"]),
    ],
)
def test_fields_mean_what_cron_means(text: str, days: list[str]) -> None:
    got = [f"{moment.at:%Y-%m-%d}" for moment in found(text, UTC_ZONE, "2026-12-31T12:00", len(days))]
    assert got == days


def test_29_february_is_found_over_a_century_without_one() -> None:
    (moment,) = found("0 0 29 2 *", UTC_ZONE, "2096-03-01T00:00", 1)
    assert moment.at.year == 2104


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("europe/madrid", "Do you mean Europe/Madrid?"),
        ("Europe/Madird", "Do you mean Europe/Madrid?"),
        ("madrid", "Do you mean Europe/Madrid?"),
        ("", "IANA"),
        ("../../etc/passwd", "IANA"),
        ("x" * 10_000, "IANA"),
    ],
)
def test_unknown_zones_are_refused_with_what_is_alike(name: str, told: str) -> None:
    with pytest.raises(UnknownZone, match="no such time zone") as fault:
        cron.zone(name)
    assert told in str(fault.value)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("* * * * *", 1), ("0,50 0,23 * * *", 10), ("0 0,23 1 * *", 23 * 60), ("0 5 * * *", 1440), ("0 5 1 * *", 1440)],
)
def test_shortest_pause_is_that_between_times_that_follow_each_other(text: str, minutes: int) -> None:
    assert cron.shortest_pause_minutes(cron.parse(text)) == minutes


# -- changes of the clocks


@pytest.mark.parametrize(
    ("zone", "expression", "after", "times"),
    [
        # Forward: a fixed time in the gap comes right after it, once.
        (MADRID, "30 2 * * *", "2027-03-27T12:00", ["28 03:00 +0200", "29 02:30 +0200"]),
        (MADRID, "0,15,30 2 * * *", "2027-03-27T12:00", ["28 03:00 +0200", "29 02:00 +0200"]),
        (MADRID, "0 2,3 * * *", "2027-03-27T12:00", ["28 03:00 +0200", "29 02:00 +0200"]),
        (NEW_YORK, "30 2 * * *", "2027-03-13T12:00", ["14 03:00 -0400", "15 02:30 -0400"]),
        (LORD_HOWE, "15 2 * * *", "2027-10-02T12:00", ["03 02:30 +1100", "04 02:15 +1100"]),
        (cron.zone("Africa/Cairo"), "0 0 * * *", "2027-04-29T12:00", ["30 01:00 +0300", "01 00:00 +0300"]),
        # Back: a fixed time that comes twice is taken the first time.
        (MADRID, "30 2 * * *", "2027-10-30T12:00", ["31 02:30 +0200", "01 02:30 +0100"]),
        (NEW_YORK, "30 1 * * *", "2027-11-06T12:00", ["07 01:30 -0400", "08 01:30 -0500"]),
        (LORD_HOWE, "45 1 * * *", "2027-04-03T12:00", ["04 01:45 +1100", "05 01:45 +1030"]),
        # Wildcards run every real hour.
        (MADRID, "0 * * * *", "2027-03-28T00:30", ["28 01:00 +0100", "28 03:00 +0200", "28 04:00 +0200"]),
        (
            MADRID,
            "0 * * * *",
            "2027-10-31T01:30",
            ["31 02:00 +0200", "31 02:00 +0100", "31 03:00 +0100", "31 04:00 +0100"],
        ),
        (NEW_YORK, "0 * * * *", "2027-11-07T00:30", ["07 01:00 -0400", "07 01:00 -0500", "07 02:00 -0500"]),
        (LORD_HOWE, "*/30 * * * *", "2027-04-04T01:00", ["04 01:30 +1100", "04 01:30 +1030", "04 02:00 +1030"]),
        # The jump of half an hour leaves the whole hour after it.
        (LORD_HOWE, "*/20 3 * * *", "2027-10-02T12:00", ["03 03:00 +1100", "03 03:20 +1100", "03 03:40 +1100"]),
        (LORD_HOWE, "*/15 2 * * *", "2027-10-02T12:00", ["03 02:30 +1100", "03 02:45 +1100", "04 02:00 +1100"]),
    ],
)
def test_clocks_that_change(zone: ZoneInfo, expression: str, after: str, times: list[str]) -> None:
    assert shown(found(expression, zone, after, len(times)), zone) == times


def test_hourly_wildcards_are_an_hour_apart_all_year_long() -> None:
    for zone in (MADRID, NEW_YORK):
        moments = found("0 * * * *", zone, "2027-01-01T00:00", 365 * 24)
        pauses = {later.at - earlier.at for earlier, later in itertools.pairwise(moments)}
        assert pauses == {timedelta(hours=1)}


@pytest.mark.parametrize(
    ("zone", "expression", "after", "told"),
    [
        (
            MADRID,
            "30 2 * * *",
            "2027-03-25T12:00",
            "go forward over 02:30; the run starts right after, at 03:00 (UTC+02:00)",
        ),
        (NEW_YORK, "30 1 * * *", "2027-11-05T12:00", "show 01:30 twice; the run starts at the first (UTC-04:00)"),
        (MADRID, "0 2,12 31 * *", "2027-10-30T12:00", "the run starts at the first"),
        (MADRID, "*/30 2 * * *", "2027-10-30T12:00", "there is a run at both"),
    ],
)
def test_notes_say_what_becomes_of_a_run(zone: ZoneInfo, expression: str, after: str, told: str) -> None:
    note = cron.note(cron.parse(expression), found(expression, zone, after, 5), zone)
    assert note is not None
    assert told in note


def test_nothing_is_noted_where_nothing_changes() -> None:
    assert cron.note(cron.parse("30 4 * * *"), found("30 4 * * *", MADRID, "2027-03-25T12:00", 5), MADRID) is None
    assert cron.note(cron.parse("30 2 * * *"), found("30 2 * * *", UTC_ZONE, "2027-03-25T12:00", 5), UTC_ZONE) is None


# -- whatever the expression


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    ranged = st.tuples(one, one).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), ranged), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    term = st.one_of(one.map(str), ranged, stepped)
    return st.one_of(st.just("*"), st.lists(term, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(
    numbers(0, 59), numbers(0, 23), st.one_of(st.just("*"), numbers(1, 28)), st.just("*"), numbers(0, 7)
).map(" ".join)
BEGINNINGS = st.integers(29_000_000, 32_000_000).map(lambda minutes: datetime.fromtimestamp(minutes * 60, UTC))
"""Minutes of 2025 to 2030."""


@given(EXPRESSIONS, st.sampled_from(ZONES), BEGINNINGS)
@settings(max_examples=150, deadline=None)
def test_moments_increase_and_show_what_the_fields_say(text: str, zone: ZoneInfo, begin: datetime) -> None:
    expression = cron.parse(text)
    moments = list(itertools.islice(cron.moments(expression, zone, after=begin), 60))
    assert all(earlier.at < later.at for earlier, later in itertools.pairwise(moments))
    assert all(moment.at > begin for moment in moments)
    for moment in moments:
        local = moment.at.astimezone(zone)
        assert (local.minute in expression.minutes and local.hour in expression.hours) or moment.is_moved
        assert moment.is_moved or local.replace(tzinfo=None) == moment.local


@given(
    EXPRESSIONS,
    st.sampled_from([MADRID, NEW_YORK, UTC_ZONE]),
    st.sampled_from(["2027-03-12", "2027-03-26", "2027-10-30", "2027-11-05"]),
)
@settings(max_examples=150, deadline=None)
def test_where_clocks_move_by_an_hour_cronsim_finds_the_same(text: str, zone: ZoneInfo, day: str) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=zone)
    ours = [moment.at for moment in itertools.islice(cron.moments(cron.parse(text), zone, after=begin), 40)]
    theirs = [at.astimezone(UTC) for at in itertools.islice(CronSim(text, begin), len(ours) + 2)]
    # It names the end of a jump once for each time in it.
    assert ours == list(dict.fromkeys(theirs))[: len(ours)]


@given(
    EXPRESSIONS,
    st.sampled_from(ZONES),
    st.sampled_from(["2027-03-13", "2027-03-27", "2027-04-03", "2027-10-02", "2027-11-06"]),
)
@settings(max_examples=60, deadline=None)
def test_wildcards_match_every_minute_that_the_clock_shows(text: str, zone: ZoneInfo, day: str) -> None:
    minute, _, rest = text.partition(" ")
    expression = cron.parse(f"*/{max(1, len(minute))} {rest}")
    begin = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    end = begin + timedelta(days=2)
    ours = [
        moment.at
        for moment in itertools.takewhile(lambda moment: moment.at <= end, cron.moments(expression, zone, after=begin))
    ]
    minutes = [begin + timedelta(minutes=number) for number in range(1, 2 * 24 * 60 + 1)]
    assert ours == [
        at
        for at in minutes
        if (local := at.astimezone(zone)).minute in expression.minutes
        and local.hour in expression.hours
        and expression.matches(local.date())
    ]
