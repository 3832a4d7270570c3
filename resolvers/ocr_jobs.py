"""Reading documents: asked for, stopped and removed by people; their pages found again.

A job reads one medium that its owner may see, in languages that are installed. Those of a batch are asked for in one
transaction: all or none. What is read stays when the medium goes; it goes with the job.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from adapters import events
from adapters.ocr.languages import installed
from errors import Conflict, ValidationFailed
from models import execution_commands, execution_rows, ocr_job_queries
from models.audit import AuditEvent
from models.database import Row
from models.documents import KIND
from models.events import ExecutionChanged
from models.executions import ExecutionStatus
from models.idempotency import once
from models.ids import new_id
from models.media import MediaKind
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, executions, limits, media, projects, sessions
from tasks import queue

MAX_BATCH: Final = 100
MAX_LANGUAGES: Final = 5
BASE_SECONDS: Final = 300
MAX_SECONDS: Final = 86_400
READABLE: Final = (MediaKind.IMAGE, MediaKind.PDF)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")  # ISO 4217


async def languages() -> tuple[str, ...]:
    """The languages that are installed where the API runs, by the code of their data."""
    return await asyncio.to_thread(installed, sessions.settings())


async def enqueue(
    actor: Actor,
    media_id: str,
    *,
    languages: Sequence[str] | None,
    force_ocr: bool,
    default_currency: str | None,
    idempotency_key: str | None,
) -> UUID:
    """Queue the reading of a medium; its id, or that of the first use of the key.

    Raises ValidationFailed with the path, Conflict for a medium that is not ready, RateLimitExceeded when too many
    wait and when the user had too many read within an hour.
    """
    access.allow(actor, Permission.DOCUMENT_WRITE)
    chosen = await _chosen(languages)
    currency = _currency(default_currency)
    medium = await media.ready(actor, media_id, kinds=READABLE)
    job_id = new_id()

    async def make() -> None:
        slot.use()
        await _queue(actor, medium, job_id, chosen, force_ocr=force_ocr, currency=currency, batch_id=None)
        await _record(actor, "enqueueOcr", job_id, medium=str(medium["id"]))

    owner_id = _owner(actor)
    async with limits.documents(owner_id) as slot, unit_of_work():
        return await once(
            owner_id,
            "enqueueOcr",
            idempotency_key,
            request={"medium": medium["id"], "languages": languages, "force": force_ocr, "currency": currency},
            target_id=job_id,
            make=make,
        )


async def enqueue_batch(
    actor: Actor,
    media_ids: Sequence[str],
    *,
    languages: Sequence[str] | None,
    force_ocr: bool,
    default_currency: str | None,
    idempotency_key: str | None,
) -> tuple[UUID, list[UUID]]:
    """Queue the reading of several media, all or none; the batch's id and those of its jobs, in order.

    Raises as `enqueue`.
    """
    access.allow(actor, Permission.DOCUMENT_WRITE)
    if not 1 <= len(media_ids) <= MAX_BATCH or len(set(media_ids)) < len(media_ids):
        raise ValidationFailed(
            f"A batch has 1 to {MAX_BATCH} different media.", path=["input", "mediaIds"], limit=MAX_BATCH
        )
    chosen = await _chosen(languages)
    currency = _currency(default_currency)
    found = [await media.ready(actor, media_id, kinds=READABLE) for media_id in media_ids]
    batch_id = new_id()

    async def make() -> None:
        slot.use()
        for medium in found:
            await _queue(actor, medium, new_id(), chosen, force_ocr=force_ocr, currency=currency, batch_id=batch_id)
        await _record(actor, "enqueueOcrBatch", batch_id, media=[str(medium["id"]) for medium in found])

    owner_id = _owner(actor)
    async with limits.documents(owner_id, len(found)) as slot, unit_of_work():
        made = await once(
            owner_id,
            "enqueueOcrBatch",
            idempotency_key,
            request={
                "media": [medium["id"] for medium in found],
                "languages": languages,
                "force": force_ocr,
                "currency": currency,
            },
            target_id=batch_id,
            make=make,
        )
        return made, await ocr_job_queries.batch_of(made)


async def cancel(actor: Actor, job_id: str) -> UUID:
    """Stop a reading; a final one stays as it is, and what was read stays."""
    row = await access.ocr_job(actor, job_id, to=Permission.EXECUTION_CANCEL)
    await executions.cancel(actor, row["id"], action="cancelOcrJob")
    found: UUID = row["id"]
    return found


async def delete(actor: Actor, job_id: str) -> None:
    """Remove a reading with its pages, candidates and log; products stay. Raises Conflict while it waits or works."""
    row = await access.ocr_job(actor, job_id, to=Permission.DOCUMENT_WRITE)
    async with unit_of_work():
        found = await ocr_job_queries.lock(row["id"])
        if found is None:
            raise access.missing()
        if not ExecutionStatus(found["status"]).is_final:
            raise Conflict("The document waits or is being read; cancel it first.", status=found["status"])
        await ocr_job_queries.delete(row["id"])
        await _record(actor, "deleteOcrJob", row["id"], filename=row["ocr_filename"])
        if found["log_key"]:
            projects.delete_objects_after_commit([found["log_key"]])


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the readings that an actor may see."""
    return await execution_rows.visible(actor, kind=KIND, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await execution_rows.count_visible(actor, kind=KIND, **filters)


async def find(actor: Actor, job_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the readings that an actor may see, in one statement."""
    found = await execution_rows.find(job_ids)
    return {key: row for key, row in found.items() if row["kind"] == KIND and access.sees_execution(actor, row)}


async def find_pages(actor: Actor, page_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the pages that an actor may see, in one statement."""
    found = await ocr_job_queries.find_pages(page_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


async def _chosen(languages: Sequence[str] | None) -> list[str]:
    """The languages asked for, or those of the settings that are there; raises ValidationFailed."""
    present = await asyncio.to_thread(installed, sessions.settings())
    path = ["input", "languages"]
    told = ", ".join(present) or "none"
    if languages is None:
        chosen = [language for language in sessions.settings().ocr_languages if language in present]
        if not chosen:
            raise ValidationFailed(f"Name a language; installed are: {told}.", path=path, installed=list(present))
        return chosen
    if not 1 <= len(languages) <= MAX_LANGUAGES or len(set(languages)) < len(languages):
        raise ValidationFailed(f"Name 1 to {MAX_LANGUAGES} different languages.", path=path, limit=MAX_LANGUAGES)
    if not set(languages) <= set(present):
        raise ValidationFailed(
            f"Not all of these languages are installed; those that are: {told}.", path=path, installed=list(present)
        )
    return list(languages)


def _currency(code: str | None) -> str | None:
    if code is None:
        return None
    if not _CURRENCY.fullmatch(code):
        raise ValidationFailed(
            "A currency is three capital letters, such as EUR (ISO 4217).", path=["input", "defaultCurrency"]
        )
    return code


async def _queue(
    actor: Actor,
    medium: Row,
    job_id: UUID,
    languages: Sequence[str],
    *,
    force_ocr: bool,
    currency: str | None,
    batch_id: UUID | None,
) -> None:
    settings = sessions.settings()
    owner_id = _owner(actor)
    pages = min(medium["pages"] or settings.ocr_max_pages, settings.ocr_max_pages)
    await execution_commands.create(
        job_id,
        kind=KIND,
        owner_id=owner_id,
        requested_by=actor.user_id,
        timeout_seconds=min(MAX_SECONDS, BASE_SECONDS + pages * settings.ocr_page_seconds),
        max_attempts=settings.max_attempts,
        max_queued=settings.max_queued_per_user,
    )
    await ocr_job_queries.insert(
        job_id,
        media_id=medium["id"],
        filename=medium["filename"],
        languages=languages,
        force_ocr=force_ocr,
        default_currency=currency,
        batch_id=batch_id,
    )
    await events.publish(ExecutionChanged(job_id, owner_id))
    await queue.ring(KIND, job_id)


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise access.missing()  # the gate lets nobody get here
    return actor.user_id


async def _record(actor: Actor, action: str, target_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="ocrJob", target_id=target_id, details=details)
