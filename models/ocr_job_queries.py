"""Documents that are read: making the work, storing pages, finding pages again. Plain rows beside their executions.

`models/execution_rows.py` selects what every answer shows. Workers store pages through a connection that holds their
lease; a page is stored once, whichever attempt read it first. Candidates are in `models/candidate_queries.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from models import database, keyset
from models.database import Row, from_json, to_json
from models.documents import KIND
from models.execution_rows import Condition
from models.ids import new_id
from models.permissions import Actor
from models.tools import containing


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPage:
    """A page that was read; see `models.documents.DocumentPage`."""

    number: int
    source: str
    engine: str | None
    width: float
    height: float
    rotation: float
    confidence: float | None
    text: str
    words: list[list[Any]]


# -- conditions of lists


def with_medium(media_id: UUID) -> Condition:
    """Readings of a medium."""
    return Condition("o.media_id = {}", media_id)


def in_batch(batch_id: UUID) -> Condition:
    """Readings that were asked for together."""
    return Condition("o.batch_id = {}", batch_id)


def named(text: str) -> Condition:
    """Readings of files with a text in their name, in any case."""
    return Condition("o.filename ILIKE {}", containing(text))


# -- making and removing


async def insert(
    execution_id: UUID,
    *,
    media_id: UUID,
    filename: str,
    languages: Sequence[str],
    force_ocr: bool,
    default_currency: str | None,
    batch_id: UUID | None,
) -> None:
    """Add what a reading has beside its execution."""
    await database.rows(
        """INSERT INTO ocr_jobs (execution_id, media_id, filename, languages, force_ocr, default_currency, batch_id,
               pages_read, candidate_count)
           VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, 0, 0)""",
        execution_id,
        media_id,
        filename,
        to_json(list(languages)),
        force_ocr,
        default_currency,
        batch_id,
    )


async def batch_of(batch_id: UUID) -> list[UUID]:
    """The readings of a batch, in the order they were asked for."""
    found = await database.rows(
        "SELECT execution_id FROM ocr_jobs WHERE batch_id = $1 ORDER BY execution_id LIMIT 1000", batch_id
    )
    return [row["execution_id"] for row in found]


async def lock(execution_id: UUID) -> Row | None:
    """Status and log of a reading, kept as they are until the end of the transaction; None when it is gone."""
    return await database.row(
        """SELECT status, log_object->>'key' AS log_key FROM executions WHERE id = $1 AND kind = $2 FOR UPDATE""",
        execution_id,
        KIND,
    )


async def delete(execution_id: UUID) -> None:
    """Remove a reading with its pages, candidates and log."""
    await database.rows("DELETE FROM executions WHERE id = $1", execution_id)


# -- pages, for those who read them


async def pages(
    execution_id: UUID,
    *,
    after: int | None,
    before: int | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Pages of a document in their order, without their words; backwards from the end."""
    direction = "DESC" if backwards else "ASC"
    return await database.rows(
        f"""SELECT id, job_id, number, source, width, height, rotation, confidence, text
            FROM document_pages WHERE job_id = $1 AND number > $2 AND number < $3
            ORDER BY number {direction} LIMIT $4""",
        execution_id,
        after or 0,
        before if before is not None else 2**31 - 1,
        limit,
    )


async def find_pages(page_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Pages by their id, whoever they belong to: the caller is the gate."""
    found = await database.rows(
        """SELECT p.id, p.job_id, p.number, p.source, p.width, p.height, p.rotation, p.confidence, p.text, e.owner_id
           FROM document_pages p JOIN executions e ON e.id = p.job_id WHERE p.id = ANY($1::uuid[])""",
        list(page_ids),
    )
    return {row["id"]: row for row in found}


async def words(page_ids: Sequence[UUID]) -> dict[UUID, list[list[Any]]]:
    """The words of pages."""
    found = await database.rows(
        "SELECT id, words::text AS words FROM document_pages WHERE id = ANY($1::uuid[])", list(page_ids)
    )
    return {row["id"]: from_json(row["words"]) for row in found}


async def text(execution_ids: Sequence[UUID], *, characters: int) -> dict[UUID, str]:
    """The text of documents, at most so many characters of each, with a form feed between pages."""
    found = await database.rows(
        """SELECT asked.id, coalesce(whole.text, '') AS text FROM unnest($1::uuid[]) AS asked(id)
           LEFT JOIN LATERAL (
               SELECT left(string_agg(p.text, E'\\f' ORDER BY p.number), $2) AS text FROM (
                   SELECT number, text, sum(length(text)) OVER (ORDER BY number) - length(text) AS before
                   FROM document_pages WHERE job_id = asked.id
               ) AS p WHERE p.before < $2
           ) AS whole ON true""",
        list(execution_ids),
        characters,
    )
    return {row["id"]: row["text"] for row in found}


async def search(
    actor: Actor,
    query: str,
    *,
    after: tuple[float, UUID] | None,
    before: tuple[float, UUID] | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Pages that a search finds, best first, of documents that an actor may see.

    The query is what people type (websearch_to_tsquery): words, "phrases", or, -not; case and accents do not matter.
    """
    hits, values = found(actor, query)
    conditions, order = keyset.between(
        "rank, id",
        "${}::float8, ${}::uuid",
        values,
        after=after,
        before=before,
        descending=True,
        backwards=backwards,
    )
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    values.append(limit)
    return await database.rows(
        f"SELECT id, job_id, number, rank FROM ({hits}) AS found {where} ORDER BY {order} LIMIT ${len(values)}",
        *values,
    )


async def count_found(actor: Actor, query: str) -> int:
    """How many there are in all."""
    hits, values = found(actor, query)
    return int(await database.value(f"SELECT count(*) FROM ({hits}) AS found", *values))


async def texts(page_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The text of pages."""
    found = await database.rows("SELECT id, text FROM document_pages WHERE id = ANY($1::uuid[])", list(page_ids))
    return {row["id"]: row["text"] for row in found}


def found(actor: Actor, query: str) -> tuple[str, list[Any]]:
    """The statement that finds pages, and its parameters."""
    values: list[Any] = [query]
    where = "p.search_words @@ websearch_to_tsquery('simple', search_form($1))"
    if not actor.is_admin:
        values.append(actor.user_id)  # nobody's is null, and equals no owner's
        where += " AND e.owner_id = $2::uuid"
    if actor.project_ids is not None:
        where += " AND false"  # a token for projects sees no documents
    return (
        f"""SELECT p.id, p.job_id, p.number,
                   ts_rank_cd(p.search_words, websearch_to_tsquery('simple', search_form($1)))::float8 AS rank
            FROM document_pages p JOIN executions e ON e.id = p.job_id WHERE {where}""",
        values,
    )


# -- pages, for the worker that reads them


async def plan(connection: asyncpg.Connection, execution_id: UUID) -> asyncpg.Record | None:
    """What is to be read, with what is known of the medium; None when the job is gone."""
    return await connection.fetchrow(
        """SELECT o.media_id, o.languages::text AS languages, o.force_ocr, o.default_currency, o.page_count,
                  m.kind AS media_kind, m.status AS media_status, m.size AS media_size
           FROM ocr_jobs o LEFT JOIN media m ON m.id = o.media_id WHERE o.execution_id = $1""",
        execution_id,
    )


async def numbers(connection: asyncpg.Connection, execution_id: UUID) -> set[int]:
    """The pages that are stored."""
    found = await connection.fetch("SELECT number FROM document_pages WHERE job_id = $1", execution_id)
    return {row["number"] for row in found}


async def add_pages(
    connection: asyncpg.Connection, execution_id: UUID, new: Sequence[NewPage], *, page_count: int
) -> None:
    """Store pages that are not there yet, and count them."""
    if new:
        await connection.executemany(
            """INSERT INTO document_pages (id, job_id, number, source, width, height, rotation, confidence, text, words)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb) ON CONFLICT (job_id, number) DO NOTHING""",
            [
                (
                    new_id(),
                    execution_id,
                    page.number,
                    page.source,
                    page.width,
                    page.height,
                    page.rotation,
                    page.confidence,
                    page.text,
                    to_json(page.words),
                )
                for page in new
            ],
        )
    await connection.execute(
        """UPDATE ocr_jobs SET page_count = $2, engine = coalesce($3, engine),
               pages_read = (SELECT count(*) FROM document_pages WHERE job_id = $1) WHERE execution_id = $1""",
        execution_id,
        page_count,
        next((page.engine for page in new if page.engine is not None), None),
    )


async def stored_pages(
    connection: asyncpg.Connection, execution_id: UUID, *, after: int, limit: int
) -> list[asyncpg.Record]:
    """Pages behind a number with their words, in their order."""
    found: list[asyncpg.Record] = await connection.fetch(
        """SELECT number, width, height, confidence, words::text AS words FROM document_pages
           WHERE job_id = $1 AND number > $2 ORDER BY number LIMIT $3""",
        execution_id,
        after,
        limit,
    )
    return found


async def finish(
    connection: asyncpg.Connection, execution_id: UUID, *, confidence: float | None, candidate_count: int
) -> None:
    """Write down what came out of the whole document."""
    await connection.execute(
        "UPDATE ocr_jobs SET confidence = $2, candidate_count = $3 WHERE execution_id = $1",
        execution_id,
        confidence,
        candidate_count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCandidate:
    """A candidate that was found; see `models.documents.ProductCandidate`."""

    page: int
    box: list[float]
    evidence: str
    name: str
    sku: str | None
    ean: str | None
    price: Decimal | None
    currency: str | None
    quantity: Decimal | None
    unit: str | None
    confidences: dict[str, float]
    confidence: float


async def add_candidates(connection: asyncpg.Connection, execution_id: UUID, found: Sequence[NewCandidate]) -> None:
    """Store the candidates of a document, in their order; those that are there stay as they are."""
    await connection.executemany(
        """INSERT INTO product_candidates (id, job_id, position, page, box, evidence, name, sku, ean, price, currency,
               quantity, unit, confidences, confidence, state)
           VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, $11, $12, $13, $14::jsonb, $15, 'PENDING')
           ON CONFLICT (job_id, position) DO NOTHING""",
        [
            (
                new_id(),
                execution_id,
                position,
                candidate.page,
                to_json(candidate.box),
                candidate.evidence,
                candidate.name,
                candidate.sku,
                candidate.ean,
                candidate.price,
                candidate.currency,
                candidate.quantity,
                candidate.unit,
                to_json(candidate.confidences),
                candidate.confidence,
            )
            for position, candidate in enumerate(found, start=1)
        ],
    )
