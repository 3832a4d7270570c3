"""Schedules of jobs as clients see them: when a job runs by itself, what comes next, and what became of what came.

A schedule is read with its job. Next runs are computed only when they are asked for. Commands are in
`schema/schedule_commands.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import strawberry

from models import database, execution_rows
from models.database import Row
from models.permissions import Permission
from models.schedules import MissedRunPolicy, OverlapPolicy, TickOutcome, TickReason
from resolvers import access, schedules
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, build
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.scalars import JSON

Info = strawberry.Info[Context, None]
_BY_MOMENT: Final = (("tick_at", datetime),)

publish(
    OverlapPolicy,
    "What becomes of a moment that comes while a run of the job waits or works.",
    SKIP="It is skipped.",
    QUEUE="Its run starts when the one that works has ended; one moment waits at most, further ones are skipped.",
)
publish(
    MissedRunPolicy,
    "What becomes of moments that came while no worker was there for longer than a minute.",
    SKIP="They are missed.",
    RUN_ONCE="The newest one is run, once; the others are missed.",
)
publish(
    TickOutcome,
    "What became of a moment of a schedule.",
    STARTED="Its run was started.",
    QUEUED="Its run waits for another one's end.",
    SKIPPED="It was skipped; `reason` says why.",
    MISSED="No worker was there.",
    REFUSED="Its run could not be started; `reason` says why.",
)
publish(
    TickReason,
    "Why a moment of a schedule was skipped, or its run refused. Expect new values.",
    STILL_RUNNING="A run of the job waited or worked.",
    SCHEDULE_CHANGED="It waited for another run's end when the schedule was set anew or paused.",
    TOOL_INACTIVE="The job's tool was not active.",
    OWNER_INACTIVE="The account of the job's owner was not active.",
    QUEUE_FULL="The owner had as many runs waiting as they may.",
    DAILY_LIMIT="The owner had fetched as many pages that day as they may.",
)

Shown = Annotated[int, strawberry.argument(description="How many: 1 to 50.")]


@strawberry.type(description="A moment of a schedule that came, and what became of it.")
class ScheduleTick:
    """A tick."""

    tick_at: datetime = strawberry.field(description="The moment.")
    outcome: TickOutcome = strawberry.field(description="What became of it.")
    reason: TickReason | None = strawberry.field(description="Why it was skipped or refused; null otherwise.")
    decided_at: datetime = strawberry.field(description="When that was decided.")
    run_id: strawberry.Private[UUID | None]

    @strawberry.field(description="The run that it started; null when there is none, or it is deleted.")
    async def run(self, info: Info) -> Execution | None:
        """Loaded for all ticks of the answer at once."""
        if self.run_id is None:
            return None
        row = await info.context.load(_load_runs, self.run_id)
        return None if row is None else build(row, info.context)


@strawberry.type(description="When a job runs by itself.")
class JobSchedule:
    """A schedule."""

    cron_expression: str = strawberry.field(description="Five cron fields, or a nickname such as `@daily`.")
    time_zone: str = strawberry.field(description="The IANA time zone whose clocks the expression goes by.")
    is_paused: bool = strawberry.field(description="Whether it starts nothing for now.")
    pause_reason: TickReason | None = strawberry.field(
        description="Why it was paused by itself; null while it is not paused, and when a person paused it."
    )
    overlap_policy: OverlapPolicy = strawberry.field(description="What happens while a run of the job is at work.")
    missed_run_policy: MissedRunPolicy = strawberry.field(description="What happens after nobody was there.")
    next_run_at: datetime | None = strawberry.field(description="The next moment; null while it is paused.")
    last_run_at: datetime | None = strawberry.field(description="The last moment whose run was started.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it was last set, paused or resumed by a person.")
    row: strawberry.Private[Row]

    @strawberry.field(description="Limits of the runs it starts; others are the installation's.")
    def limits(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(database.from_json(self.row["schedule_limits"]))

    @strawberry.field(description="The next moments; none while it is paused.")
    def next_runs(self, first: Shown = 5) -> list[datetime]:
        """Computed when asked for."""
        return [moment.at for moment in schedules.next_runs(self.row, first=first)]

    @strawberry.field(
        description="What a change of the clocks does to one of the next five runs, in a sentence; null if nothing."
    )
    def note(self) -> str | None:
        """About what comes soon only."""
        return schedules.timing_of(self.row).note(schedules.next_runs(self.row, first=schedules.NOTED))

    @strawberry.field(description="What became of the moments that came, newest first: 1,000 or 90 days at most.")
    async def ticks(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[ScheduleTick]:
        """One page of the history."""
        job_id = self.row["schedule_job_id"]
        return await paginate(
            fetch=by_one_key(partial(schedules.ticks, job_id)),
            count=lambda: schedules.count_ticks(job_id),
            first=first,
            after=after,
            last=last,
            before=before,
            key=_BY_MOMENT,
            node=_tick,
        )


@strawberry.type(description="What a schedule would do.")
class SchedulePreview:
    """The next runs of a schedule that need not exist."""

    next_runs: list[datetime] = strawberry.field(description="The next moments, from now.")
    note: str | None = strawberry.field(
        description="What a change of the clocks does to one of the next five of them, in a sentence; null if nothing."
    )


@strawberry.type
class SchedulesQuery:
    """What can be asked before there is a schedule."""

    @strawberry.field(
        description="The next runs that a schedule would have, for forms. VALIDATION_ERROR says which field of the "
        "expression is wrong, or that there is no such time zone.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def preview_schedule(
        self,
        cron_expression: Annotated[
            str,
            strawberry.argument(
                description="Minute, hour, day of the month, month and day of the week, with names, lists, ranges, "
                "steps, `L` and `#`; or a nickname such as `@daily`. Up to 100 characters."
            ),
        ],
        time_zone: Annotated[
            str, strawberry.argument(description="An IANA time zone, such as `Europe/Madrid`.")
        ] = "UTC",
        first: Shown = 5,
    ) -> SchedulePreview:
        """Nothing is stored."""
        timing, found = await schedules.preview(cron_expression, time_zone, first=first)
        return SchedulePreview(next_runs=[moment.at for moment in found], note=timing.note(found))


def schedule_of(row: Row) -> JobSchedule | None:
    """The schedule in a row of `models.schedule_queries` or of a job; None when the job has none."""
    if row["schedule_job_id"] is None:
        return None
    reason = row["schedule_pause_reason"]
    return JobSchedule(
        cron_expression=row["schedule_cron_expression"],
        time_zone=row["schedule_time_zone"],
        is_paused=row["schedule_is_paused"],
        pause_reason=None if reason is None else TickReason(reason),
        overlap_policy=OverlapPolicy(row["schedule_overlap_policy"]),
        missed_run_policy=MissedRunPolicy(row["schedule_missed_run_policy"]),
        next_run_at=row["schedule_next_run_at"],
        last_run_at=row["schedule_last_run_at"],
        created_at=row["schedule_created_at"],
        updated_at=row["schedule_updated_at"],
        row=row,
    )


async def load_schedule(context: Context, job_id: UUID) -> JobSchedule | None:
    """The schedule of a job that the viewer may see, loaded for all jobs of the answer at once."""
    row = await context.load(_load_schedules, job_id)
    return None if row is None else schedule_of(row)


async def _load_schedules(_context: Context, job_ids: list[UUID]) -> Sequence[Row | None]:
    found = await schedules.by_jobs(job_ids)
    return [found.get(job_id) for job_id in job_ids]


async def _load_runs(context: Context, run_ids: list[UUID]) -> Sequence[Row | None]:
    found = await execution_rows.find(run_ids)
    return [
        row if (row := found.get(run_id)) is not None and access.sees_execution(context.actor, row) else None
        for run_id in run_ids
    ]


def _tick(row: Row) -> ScheduleTick:
    return ScheduleTick(
        tick_at=row["tick_at"],
        outcome=TickOutcome(row["outcome"]),
        reason=None if row["reason"] is None else TickReason(row["reason"]),
        decided_at=row["decided_at"],
        run_id=row["run_id"],
    )
