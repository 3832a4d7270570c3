"""The directory search spider's contract: what it takes and what it gives. No Scrapy here: the API lists these.

A directory is asked by addresses that a template makes of a state, a starting name and a user name. Names are compared
as people sort them: without regard to case and accents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from tasks.crawl.catalogue import fields, narrowed
from tasks.crawl.contracts import InputFault
from tasks.crawl.input_schemas import ALLOWED_DOMAINS, DRAFT, MAX_LIST_PAGES, extraction, selector

NAME: Final = "directory_search"
CRAWLER_CLASS: Final = "tasks.crawl.crawler.spiders.directory_search:DirectorySearchSpider"
TITLE: Final = "Directory search"
DESCRIPTION: Final = (
    "Reads registers and directories that are searched by state and name: people, firms, licences. Walks all pages of "
    "each search, takes every entry once, and can begin at any name, such as the last one of an earlier run."
)

MAX_SEARCHES: Final = 10_000
VARIABLES: Final = ("state", "startingName", "username", "page")
_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")
_OWN_FIELDS: Final = ("url", "name", "state")


def _text(title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "description": description, "type": "string", "minLength": 1, "maxLength": 200, **more}


def _texts(title: str, description: str, maximum: int, **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "array",
        "minItems": 1,
        "maxItems": maximum,
        "uniqueItems": True,
        "items": {"type": "string", "minLength": 1, "maxLength": 200},
        **more,
    }


INPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": TITLE,
    "description": DESCRIPTION,
    "type": "object",
    "additionalProperties": False,
    "required": ["urlTemplate", "entries", "name"],
    "properties": {
        "urlTemplate": {
            "title": "URL template",
            "description": "The address of a search; {state}, {startingName}, {username} and {page} in its path or "
            "query stand for what is searched, percent-encoded.",
            "type": "string",
            "pattern": "^https?://[^/@\\s{}]+(/[^\\s]*)?$",
            "maxLength": 2_083,
            "examples": ["https://directory.example/people?state={state}&from={startingName}&page={page}"],
        },
        "state": _text("State", "The state to search, as the site writes it.", examples=["CA"]),
        "states": _texts("States", "Several states: one search for each.", 1_000, examples=[["CA", "NV"]]),
        "startingName": _text(
            "Starting name",
            "Begin at this name: entries before it are left out. The last name of an earlier run goes on after it; "
            "the template may hand it to the site.",
            examples=["Mercer"],
        ),
        "startingNames": _texts(
            "Starting names",
            "One search for each, for sites that are searched by the beginnings of names.",
            1_000,
            examples=[["A", "B", "C"]],
        ),
        "username": _text("User name", "The account or person to search for.", examples=["ada"]),
        "allowedDomains": {
            **ALLOWED_DOMAINS,
            "description": "Domains, with their subdomains, that links may lead to besides the template's host.",
        },
        "entries": selector("Entry", "Each match is one entry; name, fields and link are looked up inside it."),
        "name": extraction("Name of an entry", "Where an entry says its name, in the order that the directory has."),
        "fields": {**fields(*_OWN_FIELDS), "description": "What else to read of each entry."},
        "detailLink": selector(
            "Link to the entry's page", "If given, it is followed and the fields are read there instead."
        ),
        "nextPage": selector("Next page", "The link to the following page of a search."),
        "firstPage": {
            "title": "First page",
            "description": "What {page} begins with.",
            "type": "integer",
            "minimum": 0,
            "maximum": 1_000_000,
            "default": 1,
        },
        "pageStep": {
            "title": "Page step",
            "description": "What {page} grows by: 1 for numbers of pages, the size of a page for offsets.",
            "type": "integer",
            "minimum": 1,
            "maximum": 10_000,
            "default": 1,
        },
        "maxListPages": {**MAX_LIST_PAGES, "description": "How many pages of each search are followed."},
        "identifiedBy": _texts(
            "Identified by",
            "Fields that make an entry the same one wherever it is found; by default all that is read of it.",
            20,
            examples=[["name", "profile"]],
        ),
    },
}

OUTPUT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DRAFT,
    "title": "Directory entry",
    "type": "object",
    "required": ["url", "name", "state"],
    "properties": {
        "url": {"title": "URL", "description": "The page it was read from.", "type": "string", "format": "uri"},
        "name": {"title": "Name", "type": "string", "minLength": 1},
        "state": {
            "title": "State",
            "description": "The state that was searched; null when searches name none.",
            "type": ["string", "null"],
        },
    },
    "additionalProperties": True,
}

EXAMPLE_INPUT: Final[dict[str, Any]] = {
    "urlTemplate": "http://127.0.0.1:8900/people?state={state}",
    "states": ["Northmark", "Westvale"],
    "startingName": "M",
    "entries": {"css": "table.people tbody tr"},
    "name": {"css": "td.name"},
    "nextPage": {"css": "a[rel=next]"},
    "fields": [
        {"name": "town", "css": "td.town"},
        {"name": "trade", "css": "td.trade"},
        {"name": "since", "css": "td.since", "type": "integer"},
    ],
}


def output_schema(spider_input: Mapping[str, Any]) -> dict[str, Any]:
    """OUTPUT_SCHEMA narrowed to the fields that a valid input names; optional ones may be null."""
    return narrowed(OUTPUT_SCHEMA, spider_input.get("fields", ()))


def more_faults(spider_input: Mapping[str, Any]) -> Iterator[InputFault]:
    """Whether template, variables and paging fit each other."""
    template = spider_input["urlTemplate"]
    used = _VARIABLE.findall(template)
    for name in used:
        if name not in VARIABLES:
            yield InputFault(("urlTemplate",), f"there is no variable {{{name[:50]}}}: {_all_variables()}")
    if set(_VARIABLE.sub("", template)) & {"{", "}"}:
        yield InputFault(("urlTemplate",), "a brace has no partner")
    yield from _variable_faults(spider_input, used)
    if "page" in used and "nextPage" in spider_input:
        yield InputFault(("nextPage",), "the template counts the pages by {page} already")
    known = {*_OWN_FIELDS[1:], *(rule["name"] for rule in spider_input.get("fields", ()))}
    for position, name in enumerate(spider_input.get("identifiedBy", ())):
        if name not in known:
            yield InputFault(("identifiedBy", position), f"{name!r} is not a field of an entry")
    if len(states(spider_input)) * len(spider_input.get("startingNames") or [""]) > MAX_SEARCHES:
        yield InputFault(("startingNames",), f"states and starting names make more than {MAX_SEARCHES:,} searches")


def _variable_faults(spider_input: Mapping[str, Any], used: Sequence[str]) -> Iterator[InputFault]:
    for one, several in (("state", "states"), ("startingName", "startingNames"), ("username", None)):
        given = [name for name in (one, several) if name is not None and name in spider_input]
        if one in used and not given:
            yield InputFault((one,), f"the URL template uses {{{one}}}, and the input does not say which")
        if one not in used:
            # A starting name by itself has a sense without the template: it is where the results begin.
            for name in given:
                if name != "startingName":
                    yield InputFault((name,), f"the URL template does not use {{{one}}}")
    if "state" in spider_input and "states" in spider_input:
        yield InputFault(("state",), "`states` is given too; one of them is enough")


def _all_variables() -> str:
    return ", ".join(f"{{{name}}}" for name in VARIABLES)


def states(spider_input: Mapping[str, Any]) -> Sequence[str | None]:
    """The states to search; one search without a state when the input names none."""
    if "state" in spider_input:
        return [spider_input["state"]]
    found: Sequence[str | None] = spider_input.get("states") or [None]
    return found


def expanded(template: str, values: Mapping[str, str]) -> str:
    """The template with its variables filled in, percent-encoded (RFC 6570, level 1)."""
    return _VARIABLE.sub(lambda match: quote(values[match[1]], safe=""), template)


def collation_key(name: str) -> str:
    """What names are compared by: letters without case or accents, white space as one blank."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return " ".join("".join(letter for letter in plain if not unicodedata.combining(letter)).split())


def has_names_from(prefix: str, starting_name: str) -> bool:
    """Whether a name that begins with the prefix may be the starting name or come after it."""
    beginning = collation_key(prefix)
    return beginning >= collation_key(starting_name)[: len(beginning)]
