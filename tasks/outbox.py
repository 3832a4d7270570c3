"""Telling the outbox: in every worker, takes what is due, does its work and forgets it.

A message is taken for a minute and told in half of that, so it is told again when its worker is lost: at least once,
in no particular order. Handlers therefore read the truth again and may be repeated. Invariants: every topic has places
of its own in each worker, so a slow or failing one holds no other back; what a handler raises stays with its message;
topics that nobody here knows wait for a newer worker. Messages themselves are `models/outbox.py`'s.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import asyncpg
import structlog

from adapters import events, metrics
from adapters.events import Watcher
from errors import SwitchyardError
from models import outbox
from models.database import is_outage
from models.events import OutboxFilled
from models.outbox import TakenMessage

Handler = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Does the work of one message, given its payload; whatever it raises puts the message off, `GiveUp` ends it.

`NotYet` puts it off without spending an attempt.
"""

PLACES_PER_TOPIC: Final = 4
MAX_ATTEMPTS: Final = 12
LEASE_SECONDS: Final = 60.0
TELL_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 900.0
_QUIET_SECONDS: Final = 0.05
_FORGET_SECONDS: Final = 600.0
_HAND_BACK_SECONDS: Final = 0.4  # less than `adapters.cancellation.end` waits before it cancels again
_log = structlog.get_logger("switchyard.outbox")


class GiveUp(Exception):
    """The message can never be told; trying again would change nothing."""


class NotYet(Exception):
    """There is nothing wrong, but more to do or to wait for: told again after so many seconds, and no attempt spent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


async def post(topic: str, key: str, payload: Mapping[str, Any], *, due_in_seconds: float = 0) -> bool:
    """`models.outbox.put` in the current unit of work, and wake the workers once it is committed."""
    added = await outbox.put(topic, key, payload, due_in_seconds=due_in_seconds)
    if added and due_in_seconds <= 0:
        await events.publish(OutboxFilled())
    return added


async def run(pool: asyncpg.Pool, handlers: Mapping[str, Handler]) -> None:
    """Tell messages of these topics until cancelled; what is being told then is handed back."""
    async with events.hub().watch(("outbox",)) as watcher, asyncio.TaskGroup() as group:
        group.create_task(_forget(pool), name="outbox-forget")
        busy: Counter[str] = Counter()
        while True:
            taken = await _take(pool, {topic: PLACES_PER_TOPIC - busy[topic] for topic in handlers})
            for message in taken:
                busy[message.topic] += 1
                group.create_task(
                    _tell(pool, handlers[message.topic], message, busy, watcher), name=f"outbox-{message.topic}"
                )
            if not taken:
                await asyncio.sleep(_QUIET_SECONDS)  # a thousand pokes are not a thousand looks
            # Workers that started together should not look together.
            await watcher.wait(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only


def pause_seconds(attempts: int) -> float:
    """How long a message waits after so many attempts: 5 s, doubled each time up to 15 min, a quarter more or less."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempts - 1))
    return longest * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load only


async def _take(pool: asyncpg.Pool, places: Mapping[str, int]) -> list[TakenMessage]:
    free = {topic: count for topic, count in places.items() if count > 0}
    if not free:
        return []
    try:
        async with pool.acquire(timeout=2) as connection:
            return await outbox.take(connection, free, lease_seconds=LEASE_SECONDS)
    except Exception as error:
        if not is_outage(error):
            raise
        _log.warning("outbox_not_read", error=repr(error))
        return []


async def _tell(
    pool: asyncpg.Pool, handler: Handler, message: TakenMessage, busy: Counter[str], watcher: Watcher
) -> None:
    """Tell one message and write down what became of it."""
    failure: Exception | None = None
    try:
        if message.attempts > MAX_ATTEMPTS:
            raise GiveUp("Its workers were lost as often as is allowed.")
        async with asyncio.timeout(TELL_SECONDS):
            await handler(message.payload)
    except asyncio.CancelledError:
        await _hand_back(pool, message)
        raise
    except Exception as error:  # noqa: BLE001 - an edge: what is wrong with one message is no matter of the others
        failure = error
    try:
        async with pool.acquire(timeout=5) as connection:
            if failure is None:
                await outbox.settle(connection, message)
                _count(message, "TOLD")
            elif isinstance(failure, NotYet):
                await outbox.put_off(connection, message, error=None, seconds=failure.seconds)
            else:
                await _write_down(connection, message, failure)
    except Exception as error:
        if not is_outage(error):
            raise
        # Its lease ends, and it is told again.
        _log.warning("outbox_not_written", topic=message.topic, key=message.key, error=repr(error))
    finally:
        busy[message.topic] -= 1
        watcher.poke(None)


async def _write_down(connection: asyncpg.Connection, message: TakenMessage, failure: Exception) -> None:
    reason = _reason(failure)
    fields = {"topic": message.topic, "key": message.key, "attempts": message.attempts, "error": reason}
    is_fault = not (isinstance(failure, GiveUp | SwitchyardError) or is_outage(failure))
    if isinstance(failure, GiveUp) or message.attempts >= MAX_ATTEMPTS:
        await outbox.give_up(connection, message, error=reason)
        _count(message, "GIVEN_UP")
        _log.error("outbox_given_up", **fields, exc_info=failure if is_fault else None)
    else:
        await outbox.put_off(connection, message, error=reason, seconds=pause_seconds(message.attempts))
        _count(message, "PUT_OFF")
        _log.warning("outbox_put_off", **fields, exc_info=failure if is_fault else None)


def _count(message: TakenMessage, result: str) -> None:
    metrics.current().outbox.labels(message.topic, result).inc()


async def _hand_back(pool: asyncpg.Pool, message: TakenMessage) -> None:
    """Let another worker have the message at once; if that cannot be said in time, its lease says it later."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        async with asyncio.timeout(_HAND_BACK_SECONDS), pool.acquire() as connection:
            await outbox.put_off(connection, message, error=None, seconds=0)


async def _forget(pool: asyncpg.Pool) -> None:
    while True:
        try:
            async with pool.acquire(timeout=2) as connection:
                await outbox.forget_given_up(connection)
        except Exception as error:
            if not is_outage(error):
                raise
        await asyncio.sleep(_FORGET_SECONDS)


def _reason(failure: Exception) -> str:
    """What is kept of a failure: words that are ours, and of all others, which may hold anything, only the kind."""
    if isinstance(failure, GiveUp | SwitchyardError):
        return str(failure).replace("\0", "")
    if isinstance(failure, TimeoutError):
        return "It did not end in time."
    if is_outage(failure):
        return f"What it needs did not answer: {type(failure).__name__}."
    return f"A fault of our own: {type(failure).__name__}."
