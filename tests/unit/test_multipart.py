"""The reader of forms: however a body is cut into chunks, it is the same form."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from schema.multipart import PART_END, FormReader, Part, PartHead, read_form

HEAD = b'Content-Disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: text/plain\r\n\r\n'
ALMOST = st.lists(
    st.sampled_from([b"\r\n", b"--", b"b", b"\r\n--", b"\r", b"\n", b"x", b"--b", b"\n--b"]), max_size=12
).map(b"".join)


def written(*contents: bytes) -> bytes:
    parts = [b"--b\r\n" + HEAD % (b"%d" % place, b"f") + content + b"\r\n" for place, content in enumerate(contents)]
    return b"".join(parts) + b"--b--\r\n"


def fed(body: bytes, cuts: list[int]) -> list[Part]:
    reader = FormReader("b")
    parts: list[Part] = []
    head, content = None, b""
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        for piece in reader.feed(body[start:end]):
            if isinstance(piece, bytes):
                content += piece
            elif isinstance(piece, PartHead):
                head, content = piece, b""
            else:
                assert piece is PART_END
                assert head is not None
                parts.append(Part(head.name, head.filename, content))
    reader.end()
    return parts


@settings(max_examples=60, deadline=None)
@given(contents=st.lists(ALMOST, min_size=1, max_size=3), data=st.data())
def test_chunks_make_no_difference(contents: list[bytes], data: st.DataObject) -> None:
    if any(b"\r\n--b" in b"\r\n" + content for content in contents):
        return  # a delimiter is a delimiter
    body = written(*contents)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    expected = [Part(str(place), "f", content) for place, content in enumerate(contents)]
    assert fed(body, cuts) == read_form(body, "b") == expected


def test_a_body_may_come_byte_by_byte() -> None:
    body = b"preamble\r\n" + written(b"\r\n--", bytes(range(256))) + b"epilogue"
    assert fed(body, list(range(1, len(body)))) == read_form(body, "b")


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=300) | ALMOST.map(lambda end: written(b"x")[:40] + end))
def test_anything_is_a_form_or_refused(body: bytes) -> None:
    try:
        read_form(body, "b")
    except ValidationFailed:
        return


@pytest.mark.parametrize("line", [b"\r\n", b"\r\n--", b"\r\n--b", b"-", b"\r"])
def test_the_time_is_linear(line: bytes) -> None:
    reader = FormReader("b" * 70)
    reader.feed(b"--" + b"b" * 70 + b"\r\n" + HEAD % (b"a", b"a"))
    chunk = line * (65_536 // len(line))
    started = time.perf_counter()
    for _ in range(32):
        reader.feed(chunk)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("extra", [b"X: y\nContent-Type: text/html", b"X" * 5_000 + b": y", b"X: y\r\n" * 9 + b"Z: z"])
def test_headers_are_bounded_and_one_line_each(extra: bytes) -> None:
    with pytest.raises(ValidationFailed):
        read_form(b'--b\r\nContent-Disposition: form-data; name="a"\r\n' + extra + b"\r\n\r\nx\r\n--b--\r\n", "b")
