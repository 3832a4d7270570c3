"""Sending dispatches of webhooks: in every worker, takes what is due, sends it, writes down what came of it.

At least once, in no particular order; the id of the event stays the same over all attempts, for receivers to tell by.
Invariants: a dispatch is taken for longer than an attempt can last, so it is sent again when its worker is lost; no
transaction is open while something is sent; endpoints that are failing have places of their own in each worker, and any
endpoint has two at most of all workers', so that a slow or dead one holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

import asyncpg
import structlog

from adapters import events
from adapters.events import Watcher
from adapters.secret_box import CannotOpen, SecretBox
from adapters.webhook_sender import Outcome, WebhookSender
from models import dispatch_queries, notification_queries
from models.database import is_outage
from models.dispatch_queries import Attempt, Disabled, TakenDispatch
from models.events import NotificationAdded
from models.ids import encode_id
from models.notification_queries import DEFAULTS
from models.notifications import NotificationKind
from models.outgoing_webhooks import EVENT_PREFIX, DispatchFailure, EndpointDisabledReason
from models.sealed import PREVIOUS_WEBHOOK_SECRET, WEBHOOK_SECRET
from tasks import mail, periodic

HEALTHY_PLACES: Final = 24
FAILING_PLACES: Final = 8
PLACES: Final = HEALTHY_PLACES + FAILING_PLACES
LEASE_SECONDS: Final = 45.0
LOOK_SECONDS: Final = 1.0
PAUSES: Final = tuple(
    timedelta(**pause).total_seconds()
    for pause in (
        {"seconds": 10},
        {"minutes": 1},
        {"minutes": 5},
        {"minutes": 30},
        {"hours": 2},
        {"hours": 5},
        {"hours": 10},
        {"hours": 14},
        {"hours": 20},
        {"hours": 24},
    )
)
"""How long each attempt waits after the one before; a quarter more or less. The first one comes at once."""

MAX_TRIES: Final = len(PAUSES) + 1
UPKEEP_SECONDS: Final = 60.0
_ROWS_AT_ONCE: Final = 2_000
_HAND_BACK_SECONDS: Final = 0.4  # less than `adapters.cancellation.end` waits before it cancels again
_MAX_SHOWN_LENGTH: Final = 120
_log = structlog.get_logger("switchyard.webhooks")


async def run(pool: asyncpg.Pool, sender: WebhookSender, box: SecretBox) -> None:
    """Send until cancelled; what is under way then is handed back."""
    async with events.hub().watch(("outbox",)) as watcher, asyncio.TaskGroup() as group:
        group.create_task(
            periodic.every(UPKEEP_SECONDS, "webhooks", pool, partial(upkeep, pool)), name="webhook-upkeep"
        )
        busy = {False: 0, True: 0}
        while True:
            for is_failing, places in ((False, HEALTHY_PLACES), (True, FAILING_PLACES)):
                for taken in await _take(pool, failing=is_failing, places=places - busy[is_failing]):
                    busy[is_failing] += 1
                    attempt = group.create_task(_deliver(pool, sender, box, taken), name="webhook")
                    attempt.add_done_callback(partial(_leave, busy, is_failing, watcher))
            # Workers that started together should not look together.
            await watcher.wait(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load only


async def upkeep(pool: asyncpg.Pool) -> None:
    """End what waits for endpoints that are switched off, and forget what is old."""
    async with pool.acquire(timeout=5) as connection:
        while await dispatch_queries.end_of_disabled(connection, limit=_ROWS_AT_ONCE) == _ROWS_AT_ONCE:
            continue
        while await dispatch_queries.forget_old(connection, limit=_ROWS_AT_ONCE) == _ROWS_AT_ONCE:
            continue
        await dispatch_queries.forget_previous_secrets(connection)


def keys_of(box: SecretBox, taken: TakenDispatch) -> list[str]:
    """The secrets that sign for a dispatch, the newest first; raises CannotOpen."""
    keys = []
    for column, text in (
        (WEBHOOK_SECRET, taken.sealed_secret),
        (PREVIOUS_WEBHOOK_SECRET, taken.sealed_previous_secret),
    ):
        if text is not None:
            keys.append(box.open(text, place=column.place(taken.endpoint_id)))
    return keys


def pause_seconds(tries: int, retry_after_seconds: float | None = None) -> float | None:
    """How long a dispatch waits after so many tries, at least as its receiver asked for; None after the last."""
    if tries > len(PAUSES):
        return None
    pause = PAUSES[tries - 1] * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load only
    return max(pause, retry_after_seconds or 0.0)


def _leave(busy: dict[bool, int], is_failing: bool, watcher: Watcher, _task: asyncio.Task[None]) -> None:
    busy[is_failing] -= 1
    watcher.poke(None)


async def _take(pool: asyncpg.Pool, *, failing: bool, places: int) -> list[TakenDispatch]:
    if places <= 0:
        return []
    try:
        async with pool.acquire(timeout=2) as connection, connection.transaction():
            return await dispatch_queries.take(connection, failing=failing, places=places, lease_seconds=LEASE_SECONDS)
    except Exception as error:
        if not is_outage(error):
            raise
        _log.warning("dispatches_not_read", error=repr(error))
        return []


async def _deliver(pool: asyncpg.Pool, sender: WebhookSender, box: SecretBox, taken: TakenDispatch) -> None:
    """Send one dispatch, write down what came of it, and tell the owner if that was the endpoint's end."""
    try:
        attempt = await _attempt(sender, box, taken)
    except asyncio.CancelledError:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            async with asyncio.timeout(_HAND_BACK_SECONDS), pool.acquire() as connection:
                await dispatch_queries.hand_back(connection, taken)
        raise
    disabled: Disabled | None = None
    try:
        async with pool.acquire(timeout=5) as connection, connection.transaction():
            disabled = await dispatch_queries.settle(connection, taken, attempt)
            if disabled is not None:
                await _tell_owner(connection, disabled)
    except Exception as error:  # noqa: BLE001 - an edge: what is wrong with one dispatch is no matter of the others
        # Its lease ends, and it is sent again, as often as any.
        fault = None if is_outage(error) else error
        _log.warning("dispatch_not_written", dispatch_id=str(taken.id), error=repr(error), exc_info=fault)
        return
    _log.info(
        "webhook_sent",
        dispatch_id=str(taken.id),
        attempts=taken.attempts,
        failure=attempt.failure,
        status=attempt.status_code,
        milliseconds=attempt.duration_ms,
    )
    if disabled is not None:
        await events.publish(NotificationAdded(disabled.owner_id))


async def _attempt(sender: WebhookSender, box: SecretBox, taken: TakenDispatch) -> Attempt:
    """One attempt, if there is to be one."""
    if taken.tries > MAX_TRIES:
        return Attempt(DispatchFailure.WORKER_LOST, "Its workers were lost as often as is allowed.", counts=False)
    if not taken.is_owner_active or taken.sealed_secret is None:
        return Attempt(DispatchFailure.ENDPOINT_DISABLED, "The owner's account is not active.", counts=False)
    try:
        keys = keys_of(box, taken)
    except CannotOpen as error:
        _log.error("webhook_secret_not_opened", endpoint_id=str(taken.endpoint_id), error=str(error))
        pause = pause_seconds(taken.tries)
        return Attempt(
            DispatchFailure.INTERNAL, "The signing secret cannot be read.", pause_seconds=pause, counts=False
        )
    outcome = await sender.send(
        taken.url,
        event_id=encode_id(EVENT_PREFIX, taken.event_id),
        body=taken.payload.encode(),
        keys=keys,
    )
    return _judged(taken, outcome)


def _judged(taken: TakenDispatch, outcome: Outcome) -> Attempt:
    is_over = outcome.failure in (None, DispatchFailure.GONE)
    return Attempt(
        failure=outcome.failure,
        message=outcome.message,
        status_code=outcome.status_code,
        duration_ms=outcome.duration_ms,
        excerpt=outcome.excerpt,
        pause_seconds=None if is_over else pause_seconds(taken.tries, outcome.retry_after_seconds),
    )


async def _tell_owner(connection: asyncpg.Connection, disabled: Disabled) -> None:
    """A notification, and a letter unless the owner wants none; in the transaction that switches the endpoint off."""
    host = disabled.url.partition("://")[2].partition("/")[0][:_MAX_SHOWN_LENGTH]
    title = f"A webhook endpoint at {host} was switched off"
    body = "It did not take anything for five days."
    if disabled.reason is EndpointDisabledReason.GONE:
        body = "It answered that it is gone for good (410)."
    added = await notification_queries.add_with(
        connection,
        disabled.owner_id,
        # The moment is part of it: an endpoint that is switched on again may fail again.
        key=f"webhook:{disabled.endpoint_id}:{disabled.failing_since}",
        kind=NotificationKind.WEBHOOK_DISABLED,
        title=title,
        body=body,
    )
    wants_mail = DEFAULTS["email_notifications"] if disabled.wants_mail is None else disabled.wants_mail
    if added is not None and wants_mail:
        await mail.put_letter(
            connection,
            str(added),
            user_id=disabled.owner_id,
            template="webhook_disabled",
            variables={"title": title, "body": body},
        )
    _log.warning("webhook_disabled", endpoint_id=str(disabled.endpoint_id), reason=disabled.reason.value)
