"""Reading `_redirects` and `_headers`: the subset of Netlify's formats that a site here may use.

A line that is wrong, or asks for what is not offered, is reported with its number and left out; it never stops a
deployment. Refused for reasons of safety: a rewrite (200) to another host, because the service would fetch it; a
visitor's text in the place of a host; headers that frame messages, name other content than is sent, or reach beyond
the site (cookies and `Clear-Site-Data` act on all sites of the domain).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from models.site_rules import (
    NAME,
    REDIRECT_STATUSES,
    REWRITE_STATUSES,
    SPLAT,
    HeaderRule,
    RedirectRule,
    segments_of,
)

REDIRECTS_FILE: Final = "_redirects"
HEADERS_FILE: Final = "_headers"
MAX_FILE_BYTES: Final = 2**20
MAX_REDIRECTS: Final = 2_000
MAX_HEADER_BLOCKS: Final = 200
MAX_HEADERS_BYTES: Final = 16_384
"""Names and values of a whole `_headers` file, so that no answer gets a longer head than clients and proxies take."""

MAX_LINE: Final = 2_000
MAX_PROBLEMS: Final = 50

_STATUS: Final = re.compile(r"(\d{3})(!?)", re.ASCII)
_CONDITION: Final = re.compile(r"(country|language|role|cookie|signed)=.*", re.ASCII | re.IGNORECASE)
_ABSOLUTE: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?(?:[/?#].*)?", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", re.ASCII)
_REFUSED_HEADERS: Final = {
    **dict.fromkeys(
        (
            "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
            "content-encoding", "content-range", "accept-ranges", "age", "date", "etag", "expect", "host",
            "last-modified", "location", "server", "vary", "via",
        ),
        "belongs to the server",
    ),
    **dict.fromkeys(("set-cookie", "set-cookie2", "clear-site-data", "alt-svc"), "would reach beyond this site"),
    "basic-auth": "is not supported",
}  # fmt: skip
_REFUSED_PREFIXES: Final = ("proxy-", "x-switchyard-", "x-request-id")


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """A line that was left out, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class _Refused(Exception):
    """The line cannot be a rule; the text is the reason."""


def parse_redirects(text: str) -> tuple[list[RedirectRule], list[RuleProblem]]:
    """The rules of a `_redirects` file, and what was left out of it."""
    rules: list[RedirectRule] = []
    problems: list[RuleProblem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        tokens = _tokens(line)
        if not tokens:
            continue
        if len(rules) == MAX_REDIRECTS:
            problems.append(RuleProblem(REDIRECTS_FILE, number, f"only {MAX_REDIRECTS} rules are read"))
            break
        try:
            rules.append(_redirect(line, tokens))
        except _Refused as refused:
            problems.append(RuleProblem(REDIRECTS_FILE, number, str(refused)))
    return rules, _bounded(problems)


def parse_headers(text: str) -> tuple[list[HeaderRule], list[RuleProblem]]:
    """The blocks of a `_headers` file, and what was left out of it. A name given twice in a block is joined."""
    blocks: list[tuple[str, dict[str, tuple[str, str]]]] = []
    problems: list[RuleProblem] = []
    current: dict[str, tuple[str, str]] | None = None
    size = 0
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            if entry.startswith("/") or entry.lower().startswith(("http://", "https://")):
                current = None
                pattern = _header_pattern(entry)
                if len(blocks) == MAX_HEADER_BLOCKS:
                    raise _Refused(f"only {MAX_HEADER_BLOCKS} blocks are read")
                current = {}
                blocks.append((pattern, current))
                continue
            if current is None:
                raise _Refused("this header belongs to no path")
            name, value = _header(entry)
            size += len(name) + len(value)
            if size > MAX_HEADERS_BYTES:
                problems.append(
                    RuleProblem(HEADERS_FILE, number, f"only {MAX_HEADERS_BYTES} bytes of headers are read")
                )
                break
            earlier = current.get(name.lower())
            current[name.lower()] = (name, f"{earlier[1]}, {value}" if earlier else value)
        except _Refused as refused:
            problems.append(RuleProblem(HEADERS_FILE, number, str(refused)))
    rules = [HeaderRule(pattern, tuple(headers.values())) for pattern, headers in blocks if headers]
    return rules, _bounded(problems)


def _tokens(line: str) -> list[str]:
    tokens: list[str] = []
    for token in line.split():
        if token.startswith("#"):
            break
        tokens.append(token)
    return tokens


def _redirect(line: str, tokens: list[str]) -> RedirectRule:
    if len(line) > MAX_LINE:
        raise _Refused(f"a rule has at most {MAX_LINE} characters")
    pattern = _redirect_pattern(tokens[0])
    query: list[tuple[str, str]] = []
    rest = tokens[1:]
    while rest and not rest[0].startswith(("/", "http://", "https://")):
        name, equals, value = rest.pop(0).partition("=")
        if not equals or not name or not value:
            raise _Refused("the address that this leads to must begin with / or https://")
        query.append((unquote(name), value if value.startswith(":") else unquote(value)))
    if not rest:
        raise _Refused("it does not say where this leads to")
    target = rest.pop(0)
    status, is_forced = 301, False
    if rest and (found := _STATUS.fullmatch(rest[0])):
        rest.pop(0)
        status, is_forced = int(found[1]), bool(found[2])
    if rest:
        is_condition = _CONDITION.fullmatch(rest[0]) is not None
        raise _Refused(
            f"conditions are not supported: {rest[0]}" if is_condition else f"this is not understood: {rest[0]}"
        )
    rule = RedirectRule(pattern, _target(target, status), status, is_forced, tuple(query))
    _check_names(rule)
    return rule


def _redirect_pattern(text: str) -> str:
    pattern = _pattern(text)
    segments = segments_of(pattern)
    if any("*" in segment and segment != "*" for segment in segments) or "*" in segments[:-1]:
        raise _Refused("* stands alone, after the last slash")
    return pattern


def _header_pattern(text: str) -> str:
    if len(text) > MAX_LINE:
        raise _Refused(f"a path has at most {MAX_LINE} characters")
    pattern = _pattern(text)
    if pattern.count("*") > 1 or ("*" in pattern and any(part.startswith(":") for part in segments_of(pattern))):
        raise _Refused("a path has one *, or names, not both")
    return pattern


def _pattern(text: str) -> str:
    if not text.startswith("/"):
        reason = "rules for other host names are not supported" if "://" in text else "the path must begin with /"
        raise _Refused(reason)
    if "?" in text or "#" in text:
        raise _Refused("the path has no ? and no #; parameters are written after it, as name=value")
    try:
        pattern = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _Refused("the path is not UTF-8") from None
    if not pattern.isprintable() or "\\" in pattern:
        raise _Refused("the path holds a character that no address has")
    for segment in segments_of(pattern):
        if segment.startswith(":") and not NAME.fullmatch(segment):
            raise _Refused(f"this is no name: {segment}")
    return pattern


def _target(text: str, status: int) -> str:
    if status not in REDIRECT_STATUSES | REWRITE_STATUSES:
        raise _Refused(f"the status {status} is not supported")
    if not text.isprintable() or "\\" in text:
        raise _Refused("the address that this leads to holds a character that no address has")
    if text.startswith("/"):
        if text.startswith("//"):
            raise _Refused("an address on another host begins with https://")
        return text
    if status not in REDIRECT_STATUSES:
        raise _Refused("content of other hosts is not fetched; use 301 or 302 to send visitors there")
    if not _ABSOLUTE.fullmatch(text):
        raise _Refused("the host that this leads to must be written out")
    return text


def _check_names(rule: RedirectRule) -> None:
    names = [part[1:] for part in segments_of(rule.pattern) if part.startswith(":")]
    names += [value[1:] for _, value in rule.query if value.startswith(":")]
    if SPLAT in names:
        raise _Refused(":splat is the name of what * stands for")
    if len(names) != len(set(names)):
        raise _Refused("a name is used twice")
    if any(value.startswith(":") and not NAME.fullmatch(value) for _, value in rule.query):
        raise _Refused("a parameter's value is no name")


def _header(entry: str) -> tuple[str, str]:
    if len(entry) > MAX_LINE:
        raise _Refused(f"a header has at most {MAX_LINE} characters")
    name, colon, value = entry.partition(":")
    name, value = name.strip(), value.strip()
    if not colon:
        raise _Refused("a header is written as Name: value")
    if not _TOKEN.fullmatch(name):
        raise _Refused("this is no name of a header")
    lower = name.lower()
    if lower.startswith(_REFUSED_PREFIXES):
        raise _Refused(f"{name} belongs to the server")
    if lower in _REFUSED_HEADERS:
        raise _Refused(f"{name} {_REFUSED_HEADERS[lower]}")
    if not _VALUE.fullmatch(value):
        raise _Refused(f"the value of {name} is empty or holds a character that is not printable ASCII")
    return name, value


def _bounded(problems: list[RuleProblem]) -> list[RuleProblem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = problems[MAX_PROBLEMS]
    return [*problems[:MAX_PROBLEMS], RuleProblem(more.file, more.line, "more lines were left out from here on")]
