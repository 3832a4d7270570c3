"""Schedules through the API, and what becomes of each of their moments; firing is the workers' code, called here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr

from errors import ValidationFailed
from models import user_queries
from models.database import from_json
from models.ids import Prefix, encode_id
from models.schedule_queries import KEPT_TICKS
from resolvers import schedules, sessions
from settings import Settings
from tasks import queue, schedule_news, scheduler
from tasks.queue import Doorbell
from tasks.scheduler import Looks
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, open_desk, settings_of, uuid_of
from tests.harness.schedules import SCHEDULE_FIELDS, SET, job_id, make_due, runs, set_schedule, ticks

MAX_QUEUED = 4
SETTINGS = {"MAX_SCHEDULES_PER_USER": "2", "MAX_QUEUED_PER_USER": str(MAX_QUEUED)}

JOB = f"query One($id: ID!) {{ it: job(id: $id) {{ schedule {{ {SCHEDULE_FIELDS} }} }} }}"
JOBS = "query ($yes: Boolean) { it: jobs(filter: {isScheduled: $yes}) { totalCount edges { node { id } } } }"
RUNS = """query ($job: ID!) { it: jobRuns(filter: {jobId: $job}) {
  edges { node { trigger limits requestedBy { id } job { schedule { cronExpression } } } } } }"""
PREVIEW = """query ($cron: String!, $zone: String! = "UTC", $first: Int! = 5) {
  it: previewSchedule(cronExpression: $cron, timeZone: $zone, first: $first) { nextRuns note } }"""
PAUSE, RESUME, DELETE = (
    f"mutation ($input: {name[0].upper()}{name[1:]}Input!) "
    f"{{ it: {name}(input: $input) {{ job {{ schedule {{ {SCHEDULE_FIELDS} }} }} }} }}"
    for name in ("pauseJobSchedule", "resumeJobSchedule", "deleteJobSchedule")
)
NOTIFICATIONS = "{ it: notifications { edges { node { kind title body } } } }"
DELETE_JOB = "mutation ($input: DeleteJobInput!) { it: deleteJob(input: $input) { deletedId } }"


class World:
    """What schedules are made and fired with."""

    def __init__(self, desk: Desk, client: GraphQLClient, settings: Settings) -> None:
        self.desk = desk
        self.db = desk.pool
        self.client = client
        self.settings = settings

    async def scheduled(self, owner: Person, **fields: Any) -> UUID:
        """A job with a schedule."""
        job = await self.desk.job(owner)
        await set_schedule(self.client, owner, job, **fields)
        return job

    async def fire(self, looks: Looks | None = None) -> None:
        """Fire what is due, as a worker does that has just begun or, with its looks, goes on."""
        looks = looks or Looks()
        await scheduler.fire_due(self.settings, looks)
        assert looks.passed_over == {}

    async def schedule(self, person: Person, job: UUID) -> dict[str, Any]:
        """The schedule as clients see it."""
        data = await self.client.run(JOB, {"id": job_id(job)}, token=person.token)
        schedule: dict[str, Any] = data["it"]["schedule"]
        return schedule

    async def history(self, job: UUID) -> list[tuple[str, str | None]]:
        """Outcomes and reasons, oldest first."""
        return [(tick["outcome"], tick["reason"]) for tick in await ticks(self.db, job)]

    async def command(self, person: Person, document: str, job: UUID) -> dict[str, Any]:
        """Pause, resume or take away; the schedule afterwards."""
        data = await self.client.run(document, {"input": {"jobId": job_id(job)}}, token=person.token)
        schedule: dict[str, Any] = data["it"]["job"]["schedule"]
        return schedule

    async def actions(self, job: UUID) -> list[str]:
        """What the audit trail has of a job."""
        found = await self.db.fetch("SELECT action FROM audit_events WHERE target_id = $1 ORDER BY id", job)
        return [row["action"] for row in found]


@pytest_asyncio.fixture(scope="module")
async def world(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[World]:
    settings = settings_of(settings_env)
    async with open_desk(settings_env) as desk, queue.connected(settings):
        yield World(desk, client, settings)


@pytest_asyncio.fixture
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(autouse=True)
async def nothing_else_is_due(world: World) -> AsyncIterator[None]:
    yield
    await world.db.execute("DELETE FROM job_schedules")


async def refused(client: GraphQLClient, person: Person, document: str, variables: dict[str, Any]) -> GraphQLFailure:
    with pytest.raises(GraphQLFailure) as failure:
        await client.run(document, variables, token=person.token)
    return failure.value


# -- setting


async def test_a_schedule_is_set_shown_and_replaced(world: World, owner: Person) -> None:
    job = await world.desk.job(owner)
    assert await world.schedule(owner, job) is None
    first = await set_schedule(
        world.client, owner, job, cronExpression="30  2 * * *", timeZone="Europe/Madrid", limits={"maxPages": 7}
    )
    assert (first["cronExpression"], first["timeZone"]) == ("30 2 * * *", "Europe/Madrid")
    assert (first["overlapPolicy"], first["missedRunPolicy"], first["limits"]) == ("SKIP", "SKIP", {"maxPages": 7})
    assert (first["isPaused"], first["lastRunAt"], first["ticks"]["edges"]) == (False, None, [])
    assert len(first["nextRuns"]) == 5
    assert first["nextRuns"][0] == first["nextRunAt"]
    await make_due(world.db, job)
    await world.fire()
    second = await set_schedule(world.client, owner, job, cronExpression="@daily", overlapPolicy="QUEUE")
    assert (second["cronExpression"], second["overlapPolicy"], second["limits"]) == ("@daily", "QUEUE", {})
    assert second["nextRunAt"].endswith("T00:00:00Z")
    assert len(second["ticks"]["edges"]) == 1, "the history stays"
    assert second["lastRunAt"] is not None
    assert await world.actions(job) == ["setJobSchedule", "setJobSchedule"]


@pytest.mark.parametrize(
    ("fields", "path", "told"),
    [
        ({"cronExpression": "0 25 * * *"}, ["input", "cronExpression"], "The second field, the hour"),
        ({"cronExpression": ""}, ["input", "cronExpression"], "five fields"),
        ({"timeZone": "Europe/Madird"}, ["input", "timeZone"], "Do you mean Europe/Madrid?"),
        ({"cronExpression": "0 0 */40 * 1#5"}, ["input", "cronExpression"], "nine years"),
        ({"limits": {"maxPages": 0}}, ["input", "limits", "maxPages"], "between 1 and"),
    ],
)
async def test_what_cannot_be_a_schedule_is_refused_with_its_place(
    world: World, owner: Person, fields: dict[str, Any], path: list[str], told: str
) -> None:
    job = await world.desk.job(owner)
    given = {"jobId": job_id(job), "cronExpression": "0 * * * *", **fields}
    failure = await refused(world.client, owner, SET, {"input": given})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", path)
    assert told in failure.errors[0]["message"]
    assert await world.schedule(owner, job) is None
    assert await world.actions(job) == []


def test_runs_may_not_come_more_often_than_the_installation_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = Settings.model_construct(schedule_min_seconds=3_600)
    monkeypatch.setattr(sessions, "settings", lambda: rare)
    with pytest.raises(ValidationFailed, match="3,600 seconds"):
        schedules.read("*/30 * * * *", "UTC", path=[])
    assert schedules.read("30 * * * *", "UTC", path=[]).expression.text == "30 * * * *"


async def test_a_user_has_so_many_schedules_and_no_more(world: World, owner: Person, admin: Person) -> None:
    kept, other = await world.scheduled(owner), await world.scheduled(owner)
    third = await world.desk.job(owner)
    given = {"jobId": job_id(third), "cronExpression": "0 * * * *"}
    for person in (owner, admin):
        failure = await refused(world.client, person, SET, {"input": given})
        assert (failure.code, failure.extensions["details"]["limit"]) == ("CONFLICT", 2)
    await set_schedule(world.client, owner, kept, cronExpression="5 * * * *")
    await world.command(owner, DELETE, other)
    raced = [asyncio.create_task(set_schedule(world.client, owner, each)) for each in (other, third)]
    results = await asyncio.gather(*raced, return_exceptions=True)
    assert sorted(isinstance(result, GraphQLFailure) for result in results) == [False, True]


async def test_others_cannot_touch_or_see_a_schedule(world: World, owner: Person) -> None:
    job, stranger = await world.scheduled(owner), await new_user(world.client)
    given = {"jobId": job_id(job)}
    calls: list[tuple[str, dict[str, Any]]] = [
        (SET, {"input": {**given, "cronExpression": "* * * * *"}}),
        *((document, {"input": given}) for document in (PAUSE, RESUME, DELETE)),
        (JOB, {"id": job_id(job)}),
    ]
    for document, variables in calls:
        assert (await refused(world.client, stranger, document, variables)).code == "NOT_FOUND"
    assert (await world.schedule(owner, job))["isPaused"] is False
    assert await world.actions(job) == ["setJobSchedule"]


async def test_commands_on_a_schedule_that_is_not_there_say_so(world: World, owner: Person) -> None:
    job = await world.desk.job(owner)
    for document in (PAUSE, RESUME, DELETE):
        failure = await refused(world.client, owner, document, {"input": {"jobId": job_id(job)}})
        assert (failure.code, failure.extensions["details"]["path"]) == ("NOT_FOUND", ["input", "jobId"])


async def test_paused_schedules_start_nothing_and_resume_from_now(world: World, owner: Person) -> None:
    job = await world.scheduled(owner, missedRunPolicy="RUN_ONCE")
    await make_due(world.db, job, ago=timedelta(hours=3))
    for _ in range(2):
        paused = await world.command(owner, PAUSE, job)
        assert (paused["isPaused"], paused["nextRunAt"], paused["nextRuns"]) == (True, None, [])
    await world.fire()
    again = await set_schedule(world.client, owner, job, cronExpression="5 * * * *")
    assert (again["isPaused"], again["nextRunAt"]) == (True, None), "an edit does not set it going"
    now = await world.db.fetchval("SELECT now()")
    for _ in range(2):
        resumed = await world.command(owner, RESUME, job)
        assert resumed["isPaused"] is False
        assert now < datetime.fromisoformat(resumed["nextRunAt"]) <= now + timedelta(hours=1, minutes=1)
    await world.fire()
    assert await runs(world.db, job) == []
    assert await world.actions(job) == [
        *("setJobSchedule", "pauseJobSchedule", "setJobSchedule", "resumeJobSchedule"),
    ]
    assert (await set_schedule(world.client, owner, job, isPaused=True))["isPaused"]
    assert not (await set_schedule(world.client, owner, job, isPaused=False))["isPaused"]


async def test_jobs_are_found_by_whether_they_are_scheduled(world: World, owner: Person) -> None:
    with_one, without = await world.scheduled(owner), await world.desk.job(owner)
    for yes, expected in ((True, [with_one]), (False, [without]), (None, [without, with_one])):
        data = await world.client.run(JOBS, {"yes": yes}, token=owner.token)
        found = [edge["node"]["id"] for edge in data["it"]["edges"]]
        assert (found, data["it"]["totalCount"]) == ([job_id(job) for job in expected], len(expected))


async def test_a_schedule_goes_with_its_job_and_alone(world: World, owner: Person) -> None:
    gone, bare = await world.scheduled(owner), await world.scheduled(owner)
    await make_due(world.db, gone, bare)
    await world.fire()
    for run in await runs(world.db, gone, bare):
        await (await world.desk.claim(run)).finish()
    await world.client.run(DELETE_JOB, {"input": {"id": job_id(gone)}}, token=owner.token)
    assert await world.command(owner, DELETE, bare) is None
    assert await ticks(world.db, gone, bare) == []
    assert await world.db.fetchval("SELECT count(*) FROM job_schedules") == 0
    assert len(await runs(world.db, bare)) == 1, "its runs stay"


# -- previews


async def test_previews_show_what_would_come(world: World, owner: Person) -> None:
    data = await world.client.run(
        PREVIEW, {"cron": "30 2 29 3 *", "zone": "Europe/Madrid", "first": 9}, token=owner.token
    )
    assert len(data["it"]["nextRuns"]) == 9
    assert all(run[5:10] == "03-29" for run in data["it"]["nextRuns"])
    data = await world.client.run(PREVIEW, {"cron": "0 12 * * *"}, token=owner.token)
    assert (len(data["it"]["nextRuns"]), data["it"]["note"]) == (5, None)


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"cron": "nonsense"}, ["cronExpression"]),
        ({"cron": "* * * * *", "zone": "Mars/Olympus"}, ["timeZone"]),
        ({"cron": "* * * * *", "first": 0}, ["first"]),
        ({"cron": "* * * * *", "first": 51}, ["first"]),
    ],
)
async def test_previews_say_what_is_wrong(
    world: World, owner: Person, variables: dict[str, Any], path: list[str]
) -> None:
    failure = await refused(world.client, owner, PREVIEW, variables)
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", path)


# -- firing


async def test_a_moment_that_comes_starts_a_run_of_the_owner(world: World, owner: Person, admin: Person) -> None:
    job = await world.desk.job(owner)
    await set_schedule(world.client, admin, job, limits={"maxPages": 3})
    moment = await make_due(world.db, job)
    await world.fire()
    await world.fire()
    data = await world.client.run(RUNS, {"job": job_id(job)}, token=owner.token)
    (run,) = [edge["node"] for edge in data["it"]["edges"]]
    assert (run["trigger"], run["limits"], run["requestedBy"]) == ("SCHEDULE", {"maxPages": 3}, {"id": owner.id})
    assert run["job"]["schedule"] == {"cronExpression": "0 * * * *"}
    schedule = await world.schedule(owner, job)
    (tick,) = [edge["node"] for edge in schedule["ticks"]["edges"]]
    assert (tick["outcome"], tick["reason"]) == ("STARTED", None)
    (run_id,) = await runs(world.db, job)
    assert tick["run"]["id"] == encode_id(Prefix.RUN, run_id)
    assert datetime.fromisoformat(schedule["lastRunAt"]) == datetime.fromisoformat(tick["tickAt"]) == moment
    assert datetime.fromisoformat(schedule["nextRunAt"]) > moment
    assert await world.actions(run_id) == ["runBySchedule"]


async def test_a_moment_that_was_fired_is_not_fired_again(world: World, owner: Person) -> None:
    job = await world.scheduled(owner)
    first = await make_due(world.db, job)
    await world.fire()
    (run,) = await runs(world.db, job)
    await (await world.desk.claim(run)).finish()
    await world.db.execute("UPDATE job_schedules SET next_run_at = $2 WHERE job_id = $1", job, first)
    await world.fire()
    assert await runs(world.db, job) == [run]
    assert await world.history(job) == [("STARTED", None)]


async def test_a_run_that_waits_or_works_is_not_joined_by_another(world: World, owner: Person) -> None:
    job = await world.scheduled(owner)
    run = await world.desk.queued(owner, job=job)
    await make_due(world.db, job)
    await world.fire()
    await world.desk.claim(run)
    await world.db.execute("UPDATE job_schedules SET next_run_at = now()")
    await world.fire()
    assert await world.history(job) == [("SKIPPED", "STILL_RUNNING")] * 2
    assert await runs(world.db, job) == [run]


async def test_a_queued_moment_starts_when_the_run_before_it_has_ended(world: World, owner: Person) -> None:
    job = await world.scheduled(owner, overlapPolicy="QUEUE", cronExpression="* * * * *")
    hand = await world.desk.started(owner, job=job)
    moment = await make_due(world.db, job)
    await world.fire()
    assert await world.history(job) == [("QUEUED", None)]
    later = await world.db.fetchval("UPDATE job_schedules SET next_run_at = now() RETURNING next_run_at")
    await world.fire()
    await world.fire()
    assert await world.history(job) == [("QUEUED", None), ("SKIPPED", "STILL_RUNNING")], "one waits at most"
    await hand.finish()
    await world.fire()
    assert await world.history(job) == [("STARTED", None), ("SKIPPED", "STILL_RUNNING")]
    assert len(await runs(world.db, job)) == 2
    started, skipped = await ticks(world.db, job)
    assert (started["tick_at"], skipped["tick_at"]) == (moment, later)
    await world.fire()
    assert len(await runs(world.db, job)) == 2


@pytest.mark.parametrize("change", ["pause", "set"])
async def test_a_queued_moment_is_given_up_with_its_schedule(world: World, owner: Person, change: str) -> None:
    job = await world.scheduled(owner, overlapPolicy="QUEUE")
    hand = await world.desk.started(owner, job=job)
    await make_due(world.db, job)
    await world.fire()
    if change == "pause":
        await world.command(owner, PAUSE, job)
    else:
        await set_schedule(world.client, owner, job)
    await hand.finish()
    await world.fire()
    assert await world.history(job) == [("SKIPPED", "SCHEDULE_CHANGED")]
    assert await runs(world.db, job) == [hand.id]


@pytest.mark.parametrize(
    ("policy", "last"), [("SKIP", ("MISSED", None)), ("RUN_ONCE", ("STARTED", None))], ids=["SKIP", "RUN_ONCE"]
)
async def test_after_hours_without_a_worker_there_is_no_burst(
    world: World, owner: Person, policy: str, last: tuple[str, str | None]
) -> None:
    ten_minutes_ago = await world.db.fetchval("SELECT now() - interval '10 minutes'")
    job = await world.scheduled(owner, cronExpression=f"{ten_minutes_ago:%M} * * * *", missedRunPolicy=policy)
    await make_due(world.db, job, ago=timedelta(hours=5, minutes=10))
    await world.fire()
    assert await world.history(job) == [("MISSED", None)] * 5 + [last]
    assert len(await runs(world.db, job)) == (policy == "RUN_ONCE")
    await world.fire()
    assert len(await ticks(world.db, job)) == 6


async def test_a_moment_just_missed_runs_although_older_ones_do_not(world: World, owner: Person) -> None:
    job = await world.scheduled(owner, cronExpression="* * * * *")
    await make_due(world.db, job, ago=timedelta(minutes=4))
    await world.fire()
    assert await world.history(job) == [("MISSED", None)] * 4 + [("STARTED", None)]


async def test_a_very_long_absence_leaves_a_bounded_history(world: World, owner: Person) -> None:
    job = await world.scheduled(owner, cronExpression="* * * * *")
    await make_due(world.db, job, ago=timedelta(days=40))
    await world.fire()
    found = await ticks(world.db, job)
    assert (len(found), found[-1]["outcome"]) == (KEPT_TICKS, "STARTED")
    await world.db.execute(
        "UPDATE schedule_ticks SET tick_at = tick_at - interval '89 days 23:30' WHERE run_id IS NULL"
    )
    await world.db.execute("UPDATE job_schedules SET next_run_at = now()")
    await world.fire()
    remaining = [tick["tick_at"] for tick in await ticks(world.db, job)]
    assert min(remaining) >= await world.db.fetchval("SELECT now() - interval '90 days 10 seconds'")
    assert 2 <= len(remaining) < 60


async def test_a_tool_that_stays_inactive_pauses_the_schedule_and_tells_once(world: World, owner: Person) -> None:
    tool = await world.desk.tool()
    job = await world.desk.job(owner, tool=tool)
    await set_schedule(world.client, owner, job)
    await world.desk.set_active(tool, False)
    for number in range(scheduler.PAUSED_AFTER):
        assert (await world.schedule(owner, job))["isPaused"] is False
        await world.db.execute(
            "UPDATE job_schedules SET next_run_at = now() - make_interval(secs => $1)", scheduler.PAUSED_AFTER - number
        )
        await world.fire()
    schedule = await world.schedule(owner, job)
    assert (schedule["isPaused"], schedule["pauseReason"], schedule["nextRunAt"]) == (True, "TOOL_INACTIVE", None)
    assert ("REFUSED", "TOOL_INACTIVE") in await world.history(job)
    assert "pauseBySystem" in await world.actions(job)
    payload = await world.db.fetchval("SELECT payload FROM outbox_messages WHERE topic = $1", schedule_news.TOPIC)
    for _ in range(2):
        await schedule_news.tell(world.db, from_json(payload))
    data = await world.client.run(NOTIFICATIONS, token=owner.token)
    (told,) = [edge["node"] for edge in data["it"]["edges"]]
    assert (told["kind"], told["title"]) == ("SCHEDULE_PAUSED", "The schedule of A job was paused")
    await world.desk.set_active(tool, True)
    resumed = await world.command(owner, RESUME, job)
    assert (resumed["isPaused"], resumed["pauseReason"]) == (False, None)
    await make_due(world.db, job)
    await world.fire()
    assert len(await runs(world.db, job)) == 1


async def test_nothing_fires_or_piles_up_for_owners_who_are_switched_off(world: World, owner: Person) -> None:
    job = await world.scheduled(owner, cronExpression="* * * * *", missedRunPolicy="RUN_ONCE")
    await world.db.execute("UPDATE users SET is_active = false WHERE id = $1", uuid_of(owner))
    await make_due(world.db, job, ago=timedelta(minutes=2))
    await world.fire()
    assert await world.history(job) == [("MISSED", None)] * 2 + [("REFUSED", "OWNER_INACTIVE")]
    await world.db.execute("UPDATE users SET is_active = true WHERE id = $1", uuid_of(owner))
    await world.fire()
    assert await runs(world.db, job) == []
    await world.db.execute("UPDATE job_schedules SET next_run_at = now()")
    await world.fire()
    assert len(await runs(world.db, job)) == 1


async def test_a_full_queue_refuses_scheduled_runs_too(world: World, owner: Person) -> None:
    job = await world.scheduled(owner)
    for _ in range(MAX_QUEUED):
        await world.desk.queued(owner)
    await make_due(world.db, job)
    await world.fire()
    assert await world.history(job) == [("REFUSED", "QUEUE_FULL")]
    assert await runs(world.db, job) == []
    assert (await world.schedule(owner, job))["isPaused"] is False


async def test_pages_of_a_day_that_are_used_up_refuse_scheduled_runs_too(world: World, owner: Person) -> None:
    job = await world.scheduled(owner)
    await world.db.execute(
        "INSERT INTO crawl_days (owner_id, day, pages) VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2)",
        uuid_of(owner),
        world.settings.crawl_pages_per_day,
    )
    await make_due(world.db, job)
    await world.fire()
    assert await world.history(job) == [("REFUSED", "DAILY_LIMIT")]
    assert await runs(world.db, job) == []


async def test_schedules_that_cannot_be_fired_hold_no_other_up(world: World, owner: Person) -> None:
    faulty, healthy = await world.scheduled(owner), await world.scheduled(owner)
    held = await world.scheduled(await new_user(world.client))
    await world.db.execute("UPDATE job_schedules SET time_zone = 'No/Where' WHERE job_id = $1", faulty)
    await make_due(world.db, faulty, held, ago=timedelta(minutes=1))
    await make_due(world.db, healthy)
    looks = Looks()
    async with world.db.acquire() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE", held)
        async with asyncio.timeout(3):
            await scheduler.fire_due(world.settings, looks)
    assert len(await runs(world.db, healthy)) == 1
    assert await ticks(world.db, faulty, held) == []
    assert list(looks.passed_over) == [faulty]
    await scheduler.fire_due(world.settings, looks)
    assert await world.history(held) == [("MISSED", None)], "as soon as it is free"


async def test_what_waited_for_its_turn_was_not_missed(world: World, owner: Person) -> None:
    """Many are due at once, and whoever fires them has been there all the time; unless there was a break."""
    now = time.monotonic()
    waited, late = await world.scheduled(owner), await world.scheduled(owner)
    await make_due(world.db, waited, ago=timedelta(minutes=5))
    await world.fire(Looks(began_at=now - 600, went_on_at=now))
    assert await world.history(waited) == [("STARTED", None)]
    await make_due(world.db, late, ago=timedelta(minutes=5))
    await world.fire(Looks(began_at=now - 600, went_on_at=now - scheduler.BREAK_SECONDS - 1))
    assert await world.history(late) == [("MISSED", None)]


async def test_a_doorbell_that_is_lost_loses_no_run(
    world: World, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await world.scheduled(owner)
    await make_due(world.db, job)
    nowhere = world.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    lost = queue.open_arq(nowhere)
    monkeypatch.setattr(queue, "_doorbell", Doorbell(lost, nowhere.redis_namespace))
    await world.fire()
    await queue.close(lost)
    assert len(await runs(world.db, job)) == 1
    assert await world.history(job) == [("STARTED", None)]


async def test_the_history_of_a_deleted_account_goes_in_pieces(world: World, owner: Person) -> None:
    job = await world.scheduled(owner)
    await world.db.execute(
        """INSERT INTO schedule_ticks (job_id, tick_at, outcome, decided_at)
           SELECT $1, now() - make_interval(mins => n), 'MISSED', now() FROM generate_series(1, 25) AS n""",
        job,
    )
    left = []
    while await user_queries.delete_some(world.db, uuid_of(owner), limit=10):
        left.append(len(await ticks(world.db, job)))
    assert left[:3] == [15, 5, 0]
    assert await world.db.fetchval("SELECT count(*) FROM jobs WHERE id = $1", job) == 0
