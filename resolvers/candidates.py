"""Candidates reviewed: shown with the products they are taken for, accepted as products, rejected, opened again.

Invariants: a candidate is decided once, by whoever comes first; accepting is one transaction with the product that it
makes or changes, which goes through `resolvers/products.py` alone. Accepting many at once and undoing are in
`resolvers/candidate_acceptances.py`; how candidates are found in pages is in `tasks/ocr`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from adapters import events
from errors import Conflict, SwitchyardError, Unauthorized, ValidationFailed
from models import candidate_queries, product_keys, product_queries
from models.audit import AuditEvent
from models.candidate_queries import CandidateConditions, CandidateOrder
from models.database import Row
from models.documents import CandidateState
from models.events import ExecutionChanged
from models.idempotency import once
from models.ids import Prefix, encode_id, new_id
from models.permissions import Actor, Permission
from models.products import PriceSource
from models.transaction import unit_of_work
from resolvers import access, products, texts
from resolvers.products import ProductDraft

MAX_REASON_LENGTH: Final = 255
EDITABLE: Final = ("name", "sku", "ean", "price", "currency", "unit", "stock", "category")


# -- reading


async def page(
    job_id: UUID,
    wanted: CandidateConditions,
    *,
    order: CandidateOrder,
    after: tuple[Any, ...] | None,
    before: tuple[Any, ...] | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Candidates of a reading that the caller may see; `wanted` as `checked` gave it."""
    return await candidate_queries.page(
        job_id, wanted, order=order, after=after, before=before, backwards=backwards, limit=limit
    )


def checked(wanted: CandidateConditions) -> CandidateConditions:
    """Conditions that can be asked for; raises ValidationFailed with the path in the arguments of a list."""
    if wanted.min_confidence is not None:
        check_confidence(wanted.min_confidence, ["filter", "minConfidence"])
    return CandidateConditions(
        state=wanted.state, min_confidence=wanted.min_confidence, search=texts.search(wanted.search)
    )


async def find(actor: Actor, candidate_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the candidates that an actor may see, in one statement."""
    found = await candidate_queries.find(candidate_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


async def find_acceptances(actor: Actor, acceptance_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the acceptances that an actor may see, in one statement."""
    found = await candidate_queries.find_acceptances(acceptance_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


async def matches(actor: Actor, candidates: Sequence[Row], *, without: Sequence[UUID] = ()) -> dict[UUID, Row]:
    """The product that each candidate is taken for among those that an actor sees, by the candidate, in one statement.

    Rows, and `without`, are those of `models.candidate_queries.match`.
    """
    keys = [
        {
            "id": row["id"],
            "name": row["name"],
            "ean": None if row["ean"] is None else product_keys.ean_key(row["ean"]),
            "sku_key": None if row["sku"] is None else product_keys.sku_key(row["sku"]),
        }
        for row in candidates
    ]
    return await candidate_queries.match(keys, even_inactive=actor.is_admin, without=without)


def price_difference(candidate: Row, product: Row) -> tuple[Decimal, Decimal | None] | None:
    """By how much a candidate is dearer than the product, and by how many percent of the product's price.

    None where there are not two prices in one currency; percents are null where the product costs nothing.
    """
    new, old = candidate["price"], product["price"]
    if new is None or old is None or candidate["currency"] != product["currency"]:
        return None
    return new - old, round((new - old) * 100 / old, 2) if old else None


# -- deciding about one


async def accept(
    actor: Actor,
    candidate_id: str,
    *,
    edits: Mapping[str, Any],
    product_id: str | None,
    is_new: bool,
    idempotency_key: str | None,
) -> tuple[UUID, UUID, UUID | None]:
    """Make a product of a candidate, or change one after it; the ids of acceptance, candidate and product.

    Repeated with its key, those of the first call, without the product once that is not the candidate's any more.

    `edits` are columns by their names, and win over what was read. Raises ValidationFailed and Conflict with the path
    below `input.edits` for values of a product; Conflict for a candidate that is decided; NotFound.
    """
    row = await access.candidate(actor, candidate_id, to=Permission.PRODUCT_WRITE)
    if is_new is (product_id is not None):
        raise ValidationFailed("Give either `productId` or `create: true`.", path=["input", "productId"])
    target = None if product_id is None else await access.product(actor, product_id, to=Permission.PRODUCT_WRITE)
    acceptance_id = new_id()

    async def make() -> None:
        await product_queries.lock_writes()
        candidate = await _undecided(row)
        await candidate_queries.insert_acceptance(
            acceptance_id, row["job_id"], accepted_by=actor.user_id, min_confidence=None
        )
        try:
            if target is None:
                change = await create_product(actor, candidate, edits)
            else:
                change = await update_product(actor, candidate, target["id"], edits)
        except (Conflict, ValidationFailed) as refusal:
            raise _below_edits(refusal) from None
        await keep(actor, acceptance_id, [change])
        await _record(
            actor,
            "acceptCandidate",
            row["id"],
            acceptance=encode_id(Prefix.ACCEPTANCE, acceptance_id),
            product=encode_id(Prefix.PRODUCT, change["product"]),
            created=change["created"],
            edited=sorted(edits),
        )
        await _tell(row)

    request = {"candidate": row["id"], "edits": dict(edits), "product": None if target is None else target["id"]}
    async with unit_of_work():
        made = await once(
            decider(actor), "acceptCandidate", idempotency_key, request=request, target_id=acceptance_id, make=make
        )
        [now] = (await candidate_queries.find([row["id"]])).values()
        return made, row["id"], now["product_id"]


async def reject(actor: Actor, candidate_id: str, *, reason: str | None) -> UUID:
    """Say that a candidate is no product; raises Conflict when it is decided. The reason goes to the audit trail."""
    row = await access.candidate(actor, candidate_id, to=Permission.PRODUCT_WRITE)
    why = {} if reason is None else {"reason": _reason(reason)}
    async with unit_of_work():
        await _undecided(row)
        await candidate_queries.set_rejected(row["id"], decided_by=actor.user_id)
        await _record(actor, "rejectCandidate", row["id"], **why)
        await _tell(row)
    found: UUID = row["id"]
    return found


async def reopen(actor: Actor, candidate_id: str) -> UUID:
    """Let a candidate wait again that was rejected, or whose product is gone.

    Raises Conflict for one that waits, and for one that is a product: that takes undoing its acceptance.
    """
    row = await access.candidate(actor, candidate_id, to=Permission.PRODUCT_WRITE)
    async with unit_of_work():
        found = await _locked(row)
        state = CandidateState(found["state"])
        if state is CandidateState.PENDING:
            raise Conflict("The candidate is not decided.", path=["input", "id"], state=state.value)
        if found["product_id"] is not None:
            raise Conflict("The candidate was accepted; undo its acceptance.", path=["input", "id"], state=state.value)
        await candidate_queries.reopen([row["id"]])
        await _record(actor, "reopenCandidate", row["id"], was=state.value)
        await _tell(row)
    reopened: UUID = row["id"]
    return reopened


# -- one candidate of a transaction


async def create_product(actor: Actor, candidate: Row, edits: Mapping[str, Any]) -> dict[str, Any]:
    """A product of a candidate; what undoing it needs."""
    read = {name: candidate[name] for name in ("name", "sku", "ean", "price", "currency", "unit")}
    if candidate["price"] is None and "price" not in edits:
        read["currency"] = None
    made = await products.create(actor, ProductDraft(**{**read, **edits}), source=PriceSource.DOCUMENT)
    return {"candidate": candidate["id"], "product": made, "created": True, "version": 1, "before": {}}


async def update_product(actor: Actor, candidate: Row, product_id: UUID, edits: Mapping[str, Any]) -> dict[str, Any]:
    """A product that gets a candidate's price, and what it has not: SKU, EAN, unit. What undoing it needs."""
    row = await product_queries.lock(product_id)
    if row is None:
        raise access.missing()
    changes = {name: candidate[name] for name in ("sku", "ean", "unit") if row[name] is None and candidate[name]}
    if candidate["price"] is not None:
        changes["price"] = candidate["price"]
        if candidate["currency"] is not None:
            changes["currency"] = candidate["currency"]
    after = await products.change(actor, product_id, {**changes, **edits}, source=PriceSource.DOCUMENT)
    return {
        "candidate": candidate["id"],
        "product": product_id,
        "created": False,
        "version": after["version"],
        "before": {name: row[name] for name in EDITABLE if row[name] != after[name]},
    }


async def keep(actor: Actor, acceptance_id: UUID, changes: Sequence[Mapping[str, Any]]) -> None:
    """Write down what an acceptance did, there and with its candidates."""
    await candidate_queries.set_changes(acceptance_id, changes)
    pairs = [(change["candidate"], change["product"]) for change in changes]
    await candidate_queries.set_accepted(acceptance_id, pairs, decided_by=actor.user_id)


async def _locked(row: Row) -> Row:
    """The candidate as it is now, with its reading held."""
    if await candidate_queries.hold_reading(row["job_id"]) is None:
        raise access.missing()
    found = await candidate_queries.lock(row["id"])
    if found is None:
        raise access.missing()
    return found


async def _undecided(row: Row) -> Row:
    found = await _locked(row)
    if found["state"] != CandidateState.PENDING:
        raise Conflict("The candidate has been decided already.", path=["input", "id"], state=found["state"])
    return found


def _below_edits(refusal: SwitchyardError) -> SwitchyardError:
    """The refusal of a value of a product, with its place in what the client can send."""
    path = list(refusal.details.get("path", ()))
    if len(path) < 2 or path[1] not in EDITABLE:
        return refusal
    return type(refusal)(refusal.message, **{**refusal.details, "path": ["input", "edits", *path[1:]]})


def decider(actor: Actor) -> UUID:
    """Who decides; raises Unauthorized for nobody."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id


def check_confidence(value: float, path: Sequence[str | int]) -> None:
    """Raise ValidationFailed with the path for what is no confidence."""
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValidationFailed("A confidence is a number from 0 to 1.", path=path)


def _reason(reason: str) -> str:
    return texts.line(reason, path=["input", "reason"], max_length=MAX_REASON_LENGTH)


async def _tell(row: Row) -> None:
    await events.publish(ExecutionChanged(row["job_id"], row["owner_id"]))


async def _record(actor: Actor, action: str, target_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="candidate", target_id=target_id, details=details)
