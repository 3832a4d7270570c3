"""Commands on schedules of jobs: set one, pause it, resume it, take it away."""

from __future__ import annotations

from typing import Annotated

import strawberry

from models.permissions import Permission
from models.schedules import MissedRunPolicy, OverlapPolicy
from resolvers import schedules
from schema.context import Context
from schema.jobs import Job, job_of
from schema.permissions import requires
from schema.runs import RunLimitsInput

Info = strawberry.Info[Context, None]


@strawberry.input(description="A schedule for a job. It takes the place of one that the job has.")
class SetJobScheduleInput:
    """Which job, and when it runs."""

    job_id: strawberry.ID = strawberry.field(description="The job.")
    cron_expression: str = strawberry.field(
        description="Minute, hour, day of the month, month and day of the week, with names, lists, ranges, steps, `L` "
        "and `#`; or a nickname such as `@daily`. Up to 100 characters. Where days of the month and of the week are "
        "both given, either will do, as in cron."
    )
    time_zone: str = strawberry.field(
        default="UTC",
        description="The IANA time zone whose clocks it goes by. A fixed time that the clocks jump over comes right "
        "after, one that they show twice the first time only; with `*` in minutes or hours it comes as they show it.",
    )
    is_paused: bool | None = strawberry.field(
        default=None, description="Whether it is paused; left out, a new one is not, and one that is stays so."
    )
    overlap_policy: OverlapPolicy = strawberry.field(
        default=OverlapPolicy.SKIP, description="What happens while a run of the job is at work."
    )
    missed_run_policy: MissedRunPolicy = strawberry.field(
        default=MissedRunPolicy.SKIP, description="What happens after nobody was there."
    )
    limits: RunLimitsInput | None = strawberry.field(default=None, description="Limits of the runs it starts.")


@strawberry.input(description="Whose schedule is paused.")
class PauseJobScheduleInput:
    """A schedule to pause."""

    job_id: strawberry.ID = strawberry.field(description="The job.")


@strawberry.input(description="Whose schedule goes on.")
class ResumeJobScheduleInput:
    """A schedule to resume."""

    job_id: strawberry.ID = strawberry.field(description="The job.")


@strawberry.input(description="Whose schedule goes.")
class DeleteJobScheduleInput:
    """A schedule to take away."""

    job_id: strawberry.ID = strawberry.field(description="The job.")


@strawberry.type(description="A job whose schedule changed.")
class JobSchedulePayload:
    """What the commands answer with."""

    job: Job = strawberry.field(description="The job with its schedule, as they are now.")


@strawberry.type
class SchedulesMutation:
    """What users do with schedules of their jobs."""

    @strawberry.mutation(
        description="Let a job run by itself, or change when it does. Its runs are its owner's and keep to the same "
        "limits as those of `runJob`. VALIDATION_ERROR says in which field of the expression the fault is; CONFLICT "
        "when its owner has as many schedules as they may.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def set_job_schedule(
        self, info: Info, input: Annotated[SetJobScheduleInput, strawberry.argument(description="The schedule.")]
    ) -> JobSchedulePayload:
        """A schedule."""
        row = await schedules.put(
            info.context.actor,
            input.job_id,
            cron_expression=input.cron_expression,
            time_zone=input.time_zone,
            is_paused=input.is_paused,
            overlap_policy=input.overlap_policy,
            missed_run_policy=input.missed_run_policy,
            limits=input.limits.given() if input.limits else None,
        )
        return JobSchedulePayload(job=job_of(row))

    @strawberry.mutation(
        description="Start no more runs by this schedule until it is resumed; runs that exist go on. NOT_FOUND when "
        "the job has no schedule. Once more changes nothing.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def pause_job_schedule(
        self, info: Info, input: Annotated[PauseJobScheduleInput, strawberry.argument(description="Which one.")]
    ) -> JobSchedulePayload:
        """A paused schedule."""
        return JobSchedulePayload(job=job_of(await schedules.pause(info.context.actor, input.job_id)))

    @strawberry.mutation(
        description="Let a paused schedule go on from now: moments that passed meanwhile are not made up for. "
        "NOT_FOUND when the job has no schedule. Once more changes nothing.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def resume_job_schedule(
        self, info: Info, input: Annotated[ResumeJobScheduleInput, strawberry.argument(description="Which one.")]
    ) -> JobSchedulePayload:
        """A schedule that goes on."""
        return JobSchedulePayload(job=job_of(await schedules.resume(info.context.actor, input.job_id)))

    @strawberry.mutation(
        description="Take a job's schedule away with its history. The job and its runs stay. NOT_FOUND when it has "
        "none.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def delete_job_schedule(
        self, info: Info, input: Annotated[DeleteJobScheduleInput, strawberry.argument(description="Which one.")]
    ) -> JobSchedulePayload:
        """A job without a schedule."""
        return JobSchedulePayload(job=job_of(await schedules.delete(info.context.actor, input.job_id)))
