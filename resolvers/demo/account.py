"""The demo's account: made, gone on with where that was cut off, and removed.

All rows are one transaction, after which the account is there and nobody can use it; then come the objects that rows
name, each by the code that workers use, which may be repeated; at last the account is opened. Whoever is cut off leaves
the rest to the next call. Invariants: nothing is told of the past, nothing waits to run, and nobody else's row changes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from adapters import events, storage
from errors import Conflict
from models import demo
from models.audit import AuditEvent
from models.demo import DEMO_USER_ID
from models.events import SessionsChanged, TotalsChanged
from models.permissions import Actor
from models.transaction import unit_of_work
from resolvers import account_deletion, account_rules, runs, sessions
from resolvers.demo import history, objects
from resolvers.demo.history import DOMAIN, USERNAME
from settings import Settings
from tasks import account_purge
from tasks.crawl.kind import KIND as CRAWL
from tasks.outbox import NotYet

REMOVAL_SECONDS: Final = 60.0
_LEFT_TO_WORKERS_SECONDS: Final = 300.0
_FRESH: Final = ("catalogue", "property_listings")
"""Spiders whose jobs run for real where somebody can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The demo as it is now. `is_new` says that this call made it, or brought it to its end."""

    is_new: bool
    username: str
    email: str
    counts: Mapping[str, int]
    """How much of each there is, before anything runs for real."""


async def make(
    settings: Settings, connection: asyncpg.Connection, pool: asyncpg.Pool, *, password: str, among_others: bool
) -> Demo:
    """Make the demo, unless it is there; `connection` holds the lock meanwhile.

    Raises Conflict when others work here and `among_others` is not given, and while it is made or removed elsewhere;
    ValidationFailed for a password that is none.
    """
    async with demo.alone(connection):
        account = await demo.account()
        if account is not None and account["deleted_at"] is not None:
            raise Conflict("The demo is being removed; `demo --remove` ends that.")
        if account is not None and account["is_active"]:
            return Demo(is_new=False, username=account["username"], email=account["email"], counts=await demo.counts())
        account_rules.check_password(password, username=USERNAME, email=f"{USERNAME}@{DOMAIN}")
        if account is None:
            if not among_others and await demo.others_have_work():
                raise Conflict(
                    "Others work in this installation. The demo touches nothing of theirs, but administrators' sums"
                    " will count it too. Add --yes if that is fine."
                )
            now = await demo.now()
            made = await asyncio.to_thread(history.read_documents, settings, now)
            async with unit_of_work():
                await history.write(settings, now, *made)
        await objects.store(pool)
        password_hash = await sessions.passwords().hash(password)
        async with unit_of_work():
            if await demo.open_account(password_hash):
                await AuditEvent.record(Actor(), "createDemo", target_type="user", target_id=DEMO_USER_ID)
            await events.publish(SessionsChanged(DEMO_USER_ID))
            await events.publish(TotalsChanged(DEMO_USER_ID))
        account = await demo.account()
        if account is None:
            raise Conflict("The demo was removed while it was made.")
        return Demo(is_new=True, username=account["username"], email=account["email"], counts=await demo.counts())


async def run_jobs() -> int:
    """Let some of the demo's jobs run for real now, if a worker of this machine takes crawls; how many."""
    if not await demo.working_here(socket.gethostname(), CRAWL):
        return 0
    found_jobs = await demo.jobs()
    chosen = [found_jobs[spider] for spider in _FRESH if spider in found_jobs]
    for job_id in chosen:
        await runs.start(Actor(user_id=DEMO_USER_ID), {"id": job_id, "owner_id": DEMO_USER_ID})
    return len(chosen)


async def remove(connection: asyncpg.Connection, pool: asyncpg.Pool) -> bool:
    """Remove the demo with all that it has, also what its owner has added; False when there is none.

    Raises Conflict when it is the last administrator, when it is made or removed elsewhere, and when something of it
    does not stop in time: a worker removes the rest then.
    """
    async with demo.alone(connection):
        account = await demo.account()
        if account is None:
            return False
        if account["deleted_at"] is None:
            async with unit_of_work():
                await demo.remove_products()
                await account_deletion.delete_quietly(
                    DEMO_USER_ID, action="deleteDemo", purge_in_seconds=_LEFT_TO_WORKERS_SECONDS
                )
        with suppress(TimeoutError):
            async with asyncio.timeout(REMOVAL_SECONDS):
                while await demo.account() is not None:
                    try:
                        await account_purge.purge(storage.current(), pool, {"userId": str(DEMO_USER_ID)})
                    except NotYet as more:
                        await asyncio.sleep(more.seconds)
        if await demo.account() is not None:
            raise Conflict("Something of the demo does not stop yet. A worker removes the rest; or try again.")
        await demo.forget_purge()
        await events.publish(TotalsChanged(DEMO_USER_ID))
        return True
