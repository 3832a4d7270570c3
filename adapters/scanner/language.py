"""English or Spanish, by the commonest little words; nothing else is told apart.

A document has a language, and each sentence may have the other one. A sentence whose little words do not decide is
in the language of its document.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

_ENGLISH_WORDS: Final = """
    the of and to in is are was were be been being has have had that this these those with for on by from at
    as it its we our us they their he she his her you your not an or but if which who what when where there
    will would should must can into until after before than then also any some each only about between during
    because while
"""
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_SPANISH_WORDS: Final = """
    el la los las un una unos unas de del y e en es son fue fueron ser sido ha han hay que se con por para su
    sus lo le les al como mas pero sin sobre este esta estos estas ese esa desde hasta muy ya nos nuestro
    nuestra nuestros nuestras cuando donde porque entre tras aun todavia esta estan sera seran tiene tienen ni
    cada todos todas quien cual
"""
_SPANISH: Final = frozenset(_SPANISH_WORDS.split())
# What both languages have tells nothing.
_ONLY_ENGLISH: Final = _ENGLISH - _SPANISH
_ONLY_SPANISH: Final = _SPANISH - _ENGLISH
_MIXED_SHARE: Final = 0.2


class Language(StrEnum):
    """What the rules are written for."""

    EN = "en"
    ES = "es"


def count_little_words(forms: Iterable[str]) -> tuple[int, int]:
    """How many English and how many Spanish little words there are."""
    english = spanish = 0
    for form in forms:
        if form in _ONLY_ENGLISH:
            english += 1
        elif form in _ONLY_SPANISH:
            spanish += 1
    return english, spanish


def language_of_document(english: int, spanish: int) -> str:
    """`en`, `es`, `mixed` when a fifth or more is in the other one, `und` (BCP 47: undetermined) without evidence."""
    total = english + spanish
    if not total:
        return "und"
    if min(english, spanish) / total >= _MIXED_SHARE and total > 5:
        return "mixed"
    return (Language.EN if english >= spanish else Language.ES).value


def languages_of_sentence(english: int, spanish: int, document: str) -> tuple[Language, ...]:
    """The language to read a sentence in; both, when neither it nor its document tells."""
    if english != spanish:
        return (Language.EN if english > spanish else Language.ES,)
    if document in (Language.EN, Language.ES):
        return (Language(document),)
    return (Language.EN, Language.ES)
