"""The risk scanner: what counts as a risk, where it stands, how it is recognised again, and that no text is too bad."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.scanner import Category, InvalidRules, Severity, extract, load_rules, scan, shipped_rules
from adapters.scanner.engine import MAX_CHARACTERS, MAX_CONTEXT, Finding
from adapters.scanner.extraction import UnreadableFile, UnsupportedFile
from adapters.scanner.language import Language
from adapters.scanner.rules import RULES_FOLDER
from adapters.scanner.sentences import MAX_SENTENCE, split_sentences
from tests.risk_sentences import BLIND, DEV, GENERAL, HELD_OUT, PLAIN, PROSE, parts, score

DELAY = "The delivery of the servers is delayed."


def findings(text: str) -> tuple[Finding, ...]:
    return scan(text).findings


def severity(text: str, category: Category = Category.SCHEDULE) -> Severity:
    return next(finding.severity for finding in findings(text) if finding.category is category)


def sentences(text: str) -> list[str]:
    return [text[one.start : one.end] for one in split_sentences(text)]


# -- rules


def test_shipped_rules_cover_every_category_in_both_languages() -> None:
    rules = shipped_rules()
    for category in Category:
        assert 15 <= sum(rule.category is category for rule in rules.rules) <= 25
    assert all(set(rule.title) == set(rule.explanation) == set(Language) for rule in rules.rules)


def test_the_hash_changes_with_the_rules_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(RULES_FOLDER, folder)
    assert load_rules(folder).hash == shipped_rules().hash
    budget = folder / "budget.yaml"
    budget.write_text(budget.read_text().replace('"over the budget"', '"way over the budget"'))
    assert load_rules(folder).hash != shipped_rules().hash


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("severity: HIGH", "severity: AWFUL", "severity"),
        ("severity: HIGH", "severity: HIGH\n    surprise: true", "surprise"),
        ("severity: HIGH", "severity: HIGH\n    severity: LOW", "said twice"),
        ("id: budget.overrun", "id: schedule.overrun", "does not begin with budget"),
        ("id: budget.exceeds", "id: budget.overrun", "Two rules have the id"),
        ('"@money"', '"@mony"', "no group mony"),
        ('"over the budget"', '"ov* the b*"', "neither a word nor a stem"),
        ('"over the budget"', '"... the budget"', "gap"),
        ('"over the budget"', "no", "string"),
        ("category: budget", "category: scope", "scope"),
        ("rules:", "rules: &a [*a]\nother:", "budget.yaml"),
    ],
)
def test_rules_with_a_mistake_are_refused_by_name(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(RULES_FOLDER, folder)
    budget = folder / "budget.yaml"
    budget.write_text(budget.read_text().replace(old, new, 1))
    with pytest.raises(InvalidRules, match=complaint):
        load_rules(folder)


def test_a_missing_file_and_one_of_no_category_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(RULES_FOLDER, folder)
    (folder / "weather.yaml").write_text("category: weather")
    with pytest.raises(InvalidRules, match="weather"):
        load_rules(folder)
    (folder / "weather.yaml").unlink()
    (folder / "legal.yaml").unlink()
    with pytest.raises(InvalidRules, match="legal"):
        load_rules(folder)


# -- what counts


@pytest.mark.parametrize(
    "text",
    [
        "The delivery of the servers is not delayed.",
        "There were no delays in the delivery of the servers.",
        "The delayed delivery of the servers has been resolved.",
        "Our tool helps to avoid a delayed delivery.",
        "Is the delivery of the servers delayed?",
        "Chapter 2 explains why a delivery is delayed.",
        "La entrega de los servidores va sin retrasos.",
        "El retraso en la entrega ya está resuelto.",
        "¿Hay retraso en la entrega de los servidores?",
    ],
)
def test_what_is_denied_resolved_prevented_or_asked_is_no_risk(text: str) -> None:
    assert findings(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "The delay in the delivery must be resolved by the vendor.",
        "The delay in the delivery has not been resolved.",
        "The permits were renewed, but the delivery of the servers is delayed.",
        "There is no dispute, but the delivery of the servers is delayed.",
        "What if the delivery is delayed?",
        "El retraso en la entrega no está resuelto.",
        "La licencia se renovó, pero la entrega va con retraso.",
    ],
)
def test_what_is_still_open_is_a_risk(text: str) -> None:
    assert Category.SCHEDULE in {finding.category for finding in findings(text)}


def test_hedging_lowers_and_strong_words_deadlines_and_amounts_raise() -> None:
    assert severity(DELAY) is Severity.HIGH
    assert severity("The delivery of the servers may be delayed.") is Severity.MEDIUM
    assert severity("La entrega podría retrasarse.") is Severity.MEDIUM
    assert severity("The critical delivery of the servers is delayed.") is Severity.CRITICAL
    assert severity("The delivery of the servers is delayed and costs 40,000 euros.") is Severity.CRITICAL
    assert severity("The delivery due in May is delayed.") is Severity.CRITICAL, "the month is no hedge"


def test_a_finding_says_why() -> None:
    (finding,) = findings(DELAY)
    assert (finding.rule, finding.cue, finding.category) == ("schedule.delayed", "delayed", Category.SCHEDULE)
    assert finding.risk == "Work is delayed"
    assert finding.explanation
    assert (finding.confidence, finding.severity_source, finding.page) == (None, "RULE", None)
    (spanish,) = findings("La entrega de los equipos va con retraso.")
    assert (spanish.risk, spanish.language) == ("El trabajo va con retraso", Language.ES)


def test_a_document_in_two_languages_is_read_in_both() -> None:
    report = scan(f"{DELAY} The rest of it is as it was and will be. La entrega de los equipos va con retraso.")
    assert report.provenance.language == "mixed"
    assert [finding.language for finding in report.findings] == [Language.EN, Language.ES]


def test_a_sentence_gives_one_finding_per_category_and_names_the_other_rules() -> None:
    found = findings("The critical path task is delayed and behind schedule.")
    assert [finding.category for finding in found] == [Category.SCHEDULE]
    assert found[0].also_rules


# -- where it stands, and recognising it again


def test_spans_and_pages_are_those_of_the_text() -> None:
    text = f"1. Introduction\n\nAll is well.\f  \n{DELAY}\n\fThe\r\nmigration   is\r\nstalled.\n"
    found = findings(text)
    assert [text[finding.start : finding.end] for finding in found] == [DELAY, "The\r\nmigration   is\r\nstalled."]
    assert [finding.context for finding in found] == [text[finding.start : finding.end] for finding in found]
    assert [finding.page for finding in found] == [2, 3]


def test_a_very_long_sentence_gives_the_part_around_the_cue() -> None:
    text = "and so on " * 80 + "the delivery is delayed " + "and so on " * 80
    (finding,) = findings(text)
    assert len(finding.context) == MAX_CONTEXT
    assert "delivery is delayed" in finding.context
    assert text[finding.start : finding.end] == finding.context


@pytest.mark.parametrize(
    "variant",
    [
        "The  delivery of the\nservers is delayed",
        "- THE DELIVERY OF THE SERVERS IS DELAYED!",
        "The deli-\nvery of the servers is delayed.",
        "**The delivery** of the servers is delayed.",
    ],
)
def test_a_fingerprint_survives_a_new_layout(variant: str) -> None:
    assert findings(variant)[0].fingerprint == findings(DELAY)[0].fingerprint


def test_a_fingerprint_survives_other_numbers_and_differs_by_words_and_category() -> None:
    one, two = findings("The delivery is delayed by 3 weeks."), findings("The delivery is delayed by 14 weeks.")
    assert one[0].fingerprint == two[0].fingerprint
    assert findings("The launch is delayed by 3 weeks.")[0].fingerprint != one[0].fingerprint
    both = findings("The team is overloaded and the delivery of the module is delayed.")
    assert len({finding.fingerprint for finding in both}) == len(both) == 2


def test_the_same_sentence_twice_is_one_finding() -> None:
    (finding,) = findings(f"{DELAY}\n\nAll else is well.\n\n{DELAY}")
    assert (finding.occurrences, finding.start) == (2, 0)


def test_the_same_text_gives_the_same_report() -> None:
    text = "\n".join(sentence.text for sentence in parts()[DEV])
    assert dataclasses.asdict(scan(text)) == dataclasses.asdict(scan(text))


# -- sentences


def test_points_that_end_no_sentence() -> None:
    for whole in (
        "Mr. Smith of Acme Inc. paid 1.5 million.",
        "See fig. 3, i.e. the plan of 12.05.2025.",
        "El Sr. García firmó el art. 4 el 12.05.2025.",
        "J. R. Smith visited example.com today.",
    ):
        assert sentences(whole) == [whole]


def test_headings_lists_tables_and_wrapped_lines() -> None:
    text = (
        "# Risks\nThe plan is\ntight. It slips!\n\n* first item\n2) second item\n| a | b |\n| c | d |\nNote:\nThe end"
    )
    assert sentences(text) == [
        "Risks", "The plan is\ntight.", "It slips!", "first item", "second item", "| a | b |", "| c | d |", "Note:",
        "The end",
    ]  # fmt: skip


# -- any text


ANY_TEXT = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(list(" .,!?\n\f\r\t-*|#'’:;%0123\ufeff\u2028\ud800")),
    ),
    max_size=300,
)
RULE_WORDS = st.lists(
    st.sampled_from("no not without the budget contract signed delayed team leaves, but resolved sin plazo. ?".split()),  # noqa: SIM905 - it reads better
    max_size=60,
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.one_of(ANY_TEXT, RULE_WORDS))
def test_no_text_breaks_it_and_every_offset_holds(text: str) -> None:
    last = 0
    for sentence in split_sentences(text):
        assert last <= sentence.start < sentence.end <= len(text)
        assert sentence.end - sentence.start <= MAX_SENTENCE
        last = sentence.end
    report = scan(text)
    for finding in report.findings:
        assert text[finding.start : finding.end] == finding.context
        assert finding.cue in text
    assert report == scan(text)


@pytest.mark.parametrize(
    "unit",
    ["a", ".", "a.", "\n", "a-\n", "not ", "no budget ", "not the contract signed delayed sin plazo ", "- a\n"],
)
def test_time_grows_with_the_text_and_no_faster(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        started = time.process_time()
        scan(text)
        return time.process_time() - started

    scan(unit)
    small = min(seconds(20_000) for _ in range(3))
    large = seconds(200_000)
    assert large < 15 * small + 0.3


def test_what_is_beyond_the_limit_is_not_read_and_that_is_said() -> None:
    report = scan(" " * MAX_CHARACTERS + DELAY)
    assert report.findings == ()
    assert report.provenance.truncated
    assert not scan(" " * (MAX_CHARACTERS - len(DELAY)) + DELAY).provenance.truncated


# -- files


def test_text_in_any_usual_encoding() -> None:
    text = "La obra está parada — mañana más."
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        content = text.encode(encoding)
        if encoding == "utf-16-le":
            content = b"\xff\xfe" + content
        assert extract("a.txt", content) == text
    assert extract("A.TXT", "está parada".encode("latin-1")) == "está parada"


def test_pages_and_tables_become_paragraphs() -> None:
    head = "<title>T</title><script>the budget is tbd</script>"
    page = f"<html><head>{head}</head><body><h1>A</h1><p>The plan<br>is &lt;b&gt;<!-- no --></p><ul><li>one<li>two</ul>"
    assert extract("a.html", page.encode()).split() == ["T", "A", "The", "plan", "is", "<b>", "one", "two"]
    assert extract("a.csv", b'risk;owner\n"late; very";Ann\n\n') == "risk; owner\n\nlate; very; Ann"
    assert extract("a.html", b"<div>" * 1_000 + b"deep") == "deep"
    with pytest.raises(UnreadableFile, match="deeply"):  # and not a page without its end
        extract("a.html", b"<p>A</p>" + b"<div>" * 3_000 + b"deep")
    assert extract("a.html", b"") == ""


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.exe", "a.png"])
def test_other_kinds_of_file_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedFile):
        extract(name, b"text")


def test_a_binary_under_the_name_of_a_text_is_refused() -> None:
    with pytest.raises(UnsupportedFile):
        extract("a.txt", b"%PDF-1.7 ...")
    with pytest.raises(UnreadableFile):
        extract("a.txt", b"a\0b")
    with pytest.raises(UnreadableFile):
        extract("a.txt", b"\xff\xfea")


# -- how good the rules are


@pytest.mark.parametrize(
    ("part", "precision", "recall"),
    [(HELD_OUT, 0.8, 0.9), (BLIND, 0.55, 0.35), (PLAIN, 0.75, 0.8), (GENERAL, 0.85, 0.75)],
)
def test_rules_stay_as_good_as_they_were_measured(part: str, precision: float, recall: float) -> None:
    scores = score(parts()[part], lambda text: {finding.category.value for finding in findings(text)}, Category)
    assert scores["all"].precision >= precision
    assert scores["all"].recall >= recall


def test_prose_that_speaks_of_no_project_gives_next_to_nothing() -> None:
    prose = parts()[PROSE]
    assert len(prose) >= 150
    invented = [sentence.text for sentence in prose if findings(sentence.text)]
    assert len(invented) <= 0.03 * len(prose), invented


# -- the general layer


@pytest.mark.parametrize(
    ("text", "rule", "cue"),
    [
        ("The licences will swallow the whole reserve.", "budget.general.over", "swallow"),
        ("Half of the support desk has quit since spring.", "staffing.general.leaving", "quit"),
        ("The firewall rules have never been reviewed.", "security.general.undone", "never been reviewed"),
        ("Las reglas del cortafuegos nunca se han revisado.", "security.general.undone", "nunca se han revisado"),
    ],
)
def test_topics_beside_cues_are_found_without_a_rule_of_their_own(text: str, rule: str, cue: str) -> None:
    (finding,) = findings(text)
    assert (finding.rule, finding.cue) == (rule, cue)
    assert finding.risk
    assert finding.explanation
    assert finding.category.value == rule.partition(".")[0]


@pytest.mark.parametrize(
    "text",
    [
        "The firewall rules were reviewed in May.",
        "No complaints were received about the firewall.",
        "The licences came in below the estimate.",
        "The risk register of the firewall is on the intranet.",
        "No hay quejas sobre el cortafuegos.",
        "La fase terminó dentro del presupuesto.",
    ],
)
def test_good_news_names_and_denied_trouble_are_no_cues(text: str) -> None:
    assert findings(text) == ()


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("budget.yaml", "category: budget", "category: scope", "another one"),
        ("budget.yaml", "over: 3", "above: 3", "above"),
        ("budget.yaml", "budget*, ", "budget*, budget*, ", "said twice"),
        ("cues.en.yaml", "language: en", "language: es", "another one"),
        ("cues.en.yaml", "  lost:", "  loss:", "loss"),
        ("cues.es.yaml", "sobrecost*, ", "so*, ", "neither a word nor a stem"),
    ],
)
def test_mistakes_in_the_general_lexicon_are_refused_by_name(
    tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(RULES_FOLDER, folder)
    changed = folder / "general" / file
    before = changed.read_text()
    changed.write_text(before.replace(old, new, 1))
    assert changed.read_text() != before
    with pytest.raises(InvalidRules, match=complaint):
        load_rules(folder)
