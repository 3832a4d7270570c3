"""The kind of execution that scans a document for risks: the AI service reads it, or the embedded scanner.

Invariants: all risks are written in the transaction that ends the scan, so a repeated attempt adds nothing; a request
to stop closes the connection to the service at once; a service that is down ends scans, never the worker. A scan that a
worker hands back asks the service again from the start. No word of a document is in the log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from adapters import ai, scanner
from adapters.storage import ObjectNotFound, Storage, StorageUnavailable
from models import media_queries
from models import scans as models
from models.executions import ExecutionStatus, FailureCode
from models.scan_queries import Findings, record
from settings import Settings
from tasks.scan import findings, texts
from tasks.scan.texts import Text, Unreadable
from tasks.work import Outcome, Work

KIND: Final = models.KIND


@dataclass(frozen=True, slots=True)
class Document:
    """What is scanned: a text, or an object in storage."""

    text: str | None
    key: str | None
    filename: str
    content_type: str
    size: int
    force_llm: bool


class ScanKind:
    """Scans."""

    name = KIND
    # A model may take a minute, and those who stop a worker do not wait so long: it is handed back.
    is_short = False
    # Nothing is kept of a scan that stops, so there is nothing to wait for.
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self.slots = settings.worker_scan_slots
        self.running_per_owner = settings.max_scans_per_user
        self._storage = storage

    async def run(self, work: Work) -> Outcome:
        """Scan, and store what was found; every fault of the document or of the service has a failure of its own."""
        try:
            document = await _load(work)
            found = await self._scan(work, document)
        except (ai.Unavailable, StorageUnavailable) as error:
            return await _failed(work, FailureCode.SERVICE_UNAVAILABLE, str(error), retryable=True)
        except _NoModel:
            message = "There is no language model here; scan without forceLlm."
            return await _failed(work, FailureCode.SERVICE_UNAVAILABLE, message)
        except (ai.Refused, Unreadable) as error:
            return await _failed(work, FailureCode.INVALID_INPUT, str(error))
        except ObjectNotFound:
            return await _failed(work, FailureCode.INVALID_INPUT, "The file is no longer there.")

        async def write(connection: asyncpg.Connection) -> None:
            await record(connection, work.id, found)

        return Outcome(ExecutionStatus.SUCCEEDED, write=write)

    async def _scan(self, work: Work, document: Document) -> Findings:
        service = ai.current()
        if service is None:
            return await self._scan_here(work, document)
        await work.advance(10, stage="SCANNING")
        await work.log.info(f"Sending {_described(document)} to the AI service.")
        started = time.monotonic()
        async with aclosing(self._chunks(document)) as chunks:
            sent = (
                document.text
                if document.text is not None
                else ai.Upload(document.filename, document.content_type, document.size, chunks)
            )
            answer = await service.scan(sent, force_llm=document.force_llm)
        seconds = time.monotonic() - started
        await work.log.info(
            f"The AI service answered after {seconds:.1f} s: {len(answer.risks):,} risks from {_named(answer)}."
        )
        await work.advance(70, stage="LOCATING")
        text = await self._text_for_places(work, document) if answer.risks else None
        return await work.compute(findings.of_service, answer, text)

    async def _scan_here(self, work: Work, document: Document) -> Findings:
        if document.force_llm:
            raise _NoModel
        await work.advance(10, stage="READING")
        await work.log.info(f"Reading {_described(document)}.")
        text = await self._text(work, document)
        if not text.text.strip():
            raise Unreadable("The document holds no text; what is only pictures has to be read with OCR first.")
        await work.advance(40, stage="SCANNING")
        report = await work.compute(scanner.scan, text.text)
        found = findings.of_embedded(report, is_cut=text.is_cut)
        await work.log.info(
            f"Scanned {len(text.text):,} characters with {scanner.SCANNER_NAME} {scanner.SCANNER_VERSION} "
            f"(rules {report.provenance.ruleset}): {len(found.risks):,} risks."
        )
        return found

    async def _text_for_places(self, work: Work, document: Document) -> Text | None:
        """The text that quotations are looked for in; None, and a word in the log, where there is none."""
        try:
            return await self._text(work, document)
        except (Unreadable, ObjectNotFound) as error:
            await work.log.warning(f"The risks have no places in the document: {error}")
            return None

    async def _text(self, work: Work, document: Document) -> Text:
        if document.text is not None:
            longest = scanner.MAX_CHARACTERS
            return Text(document.text[:longest], len(document.text) > longest)
        async with aclosing(self._chunks(document)) as chunks:
            return await texts.text_of(work, document.content_type, chunks)

    async def _chunks(self, document: Document) -> AsyncGenerator[bytes, None]:
        if document.key is None:
            raise ObjectNotFound("")
        async with aclosing(self._storage.get(document.key)) as chunks:
            async for chunk in chunks:
                yield chunk


class _NoModel(Exception):
    """A language model is asked for where there is none."""


async def _load(work: Work) -> Document:
    row: asyncpg.Record | None = None

    async def read(connection: asyncpg.Connection) -> None:
        nonlocal row
        row = await connection.fetchrow(
            """SELECT text, media_id, file_key, filename, content_type, size, force_llm FROM scans
               WHERE execution_id = $1""",
            work.id,
        )

    await work.persist(read)
    if row is None:
        raise LookupError(f"execution {work.id} has no scan")
    return Document(
        text=row["text"],
        key=_key(row["media_id"], row["file_key"]),
        filename=row["filename"] or "document",
        content_type=row["content_type"],
        size=row["size"],
        force_llm=row["force_llm"],
    )


def _key(media_id: UUID | None, file_key: str | None) -> str | None:
    return file_key if media_id is None else media_queries.object_key(media_id)


def _described(document: Document) -> str:
    what = "a text" if document.text is not None else f"a file ({document.content_type})"
    return f"{what} of {document.size:,} bytes"


def _named(answer: ai.Answer) -> str:
    named = answer.provenance.get("scanner") or answer.provenance.get("model")
    return f"{answer.source}, {ai.printable(named, 100)}" if named else answer.source


async def _failed(work: Work, code: FailureCode, message: str, *, retryable: bool = False) -> Outcome:
    await work.log.error(message)
    return Outcome.failed(code, message, stage=work.log.stage, retryable=retryable)
