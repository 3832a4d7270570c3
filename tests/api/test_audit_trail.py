"""The audit trail as administrators and everybody else read it: whose events, how much of them, how quickly."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from models import audit_queries
from models.audit_queries import Conditions
from models.ids import Prefix, decode_id, encode_id, new_id
from models.permissions import Role
from tests.factories import LOGIN, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure

PAGE_SECONDS = 0.1
"""On a machine that does nothing else it is less than 0.02; the plans say that this does not grow with the table."""
MANY = 200_000
EVENTS = """
query ($filter: AuditEventFilter, $first: Int, $after: String, $last: Int, $before: String) {
  auditEvents(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    edges { cursor node {
      id occurredAt actorType actorId actor { id username email } sessionId accessTokenId action outcome reason
      targetType targetId ip userAgent requestId details
    } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
PAGE = "query ($filter: AuditEventFilter) { auditEvents(filter: $filter) { edges { node { id action ip } } } }"
NODE = "query ($id: ID!) { node(id: $id) { id ... on AuditEvent { action ip } } }"
RENAME = 'mutation { updateProfile(input: {name: "Grace"}) { user { name } } }'
MAKE_TOKEN = "mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { token } }"


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def listed(client: GraphQLClient, token: str, **variables: Any) -> list[dict[str, Any]]:
    found = (await client.run(EVENTS, variables, token=token))["auditEvents"]
    return [edge["node"] for edge in found["edges"]]


async def refusal(client: GraphQLClient, token: str | None, **variables: Any) -> str | None:
    with pytest.raises(GraphQLFailure) as failed:
        await client.run(EVENTS, variables, token=token)
    return failed.value.code


def uuid(id_text: str) -> UUID:
    return decode_id(id_text)[1]


async def done(db: asyncpg.Connection, actor: Person | None, target: Person | None, **more: Any) -> str:
    """Something that was done, as its act would have written it; the id that clients see."""
    event_id = new_id()
    values = {
        "action": "deactivateUser", "target_type": "user" if target else None, "ip": "203.0.113.9",
        "user_agent": "Browser of the office", "request_id": "r1", "details": "{}", "outcome": "success", **more,
    }  # fmt: skip
    await db.execute(
        f"""INSERT INTO audit_events (id, occurred_at, actor_id, target_id, {", ".join(values)})
            VALUES ($1, now(), $2, $3, {", ".join(f"${place}" for place in range(4, 4 + len(values)))})""",
        event_id,
        actor and uuid(actor.id),
        target and uuid(target.id),
        *values.values(),
    )
    return encode_id(Prefix.AUDIT_EVENT, event_id)


# -- whose


async def test_users_see_what_they_did_and_failed_attempts_at_their_account(
    client: GraphQLClient, person: Person
) -> None:
    stranger = {"input": {"identifier": person.email, "password": "a wrong guess"}}
    answer = await client.raw(LOGIN, stranger, headers={"User-Agent": "Browser of a stranger"})
    await client.run(RENAME, token=person.token)
    renamed, attempt, registered = await listed(client, person.token)
    assert [event["action"] for event in (renamed, attempt, registered)] == ["updateProfile", "login", "register"]
    assert renamed["details"] == {"changed": ["name"]}
    assert (renamed["actorType"], renamed["actorId"], renamed["targetId"]) == ("USER", person.id, person.id)
    assert renamed["actor"] == {"id": person.id, "username": person.username, "email": person.email}
    assert renamed["sessionId"].startswith("ses_")
    assert (attempt["actorType"], attempt["actor"], attempt["actorId"]) == ("ANONYMOUS", None, None)
    assert (attempt["outcome"], attempt["targetId"]) == ("UNAUTHORIZED", person.id)
    assert (attempt["ip"], attempt["userAgent"]) == ("127.0.0.1", "Browser of a stranger")
    assert attempt["requestId"] == answer.headers["x-request-id"]
    text = json.dumps([renamed["details"], attempt["details"], registered["details"]])
    assert not any(secret in text for secret in (person.email, person.password, "a wrong guess"))


async def test_nobody_else_sees_it_but_administrators(client: GraphQLClient, person: Person, admin: Person) -> None:
    other = await new_user(client)
    [event] = await listed(client, person.token)
    assert await refusal(client, None) == "UNAUTHORIZED"
    mine = {"actorId": person.id}
    assert await listed(client, other.token, filter=mine) == []
    assert await client.run(NODE, {"id": event["id"]}, token=other.token) == {"node": None}
    assert [found["id"] for found in await listed(client, admin.token, filter=mine)] == [event["id"]]
    for viewer in (person, admin):
        shown = (await client.run(NODE, {"id": event["id"]}, token=viewer.token))["node"]
        assert shown == {"id": event["id"], "action": "register", "ip": "127.0.0.1"}


async def test_of_what_others_did_to_an_account_its_owner_does_not_learn_where_they_sit(
    client: GraphQLClient, db: asyncpg.Connection, person: Person, admin: Person
) -> None:
    event_id = await done(
        db, admin, person, session_id=new_id(), access_token_id=new_id(), details='{"reason": "spam"}'
    )
    everywhere = {"filter": {"targetId": person.id, "actions": ["deactivateUser"]}}
    [shown] = await listed(client, person.token, **everywhere)
    assert (shown["id"], shown["actorId"], shown["actorType"]) == (event_id, admin.id, "ACCESS_TOKEN")
    assert shown["actor"] == {"id": admin.id, "username": admin.username, "email": None}
    assert [shown[name] for name in ("ip", "userAgent", "sessionId", "accessTokenId")] == [None] * 4
    assert (shown["reason"], shown["requestId"]) == ("spam", "r1")
    assert (await client.run(NODE, {"id": event_id}, token=person.token))["node"]["ip"] is None
    [whole] = await listed(client, admin.token, **everywhere)
    assert (whole["ip"], whole["userAgent"]) == ("203.0.113.9", "Browser of the office")
    assert whole["accessTokenId"].startswith("tok_")
    assert whole["actor"]["email"] == admin.email


async def test_who_is_gone_and_what_nobody_did_have_no_actor(
    client: GraphQLClient, db: asyncpg.Connection, admin: Person
) -> None:
    gone = await new_user(client)
    await db.execute("UPDATE users SET is_active = false, deleted_at = now() WHERE id = $1", uuid(gone.id))
    [left] = await listed(client, admin.token, filter={"actorId": gone.id})
    assert (left["actor"], left["actorId"]) == (None, gone.id)
    [made] = await listed(client, admin.token, filter={"actions": ["createAdmin"]})
    assert (made["actorType"], made["actor"], made["requestId"]) == ("SYSTEM", None, None)
    unknown = await done(db, None, None, target_type="somethingElse")
    [shown] = await listed(client, admin.token, filter={"targetType": "somethingElse"})
    assert (shown["id"], shown["targetId"], shown["actorType"]) == (unknown, None, "ANONYMOUS")


async def test_only_tokens_of_the_widest_scope_read_it(client: GraphQLClient, person: Person, admin: Person) -> None:
    async def token(maker: Person, scope: str) -> str:
        made = {"input": {"name": "CI", "scopes": [scope]}}
        return str((await client.run(MAKE_TOKEN, made, token=maker.token))["createAccessToken"]["token"])

    assert await refusal(client, await token(person, "WRITE")) == "FORBIDDEN"
    assert await refusal(client, await token(admin, "WRITE")) == "FORBIDDEN"
    assert await listed(client, await token(admin, "ADMIN"), filter={"actorId": person.id}) != []


# -- which


async def test_filters_narrow_and_join(
    client: GraphQLClient, db: asyncpg.Connection, person: Person, admin: Person
) -> None:
    refused_id = await done(db, person, None, action="login", outcome="UNAUTHORIZED", request_id="r-filters")
    [made] = [event for event in await listed(client, person.token) if event["action"] == "register"]

    async def ids(**wanted: Any) -> list[str]:
        return [event["id"] for event in await listed(client, admin.token, filter={"actorId": person.id, **wanted})]

    assert await ids() == [refused_id, made["id"]]
    assert await ids(failedOnly=True) == await ids(outcomes=["UNAUTHORIZED", "CONFLICT"]) == [refused_id]
    assert await ids(actions=["register", "x"]) == await ids(targetType="user", targetId=person.id) == [made["id"]]
    assert await ids(requestId="r-filters") == [refused_id]
    assert await ids(actions=["register"], failedOnly=True) == await ids(requestId="nothing") == []
    moment = made["occurredAt"]
    assert await ids(occurredBefore=moment) == []
    assert await ids(occurredAfter=moment) == [refused_id, made["id"]]
    assert await ids(occurredAfter="9999-12-31T23:59:59Z") == await ids(occurredBefore="0001-01-01T00:00:00Z") == []
    assert len(await ids(occurredAfter="0001-01-01T00:00:00Z", occurredBefore="9999-12-31T23:59:59Z")) == 2


@pytest.mark.parametrize(
    "wanted",
    [
        {"actorId": "nonsense"},
        {"actorId": encode_id(Prefix.JOB, UUID(int=1))},
        {"targetId": "xyz_01h455vb4pex5vsknk084sn02q"},
        {"actions": ["x"] * 51},
        {"outcomes": ["x" * 65]},
        {"requestId": "x" * 65},
    ],
)
async def test_filters_that_name_nothing_are_refused(
    client: GraphQLClient, person: Person, wanted: dict[str, Any]
) -> None:
    assert await refusal(client, person.token, filter=wanted) == "VALIDATION_ERROR"


async def test_pages_of_both_kinds_of_events_join_without_gap_or_repetition(
    client: GraphQLClient, db: asyncpg.Connection, person: Person, admin: Person
) -> None:
    for number in range(4):
        await done(db, *((admin, person) if number % 2 else (person, person)))
    await done(db, admin, None)
    whole = (await client.run(EVENTS, token=person.token))["auditEvents"]
    ids = [edge["node"]["id"] for edge in whole["edges"]]
    assert whole["totalCount"] == len(ids) == len(set(ids)) == 5
    assert ids == sorted(ids, reverse=True)
    middle = whole["edges"][2]["cursor"]
    behind = await listed(client, person.token, first=10, after=middle)
    ahead = await listed(client, person.token, last=10, before=middle)
    assert [event["id"] for event in [*ahead, *behind]] == [*ids[:2], *ids[3:]]
    first = (await client.run(EVENTS, {"first": 2}, token=person.token))["auditEvents"]
    assert ([edge["node"]["id"] for edge in first["edges"]], first["pageInfo"]["hasNextPage"]) == (ids[:2], True)
    assert [event["id"] for event in await listed(client, person.token, last=1)] == ids[-1:]


# -- how quickly


async def test_two_hundred_thousand_events_are_read_by_index_and_at_once(
    client: GraphQLClient, db: asyncpg.Connection, person: Person
) -> None:
    busy = await new_user(client)
    boss = await new_user(client, role=Role.ADMIN, db=db)
    me, them = uuid(person.id), uuid(busy.id)
    await db.execute(
        f"""INSERT INTO audit_events (id, occurred_at, actor_id, target_type, target_id, action, outcome, details)
            SELECT overlay(lpad(to_hex(1700000000000 + n), 12, '0') || right(replace(gen_random_uuid()::text, '-', ''),
                     20) placing '7' from 13)::uuid,
                   to_timestamp(1700000000 + n / 1000.0),
                   CASE WHEN n % 40 = 0 THEN $1::uuid WHEN n % 4001 = 0 THEN $2::uuid ELSE gen_random_uuid() END,
                   'user', CASE WHEN n % 40 = 0 THEN $1::uuid WHEN n % 3001 = 0 THEN $2::uuid END,
                   CASE n % 3 WHEN 0 THEN 'login' WHEN 1 THEN 'runJob' ELSE 'updateJob' END, 'success', '{{}}'
            FROM generate_series(1, {MANY}) n""",
        them,
        me,
        timeout=60,
    )
    await db.execute("ANALYZE audit_events")
    rare: dict[str, Any] = {"actions": ["whatNobodyDid"], "failedOnly": True}
    for viewer, conditions in [
        (me, Conditions()),
        (them, Conditions()),
        (me, Conditions(actions=["whatNobodyDid"], failed_only=True)),
        (them, Conditions(actions=["whatNobodyDid"], failed_only=True)),
        (them, Conditions(target_id=me)),
        (None, Conditions()),
        (None, Conditions(actor_id=me)),
        (None, Conditions(target_id=them, failed_only=True)),
    ]:
        sql, values = audit_queries.page_statement(viewer, conditions, columns="e.id, e.details", limit=21)
        plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {sql}", *values))
        assert "Seq Scan" not in plan, plan
    for asker, wanted in [
        (person, {}), (busy, {}), (boss, {}), (person, rare), (busy, rare), (boss, {"actorId": person.id})
    ]:  # fmt: skip
        elapsed = []
        for _ in range(5):
            started = time.perf_counter()
            await client.run(PAGE, {"filter": wanted}, token=asker.token)
            elapsed.append(time.perf_counter() - started)
        assert min(elapsed) < PAGE_SECONDS, (asker.username, wanted, elapsed)
    counted = "query { auditEvents(first: 1) { totalCount } }"
    assert await client.run(counted, token=boss.token) == {"auditEvents": {"totalCount": None}}
    assert (await sign_in(client, person.username, person.password)).id == person.id
