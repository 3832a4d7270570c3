"""A worker whose handlers do as they are told, for tests of the outbox.

The environment names topics and what their handler does, `TELLERS=topic:behaviour,…`, and constants of `tasks.outbox`
that shall be shorter, `OUTBOX_CONSTANTS=TELL_SECONDS=1,…`. Each begin and each end of a telling leaves a row.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import asyncpg

import settings
from adapters.storage import Storage
from adapters.structured_logs import set_up_logging
from settings import Settings
from tasks import outbox, worker
from tasks.outbox import GiveUp, Handler

TABLES: Final = """
CREATE TABLE IF NOT EXISTS tellings (
    id bigserial PRIMARY KEY, name text, worker int, is_end boolean, at timestamptz DEFAULT clock_timestamp()
)
"""
SECRET: Final = "https://user:hunter2@example.com/?token=abc"  # what an exception may well say


async def tell(pool: asyncpg.Pool, behaviour: str, payload: Mapping[str, Any]) -> None:
    """Do what the topic is for; `seconds` in the payload is how long it takes."""
    name = payload["name"]
    begun = await note(pool, name, is_end=False)
    match behaviour:
        case "fine":
            await asyncio.sleep(payload.get("seconds", 0))
        case "slow-once" if begun == 1:
            await asyncio.sleep(60)
        case "hang":
            await asyncio.sleep(60)
        case "faulty":
            raise RuntimeError(SECRET)
        case "faulty-once" if begun == 1:
            raise RuntimeError(SECRET)
        case "refused":
            raise GiveUp("Nobody is there.\0")
    await note(pool, name, is_end=True)


async def note(pool: asyncpg.Pool, name: str, *, is_end: bool) -> int:
    """Leave a row; how many of this kind there are with it."""
    await pool.execute("INSERT INTO tellings (name, worker, is_end) VALUES ($1, $2, $3)", name, os.getpid(), is_end)
    return int(await pool.fetchval("SELECT count(*) FROM tellings WHERE name = $1 AND is_end = $2", name, is_end))


def handlers(_settings: Settings, _storage: Storage, pool: asyncpg.Pool) -> dict[str, Handler]:
    """The topics that the environment names."""
    named = (entry.partition(":") for entry in os.environ["TELLERS"].split(","))
    return {topic: partial(tell, pool, behaviour) for topic, _, behaviour in named}


if __name__ == "__main__":
    loaded = settings.load()
    set_up_logging(loaded)
    for constant in filter(None, os.environ.get("OUTBOX_CONSTANTS", "").split(",")):
        constant_name, _, text = constant.partition("=")
        assert hasattr(outbox, constant_name)
        setattr(outbox, constant_name, float(text))
    asyncio.run(worker.run(loaded, lambda *_: [], handlers))
