"""Acceptances: many candidates of a document accepted at once, and what an acceptance did undone.

Invariants: one call is one transaction and accepts a bounded number; what nobody looked at is accepted only where there
is no doubt, all else waits on; undoing touches no product that somebody changed since. What one candidate does to a
product is in `resolvers/candidates.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from adapters import events
from errors import Conflict, ValidationFailed
from models import candidate_queries, product_keys, product_queries
from models.audit import AuditEvent
from models.database import Row, from_json
from models.documents import MatchReason
from models.events import ExecutionChanged
from models.idempotency import once
from models.ids import Prefix, encode_id, new_id
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, candidates, products

MAX_ACCEPTED: Final = 1_000
"""Candidates that one call accepts; `has_more` says that others wait."""

MAX_TOLD: Final = 100
"""Skipped candidates that are told one by one; all are counted."""

_MATCH_CHUNK: Final = 250
_MANY: Final = "acceptCandidates"


class OnMatch(StrEnum):
    """What accepting many does with a candidate that is taken for a product that is there."""

    UPDATE = "UPDATE"
    SKIP = "SKIP"
    CREATE = "CREATE"


class SkipReason(StrEnum):
    """Why accepting many left a candidate alone."""

    INCOMPLETE = "INCOMPLETE"
    MATCHED = "MATCHED"
    UNSURE = "UNSURE"
    REPEATED = "REPEATED"
    TAKEN = "TAKEN"
    INVALID = "INVALID"


class UndoRefusal(StrEnum):
    """Why a product stays as it is when its acceptance is undone."""

    CHANGED = "CHANGED"
    GONE = "GONE"
    TAKEN = "TAKEN"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A candidate that still waits, and why."""

    candidate_id: UUID
    reason: SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What accepting many did; a repeated call with its key knows the numbers, and not which were skipped."""

    acceptance_id: UUID
    accepted: int
    skipped: int
    has_more: bool
    told: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A product that was left alone by undoing."""

    candidate_id: UUID
    product_id: UUID
    reason: UndoRefusal


@dataclass(frozen=True, slots=True)
class Undone:
    """What undoing did, and what it left alone."""

    count: int
    refused: tuple[Refused, ...]


@dataclass(slots=True)
class _Batch:
    """Candidates accepted so far, and what they are told apart by."""

    changes: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    told: list[Skipped] = field(default_factory=list)
    has_more: bool = False
    made: set[UUID] = field(default_factory=set)
    changed: set[UUID] = field(default_factory=set)
    names: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, candidate: Row, product_id: UUID, *, is_made: bool) -> None:
        (self.made if is_made else self.changed).add(product_id)
        self.names.add(_identity(candidate))

    def skip(self, candidate: Row, reason: SkipReason) -> None:
        self.skipped += 1
        if len(self.told) < MAX_TOLD:
            self.told.append(Skipped(candidate["id"], reason))


async def accept_many(
    actor: Actor, job_id: str, *, min_confidence: float, on_match: OnMatch, idempotency_key: str | None
) -> Accepted:
    """Accept the candidates of a reading that wait and are at least so sure: up to 1,000, in one transaction.

    Those that cannot be are skipped and wait on. A call that is repeated finds nothing new; with its key it answers as
    the first one. Raises ValidationFailed for a confidence that is none.
    """
    row = await access.ocr_job(actor, job_id, to=Permission.PRODUCT_WRITE)
    candidates.check_confidence(min_confidence, ["input", "minConfidence"])
    acceptance_id = new_id()
    batch = _Batch()

    async def make() -> None:
        await product_queries.lock_writes()
        if await candidate_queries.hold_reading(row["id"]) is None:
            raise access.missing()
        waiting = await candidate_queries.lock_undecided(row["id"], min_confidence=min_confidence)
        await candidate_queries.insert_acceptance(
            acceptance_id, row["id"], accepted_by=actor.user_id, min_confidence=min_confidence
        )
        # What an earlier call accepted counts like an earlier line of this one.
        for earlier in await candidate_queries.accepted_before(row["id"]):
            batch.add(earlier, earlier["product_id"], is_made=earlier["created"])
        for start in range(0, len(waiting), _MATCH_CHUNK):
            await _accept_chunk(actor, batch, waiting[start : start + _MATCH_CHUNK], on_match)
        await candidates.keep(actor, acceptance_id, batch.changes)
        await AuditEvent.record(
            actor,
            _MANY,
            target_type="candidateAcceptance",
            target_id=acceptance_id,
            details={
                "ocrJob": encode_id(Prefix.OCR_JOB, row["id"]),
                "minConfidence": min_confidence,
                "onMatch": on_match.value,
                "accepted": len(batch.changes),
                "skipped": batch.skipped,
                "hasMore": batch.has_more,
            },
        )
        await events.publish(ExecutionChanged(row["id"], row["owner_id"]))

    request = {"job": row["id"], "min_confidence": min_confidence, "on_match": on_match}
    async with unit_of_work():
        made = await once(
            candidates.decider(actor), _MANY, idempotency_key, request=request, target_id=acceptance_id, make=make
        )
    if made == acceptance_id:
        return Accepted(
            acceptance_id=made,
            accepted=len(batch.changes),
            skipped=batch.skipped,
            has_more=batch.has_more,
            told=tuple(batch.told),
        )
    details = await candidate_queries.acceptance_details(made, _MANY)
    return Accepted(
        acceptance_id=made,
        accepted=details.get("accepted", 0),
        skipped=details.get("skipped", 0),
        has_more=details.get("hasMore", False),
    )


async def undo(actor: Actor, acceptance_id: str) -> tuple[UUID, Undone]:
    """Delete the products that an acceptance made, restore those that it changed, and let its candidates wait again.

    What changed since stays, with its candidate, and is told; a later call tries those again. Raises Conflict when
    nothing is left to undo.
    """
    row = await access.acceptance(actor, acceptance_id, to=Permission.PRODUCT_WRITE)
    async with unit_of_work():
        await product_queries.lock_writes()
        owner_id = await candidate_queries.hold_reading(row["job_id"])
        found = None if owner_id is None else await candidate_queries.lock_acceptance(row["id"])
        if owner_id is None or found is None:
            raise access.missing()
        if found["undone_at"] is not None:
            raise Conflict("This acceptance has been undone.", path=["input", "acceptanceId"])
        left, undone, refused = [], [], []
        for change in from_json(found["changes"]):
            candidate_id, product_id = UUID(change["candidate"]), UUID(change["product"])
            reason = await _undo(actor, change, product_id)
            if reason is None:
                undone.append(candidate_id)
            else:
                left.append(change)
                refused.append(Refused(candidate_id, product_id, reason))
        if undone or not left:
            await candidate_queries.reopen(sorted(undone), acceptance_id=row["id"])
            await candidate_queries.set_changes(row["id"], left, is_undone=not left)
        await AuditEvent.record(
            actor,
            "undoAcceptance",
            target_type="candidateAcceptance",
            target_id=row["id"],
            details={"undone": len(undone), "refused": len(refused)},
        )
        await events.publish(ExecutionChanged(row["job_id"], owner_id))
    return row["id"], Undone(len(undone), tuple(refused))


async def _accept_chunk(actor: Actor, batch: _Batch, waiting: Sequence[Row], on_match: OnMatch) -> None:
    found = await candidates.matches(actor, waiting, without=sorted(batch.made))
    for candidate in waiting:
        if len(batch.changes) >= MAX_ACCEPTED:
            batch.has_more = True
            return
        match = found.get(candidate["id"])
        reason = _why_not(batch, candidate, match, on_match)
        if reason is None:
            try:
                if match is None or on_match is OnMatch.CREATE:
                    change = await candidates.create_product(actor, candidate, {})
                else:
                    change = await candidates.update_product(actor, candidate, match["id"], {})
            # Both are raised before anything is written, so the transaction goes on as if nobody had tried.
            except Conflict:
                reason = SkipReason.TAKEN
            except ValidationFailed:
                reason = SkipReason.INVALID
            else:
                batch.changes.append(change)
                batch.add(candidate, change["product"], is_made=change["created"])
        if reason is not None:
            batch.skip(candidate, reason)


def _why_not(batch: _Batch, candidate: Row, match: Row | None, on_match: OnMatch) -> SkipReason | None:
    """Why a candidate is not accepted among many, as far as that can be said without trying."""
    if candidate["price"] is None or candidate["currency"] is None:
        return SkipReason.INCOMPLETE
    if _identity(candidate) in batch.names or (match is not None and match["id"] in batch.changed):
        return SkipReason.REPEATED
    if match is None:
        return None
    if on_match is OnMatch.SKIP:
        return SkipReason.MATCHED
    is_by_name = match["reason"] == MatchReason.NAME
    if on_match is OnMatch.CREATE:
        return None if is_by_name else SkipReason.TAKEN
    # A price list has many names that differ in a size alone: without anybody looking, only the same name will do.
    return SkipReason.UNSURE if is_by_name and match["score"] < 1 else None


def _identity(candidate: Row) -> tuple[Any, ...]:
    """What makes two lines of a document the same product: name, SKU and EAN, not a price."""
    return (
        candidate["name"].casefold(),
        candidate["sku"] and product_keys.sku_key(candidate["sku"]),
        candidate["ean"],
    )


async def _undo(actor: Actor, change: Mapping[str, Any], product_id: UUID) -> UndoRefusal | None:
    """Take back what accepting one candidate did to its product; why not, where that cannot be."""
    row = await product_queries.lock(product_id)
    if row is None:
        return None if change["created"] else UndoRefusal.GONE
    if row["version"] != change["version"]:
        return UndoRefusal.CHANGED
    if change["created"]:
        await products.delete(actor, encode_id(Prefix.PRODUCT, product_id))
        return None
    before = {
        name: Decimal(value) if name in ("price", "stock") and value is not None else value
        for name, value in change["before"].items()
    }
    try:
        await products.change(actor, product_id, before)
    except Conflict:
        return UndoRefusal.TAKEN  # a SKU or EAN that it had is another product's by now
    return None
