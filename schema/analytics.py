"""Analytics as clients see them: a range in buckets, with nothing left out where nothing happened.

Each field reads its own part when it is selected; numbers are numbers, in seconds, bytes and percent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from errors import ValidationFailed
from models import deployments, jobs, scans
from models.executions import ExecutionStatus
from models.permissions import Permission
from resolvers import analytics
from resolvers.analytics import Bucket, Durations, Report, Sums
from resolvers.periods import AnalyticsInterval, AnalyticsPreset
from schema.context import Context
from schema.dashboard import by_severity
from schema.enums import publish
from schema.permissions import requires
from schema.scalars import BigInt
from schema.scans import SeverityCount
from schema.statistics import (
    DEFAULT_ZONE,
    ComparedCount,
    ComparedNumber,
    Mine,
    TimeZone,
    average_seconds,
    count,
    number,
    per_minute,
    success_percent,
)

Info = strawberry.Info[Context, None]

publish(
    AnalyticsPreset,
    "A range that ends now. Days are those of the time zone, today included.",
    LAST_24_HOURS="This hour and the 23 before it.",
    LAST_7_DAYS="Seven days.",
    LAST_30_DAYS="Thirty days.",
    LAST_90_DAYS="Ninety days.",
    LAST_12_MONTHS="365 days.",
)
publish(
    AnalyticsInterval,
    "How long the buckets of a series are.",
    HOUR="An hour: for ranges of at most two days.",
    DAY="A day of the time zone; 23 or 25 hours where the clock changes.",
)


@strawberry.input(description="A range: a preset, or both moments. The last thirty days when nothing is given.")
class AnalyticsRange:
    """Which time."""

    preset: AnalyticsPreset | None = strawberry.field(default=None, description="A range that ends now.")
    start: datetime | None = strawberry.field(
        name="from", default=None, description="Its beginning; the quarter-hour of it counts as a whole."
    )
    to: datetime | None = strawberry.field(
        default=None, description="Its end, at most 400 days later; the quarter-hour of it counts as a whole."
    )


@strawberry.interface(description="A part of a range.")
class TimeBucket:
    """From `start` up to `end`."""

    start: datetime = strawberry.field(description="Its beginning.")
    end: datetime = strawberry.field(description="Its end, which belongs to the next one.")


@strawberry.type(description="Deployments of a part of a range.")
class DeploymentBucket(TimeBucket):
    """Counts."""

    count: BigInt = strawberry.field(description="Deployments that were asked for.")
    succeeded: BigInt = strawberry.field(description="Those that ended well.")
    failed: BigInt = strawberry.field(description="Those that failed.")
    cancelled: BigInt = strawberry.field(description="Those that were stopped.")


@strawberry.type(description="The success rate of an ISO week, from Monday, as far as it is in the range.")
class SuccessRateBucket(TimeBucket):
    """A rate."""

    percent: float | None = strawberry.field(description="0 to 100; null when nothing ended.")
    succeeded: BigInt = strawberry.field(description="Deployments that ended well.")
    failed: BigInt = strawberry.field(description="Deployments that failed.")


@strawberry.type(description="How many deployments have a status.")
class StatusCount:
    """A count."""

    status: ExecutionStatus = strawberry.field(description="The status.")
    count: BigInt = strawberry.field(
        description="How many: of final ones those that ended in the range, of others those that are so now."
    )


@strawberry.type(description="Deployments by the hour of the day.")
class HourCount:
    """A count."""

    hour: int = strawberry.field(description="0 to 23, in the time zone.")
    count: BigInt = strawberry.field(description="Deployments that were asked for in this hour, on all days together.")


@strawberry.type(description="How long something took, in seconds. All is exact; without any it is null.")
class DurationBucket(TimeBucket):
    """Durations."""

    count: int = strawberry.field(description="How many were measured.")
    average_seconds: float | None = strawberry.field(description="Their mean.")
    min_seconds: float | None = strawberry.field(description="The shortest.")
    max_seconds: float | None = strawberry.field(description="The longest.")
    p95_seconds: float | None = strawberry.field(
        description="The 95th percentile: the shortest that at most one in twenty exceed."
    )


@strawberry.type(description="What executions that ended in the range have used.")
class ResourceUsage:
    """Sums."""

    build_seconds: float = strawberry.field(description="Seconds of builds, from the start of the clone.")
    work_seconds: float = strawberry.field(description="Seconds that workers had deployments, job runs and scans.")
    cpu_seconds: float | None = strawberry.field(description="Seconds of processors; null: it is not measured.")
    peak_memory_bytes: BigInt | None = strawberry.field(description="Most memory; null: it is not measured.")
    artifact_bytes: BigInt = strawberry.field(description="Bytes of all files that deployments serve.")
    stored_bytes: BigInt = strawberry.field(
        description="Bytes that had to be stored for them; the rest they share with earlier ones."
    )
    log_bytes: BigInt = strawberry.field(description="Bytes of logs.")
    downloaded_bytes: BigInt = strawberry.field(description="Bytes that crawls downloaded.")


@strawberry.type(description="The main numbers, each beside that of as much time before.")
class Metrics:
    """Numbers of the range and of the one before."""

    deployments: ComparedCount = strawberry.field(description="Deployments that were asked for.")
    succeeded_deployments: ComparedCount = strawberry.field(description="Deployments that ended well.")
    failed_deployments: ComparedCount = strawberry.field(description="Deployments that failed.")
    cancelled_deployments: ComparedCount = strawberry.field(description="Deployments that were stopped.")
    success_percent: ComparedNumber = strawberry.field(description="The success rate of deployments, 0 to 100.")
    average_deploy_seconds: ComparedNumber = strawberry.field(
        description="How long deployments that succeeded took from their start."
    )
    average_wait_seconds: ComparedNumber = strawberry.field(description="How long deployments waited for their start.")
    job_runs: ComparedCount = strawberry.field(description="Job runs that were asked for.")
    items: ComparedCount = strawberry.field(description="Items of job runs that ended.")
    pages: ComparedCount = strawberry.field(description="Pages of job runs that ended.")
    scans: ComparedCount = strawberry.field(description="Scans that were asked for.")
    risks: ComparedCount = strawberry.field(description="Risks of scans that ended.")


@strawberry.type(description="Job runs of a part of a range.")
class RunBucket(TimeBucket):
    """Counts and rates."""

    runs: BigInt = strawberry.field(description="Runs that were asked for.")
    succeeded: BigInt = strawberry.field(description="Runs that ended well.")
    failed: BigInt = strawberry.field(description="Runs that failed.")
    cancelled: BigInt = strawberry.field(description="Runs that were stopped.")
    success_percent: float | None = strawberry.field(description="0 to 100; null when nothing ended.")
    items: BigInt = strawberry.field(description="Items of runs that ended.")
    items_per_minute: float | None = strawberry.field(description="Items per minute of work; null without work.")


@strawberry.type(description="Job runs with a tool that ended in the range.")
class ToolPerformance:
    """Counts and rates of a tool."""

    slug: str = strawberry.field(description="The tool's short name.")
    name: str = strawberry.field(description="The tool's name.")
    succeeded: BigInt = strawberry.field(description="Runs that ended well.")
    failed: BigInt = strawberry.field(description="Runs that failed.")
    cancelled: BigInt = strawberry.field(description="Runs that were stopped.")
    success_percent: float | None = strawberry.field(description="0 to 100; null when nothing ended.")
    items: BigInt = strawberry.field(description="Items.")
    items_per_minute: float | None = strawberry.field(description="Items per minute of work; null without work.")
    average_seconds: float | None = strawberry.field(description="How long runs that succeeded took.")


@strawberry.type(description="How job runs do.")
class Performance:
    """Each field reads its own part."""

    report: strawberry.Private[Report]

    @strawberry.field(description="Part by part.")
    async def runs(self) -> list[RunBucket]:
        """From the sums."""
        return [_runs(bucket) for bucket in await self.report.buckets(jobs.KIND)]

    @strawberry.field(description="The whole range.")
    async def total(self) -> RunBucket:
        """From the sums."""
        period = self.report.period
        return _runs(Bucket(period.start, period.end, await self.report.total(jobs.KIND)))

    @strawberry.field(description="How long runs that succeeded took, part by part.")
    async def durations(self) -> list[DurationBucket]:
        """From the facts."""
        series, _ = await self.report.durations(jobs.KIND, "worked_ms")
        return [_durations(each) for each in series]

    @strawberry.field(description="How long runs that succeeded took, in the whole range.")
    async def total_durations(self) -> DurationBucket:
        """From the facts."""
        _, total = await self.report.durations(jobs.KIND, "worked_ms")
        return _durations(total)

    @strawberry.field(description="By tool, the one with the most runs first; fifty at most.")
    async def by_tool(self) -> list[ToolPerformance]:
        """From the facts."""
        return [
            ToolPerformance(
                slug=row["slug"],
                name=row["name"],
                succeeded=BigInt(row["succeeded"]),
                failed=BigInt(row["failed"]),
                cancelled=BigInt(row["cancelled"]),
                success_percent=success_percent(row),
                items=BigInt(row["items"]),
                items_per_minute=per_minute(row),
                average_seconds=average_seconds(row, "succeeded_ms", "succeeded"),
            )
            for row in await self.report.tools()
        ]


@strawberry.type(description="Risks of a part of a range.")
class RiskBucket(TimeBucket):
    """A count."""

    count: BigInt = strawberry.field(description="Risks of scans that ended.")


@strawberry.type(description="The risks of one category over time.")
class RiskSeries:
    """A category."""

    category: str = strawberry.field(description="The kind of risk, as its finder calls it.")
    total: BigInt = strawberry.field(description="How many in the range.")
    by_severity: list[SeverityCount] = strawberry.field(description="The same by severity, worst first.")
    buckets: list[RiskBucket] = strawberry.field(description="The same over time.")


@strawberry.type(description="What happened in a range of time. Parts of it are at most a minute old.")
class Analytics:
    """Each field reads its own part."""

    report: strawberry.Private[Report]

    @strawberry.field(name="from", description="Where the range begins.")
    def start(self) -> datetime:
        """The beginning."""
        return self.report.period.start

    @strawberry.field(description="Where it ends.")
    def to(self) -> datetime:
        """The end."""
        return self.report.period.end

    @strawberry.field(description="Where the range begins that it is compared with.")
    def previous_from(self) -> datetime:
        """The beginning before."""
        return self.report.period.previous_start

    @strawberry.field(description="Where that ends.")
    def previous_to(self) -> datetime:
        """The end before."""
        return self.report.period.previous_end

    @strawberry.field(description="The time zone whose days and weeks are told.")
    def time_zone(self) -> str:
        """Its name."""
        return self.report.zone.key

    @strawberry.field(description="How long the buckets of series are; the first and the last may be parts of one.")
    def interval(self) -> AnalyticsInterval:
        """From the length of the range."""
        return self.report.period.interval

    @strawberry.field(description="The main numbers, compared.")
    async def metrics(self) -> Metrics:
        """From the sums of both ranges."""
        report = self.report
        now, before = await report.total(deployments.KIND), await report.previous(deployments.KIND)
        runs, runs_before = await report.total(jobs.KIND), await report.previous(jobs.KIND)
        scanned, scanned_before = await report.total(scans.KIND), await report.previous(scans.KIND)

        def both(name: str) -> ComparedCount:
            return count(now[name], before[name])

        def averages(milliseconds: str, of: str) -> ComparedNumber:
            return number(average_seconds(now, milliseconds, of), average_seconds(before, milliseconds, of))

        return Metrics(
            deployments=both("created"),
            succeeded_deployments=both("succeeded"),
            failed_deployments=both("failed"),
            cancelled_deployments=both("cancelled"),
            success_percent=number(success_percent(now), success_percent(before)),
            average_deploy_seconds=averages("succeeded_ms", "succeeded"),
            average_wait_seconds=averages("waited_ms", "begun"),
            job_runs=count(runs["created"], runs_before["created"]),
            items=count(runs["items"], runs_before["items"]),
            pages=count(runs["pages"], runs_before["pages"]),
            scans=count(scanned["created"], scanned_before["created"]),
            risks=count(*await report.risks()),
        )

    @strawberry.field(description="Deployments over time.")
    async def deployment_frequency(self) -> list[DeploymentBucket]:
        """From the sums."""
        return [
            DeploymentBucket(
                start=bucket.start,
                end=bucket.end,
                count=BigInt(bucket.sums["created"]),
                succeeded=BigInt(bucket.sums["succeeded"]),
                failed=BigInt(bucket.sums["failed"]),
                cancelled=BigInt(bucket.sums["cancelled"]),
            )
            for bucket in await self.report.buckets(deployments.KIND)
        ]

    @strawberry.field(description="The success rate of deployments, week by week.")
    async def success_rates(self) -> list[SuccessRateBucket]:
        """From the sums."""
        return [
            SuccessRateBucket(
                start=week.start,
                end=week.end,
                percent=success_percent(week.sums),
                succeeded=BigInt(week.sums["succeeded"]),
                failed=BigInt(week.sums["failed"]),
            )
            for week in await self.report.weeks(deployments.KIND)
        ]

    @strawberry.field(description="Deployments by status.")
    async def deployment_status(self) -> list[StatusCount]:
        """From the sums, and from what is there now."""
        total = await self.report.total(deployments.KIND)
        waiting, working = await self.report.unfinished(deployments.KIND)
        counts = {
            ExecutionStatus.QUEUED: waiting,
            ExecutionStatus.RUNNING: working,
            ExecutionStatus.SUCCEEDED: total["succeeded"],
            ExecutionStatus.FAILED: total["failed"],
            ExecutionStatus.CANCELLED: total["cancelled"],
        }
        return [StatusCount(status=status, count=BigInt(found)) for status, found in counts.items()]

    @strawberry.field(description="Deployments by the hour of the day, all 24 hours.")
    async def hourly_deployments(self) -> list[HourCount]:
        """From the sums."""
        return [HourCount(hour=hour, count=BigInt(found)) for hour, found in enumerate(await self.report.hours())]

    @strawberry.field(description="How long builds of deployments that succeeded took, over time.")
    async def build_durations(self) -> list[DurationBucket]:
        """From the facts."""
        series, _ = await self.report.durations(deployments.KIND, "built_ms")
        return [_durations(each) for each in series]

    @strawberry.field(description="What was used.")
    async def resource_usage(self) -> ResourceUsage:
        """From the sums."""
        built = await self.report.total(deployments.KIND)
        crawled = await self.report.total(jobs.KIND)
        all_kinds = (built, crawled, await self.report.total(scans.KIND))
        return ResourceUsage(
            build_seconds=built["built_ms"] / 1_000,
            work_seconds=sum(sums["worked_ms"] for sums in all_kinds) / 1_000,
            cpu_seconds=None,
            peak_memory_bytes=None,
            artifact_bytes=BigInt(built["artifact_bytes"]),
            stored_bytes=BigInt(built["uploaded_bytes"]),
            log_bytes=BigInt(sum(sums["log_bytes"] for sums in all_kinds)),
            downloaded_bytes=BigInt(crawled["downloaded_bytes"]),
        )

    @strawberry.field(description="How job runs do.")
    def performance(self) -> Performance:
        """The same range."""
        return Performance(report=self.report)

    @strawberry.field(description="Risks over time by category, the one with the most first; twenty at most.")
    async def scan_risks(self) -> list[RiskSeries]:
        """From the sums."""
        buckets = await self.report.buckets(scans.KIND)
        return [
            RiskSeries(
                category=each.category,
                total=BigInt(sum(each.counts)),
                by_severity=by_severity(each.severities),
                buckets=[
                    RiskBucket(start=bucket.start, end=bucket.end, count=BigInt(found))
                    for bucket, found in zip(buckets, each.counts, strict=True)
                ],
            )
            for each in await self.report.risk_categories()
        ]


@strawberry.type
class AnalyticsQuery:
    """Analytics."""

    @strawberry.field(
        description="What happened in a range of time, of what is yours (administrators: everybody's).",
        extensions=[requires(Permission.ANALYTICS_READ)],
    )
    async def analytics(
        self,
        info: Info,
        range: Annotated[AnalyticsRange | None, strawberry.argument(description="Which time.")] = None,
        project_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Deployments of this project alone; job runs and scans have none."),
        ] = None,
        time_zone: TimeZone = DEFAULT_ZONE,
        mine: Mine = False,
    ) -> Analytics:
        """Nothing is read before it is asked for."""
        wanted = range or AnalyticsRange()
        if (wanted.start is None) != (wanted.to is None):
            raise ValidationFailed("Give both ends of the range, or neither.", path=["range"])
        if wanted.start is not None and wanted.preset is not None:
            raise ValidationFailed("Give a preset or both ends, not all of them.", path=["range", "preset"])
        return Analytics(
            report=await analytics.report(
                info.context.actor,
                preset=wanted.preset,
                start=wanted.start,
                end=wanted.to,
                project_id=project_id,
                time_zone=time_zone,
                mine=mine,
            )
        )


def _runs(bucket: Bucket) -> RunBucket:
    sums: Sums = bucket.sums
    return RunBucket(
        start=bucket.start,
        end=bucket.end,
        runs=BigInt(sums["created"]),
        succeeded=BigInt(sums["succeeded"]),
        failed=BigInt(sums["failed"]),
        cancelled=BigInt(sums["cancelled"]),
        success_percent=success_percent(sums),
        items=BigInt(sums["items"]),
        items_per_minute=per_minute(sums),
    )


def _durations(found: Durations) -> DurationBucket:
    def seconds(milliseconds: float | None) -> float | None:
        return None if milliseconds is None else milliseconds / 1_000

    return DurationBucket(
        start=found.start,
        end=found.end,
        count=found.count,
        average_seconds=seconds(found.average),
        min_seconds=seconds(found.shortest),
        max_seconds=seconds(found.longest),
        p95_seconds=seconds(found.p95),
    )
