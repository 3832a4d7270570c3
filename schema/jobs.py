"""Jobs as clients see them: a tool with an input that belongs to somebody.

A job's input may be large, so it is loaded only when it is asked for, for all jobs of an answer at once. Commands
are in `schema/job_commands.py`; what is allowed is decided in `resolvers/jobs.py` and at the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from errors import NotFound
from models.database import Row
from models.ids import Prefix, encode_id
from models.job_queries import JobOrderField
from models.permissions import Actor, Permission, Role
from models.users import Account
from resolvers import access, jobs, texts
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.ordering import OrderDirection
from schema.pagination import After, Before, Column, Connection, First, Last, paginate
from schema.permissions import requires
from schema.scalars import JSON
from schema.schedules import JobSchedule, load_schedule, schedule_of
from schema.tools import Tool, tool_of
from schema.users import User, load_user

Info = strawberry.Info[Context, None]

publish(
    JobOrderField,
    "What a list of jobs is sorted by.",
    CREATED_AT="When it was made.",
    NAME="Its name, without regard to case.",
    UPDATED_AT="When it last changed.",
)
_KEYS: Final[dict[JobOrderField, tuple[Column, ...]]] = {
    JobOrderField.CREATED_AT: (("id", UUID),),
    JobOrderField.NAME: (("name", str), ("id", UUID)),
    JobOrderField.UPDATED_AT: (("updated_at", datetime), ("id", UUID)),
}


@strawberry.type(description="A tool with an input that belongs to a user.")
class Job(Node):
    """A job."""

    name: str = strawberry.field(description="The name to show.")
    tool: Tool = strawberry.field(description="What it crawls with; the tool may have been deactivated since.")
    only_changes: bool = strawberry.field(
        description="Whether its runs keep only items that are new or differ from the last time."
    )
    saves_products: bool = strawberry.field(
        description="Whether what its runs find goes into the catalogue of products as well."
    )
    alarm_percent: int = strawberry.field(
        description="A run is incomplete with less than this share, in percent, of the items it usually has; 0: never."
    )
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    key: strawberry.Private[UUID]
    owner_id: strawberry.Private[UUID]
    owner_account: strawberry.Private[Account | None]
    row: strawberry.Private[Row | None]

    @strawberry.field(
        description="What its runs work with: `config`, and in the same object `startUrls`, `state`, `username` and "
        "`startingName` where they were given."
    )
    async def input(self, info: Info) -> JSON:
        """Loaded for all jobs of the answer at once."""
        return await info.context.load(_load_inputs, self.key)

    @strawberry.field(description="Whose it is.")
    async def owner(self, info: Info) -> User | None:
        """From the same row where that has it."""
        if self.owner_account is not None:
            return User.seen_by(info.context.actor, self.owner_account)
        return await load_user(info.context, self.owner_id)

    @strawberry.field(description="When it runs by itself; null without a schedule.")
    async def schedule(self, info: Info) -> JobSchedule | None:
        """From the same row where that has it."""
        return await load_schedule(info.context, self.key) if self.row is None else schedule_of(self.row)


@strawberry.input(description="Which jobs.")
class JobFilter:
    """Conditions; all given ones must hold."""

    tool_id: strawberry.ID | None = strawberry.field(default=None, description="Jobs with this tool.")
    owner_id: strawberry.ID | None = strawberry.field(
        default=None, description="Jobs of this user; of others than oneself for administrators only, else NOT_FOUND."
    )
    is_scheduled: bool | None = strawberry.field(default=None, description="Jobs with a schedule, or without one.")


@strawberry.input(description="How a list of jobs is sorted.")
class JobOrder:
    """An order."""

    field: JobOrderField = strawberry.field(default=JobOrderField.CREATED_AT, description="By what.")
    direction: OrderDirection = strawberry.field(default=OrderDirection.DESC, description="Which way.")


@strawberry.type
class JobsQuery:
    """What can be read of jobs."""

    @strawberry.field(
        description="Your jobs (administrators: everybody's), newest first unless said otherwise.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def jobs(
        self,
        info: Info,
        filter: Annotated[JobFilter | None, strawberry.argument(description="Which jobs.")] = None,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Only jobs with this text in their name, in any case; up to 200 characters."
            ),
        ] = None,
        order_by: Annotated[JobOrder | None, strawberry.argument(description="How they are sorted.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Job]:
        """One page of jobs with their tools, owners and schedules, in one statement."""
        actor = info.context.actor
        order = order_by or JobOrder()
        is_descending = order.direction is OrderDirection.DESC
        conditions = {**_conditions(actor, filter or JobFilter()), "search": texts.search(search)}

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> list[Row]:
            return await jobs.page(
                actor,
                order=order.field,
                descending=is_descending,
                after=after_key,
                before=before_key,
                backwards=backwards,
                limit=limit,
                **conditions,
            )

        return await paginate(
            fetch=fetch,
            count=lambda: jobs.count(actor, **conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            key=_key(order.field, is_descending),
            node=job_of,
        )

    @strawberry.field(
        description="A job. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def job(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The job.")]
    ) -> Job | None:
        """One job."""
        return job_of(await access.job(info.context.actor, id, to=Permission.JOB_READ))


def job_of(row: Row) -> Job:
    """The job in a row of `models.job_queries`."""
    return Job(
        id=strawberry.ID(encode_id(Prefix.JOB, row["id"])),
        name=row["name"],
        tool=tool_of(row),
        only_changes=row["only_changes"],
        saves_products=row["saves_products"],
        alarm_percent=row["alarm_percent"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        key=row["id"],
        owner_id=row["owner_id"],
        owner_account=Account(
            id=row["owner_id"],
            email=row["owner_email"],
            username=row["owner_username"],
            name=row["owner_name"],
            role=Role(row["owner_role"]),
            created_at=row["owner_created_at"],
        ),
        row=row,
    )


def job_of_run(row: Row, tool: Tool) -> Job:
    """The job in a row of `models.execution_rows`, with the tool in it; its owner is loaded when asked for."""
    return Job(
        id=strawberry.ID(encode_id(Prefix.JOB, row["job_id"])),
        name=row["job_name"],
        tool=tool,
        only_changes=row["job_only_changes"],
        saves_products=row["job_saves_products"],
        alarm_percent=row["job_alarm_percent"],
        created_at=row["job_created_at"],
        updated_at=row["job_updated_at"],
        key=row["job_id"],
        owner_id=row["owner_id"],
        owner_account=None,
        row=None,
    )


async def load_job(context: Context, job_id: UUID) -> Job | None:
    """The job, if the actor may see it; loaded for all who ask in one turn."""
    if not context.actor.may(Permission.JOB_READ):
        return None
    row = await context.load(_load_jobs, job_id)
    return job_of(row) if row is not None and access.sees_job(context.actor, row["owner_id"]) else None


register_node(Prefix.JOB)(load_job)


async def _load_jobs(_context: Context, job_ids: list[UUID]) -> Sequence[Row | None]:
    found = await jobs.by_ids(job_ids)
    return [found.get(job_id) for job_id in job_ids]


async def _load_inputs(_context: Context, job_ids: list[UUID]) -> Sequence[JSON]:
    found = await jobs.inputs(job_ids)
    return [JSON(found.get(job_id, {})) for job_id in job_ids]


def _conditions(actor: Actor, filter: JobFilter) -> dict[str, Any]:
    """The filter's ids; raises NotFound, with the path, for those that cannot be any that the actor knows."""
    try:
        tool_id = None if filter.tool_id is None else access.uuid_of(filter.tool_id, Prefix.TOOL)
    except NotFound as error:
        raise NotFound(error.message, path=["filter", "toolId"]) from None
    try:
        owner_id = None if filter.owner_id is None else access.uuid_of(filter.owner_id, Prefix.USER)
        if owner_id is not None and not access.sees_user(actor, owner_id):
            raise access.missing()
    except NotFound as error:
        raise NotFound(error.message, path=["filter", "ownerId"]) from None
    return {"tool_id": tool_id, "owner_id": owner_id, "is_scheduled": filter.is_scheduled}


def _key(field: JobOrderField, is_descending: bool) -> tuple[Column, ...]:
    sign = "-" if is_descending else ""
    return tuple((sign + name, kind) for name, kind in _KEYS[field])
