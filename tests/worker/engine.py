"""The bench that tests of the engine work at: scenarios side by side, and what every execution must keep to.

Faults take as long as leases do, so scenarios marked `@together` run at the same time, each with a kind, an owner and
workers of its own on the module's database. `Bench.verdict` holds the end of an execution against the promises that
hold for all of them.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import orjson
import pytest
import pytest_asyncio

from adapters import events
from adapters.events import EventBus
from models import database, execution_commands, logs
from models.events import CancelRequested
from models.execution_commands import CancelOutcome
from models.executions import FINAL_STATUSES, ExecutionStatus
from models.ids import new_id
from models.transaction import unit_of_work
from settings import Settings
from tasks.queue import Doorbell, close, open_arq
from tests.conftest import Programs
from tests.harness.processes import Program
from tests.harness.waiting import eventually, leftover_processes
from tests.worker import trivial

LEASE_SECONDS = 6.0  # as in tests/conftest.py
SWEEP_SECONDS = 0.5
RECOVERY_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + 2
END_SECONDS = 60.0

# How PostgreSQL's answers end once a transaction is committed, and once a statement of its own that gave the one row
# asked for is (manual, "Message Formats": CommandComplete or PortalSuspended, then ReadyForQuery, idle).
COMMITTED = b"COMMIT\x00Z\x00\x00\x00\x05I"
GAVE_A_ROW = b"s\x00\x00\x00\x04Z\x00\x00\x00\x05I"

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of a child, by the clock that it shares with the database."""

    attempt: int
    at: datetime


class Bench:
    """One scenario's corner: a kind of its own, workers, an owner. Times are the database's."""

    def __init__(self, pool: asyncpg.Pool, programs: Programs, settings: Settings) -> None:
        self.db = pool
        self.settings = settings
        self.kind = f"T{secrets.token_hex(6).upper()}"
        self._programs = programs
        self._workers: list[Program] = []
        self._owner: UUID | None = None

    # -- workers

    async def worker(self, *, slots: int = 4, **settings: str) -> Program:
        """A worker of this kind that is ready; one without slots only sweeps."""
        started = self.start_worker(slots=slots, **settings)
        await started.wait_event("worker_started")
        return started

    def start_worker(self, *, slots: int = 4, **settings: str) -> Program:
        """A worker that will be ready soon."""
        settings = {**self.environment, "TRIVIAL_KINDS": f"{self.kind}:{slots}", **settings}
        started = self._programs.start(["-m", "tests.worker.trivial"], kind="worker", **settings)
        self._workers.append(started)
        return started

    async def stop_workers(self) -> None:
        """End those that still live, in order."""
        living = [worker for worker in self._workers if worker.exit_code is None]
        assert set(await asyncio.gather(*(worker.stop() for worker in living))) <= {0}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this bench's programs."""
        return {
            **self._programs.environment,
            "DATABASE_URL": self.settings.database_url.get_secret_value(),
            "REDIS_URL": self.settings.redis_url.get_secret_value(),
        }

    # -- what users do

    async def owner(self) -> UUID:
        """A new user."""
        owner = new_id()
        await self.db.execute(
            """INSERT INTO users (id, email, email_key, username, username_key, name, password_hash, role, is_active,
                   created_at)
               VALUES ($1, $2, $2, $2, $2, 'Bench', 'none', 'USER', true, now())""",
            owner,
            owner.hex,
        )
        return owner

    async def queue(
        self,
        *steps: Step,
        owner: UUID | None = None,
        timeout_seconds: float = 120,
        max_attempts: int = 3,
        turn_key: str | None = None,
        ring: bool = False,
        execution: UUID | None = None,
    ) -> UUID:
        """Put an execution into the queue; its id, a new one if none is given. Nobody is told unless `ring` says so."""
        if owner is None and self._owner is None:
            self._owner = await self.owner()
        execution = execution or new_id()
        async with self.db.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO trivial_runs VALUES ($1, $2)", execution, orjson.dumps(steps).decode()
            )
            await connection.execute(
                """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                       timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes, turn_key)
                   VALUES ($1, $2, $3, 'QUEUED', 0, 0, 0, $4, $5, 0, clock_timestamp(), false, 0, 0, $6)""",
                execution,
                self.kind,
                owner or self._owner,
                max_attempts,
                timeout_seconds,
                turn_key,
            )
        if ring:
            await self.ring(execution)
        return execution

    async def ring(self, execution: UUID) -> None:
        """Ring the doorbell, as the API does after its commit."""
        async with self._doorbell() as doorbell:
            await doorbell.ring(self.kind, execution)

    async def cancel(self, execution: UUID) -> CancelOutcome:
        """Ask an execution to stop, as the API does: row first, then the word to the workers."""
        async with unit_of_work():
            outcome = await execution_commands.request_cancel(execution, by=None)
        redis = events.open_redis(self.settings)
        await EventBus(redis, f"{self.settings.redis_namespace}:events").send(CancelRequested(execution))
        await redis.aclose()
        return outcome

    @asynccontextmanager
    async def _doorbell(self) -> AsyncIterator[Doorbell]:
        redis = open_arq(self.settings)
        try:
            yield Doorbell(redis, self.settings.redis_namespace)
        finally:
            await close(redis)

    # -- looking

    async def clock(self) -> datetime:
        """Now, by the database."""
        now: datetime = await self.db.fetchval("SELECT clock_timestamp()")
        return now

    async def row(self, execution: UUID) -> asyncpg.Record:
        """The execution now."""
        return await self.db.fetchrow("SELECT * FROM executions WHERE id = $1", execution)

    async def ended(self, execution: UUID, within: float = END_SECONDS) -> asyncpg.Record:
        """Wait for the end; the final row."""

        async def final_row() -> asyncpg.Record | None:
            return await self.db.fetchrow(
                "SELECT * FROM executions WHERE id = $1 AND finished_at IS NOT NULL", execution
            )

        return await eventually(final_row, within, what=f"the end of {execution}")

    async def history(self, execution: UUID) -> list[asyncpg.Record]:
        """Its events, oldest first."""
        found: list[asyncpg.Record] = await self.db.fetch(
            "SELECT * FROM execution_events WHERE execution_id = $1 ORDER BY id", execution
        )
        return found

    async def until(
        self, execution: UUID, *, status: ExecutionStatus, attempt: int = 1, within: float = END_SECONDS
    ) -> datetime:
        """Wait for a status of an attempt in the history; when it came to be."""

        async def happened() -> datetime | None:
            at: datetime | None = await self.db.fetchval(
                "SELECT min(at) FROM execution_events WHERE execution_id = $1 AND status = $2 AND attempt = $3",
                execution,
                status.value,
                attempt,
            )
            return at

        return await eventually(happened, within, what=f"{status} of attempt {attempt}")

    async def until_line(self, execution: UUID, message: str, within: float = END_SECONDS) -> None:
        """Wait until the log has a line."""

        async def is_there() -> bool:
            return message in await self.messages(execution)

        await eventually(is_there, within, what=f"the line {message!r}")

    async def chunks(self, execution: UUID) -> list[asyncpg.Record]:
        """The stored chunks of its log."""
        found: list[asyncpg.Record] = await self.db.fetch(
            "SELECT * FROM log_chunks WHERE execution_id = $1 ORDER BY first_sequence", execution
        )
        return found

    async def lines(self, execution: UUID) -> list[logs.Line]:
        """The log as stored in the database."""
        return [
            line
            for chunk in await self.chunks(execution)
            for line in logs.decode_lines(chunk["first_sequence"], chunk["body"])
        ]

    async def messages(self, execution: UUID) -> list[str]:
        """The texts of the log."""
        return [line.message for line in await self.lines(execution)]

    def beats(self, execution: UUID) -> list[Beat]:
        """What the execution's children did."""
        path = self.settings.data_dir / f"beats-{execution}"
        fields = [line.split() for line in path.read_text().splitlines()]
        return [Beat(int(attempt), datetime.fromtimestamp(float(at), UTC)) for attempt, at in fields]

    def stubborn_tries(self, execution: UUID) -> dict[str, str] | None:
        """What became of the writes of a stubborn attempt, None while it has not tried."""
        path = self.settings.data_dir / f"stubborn-{execution}"
        return orjson.loads(path.read_bytes()) if path.exists() else None

    # -- judging

    async def verdict(
        self, execution: UUID, status: ExecutionStatus, *, attempt: int = 1, within: float = END_SECONDS
    ) -> asyncpg.Record:
        """Wait for the end and hold it against what every execution promises; the final row."""
        row = await self.ended(execution, within)
        assert (row["status"], row["attempt"]) == (status, attempt), dict(row)
        history = await self.history(execution)
        assert [event["status"] for event in history if event["status"] in FINAL_STATUSES] == [status]
        assert history[-1]["status"] == status
        claimed = [event["attempt"] for event in history if event["status"] == "RUNNING" and event["stage"] is None]
        assert claimed == list(range(1, attempt + 1)), "every attempt was claimed once"
        effects = await self.db.fetch("SELECT attempt FROM trivial_effects WHERE execution_id = $1", execution)
        assert [effect["attempt"] for effect in effects] == ([attempt] if status == "SUCCEEDED" else [])
        await self.check_log(execution)
        self.check_no_overlap(execution)
        assert leftover_processes(str(execution)) == {}
        return row

    async def check_log(self, execution: UUID) -> None:
        """The lines are numbered 1, 2, 3 … without gap or duplicate, up to what the row says."""
        numbers = [line.sequence for line in await self.lines(execution)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == (await self.row(execution))["log_sequence"]

    def check_no_overlap(self, execution: UUID) -> None:
        """The children of an attempt were gone before those of the next one began."""
        if not (self.settings.data_dir / f"beats-{execution}").exists():
            return
        attempts = itertools.groupby(sorted(self.beats(execution), key=_attempt_and_time), key=_attempt)
        spans = [(attempt, [beat.at for beat in beats]) for attempt, beats in attempts]
        for (earlier, before), (later, after) in itertools.pairwise(spans):
            assert before[-1] < after[0], f"attempt {earlier} still worked when attempt {later} began"


def _attempt(beat: Beat) -> int:
    return beat.attempt


def _attempt_and_time(beat: Beat) -> tuple[int, datetime]:
    return beat.attempt, beat.at


async def hold(seconds: float) -> None:
    """Let a fault last for so long."""
    end = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() >= end, seconds + 1)


# -- scenarios side by side

Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


class Scenarios:
    """The scenarios of a module, all under way."""

    def __init__(self, make_bench: Callable[[], Bench]) -> None:
        self.make_bench = make_bench
        self._tasks: dict[Scenario, asyncio.Task[None]] = {}

    def start(self, scenario: Scenario) -> None:
        """Begin a scenario on a bench of its own."""
        self._tasks[scenario] = asyncio.create_task(self._play(scenario))

    async def _play(self, scenario: Scenario) -> None:
        bench = self.make_bench()
        try:
            await scenario(bench)
        finally:
            await bench.stop_workers()

    async def result(self, scenario: Scenario) -> None:
        """Wait for a scenario; raises what it raised."""
        await self._tasks[scenario]

    async def stop(self) -> None:
        """End those that nobody waited for."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def together(scenario: Scenario) -> Callable[[Scenarios], Awaitable[None]]:
    """A test that runs at the same time as the others of its module that are marked so."""

    @functools.wraps(scenario)
    async def test(scenarios: Scenarios) -> None:
        await scenarios.result(scenario)

    del test.__wrapped__  # pytest would look for the fixtures of the scenario
    test.scenario = scenario  # type: ignore[attr-defined] # found by the fixture below
    return test


@pytest_asyncio.fixture(scope="module")
async def benches(
    programs: Programs, settings_env: dict[str, str], database_url: str
) -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches on the module's database; arguments are settings that differ."""
    settings = Settings.model_validate({name.lower(): value for name, value in settings_env.items()})
    async with (
        database.connected(settings),
        asyncpg.create_pool(database_url, min_size=1, max_size=10, command_timeout=15) as pool,
    ):
        await pool.execute(trivial.TABLES)

        def make(**changes: Any) -> Bench:
            return Bench(pool, programs, settings.model_copy(update=changes))

        yield make


@pytest_asyncio.fixture(scope="module")
async def scenarios(benches: Callable[..., Bench], request: pytest.FixtureRequest) -> AsyncIterator[Scenarios]:
    """All scenarios of the module that were asked for, started at once."""
    started = Scenarios(benches)
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item.obj, "scenario"):
            started.start(item.obj.scenario)
    yield started
    await started.stop()


@pytest_asyncio.fixture
async def bench(benches: Callable[..., Bench]) -> AsyncIterator[Bench]:
    """A bench for a test on its own."""
    made = benches()
    yield made
    await made.stop_workers()


# -- a network that loses answers


class CuttingProxy:
    """Stands before PostgreSQL and interferes with answers that hold certain bytes."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._needle = b""
        self._after = b""
        self._left = 0
        self._first: Callable[[], Awaitable[None]] | None = None
        self.answers_met = 0

    @property
    def url(self) -> str:
        """The address that workers get."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user = self._target.netloc.rpartition("@")[0]
        return self._target._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable").geturl()

    def cut(self, needle: bytes, times: int) -> None:
        """Lose the next so many answers that hold these bytes, and the connections they come on."""
        self._needle, self._after, self._left, self._first = needle, b"", times, None

    def delay(self, needle: bytes, first: Callable[[], Awaitable[None]], *, after: bytes) -> None:
        """Do something before the next answer that holds these bytes is passed on, once `after` came that way."""
        self._needle, self._after, self._left, self._first = needle, after, 1, first

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = await asyncio.open_connection(self._target.hostname, self._target.port or 5432)
        to_server = asyncio.create_task(_relay(reader, target[1]))
        to_client = asyncio.create_task(self._relay_answers(target[0], writer))
        relays = {to_server, to_client}
        self._relays |= relays
        try:
            await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for relay in relays:
                relay.cancel()
            writer.transport.abort()
            target[1].transport.abort()
            self._relays -= relays

    async def _relay_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""  # an answer may come in two pieces
        came = b""
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                heard = tail + data
                if self._left and came != self._after and self._after in heard:
                    came = self._after
                    heard = heard.partition(came)[2]
                if self._left and came == self._after and self._needle in heard:
                    self._left -= 1
                    self.answers_met += 1
                    if self._first is None:
                        return
                    await self._first()
                tail = heard[-max(len(self._needle), len(self._after)) :] if self._left else b""
                writer.write(data)
                await writer.drain()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
