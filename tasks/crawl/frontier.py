"""The frontier of a crawl, in PostgreSQL: which requests wait, which are leased to the crawler, which are done.

What a page brought is stored in one transaction with the acknowledgement of its request (`settling`), so a crawl that
is killed anywhere loses nothing and repeats nothing: what was not acknowledged is leased again. All functions run
inside a fenced transaction of the run, and have no further effect when that is done once more because nobody heard of
its commit.

A page that kills crawlers must cost neither the crawl nor its neighbours: what crawlers died on twice is handed out
last and alone, so that the next death tells which one it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from models.database import from_json, to_json
from tasks.crawl.crawler.protocol import FailureReason, LeasedRequest

SUSPECT_STARTS: Final = 2
"""A request on which so many crawlers died goes last and alone from then on."""
MAX_STARTS: Final = 5
"""A request on which so many crawlers died fails."""
_PASSING: Final = (
    *(FailureReason.TIMEOUT, FailureReason.DNS, FailureReason.CONNECTION, FailureReason.TLS),
    *(FailureReason.TOO_LARGE, FailureReason.OUTPUT_TOO_LARGE, FailureReason.INTERNAL),
)
"""Failures that say nothing about what the page would have had."""


@dataclass(slots=True)
class Size:
    """How large a frontier is, how much of it is settled, and the items of pages that the item limit cut short."""

    known: int = 0
    settled: int = 0
    cut_items: int = 0


async def measure(connection: asyncpg.Connection, dataset_id: UUID) -> Size:
    """Count the frontier."""
    row = await connection.fetchrow(
        """SELECT count(*) AS known, count(*) FILTER (WHERE state IN ('DONE', 'FAILED')) AS settled,
               coalesce(sum((payload->>'kept')::int) FILTER (WHERE state IN ('PENDING', 'LEASED')), 0) AS cut_items
           FROM crawl_requests WHERE dataset_id = $1""",
        dataset_id,
    )
    return Size(row["known"], row["settled"], row["cut_items"])


async def release(connection: asyncpg.Connection, run_id: UUID, dataset_id: UUID, *, is_crawler_lost: bool) -> None:
    """Put back what a crawler that is gone had in hand.

    Only a crawler that died by itself counts against the requests: one that stopped, or went with its worker, was not
    killed by a page.
    """
    if not is_crawler_lost:
        await connection.execute(
            """UPDATE crawl_requests SET state = 'PENDING', starts = greatest(starts - 1, 0)
               WHERE dataset_id = $1 AND state = 'LEASED'""",
            dataset_id,
        )
        return
    await connection.execute(
        """WITH released AS (
               UPDATE crawl_requests SET
                   state = CASE WHEN starts >= $3 THEN 'FAILED' ELSE 'PENDING' END,
                   failure_reason = CASE WHEN starts >= $3 THEN 'INTERNAL' END,
                   failure_detail = CASE WHEN starts >= $3 THEN 'The crawler ended ' || starts || ' times on it.' END
               WHERE dataset_id = $2 AND state = 'LEASED' RETURNING state
           )
           UPDATE job_runs SET errors_count = errors_count + (SELECT count(*) FROM released WHERE state = 'FAILED')
           WHERE execution_id = $1""",
        run_id,
        dataset_id,
        MAX_STARTS,
    )


async def add(connection: asyncpg.Connection, dataset_id: UUID, requests: Sequence[Mapping[str, Any]]) -> set[str]:
    """Add requests whose fingerprint is new; returns those fingerprints."""
    if not requests:
        return set()
    rows = await connection.fetch(
        """INSERT INTO crawl_requests (dataset_id, fingerprint, url, payload, depth, rank, state, starts)
           SELECT $1, decode(fingerprint, 'hex'), url, payload, depth, rank, 'PENDING', 0
           FROM unnest($2::text[], $3::text[], $4::jsonb[], $5::int[], $6::int[])
               AS new(fingerprint, url, payload, depth, rank)
           ON CONFLICT (dataset_id, fingerprint) DO NOTHING RETURNING encode(fingerprint, 'hex') AS fingerprint""",
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
    return {row["fingerprint"] for row in rows}


@dataclass(frozen=True, slots=True)
class Lease:
    """Requests handed out; nothing may be added to one that has to be `alone`."""

    requests: Sequence[LeasedRequest] = ()
    is_alone: bool = False


async def lease(
    connection: asyncpg.Connection, dataset_id: UUID, count: int, *, held: Collection[str], is_repeated: bool
) -> Lease:
    """Hand out up to `count` waiting requests to a crawler that has those of `held` in hand.

    `is_repeated` says that the same was asked before and the answer lost: what was handed out then comes again.
    """
    if is_repeated and (lost := await _handed_out(connection, dataset_id, held)):
        return Lease(lost, is_alone=len(lost) == 1 and not held)
    rows = await connection.fetch(
        """UPDATE crawl_requests SET state = 'LEASED', starts = starts + 1
           WHERE id IN (SELECT id FROM crawl_requests WHERE dataset_id = $1 AND state = 'PENDING' AND starts < $3
                        ORDER BY rank, id LIMIT $2)
           RETURNING id, url, payload, depth, rank""",
        dataset_id,
        count,
        SUSPECT_STARTS,
    )
    if rows or held:
        return Lease(_requests(rows))
    suspect = await connection.fetch(
        """UPDATE crawl_requests SET state = 'LEASED', starts = starts + 1
           WHERE id = (SELECT id FROM crawl_requests WHERE dataset_id = $1 AND state = 'PENDING'
                       ORDER BY starts, rank, id LIMIT 1)
           RETURNING id, url, payload, depth, rank""",
        dataset_id,
    )
    return Lease(_requests(suspect), is_alone=bool(suspect))


async def _handed_out(connection: asyncpg.Connection, dataset_id: UUID, held: Collection[str]) -> list[LeasedRequest]:
    return _requests(
        await connection.fetch(
            """SELECT id, url, payload, depth, rank FROM crawl_requests
               WHERE dataset_id = $1 AND state = 'LEASED' AND id <> ALL($2::bigint[])""",
            dataset_id,
            [int(id) for id in held],
        )
    )


def _requests(rows: Sequence[asyncpg.Record]) -> list[LeasedRequest]:
    requests = []
    for row in sorted(rows, key=lambda row: (row["rank"], row["id"])):
        payload = from_json(row["payload"])
        requests.append(
            LeasedRequest(
                id=str(row["id"]),
                url=row["url"],
                callback=payload["callback"],
                depth=row["depth"],
                method=payload["method"],
                meta=payload["meta"],
            )
        )
    return requests


async def failures(connection: asyncpg.Connection, dataset_id: UUID) -> list[tuple[FailureReason, str]]:
    """Reason and description of the first requests that ended without a page."""
    rows = await connection.fetch(
        """SELECT url, failure_reason, failure_detail FROM crawl_requests
           WHERE dataset_id = $1 AND state = 'FAILED' ORDER BY id LIMIT 1000""",
        dataset_id,
    )
    return [
        (FailureReason(row["failure_reason"]), f"{row['url']}: {row['failure_detail'] or row['failure_reason']}")
        for row in rows
    ]


async def open_ones(connection: asyncpg.Connection, dataset_id: UUID, request_ids: Sequence[str]) -> set[str]:
    """Those of the requests that are leased, locked until the end of the transaction."""
    rows = await connection.fetch(
        """SELECT id FROM crawl_requests
           WHERE id = ANY($1::bigint[]) AND dataset_id = $2 AND state = 'LEASED' FOR UPDATE""",
        [int(id) for id in request_ids],
        dataset_id,
    )
    return {str(row["id"]) for row in rows}


async def acknowledge(connection: asyncpg.Connection, request_ids: Sequence[int]) -> None:
    """The pages of these requests are stored."""
    await connection.execute("UPDATE crawl_requests SET state = 'DONE' WHERE id = ANY($1::bigint[])", request_ids)


async def keep_open(connection: asyncpg.Connection, request_id: str, kept: int) -> None:
    """Note what the item limit left of a page that will be read again: it counts towards a limit only then."""
    await connection.execute(
        """UPDATE crawl_requests
           SET payload = payload || jsonb_build_object('kept', coalesce((payload->>'kept')::int, 0) + $2::int)
           WHERE id = $1""",
        int(request_id),
        kept,
    )


async def fail(connection: asyncpg.Connection, failed: Sequence[Mapping[str, Any]]) -> None:
    """Settle requests that ended without a page, by their `failed` messages."""
    if not failed:
        return
    await connection.execute(
        """UPDATE crawl_requests SET state = 'FAILED', failure_reason = reason, failure_detail = detail,
               payload = payload || jsonb_build_object('status', status)
           FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) AS failed(id, reason, detail, status)
           WHERE crawl_requests.id = failed.id""",
        [int(each["requestId"]) for each in failed],
        [each["reason"][:32] for each in failed],
        [each["detail"] for each in failed],
        [each["status"] for each in failed],
    )


async def has_lost_pages(connection: asyncpg.Connection, dataset_id: UUID) -> bool:
    """Whether requests failed that another time may bring a page: no answer, or one of an overloaded server."""
    return bool(
        await connection.fetchval(
            """SELECT EXISTS (SELECT 1 FROM crawl_requests WHERE dataset_id = $1 AND state = 'FAILED' AND (
                   failure_reason = ANY($2::text[]) OR failure_reason = 'HTTP_STATUS'
                   AND ((payload->>'status')::int >= 500 OR (payload->>'status')::int IN (408, 425, 429))))""",
            dataset_id,
            [reason.value for reason in _PASSING],
        )
    )
