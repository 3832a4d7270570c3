"""What a job's runs stored last: a run that keeps only changes leaves out what is the same, and knows what is gone.

A listing is known by its `sourceId` and host, anything else by its page and place there (the item's key). A version is
a hash, so a million of them are small. Runs of one job take turns here; each call has no further effect when it is
repeated, and an item that comes again within a crawl counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import orjson

from tasks.crawl.plan import FoundItem, Plan

HASH_BYTES: Final = 16
SOURCE_ID: Final = "sourceId"


@dataclass(slots=True)
class Sorted:
    """Items to store, and the keys of those that the job has already, first seen in this crawl."""

    to_store: list[FoundItem] = field(default_factory=list)
    unchanged: set[str] = field(default_factory=set)


async def sort_out(connection: asyncpg.Connection, plan: Plan, items: Sequence[FoundItem]) -> Sorted:
    """Tell items that are new or differ from those that are the same, and remember all of them as seen."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"versions:{plan.job_id}")
    identities = [_identity(item) for item in items]
    versions: dict[bytes, tuple[bytes, UUID]] = {
        row["identity"]: (row["content"], row["seen_in"])
        for row in await connection.fetch(
            "SELECT identity, content, seen_in FROM item_versions WHERE job_id = $1 AND identity = ANY($2::bytea[])",
            plan.job_id,
            identities,
        )
    }
    stored = {
        row["key"]
        for row in await connection.fetch(
            "SELECT key FROM items WHERE dataset_id = $1 AND key = ANY($2::text[])",
            plan.dataset_id,
            [item.key for item in items],
        )
    }
    found = Sorted()
    changed: dict[bytes, tuple[bytes, FoundItem]] = {}
    for identity, item in zip(identities, items, strict=True):
        if item.key in stored:
            continue
        content = _hash(orjson.dumps(item.data, option=orjson.OPT_SORT_KEYS))
        known = versions.get(identity)
        if known is None or known[0] != content:
            found.to_store.append(item)
        elif known[1] != plan.dataset_id:
            found.unchanged.add(item.key)
        versions[identity] = content, plan.dataset_id
        changed[identity] = content, item
    if changed:
        await _remember(connection, plan, changed)
    return found


async def _remember(connection: asyncpg.Connection, plan: Plan, versions: dict[bytes, tuple[bytes, FoundItem]]) -> None:
    items = [item for _, item in versions.values()]
    await connection.execute(
        """INSERT INTO item_versions (job_id, identity, content, source_id, url, seen_in)
           SELECT $1, identity, content, source_id, url, $2
           FROM unnest($3::bytea[], $4::bytea[], $5::text[], $6::text[]) AS new(identity, content, source_id, url)
           ON CONFLICT (job_id, identity) DO UPDATE SET content = excluded.content, url = excluded.url,
               seen_in = greatest(item_versions.seen_in, excluded.seen_in), gone_in = NULL""",
        plan.job_id,
        plan.dataset_id,
        list(versions),
        [content for content, _ in versions.values()],
        [_source_id(item) for item in items],
        [item.url for item in items],
    )


async def mark_gone(connection: asyncpg.Connection, plan: Plan) -> int:
    """Note what this crawl, which saw all there is, saw no more; returns how many are newly gone."""
    # Ids of datasets are in the order of their making: what a later crawl saw is not gone for an earlier one.
    status = await connection.execute(
        """UPDATE item_versions SET gone_in = $2
           WHERE job_id = $1 AND seen_in < $3 AND gone_in IS NULL""",
        plan.job_id,
        plan.run_id,
        plan.dataset_id,
    )
    return int(status.split()[-1])


def _source_id(item: FoundItem) -> str | None:
    data: Any = item.data
    value = data.get(SOURCE_ID) if isinstance(data, dict) else None
    return str(value) if isinstance(value, str | int) and value != "" else None


def _identity(item: FoundItem) -> bytes:
    source_id = _source_id(item)
    known_by = f"key\n{item.key}" if source_id is None else f"{urlsplit(item.url).hostname}\n{source_id}"
    return _hash(known_by.encode())


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
