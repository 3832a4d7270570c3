"""A worker process: opens its handles, lists the kinds, works until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
import structlog

from adapters import ai, events, github, metrics, webhook_sender
from adapters.cancellation import end
from adapters.loop_lag import LoopLag
from adapters.mail import open_mailer
from adapters.metrics import Metrics
from adapters.secret_box import SecretBox
from adapters.storage import Storage, open_storage
from adapters.structured_logs import set_up_logging
from models import database
from models.ids import new_id
from models.processes import ProcessRole
from settings import Settings
from tasks import (
    account_letters,
    account_purge,
    deployment_news,
    doorman,
    execution_news,
    github_hooks,
    github_reports,
    heartbeat,
    mail,
    media_upkeep,
    metrics_port,
    outbox,
    periodic,
    queue,
    retention,
    rollups,
    schedule_news,
    scheduler,
    sweeper,
    webhook_sending,
)
from tasks.build import upkeep
from tasks.build.kind import DeploymentKind
from tasks.crawl.kind import CrawlKind
from tasks.executions import Engine
from tasks.export import upkeep as export_upkeep
from tasks.export.kind import ExportKind
from tasks.ocr.kind import OcrKind
from tasks.outbox import Handler
from tasks.scan.kind import ScanKind
from tasks.status import rounds
from tasks.work import Kind

_log = structlog.get_logger("switchyard.worker")
_SERVER_SETTINGS: Final = {
    "application_name": "switchyard-worker",
    # A frozen worker must not keep a row locked for long: the sweeper and the scheduler pass locked rows over.
    "idle_in_transaction_session_timeout": "5000",
}
# One schedule that has to wait must not keep the others waiting.
_SCHEDULER_SETTINGS: Final = {**_SERVER_SETTINGS, "lock_timeout": "1000"}
_SCHEDULER_CONNECTIONS: Final = 2


def shipped_kinds(settings: Settings, storage: Storage, pool: asyncpg.Pool) -> list[Kind]:
    """The kinds of execution that Switchyard ships."""
    return [
        CrawlKind(settings, storage),
        DeploymentKind(settings, storage, pool),
        ScanKind(settings, storage),
        OcrKind(settings, storage),
        ExportKind(settings, storage),
    ]


def shipped_handlers(settings: Settings, storage: Storage, pool: asyncpg.Pool) -> dict[str, Handler]:
    """Who tells which topic of the outbox."""
    return {
        deployment_news.TOPIC: deployment_news.telling(settings, pool),
        execution_news.TOPIC: execution_news.telling(settings, pool),
        mail.TOPIC: mail.sending(settings, pool, open_mailer(settings)),
        account_letters.TOPIC: account_letters.sending(settings, pool, open_mailer(settings)),
        account_purge.TOPIC: account_purge.purging(storage, pool),
        github_reports.TOPIC: github_reports.reporting(settings, pool),
        github_hooks.TOPIC: github_hooks.keeping_hooks(settings, pool),
        upkeep.GARBAGE_TOPIC: partial(upkeep.collect, pool, storage),
        schedule_news.TOPIC: partial(schedule_news.tell, pool),
        media_upkeep.TOPIC: partial(media_upkeep.remove, pool, storage),
        upkeep.REMOVAL_TOPIC: partial(upkeep.remove, storage),
        retention.TOPIC: partial(retention.drop_objects, storage),
    }


async def run(
    settings: Settings,
    kinds: Callable[[Settings, Storage, asyncpg.Pool], Sequence[Kind]] = shipped_kinds,
    handlers: Callable[[Settings, Storage, asyncpg.Pool], Mapping[str, Handler]] = shipped_handlers,
) -> None:
    """Work until SIGTERM or SIGINT, then finish what is short, hand back what is long, and return."""
    set_up_logging(settings)
    name = f"{socket.gethostname()[:32]}:{os.getpid()}:{str(new_id())[-6:]}"
    async with AsyncExitStack() as stack:
        counted = stack.enter_context(metrics.opened())
        await stack.enter_async_context(events.connected(settings))
        await stack.enter_async_context(queue.connected(settings))
        await stack.enter_async_context(github.connected(settings))
        await stack.enter_async_context(ai.connected(settings))
        sender = await stack.enter_async_context(webhook_sender.connected(settings, places=webhook_sending.PLACES))
        storage = await stack.enter_async_context(open_storage(settings))
        pool = await stack.enter_async_context(_pool(settings))
        await stack.enter_async_context(
            database.connected(settings, pool_size=_SCHEDULER_CONNECTIONS, server_settings=_SCHEDULER_SETTINGS)
        )
        offered = {kind.name: kind for kind in kinds(settings, storage, pool) if kind.slots > 0}
        tellers = handlers(settings, storage, pool)
        engine = Engine(settings, pool, offered, name)
        await stack.enter_async_context(_watched(settings, counted, pool, engine))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, engine.drain)
        _log.info("worker_started", worker=name, kinds=sorted(offered))
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(sweeper.run(settings, pool, storage), name="sweeper")]
            helpers.append(group.create_task(outbox.run(pool, tellers), name="outbox"))
            helpers.append(group.create_task(scheduler.run(settings), name="scheduler"))
            sending = webhook_sending.run(pool, sender, SecretBox(settings.keyring))
            helpers.append(group.create_task(sending, name="webhooks"))
            helpers.append(group.create_task(upkeep.sweep(pool, storage), name="site-sweep"))
            helpers.append(group.create_task(media_upkeep.sweep(pool, storage), name="media-sweep"))
            removal = partial(retention.remove_old, settings, pool)
            helpers.append(
                group.create_task(
                    periodic.every(retention.PERIOD_SECONDS, "retention", pool, removal), name="retention"
                )
            )
            helpers.append(group.create_task(export_upkeep.sweep(pool, storage), name="export-sweep"))
            folding = periodic.every(rollups.FOLD_SECONDS, "rollups", pool, partial(rollups.fold, pool))
            helpers.append(group.create_task(folding, name="rollups"))
            if settings.status_probes:
                helpers.append(group.create_task(rounds.run(settings, pool, storage), name="probes"))
            helpers += [
                group.create_task(doorman.answer(settings, engine, kind), name=f"doorman-{kind}") for kind in offered
            ]
            await engine.run()
            await end(*helpers)
        _log.info("worker_stopped", worker=name)


@asynccontextmanager
async def _watched(settings: Settings, counted: Metrics, pool: asyncpg.Pool, engine: Engine) -> AsyncIterator[None]:
    """Show how this worker is: to the other processes by its heartbeat, to Prometheus on a port of its own."""
    lag = LoopLag()
    counted.loop_lag.set_function(lambda: lag.worst_milliseconds / 1_000)
    counted.watch_pool("main", lambda: (*database.state_of(pool), 0))
    counted.watch_pool("scheduler", database.pool_state)
    counted.watch_slots(engine.slots)
    with lag.watched():
        async with (
            heartbeat.beating(settings, ProcessRole.WORKER, engine.worker, slots=engine.slots),
            metrics_port.served(settings, lag),
        ):
            yield


def _pool(settings: Settings) -> asyncpg.Pool:
    return asyncpg.create_pool(
        settings.database_url.get_secret_value(),
        min_size=1,
        max_size=settings.database_pool_size,
        timeout=3,
        command_timeout=database.COMMAND_TIMEOUT_SECONDS / 3,
        server_settings={**database.SERVER_SETTINGS, **_SERVER_SETTINGS},
    )
