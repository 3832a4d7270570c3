"""What is made of scans: the comparison of two, and a scan as a file."""

from __future__ import annotations

from typing import Annotated

import strawberry

from models.permissions import Permission
from resolvers import scan_exports, scans
from resolvers.scan_exports import ExportFormat
from resolvers.scans import ComparedRisk, RiskChange
from schema.context import Context
from schema.enums import publish
from schema.permissions import requires
from schema.scans import DEFAULT_RISKS, FirstRisks, Offset, Scan, ScanRisk, bounds, risk_of, scan_of

Info = strawberry.Info[Context, None]

publish(
    RiskChange,
    "What became of a risk between two scans.",
    NEW="Only the later scan has it.",
    UNCHANGED="Both have it.",
    ABSENT="Only the earlier scan has it.",
)
publish(
    ExportFormat,
    "The form of an exported scan.",
    JSON="Everything, as JSON.",
    CSV="A table for spreadsheets, a row for each risk.",
    SARIF="SARIF 2.1.0, for tools that collect findings.",
)


@strawberry.type(description="A risk in the comparison of two scans.")
class RiskComparison:
    """A risk and what became of it."""

    change: RiskChange = strawberry.field(description="What became of it.")
    risk: ScanRisk = strawberry.field(description="The risk: of the later scan unless it is ABSENT there.")
    before: ScanRisk | None = strawberry.field(description="The same risk in the earlier scan.")


@strawberry.type(description="How many risks became what.")
class ChangeCount:
    """A number."""

    change: RiskChange = strawberry.field(description="What became of them.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="Two scans, held against each other.")
class ScanComparison:
    """A comparison."""

    base: Scan = strawberry.field(description="The earlier scan.")
    head: Scan = strawberry.field(description="The later scan.")
    same_document: bool = strawberry.field(description="Whether both read the same document, by name or medium.")
    counts: list[ChangeCount] = strawberry.field(description="All risks in numbers, zeros too.")
    compared: strawberry.Private[list[ComparedRisk]]

    @strawberry.field(description="The risks of the later scan, worst first, then those that it has no more.")
    def entries(
        self,
        change: Annotated[
            list[RiskChange] | None, strawberry.argument(description="Only these; all when left out.")
        ] = None,
        first: FirstRisks = DEFAULT_RISKS,
        offset: Offset = 0,
    ) -> list[RiskComparison]:
        """From what was compared."""
        size, skipped = bounds(first, offset)
        chosen = [each for each in self.compared if change is None or each.change in change][skipped : skipped + size]
        return [
            RiskComparison(
                change=each.change,
                risk=risk_of(each.risk),
                before=None if each.before is None else risk_of(each.before),
            )
            for each in chosen
        ]


@strawberry.type(description="A scan as a file.")
class ScanExport:
    """A file as text."""

    filename: str = strawberry.field(description="A name for the file.")
    content_type: str = strawberry.field(description="Its media type.")
    content: str = strawberry.field(description="Its content, to be stored as UTF-8.")


@strawberry.type
class ScanReportsQuery:
    """What can be made of scans."""

    @strawberry.field(
        description="What became of the risks from one scan to a later one, by fingerprint. CONFLICT unless both "
        "succeeded.",
        extensions=[requires(Permission.SCAN_READ)],
    )
    async def compare_scans(
        self,
        info: Info,
        base: Annotated[strawberry.ID, strawberry.argument(description="The earlier scan.")],
        head: Annotated[strawberry.ID, strawberry.argument(description="The later scan, of the same owner.")],
    ) -> ScanComparison:
        """Two scans."""
        context = info.context
        earlier, later, entries = await scans.compare(context.actor, base, head)
        return ScanComparison(
            base=scan_of(earlier, context),
            head=scan_of(later, context),
            same_document=earlier["document_key"] == later["document_key"],
            counts=[ChangeCount(change=change, count=count) for change, count in scans.counted(entries).items()],
            compared=entries,
        )

    @strawberry.field(
        description="A scan as a file: JSON, a table, or SARIF 2.1.0. CONFLICT unless it succeeded.",
        extensions=[requires(Permission.SCAN_READ)],
    )
    async def export_scan(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The scan.")],
        format: Annotated[ExportFormat, strawberry.argument(description="The form.")],
    ) -> ScanExport:
        """A file."""
        made = await scan_exports.export(info.context.actor, id, format)
        return ScanExport(filename=made.filename, content_type=made.content_type, content=made.content)
