"""The state of the service for everybody: the page, kept for half a minute, and the stream of what changes.

Invariants: however many ask, one at a time reads the page; nothing of a user is in it, only numbers of all together.
Whoever reads notices by the age of the last probe that nobody probes any more. While the database is away the page says
so, with what was known before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import structlog

from adapters import events
from models import incident_queries, status_queries
from models.database import Row, from_json
from models.events import StatusChanged
from models.status import IncidentImpact, Service, ServiceState
from resolvers.feeds import Feed, Feeds, will_pass
from resolvers.streams import SharedEvent
from tasks.status.verdicts import SEVERITY, STALE_SECONDS

KEPT_SECONDS: Final = 30.0
KEPT_WORK_SECONDS: Final = 300.0
KEPT_OUTAGE_SECONDS: Final = 2.0
MAX_DAYS: Final = 90
LATEST_INCIDENTS: Final = 21
ALWAYS_SHOWN: Final = tuple(service for service in Service if service is not Service.MAIL)
"""Services that every installation has; the others are shown once they were probed."""

_WORST: Final = {severity: state for state, severity in SEVERITY.items()}
_VITAL: Final = frozenset({Service.API, Service.DATABASE})
_log = structlog.get_logger("switchyard.status")


class MetricName(StrEnum):
    """What is counted for all users together."""

    DEPLOYMENTS = "DEPLOYMENTS"
    JOB_RUNS = "JOB_RUNS"
    SCANS = "SCANS"
    DOCUMENTS = "DOCUMENTS"
    SUCCESS_RATE = "SUCCESS_RATE"
    API_RESPONSE_TIME = "API_RESPONSE_TIME"


_KINDS: Final = {
    MetricName.DEPLOYMENTS: "DEPLOYMENT",
    MetricName.JOB_RUNS: "CRAWL",
    MetricName.SCANS: "SCAN",
    MetricName.DOCUMENTS: "OCR",
}


@dataclass(frozen=True, slots=True)
class ServiceNow:
    """How a service is; `since` and `milliseconds` are None while nothing is known."""

    service: Service
    state: ServiceState
    since: datetime | None = None
    probed_at: datetime | None = None
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the stream tells: services, and incidents that are not over, newest first."""

    at: datetime
    services: tuple[ServiceNow, ...]
    incidents: tuple[Row, ...]

    @property
    def overall(self) -> ServiceState:
        """The whole in one word; what people say in an incident counts as much as what probes find."""
        known = [each for each in self.services if each.state is not ServiceState.UNKNOWN]
        impacts = {row["impact"] for row in self.incidents}
        if any(each.state is ServiceState.DOWN and each.service in _VITAL for each in known):
            return ServiceState.DOWN
        if IncidentImpact.CRITICAL in impacts:
            return ServiceState.DOWN
        if impacts or any(each.state is not ServiceState.OPERATIONAL for each in known):
            return ServiceState.DEGRADED
        return ServiceState.OPERATIONAL if known else ServiceState.UNKNOWN

    @property
    def news(self) -> object:
        """What makes a snapshot another one: all but the time and how long answers took."""
        return [(each.service, each.state) for each in self.services], [
            (row["id"], row["update_count"], row["updated_at"]) for row in self.incidents
        ]


@dataclass(frozen=True, slots=True)
class Day:
    """The probes of a day (UTC); `worst` is the worst state that held, UNKNOWN without probes."""

    date: date
    up: int = 0
    down: int = 0
    worst: ServiceState = ServiceState.UNKNOWN


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured of a service: its days, oldest first, and how long answers took in the last day."""

    days: tuple[Day, ...] = ()
    p50: float | None = None
    p95: float | None = None
    p50_before: float | None = None
    changes: tuple[tuple[ServiceState, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the last 24 hours and of the 24 before; None where nothing was measured."""

    name: MetricName
    value: float | None
    previous: float | None


@dataclass(frozen=True, slots=True)
class Page:
    """All that the status page shows; `latest` are the newest incidents, over or not."""

    now: Snapshot
    measured: Mapping[Service, Measured] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    latest: tuple[Row, ...] = ()


class Pages:
    """The page of this process, read by one at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._page: Page | None = None
        self._until = 0.0
        self._known: Page | None = None
        self._work: tuple[float, list[Row]] | None = None
        self._version = 0

    def spoil(self, _: StatusChanged) -> None:
        """Read it anew at the next call: something changed."""
        self._version += 1
        self._until = 0.0

    async def get(self) -> Page:
        """The page, at most half a minute old."""
        async with self._lock:
            if self._page is not None and time.monotonic() < self._until:
                return self._page
            version = self._version
            try:
                self._page = self._known = await self._read()
                kept = KEPT_SECONDS
            except Exception as error:
                if not will_pass(error):
                    raise
                _log.warning("status_page_without_database", error=repr(error))
                self._page, kept = in_outage(self._known), KEPT_OUTAGE_SECONDS
            # What changed while it was read may not be in it.
            self._until = time.monotonic() + kept if version == self._version else 0.0
            return self._page

    async def _read(self) -> Page:
        found = await status_queries.conditions_in_full()
        days = await status_queries.days(MAX_DAYS)
        latest = tuple(readable(row) for row in await incident_queries.unresolved_and_latest(LATEST_INCIDENTS))
        if self._work is None or time.monotonic() - self._work[0] > KEPT_WORK_SECONDS:
            self._work = time.monotonic(), await status_queries.work()
        now = snapshot(found, tuple(row for row in latest if row["resolved_at"] is None))
        measured = {Service(row["service"]): _measured(row, days) for row in found}
        return Page(now, measured, _metrics(self._work[1], measured.get(Service.API)), latest[:LATEST_INCIDENTS])


def snapshot(found: Sequence[Row], unresolved: tuple[Row, ...]) -> Snapshot:
    """How all services are, by rows with their age."""
    rows = {Service(row["service"]): row for row in found}
    shown = [service for service in Service if service in rows or service in ALWAYS_SHOWN]
    return Snapshot(datetime.now(UTC), tuple(_now_of(service, rows.get(service)) for service in shown), unresolved)


def in_outage(known: Page | None) -> Page:
    """The page while the database does not answer: this process does, and of the rest nothing is known."""
    states = {Service.API: ServiceState.OPERATIONAL, Service.DATABASE: ServiceState.DOWN}
    at = datetime.now(UTC)
    before = known.now.services if known else tuple(ServiceNow(each, ServiceState.UNKNOWN) for each in ALWAYS_SHOWN)
    services = tuple(
        replace(each, state=states.get(each.service, ServiceState.UNKNOWN), milliseconds=None) for each in before
    )
    now = Snapshot(at, services, known.now.incidents if known else ())
    return replace(known, now=now) if known else Page(now)


def readable(row: Row) -> Row:
    """An incident's row with its updates as rows."""
    updates = from_json(row["updates"]) or []
    return {**row, "updates": [{**each, "at": datetime.fromisoformat(each["at"])} for each in updates]}


def _now_of(service: Service, row: Row | None) -> ServiceNow:
    if row is None:
        return ServiceNow(service, ServiceState.UNKNOWN)
    state = ServiceState(row["state"]) if row["age_seconds"] <= STALE_SECONDS else ServiceState.UNKNOWN
    is_known = state is not ServiceState.UNKNOWN
    return ServiceNow(
        service,
        state,
        # Not known since the last probe was.
        since=row["since"] if is_known else row["probed_at"],
        probed_at=row["probed_at"],
        milliseconds=row["milliseconds"] if is_known else None,
    )


def _measured(row: Row, days: Sequence[Row]) -> Measured:
    mine = {each["day"]: each for each in days if each["service"] == row["service"]}
    changes = zip(row["change_states"] or (), row["change_moments"] or (), strict=True)
    return Measured(
        days=tuple(_day(day.date, mine.get(day.date)) for day in blank_days()),
        p50=status_queries.percentile(row["histogram"] or (), 0.5),
        p95=status_queries.percentile(row["histogram"] or (), 0.95),
        p50_before=status_queries.percentile(row["histogram_before"] or (), 0.5),
        changes=tuple((ServiceState(state), at) for state, at in changes),
    )


def blank_days() -> tuple[Day, ...]:
    """The days of a service that was never probed, today last."""
    today = datetime.now(UTC).date()
    return tuple(Day(today - timedelta(days=ago)) for ago in reversed(range(MAX_DAYS)))


def _day(day: date, row: Row | None) -> Day:
    if row is None:
        return Day(day)
    return Day(day, row["operational"] + row["degraded"], row["down"], _WORST[row["worst"]])


def uptime_percent(days: Sequence[Day]) -> float | None:
    """The share of probes that found the service up, cut after three places: 100 means all. None without a probe."""
    up = sum(day.up for day in days)
    probes = up + sum(day.down for day in days)
    return None if probes == 0 else up * 100_000 // probes / 1000


def _metrics(work: Sequence[Row], api: Measured | None) -> tuple[Metric, ...]:
    def total(column: str, kind: str | None, *, is_last: bool) -> int:
        return sum(row[column] for row in work if row["is_last"] is is_last and kind in (None, row["kind"]))

    def rate(*, is_last: bool) -> float | None:
        succeeded, failed = (total(column, None, is_last=is_last) for column in ("succeeded", "failed"))
        return round(100 * succeeded / (succeeded + failed), 2) if succeeded + failed else None

    return (
        *(
            Metric(name, total("asked", kind, is_last=True), total("asked", kind, is_last=False))
            for name, kind in _KINDS.items()
        ),
        Metric(MetricName.SUCCESS_RATE, rate(is_last=True), rate(is_last=False)),
        Metric(MetricName.API_RESPONSE_TIME, api.p50 if api else None, api.p50_before if api else None),
    )


_pages: Pages | None = None


@asynccontextmanager
async def opened() -> AsyncIterator[None]:
    """Keep the page of this process, as fresh as events tell; `events` must be connected."""
    global _pages
    _pages = Pages()
    try:
        with events.hub().listen(StatusChanged, _pages.spoil):
            yield
    finally:
        _pages = None


async def page() -> Page:
    """The status page; answers also while the database is away."""
    if _pages is None:
        raise LookupError("status.opened() is not open in this process")
    return await _pages.get()


# -- the stream


class Shown:
    """A snapshot, and the event of it that all subscribers share."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._event: SharedEvent | None = None

    def event(self, make: Callable[[Snapshot], Any]) -> SharedEvent:
        """The event, made once."""
        if self._event is None:
            self._event = SharedEvent(make(self.snapshot), audience="status")
        return self._event


class StatusFeed(Feed):
    """The state of the service as it changes; one for all subscribers of a process."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.shown: Shown | None = None

    @property
    def key(self) -> tuple[str]:
        """Pokes of the status."""
        return (self._name,)

    async def read(self) -> bool:
        """Read the state; one that tells something else is shown."""
        try:
            unresolved = tuple(readable(row) for row in await incident_queries.unresolved())
            now = snapshot(await status_queries.conditions(), unresolved)
        except Exception as error:
            if not will_pass(error):
                raise
            now = in_outage(Page(self.shown.snapshot) if self.shown else None).now
        if self.shown is None or self.shown.snapshot.news != now.news:
            self.shown = Shown(now)
            self.announce()
        return True


_feeds: Feeds[str, StatusFeed] = Feeds(StatusFeed)


async def follow(make: Callable[[Snapshot], Any]) -> AsyncGenerator[SharedEvent, None]:
    """The state, as `make` shows it, now, then every change; changes that come fast become one."""
    sent: Shown | None = None
    async with _feeds.join("status") as feed:
        while True:
            change = feed.change
            if feed.failure is not None:
                raise feed.failure
            if feed.shown is not None and feed.shown is not sent:
                sent = feed.shown
                yield sent.event(make)
                continue
            await asyncio.shield(change)
