"""What pages bring, stored: items, items that do not fit, links, counts and the acknowledgement, in one transaction.

A message whose request is not leased is a repetition and changes nothing; what is stored twice meets a unique key.
Called inside a fenced transaction of the run, which may be repeated when nobody heard of its commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from models import crawl_usage
from models.database import to_json
from tasks.crawl import datasets, frontier, ledger, versions
from tasks.crawl.crawler.protocol import FailureReason, MessageType
from tasks.crawl.plan import FoundItem, Plan

MAX_REJECTED_KEPT: Final = 10_000
"""Items that do not fit and are kept, of one dataset; all are counted."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a batch of answers changed in the frontier, and the counts of the run with it.

    `items` are those found: stored, or left out because the job has them; `pages_today` is the owner's day.
    """

    added: int
    settled: int
    items: int
    pages: int
    bytes: int
    pages_today: int


async def settle(connection: asyncpg.Connection, plan: Plan, answers: Sequence[Mapping[str, Any]]) -> Settled:
    """Store a batch of `page` and `failed` messages, with what the pages brought and led to, and count it."""
    open_ids = await frontier.open_ones(connection, plan.dataset_id, [answer["requestId"] for answer in answers])
    fresh = [answer for answer in answers if answer["requestId"] in open_ids]
    pages = [answer for answer in fresh if answer["type"] == MessageType.PAGE]
    failed = [answer for answer in fresh if answer["type"] == MessageType.FAILED]
    done = [int(page["requestId"]) for page in pages if page["complete"]]
    await frontier.acknowledge(connection, done)
    await frontier.fail(connection, failed)
    stored, unchanged = await _store_items(connection, plan, pages)
    rejected = await _store_rejected(connection, plan, pages)
    for page in pages:
        if not page["complete"]:
            kept = sum(item["key"] in stored or item["key"] in unchanged for item in page["items"])
            await frontier.keep_open(connection, page["requestId"], kept)
    added = await frontier.add(connection, plan.dataset_id, [request for page in pages for request in page["requests"]])
    entries = _entries(pages, failed, added)
    await ledger.write(connection, plan.run_id, entries)
    counts = await _count(
        connection, plan.run_id, pages, failed, entries, stored=len(stored), unchanged=len(unchanged), rejected=rejected
    )
    # Last: other runs of the same owner wait for this row.
    pages_today = await crawl_usage.count_pages(connection, plan.owner_id, len(pages))
    return Settled(
        len(added),
        len(done) + len(failed),
        items=counts["items"],
        pages=counts["pages_crawled"],
        bytes=counts["bytes_downloaded"],
        pages_today=pages_today,
    )


async def settle_rest(connection: asyncpg.Connection, plan: Plan, news: Mapping[str, Any]) -> None:
    """Count what a crawler told of hosts with its last message; belongs into the transaction that ends the run."""
    entries: ledger.Entries = {}
    ledger.told(news, entries)
    await ledger.write(connection, plan.run_id, entries)
    await connection.execute(
        "UPDATE job_runs SET requests_throttled = requests_throttled + $2 WHERE execution_id = $1",
        plan.run_id,
        ledger.total(entries, ["throttled"]),
    )


async def _store_items(
    connection: asyncpg.Connection, plan: Plan, pages: Sequence[Mapping[str, Any]]
) -> tuple[set[str], set[str]]:
    """Store the items; returns the keys of those that are new, and of those left out because the job has them."""
    items = [FoundItem(item["key"], page["url"], item["data"]) for page in pages for item in page["items"]]
    if not items:
        return set(), set()
    sorted_out = await versions.sort_out(connection, plan, items) if plan.only_changes else versions.Sorted(items)
    rows = await connection.fetch(
        """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
           SELECT $1, $2, key, url, data, now() FROM unnest($3::text[], $4::text[], $5::jsonb[]) AS new(key, url, data)
           ON CONFLICT (dataset_id, key) DO NOTHING RETURNING key""",
        plan.dataset_id,
        plan.run_id,
        [item.key for item in sorted_out.to_store],
        [item.url for item in sorted_out.to_store],
        [to_json(item.data) for item in sorted_out.to_store],
    )
    await datasets.absorb(connection, plan, items)
    return {row["key"] for row in rows}, sorted_out.unchanged


async def _store_rejected(connection: asyncpg.Connection, plan: Plan, pages: Sequence[Mapping[str, Any]]) -> int:
    """Keep items that do not fit, as long as there is room; returns how many there are, kept or not."""
    rejected = {item["key"]: (page["url"], item) for page in pages for item in page["rejected"]}
    if not rejected:
        return 0
    there = await connection.fetchrow(
        """SELECT count(*) AS kept, array_agg(key) FILTER (WHERE key = ANY($2::text[])) AS keys
           FROM rejected_items WHERE dataset_id = $1""",
        plan.dataset_id,
        list(rejected),
    )
    new = [key for key in rejected if key not in (there["keys"] or ())]
    kept = new[: max(0, MAX_REJECTED_KEPT - there["kept"])]
    await connection.execute(
        """INSERT INTO rejected_items (dataset_id, run_id, key, url, data, faults, rejected_at)
           SELECT $1, $2, key, url, data, faults, now()
           FROM unnest($3::text[], $4::text[], $5::jsonb[], $6::jsonb[]) AS new(key, url, data, faults)""",
        plan.dataset_id,
        plan.run_id,
        kept,
        [rejected[key][0] for key in kept],
        [to_json(rejected[key][1]["data"]) for key in kept],
        [to_json(rejected[key][1]["faults"]) for key in kept],
    )
    return len(new)


def _entries(
    pages: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]], added: set[str]
) -> ledger.Entries:
    """The ledger of a batch. A link is a duplicate when the frontier had it, or an earlier page of the batch."""
    entries: ledger.Entries = {}
    unclaimed = set(added)
    for page in pages:
        new = {request["fingerprint"] for request in page["requests"]} & unclaimed
        unclaimed -= new
        ledger.page(page["url"], entries, duplicates=len(page["requests"]) - len(new))
        ledger.told(page["hosts"], entries)
    for each in failed:
        ledger.failure(each["url"], each["reason"], entries)
        ledger.told(each["hosts"], entries)
    return entries


async def _count(
    connection: asyncpg.Connection,
    run_id: UUID,
    pages: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
    entries: ledger.Entries,
    *,
    stored: int,
    unchanged: int,
    rejected: int,
) -> asyncpg.Record:
    reasons = [each["reason"] for each in failed]
    blocked = reasons.count(FailureReason.BLOCKED_URL)
    robots = reasons.count(FailureReason.ROBOTS)
    return await connection.fetchrow(
        """UPDATE job_runs SET items_scraped = items_scraped + $2, pages_crawled = pages_crawled + $3,
               bytes_downloaded = bytes_downloaded + $4, errors_count = errors_count + $5,
               requests_blocked = requests_blocked + $6, requests_robots = requests_robots + $7,
               requests_throttled = requests_throttled + $8, requests_dropped = requests_dropped + $9,
               items_unchanged = items_unchanged + $10, items_rejected = items_rejected + $11
           WHERE execution_id = $1
           RETURNING items_scraped + items_unchanged AS items, pages_crawled, bytes_downloaded""",
        run_id,
        stored,
        len(pages),
        sum(page["bytes"] for page in pages),
        sum(len(page["errors"]) for page in pages) + len(reasons) - blocked - robots,
        blocked,
        robots,
        ledger.total(entries, ["throttled"]),
        ledger.total(entries, ledger.DROPS),
        unchanged,
        rejected,
    )
