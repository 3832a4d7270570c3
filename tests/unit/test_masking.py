"""Masking: no form of a secret gets through, wherever the text is cut; all other bytes do, each where it was."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
import string
import time
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.masking import MASK, PIECE_BYTES, Masker, MaskingStream, forms_of
from tasks.terminal_text import TerminalText, terminal_text

SECRET = "p@ss w0rd/+ü<&>\"'\\$x"
LONG = hashlib.sha3_512(b"long").hexdigest() + base64.b85encode(hashlib.shake_256(b"long").digest(500)).decode()
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n"


def masked(masker: Masker, chunks: Iterable[bytes]) -> bytes:
    stream = MaskingStream(masker)
    return b"".join([*(stream.feed(chunk) for chunk in chunks), stream.close()])


def chunked(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def mask_simply(data: bytes, forms: Iterable[bytes]) -> bytes:
    """What masking means, in quadratic time: look everywhere for everything, join what touches."""
    is_secret = bytearray(len(data))
    for form in forms:
        at = data.find(form)
        while at >= 0:
            is_secret[at : at + len(form)] = b"\x01" * len(form)
            at = data.find(form, at + 1)
    return b"".join(
        MASK if is_secret[run.start()] else data[run.start() : run.end()]
        for run in re.finditer(rb"\x00+|\x01+", is_secret)
    )


# -- forms


def as_go_does(text: str) -> str:
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


@pytest.mark.parametrize(
    "write",
    [
        str,
        lambda value: value.encode().hex(),
        lambda value: value.encode().hex().upper(),
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(value).replace("/", "\\/"),
        lambda value: as_go_does(json.dumps(value, ensure_ascii=False)),
        lambda value: as_go_does(json.dumps({"key": value})),
        lambda value: quote(value, safe=""),
        quote,
        quote_plus,
        lambda value: quote(value, safe="").lower(),
        lambda value: quote(value, safe="!'()*~"),
        lambda value: urlencode({"key": value}),
        escape,
        html.escape,
        lambda value: escape(value, {'"': "&quot;"}),
        lambda value: escape(value, {'"': "&quot;", "'": "&apos;"}),
        lambda value: escape(value, {'"': "&#34;", "'": "&#39;"}),
        shlex.quote,
        lambda value: "'" + value.replace("'", "'\\''") + "'",
        lambda value: re.sub(r"([^\w@%+=:,./-])", r"\\\1", value),
        lambda value: '"' + re.sub(r'(["$`\\])', r"\\\1", value) + '"',
        lambda value: "$'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'",
        repr,
        lambda value: repr({"key": value}),
    ],
)
def test_a_value_is_masked_however_programs_write_it(write: Callable[[str], str]) -> None:
    text = Masker([("KEY", SECRET)]).mask(f"before {write(SECRET)} after")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert MASK.decode() in text
    # Of what was written only quotes and what stands around the value is left.
    assert set(text[7:-6]) <= set("*'\"$ {}keya:=")


@given(
    st.binary(max_size=12),
    st.text(min_size=4, max_size=60).filter(lambda value: len(value.strip()) >= 4),
    st.binary(max_size=12),
    st.booleans(),
)
@settings(deadline=None)
def test_a_value_inside_of_base64_is_masked_but_for_its_edges(
    before: bytes, value: str, after: bytes, is_url_safe: bool
) -> None:
    masker = Masker([("KEY", value)])
    if masker.unmasked_names:
        return
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    encoded = encode(before + value.strip().encode() + after).decode()
    start, end = 8 * len(before), 8 * (len(before) + len(value.strip().encode()))
    # A character that also holds bits of a neighbour may stay: at most one on either side.
    left = masker.mask(encoded).replace("***", "")
    assert len(left) <= len(encoded) - (end // 6 - -(-start // 6))


@pytest.mark.parametrize("columns", [64, 76])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_base64_broken_into_lines_is_masked(columns: int, end: bytes) -> None:
    value = LONG[:300]
    encoded = base64.b64encode(value.encode() + end).decode()
    lines = [encoded[at : at + columns] for at in range(0, len(encoded), columns)]
    assert len(lines) > 5
    left = Masker([("KEY", value)]).mask("\n".join(lines))
    assert [len(line) <= 7 for line in left.split("\n")] == [True] * len(lines)


@pytest.mark.parametrize("join", ["\n", "\r\n", "\n    ", "\n\n", "\\n", " | "])
def test_each_line_of_a_value_is_masked(join: str) -> None:
    lines = PEM.strip().split("\n")
    text = Masker([("KEY", PEM)]).mask(f"<{join.join(lines)}>")
    assert not [line for line in lines if line in text]
    assert text == f"<{join.join(['***'] * len(lines))}>"


def test_a_masked_line_takes_no_line_end_with_it() -> None:
    assert Masker([("KEY", "  secret\n"), ("PEM", PEM)]).mask(f"a secret\nb\n{PEM}c\n") == (
        "a ***\nb\n***\n***\n***\n***\nc\n"
    )


def test_lines_too_short_to_stand_alone_are_masked_within_their_value() -> None:
    value = "ab\ncd\nlong enough"
    masker = Masker([("KEY", value)])
    for text in (value, value.replace("\n", "\r\n")):
        assert masker.mask(f"<{text}>") == "<***>"
    assert masker.mask("ab cd long enough") == "ab cd ***"


@pytest.mark.parametrize("value", ["", "abc", "  abc  ", "true", "False", "NULL", "production", "\n\n", "été"])
def test_short_and_common_values_are_left_alone_and_named(value: str) -> None:
    masker = Masker([("PLAIN", value), ("KEY", "geheim")])
    assert masker.unmasked_names == (("PLAIN",) if value else ())
    text = f"a true false null abc production {value} été"
    assert masker.mask(text) == text


def test_a_part_of_a_long_value_is_masked() -> None:
    text = Masker([("KEY", LONG)]).mask(f"<{LONG[:300]}>")
    assert text == f"<***{LONG[2 * PIECE_BYTES : 300]}>"


def test_overlapping_secrets_become_one_mask() -> None:
    masker = Masker([("A", "abcdef"), ("B", "defghi"), ("C", "hijk"), ("D", "cdef")])
    assert masker.mask("-abcdefghijk-abcdefabcdef-cdefghi-abcde") == "-***-***-***-abcde"


def test_a_secret_within_what_was_found_reaches_beyond_it() -> None:
    """The longest match at `x` hides that another secret begins inside of it."""
    assert Masker([("A", "xabcab"), ("B", "abcabd"), ("C", "cabd")]).mask("<xabcabd>") == "<***>"


def test_a_shorter_secret_within_what_was_found_is_seen_beside_longer_ones() -> None:
    masker = Masker([("A", "xxab"), ("B", "abcd"), ("C", "abcdaa"), ("D", "abcdab")])
    assert masker.mask("<xxabcdaz>") == "<***az>"


def test_many_long_values_are_masked_in_the_usual_forms_and_short_ones_in_all() -> None:
    """All forms of 128 KiB would take hundreds of megabytes."""
    values = [base64.b85encode(hashlib.shake_256(b"%d" % number).digest(26_000)).decode() for number in range(4)]
    tracemalloc.start()
    try:
        masker = Masker([*((str(number), value) for number, value in enumerate(values)), ("KEY", SECRET)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    for value in values:
        data = value.encode()
        written = [value, json.dumps(value)[1:-1], data.hex(), quote(value, safe="")]
        assert {masker.mask(text) for text in written} == {"***"}
        assert len(masker.mask(base64.b64encode(data).decode())) <= 6
    assert masker.mask(html.escape(SECRET)) == "***"


def test_nothing_is_held_or_masked_without_secrets() -> None:
    stream = MaskingStream(Masker([]))
    assert stream.feed(b"any\xff") == b"any\xff"
    assert stream.close() == b""
    assert Masker([]).mask("any") == "any"


def test_messages_may_hold_what_utf8_does_not_have() -> None:
    assert Masker([("KEY", "geheim")]).mask("\ud800 geheim \udfff") == "\ud800 *** \udfff"


def test_values_in_other_scripts_are_masked_in_text_and_in_bytes() -> None:
    masker = Masker([("KEY", "пароль"), ("EMOJI", "🔑🔑🔑🔑")])
    assert masker.mask("x пароль 🔑🔑🔑🔑 y") == "x *** *** y"
    assert masked(masker, [b"\xff\xd0", "пароль".encode(), b"\xbf"]) == b"\xff\xd0***\xbf"


def test_a_value_with_colours_is_masked_once_they_are_gone() -> None:
    value = "gehe\x1b[31mim-wort"
    assert Masker([("KEY", value)]).mask("a geheim-wort") == "a ***"


# -- streams


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_form_survives_any_cutting(data: st.DataObject) -> None:
    # Without the star, of which masks consist: a text beside a mask could spell a secret by chance.
    alphabet = st.characters(exclude_characters="*", exclude_categories=["Cs"])
    values = data.draw(st.lists(st.text(alphabet | st.sampled_from("\n\r &'\""), max_size=30), max_size=4))
    secrets = [(str(index), value) for index, value in enumerate(values)]
    forms = sorted(set().union(*map(forms_of, values)))
    parts = st.binary(max_size=10).map(lambda part: part.replace(b"*", b""))
    text = b"".join(data.draw(st.lists(parts | st.sampled_from(forms or [b""]), max_size=12)))
    cuts = data.draw(st.lists(st.integers(0, 2_000), max_size=20))

    left = masked(Masker(secrets), chunked(text, cuts))

    assert not [form for form in forms if form in left]
    assert left == masked(Masker(secrets), [text])


@given(
    st.lists(st.text("ab", min_size=4, max_size=9), min_size=1, max_size=6),
    st.text("abc", max_size=80),
    st.lists(st.integers(0, 80), max_size=40),
)
@settings(max_examples=500, deadline=None)
@example(["abab", "babaa"], "ababaabab", list(range(10)))
def test_cut_anywhere_exactly_the_occurrences_are_masked(values: list[str], text: str, cuts: list[int]) -> None:
    masker = Masker([("KEY", value) for value in values])
    expected = mask_simply(text.encode(), set().union(*map(forms_of, values)))
    assert masked(masker, chunked(text.encode(), cuts)) == expected
    assert masker.mask(text).encode() == expected


@given(
    st.lists(st.text(string.ascii_letters, min_size=8, max_size=40), max_size=5),
    st.binary(max_size=300),
    st.lists(st.integers(0, 300), max_size=20),
)
@settings(deadline=None)
def test_bytes_without_secrets_pass_unchanged(values: list[str], data: bytes, cuts: list[int]) -> None:
    if any(form in data for value in values for form in forms_of(value)):
        return
    assert masked(Masker([("KEY", value) for value in values]), chunked(data, cuts)) == data


def test_a_prompt_shows_before_its_line_ends() -> None:
    stream = MaskingStream(Masker([("KEY", "geheim"), ("PEM", PEM)]))
    assert stream.feed(b"Continue? [y/N] ") == b"Continue? [y/N] "


def test_only_what_may_be_a_beginning_is_held_back() -> None:
    stream = MaskingStream(Masker([("KEY", "geheim")]))
    assert stream.feed(b"the gehe") == b"the "
    assert stream.feed(b"ge") == b"gehe"
    assert stream.feed(b"heim") == b"***"
    assert stream.feed(b"g") == b""
    assert stream.close() == b"g"
    assert stream.feed(b"eheim") == b"eheim"


@pytest.mark.parametrize("value", ["geheim", SECRET, PEM])
def test_every_form_is_held_up_to_its_last_byte(value: str) -> None:
    masker = Masker([("KEY", value)])
    for form in forms_of(value):
        stream = MaskingStream(masker)
        given = stream.feed(form[:-1]) + stream.feed(form[-1:]) + stream.close()
        assert given == MASK, form


def test_a_secret_that_begins_a_longer_one_waits_for_it() -> None:
    stream = MaskingStream(Masker([("A", "geheim"), ("B", "geheimnis")]))
    assert stream.feed(b"x geheim") == b"x "
    assert stream.feed(b"nis y geheim") == b"*** y "
    assert stream.feed(b"er") == b"***er"


def test_a_mask_is_not_repeated_for_what_overlaps_a_cut() -> None:
    stream = MaskingStream(Masker([("A", "abcdef"), ("B", "efghij")]))
    given = [stream.feed(bytes([byte])) for byte in b"-abcdefghij-abcdefabcdef-abcdefghi-"]
    assert b"".join([*given, stream.close()]) == b"-***-***-***ghi-"


def test_what_is_held_is_bounded_whatever_comes() -> None:
    value = "a" * 50_000 + "b"
    stream = MaskingStream(Masker([("KEY", value)]))
    tracemalloc.start()
    try:
        given = [len(stream.feed(b"a" * 1_000)) for _ in range(100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(given) <= 3  # one mask, which goes on
    assert peak < 60_000


def test_masking_stays_quick_for_hostile_secrets_and_text() -> None:
    masker = Masker([("KEY", "\n".join("a" * size for size in range(4, 300)))])
    for hostile in (b"a" * 65_536, (b"a" * 126 + b"c") * 500):
        began = time.thread_time()
        masked(masker, [hostile])
        assert time.thread_time() - began < 4


def test_seven_hundred_patterns_cost_little() -> None:
    masker = Masker([(f"KEY{index}", f"{index:03}{'x' * (index % 30)}-secret-{index * 7919}") for index in range(100)])
    line = b"transforming src/components/Thing.tsx (412 modules) in 33 ms, gzip 12.3 kB, brotli 11.1 kB\n"
    block = line * 600
    seconds = []
    for _ in range(10):
        began = time.thread_time()
        assert MaskingStream(masker).feed(block) == block
        seconds.append(time.thread_time() - began)
    assert min(seconds) / 600 < 20e-6  # the least: what disturbs a thread only adds to it


# -- what a terminal would leave


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"\x1b[31mred\x1b[0m", b"red"),
        (b"\x1b[38;5;196;1mred\x1b[m", b"red"),
        (b"\x1b]8;;https://example.com\x07link\x1b]8;;\x1b\\", b"link"),
        (b"\x1b]0;title\x07text", b"text"),
        (b"\x1bPdata\x1b\\text\x1b_x\x1b\\", b"text"),
        (b"\x1b(Btext\x1b=\x1b7\x1bM", b"text"),
        (b"one\x1b[2K\x1b[1Gtwo", b"one\r\rtwo"),
        (b"a\x00b\x08c\x7fd\x07\te\r\n", b"abcd\te\r\n"),
        (b"\x1b[?25l\x1b[2A\x1b[0Ktext", b"text"),
        ("grün 🔑".encode(), "grün 🔑".encode()),
        (b"\x1b", b""),
        (b"\x1b\x1b[1mx", b"x"),
        # No end to it: text, not a hole that takes the rest of the log.
        (b"\x1b]0;no end\nnext line", b"]0;no end\nnext line"),
        (b"\x1b[" + b"1" * 100 + b"m", b"[" + b"1" * 100 + b"m"),
        (b"\x1b]" + b"x" * 5_000 + b"\x07", b"]" + b"x" * 5_000),
    ],
)
def test_sequences_go_and_text_stays_wherever_it_is_cut(data: bytes, left: bytes) -> None:
    assert terminal_text(data) == left
    stream = TerminalText()
    assert b"".join([*(stream.feed(bytes([byte])) for byte in data), stream.close()]) == left


@given(st.text("\x1b[]0;1mK\x07\\\n(Px").map(str.encode), st.lists(st.integers(0, 100), max_size=20))
@settings(max_examples=500, deadline=None)
def test_where_sequences_are_cut_does_not_matter(data: bytes, cuts: list[int]) -> None:
    stream = TerminalText()
    left = b"".join([*(stream.feed(chunk) for chunk in chunked(data, cuts)), stream.close()])
    assert left == terminal_text(data)
    assert b"\x1b" not in left


@pytest.mark.parametrize("hostile", [b"\x1b]", b"\x1b[", b"\x1b[0;", b"\x1b", b"\x1bP\x1b", b"\x1b]0;x"])
def test_hostile_sequences_take_linear_time_and_no_memory(hostile: bytes) -> None:
    stream = TerminalText()
    data = hostile * (262_144 // len(hostile))
    began = time.thread_time()
    for at in range(0, len(data), 4_096):
        stream.feed(data[at : at + 4_096])
    assert time.thread_time() - began < 2
    assert len(stream.close()) < 4_096
