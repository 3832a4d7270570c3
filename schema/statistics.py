"""What the dashboard and analytics have in common: numbers compared with those before, rates, arguments."""

from __future__ import annotations

from typing import Annotated, Final

import strawberry

from resolvers.dashboard import Sums
from schema.scalars import BigInt

DEFAULT_ZONE: Final = "UTC"

TimeZone = Annotated[
    str, strawberry.argument(description="Whose days and weeks are told: an IANA name, such as Europe/Madrid.")
]
Mine = Annotated[
    bool, strawberry.argument(description="Only what is your own; means something to administrators, who get all.")
]


@strawberry.type(description="A count beside the one before it.")
class ComparedCount:
    """Two counts."""

    value: BigInt = strawberry.field(description="The count.")
    previous: BigInt = strawberry.field(description="That of as much time before.")
    change_percent: float | None = strawberry.field(
        description="By how many percent it grew; negative when it shrank, null when there was nothing before."
    )


@strawberry.type(description="A number beside the one before it.")
class ComparedNumber:
    """Two numbers, each of which may be missing."""

    value: float | None = strawberry.field(description="The number; null when nothing was measured.")
    previous: float | None = strawberry.field(description="That of as much time before.")
    change_percent: float | None = strawberry.field(
        description="By how many percent it grew; null when there is nothing to compare with."
    )


@strawberry.type(description="How much succeeded of what succeeded or failed; what was cancelled does not count.")
class SuccessRate:
    """A rate and the one before it."""

    percent: float | None = strawberry.field(description="0 to 100; null when nothing ended.")
    previous_month_percent: float | None = strawberry.field(description="That of the thirty days before.")
    change_points: float | None = strawberry.field(
        description="The difference, in percentage points; null when there is nothing to compare with."
    )


def count(value: int, previous: int) -> ComparedCount:
    """Two counts, compared."""
    return ComparedCount(value=BigInt(value), previous=BigInt(previous), change_percent=percent_change(value, previous))


def number(value: float | None, previous: float | None) -> ComparedNumber:
    """Two numbers, compared."""
    return ComparedNumber(value=value, previous=previous, change_percent=percent_change(value, previous))


def success_rate(now: Sums, before: Sums) -> SuccessRate:
    """Two rates, compared."""
    percent, previous = success_percent(now), success_percent(before)
    change = None if percent is None or previous is None else percent - previous
    return SuccessRate(percent=percent, previous_month_percent=previous, change_points=change)


def percent_change(value: float | None, previous: float | None) -> float | None:
    """By how many percent a number grew; None when there is nothing to compare with."""
    return None if value is None or not previous else (value - previous) / previous * 100


def success_percent(sums: Sums) -> float | None:
    """The success rate of sums, 0 to 100; None when nothing ended."""
    ended = sums["succeeded"] + sums["failed"]
    return sums["succeeded"] / ended * 100 if ended else None


def average_seconds(sums: Sums, milliseconds: str, count: str) -> float | None:
    """A sum of milliseconds by what it is the sum of, in seconds; None of nothing."""
    return sums[milliseconds] / sums[count] / 1_000 if sums[count] else None


def per_minute(sums: Sums) -> float | None:
    """Items per minute of work; None without work."""
    return sums["items"] / (sums["worked_ms"] / 60_000) if sums["worked_ms"] else None
