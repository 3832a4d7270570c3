"""Names of sites and of their files: the labels that lead to a deployment, and what a file's name says about it.

Pure. A label is one part of a host name (RFC 1035 §2.3.1, at most 63 characters); its grammar is here, for those who
make addresses and those who answer them. Slugs hold no two hyphens in a row, so `--` ends an alias.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from models.sites import PRODUCTION_ALIAS

MAX_LABEL: Final = 63
SITE_KEY_LENGTH: Final = 16

_SLUG: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_ALIAS: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_KEYED: Final = re.compile(r"([0-9a-z]{16})-(.+)", re.ASCII)

_ASSET_EXTENSIONS: Final = frozenset(
    {
        *("js", "mjs", "cjs", "css", "map", "wasm", "json", "woff2", "woff", "ttf", "otf", "eot"),
        *("svg", "png", "jpg", "jpeg", "webp", "avif", "gif", "ico", "mp3", "mp4", "webm", "txt"),
    }
)
_CODE_EXTENSIONS: Final = frozenset({"js", "mjs", "css", "map", "wasm"})
_ASSET_FOLDERS: Final = frozenset({"assets", "static", "_astro", "immutable", "chunks", "_next", "js", "css"})
_BARE_FOLDERS: Final = frozenset({"immutable", "chunks", "_next"})
# The fingerprint ends the stem: main.3f2a1b9c.js (webpack), index-BCOJk9TN.css (Vite), chunk-7XQ2KPLN.js (esbuild).
_LONGEST_STEM: Final = 100
_STEM: Final = re.compile(r"(?:.*[-._~])?([A-Za-z0-9_-]{8,64})", re.ASCII)
_BASE64_STEM: Final = re.compile(r"(?:.*[-.])?([A-Za-z0-9_-]{8})", re.ASCII)
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+(?:[A-Z][a-z]+)*[0-9]?", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{8,64}", re.ASCII)
_BASE32: Final = re.compile(r"[A-Z2-7]{8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LabelReading:
    """What a label may mean: a deployment's own address if `site_key` is set, and the alias of a project."""

    site_key: str | None
    keyed_slug: str | None
    slug: str
    alias: str


def deployment_label(site_key: str, slug: str) -> str:
    """A deployment's own address, which leads to it for ever."""
    return f"{site_key}-{slug}"


def alias_label(alias: str, slug: str) -> str:
    """The address of an alias. Raises ValueError when no host name can hold it."""
    label = slug if alias == PRODUCTION_ALIAS else f"{alias}--{slug}"
    if len(label) > MAX_LABEL or not _ALIAS.fullmatch(alias):
        raise ValueError(f"{label!r} is no part of a host name")
    return label


def read_label(label: str) -> LabelReading | None:
    """What a label in lower case may mean; None when it can be no site."""
    if len(label) > MAX_LABEL:
        return None
    alias, separator, slug = label.rpartition("--")
    if not separator:
        alias, slug = PRODUCTION_ALIAS, label
    keyed = _KEYED.fullmatch(label)
    site_key, keyed_slug = (keyed[1], keyed[2]) if keyed and _SLUG.fullmatch(keyed[2]) else (None, None)
    if not _SLUG.fullmatch(slug) or not _ALIAS.fullmatch(alias):
        return None
    return LabelReading(site_key, keyed_slug, slug, alias)


def is_fingerprinted(path: str) -> bool:
    """Whether a file's name surely holds a hash of its content, so that it may be kept for ever.

    Cautious: a name made of words is none, whatever its length, because a wrong yes cannot be taken back.
    """
    folders, stem, extension = _parts(path)
    if extension not in _ASSET_EXTENSIONS:
        return False
    if extension in _CODE_EXTENSIONS and "_next/static/" in path:
        return True
    found = _STEM.fullmatch(stem)
    if found is None:
        return False
    last = re.split(r"[-._~]", stem)[-1]
    if _HEX.fullmatch(last) and _is_mixed(last):
        return True
    base64 = _BASE64_STEM.fullmatch(stem)
    if base64 is None or (len(stem) == len(base64[1]) and not _BARE_FOLDERS & folders):
        return False
    token = base64[1]
    if _BASE32.fullmatch(token) and _is_mixed(token):
        return extension in _CODE_EXTENSIONS
    if _WORDS.fullmatch(token) or not (any(map(str.islower, token)) and any(map(str.isupper, token))):
        return False
    return any(map(str.isdigit, token)) or bool(_ASSET_FOLDERS & folders)


def may_be_fingerprinted(path: str) -> bool:
    """Whether a name looks like one that a build made anew each time: the generous form of `is_fingerprinted`."""
    _, stem, extension = _parts(path)
    return (extension in _ASSET_EXTENSIONS and _STEM.fullmatch(stem) is not None) or is_fingerprinted(path)


def _parts(path: str) -> tuple[frozenset[str], str, str]:
    folders, _, name = path.rpartition("/")
    stem, _, extension = name.rpartition(".")
    if extension == "map":
        stem = stem.rpartition(".")[0] or stem
    return frozenset(folders.split("/")), stem[-_LONGEST_STEM:], extension.lower()


def _is_mixed(token: str) -> bool:
    return any(map(str.isdigit, token)) and any(map(str.isalpha, token))
