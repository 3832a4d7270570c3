"""One crawler process, driven: its messages stored, its requests leased, its end understood.

The crawler is told little and trusted with nothing: it gets a clean environment, speaks over pipes, and what it
says is stored in fenced transactions, a read's worth at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.line_streams import LineTooLong, line_batches
from adapters.processes import CannotStart, EndReason, ProcessTree, TreeExit
from models.jobs import CloseReason
from models.leases import LeaseLost
from models.logs import LogLevel, NewLine
from settings import Settings
from tasks.crawl import frontier, installed_spiders, settling
from tasks.crawl.crawler import protocol
from tasks.crawl.crawler.protocol import MessageType
from tasks.crawl.plan import Plan
from tasks.work import Work

CHECKOUT: Final = Path(__file__).resolve().parents[2]
STOP_GRACE_SECONDS: Final = 2.0
STOP_KILL_SECONDS: Final = 4.0
STALLED_SECONDS: Final = 600.0
WATCH_SECONDS: Final = 1.0
PROGRESS_SECONDS: Final = 0.5
GATHER_SECONDS: Final = 0.03
"""Pages that come within this time are stored together: a transaction for each would keep the execution's row locked
half of the time, and the heartbeat passes a locked row over."""
_LEVELS: Final = {"CRITICAL": LogLevel.ERROR}


@dataclass(slots=True)
class Progress:
    """What the run has so far, earlier attempts included."""

    items: int
    pages: int
    bytes: int
    pages_today: int
    is_seeded: bool
    size: frontier.Size


@dataclass(frozen=True, slots=True)
class Closed:
    """How a crawler process ended; `reason` is None when it was lost, and `detail` says how."""

    reason: CloseReason | None
    detail: str | None = None
    path: Sequence[str | int] = ()
    hosts: Mapping[str, Any] = field(default_factory=dict)
    """What hosts were asked for since the last page."""


class Crawl:
    """A crawler process and its run."""

    def __init__(self, settings: Settings, work: Work, plan: Plan, progress: Progress) -> None:
        self._settings = settings
        self._work = work
        self._plan = plan
        self._progress = progress
        self._wanted = 0
        self._outstanding: set[str] = set()
        self._is_alone = False
        self._is_end_sent = False
        self._closed: Closed | None = None
        self._last_answer = time.monotonic()
        self._last_advance = 0.0
        self._forced: CloseReason | None = None

    async def run(self) -> Closed:
        """Start the process and drive it to its end; what it had in hand is still leased then.

        Raises LeaseLost when the process ended because the lease did.
        """
        command = [sys.executable, "-m", "tasks.crawl.crawler"]
        try:
            async with self._work.spawn(command, env=crawler_environment(), cwd=CHECKOUT) as tree:
                exit = await self._drive(tree)
        except CannotStart as error:
            if time.monotonic() >= self._work.lease_deadline:
                raise LeaseLost from error
            return Closed(None, str(error))
        except ExceptionGroup as group:
            # The group adds nothing: the first failure ended the others, and a lost lease goes before them.
            raise (group.subgroup(LeaseLost) or group).exceptions[0] from None
        if exit.reason is EndReason.DEADLINE:
            raise LeaseLost
        if self._forced is not None:
            return Closed(self._forced)
        return self._closed or Closed(None, _describe(exit))

    async def _drive(self, tree: ProcessTree) -> TreeExit:
        self._say(tree, self._start().to_message())
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(self._stop_when_told(tree), name="crawl-stop"),
                group.create_task(self._watch(tree), name="crawl-watch"),
            ]
            group.create_task(self._forward_stray_text(tree), name="crawl-stderr")  # ends with the tree
            await self._listen(tree)
            exit = await tree.wait()
            for watcher in watchers:
                watcher.cancel()
        return exit

    def _start(self) -> protocol.Start:
        limits = self._plan.limits
        settings = self._settings
        return protocol.Start(
            run=str(self._plan.run_id),
            spider=self._plan.spider,
            input=self._plan.input,
            user_agent=settings.crawl_user_agent,
            allowed_hosts=settings.crawl_allowed_hosts,
            limits=protocol.Limits(
                max_pages=limits.get("maxPages"),
                max_items=limits.get("maxItems"),
                max_depth=limits.get("maxDepth"),
                max_bytes=limits.get("maxBytes"),
                memory_megabytes=limits.get("memoryMegabytes", settings.crawl_memory_megabytes),
            ),
            throttle=protocol.Throttle(
                start_delay_seconds=settings.crawl_start_delay_seconds,
                target_concurrency=settings.crawl_target_concurrency,
            ),
            totals=protocol.Totals(
                pages=self._progress.pages,
                items=self._progress.items - self._progress.size.cut_items,
                bytes=self._progress.bytes,
            ),
            resume=self._progress.is_seeded,
        )

    # -- listening

    async def _listen(self, tree: ProcessTree) -> None:
        try:
            async for lines in line_batches(tree.stdout, limit_bytes=protocol.MAX_LINE_BYTES):
                await self._take(tree, [protocol.decode(line) for line in lines])
                await asyncio.sleep(GATHER_SECONDS)
        except (protocol.ProtocolError, LineTooLong) as error:
            await self._work.log.error(f"The crawler said something that is not understood: {error}")
            await tree.kill()

    async def _take(self, tree: ProcessTree, messages: Sequence[Mapping[str, Any]]) -> None:
        """Store a read's worth of messages in one transaction, then lease what the crawler has room for."""
        await self._work.log.write_lines(
            [log_line(message) for message in messages if message["type"] == MessageType.LOG]
        )
        seeds: list[Mapping[str, Any]] = []
        answers: list[Mapping[str, Any]] = []
        for message in messages:
            match message["type"]:
                case MessageType.SEED:
                    seeds.append(message)
                case MessageType.PAGE | MessageType.FAILED:
                    answers.append(message)
                case MessageType.WANT:
                    self._wanted += int(message["count"])
                case MessageType.CLOSED:
                    self._closed = _closed(message)
        if seeds or answers or self._wanted or self._closed:
            await self._store(tree, seeds, answers)

    async def _store(
        self, tree: ProcessTree, seeds: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
    ) -> None:
        progress, dataset_id = self._progress, self._plan.dataset_id
        answered = {answer["requestId"] for answer in answers}
        settled: settling.Settled | None = None
        leased = frontier.Lease()
        added = tries = 0

        async def write(connection: asyncpg.Connection) -> None:
            nonlocal settled, leased, added, tries
            tries += 1
            added = 0
            for seed in seeds:
                added += len(await frontier.add(connection, dataset_id, seed["requests"]))
            if seeds:
                await connection.execute(
                    "UPDATE job_runs SET is_seeded = true WHERE execution_id = $1", self._plan.run_id
                )
            if answers:
                settled = await settling.settle(connection, self._plan, answers)
            held = self._outstanding - answered
            leased = frontier.Lease()
            # Each request in hand may still bring a page, so that a day's last page is exact for one run.
            today = settled.pages_today if settled else progress.pages_today
            wanted = min(self._wanted, self._settings.crawl_pages_per_day - today - len(held))
            if wanted > 0 and self._closed is None and not (held and self._is_alone):
                leased = await frontier.lease(connection, dataset_id, wanted, held=held, is_repeated=tries > 1)

        await self._work.persist(write)
        progress.is_seeded = progress.is_seeded or bool(seeds)
        progress.size.known += added
        if settled is not None:
            progress.items, progress.pages, progress.bytes = settled.items, settled.pages, settled.bytes
            progress.size.known += settled.added
            progress.size.settled += settled.settled
            progress.pages_today = settled.pages_today
            self._last_answer = time.monotonic()
        self._outstanding -= answered
        self._hand_out(tree, leased)
        await self._advance()

    def _hand_out(self, tree: ProcessTree, leased: frontier.Lease) -> None:
        """Send what was leased; when there is nothing left anywhere, say that instead, once."""
        if leased.requests:
            self._is_alone = leased.is_alone
            self._outstanding.update(request.id for request in leased.requests)
            self._wanted -= len(leased.requests)
            requests = [request.to_message() for request in leased.requests]
            self._say(tree, {"type": MessageType.REQUESTS, "requests": requests})
        elif self._wanted and not self._outstanding and self._progress.is_seeded and not self._is_end_sent:
            self._is_end_sent = True
            has_more = self._progress.size.settled < self._progress.size.known
            if self._progress.pages_today < self._settings.crawl_pages_per_day or not has_more:
                self._say(tree, {"type": MessageType.IDLE})
            else:
                self._say(tree, {"type": MessageType.STOP, "reason": CloseReason.DAILY_PAGE_LIMIT.value})

    async def _advance(self) -> None:
        now = time.monotonic()
        if now - self._last_advance < PROGRESS_SECONDS:
            return
        self._last_advance = now
        await self._work.advance(self._percent(), stage="CRAWLING")

    def _percent(self) -> int:
        """By what is nearest to its end: the frontier or a limit. The end itself belongs to the engine."""
        progress, limits = self._progress, self._plan.limits
        parts = [progress.size.settled / progress.size.known if progress.size.known else 0.0]
        for count, limit in ((progress.pages, limits.get("maxPages")), (progress.items, limits.get("maxItems"))):
            if limit:
                parts.append(count / limit)
        return min(95, int(95 * max(parts)))

    # -- stopping and watching

    async def _stop_when_told(self, tree: ProcessTree) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._work.deadline - time.monotonic())):
                await self._work.cancel_requested.wait()
        if self._work.cancel_requested.is_set():
            await self._stop(tree, CloseReason.STOPPED_BY_USER, "Stopping, as asked.")
        else:
            await self._stop(tree, CloseReason.TIME_LIMIT, "The time limit is reached; stopping.")

    async def _watch(self, tree: ProcessTree) -> None:
        """Memory of the whole tree, and whether anything still happens."""
        limit = self._plan.limits.get("memoryMegabytes", self._settings.crawl_memory_megabytes) * 2**20
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await tree.memory_bytes() > limit * 1.25:
                await self._stop(tree, CloseReason.MEMORY_LIMIT, "The memory limit is reached; stopping.")
            elif time.monotonic() - self._last_answer > STALLED_SECONDS:
                await self._stop(tree, CloseReason.STALLED, "No page came for ten minutes; stopping.")

    async def _stop(self, tree: ProcessTree, reason: CloseReason, message: str) -> None:
        """Let pages in flight finish for two seconds; four seconds from now the whole tree is gone."""
        if self._forced is None:
            self._forced = reason
            await self._work.log.info(message)
            self._say(tree, {"type": MessageType.STOP, "reason": reason.value})
        await tree.stop(grace_seconds=STOP_GRACE_SECONDS, kill_after_seconds=STOP_KILL_SECONDS)

    async def _forward_stray_text(self, tree: ProcessTree) -> None:
        """What is printed beside the protocol: warnings of libraries and traces of a crash."""
        with suppress(LineTooLong):
            async for lines in line_batches(tree.stderr, limit_bytes=2**20):
                for line in lines:
                    await self._work.log.write(LogLevel.WARNING, line.decode("utf-8", "replace"))

    def _say(self, tree: ProcessTree, message: Mapping[str, Any]) -> None:
        # Not drained: the crawler has asked for all it is sent, so what waits here is bounded by its own word.
        if not tree.stdin.is_closing():
            tree.stdin.write(protocol.encode(message))


def crawler_environment() -> dict[str, str]:
    """All that a crawler process is told by its environment: nothing of this one but where modules are."""
    path = os.pathsep.join(installed_spiders.import_path(CHECKOUT))
    return {"PATH": os.defpath, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}


def log_line(message: Mapping[str, Any]) -> NewLine:
    """The line in a `log` message."""
    level = str(message["level"])
    timestamp = datetime.fromisoformat(message["time"])
    return NewLine(
        timestamp=int(timestamp.timestamp() * 1000),
        level=_LEVELS.get(level) or LogLevel(level),
        message=str(message["message"]).replace("\n", " ⏎ "),
        stage=(str(message["stage"]) if message.get("stage") else None),
    )


def _closed(message: Mapping[str, Any]) -> Closed:
    try:
        # STOPPED: somebody else's SIGTERM, as our own stops carry their reason.
        word = message["reason"]
        reason = CloseReason.STOPPED_BY_USER if word == protocol.CloseReason.STOPPED else CloseReason(word)
    except ValueError:
        return Closed(None, f"it closed as {str(message['reason'])[:100]!r}")
    return Closed(reason, message.get("detail"), message.get("path") or (), message.get("hosts") or {})


def _describe(exit: TreeExit) -> str:
    return f"signal {exit.signal}" if exit.signal is not None else f"exit code {exit.exit_code}"
