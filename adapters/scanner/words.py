"""Words: what a text is cut into, the form in which words are compared, and phrases found among them.

A word is compared without case, accents and possessive ending; every contraction with *n't* is `not`. A phrase is
words in a row; `stem*` stands for all words that begin so, `...` for at most three words in between. Invariant: the
time is linear in the text, because a phrase is tried only where its last word stands, and then looks at a bounded
number of words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

MAX_PHRASE_WORDS: Final = 8
GAP: Final = "..."
GAP_WORDS: Final = 3
_MIN_STEM: Final = 3
_MAX_STEM: Final = 24
_LONGEST_WORD: Final = 64
# No character fits two alternatives, so nothing is tried twice. A word goes on after the hyphen of a line's end.
_WORD: Final = re.compile(r"[^\W_]+(?:(?:['’\u00ad]|[-\u2010]\r?\n[ \t]{0,8}(?=[^\W\d_]))[^\W_]+)*")
_JOINT: Final = re.compile(r"\u00ad|[-\u2010]\r?\n[ \t]*")
_MONTH: Final = {"May": "may(month)"}  # The month is no hedge.


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a sentence: their comparable forms, and where each stands in the text.

    Plain strings and tuples: there are 200,000 words in a megabyte, and objects would cost more than the search.
    """

    forms: list[str]
    spans: list[tuple[int, int]]


Hit: TypeAlias = tuple[int, int]
"""A phrase that was found: the positions of its first and last word."""


class _Step(NamedTuple):
    form: str
    is_stem: bool
    gap: int


_Before: TypeAlias = tuple[str, bool, int]
_Phrase: TypeAlias = tuple[int, tuple[_Before, ...]]
_Ending: TypeAlias = tuple[list[_Phrase], dict[str, list[_Phrase]]]
"""The phrases that end with a word: those to be tried, and those to be tried only after a certain word."""


class BadPhrase(ValueError):
    """A phrase that could match nothing or everything; the message says which."""


def words_of(text: str, start: int = 0, end: int | None = None) -> Words:
    """The words of `text[start:end]` in order; spans are those of `text`."""
    spans = [match.span() for match in _WORD.finditer(text, start, len(text) if end is None else end)]
    return Words([_form(text[first:last]) for first, last in spans], spans)


class PhraseFinder:
    """Finds the phrases of many groups at once. Groups are numbers that the caller chose."""

    def __init__(self, groups: Mapping[int, Iterable[str]]) -> None:
        # By their last words, of which few phrases share one; a great many begin with "not" or "no".
        self._exact: dict[str, list[_Phrase]] = {}
        self._stems: dict[str, list[_Phrase]] = {}
        for group, phrases in groups.items():
            for text in phrases:
                steps = _steps(text)
                last = steps[-1]
                index = self._stems if last.is_stem else self._exact
                before = [(step.form, step.is_stem, following.gap + 1) for step, following in pairwise(steps)]
                index.setdefault(last.form, []).append((group, tuple(reversed(before))))
        # Words repeat: each distinct one is looked up once. Bounded, as the words of a hostile text do not.
        self._ending_with = lru_cache(maxsize=20_000)(self._look_up)

    def find(self, forms: Sequence[str]) -> list[tuple[int, Hit]]:
        """Every group and hit, by the position of the last word."""
        hits: list[tuple[int, Hit]] = []
        look_up = self._ending_with
        previous = ""
        for position, form in enumerate(forms):
            ending = look_up(form)
            if ending is None:
                previous = form
                continue
            any_before, by_previous = ending
            for group, before in any_before:
                first = _first_word(before, forms, position) if before else position
                if first is not None:
                    hits.append((group, (first, position)))
            for group, before in by_previous.get(previous, ()):
                first = _first_word(before, forms, position - 1)
                if first is not None:
                    hits.append((group, (first, position)))
            previous = form
        return hits

    def _look_up(self, form: str) -> _Ending | None:
        found = list(self._exact.get(form, ()))
        for length in range(_MIN_STEM, min(len(form), _MAX_STEM) + 1):
            found += self._stems.get(form[:length], ())
        if not found:
            return None
        any_before: list[_Phrase] = []
        by_previous: dict[str, list[_Phrase]] = {}
        for group, before in found:
            # Hundreds of phrases end with "the"; most say exactly which word must come before it.
            if before and not before[0][1] and before[0][2] == 1:
                by_previous.setdefault(before[0][0], []).append((group, before[1:]))
            else:
                any_before.append((group, before))
        return any_before, by_previous


def _first_word(before: tuple[_Before, ...], forms: Sequence[str], position: int) -> int | None:
    """Where a phrase begins that ends at a position; of several places for a word the nearest is taken."""
    for wanted, is_stem, reach in before:
        for index in range(position - 1, max(position - reach, 0) - 1, -1):
            form = forms[index]
            if form == wanted or (is_stem and form.startswith(wanted)):
                position = index
                break
        else:
            return None
    return position


def _steps(phrase: str) -> list[_Step]:
    steps: list[_Step] = []
    gap = 0
    for part in phrase.split():
        if part == GAP:
            if not steps or gap:
                raise BadPhrase(f"{phrase!r}: a gap must stand between two words")
            gap = GAP_WORDS
            continue
        is_stem = part.endswith("*")
        text = part.removesuffix("*")
        forms = words_of(text).forms
        if len(forms) != 1 or (is_stem and not _MIN_STEM <= len(forms[0]) <= _MAX_STEM):
            raise BadPhrase(f"{phrase!r}: {part!r} is neither a word nor a stem of {_MIN_STEM} to {_MAX_STEM} letters")
        steps.append(_Step(forms[0], is_stem, gap))
        gap = 0
    if gap or not 1 <= len(steps) <= MAX_PHRASE_WORDS:
        raise BadPhrase(f"{phrase!r}: a phrase has one to {MAX_PHRASE_WORDS} words, and a gap only between two")
    return steps


@lru_cache(maxsize=50_000)
def _short_form(word: str) -> str:
    if word in _MONTH:
        return _MONTH[word]
    plain = _JOINT.sub("", word).replace("’", "'")
    if not plain.isascii():
        decomposed = unicodedata.normalize("NFKD", plain)
        plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    plain = plain.casefold()
    if plain.endswith("n't") or plain == "cannot":
        return "not"
    return plain.removesuffix("'s")


def _form(word: str) -> str:
    # No phrase is that long: a megabyte without a space is one word that matches nothing.
    return _short_form(word) if len(word) <= _LONGEST_WORD else "(long)"
