"""What is old goes, at its border and not before; what is in use, or younger, stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from adapters import storage
from models import retention, ticks
from models.database import from_json
from models.ids import new_id
from models.retention import Subject
from settings import Settings
from tasks import retention as removing
from tests.conftest import ApiServer
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, subscribe
from tests.harness.executions import Desk, add_items, add_request, open_desk, run_id, settings_of, uuid_of

LOGS = """query ($id: ID!) { jobRun(id: $id) {
    logRemovedAt logs(first: 5) { totalCount edges { node { message } } } } }"""
FOLLOW = "subscription ($id: ID!) { logs(executionId: $id) { lines { message } lastSequence complete } }"
ITEMS = "query ($id: ID!) { jobRun(id: $id) { itemsScraped items(first: 5) { edges { node { url } } } } }"
RESUME = "mutation ($id: ID!) { resumeJobRun(input: {id: $id}) { run { id } } }"


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str], api_server: ApiServer) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


async def age(db: asyncpg.Connection, execution: UUID, *, days: int, less_seconds: int) -> None:
    """Let an execution have ended so long ago."""
    await db.execute(
        "UPDATE executions SET finished_at = now() - make_interval(days => $2, secs => -$3::int) WHERE id = $1",
        execution,
        days,
        less_seconds,
    )


async def remove_old(desk: Desk, environment: dict[str, str], **days: int) -> dict[Subject, int]:
    """One round with these days and everything else kept for ever; objects are dropped as the outbox does it."""
    names = [name for name in Settings.model_fields if name.startswith("retention_")]
    kept = settings_of(environment).model_copy(update={**dict.fromkeys(names, 0), **days})
    removed = await removing.remove_old(kept, desk.pool)
    for row in await desk.pool.fetch("DELETE FROM outbox_messages WHERE topic = $1 RETURNING payload", removing.TOPIC):
        await removing.drop_objects(storage.current(), from_json(row["payload"]))
    return removed


async def test_an_old_log_goes_with_its_object_and_a_younger_one_stays(
    desk: Desk, db: asyncpg.Connection, client: GraphQLClient, owner: Person, settings_env: dict[str, str],
    graphql_ws_url: str,
) -> None:  # fmt: skip
    old, young, fresh = [await desk.finished(owner, lines=7) for _ in range(3)]
    for execution in (old, young):
        await desk.compact(execution)
    await age(db, old, days=10, less_seconds=-5)
    await age(db, young, days=10, less_seconds=60)
    await age(db, fresh, days=20, less_seconds=0)  # its log has not moved to storage yet
    key = await db.fetchval("SELECT log_object->>'key' FROM executions WHERE id = $1", old)
    assert await storage.current().head(key) is not None

    assert (await remove_old(desk, settings_env, retention_log_days=10))[Subject.LOGS] == 1

    assert await storage.current().head(key) is None
    gone = (await client.run(LOGS, {"id": run_id(old)}, token=owner.token))["jobRun"]
    assert gone["logRemovedAt"] is not None
    assert gone["logs"] == {"totalCount": 0, "edges": []}
    for execution in (young, fresh):
        kept = (await client.run(LOGS, {"id": run_id(execution)}, token=owner.token))["jobRun"]
        assert kept["logRemovedAt"] is None
        assert len(kept["logs"]["edges"]) == 5
    async with subscribe(graphql_ws_url, FOLLOW, {"id": run_id(old)}, token=owner.token) as batches:
        batch = (await anext(batches))["logs"]
    assert batch == {"lines": [], "lastSequence": 0, "complete": True}
    assert (await remove_old(desk, settings_env, retention_log_days=10))[Subject.LOGS] == 0


async def test_a_dataset_goes_piece_by_piece_once_all_of_its_runs_are_old(
    desk: Desk, db: asyncpg.Connection, client: GraphQLClient, owner: Person, settings_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(removing, "_ROWS", 2)
    job = await desk.job(owner)
    first = await desk.finished(owner)
    hand = await desk.claim(await desk.queued(owner, job=job, dataset=first))
    await add_items(first, first, [{"n": number} for number in range(5)])
    await add_request(first, state="PENDING")
    key = f"runs/{first}/1/items.csv"
    await storage.current().put(key, b"n\r\n", content_type="text/csv")
    await db.execute(
        """INSERT INTO output_files
               (id, run_id, format, key, filename, content_type, size, sha256, row_count, created_at)
           VALUES ($1, $2, 'CSV', $3, 'a.csv', 'text/csv', 3, '', 5, now())""",
        new_id(),
        first,
        key,
    )
    await db.execute("UPDATE job_runs SET is_seeded = true WHERE dataset_id = $1", first)
    await age(db, first, days=30, less_seconds=-5)
    assert (await remove_old(desk, settings_env, retention_item_days=30))[Subject.ITEMS] == 0, "one works on it"
    await hand.finish()
    assert (await remove_old(desk, settings_env, retention_item_days=30))[Subject.ITEMS] == 0, "one is young"
    await age(db, hand.id, days=30, less_seconds=-5)

    removed = await remove_old(desk, settings_env, retention_item_days=30)

    assert removed[Subject.ITEMS] == 7, "five items, a request, a file"
    assert await storage.current().head(key) is None
    run = (await client.run(ITEMS, {"id": run_id(first)}, token=owner.token))["jobRun"]
    assert run["items"]["edges"] == []
    with pytest.raises(GraphQLFailure) as refused:
        await client.run(RESUME, {"id": run_id(hand.id)}, token=owner.token)
    assert refused.value.code == "CONFLICT"


async def new_audit_event(db: asyncpg.Connection, *, days: int, action: str = "runJob") -> UUID:
    event_id = uuid4()
    await db.execute(
        """INSERT INTO audit_events (id, occurred_at, action, outcome, details)
           VALUES ($1, now() - make_interval(days => $2, secs => 5), $3, 'success', '{}')""",
        event_id,
        days,
        action,
    )
    return event_id


async def audit_events(db: asyncpg.Connection, *ids: UUID) -> set[UUID]:
    found = await db.fetch("SELECT id FROM audit_events WHERE id = ANY($1::uuid[])", list(ids))
    return {row["id"] for row in found}


async def test_old_audit_events_go_and_what_tells_of_installed_tools_stays(
    desk: Desk, db: asyncpg.Connection, settings_env: dict[str, str]
) -> None:
    old, young = await new_audit_event(db, days=400), await new_audit_event(db, days=399)
    installed = await new_audit_event(db, days=4_000, action="installTool")
    removed = await remove_old(desk, settings_env, retention_audit_days=400)
    assert removed[Subject.AUDIT_EVENTS] == 1
    assert await audit_events(db, old, young, installed) == {young, installed}


async def test_nothing_but_the_one_function_deletes_audit_events(
    desk: Desk, db: asyncpg.Connection, settings_env: dict[str, str]
) -> None:
    old, month = await new_audit_event(db, days=400), await new_audit_event(db, days=29)
    for statement in (
        f"DELETE FROM audit_events WHERE id = '{old}'",
        f"DO $$ BEGIN DELETE FROM audit_events WHERE id = '{old}'; END $$",
        "DELETE /* forget_audit_events(integer,integer) */ FROM audit_events",
        "TRUNCATE audit_events",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await db.execute(statement)
    await remove_old(desk, settings_env, retention_audit_days=1)
    assert await audit_events(db, old, month) == {month}, "thirty days are kept, whatever the setting says"


async def test_media_that_something_refers_to_stay(
    desk: Desk, db: asyncpg.Connection, owner: Person, settings_env: dict[str, str]
) -> None:
    async def medium(days: int) -> UUID:
        media_id = new_id()
        await db.execute(
            """INSERT INTO media (id, owner_id, status, kind, filename, content_type, size, sha256, has_thumbnail,
                   created_at, completed_at)
               VALUES ($1, $2, 'READY', 'IMAGE', 'a.png', 'image/png', 1, '', false, now(),
                       now() - make_interval(days => $3, secs => 5))""",
            media_id,
            uuid_of(owner),
            days,
        )
        return media_id

    unused, young, shown = await medium(60), await medium(59), await medium(60)
    product = new_id()
    await db.execute(
        """INSERT INTO products (id, name, slug, description, attributes, is_active, version, created_at, updated_at)
           VALUES ($1, 'P', $2, '', '{}', true, 1, now(), now())""",
        product,
        str(product),
    )
    await db.execute(
        "INSERT INTO product_media (id, product_id, media_id, position, alt) VALUES ($1, $2, $3, 0, '')",
        new_id(),
        product,
        shown,
    )
    assert (await remove_old(desk, settings_env, retention_upload_days=60))[Subject.UPLOADS] == 1
    left = await db.fetch("SELECT id FROM media WHERE id = ANY($1::uuid[])", [unused, young, shown])
    assert {row["id"] for row in left} == {young, shown}
    told = await db.fetch("SELECT payload FROM outbox_messages WHERE topic = 'media.removal'")
    assert [from_json(row["payload"]) for row in told] == [{"mediaId": str(unused)}]


ROWS = {
    Subject.NOTIFICATIONS: (
        "retention_notification_days",
        """INSERT INTO notifications (id, user_id, key, kind, title, body, created_at)
           VALUES ($1, $2, $1::uuid::text, 'DEPLOYMENT_FAILED', 't', 'b', $3)""",
    ),
    Subject.WEBHOOK_DELIVERIES: (
        "retention_webhook_days",
        """INSERT INTO webhook_deliveries (id, provider, delivery_id, event, body, status, message, attempts,
               received_at, processed_at)
           VALUES ($1, 'GITHUB', $1::uuid::text, 'push', $2::uuid::text, 'IGNORED', '', 1, $3, now())""",
    ),
    Subject.SESSIONS: (
        "retention_session_days",
        """INSERT INTO sessions (id, user_id, refresh_counter, created_at, last_used_at, expires_at)
           VALUES ($1, $2, 0, now(), now(), $3)""",
    ),
    Subject.ONE_TIME_LINKS: (
        "retention_session_days",
        """INSERT INTO one_time_links (id, user_id, purpose, token_hash, email, created_at, expires_at)
           VALUES ($1, $2, 'RESET', $1::uuid::text, 'a@example.com', now(), $3)""",
    ),
}


@pytest.mark.parametrize("subject", ROWS, ids=lambda subject: str(subject.value))
async def test_small_things_go_at_their_border(
    desk: Desk, db: asyncpg.Connection, owner: Person, settings_env: dict[str, str], subject: Subject
) -> None:
    setting, statement = ROWS[subject]
    ids = [new_id(), new_id()]
    for row_id, seconds in zip(ids, (5, -60), strict=True):
        moment = await db.fetchval("SELECT now() - make_interval(days => 30, secs => $1::int)", seconds)
        await db.execute(statement, row_id, uuid_of(owner), moment)
    assert await retention.count(db, subject, 30) == 1
    assert (await remove_old(desk, settings_env, **{setting: 30}))[subject] == 1
    left = await db.fetch(f"SELECT id FROM {subject.value} WHERE id = ANY($1::uuid[])", ids)
    assert [row["id"] for row in left] == ids[1:]


async def test_an_ended_session_is_old_from_when_it_was_ended(
    desk: Desk, db: asyncpg.Connection, owner: Person, settings_env: dict[str, str]
) -> None:
    session = new_id()
    await db.execute(
        """INSERT INTO sessions (id, user_id, refresh_counter, created_at, last_used_at, expires_at, revoked_at)
           VALUES ($1, $2, 0, now(), now(), now() + interval '1 day', now() - interval '31 days')""",
        session,
        uuid_of(owner),
    )
    assert (await remove_old(desk, settings_env, retention_session_days=30))[Subject.SESSIONS] == 1
    assert (await db.fetchval("SELECT count(*) FROM sessions WHERE id = $1", session)) == 0


async def test_a_piece_that_fails_leaves_rows_and_objects(
    desk: Desk, db: asyncpg.Connection, owner: Person, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await desk.finished(owner, lines=3)
    await desk.compact(old)
    await age(db, old, days=10, less_seconds=-5)

    async def fail(*_: Any) -> None:
        raise ConnectionError("lost before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(removing, "_tell", fail)
        with pytest.raises(ConnectionError):
            await remove_old(desk, settings_env, retention_log_days=10)
    assert await db.fetchval("SELECT log_object ? 'key' FROM executions WHERE id = $1", old)
    assert (await remove_old(desk, settings_env, retention_log_days=10))[Subject.LOGS] == 1


async def test_without_days_nothing_is_old(desk: Desk, db: asyncpg.Connection, settings_env: dict[str, str]) -> None:
    event = await new_audit_event(db, days=9_000)
    assert await remove_old(desk, settings_env) == {}
    assert await audit_events(db, event) == {event}


async def test_of_many_processes_one_takes_a_tick(desk: Desk) -> None:
    async def take() -> object:
        async with desk.pool.acquire() as connection:
            return await ticks.take(connection, "tests", 3_600.0)

    taken = await asyncio.gather(*(take() for _ in range(20)))
    assert len([tick for tick in taken if tick is not None]) == 1
    await desk.pool.execute("UPDATE ticks SET at = at - interval '1 hour' WHERE name = 'tests'")
    taken = await asyncio.gather(*(take() for _ in range(5)))
    assert len([tick for tick in taken if tick is not None]) == 1
