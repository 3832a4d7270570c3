"""Executions: queued work with exactly one final status.

The row is queue, lock, outbox and log cursor at once. Invariants kept by the database: a running row has a
worker and a lease, a final row has an end, a failed row has a failure, and a trigger refuses to change a
final status. Every write of a worker carries `attempt`, the fencing token; zero rows changed means that the
lease is lost. All times are PostgreSQL's. What a person asks for is in `models/execution_commands.py`, what a
worker does in `models/leases.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from tortoise import fields
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields import CASCADE, SET_NULL
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint
from tortoise.models import Model

from models.ids import new_id
from models.users import User


class ExecutionStatus(StrEnum):
    """The states of an execution; the last three are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the status can never change again."""
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset({ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})


class FailureCode(StrEnum):
    """Why an execution failed."""

    TIMED_OUT = "TIMED_OUT"
    WORKER_LOST = "WORKER_LOST"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CLONE_FAILED = "CLONE_FAILED"
    INSTALL_FAILED = "INSTALL_FAILED"
    COMMAND_FAILED = "COMMAND_FAILED"
    OUTPUT_MISSING = "OUTPUT_MISSING"
    OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE"
    LOG_LIMIT_EXCEEDED = "LOG_LIMIT_EXCEEDED"
    UPLOAD_FAILED = "UPLOAD_FAILED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INVALID_INPUT = "INVALID_INPUT"
    BLOCKED_URL = "BLOCKED_URL"
    START_ERROR = "START_ERROR"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why and where an execution failed; `retryable` says that the same input may succeed later."""

    code: FailureCode
    message: str
    stage: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one execution: what a worker holds while it works. `attempt` is the fencing token."""

    execution_id: UUID
    kind: str
    owner_id: UUID
    attempt: int
    stage: str | None
    log_sequence: int
    log_bytes: int
    remaining_seconds: float
    waited_seconds: float = 0.0
    """From the request to this claim."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What work took of its machine, as far as it was measured: None where nothing was.

    Processor time of all its processes, and the largest resident set that any one of them had.
    """

    cpu_milliseconds: int | None = None
    peak_memory_bytes: int | None = None

    def plus(self, *, cpu_milliseconds: int, peak_memory_bytes: int | None = None) -> Usage:
        """This and more: times add up, of peaks the larger one stays."""
        peaks = [peak for peak in (self.peak_memory_bytes, peak_memory_bytes) if peak is not None]
        return Usage((self.cpu_milliseconds or 0) + cpu_milliseconds, max(peaks, default=None))


NOT_MEASURED: Final = Usage()


class Execution(Model):
    """One piece of work; what its kind adds is in the kind's own table under the same id.

    Executions with the same `turn_key` run one at a time, in the order they were asked for.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    kind = fields.CharField(max_length=16)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    requested_by: fields.ForeignKeyNullableRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=SET_NULL, null=True
    )
    status = fields.CharEnumField(ExecutionStatus, max_length=16, default=ExecutionStatus.QUEUED)
    stage = fields.CharField(max_length=32, null=True)
    progress = fields.SmallIntField(default=0)
    attempt = fields.IntField(default=0)
    lost_workers = fields.SmallIntField(default=0)
    max_attempts = fields.SmallIntField()
    timeout_seconds = fields.FloatField()
    worked_seconds = fields.FloatField(default=0.0)
    worker = fields.CharField(max_length=64, null=True)
    lease_until = fields.DatetimeField(null=True)
    claimed_at = fields.DatetimeField(null=True)
    cancel_requested_at = fields.DatetimeField(null=True)
    queued_at = fields.DatetimeField(auto_now_add=True)
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    failure_code = fields.CharEnumField(FailureCode, max_length=32, null=True)
    failure_message = fields.TextField(null=True)
    failure_stage = fields.CharField(max_length=32, null=True)
    failure_exit_code = fields.IntField(null=True)
    failure_signal = fields.SmallIntField(null=True)
    failure_retryable = fields.BooleanField(default=False)
    turn_key = fields.CharField(max_length=200, null=True)
    cpu_milliseconds = fields.BigIntField(null=True)
    peak_memory_bytes = fields.BigIntField(null=True)
    log_sequence = fields.BigIntField(default=0)
    log_bytes = fields.BigIntField(default=0)
    log_object: fields.JSONField[dict[str, object]] = fields.JSONField(null=True)
    log_compaction_after = fields.DatetimeField(null=True)

    class Meta:
        """Table, invariants and the indexes of the queue."""

        table = "executions"
        constraints = (
            CheckConstraint(
                check="status IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')",
                name="executions_status_check",
            ),
            CheckConstraint(check="progress BETWEEN 0 AND 100", name="executions_progress_check"),
            CheckConstraint(
                check="(status = 'RUNNING') = (worker IS NOT NULL AND lease_until IS NOT NULL)",
                name="executions_lease_check",
            ),
            CheckConstraint(
                check="(status IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)",
                name="executions_finish_check",
            ),
            CheckConstraint(check="(status = 'FAILED') = (failure_code IS NOT NULL)", name="executions_failure_check"),
            CheckConstraint(check="cpu_milliseconds >= 0 AND peak_memory_bytes >= 0", name="executions_usage_check"),
        )
        indexes = (
            PostgreSQLIndex(
                fields=("kind", "owner_id", "queued_at"), name="executions_queue", condition={"status": "QUEUED"}
            ),
            PostgreSQLIndex(
                fields=("kind", "owner_id", "lease_until"), name="executions_leases", condition={"status": "RUNNING"}
            ),
            Index(fields=("owner_id", "kind", "id"), name="executions_owner"),
            Index(fields=("requested_by_id",), name="executions_requester"),
            Index(fields=("log_compaction_after",), name="executions_log_compaction"),
            PostgreSQLIndex(
                fields=("turn_key", "queued_at", "id"), name="executions_turns_waiting", condition={"status": "QUEUED"}
            ),
            PostgreSQLIndex(fields=("turn_key",), name="executions_turns_running", condition={"status": "RUNNING"}),
        )


class ExecutionEvent(Model):
    """One line of an execution's history: append-only, the source of durations and analytics."""

    id = fields.BigIntField(primary_key=True, generated=True)
    execution: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    at = fields.DatetimeField(auto_now_add=True)
    status = fields.CharEnumField(ExecutionStatus, max_length=16)
    stage = fields.CharField(max_length=32, null=True)
    attempt = fields.IntField()
    user_id = fields.UUIDField(null=True)
    worker = fields.CharField(max_length=64, null=True)

    class Meta:
        """Table and indexes."""

        table = "execution_events"
        indexes = (Index(fields=("execution_id", "id"), name="execution_events_execution"),)


class QueueTurn(Model):
    """When an owner was last served by a kind: the memory of fair claims."""

    id = fields.BigIntField(primary_key=True, generated=True)
    kind = fields.CharField(max_length=16)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    served_at = fields.DatetimeField()

    class Meta:
        """Table and key."""

        table = "queue_turns"
        unique_together = (("kind", "owner_id"),)


class LogChunk(Model):
    """Consecutive log lines of an execution as one row; `body` is one JSON array per line."""

    id = fields.BigIntField(primary_key=True, generated=True)
    execution: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    first_sequence = fields.BigIntField()
    line_count = fields.IntField()
    levels = fields.SmallIntField()
    body = fields.TextField()

    class Meta:
        """Table and key: two chunks can never hold the same line."""

        table = "log_chunks"
        unique_together = (("execution_id", "first_sequence"),)
        constraints = (CheckConstraint(check="line_count > 0 AND first_sequence > 0", name="log_chunks_lines_check"),)
