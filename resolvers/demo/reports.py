"""Status reports that the demo has scanned, three times each as they were written on, and what was decided.

The risks are those that the embedded scanner finds, so scanning a report again finds the same. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from adapters import scanner
from models.database import from_json
from models.demo import DEMO_USER_ID
from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import id_at
from models.logs import LogLevel
from models.scan_queries import Findings, NewRisk
from models.scans import KIND, TriageState
from resolvers.demo.past import Ended, Said
from resolvers.scan_inputs import document_key_of
from tasks.scan import findings
from tasks.scan.texts import PLAIN

HARBOUR: Final = "harbour-migration.txt"
WAREHOUSE: Final = "warehouse-rollout.txt"
LEDGER: Final = "ledger-replacement.txt"

_HARBOUR: Final = (
    "Status of the harbour migration. The old booking system is moved to the new servers in three steps.",
    "The vendor has not confirmed the delivery date of the gateway, and we have no alternative supplier.",
    "There is no tested backup of the booking database.",
    "Only one person knows how the tide tables are imported; she is on leave in the week of the switch.",
    "The budget for the second step is not approved yet.",
    "Passwords of the old system are stored in plain text and will be migrated as they are.",
    "Acceptance tests have been postponed twice because the test environment is down.",
    "Training of the harbour office is on schedule.",
)
_WAREHOUSE: Final = (
    "The rollout of the scanners in the warehouse is two weeks late.",
    "Requirements for returns keep changing, and the scope grows with every meeting.",
    "The contractor may leave at the end of the month and nobody has taken over his work.",
    "Costs are twelve percent over budget.",
    "Personal data of drivers is sent to the reporting service without a data processing agreement.",
    "The wireless network fails in hall 4 several times a day.",
    "The new labels were delivered and are in use.",
)
_LEDGER: Final = (
    "The replacement of the ledger depends on an interface that the bank has announced and not published.",
    "The cut-over date is the first of the month and cannot be moved.",
    "Unit tests cover a fifth of the tax rules.",
    "The licence of the reporting library does not allow the use that we make of it.",
    "Two of four developers were moved to another project.",
    "Auditors have accepted the new chart of accounts.",
)


@dataclass(frozen=True, slots=True)
class _Submitted:
    days_ago: float
    filename: str
    sentences: Sequence[str]
    result: ExecutionStatus = ExecutionStatus.SUCCEEDED


def _without(sentences: Sequence[str], *places: int) -> tuple[str, ...]:
    return tuple(each for place, each in enumerate(sentences) if place not in places)


_SUBMITTED: Final = (
    _Submitted(52.2, HARBOUR, _HARBOUR),
    _Submitted(45.1, WAREHOUSE, _WAREHOUSE[:4]),
    _Submitted(38.3, LEDGER, _LEDGER),
    _Submitted(31.2, HARBOUR, _without(_HARBOUR, 2), ExecutionStatus.FAILED),
    _Submitted(31.1, HARBOUR, _without(_HARBOUR, 2)),
    _Submitted(24.3, WAREHOUSE, _WAREHOUSE),
    _Submitted(17.2, LEDGER, _without(_LEDGER, 2, 4)),
    _Submitted(10.1, HARBOUR, _without(_HARBOUR, 2, 4, 6)),
    _Submitted(6.3, WAREHOUSE, _without(_WAREHOUSE, 3), ExecutionStatus.CANCELLED),
    _Submitted(3.2, WAREHOUSE, _without(_WAREHOUSE, 3, 5)),
    _Submitted(0.15, LEDGER, _without(_LEDGER, 2, 4)),
)

_DECISIONS: Final = (
    (HARBOUR, 0, TriageState.ACCEPTED, "The harbour master knows, and signed.", 30.0),
    (HARBOUR, 1, TriageState.MITIGATED, "A second supplier has made an offer.", 9.0),
    (WAREHOUSE, 0, TriageState.FALSE_POSITIVE, "Two weeks were planned for holidays.", 2.5),
    (LEDGER, 0, TriageState.ACCEPTED, None, 15.0),
)
"""Document, place among the risks of its last scan, and what was decided so many days ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scan that has ended; without findings where it did not succeed."""

    ended: Ended
    filename: str
    text: str
    found: Findings | None


def scans(*, now: datetime, timeout_seconds: float) -> list[Scan]:
    """All scans, oldest first. Takes some milliseconds of processor time for each."""
    return [_scan(each, now=now, timeout_seconds=timeout_seconds) for each in _SUBMITTED]


def _scan(given: _Submitted, *, now: datetime, timeout_seconds: float) -> Scan:
    text = "\n".join(given.sentences) + "\n"
    lines = [Said(0.1, "READING", f"Reading a text of {len(text.encode()):,} bytes.")]
    stages = [(0.05, "READING")]
    failure, found, progress = None, None, 40
    match given.result:
        case ExecutionStatus.FAILED:
            message = "The AI service does not answer: connection refused."
            failure = Failure(FailureCode.SERVICE_UNAVAILABLE, message, "READING", retryable=True)
            lines.append(Said(1.0, "READING", message, LogLevel.ERROR))
        case ExecutionStatus.SUCCEEDED:
            report = scanner.scan(text)
            found, progress = findings.of_embedded(report, is_cut=False), 100
            stages.append((0.2, "SCANNING"))
            said = (
                f"Scanned {len(text):,} characters with {scanner.SCANNER_NAME} {scanner.SCANNER_VERSION} "
                f"(rules {report.provenance.ruleset}): {len(found.risks):,} risks."
            )
            lines.append(Said(0.4, "SCANNING", said))
    ended = Ended(
        kind=KIND,
        queued_at=now - timedelta(days=given.days_ago),
        status=given.result,
        timeout_seconds=timeout_seconds,
        worked_seconds=1.2,
        stages=stages,
        lines=lines,
        progress=progress,
        failure=failure,
    )
    return Scan(ended=ended, filename=given.filename, text=text, found=found)


# -- rows


def scan_rows(made: Sequence[Scan]) -> list[dict[str, Any]]:
    """Rows of `scans`."""
    return [
        {
            "execution_id": scan.ended.id,
            "filename": scan.filename,
            "content_type": PLAIN,
            "size": len(scan.text.encode()),
            "text": scan.text,
            "document_key": document_key_of(scan.filename),
            "force_llm": False,
            "source": scan.found and scan.found.source.value,
            "scanner": scan.found and scan.found.scanner,
            "is_truncated": False,
            "risk_count": len(scan.found.risks) if scan.found else 0,
        }
        for scan in made
    ]


def risk_rows(made: Sequence[Scan]) -> list[dict[str, Any]]:
    """Rows of `scan_risks`."""
    return [
        {"id": id_at(scan.ended.finished_at), "scan_id": scan.ended.id, "position": position, **_columns(risk)}
        for scan in made
        if scan.found is not None
        for position, risk in enumerate(scan.found.risks, start=1)
    ]


def _columns(risk: NewRisk) -> dict[str, Any]:
    return {**asdict(risk), "extra": from_json(risk.extra)}


def decision_rows(made: Sequence[Scan], *, now: datetime) -> list[dict[str, Any]]:
    """Rows of `risk_triage`, about sentences that are still there."""
    newest = {scan.filename: scan.found for scan in made if scan.found is not None}
    rows = []
    for filename, place, state, note, days_ago in _DECISIONS:
        risks = newest[filename].risks
        if place < len(risks):
            rows.append(
                {
                    "id": id_at(now - timedelta(days=days_ago)),
                    "owner_id": DEMO_USER_ID,
                    "document_key": document_key_of(filename),
                    "fingerprint": risks[place].fingerprint,
                    "state": state.value,
                    "note": note,
                    "decided_by_id": DEMO_USER_ID,
                    "decided_at": now - timedelta(days=days_ago),
                }
            )
    return rows
