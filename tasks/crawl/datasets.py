"""Typed datasets: what a crawl finds becomes rows of its kind, in the transaction that stores its pages.

Invariants: a listing is renewed with the page that shows it, or not at all; only a run that saw everything says that a
listing is gone, and never of what it could not fetch; an item that cannot become a row is counted. Items of a spider
with a typed dataset go there; those of others become products where the job says so and its owner may write products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from models import product_ledger, property_ledger
from tasks.crawl.contracts import TypedDataset
from tasks.crawl.crawler.protocol import FailureReason
from tasks.crawl.found_products import product_of
from tasks.crawl.found_properties import property_of
from tasks.crawl.plan import FoundItem, Plan
from tasks.crawl.spiders import SPIDERS

MAX_UNREAD: Final = 1_000
"""So many pages that could not be read, and the run says nothing of what it did not see."""

_LASTING: Final = (
    FailureReason.ROBOTS,
    FailureReason.BLOCKED_URL,
    FailureReason.OFF_SITE,
    FailureReason.REDIRECTS,
    FailureReason.UNSUPPORTED_CONTENT,
)
_GONE_STATUSES: Final = (404, 410)
"""Why pages are not read today and would not be tomorrow."""

_SINGLE_PAGES: Final = frozenset({"read_listing"})
"""Callbacks of pages that show one listing: what is missing with such a page is that one."""


async def absorb(connection: asyncpg.Connection, plan: Plan, items: Sequence[FoundItem]) -> None:
    """Take in the items of pages that are stored for the first time, unchanged ones too; called inside settle."""
    table = await _table(connection, plan)
    if table == "properties":
        rows = [property_of(item.data, item.url) for item in items]
        listings = {(row["source"], row["source_id"]): row for row in rows if row is not None}
        skipped = rows.count(None)
        if listings:
            await property_ledger.see(
                connection,
                list(listings.values()),
                owner_id=plan.owner_id,
                job_id=plan.job_id,
                dataset_id=plan.dataset_id,
                run_id=plan.run_id,
            )
    elif table == "product_sources":
        found = [product_of(item.data, item.url, plan.input) for item in items]
        products = {(each.source, each.source_id): each for each in found if each is not None}
        skipped = found.count(None)
        if products:
            await product_ledger.see(
                connection,
                list(products.values()),
                job_id=plan.job_id,
                dataset_id=plan.dataset_id,
                run_id=plan.run_id,
            )
    else:
        return
    if skipped:
        await connection.execute(
            "UPDATE job_runs SET items_skipped = items_skipped + $2 WHERE execution_id = $1", plan.run_id, skipped
        )


async def finish(connection: asyncpg.Connection, plan: Plan, *, is_complete: bool) -> None:
    """The run ends with this transaction; `is_complete`: it went as far as there was to go, whatever it could read."""
    table = await _table(connection, plan)
    if not is_complete or table is None:
        return
    unread = await _unread(connection, plan)
    if len(unread) > MAX_UNREAD or any(row["callback"] not in _SINGLE_PAGES for row in unread):
        return
    rejected = await connection.fetch("SELECT DISTINCT url FROM rejected_items WHERE dataset_id = $1", plan.dataset_id)
    await property_ledger.mark_gone(
        connection,
        table=table,
        job_id=plan.job_id,
        dataset_id=plan.dataset_id,
        spared_urls=[row["url"] for row in (*unread, *rejected)],
    )


async def warning(connection: asyncpg.Connection, plan: Plan) -> str | None:
    """What the log of a run should say before it begins."""
    if _saves_products(plan) and not await product_ledger.may_write(connection, plan.owner_id):
        return "No products are saved: the owner of this job may not change products any more."
    return None


async def _table(connection: asyncpg.Connection, plan: Plan) -> str | None:
    """Where the items of a run go; None where they stay items."""
    if _dataset(plan) is TypedDataset.PROPERTIES:
        return "properties"
    if _saves_products(plan) and await product_ledger.may_write(connection, plan.owner_id):
        return "product_sources"
    return None


def _dataset(plan: Plan) -> TypedDataset | None:
    spider = SPIDERS.get(plan.spider)
    return None if spider is None else spider.dataset


def _saves_products(plan: Plan) -> bool:
    return plan.saves_products and _dataset(plan) is None


async def _unread(connection: asyncpg.Connection, plan: Plan) -> list[asyncpg.Record]:
    """Pages of the dataset that failed for a reason that may pass."""
    return list(
        await connection.fetch(
            """SELECT url, payload->>'callback' AS callback FROM crawl_requests
               WHERE dataset_id = $1 AND state = 'FAILED' AND failure_reason <> ALL($2::text[])
                 AND (failure_reason <> 'HTTP_STATUS' OR coalesce((payload->>'status')::int, 0) <> ALL($3::int[]))
               LIMIT $4""",
            plan.dataset_id,
            [reason.value for reason in _LASTING],
            list(_GONE_STATUSES),
            MAX_UNREAD + 1,
        )
    )
