"""Runs through the API: commands on them, their rules, and lists."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from adapters import events, storage
from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, decode_id, encode_id, new_id
from models.jobs import FileFormat
from models.permissions import Actor
from resolvers import runs
from tasks.crawl import outputs
from tasks.queue import queue_name
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, add_items, add_request, open_desk, run_id, settings_of, uuid_of
from tests.harness.waiting import eventually
from tests.harness.wire import Wire

MAX_QUEUED = 5
SETTINGS = {"MAX_QUEUED_PER_USER": str(MAX_QUEUED)}

RUN_FIELDS = """
id status trigger progress attempt queuedAt startedAt finishedAt cancelRequestedAt retryOfId resumedFromId limits input
itemsScraped closeReason requestedBy { id } job { id } tool { id }
"""
RUN_JOB = f"mutation Run($input: RunJobInput!) {{ it: runJob(input: $input) {{ run {{ {RUN_FIELDS} }} }} }}"
CANCEL = f"mutation Stop($input: CancelJobRunInput!) {{ it: cancelJobRun(input: $input) {{ run {{ {RUN_FIELDS} }} }} }}"
RETRY = f"mutation Retry($input: RetryJobRunInput!) {{ it: retryJobRun(input: $input) {{ run {{ {RUN_FIELDS} }} }} }}"
RESUME = f"mutation Go($input: ResumeJobRunInput!) {{ it: resumeJobRun(input: $input) {{ run {{ {RUN_FIELDS} }} }} }}"
JOB_RUN = f"query One($id: ID!) {{ jobRun(id: $id) {{ {RUN_FIELDS} }} }}"
JOB_RUNS = """
query Many($filter: JobRunFilter, $first: Int, $after: String, $last: Int, $before: String) {
  jobRuns(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    edges { node { id status tool { id name } job { id name } requestedBy { id username } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
COMMANDS = {"runJob": RUN_JOB, "cancelJobRun": CANCEL, "retryJobRun": RETRY, "resumeJobRun": RESUME}


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


class World:
    """Everything that a refused command must leave alone: rows and the queue."""

    def __init__(self, desk: Desk, redis: Redis, queue: str) -> None:
        self._desk = desk
        self._redis = redis
        self._queue = queue

    async def rings(self) -> int:
        return int(await self._redis.zcard(self._queue))

    async def state(self) -> list[Any]:
        tables = ("executions", "job_runs", "execution_events", "idempotency_keys", "jobs")
        rows = [await self._desk.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]
        return [*rows, await self.rings()]


@pytest_asyncio.fixture(scope="module")
async def world(desk: Desk, settings_env: dict[str, str]) -> AsyncIterator[World]:
    settings = settings_of(settings_env)
    redis = events.open_redis(settings)
    yield World(desk, redis, queue_name(settings.redis_namespace, "CRAWL"))
    await redis.aclose()


async def command(client: GraphQLClient, person: Person | None, document: str, **fields: Any) -> dict[str, Any]:
    """Run a command and return the run it answers with."""
    data = await client.run(document, {"input": fields}, token=person.token if person else None)
    run: dict[str, Any] = data["it"]["run"]
    return run


async def refused(client: GraphQLClient, person: Person | None, document: str, **fields: Any) -> GraphQLFailure:
    with pytest.raises(GraphQLFailure) as failure:
        await command(client, person, document, **fields)
    return failure.value


async def race(desk: Desk, owner: Person, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results and exceptions of calls that make runs of somebody, all of which are under way before one goes on."""
    async with desk.holding_back(owner) as all_wait:
        tasks = [asyncio.create_task(call) for call in calls]
        await all_wait(len(tasks))
    return await asyncio.gather(*tasks, return_exceptions=True)


def job_id(job: UUID) -> str:
    return encode_id(Prefix.JOB, job)


def uuid(id_: str) -> UUID:
    return decode_id(id_)[1]


# -- who may not


@pytest.mark.parametrize("name", COMMANDS)
async def test_command_on_what_is_not_ones_own_changes_nothing(
    name: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    hand = await desk.started(owner)
    if name in ("retryJobRun", "resumeJobRun"):
        await hand.finish(ExecutionStatus.CANCELLED)
    job = await desk.pool.fetchval("SELECT job_id FROM job_runs WHERE execution_id = $1", hand.id)
    other = await new_user(client)
    before = await world.state()
    fields = {"jobId": job_id(job)} if name == "runJob" else {"id": run_id(hand.id)}
    assert (await refused(client, other, COMMANDS[name], **fields)).code == "NOT_FOUND"
    assert (await refused(client, None, COMMANDS[name], **fields)).code == "UNAUTHORIZED"
    assert await world.state() == before


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("id_", ["", "x", encode_id(Prefix.RUN, NOBODYS_ID), encode_id(Prefix.JOB, NOBODYS_ID)])
async def test_command_on_what_does_not_exist_changes_nothing(
    name: str, id_: str, client: GraphQLClient, world: World, owner: Person
) -> None:
    before = await world.state()
    fields = {"jobId": id_} if name == "runJob" else {"id": id_}
    assert (await refused(client, owner, COMMANDS[name], **fields)).code == "NOT_FOUND"
    assert await world.state() == before


async def test_run_of_somebody_else_is_not_found(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    execution = await desk.queued(owner)
    other = await new_user(client)
    with pytest.raises(GraphQLFailure) as failure:
        await client.run(JOB_RUN, {"id": run_id(execution)}, token=other.token)
    assert failure.value.code == "NOT_FOUND"
    for person in (owner, admin):
        data = await client.run(JOB_RUN, {"id": run_id(execution)}, token=person.token)
        assert data["jobRun"]["requestedBy"] == {"id": owner.id}


# -- run


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"maxPages": 0}, "maxPages"),
        ({"maxPages": 1_000_001}, "maxPages"),
        ({"maxItems": 0}, "maxItems"),
        ({"maxDepth": -1}, "maxDepth"),
        ({"maxDepth": 101}, "maxDepth"),
        ({"maxBytes": 1_048_575}, "maxBytes"),
        ({"timeoutSeconds": 0}, "timeoutSeconds"),
        ({"timeoutSeconds": 86_401}, "timeoutSeconds"),
        ({"memoryMegabytes": 127}, "memoryMegabytes"),
        ({"maxPages": 5, "memoryMegabytes": 16_385}, "memoryMegabytes"),
    ],
    ids=str,
)
async def test_limit_out_of_range_is_refused_with_its_path(
    limits: dict[str, int], field: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    job = await desk.job(owner)
    ended = await desk.finished(owner, status=ExecutionStatus.CANCELLED)
    before = await world.state()
    for document, fields in ((RUN_JOB, {"jobId": job_id(job)}), (RESUME, {"id": run_id(ended)})):
        failure = await refused(client, owner, document, **fields, limits=limits)
        assert failure.code == "VALIDATION_ERROR"
        assert failure.extensions["details"]["path"] == ["input", "limits", field]
    assert await world.state() == before


async def test_run_waits_with_what_it_was_asked_for(
    client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    job = await desk.job(owner)
    rings = await world.rings()
    limits = {"maxPages": 10, "timeoutSeconds": 30}
    run = await command(client, owner, RUN_JOB, jobId=job_id(job), limits=limits)
    assert run == {
        **run,
        "status": "QUEUED", "trigger": "API", "progress": 0, "attempt": 0, "startedAt": None, "finishedAt": None,
        "limits": limits, "input": {"startUrls": ["https://a.example/"]}, "job": {"id": job_id(job)},
        "requestedBy": {"id": owner.id}, "retryOfId": None, "resumedFromId": None,
    }  # fmt: skip
    assert await world.rings() == rings + 1
    row = await desk.pool.fetchrow(
        "SELECT timeout_seconds, max_attempts FROM executions WHERE id = $1", uuid(run["id"])
    )
    assert tuple(row) == (30, 3)
    audit = await desk.pool.fetchrow("SELECT action, actor_id FROM audit_events WHERE target_id = $1", uuid(run["id"]))
    assert tuple(audit) == ("runJob", uuid_of(owner))


async def test_run_keeps_the_input_it_was_asked_with(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    run = await command(client, owner, RUN_JOB, jobId=job_id(await desk.job(owner)))
    await desk.pool.execute("""UPDATE jobs SET input = '{"startUrls": []}' WHERE id = $1""", uuid(run["job"]["id"]))
    data = await client.run(JOB_RUN, {"id": run["id"]}, token=owner.token)
    assert data["jobRun"]["input"] == {"startUrls": ["https://a.example/"]}


@pytest.mark.parametrize("name", ["runJob", "retryJobRun", "resumeJobRun"])
async def test_tool_that_is_not_active_starts_nothing(
    name: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    execution = await desk.finished(owner, status=ExecutionStatus.CANCELLED)
    source = await desk.pool.fetchrow("SELECT job_id, tool_id FROM job_runs WHERE execution_id = $1", execution)
    await desk.set_active(source["tool_id"], False)
    before = await world.state()
    fields = {"jobId": job_id(source["job_id"])} if name == "runJob" else {"id": run_id(execution)}
    for key in (None, "once"):
        assert (await refused(client, owner, COMMANDS[name], **fields, idempotencyKey=key)).code == "CONFLICT"
    assert await world.state() == before
    await desk.set_active(source["tool_id"], True)
    await command(client, owner, COMMANDS[name], **fields, idempotencyKey="once")


@pytest.mark.parametrize("name", ["runJob", "retryJobRun", "resumeJobRun"])
async def test_full_queue_takes_nothing_more(
    name: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    ended = await desk.finished(owner, status=ExecutionStatus.CANCELLED)
    job = await desk.job(owner)
    for _ in range(MAX_QUEUED):
        await desk.queued(owner, job=job)
    before = await world.state()
    fields = {"jobId": job_id(job)} if name == "runJob" else {"id": run_id(ended)}
    failure = await refused(client, owner, COMMANDS[name], **fields, idempotencyKey="k")
    assert (failure.code, failure.extensions["statusCode"]) == ("RATE_LIMIT_EXCEEDED", 429)
    assert failure.extensions["retryAfterSeconds"] > 0
    assert failure.extensions["details"]["limit"] == MAX_QUEUED
    assert await world.state() == before
    other = await new_user(client)
    await command(client, other, RUN_JOB, jobId=job_id(await desk.job(other)))


async def test_calls_at_the_same_time_cannot_overfill_the_queue(
    client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    job = await desk.job(owner)
    answers = await asyncio.gather(
        *(command(client, owner, RUN_JOB, jobId=job_id(job)) for _ in range(3 * MAX_QUEUED)), return_exceptions=True
    )
    codes = [answer.code for answer in answers if isinstance(answer, GraphQLFailure)]
    assert codes == ["RATE_LIMIT_EXCEEDED"] * 2 * MAX_QUEUED
    waiting = await desk.pool.fetchval("SELECT count(*) FROM executions WHERE owner_id = $1", uuid_of(owner))
    assert waiting == MAX_QUEUED


# -- idempotency


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_key_without_a_sensible_length_is_refused(
    key: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    job = await desk.job(owner)
    before = await world.state()
    failure = await refused(client, owner, RUN_JOB, jobId=job_id(job), idempotencyKey=key)
    assert failure.code == "VALIDATION_ERROR"
    assert failure.extensions["details"]["path"] == ["input", "idempotencyKey"]
    assert await world.state() == before


async def test_repeated_call_answers_with_the_first_run(
    client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    job = await desk.job(owner)
    fields = {"jobId": job_id(job), "limits": {"maxPages": 5}, "idempotencyKey": "k"}
    first = await command(client, owner, RUN_JOB, **fields)
    before = await world.state()
    assert await command(client, owner, RUN_JOB, **fields) == first
    # Also once the run has ended and the queue is full.
    assert await world.state() == before
    await command(client, owner, CANCEL, id=first["id"])
    for _ in range(MAX_QUEUED):
        await desk.queued(owner, job=job)
    again = await command(client, owner, RUN_JOB, **fields)
    assert (again["id"], again["status"]) == (first["id"], "CANCELLED")


async def test_ten_calls_at_the_same_time_make_one_run(
    client: GraphQLClient, api_server: ApiServer, desk: Desk, world: World, owner: Person
) -> None:
    job = await desk.job(owner)
    rings = await world.rings()
    fields = {"jobId": job_id(job), "idempotencyKey": "race"}
    runs = await race(desk, owner, *(command(client, owner, RUN_JOB, **fields) for _ in range(10)))
    assert len({run["id"] for run in runs}) == 1
    assert await desk.pool.fetchval("SELECT count(*) FROM job_runs WHERE job_id = $1", job) == 1
    assert await world.rings() == rings + 1


async def test_key_of_another_request_is_a_conflict(
    client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    job, other_job = await desk.job(owner), await desk.job(owner)
    first = await command(client, owner, RUN_JOB, jobId=job_id(job), idempotencyKey="k")
    before = await world.state()
    for fields in ({"jobId": job_id(other_job)}, {"jobId": job_id(job), "limits": {"maxPages": 5}}):
        failure = await refused(client, owner, RUN_JOB, **fields, idempotencyKey="k")
        assert (failure.code, failure.extensions["details"]["path"]) == ("CONFLICT", ["input", "idempotencyKey"])
    assert await world.state() == before
    # Another user's keys are other keys.
    somebody = await new_user(client)
    theirs = await command(client, somebody, RUN_JOB, jobId=job_id(await desk.job(somebody)), idempotencyKey="k")
    assert theirs["id"] != first["id"]


# -- cancel


async def test_cancel_of_an_ended_run_changes_nothing(
    client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    for status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.CANCELLED):
        execution = await desk.finished(owner, status=status)
        before = await world.state()
        run = await command(client, owner, CANCEL, id=run_id(execution))
        assert (run["status"], run["cancelRequestedAt"]) == (status.value, None)
        assert await world.state() == before


async def test_cancel_of_a_waiting_run_ends_it_at_once(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    execution = await desk.queued(owner)
    run = await command(client, owner, CANCEL, id=run_id(execution))
    assert run["status"] == "CANCELLED"
    assert run["finishedAt"] == run["cancelRequestedAt"] is not None
    history = await desk.pool.fetch(
        "SELECT status FROM execution_events WHERE execution_id = $1 ORDER BY id", execution
    )
    assert [event["status"] for event in history] == ["QUEUED", "CANCELLED"]


async def test_cancel_of_a_working_run_shows_at_once_and_only_the_first_counts(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    hand = await desk.started(owner)
    first = await command(client, owner, CANCEL, id=run_id(hand.id))
    assert (first["status"], first["finishedAt"]) == ("RUNNING", None)
    assert first["cancelRequestedAt"]
    again = await command(client, admin, CANCEL, id=run_id(hand.id))
    assert again["cancelRequestedAt"] == first["cancelRequestedAt"]


# -- retry and resume


@pytest.mark.parametrize("document", [RETRY, RESUME], ids=["retry", "resume"])
async def test_run_that_has_not_ended_cannot_be_repeated(
    document: str, client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    waiting, working = await desk.queued(owner), (await desk.started(owner)).id
    before = await world.state()
    for execution in (waiting, working):
        assert (await refused(client, owner, document, id=run_id(execution))).code == "CONFLICT"
    assert await world.state() == before


async def test_retry_starts_afresh_with_the_jobs_present_input(
    client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    job = await desk.job(owner)
    first = await command(client, owner, RUN_JOB, jobId=job_id(job), limits={"maxPages": 7})
    await command(client, owner, CANCEL, id=first["id"])
    await desk.pool.execute("""UPDATE jobs SET input = '{"startUrls": []}' WHERE id = $1""", job)
    run = await command(client, owner, RETRY, id=first["id"], idempotencyKey="k")
    assert run == {
        **run, "status": "QUEUED", "trigger": "RETRY", "retryOfId": first["id"], "resumedFromId": None,
        "limits": {"maxPages": 7}, "input": {"startUrls": []},
    }  # fmt: skip
    assert await command(client, owner, RETRY, id=first["id"], idempotencyKey="k") == run
    assert (await command(client, owner, RETRY, id=first["id"]))["id"] != run["id"]
    dataset = await desk.pool.fetchval("SELECT dataset_id FROM job_runs WHERE execution_id = $1", uuid(run["id"]))
    assert dataset == uuid(run["id"])


async def stopped_run(desk: Desk, owner: Person, *, has_requests: bool = True) -> UUID:
    """A run that was stopped after two items, with or without something left to fetch."""
    hand = await desk.started(owner)
    await add_items(hand.id, hand.id, [{"n": 1}, {"n": 2}])
    await add_request(hand.id, state="DONE")
    if has_requests:
        await add_request(hand.id, state="PENDING")
    await desk.pool.execute(
        "UPDATE job_runs SET is_seeded = true, items_scraped = 2, pages_crawled = 1 WHERE execution_id = $1", hand.id
    )
    await hand.finish(ExecutionStatus.CANCELLED)
    return hand.id


async def test_run_with_nothing_left_cannot_be_resumed(
    client: GraphQLClient, desk: Desk, world: World, owner: Person
) -> None:
    execution = await stopped_run(desk, owner, has_requests=False)
    before = await world.state()
    assert (await refused(client, owner, RESUME, id=run_id(execution))).code == "CONFLICT"
    assert await world.state() == before


async def test_run_that_never_began_to_crawl_can_be_resumed(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    execution = await desk.queued(owner)
    await command(client, owner, CANCEL, id=run_id(execution))
    run = await command(client, owner, RESUME, id=run_id(execution))
    assert (run["status"], run["itemsScraped"]) == ("QUEUED", 0)


async def test_resumed_run_goes_on_with_items_and_limits(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    execution = await stopped_run(desk, owner)
    await desk.pool.execute(
        """UPDATE job_runs SET limits = '{"maxPages": 7, "maxDepth": 2}' WHERE execution_id = $1""", execution
    )
    run = await command(client, owner, RESUME, id=run_id(execution), limits={"maxPages": 70}, idempotencyKey="k")
    assert run == {
        **run, "trigger": "RESUME", "resumedFromId": run_id(execution), "retryOfId": None, "itemsScraped": 2,
        "limits": {"maxPages": 70, "maxDepth": 2}, "closeReason": None,
    }  # fmt: skip
    await add_items(uuid(run["id"]), execution, [{"n": 3}])
    items = """query($id: ID!, $first: Int, $after: String) { jobRun(id: $id) { items(first: $first, after: $after) {
        totalCount edges { node { data url } } pageInfo { endCursor hasNextPage } } } }"""

    async def numbers(id_: str) -> list[int]:
        found: list[int] = []
        after = None
        while True:
            variables = {"id": id_, "first": 2, "after": after}
            page = (await client.run(items, variables, token=owner.token))["jobRun"]["items"]
            found += [edge["node"]["data"]["n"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                assert page["totalCount"] == len(found)
                return found
            after = page["pageInfo"]["endCursor"]

    assert await numbers(run["id"]) == [1, 2, 3]
    assert await numbers(run_id(execution)) == [1, 2]


async def test_run_is_resumed_once_whoever_asks(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    execution = await stopped_run(desk, owner)
    answers = await race(
        desk, owner, *(command(client, person, RESUME, id=run_id(execution)) for person in [owner, admin] * 3)
    )
    assert [answer.code for answer in answers if isinstance(answer, GraphQLFailure)] == ["CONFLICT"] * 5
    resumed = next(answer for answer in answers if isinstance(answer, dict))
    assert (await refused(client, owner, RESUME, id=run_id(execution))).code == "CONFLICT"
    await command(client, owner, CANCEL, id=resumed["id"])
    assert (await command(client, owner, RESUME, id=resumed["id"]))["resumedFromId"] == resumed["id"]


# -- reading


async def test_run_shows_how_it_failed_and_what_became_of_it(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    hand = await desk.started(owner)
    await hand.advance(10, stage="CRAWLING")
    await add_request(hand.id, state="FAILED", reason="ROBOTS")
    failure = Failure(FailureCode.COMMAND_FAILED, "It broke.", stage="CRAWLING", exit_code=3, signal=9, retryable=True)
    await hand.finish(ExecutionStatus.FAILED, failure=failure)
    document = """query($id: ID!) { jobRun(id: $id) {
        failure { code message stage exitCode signal retryable } durationSeconds
        history { status stage attempt } failedRequests { edges { node { url reason } } } } }"""
    run = (await client.run(document, {"id": run_id(hand.id)}, token=owner.token))["jobRun"]
    assert run["failure"] == {
        "code": "COMMAND_FAILED", "message": "It broke.", "stage": "CRAWLING", "exitCode": 3, "signal": 9,
        "retryable": True,
    }  # fmt: skip
    assert 0 < run["durationSeconds"] < 30
    assert [(change["status"], change["stage"]) for change in run["history"]] == [
        ("QUEUED", None), ("RUNNING", None), ("RUNNING", "CRAWLING"), ("FAILED", "CRAWLING"),
    ]  # fmt: skip
    assert run["failedRequests"]["edges"] == [{"node": {"url": "https://a.example/", "reason": "ROBOTS"}}]


async def test_list_of_fifty_runs_costs_at_most_three_statements(
    client: GraphQLClient, api_server: ApiServer, desk: Desk, owner: Person, settings_env: dict[str, str]
) -> None:
    job = await desk.job(owner)
    for _ in range(50):
        await desk.queued(owner, job=job)
    async with Wire(settings_env["DATABASE_URL"]) as wire:
        api = await api_server.second(DATABASE_URL=wire.url)
        async with GraphQLClient(api.graphql_url) as counted:

            async def statements(document: str, variables: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                # Once before, so that session and types of columns are known.
                await counted.run(document, variables, token=owner.token)
                before = wire.count
                data = await counted.run(document, variables, token=owner.token)
                return wire.count - before, data

            count, data = await statements(JOB_RUNS, {"first": 50})
            runs = [edge["node"] for edge in data["jobRuns"]["edges"]]
            assert [run["requestedBy"]["id"] for run in runs] == [owner.id] * 50
            assert 1 <= count <= 3
            ids = [run["id"] for run in runs]
            count, data = await statements("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ids})
            assert [node["id"] for node in data["nodes"]] == ids
            assert 1 <= count <= 3
        assert await api.stop() == 0


async def pages(client: GraphQLClient, person: Person, **arguments: Any) -> list[str]:
    """All runs of a list, read by pages of seven."""
    found: list[str] = []
    after = None
    while True:
        variables = {"first": 7, "after": after, **arguments}
        page = (await client.run(JOB_RUNS, variables, token=person.token))["jobRuns"]
        found += [edge["node"]["id"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def test_list_is_ones_own_newest_first_and_filtered(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    job, other_job = await desk.job(owner), await desk.job(owner)
    mine = [await desk.queued(owner, job=job if number % 2 else other_job) for number in range(10)]
    hand = await desk.claim(mine[0])
    newest_first = [run_id(execution) for execution in reversed(mine)]
    stranger = await new_user(client)
    theirs = run_id(await desk.queued(stranger))
    assert await pages(client, owner) == newest_first
    assert await pages(client, stranger) == [theirs]
    assert {theirs, *newest_first} <= set(await pages(client, admin, first=100))
    assert await pages(client, owner, filter={"jobId": job_id(job)}) == newest_first[::2]
    assert await pages(client, stranger, filter={"jobId": job_id(job)}) == []
    assert await pages(client, owner, filter={"statuses": ["RUNNING"]}) == [run_id(hand.id)]
    tool = await desk.pool.fetchval("SELECT tool_id FROM jobs WHERE id = $1", other_job)
    assert await pages(client, owner, filter={"toolId": encode_id(Prefix.TOOL, tool)}) == newest_first[1::2]
    moment = await desk.pool.fetchval("SELECT queued_at FROM executions WHERE id = $1", mine[4])
    assert await pages(client, owner, filter={"queuedFrom": moment.isoformat()}) == newest_first[:6]
    assert await pages(client, owner, filter={"queuedTo": moment.isoformat()}) == newest_first[6:]
    later = (moment + timedelta(hours=1)).isoformat()
    assert await pages(client, owner, filter={"queuedFrom": later}) == []
    with pytest.raises(GraphQLFailure) as failure:
        await pages(client, owner, filter={"jobId": "nonsense"})
    assert failure.value.code == "NOT_FOUND"
    count = "query($filter: JobRunFilter) { jobRuns(first: 1, filter: $filter) { totalCount } }"
    for filter_, expected in ((None, 10), ({"jobId": job_id(job)}, 5), ({"statuses": ["RUNNING", "FAILED"]}, 1)):
        data = await client.run(count, {"filter": filter_}, token=owner.token)
        assert data["jobRuns"]["totalCount"] == expected


async def test_pages_hold_while_runs_are_added_and_go(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    job = await desk.job(owner)
    ids = [run_id(await desk.queued(owner, job=job)) for _ in range(20)][::-1]
    first = (await client.run(JOB_RUNS, {"first": 7}, token=owner.token))["jobRuns"]
    for _ in range(3):
        await desk.queued(owner, job=job)
    await desk.pool.execute("DELETE FROM executions WHERE id = $1", uuid(ids[6]))  # the one the cursor names
    variables = {"first": 7, "after": first["pageInfo"]["endCursor"]}
    second = (await client.run(JOB_RUNS, variables, token=owner.token))["jobRuns"]
    assert [edge["node"]["id"] for edge in second["edges"]] == ids[7:14]
    assert second["pageInfo"]["hasPreviousPage"]
    variables = {"last": 6, "before": second["pageInfo"]["startCursor"]}
    back = (await client.run(JOB_RUNS, variables, token=owner.token))["jobRuns"]
    assert [edge["node"]["id"] for edge in back["edges"]] == ids[:6]


async def test_files_download_as_they_were_stored_by_links_that_expire(
    client: GraphQLClient, api_server: ApiServer, desk: Desk, owner: Person
) -> None:
    execution = await desk.finished(owner)
    content = b'{"n": 1}\n' * 10_000
    key = f"runs/{execution}/items.jsonl"
    stored = await storage.current().put(key, content, content_type="application/jsonl")
    file = outputs.NewFile(
        id=new_id(), format=FileFormat.JSONL, key=key, filename="items.jsonl", content_type="application/jsonl",
        size=stored.size, sha256=stored.sha256, row_count=10_000,
    )  # fmt: skip
    async with desk.pool.acquire() as connection:
        await outputs.record(connection, execution, [file])
    document = """query($id: ID!) { jobRun(id: $id) {
        outputFiles { format filename contentType size sha256 rowCount url } } }"""
    (shown,) = (await client.run(document, {"id": run_id(execution)}, token=owner.token))["jobRun"]["outputFiles"]
    assert (shown["format"], shown["filename"], shown["rowCount"]) == ("JSONL", "items.jsonl", 10_000)
    answer = await client.http.get(shown["url"])  # no token: the link is the permission
    assert answer.status_code == 200
    assert len(answer.content) == shown["size"] == len(content)
    assert hashlib.sha256(answer.content).hexdigest() == shown["sha256"]
    assert "attachment" in answer.headers["content-disposition"]
    # The link says until when it holds, and is not believed when that is changed.
    address = urlsplit(shown["url"])
    (expires,) = parse_qs(address.query)["expires"]
    now = await desk.pool.fetchval("SELECT extract(epoch FROM now())")
    assert 3_500 < int(expires) - now < 3_700
    forged = shown["url"].replace(f"expires={expires}", f"expires={int(expires) + 1}")
    assert (await client.http.get(forged)).status_code == 403
    brief = urlsplit(await storage.current().presigned_get(key, expires_seconds=1))
    link = address._replace(query=brief.query).geturl()

    async def is_over() -> bool:
        return (await client.http.get(link)).status_code == 403

    await eventually(is_over, 4)


async def test_node_is_a_run_to_whoever_may_see_it(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    mine, theirs = await desk.queued(owner), await desk.queued(await new_user(client))
    ids = [run_id(mine), run_id(theirs), "nonsense", encode_id(Prefix.RUN, new_id()), run_id(mine)]
    document = "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on JobRun { status } } }"
    own = {"id": run_id(mine), "status": "QUEUED"}
    assert (await client.run(document, {"ids": ids}, token=owner.token))["nodes"] == [own, None, None, None, own]
    assert (await client.run(document, {"ids": ids}))["nodes"] == [None] * 5
    seen = (await client.run(document, {"ids": ids}, token=admin.token))["nodes"]
    assert [node and node["id"] for node in seen] == [ids[0], ids[1], None, None, ids[0]]
    document = "query($id: ID!) { node(id: $id) { __typename ... on Execution { progress } } }"
    data = await client.run(document, {"id": run_id(mine)}, token=owner.token)
    assert data["node"] == {"__typename": "JobRun", "progress": 0}


async def test_without_the_first_gate_nobody_still_sees_nothing(desk: Desk, owner: Person) -> None:
    await desk.queued(owner)
    assert await runs.page(Actor(), limit=10) == []
    assert await runs.count(Actor()) == 0
