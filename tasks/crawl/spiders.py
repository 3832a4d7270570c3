"""The spiders that Switchyard ships: their contracts, and whether an input fulfils one.

Readable without Scrapy (a second of import that the API would pay for nothing): code that crawls lives in
`tasks.crawl.crawler`, in a process of its own. A spider is listed here by one line, its module being the contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jsonschema import Draft202012Validator

from tasks.crawl import catalogue, property_listings
from tasks.crawl.selectors import SelectorError, to_xpath

MAX_MESSAGE_CHARACTERS = 300
"""jsonschema quotes the faulty value; nobody wants to read all of it."""


@dataclass(frozen=True)
class SpiderDefinition:
    """One spider's contract."""

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    example_input: Mapping[str, Any]
    narrow_output: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """`output_schema` for one valid input: what each item is checked against."""


@dataclass(frozen=True)
class InputFault:
    """What is wrong in an input and where; `path` leads there from the input's root."""

    path: tuple[str | int, ...]
    message: str


SPIDERS: Mapping[str, SpiderDefinition] = MappingProxyType(
    {
        module.NAME: SpiderDefinition(
            module.NAME,
            module.TITLE,
            module.DESCRIPTION,
            module.INPUT_SCHEMA,
            module.OUTPUT_SCHEMA,
            module.EXAMPLE_INPUT,
            module.output_schema,
        )
        for module in (catalogue, property_listings)
    }
)
"""By name."""


def input_faults(spider: SpiderDefinition, spider_input: Any) -> list[InputFault]:
    """Everything wrong with an input: against the schema, then selectors and regular expressions; empty if fine."""
    errors = sorted(
        Draft202012Validator(dict(spider.input_schema)).iter_errors(spider_input), key=lambda e: e.json_path
    )
    if errors:
        return [InputFault(tuple(error.absolute_path), error.message[:MAX_MESSAGE_CHARACTERS]) for error in errors]
    return list(_expression_faults(spider_input, ()))


def _expression_faults(value: Any, path: tuple[str | int, ...]) -> Iterator[InputFault]:
    """Selectors and patterns are known by their keys, so that a new spider's input is covered by itself."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _expression_faults(item, (*path, position))
    elif isinstance(value, dict):
        for key, item in value.items():
            here = (*path, key)
            if key in ("css", "xpath") and isinstance(item, str):
                try:
                    to_xpath({key: item})
                except SelectorError as error:
                    yield InputFault(here, str(error))
            elif (key == "regex" or key.endswith("Pattern")) and isinstance(item, str):
                try:
                    re.compile(item)
                except (re.error, RecursionError, OverflowError) as error:
                    yield InputFault(here, f"not a regular expression: {error}")
            else:
                yield from _expression_faults(item, here)
