"""The inbox of webhooks: each delivery is stored once and has one effect on each project, however often it comes.

Delivery and effects are one transaction. A project whose effect fails is rolled back alone and fails the delivery; the
others keep theirs. So fails one whose owner has reached the limit of deployments: no push is lost. A replay looks again
at projects that have no deployment from it. Whose signature it is was checked before (`schema/webhooks.py`); what
events mean is `resolvers/webhook_events.py`'s.

Invariant: what is in a private repository is shown to nobody, and built for nobody, whose own account at GitHub may not
see it, though anybody can make a project that names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from tortoise.exceptions import IntegrityError

from adapters.git import normalise_repository
from adapters.github_shapes import UnexpectedShape
from adapters.secret_box import CannotOpen
from errors import RateLimitExceeded, ServiceUnavailable, SwitchyardError, ValidationFailed
from models import project_queries, webhook_queries
from models.audit import AuditEvent
from models.database import Row
from models.deployments import DeploymentTrigger
from models.ids import Prefix
from models.permissions import Actor, Origin, Permission
from models.transaction import savepoint, unit_of_work
from models.webhooks import DeliveryStatus
from resolvers import access, deployment_queue, github, limits, sessions, webhook_events
from resolvers.limits import Slot
from resolvers.webhook_events import Change, Ignored

ACCESS_SECONDS: Final = 7.0
"""For all questions about access of one delivery: GitHub waits ten seconds for an answer."""

_DEPLOY_BY: Final = {
    DeploymentTrigger.PUSH: "deployByPush",
    DeploymentTrigger.PULL_REQUEST: "deployByPullRequest",
}
_log = structlog.get_logger("switchyard.webhooks")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came, its signature being right."""

    delivery_id: str
    event: str
    payload: Mapping[str, Any]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery; `is_repeat` when that was so before."""

    id: UUID
    status: DeliveryStatus
    message: str
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class _Effect:
    """What a delivery did to one project, or to none."""

    status: DeliveryStatus
    message: str


@dataclass(frozen=True, slots=True)
class _Access:
    """Owners who may see a repository, None for everybody; and whether GitHub did not say of some."""

    owners: frozenset[UUID] | None = None
    is_incomplete: bool = False


async def receive(delivery: Delivery) -> Outcome:
    """Store a delivery and do what it asks for; one that came before answers with its first outcome."""
    earlier = await webhook_queries.of_delivery_id(delivery.delivery_id)
    if earlier is not None:
        return _repeated(earlier)
    read = _read(delivery.event, delivery.payload)
    granted = await _access(read)
    async with _slots(read, granted, actor=None) as slots, unit_of_work():
        row_id = await webhook_queries.insert(
            delivery_id=delivery.delivery_id,
            event=delivery.event,
            action=_action(delivery.payload),
            repository=_repository(delivery.payload),
            body=orjson.dumps(delivery.payload).decode(),
        )
        if row_id is None:
            earlier = await webhook_queries.of_delivery_id(delivery.delivery_id)
            if earlier is None:
                raise ServiceUnavailable("The delivery is being forgotten; send it again.")
            return _repeated(earlier)
        effects = await _take_effect(row_id, read, granted, slots, actor=None, origin=delivery.origin)
        status, message = _summary(effects, granted)
        await webhook_queries.settle(row_id, status, message, is_replay=False)
    _log.info("webhook_received", delivery=delivery.delivery_id, event_kind=delivery.event, outcome=status.value)
    return Outcome(row_id, status, message)


async def replay(actor: Actor, id_text: str) -> Row:
    """Look again at a delivery for the actor's projects that it made no deployment of; the delivery as it is then.

    Raises NotFound for one that the actor may not see.
    """
    row = await visible(actor, id_text, to=Permission.PROJECT_WRITE)
    body = (await webhook_queries.bodies([row["id"]])).get(row["id"])
    if body is None:
        raise access.missing()
    read = _read(row["event"], orjson.loads(body))
    granted = await _access(read)
    async with _slots(read, granted, actor=actor) as slots, unit_of_work():
        if await webhook_queries.lock(row["id"]) is None:
            raise access.missing()
        effects = await _take_effect(row["id"], read, granted, slots, actor=actor, origin=actor.origin)
        if effects:
            before = (await webhook_queries.find([row["id"]]))[row["id"]]
            status, message = _summary(effects, granted)
            deployments = await webhook_queries.all_effects(row["id"])
            if before["status"] == DeliveryStatus.FAILED.value and len(deployments) > len(effects):
                # Of other people's projects nothing is known here but that one of them failed.
                status = DeliveryStatus.FAILED if None in deployments.values() else status
            elif status is DeliveryStatus.IGNORED and any(deployments.values()):
                status, message = DeliveryStatus.PROCESSED, before["message"]
            await webhook_queries.settle(row["id"], status, message, is_replay=True)
        await AuditEvent.record(
            actor, "replayDelivery", target_type="delivery", target_id=row["id"], details={"looked": len(effects)}
        )
    return await visible(actor, id_text, to=Permission.PROJECT_READ)


async def visible(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A delivery that the actor may see: administrators all, others those with an effect on a project of theirs."""
    row_id = access.uuid_of(id_text, Prefix.WEBHOOK_DELIVERY)
    row = (await webhook_queries.find_visible(actor, [row_id])).get(row_id)
    if row is None:
        raise access.missing()
    access.allow(actor, to)
    return row


async def find(actor: Actor, row_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the deliveries that an actor may see."""
    return await webhook_queries.find_visible(actor, row_ids)


async def page(actor: Actor, **filters: Any) -> list[Row]:
    """A page of the deliveries that an actor may see."""
    return await webhook_queries.visible(actor, **filters)


async def count(actor: Actor, **filters: Any) -> int:
    """How many there are in all."""
    return await webhook_queries.count_visible(actor, **filters)


async def bodies(row_ids: Sequence[UUID]) -> dict[UUID, str]:
    """What was delivered, as JSON text, of deliveries that passed the gate."""
    return await webhook_queries.bodies(row_ids)


async def effects(actor: Actor, row_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """What deliveries did to projects that an actor may see."""
    return await webhook_queries.effects(actor, row_ids)


# -- inside


def _read(event: str, payload: Mapping[str, Any]) -> Change | Ignored | UnexpectedShape:
    try:
        return webhook_events.read(event, payload, sessions.settings())
    except UnexpectedShape as fault:
        return fault


async def _access(read: Change | Ignored | UnexpectedShape) -> _Access:
    """Who may see what a delivery is about, asked before the transaction. Public repositories are everybody's."""
    if not isinstance(read, Change) or not read.is_private:
        return _Access()
    owners = sorted({project["owner_id"] for project in await _projects(read.repository)})
    seeing: set[UUID] = set()
    is_incomplete = False
    try:
        async with asyncio.timeout(ACCESS_SECONDS):
            for owner_id in owners:
                try:
                    if await github.may_see(owner_id, read.repository):
                        seeing.add(owner_id)
                except (ServiceUnavailable, RateLimitExceeded):
                    is_incomplete = True
    except TimeoutError:
        is_incomplete = True
    return _Access(frozenset(seeing), is_incomplete)


async def _take_effect(
    row_id: UUID,
    read: Change | Ignored | UnexpectedShape,
    granted: _Access,
    slots: Mapping[UUID, Slot],
    *,
    actor: Actor | None,
    origin: Origin,
) -> list[_Effect]:
    """Do what a delivery asks for; one entry per project that was looked at, or one for the whole delivery.

    Empty when a replay finds nothing left to do.
    """
    if isinstance(read, UnexpectedShape):
        return [_Effect(DeliveryStatus.FAILED, f"The payload is not as GitHub documents it: {read}.")]
    if isinstance(read, Ignored):
        return [_Effect(DeliveryStatus.IGNORED, read.reason)]
    await webhook_queries.lock_projects([project["id"] for project in await _projects(read.repository)])
    concerned = await _concerned(read, granted, actor)
    if not concerned:
        return [_Effect(DeliveryStatus.IGNORED, "No project is built from this repository.")]
    done = await webhook_queries.all_effects(row_id)
    left = [project for project in concerned if done.get(project["id"]) is None]
    # By owner, because the queue of each is locked until the commit: everybody locks them in the same order.
    left.sort(key=lambda each: (each["owner_id"], each["id"]))
    by = actor or Actor(origin=origin)
    return [await _affect(row_id, project, read, slots.get(project["id"], Slot()), by) for project in left]


async def _affect(row_id: UUID, project: Row, change: Change, slot: Slot, by: Actor) -> _Effect:
    try:
        async with savepoint():
            deployment_id, message = await _deploy(project, change, slot)
            if slot.is_used:
                await AuditEvent.record(
                    by,
                    _DEPLOY_BY[change.trigger],
                    target_type="deployment",
                    target_id=deployment_id,
                    details={"project": str(project["id"]), "branch": change.source.branch, "delivery": str(row_id)},
                )
            await webhook_queries.put_effect(row_id, project["id"], deployment_id=deployment_id, message=message)
    except (SwitchyardError, IntegrityError, CannotOpen) as error:
        slot.leave()
        # An outage is no matter of one project: everything is undone, and GitHub told to come back.
        if isinstance(error, ServiceUnavailable):
            raise
        message = error.message if isinstance(error, SwitchyardError) else "The deployment could not be queued."
        await webhook_queries.put_effect(row_id, project["id"], deployment_id=None, message=message)
        _log.warning("webhook_effect_failed", project=str(project["id"]), error=repr(error))
        return _Effect(DeliveryStatus.FAILED, message)
    return _Effect(DeliveryStatus.IGNORED if deployment_id is None else DeliveryStatus.PROCESSED, message)


async def _deploy(project: Row, change: Change, slot: Slot) -> tuple[UUID | None, str]:
    """The deployment that a change comes to, made now or by the other event about the same commit; or why none."""
    decision = webhook_events.decide(project, change)
    if isinstance(decision, Ignored):
        return None, decision.reason
    source = change.source
    if not source.is_fork:
        if change.trigger is DeploymentTrigger.PULL_REQUEST:
            reason = await webhook_queries.skipped_push(
                project["id"],
                repository=change.repository,
                commit_hash=change.commit,
                reasons=webhook_events.SKIPPED_WITH_PUSH,
            )
            if reason is not None:
                return None, reason
        made = await webhook_queries.deployment_of_commit(
            project["id"], branch=source.branch, commit_hash=change.commit, environment=decision.value
        )
        if made is not None:
            if source.pull_request is not None:
                await webhook_queries.note_pull_request(made, source.pull_request)
            return made, "The commit is deployed already: a push and a pull request named it."
    slot.use()
    deployment_id = await deployment_queue.enqueue(
        project, source, environment=decision, trigger=change.trigger, requested_by=None
    )
    return deployment_id, f"A {decision.value.lower()} deployment was queued."


@asynccontextmanager
async def _slots(
    read: Change | Ignored | UnexpectedShape, granted: _Access, *, actor: Actor | None
) -> AsyncIterator[dict[UUID, Slot]]:
    """Room for the deployments that a delivery may come to, each its owner's; asked for before the transaction."""
    async with AsyncExitStack() as stack:
        slots: dict[UUID, Slot] = {}
        if isinstance(read, Change):
            for project in await _concerned(read, granted, actor):
                if not isinstance(webhook_events.decide(project, read), Ignored):
                    slots[project["id"]] = await stack.enter_async_context(limits.deployment(project["owner_id"]))
        yield slots


async def _concerned(change: Change, granted: _Access, actor: Actor | None) -> list[Row]:
    """The projects that a change may deploy and, on a replay, that the actor sees."""
    return [
        project
        for project in await _projects(change.repository)
        if (granted.owners is None or project["owner_id"] in granted.owners)
        and (actor is None or access.sees_project(actor, project["owner_id"], project["id"]))
    ]


async def _projects(repository: str) -> list[Row]:
    try:
        key = normalise_repository(repository, sessions.settings()).key
    except ValidationFailed:
        return []
    return await project_queries.of_repository(key)


def _summary(effects: Sequence[_Effect], granted: _Access) -> tuple[DeliveryStatus, str]:
    statuses = [effect.status for effect in effects]
    if granted.is_incomplete:
        return DeliveryStatus.FAILED, "GitHub did not say who may see the private repository; replay the delivery."
    order = (DeliveryStatus.FAILED, DeliveryStatus.PROCESSED, DeliveryStatus.IGNORED)
    status = next(each for each in order if each in statuses)
    if len(effects) == 1:
        return status, effects[0].message
    counts = ", ".join(f"{statuses.count(each)} {each.value.lower()}" for each in DeliveryStatus if each in statuses)
    return status, f"{len(effects)} projects: {counts}."


def _repeated(row: Row) -> Outcome:
    return Outcome(row["id"], DeliveryStatus(row["status"]), row["message"], is_repeat=True)


def _action(payload: Mapping[str, Any]) -> str | None:
    action = payload.get("action")
    return action.replace("\0", "")[:64] if isinstance(action, str) else None


def _repository(payload: Mapping[str, Any]) -> str | None:
    try:
        return webhook_events.repository_of(payload)
    except UnexpectedShape:
        return None
