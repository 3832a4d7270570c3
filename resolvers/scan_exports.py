"""A scan as a file: JSON with everything, a table for spreadsheets, SARIF 2.1.0 for tools that collect findings.

Invariants: the same scan gives the same bytes; no cell of the table is a formula, whatever a document says (OWASP, CSV
Injection); what was decided about a risk is in all of them. SARIF follows the OASIS standard of 27 March 2020; section
numbers below are its.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

import orjson

from errors import Conflict
from models import database, scan_queries
from models.database import Row
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.permissions import Actor, Permission
from models.scans import RiskSeverity, TriageState
from resolvers import access
from resolvers.scans import MAX_RISKS

SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT_NAME: Final = "switchyardRisk/v1"
"""A new way to make fingerprints gets a new version (§3.27.17)."""

_LEVELS: Final = {
    RiskSeverity.LOW: "note",
    RiskSeverity.MEDIUM: "warning",
    RiskSeverity.HIGH: "error",
    RiskSeverity.CRITICAL: "error",
}
_COLUMNS: Final = (
    *("severity", "category", "risk", "context", "page", "start", "end", "state", "note", "until", "severitySource"),
    *("confidence", "rule", "cue", "fingerprint"),
)
# As in the tables of crawls: the full-width forms are what Excel turns into the plain ones.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class ExportFormat(StrEnum):
    """Which file."""

    JSON = "JSON"
    CSV = "CSV"
    SARIF = "SARIF"


@dataclass(frozen=True, slots=True)
class Export:
    """A file as text."""

    filename: str
    content_type: str
    content: str


async def export(actor: Actor, scan_id: str, format: ExportFormat) -> Export:
    """A scan that succeeded, as a file; raises Conflict for others."""
    row = await access.scan(actor, scan_id, to=Permission.SCAN_READ)
    if row["status"] != ExecutionStatus.SUCCEEDED:
        raise Conflict("Only a scan that succeeded can be exported.", status=row["status"])
    risks = (await scan_queries.risks([row["id"]], limit=MAX_RISKS))[row["id"]]
    name = encode_id(Prefix.SCAN, row["id"])
    match format:
        case ExportFormat.JSON:
            return Export(f"{name}.json", "application/json", _text(as_json(row, risks)))
        case ExportFormat.CSV:
            return Export(f"{name}.csv", "text/csv; charset=utf-8", as_csv(risks))
        case ExportFormat.SARIF:
            return Export(f"{name}.sarif", "application/sarif+json", _text(as_sarif(row, risks)))


def as_json(scan: Row, risks: Sequence[Row]) -> dict[str, Any]:
    """Everything about a scan, in the names of the API."""
    return {
        "id": encode_id(Prefix.SCAN, scan["id"]),
        "filename": scan["scan_filename"],
        "contentType": scan["scan_content_type"],
        "size": scan["scan_size"],
        "queuedAt": _moment(scan["queued_at"]),
        "finishedAt": _moment(scan["finished_at"]),
        "source": scan["scan_source"],
        "scanner": database.from_json(scan["scanner"]),
        "isTruncated": scan["is_truncated"],
        "riskCount": scan["risk_count"],
        "risks": [
            {**_cells(risk), "id": encode_id(Prefix.RISK, risk["id"]), "extra": database.from_json(risk["extra"])}
            for risk in risks
        ],
    }


def as_csv(risks: Sequence[Row]) -> str:
    """A table (RFC 4180) with one row for each risk; a mark at the start makes spreadsheets read UTF-8."""
    file = io.StringIO(newline="")
    # Text is always quoted: where the list separator is a semicolon, one inside bare text would begin another cell.
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_COLUMNS)
    for risk in risks:
        cells = _cells(risk)
        writer.writerow([_safe(cells[name]) for name in _COLUMNS])
    return "\ufeff" + file.getvalue()


def as_sarif(scan: Row, risks: Sequence[Row]) -> dict[str, Any]:
    """A log with one run and one result for each risk."""
    scanner: dict[str, Any] = database.from_json(scan["scanner"]) or {}
    rules = {rule: place for place, rule in enumerate(dict.fromkeys(_rule_id(risk) for risk in risks))}
    first = {_rule_id(risk): risk for risk in reversed(risks)}
    uri = quote(scan["scan_filename"] or encode_id(Prefix.SCAN, scan["id"]), safe="")
    driver: dict[str, Any] = {
        "name": scanner.get("scanner") or "AI service",
        "rules": [
            {
                "id": rule,
                "shortDescription": {"text": first[rule]["risk"]},
                "properties": {"category": first[rule]["category"]},
            }
            for rule in rules
        ],
    }
    if version := scanner.get("version"):
        driver["version"] = version
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        # §3.24: where the artifact is text that was taken out of a file, offsets are of that text.
        "artifacts": [{"location": {"uri": uri}, "length": scan["scan_size"], "mimeType": scan["scan_content_type"]}],
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "startTimeUtc": _moment(scan["started_at"]),
                "endTimeUtc": _moment(scan["finished_at"]),
            }
        ],
        "automationDetails": {"id": f"switchyard/{encode_id(Prefix.SCAN, scan['id'])}"},
        "results": [_result(risk, uri, rules) for risk in risks],
        "properties": {
            "source": scan["scan_source"],
            "isTruncated": scan["is_truncated"],
            **{name: scanner[name] for name in ("ruleset", "language", "model") if scanner.get(name)},
        },
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(risk: Row, uri: str, rules: dict[str, int]) -> dict[str, Any]:
    rule = _rule_id(risk)
    region: dict[str, Any] = {"snippet": {"text": risk["context"]}}
    if risk["start"] is not None:
        region |= {"charOffset": risk["start"], "charLength": risk["end"] - risk["start"]}
    place: dict[str, Any] = {"artifactLocation": {"uri": uri, "index": 0}}
    # §3.30.3: a region is something that has an offset, so a snippet alone makes none.
    if risk["start"] is not None:
        place["region"] = region
    properties = {
        "severity": risk["severity"],
        "severitySource": risk["severity_source"],
        "category": risk["category"],
        "context": risk["context"],
        **{name: risk[name] for name in ("page", "cue") if risk[name] is not None},
    }
    result: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": rules[rule],
        "level": _LEVELS[RiskSeverity(risk["severity"])],
        "message": {"text": risk["risk"]},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {FINGERPRINT_NAME: risk["fingerprint"]},
        "properties": properties,
    }
    if risk["confidence"] is not None:
        result["rank"] = round(risk["confidence"] * 100, 2)  # §3.27.25: 0 to 100
    if risk["state"] != TriageState.OPEN:
        # §3.35: somebody decided, outside of the document, that it needs no attention.
        suppression = {"kind": "external", "status": "accepted", "properties": {"state": risk["state"]}}
        result["suppressions"] = [suppression | ({"justification": risk["note"]} if risk["note"] else {})]
    return result


def _rule_id(risk: Row) -> str:
    rule: str = risk["rule"] or risk["category"]
    return rule


def _cells(risk: Row) -> dict[str, Any]:
    return {
        "severity": risk["severity"],
        "category": risk["category"],
        "risk": risk["risk"],
        "context": risk["context"],
        "page": risk["page"],
        "start": risk["start"],
        "end": risk["end"],
        "state": risk["state"],
        "note": risk["note"],
        "until": _moment(risk["until"]),
        "severitySource": risk["severity_source"],
        "confidence": risk["confidence"],
        "rule": risk["rule"],
        "cue": risk["cue"],
        "fingerprint": risk["fingerprint"],
    }


def _safe(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _moment(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, as the API writes it and SARIF wants it (§3.9)."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(data: dict[str, Any]) -> str:
    return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
