"""Cron expressions: which moments five fields name in a time zone.

The fields are read, and days matched, by cronsim; instants are found here, by the rules of Debian's cron (its manual,
"Daylight Saving Time and other time changes"): a fixed time that the clocks jump over comes when the jump is over, one
that comes twice is taken the first time; where minutes or hours are a wildcard, the local clock is matched as it shows.
Invariant: moments strictly increase, whatever the clocks of a zone do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

MAX_LENGTH: Final = 100
SEARCHED_DAYS: Final = 9 * 366
"""29 February comes again after eight years at most (1896 and 2096)."""

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_FIELDS: Final = (
    ("first", "minute", "0 to 59"),
    ("second", "hour", "0 to 23"),
    ("third", "day of the month", "1 to 31 or L"),
    ("fourth", "month", "1 to 12 or JAN to DEC"),
    ("fifth", "day of the week", "0 to 7 or SUN to SAT"),
)
_TERM: Final = re.compile(r"[0-9A-Z*/#-]+", re.ASCII)
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)


class CronFault(ValueError):
    """What is wrong with an expression, and in which field, for the person who wrote it."""


class UnknownZone(ValueError):
    """There is no time zone of this name; the message may know one that is alike."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that can be read. `is_fixed` says that it names times of the day, and no wildcard."""

    text: str
    minutes: Sequence[int]
    hours: Sequence[int]
    months: frozenset[int]
    is_fixed: bool
    days: CronSim = field(repr=False, compare=False)

    def matches(self, day: date) -> bool:
        """Whether it names something on this day."""
        return day.month in self.months and self.days.match_day(day)


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant in UTC. `local` is the time that the expression names; `is_moved` when the clocks jump over it.

    `is_doubled` when the clocks show it twice that day.
    """

    at: datetime
    local: datetime
    is_moved: bool = False
    is_doubled: bool = False


@lru_cache(maxsize=4_096)
def parse(text: str) -> Expression:
    """The expression in a text; raises CronFault, which says what is wrong where."""
    shown = " ".join(text.split())
    if len(shown) > MAX_LENGTH:
        raise CronFault(f"A cron expression has up to {MAX_LENGTH} characters.")
    if shown.startswith("@") and shown.lower() not in NICKNAMES:
        raise CronFault(f"There is no nickname {shown}; there are {', '.join(NICKNAMES)}.")
    parts = NICKNAMES.get(shown.lower(), shown).upper().split()
    if len(parts) != len(_FIELDS):
        names = ", ".join(name for _, name, _ in _FIELDS)
        raise CronFault(f"A cron expression has five fields ({names}); this one has {len(parts)}.")
    for position, part in enumerate(parts):
        for term in part.split(","):
            if not _is_readable(position, term):
                place, name, allowed = _FIELDS[position]
                told = f"“{term}” is not valid there" if term else "a part between commas is empty"
                raise CronFault(f"The {place} field, the {name}: {told}; values are {allowed}.")
    try:
        read = CronSim(" ".join(parts), _ANY_TIME)
    except CronSimError:
        raise CronFault("The third and fourth field: none of these months has such a day.") from None
    return Expression(
        text=shown,
        minutes=sorted(read.minutes),
        hours=sorted(read.hours),
        months=frozenset(read.months),
        is_fixed=not parts[0].startswith("*") and not parts[1].startswith("*"),
        days=read,
    )


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name; raises UnknownZone."""
    if name in _zones():
        return ZoneInfo(name)
    given = name.casefold()
    alike = sorted(known for known in _zones() if given in (known.casefold(), known.rpartition("/")[2].casefold()))
    alike = alike or difflib.get_close_matches(name[:MAX_LENGTH], _zones(), n=1, cutoff=0.7)
    hint = f" Do you mean {alike[0]}?" if alike else " Names are IANA's, such as Europe/Madrid or UTC."
    raise UnknownZone(f"There is no such time zone.{hint}")


def moments(expression: Expression, tz: ZoneInfo, *, after: datetime) -> Iterator[Moment]:
    """What an expression names after an instant, in order, as far as `SEARCHED_DAYS` reach."""
    last = after
    # A zone may turn its clocks back over midnight, so that a date comes again.
    day = after.astimezone(tz).date() - _DAY
    for _ in range(SEARCHED_DAYS + 1):
        if expression.matches(day):
            for moment in _on(expression, tz, day, last):
                if moment.at > last:
                    last = moment.at
                    yield moment
        day += _DAY


def shortest_pause_minutes(expression: Expression) -> int:
    """The fewest minutes between two times that follow each other by the clock; changes of the clocks do not count."""
    times = [hour * 60 + minute for hour in expression.hours for minute in expression.minutes]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    days = [_ANY_TIME.date() + _DAY * number for number in range(SEARCHED_DAYS)]
    if any(expression.matches(earlier) and expression.matches(later) for earlier, later in pairwise(days)):
        pauses.append(times[0] + 24 * 60 - times[-1])
    return min(pauses, default=24 * 60)


def note(expression: Expression, found: Sequence[Moment], tz: ZoneInfo) -> str | None:
    """What a change of the clocks does to the first of these that it touches; None when it touches none."""
    touched = next((moment for moment in found if moment.is_moved or moment.is_doubled), None)
    if touched is None:
        return None
    begins, wanted = touched.at.astimezone(tz), f"{touched.local:%H:%M}"
    where = f"On {touched.local:%Y-%m-%d} the clocks in {tz.key} go"
    if touched.is_moved:
        return f"{where} forward over {wanted}; the run starts right after, at {begins:%H:%M} ({_offset(begins)})."
    which = f"the run starts at the first ({_offset(begins)})" if expression.is_fixed else "there is a run at both"
    return f"{where} back and show {wanted} twice; {which}."


def _is_readable(position: int, term: str) -> bool:
    """Whether a term can stand in a field: asked of the reader, with all else left open."""
    if not _TERM.fullmatch(term):
        return False
    parts = ["*"] * len(_FIELDS)
    parts[position] = term
    try:
        CronSim(" ".join(parts), _ANY_TIME)
    except CronSimError:
        return False
    return True


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """The names in the pinned database, and not what else a machine has."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


def _on(expression: Expression, tz: ZoneInfo, day: date, after: datetime) -> Iterator[Moment]:
    """What an expression names on a day by the local clock, in order."""
    midnight, next_midnight = (datetime.combine(each, time(), tzinfo=tz) for each in (day, day + _DAY))
    offset = midnight.utcoffset()
    named = (datetime.combine(day, time(hour, minute)) for hour in expression.hours for minute in expression.minutes)
    if offset is not None and offset == next_midnight.utcoffset():
        if next_midnight > after:
            yield from (Moment((local - offset).replace(tzinfo=UTC), local) for local in named)
        return
    found = (moment for local in named for moment in _instants(local, tz, is_fixed=expression.is_fixed))
    yield from sorted(found, key=lambda moment: moment.at)


def _instants(local: datetime, tz: ZoneInfo, *, is_fixed: bool) -> list[Moment]:
    """When the clocks show a time, on a day when they change."""
    shown = [
        at
        for at in dict.fromkeys(local.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1))
        if at.astimezone(tz).replace(tzinfo=None) == local
    ]
    if len(shown) == 1:
        return [Moment(shown[0], local)]
    if shown:
        return [Moment(at, local, is_doubled=True) for at in (shown[:1] if is_fixed else shown)]
    if not is_fixed:
        return []
    end = local
    while not (found := _instants(end, tz, is_fixed=False)):
        end += _MINUTE
    return [Moment(found[0].at, local, is_moved=True)]


def _offset(moment: datetime) -> str:
    text = f"{moment:%z}"
    return f"UTC{text[:3]}:{text[3:5]}"
