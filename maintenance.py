"""What operators do with an installation: look after it, back it up, restore it, remove what is old.

The commands of `cli.py` that need more than a line. A backup goes to stdout when its file is `-`, so everything that is
said goes to stderr then. `--data FOLDER` is the folder of `make run`: its PostgreSQL is used if it runs, else started.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import asyncpg
import structlog

from adapters import embedded, garbage
from adapters.embedded import children, postgres_server, redis_server, supervisor
from errors import Conflict, ServiceUnavailable
from settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from tasks.backup.writing import Written

# `make run` provides these three, so their absence is no fault where they are not used.
PROVIDED = {
    "database_url": "postgres://embedded",
    "redis_url": "redis://embedded",
    "secret_keys": "k:" + base64.b64encode(bytes(32)).decode("ascii"),
}
NO_REDIS = "redis://127.0.0.1:9/0"
"""Refused at once: nobody listens on the port of `discard`."""

CHECKOUT = Path(__file__).resolve().parent
PRACTICE_PORT = 8900


# -- backup and restore


def backup(options: argparse.Namespace) -> int:
    """Write a backup, or check one; 1 when it is damaged."""
    if options.verify:
        return _verify(Path(options.file))
    written = asyncio.run(_backup(options.file, options.data))
    _say(
        f"The backup holds {written.rows:,} rows of {written.tables} tables and {written.objects:,} objects"
        f" ({written.object_bytes:,} bytes)."
    )
    if written.unnamed:
        _say(f"Left out: {written.unnamed:,} objects ({written.unnamed_bytes:,} bytes) that no row names.")
    for key in written.missing:
        _say(f"MISSING: storage has lost {key}, which a row names.")
    _say_keys(written.keys)
    return 0


def restore(options: argparse.Namespace) -> int:
    """Put a backup into an empty installation."""
    from adapters.storage import open_storage
    from tasks.backup import restoring

    if not options.file.is_file():
        _say(f"There is no file {options.file}.")
        return 2

    async def run() -> restoring.Restored:
        async with _installation(options.data, new=True) as settings, open_storage(settings) as storage:
            return await restoring.restore(settings, storage, options.file)

    with _outages(), garbage.seldom():
        restored = asyncio.run(run())
    _say(f"Restored {restored.rows:,} rows and {restored.objects:,} objects as they were at {restored.created_at}.")
    for name in restored.migrated:
        _say(f"Migrated the database: {name}")
    for key in restored.lost:
        _say(f"MISSING: {key} was lost when the backup was made.")
    if restored.missing_keys:
        _say(f"SECRET_KEYS LACKS {', '.join(restored.missing_keys)}: secrets sealed with it cannot be read. Add it.")
    _say("Everybody signs in anew: sessions are in no backup.")
    return 0


def _verify(path: Path) -> int:
    from tasks.backup import restoring

    if not path.is_file():
        _say(f"There is no file {path}.")
        return 2
    manifest = asyncio.run(restoring.verify(path))
    _say(
        f"{path} is whole: {manifest['rows']:,} rows and {manifest['objects']:,} objects"
        f" as they were at {manifest['createdAt']}, {manifest['migrations'][-1]}."
    )
    _say_keys(manifest["keys"])
    return 0


async def _backup(file: str, data: Path | None) -> Written:
    from adapters.storage import open_storage
    from tasks.backup import writing

    with _outages():
        async with _installation(data, new=False) as settings, open_storage(settings) as storage:
            if file == "-":
                return await writing.write(settings, storage, sys.stdout.buffer)
            with _whole_or_none(Path(file)) as part:
                return await writing.write(settings, storage, part)


@contextlib.contextmanager
def _whole_or_none(path: Path) -> Iterator[IO[bytes]]:
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@asynccontextmanager
async def _installation(data: Path | None, *, new: bool, with_redis: bool = False) -> AsyncIterator[Settings]:
    """The settings of an installation whose PostgreSQL runs: the environment's, or those of a folder of `make run`.

    `with_redis` names its Redis too; where none runs nobody hears, and nobody waits for it.
    """
    if data is None:
        absent = {"redis_url": PROVIDED["redis_url"]} if "REDIS_URL" not in os.environ else {}
        yield load(**absent)
        return
    folder = data.resolve()  # noqa: ASYNC240 - nothing else runs on this loop yet
    if not new and not (folder / "postgres").is_dir():
        raise SettingsError(f"{folder} is no folder of `make run`.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = os.environ.get("SECRET_KEYS")
    if given is None and not (folder / "secrets").is_file():
        raise SettingsError(f"Put the file `secrets` of the old installation into {folder}, or set SECRET_KEYS.")
    keys = given or children.private_text(folder / "secrets")
    if new:
        children.private_text(folder / "secrets", default=keys)  # or `make run` would make new ones
    redis_url = NO_REDIS if with_redis else PROVIDED["redis_url"]
    async with contextlib.AsyncExitStack() as stack:
        try:
            stack.callback(embedded.FolderLock(folder, what="Switchyard").release)
        except embedded.FolderBusy:
            url = postgres_server.running_url(folder)
            if with_redis:
                redis_url = redis_server.running_url(folder)
        else:
            url = (await stack.enter_async_context(embedded.postgres(folder))).url
        yield load(database_url=url, redis_url=redis_url, secret_keys=keys, data_dir=str(folder))


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError, TimeoutError) as error:
        raise ServiceUnavailable(
            f"The database failed: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _say_keys(keys: list[str]) -> None:
    if keys:
        _say(f"SECRET_KEYS IS NOT IN IT. Keep these keys elsewhere, or its secrets are lost: {', '.join(keys)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- what is old


def retention(options: argparse.Namespace) -> int:
    """Say how much is older than the settings keep it, or remove it now."""
    counts = asyncio.run(_retention(load(), dry_run=options.dry_run))
    for subject, count in counts.items():
        print(f"{subject:20} {count:>12,} {'would go' if options.dry_run else 'removed'}")
    return 0


async def _retention(settings: Settings, *, dry_run: bool) -> dict[str, int]:
    from tasks import retention as old

    with _outages():
        async with asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=2) as pool:
            found = await (old.report if dry_run else old.remove_old)(settings, pool)
    return {subject.value: count for subject, count in found.items()}


# -- sample data


def demo(options: argparse.Namespace) -> int:
    """Make the sample data, or remove it. Where it is there, or is not, nothing changes."""
    given = sys.stdin.readline().rstrip("\n") if options.password_stdin else None
    if given == "":
        _say("The password on stdin is empty.")
        return 2
    data = options.data
    if data is None and "DATABASE_URL" not in os.environ:
        data = Path(os.environ.get("DATA_DIR") or CHECKOUT / ".switchyard")
        if not (data / "postgres").is_dir():
            raise SettingsError(
                f"There is no installation in {data}: run `make run` first, or name its folder by --data."
            )
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with _outages(), garbage.seldom():
        asyncio.run(_demo(data, options, given))
    return 0


async def _demo(data: Path | None, options: argparse.Namespace, given: str | None) -> None:
    from adapters import events, github
    from adapters.storage import open_storage
    from models import backups, database
    from resolvers import sessions, users
    from resolvers.demo import account
    from tasks import queue

    async with contextlib.AsyncExitStack() as stack:
        settings = await stack.enter_async_context(_installation(data, new=False, with_redis=True))
        lock = await database.connect_alone(settings, command_timeout_seconds=database.COMMAND_TIMEOUT_SECONDS)
        stack.push_async_callback(lock.close)
        if set(database.known_migrations()) - set(await backups.migrations(lock)):
            raise Conflict("The database is older than this version: run `make run` or `switchyard migrate` first.")
        for opening in (
            database.connected(settings, pool_size=2),
            events.connected(settings),
            queue.connected(settings),
            github.connected(settings),
            sessions.opened(settings),
            open_storage(settings),
        ):
            await stack.enter_async_context(opening)
        url = settings.database_url.get_secret_value()
        pool = await stack.enter_async_context(
            asyncpg.create_pool(url, min_size=1, max_size=2, server_settings=database.SERVER_SETTINGS)
        )
        if options.remove:
            is_gone = await account.remove(lock, pool)
            print("The demo is removed with all that it had." if is_gone else "There is no demo here.")
            return
        password = given or users.new_password()
        made = await account.make(settings, lock, pool, password=password, among_others=options.yes)
        counted = ", ".join(f"{count:,} {name}" for name, count in made.counts.items() if count)
        if not made.is_new:
            print(f"The demo is there already, as {made.username}: {counted}. Nothing was changed.")
            print("Its password was shown when it was made; `demo --remove` and `demo` make it anew.")
            return
        print(f"The demo is made: {counted}.")
        print(
            f"Sign in as {made.username}"
            + (". " if given else f" with the password {password}   (shown only this once)")
        )
        is_served = await supervisor.http_status("127.0.0.1", PRACTICE_PORT, "/shop/oak-lamp") == 200
        if not options.history_only and is_served and (started := await account.run_jobs()):
            print(f"{started} of its jobs run on the practice site at this moment.")


# -- doctor


def doctor(options: argparse.Namespace) -> int:
    """Print one line for each check, or JSON; 1 when something is wrong."""
    from adapters.doctor import Finding, examine
    from adapters.doctor_service import examine_service
    from tasks.crawl.crawler.classes import faulty_spiders

    absent = {name: value for name, value in PROVIDED.items() if name.upper() not in os.environ}
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if options.json:
            return
        print(f"{'ok' if finding.ok else 'problem':8} {finding.subject}: {finding.detail}", flush=True)
        if not finding.ok:
            print(f"{'':8} → {finding.advice}", flush=True)

    async def examine_all(settings: Settings) -> None:
        async for finding in examine(settings, own_postgres="database_url" in absent, own_redis="redis_url" in absent):
            report(finding)
        async for finding in examine_service(settings, has_database="database_url" not in absent):
            report(finding)

    try:
        settings = load(**absent)
    except SettingsError as error:
        report(Finding("Settings", False, str(error), "correct these variables"))
    else:
        by_run = ", ".join(name.upper() for name in absent)
        report(Finding("Settings", True, f"valid; `make run` provides {by_run}" if by_run else "valid"))
        asyncio.run(examine_all(settings))
        for name, package, reason in faulty_spiders():
            report(Finding(f"Spider {name}", False, f"{package}: {reason}", "correct or remove that package"))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    return 0 if all(finding.ok for finding in findings) else 1
