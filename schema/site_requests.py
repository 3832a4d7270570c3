"""Reading what visitors of sites ask: host names, paths, encodings, ranges, what they have already.

Pure. Invariant: whatever does not read one way only is refused, so that no proxy before us and no file behind us can
take it for something else. What is answered is decided in `schema/sites.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from settings import Settings

MAX_PATH_BYTES: Final = 4_096

_HOST: Final = re.compile(rb"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?")
_ENCODED_TRICK: Final = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LONGEST_ENCODINGS: Final = 200


class HostKind(StrEnum):
    """Who answers for a host name."""

    API = "API"
    SITE = "SITE"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class Host:
    """A host name that was read; `label` is what stands before the sites' domain."""

    kind: HostKind
    label: str = ""


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names that this installation goes by."""

    api: str
    sites: str
    is_production: bool

    @classmethod
    def of(cls, settings: Settings) -> HostNames:
        """The names that the settings give."""
        api = re.sub(r"^https?://", "", settings.base_url).partition("/")[0]
        return cls(
            api=_without_port(api).lower(),
            sites=_without_port(settings.sites_domain),
            is_production=settings.is_production,
        )

    def read(self, host: bytes) -> Host:
        """Who answers for the value of a Host header (RFC 9110 §7.2).

        The port says nothing: behind a proxy or a tunnel it is any. A dot at the end is the root of the DNS. The bare
        domain of the sites is the API's in development, where both are `localhost`, and nobody's in production.
        """
        found = _HOST.fullmatch(host)
        if found is None or (found[2] is not None and int(found[2]) > 65_535):
            return Host(HostKind.BAD)
        name = found[1].decode("ascii").lower().removesuffix(".")
        if name == self.api:
            return Host(HostKind.API)
        if name.endswith(f".{self.sites}"):
            return Host(HostKind.SITE, name.removesuffix(f".{self.sites}"))
        return Host(HostKind.SITE if self.is_production and name == self.sites else HostKind.API)


def _without_port(host: str) -> str:
    return re.sub(r":\d+$", "", host)


class BadPath(Exception):
    """The path is none that a site can have."""


def read_path(raw: bytes) -> str:
    """The path of a request, percent-decoded once; raises BadPath for what could mean another path to somebody else."""
    if len(raw) > MAX_PATH_BYTES or not raw.startswith(b"/"):
        raise BadPath
    if b"%" in raw:
        if _ENCODED_TRICK.search(raw) or _BAD_ESCAPE.search(raw):
            raise BadPath
        raw = unquote_to_bytes(raw)
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise BadPath from None
    if "\\" in path or not path.isprintable():
        raise BadPath
    if "/." in path and any(segment in {".", ".."} for segment in path.split("/")):
        raise BadPath
    return path


class Coding(StrEnum):
    """How content is packed; the value is the suffix of its object."""

    IDENTITY = ""
    BROTLI = ".br"
    GZIP = ".gz"

    @property
    def token(self) -> bytes:
        """Its name in Content-Encoding."""
        return {Coding.BROTLI: b"br", Coding.GZIP: b"gzip"}.get(self, b"identity")


def accepted_codings(header: bytes) -> tuple[Coding, ...]:
    """What a client takes, best first, with plain content always at the end (RFC 9110 §12.5.3)."""
    return _accepted(header[:_LONGEST_ENCODINGS]) if header else (Coding.IDENTITY,)


@lru_cache(maxsize=256)
def _accepted(header: bytes) -> tuple[Coding, ...]:
    weights: dict[str, float] = {}
    for entry in header.decode("latin-1").lower().split(","):
        token, _, parameters = entry.partition(";")
        weights[token.strip()] = _weight(parameters)
    other = weights.get("*", 0.0)
    ranked = [
        (weights.get("br", other), Coding.BROTLI),
        (weights.get("gzip", weights.get("x-gzip", other)), Coding.GZIP),
    ]
    plain = weights.get("identity", 0.0)
    # Stable: of equals the smaller form comes first. Plain content is taken in any case, rather than none at all.
    wanted = [coding for weight, coding in sorted(ranked, key=lambda pair: -pair[0]) if weight > 0 and weight >= plain]
    return (*wanted, Coding.IDENTITY)


def _weight(parameters: str) -> float:
    name, equals, value = parameters.strip().partition("=")
    if not equals or name.strip() != "q":
        return 1.0
    return float(value) if re.fullmatch(r"[01](?:\.\d{0,3})?", value.strip()) else 0.0


def is_listed(if_none_match: bytes, etag: bytes) -> bool:
    """Whether a client has this already: weak comparison against its list (RFC 9110 §13.1.2)."""
    if if_none_match == etag:
        return True
    return any(listed.strip().removeprefix(b"W/") in {etag, b"*"} for listed in if_none_match.split(b","))


def is_navigation(path: str, headers: dict[bytes, bytes]) -> bool:
    """Whether a browser asks for a page, rather than a page for a part of it (Fetch Metadata, where it is sent)."""
    mode = headers.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return b"text/html" in headers.get(b"accept", b"") or "." not in path.rpartition("/")[2]
