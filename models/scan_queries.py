"""Scans as they are made, found and read: plain rows beside their executions, their risks, and what was decided.

`models/execution_rows.py` selects what every answer shows of a scan. A decision belongs to a sentence of a document of
an owner; here it meets the risks: one whose time has passed counts no more, so the risk is open again.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from models import database
from models.database import Row
from models.execution_rows import Condition
from models.ids import new_id
from models.scans import KIND, RiskSeverity, ScanSource, SeveritySource, TriageState
from models.tools import containing

SEVERITIES: Final = tuple(RiskSeverity)
_RANK: Final = "array_position(ARRAY['LOW', 'MEDIUM', 'HIGH', 'CRITICAL']::varchar[], r.severity)"
_RISK_COLUMNS: Final = """
r.id, r.scan_id, r.position, r.category, r.risk, r.context, r.severity, r.severity_source, r.confidence, r."start",
r."end", r.page, r.rule, r.cue, r.fingerprint, r.extra::text AS extra, s.document_key, e.owner_id,
coalesce(t.state, 'OPEN') AS state, t.state AS decided_state, t.note, t.decided_by_id, t.decided_at, t.until
"""
_RISKS: Final = """
scan_risks r JOIN scans s ON s.execution_id = r.scan_id JOIN executions e ON e.id = r.scan_id
LEFT JOIN risk_triage t ON t.owner_id = e.owner_id AND t.document_key = s.document_key
    AND t.fingerprint = r.fingerprint AND (t.until IS NULL OR t.until > now())
"""


class Connection(Protocol):
    """What is needed of an asyncpg connection."""

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement."""

    async def copy_records_to_table(self, table_name: str, *, records: Any, columns: Sequence[str]) -> str:
        """Insert many rows at once."""


@dataclass(frozen=True, slots=True)
class NewRisk:
    """A risk to store; the order of the fields is that of `_NEW_COLUMNS`. `extra` is JSON text."""

    category: str
    risk: str
    context: str
    severity: RiskSeverity
    severity_source: SeveritySource
    confidence: float | None
    start: int | None
    end: int | None
    page: int | None
    rule: str | None
    cue: str | None
    fingerprint: str
    extra: str | None


_NEW_COLUMNS: Final = (
    *("category", "risk", "context", "severity", "severity_source", "confidence", "start", "end", "page", "rule"),
    *("cue", "fingerprint", "extra"),
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a scan brought. `scanner` says who found it, `extra` is JSON text."""

    risks: tuple[NewRisk, ...]
    source: ScanSource
    scanner: Mapping[str, Any]
    is_truncated: bool
    extra: str | None = None


# -- conditions of lists


def from_source(source: str) -> Condition:
    """Scans that were answered by this."""
    return Condition("s.source = {}", source)


def of_media(media_id: UUID) -> Condition:
    """Scans of a medium."""
    return Condition("s.media_id = {}", media_id)


def with_category(category: str) -> Condition:
    """Scans that found a risk of a category."""
    return Condition(
        "EXISTS (SELECT 1 FROM scan_risks c WHERE c.scan_id = e.id AND lower(c.category) = lower({}))", category
    )


def with_severity(lowest: RiskSeverity) -> Condition:
    """Scans that found a risk at least so severe."""
    worse = [severity.value for severity in SEVERITIES[SEVERITIES.index(lowest) :]]
    return Condition(
        "EXISTS (SELECT 1 FROM scan_risks w WHERE w.scan_id = e.id AND w.severity = ANY({}::text[]))", worse
    )


def mentioning(text: str) -> Condition:
    """Scans with a text in their file's name, or in a risk or its context, in any case."""
    return Condition(
        "EXISTS (SELECT 1 FROM (SELECT {}::text AS wanted) q WHERE s.filename ILIKE q.wanted OR EXISTS ("
        "SELECT 1 FROM scan_risks m WHERE m.scan_id = e.id AND (m.risk ILIKE q.wanted OR m.context ILIKE q.wanted)))",
        containing(text),
    )


# -- making one and ending one


async def insert(execution_id: UUID, columns: Mapping[str, Any]) -> None:
    """Add what a scan has beside its execution; call it inside the unit of work that makes that."""
    names = list(columns)
    places = "".join(f", ${place}" for place in range(2, len(names) + 2))
    await database.rows(
        f"""INSERT INTO scans (execution_id, is_truncated, risk_count, {", ".join(names)})
            VALUES ($1, false, 0{places})""",
        execution_id,
        *columns.values(),
    )


async def record(connection: Connection, execution_id: UUID, findings: Findings) -> None:
    """Write what a scan found; call it in the transaction that ends the scan."""
    await connection.copy_records_to_table(
        "scan_risks",
        records=[
            (new_id(), execution_id, position, *astuple(risk)) for position, risk in enumerate(findings.risks, start=1)
        ],
        columns=("id", "scan_id", "position", *_NEW_COLUMNS),
    )
    await connection.execute(
        """UPDATE scans SET source = $2, scanner = $3::jsonb, is_truncated = $4, risk_count = $5, extra = $6::jsonb
           WHERE execution_id = $1""",
        execution_id,
        findings.source.value,
        database.to_json(dict(findings.scanner)),
        findings.is_truncated,
        len(findings.risks),
        findings.extra,
    )


async def lock_final(execution_id: UUID) -> Row | None:
    """A scan's status and its objects, kept as they are until the end of the transaction; None when it is gone."""
    return await database.row(
        """SELECT e.status, e.log_object->>'key' AS log_key, s.file_key, s.filename, s.risk_count
           FROM executions e JOIN scans s ON s.execution_id = e.id WHERE e.id = $1 AND e.kind = $2 FOR UPDATE OF e""",
        execution_id,
        KIND,
    )


async def delete(execution_id: UUID) -> None:
    """Remove a scan with its risks and its log; what was decided of its document stays."""
    await database.rows("DELETE FROM executions WHERE id = $1", execution_id)


# -- risks


async def find_risks(risk_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The risks that exist among these, whoever owns them: the caller is the gate."""
    found = await database.rows(f"SELECT {_RISK_COLUMNS} FROM {_RISKS} WHERE r.id = ANY($1::uuid[])", list(risk_ids))
    return {row["id"]: row for row in found}


async def risks(
    execution_ids: Sequence[UUID],
    *,
    severities: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    limit: int,
    offset: int = 0,
) -> dict[UUID, list[Row]]:
    """Risks of scans, at most so many of each, the worst first and then in the order of the text."""
    found = await database.rows(
        f"""SELECT * FROM (
                SELECT {_RISK_COLUMNS}, row_number() OVER (
                    PARTITION BY r.scan_id ORDER BY {_RANK} DESC, r.position) AS place
                FROM {_RISKS} WHERE r.scan_id = ANY($1::uuid[])
                  AND ($2::text[] IS NULL OR r.severity = ANY($2::text[]))
                  AND ($3::text[] IS NULL OR lower(r.category) = ANY($3::text[]))
                  AND ($4::text[] IS NULL OR coalesce(t.state, 'OPEN') = ANY($4::text[]))
            ) ranked WHERE place > $6 AND place <= $5 + $6 ORDER BY scan_id, place""",
        list(execution_ids),
        None if severities is None else list(severities),
        None if categories is None else [category.lower() for category in categories],
        None if states is None else list(states),
        limit,
        offset,
    )
    grouped: dict[UUID, list[Row]] = {execution_id: [] for execution_id in execution_ids}
    for row in found:
        grouped[row["scan_id"]].append(row)
    return grouped


async def summaries(execution_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """How many risks of each category and severity scans have: `category`, `severity`, `count`, the most first."""
    found = await database.rows(
        """SELECT scan_id, category, severity, count(*) AS count, sum(count(*)) OVER (PARTITION BY scan_id, category)
           FROM scan_risks WHERE scan_id = ANY($1::uuid[]) GROUP BY scan_id, category, severity
           ORDER BY scan_id, 5 DESC, category""",
        list(execution_ids),
    )
    grouped: dict[UUID, list[Row]] = {execution_id: [] for execution_id in execution_ids}
    for row in found:
        grouped[row["scan_id"]].append(row)
    return grouped


# -- what was decided


async def decide(
    owner_id: UUID,
    document_key: str,
    fingerprint: str,
    *,
    state: TriageState,
    note: str | None,
    decided_by: UUID | None,
    until: datetime | None,
) -> None:
    """Write down what was decided of a sentence of a document; the last decision counts."""
    await database.rows(
        """INSERT INTO risk_triage (id, owner_id, document_key, fingerprint, state, note, decided_by_id, decided_at,
               until)
           VALUES ($1, $2, $3, $4, $5, $6, $7, now(), $8)
           ON CONFLICT (owner_id, document_key, fingerprint) DO UPDATE SET
               state = excluded.state, note = excluded.note, decided_by_id = excluded.decided_by_id,
               decided_at = excluded.decided_at, until = excluded.until""",
        new_id(),
        owner_id,
        document_key,
        fingerprint,
        state.value,
        note,
        decided_by,
        until,
    )
