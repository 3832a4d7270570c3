"""Pieces of JSON Schema (draft 2020-12) that the inputs of several spiders share."""

from __future__ import annotations

from typing import Any, Final

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

MAX_SELECTOR_CHARACTERS: Final = 1_000
MAX_PATTERN_CHARACTERS: Final = 500

START_URLS: Final[dict[str, Any]] = {
    "title": "Start URLs",
    "description": "Pages where the crawl begins; http or https, without user name or password.",
    "type": "array",
    "minItems": 1,
    "maxItems": 1_000,
    "uniqueItems": True,
    "items": {"type": "string", "format": "uri", "pattern": "^https?://[^/@\\s]+(/[^\\s]*)?$", "maxLength": 2_083},
}

ALLOWED_DOMAINS: Final[dict[str, Any]] = {
    "title": "Allowed domains",
    "description": "Domains, with their subdomains, that links may lead to besides the hosts of the start URLs.",
    "type": "array",
    "maxItems": 100,
    "uniqueItems": True,
    "default": [],
    "items": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[^/:\\s]+$"},
}

MAX_LIST_PAGES: Final[dict[str, Any]] = {
    "title": "Pages of a list",
    "description": "How many pages of each list are followed.",
    "type": "integer",
    "minimum": 1,
    "maximum": 100_000,
    "default": 1_000,
}

CSS: Final[dict[str, Any]] = {
    "title": "CSS selector",
    "description": "CSS 3, with ::text and ::attr(name).",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_SELECTOR_CHARACTERS,
}

XPATH: Final[dict[str, Any]] = {
    "title": "XPath",
    "description": "XPath 1.0 with EXSLT re: and set: functions.",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_SELECTOR_CHARACTERS,
}

PATTERN: Final[dict[str, Any]] = {
    "title": "Regular expression",
    "description": "Python syntax; the first group counts if there is one, else the whole match.",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_PATTERN_CHARACTERS,
}

MODIFIED_SINCE: Final[dict[str, Any]] = {
    "title": "Modified since",
    "description": "Leave out what a sitemap says to have changed last before this date, or date and time with zone. "
    "Entries that do not say when they changed are read.",
    "type": "string",
    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?$",
    "examples": ["2026-01-31", "2026-01-31T06:00:00Z"],
}

_ONE_SELECTOR: Final[list[dict[str, Any]]] = [{"required": ["css"]}, {"required": ["xpath"]}]


def selector(title: str, description: str) -> dict[str, Any]:
    """An object with exactly one of `css` and `xpath`."""
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": {"css": CSS, "xpath": XPATH},
        "oneOf": _ONE_SELECTOR,
    }


def extraction(title: str, description: str, **more: dict[str, Any]) -> dict[str, Any]:
    """A selector that may take an attribute and cut out a part with a regular expression."""
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **more,
            "css": CSS,
            "xpath": XPATH,
            "attribute": {
                "title": "Attribute",
                "description": "Take this attribute instead of the text.",
                "type": "string",
                "pattern": "^[A-Za-z_:][A-Za-z0-9_:.-]*$",
                "maxLength": 100,
            },
            "regex": PATTERN,
        },
        "required": list(more.keys() & {"name"}),
        "oneOf": _ONE_SELECTOR,
    }
