"""Histories: owners, and what becomes of their executions, by the statements that the product makes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from models import analytics, execution_commands, leases, tools
from models.executions import Claim, ExecutionStatus, Failure, FailureCode
from models.ids import new_id
from models.transaction import unit_of_work
from models.user_queries import delete_parts
from resolvers import periods
from tests.harness.deployments import insert_deployment, insert_owner, insert_project

KINDS = ("DEPLOYMENT", "CRAWL", "SCAN", "OCR")
SPAN = timedelta(days=3)


class World:
    """Two owners with projects and jobs, and what became of their executions; choices come from a seed."""

    def __init__(self, pool: asyncpg.Pool, seed: int) -> None:
        self.pool = pool
        self.chance = random.Random(seed)
        self.owners: list[UUID] = []
        self.projects: list[UUID] = []
        self.jobs: list[UUID] = []
        self.start = periods.floor(datetime.now(UTC)) - SPAN

    async def begin(self) -> None:
        """Owners, projects and jobs; nothing else is in the tables."""
        await self.pool.execute("DELETE FROM executions")
        while await self.fold():
            pass
        async with self.pool.acquire() as connection:
            self.owners = [await insert_owner(connection) for _ in range(2)]
            self.projects = [await insert_project(connection, owner) for owner in self.owners for _ in range(2)]
        tool_id = await tools.insert(
            slug=f"tool-{new_id()}", name="Tool", category="tests", description="", states=[],
            icon=None, spider="catalogue", input_schema={"type": "object"}, is_active=True,
        )  # fmt: skip
        for owner in self.owners:
            job_id = new_id()
            await self.pool.execute(
                """INSERT INTO jobs (id, owner_id, tool_id, name, input, created_at, updated_at)
                   VALUES ($1, $2, $3, 'A job', '{}', now(), now())""",
                job_id,
                owner,
                tool_id,
            )
            self.jobs.append(job_id)

    def moment(self) -> datetime:
        """Some moment of the last days."""
        return self.start + self.chance.random() * SPAN

    async def some(self, *statuses: str, kind: str | None = None) -> asyncpg.Record | None:
        """One of the executions in one of these statuses."""
        found = await self.pool.fetch(
            "SELECT * FROM executions WHERE status = ANY($1) AND ($2::varchar IS NULL OR kind = $2) ORDER BY id",
            list(statuses),
            kind,
        )
        return self.chance.choice(found) if found else None

    async def deploy(self) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            execution_id = await insert_deployment(connection, self.chance.choice(self.projects))
            # It is asked for now; the fact says when it was asked for once it is written again.
            await connection.execute("UPDATE executions SET queued_at = $2 WHERE id = $1", execution_id, self.moment())
            await connection.execute("SELECT refresh_execution_fact($1)", execution_id)

    async def crawl(self) -> None:
        await self._insert(
            "CRAWL",
            """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                   is_seeded, items_scraped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                   requests_robots, requests_throttled)
               SELECT $1, j.id, j.tool_id, 'catalogue', '{}', '{}', 'API', $1, false, 0, 0, 0, 0, 0, 0, 0
               FROM jobs j WHERE j.owner_id = $2""",
        )

    async def scan(self) -> None:
        await self._insert(
            "SCAN",
            """INSERT INTO scans (execution_id, content_type, size, text, document_key, force_llm, is_truncated,
                   risk_count) SELECT $1, 'text/plain', 1, 'x', $2::uuid::text, false, false, 0""",
        )

    async def read(self) -> None:
        await self._insert(
            "OCR",
            """INSERT INTO ocr_jobs (execution_id, filename, languages, force_ocr, pages_read, candidate_count)
               SELECT $1, $2::uuid::text, '[]', false, 0, 0""",
        )

    async def _insert(self, kind: str, statement: str) -> None:
        execution_id, owner = new_id(), self.chance.choice(self.owners)
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                       timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
                   VALUES ($1, $2, $3, 'QUEUED', 0, 0, 0, 2, 600, 0, $4, false, 0, 0)""",
                execution_id,
                kind,
                owner,
                self.moment(),
            )
            await connection.execute(statement, execution_id, owner)

    async def claim(self) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            kind = self.chance.choice(KINDS)
            await leases.claim(connection, kind, worker="tests", lease_seconds=3_600, max_running_per_owner=9)

    async def progress(self) -> None:
        """Counters of what works, and, as nothing should but anything might, of what has ended."""
        if (row := await self.some("RUNNING", "SUCCEEDED", "FAILED")) is not None:
            number = self.chance.randrange(1_000)
            await self.pool.execute(
                """UPDATE job_runs SET items_scraped = items_scraped + $2, pages_crawled = pages_crawled + 1,
                       bytes_downloaded = $2 * 7 WHERE execution_id = $1""",
                row["id"],
                number,
            )
            await self.pool.execute(
                "UPDATE deployments SET artifact_size = $2, uploaded_bytes = 3 WHERE execution_id = $1",
                row["id"],
                number,
            )
            await self.pool.execute("UPDATE ocr_jobs SET pages_read = $2 WHERE execution_id = $1", row["id"], number)

    async def finish(self) -> None:
        """As a worker ends: what its kind has and the status in one transaction."""
        if (row := await self.some("RUNNING")) is None:
            return
        status = self.chance.choice([ExecutionStatus.SUCCEEDED, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED])
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE executions SET started_at = finished.at FROM (SELECT $2::timestamptz AS at) AS finished"
                " WHERE id = $1",
                row["id"],
                max(row["queued_at"], self.moment()),
            )
            await connection.execute(
                "UPDATE deployments SET build_seconds = $2, artifact_size = 10 WHERE execution_id = $1",
                row["id"],
                self.chance.random() * 100,
            )
            if row["kind"] == "SCAN" and status is ExecutionStatus.SUCCEEDED:
                await self._add_risks(connection, row["id"], first=0)
            claim = Claim(row["id"], row["kind"], row["owner_id"], row["attempt"], None, 0, 0, 1.0)
            failure = Failure(FailureCode.INTERNAL, "x") if status is ExecutionStatus.FAILED else None
            assert await leases.finish(connection, claim, status, failure=failure, compact_log_after_seconds=60)

    async def end(self) -> None:
        """The same in one statement, at some other time, with a change of the kind's row in the same statement."""
        if (row := await self.some("RUNNING")) is not None:
            started = max(row["queued_at"], self.moment())
            await self.pool.execute(
                """WITH kind AS (UPDATE job_runs SET items_scraped = items_scraped + 5 WHERE execution_id = $1)
                   UPDATE executions SET status = 'SUCCEEDED', worker = NULL, lease_until = NULL, started_at = $2,
                       finished_at = $3, log_bytes = 77 WHERE id = $1""",
                row["id"],
                started,
                started + self.chance.random() * timedelta(hours=1),
            )

    async def _add_risks(self, connection: asyncpg.Connection, scan_id: UUID, *, first: int) -> None:
        for position in range(first, first + self.chance.randrange(4)):
            await connection.execute(
                """INSERT INTO scan_risks (id, scan_id, position, category, risk, context, severity, severity_source,
                       fingerprint) VALUES ($1, $2, $3, $4, 'r', 'c', $5, 'RULE', 'f')""",
                new_id(),
                scan_id,
                position,
                self.chance.choice(["Budget", "Time: late", "Ünïcode"]),
                self.chance.choice(["LOW", "HIGH"]),
            )

    async def more_risks(self) -> None:
        if (row := await self.some("SUCCEEDED", kind="SCAN")) is not None:
            async with self.pool.acquire() as connection:
                await self._add_risks(connection, row["id"], first=self.chance.randrange(100, 10**9, 10))

    async def fewer_risks(self) -> None:
        """As a deleted account's rows go, in pieces before the execution."""
        if (row := await self.some("SUCCEEDED", kind="SCAN")) is not None:
            await delete_parts(self.pool, [row["id"]], limit=1)

    async def lose(self) -> None:
        if (row := await self.some("RUNNING")) is not None:
            await self.pool.execute(
                "UPDATE executions SET lease_until = now() - interval '1 second' WHERE id = $1", row["id"]
            )
            async with self.pool.acquire() as connection:
                assert await leases.sweep(connection, limit=10, compact_log_after_seconds=60)

    async def cancel(self) -> None:
        if (row := await self.some("QUEUED")) is not None:
            async with unit_of_work():
                await execution_commands.request_cancel(row["id"], by=None)

    async def cancel_all(self) -> None:
        async with unit_of_work():
            await execution_commands.request_cancel_all(self.chance.choice(self.owners), by=None)

    async def delete(self) -> None:
        if (row := await self.some("QUEUED", "SUCCEEDED", "FAILED", "CANCELLED")) is not None:
            await self.pool.execute("DELETE FROM executions WHERE id = $1", row["id"])

    async def roll_back(self) -> None:
        """Everything ends and is deleted, and it never happened."""
        async with self.pool.acquire() as connection:
            undone = connection.transaction()
            await undone.start()
            await connection.execute(
                "UPDATE executions SET status = 'CANCELLED', finished_at = now(), worker = NULL, lease_until = NULL"
                " WHERE status IN ('QUEUED', 'RUNNING')"
            )
            await connection.execute("DELETE FROM executions")
            await undone.rollback()

    async def fold(self) -> int:
        async with self.pool.acquire() as connection:
            return await analytics.fold(connection, limit=self.chance.choice([1, 3, 1_000]))


STEPS: dict[str, tuple[int, Callable[[World], Awaitable[Any]]]] = {
    "deploy": (5, World.deploy),
    "crawl": (4, World.crawl),
    "scan": (4, World.scan),
    "read": (2, World.read),
    "claim": (12, World.claim),
    "progress": (5, World.progress),
    "finish": (7, World.finish),
    "end": (3, World.end),
    "more risks": (1, World.more_risks),
    "fewer risks": (2, World.fewer_risks),
    "lose": (2, World.lose),
    "cancel": (2, World.cancel),
    "cancel all": (1, World.cancel_all),
    "delete": (4, World.delete),
    "roll back": (1, World.roll_back),
    "fold": (4, World.fold),
}
WEIGHTED = [name for name, (weight, _) in STEPS.items() for _ in range(weight)]
