"""The frontier of a crawl, in PostgreSQL: which requests wait, which are leased to the crawler, which are done.

What a page brought is stored in one transaction with the acknowledgement of its request, so a crawl that is
killed anywhere loses nothing and repeats nothing: what was not acknowledged is leased again, and what is stored
twice meets a unique key. All functions run inside a fenced transaction of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from models.database import from_json, to_json
from tasks.crawl.crawler.protocol import FailureReason, LeasedRequest, MessageType

MAX_STARTS: Final = 10
"""A request that was handed out so often and never answered kills crawlers: it fails."""


@dataclass(slots=True)
class Size:
    """How large a frontier is and how much of it is settled."""

    known: int = 0
    settled: int = 0


async def measure(connection: asyncpg.Connection, dataset_id: UUID) -> Size:
    """Count the frontier."""
    row = await connection.fetchrow(
        """SELECT count(*) AS known, count(*) FILTER (WHERE state IN ('DONE', 'FAILED')) AS settled
           FROM crawl_requests WHERE dataset_id = $1""",
        dataset_id,
    )
    return Size(row["known"], row["settled"])


async def release(connection: asyncpg.Connection, dataset_id: UUID) -> None:
    """Put back what a crawler that is gone had in hand."""
    await connection.execute(
        """UPDATE crawl_requests SET
               state = CASE WHEN starts >= $2 THEN 'FAILED' ELSE 'PENDING' END,
               failure_reason = CASE WHEN starts >= $2 THEN 'INTERNAL' END,
               failure_detail = CASE WHEN starts >= $2 THEN 'The crawler ended ' || starts || ' times on it.' END
           WHERE dataset_id = $1 AND state = 'LEASED'""",
        dataset_id,
        MAX_STARTS,
    )


async def add(connection: asyncpg.Connection, dataset_id: UUID, requests: Sequence[Mapping[str, Any]]) -> int:
    """Add requests whose fingerprint is new; returns how many were."""
    if not requests:
        return 0
    rows = await connection.fetch(
        """INSERT INTO crawl_requests (dataset_id, fingerprint, url, payload, depth, rank, state, starts)
           SELECT $1, decode(fingerprint, 'hex'), url, payload, depth, rank, 'PENDING', 0
           FROM unnest($2::text[], $3::text[], $4::jsonb[], $5::int[], $6::int[])
               AS new(fingerprint, url, payload, depth, rank)
           ON CONFLICT (dataset_id, fingerprint) DO NOTHING RETURNING id""",
        dataset_id,
        [request["fingerprint"] for request in requests],
        [request["url"] for request in requests],
        [
            to_json({"method": request["method"], "callback": request["callback"], "meta": request["meta"]})
            for request in requests
        ],
        [request["depth"] for request in requests],
        [-request["priority"] for request in requests],
    )
    return len(rows)


async def lease(connection: asyncpg.Connection, dataset_id: UUID, count: int) -> list[LeasedRequest]:
    """Hand out up to `count` waiting requests."""
    rows = await connection.fetch(
        """UPDATE crawl_requests SET state = 'LEASED', starts = starts + 1
           WHERE id IN (SELECT id FROM crawl_requests WHERE dataset_id = $1 AND state = 'PENDING'
                        ORDER BY rank, id LIMIT $2)
           RETURNING id, url, payload, depth, rank""",
        dataset_id,
        count,
    )
    leased = []
    for row in sorted(rows, key=lambda row: (row["rank"], row["id"])):
        payload = from_json(row["payload"])
        leased.append(
            LeasedRequest(
                id=str(row["id"]),
                url=row["url"],
                callback=payload["callback"],
                depth=row["depth"],
                method=payload["method"],
                meta=payload["meta"],
            )
        )
    return leased


@dataclass(slots=True)
class Settled:
    """What a batch of answers changed."""

    items: int = 0
    pages: int = 0
    failures: int = 0
    added: int = 0
    settled: int = 0


async def settle(
    connection: asyncpg.Connection, run_id: UUID, dataset_id: UUID, answers: Sequence[Mapping[str, Any]]
) -> Settled:
    """Store a batch of `page` and `failed` messages, with what the pages brought and led to, and count it.

    An answer to a request that is not leased is a repetition, and is left out.
    """
    leased = await connection.fetch(
        """SELECT id FROM crawl_requests
           WHERE id = ANY($1::bigint[]) AND dataset_id = $2 AND state = 'LEASED' FOR UPDATE""",
        [int(answer["requestId"]) for answer in answers],
        dataset_id,
    )
    open_ids = {str(row["id"]) for row in leased}
    fresh = [answer for answer in answers if answer["requestId"] in open_ids]
    pages = [answer for answer in fresh if answer["type"] == MessageType.PAGE]
    failed = [answer for answer in fresh if answer["type"] == MessageType.FAILED]
    done = [int(page["requestId"]) for page in pages if page["complete"]]
    await connection.execute("UPDATE crawl_requests SET state = 'DONE' WHERE id = ANY($1::bigint[])", done)
    await _fail(connection, failed)
    result = Settled(pages=len(pages), failures=len(failed), settled=len(done) + len(failed))
    result.items = await _store_items(connection, run_id, dataset_id, pages)
    result.added = await add(connection, dataset_id, [request for page in pages for request in page["requests"]])
    await _count(connection, run_id, pages, failed, result.items)
    return result


async def _fail(connection: asyncpg.Connection, failed: Sequence[Mapping[str, Any]]) -> None:
    if not failed:
        return
    await connection.execute(
        """UPDATE crawl_requests SET state = 'FAILED', failure_reason = reason, failure_detail = detail
           FROM unnest($1::bigint[], $2::text[], $3::text[]) AS failed(id, reason, detail)
           WHERE crawl_requests.id = failed.id""",
        [int(each["requestId"]) for each in failed],
        [each["reason"][:32] for each in failed],
        [each["detail"] for each in failed],
    )


async def _store_items(
    connection: asyncpg.Connection, run_id: UUID, dataset_id: UUID, pages: Sequence[Mapping[str, Any]]
) -> int:
    items = [(item["key"], page["url"], to_json(item["data"])) for page in pages for item in page["items"]]
    if not items:
        return 0
    rows = await connection.fetch(
        """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
           SELECT $1, $2, key, url, data, now() FROM unnest($3::text[], $4::text[], $5::jsonb[]) AS new(key, url, data)
           ON CONFLICT (dataset_id, key) DO NOTHING RETURNING id""",
        dataset_id,
        run_id,
        [key for key, _, _ in items],
        [url for _, url, _ in items],
        [data for _, _, data in items],
    )
    return len(rows)


async def _count(
    connection: asyncpg.Connection,
    run_id: UUID,
    pages: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
    items: int,
) -> None:
    reasons = [each["reason"] for each in failed]
    blocked = reasons.count(FailureReason.BLOCKED_URL)
    robots = reasons.count(FailureReason.ROBOTS)
    await connection.execute(
        """UPDATE job_runs SET items_scraped = items_scraped + $2, pages_crawled = pages_crawled + $3,
               bytes_downloaded = bytes_downloaded + $4, errors_count = errors_count + $5,
               requests_blocked = requests_blocked + $6, requests_robots = requests_robots + $7
           WHERE execution_id = $1""",
        run_id,
        items,
        len(pages),
        sum(page["bytes"] for page in pages),
        sum(len(page["errors"]) for page in pages) + len(reasons) - blocked - robots,
        blocked,
        robots,
    )
