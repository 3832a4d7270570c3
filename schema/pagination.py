"""Lists by pages: Relay's connections over keyset queries.

A cursor is the sort key of a row, so a page costs the same wherever it is, and rows that come or go meanwhile move
nothing. Cursors carry the names of their columns as a checksum: one made under another order is refused instead of
misread, and its values have the types that the query expects. Follows the GraphQL Cursor Connections Specification.
Left out: the query itself, which `fetch` brings.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import orjson
import strawberry

from errors import ValidationFailed
from schema.literals import is_storable

DEFAULT_PAGE: Final = 20
MAX_PAGE: Final = 100
_VERSION: Final = 1
_MAX_CURSOR_LENGTH: Final = 1_024

Node = TypeVar("Node")
Row = TypeVar("Row")
Key = tuple[Any, ...]
Column = tuple[str, type]
"""Name and Python type of a sort column; a leading `-` says that it sorts downwards."""

BY_ID: Final[tuple[Column, ...]] = (("-id", UUID),)
"""Newest first: our ids are in the order of creation."""

Fetch = Callable[[int, Key | None, Key | None, bool], Awaitable[Sequence[Row]]]
"""`fetch(limit, after_key, before_key, backwards)`: at most `limit` rows strictly between two keys.

Forwards they come in the list's order from its start, backwards in the opposite order from its end.
"""


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """Relay's PageInfo."""

    has_next_page: bool = strawberry.field(description="Whether there is more after this page.")
    has_previous_page: bool = strawberry.field(description="Whether there is more before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge; null on an empty page.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last edge; null on an empty page.")


@strawberry.type(description="One place in a list.")
class Edge(Generic[Node]):
    """Relay's edge."""

    cursor: str = strawberry.field(description="Opaque position, for `after` and `before`.")
    node: Node = strawberry.field(description="What stands here.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[Node]):
    """Relay's connection; made by `paginate`."""

    edges: list[Edge[Node]] = strawberry.field(description="The page, in the order of the list.")
    page_info: PageInfo = strawberry.field(description="Where the page stands.")
    count: strawberry.Private[Callable[[], Awaitable[int | None]] | None]

    @strawberry.field(description="How many there are in the whole list; null where that is not counted.")
    async def total_count(self) -> int | None:
        """Counts only when asked for."""
        return None if self.count is None else await self.count()


First = Annotated[
    int | None, strawberry.argument(description="How many from the start of the list, or after `after`: 1 to 100.")
]
After = Annotated[str | None, strawberry.argument(description="A cursor: the page starts behind it.")]
Last = Annotated[
    int | None, strawberry.argument(description="How many from the end of the list, or before `before`: 1 to 100.")
]
Before = Annotated[str | None, strawberry.argument(description="A cursor: the page ends before it.")]


class _Place(Generic[Row]):
    """An edge whose cursor is written when a client asks for it."""

    __slots__ = ("_columns", "_row", "node")

    def __init__(self, node: Any, row: Row, columns: Sequence[Column]) -> None:
        self.node = node
        self._row = row
        self._columns = columns

    @property
    def cursor(self) -> str:
        return write_cursor(_key_of(self._row, self._columns), self._columns)


async def paginate(
    *,
    fetch: Fetch[Row],
    count: Callable[[], Awaitable[int | None]] | None = None,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
    key: Sequence[Column] = BY_ID,
    node: Callable[[Row], Any] | None = None,
    max_page: int = MAX_PAGE,
) -> Connection[Any]:
    """One page of what `fetch` brings; 20 rows from the start when the client says nothing.

    `key` names the columns, or attributes, that the rows are sorted by; together they must be unique. `node` turns a
    row into what clients see. Raises ValidationFailed with the path of the faulty argument.
    """
    for name, size in (("first", first), ("last", last)):
        if size is not None and not 1 <= size <= max_page:
            raise ValidationFailed(f"`{name}` must be between 1 and {max_page}.", path=[name])
    if first is not None and last is not None:
        raise ValidationFailed("Ask for `first` or for `last`, not for both.", path=["last"])
    after_key = None if after is None else read_cursor(after, key, path="after")
    before_key = None if before is None else read_cursor(before, key, path="before")
    backwards = last is not None
    size = last if last is not None else first if first is not None else min(DEFAULT_PAGE, max_page)
    rows = list(await fetch(size + 1, after_key, before_key, backwards))
    has_more = len(rows) > size
    del rows[size:]
    if backwards:
        rows.reverse()
    places = [_Place(row if node is None else node(row), row, key) for row in rows]
    return Connection(
        edges=places,  # type: ignore[arg-type]  # read like edges, written later
        page_info=PageInfo(
            has_next_page=before is not None if backwards else has_more,
            has_previous_page=has_more if backwards else after is not None,
            start_cursor=places[0].cursor if places else None,
            end_cursor=places[-1].cursor if places else None,
        ),
        count=count,
    )


def by_one_key(page: Callable[..., Awaitable[Sequence[Row]]]) -> Fetch[Row]:
    """`fetch` of a list that is sorted by one column, from what takes `limit`, `after`, `before` and `backwards`."""

    async def fetch(limit: int, after_key: Key | None, before_key: Key | None, backwards: bool) -> Sequence[Row]:
        return await page(
            limit=limit,
            after=None if after_key is None else after_key[0],
            before=None if before_key is None else before_key[0],
            backwards=backwards,
        )

    return fetch


def write_cursor(key: Key, columns: Sequence[Column]) -> str:
    """The opaque text of a sort key."""
    values = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in key]
    # default=str: the driver's UUIDs are a subclass, which orjson does not take.
    text = orjson.dumps([_VERSION, _checksum(columns), *values], default=str)
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read_cursor(cursor: str, columns: Sequence[Column], *, path: str) -> Key:
    """The sort key in a cursor; raises ValidationFailed for anything that `write_cursor` did not write for these."""
    try:
        if len(cursor) > _MAX_CURSOR_LENGTH:
            raise ValueError
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        version, checksum, *values = orjson.loads(text)
        if version != _VERSION or checksum != _checksum(columns) or len(values) != len(columns):
            raise ValueError
        return tuple(_read(value, kind) for value, (_, kind) in zip(values, columns, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise ValidationFailed("The cursor is not one of this list.", path=[path]) from None


def _read(value: Any, kind: type) -> Any:
    """A value of the expected type; raises ValueError or TypeError. Null is a value of every column."""
    if value is None:
        return None
    if kind in (UUID, datetime) and type(value) is not str:
        raise TypeError
    if kind is UUID:
        return UUID(value)
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)  # the ends of time in another zone have none here: OverflowError
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError
    if isinstance(value, str) and not is_storable(value):
        raise ValueError
    return value


def _key_of(row: Any, columns: Sequence[Column]) -> Key:
    if isinstance(row, Mapping):
        return tuple(row[name.removeprefix("-")] for name, _ in columns)
    return tuple(getattr(row, name.removeprefix("-")) for name, _ in columns)


def _checksum(columns: Sequence[Column]) -> int:
    return zlib.crc32(",".join(name for name, _ in columns).encode())
