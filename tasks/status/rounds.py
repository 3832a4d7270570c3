"""A round of probes: asked once per tick by one of the workers, written in one transaction, told if anything changed.

Invariants: a round that another one has overtaken, because its worker was frozen, writes nothing; time is the
database's. While the database is away no round can be taken or written, so each worker remembers since when it found
that itself, and the first round after it counts the probes that were missed as failures of the database, and of nothing
else: of the others nobody knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import aiohttp
import asyncpg
import structlog

from adapters import events
from adapters.storage import Storage
from models import incident_queries, status_queries
from models.database import Row
from models.events import StatusChanged
from models.status import Service, ServiceState
from settings import Settings
from tasks.periodic import every
from tasks.status import incidents, probes
from tasks.status.probes import DEADLINE_SECONDS, Probes, measured
from tasks.status.verdicts import PROBE_SECONDS, SEVERITY, Condition, Finding, News, advance, missed_probes, news_of

SETTLE_LOOK_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 20.0
FORGET_SECONDS: Final = 3_600.0
MAX_MISSED_SECONDS: Final = 86_400.0
_log = structlog.get_logger("switchyard.status")


async def run(settings: Settings, pool: asyncpg.Pool, storage: Storage) -> None:
    """Offer to probe, to check what is heavy, and to forget what is old, until cancelled."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Switchyard"},
        trust_env=False,
    ) as http:
        rounds = Rounds(pool, Probes(settings, pool, storage, http))
        await rounds.settle()
        async with asyncio.TaskGroup() as group:
            group.create_task(every(PROBE_SECONDS, "probes", pool, rounds.probe_once, missed=rounds.database_missed))
            group.create_task(every(FORGET_SECONDS, "forget-probes", pool, rounds.forget))
            if settings.worker_build_slots > 0:
                group.create_task(
                    every(probes.BUILD_CHECK_SECONDS, "check-builds", pool, lambda: probes.check_builds(settings, pool))
                )
            if settings.smtp_host:
                group.create_task(
                    every(probes.MAIL_CHECK_SECONDS, "check-mail", pool, lambda: probes.check_mail(settings, pool))
                )


class Rounds:
    """The rounds of one worker."""

    def __init__(self, pool: asyncpg.Pool, asked: Probes) -> None:
        self._pool = pool
        self._probes = asked
        self._lost: tuple[float, float] | None = None
        """First and last moment, by this process's clock, at which the database was found away."""

    async def settle(self) -> None:
        """Wait, for a while, until what may be starting with this worker is there: a start is no failure."""
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends:
            if await self._probes.started():
                return
            await asyncio.sleep(SETTLE_LOOK_SECONDS)

    async def probe_once(self, at: datetime | None = None) -> None:
        """One round, now unless another moment is said; raises what an outage of the database raises."""
        async with self._pool.acquire(timeout=DEADLINE_SECONDS) as connection:
            began = at or await status_queries.now(connection)
        outage = self._outage(began)
        found = await self._probes.light()
        async with self._pool.acquire(timeout=DEADLINE_SECONDS) as connection:
            await record(connection, found, began, outage=outage)
        self._lost = None

    async def database_missed(self) -> None:
        """A look failed: remember when, if the database is really away and not just our connections are busy."""
        seen = time.monotonic()
        finding = await measured(Service.DATABASE, self._probes.database)
        if finding.verdict is ServiceState.DOWN:
            self._lost = (self._lost[0] if self._lost else seen, time.monotonic())

    async def forget(self) -> None:
        """Drop what nobody is shown any more."""
        async with self._pool.acquire(timeout=DEADLINE_SECONDS) as connection:
            await status_queries.forget(connection)
            await incident_queries.forget(connection)

    def _outage(self, now: datetime) -> tuple[datetime, datetime] | None:
        if self._lost is None:
            return None
        clock = time.monotonic()
        first, last = (now - timedelta(seconds=clock - moment) for moment in self._lost)
        return max(first, now - timedelta(seconds=MAX_MISSED_SECONDS)), last


async def record(
    connection: asyncpg.Connection,
    found: Sequence[Finding],
    at: datetime,
    *,
    outage: tuple[datetime, datetime] | None = None,
) -> None:
    """Write what a round found that began at a moment, and what follows from it.

    `outage` is when the database was seen away. A round that began before one that is written already is dropped.
    """
    is_news = False
    async with connection.transaction():
        known = {name: _condition(row) for name, row in (await status_queries.begin(connection)).items()}
        if any(condition.probed_at >= at for condition in known.values()):
            _log.warning("probes_overtaken", at=at.isoformat())
            return
        probed_at = {name: condition.probed_at for name, condition in known.items()}
        findings = [*found, *probes.from_checks(await status_queries.checks(connection), at, probed_at)]
        steps = [*_missed(known.get(Service.DATABASE), outage, at), *((finding, at) for finding in findings)]
        counts: list[tuple[str, datetime, str, int, float | None]] = []
        changes: list[tuple[str, str, datetime]] = []
        news: list[tuple[News, Condition]] = []
        last_told: dict[Service, News | None] = {}
        for finding, moment in steps:
            before = known.get(finding.service)
            after = known[finding.service] = advance(before, finding, moment)
            counts.append((finding.service, moment, finding.verdict, SEVERITY[after.state], finding.milliseconds))
            if after.state is not (before.state if before else ServiceState.UNKNOWN):
                changes.append((after.service, after.state, after.since))
                _log.info("service_state", service=after.service.value, state=after.state.value)
            told = news_of(after)
            if told is not None and told is not last_told.get(after.service):
                news.append((told, after))
            last_told[after.service] = told
        await status_queries.count_probes(connection, counts)
        await status_queries.write_changes(connection, changes)
        await status_queries.write_conditions(connection, [_row(known[step[0].service]) for step in steps])
        is_news = bool(changes) | await incidents.follow(connection, news)
    if is_news:
        await events.publish(StatusChanged())


def _missed(
    database: Condition | None, outage: tuple[datetime, datetime] | None, at: datetime
) -> list[tuple[Finding, datetime]]:
    """The probes that an outage of the database kept from being made, unless another worker has counted them."""
    if outage is None or database is None:
        return []
    first, last = outage
    finding = Finding(Service.DATABASE, ServiceState.DOWN)
    begin = max(first - timedelta(seconds=PROBE_SECONDS), database.probed_at)
    return [(finding, moment) for moment in missed_probes(begin, at) if moment <= last]


def _condition(row: Row) -> Condition:
    return Condition(
        **{
            **row,
            "service": Service(row["service"]),
            "state": ServiceState(row["state"]),
            "verdict": ServiceState(row["verdict"]),
        }
    )


def _row(condition: Condition) -> tuple[object, ...]:
    return (
        *(condition.service, condition.state, condition.since, condition.verdict, condition.probed_at),
        *(condition.milliseconds, condition.failures, condition.impairments, condition.successes),
        condition.failing_since,
    )
