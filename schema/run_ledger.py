"""What a run writes down beside its items, as clients see it, and how much somebody crawls."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import strawberry

from models import database
from models.database import Row
from models.permissions import Permission
from resolvers import run_ledger
from schema.context import Context
from schema.permissions import requires
from schema.scalars import JSON, BigInt

Info = strawberry.Info[Context, None]


@strawberry.type(description="Links that were not followed, by reason.")
class DroppedLinks:
    """Dropped links."""

    off_site: BigInt = strawberry.field(description="They lead to other sites.")
    depth: BigInt = strawberry.field(description="They are deeper than the run may go.")
    duplicate: BigInt = strawberry.field(description="They were known already.")
    not_http: BigInt = strawberry.field(description="They are no web addresses: mailto and the like.")
    too_long: BigInt = strawberry.field(description="Their address is too long, or there are too many on their page.")


@strawberry.type(description="What a run asked of one host, and what came of it.")
class RunHost:
    """A host."""

    host: str | None = strawberry.field(description="Its name. Null is for all hosts beyond the first 1,000 together.")
    requests: BigInt = strawberry.field(
        description="Requests sent, with retries, redirects and robots.txt. Those that a killed crawler had not "
        "reported are not in it."
    )
    pages: BigInt = strawberry.field(description="Pages read.")
    bytes: BigInt = strawberry.field(description="Bytes of response bodies, robots.txt and retries included.")
    retried: BigInt = strawberry.field(description="Requests that were tried again.")
    throttled: BigInt = strawberry.field(description="Answers that asked for a slower pace (429 and 503).")
    failed: BigInt = strawberry.field(description="Requests that ended without a page, but for the next two.")
    disallowed: BigInt = strawberry.field(description="Requests that robots.txt disallows.")
    blocked: BigInt = strawberry.field(description="Requests that the address guard refused.")
    dropped: DroppedLinks = strawberry.field(description="Links found on its pages that were not followed.")


@strawberry.type(description="One thing that is wrong in an item.")
class ItemFault:
    """A fault."""

    path: JSON = strawberry.field(description="Where in the item: a list of keys and positions; empty is the item.")
    message: str = strawberry.field(description="What is wrong.")
    value: str = strawberry.field(description="What is there, as JSON, cut after 200 characters.")


@strawberry.type(description="Something found that does not fit the output of its spider.")
class RejectedItem:
    """A rejected item."""

    url: str = strawberry.field(description="The page it was found on.")
    data: JSON = strawberry.field(description="What was found.")
    faults: list[ItemFault] = strawberry.field(description="What is wrong in it: the first ten faults.")


@strawberry.type(description="Something that a job's earlier runs found and this one first did not.")
class GoneItem:
    """A gone item."""

    url: str = strawberry.field(description="The page it was last found on.")
    source_id: str | None = strawberry.field(description="The site's own number of it, where it has one.")


@strawberry.type(description="Whether a run found as much as its job's runs usually do.")
class Completeness:
    """A comparison."""

    expected_items: BigInt = strawberry.field(
        description="The median of the job's last five runs, two at least, that came to their own end."
    )
    items: BigInt = strawberry.field(description="What this run found, unchanged items included.")
    percent: float | None = strawberry.field(description="The share of what was expected; null when that is nothing.")
    is_incomplete: bool = strawberry.field(description="Whether that is less than the job's `alarmPercent`.")


@strawberry.type(description="How much you crawl, and may.")
class CrawlUsage:
    """Usage and limits."""

    pages_today: BigInt = strawberry.field(description="Pages fetched since the day (UTC) began.")
    pages_per_day: BigInt = strawberry.field(description="Pages that may be fetched on one day.")
    day_ends_at: datetime = strawberry.field(description="When the count begins anew.")
    running: int = strawberry.field(description="Runs at work.")
    running_limit: int = strawberry.field(description="Runs that work at the same time at most.")
    waiting: int = strawberry.field(description="Runs that wait.")


@strawberry.type
class RunLedgerQuery:
    """What can be asked of crawling as a whole."""

    @strawberry.field(description="How much you crawl, and may.", extensions=[requires(Permission.JOB_READ)])
    async def crawl_usage(self, info: Info) -> CrawlUsage:
        """The actor's own."""
        row = await run_ledger.usage(info.context.actor)
        return CrawlUsage(
            pages_today=BigInt(row["pages"]),
            pages_per_day=BigInt(row["pages_per_day"]),
            day_ends_at=row["ends_at"],
            running=row["running"],
            running_limit=row["running_limit"],
            waiting=row["waiting"],
        )


def host_of(row: Row) -> RunHost:
    """The host in a row of the ledger."""
    counts = {name: BigInt(value) for name, value in row.items() if name not in ("id", "host")}
    dropped = {name: counts.pop(name) for name in ("off_site", "depth", "duplicate", "not_http", "too_long")}
    return RunHost(
        host=row["host"] or None,
        disallowed=counts.pop("robots"),
        dropped=DroppedLinks(**cast(Any, dropped)),
        **cast(Any, counts),
    )


def rejected_of(row: Row) -> RejectedItem:
    """The item in a row of the quarantine."""
    return rejected_item(row["url"], database.from_json(row["data"]), database.from_json(row["faults"]))


def rejected_item(url: str, data: Any, faults: list[dict[str, Any]]) -> RejectedItem:
    """An item and its faults."""
    return RejectedItem(
        url=url,
        data=JSON(data),
        faults=[ItemFault(path=JSON(each["path"]), message=each["message"], value=each["value"]) for each in faults],
    )


def gone_of(row: Row) -> GoneItem:
    """The item in a row of versions."""
    return GoneItem(url=row["url"], source_id=row["source_id"])


def completeness_of(row: Row) -> Completeness | None:
    """The comparison in a row of a run; None when there was none."""
    expected = row["expected_items"]
    if expected is None:
        return None
    items = row["items_scraped"] + row["items_unchanged"]
    return Completeness(
        expected_items=BigInt(expected),
        items=BigInt(items),
        percent=round(items * 100 / expected, 1) if expected else None,
        is_incomplete=row["is_incomplete"],
    )
