"""What a worker and the writer of an export say to each other.

To the writer, on standard input: an order in one line, then items, each a line of JSON, then the end of the stream.
From it, on standard output, a line of JSON each: `{"written": n}` now and then, at the end `{"rows": n, "columns": n}`
or `{"refusal": {"code", "message"}}`, the code one of `models.executions.FailureCode`. Nothing of ours is imported that
a child without credentials could not have.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from tasks.export.shaping import Shape

MAX_ANSWER_LINE_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to write: `limit` rows at most, all for None; `memory_bytes` is address space."""

    format: str
    target: str
    shape: Shape
    limit: int | None
    max_columns: int
    memory_bytes: int

    def encode(self) -> bytes:
        """The order as a line."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def decode_order(line: bytes) -> Order:
    """The order in a line."""
    fields: dict[str, Any] = orjson.loads(line)
    shape = fields.pop("shape")
    return Order(
        **fields,
        shape=Shape(
            unwind=shape["unwind"],
            fields=None if shape["fields"] is None else tuple(shape["fields"]),
            omit=tuple(shape["omit"]),
            rename=tuple((path, name) for path, name in shape["rename"]),
            separator=shape["separator"],
            first=tuple(shape["first"]),
        ),
    )
