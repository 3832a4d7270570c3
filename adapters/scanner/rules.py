"""The rules: read from `rules/*.yaml`, checked strictly, compiled for the engine.

A rule is a topic and a cue within one sentence. Groups of words that many rules need stand in `lexicon.yaml` under
a name, and `@name` puts one in. Invariants: what is misspelt, unknown, empty or said twice stops the loading; the
hash of a ruleset changes with everything that can change a finding. Left out: what negation and hedging do
(`engine.py`), and the lexicon of the general layer (`general_rules.py`), which is only called here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters.scanner import general_rules
from adapters.scanner.general_rules import CompiledGeneral, CuesFile, GeneralTexts, TopicsFile
from adapters.scanner.language import Language
from adapters.scanner.words import BadPhrase, PhraseFinder

RULES_FOLDER: Final = Path(__file__).parent / "rules"
LEXICON: Final = "lexicon"


class Category(StrEnum):
    """What a risk is about."""

    BUDGET = "budget"
    SCHEDULE = "schedule"
    SCOPE = "scope"
    STAFFING = "staffing"
    LEGAL = "legal"
    SECURITY = "security"
    DEPENDENCY = "dependency"


class Severity(StrEnum):
    """How bad, from the least to the worst."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


class Order(StrEnum):
    """Which of the two must come first in the sentence."""

    ANY = "any"
    CUE_FIRST = "cue-first"
    TOPIC_FIRST = "topic-first"


class Modifier(StrEnum):
    """Groups of the lexicon that change what a match means; `docs/scanner.md` says how."""

    NEGATION = "negation"
    PREVENTION = "prevention"
    RESOLUTION = "resolution"
    UNRESOLVED = "unresolved"
    HEDGE = "hedge"
    STRONG = "strong"
    DEADLINE = "deadline"
    AMOUNT = "amount"
    CONTRAST = "contrast"
    NEUTRAL = "neutral"
    SUPPOSING = "supposing"


class InvalidRules(Exception):
    """The files of rules are not what they have to be; the message names the file, the rule or the phrase."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


_Model = TypeVar("_Model", bound=BaseModel)


class _Phrases(_Strict):
    en: tuple[str, ...] = Field(min_length=1, max_length=200)
    es: tuple[str, ...] = Field(min_length=1, max_length=200)

    def of(self, language: Language) -> tuple[str, ...]:
        return self.en if language is Language.EN else self.es


class _Text(_Strict):
    en: str = Field(min_length=3, max_length=400)
    es: str = Field(min_length=3, max_length=400)

    def of(self, language: Language) -> str:
        return self.en if language is Language.EN else self.es


class _RuleInFile(_Strict):
    id: str = Field(pattern=r"^[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*$")
    severity: Severity
    topic: _Phrases | None = None
    cue: _Phrases
    order: Order = Order.ANY
    within: int = Field(default=8, ge=1, le=30)
    title: _Text
    explanation: _Text


class _RulesFile(_Strict):
    category: Category
    rules: tuple[_RuleInFile, ...] = Field(min_length=15, max_length=25)

    @model_validator(mode="after")
    def _ids_name_their_category(self) -> _RulesFile:
        for rule in self.rules:
            if rule.id.partition(".")[0] != self.category:
                raise ValueError(f"{rule.id} does not begin with {self.category}.")
        return self


class _LexiconFile(_Strict):
    groups: dict[str, _Phrases]
    modifiers: dict[Modifier, _Phrases]

    @model_validator(mode="after")
    def _every_modifier_is_there(self) -> _LexiconFile:
        missing = [modifier.value for modifier in Modifier if modifier not in self.modifiers]
        if missing:
            raise ValueError(f"modifiers are missing: {', '.join(missing)}")
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; `title` is the risk in a few words, `explanation` what it means for the project."""

    id: str
    category: Category
    severity: Severity
    order: Order
    within: int
    title: Mapping[Language, str]
    explanation: Mapping[Language, str]


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule in one language: the numbers of the groups in which its topic and its cue are looked for."""

    rule: Rule
    topics: frozenset[int] | None
    cues: frozenset[int]


@dataclass(frozen=True, slots=True)
class CompiledLanguage:
    """All that the engine needs to read a sentence in one language."""

    finder: PhraseFinder
    modifiers: Mapping[int, Modifier]
    rules: Sequence[CompiledRule]
    rules_by_cue: Mapping[int, Sequence[int]]
    general: CompiledGeneral


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Rules that passed every check. `hash` is the first 16 hexadecimal digits of a SHA-256 over all of them."""

    hash: str
    rules: Sequence[Rule]
    compiled: Mapping[Language, CompiledLanguage]
    general_texts: GeneralTexts


@cache
def shipped_rules() -> Ruleset:
    """The rules in this package, loaded once."""
    return load_rules(RULES_FOLDER)


def load_rules(folder: Path) -> Ruleset:
    """Read `lexicon.yaml` and one file per category; raises InvalidRules."""
    lexicon = _read(folder / f"{LEXICON}.yaml", _LexiconFile)
    files = [_read(folder / f"{category.value}.yaml", _RulesFile) for category in Category]
    strangers = {path.stem for path in folder.glob("*.yaml")} - {LEXICON, *Category}
    if strangers:
        raise InvalidRules(f"No category has the file {', '.join(sorted(strangers))}.yaml.")
    for category, file in zip(Category, files, strict=True):
        if file.category is not category:
            raise InvalidRules(f"{category.value}.yaml says that it is of {file.category.value}.")
    ids = Counter(rule.id for file in files for rule in file.rules)
    if repeated := [name for name, count in ids.items() if count > 1]:
        raise InvalidRules(f"Two rules have the id {', '.join(repeated)}.")
    rules = [(_rule(raw, file.category), raw) for file in files for raw in file.rules]
    cues, topics = _read_general(folder / general_rules.FOLDER)
    content = [one.model_dump(mode="json") for one in (lexicon, *files, *cues.values(), *topics)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]
    compiled = {language: _compile(language, lexicon, rules, (cues[language], topics)) for language in Language}
    return Ruleset(digest, tuple(rule for rule, _ in rules), compiled, general_rules.texts_of(cues, topics))


def _read_general(folder: Path) -> tuple[dict[Language, CuesFile], list[TopicsFile]]:
    cues = {language: _read(folder / f"cues.{language.value}.yaml", CuesFile) for language in Language}
    topics = [_read(folder / f"{category.value}.yaml", TopicsFile) for category in Category]
    for name, said in [
        *((f"cues.{language.value}", file.language is language) for language, file in cues.items()),
        *((category.value, file.category == category) for category, file in zip(Category, topics, strict=True)),
    ]:
        if not said:
            raise InvalidRules(f"{general_rules.FOLDER}/{name}.yaml says that it is another one.")
    return cues, topics


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
        return model.model_validate(loaded)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise InvalidRules(f"{path.name}: {error}") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML 1.2 §3.2.1.1 wants the keys of a mapping to be unique; PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for key, count in Counter(map(str, keys)).items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]!r} is said twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _rule(raw: _RuleInFile, category: Category) -> Rule:
    return Rule(
        id=raw.id,
        category=category,
        severity=raw.severity,
        order=raw.order,
        within=raw.within,
        title={language: raw.title.of(language) for language in Language},
        explanation={language: raw.explanation.of(language) for language in Language},
    )


def _compile(
    language: Language,
    lexicon: _LexiconFile,
    rules: Iterable[tuple[Rule, _RuleInFile]],
    general: tuple[CuesFile, Sequence[TopicsFile]],
) -> CompiledLanguage:
    numbers: dict[str, int] = {}
    groups: dict[int, Sequence[str]] = {}

    def number_of(name: str, phrases: Sequence[str]) -> int:
        if name not in numbers:
            numbers[name] = len(numbers)
            groups[numbers[name]] = phrases
        return numbers[name]

    def resolve(place: str, phrases: Sequence[str]) -> frozenset[int]:
        """Named groups keep one number for all rules; what a rule says itself is a group of its own."""
        found = set()
        own = []
        for phrase in phrases:
            if not phrase.startswith("@"):
                own.append(phrase)
            elif (named := lexicon.groups.get(phrase[1:])) is None:
                raise InvalidRules(f"{place}: the lexicon has no group {phrase[1:]}.")
            else:
                found.add(number_of(phrase, named.of(language)))
        if own:
            found.add(number_of(place, own))
        return frozenset(found)

    modifiers = {
        number_of(f"modifier {modifier}", phrases.of(language)): modifier
        for modifier, phrases in lexicon.modifiers.items()
    }
    compiled: list[CompiledRule] = []
    by_cue: dict[int, list[int]] = {}
    for rule, raw in rules:
        topics = None if raw.topic is None else resolve(f"topic of {rule.id}", raw.topic.of(language))
        cues = resolve(f"cue of {rule.id}", raw.cue.of(language))
        for cue in cues:
            by_cue.setdefault(cue, []).append(len(compiled))
        compiled.append(CompiledRule(rule, topics, cues))
    layer = general_rules.compile_general(*general, number_of)
    try:
        return CompiledLanguage(PhraseFinder(groups), modifiers, compiled, by_cue, layer)
    except BadPhrase as error:
        raise InvalidRules(str(error)) from error
