"""Sample data: an account that has been at work for a month, and things it does right now.

The past is written as rows (`models/demo_history.py`); projects, jobs, schedules and what is queued are made as
anybody makes them. Invariants: all of it or nothing, once; it belongs to one account of its own, and goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from errors import Conflict, NotFound
from models import database, demo_history, users
from models.audit import AuditEvent
from models.database import Row
from models.demo_history import PastRun
from models.ids import Prefix, encode_id
from models.permissions import Actor, Role
from models.projects import DeploymentEnvironment
from models.schedules import MissedRunPolicy, OverlapPolicy
from models.transaction import unit_of_work
from resolvers import account_deletion, deployments, jobs, projects, runs, scans, schedules, sessions
from resolvers import users as accounts
from resolvers.projects import VariableChange
from tasks.crawl import spiders

USERNAME: Final = "demo"
EMAIL: Final = "demo@switchyard.internal"
PRACTICE_HOST: Final = "127.0.0.1:8900"
"""Where `switchyard run` serves what the jobs read and the projects build."""

_GARDEN: Final = {
    "repository": f"http://{PRACTICE_HOST}/git/garden",
    "build_command": "sh build.sh",
    "output_directory": "public",
}
_JOBS: Final = (
    # Spider, name, and what its runs of the past have found: items, pages, at which hour.
    ("catalogue", "Practice shop", 36, 41, 6),
    ("property_listings", "Homes for sale", 24, 27, 7),
    ("articles", "What the papers say", 4, 5, 9),
)
_TEXTS: Final = (
    (
        "minutes.txt",
        "The supplier cannot deliver before May, and two developers leave the team in March. The budget is exceeded by"
        " ten percent. Nobody has tested the restore of the backups yet.",
    ),
    (
        "contract.txt",
        "A penalty is due for every week of delay. Requirements may still change after the design is approved, and"
        " the data protection officer has not agreed to the transfer.",
    ),
)


@dataclass(frozen=True, slots=True)
class Made:
    """The account and what is in it."""

    password: str
    deployments: int
    runs: int
    queued: int


async def create(*, is_practised: bool) -> Made:
    """Make the account and all that is in it. `is_practised`: the practice site answers, so new work is queued on it.

    Raises Conflict when the account is there.
    """
    password = accounts.new_password()
    password_hash = await sessions.passwords().hash(password)
    if await _account_id() is not None:
        raise Conflict("The demo is there already; `switchyard demo --remove` takes it away.")
    async with unit_of_work():
        account = await users.create_account(
            email=EMAIL, username=USERNAME, name="Demo", password_hash=password_hash, role=Role.USER, confirmed=True
        )
        await AuditEvent.record(Actor(), "createDemo", target_type="user", target_id=account.id)
        actor = Actor(user_id=account.id)
        garden, meadow = [await _project(actor, name) for name in ("Demo garden", "Demo meadow")]
        past = [await _job(actor, *each) for each in _JOBS]
        now = datetime.now(UTC)
        ended = await demo_history.write(account.id, [garden, meadow], past, now=now)
        queued = 0
        if is_practised:
            queued = await _begin(actor, garden["id"], [each.job_id for each in past])
        for filename, text in _TEXTS:
            await scans.submit(
                actor,
                text=text,
                media_id=None,
                upload=None,
                filename=filename,
                force_llm=False,
                idempotency_key=None,
            )
    return Made(password, *ended, queued + len(_TEXTS))


async def remove() -> None:
    """End the account, as its owner would; a worker removes what it has. Raises NotFound where there is none."""
    user_id = await _account_id()
    if user_id is None:
        raise NotFound("There is no demo here.")
    await account_deletion.delete_by_operator(user_id)


async def _account_id() -> UUID | None:
    found: UUID | None = await database.value(
        "SELECT id FROM users WHERE username_key = $1 AND email_key = $2 AND deleted_at IS NULL", USERNAME, EMAIL
    )
    return found


async def _project(actor: Actor, name: str) -> Row:
    row = await projects.create(actor, name=name, slug=None, given=dict(_GARDEN), idempotency_key=None)
    greeting = VariableChange(
        name="GREETING", value=f"Good morning from the {name.lower()}", environments=tuple(DeploymentEnvironment)
    )
    await projects.set_variables(actor, encode_id(Prefix.PROJECT, row["id"]), [greeting], replace=False)
    return row


async def _job(actor: Actor, spider: str, name: str, items: int, pages: int, hour: int) -> PastRun:
    """A job with a schedule that is paused: it is for looking at, and runs when somebody resumes it."""
    tool_id = await database.value("SELECT id FROM tools WHERE spider = $1 AND is_active ORDER BY id LIMIT 1", spider)
    if tool_id is None:
        raise Conflict(f"There is no active tool with the spider {spider}; run `switchyard migrate`.")
    example: dict[str, Any] = dict(spiders.only(spider).example_input)
    made = await jobs.create(
        actor,
        tool_id=encode_id(Prefix.TOOL, tool_id),
        name=name,
        parts={"startUrls": example.pop("startUrls"), "config": example},
    )
    job_id: UUID = made.job["id"]
    await schedules.put(
        actor,
        encode_id(Prefix.JOB, job_id),
        cron_expression=f"30 {hour} * * *",
        time_zone="UTC",
        is_paused=True,
        overlap_policy=OverlapPolicy.SKIP,
        missed_run_policy=MissedRunPolicy.SKIP,
        limits=None,
    )
    return PastRun(job_id, tool_id, spider, await jobs.input_of(job_id), items, pages, hour)


async def _begin(actor: Actor, project_id: UUID, job_ids: list[UUID]) -> int:
    """Queue a run of each job and a deployment; how many."""
    for job_id in job_ids:
        await runs.run(actor, encode_id(Prefix.JOB, job_id), limits=None, idempotency_key=None)
    await deployments.create(
        actor,
        encode_id(Prefix.PROJECT, project_id),
        branch=None,
        commit=None,
        environment=None,
        idempotency_key=None,
    )
    return len(job_ids) + 1
