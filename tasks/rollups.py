"""Folding what changed into the sums that dashboards read: every few seconds, by one worker.

Answers are right without it, and slower the more there is to fold (`models/analytics.py`).
"""

from __future__ import annotations

from typing import Final

import asyncpg

from models import analytics

FOLD_SECONDS: Final = 5.0
_AT_ONCE: Final = 5_000


async def fold(pool: asyncpg.Pool) -> None:
    """Fold all there is, in transactions of some thousand changes."""
    while True:
        async with pool.acquire(timeout=2) as connection:
            if await analytics.fold(connection, limit=_AT_ONCE) < _AT_ONCE:
                return
