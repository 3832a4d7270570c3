"""Commands on documents: have them read, one or many, stop and delete a reading."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from models.permissions import Permission
from resolvers import ocr_jobs
from schema.context import Context
from schema.ocr_jobs import OcrJob, load_ocr_job, load_ocr_jobs
from schema.permissions import requires

Info = strawberry.Info[Context, None]

_LANGUAGES = (
    "Languages of the text, by their code, the most frequent first: up to 5 of `ocrLanguages`. When left out, the "
    "installation's usual ones."
)
_FORCE = "Pass over text layers and recognise every page: for those that are not what one sees."
_CURRENCY = "Currency of prices that name none, such as EUR (ISO 4217)."


@strawberry.input(description="What to read.")
class EnqueueOcrInput:
    """A medium to read."""

    media_id: strawberry.ID = strawberry.field(description="The medium: READY, a picture or a PDF.")
    languages: list[str] | None = strawberry.field(default=None, description=_LANGUAGES)
    force_ocr: bool = strawberry.field(default=False, description=_FORCE)
    default_currency: str | None = strawberry.field(default=None, description=_CURRENCY)
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with what the first call made."
    )


@strawberry.input(description="What to read together.")
class EnqueueOcrBatchInput:
    """Media to read."""

    media_ids: list[strawberry.ID] = strawberry.field(
        description="1 to 100 different media, each READY and a picture or a PDF."
    )
    languages: list[str] | None = strawberry.field(default=None, description=_LANGUAGES)
    force_ocr: bool = strawberry.field(default=False, description=_FORCE)
    default_currency: str | None = strawberry.field(default=None, description=_CURRENCY)
    idempotency_key: str | None = strawberry.field(default=None, description="As in `EnqueueOcrInput`.")


@strawberry.input(description="Which reading to stop.")
class CancelOcrJobInput:
    """A reading to stop."""

    id: strawberry.ID = strawberry.field(description="The document's id.")


@strawberry.input(description="Which reading goes.")
class DeleteOcrJobInput:
    """A reading to delete."""

    id: strawberry.ID = strawberry.field(description="The document's id; its reading must have ended.")


@strawberry.type(description="A document that is read.")
class OcrJobPayload:
    """What the commands answer with."""

    ocr_job: OcrJob = strawberry.field(description="The document as it is now.")


@strawberry.type(description="Documents that are read together.")
class OcrBatchPayload:
    """What asking for a batch answers with."""

    ocr_jobs: list[OcrJob] = strawberry.field(description="One for each medium, in their order.")
    batch_id: str = strawberry.field(description="For `ocrJobs(filter: { batchId })`.")


@strawberry.type(description="A reading that is gone.")
class DeleteOcrJobPayload:
    """A reading that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class OcrJobsMutation:
    """What users do with documents."""

    @strawberry.mutation(
        description="Have a medium read and answer at once. CONFLICT for one that is not READY, VALIDATION_ERROR for "
        "one that is no picture or PDF and for languages that are not installed, RATE_LIMIT_EXCEEDED when too many of "
        "yours wait, or you had too many read within an hour.",
        extensions=[requires(Permission.DOCUMENT_WRITE)],
    )
    async def enqueue_ocr(
        self, info: Info, input: Annotated[EnqueueOcrInput, strawberry.argument(description="What to read.")]
    ) -> OcrJobPayload:
        """A new reading."""
        job_id = await ocr_jobs.enqueue(
            info.context.actor,
            input.media_id,
            languages=input.languages,
            force_ocr=input.force_ocr,
            default_currency=input.default_currency,
            idempotency_key=input.idempotency_key,
        )
        return await _payload(info.context, job_id)

    @strawberry.mutation(
        description="Have up to 100 media read: all are queued, or none. Refuses as `enqueueOcr`.",
        extensions=[requires(Permission.DOCUMENT_WRITE)],
    )
    async def enqueue_ocr_batch(
        self, info: Info, input: Annotated[EnqueueOcrBatchInput, strawberry.argument(description="What to read.")]
    ) -> OcrBatchPayload:
        """New readings."""
        batch_id, job_ids = await ocr_jobs.enqueue_batch(
            info.context.actor,
            input.media_ids,
            languages=input.languages,
            force_ocr=input.force_ocr,
            default_currency=input.default_currency,
            idempotency_key=input.idempotency_key,
        )
        return OcrBatchPayload(ocr_jobs=await load_ocr_jobs(info.context, job_ids), batch_id=str(batch_id))

    @strawberry.mutation(
        description="Stop a reading: it is CANCELLED within seconds and keeps the pages it has, without candidates. "
        "One that has ended stays as it is.",
        extensions=[requires(Permission.EXECUTION_CANCEL)],
    )
    async def cancel_ocr_job(
        self, info: Info, input: Annotated[CancelOcrJobInput, strawberry.argument(description="Which document.")]
    ) -> OcrJobPayload:
        """A request to stop."""
        return await _payload(info.context, await ocr_jobs.cancel(info.context.actor, input.id))

    @strawberry.mutation(
        description="Delete a reading with its pages, candidates and log; the medium and accepted products stay. "
        "CONFLICT while it waits or works.",
        extensions=[requires(Permission.DOCUMENT_WRITE)],
    )
    async def delete_ocr_job(
        self, info: Info, input: Annotated[DeleteOcrJobInput, strawberry.argument(description="Which document.")]
    ) -> DeleteOcrJobPayload:
        """The end of a reading."""
        await ocr_jobs.delete(info.context.actor, input.id)
        return DeleteOcrJobPayload(deleted_id=input.id)


async def _payload(context: Context, job_id: UUID) -> OcrJobPayload:
    return OcrJobPayload(ocr_job=await load_ocr_job(context, job_id))
