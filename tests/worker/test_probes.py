"""Probes of real servers that are really stopped, with a clock that the tests move: states, incidents, lost workers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from adapters import ai, events
from adapters.cancellation import end
from adapters.storage import open_storage
from models import status_queries
from models.ids import Prefix, encode_id, new_id
from models.status import Service, ServiceState
from settings import Settings
from tasks.periodic import every
from tasks.status import probes
from tasks.status import rounds as status_rounds
from tasks.status.probes import Probes
from tasks.status.rounds import Rounds, record
from tasks.status.verdicts import PROBE_SECONDS, Finding
from tests.conftest import ApiServer
from tests.factories import Person
from tests.harness.ai_server import AiServer, Fault
from tests.harness.client import GraphQLClient
from tests.harness.executions import Desk, open_desk
from tests.harness.relay import Relay
from tests.harness.waiting import eventually

UPDATE = "mutation ($input: UpdateIncidentInput!) { updateIncident(input: $input) { incident { isAutomatic state } } }"
CREATE = "mutation ($input: CreateIncidentInput!) { createIncident(input: $input) { incident { id } } }"
STEP = timedelta(seconds=PROBE_SECONDS)


class Bench:
    """Rounds of one worker, and everything that they probe."""

    def __init__(self, pool: asyncpg.Pool, asked: Probes, relay: Relay, ai_server: AiServer, folder: Path) -> None:
        self.pool = pool
        self.probes = asked
        self.rounds = Rounds(pool, asked)
        self.relay = relay
        self.ai_server = ai_server
        self.folder = folder
        self.at = datetime.min.replace(tzinfo=UTC)

    async def reset(self) -> None:
        """Nothing was ever probed, and it is an hour ago."""
        await self.pool.execute(
            "TRUNCATE service_states, service_hours, service_changes, service_checks, incidents CASCADE"
        )
        self.at = await self.pool.fetchval("SELECT now() - interval '1 hour'")

    async def go(self, count: int = 1) -> None:
        """So many rounds."""
        for _ in range(count):
            self.at += STEP
            await self.rounds.probe_once(self.at)

    async def found(self, verdicts: str, service: Service = Service.API) -> None:
        """Rounds that found only this: `+`, `~` or `-` for each."""
        states = {"+": ServiceState.OPERATIONAL, "~": ServiceState.DEGRADED, "-": ServiceState.DOWN}
        for letter in verdicts:
            self.at += STEP
            async with self.pool.acquire() as connection:
                await record(connection, [Finding(service, states[letter], 5.0)], self.at)

    async def state(self, service: Service) -> str:
        """The state that is shown."""
        shown: str = await self.pool.fetchval("SELECT state FROM service_states WHERE service = $1", service)
        return shown

    async def incidents(self) -> list[dict[str, Any]]:
        """All incidents, oldest first, with their messages."""
        found = await self.pool.fetch(
            """SELECT i.*, array_agg(u.message ORDER BY u.number) AS messages
               FROM incidents i JOIN incident_updates u ON u.incident_id = i.id GROUP BY i.id ORDER BY i.id"""
        )
        return [dict(row) for row in found]

    @contextmanager
    def without(self, service: Service) -> Iterator[None]:
        """The service is really away."""
        files, aside = self.folder / "files", self.folder / "aside"
        match service:
            case Service.STORAGE:
                files.rename(aside)
                files.write_text("no folder")
                yield
                files.unlink()
                aside.rename(files)
            case Service.AI_SERVICE:
                self.ai_server.always = Fault.BROKEN
                yield
                self.ai_server.always = None
            case Service.QUEUE:
                self.relay.silence()
                yield
                self.relay.speak()


@pytest_asyncio.fixture(scope="module")
async def built(
    settings_env: dict[str, str], api_server: ApiServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("probed")
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(redis_url))
        server = await stack.enter_async_context(AiServer())
        settings = Settings.model_validate(
            {
                **{name.lower(): value for name, value in settings_env.items()},
                "status_api_url": api_server.url,
                "redis_url": relay.url,
                "ai_service_url": server.url,
                "data_dir": folder,
            }
        )
        await stack.enter_async_context(events.connected(settings))
        await stack.enter_async_context(ai.connected(settings))
        storage = await stack.enter_async_context(open_storage(settings))
        pool = await stack.enter_async_context(asyncpg.create_pool(settings_env["DATABASE_URL"], min_size=1))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Bench(pool, Probes(settings, pool, storage, http), relay, server, folder)


@pytest.fixture
async def bench(built: Bench) -> Bench:
    await built.reset()
    return built


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


# -- states and incidents


async def test_what_works_is_found_to_work(bench: Bench) -> None:
    await bench.go()
    found = await bench.pool.fetch("SELECT service, state, milliseconds FROM service_states")
    assert {row["service"]: row["state"] for row in found} == dict.fromkeys(
        ("API", "DATABASE", "QUEUE", "STORAGE", "AI_SERVICE"), "OPERATIONAL"
    )
    assert all(row["milliseconds"] > 0 for row in found)
    assert await bench.incidents() == []


@pytest.mark.parametrize("service", [Service.STORAGE, Service.AI_SERVICE])
async def test_what_is_stopped_opens_an_incident_and_ends_it(bench: Bench, service: Service) -> None:
    await bench.go()
    with bench.without(service):
        await bench.go()
        assert await bench.state(service) == "OPERATIONAL", "one probe is no state"
        await bench.go(2)
        assert await bench.state(service) == "DOWN"
        assert await bench.incidents() == []
        await bench.go(2)
    (incident,) = await bench.incidents()
    assert (incident["automatic_service"], incident["impact"], incident["state"]) == (service, "MAJOR", "INVESTIGATING")
    assert incident["started_at"] == bench.at - 4 * STEP
    assert len(incident["messages"]) == 1, "said once, not with every round"
    await bench.go(3)
    assert await bench.state(service) == "OPERATIONAL"
    assert (await bench.incidents())[0]["state"] == "INVESTIGATING"
    await bench.go()
    (incident,) = await bench.incidents()
    assert (incident["state"], incident["resolved_at"]) == ("RESOLVED", bench.at)
    assert "it took 4 minutes" in incident["messages"][-1]
    assert await bench.pool.fetchval("SELECT count(*) FROM service_hours WHERE down > 5") == 0


async def test_without_redis_the_queue_is_slower_and_not_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "DEADLINE_SECONDS", 0.5)
    await bench.go()
    with bench.without(Service.QUEUE):
        await bench.go(2)
        assert await bench.state(Service.QUEUE) == "DEGRADED"
        await bench.go(8)
    (incident,) = await bench.incidents()
    assert (incident["automatic_service"], incident["impact"]) == ("QUEUE", "MINOR")
    assert await bench.state(Service.AI_SERVICE) == "OPERATIONAL"
    await bench.go(4)
    assert (await bench.incidents())[0]["state"] == "RESOLVED"


async def test_what_is_impaired_and_then_fails_is_told_as_worse(bench: Bench) -> None:
    await bench.found("~" * 10)
    assert [row["impact"] for row in await bench.incidents()] == ["MINOR"]
    await bench.found("----")
    (incident,) = await bench.incidents()
    assert (incident["impact"], incident["title"], len(incident["messages"])) == ("MAJOR", "API is not available", 2)


async def test_flapping_opens_nothing(bench: Bench) -> None:
    await bench.found("+-" * 20)
    assert await bench.state(Service.API) == "OPERATIONAL"
    assert await bench.incidents() == []
    assert await bench.pool.fetchval("SELECT count(*) FROM service_changes") == 1


async def test_an_api_that_is_gone_is_down(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = bench.probes._settings.model_copy(update={"status_api_url": "http://127.0.0.1:9"})
    monkeypatch.setattr(bench.probes, "_settings", gone)
    await bench.go(2)
    assert await bench.state(Service.API) == "DOWN"
    refusing = bench.probes._settings.model_copy(update={"status_api_url": f"{bench.ai_server.url}"})
    monkeypatch.setattr(bench.probes, "_settings", refusing)
    await bench.reset()
    await bench.go(2)
    assert await bench.state(Service.API) == "DOWN", "another server that says 404 is not the API"


async def test_work_that_nobody_picks_up_is_a_queue_that_is_down(bench: Bench, desk: Desk, admin: Person) -> None:
    run = await desk.queued(admin)
    try:
        await bench.go(2)
        assert await bench.state(Service.QUEUE) == "OPERATIONAL"
        for seconds, state in ((200, "DEGRADED"), (400, "DOWN")):
            await bench.pool.execute(
                "UPDATE executions SET queued_at = now() - make_interval(secs => $2) WHERE id = $1", run, seconds
            )
            await bench.go(2)
            assert await bench.state(Service.QUEUE) == state
        await desk.claim(run)
        await bench.go(2)
        assert await bench.state(Service.QUEUE) == "OPERATIONAL"
    finally:
        await bench.pool.execute("DELETE FROM executions WHERE id = $1", run)


async def test_builds_without_a_worker_that_builds_are_down(bench: Bench) -> None:
    await bench.go()
    assert await bench.state(Service.BUILDS) is None, "never checked: not known"
    async with bench.pool.acquire() as connection:
        await status_queries.write_check(connection, "BUILDS", "OPERATIONAL", 300.0)
    await bench.pool.execute("UPDATE service_checks SET at = $1", bench.at)
    await bench.go(12)
    assert await bench.state(Service.BUILDS) == "OPERATIONAL"
    assert await bench.pool.fetchval("SELECT sum(milliseconds_sum) FROM service_hours WHERE service = 'BUILDS'") == 300
    await bench.go(2)
    assert await bench.state(Service.BUILDS) == "DOWN"


# -- people and probes


async def test_a_person_takes_an_automatic_incident_over(bench: Bench, client: GraphQLClient, admin: Person) -> None:
    await bench.found("+----")
    id_ = encode_id(Prefix.INCIDENT, (await bench.incidents())[0]["id"])
    said = {"id": id_, "state": "IDENTIFIED", "message": "A cable."}
    answer = await client.run(UPDATE, {"input": said}, token=admin.token)
    assert answer["updateIncident"]["incident"] == {"isAutomatic": False, "state": "IDENTIFIED"}
    await bench.found("++++----")
    (incident,) = await bench.incidents()
    assert (incident["state"], incident["messages"][1:]) == ("IDENTIFIED", ["A cable."]), "no probe speaks in it"


async def test_what_people_told_is_not_told_again(bench: Bench, client: GraphQLClient, admin: Person) -> None:
    told = {"title": "Disks", "message": "We look.", "impact": "MAJOR", "services": ["API", "STORAGE"]}
    await client.run(CREATE, {"input": told}, token=admin.token)
    await bench.found("+----", Service.STORAGE)
    await bench.found("+----", Service.MAIL)
    assert [row["automatic_service"] for row in await bench.incidents()] == [None, "MAIL"]


async def test_one_open_automatic_incident_per_service(bench: Bench) -> None:
    await bench.found("+----")
    with pytest.raises(asyncpg.UniqueViolationError):
        await bench.pool.execute(
            """INSERT INTO incidents (id, title, state, impact, services, automatic_service, started_at, updated_at,
                   update_count) VALUES ($1, 'x', 'MONITORING', 'MINOR', '{API}', 'API', now(), now(), 0)""",
            new_id(),
        )
    await bench.found("++++----")
    assert [row["state"] for row in await bench.incidents()] == ["RESOLVED", "INVESTIGATING"]


# -- lost, late and two workers


async def test_a_round_that_was_overtaken_writes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker freezes between its probes and its writing; meanwhile others go on."""
    thawed = asyncio.Event()

    async def found_before_it_froze() -> list[Finding]:
        await thawed.wait()
        return [Finding(Service.API, ServiceState.DOWN)]

    frozen = Rounds(bench.pool, bench.probes)
    with monkeypatch.context() as patch:
        patch.setattr(bench.probes, "light", found_before_it_froze)
        late = asyncio.create_task(frozen.probe_once(bench.at + STEP))
        await eventually(lambda: bool(thawed._waiters), what="the frozen round")
    await bench.found("++")
    thawed.set()
    await late
    row = await bench.pool.fetchrow("SELECT state, verdict, failures, probed_at FROM service_states")
    assert tuple(row) == ("OPERATIONAL", "OPERATIONAL", 0, bench.at)
    assert await bench.pool.fetchval("SELECT sum(down) FROM service_hours") == 0


async def test_two_workers_probe_once_per_tick(bench: Bench) -> None:
    made = [0, 0]

    async def work(number: int) -> None:
        made[number] += 1

    name = f"probes-{secrets.token_hex(4)}"
    workers = [asyncio.create_task(every(3_600, name, bench.pool, lambda n=n: work(n))) for n in (0, 1)]  # type: ignore[misc]
    await eventually(lambda: sum(made) > 0, what="the first round")
    await end(*workers)
    assert sum(made) == 1


async def test_missed_rounds_of_an_outage_count_against_the_database_alone(bench: Bench) -> None:
    async with bench.pool.acquire() as connection:
        for service in (Service.API, Service.DATABASE):
            bench.at += STEP
            await record(connection, [Finding(service, ServiceState.OPERATIONAL, 5.0)], bench.at)
        # Looked at every few seconds: away from ten seconds after that round until five before the next.
        first, back = bench.at + timedelta(seconds=10), bench.at + timedelta(seconds=315)
        well = [Finding(service, ServiceState.OPERATIONAL, 5.0) for service in (Service.API, Service.DATABASE)]
        await record(connection, well, back, outage=(first, back - timedelta(seconds=5)))
        counted = await connection.fetch("SELECT service, sum(down) AS down FROM service_hours GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in counted] == [("API", 0), ("DATABASE", 10)]
        # Another worker saw the same outage and comes a moment later.
        later = back + STEP
        await record(connection, well, later, outage=(first, back - timedelta(seconds=5)))
        assert await connection.fetchval("SELECT sum(down) FROM service_hours") == 10
    (incident,) = await bench.incidents()
    assert incident["automatic_service"] == "DATABASE"
    assert abs(incident["started_at"] - first) <= STEP


async def test_an_outage_is_the_servers_and_not_a_busy_pool(bench: Bench, settings_env: dict[str, str]) -> None:
    now = await bench.pool.fetchval("SELECT now()")
    await bench.rounds.database_missed()
    assert bench.rounds._outage(now) is None, "the server answers"
    nowhere = bench.probes._settings.model_copy(
        update={"database_url": type(bench.probes._settings.database_url)("postgres://nobody@127.0.0.1:9/none")}
    )
    lost = Rounds(bench.pool, Probes(nowhere, bench.pool, bench.probes._storage, bench.probes._http))
    await lost.database_missed()
    await lost.database_missed()
    outage = lost._outage(now)
    assert outage is not None
    assert outage[0] < outage[1] <= now


async def test_what_is_old_is_forgotten(bench: Bench) -> None:
    await bench.found("++--" * 30)
    await bench.pool.execute("UPDATE service_hours SET hour = hour - interval '91 days 1 hour'")
    await bench.pool.execute("UPDATE service_changes SET at = at - interval '92 days' WHERE id % 2 = 0")
    before = await bench.pool.fetchval("SELECT count(*) FROM service_changes")
    await bench.rounds.forget()
    assert await bench.pool.fetchval("SELECT count(*) FROM service_hours") == 0
    assert 0 < await bench.pool.fetchval("SELECT count(*) FROM service_changes") <= before // 2 + 1


async def test_a_round_outside_of_the_database_raises_an_outage(bench: Bench) -> None:
    closed = asyncpg.create_pool("postgres://nobody@127.0.0.1:9/none", min_size=0)
    async with closed:
        with pytest.raises(ConnectionError):
            await Rounds(closed, bench.probes).probe_once()


async def test_what_starts_with_the_worker_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.without(Service.AI_SERVICE):
        settling = asyncio.create_task(bench.rounds.settle())
        asked = bench.ai_server.looks
        await eventually(lambda: bench.ai_server.looks > asked + 1, what="asked again")
        assert not settling.done()
    await asyncio.wait_for(settling, 5)

    monkeypatch.setattr(status_rounds, "SETTLE_SECONDS", 0.2)
    with bench.without(Service.AI_SERVICE):
        await asyncio.wait_for(bench.rounds.settle(), 5)
        await bench.go(3)
        assert await bench.state(Service.AI_SERVICE) == "DOWN", "what does not come is away"
