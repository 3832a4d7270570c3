"""The outbox with real workers: shared, killed, stopped, poisoned, cut off; and what is kept of what failed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from adapters import events
from adapters.cancellation import end
from adapters.events import EventBus
from models import outbox
from models.events import OutboxFilled
from settings import Settings
from tasks import outbox as telling
from tasks.outbox import MAX_ATTEMPTS, Handler, pause_seconds
from tests.conftest import WorkerFactory
from tests.harness.processes import Program
from tests.harness.waiting import eventually
from tests.worker.engine import hold
from tests.worker.tellers import TABLES, tell

QUICK = {"LEASE_SECONDS": 3.0, "TELL_SECONDS": 1.5, "FIRST_PAUSE_SECONDS": 0.05, "LONGEST_PAUSE_SECONDS": 0.2}


@pytest_asyncio.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, command_timeout=10) as opened:
        await opened.execute(TABLES)
        yield opened


class Workers:
    """Starts workers that know some topics."""

    def __init__(self, factory: WorkerFactory) -> None:
        self._factory = factory

    async def __call__(self, topics: Mapping[str, str], **constants: float) -> Program:
        tellers = ",".join(f"{topic}:{behaviour}" for topic, behaviour in topics.items())
        text = ",".join(f"{name}={value}" for name, value in {"LOOK_SECONDS": 0.1, **constants}.items())
        started = self._factory(("-m", "tests.worker.tellers"), TELLERS=tellers, OUTBOX_CONSTANTS=text)
        await started.wait_event("worker_started")
        return started


@pytest.fixture
def workers(worker_factory: WorkerFactory) -> Workers:
    return Workers(worker_factory)


class Here:
    """Tells topics in this very process, with the same code, where no process needs to die for the test."""

    def __init__(self, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = pool
        self._monkeypatch = monkeypatch
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, topics: Mapping[str, str], **constants: float) -> asyncio.Task[None]:
        for name, value in {"LOOK_SECONDS": 0.1, **constants}.items():
            self._monkeypatch.setattr(telling, name, value)
        handlers: dict[str, Handler] = {
            topic: partial(tell, self.pool, behaviour) for topic, behaviour in topics.items()
        }
        self.tasks.append(asyncio.create_task(telling.run(self.pool, handlers)))
        return self.tasks[-1]


@pytest.fixture(scope="module")
def settings(settings_env: dict[str, str]) -> Settings:
    return Settings.model_validate({name.lower(): value for name, value in settings_env.items()})


@pytest.fixture
async def here(pool: asyncpg.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    async with events.connected(settings):
        made = Here(pool, monkeypatch)
        yield made
        await end(*made.tasks)
        assert all(task.cancelled() for task in made.tasks), "whatever happened, it went on"


def a_topic(word: str) -> str:
    return f"{word}-{secrets.token_hex(3)}"


async def put(pool: asyncpg.Pool, topic: str, key: str = "k", **payload: Any) -> str:
    """Put a message; the name under which it is told."""
    name = f"{topic}/{key}"
    async with pool.acquire() as connection:
        assert await outbox.put_with(connection, topic, key, {"name": name, **payload})
    return name


async def tellings(pool: asyncpg.Pool, name: str, *, is_end: bool = True) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await pool.fetch(
        "SELECT * FROM tellings WHERE name = $1 AND is_end = $2 ORDER BY id", name, is_end
    )
    return found


async def told(pool: asyncpg.Pool, name: str, within: float = 10, *, is_end: bool = True) -> asyncpg.Record:
    """Wait until a message was told, or begun; the first time it was."""

    async def first() -> asyncpg.Record | None:
        return next(iter(await tellings(pool, name, is_end=is_end)), None)

    return await eventually(first, within, what=f"{name} told")


async def kept(pool: asyncpg.Pool, topic: str) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await pool.fetch("SELECT * FROM outbox_messages WHERE topic = $1", topic)
    return found


async def emptied(pool: asyncpg.Pool, topic: str, within: float = 10) -> None:
    async def is_empty() -> bool:
        return not await kept(pool, topic)

    await eventually(is_empty, within, what=f"nothing left of {topic}")


async def given_up(pool: asyncpg.Pool, topic: str, within: float = 10) -> asyncpg.Record:
    async def row() -> asyncpg.Record | None:
        return await pool.fetchrow("SELECT * FROM outbox_messages WHERE topic = $1 AND given_up_at IS NOT NULL", topic)

    return await eventually(row, within, what=f"{topic} given up")


# -- putting


async def test_a_key_that_waits_already_is_not_put_again(pool: asyncpg.Pool) -> None:
    topic, other = a_topic("nobody"), a_topic("nobody")
    async with pool.acquire() as connection:
        assert await outbox.put_with(connection, topic, "same", {"n": 1})
        assert not await outbox.put_with(connection, topic, "same", {"n": 2})
        assert await outbox.put_with(connection, other, "same", {"n": 3})
    (row,) = await kept(pool, topic)
    assert (row["payload"], row["attempts"]) == ('{"n": 1}', 0)


async def test_many_who_put_the_same_at_once_put_it_once(pool: asyncpg.Pool) -> None:
    topic = a_topic("nobody")

    async def once() -> bool:
        async with pool.acquire() as connection, connection.transaction():
            return await outbox.put_with(connection, topic, "same", {})

    assert sum(await asyncio.gather(*(once() for _ in range(8)))) == 1
    assert len(await kept(pool, topic)) == 1


async def test_what_is_rolled_back_is_never_told(pool: asyncpg.Pool) -> None:
    topic = a_topic("nobody")

    async def fail() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await outbox.put_with(connection, topic, "k", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await kept(pool, topic) == []


async def test_whoever_is_late_puts_nothing_off_that_another_one_has(pool: asyncpg.Pool) -> None:
    topic = a_topic("nobody")
    await put(pool, topic)
    async with pool.acquire() as connection:
        (late,) = await outbox.take(connection, {topic: 1}, lease_seconds=0)
        (present,) = await outbox.take(connection, {topic: 1}, lease_seconds=60)
        assert (late.attempts, present.attempts) == (1, 2)
        before = await kept(pool, topic)
        await outbox.put_off(connection, late, error="late", seconds=0)
        await outbox.put_off(connection, late, error=None, seconds=0)
        await outbox.give_up(connection, late, error="late")
        assert await kept(pool, topic) == before
        await outbox.settle(connection, late)
    assert await kept(pool, topic) == [], "but what was told was told"


# -- telling


async def test_two_workers_share_and_tell_nothing_twice(pool: asyncpg.Pool, workers: Workers) -> None:
    topic = a_topic("shared")
    first, second = await asyncio.gather(workers({topic: "fine"}), workers({topic: "fine"}))
    names = [await put(pool, topic, str(number), seconds=0.05) for number in range(60)]
    await emptied(pool, topic)
    counts = [len(await tellings(pool, name)) for name in names]
    assert counts == [1] * len(names)
    tellers = await pool.fetch("SELECT DISTINCT worker FROM tellings WHERE name LIKE $1", f"{topic}/%")
    assert {row["worker"] for row in tellers} == {first.pid, second.pid}


async def test_what_a_killed_worker_was_telling_is_told_by_another(pool: asyncpg.Pool, workers: Workers) -> None:
    topic = a_topic("killed")
    doomed = await workers({topic: "slow-once"}, LEASE_SECONDS=2.0)
    name = await put(pool, topic)
    began = await told(pool, name, is_end=False)
    doomed.kill()
    other = await workers({topic: "slow-once"})
    ended = await told(pool, name)
    assert ended["worker"] == other.pid
    assert ended["at"] - began["at"] >= timedelta(seconds=1.9), "not while the first one could still be at it"
    await emptied(pool, topic)


async def test_what_a_stopped_worker_was_telling_is_handed_back(pool: asyncpg.Pool, workers: Workers) -> None:
    topic = a_topic("stopped")
    stopped = await workers({topic: "slow-once"})
    name = await put(pool, topic)
    await told(pool, name, is_end=False)
    other = await workers({topic: "slow-once"})
    assert await stopped.stop() == 0
    ended = await told(pool, name, within=5)
    assert ended["worker"] == other.pid, "long before the lease of a minute"


async def test_a_poisoned_topic_holds_no_other_back(pool: asyncpg.Pool, here: Here) -> None:
    hanging, faulty, healthy = a_topic("hanging"), a_topic("faulty"), a_topic("healthy")
    for number in range(30):
        await put(pool, hanging, str(number))
        await put(pool, faulty, str(number))
    here({hanging: "hang", faulty: "faulty", healthy: "fine"})
    names = [await put(pool, healthy, str(number)) for number in range(10)]
    for name in names:
        await told(pool, name, within=4)
    states = await pool.fetchrow(
        """SELECT count(*) FILTER (WHERE topic = $1) AS hanging,
                  count(*) FILTER (WHERE topic = $1 AND attempts = 1) AS begun,
                  count(*) FILTER (WHERE topic = $2) AS faulty FROM outbox_messages""",
        hanging,
        faulty,
    )
    assert (states["hanging"], states["faulty"]) == (30, 30), "nothing of them is lost"
    assert states["begun"] == 4, "those that wait for a place are not taken"


async def test_a_telling_that_hangs_is_ended_and_put_off(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("hanging")
    here({topic: "hang"}, TELL_SECONDS=0.3, FIRST_PAUSE_SECONDS=600, LONGEST_PAUSE_SECONDS=600)
    await put(pool, topic)

    async def put_off() -> asyncpg.Record | None:
        return await pool.fetchrow("SELECT * FROM outbox_messages WHERE topic = $1 AND last_error IS NOT NULL", topic)

    row = await eventually(put_off)
    assert (row["attempts"], row["last_error"]) == (1, "It did not end in time.")
    wait = await pool.fetchval("SELECT due_at - now() FROM outbox_messages WHERE topic = $1", topic)
    assert timedelta(seconds=400) < wait < timedelta(seconds=800)


async def test_a_fault_that_passes_is_told_in_the_end(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("faulty")
    here({topic: "faulty-once"}, **QUICK)
    name = await put(pool, topic)
    await told(pool, name)
    await emptied(pool, topic)
    assert len(await tellings(pool, name, is_end=False)) == 2


async def test_a_message_is_given_up_after_twelve_attempts_and_says_why(pool: asyncpg.Pool, here: Here) -> None:
    topic, healthy = a_topic("faulty"), a_topic("healthy")
    here({topic: "faulty", healthy: "fine"}, **QUICK)
    name = await put(pool, topic)
    with capture_logs() as logged:
        row = await given_up(pool, topic, within=30)
        await eventually(lambda: any(line["event"] == "outbox_given_up" for line in logged))
    assert row["attempts"] == MAX_ATTEMPTS == len(await tellings(pool, name, is_end=False))
    assert row["last_error"] == "A fault of our own: RuntimeError.", "what an exception says may be a secret"
    line = next(line for line in logged if line["event"] == "outbox_given_up")
    assert (line["log_level"], line["topic"], line["key"]) == ("error", topic, "k")
    await told(pool, await put(pool, healthy))
    assert len(await tellings(pool, name, is_end=False)) == MAX_ATTEMPTS, "given up is given up"


async def test_what_can_never_be_told_is_given_up_at_once(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("refused")
    here({topic: "refused"})
    await put(pool, topic)
    row = await given_up(pool, topic)
    assert (row["attempts"], row["last_error"]) == (1, "Nobody is there.")


async def test_a_message_that_kills_its_workers_is_given_up_untold(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("deadly")
    name = await put(pool, topic)
    await pool.execute("UPDATE outbox_messages SET attempts = $2 WHERE topic = $1", topic, MAX_ATTEMPTS)
    here({topic: "fine"})
    row = await given_up(pool, topic)
    assert "lost" in row["last_error"]
    assert await tellings(pool, name, is_end=False) == []


async def test_what_was_given_up_is_kept_for_thirty_days(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("refused")
    task = here({topic: "refused"})
    await put(pool, topic)
    row = await given_up(pool, topic)
    assert row["due_at"] - row["given_up_at"] == timedelta(days=30)
    await end(task)
    await pool.execute("UPDATE outbox_messages SET due_at = now() - interval '1 s' WHERE topic = $1", topic)
    async with pool.acquire() as connection:
        assert await outbox.take(connection, {topic: 1}, lease_seconds=0) == [], "its time to go is no time to come"
    here({a_topic("any"): "fine"})
    await emptied(pool, topic)


async def test_topics_that_nobody_knows_wait_for_somebody_who_does(pool: asyncpg.Pool, here: Here) -> None:
    known, unknown = a_topic("known"), a_topic("unknown")
    here({known: "fine"})
    name = await put(pool, unknown)
    await told(pool, await put(pool, known))
    (row,) = await kept(pool, unknown)
    assert (row["attempts"], row["last_error"]) == (0, None)
    here({unknown: "fine"})
    await told(pool, name)


async def test_a_message_that_is_due_later_is_told_later(pool: asyncpg.Pool, here: Here) -> None:
    topic = a_topic("later")
    here({topic: "fine"})
    async with pool.acquire() as connection:
        await outbox.put_with(connection, topic, "k", {"name": topic}, due_in_seconds=0.7)
    (row,) = await kept(pool, topic)
    ended = await told(pool, topic)
    assert ended["at"] >= row["due_at"]


async def test_a_poke_is_quicker_than_the_next_look(pool: asyncpg.Pool, workers: Workers, settings: Settings) -> None:
    topic = a_topic("poked")
    before = await put(pool, topic, "before")
    await workers({topic: "fine"}, LOOK_SECONDS=600)
    await told(pool, before)
    await hold(0.5)  # until the look that follows a telling is over
    redis = events.open_redis(settings)
    bus = EventBus(redis, f"{settings.redis_namespace}:events")
    await put(pool, topic, "first")
    await bus.send(OutboxFilled())
    await told(pool, f"{topic}/first", within=5)
    await redis.aclose()
    await emptied(pool, topic)


async def test_a_database_that_does_not_answer_is_waited_out(pool: asyncpg.Pool, here: Here, database_url: str) -> None:
    topic = a_topic("waiting")
    name = await put(pool, topic)
    async with asyncpg.create_pool(database_url, min_size=1, max_size=3, command_timeout=0.2) as impatient:
        here.pool = impatient
        with capture_logs() as logged:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("LOCK TABLE outbox_messages IN ACCESS EXCLUSIVE MODE")
                here({topic: "fine"})
                await eventually(lambda: sum(line["event"] == "outbox_not_read" for line in logged) >= 2)
            await told(pool, name)
        await emptied(pool, topic)
        await end(*here.tasks)


async def test_connections_that_break_are_waited_out(pool: asyncpg.Pool, workers: Workers) -> None:
    topic = a_topic("cut")
    worker = await workers({topic: "fine"}, LEASE_SECONDS=2.0)
    for number in range(20):
        await put(pool, topic, str(number), seconds=0.2)
    await told(pool, f"{topic}/0", is_end=False)
    for _ in range(3):
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'switchyard-worker'"
            " AND datname = current_database()"
        )
        await told(pool, await put(pool, topic, secrets.token_hex(3)))
    await emptied(pool, topic, within=15)
    assert worker.exit_code is None


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    for attempts, expected in [(1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (11, 900), (1_000, 900)]:
        pauses = [pause_seconds(attempts) for _ in range(50)]
        assert all(expected * 0.75 <= pause <= expected * 1.25 for pause in pauses)
        assert len(set(pauses)) > 1, "spread, so that what failed together is not tried together"
