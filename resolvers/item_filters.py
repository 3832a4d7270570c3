"""Filters of items as clients give them: checked here, made into SQL by `models/item_filters.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from errors import ValidationFailed
from models.item_filters import ORDERS, FieldCondition, ItemFilter, ItemOperator, is_number
from resolvers.texts import MAX_SEARCH_LENGTH

MAX_CONDITIONS: Final = 20
MAX_VALUES: Final = 100
MAX_PATH_CHARACTERS: Final = 200
MAX_PATH_PARTS: Final = 10
MAX_TEXT_CHARACTERS: Final = 2_000

Path = Sequence[str | int]


class GivenCondition(Protocol):
    """A condition as a client gives it."""

    @property
    def field(self) -> str:
        """A dotted path."""

    @property
    def op(self) -> ItemOperator:
        """How to compare."""

    @property
    def value(self) -> Any:
        """With what; any JSON."""


def checked(
    *,
    search: str | None,
    where: Sequence[GivenCondition],
    scraped_from: datetime | None,
    scraped_to: datetime | None,
    path: Path,
) -> ItemFilter:
    """The filter; raises ValidationFailed with the path of what cannot be asked, below `path`."""
    if search is not None and len(search) > MAX_SEARCH_LENGTH:
        raise ValidationFailed(f"A search has at most {MAX_SEARCH_LENGTH} characters.", path=[*path, "search"])
    if len(where) > MAX_CONDITIONS:
        raise ValidationFailed(
            f"A filter has at most {MAX_CONDITIONS} conditions.", path=[*path, "where"], limit=MAX_CONDITIONS
        )
    return ItemFilter(
        search=search or None,
        where=tuple(_condition(given, [*path, "where", number]) for number, given in enumerate(where)),
        scraped_from=scraped_from,
        scraped_to=scraped_to,
    )


def field_path(text: str, *, path: Path) -> str:
    """A dotted path to a field of items; raises ValidationFailed."""
    if not 1 <= len(text) <= MAX_PATH_CHARACTERS:
        raise ValidationFailed(f"A field has 1 to {MAX_PATH_CHARACTERS} characters.", path=path)
    parts = text.split(".")
    if len(parts) > MAX_PATH_PARTS or not all(parts):
        raise ValidationFailed(
            f"A field is one to {MAX_PATH_PARTS} names with dots between them, such as `address.city`.", path=path
        )
    return text


def _condition(given: GivenCondition, path: Path) -> FieldCondition:
    field = field_path(given.field, path=[*path, "field"])
    _check_value(given.op, given.value, [*path, "value"])
    return FieldCondition(tuple(field.split(".")), given.op, given.value)


def _check_value(operator: ItemOperator, value: Any, path: Path) -> None:
    match operator:
        case ItemOperator.EXISTS:
            if not isinstance(value, bool):
                raise ValidationFailed("EXISTS takes true or false.", path=path)
        case ItemOperator.IN:
            if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
                raise ValidationFailed(f"IN takes a list of 1 to {MAX_VALUES} values.", path=path, limit=MAX_VALUES)
            for number, each in enumerate(value):
                if isinstance(each, dict | list):
                    raise ValidationFailed("IN takes texts, numbers, booleans and null.", path=[*path, number])
                _check_scalar(each, [*path, number])
        case ItemOperator.STARTS_WITH:
            if not isinstance(value, str) or not value:
                raise ValidationFailed("STARTS_WITH takes a text that is not empty.", path=path)
        case ItemOperator.CONTAINS:
            if value is None or value == "" or isinstance(value, dict | list):
                raise ValidationFailed("CONTAINS takes a text that is not empty, a number or a boolean.", path=path)
        case order if order in ORDERS:
            if not (isinstance(value, str) or is_number(value)):
                raise ValidationFailed(f"{order} takes a number or a text.", path=path)
        case _:
            if isinstance(value, dict | list):
                raise ValidationFailed(f"{operator} takes a text, a number, a boolean or null.", path=path)
    _check_scalar(value, path)


def _check_scalar(value: Any, path: Path) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        raise ValidationFailed(f"A text to compare with has at most {MAX_TEXT_CHARACTERS:,} characters.", path=path)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationFailed("A number to compare with is finite.", path=path)
    if is_number(value) and len(repr(value)) > MAX_PATH_CHARACTERS:
        raise ValidationFailed("A number to compare with has at most 200 digits.", path=path)
