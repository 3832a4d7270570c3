"""The lexicon of the general layer: read from `rules/general/*.yaml`, checked strictly, given numbers for the engine.

Narrow rules know phrases; the general layer knows topics (what a sentence speaks of) and cues (that something is
wrong with it), and every category says how much each kind of cue weighs beside its topics. Invariants: an unknown
kind, a phrase that cannot match, and a phrase said twice in one list stop the loading; everything here is part of
the ruleset's hash. Left out: how a sentence is weighed (`general.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adapters.scanner.language import Language

FOLDER: Final = "general"


class CueKind(StrEnum):
    """The kinds of wrong. `typical` are words that only mean something beside the topics of one category."""

    OVER = "over"
    LATE = "late"
    STOPPED = "stopped"
    ABSENCE = "absence"
    MISSING = "missing"
    UNDECIDED = "undecided"
    UNDONE = "undone"
    ONLY = "only"
    OVERLOAD = "overload"
    LEAVING = "leaving"
    CONFLICT = "conflict"
    EXPOSED = "exposed"
    OUTDATED = "outdated"
    CHANGE = "change"
    CUT = "cut"
    FAILED = "failed"
    DOUBT = "doubt"
    DEPENDS = "depends"
    ENDING = "ending"
    THREAT = "threat"
    LOST = "lost"
    TYPICAL = "typical"
    SIGNAL = "signal"


class Listener(StrEnum):
    """Words that are neither topic nor cue, but make or unmake one."""

    GOODS = "goods"
    DENIERS = "deniers"
    HARMS = "harms"
    GOOD_NEWS = "good_news"
    DAMPING = "damping"
    NAMES = "names"


_MADE: Final = {CueKind.UNDONE, CueKind.TYPICAL, CueKind.SIGNAL}
"""Kinds that no list in the files of cues has: two are with the categories, one is a denied good."""


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _said_once(phrases: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [phrase for phrase, count in Counter(phrases).items() if count > 1]:
        raise ValueError(f"{repeated[0]!r} is said twice")
    return phrases


_List = Annotated[tuple[str, ...], BeforeValidator(_split), Field(min_length=1, max_length=800)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class _CueClass(_Strict):
    title: str = Field(min_length=3, max_length=100)
    order: str = Field(default="any", pattern="^(any|cue-first)$")
    within: int = Field(default=18, ge=1, le=30)
    phrases: _List


class CuesFile(_Strict):
    """`cues.<language>.yaml`."""

    language: Language
    classes: dict[CueKind, _CueClass]
    goods: _List
    deniers: _List
    harms: _List
    good_news: _List
    damping: _List
    names: _List

    @model_validator(mode="after")
    def _is_whole(self) -> CuesFile:
        missing = set(CueKind) - _MADE - set(self.classes)
        if missing or self.classes.keys() & _MADE:
            raise ValueError(f"kinds of cues are missing or not for this file: {sorted(missing)}")
        for phrases in (*(one.phrases for one in self.classes.values()), *(self.list_of(one) for one in Listener)):
            _said_once(phrases)
        return self

    def list_of(self, listener: Listener) -> tuple[str, ...]:
        """The words of a listener."""
        found: tuple[str, ...] = getattr(self, listener.value)
        return found


class _BothLists(_Strict):
    en: _List
    es: _List

    @model_validator(mode="after")
    def _nothing_twice(self) -> _BothLists:
        _said_once(self.en)
        _said_once(self.es)
        return self

    def of(self, language: Language) -> tuple[str, ...]:
        return self.en if language is Language.EN else self.es


class _Name(_Strict):
    en: str
    es: str


class TopicsFile(_Strict):
    """`<category>.yaml`: `strong` topics hardly mean anything else, `plain` ones do; `signals` need no topic.

    `yields`: how much heavier a reading must be than one of another category to win against it.
    """

    category: str
    name: _Name
    weights: dict[CueKind, float]
    yields: float = Field(default=0.0, ge=0, le=3)
    strong: _BothLists
    plain: _BothLists
    typical: _BothLists
    signals: _BothLists


@dataclass(frozen=True, slots=True)
class Cue:
    """A kind of cue: whether it must come before its topic, and how many words may lie between."""

    kind: CueKind
    is_first: bool
    within: int


@dataclass(frozen=True, slots=True)
class CompiledGeneral:
    """What the numbers of groups mean in one language. Categories are their places in the order of the files."""

    cues: Mapping[int, Cue]
    typical: Mapping[int, int]
    signals: Mapping[int, int]
    topics: Mapping[int, tuple[int, float]]
    listeners: Mapping[Listener, int]
    weights: Sequence[Mapping[CueKind, float]]
    yields: Sequence[float]


@dataclass(frozen=True, slots=True)
class GeneralTexts:
    """What a finding says."""

    names: Sequence[Mapping[Language, str]]
    kinds: Mapping[Language, Mapping[CueKind, str]]


STRONG_TOPIC: Final = 2.0
PLAIN_TOPIC: Final = 1.0
TYPICAL_WEIGHT: Final = 0.75
_UNDONE_WITHIN: Final = 12
_MADE_TITLES: Final = {
    Language.EN: {
        CueKind.UNDONE: "has not been done",
        CueKind.TYPICAL: "is not as it should be",
        CueKind.SIGNAL: "something is wrong",
    },
    Language.ES: {
        CueKind.UNDONE: "no se ha hecho",
        CueKind.TYPICAL: "no está como debe",
        CueKind.SIGNAL: "algo va mal",
    },
}
UNDONE: Final = Cue(CueKind.UNDONE, False, _UNDONE_WITHIN)
TYPICAL: Final = Cue(CueKind.TYPICAL, False, 6)


def compile_general(
    cues: CuesFile, files: Sequence[TopicsFile], number_of: Callable[[str, Sequence[str]], int]
) -> CompiledGeneral:
    """Give every list its number among the groups of the phrase finder."""
    language = cues.language
    topics: dict[int, tuple[int, float]] = {}
    typical: dict[int, int] = {}
    signals: dict[int, int] = {}
    for place, file in enumerate(files):
        topics[number_of(f"general strong {place}", file.strong.of(language))] = (place, STRONG_TOPIC)
        topics[number_of(f"general plain {place}", file.plain.of(language))] = (place, PLAIN_TOPIC)
        typical[number_of(f"general typical {place}", file.typical.of(language))] = place
        signals[number_of(f"general signals {place}", file.signals.of(language))] = place
    return CompiledGeneral(
        cues={
            number_of(f"general cue {kind}", one.phrases): Cue(kind, one.order == "cue-first", one.within)
            for kind, one in cues.classes.items()
        },
        typical=typical,
        signals=signals,
        topics=topics,
        listeners={one: number_of(f"general {one}", cues.list_of(one)) for one in Listener},
        yields=[file.yields for file in files],
        weights=[{CueKind.TYPICAL: TYPICAL_WEIGHT, **file.weights} for file in files],
    )


def texts_of(cues: Mapping[Language, CuesFile], files: Sequence[TopicsFile]) -> GeneralTexts:
    """The words for findings."""
    return GeneralTexts(
        names=[{Language.EN: file.name.en, Language.ES: file.name.es} for file in files],
        kinds={
            language: {**_MADE_TITLES[language], **{kind: one.title for kind, one in file.classes.items()}}
            for language, file in cues.items()
        },
    )
