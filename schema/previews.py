"""The preview of a crawl: a few pages, nothing kept."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

import strawberry

from errors import ServiceUnavailable
from models.jobs import CloseReason
from models.logs import LogLevel
from models.permissions import Permission
from resolvers import previews
from schema.context import Context
from schema.permissions import requires
from schema.run_ledger import RejectedItem, RunHost, host_of, rejected_item
from schema.runs import FailedRequest
from schema.scalars import JSON, BigInt
from tasks.crawl.ledger import COLUMNS
from tasks.crawl.preview import Preview

Info = strawberry.Info[Context, None]


@strawberry.input(
    description="What to look at: a job, with parts of its input changed where they are given, or a tool with an input."
)
class PreviewJobInput:
    """A job or an input."""

    job_id: strawberry.ID | None = strawberry.field(default=None, description="The job; or else `toolId`.")
    tool_id: strawberry.ID | None = strawberry.field(default=None, description="The tool; or else `jobId`.")
    start_urls: strawberry.Maybe[list[str] | None] = strawberry.field(description="As in `CreateJobInput`.")
    state: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateJobInput`.")
    username: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateJobInput`.")
    starting_name: strawberry.Maybe[str | None] = strawberry.field(description="As in `CreateJobInput`.")
    config: strawberry.Maybe[JSON | None] = strawberry.field(description="As in `CreateJobInput`.")
    pages: int = strawberry.field(default=5, description="How many pages to fetch at most: 1 to 5.")

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


@strawberry.type(description="A page that a preview read.")
class PreviewPage:
    """A page."""

    url: str = strawberry.field(description="Where it was, after redirects.")
    status: int = strawberry.field(description="The status of the answer.")
    milliseconds: int = strawberry.field(description="How long the answer took.")
    bytes: BigInt = strawberry.field(description="Bytes of it.")
    items: int = strawberry.field(description="Items found on it that fit.")
    links: int = strawberry.field(description="Links on it that a run would follow.")
    errors: list[str] = strawberry.field(description="What could not be read.")


@strawberry.type(description="Something that a preview found.")
class PreviewItem:
    """An item."""

    url: str = strawberry.field(description="The page it was found on.")
    data: JSON = strawberry.field(description="What was found, in the shape of the spider's output.")


@strawberry.type(description="A line that the crawler wrote.")
class PreviewLine:
    """A line."""

    time: datetime = strawberry.field(description="When.")
    level: LogLevel = strawberry.field(description="How grave.")
    message: str = strawberry.field(description="What it says.")


@strawberry.type(description="A few pages of a crawl, of which nothing is kept.")
class PreviewJobPayload:
    """What a preview found."""

    close_reason: CloseReason | None = strawberry.field(
        description="Why it ended: FINISHED means that a run would end there too. Null when the crawler was lost."
    )
    detail: str | None = strawberry.field(description="More about that, for people.")
    pages: list[PreviewPage] = strawberry.field(description="The pages, in the order of their coming.")
    items: list[PreviewItem] = strawberry.field(description="Items that fit: the first 100, up to 4 MiB.")
    rejected_items: list[RejectedItem] = strawberry.field(description="Items that do not fit, and what is wrong.")
    failed_requests: list[FailedRequest] = strawberry.field(description="Requests that ended without a page.")
    lines: list[PreviewLine] = strawberry.field(description="The log: the first 500 lines.")
    hosts: list[RunHost] = strawberry.field(description="What it asked of each host.")


@strawberry.type
class PreviewsMutation:
    """Trying out."""

    @strawberry.mutation(
        description="Crawl up to five pages of a job or of an input, in up to 25 seconds, and answer with all that was "
        "found. Nothing is kept, counted or told to anybody. Ends at once when you hang up. RATE_LIMIT_EXCEEDED while "
        "a preview of yours is at work, or too many of others are.",
        extensions=[requires(Permission.JOB_RUN)],
    )
    async def preview_job(
        self, info: Info, input: Annotated[PreviewJobInput, strawberry.argument(description="What to look at.")]
    ) -> PreviewJobPayload:
        """A short crawl."""
        crawl = previews.run(
            info.context.actor, job_id=input.job_id, tool_id=input.tool_id, parts=input.parts(), pages=input.pages
        )
        return _payload(await _while_there(info.context, crawl))


async def _while_there(context: Context, work: Coroutine[Any, Any, Preview]) -> Preview:
    """The result of `work`, which is cancelled when whoever asked has left; raises ServiceUnavailable then."""
    if context.left is None:
        return await work
    task = asyncio.create_task(work, name="preview")
    left = asyncio.ensure_future(context.left())
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
    if task.cancelled():
        raise ServiceUnavailable("The preview was given up, as nobody waits for it.")
    return task.result()


def _payload(found: Preview) -> PreviewJobPayload:
    return PreviewJobPayload(
        close_reason=found.close_reason,
        detail=found.detail,
        pages=[
            PreviewPage(
                url=page["url"],
                status=page["status"],
                milliseconds=page["milliseconds"],
                bytes=BigInt(page["bytes"]),
                items=page["items"],
                links=page["requests"],
                errors=[error["message"] for error in page["errors"]],
            )
            for page in found.pages
        ],
        items=[PreviewItem(url=item["url"], data=JSON(item["data"])) for item in found.items],
        rejected_items=[rejected_item(each["url"], each["data"], each["faults"]) for each in found.rejected],
        failed_requests=[
            FailedRequest(url=each["url"], reason=each["reason"], detail=each["detail"]) for each in found.failed
        ],
        lines=[
            PreviewLine(time=datetime.fromtimestamp(line.timestamp / 1000, UTC), level=line.level, message=line.message)
            for line in found.lines
        ],
        hosts=[
            host_of({"host": host, **{name: counts[name] for name in COLUMNS}}) for host, counts in found.hosts.items()
        ],
    )
