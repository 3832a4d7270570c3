"""The general layer: topics and cues weighed against each other, for what no narrow rule has a phrase for.

Every pair of a cue and a topic near it has a weight: that of the topic (2 or 1), plus what the category gives to
this kind of cue, less for distance and for a border between clauses, more when another kind of cue stands in the
sentence. A denied good ("not signed") is a cue; a signal is a topic and a cue in one. The best pair of a sentence
decides its category, if it reaches the threshold. Invariant: of a sentence a bounded number of cues and topics is
weighed. Left out: the narrow rules and how findings are written (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.scanner.general_rules import TYPICAL, UNDONE, CompiledGeneral, Cue, CueKind, Listener
from adapters.scanner.words import Hit

THRESHOLD: Final = 3.0
BESIDE_A_RULE: Final = 5.0
"""What a reading must weigh when a narrow rule has already found another category in the sentence."""
_SIGNAL: Final = 3.5
_SIGNAL_WORD: Final = 0.5  # The longer a phrase, the less else it can mean.
_LONG_SIGNAL: Final = 1.5
_OTHER_TOPIC: Final = 0.25
_MAX_OTHER_TOPICS: Final = 1.0
_NEAR: Final = 4
_NOT_FAR: Final = 8
_ANOTHER_CUE: Final = 0.5
_OTHER_CLAUSE: Final = 1.0
_DAMPING: Final = 1.5
_MAX_CUES: Final = 16
_MAX_TOPICS: Final = 24
_DENIED_WITHIN: Final = 4
_HARM_WITHIN: Final = 4
_GOOD_NEWS_DENIED_WITHIN: Final = 3


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the layer takes a sentence for: a category by its place, the kind of cue, and where that stands."""

    category: int
    kind: CueKind
    cue: Hit
    weight: float


@dataclass(frozen=True, slots=True)
class Clauses:
    """For each word the number of its clause, and of its part between contrasting words."""

    clause: Sequence[int]
    part: Sequence[int]


def has_cue(compiled: CompiledGeneral, hits: Mapping[int, Sequence[Hit]]) -> bool:
    """Whether weighing can find anything."""
    goods, deniers = compiled.listeners[Listener.GOODS], compiled.listeners[Listener.DENIERS]
    if goods in hits and deniers in hits:
        return True
    return not (compiled.cues.keys() | compiled.signals.keys()).isdisjoint(hits)


def weigh(
    compiled: CompiledGeneral,
    hits: Mapping[int, Sequence[Hit]],
    clauses: Clauses,
    good_parts: Container[int],
    *,
    taken_back: Sequence[tuple[Hit, int]],
) -> Weighed | None:
    """The best reading of a sentence, or None. `taken_back`: words that cancel what follows, and how far they reach."""
    listeners = {one: hits.get(group, ()) for one, group in compiled.listeners.items()}
    names = listeners[Listener.NAMES]
    cues = [
        (hit, cue, category)
        for hit, cue, category in _cues(compiled, hits, listeners, clauses)
        if clauses.part[hit[0]] not in good_parts
        and not any(_overlap(hit, name) for name in names)
        and not _is_taken_back(hit, cue, clauses, taken_back)
    ]
    if not cues:
        return None
    topics = sorted(
        (hit, category, weight) for group, (category, weight) in compiled.topics.items() for hit in hits.get(group, ())
    )[:_MAX_TOPICS]
    kinds = {cue.kind for _, cue, _ in cues if cue.kind is not CueKind.TYPICAL}
    damping = _DAMPING if listeners[Listener.DAMPING] else 0.0
    spoken_of: dict[int, float] = {}
    for _, category, strength in topics:
        spoken_of[category] = spoken_of.get(category, 0.0) + strength
    best: Weighed | None = None
    best_rank = 0.0
    for hit, cue, own in cues:
        extra = (_ANOTHER_CUE if kinds - {cue.kind} else 0.0) - damping
        for category, weight in _readings(compiled, hit, cue, own, topics, clauses):
            # What else a sentence speaks of decides between categories, but makes no risk.
            rank = weight + min(_MAX_OTHER_TOPICS, _OTHER_TOPIC * spoken_of.get(category, 0.0))
            rank -= compiled.yields[category]
            if weight + extra >= THRESHOLD and rank > best_rank:
                best, best_rank = Weighed(category, cue.kind, hit, weight + extra), rank
    return best


def _readings(
    compiled: CompiledGeneral,
    hit: Hit,
    cue: Cue,
    own: int | None,
    topics: Sequence[tuple[Hit, int, float]],
    clauses: Clauses,
) -> Iterator[tuple[int, float]]:
    if cue.kind is CueKind.SIGNAL:
        if own is not None:
            yield own, _SIGNAL + min(_LONG_SIGNAL, _SIGNAL_WORD * (hit[1] - hit[0]))
        return
    for topic, category, strength in topics:
        affinity = compiled.weights[category].get(cue.kind, 0.0)
        if not affinity or (own is not None and own != category):
            continue
        gap = _gap(topic, hit, cue)
        if gap is None:
            continue
        away = 0.0 if gap <= _NEAR else 0.5 if gap <= _NOT_FAR else 1.0
        border = 0.0 if clauses.clause[topic[0]] == clauses.clause[hit[0]] else _OTHER_CLAUSE
        yield category, affinity + strength - away - border


def _cues(
    compiled: CompiledGeneral,
    hits: Mapping[int, Sequence[Hit]],
    listeners: Mapping[Listener, Sequence[Hit]],
    clauses: Clauses,
) -> list[tuple[Hit, Cue, int | None]]:
    found: list[tuple[Hit, Cue, int | None]] = []
    harms = [first for first, _ in listeners[Listener.HARMS]]
    for group, cue in compiled.cues.items():
        for hit in hits.get(group, ()):
            # "No delays" misses nothing.
            if cue.kind is CueKind.ABSENCE and any(0 <= place - hit[1] <= _HARM_WITHIN for place in harms):
                continue
            found.append((hit, cue, None))
    found += [
        (hit, Cue(CueKind.SIGNAL, False, 0), category)
        for group, category in compiled.signals.items()
        for hit in hits.get(group, ())
    ]
    found += [(hit, TYPICAL, category) for group, category in compiled.typical.items() for hit in hits.get(group, ())]
    deniers = listeners[Listener.DENIERS]
    for first, last in listeners[Listener.GOODS]:
        before = [
            denier
            for denier in deniers
            if 0 < first - denier[1] <= _DENIED_WITHIN and clauses.clause[denier[1]] == clauses.clause[first]
        ]
        # In "no complaints were received" the bad thing is what is denied.
        if before and not any(before[-1][1] < place < first for place in harms):
            found.append(((before[-1][0], last), UNDONE, None))
    found.sort(key=lambda one: (one[1].kind is CueKind.TYPICAL, one[0]))
    return found[:_MAX_CUES]


def good_news_parts(compiled: CompiledGeneral, hits: Mapping[int, Sequence[Hit]], clauses: Clauses) -> set[int]:
    """Parts of the sentence, from one contrast to the next, that tell good news."""
    deniers = hits.get(compiled.listeners[Listener.DENIERS], ())
    return {
        clauses.part[first]
        for first, last in hits.get(compiled.listeners[Listener.GOOD_NEWS], ())
        if not any(0 < first - denier[1] <= _GOOD_NEWS_DENIED_WITHIN for denier in deniers)
    }


def _is_taken_back(hit: Hit, cue: Cue, clauses: Clauses, taken_back: Sequence[tuple[Hit, int]]) -> bool:
    if cue.kind is CueKind.UNDONE or cue.kind is CueKind.ABSENCE:
        return False
    return any(
        0 < hit[0] - word[1] <= reach and clauses.clause[word[1]] == clauses.clause[hit[0]]
        for word, reach in taken_back
    )


def _gap(topic: Hit, hit: Hit, cue: Cue) -> int | None:
    """How many words a topic is away from a cue; None when it is too far, on the wrong side, or the cue itself."""
    if _overlap(topic, hit):
        # "Not encrypted" speaks of encryption.
        return 0 if cue.kind is CueKind.UNDONE else None
    gap = topic[0] - hit[1] if hit[1] < topic[0] else hit[0] - topic[1]
    if gap > cue.within or (cue.is_first and topic[0] < hit[0]):
        return None
    return gap


def _overlap(one: Hit, other: Hit) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
