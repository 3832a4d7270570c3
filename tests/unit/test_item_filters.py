"""Filters of items: the SQL says of every item what the rules say, which are written here once more, in Python."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from models import item_filters
from models.item_filters import FieldCondition, ItemFilter, ItemOperator
from resolvers.item_filters import checked
from schema.item_filters import ItemCondition

TEXTS = ["", "a", "A", "ab", "Abc", "b%", "b_", "b\\", "ñandú", "199900.00", "199900", "-3", "+3", "3.", " 3", "1e3",
         "true", "null", "2026-01-01", "2026-01-02T00:00:00Z", 'say "x"', "0" * 40 + "7"]  # fmt: skip
NUMBERS = [0, 1, -3, 3, 3.0, 0.1, 199900, 199900.5, 10**20, -(10**20), 1e-7]
SCALARS: list[Any] = [None, True, False, *TEXTS, *NUMBERS]
PATHS = ["a", "b", "a.b", "a.0", "a.1.b", "missing", "a.b.c"]
ITEMS = 400
FILTERS = 300
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


# -- the rules


def holds(filter: ItemFilter, item: Any, url: str, scraped_at: datetime) -> bool:
    if filter.search is not None and not (
        contains(url, filter.search) or any(contains(leaf, filter.search) for leaf in leaves(item))
    ):
        return False
    if filter.scraped_from is not None and scraped_at < filter.scraped_from:
        return False
    if filter.scraped_to is not None and scraped_at >= filter.scraped_to:
        return False
    return all(condition_holds(each, found_at(item, each.path)) for each in filter.where)


def condition_holds(condition: FieldCondition, found: Any) -> bool:
    value = condition.value
    match condition.operator:
        case ItemOperator.EQ:
            return equal(found, value)
        case ItemOperator.NE:
            return not equal(found, value)
        case ItemOperator.IN:
            return any(equal(found, each) for each in value)
        case ItemOperator.EXISTS:
            return (found is not None) is value
        case ItemOperator.CONTAINS if isinstance(found, list):
            return any(equal(element, value) for element in found)
        case ItemOperator.CONTAINS:
            return isinstance(found, str) and isinstance(value, str) and contains(found, value)
        case ItemOperator.STARTS_WITH:
            return isinstance(found, str) and found.lower().startswith(value.lower())
        case order:
            if isinstance(value, str):
                return isinstance(found, str) and compare(order, found, value)
            number = as_number(found)
            return number is not None and compare(order, number, Decimal(repr(value)))


def compare(order: ItemOperator, one: Any, other: Any) -> bool:
    return bool(
        {
            ItemOperator.LT: one < other,
            ItemOperator.LTE: one <= other,
            ItemOperator.GT: one > other,
            ItemOperator.GTE: one >= other,
        }[order]
    )


def equal(found: Any, value: Any) -> bool:
    if is_number(value):
        return as_number(found) == Decimal(repr(value))
    return type(found) is type(value) and found == value


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def as_number(found: Any) -> Decimal | None:
    if is_number(found):
        return Decimal(repr(found))
    if isinstance(found, str) and re.fullmatch(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?", found, re.ASCII):
        return Decimal(found)
    return None


def contains(text: str, part: str) -> bool:
    return part.lower() in text.lower()


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    if isinstance(value, str):
        return [value]
    return [f"{Decimal(repr(value)):f}"] if is_number(value) else []


def found_at(item: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(item, dict):
            item = item.get(part)
        elif isinstance(item, list) and part.isdigit() and int(part) < len(item):
            item = item[int(part)]
        else:
            return None
    return item


# -- examples


def any_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth < 3 and kind < 0.2:
        return {name: any_value(chance, depth + 1) for name in chance.sample("abc", chance.randint(0, 3))}
    if depth < 3 and kind < 0.4:
        return [any_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(SCALARS)


def any_condition(chance: random.Random) -> FieldCondition:
    operator = chance.choice(list(ItemOperator))
    value: Any
    match operator:
        case ItemOperator.EXISTS:
            value = chance.random() < 0.5
        case ItemOperator.IN:
            value = chance.sample(SCALARS, chance.randint(1, 4))
        case ItemOperator.STARTS_WITH:
            value = chance.choice(TEXTS[1:])
        case ItemOperator.CONTAINS:
            value = chance.choice([each for each in SCALARS if each is not None and each != ""])
        case ItemOperator.EQ | ItemOperator.NE:
            value = chance.choice(SCALARS)
        case _:
            value = chance.choice([*TEXTS, *NUMBERS])
    return FieldCondition(tuple(chance.choice(PATHS).split(".")), operator, value)


def any_filter(chance: random.Random) -> ItemFilter:
    return ItemFilter(
        search=chance.choice(TEXTS[1:]) if chance.random() < 0.2 else None,
        where=tuple(any_condition(chance) for _ in range(chance.choice([0, 1, 1, 1, 2, 3]))),
        scraped_from=MOMENT + timedelta(hours=chance.randint(0, 9)) if chance.random() < 0.1 else None,
        scraped_to=MOMENT + timedelta(hours=chance.randint(0, 9)) if chance.random() < 0.1 else None,
    )


async def test_sql_and_rules_agree_on_every_item(postgres_url: str) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    items = [
        (
            {"a": any_value(chance), "b": any_value(chance)},
            f"https://a.example/{number}",
            MOMENT + timedelta(hours=number % 10),
        )
        for number in range(ITEMS)
    ]
    met = 0
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(
            "CREATE TEMPORARY TABLE items (id serial, data jsonb, url text, scraped_at timestamptz)"
        )
        await connection.executemany(
            "INSERT INTO items (data, url, scraped_at) VALUES ($1::jsonb, $2, $3)",
            [(json.dumps(item), url, at) for item, url, at in items],
        )
        for _ in range(FILTERS):
            filter = item_filters.decode(item_filters.encode(any_filter(chance)))
            values: list[Any] = []
            sql = " AND ".join(item_filters.conditions(filter, values)) or "true"
            found = await connection.fetch(f"SELECT {sql} AS met FROM items ORDER BY id", *values)
            expected = [holds(filter, *item) for item in items]
            assert [row["met"] for row in found] == expected, (seed, filter)
            met += sum(expected)
    finally:
        await connection.close()
    assert 0.05 < met / (ITEMS * FILTERS) < 0.95, "the examples are met by some and not by others"


# -- what may be asked


@pytest.mark.parametrize(
    ("field", "op", "value", "path"),
    [
        ("", "EQ", 1, ["field"]),
        ("a..b", "EQ", 1, ["field"]),
        (".".join("abcdefghijk"), "EQ", 1, ["field"]),
        ("x" * 201, "EQ", 1, ["field"]),
        ("a", "EQ", {"a": 1}, ["value"]),
        ("a", "LT", None, ["value"]),
        ("a", "LT", True, ["value"]),
        ("a", "GTE", [1], ["value"]),
        ("a", "CONTAINS", "", ["value"]),
        ("a", "STARTS_WITH", 5, ["value"]),
        ("a", "EXISTS", None, ["value"]),
        ("a", "EXISTS", 1, ["value"]),
        ("a", "IN", "text", ["value"]),
        ("a", "IN", [], ["value"]),
        ("a", "IN", list(range(101)), ["value"]),
        ("a", "IN", [1, [2]], ["value", 1]),
        ("a", "EQ", float("inf"), ["value"]),
        ("a", "EQ", 10**300, ["value"]),
        ("a", "EQ", "x" * 2_001, ["value"]),
    ],
    ids=lambda each: repr(each)[:20],
)
def test_what_cannot_be_asked_says_where(field: str, op: str, value: Any, path: list[str | int]) -> None:
    condition = ItemCondition(field=field, op=ItemOperator(op), value=value)
    with pytest.raises(ValidationFailed) as failure:
        checked(search=None, where=[condition], scraped_from=None, scraped_to=None, path=["filter"])
    assert failure.value.details["path"] == ["filter", "where", 0, *path]


@given(st.text(max_size=30), st.sampled_from(list(ItemOperator)), st.text(max_size=10) | st.integers())
@settings(max_examples=50, deadline=None)
def test_nothing_that_was_sent_is_part_of_a_statement(field: str, operator: ItemOperator, value: Any) -> None:
    if operator in (ItemOperator.STARTS_WITH, ItemOperator.CONTAINS):
        value = str(value)
    values: list[Any] = []
    condition = FieldCondition(("zq" + field,), operator, [value] if operator is ItemOperator.IN else value)
    sql = item_filters.conditions(ItemFilter(where=(condition,)), values)[0]
    assert "zq" not in sql
    assert ["zq" + field] in values
