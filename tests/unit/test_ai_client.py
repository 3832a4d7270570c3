"""What answers of an AI service are taken for; how they come over HTTP is in tests/worker/test_scan_kind.py."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import ai

GOOD = {"risk": "A delay", "category": "schedule", "context": "It is late."}
NUL_TEXT = "a" + chr(0)


def answer(*risks: Any, **beside: Any) -> bytes:
    return json.dumps({"data": list(risks), "source": "llm", **beside}).encode()


def test_the_plain_contract_is_enough() -> None:
    read = ai.read_answer(answer(GOOD))
    assert (read.source, read.is_truncated, read.extra, dict(read.provenance)) == ("llm", False, None, {})
    assert read.risks == (ai.Risk("A delay", "schedule", "It is late."),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"data": {}, "source": "llm"}',
        b'{"data": [], "source": null}',
        b'{"data": [], "source": "LLM"}',
        b'{"source": "llm"}',
        answer("text"),
        answer([]),
        answer({**GOOD, "risk": ""}),
        answer({**GOOD, "risk": None}),
        answer({**GOOD, "category": " "}),
        answer({**GOOD, "context": 5}),
        b'{"data": [{"risk": "\\ud800", "category": "a", "context": ""}], "source": "llm"}',
        b'{"data": ' + b"[" * 2_000 + b"]" * 2_000 + b', "source": "llm"}',
        answer({**GOOD, "deep": json.loads("[" * 300 + "]" * 300)}),
    ],
)
def test_what_is_not_of_the_contract_is_not_understood(content: bytes) -> None:
    with pytest.raises(ai.NotUnderstood):
        ai.read_answer(content)


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [
        ("severity", "high", "HIGH"),
        ("severity", "terrible", None),
        ("severity", 3, None),
        ("confidence", 1, 1.0),
        ("confidence", True, None),
        ("confidence", 1.5, None),
        ("page", 0, None),
        ("page", 7, 7),
        ("page", True, None),
        ("start", -1, None),
        ("start", 2**40, None),
        ("rule", " r\n1 ", "r 1"),
        ("rule", "", None),
        ("cue", 5, None),
    ],
)
def test_known_fields_are_taken_if_they_make_sense_and_kept_raw_if_not(field: str, value: Any, taken: Any) -> None:
    [risk] = ai.read_answer(answer({**GOOD, field: value})).risks
    assert getattr(risk, field) == taken
    kept = {} if risk.extra is None else json.loads(risk.extra)
    assert kept == ({} if taken is not None else {field: value})


def test_identity_and_judgement_are_not_the_services() -> None:
    [risk] = ai.read_answer(answer({**GOOD, "fingerprint": "f" * 64, "severity_source": "RULE", "end": 3})).risks
    assert risk.extra is None


def test_text_that_cannot_be_stored_is_replaced() -> None:
    read = ai.read_answer(answer({**GOOD, "context": NUL_TEXT, "more": {NUL_TEXT: [NUL_TEXT, 1]}}, note=NUL_TEXT))
    assert read.risks[0].context == "a\ufffd"
    assert json.loads(read.risks[0].extra or "") == {"more": {"a\ufffd": ["a\ufffd", 1]}}
    assert json.loads(read.extra or "") == {"note": "a\ufffd"}


def test_more_risks_than_can_be_kept_are_cut() -> None:
    read = ai.read_answer(answer(*[GOOD] * (ai.MAX_RISKS + 1)))
    assert (len(read.risks), read.is_truncated) == (ai.MAX_RISKS, True)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "severity", "page", "confidence", "x"]), JSON_VALUES), JSON_VALUES)
def test_nothing_that_is_sent_breaks_the_reader(risk: dict[str, Any], beside: Any) -> None:
    content = json.dumps({"data": [risk], "source": "model", "beside": beside}).encode()
    try:
        read = ai.read_answer(content)
    except ai.NotUnderstood:
        return
    for text in (read.extra, *(each.extra for each in read.risks)):
        assert text is None or "\\u0000" not in text
        assert text is None or orjson.loads(text)
