"""Commands on candidates: accept one or many, reject, open again, undo what an acceptance did."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import strawberry

from models.ids import Prefix, encode_id
from models.permissions import Permission
from resolvers import candidate_acceptances, candidates
from resolvers.candidate_acceptances import OnMatch, SkipReason, UndoRefusal
from schema.candidates import (
    CandidateAcceptance,
    ProductCandidate,
    load_acceptance,
    load_candidate,
)
from schema.context import Context
from schema.permissions import requires
from schema.products import Product, load_product

Info = strawberry.Info[Context, None]


@strawberry.input(description="What is to be otherwise than it was read; what is left out stays as it was read.")
class CandidateEdits:
    """Values of the product to be."""

    name: strawberry.Maybe[str] = strawberry.field(description="The name; an update changes it only when it is here.")
    sku: strawberry.Maybe[str | None] = strawberry.field(description="The SKU; null for none.")
    ean: strawberry.Maybe[str | None] = strawberry.field(description="The EAN; null for none.")
    price: strawberry.Maybe[Decimal | None] = strawberry.field(description="The price; null for none.")
    currency: strawberry.Maybe[str | None] = strawberry.field(description="Currency of the price (ISO 4217).")
    unit: strawberry.Maybe[str | None] = strawberry.field(description="What is counted; null for nothing.")
    stock: strawberry.Maybe[Decimal | None] = strawberry.field(
        description="How much there is. The candidate's quantity is not taken for it."
    )
    category: strawberry.Maybe[str | None] = strawberry.field(description="What it is sorted under.")

    def changes(self) -> dict[str, Any]:
        """The given columns by their names."""
        given = {name: getattr(self, name) for name in candidates.EDITABLE}
        return {column: some.value for column, some in given.items() if some is not None}


@strawberry.input(description="Which candidate is which product: `productId`, or `create: true`.")
class AcceptCandidateInput:
    """A candidate to accept."""

    id: strawberry.ID = strawberry.field(description="The candidate; it must be PENDING.")
    product_id: strawberry.ID | None = strawberry.field(
        default=None, description="The product that gets its price, and what it has not: SKU, EAN, unit."
    )
    create: bool = strawberry.field(default=False, description="Make a new product of it.")
    edits: CandidateEdits | None = strawberry.field(default=None, description="What is to be otherwise.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with what the first call did."
    )


@strawberry.input(description="Which candidate is no product.")
class RejectCandidateInput:
    """A candidate to reject."""

    id: strawberry.ID = strawberry.field(description="The candidate; it must be PENDING.")
    reason: str | None = strawberry.field(default=None, description="Why, for the audit trail; up to 255 characters.")


@strawberry.input(description="Which candidate waits again.")
class ReopenCandidateInput:
    """A candidate to open again."""

    id: strawberry.ID = strawberry.field(description="The candidate: REJECTED, or accepted and its product is gone.")


@strawberry.input(description="Which candidates of a document to accept.")
class AcceptCandidatesInput:
    """Candidates to accept."""

    ocr_job_id: strawberry.ID = strawberry.field(description="The document.")
    min_confidence: float = strawberry.field(description="How sure they must be, 0 to 1.")
    on_match: OnMatch = strawberry.field(description="What to do with those that are taken for a product.")
    idempotency_key: str | None = strawberry.field(default=None, description="As in `AcceptCandidateInput`.")


@strawberry.input(description="Which acceptance to undo.")
class UndoAcceptanceInput:
    """An acceptance to undo."""

    acceptance_id: strawberry.ID = strawberry.field(description="The acceptance.")


@strawberry.type(description="A candidate that became a product.")
class AcceptCandidatePayload:
    """What accepting answers with; repeated with its key, what has become of it since."""

    candidate: ProductCandidate = strawberry.field(description="The candidate as it is now.")
    product: Product | None = strawberry.field(description="The product; null once it is gone.")
    acceptance: CandidateAcceptance = strawberry.field(description="What to undo.")


@strawberry.type(description="A candidate about which something was decided.")
class CandidatePayload:
    """What deciding answers with."""

    candidate: ProductCandidate = strawberry.field(description="The candidate as it is now.")


@strawberry.type(description="A candidate that was not accepted with the others.")
class SkippedCandidate:
    """A candidate that waits on."""

    candidate_id: strawberry.ID = strawberry.field(description="The candidate.")
    reason: SkipReason = strawberry.field(description="Why.")


@strawberry.type(description="Candidates that became products.")
class AcceptCandidatesPayload:
    """What accepting many answers with."""

    acceptance: CandidateAcceptance = strawberry.field(description="What to undo.")
    accepted_count: int = strawberry.field(description="How many were accepted.")
    skipped_count: int = strawberry.field(description="How many were sure enough, and wait on all the same.")
    skipped: list[SkippedCandidate] = strawberry.field(
        description="Up to 100 of those, in the order of the document; none when a call is repeated with its key."
    )
    has_more: bool = strawberry.field(description="Whether there are others beyond the limit: call again.")


@strawberry.type(description="A product that undoing left as it is.")
class UndoRefused:
    """A product that was left alone."""

    candidate_id: strawberry.ID = strawberry.field(description="The candidate, which stays accepted.")
    product_id: strawberry.ID = strawberry.field(description="The product.")
    reason: UndoRefusal = strawberry.field(description="Why.")


@strawberry.type(description="An acceptance that was undone, as far as it could be.")
class UndoAcceptancePayload:
    """What undoing answers with."""

    acceptance: CandidateAcceptance = strawberry.field(description="The acceptance as it is now.")
    undone_count: int = strawberry.field(description="How many candidates wait again.")
    refused: list[UndoRefused] = strawberry.field(description="What was left alone, at most 1,000.")


@strawberry.type
class CandidatesMutation:
    """What administrators decide about candidates."""

    @strawberry.mutation(
        description="Make a product of a candidate, or change one after it. CONFLICT for a candidate that is decided, "
        "and with the path in `edits` for a SKU or EAN that another product has.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def accept_candidate(
        self, info: Info, input: Annotated[AcceptCandidateInput, strawberry.argument(description="Which, and as what.")]
    ) -> AcceptCandidatePayload:
        """A product."""
        acceptance_id, candidate_id, product_id = await candidates.accept(
            info.context.actor,
            input.id,
            edits={} if input.edits is None else input.edits.changes(),
            product_id=input.product_id,
            is_new=input.create,
            idempotency_key=input.idempotency_key,
        )
        return AcceptCandidatePayload(
            candidate=await load_candidate(info.context, candidate_id),
            product=None if product_id is None else await load_product(info.context, product_id),
            acceptance=await load_acceptance(info.context, acceptance_id),
        )

    @strawberry.mutation(
        description="Say that a candidate is no product. CONFLICT for one that is decided.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def reject_candidate(
        self, info: Info, input: Annotated[RejectCandidateInput, strawberry.argument(description="Which, and why.")]
    ) -> CandidatePayload:
        """A decision."""
        candidate_id = await candidates.reject(info.context.actor, input.id, reason=input.reason)
        return CandidatePayload(candidate=await load_candidate(info.context, candidate_id))

    @strawberry.mutation(
        description="Let a rejected candidate wait again. CONFLICT for one that waits, and for one that is a product: "
        "undo its acceptance.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def reopen_candidate(
        self, info: Info, input: Annotated[ReopenCandidateInput, strawberry.argument(description="Which one.")]
    ) -> CandidatePayload:
        """No decision any more."""
        candidate_id = await candidates.reopen(info.context.actor, input.id)
        return CandidatePayload(candidate=await load_candidate(info.context, candidate_id))

    @strawberry.mutation(
        description="Accept candidates of a document that wait and are sure enough: up to 1,000, in one transaction. "
        "Those about which there is a doubt are skipped and wait on.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def accept_candidates(
        self, info: Info, input: Annotated[AcceptCandidatesInput, strawberry.argument(description="Which ones.")]
    ) -> AcceptCandidatesPayload:
        """Many products."""
        done = await candidate_acceptances.accept_many(
            info.context.actor,
            input.ocr_job_id,
            min_confidence=input.min_confidence,
            on_match=input.on_match,
            idempotency_key=input.idempotency_key,
        )
        return AcceptCandidatesPayload(
            acceptance=await load_acceptance(info.context, done.acceptance_id),
            accepted_count=done.accepted,
            skipped_count=done.skipped,
            skipped=[
                SkippedCandidate(
                    candidate_id=strawberry.ID(encode_id(Prefix.CANDIDATE, each.candidate_id)), reason=each.reason
                )
                for each in done.told
            ],
            has_more=done.has_more,
        )

    @strawberry.mutation(
        description="Undo an acceptance: products that it made are deleted, those that it changed get back what they "
        "had, with an entry in their price history, and its candidates wait again. What changed since stays and is "
        "told; call again to try that once more. CONFLICT when all is undone.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def undo_acceptance(
        self, info: Info, input: Annotated[UndoAcceptanceInput, strawberry.argument(description="Which one.")]
    ) -> UndoAcceptancePayload:
        """As it was before."""
        acceptance_id, undone = await candidate_acceptances.undo(info.context.actor, input.acceptance_id)
        return UndoAcceptancePayload(
            acceptance=await load_acceptance(info.context, acceptance_id),
            undone_count=undone.count,
            refused=[
                UndoRefused(
                    candidate_id=strawberry.ID(encode_id(Prefix.CANDIDATE, each.candidate_id)),
                    product_id=strawberry.ID(encode_id(Prefix.PRODUCT, each.product_id)),
                    reason=each.reason,
                )
                for each in undone.refused
            ],
        )
