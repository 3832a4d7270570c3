"""Ten thousand schedules that are due at the same moment, fired by one worker.

The baseline makes as many runs of the same jobs in this process, one transaction each, without schedules.

    python -m tests.bench.schedules [schedules]
"""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import UUID

import settings
from models import database
from models.ids import new_id
from models.jobs import RunTrigger
from models.permissions import Actor
from models.transaction import unit_of_work
from tasks import queue
from tasks.crawl import creation
from tests.bench.place import Place, place
from tests.factories import new_user
from tests.harness.executions import uuid_of
from tests.harness.waiting import eventually

OWNERS = 20


async def main(schedules: int = 10_000) -> None:
    """Print schedules a second, the lateness of the last one, and the ratio to the baseline."""
    async with place(
        MAX_QUEUED_PER_USER=str(schedules),
        **{f"WORKER_{kind}_SLOTS": "0" for kind in ("CRAWL", "BUILD", "SCAN", "OCR", "EXPORT")},
    ) as here:
        jobs = await _jobs(here, schedules)
        bare = await _bare(here, jobs)
        await here.db.execute("DELETE FROM executions")
        await here.db.execute(
            """INSERT INTO job_schedules (job_id, cron_expression, time_zone, is_paused, overlap_policy,
                   missed_run_policy, limits, created_at, updated_at, next_run_at)
               SELECT id, '0 6 * * *', 'UTC', false, 'SKIP', 'SKIP', '{}', now(), now(), now() + interval '8 seconds'
               FROM jobs"""
        )
        await here.worker()
        due = await here.db.fetchval("SELECT min(next_run_at) FROM job_schedules")

        async def all_are_fired() -> bool:
            return not await here.db.fetchval("SELECT count(*) FROM job_schedules WHERE next_run_at = $1", due)

        await eventually(all_are_fired, 1_800)
        seconds = float(await here.db.fetchval("SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)", due))
        outcomes = await here.db.fetch("SELECT outcome, count(*) FROM schedule_ticks GROUP BY 1")
    print(f"outcomes: { {row['outcome']: row['count'] for row in outcomes} }")
    print(f"{schedules:,} schedules due at once: {schedules / seconds:.0f}/s, the last one {seconds:.1f} s late")
    print(f"bare runs: {schedules / bare:.0f}/s; time as a ratio to them: {seconds / bare:.2f}")


async def _jobs(here: Place, count: int) -> list[tuple[UUID, UUID]]:
    """Job and owner of so many jobs of a few owners."""
    tool = await here.db.fetchval(
        """INSERT INTO tools (id, slug, name, category, description, states, spider, input_schema, is_active,
               created_at, updated_at)
           VALUES ($1, 'bench', 'Bench', 'bench', 'Measures.', '[]', 'catalogue', '{}', true, now(), now())
           RETURNING id""",
        new_id(),
    )
    owners = [uuid_of(await new_user(here.client)) for _ in range(OWNERS)]
    jobs = [(new_id(), owners[number % OWNERS]) for number in range(count)]
    await here.db.executemany(
        """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
           VALUES ($1, $2, $3, 'Bench', '{"startUrls": ["https://a.example/"]}', now(), now())""",
        [(job, owner, tool) for job, owner in jobs],
    )
    return jobs


async def _bare(here: Place, jobs: list[tuple[UUID, UUID]]) -> float:
    """Seconds for a run of each job."""
    loaded = settings.Settings.model_validate({name.lower(): value for name, value in here.environment.items()})
    async with queue.connected(loaded), database.connected(loaded, pool_size=2):
        began = time.perf_counter()
        for job, owner in jobs:
            async with unit_of_work():
                await creation.start(
                    loaded, Actor(user_id=owner), new_id(), job, limits={}, trigger=RunTrigger.API, action="runJob"
                )
        return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
