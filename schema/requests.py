"""What a client sends, before GraphQL looks at it: JSON of the right shape whose texts can be stored.

HTTP bodies and WebSocket messages are read here alike. Invariant: no string that leaves this module, in a variable
or anywhere inside one, holds NUL or half of a surrogate pair. The check costs nothing for good requests: orjson
refuses lone surrogates by itself, and NUL can only stand in JSON as an escape that is looked for in the raw bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from errors import ValidationFailed
from schema.literals import Path, is_storable

_ESCAPED_NUL: Final = b"\\u0000"


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
        if _ESCAPED_NUL in raw:
            refuse_unstorable(value)
        return value
    if b"\\u" in raw:
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
    """Refuse decoded JSON with a text that cannot be stored; raises ValidationFailed with its path."""
    for path, text in _texts(value):
        if not is_storable(text):
            # Inside of the variables, clients know the path from the variable's name on.
            shown = path[path.index("variables") + 1 :] if "variables" in path[:2] else path
            raise ValidationFailed(
                "Text may contain neither the character NUL nor half of a surrogate pair.",
                path=[step.encode(errors="replace").decode() if isinstance(step, str) else step for step in shown],
            )


def _texts(value: Any) -> Iterator[tuple[Path, str]]:
    stack: list[tuple[Path, Any]] = [([], value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, Mapping):
            for key, child in item.items():
                yield [*path, key], key
                stack.append(([*path, key], child))
        elif isinstance(item, list):
            stack.extend(([*path, index], child) for index, child in enumerate(item))


def read_leniently(raw: bytes) -> Any:
    """The value as the standard library reads it, lone surrogates included; None when it cannot either."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
