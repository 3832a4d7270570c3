"""What owners are told of their deployments, by a worker as it ships: in the app, by mail, as they prefer; once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters import events
from models import notification_queries
from models.executions import ExecutionStatus
from models.ids import new_id
from models.notifications import NotificationKind
from settings import Settings
from tasks import deployment_news
from tests.conftest import Programs
from tests.harness.deployments import insert_deployment, insert_owner, insert_project, make_live, set_status
from tests.harness.mail_server import mail_server
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
SETTINGS = {
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
    "SITES_DOMAIN": "sites.example",
    "BASE_URL": "https://yard.example",
    "MAIL_FROM": "Yard <post@yard.example>",
}


@pytest_asyncio.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, command_timeout=10) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def worker(programs: Programs) -> Program:
    started = programs.start((CLI, "worker"), kind="worker")
    await started.wait_event("worker_started")
    return started


@pytest.fixture(scope="module")
def settings(settings_env: dict[str, str]) -> Settings:
    return Settings.model_validate({name.lower(): value for name, value in settings_env.items()})


@pytest.fixture(scope="module")
def letters_folder(settings_env: dict[str, str]) -> Path:
    return Path(settings_env["DATA_DIR"]) / "mail"


class Owner:
    """Somebody with a project, and what reaches them."""

    def __init__(self, db: asyncpg.Connection, user_id: UUID, email: str, project_id: UUID, letters: Path) -> None:
        self.db = db
        self.id = user_id
        self.email = email
        self.project_id = project_id
        self._letters = letters

    async def prefer(self, **columns: bool) -> None:
        values = {**notification_queries.DEFAULTS, **columns}
        await self.db.execute(
            f"""INSERT INTO preferences (user_id, {", ".join(values)}, updated_at)
                VALUES ($1, {", ".join(f"${place}" for place in range(2, 2 + len(values)))}, now())""",
            self.id,
            *values.values(),
        )

    async def deployment(self, *statuses: ExecutionStatus, failure: str | None = None, **fields: Any) -> UUID:
        deployment = await insert_deployment(self.db, self.project_id, **fields)
        for status in statuses:
            await set_status(self.db, deployment, status, failure=failure)
        return deployment

    async def notifications(self) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self.db.fetch(
            "SELECT * FROM notifications WHERE user_id = $1 ORDER BY id", self.id
        )
        return found

    async def told(self, count: int = 1) -> list[asyncpg.Record]:
        async def enough() -> list[asyncpg.Record] | None:
            found = await self.notifications()
            return found if len(found) >= count else None

        return await eventually(enough, 10, what=f"{count} notifications")

    def letters(self) -> list[EmailMessage]:
        found = []
        for path in sorted(self._letters.glob("*.eml")):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            assert isinstance(message, EmailMessage)
            if message["To"].addresses[0].addr_spec == self.email:
                found.append(message)
        return found


@pytest.fixture
async def owner(db: asyncpg.Connection, letters_folder: Path) -> Owner:
    email = f"{new_id().hex}@example.com"
    user_id = await insert_owner(db, email=email)
    return Owner(db, user_id, email, await insert_project(db, user_id), letters_folder)


async def all_told(db: asyncpg.Connection) -> None:
    """Wait until the outbox is empty: nothing follows."""

    async def is_empty() -> bool:
        return not await db.fetchval(
            "SELECT count(*) FROM outbox_messages WHERE topic IN ('deployment.status', 'mail') AND given_up_at IS NULL"
        )

    await eventually(is_empty, 15, what="an empty outbox")


# -- what is told


async def test_a_deployment_that_is_live(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    deployment = await owner.deployment(
        RUNNING, commit_hash="0123456789abcdef", commit_message="Fix the <menu>\n\nAll of it.", build_seconds=41.7
    )
    await make_live(db, deployment)
    await set_status(db, deployment, SUCCEEDED)
    (notification,) = await owner.told()
    slug = await db.fetchval("SELECT slug FROM projects WHERE id = $1", owner.project_id)
    assert notification["title"] == "Deployment 1 of Website is live"
    assert notification["body"] == "Branch main, commit 0123456: Fix the <menu>\nBuilt in 42 s."
    assert notification["url"] == f"https://{slug}.sites.example"
    assert (notification["kind"], notification["execution_id"]) == (NotificationKind.DEPLOYMENT_SUCCEEDED, deployment)
    await all_told(db)
    (letter,) = owner.letters()
    assert str(letter["Subject"]) == notification["title"]
    assert str(letter["From"]) == "Yard <post@yard.example>"
    text, marked_up = letter.get_body(("plain",)), letter.get_body(("html",))
    assert text is not None
    assert marked_up is not None
    assert notification["url"] in text.get_content()
    assert "Fix the &lt;menu&gt;" in marked_up.get_content()


async def test_a_deployment_that_is_only_built(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    newer = await owner.deployment()
    await make_live(db, newer)
    deployment = await owner.deployment(RUNNING, SUCCEEDED)
    (notification,) = await owner.told()
    key = await db.fetchval("SELECT site_key FROM deployments WHERE execution_id = $1", deployment)
    slug = await db.fetchval("SELECT slug FROM projects WHERE id = $1", owner.project_id)
    assert notification["title"] == "Deployment 2 of Website is built"
    assert "It is not live" in notification["body"]
    assert notification["url"] == f"https://{key}-{slug}.sites.example"


async def test_a_preview_is_ready_and_never_called_live(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    deployment = await owner.deployment(RUNNING, environment="PREVIEW", alias="pr-7", branch="feature")
    await make_live(db, deployment)
    await set_status(db, deployment, SUCCEEDED)
    (notification,) = await owner.told()
    assert notification["title"] == "Deployment 1 of Website is ready to preview"
    assert "not live" not in notification["body"]


async def test_a_deployment_that_failed(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    failure = "npm run build\nended with 1.\r\nBcc: everybody@example.com" + "!" * 300
    await owner.deployment(RUNNING, FAILED, failure=failure)
    (notification,) = await owner.told()
    assert notification["title"].startswith("Deployment 1 of Website failed: npm run build ended with 1.")
    assert len(notification["title"]) == 200
    assert (notification["kind"], notification["url"]) == (NotificationKind.DEPLOYMENT_FAILED, None)
    assert failure in notification["body"]
    await all_told(db)
    (letter,) = owner.letters()
    assert str(letter["Subject"]) == "Deployment 1 of Website failed"
    assert letter["Bcc"] is None


async def test_a_name_that_people_chose_to_be_nasty(worker: Program, db: asyncpg.Connection, owner: Owner) -> None:
    name = "Shop\r\nBcc: everybody@example.com\u202e" + "x" * 80
    await db.execute("UPDATE projects SET name = $2 WHERE id = $1", owner.project_id, name)
    await owner.deployment(RUNNING, FAILED, failure="x" * 4_000)
    (notification,) = await owner.told()
    assert notification["title"].isprintable()
    await all_told(db)
    (letter,) = owner.letters()
    assert letter["Bcc"] is None
    assert str(letter["Subject"]).startswith("Deployment 1 of Shop Bcc:")


# -- what is not


async def test_nothing_is_told_of_beginnings_and_of_what_was_cancelled(
    worker: Program, owner: Owner, db: asyncpg.Connection
) -> None:
    await owner.deployment(RUNNING)
    await owner.deployment(RUNNING, QUEUED, RUNNING)
    await owner.deployment(CANCELLED)
    await owner.deployment(RUNNING, CANCELLED)
    await all_told(db)
    assert (await owner.notifications(), owner.letters()) == ([], [])


async def test_nothing_is_told_of_what_a_newer_one_replaced(
    worker: Program, owner: Owner, db: asyncpg.Connection
) -> None:
    newer = await owner.deployment()
    for status in (SUCCEEDED, FAILED, CANCELLED):
        await owner.deployment(RUNNING, status, superseded_by_id=newer)
    await all_told(db)
    assert (await owner.notifications(), owner.letters()) == ([], [])


async def test_nothing_is_told_of_what_is_deleted(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    async with db.transaction():
        deployment = await owner.deployment(RUNNING, FAILED, failure="x")
        await db.execute("DELETE FROM executions WHERE id = $1", deployment)
    await all_told(db)
    assert (await owner.notifications(), owner.letters()) == ([], [])


@pytest.mark.parametrize(
    ("wishes", "notified", "mailed"),
    [
        ({"deployment_success": False}, {"DEPLOYMENT_FAILED"}, 1),
        ({"deployment_failure": False}, {"DEPLOYMENT_SUCCEEDED"}, 1),
        ({"email_notifications": False}, {"DEPLOYMENT_SUCCEEDED", "DEPLOYMENT_FAILED"}, 0),
        ({"deployment_success": False, "deployment_failure": False}, set(), 0),
        ({"job_notifications": False}, {"DEPLOYMENT_SUCCEEDED", "DEPLOYMENT_FAILED"}, 2),
    ],
    ids=["no successes", "no failures", "no mail", "nothing", "nothing of jobs"],
)
async def test_owners_are_told_what_they_want_to_hear(
    wishes: dict[str, bool], notified: set[str], mailed: int, worker: Program, owner: Owner, db: asyncpg.Connection
) -> None:
    await owner.prefer(**wishes)
    await owner.deployment(RUNNING, SUCCEEDED)
    await owner.deployment(RUNNING, FAILED, failure="x")
    await all_told(db)
    assert {row["kind"] for row in await owner.notifications()} == notified
    assert len(owner.letters()) == mailed


async def test_whoever_is_deactivated_gets_no_mail(worker: Program, owner: Owner, db: asyncpg.Connection) -> None:
    await db.execute("UPDATE users SET is_active = false WHERE id = $1", owner.id)
    await owner.deployment(RUNNING, FAILED, failure="x")
    await owner.told()
    await all_told(db)
    assert owner.letters() == []


# -- once


async def test_told_twice_at_once_is_told_once(
    settings: Settings, owner: Owner, db: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    """The handler itself, many times at once, with messages that no worker takes meanwhile."""
    async with events.connected(settings):
        tell = deployment_news.telling(settings, pool)
        async with db.transaction():
            deployment = await owner.deployment(RUNNING, FAILED, failure="x")
            await db.execute("DELETE FROM outbox_messages WHERE payload->>'executionId' = $1", str(deployment))
        payload = {"executionId": str(deployment), "status": "FAILED", "attempt": 1}
        await asyncio.gather(*(tell(payload) for _ in range(8)))
        await tell(payload)
    assert len(await owner.notifications()) == 1
    await db.execute("DELETE FROM outbox_messages WHERE topic = 'mail' AND payload->>'userId' = $1", str(owner.id))


async def test_ids_grow_in_the_order_in_which_notifications_show(owner: Owner, pool: asyncpg.Pool) -> None:
    seen: list[UUID] = []

    async def add(number: int) -> None:
        async with pool.acquire() as connection:
            async with connection.transaction():
                added = await notification_queries.add_with(
                    connection, owner.id, key=f"k{number}", kind=NotificationKind.DEPLOYMENT_FAILED, title="t", body="b"
                )
                assert added is not None
                # What shows before the commit was added before: a reader who goes on from there misses nothing.
                older = await connection.fetchval(
                    "SELECT count(*) FROM notifications WHERE user_id = $1 AND id > $2", owner.id, added
                )
                assert older == 0
            seen.append(added)

    await asyncio.gather(*(add(number) for number in range(30)))
    assert len(set(seen)) == 30
    ahead = UUID(int=max(seen).int + (60_000 << 80))  # a minute, in the clock of another machine
    await pool.execute("UPDATE notifications SET id = $2 WHERE id = $1", max(seen), ahead)
    await add(30)
    assert seen[-1] > ahead


# -- GitHub

WATCH_REPORTS = """
CREATE TABLE IF NOT EXISTS reports (key text, execution text);
CREATE OR REPLACE FUNCTION watch_reports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reports VALUES (NEW.key, NEW.payload->>'executionId');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER watch_reports AFTER INSERT ON outbox_messages FOR EACH ROW
WHEN (NEW.topic = 'github.report') EXECUTE FUNCTION watch_reports();
"""


@pytest.mark.parametrize(
    ("is_on_github", "is_connected"), [(True, True), (True, False), (False, True)], ids=["both", "alone", "elsewhere"]
)
async def test_github_is_told_every_change_of_what_is_there(
    is_on_github: bool, is_connected: bool, worker: Program, owner: Owner, db: asyncpg.Connection
) -> None:
    if is_on_github:
        await db.execute("UPDATE projects SET repository_full_name = 'yard/site' WHERE id = $1", owner.project_id)
    if is_connected:
        await db.execute(
            """INSERT INTO oauth_connections (id, user_id, provider, subject, login, scopes, sealed_token, created_at,
                   updated_at) VALUES ($1, $2, 'GITHUB', $3, 'zoe', '', 'sealed', now(), now())""",
            new_id(),
            owner.id,
            new_id().hex,
        )
    await db.execute(WATCH_REPORTS)  # somebody may take them away at once
    deployment = await owner.deployment(RUNNING, FAILED, failure="x")
    await all_told(db)
    reports = await db.fetch("SELECT key FROM reports WHERE execution = $1", str(deployment))
    expected = {f"{deployment}:0:QUEUED", f"{deployment}:1:RUNNING", f"{deployment}:1:FAILED"}
    assert {report["key"] for report in reports} == (expected if is_on_github and is_connected else set())
    await owner.told()


# -- over a mail server


async def test_letters_go_over_smtp_and_wait_while_it_is_away(
    programs: Programs, owner: Owner, db: asyncpg.Connection, worker: Program
) -> None:
    assert await worker.stop() == 0
    async with mail_server() as server:
        smtp = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port), "SMTP_SECURITY": "none"}
        mailing = programs.start((CLI, "worker"), kind="worker", **smtp)
        server.data_answer = "451 4.3.0 Try later"
        await owner.deployment(RUNNING, FAILED, failure="x")
        await owner.told()

        async def waiting() -> asyncpg.Record | None:
            return await db.fetchrow(
                "SELECT * FROM outbox_messages WHERE topic = 'mail' AND last_error IS NOT NULL"
                " AND payload->>'userId' = $1",
                str(owner.id),
            )

        row = await eventually(waiting, 15)
        assert "451" in row["last_error"]
        server.data_answer = None
        await db.execute("UPDATE outbox_messages SET due_at = now() WHERE id = $1", row["id"])
        await eventually(lambda: server.received, 10)
        assert server.recipients == [owner.email]
        await all_told(db)

        server.rcpt_answer = "550 5.1.1 No such user"
        await owner.deployment(RUNNING, FAILED, failure="x")
        await owner.told(2)

        async def refused() -> asyncpg.Record | None:
            return await db.fetchrow("SELECT * FROM outbox_messages WHERE topic = 'mail' AND given_up_at IS NOT NULL")

        row = await eventually(refused, 15)
        assert row["attempts"] == 1
        assert "550" in row["last_error"]
        assert await mailing.stop() == 0
    assert len(server.received) == 1
    assert owner.letters() == []
