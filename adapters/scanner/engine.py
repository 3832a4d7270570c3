"""`scan`: sentences in, findings out.

A rule matches where a cue and a topic stand within one sentence, near enough and in the right order. Then the rest
of the sentence is heard: negation, prevention and resolution cancel, questions and talk about risks in general do
too, hedging lowers, strong words and deadlines or amounts raise. Invariants: the same text and rules give the same
report; nothing is raised whatever the text; every span is one of the text that was given; the time is linear in its
length, because a sentence has a bounded length and a rule looks at a bounded number of hits. Left out: files, HTTP,
what happens to findings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from adapters.scanner import general
from adapters.scanner.fingerprints import fingerprint
from adapters.scanner.general_rules import CueKind, GeneralTexts
from adapters.scanner.language import Language, count_little_words, language_of_document, languages_of_sentence
from adapters.scanner.rules import (
    Category,
    CompiledLanguage,
    CompiledRule,
    Modifier,
    Order,
    Rule,
    Ruleset,
    Severity,
    shipped_rules,
)
from adapters.scanner.sentences import Sentence, split_sentences
from adapters.scanner.words import Hit, Words, words_of

SCANNER_NAME: Final = "switchyard-rules"
SCANNER_VERSION: Final = "1.0.0"
MAX_CHARACTERS: Final = 1_000_000
MAX_FINDINGS: Final = 2_000
MAX_CONTEXT: Final = 500
MIN_SENTENCE: Final = 8
_MAX_HITS: Final = 8
_NEGATION_REACH: Final = 4
_PREVENTION_REACH: Final = 8
_OPEN_REACH: Final = 4
_CLAUSE_MARKS: Final = frozenset(",;:()–—")
_AMOUNT_SIGNS: Final = frozenset("%€$£")
_SEVERITIES: Final = tuple(Severity)
_CATEGORIES: Final = tuple(Category)
_GENERAL_MEDIUM: Final = 4.0
_GENERAL_EXPLANATION: Final = {
    Language.EN: "Words of this topic stand beside words of trouble; no precise rule knows the phrase.",
    Language.ES: "Palabras de este tema están junto a palabras de problema; ninguna regla precisa conoce la frase.",
}


class SeveritySource(StrEnum):
    """Who says how bad it is."""

    RULE = "RULE"
    UPSTREAM = "UPSTREAM"


@dataclass(frozen=True, slots=True)
class Finding:
    """A risk: `text[start:end]` is `context`, the sentence or, of a very long one, the part around the cue."""

    category: Category
    risk: str
    explanation: str
    context: str
    severity: Severity
    severity_source: SeveritySource
    start: int
    end: int
    page: int | None
    rule: str
    also_rules: tuple[str, ...]
    cue: str
    confidence: None
    fingerprint: str
    language: Language
    occurrences: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who found it. `language` is en, es, mixed or und; `truncated` says that the text or the findings went on."""

    scanner: str
    version: str
    ruleset: str
    language: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class ScanReport:
    """Findings in the order of the text."""

    findings: tuple[Finding, ...]
    provenance: Provenance


def scan(text: str, rules: Ruleset | None = None) -> ScanReport:
    """Find the risks in a text; of more than `MAX_CHARACTERS` the beginning is read."""
    used = rules or shipped_rules()
    read = text[:MAX_CHARACTERS]
    sentences = [
        (sentence, words_of(read, sentence.start, sentence.end))
        for sentence in split_sentences(read)
        if sentence.end - sentence.start >= MIN_SENTENCE
    ]
    counts = [count_little_words(words.forms) for _, words in sentences]
    language = language_of_document(sum(one for one, _ in counts), sum(other for _, other in counts))
    found: dict[str, Finding] = {}
    is_cut = len(text) > MAX_CHARACTERS
    for (sentence, words), (english, spanish) in zip(sentences, counts, strict=True):
        if not words.forms:
            continue
        for reading in languages_of_sentence(english, spanish, language):
            for finding in _read_sentence(read, sentence, words, reading, used):
                known = found.get(finding.fingerprint)
                if known is not None:
                    if known.start != finding.start:
                        found[finding.fingerprint] = replace(known, occurrences=known.occurrences + 1)
                elif len(found) < MAX_FINDINGS:
                    found[finding.fingerprint] = finding
                else:
                    is_cut = True
    provenance = Provenance(SCANNER_NAME, SCANNER_VERSION, used.hash, language, is_cut)
    return ScanReport(tuple(found.values()), provenance)


@dataclass(frozen=True, slots=True)
class _Match:
    rule: str
    risk: str
    explanation: str
    cue: Hit
    severity: Severity


def _read_sentence(
    text: str, sentence: Sentence, words: Words, language: Language, rules: Ruleset
) -> Iterator[Finding]:
    """At most one finding per category: the worst, and of equals the one whose rule comes first."""
    compiled = rules.compiled[language]
    hits: defaultdict[int, list[Hit]] = defaultdict(list)
    for group, hit in compiled.finder.find(words.forms):
        if len(hits[group]) < _MAX_HITS or group in compiled.modifiers:
            hits[group].append(hit)
    candidates = sorted({index for group in hits for index in compiled.rules_by_cue.get(group, ())})
    if not candidates and not general.has_cue(compiled.general, hits):
        return
    surroundings = _Surroundings(text, sentence, words, compiled, hits)
    if surroundings.is_no_statement:
        return
    matches = _narrow_matches(compiled, candidates, hits, surroundings, language)
    found = surroundings.weigh(compiled, hits)
    if found is not None and (not matches or found.weight >= general.BESIDE_A_RULE):
        category = _CATEGORIES[found.category]
        if category not in matches:
            matches[category].append(_general_match(found, category, rules.general_texts, surroundings, language))
    for category, matched in matches.items():
        worst = max(matched, key=lambda match: _SEVERITIES.index(match.severity))
        cue_start, cue_end = words.spans[worst.cue[0]][0], words.spans[worst.cue[1]][1]
        start, end = _context(sentence, cue_start, cue_end)
        yield Finding(
            category=category,
            risk=worst.risk,
            explanation=worst.explanation,
            context=text[start:end],
            severity=worst.severity,
            severity_source=SeveritySource.RULE,
            start=start,
            end=end,
            page=sentence.page,
            rule=worst.rule,
            also_rules=tuple(match.rule for match in matched if match is not worst),
            cue=text[cue_start:cue_end],
            confidence=None,
            fingerprint=fingerprint(category, text[sentence.start : sentence.end]),
            language=language,
            occurrences=1,
        )


def _narrow_matches(
    compiled: CompiledLanguage,
    candidates: Sequence[int],
    hits: Mapping[int, Sequence[Hit]],
    around: _Surroundings,
    language: Language,
) -> defaultdict[Category, list[_Match]]:
    matches: defaultdict[Category, list[_Match]] = defaultdict(list)
    for index in candidates:
        rule = compiled.rules[index]
        if (cue := _standing_cue(rule, hits, around)) is not None:
            said = rule.rule
            matches[said.category].append(
                _Match(said.id, said.title[language], said.explanation[language], cue, around.severity(said.severity))
            )
    return matches


def _general_match(
    found: general.Weighed, category: Category, texts: GeneralTexts, around: _Surroundings, language: Language
) -> _Match:
    """A general finding starts low: it knows that something is wrong, not what that means."""
    base = Severity.MEDIUM if found.weight >= _GENERAL_MEDIUM or found.kind is CueKind.SIGNAL else Severity.LOW
    return _Match(
        rule=f"{category.value}.general.{found.kind.value}",
        risk=f"{texts.names[found.category][language]}: {texts.kinds[language][found.kind]}",
        explanation=_GENERAL_EXPLANATION[language],
        cue=found.cue,
        severity=around.severity(base),
    )


def _standing_cue(rule: CompiledRule, hits: Mapping[int, Sequence[Hit]], around: _Surroundings) -> Hit | None:
    """The first cue of a rule that has its topic near and is not cancelled."""
    cues = sorted(hit for group in rule.cues for hit in hits.get(group, ()))[:_MAX_HITS]
    if rule.topics is None:
        return next((cue for cue in cues if not around.cancels(cue, cue)), None)
    topics = sorted(hit for group in rule.topics for hit in hits.get(group, ()))[:_MAX_HITS]
    for cue in cues:
        for topic in topics:
            if _belong_together(rule.rule, topic, cue) and not around.cancels(cue, topic):
                return cue
    return None


def _belong_together(rule: Rule, topic: Hit, cue: Hit) -> bool:
    (topic_first, topic_last), (cue_first, cue_last) = topic, cue
    if cue_last < topic_first:
        return rule.order is not Order.TOPIC_FIRST and topic_first - cue_last <= rule.within
    if topic_last < cue_first:
        return rule.order is not Order.CUE_FIRST and cue_first - topic_last <= rule.within
    return False


class _Surroundings:
    """What the rest of a sentence says about its matches."""

    def __init__(
        self,
        text: str,
        sentence: Sentence,
        words: Words,
        compiled: CompiledLanguage,
        hits: Mapping[int, Sequence[Hit]],
    ) -> None:
        by_kind: dict[Modifier, Sequence[Hit]] = {
            kind: hits[group] for group, kind in compiled.modifiers.items() if group in hits
        }
        contrasts = {first for first, _ in by_kind.get(Modifier.CONTRAST, ())}
        self._clauses = _clauses(text, words, contrasts)
        self._negations = by_kind.get(Modifier.NEGATION, ())
        self._preventions = by_kind.get(Modifier.PREVENTION, ())
        self._contrast_before = _running_count(contrasts, len(words.forms))
        open_ends = {last for _, last in by_kind.get(Modifier.UNRESOLVED, ())}
        self._resolved_parts = {
            self._contrast_before[first]
            for first, _ in by_kind.get(Modifier.RESOLUTION, ())
            if not any(first - back in open_ends for back in range(1, _OPEN_REACH + 1))
        }
        self._clauses_and_parts = general.Clauses(self._clauses, self._contrast_before)
        self._good_parts = general.good_news_parts(compiled.general, hits, self._clauses_and_parts)
        said = text[sentence.start : sentence.end]
        is_supposing = Modifier.SUPPOSING in by_kind
        is_question = said.rstrip("\"'”’»)]*_").endswith("?") and not is_supposing
        self.is_no_statement = is_question or Modifier.NEUTRAL in by_kind
        has_amount = Modifier.AMOUNT in by_kind or (
            not _AMOUNT_SIGNS.isdisjoint(said) and any(char.isdigit() for char in said)
        )
        self._steps = (
            (Modifier.STRONG in by_kind)
            + (has_amount or Modifier.DEADLINE in by_kind)
            - (Modifier.HEDGE in by_kind or is_supposing)
        )

    def weigh(self, compiled: CompiledLanguage, hits: Mapping[int, Sequence[Hit]]) -> general.Weighed | None:
        """What the general layer finds, unless some part of the sentence says that it is resolved."""
        if self._resolved_parts:
            return None
        taken_back = [
            *((hit, _NEGATION_REACH) for hit in self._negations[:_MAX_HITS]),
            *((hit, _PREVENTION_REACH) for hit in self._preventions[:_MAX_HITS]),
        ]
        return general.weigh(compiled.general, hits, self._clauses_and_parts, self._good_parts, taken_back=taken_back)

    def cancels(self, cue: Hit, topic: Hit) -> bool:
        """Whether the sentence takes back what the cue says."""
        if self._contrast_before[cue[0]] in self._resolved_parts | self._good_parts:
            return True
        return any(
            self._reaches(hit, place, reach, cue, topic)
            for hits, reach in ((self._negations, _NEGATION_REACH), (self._preventions, _PREVENTION_REACH))
            for hit in hits[:_MAX_HITS]
            for place in (cue, topic)
        )

    def severity(self, base: Severity) -> Severity:
        """The base, moved one step by each kind of evidence, within the scale."""
        index = _SEVERITIES.index(base) + self._steps
        return _SEVERITIES[max(0, min(index, len(_SEVERITIES) - 1))]

    def _reaches(self, hit: Hit, place: Hit, reach: int, cue: Hit, topic: Hit) -> bool:
        """Whether a cancelling word stands shortly before a place, in the same clause, and is not the match itself."""
        first, last = hit
        if any(first <= part_last and part_first <= last for part_first, part_last in (cue, topic)):
            return False
        return 0 < place[0] - last <= reach and self._clauses[last] == self._clauses[place[0]]


def _clauses(text: str, words: Words, contrasts: Container[int]) -> list[int]:
    """For each word the number of its clause; a comma or a contrasting word begins the next one."""
    numbers: list[int] = []
    number = 0
    previous_end = words.spans[0][0]
    for index, (start, end) in enumerate(words.spans):
        if index in contrasts or not _CLAUSE_MARKS.isdisjoint(text[previous_end:start]):
            number += 1
        numbers.append(number)
        previous_end = end
    return numbers


def _running_count(places: Container[int], length: int) -> list[int]:
    """For each index how many of the places are at or before it."""
    counts: list[int] = []
    count = 0
    for index in range(length):
        count += index in places
        counts.append(count)
    return counts


def _context(sentence: Sentence, cue_start: int, cue_end: int) -> tuple[int, int]:
    if sentence.end - sentence.start <= MAX_CONTEXT:
        return sentence.start, sentence.end
    middle = (cue_start + min(cue_end, cue_start + MAX_CONTEXT)) // 2
    start = max(sentence.start, min(middle - MAX_CONTEXT // 2, sentence.end - MAX_CONTEXT))
    return start, start + MAX_CONTEXT
