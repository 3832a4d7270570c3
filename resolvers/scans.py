"""Scans: asked for, stopped, removed, listed and compared.

A scan never changes what it found. Its file is stored before the transaction that makes it and removed again when that
fails, so no row names an object that is not there. What may be scanned is `resolvers/scan_inputs.py`'s, what was
decided about risks `resolvers/risk_triage.py`'s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import structlog

from adapters import events, storage
from errors import Conflict, SwitchyardError, Unauthorized, ValidationFailed
from models import execution_commands, execution_rows, scan_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import ExecutionChanged, TotalsChanged
from models.executions import ExecutionStatus
from models.idempotency import earlier, once
from models.ids import new_id
from models.permissions import Actor, Permission
from models.scans import KIND
from models.transaction import after_commit, unit_of_work
from resolvers import access, executions, limits, scan_inputs, sessions
from resolvers.scan_inputs import Input, Upload
from tasks import queue

MAX_RISKS: Final = 5_000
READING_SECONDS: Final = 120.0
"""What a scan may take beside its wait for the service."""

_SUBMIT: Final = "submitScan"
_log = structlog.get_logger("switchyard.scans")


class RiskChange(StrEnum):
    """What became of a risk between two scans."""

    NEW = "NEW"
    UNCHANGED = "UNCHANGED"
    ABSENT = "ABSENT"


@dataclass(frozen=True, slots=True)
class ComparedRisk:
    """A risk of the later scan, or of the earlier one if the later has it no more; with its like in the earlier one."""

    change: RiskChange
    risk: Row
    before: Row | None


async def submit(
    actor: Actor,
    *,
    text: str | None,
    media_id: str | None,
    upload: Upload | None,
    filename: str | None,
    force_llm: bool,
    idempotency_key: str | None,
) -> UUID:
    """Queue a scan of a text, a medium or an uploaded file; its id, or that of the first use of the key.

    Raises ValidationFailed with the path of what cannot be scanned, PayloadTooLarge, RateLimitExceeded.
    """
    owner_id = actor.user_id
    if owner_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.SCAN_WRITE)
    given = await scan_inputs.check(actor, text=text, media_id=media_id, upload=upload, filename=filename)
    scan_id = new_id()
    request = {
        "content": given.sha256,
        "media": given.media_id,
        "filename": given.filename,
        "forceLlm": force_llm,
    }
    made_before = await earlier(owner_id, _SUBMIT, idempotency_key, request=request)
    if made_before is not None:
        return made_before
    file_key = None if given.path is None else object_key(scan_id)

    async def make() -> None:
        await _insert(actor, owner_id, scan_id, given, file_key, force_llm=force_llm)

    async with limits.scan(owner_id) as slot:
        slot.use()  # before anything is stored
        made: UUID | None = None
        try:
            if given.path is not None and file_key is not None:
                await storage.current().put_file(
                    file_key, given.path, content_type=given.content_type, sha256=given.sha256
                )
            async with unit_of_work():
                made = await once(owner_id, _SUBMIT, idempotency_key, request=request, target_id=scan_id, make=make)
        finally:
            if made != scan_id:
                slot.leave()
                if file_key is not None:
                    await _remove_orphan(file_key, scan_id)
        return made


def object_key(scan_id: UUID) -> str:
    """Where the file of a scan is in storage."""
    return f"scans/{scan_id}/file"


async def cancel(actor: Actor, scan_id: str) -> UUID:
    """Stop a scan; a final one stays as it is."""
    row = await access.scan(actor, scan_id, to=Permission.SCAN_WRITE)
    await executions.cancel(actor, row["id"], action="cancelScan")
    found: UUID = row["id"]
    return found


async def delete(actor: Actor, scan_id: str) -> None:
    """Remove a scan with its risks, its log and its file; raises Conflict while it waits or works.

    What was decided about risks stays with the document.
    """
    row = await access.scan(actor, scan_id, to=Permission.SCAN_WRITE)
    async with unit_of_work():
        found = await scan_queries.lock_final(row["id"])
        if found is None:
            raise access.missing()
        if not ExecutionStatus(found["status"]).is_final:
            raise Conflict("The scan waits or works; cancel it first.")
        await scan_queries.delete(row["id"])
        await AuditEvent.record(
            actor,
            "deleteScan",
            target_type="scan",
            target_id=row["id"],
            details={"owner": str(row["owner_id"]), "risks": found["risk_count"]},
        )
        await events.publish(TotalsChanged(row["owner_id"]))
        keys = [key for key in (found["file_key"], found["log_key"]) if key]
        if keys:
            after_commit(lambda: storage.current().delete(keys))


async def compare(actor: Actor, base_id: str, head_id: str) -> tuple[Row, Row, list[ComparedRisk]]:
    """Two scans of one owner and what became of each risk: those of `head` in their order, then the absent ones.

    Risks are the same by fingerprint; one that is there twice in one scan and once in the other is unchanged once.
    Raises Conflict unless both scans succeeded.
    """
    base = await access.scan(actor, base_id, to=Permission.SCAN_READ)
    head = await access.scan(actor, head_id, to=Permission.SCAN_READ)
    if base["owner_id"] != head["owner_id"]:
        raise ValidationFailed("The two scans belong to different users.", path=["head"])
    for name, row in (("base", base), ("head", head)):
        if row["status"] != ExecutionStatus.SUCCEEDED:
            raise Conflict("Only scans that succeeded can be compared.", path=[name], status=row["status"])
    found = await scan_queries.risks([base["id"], head["id"]], limit=MAX_RISKS)
    return base, head, compared(found[base["id"]], found[head["id"]])


def compared(base: Sequence[Row], head: Sequence[Row]) -> list[ComparedRisk]:
    """What became of each risk, by multisets of fingerprints."""
    known: defaultdict[str, list[Row]] = defaultdict(list)
    for risk in reversed(base):
        known[risk["fingerprint"]].append(risk)
    entries = []
    for risk in head:
        same = known[risk["fingerprint"]]
        before = same.pop() if same else None
        entries.append(ComparedRisk(RiskChange.NEW if before is None else RiskChange.UNCHANGED, risk, before))
    gone = {risk["id"] for rest in known.values() for risk in rest}
    return [*entries, *(ComparedRisk(RiskChange.ABSENT, risk, risk) for risk in base if risk["id"] in gone)]


def counted(entries: Sequence[ComparedRisk]) -> dict[RiskChange, int]:
    """How many risks became what."""
    counts = Counter(entry.change for entry in entries)
    return {change: counts[change] for change in RiskChange}


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the scans that an actor may see."""
    return await execution_rows.visible(actor, kind=KIND, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await execution_rows.count_visible(actor, kind=KIND, **filters)


async def find(actor: Actor, scan_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the scans that an actor may see, in one statement."""
    found = await execution_rows.find(scan_ids)
    return {key: row for key, row in found.items() if row["kind"] == KIND and access.sees_execution(actor, row)}


async def _insert(
    actor: Actor, owner_id: UUID, scan_id: UUID, given: Input, file_key: str | None, *, force_llm: bool
) -> None:
    settings = sessions.settings()
    await execution_commands.create(
        scan_id,
        kind=KIND,
        owner_id=owner_id,
        requested_by=actor.user_id,
        timeout_seconds=settings.ai_timeout_seconds + READING_SECONDS,
        max_attempts=settings.max_attempts,
        max_queued=settings.max_queued_per_user,
    )
    await scan_queries.insert(
        scan_id,
        {
            "media_id": given.media_id,
            "filename": given.filename,
            "content_type": given.content_type,
            "size": given.size,
            "text": given.text,
            "file_key": file_key,
            "document_key": given.document_key,
            "force_llm": force_llm,
        },
    )
    # A name may say much about a document, and the trail outlives it: size and type are enough.
    await AuditEvent.record(
        actor,
        _SUBMIT,
        target_type="scan",
        target_id=scan_id,
        details={"contentType": given.content_type, "size": given.size, "forceLlm": force_llm},
    )
    await events.publish(ExecutionChanged(scan_id, owner_id))
    await queue.ring(KIND, scan_id)


async def _remove_orphan(file_key: str, scan_id: UUID) -> None:
    """Remove a file that no scan came of; best effort, and never of a scan that is there after all."""
    try:
        # The answer of a commit can be lost: then the row is there.
        if not await execution_rows.find([scan_id]):
            await storage.current().delete([file_key])
    except (SwitchyardError, OSError) as error:
        _log.warning("scan_file_left", key=file_key, error=repr(error))
