"""Whether an item fits what its spider promises for this input: a microsecond when it does, a few when not.

An item that does not fit is kept beside the others with what is wrong in it, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson

MAX_FAULTS: Final = 10
MAX_MESSAGE_CHARACTERS: Final = 300
MAX_VALUE_CHARACTERS: Final = 200


class UnusableSchema(Exception):
    """The spider's output schema is none; the message says why."""


class OutputCheck:
    """A spider's narrowed output schema, compiled."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises UnusableSchema."""
        try:
            plain = orjson.loads(orjson.dumps(schema, default=dict))
            self._validator = jsonschema_rs.Draft202012Validator(plain, offline=True, mask="the value")
        except (jsonschema_rs.ValidationError, ValueError, TypeError) as error:
            raise UnusableSchema(str(error)[:MAX_MESSAGE_CHARACTERS]) from None

    def faults(self, item: Any) -> list[dict[str, Any]]:
        """What is wrong in an item: path, message and the beginning of the value; empty when it fits."""
        if self._validator.is_valid(item):
            return []
        return [
            {
                "path": list(error.instance_path),
                "message": error.message[:MAX_MESSAGE_CHARACTERS],
                "value": orjson.dumps(error.instance).decode()[:MAX_VALUE_CHARACTERS],
            }
            for error in islice(self._validator.iter_errors(item), MAX_FAULTS)
        ]
