"""The kind of execution that crawls: runs the crawler until the frontier is empty, then makes the files.

A crawler that dies is started again on the same frontier within the same attempt, as long as it gets on; a worker
that dies leaves the frontier to the next attempt. A crawl that was stopped or ran into a limit keeps what it had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import asyncpg

from adapters.storage import Storage
from models.database import from_json
from models.executions import ExecutionStatus, Failure, FailureCode
from models.jobs import CloseReason
from settings import Settings
from tasks.crawl import frontier, outputs
from tasks.crawl.crawl import Closed, Crawl, Plan, Progress
from tasks.crawl.spiders import SPIDERS
from tasks.work import Outcome, Work

KIND: Final = "CRAWL"
MAX_IDLE_LOSSES: Final = 3
"""So many crawlers in a row may die without having answered anything."""


class CrawlKind:
    """Crawls."""

    name = KIND
    is_short = False
    cancel_grace_seconds = 120.0  # the processes are gone after 4; the rest is for the files
    timeout_grace_seconds = 120.0

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.slots = settings.worker_crawl_slots
        self._settings = settings
        self._storage = storage

    async def run(self, work: Work) -> Outcome:
        """Crawl to the end and store the files; every end but a lost lease has files."""
        async with work.transaction() as connection:
            plan, progress = await _load(connection, work.id)
            await frontier.release(connection, plan.dataset_id)
            progress.size = await frontier.measure(connection, plan.dataset_id)
        await work.advance(0, stage="CRAWLING")
        closed = await self._crawl(work, plan, progress)
        await work.log.info(
            f"Crawl ended: {closed.reason or 'LOST'}. {progress.items:,} items from {progress.pages:,} pages."
        )
        await work.advance(96, stage="EXPORTING")
        spider = SPIDERS.get(plan.spider)
        files = await outputs.make_files(
            self._storage,
            _pages(work, plan),
            run_id=work.id,
            attempt=work.claim.attempt,
            first_columns=list(spider.output_schema.get("properties", {})) if spider else [],
        )
        reason = _close_reason(closed)

        async def write(connection: asyncpg.Connection) -> None:
            await outputs.record(connection, work.id, files)
            await connection.execute(
                "UPDATE job_runs SET close_reason = $2 WHERE execution_id = $1", work.id, reason and reason.value
            )

        status, failure = _judge(closed, reason, progress)
        return Outcome(status, failure, write)

    async def _crawl(self, work: Work, plan: Plan, progress: Progress) -> Closed:
        losses = 0
        while True:
            settled = progress.size.settled
            closed = await Crawl(self._settings, work, plan, progress).run()
            if closed.reason is not None:
                return closed
            losses = 0 if progress.size.settled > settled else losses + 1
            if losses >= MAX_IDLE_LOSSES:
                return closed
            await work.log.warning("The crawler was lost; starting another one where it stopped.")


async def _load(connection: asyncpg.Connection, run_id: UUID) -> tuple[Plan, Progress]:
    row = await connection.fetchrow(
        """SELECT dataset_id, spider, input, limits, items_scraped, pages_crawled, bytes_downloaded,
                  is_seeded OR resumed_from_id IS NOT NULL AS is_seeded
           FROM job_runs WHERE execution_id = $1""",
        run_id,
    )
    plan = Plan(run_id, row["dataset_id"], row["spider"], from_json(row["input"]), from_json(row["limits"]))
    progress = Progress(
        items=row["items_scraped"],
        pages=row["pages_crawled"],
        bytes=row["bytes_downloaded"],
        is_seeded=row["is_seeded"],
        size=frontier.Size(),
    )
    return plan, progress


async def _pages(work: Work, plan: Plan) -> AsyncIterator[list[asyncpg.Record]]:
    """The dataset's items in order, each page in a short transaction of its own."""
    after = 0
    while True:
        async with work.transaction() as connection:
            page = await connection.fetch(
                "SELECT id, data FROM items WHERE dataset_id = $1 AND id > $2 ORDER BY id LIMIT $3",
                plan.dataset_id,
                after,
                outputs.PAGE_ITEMS,
            )
        if not page:
            return
        after = page[-1]["id"]
        yield page


def _close_reason(closed: Closed) -> CloseReason | None:
    if closed.reason is None:
        return None
    # STOPPED: somebody else's SIGTERM, as our own stops carry their reason.
    return CloseReason.STOPPED_BY_USER if closed.reason == "STOPPED" else CloseReason(closed.reason)


def _judge(closed: Closed, reason: CloseReason | None, progress: Progress) -> tuple[ExecutionStatus, Failure | None]:
    """The final status of a crawl that closed so."""
    failed = ExecutionStatus.FAILED
    match reason:
        case None:
            message = "The crawler ended several times without getting on."
            return failed, Failure(FailureCode.INTERNAL, message, "CRAWLING", retryable=True)
        case CloseReason.STOPPED_BY_USER:
            return ExecutionStatus.CANCELLED, None
        case CloseReason.TIME_LIMIT:
            message = "The time limit was reached. What was found until then is kept; resume the run to go on."
            return failed, Failure(FailureCode.TIMED_OUT, message, "CRAWLING", retryable=True)
        case CloseReason.STALLED:
            message = "No page came for ten minutes. What was found until then is kept."
            return failed, Failure(FailureCode.TIMED_OUT, message, "CRAWLING", retryable=True)
        case CloseReason.MEMORY_LIMIT:
            message = "The crawler used more memory than its limit. Raise the limit or crawl less at once."
            return failed, Failure(FailureCode.OUT_OF_MEMORY, message, "CRAWLING")
        case CloseReason.START_ERROR:
            where = ".".join(str(part) for part in closed.path)
            message = f"The crawl could not start: {closed.detail or 'no reason given'}" + (
                f" ({where})" if where else ""
            )
            return failed, Failure(FailureCode.START_ERROR, message, "CRAWLING")
    if progress.pages == 0 and progress.blocked:
        message = "The address guard refused every start URL: private, local and metadata addresses are never fetched."
        return failed, Failure(FailureCode.BLOCKED_URL, message, "CRAWLING")
    if progress.pages == 0 and progress.failures:
        message = f"No page could be fetched. {progress.failures[0]}"
        return failed, Failure(FailureCode.SERVICE_UNAVAILABLE, message, "CRAWLING", retryable=True)
    return ExecutionStatus.SUCCEEDED, None
