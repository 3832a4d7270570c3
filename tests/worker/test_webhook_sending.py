"""Webhooks as a worker sends them, from the change of an execution to the receiver, and everything that goes wrong.

Time is moved in the database: nothing here waits for a pause to end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters import events, webhook_sender
from adapters.secret_box import SecretBox
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id, new_id
from models.sealed import PREVIOUS_WEBHOOK_SECRET, WEBHOOK_SECRET
from settings import Settings
from tasks import execution_news, webhook_sending
from tests.conftest import Programs
from tests.harness.deployments import insert_deployment, insert_owner, insert_project, set_status
from tests.harness.executions import settings_of
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually
from tests.harness.webhook_receiver import Answer, WebhookReceiver, webhook_receiver

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
SETTINGS = {
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "0",
    "WORKER_OCR_SLOTS": "0",
    "SITES_DOMAIN": "sites.example",
    "BASE_URL": "https://yard.example",
}


@pytest_asyncio.fixture(scope="module")
async def receiver(programs: Programs) -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as started:
        programs.environment["WEBHOOK_ALLOWED_HOSTS"] = started.allowed
        yield started


@pytest_asyncio.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, command_timeout=10) as opened:
        yield opened


@pytest.fixture(scope="module")
def settings(settings_env: dict[str, str]) -> Settings:
    return settings_of(settings_env)


@pytest_asyncio.fixture(scope="module")
async def worker(programs: Programs, receiver: WebhookReceiver) -> Program:
    started = programs.start((CLI, "worker"), kind="worker")
    await started.wait_event("worker_started")
    return started


class Owner:
    """Somebody with a project, a job and webhooks."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, receiver: WebhookReceiver, user_id: UUID) -> None:
        self.pool = pool
        self.settings = settings
        self.receiver = receiver
        self.id = user_id
        self.project_id = UUID(int=0)
        self.job_id = UUID(int=0)

    async def endpoint(
        self, url: str | None = None, *, types: list[str] | None = None, **columns: Any
    ) -> tuple[UUID, str, str]:
        """A webhook endpoint: its key, its name at the receiver, its secret."""
        endpoint_id, secret = new_id(), webhook_sender.new_secret()
        sealed = SecretBox(self.settings.keyring).seal(secret, place=WEBHOOK_SECRET.place(endpoint_id))
        await self.pool.execute(
            """INSERT INTO webhook_endpoints (id, owner_id, project_id, job_id, url, description, event_types,
                   sealed_secret, is_active, failing_since, created_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, '', $6::jsonb, $7, true, $8, now(), now())""",
            endpoint_id,
            self.id,
            columns.get("project_id"),
            columns.get("job_id"),
            url or self.receiver.url(endpoint_id.hex),
            None if types is None else json.dumps(types),
            sealed,
            columns.get("failing_since"),
        )
        return endpoint_id, endpoint_id.hex, secret

    async def run(self, *statuses: ExecutionStatus, trigger: str = "API", failure: str = "x", **counts: Any) -> UUID:
        """A run of the job that goes through these statuses."""
        run = new_id()
        async with self.pool.acquire() as connection:
            await insert_execution(connection, run, self.id, "CRAWL")
            await connection.execute(
                """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                       is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                       requests_robots, requests_throttled, is_incomplete, expected_items)
                   SELECT $1, j.id, j.tool_id, 'catalogue', j.input, '{}', $3, $1, false, $4, 3, 1, 4096, 0, 0, 0, $5,
                       $6
                   FROM jobs j WHERE j.id = $2""",
                run,
                self.job_id,
                trigger,
                counts.get("items", 12),
                counts.get("is_incomplete", False),
                counts.get("expected_items"),
            )
            for status in statuses:
                await set_status(connection, run, status, failure=failure)
        return run

    async def told(self) -> list[asyncpg.Record]:
        """The owner's notifications."""
        found: list[asyncpg.Record] = await self.pool.fetch(
            "SELECT * FROM notifications WHERE user_id = $1 ORDER BY id", self.id
        )
        return found

    async def dispatch(self, endpoint_id: UUID) -> asyncpg.Record:
        """The newest dispatch of an endpoint."""
        return await self.pool.fetchrow(
            "SELECT * FROM webhook_dispatches WHERE endpoint_id = $1 ORDER BY id DESC LIMIT 1", endpoint_id
        )

    async def settled(self, endpoint_id: UUID, *, attempts: int = 1, state: str | None = None) -> asyncpg.Record:
        """The newest dispatch, once so many attempts are written down."""

        async def is_so() -> asyncpg.Record | None:
            row = await self.dispatch(endpoint_id)
            is_written = row is not None and row["attempts"] == attempts and row["lease_until"] is None
            return row if is_written and state in (None, row["state"]) else None

        return await eventually(is_so, 10, what="a settled dispatch")

    async def make_due(self, endpoint_id: UUID) -> None:
        """Let the pauses of an endpoint's dispatches end now."""
        await self.pool.execute(
            "UPDATE webhook_dispatches SET next_attempt_at = now() WHERE endpoint_id = $1 AND state = 'PENDING'",
            endpoint_id,
        )


async def insert_execution(connection: asyncpg.Connection, execution_id: UUID, owner_id: UUID, kind: str) -> None:
    await connection.execute(
        """INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
               max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
           VALUES ($1, $3, $2, $2, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0)""",
        execution_id,
        owner_id,
        kind,
    )


@pytest_asyncio.fixture(scope="module")
async def tool(pool: asyncpg.Pool) -> UUID:
    made: UUID = await pool.fetchval(
        """INSERT INTO tools (id, slug, name, category, description, states, spider, input_schema, is_active,
               created_at, updated_at)
           VALUES ($1, 'prices', 'Prices', 'tests', '', '[]', 'catalogue', '{}', true, now(), now()) RETURNING id""",
        new_id(),
    )
    return made


@pytest.fixture
async def owner(pool: asyncpg.Pool, settings: Settings, receiver: WebhookReceiver, tool: UUID) -> Owner:
    async with pool.acquire() as connection:
        made = Owner(pool, settings, receiver, await insert_owner(connection))
        made.project_id = await insert_project(connection, made.id)
        made.job_id = await connection.fetchval(
            """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
               SELECT $1, $2, $3, 'Prices', '{}', now(), now() RETURNING id""",
            new_id(),
            made.id,
            tool,
        )
    return made


async def news_told(pool: asyncpg.Pool) -> None:
    """Wait until all news of executions are told: no further dispatch follows."""

    async def is_empty() -> bool:
        return not await pool.fetchval("SELECT count(*) FROM outbox_messages WHERE topic = 'execution.news'")

    await eventually(is_empty, 10, what="told news")


# -- what is told


async def test_a_run_from_its_beginning_to_its_end(worker: Program, owner: Owner) -> None:
    first, name, secret = await owner.endpoint()
    _, other, other_secret = await owner.endpoint(types=["run.succeeded"])
    run = await owner.run(RUNNING, SUCCEEDED, items=12)
    messages = {each.message["type"]: each for each in await owner.receiver.received(name, 2)}
    assert set(messages) == {"run.started", "run.succeeded"}
    data = messages["run.succeeded"].verified(secret)["data"]
    assert (data["id"], data["status"]) == (encode_id(Prefix.RUN, run), "SUCCEEDED")
    assert data["job"] == {"id": encode_id(Prefix.JOB, owner.job_id), "name": "Prices"}
    assert (data["itemsScraped"], data["pagesCrawled"], data["isIncomplete"], data["failure"]) == (12, 3, False, None)
    assert data["links"] == {"graphql": "https://yard.example/graphql"}
    assert datetime.fromisoformat(messages["run.started"].message["timestamp"]) <= datetime.now(UTC)
    assert messages["run.started"].message["version"] == 1
    assert messages["run.started"].message["data"]["finishedAt"] is None
    (same,) = await owner.receiver.received(other)
    assert same.verified(other_secret)["type"] == "run.succeeded"
    assert same.event_id == messages["run.succeeded"].event_id, "one event, one id, whoever is told"
    assert messages["run.started"].event_id != same.event_id
    row = await owner.settled(first)
    assert (row["state"], row["status_code"], row["response_excerpt"]) == ("DELIVERED", 200, "ok")
    assert len(json.loads(row["attempt_log"])) == 1


async def test_a_deployment_and_what_replaces_and_narrows(worker: Program, owner: Owner, pool: asyncpg.Pool) -> None:
    _, name, _ = await owner.endpoint(project_id=owner.project_id)
    _, of_job, _ = await owner.endpoint(job_id=owner.job_id)
    _, of_both, _ = await owner.endpoint(project_id=owner.project_id, job_id=owner.job_id)
    async with pool.acquire() as connection:
        elsewhere = await insert_project(connection, owner.id)
        await insert_deployment(connection, elsewhere)
        deployment = await insert_deployment(
            connection, owner.project_id, commit_hash="0123456789abcdef", commit_message="Fix it\n\nAll."
        )
        await set_status(connection, deployment, RUNNING)
        await set_status(connection, deployment, FAILED, failure="npm ended with 1." + "x" * 5_000)
    await owner.run(RUNNING, CANCELLED)
    messages = {each.message["type"]: each.message for each in await owner.receiver.received(name, 3)}
    assert set(messages) == {"deployment.queued", "deployment.started", "deployment.failed"}
    data = messages["deployment.failed"]["data"]
    assert data["commit"] == {"hash": "0123456789abcdef", "title": "Fix it"}
    assert data["failure"]["code"] == "COMMAND_FAILED"
    assert len(data["failure"]["message"]) == 1_000
    assert data["links"]["deployment"] is None
    runs = {each.message["type"] for each in await owner.receiver.received(of_job, 2)}
    assert runs == {"run.started", "run.cancelled"}
    assert {each.message["type"] for each in await owner.receiver.received(of_both, 5)} == set(messages) | runs
    assert [len(owner.receiver.requests[each]) for each in (name, of_job, of_both)] == [3, 2, 5]


@pytest.mark.parametrize("kind", ["SCAN", "OCR", "EXPORT"])
async def test_other_kinds_are_told_too(kind: str, worker: Program, owner: Owner, pool: asyncpg.Pool) -> None:
    _, name, _ = await owner.endpoint()
    execution = new_id()
    async with pool.acquire() as connection:
        await insert_execution(connection, execution, owner.id, kind)
        for status in (RUNNING, SUCCEEDED):
            await set_status(connection, execution, status)
    await news_told(pool)
    expected = {f"{kind.lower()}.{verb}" for verb in ("started", "succeeded")} - {"export.started"}
    messages = await owner.receiver.received(name, len(expected))
    assert {each.message["type"] for each in messages} == expected
    assert messages[-1].message["data"]["id"].startswith({"SCAN": "scan_", "OCR": "ocr_", "EXPORT": "exp_"}[kind])


async def test_nothing_is_written_where_nobody_listens(owner: Owner, pool: asyncpg.Pool) -> None:
    endpoint, _, _ = await owner.endpoint()
    await pool.execute(
        """UPDATE webhook_endpoints SET is_active = false, disabled_at = now(), disabled_reason = 'BY_USER'
           WHERE id = $1""",
        endpoint,
    )
    async with pool.acquire() as connection, connection.transaction():
        scan = new_id()
        await insert_execution(connection, scan, owner.id, "SCAN")
        await set_status(connection, scan, RUNNING)
        await insert_deployment(connection, owner.project_id)
        written = await connection.fetchval(
            "SELECT count(*) FROM outbox_messages WHERE topic = 'execution.news' AND payload->>'ownerId' = $1",
            str(owner.id),
        )
    assert written == 0


async def test_news_that_come_often_are_one_dispatch(
    settings: Settings, owner: Owner, pool: asyncpg.Pool, worker: Program
) -> None:
    endpoint, name, _ = await owner.endpoint(types=["run.failed"])
    run = await owner.run(RUNNING, FAILED)
    await owner.receiver.received(name)
    payload = {"executionId": str(run), "status": "FAILED", "at": datetime.now(UTC).isoformat()}
    async with events.connected(settings):
        tell = execution_news.telling(settings, pool)
        await asyncio.gather(*(tell(payload) for _ in range(6)))
    assert await pool.fetchval("SELECT count(*) FROM webhook_dispatches WHERE endpoint_id = $1", endpoint) == 1
    assert len(await owner.told()) == 1


async def test_both_secrets_sign_after_a_rotation(worker: Program, owner: Owner, settings: Settings) -> None:
    endpoint, name, secret = await owner.endpoint(types=["run.started"])
    before = webhook_sender.new_secret()
    await owner.pool.execute(
        """UPDATE webhook_endpoints SET sealed_previous_secret = $2, previous_secret_until = now() + interval '1 hour'
           WHERE id = $1""",
        endpoint,
        SecretBox(settings.keyring).seal(before, place=PREVIOUS_WEBHOOK_SECRET.place(endpoint)),
    )
    await owner.run(RUNNING)
    (received,) = await owner.receiver.received(name)
    received.verified(secret)
    received.verified(before)
    await owner.pool.execute(
        "UPDATE webhook_endpoints SET previous_secret_until = now() - interval '1 s' WHERE id = $1", endpoint
    )
    await owner.run(RUNNING)
    _, later = await owner.receiver.received(name, 2)
    assert len(later.headers["webhook-signature"].split()) == 1


# -- what goes wrong


async def test_it_is_tried_again_under_the_same_id(worker: Program, owner: Owner) -> None:
    endpoint, name, secret = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(name, Answer(500, b"no"), Answer(429, headers={"retry-after": "7200"}))
    await owner.run(RUNNING)
    row = await owner.settled(endpoint)
    assert (row["state"], row["failure_code"], row["status_code"]) == ("PENDING", "BAD_STATUS", 500)
    assert 5 < (row["next_attempt_at"] - datetime.now(UTC)).total_seconds() < 13
    assert await owner.pool.fetchval("SELECT failing_since FROM webhook_endpoints WHERE id = $1", endpoint)
    await owner.make_due(endpoint)
    row = await owner.settled(endpoint, attempts=2)
    assert 7_190 < (row["next_attempt_at"] - datetime.now(UTC)).total_seconds() <= 7_200, "as it asked"
    await owner.make_due(endpoint)
    row = await owner.settled(endpoint, attempts=3, state="DELIVERED")
    assert row["failure_code"] is None
    assert [entry["statusCode"] for entry in json.loads(row["attempt_log"])] == [500, 429, 200]
    requests = owner.receiver.requests[name]
    assert len({each.event_id for each in requests}) == 1
    assert len({each.body for each in requests}) == 1
    requests[-1].verified(secret)
    assert await owner.pool.fetchval("SELECT failing_since FROM webhook_endpoints WHERE id = $1", endpoint) is None


async def test_after_the_last_try_it_is_given_up(worker: Program, owner: Owner) -> None:
    endpoint, name, _ = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(name, *[Answer(503)] * 2)
    await owner.run(RUNNING)
    await owner.settled(endpoint)
    log = json.dumps([{"at": "2026-01-01T00:00:00Z", "statusCode": 503, "durationMs": 1, "failure": "BAD_STATUS",
                       "message": "x"}] * 12)  # fmt: skip
    await owner.pool.execute(
        "UPDATE webhook_dispatches SET attempts = $2, attempt_log = $3 WHERE endpoint_id = $1",
        endpoint,
        webhook_sending.MAX_TRIES - 1,
        log,
    )
    await owner.make_due(endpoint)
    row = await owner.settled(endpoint, attempts=webhook_sending.MAX_TRIES, state="FAILED")
    assert row["next_attempt_at"] is None
    assert row["finished_at"] is not None
    assert len(json.loads(row["attempt_log"])) == 12
    assert len(owner.receiver.requests[name]) == 2


def test_the_pauses_are_those_that_are_documented() -> None:
    assert webhook_sending.pause_seconds(webhook_sending.MAX_TRIES) is None
    for tries, minutes in enumerate((1 / 6, 1, 5, 30, 120, 300, 600, 840, 1_200, 1_440), start=1):
        pause = webhook_sending.pause_seconds(tries)
        assert pause is not None
        assert 0.75 * minutes * 60 <= pause <= 1.25 * minutes * 60
    assert webhook_sending.pause_seconds(1, 3_600.0) == 3_600.0


async def test_whoever_answers_410_is_switched_off_and_the_owner_told(
    worker: Program, owner: Owner, settings_env: dict[str, str]
) -> None:
    endpoint, name, _ = await owner.endpoint(types=["run.started", "run.cancelled"])
    owner.receiver.answer(name, Answer(410))
    await owner.run(RUNNING)
    row = await owner.settled(endpoint, state="FAILED")
    assert row["failure_code"] == "GONE"
    state = await owner.pool.fetchrow("SELECT * FROM webhook_endpoints WHERE id = $1", endpoint)
    assert (state["is_active"], state["disabled_reason"]) == (False, "GONE")
    (notification,) = await owner.told()
    assert notification["kind"] == "WEBHOOK_DISABLED"
    assert "127.0.0.1" in notification["title"]
    email = await owner.pool.fetchval("SELECT email FROM users WHERE id = $1", owner.id)

    def letter() -> bool:
        for path in (Path(settings_env["DATA_DIR"]) / "mail").glob("*.eml"):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            if email in str(message["To"]) and "switched off" in str(message["Subject"]):
                return True
        return False

    await eventually(letter, 10, what="a letter")


@pytest.mark.parametrize(("days", "is_off"), [(4.9, False), (5.1, True)])
async def test_five_days_of_failing_are_the_end(days: float, is_off: bool, worker: Program, owner: Owner) -> None:
    endpoint, name, _ = await owner.endpoint(
        types=["run.started"], failing_since=datetime.now(UTC) - timedelta(days=days)
    )
    owner.receiver.answer(name, Answer(500))
    await owner.run(RUNNING)
    await owner.settled(endpoint)
    state = await owner.pool.fetchrow("SELECT * FROM webhook_endpoints WHERE id = $1", endpoint)
    assert state["is_active"] is not is_off
    assert len(await owner.told()) == int(is_off)
    if is_off:
        async with owner.pool.acquire():
            await webhook_sending.upkeep(owner.pool)
        row = await owner.dispatch(endpoint)
        assert (row["state"], row["failure_code"]) == ("FAILED", "ENDPOINT_DISABLED")


async def test_an_address_that_leads_inside_meanwhile_is_not_opened(worker: Program, owner: Owner) -> None:
    endpoint, _, _ = await owner.endpoint("http://127.0.0.1:80/", types=["run.started"])
    await owner.run(RUNNING)
    row = await owner.settled(endpoint)
    assert (row["failure_code"], row["state"]) == ("BLOCKED_URL", "PENDING")
    assert "this machine" in row["failure_message"]


async def test_nothing_is_sent_for_whoever_is_deactivated(worker: Program, owner: Owner) -> None:
    endpoint, name, _ = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(name, Answer(500))
    await owner.run(RUNNING)
    await owner.settled(endpoint)
    await owner.pool.execute("UPDATE users SET is_active = false WHERE id = $1", owner.id)
    await owner.make_due(endpoint)
    row = await owner.settled(endpoint, attempts=2, state="FAILED")
    assert row["failure_code"] == "ENDPOINT_DISABLED"
    await owner.run(RUNNING, FAILED)
    await news_told(owner.pool)
    assert (len(owner.receiver.requests[name]), await owner.told()) == (1, [])


# -- who waits for whom


async def test_a_slow_endpoint_holds_up_nobody(worker: Program, owner: Owner) -> None:
    owner.receiver.hold_again()
    slow, slow_name, _ = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(slow_name, *[Answer(held=True)] * 40)
    for _ in range(40):
        await owner.run(RUNNING)
    await owner.receiver.received(slow_name, 2)
    _, name, _ = await owner.endpoint(types=["run.cancelled"])
    for _ in range(4):
        await owner.run(CANCELLED)
    await owner.receiver.received(name, 4)
    assert len(owner.receiver.requests[slow_name]) == 2, "of one endpoint two are under way, however many wait"
    owner.receiver.release()
    await owner.receiver.received(slow_name, 40)
    assert owner.receiver.most_under_way[slow_name] == 2
    await owner.pool.execute("DELETE FROM webhook_endpoints WHERE id = $1", slow)


async def test_an_endpoint_that_is_deleted_meanwhile(worker: Program, owner: Owner) -> None:
    owner.receiver.hold_again()
    endpoint, name, _ = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(name, Answer(held=True))
    await owner.run(RUNNING)
    await owner.receiver.received(name)
    await owner.pool.execute("DELETE FROM webhook_endpoints WHERE id = $1", endpoint)
    owner.receiver.release()
    _, other, _ = await owner.endpoint(types=["run.started"])
    await owner.run(RUNNING)
    await owner.receiver.received(other)
    assert worker.exit_code is None


async def test_the_owner_hears_of_runs_as_they_prefer(worker: Program, owner: Owner) -> None:
    await owner.run(RUNNING, SUCCEEDED)
    await owner.run(RUNNING, SUCCEEDED, trigger="SCHEDULE")
    await owner.run(RUNNING, SUCCEEDED, trigger="SCHEDULE", is_incomplete=True, items=3, expected_items=1_000)
    await owner.run(RUNNING, FAILED, trigger="SCHEDULE", failure="The site\nwas away.")
    await owner.run(RUNNING, CANCELLED)
    await news_told(owner.pool)
    told = {row["kind"]: row for row in await owner.told()}
    assert set(told) == {"JOB_SUCCEEDED", "JOB_INCOMPLETE", "JOB_FAILED"}
    assert len(await owner.told()) == 3
    assert told["JOB_FAILED"]["title"] == "A run of Prices failed: The site was away."
    assert "1,000" in told["JOB_INCOMPLETE"]["body"]
    await owner.pool.execute(
        """INSERT INTO preferences (user_id, theme, email_notifications, deployment_success, deployment_failure,
               job_notifications, updated_at) VALUES ($1, 'SYSTEM', true, true, true, false, now())""",
        owner.id,
    )
    await owner.run(RUNNING, FAILED)
    await news_told(owner.pool)
    assert len(await owner.told()) == 3


async def test_an_incomplete_run_is_no_success(worker: Program, owner: Owner) -> None:
    _, name, _ = await owner.endpoint(types=["run.succeeded", "run.incomplete"])
    await owner.run(RUNNING, SUCCEEDED, is_incomplete=True)
    (received,) = await owner.receiver.received(name)
    assert received.message["type"] == "run.incomplete"
    assert received.message["data"]["isIncomplete"] is True


# -- workers that are lost; last, as they end the module's worker


async def test_what_a_lost_worker_was_sending_is_sent_by_another_even_without_redis(
    worker: Program, owner: Owner, programs: Programs
) -> None:
    owner.receiver.hold_again()
    endpoint, name, _ = await owner.endpoint(types=["run.started", "run.failed"])
    owner.receiver.answer(name, Answer(held=True))
    await owner.run(RUNNING)
    await owner.receiver.received(name)
    worker.kill()
    await worker.wait_exit()
    owner.receiver.release()
    another = programs.start((CLI, "worker"), kind="worker", REDIS_URL="redis://127.0.0.1:1/0")
    await another.wait_event("worker_started")
    await owner.run(RUNNING, FAILED)
    await owner.receiver.received(name, 3)
    assert (await owner.pool.fetchval(
        "SELECT count(*) FROM webhook_dispatches WHERE endpoint_id = $1 AND lease_until > now()", endpoint
    )) >= 1, "nobody else has what the lost one holds, before its lease ends"  # fmt: skip
    await owner.pool.execute(
        """UPDATE webhook_dispatches SET next_attempt_at = now(), lease_until = now() - interval '1 s'
           WHERE endpoint_id = $1 AND state = 'PENDING'""",
        endpoint,
    )
    requests = await owner.receiver.received(name, 4)
    assert requests[-1].event_id == requests[0].event_id
    assert await another.stop() == 0


async def test_a_worker_that_stops_hands_back_what_it_sends(owner: Owner, programs: Programs) -> None:
    owner.receiver.hold_again()
    endpoint, name, _ = await owner.endpoint(types=["run.started"])
    owner.receiver.answer(name, Answer(held=True))
    stopping = programs.start((CLI, "worker"), kind="worker")
    await owner.run(RUNNING)
    await owner.receiver.received(name)
    assert await stopping.stop() == 0
    row = await owner.dispatch(endpoint)
    assert (row["state"], row["attempts"], row["lease_until"]) == ("PENDING", 0, None)
    assert row["next_attempt_at"] <= datetime.now(UTC)
    owner.receiver.release()
