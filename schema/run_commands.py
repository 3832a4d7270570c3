"""Commands on runs: start, stop, repeat, go on."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from models.permissions import Permission
from resolvers import runs
from schema.context import Context
from schema.permissions import requires
from schema.runs import JobRun, RunLimitsInput, load_run

Info = strawberry.Info[Context, None]


@strawberry.input(description="Which job to run, and how far.")
class RunJobInput:
    """A new run."""

    job_id: strawberry.ID = strawberry.field(description="The job.")
    limits: RunLimitsInput | None = strawberry.field(default=None, description="Bounds of the run.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with the run that the first call made."
    )


@strawberry.input(description="Which run to stop.")
class CancelJobRunInput:
    """A run to stop."""

    id: strawberry.ID = strawberry.field(description="The run.")


@strawberry.input(description="Which run to repeat from the start.")
class RetryJobRunInput:
    """A run to repeat."""

    id: strawberry.ID = strawberry.field(description="The run; it must have ended.")
    idempotency_key: str | None = strawberry.field(default=None, description="As in `RunJobInput`.")


@strawberry.input(description="Which run to go on with.")
class ResumeJobRunInput:
    """A run to go on with."""

    id: strawberry.ID = strawberry.field(description="The run; it must have ended.")
    limits: RunLimitsInput | None = strawberry.field(
        default=None, description="New bounds; counts go on from where the run ended."
    )
    idempotency_key: str | None = strawberry.field(default=None, description="As in `RunJobInput`.")


@strawberry.type(description="A run.")
class JobRunPayload:
    """What the commands answer with."""

    run: JobRun = strawberry.field(description="The run, as it is now.")


@strawberry.type
class RunsMutation:
    """Commands on runs."""

    @strawberry.mutation(
        description="Start a run of a job. CONFLICT when the job's tool is not active; RATE_LIMIT_EXCEEDED when too "
        "many of yours wait.",
        extensions=[requires(Permission.JOB_RUN)],
    )
    async def run_job(
        self, info: Info, input: Annotated[RunJobInput, strawberry.argument(description="Which job, and how far.")]
    ) -> JobRunPayload:
        """A new run."""
        run_id = await runs.run(
            info.context.actor,
            input.job_id,
            limits=input.limits.given() if input.limits else None,
            idempotency_key=input.idempotency_key,
        )
        return await _payload(info.context, run_id)

    @strawberry.mutation(
        description="Stop a run: it is CANCELLED once nothing of it runs any more, and keeps what it found. A run that "
        "has ended stays as it is.",
        extensions=[requires(Permission.EXECUTION_CANCEL)],
    )
    async def cancel_job_run(
        self, info: Info, input: Annotated[CancelJobRunInput, strawberry.argument(description="Which run.")]
    ) -> JobRunPayload:
        """A request to stop."""
        return await _payload(info.context, await runs.cancel(info.context.actor, input.id))

    @strawberry.mutation(
        description="Crawl again from the start, with the job's present input and the run's limits. CONFLICT while the "
        "run has not ended.",
        extensions=[requires(Permission.JOB_RUN)],
    )
    async def retry_job_run(
        self, info: Info, input: Annotated[RetryJobRunInput, strawberry.argument(description="Which run.")]
    ) -> JobRunPayload:
        """A fresh run."""
        run_id = await runs.retry(info.context.actor, input.id, idempotency_key=input.idempotency_key)
        return await _payload(info.context, run_id)

    @strawberry.mutation(
        description="Go on where a run ended: a new run that fetches what was left and shares the items. CONFLICT "
        "while the run has not ended, when another run went on from it, or when nothing is left.",
        extensions=[requires(Permission.JOB_RUN)],
    )
    async def resume_job_run(
        self, info: Info, input: Annotated[ResumeJobRunInput, strawberry.argument(description="Which run.")]
    ) -> JobRunPayload:
        """A run that goes on."""
        run_id = await runs.resume(
            info.context.actor,
            input.id,
            limits=input.limits.given() if input.limits else None,
            idempotency_key=input.idempotency_key,
        )
        return await _payload(info.context, run_id)


async def _payload(context: Context, run_id: UUID) -> JobRunPayload:
    return JobRunPayload(run=await load_run(context, run_id))
