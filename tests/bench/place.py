"""Where benchmarks run: a database of their own, an API, workers, a user. Everything ends with the context."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg

from models import database
from models.ids import decode_id, new_id
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient
from tests.harness.databases import new_database, postgres_server, redis_server
from tests.harness.processes import CLI, Api, Program, child_environment

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Place:
    """The programs of a benchmark."""

    environment: dict[str, str]
    db: asyncpg.Connection
    folder: Path
    api: Api
    client: GraphQLClient
    person: Person
    programs: list[Program] = field(default_factory=list)

    @property
    def owner_id(self) -> UUID:
        """The user's id in the database."""
        return decode_id(self.person.id)[1]

    async def worker(self, *arguments: str) -> Program:
        """A worker that is ready; `-m module` for one with kinds of its own."""
        argv = arguments or (str(CLI), "worker")
        log = self.folder / f"worker-{len(self.programs)}.log"
        program = Program(argv, environment=self.environment, log=log)
        self.programs.append(program)
        await program.wait_event("worker_started")
        return program

    async def execution(self, kind: str, *, timeout_seconds: float = 300.0) -> UUID:
        """A queued execution that nobody has rung for."""
        execution_id = new_id()
        await self.db.execute(
            """INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                   max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
               VALUES ($1, $2, $3, $3, 'QUEUED', 0, 0, 0, 3, $4, 0, clock_timestamp(), false, 0, 0)""",
            execution_id,
            kind,
            self.owner_id,
            timeout_seconds,
        )
        return execution_id

    async def job_run_row(self, execution_id: UUID) -> None:
        """What makes an execution readable as a job run."""
        tool_id, job_id = new_id(), new_id()
        await self.db.execute(
            """INSERT INTO tools (id, slug, name, category, description, states, spider, input_schema, is_active,
                   created_at, updated_at)
               VALUES ($1, $2, 'Bench', 'bench', 'Measures.', '[]', 'catalogue', '{}', true, now(), now())""",
            tool_id,
            f"bench-{tool_id.hex[-12:]}",
        )
        await self.db.execute(
            """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
               VALUES ($1, $2, $3, 'Bench', '{}', now(), now())""",
            job_id,
            self.owner_id,
            tool_id,
        )
        await self.db.execute(
            """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                   is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                   requests_robots, requests_throttled)
               VALUES ($1, $2, $3, 'catalogue', '{}', '{}', 'API', $1, false, 0, 0, 0, 0, 0, 0, 0)""",
            execution_id,
            job_id,
            tool_id,
        )

    async def final(self, execution_id: UUID, *, seconds: float = 120.0) -> asyncpg.Record:
        """The execution once it is final."""
        async with asyncio.timeout(seconds):
            while True:
                row = await self.db.fetchrow("SELECT * FROM executions WHERE id = $1", execution_id)
                if row["finished_at"] is not None:
                    return row
                await asyncio.sleep(0.02)


@asynccontextmanager
async def place(**settings: str) -> AsyncIterator[Place]:
    """Servers given by DATABASE_URL and REDIS_URL, or embedded ones; production's lease times unless said otherwise."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="switchyard-bench-")))
        postgres = await stack.enter_async_context(postgres_server(folder / "postgres"))
        redis = await stack.enter_async_context(redis_server(folder / "redis"))
        url = await stack.enter_async_context(new_database(postgres, "bench"))
        await database.migrate(url)
        environment = child_environment(
            {
                "DATABASE_URL": url,
                "REDIS_URL": redis,
                "REDIS_NAMESPACE": f"bench-{secrets.token_hex(4)}",
                "RATE_LIMITS": "false",
                "SECRET_KEYS": f"bench:{base64.b64encode(secrets.token_bytes(32)).decode()}",
                "DATA_DIR": str(folder / "data"),
                "HOST": "127.0.0.1",
                "PORT": "0",
                "LOG_FORMAT": "json",
                "ARGON2_MEMORY_KIB": "64",
                **settings,
            }
        )
        db = await asyncpg.connect(url)
        stack.push_async_callback(db.close)
        api = Api([CLI, "api"], environment=environment, log=folder / "api.log")
        stack.push_async_callback(api.stop)
        await api.ready()
        client = await stack.enter_async_context(GraphQLClient(api.graphql_url))
        person = await new_user(client)
        here = Place(environment, db, folder, api, client, person)
        try:
            yield here
        finally:
            for program in here.programs:
                await program.stop()


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
