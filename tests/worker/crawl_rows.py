"""What tests of crawls stand on: users, jobs and runs in the module's database, and a look at what became of them.

Runs are started, stopped and resumed by the resolvers, as the API does it; workers and crawlers are real processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import psutil

from adapters import events, storage
from models import database, logs
from models.database import from_json, to_json
from models.executions import FINAL_STATUSES
from models.ids import Prefix, encode_id, new_id
from models.permissions import Actor
from models.transaction import unit_of_work
from resolvers import runs, sessions
from settings import Settings
from tasks import queue
from tests.harness.processes import Program
from tests.harness.waiting import eventually
from tests.sites.sacramento import PROPERTY_INPUT_PATTERN
from tests.sites.server import SiteServer

END_SECONDS = 60.0
_CRAWLER = ["-m", "tasks.crawl.crawler"]


def listings_input(site: SiteServer, *, path: str = "/homes") -> dict[str, Any]:
    """The input of a crawl of all of the Sacramento site."""
    return {"startUrls": [site.url + path], "detailPattern": PROPERTY_INPUT_PATTERN}


def catalogue_input(*urls: str, **more: Any) -> dict[str, Any]:
    """The input of a crawl that reads the headings of pages."""
    return {"startUrls": list(urls), "fields": [{"name": "title", "css": "h1"}], **more}


class Crawls:
    """The runs of one user."""

    def __init__(self, db: asyncpg.Pool, owner: UUID) -> None:
        self.db = db
        self.actor = Actor(user_id=owner)

    # -- what users do

    async def start(
        self,
        spider_input: Mapping[str, Any],
        *,
        spider: str = "property_listings",
        limits: Mapping[str, int] | None = None,
        unchecked_limits: Mapping[str, int] | None = None,
    ) -> UUID:
        """Run a new job; `unchecked_limits` may be what the API would refuse. The run's id."""
        job_id = new_id()
        async with unit_of_work():
            tool = await database.value(
                """INSERT INTO tools (id, slug, name, category, description, states, spider, input_schema, is_active,
                       created_at, updated_at)
                   VALUES ($1, $2, 'Crawl', 'tests', '', '[]', $3, '{}', true, now(), now()) RETURNING id""",
                new_id(),
                job_id.hex,
                spider,
            )
            await database.rows(
                """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
                   VALUES ($1, $2, $3, 'Crawl', $4::jsonb, now(), now())""",
                job_id,
                self.actor.user_id,
                tool,
                to_json(dict(spider_input)),
            )
            run = await runs.run(self.actor, encode_id(Prefix.JOB, job_id), limits=limits, idempotency_key=None)
            if unchecked_limits:
                await database.rows(
                    "UPDATE job_runs SET limits = $2::jsonb WHERE execution_id = $1", run, to_json(unchecked_limits)
                )
        return run

    async def cancel(self, run: UUID) -> None:
        """Stop a run."""
        await runs.cancel(self.actor, encode_id(Prefix.RUN, run))

    async def resume(self, run: UUID, limits: Mapping[str, int] | None = None) -> UUID:
        """Go on where a run ended; the new run's id."""
        return await runs.resume(self.actor, encode_id(Prefix.RUN, run), limits=limits, idempotency_key=None)

    # -- looking

    async def row(self, run: UUID) -> asyncpg.Record:
        """Execution and run now."""
        return await self.db.fetchrow(
            "SELECT * FROM executions JOIN job_runs ON execution_id = id WHERE id = $1",
            run,
        )

    async def until_attempt(self, run: UUID, attempt: int, *, within: float = END_SECONDS) -> None:
        """Wait until a worker has claimed an attempt."""

        async def is_claimed() -> bool:
            row = await self.row(run)
            return bool(row["attempt"] >= attempt and row["status"] == "RUNNING")

        await eventually(is_claimed, within, what=f"attempt {attempt}")

    async def until_items(self, run: UUID, count: int, *, within: float = END_SECONDS) -> None:
        """Wait until so many items are stored."""

        async def are_there() -> bool:
            return bool((await self.row(run))["items_scraped"] >= count)

        await eventually(are_there, within, what=f"{count} items")

    async def items(self, run: UUID) -> list[dict[str, Any]]:
        """The items of the run's dataset in the order of their storing."""
        rows = await self.db.fetch(
            "SELECT data FROM items JOIN job_runs USING (dataset_id) WHERE execution_id = $1 ORDER BY items.id", run
        )
        return [from_json(row["data"]) for row in rows]

    async def failed(self, run: UUID, site: SiteServer) -> dict[str, str]:
        """Why requests ended without a page, by path."""
        rows = await self.db.fetch(
            """SELECT url, failure_reason FROM crawl_requests JOIN job_runs USING (dataset_id)
               WHERE execution_id = $1 AND state = 'FAILED'""",
            run,
        )
        return {row["url"].removeprefix(site.url): row["failure_reason"] for row in rows}

    async def states(self, run: UUID) -> dict[str, int]:
        """How many requests of the frontier are in each state."""
        rows = await self.db.fetch(
            """SELECT state, count(*) FROM crawl_requests JOIN job_runs USING (dataset_id)
               WHERE execution_id = $1 GROUP BY state""",
            run,
        )
        return dict(rows)

    async def files(self, run: UUID) -> dict[str, tuple[asyncpg.Record, bytes]]:
        """Row and bytes of each output file, by format."""
        found = {}
        for row in await self.db.fetch("SELECT * FROM output_files WHERE run_id = $1", run):
            chunks = [chunk async for chunk in storage.current().get(row["key"])]
            found[row["format"]] = (row, b"".join(chunks))
        return found

    # -- judging

    async def ended(self, run: UUID, *, within: float = END_SECONDS) -> asyncpg.Record:
        """Wait for the end and hold it against what every execution promises; the final row."""

        async def final_row() -> asyncpg.Record | None:
            row = await self.row(run)
            return row if row["finished_at"] is not None else None

        row = await eventually(final_row, within, what=f"the end of {run}")
        history = await self.db.fetch("SELECT * FROM execution_events WHERE execution_id = $1 ORDER BY id", run)
        assert [event["status"] for event in history if event["status"] in FINAL_STATUSES] == [row["status"]]
        claimed = [event["attempt"] for event in history if event["status"] == "RUNNING" and event["stage"] is None]
        assert len(claimed) <= row["attempt"] <= 3
        await self._check_log(run, row["log_sequence"])
        return row

    async def messages(self, run: UUID) -> list[str]:
        """The texts of the log."""
        return [line.message for line in await self._lines(run)]

    async def _lines(self, run: UUID) -> list[logs.Line]:
        chunks = await self.db.fetch("SELECT * FROM log_chunks WHERE execution_id = $1 ORDER BY first_sequence", run)
        return [line for chunk in chunks for line in logs.decode_lines(chunk["first_sequence"], chunk["body"])]

    async def _check_log(self, run: UUID, last: int) -> None:
        assert [line.sequence for line in await self._lines(run)] == list(range(1, last + 1))


@asynccontextmanager
async def open_crawls(environment: Mapping[str, str]) -> AsyncIterator[asyncpg.Pool]:
    """Everything that the resolvers need, in the environment of a module's programs; yields a pool beside it."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        queue.connected(settings),
        storage.open_storage(settings),
        sessions.opened(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield pool


def settings_of(environment: Mapping[str, str]) -> Settings:
    """What programs with this environment read from it."""
    return Settings.model_validate({name.lower(): value for name, value in environment.items()})


async def new_crawls(pool: asyncpg.Pool) -> Crawls:
    """A user who has no runs yet."""
    owner = new_id()
    await pool.execute(
        """INSERT INTO users (id, email, email_key, username, username_key, name, password_hash, role, is_active,
               created_at)
           VALUES ($1, $2, $2, $2, $2, 'Crawls', 'none', 'USER', true, now())""",
        owner,
        owner.hex,
    )
    return Crawls(pool, owner)


# -- processes


def tree_of(worker: Program) -> list[psutil.Process]:
    """All that the worker has started and that lives."""
    return psutil.Process(worker.pid).children(recursive=True)


def crawlers_of(worker: Program | int) -> list[psutil.Process]:
    """The crawler processes of a worker."""
    pid = worker if isinstance(worker, int) else worker.pid
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline()[1:3] == _CRAWLER:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def crawler_of(worker: Program, *, other_than: Collection[psutil.Process] = ()) -> psutil.Process:
    """The worker's one crawler, once there is one that is none of `other_than`."""

    def found() -> psutil.Process | None:
        crawlers = [process for process in crawlers_of(worker) if process not in other_than]
        return crawlers[0] if crawlers else None

    process = await eventually(found, 15, what="a crawler")
    assert process is not None
    return process


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there; a zombie is not."""
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    return alive
