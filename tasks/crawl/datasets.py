"""Typed datasets: what a crawl finds becomes rows of its kind, in the transaction that stores its pages."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from tasks.crawl.plan import FoundItem, Plan


async def absorb(connection: asyncpg.Connection, plan: Plan, items: Sequence[FoundItem]) -> None:
    """Take in the items of pages that are stored for the first time, unchanged ones too; called inside settle."""


async def finish(connection: asyncpg.Connection, plan: Plan, *, is_complete: bool) -> None:
    """The run ends with this transaction; `is_complete` says that it saw everything there is to see."""
