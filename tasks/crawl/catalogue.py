"""The catalogue spider's contract: what it takes and what it gives. No Scrapy here: the API lists these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from tasks.crawl.input_schemas import ALLOWED_DOMAINS, DRAFT, MAX_LIST_PAGES, START_URLS, extraction, selector


class FieldType(StrEnum):
    """What the text of a field becomes."""

    TEXT = "text"
    HTML = "html"
    URL = "url"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"


NAME: Final = "catalogue"
CRAWLER_CLASS: Final = "tasks.crawl.crawler.spiders.catalogue:CatalogueSpider"
TITLE: Final = "Catalogue"
DESCRIPTION: Final = (
    "Reads any list of similar things: products, books, events. Fields are CSS or XPath selectors, taken from the "
    "list itself or from the detail page behind each link; further pages are followed."
)


def fields(*reserved: str) -> dict[str, Any]:
    """The schema of `fields`, rules for what to read of each item; reserved names are the spider's own."""
    return {
        "title": "Fields",
        "description": "What to read of each item.",
        "type": "array",
        "minItems": 1,
        "maxItems": 100,
        "items": extraction(
            "Field",
            "A selector and how to read what it finds.",
            name={
                "title": "Name",
                "description": f"The field's name in the item; {_listed(reserved)} taken by the spider itself.",
                "type": "string",
                "pattern": "^[A-Za-z][A-Za-z0-9_]{0,62}$",
                "not": {"enum": list(reserved)},
            },
            type={
                "title": "Type",
                "description": "A decimal is a string of digits, exact, read from text such as “£ 1,299.50”.",
                "enum": [each.value for each in FieldType],
                "default": FieldType.TEXT.value,
            },
            list={
                "title": "List",
                "description": "All matches instead of the first.",
                "type": "boolean",
                "default": False,
            },
            required={
                "title": "Required",
                "description": "Items without it are set aside as invalid.",
                "type": "boolean",
                "default": False,
            },
        ),
    }


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    return f"{quoted[0]} is" if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]} are"


INPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": TITLE,
    "description": DESCRIPTION,
    "type": "object",
    "additionalProperties": False,
    "required": ["startUrls", "fields"],
    "properties": {
        "startUrls": START_URLS,
        "allowedDomains": ALLOWED_DOMAINS,
        "detailLinks": selector(
            "Links to detail pages",
            "If given, every matching link is followed and the fields are read there; else from the list itself.",
        ),
        "items": selector(
            "Item container",
            "Each match is one item and fields are looked up inside it; without it a page is one item.",
        ),
        "nextPage": selector("Next page", "The link to the following page of the list."),
        "maxListPages": MAX_LIST_PAGES,
        "fields": fields("url"),
    },
}

OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": "Catalogue item",
    "type": "object",
    "required": ["url"],
    "properties": {
        "url": {"title": "URL", "description": "The page it was read from.", "type": "string", "format": "uri"}
    },
    "additionalProperties": True,
}

EXAMPLE_INPUT: Final[dict[str, Any]] = {
    "startUrls": ["http://127.0.0.1:8900/shop"],
    "detailLinks": {"css": "a.product"},
    "nextPage": {"css": "a[rel=next]"},
    "fields": [
        {"name": "name", "css": "h1", "required": True},
        {"name": "price", "css": ".price", "type": "decimal"},
        {"name": "inStock", "css": ".stock", "regex": "(\\d+) in stock", "type": "integer"},
        {"name": "tags", "css": ".tags a", "list": True},
    ],
}

_JSON_TYPES: Final[dict[FieldType, dict[str, Any]]] = {
    FieldType.TEXT: {"type": "string"},
    FieldType.HTML: {"type": "string"},
    FieldType.URL: {"type": "string", "format": "uri"},
    FieldType.INTEGER: {"type": "integer"},
    FieldType.NUMBER: {"type": "number"},
    FieldType.DECIMAL: {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$"},
    FieldType.BOOLEAN: {"type": "boolean"},
}


def output_schema(spider_input: Mapping[str, Any]) -> dict[str, Any]:
    """OUTPUT_SCHEMA narrowed to the fields that a valid input names; optional ones may be null."""
    return narrowed(OUTPUT_SCHEMA, spider_input["fields"])


def narrowed(schema: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A schema of items with the fields that rules name put in, and none beside them."""
    properties, required = dict(schema["properties"]), list(schema["required"])
    for rule in rules:
        single = _JSON_TYPES[FieldType(rule.get("type", FieldType.TEXT))]
        of_field: dict[str, Any] = {"type": "array", "items": single} if rule.get("list") else single
        if rule.get("required"):
            required.append(rule["name"])
            if rule.get("list"):
                of_field = {**of_field, "minItems": 1}
        else:
            of_field = {**of_field, "type": [of_field["type"], "null"]}
        properties[rule["name"]] = of_field
    return {**schema, "required": required, "properties": properties, "additionalProperties": False}
