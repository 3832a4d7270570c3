"""Typed ids: the text form of UUIDs follows the TypeID specification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ids import MalformedId, decode_id, encode_id, id_at, new_id


@pytest.mark.parametrize(
    ("uuid", "suffix"),
    [  # from the specification's table of valid ids
        ("00000000-0000-0000-0000-000000000000", "00000000000000000000000000"),
        ("00000000-0000-0000-0000-000000000001", "00000000000000000000000001"),
        ("00000000-0000-0000-0000-00000000000a", "0000000000000000000000000a"),
        ("00000000-0000-0000-0000-000000000020", "00000000000000000000000010"),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", "7zzzzzzzzzzzzzzzzzzzzzzzzz"),
        ("0110c853-1d09-52d8-d73e-1194e95b5f19", "0123456789abcdefghjkmnpqrs"),
        ("01890a5d-ac96-774b-bcce-b302099a8057", "01h455vb4pex5vsknk084sn02q"),
    ],
)
def test_text_is_as_the_specification_says(uuid: str, suffix: str) -> None:
    assert encode_id("run", UUID(uuid)) == f"run_{suffix}"
    assert decode_id(f"run_{suffix}") == ("run", UUID(uuid))


@given(st.uuids())
def test_what_is_encoded_is_decoded(uuid: UUID) -> None:
    assert decode_id(encode_id("job", uuid)) == ("job", uuid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run",
        "run_",
        "_01h455vb4pex5vsknk084sn02q",
        "01h455vb4pex5vsknk084sn02q",
        "run_01h455vb4pex5vsknk084sn02",
        "run_01h455vb4pex5vsknk084sn02qq",
        "run_8zzzzzzzzzzzzzzzzzzzzzzzzz",  # more than 128 bits
        "run_01H455VB4PEX5VSKNK084SN02Q",  # upper case
        "run_01h455vb4pex5vsknk084sn02u",  # not in the alphabet
        "run_01h455vb4pex5vsknk084sn02\u0661",  # a digit, elsewhere
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedId):
        decode_id(text)


def test_ids_are_in_the_order_of_creation() -> None:
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(made)
    assert {each.version for each in made} == {7}


def test_ids_of_the_past_are_versions_seven_of_their_moment() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)
    made = [id_at(moment) for _ in range(100)]
    assert len(set(made)) == 100
    assert {(each.version, each.int >> 80) for each in made} == {(7, int(moment.timestamp() * 1_000))}
    assert max(made) < id_at(moment + timedelta(milliseconds=1)) < new_id()
