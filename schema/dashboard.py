"""The dashboard as clients see it: deployments, projects, jobs and scans at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import strawberry

from models import deployments, jobs, scans
from models.permissions import Permission
from models.scans import RiskSeverity
from resolvers import dashboard
from resolvers.dashboard import Dashboard as View
from resolvers.dashboard import Span
from schema.context import Context
from schema.deployments import Deployment, deployment_of
from schema.permissions import requires
from schema.runs import JobRun, run_of
from schema.scalars import BigInt
from schema.scans import Scan, SeverityCount, scan_of
from schema.statistics import (
    DEFAULT_ZONE,
    Mine,
    SuccessRate,
    TimeZone,
    average_seconds,
    percent_change,
    success_rate,
)

Info = strawberry.Info[Context, None]


@strawberry.type(description="How many were asked for. A week is the last seven days up to now.")
class WeeklyTotals:
    """Counts by the moment they were asked for."""

    total: BigInt = strawberry.field(description="All that are there.")
    this_week: BigInt = strawberry.field(description="Those of the last seven days.")
    previous_week: BigInt = strawberry.field(description="Those of the seven days before.")
    weekly_change_percent: float | None = strawberry.field(
        description="By how many percent there are more this week; null when there were none before."
    )


@strawberry.type(description="Projects in numbers.")
class ProjectTotals:
    """Counts of projects."""

    total: int = strawberry.field(description="All projects.")
    active: int = strawberry.field(description="Those with a deployment that was asked for in the last thirty days.")
    deployed_today: int = strawberry.field(description="Those with one that was asked for today, in the time zone.")


@strawberry.type(description="How long deployments that succeeded took from their start to their end, on average.")
class AverageTime:
    """An average and the one before it."""

    seconds: float | None = strawberry.field(description="Of the last thirty days; null when none succeeded.")
    previous_seconds: float | None = strawberry.field(description="Of the thirty days before.")
    change_percent: float | None = strawberry.field(
        description="By how many percent it grew; null when there is nothing to compare with."
    )


@strawberry.type(description="Job runs at a glance.")
class JobTotals:
    """Runs in numbers, and the newest."""

    runs: WeeklyTotals = strawberry.field(description="How many runs.")
    running: int = strawberry.field(description="Runs that work now.")
    queued: int = strawberry.field(description="Runs that wait now.")
    success_rate: SuccessRate = strawberry.field(description="Of the last thirty days.")
    items_today: BigInt = strawberry.field(description="Items of runs that ended today, in the time zone.")
    recent_runs: list[JobRun] = strawberry.field(description="The newest five.")


@strawberry.type(description="Scans at a glance.")
class ScanTotals:
    """Scans in numbers, and the newest."""

    scans: WeeklyTotals = strawberry.field(description="How many scans.")
    success_rate: SuccessRate = strawberry.field(description="Of the last thirty days.")
    risks: BigInt = strawberry.field(description="Risks of all scans that are there.")
    risks_this_week: BigInt = strawberry.field(description="Risks of scans that ended in the last seven days.")
    risks_by_severity: list[SeverityCount] = strawberry.field(description="All of them by severity, worst first.")
    recent_scans: list[Scan] = strawberry.field(description="The newest five.")


@strawberry.type(
    description="What was done, how well, and what is newest. At most a minute old; at once after a change."
)
class Dashboard:
    """A dashboard."""

    generated_at: datetime = strawberry.field(description="When the numbers were read.")
    deployments: WeeklyTotals = strawberry.field(description="How many deployments.")
    running_deployments: int = strawberry.field(description="Deployments that work now.")
    queued_deployments: int = strawberry.field(description="Deployments that wait now.")
    projects: ProjectTotals = strawberry.field(description="Projects.")
    success_rate: SuccessRate = strawberry.field(description="Of deployments that ended in the last thirty days.")
    average_deploy_time: AverageTime = strawberry.field(description="How long deployments take.")
    recent_deployments: list[Deployment] = strawberry.field(description="The newest five.")
    jobs: JobTotals = strawberry.field(description="Job runs.")
    scans: ScanTotals = strawberry.field(description="Scans.")


@strawberry.type
class DashboardQuery:
    """The dashboard."""

    @strawberry.field(
        description="What you did (administrators: everybody), at a glance.",
        extensions=[requires(Permission.ANALYTICS_READ)],
    )
    async def dashboard(self, info: Info, time_zone: TimeZone = DEFAULT_ZONE, mine: Mine = False) -> Dashboard:
        """All of it at once, whatever is selected."""
        context = info.context
        return _of(await dashboard.dashboard(context.actor, time_zone=time_zone, mine=mine), context)


def _of(view: View, context: Context) -> Dashboard:
    month = view.sums[deployments.KIND, Span.MONTH]
    month_before = view.sums[deployments.KIND, Span.MONTH_BEFORE]
    seconds, previous = (average_seconds(sums, "succeeded_ms", "succeeded") for sums in (month, month_before))
    return Dashboard(
        generated_at=view.at,
        deployments=_weekly(view, deployments.KIND),
        running_deployments=view.working.get(deployments.KIND, 0),
        queued_deployments=view.waiting.get(deployments.KIND, 0),
        projects=ProjectTotals(
            total=view.standing["projects"],
            active=view.standing["active"],
            deployed_today=view.standing["deployed_today"],
        ),
        success_rate=success_rate(month, month_before),
        average_deploy_time=AverageTime(
            seconds=seconds, previous_seconds=previous, change_percent=percent_change(seconds, previous)
        ),
        recent_deployments=[deployment_of(row, context) for row in view.recent[deployments.KIND]],
        jobs=JobTotals(
            runs=_weekly(view, jobs.KIND),
            running=view.working.get(jobs.KIND, 0),
            queued=view.waiting.get(jobs.KIND, 0),
            success_rate=success_rate(view.sums[jobs.KIND, Span.MONTH], view.sums[jobs.KIND, Span.MONTH_BEFORE]),
            items_today=BigInt(view.sums[jobs.KIND, Span.TODAY]["items"]),
            recent_runs=[run_of(row, context) for row in view.recent[jobs.KIND]],
        ),
        scans=ScanTotals(
            scans=_weekly(view, scans.KIND),
            success_rate=success_rate(view.sums[scans.KIND, Span.MONTH], view.sums[scans.KIND, Span.MONTH_BEFORE]),
            risks=BigInt(sum(view.risks[Span.EVER].values())),
            risks_this_week=BigInt(sum(view.risks[Span.WEEK].values())),
            risks_by_severity=by_severity(view.risks[Span.EVER]),
            recent_scans=[scan_of(row, context) for row in view.recent[scans.KIND]],
        ),
    )


def by_severity(counts: Mapping[str, int]) -> list[SeverityCount]:
    """Counts of all severities, worst first, zeros too."""
    return [
        SeverityCount(severity=severity, count=counts.get(severity.value, 0)) for severity in reversed(RiskSeverity)
    ]


def _weekly(view: View, kind: str) -> WeeklyTotals:
    total, week, before = (view.sums[kind, span]["created"] for span in (Span.EVER, Span.WEEK, Span.WEEK_BEFORE))
    return WeeklyTotals(
        total=BigInt(total),
        this_week=BigInt(week),
        previous_week=BigInt(before),
        weekly_change_percent=percent_change(week, before),
    )
