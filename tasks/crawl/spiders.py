"""The spiders of this installation: their contracts, and whether an input fulfils one.

Readable without Scrapy (a second of import that the API would pay for nothing): code that crawls lives in
`tasks.crawl.crawler`, in a process of its own. A spider that ships is listed here by one line, its module being the
contract; packages that are installed beside Switchyard may bring others (`installed_spiders`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from jsonschema import Draft202012Validator

from tasks.crawl import articles, catalogue, directory_search, installed_spiders, property_listings, sitemap
from tasks.crawl.contracts import InputFault, SpiderDefinition, SpiderUnusable, nothing_more
from tasks.crawl.installed_spiders import InstalledSpider
from tasks.crawl.selectors import SelectorError, to_xpath

MAX_MESSAGE_CHARACTERS = 300
"""jsonschema quotes the faulty value; nobody wants to read all of it."""

_log = logging.getLogger("switchyard.spiders")  # crawlers read this module and do without structlog

SHIPPED: Final[Mapping[str, SpiderDefinition]] = MappingProxyType(
    {
        module.NAME: SpiderDefinition(
            module.NAME,
            module.TITLE,
            module.DESCRIPTION,
            module.INPUT_SCHEMA,
            module.OUTPUT_SCHEMA,
            module.EXAMPLE_INPUT,
            module.output_schema,
            module.CRAWLER_CLASS,
            getattr(module, "more_faults", nothing_more),
            getattr(module, "DATASET", None),
        )
        for module in (catalogue, property_listings, directory_search, sitemap, articles)
    }
)
"""By name."""


class Spiders(Mapping[str, SpiderDefinition]):
    """The spiders that can be used, by name. Packages are looked through at the first question after those that ship.

    A faulty one is logged then and left out; `installed` tells of it.
    """

    def __getitem__(self, name: str) -> SpiderDefinition:
        shipped = SHIPPED.get(name)
        return shipped if shipped is not None else _usable()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**SHIPPED, **_usable()})

    def __len__(self) -> int:
        return len(SHIPPED) + len(_usable())


SPIDERS: Final = Spiders()


@cache
def installed() -> tuple[InstalledSpider, ...]:
    """What other packages bring, faulty ones with the reason; looked for once."""
    spiders = tuple(installed_spiders.found(SHIPPED))
    for spider in spiders:
        if spider.definition is None:
            told = {"spider": spider.name, "package": spider.package, "reason": spider.reason}
            _log.warning("spider_not_usable", extra=told)
    return spiders


@cache
def _usable() -> Mapping[str, SpiderDefinition]:
    return {spider.name: spider.definition for spider in installed() if spider.definition is not None}


def only(name: str) -> SpiderDefinition:
    """One spider, without importing the others' packages; raises SpiderUnusable with the reason."""
    if name in SHIPPED:
        return SHIPPED[name]
    for spider in installed_spiders.found(SHIPPED, only=name):
        if spider.definition is not None:
            return spider.definition
        raise SpiderUnusable(f"The spider {name!r} of {spider.package} cannot be used: {spider.reason}.")
    raise SpiderUnusable(f"There is no spider {name!r}.")


def input_faults(spider: SpiderDefinition, spider_input: Any) -> list[InputFault]:
    """Everything wrong with an input: against the schema, then expressions and the rest; empty if fine."""
    errors = sorted(
        Draft202012Validator(dict(spider.input_schema)).iter_errors(spider_input), key=lambda e: e.json_path
    )
    if errors:
        return [InputFault(tuple(error.absolute_path), error.message[:MAX_MESSAGE_CHARACTERS]) for error in errors]
    return [*_expression_faults(spider_input, ()), *spider.more_faults(spider_input)]


def output_columns(name: str, spider_input: Mapping[str, Any]) -> list[str]:
    """The fields that an input asks a spider for, in its order; none when it is faulty or there is no such spider."""
    spider = SPIDERS.get(name)
    if spider is None or input_faults(spider, spider_input):
        return []
    return list(spider.narrow_output(spider_input)["properties"])


def _expression_faults(value: Any, path: tuple[str | int, ...]) -> Iterator[InputFault]:
    """Selectors and patterns are known by their keys, so that a new spider's input is covered by itself."""
    if isinstance(value, list):
        is_patterns = bool(path) and str(path[-1]).endswith("Patterns")
        for position, item in enumerate(value):
            here = (*path, position)
            yield from _pattern_faults(item, here) if is_patterns else _expression_faults(item, here)
    elif isinstance(value, dict):
        for key, item in value.items():
            here = (*path, key)
            if key in ("css", "xpath") and isinstance(item, str):
                try:
                    to_xpath({key: item})
                except SelectorError as error:
                    yield InputFault(here, str(error))
            elif (key == "regex" or key.endswith("Pattern")) and isinstance(item, str):
                yield from _pattern_faults(item, here)
            else:
                yield from _expression_faults(item, here)


def _pattern_faults(pattern: str, path: tuple[str | int, ...]) -> Iterator[InputFault]:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        yield InputFault(path, f"not a regular expression: {error}")
