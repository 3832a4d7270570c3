"""Scalars take one form in and give one form out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.scalars import (
    MAX_JSON_DEPTH,
    read_big_int,
    read_datetime,
    read_json,
    write_big_int,
    write_datetime,
)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_the_way_out_and_in(moment: datetime) -> None:
    assert read_datetime(write_datetime(moment)) == moment


def test_moments_are_written_in_utc() -> None:
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert write_datetime(moment) == "2025-12-31T23:30:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00",
        "2026-01-31",
        "20260131T120000Z",
        "2026-01-31 12:00:00Z",
        "2026-W05-6T12:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:60Z",
        "0001-01-01T00:00:00+23:59",
        "2026-01-31T12:00:00+25:00",
        "٢٠٢٦-01-31T12:00:00Z",
        "",
        5,
        None,
        True,
    ],
)
def test_what_is_no_moment_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|no such"):
        read_datetime(text)


def test_lower_case_and_long_fractions_are_moments_too() -> None:
    assert read_datetime("2026-01-31t12:00:00.123456789z") == datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_moment_without_time_zone_is_our_fault() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        write_datetime(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("number", [2**53, -(2**53), 1.0, "1", True, None])
def test_big_integers_are_exact_everywhere_or_refused(number: Any) -> None:
    for convert in (read_big_int, write_big_int):
        with pytest.raises(ValueError, match="2\\^53"):
            convert(number)
    assert read_big_int(2**53 - 1) == write_big_int(2**53 - 1) == 2**53 - 1


def test_json_is_bounded_in_depth() -> None:
    nested: Any = 1
    for _ in range(MAX_JSON_DEPTH - 1):
        nested = [nested]
    assert read_json(nested) is nested
    with pytest.raises(ValueError, match="nested"):
        read_json([[nested]])
    with pytest.raises(ValueError, match="nested"):
        read_json({"a": [nested]})
