"""Pages meet without gap or overlap in both directions, and a cursor is believed only where it was made."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ValidationFailed
from schema.pagination import Connection, Key, paginate, read_cursor, write_cursor

BY_NUMBER = (("number", int),)
ALL = [{"number": number} for number in range(1, 51)]


async def fetch(limit: int, after: Key | None, before: Key | None, backwards: bool) -> Sequence[dict[str, int]]:
    rows = [
        row
        for row in ALL
        if (after is None or row["number"] > after[0]) and (before is None or row["number"] < before[0])
    ]
    return rows[::-1][:limit] if backwards else rows[:limit]


async def page(**arguments: Any) -> Connection[dict[str, int]]:
    return await paginate(fetch=fetch, key=BY_NUMBER, **arguments)


def numbers(connection: Connection[dict[str, int]]) -> list[int]:
    return [edge.node["number"] for edge in connection.edges]


@pytest.mark.parametrize("size", [1, 7, 25, 50, 100])
async def test_forward_pages_meet_without_gap_or_overlap(size: int) -> None:
    seen: list[int] = []
    after = None
    while True:
        connection = await page(first=size, after=after)
        assert connection.page_info.has_previous_page is (after is not None)
        seen += numbers(connection)
        after = connection.page_info.end_cursor
        if not connection.page_info.has_next_page:
            break
    assert seen == list(range(1, 51))


@pytest.mark.parametrize("size", [1, 7, 25, 50, 100])
async def test_backward_pages_meet_too_and_keep_the_order_of_the_list(size: int) -> None:
    seen: list[int] = []
    before = None
    while True:
        connection = await page(last=size, before=before)
        assert connection.page_info.has_next_page is (before is not None)
        seen = numbers(connection) + seen
        before = connection.page_info.start_cursor
        if not connection.page_info.has_previous_page:
            break
    assert seen == list(range(1, 51))


async def test_without_sizes_a_page_has_twenty_rows() -> None:
    connection = await page()
    assert numbers(connection) == list(range(1, 21))
    assert connection.page_info.has_next_page


async def test_between_two_cursors() -> None:
    edges = (await page(first=50)).edges
    connection = await page(first=10, after=edges[4].cursor, before=edges[8].cursor)
    assert numbers(connection) == [6, 7, 8]


async def test_an_empty_page_has_no_cursors() -> None:
    last = (await page(last=1)).page_info.end_cursor
    connection = await page(first=5, after=last)
    assert connection.edges == []
    assert connection.page_info.start_cursor is connection.page_info.end_cursor is None
    assert not connection.page_info.has_next_page


async def test_rows_become_what_clients_see_and_keep_their_cursor() -> None:
    connection: Connection[Any] = await page(first=2, node=lambda row: f"row {row['number']}")
    assert [edge.node for edge in connection.edges] == ["row 1", "row 2"]
    assert read_cursor(connection.edges[1].cursor, BY_NUMBER, path="after") == (2,)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"first": 0}, "first"),
        ({"first": -1}, "first"),
        ({"first": 101}, "first"),
        ({"last": 0}, "last"),
        ({"last": 101}, "last"),
        ({"first": 1, "last": 1}, "last"),
        ({"after": ""}, "after"),
        ({"before": "x"}, "before"),
    ],
)
async def test_a_wrong_argument_is_named(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await page(**arguments)
    assert refused.value.details["path"] == [path]


KINDS: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    UUID: st.uuids(),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


@given(
    st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3).flatmap(
        lambda kinds: st.tuples(st.just(kinds), st.tuples(*(st.none() | KINDS[kind] for kind in kinds)))
    )
)
def test_a_cursor_holds_its_key(drawn: tuple[list[type], Key]) -> None:
    kinds, key = drawn
    columns = [(f"column{number}", kind) for number, kind in enumerate(kinds)]
    assert read_cursor(write_cursor(key, columns), columns, path="after") == key


def test_a_cursor_holds_its_moment_whatever_the_time_zone() -> None:
    columns = (("at", datetime),)
    moment = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    (found,) = read_cursor(write_cursor((moment,), columns), columns, path="after")
    assert found == moment


@given(st.text(max_size=100) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_whatever_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        read_cursor(text, (("id", UUID),), path="after")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    ),
    st.sampled_from(list(KINDS)),
)
def test_a_forged_value_never_reaches_the_query_with_another_type(value: Any, kind: type) -> None:
    columns = (("column", kind),)
    genuine = orjson.loads(base64.urlsafe_b64decode(write_cursor((None,), columns) + "=="))
    try:
        forged = base64.urlsafe_b64encode(orjson.dumps([*genuine[:2], value])).decode().rstrip("=")
    except TypeError:  # half of a surrogate pair
        return
    try:
        (found,) = read_cursor(forged, columns, path="after")
    except ValidationFailed:
        return
    assert found is None or type(found) is kind


@pytest.mark.parametrize(
    "columns",
    [
        (("created_at", datetime), ("id", UUID)),
        (("id", UUID), ("id2", UUID)),
        (("-id", UUID),),
        (("other", UUID),),
    ],
)
def test_a_cursor_of_another_order_is_refused(columns: tuple[tuple[str, type], ...]) -> None:
    with pytest.raises(ValidationFailed):
        read_cursor(write_cursor((uuid4(),), (("id", UUID),)), columns, path="after")
