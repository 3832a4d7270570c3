"""From what probes find to the state of a service: pure rules, with the time as an argument.

Invariants: one probe that differs from all others changes nothing that users see; an incident needs several probes in a
row, and so does its end. Nothing is concluded over a gap in which nobody probed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from models.status import Service, ServiceState

PROBE_SECONDS: Final = 30.0
STALE_SECONDS: Final = 90.0
"""After so long without a probe a state is not known any more."""

FAILURES_OF_AN_INCIDENT: Final = 4
IMPAIRMENTS_OF_AN_INCIDENT: Final = 10
SUCCESSES_OF_AN_END: Final = 4

SEVERITY: Final = {
    ServiceState.UNKNOWN: 0,
    ServiceState.OPERATIONAL: 1,
    ServiceState.DEGRADED: 2,
    ServiceState.DOWN: 3,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found. `milliseconds` is how long the answer took; None when there was none."""

    service: Service
    verdict: ServiceState
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """How a service is, as `models.status.ServiceCondition` keeps it."""

    service: Service
    state: ServiceState
    since: datetime
    verdict: ServiceState
    probed_at: datetime
    milliseconds: float | None = None
    failures: int = 0
    impairments: int = 0
    successes: int = 0
    failing_since: datetime | None = None


class News(Enum):
    """What a probe means for the incident of its service."""

    IMPAIRED = "impaired"
    FAILED = "failed"
    RECOVERED = "recovered"


def advance(before: Condition | None, finding: Finding, at: datetime) -> Condition:
    """The condition after one more probe.

    The state is the one in the middle of the state so far, the last verdict and this one, so it takes two probes that
    agree on better or on worse. A state that is not known, at first or after a gap, becomes OPERATIONAL at once and
    anything else with the second probe: programs that start together find each other a little later.
    """
    if before is None or at - before.probed_at > timedelta(seconds=STALE_SECONDS):
        before = Condition(finding.service, ServiceState.UNKNOWN, at, ServiceState.UNKNOWN, at)
    verdict = finding.verdict
    if before.state is not ServiceState.UNKNOWN:
        state = sorted((before.state, before.verdict, verdict), key=SEVERITY.__getitem__)[1]
    elif verdict is ServiceState.OPERATIONAL:
        state = verdict
    else:
        state = min(before.verdict, verdict, key=SEVERITY.__getitem__)
    is_good, is_down = verdict is ServiceState.OPERATIONAL, verdict is ServiceState.DOWN
    return Condition(
        service=finding.service,
        state=state,
        # It began with the first of the two probes.
        since=before.since if state is before.state else before.probed_at,
        verdict=verdict,
        probed_at=at,
        milliseconds=finding.milliseconds,
        failures=before.failures + 1 if is_down else 0,
        impairments=0 if is_good else before.impairments + 1,
        successes=before.successes + 1 if is_good else 0,
        failing_since=None if is_good else before.failing_since or at,
    )


def news_of(condition: Condition) -> News | None:
    """What a condition that a probe has just made means for the incident of the service."""
    if condition.failures >= FAILURES_OF_AN_INCIDENT:
        return News.FAILED
    if condition.impairments >= IMPAIRMENTS_OF_AN_INCIDENT:
        return News.IMPAIRED
    if condition.successes >= SUCCESSES_OF_AN_END:
        return News.RECOVERED
    return None


def missed_probes(after: datetime, before: datetime) -> list[datetime]:
    """When probes should have been between two moments, both left out."""
    count = int((before - after).total_seconds() / PROBE_SECONDS)
    moments = (after + timedelta(seconds=PROBE_SECONDS * number) for number in range(1, count + 1))
    return [moment for moment in moments if moment < before]
