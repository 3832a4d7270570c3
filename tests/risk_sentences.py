"""Labelled sentences for the risk rules, and how well the rules find what people would call a risk.

`data/risk_sentences.jsonl` was written before the rules. Half of it is for looking at while rules are written (`DEV`),
half was only ever counted (`HELD_OUT`). Which is which depends on nothing but the ids: within a language and a kind
of sentence, the ids in order of their SHA-256 go to the two halves in turn. But one hand wrote both halves and the
rules, and it shows. So there is `BLIND`, `data/risk_sentences_blind.jsonl`, written after the last rule, and no
rule was changed for it: it is the number to quote. Two earlier blind series, `paraphrased` and `reports`, taught
the rules something, which made them part of `DEV`.

`PLAIN`, `data/risk_sentences_plain.jsonl`, is by another hand: plain sentences of status reports in both languages, two
in five without a risk, which whoever wrote the rules and the general layer never saw. They were counted twice: before
the layer and after it.

The general layer came later. `GENERAL`, `data/risk_sentences_general.jsonl`, is its dev data, in seven series (a to
g, in the ids) that were each counted once before anything was changed for them. `PROSE`, `data/neutral_prose.jsonl`,
is text without any risk: recipes, news, products, meetings, code.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
DEV, HELD_OUT, BLIND, PLAIN, GENERAL, PROSE = "dev", "held-out", "blind", "plain", "general-dev", "prose"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence and the categories of the risks in it; none for a sentence that only looks like one."""

    id: str
    language: str
    kind: str
    categories: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """How findings of one category compare with the labels."""

    right: int
    invented: int
    missed: int

    @property
    def precision(self) -> float:
        """Of what was found, the part that is a risk; 1 when nothing was found."""
        found = self.right + self.invented
        return self.right / found if found else 1.0

    @property
    def recall(self) -> float:
        """Of the risks, the part that was found; 1 when there are none."""
        labelled = self.right + self.missed
        return self.right / labelled if labelled else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def parts() -> dict[str, list[Labelled]]:
    """All sentences, by what they may be used for."""
    groups: dict[str, list[Labelled]] = defaultdict(list)
    for sentence in _read(DATA / "risk_sentences.jsonl"):
        groups[sentence.id.rpartition("-")[0]].append(sentence)
    split = {
        DEV: [*_read(DATA / "risk_sentences_paraphrased.jsonl"), *_read(DATA / "risk_sentences_reports.jsonl")],
        HELD_OUT: [],
        BLIND: _read(DATA / "risk_sentences_blind.jsonl"),
        PLAIN: _read(DATA / "risk_sentences_plain.jsonl"),
        GENERAL: _read(DATA / "risk_sentences_general.jsonl"),
        PROSE: _read(DATA / "neutral_prose.jsonl"),
    }
    for group in groups.values():
        group.sort(key=lambda sentence: hashlib.sha256(sentence.id.encode()).digest())
        split[HELD_OUT] += group[0::2]
        split[DEV] += group[1::2]
    return split


def _read(path: Path) -> list[Labelled]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Labelled(**{**row, "categories": frozenset(row["categories"])}) for row in rows]


def score(
    sentences: Iterable[Labelled], found_in: Callable[[str], Iterable[str]], categories: Iterable[str]
) -> dict[str, Score]:
    """The score of each category and, under `all`, of their sum."""
    counts = {name: [0, 0, 0] for name in categories}
    for sentence in sentences:
        found = frozenset(found_in(sentence.text))
        for name, count in counts.items():
            count[0] += name in found & sentence.categories
            count[1] += name in found - sentence.categories
            count[2] += name in sentence.categories - found
    scores = {name: Score(*count) for name, count in counts.items()}
    scores["all"] = Score(*(sum(column) for column in zip(*counts.values(), strict=True)))
    return scores
