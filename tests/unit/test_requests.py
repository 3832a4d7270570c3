"""Bodies as bytes: what JSON says is NUL is refused and what only looks so is not, at a cost that is bounded."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ValidationFailed
from schema.requests import read_json

ROOM = 2**20 - 100
PIECES = st.lists(st.sampled_from(["\\", "u0000", "\0", "u", "0000", '"', "a"]), max_size=12).map("".join)


@given(PIECES, PIECES)
def test_nul_is_refused_exactly_where_there_is_one(key: str, text: str) -> None:
    raw = json.dumps({key: [text]}).encode()
    if "\0" in key + text:
        with pytest.raises(ValidationFailed, match="NUL"):
            read_json(raw)
    else:
        assert read_json(raw) == {key: [text]}


def test_the_place_of_a_bad_text_is_named() -> None:
    with pytest.raises(ValidationFailed) as refusal:
        read_json(b'{"variables": {"input": {"names": ["a", "b\\u0000"]}}}')
    assert refusal.value.details["path"] == ["input", "names", 1]
    with pytest.raises(ValidationFailed) as refusal:
        read_json(b'{"variables": {"input": {"a\\ud800": 1}}}')
    assert refusal.value.details["path"] == ["input", "a?"]


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "numbers": lambda bad: b'{"a":"' + bad + b'","b":[' + b"0," * (ROOM // 2 - 20) + b"0]}",
    "numbers deep down": lambda bad: (
        b'{"a":"' + bad + b'","b":' + b"[" * 1_000 + b"0," * (ROOM // 2 - 1_100) + b"0" + b"]" * 1_000 + b"}"
    ),
    "lists": lambda bad: b'{"a":"' + bad + b'","b":[' + b"[]," * (ROOM // 3 - 20) + b"[]]}",
    "texts": lambda bad: b'{"a":"' + bad + b'","b":[' + b'"",' * (ROOM // 3 - 20) + b'""]}',
    "backslashes": lambda bad: b'{"a":"' + b"\\\\" * (ROOM // 2 - 20) + bad + b'"}',
}


@pytest.mark.parametrize("bad", [b"\\u0000", b"\\ud800"], ids=["NUL", "surrogate"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_large_bad_body_is_refused_at_once(kind: str, bad: bytes) -> None:
    """No more than four times what it takes to parse as much without a fault, and a moment."""
    raw, harmless = BODIES[kind](bad), BODIES[kind](b"x")

    def seconds(work: Callable[[], object]) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    def refuse() -> None:
        with pytest.raises(ValidationFailed):
            read_json(raw)

    gc.disable()  # what other tests left is no part of it
    try:
        parsing = max(seconds(lambda: orjson.loads(harmless)) for _ in range(2))
        assert min(seconds(refuse) for _ in range(3)) < 4 * parsing + 0.1
    finally:
        gc.enable()
