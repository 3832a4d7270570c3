"""The connection `logs` of an execution: pages, levels, search; the same from the database and from storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from models import logs
from models.executions import ExecutionStatus
from models.logs import LogLevel
from resolvers import logs as log_reading
from schema.pagination import write_cursor
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, new_line, numbered, open_desk, run_id

LOGS = """
query Logs($id: ID!, $first: Int, $after: String, $last: Int, $before: String, $level: LogLevel, $search: String) {
  jobRun(id: $id) {
    logs(first: $first, after: $after, last: $last, before: $before, level: $level, search: $search) {
      edges { cursor node { sequence message level stage timestamp isContinuation } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
}
"""
COUNT = """
query Count($id: ID!, $level: LogLevel, $search: String) {
  jobRun(id: $id) { logs(first: 1, level: $level, search: $search) { totalCount edges { node { sequence } } } }
}
"""
TOTAL = 2_345
LEVELS = [LogLevel.DEBUG, LogLevel.INFO, LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR]
TEXTS = [
    "100% done",
    "100 done",
    "snake_case",
    "snakeXcase",
    'say "hello" twice',
    "C:\\new\\table",
    "C:/new/table",
    "ÄRGER in der Straße",
    "DİYARBAKIR",
    "家 🏠 home",
    "tab\there",
    "\x1b[31mred\x1b[0m",
    "Kelvin",
    "a\u2028b",
    "[1750000000000,",
    "null",
]


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def owner(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(scope="module")
async def written(desk: Desk, owner: Person) -> dict[str, UUID]:
    """The same long log three times: still growing, ended, moved to storage."""
    found = {}
    for place in ("running", "ended", "in storage"):
        hand = await desk.started(owner)
        lines = [new_line(f"line {number}", LEVELS[number % 5], stage="CRAWLING") for number in range(1, TOTAL + 1)]
        await hand.write(*lines, chunk=7, quietly=True)
        if place != "running":
            await hand.finish()
        found[place] = hand.id
    await desk.compact(found["in storage"])
    return found


@pytest_asyncio.fixture(scope="module")
async def odd(desk: Desk, owner: Person) -> dict[str, UUID]:
    """A log of odd texts, in the database and in storage; each text is in a chunk of its own."""
    found = {}
    for place in ("ended", "in storage"):
        hand = await desk.started(owner)
        await hand.write(*TEXTS, chunk=1, quietly=True)
        await hand.finish()
        found[place] = hand.id
    await desk.compact(found["in storage"])
    return found


class Log:
    """What one client reads of one log."""

    def __init__(self, client: GraphQLClient, owner: Person, execution: UUID) -> None:
        self._client = client
        self._token = owner.token
        self._execution = execution

    async def page(self, **arguments: Any) -> dict[str, Any]:
        variables = {"id": run_id(self._execution), **arguments}
        data = await self._client.run(LOGS, variables, token=self._token)
        page: dict[str, Any] = data["jobRun"]["logs"]
        return page

    async def sequences(self, **arguments: Any) -> list[int]:
        return [edge["node"]["sequence"] for edge in (await self.page(**arguments))["edges"]]

    async def messages(self, **arguments: Any) -> list[str]:
        return [edge["node"]["message"] for edge in (await self.page(**arguments))["edges"]]


@pytest.fixture(params=["running", "ended", "in storage"])
def log(request: pytest.FixtureRequest, client: GraphQLClient, owner: Person, written: dict[str, UUID]) -> Log:
    return Log(client, owner, written[request.param])


@pytest.fixture(params=["ended", "in storage"])
def odd_log(request: pytest.FixtureRequest, client: GraphQLClient, owner: Person, odd: dict[str, UUID]) -> Log:
    return Log(client, owner, odd[request.param])


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"first": 1_001}, "first"),
        ({"last": 1_001}, "last"),
        ({"first": 0}, "first"),
        ({"first": -1}, "first"),
        ({"first": 1, "last": 1}, "last"),
        ({"after": ""}, "after"),
        ({"after": "not a cursor"}, "after"),
        ({"before": write_cursor((1,), (("id", int),))}, "before"),
        ({"after": write_cursor(("x",), (("sequence", str),))}, "after"),
        ({"search": "x" * 201}, "search"),
    ],
    ids=str,
)
async def test_faulty_page_is_refused(
    arguments: dict[str, Any], path: str, client: GraphQLClient, owner: Person, written: dict[str, UUID]
) -> None:
    with pytest.raises(GraphQLFailure) as refused:
        await Log(client, owner, written["ended"]).page(**arguments)
    assert refused.value.code == "VALIDATION_ERROR"
    assert refused.value.extensions["details"]["path"] == [path]


async def test_log_of_somebody_else_is_refused(client: GraphQLClient, written: dict[str, UUID]) -> None:
    with pytest.raises(GraphQLFailure) as refused:
        await Log(client, await new_user(client), written["ended"]).page(first=1)
    assert refused.value.code == "NOT_FOUND"


# -- pages


async def test_pages_forwards_have_every_line_once(log: Log) -> None:
    found: list[int] = []
    page = await log.page(first=1_000)
    assert not page["pageInfo"]["hasPreviousPage"]
    while True:
        found += [edge["node"]["sequence"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        page = await log.page(first=1_000, after=page["pageInfo"]["endCursor"])
        assert page["pageInfo"]["hasPreviousPage"]
    assert found == list(range(1, TOTAL + 1))


async def test_pages_backwards_have_every_line_once_in_the_order_of_the_log(log: Log) -> None:
    found: list[int] = []
    page = await log.page(last=999)
    assert not page["pageInfo"]["hasNextPage"]
    while True:
        found = [edge["node"]["sequence"] for edge in page["edges"]] + found
        if not page["pageInfo"]["hasPreviousPage"]:
            break
        page = await log.page(last=999, before=page["pageInfo"]["startCursor"])
        assert page["pageInfo"]["hasNextPage"]
    assert found == list(range(1, TOTAL + 1))


async def test_page_lies_strictly_between_two_cursors(log: Log) -> None:
    edges = (await log.page(first=30))["edges"]
    after, before = edges[9]["cursor"], edges[19]["cursor"]
    assert await log.sequences(after=after, before=before) == list(range(11, 20))
    assert await log.sequences(first=3, after=after, before=before) == [11, 12, 13]
    assert await log.sequences(last=3, after=after, before=before) == [17, 18, 19]
    assert await log.sequences(after=before, before=after) == []


async def test_page_without_arguments_has_the_first_twenty_lines(log: Log) -> None:
    page = await log.page()
    assert [edge["node"]["sequence"] for edge in page["edges"]] == list(range(1, 21))
    assert page["edges"][0]["node"] == {
        "sequence": 1, "message": "line 1", "level": "INFO", "stage": "CRAWLING", "isContinuation": False,
        "timestamp": "2025-06-15T15:06:40Z",
    }  # fmt: skip


async def test_page_behind_the_end_is_empty(log: Log) -> None:
    end = (await log.page(last=1))["pageInfo"]["endCursor"]
    page = await log.page(first=10, after=end)
    assert page["edges"] == []
    assert page["pageInfo"] == {
        "hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None,
    }  # fmt: skip


async def test_cursor_of_a_growing_log_holds_when_it_has_moved(
    client: GraphQLClient, desk: Desk, owner: Person
) -> None:
    hand = await desk.started(owner)
    await hand.write(*numbered(1, 50), chunk=9)
    log = Log(client, owner, hand.id)
    end = (await log.page(first=20))["pageInfo"]["endCursor"]
    await hand.write(*numbered(51, 60))
    await hand.finish()
    await desk.compact(hand.id)
    assert await log.sequences(first=100, after=end) == list(range(21, 61))


# -- count


async def test_lines_are_counted_where_that_is_cheap(
    client: GraphQLClient, owner: Person, written: dict[str, UUID]
) -> None:
    for execution in written.values():
        data = await client.run(COUNT, {"id": run_id(execution)}, token=owner.token)
        assert data["jobRun"]["logs"]["totalCount"] == TOTAL
        for narrower in ({"level": "ERROR"}, {"search": "line"}):
            data = await client.run(COUNT, {"id": run_id(execution), **narrower}, token=owner.token)
            assert data["jobRun"]["logs"]["totalCount"] is None


async def test_log_without_lines_has_none(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    execution = await desk.finished(owner, status=ExecutionStatus.CANCELLED)
    data = await client.run(COUNT, {"id": run_id(execution)}, token=owner.token)
    assert data["jobRun"]["logs"] == {"totalCount": 0, "edges": []}


# -- level and search


@pytest.mark.parametrize(
    ("level", "share"), [("DEBUG", {0, 1, 2, 3, 4}), ("INFO", {1, 2, 3, 4}), ("WARNING", {3, 4}), ("ERROR", {4})]
)
async def test_level_leaves_out_what_is_less_serious(level: str, share: set[int], log: Log) -> None:
    wanted = [number for number in range(1, TOTAL + 1) if number % 5 in share]
    assert await log.sequences(first=1_000, level=level) == wanted[:1_000]
    assert await log.sequences(last=100, level=level) == wanted[-100:]


async def test_search_finds_lines_anywhere_in_the_log(log: Log) -> None:
    wanted = [number for number in range(1, TOTAL + 1) if "34" in str(number)]
    assert await log.sequences(first=1_000, search="e 2345") == [2_345]
    assert await log.sequences(first=1_000, search="34") == wanted
    assert await log.sequences(last=3, search="34") == wanted[-3:]
    assert (
        await log.sequences(first=10, search="34", level="ERROR")
        == [number for number in wanted if number % 5 == 4][:10]
    )
    assert await log.sequences(first=10, search="line 9999") == []


async def test_pages_of_a_search_have_every_hit_once(log: Log) -> None:
    found: list[int] = []
    after = None
    while True:
        page = await log.page(first=7, after=after, search="99", level="INFO")
        found += [edge["node"]["sequence"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert found == [number for number in range(1, TOTAL + 1) if "99" in str(number) and number % 5]


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        ("%", ["100% done"]),
        ("0% d", ["100% done"]),
        ("_", ["snake_case"]),
        ("e_c", ["snake_case"]),
        ('"', ['say "hello" twice']),
        ('"hello"', ['say "hello" twice']),
        ("\\", ["C:\\new\\table"]),
        ("\\n", ["C:\\new\\table"]),
        ("\\t", ["C:\\new\\table"]),
        ("\t", ["tab\there"]),
        ("\x1b[31m", ["\x1b[31mred\x1b[0m"]),
        ("\u2028", ["a\u2028b"]),
        ("SNAKE_CASE", ["snake_case"]),
        ("ärger", ["ÄRGER in der Straße"]),
        ("STRASSE", ["ÄRGER in der Straße"]),
        ("straße", ["ÄRGER in der Straße"]),
        ("🏠", ["家 🏠 home"]),
        ("家", ["家 🏠 home"]),
        ("kelvin", ["Kelvin"]),
        ("kelvın", []),
        ("1750000000000", ["[1750000000000,"]),
        ("null", ["null"]),
        ('"I"', []),
        ("done,null", []),
    ],
)
async def test_search_takes_every_character_as_itself(search: str, wanted: list[str], odd_log: Log) -> None:
    assert await odd_log.messages(search=search) == wanted


async def test_empty_search_is_none(odd_log: Log) -> None:
    assert await odd_log.messages(search="") == TEXTS


async def test_log_may_move_between_two_pages(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    execution = await desk.finished(owner, lines=1_500)
    log = Log(client, owner, execution)
    end = (await log.page(first=1_000, search="line"))["pageInfo"]["endCursor"]
    await desk.compact(execution)
    assert await log.sequences(first=1_000, after=end, search="line") == list(range(1_001, 1_501))


async def test_log_may_move_while_a_page_is_read(desk: Desk, owner: Person) -> None:
    execution = await desk.finished(owner, lines=100)
    state = await logs.state(execution)
    assert state is not None
    assert state.archive is None
    await desk.compact(execution)  # what the reader knows is old now
    read = partial(log_reading.read_page, execution, state, after=None, before=None, level=None, search="line")
    assert [line.sequence for line in await read(limit=200, backwards=False)] == list(range(1, 101))
    assert [line.sequence for line in await read(limit=3, backwards=True)] == [100, 99, 98]
    assert [line.sequence for line in await log_reading.read_after(execution, 95)] == [96, 97, 98, 99, 100]
