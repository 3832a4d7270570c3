"""The ledger of a run: what each host was asked for, and what came of it.

Counts come with the messages that are settled and are stored in the same transaction, so they are right whatever is
repeated. What a crawler had asked for when it was killed, and not told with a page yet, is in no count. A thousand
hosts have rows of their own; all others are counted as one, whose name is empty.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from tasks.crawl.crawler.protocol import FailureReason

MAX_HOSTS: Final = 1_000
MAX_HOST_CHARACTERS: Final = 255

# What crawlers say, and the columns it is counted in; what they say besides is left out.
_TOLD: Final[Mapping[str, str]] = {
    **{name: name for name in ("requests", "bytes", "retried", "throttled", "depth", "duplicate")},
    **{"offSite": "off_site", "notHttp": "not_http", "tooLong": "too_long"},
}
DROPS: Final = ("off_site", "depth", "duplicate", "not_http", "too_long")
COLUMNS: Final = ("requests", "pages", "bytes", "retried", "throttled", "failed", "robots", "blocked", *DROPS)
_FAILURES: Final[Mapping[str, str]] = {FailureReason.ROBOTS: "robots", FailureReason.BLOCKED_URL: "blocked"}

Entries = dict[str, Counter[str]]
"""Counts by host and column."""


def told(news: Mapping[str, Any], entries: Entries) -> None:
    """Add what a message says of hosts."""
    for host, counts in news.items():
        entry = entries.setdefault(_name(host), Counter())
        for name, count in counts.items():
            if name in _TOLD:
                entry[_TOLD[name]] += max(0, int(count))


def page(url: str, entries: Entries, *, duplicates: int) -> None:
    """Add a page, and links of it that the frontier had already."""
    entry = entries.setdefault(_name(urlsplit(url).hostname or ""), Counter())
    entry["pages"] += 1
    entry["duplicate"] += duplicates


def failure(url: str, reason: str, entries: Entries) -> None:
    """Add a request that ended without a page."""
    entries.setdefault(_name(urlsplit(url).hostname or ""), Counter())[_FAILURES.get(reason, "failed")] += 1


def total(entries: Entries, columns: Iterable[str]) -> int:
    """The sum of columns over all hosts."""
    return sum(entry[column] for entry in entries.values() for column in columns)


async def write(connection: asyncpg.Connection, run_id: UUID, entries: Entries) -> None:
    """Add the entries to the run's ledger."""
    if not entries:
        return
    known = await _add(connection, run_id, entries)
    new = [host for host in entries if host not in known]
    if not new:
        return
    count = await connection.fetchval("SELECT count(*) FROM run_hosts WHERE run_id = $1 AND host <> ''", run_id)
    room = max(0, MAX_HOSTS - count)
    rows: Entries = {host: entries[host] for host in new[:room]}
    if others := sum((entries[host] for host in new[room:]), Counter[str]()):
        rows[""] = rows.get("", Counter()) + others
    await connection.execute(
        f"""INSERT INTO run_hosts (run_id, host, {", ".join(COLUMNS)})
            SELECT $1, * FROM {_unnested(rows)}
            ON CONFLICT (run_id, host) DO UPDATE
            SET {", ".join(f"{name} = run_hosts.{name} + excluded.{name}" for name in COLUMNS)}""",
        run_id,
        *_values(rows),
    )


async def _add(connection: asyncpg.Connection, run_id: UUID, entries: Entries) -> set[str]:
    """Add to hosts that have a row; returns them."""
    rows = await connection.fetch(
        f"""UPDATE run_hosts SET {", ".join(f"{name} = run_hosts.{name} + new.{name}" for name in COLUMNS)}
            FROM {_unnested(entries)} AS new(host, {", ".join(COLUMNS)})
            WHERE run_hosts.run_id = $1 AND run_hosts.host = new.host RETURNING run_hosts.host""",
        run_id,
        *_values(entries),
    )
    return {row["host"] for row in rows}


async def carry_over(executor: Any, from_run: UUID, to_run: UUID) -> None:
    """A run that goes on from another begins with its ledger, as with its other counts."""
    columns = ", ".join(COLUMNS)
    await executor(
        f"INSERT INTO run_hosts (run_id, host, {columns}) SELECT $2, host, {columns} FROM run_hosts WHERE run_id = $1",
        from_run,
        to_run,
    )


def _unnested(entries: Entries) -> str:
    casts = ", ".join(f"${place}::bigint[]" for place, _ in enumerate(COLUMNS, start=3))
    return f"unnest($2::text[], {casts})"


def _values(entries: Entries) -> list[list[Any]]:
    return [list(entries), *([entry[name] for entry in entries.values()] for name in COLUMNS)]


def _name(host: str) -> str:
    return host[:MAX_HOST_CHARACTERS].replace("\x00", "")
