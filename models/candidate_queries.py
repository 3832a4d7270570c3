"""Candidates as they are reviewed: found, matched with products, locked and decided. Plain rows.

Invariant: what decides holds the reading, then the candidates in the order of their ids; whoever changes products too
has taken `product_queries.lock_writes` before that. So nobody waits in a circle, a reading's deletion included. Storing
what a document has is in `models/ocr_job_queries.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from models import database, keyset
from models.database import Row, to_json
from models.documents import CandidateState
from models.product_queries import COLUMNS as PRODUCT_COLUMNS

LIKE_ENOUGH: Final = 0.6
"""How alike names are (pg_trgm's `similarity`) for a candidate to be taken for a product; `models.database` sets it."""

COLUMNS: Final = (
    "c.id, c.job_id, c.position, c.page, c.box::text AS box, c.evidence, c.name, c.sku, c.ean, c.price, c.currency,"
    " c.quantity, c.unit, c.confidences::text AS confidences, c.confidence, c.state, c.product_id, c.acceptance_id,"
    " c.decided_by_id, c.decided_at"
)
_ACCEPTANCE_COLUMNS: Final = (
    "a.id, a.job_id, a.accepted_by_id, a.accepted_at, a.min_confidence, a.changes::text AS changes, a.undone_at"
)


class CandidateOrder(StrEnum):
    """What a list of candidates can be sorted by."""

    POSITION = "POSITION"
    CONFIDENCE = "CONFIDENCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateConditions:
    """Which candidates; all conditions must hold."""

    state: CandidateState | None = None
    min_confidence: float | None = None
    search: str | None = None


_SORT_COLUMNS: Final[Mapping[CandidateOrder, tuple[str, str]]] = {
    CandidateOrder.POSITION: ("c.position", "${}::int"),
    CandidateOrder.CONFIDENCE: ("c.confidence, c.position", "${}::float8, ${}::int"),
}


# -- reading


async def page(
    job_id: UUID,
    wanted: CandidateConditions,
    *,
    order: CandidateOrder,
    after: tuple[Any, ...] | None = None,
    before: tuple[Any, ...] | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """Candidates of a reading strictly between two sort keys: as they stand in the document, or the surest first."""
    conditions, values = _where(job_id, wanted)
    columns, casts = _SORT_COLUMNS[order]
    bounds, by = keyset.between(
        columns,
        casts,
        values,
        after=after,
        before=before,
        descending=order is CandidateOrder.CONFIDENCE,
        backwards=backwards,
    )
    values.append(limit)
    return await database.rows(
        f"""SELECT {COLUMNS} FROM product_candidates c WHERE {" AND ".join([*conditions, *bounds])}
            ORDER BY {by} LIMIT ${len(values)}""",
        *values,
    )


async def count(job_id: UUID, wanted: CandidateConditions) -> int:
    """How many there are in all."""
    conditions, values = _where(job_id, wanted)
    return int(
        await database.value(f"SELECT count(*) FROM product_candidates c WHERE {' AND '.join(conditions)}", *values)
    )


async def find(candidate_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Candidates by their id with the owner of their reading, whoever that is: the caller is the gate."""
    found = await database.rows(
        f"""SELECT {COLUMNS}, e.owner_id FROM product_candidates c JOIN executions e ON e.id = c.job_id
            WHERE c.id = ANY($1::uuid[])""",
        list(candidate_ids),
    )
    return {row["id"]: row for row in found}


async def accepted_before(job_id: UUID) -> list[Row]:
    """Name, SKU, EAN and product of the candidates of a reading that are products, and whether these were made then."""
    return await database.rows(
        """SELECT c.name, c.sku, c.ean, c.product_id, x.created
           FROM candidate_acceptances a
           CROSS JOIN LATERAL jsonb_to_recordset(a.changes) AS x(candidate uuid, created boolean)
           JOIN product_candidates c ON c.id = x.candidate AND c.acceptance_id = a.id
           WHERE a.job_id = $1 AND c.product_id IS NOT NULL""",
        job_id,
    )


async def find_acceptances(acceptance_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Acceptances by their id with the owner of their reading, whoever that is: the caller is the gate."""
    found = await database.rows(
        f"""SELECT {_ACCEPTANCE_COLUMNS}, e.owner_id FROM candidate_acceptances a JOIN executions e ON e.id = a.job_id
            WHERE a.id = ANY($1::uuid[])""",
        list(acceptance_ids),
    )
    return {row["id"]: row for row in found}


async def acceptance_details(acceptance_id: UUID, action: str) -> dict[str, Any]:
    """What the audit trail says of an act of accepting."""
    text = await database.value(
        "SELECT details::text FROM audit_events WHERE target_id = $1 AND action = $2", acceptance_id, action
    )
    return {} if text is None else dict(database.from_json(text))


async def match(
    keys: Sequence[Mapping[str, Any]], *, even_inactive: bool, without: Sequence[UUID] = ()
) -> dict[UUID, Row]:
    """The product that each candidate is taken for, by the candidate's id, in one statement.

    `keys` have the candidate's `id` and `name`, and `ean` and `sku_key` in the form that products have them. The EAN
    decides, then the SKU, then the name that is most alike; rows have `reason` and `score` (0 to 1) beside the product.
    Products of `without` are taken for nothing.
    """
    if not keys:
        return {}
    seen = "AND p.id <> ALL($3::uuid[])" + ("" if even_inactive else " AND p.is_active")
    found = await database.rows(
        f"""SELECT g.id AS candidate_id, coalesce(e.reason, s.reason, n.reason) AS reason,
                   coalesce(e.score, s.score, n.score)::float8 AS score, {PRODUCT_COLUMNS}
            FROM (SELECT id, ean, sku_key, search_form(name) AS form
                  FROM jsonb_to_recordset($1::jsonb) AS given(id uuid, ean text, sku_key text, name text)) AS g
            LEFT JOIN LATERAL (
                SELECT p.id, 'EAN' AS reason, 1.0 AS score FROM products p WHERE p.ean = g.ean {seen}
            ) AS e ON true
            LEFT JOIN LATERAL (
                SELECT p.id, 'SKU' AS reason, 1.0 AS score FROM products p
                WHERE e.id IS NULL AND p.sku_key = g.sku_key {seen}
            ) AS s ON true
            LEFT JOIN LATERAL (
                SELECT p.id, 'NAME' AS reason, similarity(p.search_name, g.form) AS score FROM products p
                WHERE e.id IS NULL AND s.id IS NULL AND p.search_name % g.form
                    AND similarity(p.search_name, g.form) >= $2::float8::real {seen}
                ORDER BY similarity(p.search_name, g.form) DESC, p.id LIMIT 1
            ) AS n ON true
            JOIN products p ON p.id = coalesce(e.id, s.id, n.id)""",
        to_json([{name: key[name] for name in ("id", "ean", "sku_key", "name")} for key in keys]),
        LIKE_ENOUGH,
        list(without),
    )
    return {row["candidate_id"]: row for row in found}


# -- deciding


async def hold_reading(job_id: UUID) -> UUID | None:
    """See that a reading stays until the transaction ends; its owner, or None when it is gone."""
    owner: UUID | None = await database.value("SELECT owner_id FROM executions WHERE id = $1 FOR KEY SHARE", job_id)
    return owner


async def lock(candidate_id: UUID) -> Row | None:
    """A candidate as it is now; nobody else decides about it until the transaction ends."""
    return await database.row(
        f"SELECT {COLUMNS} FROM product_candidates c WHERE c.id = $1 FOR NO KEY UPDATE", candidate_id
    )


async def lock_undecided(job_id: UUID, *, min_confidence: float) -> list[Row]:
    """The candidates of a reading that wait and are so sure, in its order; nobody else decides about them meanwhile."""
    found = await database.rows(
        f"""SELECT {COLUMNS} FROM product_candidates c
            WHERE c.job_id = $1 AND c.state = 'PENDING' AND c.confidence >= $2::float8
            ORDER BY c.id FOR NO KEY UPDATE""",
        job_id,
        min_confidence,
    )
    return sorted(found, key=lambda row: int(row["position"]))


async def lock_acceptance(acceptance_id: UUID) -> Row | None:
    """An acceptance as it is now; nobody else undoes it until the transaction ends."""
    return await database.row(
        f"SELECT {_ACCEPTANCE_COLUMNS} FROM candidate_acceptances a WHERE a.id = $1 FOR NO KEY UPDATE", acceptance_id
    )


async def insert_acceptance(
    acceptance_id: UUID, job_id: UUID, *, accepted_by: UUID | None, min_confidence: float | None
) -> None:
    """Begin an acceptance of nothing; call it after `hold_reading`."""
    await database.rows(
        """INSERT INTO candidate_acceptances (id, job_id, accepted_by_id, accepted_at, min_confidence, changes)
           VALUES ($1, $2, $3, clock_timestamp(), $4, '[]')""",
        acceptance_id,
        job_id,
        accepted_by,
        min_confidence,
    )


async def set_changes(acceptance_id: UUID, changes: Sequence[Mapping[str, Any]], *, is_undone: bool = False) -> None:
    """Keep what undoing an acceptance needs; with `is_undone` nothing is left to undo."""
    await database.rows(
        """UPDATE candidate_acceptances SET changes = $2::jsonb, undone_at = CASE WHEN $3 THEN clock_timestamp() END
           WHERE id = $1""",
        acceptance_id,
        to_json(list(changes)),
        is_undone,
    )


async def set_accepted(acceptance_id: UUID, products: Sequence[tuple[UUID, UUID]], *, decided_by: UUID | None) -> None:
    """Write down as which products candidates were accepted, as pairs; call it with the candidates locked."""
    await database.rows(
        """UPDATE product_candidates c SET state = 'ACCEPTED', product_id = g.product_id, acceptance_id = $1,
               decided_by_id = $4, decided_at = clock_timestamp()
           FROM unnest($2::uuid[], $3::uuid[]) AS g(id, product_id) WHERE c.id = g.id""",
        acceptance_id,
        [candidate for candidate, _ in products],
        [product for _, product in products],
        decided_by,
    )


async def set_rejected(candidate_id: UUID, *, decided_by: UUID | None) -> None:
    """Write down that a candidate is no product; call it with the candidate locked."""
    await database.rows(
        """UPDATE product_candidates SET state = 'REJECTED', decided_by_id = $2, decided_at = clock_timestamp()
           WHERE id = $1""",
        candidate_id,
        decided_by,
    )


async def reopen(candidate_ids: Sequence[UUID], *, acceptance_id: UUID | None = None) -> None:
    """Let candidates wait again, only those of the acceptance where one is given."""
    await database.rows(
        """UPDATE product_candidates SET state = 'PENDING', product_id = NULL, acceptance_id = NULL,
               decided_by_id = NULL, decided_at = NULL
           WHERE id = ANY($1::uuid[]) AND ($2::uuid IS NULL OR acceptance_id = $2)""",
        list(candidate_ids),
        acceptance_id,
    )


def _where(job_id: UUID, wanted: CandidateConditions) -> tuple[list[str], list[Any]]:
    values: list[Any] = [job_id]
    conditions = ["c.job_id = $1"]
    if wanted.state is not None:
        values.append(wanted.state.value)
        conditions.append(f"c.state = ${len(values)}")
    if wanted.min_confidence is not None:
        values.append(wanted.min_confidence)
        conditions.append(f"c.confidence >= ${len(values)}::float8")
    if wanted.search is not None:
        values.append(wanted.search)
        conditions.append(
            "strpos(search_form(c.name || ' ' || coalesce(c.sku, '') || ' ' || coalesce(c.ean, '')),"
            f" search_form(${len(values)}::text)) > 0"
        )
    return conditions, values
