"""From probes to states: what one probe changes, what several do, what a gap means; and how durations are counted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from models.status import Service, ServiceState
from models.status_queries import BUCKETS, bucket_of, percentile
from resolvers.status import Day, uptime_percent
from tasks.status.incidents import in_words
from tasks.status.probes import from_checks
from tasks.status.verdicts import PROBE_SECONDS, Condition, Finding, News, advance, missed_probes, news_of

START = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
STEP = timedelta(seconds=PROBE_SECONDS)
LETTERS = {"+": ServiceState.OPERATIONAL, "~": ServiceState.DEGRADED, "-": ServiceState.DOWN}
SIGNS = {state: letter for letter, state in LETTERS.items()} | {ServiceState.UNKNOWN: "?"}


def probed(verdicts: Iterable[str], before: Condition | None = None, at: datetime = START) -> list[Condition]:
    found = []
    for letter in verdicts:
        before = advance(before, Finding(Service.API, LETTERS[letter], 5.0), at)
        found.append(before)
        at += STEP
    return found


@pytest.mark.parametrize(
    ("verdicts", "states"),
    [
        ("+-+-+-+", "+++++++"),
        ("++--++-", "+++--++"),
        ("+-~+", "++~~"),
        ("++~-~+", "+++~~~"),
        ("--++", "?--+"),
        ("-+", "?+"),
        ("~-", "?~"),
    ],
)
def test_a_state_follows_two_probes_that_agree(verdicts: str, states: str) -> None:
    assert "".join(SIGNS[condition.state] for condition in probed(verdicts)) == states


def test_a_state_began_with_the_first_of_the_two() -> None:
    assert probed("++--")[-1].since == START + 2 * STEP
    assert probed("++---")[-1].since == START + 2 * STEP


def test_nothing_is_concluded_over_a_gap() -> None:
    last = probed("+---")[-1]
    after = probed("-", last, last.probed_at + timedelta(seconds=91))[-1]
    assert (after.state, after.failures, news_of(after)) == (ServiceState.UNKNOWN, 1, None)
    soon = probed("-", last, last.probed_at + timedelta(seconds=90))[-1]
    assert (soon.state, soon.failures, news_of(soon)) == (ServiceState.DOWN, 4, News.FAILED)


@pytest.mark.parametrize(
    ("verdicts", "news"),
    [
        ("+---", None),
        ("+----", News.FAILED),
        ("---+-", None),
        ("~" * 9, None),
        ("~" * 10, News.IMPAIRED),
        ("~-" * 5, News.IMPAIRED),
        ("~" * 8 + "+" + "~" * 8, None),
        ("----+++", None),
        ("----++++", News.RECOVERED),
    ],
)
def test_an_incident_and_its_end_take_probes_in_a_row(verdicts: str, news: News | None) -> None:
    assert news_of(probed(verdicts)[-1]) is news


def test_missed_probes_lie_between() -> None:
    assert missed_probes(START, START + STEP) == []
    assert missed_probes(START, START + 2.5 * STEP) == [START + STEP, START + 2 * STEP]
    assert missed_probes(START + STEP, START) == []


def test_a_check_that_is_old_says_that_nobody_builds() -> None:
    def said(seconds: float) -> list[Finding]:
        kept = {"BUILDS": {"verdict": "OPERATIONAL", "milliseconds": 400.0, "at": START}}
        return from_checks(kept, START + timedelta(seconds=seconds), {"BUILDS": START - STEP})

    assert said(360) == [Finding(Service.BUILDS, ServiceState.OPERATIONAL, 400.0)]
    assert said(361) == [Finding(Service.BUILDS, ServiceState.DOWN)]
    assert said(86_401) == []
    assert from_checks({}, START, {}) == []


def test_how_long_a_check_took_counts_once() -> None:
    kept = {"BUILDS": {"verdict": "OPERATIONAL", "milliseconds": 400.0, "at": START}}
    assert from_checks(kept, START + 2 * STEP, {"BUILDS": START + STEP})[0].milliseconds is None


@pytest.mark.parametrize("milliseconds", [0.0, 0.25, 0.3, 1.0, 12.5, 999.0, 5_000.0, 10.0**9])
def test_a_percentile_is_right_to_a_fifth(milliseconds: float) -> None:
    histogram = [0] * BUCKETS
    histogram[bucket_of(milliseconds)] += 100
    found = percentile(histogram, 0.5)
    assert found is not None
    assert found == pytest.approx(min(max(milliseconds, 0.25), 0.25 * 2**16), rel=0.2)


def test_percentiles_of_many() -> None:
    histogram = [0] * BUCKETS
    for milliseconds in range(1, 1001):
        histogram[bucket_of(milliseconds)] += 1
    assert percentile(histogram, 0.5) == pytest.approx(500, rel=0.1)
    assert percentile(histogram, 0.95) == pytest.approx(950, rel=0.1)
    assert percentile([], 0.5) is None
    assert percentile([0] * BUCKETS, 0.5) is None


def test_uptime_is_not_rounded_up() -> None:
    day = START.date()
    assert uptime_percent([Day(day, up=259_199, down=1)]) == 99.999
    assert uptime_percent([Day(day, up=3, down=1), Day(day)]) == 75.0
    assert uptime_percent([Day(day, up=2)]) == 100.0
    assert uptime_percent([Day(day)]) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 minute"),
        (125, "2 minutes"),
        (3_600, "1 hour"),
        (7_500, "2 hours 5 minutes"),
        (3 * 86_400 + 3_660, "3 days 1 hour"),
    ],
)
def test_lengths_in_words(seconds: int, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
