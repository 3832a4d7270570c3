"""The property listings spider's contract: what it takes and what it gives. No Scrapy here: the API lists these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from tasks.crawl.contracts import TypedDataset
from tasks.crawl.input_schemas import ALLOWED_DOMAINS, DRAFT, MAX_LIST_PAGES, PATTERN, START_URLS, extraction, selector


class AreaUnit(StrEnum):
    """Units of a floor area."""

    SQUARE_FEET = "SQUARE_FEET"
    SQUARE_METRES = "SQUARE_METRES"
    ACRES = "ACRES"
    HECTARES = "HECTARES"


NAME: Final = "property_listings"
DATASET: Final = TypedDataset.PROPERTIES
CRAWLER_CLASS: Final = "tasks.crawl.crawler.spiders.property_listings:PropertyListingsSpider"
TITLE: Final = "Property listings"
DESCRIPTION: Final = (
    "Brings home offers of houses and flats in one normalised shape. Reads schema.org data (JSON-LD, microdata) and "
    "Open Graph by itself; selectors fill in or correct what a site does not say there."
)

OVERRIDABLE: Final = (
    "title",
    "price",
    "currency",
    "area",
    "areaUnit",
    "bedrooms",
    "bathrooms",
    "propertyType",
    "street",
    "city",
    "region",
    "postalCode",
    "country",
    "latitude",
    "longitude",
    "description",
    "images",
    "datePosted",
    "sourceId",
)
"""Fields that a selector of the input may set; the address's parts by their own names."""

INPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": TITLE,
    "description": DESCRIPTION,
    "type": "object",
    "additionalProperties": False,
    "required": ["startUrls"],
    "properties": {
        "startUrls": START_URLS,
        "allowedDomains": ALLOWED_DOMAINS,
        "detailLinks": selector("Links to listings", "Which links of a list lead to listings; all, if left out."),
        "detailPattern": {
            **PATTERN,
            "title": "Pattern of listing URLs",
            "description": "Only links whose absolute URL matches lead to listings. Without this and `detailLinks` "
            "the start URLs are listings themselves.",
        },
        "nextPage": selector("Next page", "The link to the following page of results; by default rel=next."),
        "maxListPages": MAX_LIST_PAGES,
        "currency": {
            "title": "Currency",
            "description": "ISO 4217 code for prices that do not name one.",
            "type": "string",
            "pattern": "^[A-Z]{3}$",
        },
        "areaUnit": {
            "title": "Unit of area",
            "description": "For areas that do not name one.",
            "enum": [each.value for each in AreaUnit],
        },
        "fields": {
            "title": "Selectors",
            "description": "What a selector finds replaces what the structured data says.",
            "type": "object",
            "additionalProperties": False,
            "default": {},
            "properties": {name: extraction(name, f"Where a page says its {name}.") for name in OVERRIDABLE},
        },
    },
}


def _nullable(kind: str, title: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "type": [kind, "null"], **more}


OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": "Property listing",
    "type": "object",
    "additionalProperties": False,
    "required": ["url", "sourceId", "title"],
    "properties": {
        "url": {"title": "URL", "type": "string", "format": "uri"},
        "sourceId": {"title": "The site's own number of the listing", "type": "string", "minLength": 1},
        "title": {"title": "Title", "type": "string", "minLength": 1},
        "price": _nullable("string", "Price, exact", pattern="^[0-9]+(\\.[0-9]+)?$"),
        "currency": _nullable("string", "ISO 4217 code", pattern="^[A-Z]{3}$"),
        "area": _nullable("number", "Floor area", exclusiveMinimum=0),
        "areaUnit": {"title": "Unit of the area", "enum": [*(each.value for each in AreaUnit), None]},
        "bedrooms": _nullable("number", "Bedrooms", minimum=0),
        "bathrooms": _nullable("number", "Bathrooms", minimum=0),
        "propertyType": _nullable("string", "Type, in the site's word"),
        "address": {
            "title": "Address",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: _nullable("string", name) for name in ("street", "city", "region", "postalCode", "country")
            },
        },
        "latitude": _nullable("number", "Latitude, degrees", minimum=-90, maximum=90),
        "longitude": _nullable("number", "Longitude, degrees", minimum=-180, maximum=180),
        "description": _nullable("string", "Description"),
        "images": {
            "title": "Images",
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "maxItems": 200,
        },
        "datePosted": _nullable("string", "Date of the offer, ISO 8601"),
    },
}

EXAMPLE_INPUT: Final[dict[str, Any]] = {
    "startUrls": ["http://127.0.0.1:8900/homes"],
    "detailPattern": "/homes/\\d+$",
}


def output_schema(spider_input: Mapping[str, Any]) -> dict[str, Any]:
    """The same for every input."""
    return OUTPUT_SCHEMA
