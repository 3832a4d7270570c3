"""What a kind of execution sees: its work, and the ways to end it.

A kind implements `Kind`; the engine (`tasks/executions.py`) knows nothing else of it. All that a kind writes
goes through `Work`, which carries the fencing token: after the lease is lost every write raises LeaseLost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

import asyncpg

from adapters import metrics, processes
from adapters.processes import Limits, ProcessTree, TreeStillAlive
from models.events import Event
from models.executions import NOT_MEASURED, Claim, ExecutionStatus, Failure, FailureCode, Usage
from tasks.log_writer import LogWriter

DEFAULT_LIMITS = Limits()
_P = ParamSpec("_P")
_T = TypeVar("_T")
FencedWrite = Callable[[asyncpg.Connection], Awaitable[None]]


class ExecutionFailed(Exception):
    """The execution ends FAILED with this failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended.

    `write` stores the kind's own result in the transaction that ends it; `news` is told once that is committed.
    """

    status: ExecutionStatus
    failure: Failure | None = None
    write: FencedWrite | None = None
    news: tuple[Event, ...] = ()

    @classmethod
    def failed(cls, code: FailureCode, message: str, **fields: Any) -> Outcome:
        """An end with a failure."""
        return cls(ExecutionStatus.FAILED, Failure(code, message, **fields))


SUCCEEDED = Outcome(ExecutionStatus.SUCCEEDED)
CANCELLED = Outcome(ExecutionStatus.CANCELLED)


class Kind(Protocol):
    """A kind of execution.

    `slots` is how many one worker runs at once, `running_per_owner` how many run for one owner on all workers.
    `run` is cancelled (asyncio) when the lease is lost or the worker drains; it must leave nothing behind then.
    `cancel_grace_seconds` is how long it may take after `work.cancel_requested` to end by itself, and
    `timeout_grace_seconds` how long after `work.remaining_seconds` reaches zero.
    """

    name: str
    slots: int
    running_per_owner: int
    is_short: bool
    cancel_grace_seconds: float
    timeout_grace_seconds: float

    async def run(self, work: Work) -> Outcome:
        """Do the work."""


class Ledger(Protocol):
    """The engine's side of `Work`."""

    def fenced(self, claim: Claim) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """A transaction that holds the lease; raises LeaseLost."""

    async def persist(self, work: Work, write: FencedWrite) -> None:
        """Run a fenced write through outages shorter than the lease."""

    async def advance(self, work: Work, progress: int, stage: str | None) -> None:
        """Store progress and stage."""


class Work:
    """One attempt at one execution, held under a lease."""

    def __init__(self, ledger: Ledger, claim: Claim, log: LogWriter, *, deadline: float, lease_deadline: float) -> None:
        self.claim = claim
        self.log = log
        self.cancel_requested = asyncio.Event()
        self.is_draining = False
        self.has_strays = False
        """Whether processes of this attempt may still live: then it is neither CANCELLED nor handed back."""
        self.used: Usage = NOT_MEASURED
        """What this attempt has used so far; the engine adds it to the execution's when the attempt ends."""
        self.lease_deadline = lease_deadline
        self._ledger = ledger
        self._deadline = deadline
        self._trees: set[ProcessTree] = set()
        self._progress = 0
        self._stage_since = time.monotonic()

    @property
    def id(self) -> UUID:
        """The execution's id."""
        return self.claim.execution_id

    @property
    def deadline(self) -> float:
        """When the work has to be done, on the clock of `time.monotonic()`."""
        return self._deadline

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction in which the lease cannot be lost; raises LeaseLost when it is lost already."""
        async with self._ledger.fenced(self.claim) as connection:
            yield connection

    async def persist(self, write: FencedWrite) -> None:
        """Run `write` in a fenced transaction, again after an outage of the database.

        The write must have no effect when it was already done, because the answer of a commit can be lost.
        """
        await self._ledger.persist(self, write)

    async def advance(self, progress: int, *, stage: str | None = None) -> None:
        """Tell how far the work is, 0 to 100; it never goes back. A new stage is written to the history."""
        progress = max(self._progress, min(100, progress))
        is_new_stage = stage is not None and stage != self.log.stage
        if progress == self._progress and not is_new_stage:
            return
        self._progress = progress
        if is_new_stage:
            self.end_stage()
            self.log.stage = stage
        await self._ledger.advance(self, progress, stage)

    @asynccontextmanager
    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        limits: Limits = DEFAULT_LIMITS,
        pass_fds: Sequence[int] = (),
    ) -> AsyncIterator[ProcessTree]:
        """Start a process tree that cannot outlive the lease; leaving the block kills it, and counts what it used."""
        tree: ProcessTree | None = None
        try:
            async with processes.spawn(
                argv, env=env, cwd=cwd, deadline=self.lease_deadline, limits=limits, pass_fds=pass_fds
            ) as tree:
                self._trees.add(tree)
                try:
                    yield tree
                finally:
                    self._trees.discard(tree)
        except (TreeStillAlive, asyncio.CancelledError) as error:
            # A cancellation wins over the bad news, and carries it as its cause.
            self.has_strays |= isinstance(error, TreeStillAlive) or isinstance(error.__cause__, TreeStillAlive)
            raise
        finally:
            ended = None if tree is None else tree.ended
            if ended is not None and ended.peak_rss_bytes:  # otherwise its supervisor was killed, and nobody can tell
                self.used = self.used.plus(
                    cpu_milliseconds=ended.cpu_milliseconds, peak_memory_bytes=ended.peak_rss_bytes
                )

    async def compute(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Run a function in a thread and count its processor time; its memory is the worker's and tells nothing.

        Cancelled, it leaves the thread to itself: what that takes from then on is not counted.
        """
        taken: list[float] = []

        def measured() -> _T:
            begun = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                taken.append(time.thread_time() - begun)

        try:
            return await asyncio.to_thread(measured)
        finally:
            for seconds in taken:
                self.used = self.used.plus(cpu_milliseconds=round(seconds * 1_000))

    def end_stage(self) -> None:
        """Measure the stage that is over, if there was one in this attempt."""
        now, since = time.monotonic(), self._stage_since
        self._stage_since = now
        if self.log.stage is not None:
            metrics.current().observe_stage(self.claim.kind, self.log.stage, now - since)

    def renew(self, lease_deadline: float) -> None:
        """The lease holds until then: let the process trees live as long."""
        self.lease_deadline = lease_deadline
        for tree in self._trees:
            tree.renew(lease_deadline)
