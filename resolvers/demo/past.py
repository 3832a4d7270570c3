"""Executions that ended in the past, as the rows that workers leave: status, history and log fit each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from models.demo import DEMO_USER_ID
from models.executions import ExecutionStatus, Failure
from models.ids import id_at
from models.logs import LogLevel, NewLine, encode_lines, level_bits

WORKER: Final = "demo"
MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a log, so many seconds after the beginning of the work."""

    seconds: float
    stage: str
    message: str
    level: LogLevel = LogLevel.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An execution from its request to its end. `stages` and `lines` count seconds from the beginning of its work.

    Without `worked_seconds` it was cancelled while it waited. `is_asked_for` says that its owner asked for it.
    """

    kind: str
    queued_at: datetime
    status: ExecutionStatus
    timeout_seconds: float
    waited_seconds: float = 0.4
    worked_seconds: float | None = None
    stages: Sequence[tuple[float, str]] = ()
    lines: Sequence[Said] = ()
    progress: int = 100
    failure: Failure | None = None
    is_asked_for: bool = True
    turn_key: str | None = None
    cpu_seconds: float | None = None
    peak_megabytes: int | None = None
    id: UUID = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", id_at(self.queued_at))

    @property
    def started_at(self) -> datetime | None:
        """When its work began."""
        return None if self.worked_seconds is None else self.queued_at + timedelta(seconds=self.waited_seconds)

    @property
    def finished_at(self) -> datetime:
        """When it ended."""
        return self.queued_at + timedelta(seconds=self.waited_seconds + (self.worked_seconds or 0.0))

    def at(self, seconds: float) -> datetime:
        """A moment of its work."""
        return (self.started_at or self.finished_at) + timedelta(seconds=seconds)


def execution_rows(ended: Iterable[Ended]) -> list[dict[str, Any]]:
    """Rows of `executions`. Their logs move to storage as all finished ones do: at once, as they ended long ago."""
    return [_execution(each) for each in ended]


def event_rows(ended: Iterable[Ended]) -> list[dict[str, Any]]:
    """Rows of `execution_events`, each execution's in the order of time."""
    return [row for each in ended for row in _events(each)]


def log_rows(ended: Iterable[Ended]) -> list[dict[str, Any]]:
    """Rows of `log_chunks`."""
    return [
        {
            "execution_id": each.id,
            "first_sequence": 1,
            "line_count": len(each.lines),
            "levels": level_bits({line.level for line in each.lines}),
            "body": _log(each).decode(),
        }
        for each in ended
        if each.lines
    ]


def _log(ended: Ended) -> bytes:
    return encode_lines(
        NewLine(int(ended.at(line.seconds).timestamp() * 1_000), line.level, line.message, line.stage)
        for line in ended.lines
    )


def _execution(ended: Ended) -> dict[str, Any]:
    failure = ended.failure
    has_begun = ended.worked_seconds is not None
    return {
        "id": ended.id,
        "kind": ended.kind,
        "owner_id": DEMO_USER_ID,
        "requested_by_id": DEMO_USER_ID if ended.is_asked_for else None,
        "status": ended.status.value,
        "stage": ended.stages[-1][1] if ended.stages else None,
        "progress": ended.progress,
        "attempt": int(has_begun),
        "lost_workers": 0,
        "max_attempts": MAX_ATTEMPTS,
        "timeout_seconds": ended.timeout_seconds,
        "worked_seconds": ended.worked_seconds or 0.0,
        "claimed_at": ended.started_at,
        "cancel_requested_at": _cancel_requested_at(ended),
        "queued_at": ended.queued_at,
        "started_at": ended.started_at,
        "finished_at": ended.finished_at,
        "failure_code": failure and failure.code.value,
        "failure_message": failure and failure.message,
        "failure_stage": failure and failure.stage,
        "failure_exit_code": failure and failure.exit_code,
        "failure_retryable": bool(failure and failure.retryable),
        "turn_key": ended.turn_key,
        "cpu_milliseconds": None if ended.cpu_seconds is None else round(ended.cpu_seconds * 1_000),
        "peak_memory_bytes": ended.peak_megabytes and ended.peak_megabytes * 2**20,
        "log_sequence": len(ended.lines),
        "log_bytes": len(_log(ended)),
        "log_compaction_after": ended.finished_at if ended.lines else None,
    }


def _cancel_requested_at(ended: Ended) -> datetime | None:
    if ended.status is not ExecutionStatus.CANCELLED:
        return None
    return ended.finished_at - timedelta(seconds=min(1.5, (ended.worked_seconds or 0.0) / 2))


def _events(ended: Ended) -> list[dict[str, Any]]:
    asked_by = DEMO_USER_ID if ended.is_asked_for else None
    rows = [_event(ended, ended.queued_at, ExecutionStatus.QUEUED, user_id=asked_by)]
    if ended.started_at is not None:
        rows.append(_event(ended, ended.started_at, ExecutionStatus.RUNNING, worker=WORKER))
        rows += [
            _event(ended, ended.at(seconds), ExecutionStatus.RUNNING, stage=stage, worker=WORKER)
            for seconds, stage in ended.stages
        ]
    is_stopped_waiting = ended.started_at is None
    last = ended.stages[-1][1] if ended.stages else None
    user_id = DEMO_USER_ID if is_stopped_waiting else None
    return [*rows, _event(ended, ended.finished_at, ended.status, stage=last, user_id=user_id)]


def _event(
    ended: Ended,
    at: datetime,
    status: ExecutionStatus,
    *,
    stage: str | None = None,
    user_id: UUID | None = None,
    worker: str | None = None,
) -> dict[str, Any]:
    attempt = 0 if status is ExecutionStatus.QUEUED or ended.started_at is None else 1
    return {
        "execution_id": ended.id,
        "at": at,
        "status": status.value,
        "stage": stage,
        "attempt": attempt,
        "user_id": user_id,
        "worker": worker,
    }
