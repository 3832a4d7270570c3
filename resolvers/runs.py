"""Runs of jobs: start, stop, retry, resume, and what they brought home.

A run keeps a snapshot of its job's input, so a later edit of the job changes no run. A resumed run shares the
dataset of the run it goes on from, which by then is final and stays as it is; each run has at most one successor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from adapters import storage
from errors import Conflict, ValidationFailed
from models import database, execution_rows, item_filters
from models.database import Row
from models.executions import ExecutionStatus
from models.idempotency import once
from models.ids import new_id
from models.item_filters import ItemFilter
from models.jobs import RunTrigger
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, executions, sessions
from tasks.crawl import creation, ledger
from tasks.crawl.kind import KIND

LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "maxPages": (1, 1_000_000),
    "maxItems": (1, 1_000_000),
    "maxDepth": (0, 100),
    "maxBytes": (1_048_576, 1_099_511_627_776),
    "timeoutSeconds": (1, 86_400),
    "memoryMegabytes": (128, 16_384),
}
"""The smallest and largest value of each limit that a run can be given."""


async def start(
    actor: Actor,
    job: Row,
    *,
    limits: Mapping[str, int] | None = None,
    trigger: RunTrigger = RunTrigger.API,
    idempotency_key: str | None = None,
    retry_of: UUID | None = None,
    action: str = "runJob",
) -> UUID:
    """Queue a run of a job that passed the gate; returns its id, or that of the first use of the key.

    Raises Conflict when the job's tool is inactive, RateLimitExceeded when too many wait.
    """
    checked = check_limits(limits or {})
    run_id = new_id()

    async def make() -> None:
        is_there = await creation.start(
            sessions.settings(),
            actor,
            run_id,
            job["id"],
            limits=checked,
            trigger=trigger,
            action=action,
            retry_of=retry_of,
        )
        if not is_there:
            raise access.missing()

    async with unit_of_work():
        return await once(
            actor.user_id or job["owner_id"],
            action,
            idempotency_key,
            request={"job": job["id"], "limits": checked, "retry_of": retry_of},
            target_id=run_id,
            make=make,
        )


async def run(actor: Actor, job_id: str, *, limits: Mapping[str, int] | None, idempotency_key: str | None) -> UUID:
    """Start a run of a job."""
    job = await access.job(actor, job_id, to=Permission.JOB_RUN)
    return await start(actor, job, limits=limits, idempotency_key=idempotency_key)


async def cancel(actor: Actor, run_id: str) -> UUID:
    """Stop a run; a final one stays as it is. What it found until then is kept."""
    row = await access.run(actor, run_id, to=Permission.EXECUTION_CANCEL)
    await executions.cancel(actor, row["id"], action="cancelJobRun")
    found: UUID = row["id"]
    return found


async def retry(actor: Actor, run_id: str, *, idempotency_key: str | None) -> UUID:
    """Run again from the start with the job's present input; raises Conflict while the run is not final."""
    row = await access.run(actor, run_id, to=Permission.JOB_RUN)
    _refuse_unfinished(row)
    job = {"id": row["job_id"], "owner_id": row["owner_id"]}
    limits = database.from_json(row["limits"])
    return await start(
        actor, job, limits=limits, trigger=RunTrigger.RETRY, idempotency_key=idempotency_key, retry_of=row["id"],
        action="retryJobRun",
    )  # fmt: skip


async def resume(actor: Actor, run_id: str, *, limits: Mapping[str, int] | None, idempotency_key: str | None) -> UUID:
    """Go on where a run ended, in a new run on the same dataset.

    Raises Conflict while the run is not final, when it has a successor already, or has nothing left to fetch.
    """
    row = await access.run(actor, run_id, to=Permission.JOB_RUN)
    _refuse_unfinished(row)
    checked = check_limits({**database.from_json(row["limits"]), **(limits or {})})
    new_run_id = new_id()

    async def make() -> None:
        # The lock makes two that resume the same run take turns; the unique column keeps the rule.
        await database.rows("SELECT 1 FROM job_runs WHERE execution_id = $1 FOR UPDATE", row["id"])
        state = await database.row(
            """SELECT EXISTS (SELECT 1 FROM job_runs WHERE resumed_from_id = $1) AS has_successor,
                      EXISTS (SELECT 1 FROM crawl_requests
                              WHERE dataset_id = $2 AND state IN ('PENDING', 'LEASED')) AS has_requests,
                      (SELECT is_seeded FROM job_runs WHERE execution_id = $1) AS is_seeded,
                      (SELECT is_active FROM tools WHERE id = $3) AS is_active""",
            row["id"],
            row["dataset_id"],
            row["tool_id"],
        )
        if state is None or not state["is_active"]:
            raise Conflict("The job's tool is not active; no run can start.")
        if state["has_successor"]:
            raise Conflict("This run was resumed already; resume the run that followed it.")
        if state["is_seeded"] and not state["has_requests"]:
            raise Conflict("This run has nothing left to fetch; retry it to crawl from the start.")
        await creation.create_execution(sessions.settings(), actor, new_run_id, row["owner_id"], checked)
        await database.rows(
            """INSERT INTO job_runs (execution_id, job_id, tool_id, spider, input, limits, trigger, dataset_id,
                   resumed_from_id, only_changes, saves_products, is_seeded, items_scraped, items_rejected,
                   items_unchanged, items_skipped, pages_crawled, errors_count, bytes_downloaded, requests_blocked,
                   requests_robots, requests_throttled, requests_dropped)
               SELECT $1, job_id, tool_id, spider, input, $3::jsonb, 'RESUME', dataset_id, execution_id,
                   only_changes, saves_products, is_seeded, items_scraped, items_rejected, items_unchanged,
                   items_skipped, pages_crawled, errors_count, bytes_downloaded, requests_blocked, requests_robots,
                   requests_throttled, requests_dropped
               FROM job_runs WHERE execution_id = $2""",
            new_run_id,
            row["id"],
            database.to_json(checked),
        )
        await ledger.carry_over(database.rows, row["id"], new_run_id)
        await creation.record(actor, "resumeJobRun", new_run_id, row["job_id"])

    async with unit_of_work():
        return await once(
            actor.user_id or row["owner_id"],
            "resumeJobRun",
            idempotency_key,
            request={"run": row["id"], "limits": checked},
            target_id=new_run_id,
            make=make,
        )


def check_limits(limits: Mapping[str, int]) -> dict[str, int]:
    """The limits, if each is known and in its range; raises ValidationFailed with the path of the faulty one."""
    for name, value in limits.items():
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise ValidationFailed(f"`{name}` must be between {low:,} and {high:,}.", path=["input", "limits", name])
    return dict(limits)


async def items(
    actor: Actor,
    run_id: UUID,
    dataset_id: UUID,
    *,
    filter: ItemFilter = item_filters.EVERYTHING,
    after: int | None,
    before: int | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """A page of a run's items, and of those of the runs it went on from, in the order they were found."""
    low, high = after or 0, before if before is not None else 2**63 - 1
    direction = "DESC" if backwards else "ASC"
    values: list[Any] = [dataset_id, run_id, low, high, limit]
    met = "".join(f" AND {condition}" for condition in item_filters.conditions(filter, values))
    return await database.rows(
        f"""SELECT id, url, data::text AS data, scraped_at FROM items
            WHERE dataset_id = $1 AND run_id <= $2 AND id > $3 AND id < $4{met} ORDER BY id {direction} LIMIT $5""",  # noqa: S608
        *values,
    )


async def count_items(run_id: UUID, dataset_id: UUID, *, filter: ItemFilter = item_filters.EVERYTHING) -> int:
    """How many items a run has, with those of the runs it went on from."""
    values: list[Any] = [dataset_id, run_id]
    met = "".join(f" AND {condition}" for condition in item_filters.conditions(filter, values))
    return int(
        await database.value(
            f"SELECT count(*) FROM items WHERE dataset_id = $1 AND run_id <= $2{met}",  # noqa: S608
            *values,
        )
    )


async def failed_requests(
    dataset_id: UUID, *, after: int | None, before: int | None, backwards: bool, limit: int
) -> list[Row]:
    """Requests that ended without a page, and why: blocked, disallowed, answered with an error."""
    direction = "DESC" if backwards else "ASC"
    return await database.rows(
        f"""SELECT id, url, failure_reason, failure_detail FROM crawl_requests
            WHERE dataset_id = $1 AND state = 'FAILED' AND id > $2 AND id < $3 ORDER BY id {direction} LIMIT $4""",  # noqa: S608 - one of two words
        dataset_id,
        after or 0,
        before if before is not None else 2**63 - 1,
        limit,
    )


async def count_failed_requests(dataset_id: UUID) -> int:
    """How many there are in all."""
    return int(
        await database.value(
            "SELECT count(*) FROM crawl_requests WHERE dataset_id = $1 AND state = 'FAILED'", dataset_id
        )
    )


async def output_files(run_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """The files of runs."""
    found: dict[UUID, list[Row]] = {run_id: [] for run_id in run_ids}
    for row in await database.rows(
        """SELECT id, run_id, format, key, filename, content_type, size, sha256, row_count, created_at
           FROM output_files WHERE run_id = ANY($1::uuid[]) ORDER BY format""",
        list(run_ids),
    ):
        found[row["run_id"]].append(row)
    return found


async def download_url(file: Row) -> str:
    """A link to a file that expires."""
    return await storage.current().presigned_get(
        file["key"],
        expires_seconds=sessions.settings().download_url_seconds,
        filename=file["filename"],
        content_type=file["content_type"],
    )


async def find(actor: Actor, run_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the runs that an actor may see, in one statement."""
    found = await execution_rows.find(run_ids)
    return {run_id: row for run_id, row in found.items() if row["kind"] == KIND and access.sees_execution(actor, row)}


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the runs that an actor may see."""
    return await execution_rows.visible(actor, kind=KIND, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await execution_rows.count_visible(actor, kind=KIND, **filters)


def _refuse_unfinished(row: Row) -> None:
    if not ExecutionStatus(row["status"]).is_final:
        raise Conflict("The run has not ended yet; cancel it or wait for its end.", status=row["status"])
