"""The probes: what each service is asked, and what its answer means.

Each probe ends within its time. What went wrong is in the log; nothing of it is public, for it may name hosts. What
answers, but slowly, is DEGRADED. Light probes are made together every round. Two are too heavy, or too much of a burden
on others, and are made now and then: a build in the runner's isolation, and a sign-in at the mail server.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
import asyncpg
import structlog
from redis.exceptions import RedisError

from adapters import ai, events, scanner
from adapters.mail import MailRefused, SmtpMailer, TransientMailError
from adapters.sandbox import open_runner
from adapters.sandbox.contract import RunnerUnavailable
from adapters.storage import Storage
from errors import SwitchyardError
from models import deployments, status_queries
from models.database import connect_alone
from models.status import Service, ServiceState
from settings import Settings
from tasks.status.verdicts import Finding

DEADLINE_SECONDS: Final = 5.0
SLOW_MILLISECONDS: Final = 1_000.0
LONG_WAIT_SECONDS: Final = 120.0
LOST_WAIT_SECONDS: Final = 300.0
BUILD_CHECK_SECONDS: Final = 120.0
MAIL_CHECK_SECONDS: Final = 300.0
CHECK_DEADLINE_SECONDS: Final = 40.0
FORGOTTEN_SECONDS: Final = 86_400.0
_CHECKED_EVERY: Final = {Service.BUILDS: BUILD_CHECK_SECONDS, Service.MAIL: MAIL_CHECK_SECONDS}
_ROUNDS_OF_A_CHECK: Final = 3
_SENTENCE: Final = "The delivery of the servers is delayed by four weeks."
_KEY: Final = "health/probe/status"  # always the same: a worker that is lost halfway leaves one object, not many
_FAULTS: Final = (
    *(OSError, TimeoutError, aiohttp.ClientError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError),
    *(SwitchyardError, ai.Unavailable, RunnerUnavailable, TransientMailError, MailRefused),
)
_log = structlog.get_logger("switchyard.status")

Probe = Callable[[], Awaitable[ServiceState]]


class NotWell(Exception):
    """A service answers, and not as it should."""


class Probes:
    """The probes of one process."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, storage: Storage, http: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._pool = pool
        self._storage = storage
        self._http = http

    async def light(self) -> list[Finding]:
        """Ask all services that every round asks, at once."""
        probes: Mapping[Service, Probe] = {
            Service.API: self._api,
            Service.DATABASE: self.database,
            Service.QUEUE: self._queue,
            Service.STORAGE: self._files,
            Service.AI_SERVICE: self._ai_service,
        }
        return list(await asyncio.gather(*(measured(service, probe) for service, probe in probes.items())))

    async def started(self) -> bool:
        """Whether the API and the AI service answer, which may be starting together with this worker."""
        found = await asyncio.gather(self._api(), self._ai_service(), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, (*_FAULTS, NotWell)):
                raise each
        return not any(isinstance(each, BaseException) for each in found)

    async def database(self) -> ServiceState:
        """Connect and ask; the pool is not asked, as a busy one says nothing of the server."""
        connection = await connect_alone(self._settings, command_timeout_seconds=DEADLINE_SECONDS)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            connection.terminate()
        return ServiceState.OPERATIONAL

    async def _api(self) -> ServiceState:
        base = self._settings.status_api_url or self._settings.base_url
        async with self._http.get(f"{base}/healthz", allow_redirects=False) as response:
            if response.status != 200:
                raise NotWell(f"status {response.status}")
        return ServiceState.OPERATIONAL

    async def _queue(self) -> ServiceState:
        """Whether Redis answers, without which work is found more slowly, and whether what waits is picked up."""
        state = ServiceState.OPERATIONAL
        async with self._pool.acquire(timeout=DEADLINE_SECONDS) as connection:
            waits = await status_queries.longest_waits(connection, deployments.KIND)
        for wait in waits:
            if wait["seconds"] >= LOST_WAIT_SECONDS and not wait["is_worked_on"]:
                raise NotWell(f"{wait['kind']} is not picked up")
            if wait["seconds"] >= LONG_WAIT_SECONDS:
                state = ServiceState.DEGRADED
        try:
            async with asyncio.timeout(DEADLINE_SECONDS / 2):
                await events.bus().redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("probe_failed", service=Service.QUEUE.value, error=repr(error))
            return ServiceState.DEGRADED
        return state

    async def _files(self) -> ServiceState:
        """Write, read and remove an object."""
        content = secrets.token_bytes(16)
        await self._storage.put(_KEY, content, content_type="application/octet-stream")
        async with aclosing(self._storage.get(_KEY)) as chunks:
            found = b"".join([chunk async for chunk in chunks])
        await self._storage.delete([_KEY])
        if found != content:
            raise NotWell("an object is not what was written")
        return ServiceState.OPERATIONAL

    async def _ai_service(self) -> ServiceState:
        service = ai.current()
        if service is None:
            await asyncio.to_thread(scanner.scan, _SENTENCE)
        else:
            await service.probe()
        return ServiceState.OPERATIONAL


async def measured(service: Service, probe: Probe, *, deadline_seconds: float = DEADLINE_SECONDS) -> Finding:
    """What a probe finds: DOWN when it fails or does not end in time, DEGRADED when its answer was slow."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(deadline_seconds):
            verdict = await probe()
    except (*_FAULTS, NotWell) as error:
        _log.warning("probe_failed", service=service.value, error=repr(error))
        return Finding(service, ServiceState.DOWN)
    milliseconds = (time.perf_counter() - started) * 1000
    if service not in _CHECKED_EVERY and milliseconds > SLOW_MILLISECONDS and verdict is ServiceState.OPERATIONAL:
        verdict = ServiceState.DEGRADED
    return Finding(service, verdict, milliseconds)


# -- what is checked now and then


async def check_builds(settings: Settings, pool: asyncpg.Pool) -> None:
    """Run a small build in isolation, and keep what came of it. Once more when it fails: it may have been us."""

    async def probe() -> ServiceState:
        await open_runner(settings).probe()
        return ServiceState.OPERATIONAL

    finding = await measured(Service.BUILDS, probe, deadline_seconds=CHECK_DEADLINE_SECONDS)
    if finding.verdict is ServiceState.DOWN:
        finding = await measured(Service.BUILDS, probe, deadline_seconds=CHECK_DEADLINE_SECONDS)
    await _keep(pool, finding)


async def check_mail(settings: Settings, pool: asyncpg.Pool) -> None:
    """Connect to the mail server as for a letter, and keep what came of it."""

    async def probe() -> ServiceState:
        await SmtpMailer(settings).probe()
        return ServiceState.OPERATIONAL

    await _keep(pool, await measured(Service.MAIL, probe, deadline_seconds=CHECK_DEADLINE_SECONDS))


async def _keep(pool: asyncpg.Pool, finding: Finding) -> None:
    async with pool.acquire(timeout=DEADLINE_SECONDS) as connection:
        await status_queries.write_check(connection, finding.service, finding.verdict, finding.milliseconds)


def from_checks(
    kept: Mapping[str, Mapping[str, Any]], at: datetime, probed_at: Mapping[str, datetime]
) -> list[Finding]:
    """What the checks of now and then say in this round; how long an answer took counts once.

    When no worker builds any more, there is nobody to make the check, and builds are DOWN; after a day this is how it
    is meant, and nothing is known.
    """
    findings = []
    for service, seconds in _CHECKED_EVERY.items():
        check = kept.get(service)
        if check is None:
            continue
        age = at - check["at"]
        if age <= timedelta(seconds=seconds * _ROUNDS_OF_A_CHECK):
            is_new = service not in probed_at or check["at"] > probed_at[service]
            findings.append(Finding(service, ServiceState(check["verdict"]), check["milliseconds"] if is_new else None))
        elif service is Service.BUILDS and age <= timedelta(seconds=FORGOTTEN_SECONDS):
            findings.append(Finding(service, ServiceState.DOWN))
    return findings
