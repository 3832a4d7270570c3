"""The engine: claims executions, keeps their leases, ends each with exactly one final status.

PostgreSQL is queue, lock and truth; a ring of the doorbell only wakes (`tasks/queue.py`). The engine imports
no kind: `tasks/worker.py` hands them over. What a frozen or cut-off worker cannot do: its process trees die by
their own deadline before its lease ends, and its later writes meet a newer `attempt`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from adapters import events, metrics
from adapters.cancellation import end
from models import leases, logs
from models.database import is_outage
from models.events import CancelRequested, Event, ExecutionChanged, LogAppended
from models.executions import Claim, ExecutionStatus, FailureCode
from models.leases import LeaseLost
from models.logs import NewLine
from settings import Settings
from tasks.leasekeeper import Leasekeeper
from tasks.log_writer import LogWriter
from tasks.work import CANCELLED, ExecutionFailed, FencedWrite, Kind, Outcome, Work

POLL_SECONDS: Final = 1.0
CLAIM_DRAIN_SECONDS: Final = 5.0
SHORT_DRAIN_SECONDS: Final = 70.0
LONG_DRAIN_SECONDS: Final = 8.0
_RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_log = structlog.get_logger("switchyard.engine")


class Engine:
    """The executions of one worker process."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, kinds: Mapping[str, Kind], worker: str) -> None:
        self.worker = worker
        self.is_draining = False
        self._settings = settings
        self._pool = pool
        self._kinds = kinds
        self._wakes = {name: asyncio.Event() for name in kinds}
        self._held: dict[UUID, Held] = {}
        self._leasekeeper = Leasekeeper(settings, self._held)
        self._announced: dict[object, Event] = {}
        self._has_announcements = asyncio.Event()
        self._drain_started = asyncio.Event()

    # -- what the worker drives

    async def run(self) -> None:
        """Work until `drain` was called and everything in hand is finished or handed back."""
        with events.hub().listen(CancelRequested, self._hear_cancel):
            async with asyncio.TaskGroup() as background:
                tasks = [
                    background.create_task(self._leasekeeper.run(), name="leases"),
                    background.create_task(self._announce(), name="announcements"),
                ]
                lanes = [
                    background.create_task(self._lane(kind), name=f"lane-{kind.name}") for kind in self._kinds.values()
                ]
                await self._drain_started.wait()
                await self._drain(lanes)
                await end(*tasks)
                await self._announce_rest()

    def drain(self) -> None:
        """Claim no more; finish what is short and hand back what is long."""
        self.is_draining = True
        self._drain_started.set()
        for wake in self._wakes.values():
            wake.set()

    def wake(self, kind: str) -> None:
        """Look for work of a kind now."""
        self._wakes[kind].set()

    def free_slots(self, kind: str) -> int:
        """How many more executions of a kind this worker can take; none once it drains."""
        if self.is_draining:
            return 0
        running = sum(1 for held in self._held.values() if held.kind.name == kind)
        return max(0, self._kinds[kind].slots - running)

    def slots(self) -> dict[str, tuple[int, int]]:
        """Of each kind, how many places this worker has and how many are taken."""
        return {
            name: (kind.slots, sum(1 for held in self._held.values() if held.kind.name == name))
            for name, kind in self._kinds.items()
        }

    # -- claiming

    async def _lane(self, kind: Kind) -> None:
        """Claim while there is room; wake by the doorbell, by a free slot, or by looking once a second."""
        wake = self._wakes[kind.name]
        while not self.is_draining:
            wake.clear()
            try:
                while self.free_slots(kind.name) and (claim := await self._claim(kind)):
                    self._start(kind, claim)
            except Exception as error:
                if not is_outage(error):
                    raise
                _log.warning("claim_failed", kind=kind.name, error=repr(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads load only
                    await wake.wait()

    async def _claim(self, kind: Kind) -> Claim | None:
        async with self._pool.acquire(timeout=2) as connection, connection.transaction():
            return await leases.claim(
                connection,
                kind.name,
                worker=self.worker,
                lease_seconds=self._settings.lease_seconds,
                max_running_per_owner=kind.running_per_owner,
            )

    def _start(self, kind: Kind, claim: Claim) -> None:
        now = time.monotonic()
        held = Held(kind)
        log = LogWriter(
            self,
            claim,
            head_bytes=self._settings.log_head_bytes,
            tail_bytes=self._settings.log_tail_bytes,
        )
        held.work = Work(
            self,
            claim,
            log,
            deadline=now + claim.remaining_seconds,
            lease_deadline=now + self._settings.lease_margin_seconds,
        )
        self._held[claim.execution_id] = held
        held.task = asyncio.create_task(self._perform(held), name=f"execution-{claim.execution_id}")
        held.task.add_done_callback(lambda task: self._ended(claim, task))
        self._changed(claim)
        metrics.current().started.labels(kind.name).inc()
        if claim.attempt == 1:
            metrics.current().wait_seconds.labels(kind.name).observe(claim.waited_seconds)
        _log.info("execution_started", execution_id=str(claim.execution_id), kind=kind.name, attempt=claim.attempt)

    def _ended(self, claim: Claim, task: asyncio.Task[None]) -> None:
        self._held.pop(claim.execution_id, None)
        self._wakes[claim.kind].set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("execution_task_failed", execution_id=str(claim.execution_id), exc_info=error)

    # -- one execution

    async def _perform(self, held: Held) -> None:
        claim = held.work.claim
        started = time.monotonic()
        # Whatever is logged for this attempt, by whomever, says which one it was.
        with structlog.contextvars.bound_contextvars(
            execution_id=str(claim.execution_id), kind=claim.kind, attempt=claim.attempt
        ):
            try:
                await self._attempt(held)
            finally:
                held.work.end_stage()
                metrics.current().run_seconds.labels(claim.kind).observe(time.monotonic() - started)

    async def _attempt(self, held: Held) -> None:
        work = held.work
        writer = asyncio.create_task(work.log.run(), name=f"log-{work.id}")
        writer.add_done_callback(lambda task: None if task.cancelled() else held.lose())
        try:
            if work.claim.attempt > 1:
                await work.log.info(f"Attempt {work.claim.attempt} starts on {self.worker}.")
            outcome = await self._outcome(held)
            if work.has_strays and outcome.status is ExecutionStatus.CANCELLED:
                outcome = Outcome.failed(
                    FailureCode.INTERNAL, "Its processes could not be ended; the operator has to look at the worker."
                )
            await self._finish(work, outcome)
        except (LeaseLost, asyncio.CancelledError):
            if held.is_handed_back and not work.has_strays:
                await self._hand_back(work)
            else:
                metrics.current().leases_lost.labels(work.claim.kind).inc()
                metrics.current().finished.labels(work.claim.kind, "LEASE_LOST").inc()
                _log.warning("lease_lost")
        finally:
            self._changed(work.claim)
            await end(writer)
            if not writer.cancelled() and not isinstance(writer.exception(), LeaseLost | None):
                _log.error("log_writer_failed", execution_id=str(work.id), exc_info=writer.exception())

    async def _outcome(self, held: Held) -> Outcome:
        """Run the kind; every way it can end becomes an outcome, but a lost lease and a hand-back pass through."""
        work, kind = held.work, held.kind
        run = asyncio.create_task(kind.run(work), name=f"run-{work.id}")
        stopper = asyncio.create_task(self._stop_in_time(work, kind, run), name=f"stop-{work.id}")
        try:
            return await run
        except LeaseLost:
            raise
        except ExecutionFailed as error:
            return Outcome(ExecutionStatus.FAILED, error.failure)
        except asyncio.CancelledError:
            if stopper.done() and not stopper.cancelled() and (outcome := stopper.result()) is not None:
                return outcome
            raise
        except Exception:  # noqa: BLE001 - an edge: whatever a kind throws, its execution must end
            return await _crashed(work)
        finally:
            await _end_whatever_happens(run, stopper)

    async def _stop_in_time(self, work: Work, kind: Kind, run: asyncio.Task[Outcome]) -> Outcome | None:
        """Cancel a run that overstays after a request to stop, or its time limit; say which it was."""
        left = work.deadline - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                await work.cancel_requested.wait()
            outcome, grace = CANCELLED, kind.cancel_grace_seconds
        except TimeoutError:
            outcome = Outcome.failed(
                FailureCode.TIMED_OUT, "The time limit was reached.", stage=work.log.stage, retryable=True
            )
            grace = kind.timeout_grace_seconds
        await asyncio.wait({run}, timeout=grace)
        run.cancel()
        return outcome

    async def _finish(self, work: Work, outcome: Outcome) -> None:
        await work.log.finish()
        try:
            await self._store(work, outcome)
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001 - the same edge: a result that cannot be stored ends the execution, too
            outcome = await _crashed(work)
            await work.log.finish()
            await self._store(work, outcome)
        failure = outcome.failure and outcome.failure.code.value
        metrics.current().finished.labels(work.claim.kind, failure or outcome.status.value).inc()
        _log.info("execution_finished", status=outcome.status.value, failure=failure)

    async def _store(self, work: Work, outcome: Outcome) -> None:
        async def write(connection: asyncpg.Connection) -> None:
            if outcome.write is not None:
                await outcome.write(connection)
            await leases.finish(
                connection,
                work.claim,
                outcome.status,
                failure=outcome.failure,
                used=work.used,
                compact_log_after_seconds=self._settings.log_compact_after_seconds,
            )

        await self.persist(work, write)
        for event in outcome.news:
            self._say(event, event)

    async def _hand_back(self, work: Work) -> None:
        with suppress(LeaseLost):
            await work.log.info("The worker shuts down; another one will go on.")
            await work.log.flush()

            async def write(connection: asyncpg.Connection) -> None:
                await leases.hand_back(connection, work.claim, used=work.used)

            await self.persist(work, write)
            metrics.current().finished.labels(work.claim.kind, "HANDED_BACK").inc()
            _log.info("execution_handed_back")

    # -- the ledger: fenced writes

    @asynccontextmanager
    async def fenced(self, claim: Claim) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that keeps the sweeper from taking the lease until it ends."""
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            held = await connection.fetchval(
                "SELECT 1 FROM executions WHERE id = $1 AND attempt = $2 AND status = 'RUNNING' FOR NO KEY UPDATE",
                claim.execution_id,
                claim.attempt,
            )
            if held is None:
                raise LeaseLost
            yield connection

    async def persist(self, work: Work, write: FencedWrite) -> None:
        """Run a fenced write, again while the database is away and the lease holds."""
        patience_until = self._patience_until()
        for attempt in range(1_000_000):
            try:
                async with self.fenced(work.claim) as connection:
                    await write(connection)
                return
            except Exception as error:
                if not is_outage(error) or time.monotonic() > patience_until:
                    raise
                await self._wait_out(work.lease_deadline, attempt, error)

    async def append_lines(self, claim: Claim, after_sequence: int, lines: list[NewLine]) -> None:
        """Store log lines; a lost answer is resolved by asking where the cursor is."""
        patience_until = self._patience_until()
        for attempt in range(1_000_000):
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    is_stored = await logs.append(
                        connection, claim, after_sequence=after_sequence, lines=lines
                    ) or await logs.last_sequence_of(connection, claim) == after_sequence + len(lines)
                if not is_stored:
                    raise LeaseLost
                metrics.current().log_lines.inc(len(lines))
                metrics.current().log_bytes.inc(sum(len(line.message.encode()) for line in lines))
                return
            except Exception as error:
                if not is_outage(error) or time.monotonic() > patience_until:
                    raise
                held = self._held.get(claim.execution_id)
                await self._wait_out(held.work.lease_deadline if held else 0.0, attempt, error)

    def announce_lines(self, claim: Claim, last_sequence: int) -> None:
        """Tell readers that there are lines; several announcements become one."""
        self._say(("log", claim.execution_id), LogAppended(claim.execution_id, last_sequence))

    async def advance(self, work: Work, progress: int, stage: str | None) -> None:
        """Store progress and stage."""

        async def write(connection: asyncpg.Connection) -> None:
            await leases.advance(connection, work.claim, progress=progress, stage=stage)

        await self.persist(work, write)
        self._changed(work.claim)

    def _patience_until(self) -> float:
        """How long errors may pass for an outage: a real one ends the lease before, as it cannot be renewed."""
        return time.monotonic() + 2 * self._settings.lease_seconds

    async def _wait_out(self, lease_deadline: float, attempt: int, error: Exception) -> None:
        """Wait before another try; raises LeaseLost once the lease may be gone."""
        delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
        if time.monotonic() + delay >= lease_deadline:
            raise LeaseLost from error
        if attempt == 0:
            _log.warning("database_away", error=repr(error))
        await asyncio.sleep(delay)

    # -- stopping and telling

    def _hear_cancel(self, event: CancelRequested) -> None:
        held = self._held.get(event.execution_id)
        if held is not None:
            # A hint only: the row says whether it is true.
            self._leasekeeper.look_for_cancels()

    async def _drain(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        self._hand_back_long_ones()
        # A claim under way is let through: cut off, it might be committed all the same, and held by nobody.
        if lanes:
            await asyncio.wait(lanes, timeout=CLAIM_DRAIN_SECONDS)
        await end(*lanes)
        self._hand_back_long_ones()
        if not self._held:
            return
        patience = (
            SHORT_DRAIN_SECONDS if any(held.kind.is_short for held in self._held.values()) else LONG_DRAIN_SECONDS
        )
        tasks = {held.task for held in self._held.values()}
        _, late = await asyncio.wait(tasks, timeout=patience)
        for held in list(self._held.values()):
            if held.task in late:
                held.hand_back()
        if late:
            await asyncio.wait(late, timeout=LONG_DRAIN_SECONDS)

    def _hand_back_long_ones(self) -> None:
        for held in self._held.values():
            if not held.kind.is_short and not held.is_handed_back:
                held.hand_back()

    def _changed(self, claim: Claim) -> None:
        self._say(("execution", claim.execution_id), ExecutionChanged(claim.execution_id, claim.owner_id))

    def _say(self, key: object, event: Event) -> None:
        self._announced[key] = event
        self._has_announcements.set()

    async def _announce(self) -> None:
        """Publish what was said since; the work itself never waits for Redis."""
        while True:
            await self._has_announcements.wait()
            await self._announce_rest()

    async def _announce_rest(self) -> None:
        self._has_announcements.clear()
        said, self._announced = self._announced, {}
        for event in said.values():
            await events.publish(event)


class Held:
    """An execution in hand."""

    work: Work
    task: asyncio.Task[None]

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.is_lost = False
        self.is_handed_back = False

    def lose(self) -> None:
        """The lease is gone: stop at once."""
        self.is_lost = True
        self.task.cancel()

    def hand_back(self) -> None:
        """Stop and return the execution to the queue."""
        self.is_handed_back = True
        self.work.is_draining = True
        self.task.cancel()


async def _crashed(work: Work) -> Outcome:
    """The outcome of a fault of ours: the operator gets the trace, the user learns that there was one."""
    _log.exception("execution_crashed", execution_id=str(work.id))
    await work.log.error("Something went wrong inside Switchyard; the operator finds the trace in its log.")
    return Outcome.failed(FailureCode.INTERNAL, "An internal error ended the execution.", retryable=True)


async def _end_whatever_happens(*tasks: asyncio.Task[Any]) -> None:
    """End tasks even if we are cancelled meanwhile: what still works must not be handed back or called lost."""
    ending = asyncio.ensure_future(end(*tasks))
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
