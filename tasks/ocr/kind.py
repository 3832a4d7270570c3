"""The kind of execution that reads a document: fetch the medium, read its pages, look for products in them.

The file is opened by a child process only (`tasks/ocr/reading.py`). Invariants: a page is stored once, so an attempt
that was lost is gone on with behind the pages it has; candidates, confidence and success are written in one
transaction. A document of which some pages cannot be read succeeds with the others, and its log says which. One that is
cancelled or runs out of time keeps what was read, and has no candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from adapters.ocr.languages import UnknownLanguages, gather
from adapters.ocr.protocol import Start
from adapters.storage import ObjectNotFound, Storage, StorageUnavailable
from models import media_queries, ocr_job_queries
from models.database import from_json
from models.documents import KIND
from models.executions import ExecutionStatus, Failure, FailureCode
from models.media import MediaKind, MediaStatus
from settings import Settings
from tasks.folders import private_folder
from tasks.ocr.candidates import find_candidates
from tasks.ocr.page_words import Candidate, PageWords, Word
from tasks.ocr.reading import Progress, Reading, failure_of
from tasks.work import ExecutionFailed, Outcome, Work

FETCHING: Final = "FETCHING"
SEARCHING: Final = "SEARCHING"
PAGES_AT_ONCE: Final = 50
MAX_SEARCHED_WORDS: Final = 500_000
"""Words in which products are looked for: a catalogue of a thousand dense pages. What is behind them is only text."""
_FOLDERS: Final = "documents"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read."""

    media_id: UUID
    is_pdf: bool
    languages: list[str]
    force_ocr: bool
    default_currency: str | None


class OcrKind:
    """Documents."""

    name = KIND
    is_short = False
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.slots = settings.worker_ocr_slots
        self.running_per_owner = settings.max_ocr_per_user
        self._settings = settings
        self._storage = storage

    async def run(self, work: Work) -> Outcome:
        """Read the document; every end but a lost lease is an outcome."""
        await work.advance(1, stage=FETCHING)
        plan, progress = await _load(work)
        async with private_folder(self._settings.data_dir / _FOLDERS, work) as folder:
            file = folder / "document"
            await self._fetch(plan, file)
            try:
                await asyncio.to_thread(gather, folder / "tessdata", plan.languages, self._settings)
            except UnknownLanguages as error:
                raise ExecutionFailed(
                    Failure(FailureCode.START_ERROR, f"This worker lacks languages: {error}.", FETCHING)
                ) from None
            await Reading(work, self._start(plan, file, folder / "tessdata"), progress).run()
        if (failure := failure_of(progress)) is not None:
            raise ExecutionFailed(failure)
        return await self._search(work, plan, progress)

    def _start(self, plan: Plan, file: Path, data: Path) -> Start:
        settings = self._settings
        return Start(
            path=str(file),
            is_pdf=plan.is_pdf,
            languages=plan.languages,
            data_path=str(data),
            force_ocr=plan.force_ocr,
            dpi=settings.ocr_dpi,
            max_pages=settings.ocr_max_pages,
            max_pixels=settings.media_max_pixels,
            page_seconds=settings.ocr_page_seconds,
            memory_bytes=settings.media_memory_megabytes * 2**20,
        )

    async def _fetch(self, plan: Plan, file: Path) -> None:
        limit = self._settings.media_max_megabytes * 2**20
        size = 0
        try:
            with file.open("xb") as target:
                async with aclosing(self._storage.get(media_queries.object_key(plan.media_id))) as chunks:
                    async for chunk in chunks:
                        size += len(chunk)
                        if size > limit:
                            raise _invalid(f"The file is larger than {self._settings.media_max_megabytes} MB.")
                        await asyncio.to_thread(target.write, chunk)
        except ObjectNotFound:
            raise _invalid("The file is gone; it was deleted before it was read.") from None
        except (StorageUnavailable, OSError) as error:
            message = f"The file could not be fetched: {error}"
            raise ExecutionFailed(Failure(FailureCode.SERVICE_UNAVAILABLE, message, FETCHING, retryable=True)) from None

    async def _search(self, work: Work, plan: Plan, progress: Progress) -> Outcome:
        await work.advance(92, stage=SEARCHING)
        pages: list[PageWords] = []
        words = weight = 0
        certainty = 0.0
        async for page, confidence in _stored(work):
            words += len(page.words)
            if confidence is not None:
                certainty += confidence * len(page.words)
                weight += len(page.words)
            if words <= MAX_SEARCHED_WORDS:
                pages.append(page)
        if words > MAX_SEARCHED_WORDS:
            await work.log.warning(f"Products are looked for on the first {len(pages):,} pages only.")
        # In a thread: a long document takes seconds, and the leases of this worker must be renewed meanwhile.
        found = await work.compute(find_candidates, pages, default_currency=plan.default_currency)
        unread = len(progress.failed)
        await work.log.info(
            f"{len(progress.done):,} pages with {words:,} words"
            + (f", {unread:,} pages not read" if unread else "")
            + f"; {len(found):,} products may be in them."
        )

        async def write(connection: asyncpg.Connection) -> None:
            await ocr_job_queries.add_candidates(connection, work.id, [_columns(candidate) for candidate in found])
            await ocr_job_queries.finish(
                connection,
                work.id,
                confidence=certainty / weight if weight else None,
                candidate_count=len(found),
            )

        return Outcome(ExecutionStatus.SUCCEEDED, write=write)


async def _load(work: Work) -> tuple[Plan, Progress]:
    """What is to be read, and what earlier attempts have."""
    row: asyncpg.Record | None = None
    done: set[int] = set()

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal row, done
        row = await ocr_job_queries.plan(connection, work.id)
        done = await ocr_job_queries.numbers(connection, work.id)

    await work.persist(read)
    if row is None:
        raise LookupError(f"execution {work.id} reads no document")
    if row["media_id"] is None or row["media_status"] != MediaStatus.READY:
        raise _invalid("The file is gone; it was deleted before it was read.")
    if row["media_kind"] not in {MediaKind.PDF, MediaKind.IMAGE}:
        raise _invalid("Only pictures and PDFs can be read.")
    if done:
        await work.log.info(f"Going on behind {len(done):,} pages that were read before.")
    plan = Plan(
        media_id=row["media_id"],
        is_pdf=row["media_kind"] == MediaKind.PDF,
        languages=from_json(row["languages"]),
        force_ocr=row["force_ocr"],
        default_currency=row["default_currency"],
    )
    return plan, Progress(done=done, pages=row["page_count"])


async def _stored(work: Work) -> AsyncIterator[tuple[PageWords, float | None]]:
    """All pages of the document with their confidence, each slice in a short transaction of its own."""
    after = 0
    rows: Sequence[asyncpg.Record] = ()

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal rows
        rows = await ocr_job_queries.stored_pages(connection, work.id, after=after, limit=PAGES_AT_ONCE)

    while True:
        await work.persist(read)
        if not rows:
            return
        after = rows[-1]["number"]
        for row in rows:
            words = tuple(Word(*word) for word in from_json(row["words"]))
            yield PageWords(row["number"], row["width"], row["height"], words), row["confidence"]


def _columns(candidate: Candidate) -> ocr_job_queries.NewCandidate:
    return ocr_job_queries.NewCandidate(
        page=candidate.page,
        box=list(candidate.box),
        evidence=candidate.evidence,
        name=candidate.name,
        sku=candidate.sku,
        ean=candidate.ean,
        price=candidate.price,
        currency=candidate.currency,
        quantity=candidate.quantity,
        unit=candidate.unit,
        confidences=dict(candidate.confidences),
        confidence=candidate.confidence,
    )


def _invalid(message: str) -> ExecutionFailed:
    return ExecutionFailed(Failure(FailureCode.INVALID_INPUT, message, FETCHING))
