"""Commands on scans: ask for one, stop and delete one, decide about what it found."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from models.permissions import Permission
from models.scans import TriageState
from resolvers import risk_triage, scans
from schema.context import Context
from schema.permissions import requires
from schema.scans import Scan, ScanRisk, load_scan, risk_of
from schema.uploads import Upload, UploadedFile

Info = strawberry.Info[Context, None]


@strawberry.input(description="What to scan: exactly one of `text`, `mediaId` and `upload`.")
class SubmitScanInput:
    """A new scan."""

    text: str | None = strawberry.field(default=None, description="A text of at most 1,000,000 bytes in UTF-8.")
    media_id: strawberry.ID | None = strawberry.field(default=None, description="A PDF among your media.")
    upload: Upload | None = strawberry.field(
        default=None,
        description="A file: text, Markdown, CSV, HTML or PDF; Word documents where a service reads them. What it is, "
        "its content says. Stored with the scan and deleted with it.",
    )
    filename: str | None = strawberry.field(
        default=None,
        description="The document's name. Decisions about risks are carried to later scans of the same name; of a "
        "medium to those of the same medium, of a text without a name to those of the very same text.",
    )
    force_llm: bool = strawberry.field(
        default=False, description="Insist on a language model; the scan fails where there is none."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with the scan that the first call made."
    )


@strawberry.input(description="Which scan to stop.")
class CancelScanInput:
    """A scan to stop."""

    id: strawberry.ID = strawberry.field(description="The scan.")


@strawberry.input(description="Which scan goes.")
class DeleteScanInput:
    """A scan to delete."""

    id: strawberry.ID = strawberry.field(description="The scan; it must have ended.")


@strawberry.input(description="What to decide about a risk.")
class TriageRiskInput:
    """A decision."""

    risk_id: strawberry.ID = strawberry.field(description="The risk.")
    state: TriageState = strawberry.field(description="What it is; OPEN takes an earlier decision back.")
    note: str | None = strawberry.field(default=None, description="Why; at most 2,000 characters.")
    until: datetime | None = strawberry.field(
        default=None, description="When the risk opens again by itself; never when left out."
    )


@strawberry.type(description="A scan.")
class ScanPayload:
    """What the commands answer with."""

    scan: Scan = strawberry.field(description="The scan as it is now.")


@strawberry.type(description="A scan that is gone.")
class DeleteScanPayload:
    """A scan that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="A risk that was decided about.")
class TriageRiskPayload:
    """A risk."""

    risk: ScanRisk = strawberry.field(description="The risk as it is now.")


@strawberry.type
class ScansMutation:
    """What users do with scans."""

    @strawberry.mutation(
        description="Queue a scan and answer with it at once. VALIDATION_ERROR for what cannot be read, "
        "RATE_LIMIT_EXCEEDED when too many of yours wait, or you asked for too many within an hour.",
        extensions=[requires(Permission.SCAN_WRITE)],
    )
    async def submit_scan(
        self, info: Info, input: Annotated[SubmitScanInput, strawberry.argument(description="What to scan.")]
    ) -> ScanPayload:
        """A new scan."""
        upload: UploadedFile | None = input.upload
        scan_id = await scans.submit(
            info.context.actor,
            text=input.text,
            media_id=input.media_id,
            upload=upload,
            filename=input.filename,
            force_llm=input.force_llm,
            idempotency_key=input.idempotency_key,
        )
        return ScanPayload(scan=await load_scan(info.context, scan_id))

    @strawberry.mutation(
        description="Stop a scan: the connection to the service is closed at once. One that has ended stays as it is.",
        extensions=[requires(Permission.SCAN_WRITE)],
    )
    async def cancel_scan(
        self, info: Info, input: Annotated[CancelScanInput, strawberry.argument(description="Which scan.")]
    ) -> ScanPayload:
        """A request to stop."""
        scan_id = await scans.cancel(info.context.actor, input.id)
        return ScanPayload(scan=await load_scan(info.context, scan_id))

    @strawberry.mutation(
        description="Delete a scan with its risks, its log and its file; decisions stay with the document. CONFLICT "
        "while it waits or works.",
        extensions=[requires(Permission.SCAN_WRITE)],
    )
    async def delete_scan(
        self, info: Info, input: Annotated[DeleteScanInput, strawberry.argument(description="Which scan.")]
    ) -> DeleteScanPayload:
        """The end of a scan."""
        await scans.delete(info.context.actor, input.id)
        return DeleteScanPayload(deleted_id=input.id)

    @strawberry.mutation(
        description="Decide about a risk, and so about its like in all scans of the same document, later ones too.",
        extensions=[requires(Permission.SCAN_WRITE)],
    )
    async def triage_risk(
        self, info: Info, input: Annotated[TriageRiskInput, strawberry.argument(description="What to decide.")]
    ) -> TriageRiskPayload:
        """A decision."""
        row = await risk_triage.decide(
            info.context.actor, input.risk_id, state=input.state, note=input.note, until=input.until
        )
        return TriageRiskPayload(risk=risk_of(row))
