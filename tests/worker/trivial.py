"""Kinds that do as they are told, and a worker that runs them, for tests of the engine.

What a run shall do is in its row of `trivial_runs`; its effect is one row in `trivial_effects`, written in the
transaction that ends it, and every attempt leaves a row in `trivial_starts`. The environment names the kinds and their
slots, `TRIVIAL_KINDS=ONE:4,TWO:1`, so that scenarios which share a database do not meet.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import orjson

import settings
from adapters import garbage
from adapters.line_streams import line_batches
from adapters.storage import Storage
from adapters.structured_logs import set_up_logging
from models.executions import ExecutionStatus, FailureCode
from models.leases import LeaseLost
from models.logs import LogLevel
from settings import Settings
from tasks import worker
from tasks.work import Outcome, Work

TABLES = """
CREATE TABLE IF NOT EXISTS trivial_runs (execution_id uuid PRIMARY KEY, steps text NOT NULL);
CREATE TABLE IF NOT EXISTS trivial_starts (execution_id uuid, attempt int);
CREATE TABLE IF NOT EXISTS trivial_effects (execution_id uuid, attempt int);
"""

# Beats twenty times a second, into a file and to its output; `daring` adds a daemon, made as daemons are; both ignore
# SIGTERM and beat so fast that none of them could live on unseen.
BEAT = """
import os, signal, sys, time
path, attempt, seconds, daring = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "daring"
if daring:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
end = time.monotonic() + seconds
number = 0
with open(path, "a", buffering=1) as file:
    while time.monotonic() < end:
        number += 1
        file.write(f"{attempt} {time.time()}\\n")
        print(f"attempt {attempt} beat {number}", flush=True)
        time.sleep(0.005 if daring else 0.05)
"""


class TrivialKind:
    """Does the steps of its row, one after the other."""

    is_short = False
    cancel_grace_seconds = 0.0
    timeout_grace_seconds = 0.0

    def __init__(self, name: str, slots: int, *, running_per_owner: int, folder: Path) -> None:
        self.name = name
        self.slots = slots
        self.running_per_owner = running_per_owner
        self._folder = folder

    async def run(self, work: Work) -> Outcome:
        async with work.transaction() as connection:
            steps = orjson.loads(
                await connection.fetchval("SELECT steps FROM trivial_runs WHERE execution_id = $1", work.id)
            )
            await connection.execute("INSERT INTO trivial_starts VALUES ($1, $2)", work.id, work.claim.attempt)

        async def effect(connection: asyncpg.Connection) -> None:
            await connection.execute("INSERT INTO trivial_effects VALUES ($1, $2)", work.id, work.claim.attempt)

        async def faulty_effect(connection: asyncpg.Connection) -> None:
            await effect(connection)
            raise RuntimeError("the write of the result is at fault")

        async def misleading_effect(connection: asyncpg.Connection) -> None:
            await effect(connection)
            raise FileNotFoundError("an OSError, which could as well be the database's")

        for step in steps:
            match step:
                case {"effect": "faulty"}:
                    return Outcome(ExecutionStatus.SUCCEEDED, write=faulty_effect)
                case {"effect": "misleading"}:
                    return Outcome(ExecutionStatus.SUCCEEDED, write=misleading_effect)
            outcome = await self._step(work, step)
            if outcome is not None:
                return outcome
        return Outcome(ExecutionStatus.SUCCEEDED, write=effect)

    async def _step(self, work: Work, step: dict[str, Any]) -> Outcome | None:
        match step:
            case {"lines": count, **options}:
                for number in range(1, count + 1):
                    padding = " " + "x" * options["width"] if "width" in options else ""
                    await work.log.info(f"attempt {work.claim.attempt} line {number}{padding}")
                    if "every" in options:
                        await asyncio.sleep(options["every"])
            case {"log": data}:
                # Bytes in hexadecimal: what a child may print is more than JSON can say.
                text = bytes.fromhex(data).decode("utf-8", "surrogateescape")
                await work.log.write(LogLevel.INFO, text)
            case {"progress": percent, **options}:
                await work.advance(percent, stage=options.get("stage"))
            case {"burn": seconds}:
                await self._burn(work, seconds)
            case {"sleep": seconds}:
                await asyncio.sleep(seconds)
            case {"block": seconds} if work.claim.attempt == 1:
                time.sleep(seconds)  # noqa: ASYNC251 - the test wants a stuck event loop
            case {"beat": seconds, **options}:
                if work.claim.attempt == 1:
                    seconds = options.get("first", seconds)
                await self._beat(work, seconds, "daring" if options.get("daring") else "")
            case {"stubborn": seconds} if work.claim.attempt == 1:
                await self._be_stubborn(work, seconds)
            case {"fail": code, **options}:
                message = bytes.fromhex(options["message"]).decode("utf-8", "surrogateescape")
                return Outcome.failed(FailureCode(code), message, exit_code=options.get("exit_code"))
            case {"crash": message}:
                raise RuntimeError(message)
        return None

    async def _burn(self, work: Work, seconds: float) -> None:
        """Take a processor for some time, in a child and in a thread each."""
        code = f"import time\nwhile time.process_time() < {seconds}: pass"
        async with work.spawn([sys.executable, "-I", "-S", "-c", code], env={"PATH": os.defpath}, cwd="/") as tree:
            await tree.wait()

        def burn() -> None:
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass

        await work.compute(burn)

    async def _beat(self, work: Work, seconds: float, mode: str) -> None:
        """Run the beating child. What killed it is not asked: a careless kind would go on as well."""
        path = self._folder / f"beats-{work.id}"
        argv = [sys.executable, "-I", "-S", "-c", BEAT, str(path), str(work.claim.attempt), str(seconds), mode]
        environment = {"PATH": os.defpath, "TRIVIAL_EXECUTION": str(work.id)}
        async with work.spawn(argv, env=environment, cwd="/") as tree:
            async for lines in line_batches(tree.stdout, limit_bytes=65_536):
                for line in lines:
                    await work.log.info(line.decode())
            await tree.wait()

    async def _be_stubborn(self, work: Work, seconds: float) -> None:
        """Take no notice of being stopped, then write everything there is to write, and note what was refused."""
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)

        async def effect(connection: asyncpg.Connection) -> None:
            await connection.execute("INSERT INTO trivial_effects VALUES ($1, $2)", work.id, work.claim.attempt)

        async def in_transaction() -> None:
            async with work.transaction() as connection:
                await effect(connection)

        async def line() -> None:
            await work.log.info(f"attempt {work.claim.attempt} is stubborn")
            await work.log.flush()

        tries: dict[str, Awaitable[None]] = {
            "transaction": in_transaction(),
            "persist": work.persist(effect),
            "advance": work.advance(99, stage="STUBBORN"),
            "line": line(),
        }
        results = {}
        for name, write in tries.items():
            try:
                await write
                results[name] = "done"
            except (LeaseLost, asyncio.CancelledError):
                results[name] = "refused"
        (self._folder / f"stubborn-{work.id}.new").write_bytes(orjson.dumps(results))
        (self._folder / f"stubborn-{work.id}.new").rename(self._folder / f"stubborn-{work.id}")


def kinds(loaded: Settings, _storage: Storage, _pool: asyncpg.Pool) -> list[TrivialKind]:
    """The kinds that the environment names."""
    named = (entry.partition(":") for entry in os.environ.get("TRIVIAL_KINDS", "TRIVIAL:4").split(","))
    return [
        TrivialKind(name, int(slots), running_per_owner=loaded.max_running_per_user, folder=loaded.data_dir)
        for name, _, slots in named
    ]


if __name__ == "__main__":
    loaded = settings.load()
    set_up_logging(loaded)
    asyncio.run(worker.run(loaded, kinds))
    garbage.ending()
