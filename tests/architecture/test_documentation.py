"""Operations that the documentation shows are valid: readers paste them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from graphql import build_schema, parse, specified_rules, validate
from graphql.validation import LoneAnonymousOperationRule

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
SHOWN = [
    pytest.param(block, id=f"{page.stem}-{place}")
    for page in PAGES
    for place, block in enumerate(re.findall(r"```graphql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
# A block may show several operations, of which a reader takes one.
RULES = [rule for rule in specified_rules if rule is not LoneAnonymousOperationRule]
SCHEMA = build_schema((CHECKOUT / "schema.graphql").read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", SHOWN)
def test_operations_that_are_shown_are_valid(block: str) -> None:
    assert validate(SCHEMA, parse(block), RULES) == []


def test_there_is_something_to_check() -> None:
    assert len(SHOWN) >= 20
