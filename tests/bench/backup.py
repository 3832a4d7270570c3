"""A backup of a million items and putting it back, against COPY alone, which writes nothing and checks nothing."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

import asyncpg

from models import database
from tests.bench.exports import FILL, ITEMS
from tests.bench.place import place
from tests.harness.databases import database_named, new_database
from tests.harness.processes import CLI

MEGABYTE: Final = 2**20


async def main() -> None:
    """Print seconds, MB of text in a second, peak memory and the ratio to COPY."""
    async with place() as here:
        run = await here.execution("CRAWL")
        await here.job_run_row(run)
        await here.db.execute(FILL, run, ITEMS, timeout=300)
        alone, size = await _copy_alone(here.environment["DATABASE_URL"])
        print(f"   COPY alone: {alone:.1f} s, {size / MEGABYTE / alone:,.0f} MB/s of {size / MEGABYTE:,.0f} MB of text")
        path = here.folder / "backup.tar"
        await _measured("backup", ["backup", str(path)], here.environment, size, alone)
        print(f"   the file: {path.stat().st_size / MEGABYTE:,.0f} MB")
        await _measured("verify", ["backup", "--verify", str(path)], here.environment, size, alone)
        server = database_named(here.environment["DATABASE_URL"], "postgres")
        async with new_database(server, "restored") as url:
            await database.migrate(url)
            environment = {**here.environment, "DATABASE_URL": url, "DATA_DIR": str(here.folder / "other")}
            await _measured("restore", ["restore", str(path)], environment, size, alone)


async def _copy_alone(url: str) -> tuple[float, int]:
    size = 0

    async def take(data: bytes) -> None:
        nonlocal size
        size += len(data)

    connection = await asyncpg.connect(url)
    began = time.monotonic()
    await connection.copy_from_query("SELECT * FROM items", output=take)
    seconds = time.monotonic() - began
    await connection.close()
    return seconds, size


async def _measured(name: str, arguments: list[str], environment: dict[str, str], size: int, alone: float) -> None:
    began = time.monotonic()
    log = Path(environment["DATA_DIR"]).parent / f"{name}.log"
    pid = os.posix_spawn(  # noqa: ASYNC221 - nothing else runs here
        sys.executable,
        [sys.executable, str(CLI), *arguments],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, str(log), os.O_CREAT | os.O_WRONLY, 0o600)],
    )
    _, status, usage = await asyncio.to_thread(os.wait4, pid, 0)
    seconds = time.monotonic() - began
    assert status == 0, log.read_text(encoding="utf-8")
    print(
        f"   {name}: {seconds:.1f} s, {size / MEGABYTE / seconds:,.0f} MB/s, {seconds / alone:.1f} times COPY, "
        f"peak {usage.ru_maxrss / 1024:,.0f} MiB, {usage.ru_utime + usage.ru_stime:.1f} s of processor time"
    )
