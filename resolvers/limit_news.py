"""What is said of refusals by rate limits: a line in the log, and an audit event where somebody tries to get in.

Invariants: a flood fills neither the disk nor the audit trail nor memory: of each subject there is at most one line per
ten seconds, and one event per minute, and after a thousand subjects in that time only one that there are others. Names
and e-mail addresses are pseudonyms. Each process counts for itself, and a database that is away does not change the
answer. What is refused is decided in `resolvers/limits.py`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from adapters.rate_limits import Policy
from errors import ErrorCode, ServiceUnavailable
from models.audit import AuditEvent
from models.database import database_errors
from models.permissions import Actor, Origin
from models.transaction import unit_of_work

LINE_SECONDS: Final = 10.0
EVENT_SECONDS: Final = 60.0
MOST_SUBJECTS: Final = 1_000
OTHERS: Final = "others"
"""Stands for every subject beyond the most that are told of."""

_AUDITED: Final = frozenset({"auth", "secondFactor"})
_log = structlog.get_logger("switchyard.limits")


class Recent:
    """What was told of within the last seconds, each policy and subject once, and never more than so many."""

    def __init__(
        self, seconds: float, *, most: int = MOST_SUBJECTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._told)

    def claim(self, policy: str, subject: str) -> str | None:
        """The name under which to tell of a subject now: its own, or `OTHERS`; None when it was told already."""
        now = self._clock()
        while self._told and next(iter(self._told.values())) <= now - self._seconds:
            self._told.popitem(last=False)
        if (policy, subject) in self._told:
            return None
        if len(self._told) >= self._most:
            subject = OTHERS
            if (policy, subject) in self._told:
                return None
        self._told[policy, subject] = now
        return subject


_lines = Recent(LINE_SECONDS)
_events = Recent(EVENT_SECONDS)


def log_refusal(policy: Policy, subject: str) -> None:
    """Write a line about a refusal; the request's id is in it by itself."""
    counted = _lines.claim(policy.name, _counted(subject))
    if counted is not None:
        _log.warning("rate_limited", policy=policy.name, counted=counted)


async def tell(policy: Policy, subject: str, origin: Origin | None) -> None:
    """Write a line about a refusal and, where somebody may be guessing, an audit event."""
    log_refusal(policy, subject)
    if policy.name not in _AUDITED:
        return
    counted = _events.claim(policy.name, _counted(subject))
    if counted is None:
        return
    kind, _, name = counted.partition(":")
    user_id = UUID(name) if kind in ("user", "device") else None
    named = {"identifierHash": name} if kind in ("account", "claim") else {}
    by = origin or Origin(request_id=structlog.contextvars.get_contextvars().get("request_id"))
    try:
        with database_errors():
            async with unit_of_work():
                await AuditEvent.record(
                    Actor(origin=by),
                    "rateLimit",
                    target_type="user" if user_id else None,
                    target_id=user_id,
                    outcome=ErrorCode.RATE_LIMIT_EXCEEDED.value,
                    details={"policy": policy.name, "reason": kind, **named},
                )
    except ServiceUnavailable as error:
        _log.warning("rate_limit_not_recorded", policy=policy.name, error=error.message)


def _counted(subject: str) -> str:
    """A subject as it is told of: users by their id whatever they are counted by, browsers by whose they are."""
    if ":" not in subject:
        return f"user:{subject}"
    kind, _, name = subject.partition(":")
    return f"device:{name.partition('.')[0]}" if kind == "device" else subject
