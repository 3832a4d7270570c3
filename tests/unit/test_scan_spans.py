"""Where quotations stand: exactly, loosely, on which page, or nowhere."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.scan.spans import Locator, Span

TEXT = "First  page: “It’s late – very”.\fSecond\npage, “It’s late – very”. Café."


def test_a_quotation_is_found_exactly_and_again_at_its_next_place() -> None:
    locator = Locator(TEXT)
    quotation = "“It’s late – very”."
    first, second = TEXT.index(quotation), TEXT.rindex(quotation)
    spans = [locator.locate(quotation) for _ in range(3)]
    assert spans == [
        Span(first, first + len(quotation), 1),
        Span(second, second + len(quotation), 2),
        Span(first, first + len(quotation), 1),
    ]


@pytest.mark.parametrize(
    ("quotation", "found"),
    [
        ("First page:", "First  page:"),
        ('Second page, "It\'s late - very".', "Second\npage, “It’s late – very”."),
        ("... It's late - very ...", "It’s late – very"),
        ('"Second page"', "Second\npage"),
    ],
)
def test_spaces_quotes_dashes_and_ellipses_do_not_matter(quotation: str, found: str) -> None:
    span = Locator(TEXT).locate(quotation)
    assert span is not None
    assert TEXT[span.start : span.end] == found


@pytest.mark.parametrize("quotation", ["", " \n", "not in it", "…", "late very page", "first page:"])
def test_what_is_not_there_has_no_place(quotation: str) -> None:
    assert Locator(TEXT).locate(quotation) is None


def test_a_hint_is_believed_only_if_it_is_true() -> None:
    second = TEXT.rindex("“It’s")
    locator = Locator(TEXT)
    assert locator.locate("“It’s late", hint=second) == Span(second, second + 10, 2)
    lie = locator.locate("“It’s late", hint=3)
    assert lie is not None
    assert lie.start == TEXT.index("“It’s")
    assert Locator("ab").locate("b", hint=99) == Span(1, 2, None)


@given(st.text(max_size=60), st.text(max_size=20))
def test_a_span_is_always_one_of_the_text(text: str, quotation: str) -> None:
    span = Locator(text).locate(quotation)
    if quotation.strip() and quotation in text:
        assert span is not None
        assert text[span.start : span.end] == quotation
    if span is not None:
        assert 0 <= span.start < span.end <= len(text)


def test_many_quotations_in_a_long_text_take_bounded_time() -> None:
    locator = Locator("ab " * 300_000)
    started = time.process_time()
    for number in range(200):
        locator.locate("ab " * 50 + f"x{number}")
    assert time.process_time() - started < 10
