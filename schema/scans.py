"""Risk scans as clients see them: an execution with the risks that were found, and what was decided about those.

Commands are in `schema/scan_commands.py`, comparisons and files in `schema/scan_reports.py`; what may be scanned and
who may see it is decided in `resolvers/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from models import database, execution_rows, scan_queries
from models.database import Row
from models.execution_rows import Condition
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.permissions import Permission
from models.scans import KIND, RiskSeverity, ScanSource, SeveritySource, TriageState
from resolvers import access, scans, texts
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, common, register_kind
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.scalars import JSON, BigInt
from schema.users import User, load_user

Info = strawberry.Info[Context, None]
DEFAULT_RISKS: Final = 100
MAX_PAGE: Final = 1_000
MAX_CATEGORY_LENGTH: Final = 64

FirstRisks = Annotated[int, strawberry.argument(description="How many: 1 to 1,000.")]
Offset = Annotated[
    int, strawberry.argument(description="How many to pass over: what a scan found never changes, so none is missed.")
]

publish(
    ScanSource,
    "What found the risks.",
    LLM="A language model, in the words of the service.",
    MODEL="Rules or a model of another kind.",
)
publish(
    RiskSeverity,
    "How much a risk matters, least first.",
    LOW="Worth knowing.",
    MEDIUM="Worth a look.",
    HIGH="Needs somebody to act.",
    CRITICAL="Needs somebody to act now.",
)
publish(
    SeveritySource,
    "Who judged a severity.",
    UPSTREAM="The service that found the risk.",
    RULE="Rules of Switchyard, because it was not judged before.",
)
publish(
    TriageState,
    "What people decided about a risk.",
    OPEN="Nothing yet.",
    ACCEPTED="It is known and stays.",
    MITIGATED="Something was done about it.",
    FALSE_POSITIVE="It is no risk.",
)


@strawberry.type(description="What was decided about a risk, and so about its like in other scans of the document.")
class Triage:
    """A decision."""

    state: TriageState = strawberry.field(description="What was decided.")
    note: str | None = strawberry.field(description="Why.")
    decided_at: datetime = strawberry.field(description="When.")
    until: datetime | None = strawberry.field(description="When the risk opens again; null for never.")
    decider_key: strawberry.Private[UUID | None]

    @strawberry.field(description="Who decided; null once the account is gone.")
    async def decided_by(self, info: Info) -> User | None:
        """Loaded for all decisions of the answer at once."""
        return None if self.decider_key is None else await load_user(info.context, self.decider_key)


@strawberry.type(description="A risk that a scan found.")
class ScanRisk:
    """A risk."""

    id: strawberry.ID = strawberry.field(description="Its id, for `triageRisk`.")
    risk: str = strawberry.field(description="What the risk is.")
    category: str = strawberry.field(description="The kind of risk, as its finder calls it.")
    context: str = strawberry.field(description="The words of the document that tell of it.")
    severity: RiskSeverity = strawberry.field(description="How much it matters.")
    severity_source: SeveritySource = strawberry.field(description="Who judged that.")
    confidence: float | None = strawberry.field(
        description="How sure its finder is, 0 to 1; null when it does not say. Never estimated here."
    )
    start: int | None = strawberry.field(
        description="Where the context begins in the document's text, in characters from 0; null when it is not there."
    )
    end: int | None = strawberry.field(description="Where it ends: the first character behind it.")
    page: int | None = strawberry.field(description="The page it is on, from 1; null without pages.")
    rule: str | None = strawberry.field(description="The rule that found it.")
    cue: str | None = strawberry.field(description="The words that the rule matched.")
    fingerprint: str = strawberry.field(
        description="The same for the same sentence and category in other scans; layout, case and numbers do not count."
    )
    state: TriageState = strawberry.field(description="What was decided, if that still holds; OPEN otherwise.")
    triage: Triage | None = strawberry.field(description="The decision that holds, if there is one.")
    row: strawberry.Private[Row]

    @strawberry.field(description="Why it is a risk, if its finder says so.")
    def explanation(self) -> str | None:
        """From what the finder sent beside the contract."""
        said = (database.from_json(self.row["extra"]) or {}).get("explanation")
        return said if isinstance(said, str) else None

    @strawberry.field(description="What else its finder sent, as it is.")
    def extra(self) -> JSON | None:
        """Decoded only when asked for."""
        found = database.from_json(self.row["extra"])
        return None if found is None else JSON(found)


@strawberry.type(description="How many risks have a severity.")
class SeverityCount:
    """A number."""

    severity: RiskSeverity = strawberry.field(description="The severity.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="The risks of one category in numbers.")
class CategorySummary:
    """A category."""

    category: str = strawberry.field(description="The category.")
    count: int = strawberry.field(description="How many risks.")
    by_severity: list[SeverityCount] = strawberry.field(description="The same by severity, worst first; none of zero.")


@strawberry.type(description="Who found the risks.")
class Scanner:
    """Provenance; null is what the service does not tell."""

    name: str | None = strawberry.field(description="The program or model.")
    version: str | None = strawberry.field(description="Its version.")
    ruleset: str | None = strawberry.field(description="What its rules are known by; other rules, other value.")
    language: str | None = strawberry.field(description="The language it read: en, es, mixed or und of our own.")
    truncated: bool = strawberry.field(description="Whether the text or the risks went on beyond what is here.")


@strawberry.input(description="Which risks of a scan.")
class RiskFilter:
    """Conditions; all given ones must hold."""

    severity: list[RiskSeverity] | None = strawberry.field(default=None, description="One of these.")
    category: list[str] | None = strawberry.field(default=None, description="One of these, in any case.")
    state: list[TriageState] | None = strawberry.field(default=None, description="Decided so.")


@dataclass(frozen=True)
class _RiskLoader:
    """Loads risks of many scans that are asked for in the same way."""

    severities: tuple[str, ...] | None
    categories: tuple[str, ...] | None
    states: tuple[str, ...] | None
    limit: int
    offset: int

    async def __call__(self, _context: Context, scan_ids: list[UUID]) -> Sequence[list[Row]]:
        found = await scan_queries.risks(
            scan_ids,
            severities=self.severities,
            categories=self.categories,
            states=self.states,
            limit=self.limit,
            offset=self.offset,
        )
        return [found[scan_id] for scan_id in scan_ids]


@strawberry.type(description="One reading of a document for risks; what it found never changes.")
class Scan(Execution, Node):
    """A scan."""

    filename: str | None = strawberry.field(description="The document's name.")
    content_type: str = strawberry.field(description="What the document is.")
    size: BigInt = strawberry.field(description="Its bytes.")
    source: ScanSource | None = strawberry.field(description="What found the risks; null until the scan succeeded.")
    force_llm: bool = strawberry.field(description="Whether a language model was asked for.")
    risk_count: int = strawberry.field(description="How many risks there are.")
    media_id: strawberry.ID | None = strawberry.field(description="The medium that was scanned, while it is there.")

    @strawberry.field(description="Who found the risks; null until the scan succeeded.")
    def scanner(self) -> Scanner | None:
        """From the row."""
        if self.row["scanner"] is None:
            return None
        known: dict[str, Any] = database.from_json(self.row["scanner"])
        return Scanner(
            name=known.get("scanner") or known.get("model"),
            version=known.get("version"),
            ruleset=known.get("ruleset"),
            language=known.get("language"),
            truncated=self.row["is_truncated"],
        )

    @strawberry.field(description="The risks, the worst first and then in the order of the document.")
    async def risks(
        self,
        info: Info,
        filter: Annotated[RiskFilter | None, strawberry.argument(description="Which risks.")] = None,
        first: FirstRisks = DEFAULT_RISKS,
        offset: Offset = 0,
    ) -> list[ScanRisk]:
        """Loaded for all scans of the answer at once."""
        size, skipped = bounds(first, offset)
        wanted = filter or RiskFilter()
        loader = _RiskLoader(
            None if wanted.severity is None else tuple(each.value for each in wanted.severity),
            None if wanted.category is None else tuple(each[:MAX_CATEGORY_LENGTH] for each in wanted.category[:100]),
            None if wanted.state is None else tuple(each.value for each in wanted.state),
            size,
            skipped,
        )
        rows: list[Row] = await info.context.load(loader, self.row["id"])
        return [risk_of(row) for row in rows]

    @strawberry.field(description="The risks in numbers, the category with the most first.")
    async def summary(self, info: Info) -> list[CategorySummary]:
        """Loaded for all scans of the answer at once."""
        rows: list[Row] = await info.context.load(_load_summaries, self.row["id"])
        return _summary(rows)


@strawberry.input(description="Which scans.")
class ScanFilter:
    """Conditions; all given ones must hold."""

    status: list[ExecutionStatus] | None = strawberry.field(default=None, description="In one of these.")
    source: ScanSource | None = strawberry.field(default=None, description="Answered by this.")
    category: str | None = strawberry.field(default=None, description="With a risk of this category, in any case.")
    min_severity: RiskSeverity | None = strawberry.field(
        default=None, description="With a risk of this severity or a worse one."
    )
    search: str | None = strawberry.field(
        default=None, description="With this text in the document's name, or in a risk or its context, in any case."
    )
    media_id: strawberry.ID | None = strawberry.field(default=None, description="Of this medium.")
    queued_from: datetime | None = strawberry.field(default=None, description="Asked for at this moment or later.")
    queued_to: datetime | None = strawberry.field(default=None, description="Asked for before this moment.")


@strawberry.type
class ScansQuery:
    """What can be read of scans."""

    @strawberry.field(
        description="Your scans (administrators: everybody's), newest first.",
        extensions=[requires(Permission.SCAN_READ)],
    )
    async def scans(
        self,
        info: Info,
        filter: Annotated[ScanFilter | None, strawberry.argument(description="Which scans.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Scan]:
        """One page of scans, in one statement."""
        context = info.context
        conditions = _conditions(filter or ScanFilter())
        return await paginate(
            fetch=by_one_key(partial(scans.page, context.actor, conditions=conditions)),
            count=lambda: scans.count(context.actor, conditions=conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: scan_of(row, context),
        )

    @strawberry.field(
        description="A scan. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.SCAN_READ)],
    )
    async def scan(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The scan.")]
    ) -> Scan | None:
        """One scan."""
        return scan_of(await access.scan(info.context.actor, id, to=Permission.SCAN_READ), info.context)


@register_kind(KIND)
def scan_of(row: Row, context: Context) -> Scan:
    """The scan in a row of `models.execution_rows`."""
    media_id = row["scan_media_id"]
    return Scan(
        id=strawberry.ID(encode_id(Prefix.SCAN, row["id"])),
        filename=row["scan_filename"],
        content_type=row["scan_content_type"],
        size=BigInt(row["scan_size"]),
        source=None if row["scan_source"] is None else ScanSource(row["scan_source"]),
        force_llm=row["force_llm"],
        risk_count=row["risk_count"],
        media_id=None if media_id is None else strawberry.ID(encode_id(Prefix.MEDIA, media_id)),
        **common(row, context),
    )


def risk_of(row: Row) -> ScanRisk:
    """The risk in a row of `models.scan_queries`."""
    triage = None
    if row["decided_state"] is not None:
        triage = Triage(
            state=TriageState(row["decided_state"]),
            note=row["note"],
            decided_at=row["decided_at"],
            until=row["until"],
            decider_key=row["decided_by_id"],
        )
    return ScanRisk(
        id=strawberry.ID(encode_id(Prefix.RISK, row["id"])),
        **{name: row[name] for name in _PLAIN_FIELDS},
        severity=RiskSeverity(row["severity"]),
        severity_source=SeveritySource(row["severity_source"]),
        state=TriageState(row["state"]),
        triage=triage,
        row=row,
    )


_PLAIN_FIELDS: Final = (
    *("risk", "category", "context", "confidence", "start", "end", "page", "rule", "cue", "fingerprint"),
)


async def load_scan(context: Context, scan_id: UUID) -> Scan:
    """A scan that the viewer may see; raises NotFound."""
    return scan_of(await access.visible_execution(context.actor, scan_id, to=Permission.SCAN_READ), context)


@register_node(Prefix.SCAN)
async def _scan_node(context: Context, scan_id: UUID) -> Scan | None:
    if not context.actor.may(Permission.SCAN_READ):
        return None
    row = await context.load(_load_scans, scan_id)
    return None if row is None else scan_of(row, context)


async def _load_scans(context: Context, scan_ids: list[UUID]) -> Sequence[Row | None]:
    found = await scans.find(context.actor, scan_ids)
    return [found.get(scan_id) for scan_id in scan_ids]


async def _load_summaries(_context: Context, scan_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await scan_queries.summaries(scan_ids)
    return [found[scan_id] for scan_id in scan_ids]


def bounds(first: int, offset: int) -> tuple[int, int]:
    """Both, if they are within their limits; raises ValidationFailed."""
    return texts.within(first, 1, MAX_PAGE, path=["first"]), texts.within(offset, 0, 2**31 - 1, path=["offset"])


def _summary(rows: Sequence[Row]) -> list[CategorySummary]:
    grouped: dict[str, dict[RiskSeverity, int]] = {}
    for row in rows:
        grouped.setdefault(row["category"], {})[RiskSeverity(row["severity"])] = row["count"]
    return [
        CategorySummary(
            category=category,
            count=sum(counts.values()),
            by_severity=[
                SeverityCount(severity=severity, count=counts[severity])
                for severity in reversed(RiskSeverity)
                if severity in counts
            ],
        )
        for category, counts in grouped.items()
    ]


def _conditions(filter: ScanFilter) -> list[Condition]:
    search = texts.search(filter.search)
    given = [
        filter.status and execution_rows.in_statuses([status.value for status in filter.status]),
        filter.source and scan_queries.from_source(filter.source.value),
        filter.category and scan_queries.with_category(filter.category[:MAX_CATEGORY_LENGTH]),
        filter.min_severity and scan_queries.with_severity(filter.min_severity),
        search and scan_queries.mentioning(search),
        filter.media_id and scan_queries.of_media(access.uuid_of(filter.media_id, Prefix.MEDIA)),
        filter.queued_from and execution_rows.queued_from(filter.queued_from),
        filter.queued_to and execution_rows.queued_to(filter.queued_to),
    ]
    return [condition for condition in given if condition]
