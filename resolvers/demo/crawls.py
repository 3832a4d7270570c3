"""Jobs of the demo on the practice site, and what became of each moment of their schedules.

Nearly all runs came to their end. Counters, items, hosts and log of a run are those of the pages that it read; whatever
went wrong is among `_OUTCOMES`, by how many runs ago it was. Pure.
"""

from __future__ import annotations

import hashlib
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final
from uuid import UUID

from models import cron
from models.executions import ExecutionStatus, Failure, FailureCode
from models.jobs import CloseReason, RunTrigger
from models.logs import LogLevel
from resolvers.demo import practice
from resolvers.demo.past import Ended, Said
from resolvers.demo.practice import Found
from tasks.crawl import completeness
from tasks.crawl.crawler.output_check import OutputCheck
from tasks.crawl.crawler.protocol import FailureReason
from tasks.crawl.kind import KIND
from tasks.crawl.spiders import SPIDERS

HISTORY: Final = timedelta(days=56)
ZONE: Final = "Europe/Madrid"
PAGE_SECONDS: Final = 0.25
_UNREACHABLE: Final = "Connection was refused by other side: 111: Connection refused."


_FORCED: Final = {
    CloseReason.STOPPED_BY_USER: "Stopping, as asked.",
    CloseReason.TIME_LIMIT: "The time limit is reached; stopping.",
}


class _Outcome(StrEnum):
    DONE = "DONE"
    DOWN = "DOWN"
    STOPPED = "STOPPED"
    SHORT = "SHORT"
    REJECTED = "REJECTED"
    LATE = "LATE"


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is to be made: its tool by the spider, and when it ran."""

    name: str
    spider: str
    cron: str
    outcomes: Mapping[int, _Outcome]

    @property
    def input(self) -> dict[str, Any]:
        """What the spider is fed: its own example, which is written for the practice site."""
        return dict(SPIDERS[self.spider].example_input)


JOBS: Final = (
    Job("Practice shop, every morning", "catalogue", "30 6 * * *",
        {2: _Outcome.REJECTED, 4: _Outcome.DOWN, 13: _Outcome.STOPPED, 22: _Outcome.SHORT, 41: _Outcome.DOWN}),
    Job("Homes around Northhaven", "property_listings", "15 7 * * *", {8: _Outcome.DOWN, 33: _Outcome.STOPPED}),
    Job("Licences to trade", "directory_search", "0 9 * * 1", {5: _Outcome.LATE}),
    Job("Prices by sitemap", "sitemap", "45 22 * * 2,5", {6: _Outcome.LATE, 11: _Outcome.DOWN}),
    Job("The Practice Post", "articles", "0 8,18 * * 1-5", {17: _Outcome.DOWN}),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has ended. `pages` are those that it read; `rejected` are items that do not fit, with their faults."""

    job_id: UUID
    tool_id: UUID
    job: Job
    tick_at: datetime
    ended: Ended
    pages: Sequence[Found]
    close_reason: CloseReason | None
    limits: Mapping[str, int]
    rejected: Sequence[tuple[str, dict[str, Any], list[dict[str, Any]]]] = ()
    failed_url: str | None = None
    expected_items: int | None = None
    is_incomplete: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether it saw all that there was."""
        is_at_its_end = self.ended.status is ExecutionStatus.SUCCEEDED and self.close_reason is CloseReason.FINISHED
        return is_at_its_end and not self.is_incomplete

    def items(self) -> Iterator[tuple[datetime, str, str, Mapping[str, Any]]]:
        """Moment, key, page and data of each item, in the order they were found."""
        for place, page in enumerate(self.pages):
            for index, item in enumerate(page.items):
                yield self.ended.at((place + 1) * PAGE_SECONDS), _key(page.url, index), page.url, item

    @property
    def item_count(self) -> int:
        """How many items it has."""
        return sum(len(page.items) for page in self.pages)


def runs_of(job: Job, job_id: UUID, tool_id: UUID, *, now: datetime, timeout_seconds: float) -> list[Run]:
    """All runs of a job, oldest first, up to a minute ago."""
    moments = cron.moments(cron.parse(job.cron), cron.zone(ZONE), after=now - HISTORY)
    latest = now - timedelta(minutes=10)
    ticks = [moment.at for moment in takewhile(lambda moment: moment.at < latest, moments)]
    counts: list[int] = []
    made = []
    for place, tick_at in enumerate(ticks):
        outcome = job.outcomes.get(len(ticks) - place, _Outcome.DONE)
        expected = (
            round(statistics.median(counts[-completeness.RUNS_COMPARED :]))
            if len(counts) >= completeness.FEWEST_RUNS
            else None
        )
        run = _run(job, job_id, tool_id, tick_at, outcome, now=now, expected=expected, timeout_seconds=timeout_seconds)
        if run.close_reason is CloseReason.FINISHED and run.ended.status is ExecutionStatus.SUCCEEDED:
            counts.append(run.item_count)
        made.append(run)
    return made


def _run(
    job: Job,
    job_id: UUID,
    tool_id: UUID,
    tick_at: datetime,
    outcome: _Outcome,
    *,
    now: datetime,
    expected: int | None,
    timeout_seconds: float,
) -> Run:
    chance = random.Random(f"{job.spider}:{tick_at.date()}:{tick_at.hour}")  # noqa: S311 - a story, not a secret
    pages = practice.WAYS[job.spider]((now - tick_at) / timedelta(days=1))
    rejected: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = []
    status, reason, failure = ExecutionStatus.SUCCEEDED, CloseReason.FINISHED, None
    limits: dict[str, int] = {}
    lines: list[Said] = []
    match outcome:
        case _Outcome.DOWN:
            url = pages[0].url
            lines.append(Said(3.1, "fetch", f"{FailureReason.CONNECTION}: {url}: {_UNREACHABLE}", LogLevel.WARNING))
            message = f"No page could be fetched. {url}: {_UNREACHABLE}"
            failure = Failure(FailureCode.SERVICE_UNAVAILABLE, message, "CRAWLING", retryable=True)
            status, pages = ExecutionStatus.FAILED, []
        case _Outcome.STOPPED:
            status, reason, pages = ExecutionStatus.CANCELLED, CloseReason.STOPPED_BY_USER, pages[: len(pages) * 2 // 3]
        case _Outcome.SHORT:
            pages = pages[: len(pages) // 3]
        case _Outcome.LATE:
            limits = {"timeoutSeconds": 2}
            status, reason, pages = ExecutionStatus.FAILED, CloseReason.TIME_LIMIT, pages[:5]
            message = "The time limit was reached. What was found until then is kept; resume the run to go on."
            failure = Failure(FailureCode.TIMED_OUT, message, "CRAWLING", retryable=True)
        case _Outcome.REJECTED:
            pages, rejected = _with_nameless(job, pages, chance)
    seconds = 0.3
    for page in pages:
        seconds += PAGE_SECONDS
        for url, _, faults in rejected:
            if url == page.url:
                said = f"{url}: 1 items rejected, {'.'.join(faults[0]['path'])}: {faults[0]['message']}"
                lines.append(Said(seconds, "extract", said, LogLevel.WARNING))
        said = f"200 {page.url}: {len(page.items)} items, {page.links} links, {page.bytes:,} bytes"
        lines.append(Said(seconds, "page", said))
    seconds = max(seconds, 3.1) + chance.uniform(0.6, 2.4)
    item_count = sum(len(page.items) for page in pages)
    is_at_its_end = status is ExecutionStatus.SUCCEEDED
    is_incomplete = is_at_its_end and expected is not None and item_count * 100 < expected * 50
    forced = _FORCED.get(reason)
    lines.append(Said(seconds, "CRAWLING" if forced else "close", forced or f"Stopping: {reason}"))
    ended_so = f"Crawl ended: {reason}. {item_count:,} items from {len(pages):,} pages."
    lines.append(Said(seconds + 0.05, "CRAWLING", ended_so))
    if is_incomplete:
        said = f"This run found {item_count:,} items; its job usually has about {expected:,}."
        lines.append(Said(seconds + 0.1, "CRAWLING", said, LogLevel.WARNING))
    ended = Ended(
        kind=KIND,
        queued_at=tick_at + timedelta(seconds=chance.uniform(0.2, 1.4)),
        status=status,
        timeout_seconds=float(limits.get("timeoutSeconds", timeout_seconds)),
        waited_seconds=chance.uniform(0.05, 0.6),
        worked_seconds=seconds + 0.4,
        stages=[(0.1, "CRAWLING"), (seconds + 0.12, "EXPORTING")],
        lines=lines,
        progress=100 if is_at_its_end else 96,
        failure=failure,
        is_asked_for=False,
        cpu_seconds=1.7 + 0.02 * len(pages) + chance.uniform(0.0, 0.4),
        peak_megabytes=chance.randrange(92, 108),
    )
    return Run(
        job_id=job_id,
        tool_id=tool_id,
        job=job,
        tick_at=tick_at,
        ended=ended,
        pages=pages,
        close_reason=reason,
        limits=limits,
        rejected=rejected,
        failed_url=practice.WAYS[job.spider](0.0)[0].url if outcome is _Outcome.DOWN else None,
        expected_items=expected if is_at_its_end else None,
        is_incomplete=is_incomplete,
    )


def _with_nameless(
    job: Job, pages: Sequence[Found], chance: random.Random
) -> tuple[list[Found], list[tuple[str, dict[str, Any], list[dict[str, Any]]]]]:
    """Two pages lost their headings that morning: what they show does not fit, and the real check says why."""
    check = OutputCheck(SPIDERS[job.spider].narrow_output(job.input))
    chosen = set(chance.sample([place for place, page in enumerate(pages) if page.items], 2))
    kept, rejected = [], []
    for place, page in enumerate(pages):
        if place in chosen:
            data = {**page.items[0], "name": None}
            rejected.append((page.url, data, check.faults(data)))
            page = Found(page.url, page.bytes, page.links)
        kept.append(page)
    return kept, rejected


# -- rows


def run_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `job_runs`."""
    return [
        {
            "execution_id": run.ended.id,
            "job_id": run.job_id,
            "tool_id": run.tool_id,
            "spider": run.job.spider,
            "input": run.job.input,
            "limits": run.limits,
            "trigger": RunTrigger.SCHEDULE.value,
            "dataset_id": run.ended.id,
            "is_seeded": True,
            "items_scraped": run.item_count,
            "pages_crawled": len(run.pages),
            "errors_count": int(run.failed_url is not None),
            "bytes_downloaded": sum(page.bytes for page in run.pages),
            "requests_blocked": 0,
            "requests_robots": 0,
            "requests_throttled": 0,
            "requests_dropped": 0,
            "items_rejected": len(run.rejected),
            "items_unchanged": 0,
            "items_skipped": 0,
            "only_changes": False,
            "saves_products": False,
            "expected_items": run.expected_items,
            "is_incomplete": run.is_incomplete,
            "close_reason": run.close_reason and run.close_reason.value,
        }
        for run in runs
    ]


def item_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `items`."""
    return [
        {"dataset_id": run.ended.id, "run_id": run.ended.id, "key": key, "url": url, "data": data, "scraped_at": at}
        for run in runs
        for at, key, url, data in run.items()
    ]


def rejected_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `rejected_items`."""
    return [
        {
            "dataset_id": run.ended.id,
            "run_id": run.ended.id,
            "key": _key(url, 0),
            "url": url,
            "data": data,
            "faults": faults,
            "rejected_at": run.ended.finished_at,
        }
        for run in runs
        for url, data, faults in run.rejected
    ]


def host_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `run_hosts`; robots.txt is asked for once, and is no page."""
    nothing = dict.fromkeys(
        ("throttled", "robots", "blocked", "off_site", "depth", "duplicate", "not_http", "too_long"), 0
    )
    return [
        {
            "run_id": run.ended.id,
            "host": practice.HOST,
            "requests": len(run.pages) + 1,
            "pages": len(run.pages),
            "bytes": sum(page.bytes for page in run.pages) + (practice.ROBOTS_BYTES if run.pages else 0),
            "retried": 2 if run.failed_url else 0,
            "failed": int(run.failed_url is not None),
            **nothing,
        }
        for run in runs
    ]


def failed_request_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `crawl_requests`: those that ended without a page."""
    return [
        {
            "dataset_id": run.ended.id,
            "fingerprint": f"\\x{hashlib.sha1(run.failed_url.encode(), usedforsecurity=False).hexdigest()}",
            "url": run.failed_url,
            "payload": {"method": "GET", "callback": "read_list"},
            "depth": 0,
            "rank": 0,
            "state": "FAILED",
            "starts": 1,
            "failure_reason": FailureReason.CONNECTION.value,
            "failure_detail": _UNREACHABLE,
        }
        for run in runs
        if run.failed_url is not None
    ]


def tick_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of `schedule_ticks`."""
    return [
        {
            "job_id": run.job_id,
            "tick_at": run.tick_at,
            "outcome": "STARTED",
            "run_id": run.ended.id,
            "decided_at": run.ended.queued_at,
        }
        for run in runs
    ]


def pages_of_day(runs: Sequence[Run], day: datetime) -> int:
    """Pages that were fetched on the day (UTC) of a moment."""
    return sum(len(run.pages) for run in runs if run.ended.finished_at.date() == day.date())


def _key(url: str, index: int) -> str:
    return hashlib.sha256(f"{url}:{index}".encode()).hexdigest()[:40]
