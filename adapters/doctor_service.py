"""What `switchyard doctor` looks at in an installation that is there: its database, who works, mail, its address.

As in `doctor.py`, each check answers with findings and shows no password. A database that
fails is a finding, and its other checks are left out.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import zoneinfo
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from adapters.doctor import ANSWER_SECONDS, Finding
from adapters.mail.contract import TransientMailError
from adapters.mail.smtp import SmtpMailer
from models import backups, database
from settings import Settings, SmtpSecurity

MIN_FREE_BYTES: Final = 2 * 2**30
MAX_CLOCK_SECONDS: Final = 2.0
MAX_WAIT_SECONDS: Final = 600.0
MAX_OUTBOX_SECONDS: Final = 3_600.0


async def examine_service(settings: Settings, *, has_database: bool) -> AsyncIterator[Finding]:
    """Look at the disk, time zones and dangerous settings, and at the service itself when a database is named."""
    yield check_disk(settings.data_dir)
    yield check_time_zones()
    for finding in check_production(settings):
        yield finding
    if has_database:
        try:
            async with asyncio.timeout(4 * ANSWER_SECONDS):
                for finding in await check_database(settings):
                    yield finding
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            yield Finding(
                "Installation", False, f"{type(error).__name__} when asked", "see PostgreSQL above and its log"
            )
    if settings.smtp_host is not None:
        yield await check_mail(settings)
    if settings.is_production:
        yield await check_address(settings)


def check_disk(folder: Path) -> Finding:
    """There is room where the data are."""
    nearest = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    told = f"{free / 2**30:,.1f} GiB free at {nearest}"
    return Finding("Disk", free >= MIN_FREE_BYTES, told, "make room: databases stop when a disk is full")


def check_time_zones() -> Finding:
    """Schedules can name time zones."""
    count = len(zoneinfo.available_timezones())
    return Finding("Time zones", count > 400, f"{count} known", "install the package tzdata")


def check_production(settings: Settings) -> list[Finding]:
    """Settings that are for one's own machine, in production; one finding for each, or one that says all is well."""
    if not settings.is_production:
        return []
    dangers = {
        "RATE_LIMITS": (not settings.rate_limits, "calls are not counted: set it to true"),
        "SMTP_HOST": (settings.smtp_host is None, "mail goes to a folder that nobody reads: name a mail server"),
        "SMTP_SECURITY": (
            settings.smtp_host is not None and settings.smtp_security is SmtpSecurity.NONE,
            "passwords and letters travel in clear: use starttls or tls",
        ),
        "CRAWL_ALLOWED_HOSTS": (bool(settings.crawl_allowed_hosts), "crawls reach these private addresses: empty it"),
        "BUILD_ALLOWED_HOSTS": (bool(settings.build_allowed_hosts), "builds reach these private addresses: empty it"),
        "WEBHOOK_ALLOWED_HOSTS": (
            bool(settings.webhook_allowed_hosts),
            "webhooks reach these private addresses: empty it",
        ),
    }
    found = [Finding(name, False, "dangerous", advice) for name, (is_so, advice) in dangers.items() if is_so]
    return found or [Finding("Production", True, "no setting is dangerous")]


async def check_database(settings: Settings) -> list[Finding]:
    """Migrations, the clock, what waits, who works and what was not told."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value(), timeout=ANSWER_SECONDS)
    try:
        behind = set(database.known_migrations()) - set(await backups.migrations(connection))
        if behind:
            told = f"{len(behind)} not applied, {min(behind)} first"
            return [Finding("Migrations", False, told, "run `switchyard migrate`")]
        before = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        ahead = theirs - (before + time.time()) / 2
        found = await connection.fetchrow(
            """SELECT
                 (SELECT count(*) FROM processes WHERE role = 'WORKER' AND expires_at > now()) AS workers,
                 (SELECT count(*) FROM executions WHERE status = 'QUEUED') AS queued,
                 (SELECT extract(epoch FROM now() - min(queued_at))::float8 FROM executions
                  WHERE status = 'QUEUED') AS waited,
                 (SELECT count(*) FROM outbox_messages WHERE given_up_at IS NULL) AS untold,
                 (SELECT extract(epoch FROM now() - min(created_at))::float8 FROM outbox_messages
                  WHERE given_up_at IS NULL) AS untold_for,
                 (SELECT count(*) FROM outbox_messages WHERE given_up_at IS NOT NULL) AS given_up"""
        )
    finally:
        await connection.close(timeout=ANSWER_SECONDS)
    waited, untold_for = found["waited"] or 0.0, found["untold_for"] or 0.0
    is_idle = found["workers"] == 0 and found["queued"] > 0
    return [
        Finding("Migrations", True, "up to date"),
        Finding(
            "Clock",
            abs(ahead) <= MAX_CLOCK_SECONDS,
            f"{abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} the database's",
            "let both machines follow a time server",
        ),
        Finding(
            "Workers",
            not is_idle and waited <= MAX_WAIT_SECONDS,
            f"{found['workers']} at work, {found['queued']} executions wait, the oldest for {waited:,.0f} s",
            "start a worker: `switchyard worker`" if is_idle else "start more workers",
        ),
        Finding(
            "Outbox",
            untold_for <= MAX_OUTBOX_SECONDS and not found["given_up"],
            f"{found['untold']} messages wait, the oldest for {untold_for:,.0f} s; {found['given_up']} given up",
            "look at last_error in outbox_messages: mail, GitHub or storage does not answer",
        ),
    ]


async def check_mail(settings: Settings) -> Finding:
    """The mail server lets us in."""
    place = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            await SmtpMailer(settings).probe()
    except TimeoutError:
        return Finding("Mail", False, f"{place}: no answer", "check the SMTP_ settings")
    except (OSError, TransientMailError) as error:
        return Finding("Mail", False, f"{place}: {error}", "check the SMTP_ settings")
    return Finding("Mail", True, place)


async def check_address(settings: Settings) -> Finding:
    """BASE_URL leads to the service."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session,
            session.get(f"{settings.base_url}/healthz", allow_redirects=False) as answer,
        ):
            status = answer.status
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        return Finding("Address", False, f"{settings.base_url}: {type(error).__name__}", "check BASE_URL and the proxy")
    return Finding("Address", status == 200, f"{settings.base_url} answers {status}", "check BASE_URL and the proxy")
