"""Reads what the rules of an input say of one part of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parsel import Selector

from tasks.crawl.crawler.spiders.base import Fault
from tasks.crawl.selectors import FieldRule, ValueFault


def read_fields(rules: Sequence[FieldRule], node: Selector, base: str) -> tuple[dict[str, Any], list[Fault]]:
    """Each field's value, None or an empty list where there is none, and what could not be read."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for position, rule in enumerate(rules):
        try:
            values[rule.name] = rule.value(node, base)
        except ValueFault as fault:
            values[rule.name] = [] if rule.is_list else None
            faults.append(Fault(f"{rule.name}: {fault}", ("fields", position)))
    return values, faults


def says_nothing(values: dict[str, Any]) -> bool:
    """Whether no field has a value."""
    return all(value in (None, []) for value in values.values())
