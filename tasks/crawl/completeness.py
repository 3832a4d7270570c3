"""Whether a run found as much as the job's runs usually do.

Compared are runs that came to their own end, with the same depth: the median of the last five, at least two, as one run
that went wrong must not move it. Items are counted as found, so that a run which keeps only changes compares well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import asyncpg

from tasks.crawl.plan import Plan

RUNS_COMPARED: Final = 5
FEWEST_RUNS: Final = 2


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was expected; None when there is too little to compare with, or nobody wants to know."""

    expected_items: int | None = None
    is_incomplete: bool = False


async def measure(connection: asyncpg.Connection, plan: Plan, items: int) -> Completeness:
    """Compare a run that came to its end with those before it."""
    row = await connection.fetchrow(
        """SELECT (SELECT alarm_percent FROM jobs WHERE id = $1) AS alarm_percent, count(*) AS runs,
                  round(percentile_cont(0.5) WITHIN GROUP (ORDER BY items))::bigint AS expected
           FROM (SELECT r.items_scraped + r.items_unchanged AS items
                 FROM job_runs r JOIN executions e ON e.id = r.execution_id
                 WHERE r.job_id = $1 AND r.dataset_id <> $2 AND e.status = 'SUCCEEDED'
                     AND r.close_reason = 'FINISHED' AND r.limits->>'maxDepth' IS NOT DISTINCT FROM $3
                 ORDER BY r.execution_id DESC LIMIT $4) AS last""",
        plan.job_id,
        plan.dataset_id,
        None if plan.limits.get("maxDepth") is None else str(plan.limits["maxDepth"]),
        RUNS_COMPARED,
    )
    if not row["alarm_percent"] or row["runs"] < FEWEST_RUNS:
        return Completeness()
    return Completeness(row["expected"], items * 100 < row["expected"] * row["alarm_percent"])
