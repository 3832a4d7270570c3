"""Commands on jobs: make one, change one, delete one.

Runs are `schema/runs.py`'s, which this module knows because a job can be made and run in one step.
"""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from models.job_queries import JobSettings
from models.permissions import Permission
from resolvers import jobs
from schema.context import Context
from schema.jobs import Job, job_of
from schema.permissions import requires
from schema.runs import JobRun, RunLimitsInput, load_run
from schema.scalars import JSON

Info = strawberry.Info[Context, None]


@strawberry.input(
    description="A new job. Its input is `config` with `startUrls`, `state`, `username` and `startingName` put in "
    "where they are given; together they must fit the tool's `inputSchema`, so a tool that knows no `state` takes none."
)
class CreateJobInput:
    """What a new job needs."""

    tool_id: strawberry.ID = strawberry.field(description="What it crawls with; the tool must be active.")
    name: str = strawberry.field(description="The name to show, up to 120 characters.")
    start_urls: list[str] | None = strawberry.field(
        default=None, description="Where crawls begin; not to be given in `config` as well."
    )
    state: str | None = strawberry.field(
        default=None, description="The state or region to look in, for tools that ask for one."
    )
    username: str | None = strawberry.field(
        default=None, description="The user name to look for, for tools that ask for one."
    )
    starting_name: str | None = strawberry.field(
        default=None, description="The name to begin with, for tools that ask for one."
    )
    config: JSON | None = strawberry.field(
        default=None,
        description="All else that the tool's `inputSchema` has: an object. The whole input has up to 256 KiB.",
    )
    only_changes: bool | None = strawberry.field(
        default=None, description="Let its runs keep only items that are new or differ from the last time."
    )
    saves_products: bool | None = strawberry.field(
        default=None,
        description="Put what its runs find into the catalogue of products as well, for those who may change it.",
    )
    alarm_percent: int | None = strawberry.field(
        default=None,
        description="Call a run incomplete with less than this share, in percent, of the items it usually has: 0 to "
        "100, 50 unless given; 0 switches it off.",
    )
    run: bool = strawberry.field(default=False, description="Queue its first run at once.")
    limits: RunLimitsInput | None = strawberry.field(
        default=None, description="Bounds of that first run; without `run` they are checked and forgotten."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Up to 255 characters. Repeat a call with its key, and it answers with the job and the run that "
        "the first call made; CONFLICT when the rest of the input is not the same.",
    )


@strawberry.input(
    description="Changes of a job; what is left out stays as it is. The input as a whole must fit the tool again. Runs "
    "that exist keep the input they have."
)
class UpdateJobInput:
    """Which job changes, and what of it."""

    id: strawberry.ID = strawberry.field(description="The job.")
    name: strawberry.Maybe[str] = strawberry.field(description="The name to show, up to 120 characters.")
    start_urls: strawberry.Maybe[list[str] | None] = strawberry.field(
        description="As in `CreateJobInput`; null takes them away."
    )
    state: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateJobInput`; null takes it away.")
    username: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateJobInput`; null takes it away.")
    starting_name: strawberry.Maybe[str | None] = strawberry.field(
        description="As in `CreateJobInput`; null takes it away."
    )
    config: strawberry.Maybe[JSON | None] = strawberry.field(
        description="Replaces all of the input that has no field of its own here."
    )
    only_changes: strawberry.Maybe[bool] = strawberry.field(description="As in `CreateJobInput`.")
    saves_products: strawberry.Maybe[bool] = strawberry.field(description="As in `CreateJobInput`.")
    alarm_percent: strawberry.Maybe[int] = strawberry.field(description="As in `CreateJobInput`.")

    def parts(self) -> dict[str, Any]:
        """The given parts of the input."""
        given = {
            "startUrls": self.start_urls,
            "state": self.state,
            "username": self.username,
            "startingName": self.starting_name,
            "config": self.config,
        }
        return {name: some.value for name, some in given.items() if some is not None}

    def settings(self) -> JobSettings:
        """The given settings."""
        return JobSettings(
            None if self.only_changes is None else self.only_changes.value,
            None if self.saves_products is None else self.saves_products.value,
            None if self.alarm_percent is None else self.alarm_percent.value,
        )


@strawberry.input(description="Which job goes.")
class DeleteJobInput:
    """A job to delete."""

    id: strawberry.ID = strawberry.field(description="The job.")


@strawberry.type(description="A new job.")
class CreateJobPayload:
    """A new job."""

    job: Job = strawberry.field(description="The job.")
    run: JobRun | None = strawberry.field(description="Its first run; null unless it was asked for.")


@strawberry.type(description="A job that changed.")
class UpdateJobPayload:
    """A job that changed."""

    job: Job = strawberry.field(description="The job as it is now.")


@strawberry.type(description="A job that is gone.")
class DeleteJobPayload:
    """A job that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class JobsMutation:
    """What users do with their jobs."""

    @strawberry.mutation(
        description="Make a job and, if wanted, queue its first run: both happen or neither does. VALIDATION_ERROR "
        "with `details.path`, and all faults in `details.faults`, when the input does not fit the tool; with "
        "`details.reason` BLOCKED_URL when it names an address that crawls may not reach. NOT_FOUND for an unknown "
        "tool, CONFLICT for an inactive one.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def create_job(
        self, info: Info, input: Annotated[CreateJobInput, strawberry.argument(description="The job.")]
    ) -> CreateJobPayload:
        """A new job."""
        context = info.context
        created = await jobs.create(
            context.actor,
            tool_id=input.tool_id,
            name=input.name,
            parts={
                "startUrls": input.start_urls,
                "state": input.state,
                "username": input.username,
                "startingName": input.starting_name,
                "config": input.config,
            },
            settings=JobSettings(input.only_changes, input.saves_products, input.alarm_percent),
            run=input.run,
            limits=input.limits.given() if input.limits else None,
            idempotency_key=input.idempotency_key,
        )
        run = None if created.run_id is None else await load_run(context, created.run_id)
        return CreateJobPayload(job=job_of(created.job), run=run)

    @strawberry.mutation(
        description="Change a job. Refuses what `createJob` refuses; CONFLICT when others keep changing it meanwhile.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def update_job(
        self, info: Info, input: Annotated[UpdateJobInput, strawberry.argument(description="What changes.")]
    ) -> UpdateJobPayload:
        """A changed job."""
        name = None if input.name is None else input.name.value
        row = await jobs.update(info.context.actor, input.id, name=name, parts=input.parts(), settings=input.settings())
        return UpdateJobPayload(job=job_of(row))

    @strawberry.mutation(
        description="Delete a job with its runs, their items, logs and files. CONFLICT while a run waits or works: "
        "cancel it first.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def delete_job(
        self, info: Info, input: Annotated[DeleteJobInput, strawberry.argument(description="Which job.")]
    ) -> DeleteJobPayload:
        """The end of a job."""
        await jobs.delete(info.context.actor, input.id)
        return DeleteJobPayload(deleted_id=input.id)
