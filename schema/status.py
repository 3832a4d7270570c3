"""The status page and the live status: public, the same for everybody, read once for all who ask at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import strawberry

from errors import ValidationFailed
from models.database import Row
from models.status import SERVICE_NAMES, Service, ServiceState
from resolvers import incidents, status
from resolvers.status import MAX_DAYS, MetricName
from schema.context import Context
from schema.enums import publish
from schema.incidents import Incident, Stated, incident_of
from schema.pagination import DEFAULT_PAGE, After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import public

Info = strawberry.Info[Context, None]


class MetricUnit(StrEnum):
    """What a metric is counted in."""

    COUNT = "COUNT"
    PERCENT = "PERCENT"
    MILLISECONDS = "MILLISECONDS"


publish(
    ServiceState,
    "How a service is. One probe changes nothing: it takes two that agree.",
    OPERATIONAL="It works.",
    DEGRADED="It works, but slowly or in part.",
    DOWN="It does not work.",
    UNKNOWN="It was not probed for 90 seconds, or not yet: no worker is running.",
)
publish(
    MetricName,
    "A number of all users together. Expect new values.",
    DEPLOYMENTS="Deployments that were asked for.",
    JOB_RUNS="Runs of jobs that were asked for.",
    SCANS="Scans that were asked for.",
    DOCUMENTS="Documents that were to be read.",
    SUCCESS_RATE="How many of those that ended by themselves succeeded.",
    API_RESPONSE_TIME="How long the API took to answer a probe, in the median.",
)
publish(
    MetricUnit,
    "What a metric is counted in.",
    COUNT="How many.",
    PERCENT="Of a hundred.",
    MILLISECONDS="Thousandths of a second.",
)
_UNITS: Final = {
    MetricName.SUCCESS_RATE: MetricUnit.PERCENT,
    MetricName.API_RESPONSE_TIME: MetricUnit.MILLISECONDS,
}


@strawberry.type(description="How long answers to probes took, in milliseconds.")
class ResponseTime:
    """Response times."""

    last_milliseconds: float | None = strawberry.field(description="The last answer; null when there was none.")
    p50: float | None = strawberry.field(description="The median of the last 24 hours, to about a tenth.")
    p95: float | None = strawberry.field(description="The 95th percentile of the last 24 hours, to about a tenth.")


@strawberry.type(description="The probes of one day.")
class ServiceDay:
    """A day of a service."""

    date: str = strawberry.field(description="The day in UTC, such as `2026-01-31`.")
    uptime_percent: float | None = strawberry.field(
        description="How many probes of a hundred found it up, cut after three places; null without probes."
    )
    worst_state: ServiceState = strawberry.field(description="The worst state that it had; UNKNOWN without probes.")


@strawberry.type(description="A state that a service had from a moment on.")
class ServiceChange:
    """A change."""

    state: ServiceState = strawberry.field(description="The state from then on.")
    at: datetime = strawberry.field(description="When.")


@strawberry.type(description="How a service is.")
class ServiceNow:
    """A service in the stream."""

    service: Service = strawberry.field(description="Which one.")
    name: str = strawberry.field(description="What it is called, for people.")
    state: ServiceState = strawberry.field(description="How it is.")
    since: datetime | None = strawberry.field(description="Since when; null when it was never probed.")
    probed_at: datetime | None = strawberry.field(description="When it was last probed.")
    last_milliseconds: float | None = strawberry.field(
        description="How long its last answer took; null when there was none."
    )


@strawberry.type(description="How a service is, and how it was.")
class ServiceStatus:
    """A service on the page."""

    service: Service = strawberry.field(description="Which one.")
    name: str = strawberry.field(description="What it is called, for people.")
    state: ServiceState = strawberry.field(description="How it is.")
    since: datetime | None = strawberry.field(description="Since when; null when it was never probed.")
    probed_at: datetime | None = strawberry.field(description="When it was last probed.")
    uptime_percent: float | None = strawberry.field(
        description="How many probes of a hundred found it up in the days of `history`, cut after three places; slow "
        "counts as up. Null without probes. Times in which nobody probed count neither way."
    )
    response_time: ResponseTime = strawberry.field(description="How quickly it answers.")
    history: list[ServiceDay] = strawberry.field(description="The days that were asked for, today last.")
    recent_changes: list[ServiceChange] = strawberry.field(description="Its last ten changes of state, newest first.")


@strawberry.type(description="A number of the last 24 hours, compared with the 24 hours before.")
class StatusMetric:
    """A metric."""

    name: MetricName = strawberry.field(description="Of what.")
    value: float | None = strawberry.field(description="In the last 24 hours; null where nothing was measured.")
    unit: MetricUnit = strawberry.field(description="What it is counted in.")
    previous: float | None = strawberry.field(description="In the 24 hours before.")
    change_percent: float | None = strawberry.field(
        description="By how much of a hundred it changed; null when there is nothing to compare with."
    )


@strawberry.type(description="The state of the service, with its history. At most 30 seconds old.")
class StatusPage:
    """The page."""

    overall: ServiceState = strawberry.field(
        description="The whole in one word. DOWN when the API or the database is, or an incident is CRITICAL; DEGRADED "
        "when any other service is not OPERATIONAL or an incident goes on."
    )
    updated_at: datetime = strawberry.field(description="When this was read.")
    services: list[ServiceStatus] = strawberry.field(description="What the service is made of.")
    metrics: list[StatusMetric] = strawberry.field(description="What it does, for all users together.")
    open_incidents: list[Incident] = strawberry.field(description="The incidents that go on, newest first; up to 50.")
    kept: strawberry.Private[status.Page]

    @strawberry.field(description="All incidents, newest first.")
    async def incidents(
        self,
        state: Stated = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Incident]:
        """The beginning of the list is kept with the page; all else is one statement."""
        fetch = by_one_key(lambda **place: incidents.page(state=state, **place))
        kept = self.kept.latest

        async def fetch_or_keep(limit: int, after_key: Any, before_key: Any, backwards: bool) -> Sequence[Row]:
            is_start = after_key is None and before_key is None and not backwards and state is None
            if is_start and limit <= max(len(kept), DEFAULT_PAGE + 1):
                return kept[:limit]
            return await fetch(limit, after_key, before_key, backwards)

        return await paginate(
            fetch=fetch_or_keep,
            count=lambda: incidents.count(state=state),
            first=first,
            after=after,
            last=last,
            before=before,
            node=incident_of,
        )


@strawberry.type(description="The state of the service at a moment.")
class StatusSnapshot:
    """What the stream tells."""

    at: datetime = strawberry.field(description="When.")
    overall: ServiceState = strawberry.field(description="The whole in one word, as in `StatusPage`.")
    services: list[ServiceNow] = strawberry.field(description="What the service is made of.")
    incidents: list[Incident] = strawberry.field(description="The incidents that go on, newest first; up to 50.")


@strawberry.type
class StatusQuery:
    """What everybody may know of the service."""

    @strawberry.field(
        description="The state of the service, its history, and incidents. Probes ask every part of it every 30 "
        "seconds. Also as a page for people at `/status` and as a feed at `/status.atom`.",
        extensions=[public()],
    )
    async def status_page(
        self,
        days: Annotated[
            int, strawberry.argument(description="How many days of history, today included: 1 to 90.")
        ] = 90,
    ) -> StatusPage:
        """The page, from what is kept."""
        if not 1 <= days <= MAX_DAYS:
            raise ValidationFailed(f"`days` must be between 1 and {MAX_DAYS}.", path=["days"])
        return page_of(await status.page(), days)


@strawberry.type
class StatusSubscription:
    """The state of the service as it changes."""

    @strawberry.subscription(
        description="The state of the service now, then again whenever a service has another state or something is "
        "said of an incident; changes that come fast become one. Does not complete.",
        extensions=[public()],
    )
    async def service_status(self) -> AsyncGenerator[StatusSnapshot, None]:
        """One after the other."""
        async with aclosing(status.follow(snapshot_of)) as events:
            async for event in events:
                yield event  # type: ignore[misc] # the executor unwraps a SharedEvent


def page_of(page: status.Page, days: int) -> StatusPage:
    """The page with so many days."""
    return StatusPage(
        overall=page.now.overall,
        updated_at=page.now.at,
        services=[_service(each, page.measured.get(each.service), days) for each in page.now.services],
        metrics=[_metric(each) for each in page.metrics],
        open_incidents=[incident_of(row) for row in page.now.incidents],
        kept=page,
    )


def snapshot_of(now: status.Snapshot) -> StatusSnapshot:
    """What the stream tells of a snapshot."""
    return StatusSnapshot(
        at=now.at,
        overall=now.overall,
        services=[
            ServiceNow(
                service=each.service,
                name=SERVICE_NAMES[each.service],
                state=each.state,
                since=each.since,
                probed_at=each.probed_at,
                last_milliseconds=_rounded(each.milliseconds),
            )
            for each in now.services
        ],
        incidents=[incident_of(row) for row in now.incidents],
    )


def _service(now: status.ServiceNow, measured: status.Measured | None, days: int) -> ServiceStatus:
    measured = measured or status.Measured(status.blank_days())
    shown = measured.days[-days:]
    return ServiceStatus(
        service=now.service,
        name=SERVICE_NAMES[now.service],
        state=now.state,
        since=now.since,
        probed_at=now.probed_at,
        uptime_percent=status.uptime_percent(shown),
        response_time=ResponseTime(
            last_milliseconds=_rounded(now.milliseconds), p50=_rounded(measured.p50), p95=_rounded(measured.p95)
        ),
        history=[
            ServiceDay(date=day.date.isoformat(), uptime_percent=status.uptime_percent([day]), worst_state=day.worst)
            for day in shown
        ],
        recent_changes=[ServiceChange(state=state, at=at) for state, at in measured.changes],
    )


def _metric(metric: status.Metric) -> StatusMetric:
    value, previous = metric.value, metric.previous
    change = round((value - previous) / previous * 100, 1) if value is not None and previous else None
    return StatusMetric(
        name=metric.name,
        value=_rounded(value),
        unit=_UNITS.get(metric.name, MetricUnit.COUNT),
        previous=_rounded(previous),
        change_percent=change,
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)
