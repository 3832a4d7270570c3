"""The scheduler: in every worker, starts the runs that schedules ask for.

Each second one plain statement finds what is due, and each schedule is fired in a transaction of its own: the moment is
written down, the run made as `runJob` makes it, the next moment set. Invariants: a moment is fired once, however many
workers look; moments at which nobody was there never come as a burst; a schedule that cannot be fired holds no other
up. All times are PostgreSQL's; what is decided when is told in decision 0040.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from tortoise.exceptions import TransactionManagementError

from errors import Conflict, RateLimitExceeded, ServiceUnavailable
from models import cron, database, schedule_queries
from models.audit import AuditEvent
from models.database import Row, is_outage
from models.execution_commands import OWNER_INACTIVE
from models.ids import new_id
from models.jobs import RunTrigger
from models.permissions import Actor
from models.schedules import MissedRunPolicy, OverlapPolicy, TickOutcome, TickReason
from models.transaction import savepoint, unit_of_work
from settings import Settings
from tasks import outbox, schedule_news
from tasks.crawl import creation

LOOK_SECONDS: Final = 1.0
FIRED_AT_ONCE: Final = 100
GRACE_SECONDS: Final = 60.0
"""A moment that is older when this process begins to look was missed."""

BREAK_SECONDS: Final = 10.0
"""Who has not looked for so long was not there: frozen, or without a database."""

PAUSED_AFTER: Final = 10
"""Refusals in a row because of an inactive tool, after which a schedule pauses itself."""

HELD_UP_SECONDS: Final = 5.0
FAULTY_SECONDS: Final = 60.0
"""How long a schedule is passed over that met a lock, and one that failed for a reason nobody expected."""

# Somebody else has what one schedule needs, its owner's queue for one: the others can go on.
_HELD_UP: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.TransactionRollbackError)
_REASONS: Final = {creation.TOOL_INACTIVE: TickReason.TOOL_INACTIVE, OWNER_INACTIVE: TickReason.OWNER_INACTIVE}
_log = structlog.get_logger("switchyard.scheduler")


@dataclass(slots=True)
class Looks:
    """What one scheduler knows from look to look; times are of the monotonic clock."""

    passed_over: dict[UUID, float] = field(default_factory=dict)
    """Schedules that could not be fired, and until when they are not tried."""

    began_at: float = -math.inf
    """Since when it has been looking without a break: what came due after that waits for its turn, no more."""

    went_on_at: float = -math.inf

    def go_on(self) -> None:
        """It looks, or has fired one."""
        now = time.monotonic()
        if now - self.went_on_at > BREAK_SECONDS:
            self.began_at = now
        self.went_on_at = now


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What became of a moment."""

    tick_at: datetime
    outcome: TickOutcome
    reason: TickReason | None = None


async def run(settings: Settings) -> None:
    """Fire what is due each second until cancelled."""
    looks = Looks()
    while True:
        found = 0
        try:
            found = await fire_due(settings, looks)
        except Exception as error:
            if not _is_passing(error):
                raise
            _log.warning("schedules_not_fired", error=repr(error))
        if found < FIRED_AT_ONCE:
            # Workers that started together should not look together.
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only


async def fire_due(settings: Settings, looks: Looks) -> int:
    """Fire the schedules that have been due longest; how many were found.

    Raises what an outage of the database raises.
    """
    passed_over = looks.passed_over
    for job_id in [job_id for job_id, until in passed_over.items() if until <= time.monotonic()]:
        del passed_over[job_id]
    found = await schedule_queries.due(limit=FIRED_AT_ONCE, but_not=list(passed_over))
    looks.go_on()
    for job_id in found:
        try:
            async with unit_of_work():
                row = await schedule_queries.lock_due(job_id)
                if row is not None:
                    await _fire(settings, row, looking_for=time.monotonic() - looks.began_at)
        except _HELD_UP as error:
            passed_over[job_id] = time.monotonic() + HELD_UP_SECONDS
            _log.warning("schedule_held_up", job_id=str(job_id), error=repr(error))
        except Exception as error:
            if _is_passing(error):
                raise
            passed_over[job_id] = time.monotonic() + FAULTY_SECONDS
            _log.error("schedule_not_fired", job_id=str(job_id), exc_info=error)
        looks.go_on()
    return len(found)


async def _fire(settings: Settings, row: Row, *, looking_for: float) -> None:
    """Decide about all that is due of a locked schedule; `looking_for`: seconds since somebody is there to fire it."""
    has_waiting_run, has_working_run = await schedule_queries.busy(row["job_id"], row["owner_id"])
    waiting_tick: datetime | None = row["waiting_tick_at"]
    next_run_at: datetime | None = row["next_run_at"]
    verdicts: list[_Verdict] = []
    if waiting_tick is not None and not (has_waiting_run or has_working_run):
        verdicts.append(await _start(settings, row, waiting_tick))
        waiting_tick, has_waiting_run = None, verdicts[-1].outcome is TickOutcome.STARTED
    if next_run_at is not None and next_run_at <= row["now"]:
        past, next_run_at = _moments(row)
        newest = None if _is_missed(row, past[-1], looking_for) else past.pop()
        await schedule_queries.add_ticks(row["job_id"], past, TickOutcome.MISSED)
        if newest is not None:
            if has_waiting_run or waiting_tick is not None:
                overlap: TickOutcome | None = TickOutcome.SKIPPED
            elif has_working_run:
                may_wait = row["overlap_policy"] == OverlapPolicy.QUEUE
                overlap = TickOutcome.QUEUED if may_wait else TickOutcome.SKIPPED
            else:
                overlap = None
            if verdict := await _take(settings, row, newest, overlap):
                verdicts.append(verdict)
                waiting_tick = newest if verdict.outcome is TickOutcome.QUEUED else waiting_tick
    changes = {"next_run_at": next_run_at, "waiting_tick_at": waiting_tick}
    await schedule_queries.keep(row["job_id"], {**changes, **await _consequences(row, verdicts)})


def _moments(row: Row) -> tuple[list[datetime], datetime | None]:
    """The moments up to now that nobody has fired, as many as are kept, and the next one; None when none comes."""
    expression, tz = cron.parse(row["cron_expression"]), cron.zone(row["time_zone"])
    past = deque([row["next_run_at"]], maxlen=schedule_queries.KEPT_TICKS)
    for moment in cron.moments(expression, tz, after=row["next_run_at"]):
        if moment.at > row["now"]:
            return list(past), moment.at
        past.append(moment.at)
    return list(past), None


def _is_missed(row: Row, newest: datetime, looking_for: float) -> bool:
    """Whether nobody was there in time for the newest moment, and it shall not be made up for."""
    now: datetime = row["now"]
    is_late = now - newest > timedelta(seconds=GRACE_SECONDS + looking_for)
    return is_late and MissedRunPolicy(row["missed_run_policy"]) is MissedRunPolicy.SKIP


async def _take(settings: Settings, row: Row, tick_at: datetime, overlap: TickOutcome | None) -> _Verdict | None:
    """Write a moment down and, unless another run is in its way, start its run; None when somebody did so before."""
    if overlap is None:
        # Refused until it is started: whoever was first to write the row makes the run.
        is_first = await schedule_queries.add_ticks(row["job_id"], [tick_at], TickOutcome.REFUSED)
        return await _start(settings, row, tick_at) if is_first else None
    reason = TickReason.STILL_RUNNING if overlap is TickOutcome.SKIPPED else None
    is_first = await schedule_queries.add_ticks(row["job_id"], [tick_at], overlap, reason=reason)
    return _Verdict(tick_at, overlap, reason) if is_first else None


async def _start(settings: Settings, row: Row, tick_at: datetime) -> _Verdict:
    """Make the run of a moment that is written down, or write down why not."""
    run_id = new_id()
    verdict = _Verdict(tick_at, TickOutcome.STARTED)
    try:
        async with savepoint():
            await creation.start(
                settings,
                Actor(user_id=row["owner_id"]),
                run_id,
                row["job_id"],
                limits=database.from_json(row["limits"]),
                trigger=RunTrigger.SCHEDULE,
                action="runBySchedule",
            )
    except (Conflict, RateLimitExceeded) as refusal:
        verdict = _Verdict(tick_at, TickOutcome.REFUSED, _reason(refusal))
    await schedule_queries.change_tick(
        row["job_id"],
        tick_at,
        verdict.outcome,
        reason=verdict.reason,
        run_id=run_id if verdict.outcome is TickOutcome.STARTED else None,
    )
    return verdict


def _reason(refusal: Conflict | RateLimitExceeded) -> TickReason:
    """Why a run was refused; raises a refusal that schedules do not know."""
    if (reason := _REASONS.get(refusal.details.get("reason", ""))) is not None:
        return reason
    if isinstance(refusal, RateLimitExceeded):
        # The limit of a day says when that is over; the queue cannot know.
        return TickReason.DAILY_LIMIT if "resetsAt" in refusal.details else TickReason.QUEUE_FULL
    raise refusal


async def _consequences(row: Row, verdicts: Sequence[_Verdict]) -> dict[str, Any]:
    """What follows for the schedule itself; pauses it when its tool has been inactive for too long."""
    changes: dict[str, Any] = {}
    refusals: int = row["inactive_tool_ticks"]
    for verdict in verdicts:
        if verdict.outcome is TickOutcome.STARTED:
            refusals, changes["last_run_at"] = 0, verdict.tick_at
        elif verdict.reason is TickReason.TOOL_INACTIVE:
            refusals += 1
    if refusals < PAUSED_AFTER:
        return {**changes, "inactive_tool_ticks": refusals}
    await outbox.post(
        schedule_news.TOPIC,
        f"{row['job_id']}:{row['now'].isoformat()}",
        {"jobId": str(row["job_id"]), "ownerId": str(row["owner_id"]), "pausedAt": row["now"].isoformat()},
    )
    await AuditEvent.record(
        Actor(),
        "pauseBySystem",
        target_type="job",
        target_id=row["job_id"],
        details={"reason": TickReason.TOOL_INACTIVE.value, "refusals": refusals},
    )
    return {
        **changes,
        "is_paused": True,
        "pause_reason": TickReason.TOOL_INACTIVE.value,
        "next_run_at": None,
        "inactive_tool_ticks": refusals,
    }


def _is_passing(error: Exception) -> bool:
    """Whether the database is away or cut us off, and the same will work later."""
    return is_outage(error) or isinstance(error, TransactionManagementError | ServiceUnavailable)
