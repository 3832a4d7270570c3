"""Jobs: a tool with an input that belongs to a user.

Invariants: what is stored fits the tool (`resolvers/job_inputs.py`); a repeated request finds what the first one
made; a job goes with all that its runs brought home, but never while one of them waits or works. Running jobs is
`resolvers/runs.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from adapters import events, storage
from errors import Conflict, NotFound, Unauthorized, ValidationFailed
from models import database, job_queries, tools
from models.audit import AuditEvent
from models.database import Row
from models.events import TotalsChanged
from models.idempotency import earlier, once
from models.ids import new_id
from models.job_queries import UNSET, JobSettings
from models.permissions import Actor, Permission
from models.transaction import after_commit, unit_of_work
from resolvers import access, job_inputs, runs, sessions, texts
from resolvers.job_inputs import Parts

MAX_NAME_LENGTH: Final = 120
UPDATE_ATTEMPTS: Final = 5
OBJECTS_PER_EFFECT: Final = 500
"""Objects deleted by one effect, which has two seconds: S3 takes a thousand per request, a folder far more."""

_CREATE: Final = "createJob"


@dataclass(frozen=True, slots=True)
class Created:
    """A new job, and its first run if one was asked for."""

    job: Row
    run_id: UUID | None


async def create(
    actor: Actor,
    *,
    tool_id: str,
    name: str,
    parts: Parts,
    settings: JobSettings = UNSET,
    run: bool = False,
    limits: Mapping[str, int] | None = None,
    idempotency_key: str | None = None,
) -> Created:
    """Make a job of the actor's own and, with `run`, queue its first run; both happen or neither does.

    Raises NotFound for an unknown tool, Conflict for an inactive one and when the actor has as many jobs as they
    may, ValidationFailed with the path of what does not fit, RateLimitExceeded when too many runs wait.
    """
    owner_id = actor.user_id
    if owner_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.JOB_WRITE)
    if run:
        access.allow(actor, Permission.JOB_RUN)
    valid_name = texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    given = job_inputs.canonical({key: value for key, value in parts.items() if value is not None})
    _check_settings(actor, settings)
    checked_limits = runs.check_limits(limits or {})
    request: dict[str, Any] = {
        "toolId": tool_id, "name": valid_name, "input": given, "run": run, "limits": checked_limits, **settings.given()
    }  # fmt: skip
    job_id = new_id()
    run_id: UUID | None = None

    made_before = await earlier(owner_id, _CREATE, idempotency_key, request=request)
    if made_before is not None:
        return await _made_before(made_before, run=run)
    tool = await usable_tool(actor, tool_id)
    spider_input = await checked_input(tool, job_inputs.merged(given), given)

    async def make() -> None:
        nonlocal run_id
        await _refuse_too_many(owner_id)
        if not await job_queries.insert(
            job_id, owner_id=owner_id, tool_id=tool["tool_id"], name=valid_name, input=spider_input, settings=settings
        ):
            raise inactive()
        await _record(actor, _CREATE, job_id, name=valid_name, tool=str(tool["tool_id"]))
        if run:
            run_id = await runs.start(actor, {"id": job_id, "owner_id": owner_id}, limits=checked_limits)

    async with unit_of_work():
        made = await once(owner_id, _CREATE, idempotency_key, request=request, target_id=job_id, make=make)
    if made != job_id:
        return await _made_before(made, run=run)
    return Created(await _existing(job_id), run_id)


async def update(actor: Actor, job_id: str, *, name: str | None, parts: Parts, settings: JobSettings = UNSET) -> Row:
    """Change a job's name, settings or parts of its input; a part that is None is taken away.

    The input as a whole must fit the tool again. Raises as `create`, and Conflict when others keep changing it.
    """
    valid_name = None if name is None else texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    given = job_inputs.canonical(parts)
    _check_settings(actor, settings)
    for _ in range(UPDATE_ATTEMPTS):
        row = await access.job(actor, job_id, to=Permission.JOB_WRITE)
        if valid_name is None and not given and not settings.given():
            return row
        spider_input = None
        if given:
            stored = await input_of(row["id"])
            spider_input = await checked_input(row, job_inputs.merged(given, stored=stored), given)
        async with unit_of_work():
            if await job_queries.update(
                row["id"], seen_at=row["updated_at"], name=valid_name, input=spider_input, settings=settings
            ):
                if settings.only_changes is False and row["only_changes"]:
                    await job_queries.forget_versions(row["id"])  # what runs store from now on is not noted
                changed = sorted([*given, *settings.given(), *(["name"] if valid_name is not None else [])])
                await _record(actor, "updateJob", row["id"], changed=changed)
                return await _existing(row["id"])
    raise Conflict("The job is being changed by others; look at it again.")


async def delete(actor: Actor, job_id: str) -> None:
    """Remove a job with its runs, their items, logs, files and exports.

    Raises Conflict while a run or an export waits or works.
    """
    row = await access.job(actor, job_id, to=Permission.JOB_WRITE)
    async with unit_of_work():
        is_idle = await job_queries.lock_idle(row["id"])
        if is_idle is None:
            raise access.missing()
        if not is_idle:
            raise Conflict("A run or an export of this job waits or works; cancel it first.")
        objects = await job_queries.stored_objects(row["id"])
        await job_queries.delete(row["id"])
        await _record(actor, "deleteJob", row["id"], name=row["name"], owner=str(row["owner_id"]))
        await events.publish(TotalsChanged(row["owner_id"]))
        for start in range(0, len(objects), OBJECTS_PER_EFFECT):
            _delete_after_commit(objects[start : start + OBJECTS_PER_EFFECT])


async def page(actor: Actor, **conditions: Any) -> list[Row]:
    """A page of the jobs that an actor may see; conditions as `models.job_queries.visible` takes them."""
    return await job_queries.visible(actor, **conditions)


async def count(actor: Actor, **conditions: Any) -> int:
    """How many there are in all."""
    return await job_queries.count_visible(actor, **conditions)


async def by_ids(job_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The jobs that exist among these; who may see which of them is the caller's concern."""
    return await job_queries.find(job_ids)


async def inputs(job_ids: Sequence[UUID]) -> dict[UUID, Any]:
    """The inputs of jobs."""
    return {job_id: database.from_json(text) for job_id, text in (await job_queries.inputs(job_ids)).items()}


async def input_of(job_id: UUID) -> dict[str, Any]:
    """The input of one job; raises NotFound."""
    found = await inputs([job_id])
    if job_id not in found:
        raise access.missing()
    spider_input: dict[str, Any] = found[job_id]
    return spider_input


def _check_settings(actor: Actor, settings: JobSettings) -> None:
    if settings.saves_products:
        access.allow(actor, Permission.PRODUCT_WRITE)
    if settings.alarm_percent is not None and not 0 <= settings.alarm_percent <= 100:
        raise ValidationFailed("`alarmPercent` must be between 0 and 100.", path=["input", "alarmPercent"])


async def usable_tool(actor: Actor, tool_id: str) -> Row:
    """An active tool; raises NotFound or Conflict."""
    try:
        tool = await access.tool(actor, tool_id, to=Permission.TOOL_READ, even_inactive=True)
    except NotFound as error:
        raise NotFound(error.message, path=["input", "toolId"]) from None
    if not tool["tool_is_active"]:
        raise inactive()
    return tool


async def checked_input(tool: Row, spider_input: dict[str, Any], given: Parts) -> dict[str, Any]:
    """The input, if it fits the tool and its spider; raises as `job_inputs.check`."""
    schemas = await tools.input_schemas([tool["tool_id"]])
    if tool["tool_id"] not in schemas:
        raise NotFound("The tool is gone.", path=["input", "toolId"])
    await job_inputs.check(
        spider_input,
        given=given,
        schema_text=schemas[tool["tool_id"]],
        spider=tool["tool_spider"],
        allowed_hosts=sessions.settings().crawl_allowed_hosts,
    )
    return spider_input


async def _refuse_too_many(owner_id: UUID) -> None:
    most = sessions.settings().max_jobs_per_user
    if await job_queries.count_owned(owner_id) >= most:
        raise Conflict(f"You have {most:,} jobs, which is the limit. Delete some first.", limit=most)


async def _made_before(job_id: UUID, *, run: bool) -> Created:
    """What the first use of an idempotency key made; the run was made with the job, so it is its first."""
    job = (await job_queries.find([job_id])).get(job_id)
    if job is None:
        raise Conflict("This key made a job that was deleted since.", path=["input", "idempotencyKey"])
    return Created(job, await job_queries.first_run(job_id) if run else None)


async def _existing(job_id: UUID) -> Row:
    job = (await job_queries.find([job_id])).get(job_id)
    if job is None:
        raise access.missing()
    return job


def inactive() -> Conflict:
    """The refusal of a tool that is switched off."""
    return Conflict("The tool is not active; no job can be made with it.", path=["input", "toolId"])


def _delete_after_commit(keys: Sequence[str]) -> None:
    async def delete_objects() -> None:
        await storage.current().delete(keys)

    after_commit(delete_objects)


async def _record(actor: Actor, action: str, job_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="job", target_id=job_id, details=details)
