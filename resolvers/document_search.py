"""Searching what was read: pages by their words, and what of them to show.

The database finds and ranks (`models/ocr_job_queries.py`); the snippet is cut here, because PostgreSQL's own marks
nothing in a text whose accents the search ignores.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from errors import ValidationFailed
from models import ocr_job_queries
from models.database import Row
from models.permissions import Actor
from resolvers import texts

WORDS_BEFORE: Final = 8
WORDS_SHOWN: Final = 30
MAX_WORD: Final = 80
"""Characters of a word in a snippet: longer ones are cut."""
_TERM: Final = re.compile(r'(-?)("[^"]*"|\S+)')
_PIECE: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a snippet; `is_match` says that it is what was looked for."""

    text: str
    is_match: bool


async def page(actor: Actor, query: str, **bounds: Any) -> list[Row]:
    """A page of hits."""
    return await ocr_job_queries.search(actor, query, **bounds)


async def count(actor: Actor, query: str) -> int:
    """How many there are in all."""
    return await ocr_job_queries.count_found(actor, query)


async def page_texts(page_ids: list[UUID]) -> dict[UUID, str]:
    """The text of pages that were found."""
    return await ocr_job_queries.texts(page_ids)


def checked(query: str) -> str:
    """What to look for; raises ValidationFailed when it is nothing."""
    tidy = texts.search(query)
    if tidy is None or not _PIECE.search(tidy):
        raise ValidationFailed("Say what to look for.", path=["search"])
    return tidy


def snippet(text: str, query: str) -> list[Part]:
    """Some words of a text around the first that was looked for, in parts that join to one line."""
    wanted = _wanted(query)
    words = text.split()
    hits = [_is_hit(word, wanted) for word in words]
    first = max(0, (hits.index(True) if True in hits else 0) - WORDS_BEFORE)
    parts: list[Part] = []
    for place in range(first, min(len(words), first + WORDS_SHOWN)):
        word = words[place][:MAX_WORD]
        if parts and parts[-1].is_match == hits[place]:
            parts[-1] = Part(f"{parts[-1].text} {word}", hits[place])
        else:
            if parts:
                parts[-1] = Part(f"{parts[-1].text} ", parts[-1].is_match)
            parts.append(Part(word, hits[place]))
    if parts and first:
        parts.insert(0, Part("… ", is_match=False))
    if parts and first + WORDS_SHOWN < len(words):
        parts.append(Part(" …", is_match=False))
    return parts


def _wanted(query: str) -> frozenset[str]:
    """The words that a hit has, in their plain form: not those with a minus, nor the word that joins."""
    found: set[str] = set()
    for minus, term in _TERM.findall(query):
        if not minus and term.lower() != "or":
            found.update(_PIECE.findall(_plain(term)))
    return frozenset(found)


def _is_hit(word: str, wanted: frozenset[str]) -> bool:
    return not wanted.isdisjoint(_PIECE.findall(_plain(word)))


def _plain(text: str) -> str:
    """Without case and accents, as the search sees it."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
