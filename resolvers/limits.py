"""Who pays for what: every operation, what proves an identity, new deployments, scans, documents, tests of webhooks.

Invariants: what is counted is what happened, not how many requests it came in, so each alias pays; failures are counted
before they are known and given back when they were none, so many attempts at once are not more attempts; nothing is
refused for having been asked for often by others. Addresses count by /64 where they are IPv6, since a host has as many
as it likes there. How counting works is `adapters/rate_limits.py`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from uuid import UUID

from adapters import metrics, rate_limits
from adapters.rate_limits import Charge, Limiter, Policy, Standing
from errors import RateLimitExceeded, Unauthorized, ValidationFailed
from models import users
from models.permissions import Actor, Origin
from resolvers import limit_news, sessions
from settings import Settings

NODES_PER_CALL: Final = 50
"""An operation that may ask for more nodes counts once for each fifty of them, and at most for a whole minute."""

PREVIEW_CALLS: Final = 20
"""A preview of a crawl counts as so many calls."""


@dataclass(slots=True)
class Notes:
    """How the buckets stand that an answer is about."""

    standings: list[Standing] = field(default_factory=list)

    @property
    def tightest(self) -> Standing | None:
        """The bucket that refused, else the one with the least left of what it holds."""
        return min(
            self.standings,
            key=lambda each: (-each.retry_after_seconds, each.remaining / each.policy.limit),
            default=None,
        )


class MoreAsked(Unauthorized):
    """What was shown so far is right, and something else is asked for beside it: no failed attempt."""


notes: ContextVar[Notes | None] = ContextVar("rate_limit_notes", default=None)
"""Set by whoever wants to tell the caller how the buckets stand (`schema/rate_headers.py`)."""


@dataclass(frozen=True, slots=True)
class _Opened:
    limiter: Limiter
    calls: Policy
    authentication: Policy
    deployments: Policy
    scans: Policy
    documents: Policy
    second_factor: Policy
    webhook_tests: Policy


_opened: _Opened | None = None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[None]:
    """Count for the life of the process, unless the settings say not to."""
    global _opened
    if not settings.rate_limits:
        yield
        return
    async with rate_limits.connected(settings) as limiter:
        before = _opened
        _opened = _Opened(
            limiter,
            calls=Policy("calls", settings.rate_limit_cost_per_minute, 60),
            authentication=Policy("auth", settings.rate_limit_auth_per_minute, 60),
            deployments=Policy("deployments", settings.rate_limit_deployments_per_hour, 3_600),
            scans=Policy("scans", settings.rate_limit_scans_per_hour, 3_600),
            documents=Policy("documents", settings.rate_limit_documents_per_hour, 3_600),
            second_factor=Policy("secondFactor", settings.rate_limit_second_factor_per_quarter_hour, 900),
            webhook_tests=Policy("webhookTests", settings.rate_limit_webhook_tests_per_hour, 3_600),
        )
        try:
            yield
        finally:
            _opened = before


async def count_operation(actor: Actor, nodes: int) -> None:
    """Charge an operation of so many nodes to its user, or to the address of somebody who is not signed in.

    Raises RateLimitExceeded.
    """
    if _opened is None:
        return
    policy = _opened.calls
    weight = min(max(1, -(-nodes // NODES_PER_CALL)), policy.limit)
    await _take([Charge(policy, _caller(actor), weight)], _TOO_MANY_CALLS, actor.origin)


async def count_preview(actor: Actor) -> None:
    """Charge a preview of a crawl, which is a process for seconds, beside its operation; raises RateLimitExceeded."""
    if _opened is not None:
        policy = _opened.calls
        charges = [Charge(policy, _caller(actor), min(PREVIEW_CALLS, policy.limit))]
        await _take(charges, _TOO_MANY_CALLS, actor.origin)


@asynccontextmanager
async def reading(actor: Actor) -> AsyncIterator[None]:
    """Read a document that nobody sent before inside; one that is refused has cost a call.

    Otherwise documents that are never right could be sent without end, each of them new. What is right pays when it
    runs. Raises RateLimitExceeded before anything is read.
    """
    if _opened is None:
        yield
        return
    charges = [Charge(_opened.calls, _caller(actor))]
    await _take(charges, _TOO_MANY_CALLS, actor.origin)
    yield
    await _handle().limiter.give_back(charges)


async def count_identity_claim(origin: Origin, *, account: str | None = None) -> None:
    """Charge a registration or a reset to the address that it came from and to the account that it names, if it does.

    `account` is an e-mail address. Its bucket is not that of failed log-ins: whoever is locked out by those must still
    be able to set a new password. Raises RateLimitExceeded.
    """
    if _is_on():
        named = [] if account is None else [f"claim:{_pseudonym(account)}"]
        await _take(_authentication(origin, *named), _TOO_MANY_ATTEMPTS, origin)


@asynccontextmanager
async def attempt(origin: Origin, *, account: str | UUID, device: str | None = None) -> AsyncIterator[None]:
    """Try to prove an identity inside; only what ends with Unauthorized or ValidationFailed counts, but not MoreAsked.

    It counts for the address and for the account: its name as it was typed, or the id of a user who is signed in and
    proves it again. A browser that its owner signed in with before has a bucket of its own in the account's place, so
    that strangers who guess at an account cannot lock its owner out; `device` is what `resolvers/devices.py` made of
    its cookie. Raises RateLimitExceeded before anything is tried.
    """
    if not _is_on():
        yield
        return
    # By what was typed and not by the account found: a bucket that two names share would tell that they are one's.
    named = f"user:{account.hex}" if isinstance(account, UUID) else f"account:{_pseudonym(account)}"
    charges = _authentication(origin, named if device is None else f"device:{device}")
    async with _charged_if_it_fails(charges, origin):
        yield


@asynccontextmanager
async def second_factor(user_id: UUID) -> AsyncIterator[None]:
    """Try a code of an account's second factor inside; what ends with Unauthorized or ValidationFailed counts.

    A code has six digits, so guesses count for the account alone and for longer, whatever address they come from.
    Raises RateLimitExceeded before anything is tried.
    """
    if not _is_on():
        yield
        return
    async with _charged_if_it_fails([Charge(_handle().second_factor, user_id.hex)], None):
        yield


@dataclass(slots=True)
class Slot:
    """Room for one new deployment or the like, if there was any."""

    refusal: RateLimitExceeded | None = None
    is_used: bool = False
    charge: Charge | None = None

    def use(self) -> None:
        """Make it; raises RateLimitExceeded when there is no room."""
        if self.refusal is not None:
            if self.charge is not None:
                metrics.current().refusals.labels(self.charge.policy.name).inc()
                limit_news.log_refusal(self.charge.policy, self.charge.subject)
            raise self.refusal
        self.is_used = True

    def leave(self) -> None:
        """It was not made after all."""
        self.is_used = False


@asynccontextmanager
async def deployment(user_id: UUID) -> AsyncIterator[Slot]:
    """Keep room for a new deployment of a user; given back unless it is used and nothing is raised.

    Entered before the transaction that makes the deployment, which is the only one to know whether there will be one.
    """
    policy = _handle().deployments if _is_on() else None
    async with _room(policy, user_id, "You made too many deployments within an hour") as slot:
        yield slot


@asynccontextmanager
async def scan(user_id: UUID) -> AsyncIterator[Slot]:
    """Keep room for a new scan of a user, as `deployment` does."""
    policy = _handle().scans if _is_on() else None
    async with _room(policy, user_id, "You asked for too many scans within an hour") as slot:
        yield slot


@asynccontextmanager
async def documents(user_id: UUID, count: int = 1) -> AsyncIterator[Slot]:
    """Keep room for so many documents that a user wants read, as `deployment` does."""
    policy = _handle().documents if _is_on() else None
    async with _room(policy, user_id, "You had too many documents read within an hour", count) as slot:
        yield slot


@asynccontextmanager
async def webhook_test(user_id: UUID) -> AsyncIterator[Slot]:
    """Keep room for a message that a user wants sent to a webhook endpoint now, as `deployment` does."""
    policy = _handle().webhook_tests if _is_on() else None
    async with _room(policy, user_id, "You had too many webhooks tested or sent again within an hour") as slot:
        yield slot


# -- inside

_TOO_MANY_ATTEMPTS: Final = "Too many attempts"
_TOO_MANY_CALLS: Final = "This is more than you may ask for in a minute"


@asynccontextmanager
async def _room(policy: Policy | None, user_id: UUID, message: str, weight: int = 1) -> AsyncIterator[Slot]:
    if policy is None:
        yield Slot()
        return
    charges = [Charge(policy, user_id.hex, min(weight, policy.limit))]
    refused = await _refused(charges)
    slot = Slot()
    if refused is not None:
        slot = Slot(_refusal(refused[1], message), charge=charges[0])
    is_made = False
    try:
        yield slot
        is_made = slot.is_used
    finally:
        if slot.refusal is None and not is_made:
            await _handle().limiter.give_back(charges)


@asynccontextmanager
async def _charged_if_it_fails(charges: Sequence[Charge], origin: Origin | None) -> AsyncIterator[None]:
    await _take(charges, _TOO_MANY_ATTEMPTS, origin)
    is_due = True  # also of an attempt that is broken off: its work was done
    try:
        yield
        is_due = False
    except Exception as error:
        is_due = isinstance(error, Unauthorized | ValidationFailed) and not isinstance(error, MoreAsked)
        raise
    finally:
        if not is_due:
            await _handle().limiter.give_back(charges)


async def _take(charges: Sequence[Charge], message: str, origin: Origin | None) -> None:
    refused = await _refused(charges)
    if refused is not None:
        charge, standing = refused
        metrics.current().refusals.labels(charge.policy.name).inc()
        await limit_news.tell(charge.policy, charge.subject, origin)
        raise _refusal(standing, message)


async def _refused(charges: Sequence[Charge]) -> tuple[Charge, Standing] | None:
    """Charge all, or say which of them it is that has too little left for the longest time."""
    standings = await _handle().limiter.take(charges)
    told = notes.get()
    if told is not None:
        told.standings += standings
    charge, standing = max(zip(charges, standings, strict=True), key=lambda each: each[1].retry_after_seconds)
    return (charge, standing) if standing.retry_after_seconds else None


def _refusal(standing: Standing, message: str) -> RateLimitExceeded:
    policy = standing.policy
    return RateLimitExceeded(
        f"{message}; try again in {standing.retry_after_seconds} s.",
        retry_after_seconds=standing.retry_after_seconds,
        policy=policy.name,
        limit=policy.limit,
        windowSeconds=policy.window_seconds,
    )


def _authentication(origin: Origin, *named: str) -> list[Charge]:
    policy = _handle().authentication
    return [Charge(policy, subject) for subject in (_address(origin), *named)]


def _caller(actor: Actor) -> str:
    return actor.user_id.hex if actor.user_id is not None else _address(actor.origin)


def _pseudonym(account: str) -> str:
    return sessions.pseudonym(users.username_key(account.strip()))


def _address(origin: Origin) -> str:
    if origin.ip is None:
        return "ip:none"
    address = ip_address(origin.ip)
    if isinstance(address, IPv6Address):
        return f"ip:{ip_network((address.packed, 64), strict=False).network_address}"
    return f"ip:{address}"


def _is_on() -> bool:
    """Whether to count; a process that should and cannot is a fault, and not an open door."""
    return _opened is not None or sessions.settings().rate_limits


def _handle() -> _Opened:
    if _opened is None:
        raise LookupError("limits.opened() is not open in this process")
    return _opened
