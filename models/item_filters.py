"""Which items: conditions on their fields, their text and their time, as SQL over the table `items`.

The rules are the same wherever items are filtered. `v` is what a path leads to; missing and null are one.

EQ          null: `v` is null. A number: `v` is that number, or text that is a plain number of that value. All else: `v`
            is exactly that.
NE          EQ does not hold, so it holds for null unless null is what is compared with.
LT to GTE   With a number: `v` as a number, as in EQ. With text: text, by code point. Otherwise they do not hold.
CONTAINS    Text: in it, in any case. A list: an element that equals the value, as in EQ.
STARTS_WITH Text: at its start, in any case.
EXISTS      true: `v` is not null; false: it is.
IN          EQ holds for one of the values.

Invariant: nothing that a client sent becomes part of a statement; paths and values travel as parameters. What may be
asked at all is checked by `resolvers/item_filters.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from models.database import to_json
from models.tools import containing


class ItemOperator(StrEnum):
    """How a field is compared."""

    EQ = "EQ"
    NE = "NE"
    LT = "LT"
    LTE = "LTE"
    GT = "GT"
    GTE = "GTE"
    CONTAINS = "CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    EXISTS = "EXISTS"
    IN = "IN"


ORDERS: Final = {
    ItemOperator.LT: "<",
    ItemOperator.LTE: "<=",
    ItemOperator.GT: ">",
    ItemOperator.GTE: ">=",
}
PLAIN_NUMBER: Final = r"^[+-]?[0-9]{1,40}(\.[0-9]{1,40})?$"
"""Text that compares as a number."""


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A condition on what a path leads to: keys of objects, and numbers of list elements from 0."""

    path: tuple[str, ...]
    operator: ItemOperator
    value: Any


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Conditions of which all hold; `scraped_to` is no longer within."""

    search: str | None = None
    where: tuple[FieldCondition, ...] = ()
    scraped_from: datetime | None = None
    scraped_to: datetime | None = None


EVERYTHING: Final = ItemFilter()


def encode(filter: ItemFilter) -> dict[str, Any]:
    """A filter as JSON, in the words of the schema; what is not asked is left out."""
    encoded = {
        "search": filter.search,
        "where": [
            {"field": ".".join(condition.path), "op": condition.operator.value, "value": condition.value}
            for condition in filter.where
        ],
        "scrapedFrom": filter.scraped_from and filter.scraped_from.isoformat(),
        "scrapedTo": filter.scraped_to and filter.scraped_to.isoformat(),
    }
    return {name: value for name, value in encoded.items() if value}


def decode(encoded: Mapping[str, Any]) -> ItemFilter:
    """The filter that `encode` wrote."""
    begin, end = encoded.get("scrapedFrom"), encoded.get("scrapedTo")
    return ItemFilter(
        search=encoded.get("search"),
        where=tuple(
            FieldCondition(tuple(each["field"].split(".")), ItemOperator(each["op"]), each["value"])
            for each in encoded.get("where", [])
        ),
        scraped_from=begin and datetime.fromisoformat(begin),
        scraped_to=end and datetime.fromisoformat(end),
    )


def conditions(filter: ItemFilter, values: list[Any]) -> list[str]:
    """SQL of each condition over `data`, `url` and `scraped_at`; its parameters are added to `values`."""

    def place(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    found = [_field(condition, place) for condition in filter.where]
    if filter.search is not None:
        found.append(_search(place(containing(filter.search))))
    if filter.scraped_from is not None:
        found.append(f"scraped_at >= {place(filter.scraped_from)}::timestamptz")
    if filter.scraped_to is not None:
        found.append(f"scraped_at < {place(filter.scraped_to)}::timestamptz")
    return found


def _search(pattern: str) -> str:
    """Some text or number in the item, at any depth, or its address; names of fields do not count."""
    leaves = 'strict $.** ? (@.type() == "string" || @.type() == "number")'
    return (
        f"(url ILIKE {pattern}::text OR EXISTS (SELECT 1 FROM jsonb_path_query(data, '{leaves}') AS leaf"
        f" WHERE leaf #>> '{{}}' ILIKE {pattern}::text))"
    )


def _field(condition: FieldCondition, place: Callable[[Any], str]) -> str:
    found = f"(data #> {place(list(condition.path))}::text[])"
    value = condition.value
    match condition.operator:
        case ItemOperator.EQ:
            held = _equal(found, [value], place)
        case ItemOperator.NE:
            held = f"NOT {_equal(found, [value], place)}"
        case ItemOperator.IN:
            held = _equal(found, value, place)
        case ItemOperator.EXISTS:
            held = f"NOT {_is_null(found)}" if value else _is_null(found)
        case ItemOperator.CONTAINS:
            equal = _equal("element", [value], place)
            inside = f"(SELECT bool_or({equal}) FROM jsonb_array_elements({_list(found)}) AS element)"
            text = f" OR {_text(found)} ILIKE {place(containing(value))}::text" if isinstance(value, str) else ""
            held = f"(coalesce({inside}, false){text})"
        case ItemOperator.STARTS_WITH:
            held = f"{_text(found)} ILIKE {place(containing(value)[1:])}::text"
        case order if isinstance(value, str):
            held = f'{_text(found)} COLLATE "C" {ORDERS[order]} {place(value)}::text'
        case order:
            held = f"{_number(found)} {ORDERS[order]} {place(repr(value))}::text::numeric"
    return f"coalesce({held}, false)"


def _equal(found: str, values: Sequence[Any], place: Callable[[Any], str]) -> str:
    """Whether what was found equals one of the values; never null."""
    numbers = [repr(value) for value in values if is_number(value)]
    others = [to_json(value) for value in values if value is not None and not is_number(value)]
    ways = []
    if numbers:
        ways.append(f"{_number(found)} = ANY({place(numbers)}::text[]::numeric[])")
    if others:
        ways.append(f"{found} = ANY({place(others)}::text[]::jsonb[])")
    if any(value is None for value in values):
        ways.append(_is_null(found))
    return "(" + " OR ".join(f"coalesce({way}, false)" for way in ways) + ")"


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_null(found: str) -> str:
    return f"coalesce({found} = 'null'::jsonb, true)"


def _text(found: str) -> str:
    return f"(CASE WHEN jsonb_typeof({found}) = 'string' THEN {found} #>> '{{}}' END)"


def _list(found: str) -> str:
    return f"(CASE WHEN jsonb_typeof({found}) = 'array' THEN {found} ELSE '[]'::jsonb END)"


def _number(found: str) -> str:
    text = f"({found} #>> '{{}}')"
    return (
        f"(CASE WHEN jsonb_typeof({found}) = 'number'"
        f" OR (jsonb_typeof({found}) = 'string' AND {text} ~ '{PLAIN_NUMBER}') THEN {text}::numeric END)"
    )
