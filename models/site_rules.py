"""What a site's own rules say about a request: redirects, rewrites, headers, as `_redirects` and `_headers` have them.

Pure: no storage, no database, no clock. Invariants: matching takes time that grows with the length of the path and the
number of rules, never faster (no pattern becomes a regular expression); what a visitor puts into a path cannot change
where a redirect leads to, but for the path there. Reading the two files is in `models/site_rule_files.py`, what becomes
of a path that no rule takes in `schema/sites.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
REWRITE_STATUSES: Final = frozenset({200, 404})
NAME: Final = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
SPLAT: Final = "splat"
MAX_QUERY_FIELDS: Final = 100

_LITERAL: Final = "!$&'()*+,;=:@/~-._"
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedirectRule:
    """One line of `_redirects`. `query` lists parameters that must be there; `:name` as a value captures it."""

    pattern: str
    target: str
    status: int = 301
    is_forced: bool = False
    query: tuple[tuple[str, str], ...] = ()

    @property
    def is_redirect(self) -> bool:
        """Whether the visitor is sent elsewhere, rather than shown another file."""
        return self.status in REDIRECT_STATUSES


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One block of `_headers`: what answers get whose path matches."""

    pattern: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SiteRules:
    """All rules of a deployment, in the order of their files."""

    redirects: tuple[RedirectRule, ...] = ()
    headers: tuple[HeaderRule, ...] = ()
    spa_fallback: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form in which a deployment keeps them (`Deployment.routing`)."""
        return {
            "redirects": [
                [rule.pattern, rule.target, rule.status, rule.is_forced, [list(pair) for pair in rule.query]]
                for rule in self.redirects
            ],
            "headers": [[rule.pattern, [list(pair) for pair in rule.headers]] for rule in self.headers],
            "spaFallback": self.spa_fallback,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> SiteRules:
        """What `to_json` gave; nothing at all means no rules."""
        if data is None:
            return cls()
        return cls(
            redirects=tuple(
                RedirectRule(pattern, target, status, is_forced, tuple((name, value) for name, value in query))
                for pattern, target, status, is_forced, query in data["redirects"]
            ),
            headers=tuple(
                HeaderRule(pattern, tuple((name, value) for name, value in pairs)) for pattern, pairs in data["headers"]
            ),
            spa_fallback=data["spaFallback"],
        )


@dataclass(frozen=True, slots=True)
class Match:
    """A redirect rule that takes a request, and what its names stand for (decoded)."""

    rule: RedirectRule
    values: Mapping[str, str]

    def file_path(self) -> str:
        """The path of this site that a rewrite shows, decoded; query and fragment of the target do not count."""
        target = re.split(r"[?#]", self.rule.target, maxsplit=1)[0]
        return NAME.sub(lambda name: self.values.get(name[1], name[0]), target)

    def location(self, query_string: str) -> str:
        """Where a redirect leads, as it stands in `Location`: ASCII, and never to another host than the rule names.

        The visitor's query goes along, unless the rule looks at parameters or its target has a query of its own.
        """
        target = self.rule.target
        origin = found[0] if (found := _ABSOLUTE.match(target)) else ""
        path, question, query = target[len(origin) :].partition("?")
        location = self._filled(path, safe=_LITERAL)
        if not origin:
            # Two slashes would name a host (RFC 3986 §4.2), and the second one may come from the visitor.
            location = "/" + location.lstrip("/")
        if question:
            location += "?" + self._filled(query, safe="!$'()*,;:@/?~-._")
        elif query_string and not self.rule.query:
            base, mark, fragment = location.partition("#")
            location = f"{base}?{quote(query_string, safe=_LITERAL + '?%')}{mark}{fragment}"
        return origin + location

    def _filled(self, text: str, *, safe: str) -> str:
        pieces: list[str] = []
        end = 0
        for name in NAME.finditer(text):
            if name[1] in self.values:
                pieces += (
                    quote(text[end : name.start()], safe=_LITERAL + "?#[]%"),
                    quote(self.values[name[1]], safe=safe),
                )
                end = name.end()
        return "".join((*pieces, quote(text[end:], safe=_LITERAL + "?#[]%")))


@dataclass(slots=True)
class _Node:
    """A place in the tree of patterns. Each is visited at most once per request, whatever the patterns are."""

    literals: dict[str, _Node] = field(default_factory=dict)
    placeholder: _Node | None = None
    ends: list[int] = field(default_factory=list)
    splats: list[int] = field(default_factory=list)


class Router:
    """A site's rules, ready to be asked. Paths are decoded and begin with a slash; a slash at the end is ignored."""

    def __init__(self, rules: SiteRules) -> None:
        self.rules = rules
        self.has_forced = any(rule.is_forced for rule in rules.redirects)
        self.has_headers = bool(rules.headers)
        self._root = _Node()
        for number, rule in enumerate(rules.redirects):
            self._add(number, segments_of(rule.pattern))

    def _add(self, number: int, pattern: Sequence[str]) -> None:
        node = self._root
        for segment in pattern:
            if segment == "*":
                node.splats.append(number)
                return
            if segment.startswith(":"):
                if node.placeholder is None:
                    node.placeholder = _Node()
                node = node.placeholder
            else:
                node = node.literals.setdefault(segment, _Node())
        node.ends.append(number)

    def redirect(self, path: str, query_string: str, *, only_forced: bool = False) -> Match | None:
        """The first rule of the file that takes this request; `only_forced` asks those that files do not outdo."""
        if not self.rules.redirects or (only_forced and not self.has_forced):
            return None
        segments = segments_of(path)
        query: dict[str, str] | None = None
        for number in sorted(self._candidates(segments)):
            rule = self.rules.redirects[number]
            if only_forced and not rule.is_forced:
                continue
            values = _captured(rule.pattern, path)
            if rule.query:
                query = _parsed(query_string) if query is None else query
                if not _query_matches(rule, query, values):
                    continue
            return Match(rule, values)
        return None

    def headers(self, path: str) -> dict[str, str]:
        """Headers by lower-case name; of blocks that set the same one, the later counts."""
        found: dict[str, str] = {}
        for rule in self.rules.headers:
            if _covers(rule.pattern, path):
                found.update((name.lower(), value) for name, value in rule.headers)
        return found

    def _candidates(self, segments: Sequence[str]) -> Iterator[int]:
        waiting = [(self._root, 0)]
        while waiting:
            node, index = waiting.pop()
            yield from node.splats
            if index == len(segments):
                yield from node.ends
                continue
            segment = segments[index]
            if (literal := node.literals.get(segment)) is not None:
                waiting.append((literal, index + 1))
            if node.placeholder is not None and segment:
                waiting.append((node.placeholder, index + 1))


def segments_of(path: str) -> list[str]:
    """The parts between slashes; none for the root."""
    inner = path[1:-1] if len(path) > 1 and path.endswith("/") else path[1:]
    return inner.split("/") if inner else []


def _captured(pattern: str, path: str) -> dict[str, str]:
    values: dict[str, str] = {}
    segments = segments_of(path)
    for index, part in enumerate(segments_of(pattern)):
        if part == "*":
            rest = "/".join(segments[index:])
            values[SPLAT] = rest + "/" if rest and path.endswith("/") else rest
        elif part.startswith(":"):
            values[part[1:]] = segments[index]
    return values


def _parsed(query_string: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return {}
    return dict(reversed(pairs))  # of a repeated one the first counts


def _query_matches(rule: RedirectRule, query: Mapping[str, str], values: dict[str, str]) -> bool:
    """Whether all parameters are there; puts what they stand for into `values`."""
    for name, wanted in rule.query:
        given = query.get(name)
        if given is None:
            return False
        if wanted.startswith(":"):
            values[wanted[1:]] = given
        elif given != wanted:
            return False
    return True


def _covers(pattern: str, path: str) -> bool:
    before, star, after = pattern.partition("*")
    if star:
        # `/docs/*` covers `/docs` too, as it does in redirects.
        if not after and path == before.removesuffix("/"):
            return True
        return len(path) >= len(before) + len(after) and path.startswith(before) and path.endswith(after)
    if ":" not in pattern:
        return segments_of(pattern) == segments_of(path)
    parts, segments = segments_of(pattern), segments_of(path)
    return len(parts) == len(segments) and all(
        bool(segment) if part.startswith(":") else part == segment
        for part, segment in zip(parts, segments, strict=True)
    )
