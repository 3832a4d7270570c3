"""What becomes of an item on its way into a file: rows of the fields that were asked for, under the names asked for.

Order: unwind, fields, omit, rename, flatten. Paths are dotted and lead through objects; a key that is literally the
path comes first. Invariant: nothing is lost silently, so two values of one name are an error; only in flattening a key
that is literally `a.b` comes before a `b` inside of `a`. Items are not changed: rows may share what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Item = dict[str, Any]

MAX_FLAT_DEPTH: Final = 32
"""Levels that are flattened; what is deeper stays whole."""

_MISSING: Final = object()


class NameTaken(Exception):
    """A renamed field has the name of another one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Two fields of an item would be called {name!r}; rename one to something else.")


@dataclass(frozen=True, slots=True)
class Shape:
    """How items become rows. `separator` is None where nested objects stay; `first` are columns that come first."""

    unwind: str | None = None
    fields: tuple[str, ...] | None = None
    omit: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    separator: str | None = None
    first: tuple[str, ...] = ()

    def rows(self, item: Item) -> Iterator[Item]:
        """The rows of an item, one at least; raises NameTaken."""
        for row in [item] if self.unwind is None else _unwound(item, self.unwind):
            if self.fields is not None:
                row = _selected(row, self.fields)
            for path in self.omit:
                row = _without(row, _parts(row, path))
            if self.rename:
                row = _renamed(row, self.rename)
            yield row if self.separator is None else flat(row, self.separator)

    def order(self) -> list[str]:
        """Names of columns, or beginnings of them, in the order in which they come before all others."""
        names = dict(self.rename)
        wanted = self.first if self.fields is None else self.fields
        kept = [path for path in wanted if path not in self.omit]
        return list(dict.fromkeys(names.get(path, self._column(path)) for path in kept))

    def columns(self, seen: Sequence[str] | set[str]) -> list[str]:
        """All columns of a table in their order: of what was asked for, also what no row has."""
        rank = {name: number for number, name in enumerate(self.order())}
        places = {column: _place(column, rank, self.separator) for column in seen}
        columns = list(seen)
        if self.fields is not None or not seen:
            taken = set(places.values())
            for name, number in rank.items():
                if number not in taken:
                    places[name] = number
                    columns.append(name)
        return sorted(columns, key=lambda column: (places[column], column))

    def _column(self, path: str) -> str:
        return path.partition(".")[0] if self.separator is None else path.replace(".", self.separator)


def flat(item: Mapping[str, Any], separator: str = ".") -> Item:
    """Nested objects become fields `outer.inner`; lists stay whole, and so do empty objects."""
    flattened: Item = {}
    level: list[tuple[str, Mapping[str, Any]]] = [("", item)]
    depth = 0
    while level:
        deeper: list[tuple[str, Mapping[str, Any]]] = []
        for prefix, part in level:
            for name, value in part.items():
                if isinstance(value, dict) and value and depth < MAX_FLAT_DEPTH:
                    deeper.append((f"{prefix}{name}{separator}", value))
                else:
                    flattened.setdefault(prefix + name, value)
        level, depth = deeper, depth + 1
    return flattened


def _place(column: str, rank: Mapping[str, int], separator: str | None) -> int:
    """The place of the longest beginning of a column that has one; behind all others if none has."""
    name = column
    while name not in rank:
        name, cut, _ = name.rpartition(separator) if separator else ("", "", "")
        if not cut:
            return len(rank)
    return rank[name]


def _parts(item: Mapping[str, Any], path: str) -> list[str]:
    return [path] if path in item else path.split(".")


def _value(item: Mapping[str, Any], parts: Sequence[str]) -> Any:
    found: Any = item
    for part in parts:
        if not isinstance(found, dict) or part not in found:
            return _MISSING
        found = found[part]
    return found


def _with(item: Item, parts: Sequence[str], value: Any) -> Item:
    """The item with another value at a path that it has, or whose last object it has."""
    name, *rest = parts
    inner = item.get(name)
    return item | {name: _with(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def _without(item: Item, parts: Sequence[str]) -> Item:
    """The item without what is at a path, and without objects that are empty for it."""
    name, *rest = parts
    if name not in item:
        return item
    inner = item[name]
    if not rest:
        return {key: value for key, value in item.items() if key != name}
    if not isinstance(inner, dict):
        return item
    left = _without(inner, rest)
    return item | {name: left} if left or not inner else {key: value for key, value in item.items() if key != name}


def _unwound(item: Item, path: str) -> Iterator[Item]:
    parts = _parts(item, path)
    found = _value(item, parts)
    if not isinstance(found, list):
        yield item
        return
    for element in found or [None]:
        yield _with(item, parts, element)


def _selected(item: Item, paths: Sequence[str]) -> Item:
    row: Item = {}
    for path in paths:
        parts = _parts(item, path)
        value = _value(item, parts)
        if value is not _MISSING:
            row = _with(row, parts, value)
    return row


def _renamed(item: Item, names: Sequence[tuple[str, str]]) -> Item:
    found = []
    for path, name in names:
        parts = _parts(item, path)
        value = _value(item, parts)
        if value is not _MISSING:
            found.append((parts, name, value))
    row = item
    for parts, _, _ in found:
        row = _without(row, parts)
    new = {name: value for _, name, value in found}
    for name in new:
        if name in row:
            raise NameTaken(name)
    return row | new
