"""What a spider promises: the contract that each one has beside the class that crawls.

A contract is readable without Scrapy and names its class instead of importing it, because the API lists contracts and
only a crawler process needs the class. Packages that bring spiders of their own build on this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class InputFault:
    """What is wrong in an input and where; `path` leads there from the input's root."""

    path: tuple[str | int, ...]
    message: str


class TypedDataset(StrEnum):
    """Rows of a kind that the items of a spider become, beside being items."""

    PROPERTIES = "PROPERTIES"


def nothing_more(_spider_input: Mapping[str, Any]) -> Iterable[InputFault]:
    """No faults: for spiders whose schema says everything."""
    return ()


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
    crawler_class: str
    """Where the class is, as `package.module:Class`; only crawler processes import it."""
    more_faults: Callable[[Mapping[str, Any]], Iterable[InputFault]] = nothing_more
    """What a schema cannot say: asked once an input fits the schema."""
    dataset: TypedDataset | None = None
    """What its items become; they must have the shape of the shipped spider's that has the same."""


class SpiderUnusable(Exception):
    """This installation has no such spider, or one that cannot be used; the message says why."""
