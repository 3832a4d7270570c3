"""Job runs as clients see them: an execution with what it crawled, and the commands on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import strawberry

from models import database, execution_rows
from models.database import Row
from models.execution_rows import Condition
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.jobs import CloseReason, FileFormat, RunTrigger
from models.permissions import Permission
from resolvers import access, run_ledger, runs
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, common, register_kind
from schema.item_filters import ItemFilter, checked
from schema.jobs import Job, job_of_run
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.run_ledger import (
    Completeness,
    GoneItem,
    RejectedItem,
    RunHost,
    completeness_of,
    gone_of,
    host_of,
    rejected_of,
)
from schema.scalars import JSON, BigInt
from schema.tools import Tool, tool_of_run
from tasks.crawl.kind import KIND

Info = strawberry.Info[Context, None]
BY_POSITION: Final = (("id", int),)


publish(
    CloseReason,
    "Why a crawl ended.",
    FINISHED="Nothing was left to fetch.",
    STOPPED_BY_USER="Somebody stopped it.",
    ITEM_LIMIT="It had as many items as it may.",
    PAGE_LIMIT="It had fetched as many pages as it may.",
    BYTE_LIMIT="It had downloaded as much as it may.",
    DAILY_PAGE_LIMIT="Its owner's crawls had fetched as many pages that day (UTC) as they may.",
    TIME_LIMIT="Its time was up.",
    MEMORY_LIMIT="It used more memory than it may.",
    STALLED="No page came for ten minutes.",
    START_ERROR="It could not start.",
)
publish(
    RunTrigger,
    "What started a run.",
    API="A call.",
    RETRY="A call to run again from the start.",
    RESUME="A call to go on where a run ended.",
    SCHEDULE="The job's schedule.",
)
publish(
    FileFormat,
    "Formats of output files.",
    JSONL="One JSON object per line, nested as found.",
    CSV="A table; nested values become columns with dotted names.",
    XLSX="The same table as a workbook.",
)


@strawberry.type(description="A file made of a run's items.")
class OutputFile:
    """A file."""

    id: strawberry.ID = strawberry.field(description="The file's id.")
    format: FileFormat = strawberry.field(description="Its format.")
    filename: str = strawberry.field(description="The name it is downloaded under.")
    content_type: str = strawberry.field(description="Its media type.")
    size: BigInt = strawberry.field(description="Bytes.")
    sha256: str = strawberry.field(description="SHA-256 of its content, in hexadecimal.")
    row_count: BigInt = strawberry.field(description="Items in it.")
    created_at: datetime = strawberry.field(description="When it was made.")
    row: strawberry.Private[Row]

    @strawberry.field(description="A link that downloads it; it expires, an hour from now unless set otherwise.")
    async def url(self) -> str:
        """Signed for whoever asked."""
        return await runs.download_url(self.row)


@strawberry.type(description="One thing that a crawl found.")
class Item(Node):
    """An item."""

    url: str = strawberry.field(description="The page it was found on.")
    scraped_at: datetime = strawberry.field(description="When it was stored.")
    text: strawberry.Private[str]

    @strawberry.field(description="What was found, in the shape of the spider's output.")
    def data(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(database.from_json(self.text))


@strawberry.type(description="A request that ended without a page.")
class FailedRequest:
    """A failed request."""

    url: str = strawberry.field(description="What should have been fetched.")
    reason: str = strawberry.field(
        description="ROBOTS, BLOCKED_URL, OFF_SITE, HTTP_STATUS, TIMEOUT, DNS, CONNECTION, TLS, REDIRECTS, TOO_LARGE, "
        "UNSUPPORTED_CONTENT, OUTPUT_TOO_LARGE or INTERNAL. Expect new values."
    )
    detail: str | None = strawberry.field(description="For people.")


@strawberry.type(description="One crawl of a job.")
class JobRun(Execution, Node):
    """A run."""

    trigger: RunTrigger = strawberry.field(description="What started it.")
    close_reason: CloseReason | None = strawberry.field(description="Why the crawl ended; null until it has.")
    items_scraped: BigInt = strawberry.field(description="Items stored, those of the runs it went on from included.")
    items_skipped: BigInt = strawberry.field(
        description="Items that could become no property or product, because they lack what one needs; they are items "
        "all the same."
    )
    pages_crawled: BigInt = strawberry.field(description="Pages fetched.")
    errors_count: BigInt = strawberry.field(description="Requests without a page, and faults while reading pages.")
    bytes_downloaded: BigInt = strawberry.field(description="Bytes of response bodies.")
    requests_blocked: BigInt = strawberry.field(description="Requests that the address guard refused.")
    requests_disallowed: BigInt = strawberry.field(description="Requests that robots.txt disallows.")
    requests_dropped: BigInt = strawberry.field(
        description="Links that were not followed; `hosts` says why, for each host."
    )
    items_rejected: BigInt = strawberry.field(
        description="Items that do not fit the output of the spider; the first 10,000 are in `rejectedItems`."
    )
    items_unchanged: BigInt = strawberry.field(
        description="Items that the job's runs had found just so; a run that keeps only changes does not store them."
    )
    items_gone: BigInt | None = strawberry.field(
        description="Items that earlier runs found and this one is the first to miss. Null unless it keeps only "
        "changes and saw everything: no limit reached, no page lost, not far fewer items than usual."
    )
    completeness: Completeness | None = strawberry.field(
        description="How its items compare with those of the job's last runs; null when it did not come to its own "
        "end, or there is too little to compare with."
    )
    requests_throttled: BigInt = strawberry.field(description="Answers that asked for a slower pace (429 and 503).")
    only_changes: bool = strawberry.field(
        description="Whether it keeps only what is new or differs from the last time."
    )
    saves_products: bool = strawberry.field(description="Whether what it finds goes into products too.")
    job: Job = strawberry.field(description="The job it is a run of.")
    tool: Tool = strawberry.field(description="The tool it ran with.")
    retry_of_id: strawberry.ID | None = strawberry.field(description="The run that it repeats from the start.")
    resumed_from_id: strawberry.ID | None = strawberry.field(description="The run that it goes on from.")

    @strawberry.field(description="The input it runs with: the job's, as it was when the run was asked for.")
    def input(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(database.from_json(self.row["run_input"]))

    @strawberry.field(description="The limits it was given; others are the installation's.")
    def limits(self) -> JSON:
        """Decoded only when asked for."""
        return JSON(database.from_json(self.row["limits"]))

    @strawberry.field(description="What it found, in the order of finding, with what the runs it went on from found.")
    async def items(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[ItemFilter | None, strawberry.argument(description="Which items.")] = None,
    ) -> Connection[Item]:
        """One page of items."""
        run_id, dataset_id, actor = self.row["id"], self.row["dataset_id"], info.context.actor
        wanted = checked(filter, path=["filter"])

        return await paginate(
            fetch=by_one_key(partial(runs.items, actor, run_id, dataset_id, filter=wanted)),
            count=lambda: runs.count_items(run_id, dataset_id, filter=wanted),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_POSITION,
            node=_item,
        )

    @strawberry.field(description="Requests that ended without a page, and why.")
    async def failed_requests(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[FailedRequest]:
        """One page of them."""
        dataset_id = self.row["dataset_id"]

        return await paginate(
            fetch=by_one_key(partial(runs.failed_requests, dataset_id)),
            count=lambda: runs.count_failed_requests(dataset_id),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_POSITION,
            node=lambda row: FailedRequest(url=row["url"], reason=row["failure_reason"], detail=row["failure_detail"]),
        )

    @strawberry.field(description="Items that do not fit the output of the spider, and what is wrong in them.")
    async def rejected_items(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[RejectedItem]:
        """One page of them."""
        run_id, dataset_id = self.row["id"], self.row["dataset_id"]

        return await paginate(
            fetch=by_one_key(partial(run_ledger.rejected_items, run_id, dataset_id)),
            count=lambda: run_ledger.count_rejected_items(run_id, dataset_id),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_POSITION,
            node=rejected_of,
        )

    @strawberry.field(description="What it asked of each host, in the order of meeting them.")
    async def hosts(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[RunHost]:
        """One page of them."""
        run_id = self.row["id"]

        return await paginate(
            fetch=by_one_key(partial(run_ledger.hosts, run_id)),
            count=lambda: run_ledger.count_hosts(run_id),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_POSITION,
            node=host_of,
        )

    @strawberry.field(description="What it was the first to miss, without that which later runs found again.")
    async def gone_items(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[GoneItem]:
        """One page of them."""
        run_id = self.row["id"]

        return await paginate(
            fetch=by_one_key(partial(run_ledger.gone_items, run_id)),
            count=lambda: run_ledger.count_gone_items(run_id),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_POSITION,
            node=gone_of,
        )

    @strawberry.field(description="Its files; there are some once the crawl has ended, also when it was stopped.")
    async def output_files(self, info: Info) -> list[OutputFile]:
        """Loaded for many runs at once."""
        rows: list[Row] = await info.context.load(_load_files, self.row["id"])
        return [_file(row) for row in rows]


@strawberry.input(description="Bounds of a run; what is left out is the installation's.")
class RunLimitsInput:
    """Limits of a run."""

    max_pages: int | None = strawberry.field(default=None, description="Pages to fetch: 1 to 1,000,000.")
    max_items: int | None = strawberry.field(default=None, description="Items to store: 1 to 1,000,000.")
    max_depth: int | None = strawberry.field(default=None, description="Links away from a start URL: 0 to 100.")
    max_bytes: BigInt | None = strawberry.field(default=None, description="Bytes to download, from 1 MiB.")
    timeout_seconds: int | None = strawberry.field(
        default=None, description="Seconds of work, waiting not counted: 1 to 86,400."
    )
    memory_megabytes: int | None = strawberry.field(default=None, description="Memory of the crawler: 128 to 16,384.")

    def given(self) -> dict[str, int]:
        """The limits that were set, under the names they are stored with."""
        values = {
            "maxPages": self.max_pages,
            "maxItems": self.max_items,
            "maxDepth": self.max_depth,
            "maxBytes": self.max_bytes,
            "timeoutSeconds": self.timeout_seconds,
            "memoryMegabytes": self.memory_megabytes,
        }
        return {name: value for name, value in values.items() if value is not None}


@strawberry.input(description="Which runs.")
class JobRunFilter:
    """Conditions; all given ones must hold."""

    job_id: strawberry.ID | None = strawberry.field(default=None, description="Runs of this job.")
    tool_id: strawberry.ID | None = strawberry.field(default=None, description="Runs with this tool.")
    statuses: list[ExecutionStatus] | None = strawberry.field(default=None, description="Runs in one of these.")
    queued_from: datetime | None = strawberry.field(default=None, description="Asked for at this moment or later.")
    queued_to: datetime | None = strawberry.field(default=None, description="Asked for before this moment.")


@strawberry.type
class RunsQuery:
    """What can be read of runs."""

    @strawberry.field(
        description="Your runs (administrators: everybody's), newest first.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def job_runs(
        self,
        info: Info,
        filter: Annotated[JobRunFilter | None, strawberry.argument(description="Which runs.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[JobRun]:
        """One page of runs, in one statement."""
        context = info.context
        conditions = _conditions(filter)

        return await paginate(
            fetch=by_one_key(partial(runs.page, context.actor, conditions=conditions)),
            count=lambda: runs.count(context.actor, conditions=conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: run_of(row, context),
        )

    @strawberry.field(
        description="A run. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.JOB_READ)],
    )
    async def job_run(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The run.")]
    ) -> JobRun | None:
        """One run."""
        return run_of(await access.run(info.context.actor, id, to=Permission.JOB_READ), info.context)


@register_kind(KIND)
def run_of(row: Row, context: Context) -> JobRun:
    """The run in a row of `models.execution_rows`."""
    tool = tool_of_run(row)
    return JobRun(
        id=strawberry.ID(encode_id(Prefix.RUN, row["id"])),
        trigger=RunTrigger(row["trigger"]),
        close_reason=CloseReason(row["close_reason"]) if row["close_reason"] else None,
        items_scraped=BigInt(row["items_scraped"]),
        items_skipped=BigInt(row["items_skipped"]),
        pages_crawled=BigInt(row["pages_crawled"]),
        errors_count=BigInt(row["errors_count"]),
        bytes_downloaded=BigInt(row["bytes_downloaded"]),
        requests_blocked=BigInt(row["requests_blocked"]),
        requests_disallowed=BigInt(row["requests_robots"]),
        requests_throttled=BigInt(row["requests_throttled"]),
        requests_dropped=BigInt(row["requests_dropped"]),
        items_rejected=BigInt(row["items_rejected"]),
        items_unchanged=BigInt(row["items_unchanged"]),
        items_gone=None if row["items_gone"] is None else BigInt(row["items_gone"]),
        completeness=completeness_of(row),
        only_changes=row["only_changes"],
        saves_products=row["saves_products"],
        job=job_of_run(row, tool),
        tool=tool,
        retry_of_id=_run_id(row["retry_of_id"]),
        resumed_from_id=_run_id(row["resumed_from_id"]),
        **common(row, context),
    )


async def load_run(context: Context, run_id: UUID) -> JobRun:
    """A run that the viewer may see; raises NotFound."""
    return run_of(await access.visible_execution(context.actor, run_id, to=Permission.JOB_READ), context)


@register_node(Prefix.RUN)
async def _run_node(context: Context, run_id: UUID) -> JobRun | None:
    if not context.actor.may(Permission.JOB_READ):
        return None
    row = await context.load(_load_runs, run_id)
    return None if row is None else run_of(row, context)


async def _load_runs(context: Context, run_ids: list[UUID]) -> Sequence[Row | None]:
    found = await runs.find(context.actor, run_ids)
    return [found.get(run_id) for run_id in run_ids]


async def _load_files(_context: Context, run_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await runs.output_files(run_ids)
    return [found[run_id] for run_id in run_ids]


def _conditions(filter: JobRunFilter | None) -> list[Condition]:
    if filter is None:
        return []
    given = (
        filter.job_id and execution_rows.of_job(access.uuid_of(filter.job_id, Prefix.JOB)),
        filter.tool_id and execution_rows.of_tool(access.uuid_of(filter.tool_id, Prefix.TOOL)),
        filter.statuses and execution_rows.in_statuses([status.value for status in filter.statuses]),
        filter.queued_from and execution_rows.queued_from(filter.queued_from),
        filter.queued_to and execution_rows.queued_to(filter.queued_to),
    )
    return [condition for condition in given if condition]


def _run_id(value: UUID | None) -> strawberry.ID | None:
    return None if value is None else strawberry.ID(encode_id(Prefix.RUN, value))


def _item(row: Row) -> Item:
    return Item(
        id=strawberry.ID(encode_id(Prefix.ITEM, UUID(int=row["id"]))),
        url=row["url"],
        scraped_at=row["scraped_at"],
        text=row["data"],
    )


def _file(row: Row) -> OutputFile:
    return OutputFile(
        id=strawberry.ID(encode_id(Prefix.FILE, row["id"])),
        format=FileFormat(row["format"]),
        filename=row["filename"],
        content_type=row["content_type"],
        size=BigInt(row["size"]),
        sha256=row["sha256"],
        row_count=BigInt(row["row_count"]),
        created_at=row["created_at"],
        row=row,
    )
