"""Automatic incidents: opened, made worse and ended by what probes say, and left to people once one has touched them.

Texts are public, so they say what users notice and nothing of hosts or errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from models import incident_queries
from models.database import Row
from models.status import SERVICE_NAMES, IncidentImpact, IncidentState
from tasks.status.verdicts import Condition, News

_IMPACT: Final = {News.FAILED: IncidentImpact.MAJOR, News.IMPAIRED: IncidentImpact.MINOR}
_TITLE: Final = {News.FAILED: "{name} is not available", News.IMPAIRED: "{name} is impaired"}
_MESSAGE: Final = {
    News.FAILED: "Automatic probes get no good answer since {since:%H:%M} UTC.",
    News.IMPAIRED: "Automatic probes find it slower or less reliable than it should be since {since:%H:%M} UTC.",
}
_WORSE: Final = "It is not available any more."
_log = structlog.get_logger("switchyard.status")


async def follow(connection: asyncpg.Connection, news: Iterable[tuple[News, Condition]]) -> bool:
    """Do what news of services, in their order, ask for; whether anything was said. Run it in the transaction."""
    known = await incident_queries.automatic(connection)
    has_spoken = False
    for told, condition in news:
        current = known.get(condition.service)
        if current is None and told is not News.RECOVERED:
            speaks = await _open(connection, told, condition)
        elif current is not None and current["taken_over_at"] is None:
            speaks = await _go_on(connection, current, told, condition)
        else:
            continue
        if speaks:
            has_spoken = True
            known = await incident_queries.automatic(connection)
    return has_spoken


async def _open(connection: asyncpg.Connection, told: News, condition: Condition) -> bool:
    since = condition.failing_since or condition.probed_at
    opened = await incident_queries.open_automatic(
        connection,
        condition.service,
        title=_TITLE[told].format(name=SERVICE_NAMES[condition.service]),
        impact=_IMPACT[told],
        started_at=since,
        at=condition.probed_at,
        message=_MESSAGE[told].format(since=since),
    )
    if opened is not None:
        _log.warning("incident_opened", service=condition.service.value, incident_id=str(opened))
    return opened is not None


async def _go_on(connection: asyncpg.Connection, current: Row, told: News, condition: Condition) -> bool:
    at = condition.probed_at
    if told is News.RECOVERED:
        lasted = at - current["started_at"]
        await incident_queries.say(
            connection,
            current["id"],
            message=f"It works again. From the first failure to the end it took {in_words(lasted)}.",
            at=at,
            state=IncidentState.RESOLVED,
        )
        _log.info("incident_resolved", service=condition.service.value, incident_id=str(current["id"]))
        return True
    if told is News.FAILED and current["impact"] == IncidentImpact.MINOR:
        title = _TITLE[told].format(name=SERVICE_NAMES[condition.service])
        await incident_queries.say(
            connection, current["id"], message=_WORSE, at=at, title=title, impact=IncidentImpact.MAJOR
        )
        return True
    return False


def in_words(lasted: timedelta) -> str:
    """A length of time for people: "7 minutes", "2 hours 5 minutes", "3 days 1 hour"; at least a minute."""
    minutes = max(1, round(lasted.total_seconds() / 60))
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    said = [f"{number} {unit}{'' if number == 1 else 's'}" for number, unit in parts if number]
    return " ".join(said[:2])
