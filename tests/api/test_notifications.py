"""Notifications through the API: the list, the marks, the stream; everybody's own and nobody else's."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from models import notification_queries
from models.events import NotificationAdded
from models.ids import Prefix, encode_id
from models.notifications import NotificationKind
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, StreamClosed, Subscription, subscribe, subscribe_sse
from tests.harness.executions import Desk, open_desk, run_id, uuid_of
from tests.harness.processes import Api

NOTIFICATION = "id kind title body url createdAt readAt execution { id status }"
LIST = f"""
query ($filter: NotificationFilter, $first: Int, $after: String, $last: Int, $before: String) {{
  notifications(filter: $filter, first: $first, after: $after, last: $last, before: $before) {{
    totalCount edges {{ cursor node {{ {NOTIFICATION} }} }} pageInfo {{ hasNextPage hasPreviousPage endCursor }}
  }}
}}
"""
MARK = """
mutation ($input: MarkNotificationsReadInput!) { markNotificationsRead(input: $input) { markedCount unreadCount } }
"""
NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
STREAM = "subscription ($after: ID) { notifications(after: $after) { id title } }"
LOGOUT = "mutation { logout { __typename } }"


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def notify(desk: Desk, person: Person, title: str = "News", *, quietly: bool = False, **more: Any) -> str:
    """Tell somebody something, as workers do; the id that clients see."""
    async with desk.pool.acquire() as connection, connection.transaction():
        added = await notification_queries.add_with(
            connection,
            uuid_of(person),
            key=secrets.token_hex(8),
            kind=NotificationKind.DEPLOYMENT_FAILED,
            title=title,
            body="It did not work.",
            **more,
        )
    assert added is not None
    if not quietly:
        await desk.tell(NotificationAdded(uuid_of(person)))
    return encode_id(Prefix.NOTIFICATION, added)


async def listed(client: GraphQLClient, person: Person, **variables: Any) -> list[str]:
    page = (await client.run(LIST, variables, token=person.token))["notifications"]
    return [edge["node"]["title"] for edge in page["edges"]]


async def refusal(client: GraphQLClient, document: str, variables: dict[str, Any], token: str | None) -> str | None:
    with pytest.raises(GraphQLFailure) as refused:
        await client.run(document, variables, token=token)
    return refused.value.code


async def unread(desk: Desk, person: Person) -> int:
    return await notification_queries.count(uuid_of(person), unread=True)


# -- who


async def test_strangers_are_told_nothing(client: GraphQLClient, desk: Desk, person: Person) -> None:
    id_ = await notify(desk, person)
    assert await refusal(client, LIST, {}, None) == "UNAUTHORIZED"
    assert await refusal(client, MARK, {"input": {"all": True}}, None) == "UNAUTHORIZED"
    assert (await client.run(NODES, {"ids": [id_]}))["nodes"] == [None]
    assert await unread(desk, person) == 1


@pytest.mark.parametrize("who", ["other", "admin"])
async def test_nobody_reads_what_somebody_else_was_told(
    who: str, client: GraphQLClient, desk: Desk, person: Person, admin: Person
) -> None:
    somebody = admin if who == "admin" else await new_user(client)
    id_, own = await notify(desk, person, "Private"), await notify(desk, somebody, "Own")
    assert "Private" not in await listed(client, somebody, first=100)
    assert (await client.run(NODES, {"ids": [id_, own]}, token=somebody.token))["nodes"] == [None, {"id": own}]
    assert await refusal(client, MARK, {"input": {"ids": [own, id_]}}, somebody.token) == "NOT_FOUND"
    assert await unread(desk, person) == 1
    assert await unread(desk, somebody) >= 1, "all or nothing"
    await client.run(MARK, {"input": {"all": True}}, token=somebody.token)
    assert await unread(desk, person) == 1


# -- the list


async def test_the_list_is_newest_first_and_pages_both_ways(client: GraphQLClient, desk: Desk, person: Person) -> None:
    for number in range(5):
        await notify(desk, person, str(number))
    first = (await client.run(LIST, {"first": 2}, token=person.token))["notifications"]
    assert [edge["node"]["title"] for edge in first["edges"]] == ["4", "3"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (5, True)
    cursor = first["pageInfo"]["endCursor"]
    assert await listed(client, person, after=cursor) == ["2", "1", "0"]
    assert await listed(client, person, last=2) == ["1", "0"]
    assert await listed(client, person, before=cursor) == ["4"]


async def test_a_notification_says_all_that_is_known(client: GraphQLClient, desk: Desk, person: Person) -> None:
    run = await desk.finished(person)
    id_ = await notify(desk, person, "A run", url="https://site.example", execution_id=run)
    await notify(desk, person, "Of what is gone", execution_id=NOBODYS_ID)
    page = (await client.run(LIST, token=person.token))["notifications"]
    gone, whole = [edge["node"] for edge in page["edges"]]
    assert whole.pop("createdAt").endswith("Z")
    assert whole == {
        "id": id_,
        "kind": "DEPLOYMENT_FAILED",
        "title": "A run",
        "body": "It did not work.",
        "url": "https://site.example",
        "readAt": None,
        "execution": {"id": run_id(run), "status": "SUCCEEDED"},
    }
    assert (gone["execution"], gone["url"]) == (None, None)


async def test_the_filter_tells_read_from_unread(client: GraphQLClient, desk: Desk, person: Person) -> None:
    old = await notify(desk, person, "old")
    await notify(desk, person, "new")
    await client.run(MARK, {"input": {"ids": [old]}}, token=person.token)
    assert await listed(client, person, filter={"unread": True}) == ["new"]
    assert await listed(client, person, filter={"unread": False}) == ["old"]
    assert await listed(client, person, filter={}) == ["new", "old"]
    page = await client.run(LIST, {"filter": {"unread": True}, "first": 1}, token=person.token)
    assert page["notifications"]["totalCount"] == 1


# -- the marks


async def test_marks_are_set_once_and_counted(
    client: GraphQLClient, desk: Desk, person: Person, db: asyncpg.Connection
) -> None:
    ids = [await notify(desk, person, str(number)) for number in range(3)]
    answer = await client.run(MARK, {"input": {"ids": [ids[0], ids[0]]}}, token=person.token)
    assert answer["markNotificationsRead"] == {"markedCount": 1, "unreadCount": 2}
    read_at = await db.fetchval("SELECT max(read_at) FROM notifications WHERE user_id = $1", uuid_of(person))
    answer = await client.run(MARK, {"input": {"all": True}}, token=person.token)
    assert answer["markNotificationsRead"] == {"markedCount": 2, "unreadCount": 0}
    answer = await client.run(MARK, {"input": {"all": True}}, token=person.token)
    assert answer["markNotificationsRead"] == {"markedCount": 0, "unreadCount": 0}
    oldest = await db.fetchval("SELECT min(read_at) FROM notifications WHERE user_id = $1", uuid_of(person))
    assert oldest == read_at, "the first mark stays"
    audited = await db.fetch(
        "SELECT details->>'count' AS count FROM audit_events WHERE action = 'markNotificationsRead' AND actor_id = $1"
        " ORDER BY id",
        uuid_of(person),
    )
    assert [row["count"] for row in audited] == ["1", "2"]


@pytest.mark.parametrize(
    ("input", "code"),
    [
        ({}, "VALIDATION_ERROR"),
        ({"all": False}, "VALIDATION_ERROR"),
        ({"ids": [], "all": True}, "VALIDATION_ERROR"),
        ({"ids": [encode_id(Prefix.NOTIFICATION, NOBODYS_ID)] * 101}, "VALIDATION_ERROR"),
        ({"ids": [encode_id(Prefix.NOTIFICATION, NOBODYS_ID)]}, "NOT_FOUND"),
        ({"ids": [encode_id(Prefix.RUN, NOBODYS_ID)]}, "NOT_FOUND"),
        ({"ids": ["nonsense"]}, "NOT_FOUND"),
    ],
    ids=["neither", "not all", "both", "too many", "unknown", "of another kind", "no id"],
)
async def test_bad_marks_mark_nothing(
    input: dict[str, Any], code: str, client: GraphQLClient, desk: Desk, person: Person
) -> None:
    own = await notify(desk, person)
    assert await refusal(client, MARK, {"input": input}, person.token) == code
    if input.get("ids") and len(input["ids"]) == 1:
        assert await refusal(client, MARK, {"input": {"ids": [own, *input["ids"]]}}, person.token) == code
    assert await unread(desk, person) == 1


# -- the stream


async def titles(stream: Subscription, count: int) -> list[str]:
    return [(await stream.next())["notifications"]["title"] for _ in range(count)]


async def begun(stream: Subscription, desk: Desk, person: Person) -> None:
    """Wait until a stream has begun, by telling it what it may miss; all of that is read."""
    for number in range(50):
        await notify(desk, person, f"begin {number}")
        try:
            while await title_within(stream, 0.5) != f"begin {number}":
                continue
        except TimeoutError:
            continue
        return
    raise AssertionError("the stream does not begin")


async def title_within(stream: Subscription, seconds: float) -> str:
    title: str = (await stream.next(seconds))["notifications"]["title"]
    return title


async def test_strangers_get_no_stream(api_server: ApiServer) -> None:
    async with subscribe(api_server.ws_url, STREAM) as stream:
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next()
    assert refused.value.code == "UNAUTHORIZED"


@pytest.mark.parametrize("after", ["nonsense", encode_id(Prefix.RUN, NOBODYS_ID)])
async def test_a_stream_behind_what_is_no_notification_is_refused(
    after: str, api_server: ApiServer, person: Person
) -> None:
    async with subscribe(api_server.ws_url, STREAM, {"after": after}, token=person.token) as stream:
        with pytest.raises(GraphQLFailure) as refused:
            await stream.next()
    assert refused.value.code == "NOT_FOUND"


async def test_a_stream_tells_what_is_new_and_of_nobody_else(
    api_server: ApiServer, client: GraphQLClient, desk: Desk, person: Person, admin: Person
) -> None:
    await notify(desk, person, "before")
    other = await new_user(client)
    async with (
        subscribe(api_server.ws_url, STREAM, token=person.token) as stream,
        subscribe(api_server.ws_url, STREAM, token=admin.token) as of_admin,
    ):
        await begun(stream, desk, person)
        await begun(of_admin, desk, admin)
        for number in range(3):
            await notify(desk, other, "not yours")
            await notify(desk, person, str(number))
        await notify(desk, admin, "for the admin")
        assert await title_within(stream, 3) == "0", "at once, and not at the next look, five seconds later"
        assert await titles(stream, 2) == ["1", "2"]
        assert await titles(of_admin, 1) == ["for the admin"]


async def test_a_stream_goes_on_from_the_last_one_seen_at_any_server(
    api_server: ApiServer, desk: Desk, person: Person
) -> None:
    ids = [await notify(desk, person, str(number)) for number in range(250)]
    second: Api = await api_server.second()
    async with subscribe(second.ws_url, STREAM, {"after": ids[9]}, token=person.token) as stream:
        assert await titles(stream, 240) == [str(number) for number in range(10, 250)]
        await notify(desk, person, "live")
        assert await titles(stream, 1) == ["live"]
    await second.stop()


async def test_a_stream_needs_no_poke(api_server: ApiServer, desk: Desk, person: Person) -> None:
    first = await notify(desk, person, "first", quietly=True)
    await notify(desk, person, "second", quietly=True)
    async with subscribe(api_server.ws_url, STREAM, {"after": first}, token=person.token) as stream:
        assert await titles(stream, 1) == ["second"]
        await notify(desk, person, "third", quietly=True)
        assert (await stream.next(10))["notifications"]["title"] == "third"


async def test_without_redis_a_stream_is_a_second_behind(api_server: ApiServer, desk: Desk, person: Person) -> None:
    first = await notify(desk, person, "first", quietly=True)
    lonely = await api_server.second(REDIS_URL="redis://127.0.0.1:1/0")
    async with subscribe(lonely.ws_url, STREAM, {"after": first}, token=person.token) as stream:
        for title in ("second", "third"):
            await notify(desk, person, title, quietly=True)
            assert await title_within(stream, 2.5) == title
    await lonely.stop()


async def test_a_stream_over_plain_http(client: GraphQLClient, desk: Desk, person: Person) -> None:
    first = await notify(desk, person, "first")
    await notify(desk, person, "second")
    async with subscribe_sse(client, STREAM, {"after": first}, token=person.token) as events:
        async for name, data in events:
            assert (name, data["data"]["notifications"]["title"]) == ("next", "second")
            break


async def test_whoever_signs_out_loses_the_stream(
    api_server: ApiServer, client: GraphQLClient, desk: Desk, person: Person
) -> None:
    first = await notify(desk, person, "first")
    async with subscribe(api_server.ws_url, STREAM, {"after": first}, token=person.token) as stream:
        await notify(desk, person, "second")
        assert await titles(stream, 1) == ["second"]
        await client.run(LOGOUT, token=person.token)
        with pytest.raises((StreamClosed, GraphQLFailure)):
            await stream.next(15)
