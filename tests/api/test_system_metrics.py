"""How the installation is, for administrators and for Prometheus: who may know, what is counted, who shares."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ApiServer, WorkerFactory
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, subscribe
from tests.harness.executions import Desk, open_desk
from tests.harness.waiting import eventually

SETTINGS = {"MAX_SOCKETS_PER_USER": "100", "TRUSTED_PROXIES": "127.0.0.1"}
SUBSCRIBERS = 20
METHODS = ("GET", "DELETE", "PROPFIND", "MKCOL", "REPORT")
BELIEVED_SECONDS = 4.5
"""Three heartbeats of 1.5 s."""

SAMPLE = """{ systemMetrics {
    sampledAt
    machine { host cpuCount cpuPercent memoryTotalBytes memoryUsedBytes diskTotalBytes diskFreeBytes loadAverage
        networkReceivedBytesPerSecond networkSentBytesPerSecond }
    queues { kind queued running oldestWaitSeconds slots }
    workers { name role pid heartbeatAgeSeconds slots { kind slots busy } }
    apis { name role pid version startedAt heartbeatAgeSeconds residentBytes poolConnections poolLimit openSockets }
    redis { reachable memoryBytes clients } database { sizeBytes connections maxConnections }
    outbox { waiting oldestWaitSeconds givenUp } storage { totalBytes mediaBytes logBytes } openSockets cacheHitPercent
} }"""
STREAM = """subscription ($seconds: Int!) {
    systemMetrics(intervalSeconds: $seconds) { sampledAt workers { name pid } openSubscriptions }
}"""
STATS = """{ systemStats {
    users { count isEstimate } usersActiveLastDay jobs { count } runs { count }
    activeExecutions { kind status count } storage { totalBytes }
} }"""
ROLE = "mutation ($input: SetUserRoleInput!) { setUserRole(input: $input) { user { id } } }"


class Scrape:
    """An answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """The values of a label."""
        return {
            sample.labels[label]
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name
        }


async def scrape(url: str, **headers: str) -> Scrape:
    """Read and parse; AssertionError unless it may be read."""
    answer = await fetch(url, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(answer.text)


async def fetch(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{url}/metrics", headers=headers)


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


# -- who may know


async def test_users_are_told_nothing(client: GraphQLClient, api_server: ApiServer) -> None:
    person = await new_user(client)
    for document in (SAMPLE, STATS):
        with pytest.raises(GraphQLFailure) as refused:
            await client.run(document, token=person.token)
        assert refused.value.code == "FORBIDDEN"
    async with subscribe(api_server.ws_url, STREAM, {"seconds": 1}, token=person.token) as stream:
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next()
        assert refused.value.code == "FORBIDDEN"


@pytest.mark.parametrize("seconds", [0, -1, 61])
async def test_an_interval_has_bounds(api_server: ApiServer, admin: Person, seconds: int) -> None:
    async with subscribe(api_server.ws_url, STREAM, {"seconds": seconds}, token=admin.token) as stream:
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next()
    assert (refused.value.code, refused.value.extensions["details"]["path"]) == (
        "VALIDATION_ERROR",
        ["intervalSeconds"],
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Host": "rebound.example"},
    ],
)
async def test_metrics_without_a_token_are_for_neighbours_that_nobody_forwarded(
    api_server: ApiServer, headers: dict[str, str]
) -> None:
    assert (await fetch(api_server.url)).status_code == 200
    assert (await fetch(api_server.url, **headers)).status_code == 404


async def test_a_token_is_asked_of_everybody(api_server: ApiServer) -> None:
    token = secrets.token_urlsafe()
    api = await api_server.second(METRICS_TOKEN=token)
    for shown in ({}, {"Authorization": f"Bearer {token}x"}, {"Authorization": f"Basic {token}"}):
        refused = await fetch(api.url, **shown)
        assert (refused.status_code, "switchyard" in refused.text) == (401, False)
    right = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "192.0.2.1"}
    assert (await scrape(api.url, **right)).value("switchyard_build_info") == 1
    await api.stop()


async def test_production_without_a_token_has_no_metrics(api_server: ApiServer) -> None:
    api = await api_server.second(
        ENVIRONMENT="production", BASE_URL="https://api.example", SITES_DOMAIN="sites.example"
    )
    assert (await fetch(api.url)).status_code == 404
    await api.stop()


# -- what is counted


async def test_operations_are_counted_one_by_one(client: GraphQLClient, api_server: ApiServer, admin: Person) -> None:
    before = await scrape(api_server.url)
    for _ in range(7):
        await client.run("query Whatever { me { id } }", token=admin.token)
    await client.run("query A { a: me { id } ...B } fragment B on Query { b: me { id } }", token=admin.token)
    await client.raw("{ me { id } tools { edges { node { id } } } }", token=admin.token)
    await client.raw("{ nothing }")
    await client.raw('mutation { deleteJob(input: {id: "job_nothing"}) { deletedId } }')
    after = await scrape(api_server.url)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    total = "switchyard_graphql_operations_total"
    assert grown(total, operation="me", type="query", code="OK") == 8
    assert grown("switchyard_graphql_operation_duration_seconds_count", operation="me", type="query") == 8
    assert grown(total, operation="several", code="OK") == 1
    assert grown(total, operation="other", code="VALIDATION_ERROR") == 1
    assert grown(total, operation="deleteJob", type="mutation", code="OK") == 0
    assert grown(total, operation="deleteJob", type="mutation") + grown(total, operation="other") == 2
    assert grown(total) == 11
    assert grown("switchyard_http_requests_total", route="graphql", method="POST") == 11


async def test_no_caller_can_make_series_without_end(client: GraphQLClient, api_server: ApiServer) -> None:
    before = await scrape(api_server.url)
    names = [f"Name{secrets.token_hex(6)}" for _ in range(1_000)]
    limit = asyncio.Semaphore(8)

    async def ask(number: int, name: str) -> None:
        async with limit:
            if number % 4 == 3:
                await client.http.request(METHODS[number % len(METHODS)], f"{api_server.url}/{name}")
            elif number % 4 == 2:
                await client.raw(f"{{ {name} }}")
            else:
                await client.raw(f"query {name} {{ {name}: __typename }}", operation_name=name)

    await asyncio.gather(*(ask(number, name) for number, name in enumerate(names)))
    answer = await fetch(api_server.url)
    assert not any(name.lower() in answer.text.lower() for name in names)
    after = Scrape(answer.text)
    grown = sum(len(family.samples) for family in after.families.values()) - sum(
        len(family.samples) for family in before.families.values()
    )
    assert grown < 60, "a few codes and routes, once"
    assert after.labels("switchyard_http_requests_total", "method") <= {"GET", "POST", "other"}
    total = "switchyard_graphql_operations_total"
    assert after.value(total, operation="introspection") - before.value(total, operation="introspection") == 500


async def test_streams_sockets_and_events_are_counted(api_server: ApiServer, admin: Person) -> None:
    before = await scrape(api_server.url)
    async with subscribe(api_server.ws_url, STREAM, {"seconds": 60}, token=admin.token) as stream:
        await stream.next()
        during = await scrape(api_server.url)
        assert during.value("switchyard_websockets_open") - before.value("switchyard_websockets_open") == 1
        assert during.value("switchyard_subscriptions_open", field="systemMetrics") == 1
        events = "switchyard_subscription_events_total"
        assert during.value(events, field="systemMetrics") - before.value(events, field="systemMetrics") == 1

    async def closed() -> bool:
        after = await scrape(api_server.url)
        return after.value("switchyard_subscriptions_open") == 0 == after.value("switchyard_websockets_open")

    await eventually(closed)


async def test_the_queue_is_as_the_database_has_it(
    client: GraphQLClient, api_server: ApiServer, admin: Person, desk: Desk, db: asyncpg.Connection
) -> None:
    person = await new_user(client)
    for _ in range(3):
        await desk.queued(person)
    await desk.started(person)
    await db.execute("UPDATE executions SET queued_at = now() - interval '90 seconds' WHERE status = 'QUEUED'")

    async def counted() -> dict[str, Any] | None:
        sample: dict[str, Any] = (await client.run(SAMPLE, token=admin.token))["systemMetrics"]
        return sample if [queue["queued"] for queue in sample["queues"]] == [3] else None

    sample = await eventually(counted)
    (queue,) = sample["queues"]
    assert (queue["kind"], queue["running"], queue["slots"]) == ("CRAWL", 1, 0)
    assert 90 <= queue["oldestWaitSeconds"] < 120
    assert [api["pid"] for api in sample["apis"]] == [api_server.pid]
    assert sample["apis"][0]["heartbeatAgeSeconds"] < BELIEVED_SECONDS
    assert 0 < sample["machine"]["memoryUsedBytes"] < sample["machine"]["memoryTotalBytes"]
    assert 0 < sample["machine"]["diskFreeBytes"] < sample["machine"]["diskTotalBytes"]
    assert 0 <= sample["machine"]["cpuPercent"] <= 100
    assert sample["outbox"] == {"waiting": 0, "oldestWaitSeconds": None, "givenUp": 0}
    assert sample["redis"]["reachable"]
    assert sample["redis"]["memoryBytes"] > 0
    assert 0 < sample["database"]["connections"] <= sample["database"]["maxConnections"]
    stats = (await client.run(STATS, token=admin.token))["systemStats"]
    assert stats["users"] == {"count": await db.fetchval("SELECT count(*) FROM users"), "isEstimate": False}
    assert stats["activeExecutions"] == [
        {"kind": "CRAWL", "status": "QUEUED", "count": 3},
        {"kind": "CRAWL", "status": "RUNNING", "count": 1},
    ]

    await db.execute("UPDATE executions SET status = 'CANCELLED', finished_at = now() WHERE status = 'QUEUED'")
    await db.execute(
        "INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)"
        " VALUES ('nobody', 'x', '{}', now() - interval '1 hour', 0, now())"
    )

    async def nothing_waits() -> bool:
        found = (await client.run(SAMPLE, token=admin.token))["systemMetrics"]
        return bool(
            found["queues"][0]["oldestWaitSeconds"] is None
            and found["queues"][0]["running"] == 1
            and found["outbox"]["waiting"] == 1
            and found["outbox"]["oldestWaitSeconds"] >= 3_600
        )

    await eventually(nothing_waits)

    async def scraped() -> bool:
        found = await scrape(api_server.url)
        return found.value("switchyard_outbox_waiting") == 1

    await eventually(scraped, 10)
    assert (await scrape(api_server.url)).value("switchyard_installation_readable") == 1


# -- streams


async def test_a_worker_that_is_killed_disappears(
    api_server: ApiServer, admin: Person, worker_factory: WorkerFactory, client: GraphQLClient
) -> None:
    async with subscribe(api_server.ws_url, STREAM, {"seconds": 1}, token=admin.token) as stream:

        async def until(expected: set[int], seconds: float) -> None:
            async with asyncio.timeout(seconds):
                while {worker["pid"] for worker in (await stream.next())["systemMetrics"]["workers"]} != expected:
                    pass

        await until(set(), 5)
        killed, stopped = worker_factory(), worker_factory()
        await until({killed.pid, stopped.pid}, 30)
        killed.kill()
        stopped.terminate()
        await until(set(), BELIEVED_SECONDS + 4)


async def test_twenty_subscribers_share_one_sampler(api_server: ApiServer, admin: Person) -> None:
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(subscribe(api_server.ws_url, STREAM, {"seconds": 1}, token=admin.token))
            for _ in range(SUBSCRIBERS)
        ]
        first = [(await stream.next())["systemMetrics"]["sampledAt"] for stream in streams]
        before = (await scrape(api_server.url)).value("switchyard_system_samples_total")
        seen = {(await stream.next())["systemMetrics"]["sampledAt"] for _ in range(3) for stream in streams}
        after = (await scrape(api_server.url)).value("switchyard_system_samples_total")
    assert after - before <= 5, "not one for each subscriber"
    assert len(seen | set(first)) <= 6, "and the same samples for all"

    async def is_quiet() -> bool:
        now = (await scrape(api_server.url)).value("switchyard_subscriptions_open")
        return now == 0

    await eventually(is_quiet)


async def test_an_administrator_who_is_one_no_longer_sees_no_more(
    client: GraphQLClient, api_server: ApiServer, admin: Person
) -> None:
    person = await new_user(client)
    await client.run(ROLE, {"input": {"id": person.id, "role": "ADMIN"}}, token=admin.token)
    async with subscribe(api_server.ws_url, STREAM, {"seconds": 60}, token=person.token) as stream:
        await stream.next()
        await client.run(ROLE, {"input": {"id": person.id, "role": "USER"}}, token=admin.token)
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next(5)
        assert refused.value.code == "FORBIDDEN"
