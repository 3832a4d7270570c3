"""What a client sends, before GraphQL looks at it: JSON of the right shape whose texts can be stored.

HTTP bodies and WebSocket messages are read here alike. Invariant: no string that leaves this module, in a variable
or anywhere inside one, holds NUL or half of a surrogate pair. The check costs nothing for good requests: orjson
refuses lone surrogates by itself, and NUL can only stand in JSON as an escape that is looked for in the raw bytes.
Where the fault is in a refused body is said only if that is quickly found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from errors import ValidationFailed
from schema.literals import Path, is_storable

_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape itself, and not a backslash that is followed by the letter."""

_MAX_EXPLAINED_BYTES: Final = 65_536
_MAX_STEPS: Final = 100_000
"""How much of a bad body is searched for the place of the fault: a search must not cost more than a request may."""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """The parameters of GraphQL over HTTP §5.1; `extensions` are checked and dropped."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None


def read_json(raw: bytes) -> Any:
    """The value of a JSON text; raises ValidationFailed for all that is none, deep nesting and bad characters too."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    else:
        if b"\\u0000" in raw and _ESCAPED_NUL.search(raw):
            refuse_unstorable(value)
            raise _unstorable([])
        return value
    if b"\\u" in raw and len(raw) <= _MAX_EXPLAINED_BYTES:
        refuse_unstorable(read_leniently(raw))
    raise ValidationFailed(f"The request is not valid JSON: {reason}.")


def operation_request(value: Any) -> OperationRequest:
    """The operation in a decoded object; raises ValidationFailed with the path of the faulty parameter."""
    if isinstance(value, list):
        raise ValidationFailed("Batches are not supported: send one operation per request.")
    if not isinstance(value, dict):
        raise ValidationFailed("The request is not a JSON object.")
    query = value.get("query")
    if not isinstance(query, str) or not query:
        raise ValidationFailed("`query` must be the text of a GraphQL document.", path=["query"])
    variables = value.get("variables")
    if not isinstance(variables, dict | None):
        raise ValidationFailed("`variables` must be an object.", path=["variables"])
    operation_name = value.get("operationName")
    if not isinstance(operation_name, str | None):
        raise ValidationFailed("`operationName` must be a string.", path=["operationName"])
    if not isinstance(value.get("extensions"), dict | None):
        raise ValidationFailed("`extensions` must be an object.", path=["extensions"])
    return OperationRequest(query, variables or {}, operation_name or None)


def refuse_unstorable(value: Any) -> None:
    """Refuse decoded JSON whose first 100,000 values hold a text that cannot be stored; raises ValidationFailed."""
    for place, text in _texts(value):
        if not is_storable(text):
            path = _path_of(place)
            # Inside of the variables, clients know the path from the variable's name on.
            shown = path[path.index("variables") + 1 :] if "variables" in path[:2] else path
            raise _unstorable(shown)


def _unstorable(path: Path) -> ValidationFailed:
    return ValidationFailed(
        "Text may contain neither the character NUL nor half of a surrogate pair.",
        path=[step.encode(errors="replace").decode() if isinstance(step, str) else step for step in path],
    )


_MAY_HOLD_TEXT: Final = (str, Mapping, list)
_Place = tuple[Any, str | int] | None
"""A step and the place above it. Whole paths, one for each of many values far down, would be large and slow."""


def _texts(value: Any) -> Iterator[tuple[_Place, str]]:
    stack: list[tuple[_Place, Any]] = [(None, value)]
    steps = 0
    while stack:
        place, item = stack.pop()
        steps += len(item) if isinstance(item, Mapping | list) else 0
        if steps > _MAX_STEPS:
            return
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, Mapping):
            for key, child in item.items():
                yield (place, key), key
                if isinstance(child, _MAY_HOLD_TEXT):
                    stack.append(((place, key), child))
        elif isinstance(item, list):
            stack.extend(
                ((place, index), child) for index, child in enumerate(item) if isinstance(child, _MAY_HOLD_TEXT)
            )


def _path_of(place: _Place) -> Path:
    steps: Path = []
    while place is not None:
        place, step = place
        steps.append(step)
    return steps[::-1]


def read_leniently(raw: bytes) -> Any:
    """The value as the standard library reads it, lone surrogates included; None when it cannot either."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
