"""Values that break programs: what a fuzzed operation gets in place of the harmless ones that were generated."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

from models.ids import Prefix, encode_id

_NOBODY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

TYPED_IDS = [encode_id(prefix, uuid) for prefix in Prefix for uuid in (_NOBODY, UUID(int=0), UUID(int=2**128 - 1))]
BAD_IDS = [
    "usr_",
    "_",
    "usr_8zzzzzzzzzzzzzzzzzzzzzzzzz",
    "USR_01h455vb4pex5vsknk084sn02q",
    "nix_" + "0" * 26,
    "0",
    "-1",
]
CURSORS = [
    base64.urlsafe_b64encode(text).decode().rstrip("=")
    for text in (b"", b"\0", b"[]", b"null", b'["2026-01-01T00:00:00Z",1]', b"[1e400]", b'{"a":' * 500, b"\xff\xfe")
]
MOMENTS = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "2026-02-30T00:00:00Z",
    "2026-06-30T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "2026-01-01",
    "1969-12-31T23:59:59.999999999Z",
]
TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\u202e\u200b\ufeff",
    "e\u0301" * 50,
    "\U0001f469\u200d\U0001f469" * 20,
    "a" * 10_000,
    "\u00c5" * 60_000,
    "%s%n{}{0}${x}",
    "'; DROP TABLE users; --",
    "%",
    "\\",
    "(a+)+$",
    "../../etc/passwd",
    "-rf",
    "--upload-pack=touch",
    "http://127.0.0.1/",
    "http://[::ffff:127.0.0.1]/",
    "https://user:secret@example.com/a.git",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "a@b@c",
    '"@"@example.com',
    "x@" + "a." * 120 + "com",
    "\r\nSet-Cookie: a=b",
    "NaN",
    "null",
]
INTEGERS = [0, -1, 1, 100, 101, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**63, -(2**63) - 1, 10**40]
FLOATS = [0.5, -0.0, 1e308, 5e-324, float(2**63)]


def texts(known: list[str]) -> st.SearchStrategy[str]:
    """Texts of every kind; often an id or a cursor that an answer named."""
    return st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(TYPED_IDS + BAD_IDS),
        st.sampled_from(CURSORS + MOMENTS),
        # By place and not by value: the list grows while examples are drawn.
        *[st.integers(0, 10_000).map(lambda place: known[place % len(known)] if known else "x")] * 3,
        st.text(max_size=40),
    )


def json_values(known: list[str]) -> st.SearchStrategy[Any]:
    """Anything that JSON has."""
    leaves = st.one_of(st.none(), st.booleans(), st.sampled_from(INTEGERS), st.sampled_from(FLOATS), texts(known))
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    return st.one_of(
        leaves,
        st.just(deep),
        st.recursive(leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(texts(known), part, max_size=3)),
    )


def register_scalars() -> None:
    """Tell schemathesis how our scalars look."""
    schemathesis.graphql.scalar("DateTime", st.datetimes().map(lambda at: nodes.String(f"{at.isoformat()}Z")))
    schemathesis.graphql.scalar("BigInt", st.integers(-(2**53), 2**53).map(nodes.Int))
    decimals = st.decimals(allow_nan=True, places=4).map(str)
    schemathesis.graphql.scalar("Decimal", decimals.map(nodes.String))
    # Files come in forms only: whatever JSON has in their place is to be refused.
    schemathesis.graphql.scalar("Upload", st.text(max_size=20).map(nodes.String))
    schemathesis.graphql.scalar("JSON", st.text(max_size=20).map(nodes.String))
