"""The stages of a deployment, from the history of its execution: what was done when, and where it stopped.

Clients see three stages; the finer steps are the execution's `stage`. Times are those of the latest attempt, as an
earlier one that was lost says nothing about how long a build takes; one that waits for its next attempt is queued
again. An attempt begins with its first step, which is not written down when the attempt before ended in that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from models.database import Row
from models.deployments import DeploymentStep
from models.executions import ExecutionStatus


class DeploymentStageName(StrEnum):
    """The stages of every deployment, in their order."""

    QUEUED = "QUEUED"
    BUILDING = "BUILDING"
    DEPLOYING = "DEPLOYING"


class StageStatus(StrEnum):
    """Where a stage or a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


STEPS_OF: Final[dict[DeploymentStageName, tuple[DeploymentStep, ...]]] = {
    DeploymentStageName.QUEUED: (),
    DeploymentStageName.BUILDING: (
        DeploymentStep.CLONING,
        DeploymentStep.INSTALLING,
        DeploymentStep.BUILDING,
        DeploymentStep.COLLECTING,
    ),
    DeploymentStageName.DEPLOYING: (DeploymentStep.UPLOADING, DeploymentStep.PUBLISHING),
}
_STAGE_OF: Final = {step.value: stage for stage, steps in STEPS_OF.items() for step in steps}


@dataclass(frozen=True, slots=True)
class Span:
    """A stage or a step: when it ran and how it stands."""

    name: str
    status: StageStatus
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


def current_stage(row: Row) -> DeploymentStageName | None:
    """The stage that an execution is in, or ended in; None once it has succeeded."""
    if row["status"] == ExecutionStatus.SUCCEEDED:
        return None
    if row["started_at"] is None or row["status"] == ExecutionStatus.QUEUED:
        return DeploymentStageName.QUEUED
    return _STAGE_OF.get(row["stage"], DeploymentStageName.BUILDING)


def stages(row: Row, changes: Sequence[Row]) -> list[Span]:
    """The three stages, from a row of `models.execution_rows` and its changes (`deployment_queries.steps`)."""
    begun: dict[DeploymentStageName, datetime] = {DeploymentStageName.QUEUED: row["queued_at"]}
    for step, at in _begun_steps(changes).items():
        begun.setdefault(_STAGE_OF.get(step, DeploymentStageName.BUILDING), at)
    return _spans(row, [(stage.value, begun.get(stage)) for stage in DeploymentStageName])


def steps(row: Row, changes: Sequence[Row]) -> list[Span]:
    """The steps, likewise; one that was not needed is SKIPPED."""
    begun = _begun_steps(changes)
    return _spans(row, [(step.value, begun.get(step.value)) for step in DeploymentStep])


def _begun_steps(changes: Sequence[Row]) -> dict[str, datetime]:
    """When each step of the latest attempt began, in the order of time."""
    begun: dict[str, datetime] = {}
    for change in changes:
        if change["status"] == ExecutionStatus.QUEUED:
            begun = {}
        elif change["status"] == ExecutionStatus.RUNNING:
            begun.setdefault(change["stage"] or DeploymentStep.CLONING.value, change["at"])
    return begun


def _spans(row: Row, begun: Sequence[tuple[str, datetime | None]]) -> list[Span]:
    """Each span ends where the next one that ran begins, the last one where the execution does."""
    status = ExecutionStatus(row["status"])
    spans = []
    for place, (name, started_at) in enumerate(begun):
        next_start = next((later for _, later in begun[place + 1 :] if later is not None), None)
        if started_at is None:
            is_past = next_start is not None or status.is_final
            spans.append(Span(name, StageStatus.SKIPPED if is_past else StageStatus.PENDING, None, None, None))
        elif next_start is not None:
            spans.append(Span(name, StageStatus.SUCCEEDED, started_at, next_start, None))
        elif not status.is_final:
            spans.append(Span(name, StageStatus.RUNNING, started_at, None, None))
        else:
            error = row["failure_message"] if status is ExecutionStatus.FAILED else None
            spans.append(Span(name, StageStatus(status.value), started_at, row["finished_at"], error))
    return spans
