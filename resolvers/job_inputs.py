"""What a job feeds its spider: put together from its parts, and checked before it is kept.

A job's input is one object: what `config` holds, and beside it `startUrls`, `state`, `username` and `startingName`
where they are given. Each of these is also a key of its own in the operation, so that simple clients need no
`config`; given in both places, it is refused. Invariants: what is stored fits the tool's schema and the spider's
contract, and none of its URLs names an address that crawls may not reach. Names that resolve to such an address are
found when the crawl connects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from adapters.addresses import AddressGuard, BlockedAddress
from errors import Conflict, ValidationFailed
from models.executions import FailureCode
from resolvers import json_schemas
from resolvers.json_schemas import MAX_FAULTS
from tasks.crawl.contracts import InputFault, SpiderDefinition
from tasks.crawl.spiders import MAX_MESSAGE_CHARACTERS, SPIDERS, input_faults

MAX_INPUT_BYTES: Final = 262_144
INLINE_BYTES: Final = 1_024
"""Checking takes up to 4 ms for so much (175 ms for the worst of MAX_INPUT_BYTES): more is done in a thread."""

CONFIG: Final = "config"
OWN_KEYS: Final = ("startUrls", "state", "username", "startingName")
"""Keys of the input that are also fields of the operation."""

_BRACES: Final = str.maketrans("{}", "__")
Parts = Mapping[str, Any]
"""What an operation gives of an input, by the names above. Null takes away what is there."""


@dataclass(frozen=True, slots=True)
class _Fault:
    path: tuple[str | int, ...]
    message: str
    is_blocked: bool = False

    def shown(self) -> dict[str, Any]:
        reason = {"reason": FailureCode.BLOCKED_URL.value} if self.is_blocked else {}
        return {"path": ["input", *self.path], "message": self.message, **reason}


def canonical(parts: Parts) -> dict[str, Any]:
    """The parts as they come back from storage; raises ValidationFailed for what is too large or no object."""
    config = parts.get(CONFIG)
    if config is not None and not isinstance(config, dict):
        raise ValidationFailed("`config` must be an object.", path=["input", CONFIG])
    found: dict[str, Any] = json_schemas.canonical(dict(parts), path=["input"], max_bytes=MAX_INPUT_BYTES)
    return found


def merged(parts: Parts, *, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The input that parts make, put over a stored one where there is one.

    `config` replaces all of the stored input that has no field of its own. Raises ValidationFailed for what is
    given twice.
    """
    before = stored or {}
    config = parts.get(CONFIG) or {}
    result = dict(config) if CONFIG in parts else {key: before[key] for key in before if key not in OWN_KEYS}
    for key in OWN_KEYS:
        if key in parts:
            if key in config and parts[key] is not None:
                raise ValidationFailed(f"`{key}` is given here and in `config`.", path=["input", key])
            if parts[key] is not None:
                result[key] = parts[key]
        elif key in before and key not in config:
            result[key] = before[key]
    return result


async def check(
    spider_input: Mapping[str, Any], *, given: Parts, schema_text: str, spider: str, allowed_hosts: Sequence[str]
) -> None:
    """Refuse an input that does not fit; `given` tells where in the operation each part of it was.

    Raises ValidationFailed whose details list all faults, up to MAX_FAULTS, a blocked URL first; Conflict when the
    spider or the tool's schema cannot be used.
    """
    definition = SPIDERS.get(spider)
    if definition is None:
        raise Conflict(f"The tool's spider, {spider}, is not part of this installation.")
    text = orjson.dumps(spider_input)
    if len(text) > MAX_INPUT_BYTES:
        raise ValidationFailed(
            f"The input has {len(text):,} bytes as JSON, which is more than {MAX_INPUT_BYTES:,}.",
            path=["input"],
            maximum=MAX_INPUT_BYTES,
        )
    guard = AddressGuard.from_settings(allowed_hosts)
    arguments = spider_input, given, orjson.loads(schema_text), definition, guard
    if len(text) <= INLINE_BYTES:
        found = _faults(*arguments)
    else:
        found = await asyncio.to_thread(_faults, *arguments)
    if found:
        first = found[0]
        raise ValidationFailed(
            f"The input does not fit the tool: {first.message}",
            path=["input", *first.path],
            faults=[fault.shown() for fault in found],
            **({"reason": FailureCode.BLOCKED_URL.value} if first.is_blocked else {}),
        )


def _faults(
    spider_input: Mapping[str, Any],
    given: Parts,
    tool_schema: Mapping[str, Any],
    spider: SpiderDefinition,
    guard: AddressGuard,
) -> list[_Fault]:
    """All faults; a URL that is blocked is nothing else besides."""
    blocked = _blocked_urls(spider_input, guard)
    blocked_paths = {fault.path for fault in blocked}
    others = [fault for fault in _misfits(spider_input, tool_schema, spider) if fault.path not in blocked_paths]
    return [
        _Fault(_place(fault.path, given), fault.message, is_blocked=fault in blocked) for fault in [*blocked, *others]
    ][:MAX_FAULTS]


def _misfits(
    spider_input: Mapping[str, Any], tool_schema: Mapping[str, Any], spider: SpiderDefinition
) -> list[InputFault]:
    """The tool's schema comes first: it is the one that clients were shown."""
    value = dict(spider_input)
    found = json_schemas.faults(tool_schema, value)
    if not found and tool_schema != spider.input_schema:
        found = json_schemas.faults(spider.input_schema, value)
    return found or input_faults(spider, value)


def _blocked_urls(spider_input: Mapping[str, Any], guard: AddressGuard) -> list[InputFault]:
    """URLs that crawls may not open; what is no URL of the web at all is the schema's concern."""
    found: list[InputFault] = []
    for path, url in _given_urls(spider_input):
        if isinstance(url, str) and url.lower().startswith(("http://", "https://")):
            try:
                guard.check_url(url)
            except BlockedAddress as blocked:
                found.append(InputFault(path, str(blocked)[:MAX_MESSAGE_CHARACTERS]))
        if len(found) == MAX_FAULTS:
            break
    return found


def _given_urls(spider_input: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """What the spiders that ship take for addresses, each with its path; a template's host is no variable."""
    for key in ("startUrls", "sitemaps"):
        urls = spider_input.get(key)
        yield from (((key, position), url) for position, url in enumerate(urls if isinstance(urls, list) else ()))
    template = spider_input.get("urlTemplate")
    yield ("urlTemplate",), template.translate(_BRACES) if isinstance(template, str) else None


def _place(path: tuple[str | int, ...], given: Parts) -> tuple[str | int, ...]:
    """Where in the operation's input a place of the spider's input was given, or would be."""
    config = given.get(CONFIG)
    is_own = bool(path) and path[0] in OWN_KEYS and not (isinstance(config, dict) and path[0] in config)
    return path if is_own else (CONFIG, *path)
