"""What a scanner found, as it is stored: with its place in the text, a severity, and what makes it the same one again.

Risks of the embedded scanner have all of that. Those of a service are quotations: the place is looked for, a severity
that the service does not send is judged by the rules of the embedded scanner, and identity is ours, not the service's.
"""

from __future__ import annotations

from typing import Final

import orjson

from adapters import ai, scanner
from adapters.scanner.fingerprints import fingerprint
from models.scan_queries import Findings, NewRisk
from models.scans import RiskSeverity, ScanSource, SeveritySource
from tasks.scan.spans import Locator
from tasks.scan.texts import Text

DEFAULT_SEVERITY: Final = RiskSeverity.MEDIUM
"""Of a risk that its service does not rate and of which no rule knows a word."""

_ORDER: Final = tuple(RiskSeverity)


def of_embedded(report: scanner.ScanReport, *, is_cut: bool) -> Findings:
    """What the embedded scanner found; `is_cut` says that the text went on."""
    provenance = report.provenance
    return Findings(
        risks=tuple(_embedded_risk(finding) for finding in report.findings),
        source=ScanSource.MODEL,
        scanner={
            "scanner": provenance.scanner,
            "version": provenance.version,
            "ruleset": provenance.ruleset,
            "language": provenance.language,
        },
        is_truncated=provenance.truncated or is_cut,
    )


def of_service(answer: ai.Answer, text: Text | None) -> Findings:
    """What a service found; without a text no risk has a place. Costs CPU: call it in a thread."""
    locator = None if text is None else Locator(text.text)
    return Findings(
        risks=tuple(_service_risk(risk, locator) for risk in answer.risks),
        source=ScanSource(answer.source.upper()),
        scanner=answer.provenance,
        is_truncated=answer.is_truncated,
        extra=answer.extra,
    )


def _embedded_risk(finding: scanner.Finding) -> NewRisk:
    # What the stand-alone service sends beside the fields of its own columns, so that both ways store the same.
    extra = {
        "explanation": finding.explanation,
        "also_rules": finding.also_rules,
        "language": finding.language,
        "occurrences": finding.occurrences,
    }
    return NewRisk(
        category=finding.category.value,
        risk=finding.risk,
        context=finding.context,
        severity=RiskSeverity(finding.severity),
        severity_source=SeveritySource.RULE,
        confidence=finding.confidence,
        start=finding.start,
        end=finding.end,
        page=finding.page,
        rule=finding.rule,
        cue=finding.cue[:200],
        fingerprint=finding.fingerprint,
        extra=orjson.dumps(extra).decode(),
    )


def _service_risk(risk: ai.Risk, locator: Locator | None) -> NewRisk:
    span = None if locator is None else locator.locate(risk.context, hint=risk.start)
    is_rated = risk.severity is not None
    return NewRisk(
        category=risk.category,
        risk=risk.risk,
        context=risk.context,
        severity=RiskSeverity(risk.severity) if risk.severity is not None else _by_rules(risk),
        severity_source=SeveritySource.UPSTREAM if is_rated else SeveritySource.RULE,
        confidence=risk.confidence,
        start=None if span is None else span.start,
        end=None if span is None else span.end,
        page=risk.page if span is None or span.page is None else span.page,
        rule=risk.rule,
        cue=risk.cue,
        fingerprint=fingerprint(risk.category, risk.context or risk.risk),
        extra=risk.extra,
    )


def _by_rules(risk: ai.Risk) -> RiskSeverity:
    """The worst that the rules see in the quotation, of its category if they know that."""
    found = scanner.scan(risk.context).findings
    same = [each for each in found if each.category.value == risk.category.lower()]
    severities = [RiskSeverity(each.severity) for each in same or found]
    return max(severities, key=_ORDER.index, default=DEFAULT_SEVERITY)
