"""Schedules of jobs: when a job runs by itself, and what became of each moment that came.

A job has one schedule at most. Invariants: of a job and a moment there is one tick, whoever fires; a paused schedule
has no next run; a tick that waits is named by its schedule, and at most one does. Firing is `tasks/scheduler.py`'s.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.jobs import Job


class OverlapPolicy(StrEnum):
    """What becomes of a moment that comes while a run of the job waits or works."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"


class MissedRunPolicy(StrEnum):
    """What becomes of the newest of the moments at which no worker was there."""

    SKIP = "SKIP"
    RUN_ONCE = "RUN_ONCE"


class TickOutcome(StrEnum):
    """What became of a moment."""

    STARTED = "STARTED"
    QUEUED = "QUEUED"
    SKIPPED = "SKIPPED"
    MISSED = "MISSED"
    REFUSED = "REFUSED"


class TickReason(StrEnum):
    """Why a moment was skipped or its run refused."""

    STILL_RUNNING = "STILL_RUNNING"
    SCHEDULE_CHANGED = "SCHEDULE_CHANGED"
    TOOL_INACTIVE = "TOOL_INACTIVE"
    OWNER_INACTIVE = "OWNER_INACTIVE"
    QUEUE_FULL = "QUEUE_FULL"
    DAILY_LIMIT = "DAILY_LIMIT"


class JobSchedule(Model):
    """When a job runs by itself.

    `waiting_tick_at` is the moment whose run waits for another run's end. `pause_reason` says why the schedule was
    paused by itself; it is null when a person did. `inactive_tool_ticks` counts refusals in a row.
    """

    job: fields.OneToOneRelation[Job] = fields.OneToOneField(
        "models.Job", related_name=False, on_delete=CASCADE, primary_key=True
    )
    cron_expression = fields.CharField(max_length=100)
    time_zone = fields.CharField(max_length=64)
    is_paused = fields.BooleanField(default=False)
    pause_reason = fields.CharEnumField(TickReason, max_length=32, null=True)
    overlap_policy = fields.CharEnumField(OverlapPolicy, max_length=16)
    missed_run_policy = fields.CharEnumField(MissedRunPolicy, max_length=16)
    limits: fields.JSONField[dict[str, Any]] = fields.JSONField()
    next_run_at = fields.DatetimeField(null=True)
    last_run_at = fields.DatetimeField(null=True)
    waiting_tick_at = fields.DatetimeField(null=True)
    inactive_tool_ticks = fields.SmallIntField(default=0, db_default=0)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table, invariants and the indexes of what is due."""

        table = "job_schedules"
        constraints = (
            CheckConstraint(
                check="NOT is_paused OR (next_run_at IS NULL AND waiting_tick_at IS NULL)",
                name="job_schedules_pause_check",
            ),
            CheckConstraint(check="is_paused OR pause_reason IS NULL", name="job_schedules_reason_check"),
        )
        indexes = (
            Index(fields=("next_run_at",), name="job_schedules_due"),
            Index(fields=("waiting_tick_at",), name="job_schedules_waiting"),
        )


class ScheduleTick(Model):
    """What became of one moment of a job's schedule. `run_id` is kept when the run is deleted."""

    id = fields.BigIntField(primary_key=True, generated=True)
    job: fields.ForeignKeyRelation[Job] = fields.ForeignKeyField("models.Job", related_name=False, on_delete=CASCADE)
    tick_at = fields.DatetimeField()
    outcome = fields.CharEnumField(TickOutcome, max_length=16)
    reason = fields.CharEnumField(TickReason, max_length=32, null=True)
    run_id = fields.UUIDField(null=True)
    decided_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table and key."""

        table = "schedule_ticks"
        constraints = (
            UniqueConstraint(fields=("job_id", "tick_at"), name="schedule_ticks_once"),
            CheckConstraint(check="(outcome = 'STARTED') = (run_id IS NOT NULL)", name="schedule_ticks_run_check"),
        )
