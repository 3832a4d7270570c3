"""Products that a document may name, as clients review them: listed, with the products they are taken for.

Commands are in `schema/candidate_commands.py`. Invariant: products that candidates are taken
for are looked up once for all candidates of an answer, and only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import strawberry

from models.candidate_queries import CandidateConditions, CandidateOrder
from models.database import Row, from_json
from models.documents import CandidateState, MatchReason
from models.ids import Prefix, encode_id
from models.permissions import Permission
from resolvers import access, candidates
from resolvers.candidate_acceptances import OnMatch, SkipReason, UndoRefusal
from schema.context import Context
from schema.enums import publish
from schema.node import Node, load_node, register_node
from schema.pagination import Column
from schema.products import Product, load_product, product_of
from schema.users import User

Info = strawberry.Info[Context, None]
KEYS: Final[Mapping[CandidateOrder, tuple[Column, ...]]] = {
    CandidateOrder.POSITION: (("position", int),),
    CandidateOrder.CONFIDENCE: (("-confidence", float), ("-position", int)),
}

publish(
    CandidateState,
    "What was decided about a candidate.",
    PENDING="Nothing yet.",
    ACCEPTED="It is a product.",
    REJECTED="It is none.",
)
publish(
    CandidateOrder,
    "What candidates are sorted by.",
    POSITION="Where they stand in the document.",
    CONFIDENCE="How sure they are, the surest first.",
)
publish(
    MatchReason,
    "Why a candidate is taken for a product.",
    EAN="They have the same EAN.",
    SKU="They have the same SKU.",
    NAME="Their names are alike.",
)
publish(
    OnMatch,
    "What happens to candidates that are taken for a product.",
    UPDATE="The product gets the price, and what it has not: SKU, EAN, unit. Of names, only the very same will do.",
    SKIP="They wait on.",
    CREATE="Those with a name that is alike become new products; those with a product's SKU or EAN wait on.",
)
publish(
    SkipReason,
    "Why a candidate was skipped.",
    INCOMPLETE="It has no price, or a price without a currency.",
    MATCHED="It is taken for a product, and those are skipped.",
    UNSURE="A product's name is alike, but not the same.",
    REPEATED="An earlier line of the document is about the same product.",
    TAKEN="Another product has its SKU or EAN.",
    INVALID="A value is none that products have, such as an EAN whose check digit is wrong.",
)
publish(
    UndoRefusal,
    "Why a product stays as it is.",
    CHANGED="It changed after it was accepted.",
    GONE="It was changed by the acceptance, and is deleted by now.",
    TAKEN="Another product has the SKU or EAN that it would get back.",
)


@strawberry.type(description="A place on a page, in parts of the upright page from its top left corner, 0 to 1.")
class CandidateBox:
    """A box."""

    left: float = strawberry.field(description="0 to 1.")
    top: float = strawberry.field(description="0 to 1.")
    right: float = strawberry.field(description="0 to 1.")
    bottom: float = strawberry.field(description="0 to 1.")


@strawberry.type(description="How sure each value of a candidate is, 0 to 1; null for what was not found.")
class CandidateConfidences:
    """Confidences by value."""

    name: float | None = strawberry.field(description="Of the name.")
    sku: float | None = strawberry.field(description="Of the SKU.")
    ean: float | None = strawberry.field(description="Of the EAN.")
    price: float | None = strawberry.field(description="Of the price.")
    currency: float | None = strawberry.field(description="Of the currency.")
    quantity: float | None = strawberry.field(description="Of the quantity.")
    unit: float | None = strawberry.field(description="Of the unit.")


@strawberry.type(description="By how much a candidate is dearer than a product; negative when it is cheaper.")
class PriceDifference:
    """A difference of two prices in one currency."""

    absolute: Decimal = strawberry.field(description="In the currency of both.")
    percent: Decimal | None = strawberry.field(
        description="Of the product's price, with 2 decimals; null where that is 0."
    )


@strawberry.type(description="The product that a candidate is taken for.")
class CandidateMatch:
    """A match."""

    product: Product = strawberry.field(description="The product.")
    reason: MatchReason = strawberry.field(description="Why.")
    score: float = strawberry.field(description="How alike they are: 1 for the same EAN or SKU, 0.6 to 1 for names.")
    price_difference: PriceDifference | None = strawberry.field(
        description="Null unless both have a price in the same currency."
    )


@strawberry.type(description="An act of accepting one candidate, or many at once.")
class CandidateAcceptance:
    """An acceptance."""

    id: strawberry.ID = strawberry.field(description="For `undoAcceptance`.")
    accepted_at: datetime = strawberry.field(description="When.")
    min_confidence: float | None = strawberry.field(
        description="How sure candidates had to be; null where a single one was accepted."
    )
    undone_at: datetime | None = strawberry.field(description="When all of it was undone; null before that.")
    accepted_by_key: strawberry.Private[UUID | None]

    @strawberry.field(description="Who accepted; null once the account is gone, and for those who may not know it.")
    async def accepted_by(self, info: Info) -> User | None:
        """Through the gate of users."""
        return await _user(info.context, self.accepted_by_key)


@strawberry.type(description="A product that a document may name.")
class ProductCandidate(Node):
    """A candidate."""

    ocr_job_id: strawberry.ID = strawberry.field(description="The document.")
    position: int = strawberry.field(description="Its place among the document's candidates, from 1.")
    page: int = strawberry.field(description="Number of the page.")
    evidence: str = strawberry.field(description="The text that it was read from.")
    name: str = strawberry.field(description="The name.")
    sku: str | None = strawberry.field(description="The SKU, as it stands there.")
    ean: str | None = strawberry.field(description="The EAN.")
    price: Decimal | None = strawberry.field(description="The price of one unit.")
    currency: str | None = strawberry.field(description="Currency of the price (ISO 4217).")
    quantity: Decimal | None = strawberry.field(
        description="How many units the line is about, or a pack has; it never becomes a stock by itself."
    )
    unit: str | None = strawberry.field(description="What is counted.")
    confidence: float = strawberry.field(description="0 to 1: that of the weakest value that a product needs.")
    state: CandidateState = strawberry.field(description="What was decided.")
    decided_at: datetime | None = strawberry.field(description="When; null while it is PENDING.")
    row: strawberry.Private[Row]

    @strawberry.field(description="Where it stands on the page.")
    def box(self) -> CandidateBox:
        """From the row."""
        left, top, right, bottom = from_json(self.row["box"])
        return CandidateBox(left=left, top=top, right=right, bottom=bottom)

    @strawberry.field(description="How sure each value is.")
    def confidences(self) -> CandidateConfidences:
        """From the row."""
        found = from_json(self.row["confidences"])
        names = ("name", "sku", "ean", "price", "currency", "quantity", "unit")
        return CandidateConfidences(**{name: found.get(name) for name in names})

    @strawberry.field(
        description="The product that it is taken for, by EAN, else by SKU, else by the name that is most alike; null "
        "for none, and once it is decided."
    )
    async def match(self, info: Info) -> CandidateMatch | None:
        """Looked up for all candidates of the answer at once."""
        if self.state is not CandidateState.PENDING:
            return None
        found = await info.context.load(_load_matches, _Wanted(self.row))
        return None if found is None else _match_of(self.row, found)

    @strawberry.field(description="The product that it was accepted as; null once that is gone.")
    async def product(self, info: Info) -> Product | None:
        """Loaded for all candidates of the answer at once."""
        key = self.row["product_id"]
        return None if key is None else await load_product(info.context, key)

    @strawberry.field(description="The act that accepted it.")
    async def acceptance(self, info: Info) -> CandidateAcceptance | None:
        """Loaded for all candidates of the answer at once."""
        key = self.row["acceptance_id"]
        row = None if key is None else await info.context.load(_load_acceptances, key)
        return None if row is None else acceptance_of(row)

    @strawberry.field(description="Who decided; null once the account is gone, and for those who may not know it.")
    async def decided_by(self, info: Info) -> User | None:
        """Through the gate of users."""
        return await _user(info.context, self.row["decided_by_id"])


@strawberry.input(description="Which candidates; all given conditions must hold.")
class CandidateFilter:
    """Conditions."""

    state: CandidateState | None = strawberry.field(default=None, description="Decided so.")
    min_confidence: float | None = strawberry.field(default=None, description="At least so sure, 0 to 1.")
    search: str | None = strawberry.field(
        default=None,
        description="With this in name, SKU or EAN; case and accents do not matter. At most 200 characters.",
    )


def conditions_of(filter: CandidateFilter | None) -> CandidateConditions:
    """The conditions that a client gave; raises ValidationFailed with the path."""
    if filter is None:
        return CandidateConditions()
    return candidates.checked(
        CandidateConditions(state=filter.state, min_confidence=filter.min_confidence, search=filter.search)
    )


def candidate_of(row: Row) -> ProductCandidate:
    """The candidate in a row of `models.candidate_queries`."""
    return ProductCandidate(
        id=strawberry.ID(encode_id(Prefix.CANDIDATE, row["id"])),
        ocr_job_id=strawberry.ID(encode_id(Prefix.OCR_JOB, row["job_id"])),
        position=row["position"],
        page=row["page"],
        evidence=row["evidence"],
        name=row["name"],
        sku=row["sku"],
        ean=row["ean"],
        price=row["price"],
        currency=row["currency"],
        quantity=row["quantity"],
        unit=row["unit"],
        confidence=row["confidence"],
        state=CandidateState(row["state"]),
        decided_at=row["decided_at"],
        row=row,
    )


def acceptance_of(row: Row) -> CandidateAcceptance:
    """The acceptance in a row of `models.candidate_queries`."""
    return CandidateAcceptance(
        id=strawberry.ID(encode_id(Prefix.ACCEPTANCE, row["id"])),
        accepted_at=row["accepted_at"],
        min_confidence=row["min_confidence"],
        undone_at=row["undone_at"],
        accepted_by_key=row["accepted_by_id"],
    )


async def load_candidate(context: Context, candidate_id: UUID) -> ProductCandidate:
    """A candidate that the viewer may see; raises NotFound."""
    row = (await candidates.find(context.actor, [candidate_id])).get(candidate_id)
    if row is None:
        raise access.missing()
    return candidate_of(row)


async def load_acceptance(context: Context, acceptance_id: UUID) -> CandidateAcceptance:
    """An acceptance that the viewer may see; raises NotFound."""
    row = (await candidates.find_acceptances(context.actor, [acceptance_id])).get(acceptance_id)
    if row is None:
        raise access.missing()
    return acceptance_of(row)


@register_node(Prefix.CANDIDATE)
async def _candidate_node(context: Context, candidate_id: UUID) -> ProductCandidate | None:
    if not context.actor.may(Permission.DOCUMENT_READ):
        return None
    row = await context.load(_load_candidates, candidate_id)
    return None if row is None else candidate_of(row)


class _Wanted:
    """A candidate's row as the key of a loader; two are the same when they are of one candidate."""

    __slots__ = ("row",)

    def __init__(self, row: Row) -> None:
        self.row = row

    def __hash__(self) -> int:
        return hash(self.row["id"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Wanted) and bool(other.row["id"] == self.row["id"])


async def _load_candidates(context: Context, candidate_ids: list[UUID]) -> Sequence[Row | None]:
    found = await candidates.find(context.actor, candidate_ids)
    return [found.get(candidate_id) for candidate_id in candidate_ids]


async def _load_acceptances(context: Context, acceptance_ids: list[UUID]) -> Sequence[Row | None]:
    found = await candidates.find_acceptances(context.actor, acceptance_ids)
    return [found.get(acceptance_id) for acceptance_id in acceptance_ids]


async def _load_matches(context: Context, wanted: list[_Wanted]) -> Sequence[Row | None]:
    found = await candidates.matches(context.actor, [each.row for each in wanted])
    return [found.get(each.row["id"]) for each in wanted]


def _match_of(candidate: Row, found: Row) -> CandidateMatch:
    difference = candidates.price_difference(candidate, found)
    return CandidateMatch(
        product=product_of(found),
        reason=MatchReason(found["reason"]),
        score=found["score"],
        price_difference=None if difference is None else PriceDifference(absolute=difference[0], percent=difference[1]),
    )


async def _user(context: Context, user_id: UUID | None) -> User | None:
    found: User | None = None if user_id is None else await load_node(context, encode_id(Prefix.USER, user_id))
    return found
