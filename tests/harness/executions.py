"""Executions as workers leave them: written through the models, without a worker and without waiting for one.

Each step is what a worker does, statement and announcement, so readers cannot tell the difference. Leases last an hour:
no sweeper takes them away.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from adapters import events, storage
from models import database, execution_commands, job_queries, leases, logs, tools
from models.database import row, rows, to_json
from models.events import Event, ExecutionChanged, LogAppended
from models.executions import Claim, ExecutionStatus, Failure
from models.ids import Prefix, decode_id, encode_id, new_id
from models.logs import MAX_CHUNK_LINES, LogLevel, NewLine
from models.transaction import unit_of_work
from settings import Settings
from tasks import log_compaction
from tasks.crawl.kind import KIND
from tests.factories import Person
from tests.harness.waiting import eventually

LEASE_SECONDS = 3_600.0
FIRST_TIMESTAMP_MS = 1_750_000_000_000


class Desk:
    """Makes tools, jobs and runs in a module's database; `tell` carries events to the API processes."""

    def __init__(
        self, pool: asyncpg.Pool, tell: Callable[[Event], Awaitable[None]], settings: Settings | None = None
    ) -> None:
        self.pool = pool
        self.tell = tell
        self.settings = settings

    async def tool(self, *, is_active: bool = True) -> UUID:
        """A tool."""
        name = f"tool-{secrets.token_hex(4)}"
        tool_id = await tools.insert(
            slug=name, name=name, category="tests", description="", states=[], icon=None, spider="catalogue",
            input_schema={"type": "object"}, is_active=True,
        )  # fmt: skip
        assert tool_id is not None
        if not is_active:
            await self.set_active(tool_id, False)
        return tool_id

    async def set_active(self, tool_id: UUID, is_active: bool) -> None:
        """Switch a tool on or off."""
        await self.pool.execute("UPDATE tools SET is_active = $2 WHERE id = $1", tool_id, is_active)

    async def job(self, owner: Person, *, tool: UUID | None = None) -> UUID:
        """A job of somebody."""
        job_id = new_id()
        tool_id = tool or await self.tool()
        made = await job_queries.insert(
            job_id, owner_id=uuid_of(owner), tool_id=tool_id, name="A job", input={"startUrls": ["https://a.example/"]}
        )
        assert made
        return job_id

    async def queued(self, owner: Person, *, job: UUID | None = None, dataset: UUID | None = None) -> UUID:
        """A run that waits, as `runJob` leaves it."""
        job_id = job or await self.job(owner)
        run_id = new_id()
        async with unit_of_work():
            await execution_commands.create(
                run_id,
                kind=KIND,
                owner_id=uuid_of(owner),
                requested_by=uuid_of(owner),
                timeout_seconds=60,
                max_attempts=3,
                max_queued=100_000,
            )
            await rows(
                """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                       is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                       requests_robots, requests_throttled)
                   SELECT $1, j.id, j.tool_id, 'catalogue', j.input, '{}', 'API', $3, false, 0, 0, 0, 0, 0, 0, 0
                   FROM jobs j WHERE j.id = $2""",
                run_id,
                job_id,
                dataset or run_id,
            )
        await self.tell(ExecutionChanged(run_id, uuid_of(owner)))
        return run_id

    async def started(self, owner: Person, *, job: UUID | None = None) -> Hand:
        """A run that works, in our hand."""
        return await self.claim(await self.queued(owner, job=job))

    async def finished(
        self, owner: Person, *, lines: int = 0, status: ExecutionStatus = ExecutionStatus.SUCCEEDED
    ) -> UUID:
        """A run that has ended, with a log."""
        hand = await self.started(owner)
        await hand.write(*numbered(1, lines))
        await hand.finish(status)
        return hand.id

    async def claim(self, run_id: UUID) -> Hand:
        """Take this run, whoever's turn it is."""
        found = await row(
            """UPDATE executions SET status = 'RUNNING', attempt = attempt + 1, worker = 'tests', progress = 0,
                   claimed_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => $2),
                   started_at = coalesce(started_at, clock_timestamp())
               WHERE id = $1 AND status = 'QUEUED' RETURNING owner_id, attempt, stage, log_sequence, log_bytes""",
            run_id,
            LEASE_SECONDS,
        )
        assert found is not None
        await rows(
            "INSERT INTO execution_events (execution_id, at, status, attempt) VALUES ($1, now(), 'RUNNING', $2)",
            run_id,
            found["attempt"],
        )
        claim = Claim(execution_id=run_id, kind=KIND, remaining_seconds=60.0, **found)
        hand = Hand(self, claim)
        await hand.tell_change()
        return hand

    @asynccontextmanager
    async def holding_back(self, owner: Person) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Nothing that makes runs of somebody goes on meanwhile; yields what waits until so many are held back."""

        async def all_wait(count: int) -> None:
            async def is_so() -> bool:
                waiting = await self.pool.fetchval(
                    """SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'"""
                )
                return bool(waiting == count)

            await eventually(is_so, 4)

        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"queue:{uuid_of(owner)}"
            )  # as models/execution_commands.py takes it
            yield all_wait

    async def compact(self, run_id: UUID) -> None:
        """Move a finished log to storage, as workers do after a minute."""
        await self.pool.execute("UPDATE executions SET log_compaction_after = now() WHERE id = $1", run_id)
        while await self.pool.fetchval("SELECT log_compaction_after IS NOT NULL FROM executions WHERE id = $1", run_id):
            assert await log_compaction.compact_due(self.pool, storage.current())
        assert await self.pool.fetchval("SELECT count(*) FROM log_chunks WHERE execution_id = $1", run_id) == 0


@asynccontextmanager
async def open_desk(environment: Mapping[str, str]) -> AsyncIterator[Desk]:
    """A desk in the environment of a module's programs; database, events and storage are open meanwhile."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        storage.open_storage(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield Desk(pool, events.publish, settings)


def settings_of(environment: Mapping[str, str]) -> Settings:
    """What programs with this environment read from it."""
    return Settings.model_validate({name.lower(): value for name, value in environment.items()})


class Hand:
    """What a worker holds: one running execution."""

    def __init__(self, desk: Desk, claim: Claim) -> None:
        self.desk = desk
        self.claim = claim
        self.id = claim.execution_id
        self.sequence = claim.log_sequence

    async def write(self, *lines: NewLine | str, chunk: int = MAX_CHUNK_LINES, quietly: bool = False) -> None:
        """Append lines in chunks; `quietly` tells nobody, like an event that got lost."""
        ready = [line if isinstance(line, NewLine) else new_line(line) for line in lines]
        for batch in _batches(ready, chunk):
            async with self.desk.pool.acquire() as connection:
                stored = await logs.append(connection, self.claim, after_sequence=self.sequence, lines=batch)
            assert stored, "the lease is lost"
            self.sequence += len(batch)
            if not quietly:
                await self.desk.tell(LogAppended(self.id, self.sequence))

    async def advance(self, progress: int, *, stage: str | None = None) -> None:
        """Report progress."""
        async with self.desk.pool.acquire() as connection:
            assert await leases.advance(connection, self.claim, progress=progress, stage=stage)
        await self.tell_change()

    async def finish(
        self,
        status: ExecutionStatus = ExecutionStatus.SUCCEEDED,
        *,
        failure: Failure | None = None,
        quietly: bool = False,
    ) -> None:
        """Write the final status; `quietly` tells nobody."""
        async with self.desk.pool.acquire() as connection:
            assert await leases.finish(
                connection, self.claim, status, failure=failure, compact_log_after_seconds=LEASE_SECONDS
            )
        if not quietly:
            await self.tell_change()

    async def tell_change(self) -> None:
        """Say that the row changed."""
        await self.desk.tell(ExecutionChanged(self.id, self.claim.owner_id))


def new_line(message: str, level: LogLevel = LogLevel.INFO, *, stage: str | None = None) -> NewLine:
    """A line that is not stored yet."""
    return NewLine(FIRST_TIMESTAMP_MS, level, message, stage)


def numbered(first: int, last: int, *, width: int = 0) -> list[NewLine]:
    """Lines that say their number, filled up to `width` characters."""
    return [new_line(f"line {number}".ljust(width, "x")) for number in range(first, last + 1)]


def uuid_of(person: Person) -> UUID:
    """The key of a user's row."""
    return decode_id(person.id)[1]


def run_id(execution: UUID) -> str:
    """The id of a run that clients see."""
    return encode_id(Prefix.RUN, execution)


async def add_items(run: UUID, dataset: UUID, items: Sequence[dict[str, Any]]) -> None:
    """Store items of a run."""
    for number, item in enumerate(items):
        await rows(
            """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
               VALUES ($1, $2, $3, 'https://a.example/', $4::jsonb, now())""",
            dataset,
            run,
            f"{run}-{number}",
            to_json(item),
        )


async def add_request(dataset: UUID, *, state: str, reason: str | None = None) -> None:
    """Put a request into the frontier of a dataset."""
    await rows(
        """INSERT INTO crawl_requests (dataset_id, fingerprint, url, payload, depth, rank, state, starts,
               failure_reason) VALUES ($1, $2, 'https://a.example/', '{}', 0, 0, $3, 0, $4)""",
        dataset,
        secrets.token_bytes(20),
        state,
        reason,
    )


def _batches(lines: list[NewLine], size: int) -> Iterable[list[NewLine]]:
    iterator = iter(lines)
    return iter(lambda: list(itertools.islice(iterator, size)), [])
