"""Webhook endpoints: addresses that people want told what happens, their secrets, tests and repetitions.

Invariants: a secret is sealed before it is stored, and leaves in the answer that made it alone; only its owner makes a
new one; an address that may not be opened is refused when it is given, and judged again at every attempt; a test goes
out of no transaction. Tokens for certain projects reach none of this: what an endpoint is told outlives the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from adapters import events, webhook_sender
from adapters.addresses import BlockedAddress
from adapters.secret_box import CannotOpen
from adapters.webhook_sender import MAX_URL_LENGTH, Outcome
from errors import Conflict, NotFound, ServiceUnavailable, Unauthorized, ValidationFailed
from models import dispatch_queries, endpoint_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import OutboxFilled
from models.executions import FailureCode
from models.idempotency import earlier, once
from models.ids import Prefix, encode_id, new_id
from models.outgoing_webhooks import EVENT_PREFIX, WebhookEventType
from models.permissions import Actor, Permission
from models.sealed import PREVIOUS_WEBHOOK_SECRET, WEBHOOK_SECRET, SealedColumn
from models.transaction import unit_of_work
from resolvers import access, limits, sessions, texts
from tasks import event_payloads

TESTS_AT_ONCE: Final = 16
MAX_DESCRIPTION_LENGTH: Final = 200
LOOK_UP_SECONDS: Final = 3.0

_CREATE: Final = "createWebhookEndpoint"


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint and its new secret, which is shown this once; None when it was made by an earlier request."""

    row: Row
    secret: str | None


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a test, and the dispatch that tells of it."""

    dispatch: Row
    outcome: Outcome


async def create(
    actor: Actor,
    *,
    url: str,
    description: str,
    event_types: Sequence[WebhookEventType] | None,
    project_id: str | None,
    job_id: str | None,
    idempotency_key: str | None,
) -> Made:
    """Make an endpoint of the actor's own, for all that is theirs or for a project, a job, or both.

    Raises ValidationFailed and NotFound with the path of what does not fit, with reason BLOCKED_URL for an address that
    may not be opened, and Conflict when the actor has as many endpoints as they may.
    """
    owner_id = actor.user_id
    if owner_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.WEBHOOK_WRITE)
    project = None if project_id is None else await _own_project(actor, project_id)
    job = None if job_id is None else await _own_job(actor, job_id)
    types = _checked_types(event_types, _subjects(project, job))
    words = texts.prose(description, path=["input", "description"], max_length=MAX_DESCRIPTION_LENGTH)
    request = {"url": url, "description": words, "types": types, "project": project, "job": job}
    made_before = await earlier(owner_id, _CREATE, idempotency_key, request=request)
    if made_before is not None:
        return Made(await _existing(made_before), None)
    target = await _checked_url(url)
    endpoint_id, secret = new_id(), webhook_sender.new_secret()

    async def make() -> None:
        most = sessions.settings().max_webhook_endpoints_per_user
        if await endpoint_queries.count_owned(owner_id) >= most:
            raise Conflict(f"You have {most:,} webhook endpoints, which is the limit. Delete some first.", limit=most)
        if not await endpoint_queries.insert(
            endpoint_id,
            owner_id=owner_id,
            project_id=project,
            job_id=job,
            url=target,
            description=words,
            event_types=types,
            sealed_secret=_seal(secret, WEBHOOK_SECRET, endpoint_id),
        ):
            raise access.missing()
        await _record(actor, _CREATE, endpoint_id, host=_host(target), events=types)

    async with unit_of_work():
        made = await once(owner_id, _CREATE, idempotency_key, request=request, target_id=endpoint_id, make=make)
    return Made(await _existing(made), secret if made == endpoint_id else None)


async def update(actor: Actor, endpoint_id: str, given: Mapping[str, Any]) -> Row:
    """Change some of `url`, `description`, `event_types` and `is_active`; raises as `create`."""
    row = await access.webhook_endpoint(actor, endpoint_id, to=Permission.WEBHOOK_WRITE)
    changes = dict(given)
    if "description" in given:
        changes["description"] = texts.prose(
            given["description"], path=["input", "description"], max_length=MAX_DESCRIPTION_LENGTH
        )
    if "event_types" in given:
        subjects = _subjects(row["project_id"], row["job_id"])
        changes["event_types"] = _checked_types(given["event_types"], subjects)
    if "url" in given:
        changes["url"] = await _checked_url(given["url"])
    if not changes:
        return row
    async with unit_of_work():
        if not await endpoint_queries.update(row["id"], changes):
            raise access.missing()
        await _record(
            actor,
            "updateWebhookEndpoint",
            row["id"],
            changed=sorted(changes),
            **({"host": _host(changes["url"])} if "url" in changes else {}),
        )
    return await _existing(row["id"])


async def rotate_secret(actor: Actor, endpoint_id: str) -> Made:
    """Give an endpoint of the actor's own a new secret; the one before signs too for a day."""
    row = await access.webhook_endpoint(actor, endpoint_id, to=Permission.WEBHOOK_WRITE, of_own=True)
    secret = webhook_sender.new_secret()
    async with unit_of_work():
        found = await endpoint_queries.lock_secret(row["id"])
        if found is None or found["sealed_secret"] is None:
            raise access.missing()
        before = _open(found["sealed_secret"], WEBHOOK_SECRET, row["id"])
        await endpoint_queries.set_secret(
            row["id"],
            _seal(secret, WEBHOOK_SECRET, row["id"]),
            _seal(before, PREVIOUS_WEBHOOK_SECRET, row["id"]),
        )
        await _record(actor, "rotateWebhookSecret", row["id"])
    return Made(await _existing(row["id"]), secret)


async def delete(actor: Actor, endpoint_id: str) -> None:
    """Remove an endpoint with its dispatches; what is under way may still arrive."""
    row = await access.webhook_endpoint(actor, endpoint_id, to=Permission.WEBHOOK_WRITE)
    async with unit_of_work():
        if not await endpoint_queries.delete(endpoint_id=row["id"]):
            raise access.missing()
        await _record(actor, "deleteWebhookEndpoint", row["id"], host=_host(row["url"]), owner=str(row["owner_id"]))


async def test(actor: Actor, endpoint_id: str) -> Tested:
    """Send an endpoint a ping now, once, whether it is active or not; changes nothing about it.

    Raises RateLimitExceeded.
    """
    row = await access.webhook_endpoint(actor, endpoint_id, to=Permission.WEBHOOK_WRITE)
    async with limits.webhook_test(actor.user_id or row["owner_id"]) as slot:
        slot.use()
        stored = await endpoint_queries.secrets_of(row["id"])
        if stored is None or stored["sealed_secret"] is None:
            raise access.missing()
        keys = [
            _open(stored[name], column, row["id"])
            for name, column in (
                ("sealed_secret", WEBHOOK_SECRET),
                ("sealed_previous_secret", PREVIOUS_WEBHOOK_SECRET),
            )
            if stored[name] is not None
        ]
        event_id = new_id()
        payload = event_payloads.ping(encode_id(Prefix.WEBHOOK_ENDPOINT, row["id"]), at=await dispatch_queries.now())
        outcome = await webhook_sender.current().send(
            row["url"], event_id=encode_id(EVENT_PREFIX, event_id), body=payload.encode(), keys=keys
        )
        dispatch_id = new_id()
        async with unit_of_work():
            if not await endpoint_queries.insert_sent(
                dispatch_id,
                row["id"],
                event_id=event_id,
                event_type=WebhookEventType.PING,
                payload=payload,
                status_code=outcome.status_code,
                duration_ms=outcome.duration_ms,
                excerpt=outcome.excerpt,
                failure=outcome.failure and outcome.failure.value,
                message=outcome.message,
            ):
                raise access.missing()
            await _record(actor, "testWebhookEndpoint", row["id"], status=outcome.status_code, failure=outcome.failure)
    return Tested(await _existing_dispatch(dispatch_id), outcome)


async def redeliver(actor: Actor, dispatch_id: str) -> Row:
    """Have a dispatch sent again as soon as may be, under the same event id, with all its attempts.

    Raises Conflict while its endpoint is switched off or it is being sent, RateLimitExceeded.
    """
    row = await access.webhook_dispatch(actor, dispatch_id, to=Permission.WEBHOOK_WRITE)
    async with limits.webhook_test(actor.user_id or row["owner_id"]) as slot:
        slot.use()
        endpoint = await _existing(row["endpoint_id"])
        if not endpoint["is_active"]:
            raise Conflict("The endpoint is switched off; switch it on first.")
        async with unit_of_work():
            if not await endpoint_queries.send_again(row["id"]):
                raise Conflict("It is being sent at this moment.")
            await AuditEvent.record(
                actor,
                "redeliverWebhook",
                target_type="webhookDispatch",
                target_id=row["id"],
                details={"endpoint": str(row["endpoint_id"]), "event": row["event_type"]},
            )
            await events.publish(OutboxFilled())
    return await _existing_dispatch(row["id"])


async def page(actor: Actor, **conditions: Any) -> list[Row]:
    """A page of the endpoints that an actor may see; conditions as `models.endpoint_queries.visible` takes them."""
    return await endpoint_queries.visible(actor, **conditions)


async def count(actor: Actor, **conditions: Any) -> int:
    """How many there are in all."""
    return await endpoint_queries.count_visible(actor, **conditions)


async def by_ids(actor: Actor, endpoint_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the endpoints that an actor may see."""
    found = await endpoint_queries.find(endpoint_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


async def dispatches_by_ids(actor: Actor, dispatch_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the dispatches that an actor may see."""
    found = await endpoint_queries.find_dispatches(dispatch_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


def shown_url(actor: Actor, row: Row) -> str:
    """An endpoint's address; to others than its owner without path and query, which may hold secrets."""
    url: str = row["url"]
    if row["owner_id"] == actor.user_id:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


async def _checked_url(url: str) -> str:
    """An address that may be opened, as it was given; raises ValidationFailed."""
    path = ["input", "url"]
    tidy = url.strip()
    if not 1 <= len(tidy) <= MAX_URL_LENGTH:
        raise ValidationFailed(f"This takes an address of at most {MAX_URL_LENGTH:,} characters.", path=path)
    sender = webhook_sender.current()
    try:
        sender.check(tidy)
        async with asyncio.timeout(LOOK_UP_SECONDS):
            await sender.look_up(tidy)
    except BlockedAddress as error:
        raise ValidationFailed(f"{error}.", path=path, reason=FailureCode.BLOCKED_URL.value) from None
    except TimeoutError:
        return tidy  # judged when something is sent
    return tidy


def _checked_types(
    event_types: Sequence[WebhookEventType] | None, subjects: Collection[str]
) -> list[WebhookEventType] | None:
    """Each type once, in the order of their list; None for all. Raises ValidationFailed."""
    path = ["input", "eventTypes"]
    if event_types is None:
        return None
    chosen = [each for each in WebhookEventType if each in event_types]
    if not chosen:
        raise ValidationFailed("Name at least one type of event, or leave this out for all.", path=path)
    if WebhookEventType.PING in chosen:
        raise ValidationFailed("A ping is sent by testWebhookEndpoint, to every endpoint.", path=path)
    for each in chosen:
        if subjects and each.subject not in subjects:
            raise ValidationFailed(f"An endpoint of a project or a job is never told of {each.value}.", path=path)
    return chosen


def _subjects(project_id: UUID | None, job_id: UUID | None) -> set[str]:
    """What an endpoint that is narrowed can be told of; empty for one that is not."""
    return {name for name, found in (("deployment", project_id), ("run", job_id)) if found is not None}


async def _own_project(actor: Actor, project_id: str) -> UUID:
    try:
        row = await access.project(actor, project_id, to=Permission.PROJECT_READ)
        if row["owner_id"] != actor.user_id:
            raise access.missing()
    except NotFound as error:
        raise NotFound(error.message, path=["input", "projectId"]) from None
    found: UUID = row["id"]
    return found


async def _own_job(actor: Actor, job_id: str) -> UUID:
    try:
        row = await access.job(actor, job_id, to=Permission.JOB_READ)
        if row["owner_id"] != actor.user_id:
            raise access.missing()
    except NotFound as error:
        raise NotFound(error.message, path=["input", "jobId"]) from None
    found: UUID = row["id"]
    return found


async def _existing(endpoint_id: UUID) -> Row:
    row = (await endpoint_queries.find([endpoint_id])).get(endpoint_id)
    if row is None:
        raise access.missing()
    return row


async def _existing_dispatch(dispatch_id: UUID) -> Row:
    row = (await endpoint_queries.find_dispatches([dispatch_id])).get(dispatch_id)
    if row is None:
        raise access.missing()
    return row


def _seal(secret: str, column: SealedColumn, endpoint_id: UUID) -> str:
    return sessions.secret_box().seal(secret, place=column.place(endpoint_id))


def _open(text: str, column: SealedColumn, endpoint_id: UUID) -> str:
    try:
        return sessions.secret_box().open(text, place=column.place(endpoint_id))
    except CannotOpen:
        raise ServiceUnavailable(
            "The signing secret cannot be read; the operator has to look at SECRET_KEYS."
        ) from None


def _host(url: str) -> str:
    return urlsplit(url).netloc[:255]


async def _record(actor: Actor, action: str, endpoint_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="webhookEndpoint", target_id=endpoint_id, details=details)
