"""What processes tell each other: that something changed, never what it is now.

Readers fetch the truth from PostgreSQL, so a lost event costs latency and a forged one nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ExecutionChanged:
    """Status, stage, progress or result of an execution changed."""

    execution_id: UUID
    owner_id: UUID


@dataclass(frozen=True, slots=True)
class LogAppended:
    """The log of an execution has lines up to `last_sequence`."""

    execution_id: UUID
    last_sequence: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked a running execution to stop."""

    execution_id: UUID


@dataclass(frozen=True, slots=True)
class SessionsChanged:
    """Sessions or rights of a user changed: check them before the next answer."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class SiteChanged:
    """An address of a project leads elsewhere now."""

    project_id: UUID


@dataclass(frozen=True, slots=True)
class NotificationAdded:
    """A user has a new notification."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class OutboxFilled:
    """The outbox has a message that need not wait for the next look."""


@dataclass(frozen=True, slots=True)
class TotalsChanged:
    """Something that is counted came or went without an execution to tell of: a project, or what was deleted."""

    owner_id: UUID


class StatusChanged:
    """A service has another state, or something was said of an incident."""


Event = (
    ExecutionChanged
    | LogAppended
    | CancelRequested
    | SessionsChanged
    | SiteChanged
    | NotificationAdded
    | OutboxFilled
    | TotalsChanged
    | StatusChanged
)
