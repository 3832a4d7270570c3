"""Schedules of jobs: set, paused, resumed, taken away, and shown before they are.

Invariants: what is stored can be read and comes at least once in the years that are searched; a schedule goes on from
now, never from a moment in the past. What fires them is `tasks/scheduler.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from errors import Conflict, NotFound, ValidationFailed
from models import cron, job_queries, schedule_queries
from models.audit import AuditEvent
from models.cron import CronFault, Expression, Moment, UnknownZone
from models.database import Row
from models.permissions import Actor, Permission
from models.schedules import MissedRunPolicy, OverlapPolicy
from models.transaction import unit_of_work
from resolvers import access, runs, sessions

MAX_SHOWN: Final = 50
NOTED: Final = 5
"""How many of the next runs a note is about."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule runs: what its expression and its time zone say."""

    expression: Expression
    zone: ZoneInfo

    def next_runs(self, *, after: datetime, first: int) -> list[Moment]:
        """The next runs after a moment, fewer where the years that are searched have no more."""
        return list(islice(cron.moments(self.expression, self.zone, after=after), first))

    def runs_from(self, begin: datetime, *, first: int) -> list[Moment]:
        """A run and those that follow it."""
        return self.next_runs(after=begin - timedelta(seconds=1), first=first)

    def note(self, runs_shown: Sequence[Moment]) -> str | None:
        """What a change of the clocks does to the first runs, in a sentence."""
        return cron.note(self.expression, runs_shown[:NOTED], self.zone)


async def put(
    actor: Actor,
    job_id: str,
    *,
    cron_expression: str,
    time_zone: str,
    is_paused: bool | None,
    overlap_policy: OverlapPolicy,
    missed_run_policy: MissedRunPolicy,
    limits: Mapping[str, int] | None,
) -> Row:
    """Give a job a schedule, in the place of one that it may have; the job.

    Raises ValidationFailed with the path of what cannot be read or comes too often or never, Conflict when the owner
    has as many schedules as they may.
    """
    job = await access.job(actor, job_id, to=Permission.JOB_WRITE)
    access.allow(actor, Permission.JOB_RUN)
    timing = read(cron_expression, time_zone, path=["input"])
    checked_limits = runs.check_limits(limits or {})
    async with unit_of_work():
        most = sessions.settings().max_schedules_per_user
        if await schedule_queries.count_others(job["owner_id"], job["id"]) >= most:
            raise Conflict(f"You have {most:,} schedules, which is the limit. Delete some first.", limit=most)
        is_there = await schedule_queries.put(
            job["id"],
            cron_expression=timing.expression.text,
            time_zone=timing.zone.key,
            is_paused=is_paused,
            overlap_policy=overlap_policy,
            missed_run_policy=missed_run_policy,
            limits=checked_limits,
            next_run_at=await _next_run(timing),
        )
        if not is_there:
            raise access.missing()
        await _record(actor, "setJobSchedule", job["id"], cron=timing.expression.text, zone=timing.zone.key)
        return await _existing(job["id"])


async def pause(actor: Actor, job_id: str) -> Row:
    """Let a schedule wait; the job. One that is paused stays as it is. Raises NotFound where there is none."""
    job = await access.job(actor, job_id, to=Permission.JOB_WRITE)
    async with unit_of_work():
        schedule = await _lock(job["id"])
        if not schedule["schedule_is_paused"]:
            await schedule_queries.pause(job["id"])
            await _record(actor, "pauseJobSchedule", job["id"])
        return await _existing(job["id"])


async def resume(actor: Actor, job_id: str) -> Row:
    """Let a schedule go on from now; the job. One that is not paused stays as it is."""
    job = await access.job(actor, job_id, to=Permission.JOB_WRITE)
    access.allow(actor, Permission.JOB_RUN)
    async with unit_of_work():
        schedule = await _lock(job["id"])
        if schedule["schedule_is_paused"]:
            await schedule_queries.resume(job["id"], next_run_at=await _next_run(timing_of(schedule)))
            await _record(actor, "resumeJobSchedule", job["id"])
        return await _existing(job["id"])


async def delete(actor: Actor, job_id: str) -> Row:
    """Take a schedule away with its history; the job. Its runs stay."""
    job = await access.job(actor, job_id, to=Permission.JOB_WRITE)
    async with unit_of_work():
        await _lock(job["id"])
        await schedule_queries.delete(job["id"])
        await _record(actor, "deleteJobSchedule", job["id"])
        return await _existing(job["id"])


async def preview(cron_expression: str, time_zone: str, *, first: int) -> tuple[Timing, list[Moment]]:
    """The next runs that a schedule would have; raises ValidationFailed as `put` does."""
    _refuse_size(first)
    timing = read(cron_expression, time_zone, path=[])
    return timing, timing.next_runs(after=await schedule_queries.now(), first=first)


def next_runs(schedule: Row, *, first: int) -> list[Moment]:
    """The next runs of a stored schedule, none while it is paused."""
    _refuse_size(first)
    begin = schedule["schedule_next_run_at"]
    return [] if begin is None else timing_of(schedule).runs_from(begin, first=first)


def timing_of(schedule: Row) -> Timing:
    """When a stored schedule runs."""
    return Timing(cron.parse(schedule["schedule_cron_expression"]), cron.zone(schedule["schedule_time_zone"]))


def read(cron_expression: str, time_zone: str, *, path: Sequence[str]) -> Timing:
    """What an expression and a zone mean; raises ValidationFailed with the path of the one that is wrong."""
    try:
        expression = cron.parse(cron_expression)
    except CronFault as fault:
        raise ValidationFailed(str(fault), path=[*path, "cronExpression"]) from None
    try:
        timing = Timing(expression, cron.zone(time_zone))
    except UnknownZone as fault:
        raise ValidationFailed(str(fault), path=[*path, "timeZone"]) from None
    least = sessions.settings().schedule_min_seconds
    if least > 60 and cron.shortest_pause_minutes(expression) * 60 < least:
        raise ValidationFailed(
            f"There must be {least:,} seconds or more between two runs.", path=[*path, "cronExpression"], minimum=least
        )
    return timing


async def by_jobs(job_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The schedules of jobs; who may see which of them is the caller's concern."""
    return await schedule_queries.find(job_ids)


async def ticks(job_id: UUID, **page: Any) -> list[Row]:
    """A page of what became of the moments of a schedule, whose job the caller may see."""
    return await schedule_queries.ticks(job_id, **page)


async def count_ticks(job_id: UUID) -> int:
    """How many there are in all."""
    return await schedule_queries.count_ticks(job_id)


async def _next_run(timing: Timing) -> datetime:
    found = timing.next_runs(after=await schedule_queries.now(), first=1)
    if not found:
        raise ValidationFailed("This never comes in the next nine years.", path=["input", "cronExpression"])
    return found[0].at


async def _lock(job_id: UUID) -> Row:
    schedule = await schedule_queries.lock(job_id)
    if schedule is None:
        raise NotFound("The job has no schedule.", path=["input", "jobId"])
    return schedule


async def _existing(job_id: UUID) -> Row:
    job = (await job_queries.find([job_id])).get(job_id)
    if job is None:
        raise access.missing()
    return job


def _refuse_size(first: int) -> None:
    if not 1 <= first <= MAX_SHOWN:
        raise ValidationFailed(f"`first` must be between 1 and {MAX_SHOWN}.", path=["first"])


async def _record(actor: Actor, action: str, job_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="job", target_id=job_id, details=details)
