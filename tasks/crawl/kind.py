"""The kind of execution that crawls: runs the crawler until the frontier is empty, then makes the files.

A crawler that dies is started again on the same frontier within the same attempt, as long as it gets on; a worker
that dies leaves the frontier to the next attempt. A crawl that was stopped or ran into a limit keeps what it had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from adapters.storage import Storage, StorageUnavailable
from models import crawl_usage, jobs
from models.database import from_json
from models.executions import ExecutionStatus, Failure, FailureCode
from models.jobs import CloseReason
from settings import Settings
from tasks.crawl import completeness, datasets, frontier, outputs, settling, versions
from tasks.crawl.completeness import Completeness
from tasks.crawl.crawl import Closed, Crawl, Progress
from tasks.crawl.crawler.protocol import FailureReason
from tasks.crawl.plan import Plan
from tasks.crawl.spiders import output_columns
from tasks.work import Outcome, Work

KIND: Final = jobs.KIND
_FAILED: Final = ExecutionStatus.FAILED
MAX_IDLE_LOSSES: Final = frontier.MAX_STARTS + 1
"""So many crawlers in a row may die without having settled anything; one page alone must not get there."""


class CrawlKind:
    """Crawls."""

    name = KIND
    is_short = False
    cancel_grace_seconds = 120.0  # the processes are gone after 4; the rest is for the files
    timeout_grace_seconds = 120.0

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.slots = settings.worker_crawl_slots
        self.running_per_owner = settings.max_running_per_user
        self._settings = settings
        self._storage = storage

    async def run(self, work: Work) -> Outcome:
        """Crawl to the end and store the files; every end but a lost lease has files."""
        plan, progress = await _load(work)
        await _warn(work, plan)
        await work.advance(0, stage="CRAWLING")
        closed = await self._crawl(work, plan, progress)
        await work.log.info(
            f"Crawl ended: {closed.reason or 'LOST'}. {progress.items:,} items from {progress.pages:,} pages."
        )
        status, failure = await _judge(work, plan, closed, progress)
        is_at_its_end = status is ExecutionStatus.SUCCEEDED and closed.reason is CloseReason.FINISHED
        found = await _completeness(work, plan, progress) if is_at_its_end else Completeness()
        await work.advance(96, stage="EXPORTING")
        files: list[outputs.NewFile] = []
        try:
            files = await outputs.make_files(
                self._storage,
                _pages(work, plan),
                run_id=work.id,
                attempt=work.claim.attempt,
                first_columns=output_columns(plan.spider, plan.input),
            )
        except (StorageUnavailable, OSError) as error:
            await work.log.error(f"The files could not be stored: {error}")
            if status is ExecutionStatus.SUCCEEDED:
                message = "The crawl is complete and its items are kept, but its files could not be stored."
                status, failure = _FAILED, Failure(FailureCode.UPLOAD_FAILED, message, "EXPORTING", retryable=True)

        async def write(connection: asyncpg.Connection) -> None:
            await outputs.record(connection, work.id, files)
            await settling.settle_rest(connection, plan, closed.hosts)
            # What failed for other reasons than the crawl's own is no reason to call anything gone.
            is_complete = is_at_its_end and status is ExecutionStatus.SUCCEEDED and not found.is_incomplete
            is_complete = is_complete and not await _is_cut_by_depth(connection, plan)
            gone: int | None = None
            if plan.only_changes and is_complete and not await frontier.has_lost_pages(connection, plan.dataset_id):
                gone = await versions.mark_gone(connection, plan)
            await connection.execute(
                """UPDATE job_runs SET close_reason = $2, expected_items = $3, is_incomplete = $4, items_gone = $5
                   WHERE execution_id = $1""",
                work.id,
                closed.reason and closed.reason.value,
                found.expected_items,
                found.is_incomplete,
                gone,
            )
            await datasets.finish(connection, plan, is_complete=is_complete)

        return Outcome(status, failure, write)

    async def _crawl(self, work: Work, plan: Plan, progress: Progress) -> Closed:
        losses = 0
        while True:
            settled_before = progress.size.settled
            closed = await Crawl(self._settings, work, plan, progress).run()
            is_lost = closed.reason is None
            progress.size = await _release(work, plan, is_crawler_lost=is_lost)
            if not is_lost:
                return closed
            losses = 0 if progress.size.settled > settled_before else losses + 1
            if losses >= MAX_IDLE_LOSSES:
                return closed
            await work.log.warning(f"The crawler was lost ({closed.detail}); starting another one where it stopped.")


async def _load(work: Work) -> tuple[Plan, Progress]:
    """What the run asks for and has so far; what a lost attempt had in hand is waiting again."""
    row: asyncpg.Record | None = None
    pages_today = 0

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal row, pages_today
        pages_today = await crawl_usage.pages_today(connection, work.claim.owner_id)
        row = await connection.fetchrow(
            """SELECT dataset_id, job_id, spider, input, limits, only_changes, saves_products,
                      items_scraped + items_unchanged AS items, pages_crawled, bytes_downloaded, is_seeded
               FROM job_runs WHERE execution_id = $1""",
            work.id,
        )

    await work.persist(read)
    if row is None:
        raise LookupError(f"execution {work.id} has no run")
    plan = Plan(
        run_id=work.id,
        dataset_id=row["dataset_id"],
        job_id=row["job_id"],
        owner_id=work.claim.owner_id,
        spider=row["spider"],
        input=from_json(row["input"]),
        limits=from_json(row["limits"]),
        only_changes=row["only_changes"],
        saves_products=row["saves_products"],
    )
    progress = Progress(
        items=row["items"],
        pages=row["pages_crawled"],
        bytes=row["bytes_downloaded"],
        pages_today=pages_today,
        is_seeded=row["is_seeded"],
        size=await _release(work, plan, is_crawler_lost=False),
    )
    return plan, progress


async def _warn(work: Work, plan: Plan) -> None:
    """Say in the log what the run will not do, although its job says so."""
    text: str | None = None

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal text
        text = await datasets.warning(connection, plan)

    await work.persist(read)
    if text is not None:
        await work.log.warning(text)


async def _release(work: Work, plan: Plan, *, is_crawler_lost: bool) -> frontier.Size:
    """Let requests that are still leased wait again, and measure the frontier."""
    size = frontier.Size()

    async def write(connection: asyncpg.Connection) -> None:
        nonlocal size
        await frontier.release(connection, plan.run_id, plan.dataset_id, is_crawler_lost=is_crawler_lost)
        size = await frontier.measure(connection, plan.dataset_id)

    await work.persist(write)
    return size


async def _pages(work: Work, plan: Plan) -> AsyncIterator[list[asyncpg.Record]]:
    """The dataset's items in order, each page in a short transaction of its own."""
    after = 0
    page: list[asyncpg.Record] = []

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal page
        page = await connection.fetch(
            "SELECT id, data FROM items WHERE dataset_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            plan.dataset_id,
            after,
            outputs.PAGE_ITEMS,
        )

    while True:
        await work.persist(read)
        if not page:
            return
        after = page[-1]["id"]
        yield page


async def _completeness(work: Work, plan: Plan, progress: Progress) -> Completeness:
    """Compare with the job's last runs, and say so in the log when this one has far less."""
    found = Completeness()

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal found
        found = await completeness.measure(connection, plan, progress.items)

    await work.persist(read)
    if found.is_incomplete:
        await work.log.warning(
            f"This run found {progress.items:,} items; its job usually has about {found.expected_items:,}."
        )
    return found


async def _is_cut_by_depth(connection: asyncpg.Connection, plan: Plan) -> bool:
    """Whether links were left out for being too deep."""
    return bool(await connection.fetchval("SELECT sum(depth) FROM run_hosts WHERE run_id = $1", plan.run_id))


async def _judge(work: Work, plan: Plan, closed: Closed, progress: Progress) -> tuple[ExecutionStatus, Failure | None]:
    """The final status of a crawl that closed so."""
    match closed.reason:
        case None:
            message = f"The crawler ended several times without getting on ({closed.detail})."
            return _FAILED, Failure(FailureCode.INTERNAL, message, "CRAWLING", retryable=True)
        case CloseReason.STOPPED_BY_USER:
            return ExecutionStatus.CANCELLED, None
        case CloseReason.TIME_LIMIT:
            message = "The time limit was reached. What was found until then is kept; resume the run to go on."
            return _FAILED, Failure(FailureCode.TIMED_OUT, message, "CRAWLING", retryable=True)
        case CloseReason.STALLED:
            message = "No page came for ten minutes. What was found until then is kept."
            return _FAILED, Failure(FailureCode.TIMED_OUT, message, "CRAWLING", retryable=True)
        case CloseReason.MEMORY_LIMIT:
            message = "The crawler used more memory than its limit. Raise the limit or crawl less at once."
            return _FAILED, Failure(FailureCode.OUT_OF_MEMORY, message, "CRAWLING")
        case CloseReason.START_ERROR:
            where = ".".join(str(part) for part in closed.path)
            message = f"The crawl could not start: {closed.detail or 'no reason given'}" + (
                f" ({where})" if where else ""
            )
            return _FAILED, Failure(FailureCode.START_ERROR, message, "CRAWLING")
    if progress.pages == 0 and (failure := await _nothing_fetched(work, plan)) is not None:
        return _FAILED, failure
    return ExecutionStatus.SUCCEEDED, None


async def _nothing_fetched(work: Work, plan: Plan) -> Failure | None:
    """Why a crawl has no page at all. Asked of the frontier, where earlier attempts have left their failures too."""
    failures: list[tuple[FailureReason, str]] = []

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal failures
        failures = await frontier.failures(connection, plan.dataset_id)

    await work.persist(read)
    if not failures:
        return None
    reasons = {reason for reason, _ in failures}
    if reasons == {FailureReason.BLOCKED_URL}:
        message = "The address guard refused every start URL: private, local and metadata addresses are never fetched."
        return Failure(FailureCode.BLOCKED_URL, message, "CRAWLING")
    return Failure(
        FailureCode.INTERNAL if reasons == {FailureReason.INTERNAL} else FailureCode.SERVICE_UNAVAILABLE,
        f"No page could be fetched. {failures[0][1]}",
        "CRAWLING",
        retryable=not reasons <= {FailureReason.BLOCKED_URL, FailureReason.ROBOTS},
    )
