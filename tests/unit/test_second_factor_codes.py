"""Codes of second factors: which moments a code is good for, and in how many ways a recovery code can be typed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.mail import compose, recipient
from resolvers import second_factor_codes as codes

RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""RFC 6238, appendix B: the key `12345678901234567890`."""


@pytest.mark.parametrize(
    ("now_seconds", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")],
)
def test_codes_are_those_of_the_standard(now_seconds: int, code: str) -> None:
    """The last six digits of the table in RFC 6238, appendix B."""
    assert codes.matching_step(RFC_SECRET, code, now_seconds=now_seconds) == now_seconds // 30


@given(st.integers(90, 4_000_000_000), st.integers(-3, 3))
@settings(max_examples=30, deadline=None)
def test_a_code_is_good_for_its_step_and_its_neighbours(now_seconds: int, steps_off: int) -> None:
    step = now_seconds // 30 + steps_off
    code = pyotp.TOTP(RFC_SECRET).generate_otp(step)
    found = codes.matching_step(RFC_SECRET, code, now_seconds=now_seconds)
    if abs(steps_off) <= 1:
        assert found is not None
        assert pyotp.TOTP(RFC_SECRET).generate_otp(found) == code
    else:
        assert found is None or found != step


def test_before_the_first_step_there_is_none() -> None:
    code = pyotp.TOTP(RFC_SECRET).generate_otp(0)
    assert codes.matching_step(RFC_SECRET, code, now_seconds=0.0) == 0


@given(st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=16, max_size=16), st.data())
@settings(max_examples=50, deadline=None)
def test_a_recovery_code_is_the_same_however_it_is_typed(code: str, data: st.DataObject) -> None:
    spelled = {"0": "0oO", "1": "1iIlL"}
    typed = "".join(
        data.draw(st.sampled_from(["", "-", " ", "\t"]))
        + data.draw(st.sampled_from(spelled.get(character, character + character.upper())))
        for character in code
    )
    assert codes.typed_recovery(typed) == code
    assert codes.typed_recovery(codes.shown(code)) == code
    assert codes.typed_totp(typed) is None


@pytest.mark.parametrize(
    "typed", ["", "-", "123456", "u" * 16, "0" * 15, "0" * 17, "-" * 65, "０" * 16, "\x00" * 16, "\ud800" * 16]
)
def test_what_is_no_recovery_code_is_none(typed: str) -> None:
    assert codes.typed_recovery(typed) is None


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "²²²²²²", "\ud800", "-12345"])
def test_what_is_no_code_of_an_app_is_none(typed: str) -> None:
    assert codes.typed_totp(typed) is None


def test_a_code_of_an_app_may_be_typed_as_it_is_shown() -> None:
    assert codes.typed_totp(" 081 804 ") == "081804"


def test_codes_of_a_set_are_found_by_how_they_begin() -> None:
    for _ in range(50):
        made = codes.new_recovery_codes()
        assert len(made) == len({codes.prefix_of(code) for code in made}) == 10
        assert all(len(code) == 16 and codes.typed_recovery(code) == code for code in made)


@pytest.mark.parametrize(
    ("base_url", "issuer"),
    [
        ("https://api.example.com:8443", "api.example.com"),
        ("http://localhost:8000", "localhost"),
        ("http://[::1]:8000", "..1"),
        ("", "Switchyard"),
    ],
)
def test_an_app_is_told_where_the_code_is_for(base_url: str, issuer: str) -> None:
    uri = urlsplit(codes.enrolment_uri(RFC_SECRET, account="grace", issuer=codes.issuer_of(base_url)))
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", f"/{issuer}:grace")
    assert parse_qs(uri.query) == {"secret": [RFC_SECRET], "issuer": [issuer]}


def test_a_qr_code_is_one_svg_element_without_script() -> None:
    drawn = ET.fromstring(codes.qr_code(f"otpauth://totp/a:b?secret={RFC_SECRET}&issuer=a"))
    assert drawn.tag.rpartition("}")[2] == "svg"
    assert {each.tag.rpartition("}")[2] for each in drawn.iter()} <= {"svg", "path", "g"}


def test_the_letter_says_what_has_changed() -> None:
    message = compose(
        "two_factor_changed",
        {"username": "grace", "what": "New recovery codes were made.", "then": "The old ones work no longer."},
        sender=recipient("Switchyard", "noreply@example.com"),
        to=recipient("Grace", "grace@example.com"),
        key="k",
        base_url="https://api.example.com",
    )
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        assert part is not None
        text = str(part.get_content())
        for sentence in ("grace", "New recovery codes were made.", "The old ones work no longer."):
            assert sentence in text
