"""Webhook endpoints and what they were told, as clients see them. Commands are in `schema/webhook_commands.py`.

Invariants: a secret is no field of anything here; to administrators who do not own an endpoint its address is shown
without path and query. A dispatch's payload may be long, so it is loaded only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from models import database, endpoint_queries
from models.database import Row
from models.ids import Prefix, encode_id
from models.outgoing_webhooks import (
    EVENT_PREFIX,
    DispatchFailure,
    DispatchState,
    EndpointDisabledReason,
    WebhookEventType,
)
from models.permissions import Permission
from resolvers import access, jobs, webhook_endpoints
from schema.context import Context
from schema.enums import publish
from schema.jobs import Job, job_of
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.projects import Project, load_project
from schema.scalars import JSON
from schema.users import User, load_user

Info = strawberry.Info[Context, None]

EVENT_DESCRIPTIONS: Final = {
    "RUN_STARTED": "A worker began a run.",
    "RUN_SUCCEEDED": "A run is done, with as many items as usual.",
    "RUN_INCOMPLETE": "A run is done, but found far fewer items than usual; comes in place of `run.succeeded`.",
    "RUN_FAILED": "A run failed.",
    "RUN_CANCELLED": "A run was cancelled.",
    "DEPLOYMENT_QUEUED": "A deployment was asked for.",
    "DEPLOYMENT_STARTED": "A worker began a deployment.",
    "DEPLOYMENT_SUCCEEDED": "A deployment was built; `isLive` says whether production leads to it.",
    "DEPLOYMENT_FAILED": "A deployment failed.",
    "DEPLOYMENT_CANCELLED": "A deployment was cancelled, or replaced by a newer one.",
    "DEPLOYMENT_PROMOTED": "Somebody let production lead to a deployment, older or newer.",
    "SCAN_STARTED": "A worker began a scan.",
    "SCAN_SUCCEEDED": "A scan is done.",
    "SCAN_FAILED": "A scan failed.",
    "SCAN_CANCELLED": "A scan was cancelled.",
    "OCR_STARTED": "A worker began to read a document.",
    "OCR_SUCCEEDED": "A document was read.",
    "OCR_FAILED": "A document could not be read.",
    "OCR_CANCELLED": "The reading of a document was cancelled.",
    "EXPORT_SUCCEEDED": "An export is ready.",
    "EXPORT_FAILED": "An export failed.",
    "EXPORT_CANCELLED": "An export was cancelled.",
    "PING": "A test, sent by `testWebhookEndpoint` alone.",
}

publish(
    WebhookEventType,
    "What a webhook endpoint can be told of. In what is sent, `type` is in lower case with a full stop, such as "
    "`run.succeeded`. Expect new values.",
    **EVENT_DESCRIPTIONS,
)
publish(
    EndpointDisabledReason,
    "Why a webhook endpoint is told nothing.",
    BY_USER="Somebody switched it off.",
    GONE="It answered 410.",
    FAILING="It took nothing for five days.",
)
publish(
    DispatchState,
    "Where a dispatch stands.",
    PENDING="It is being sent, or waits for its next attempt.",
    DELIVERED="The endpoint took it: it answered 2xx.",
    FAILED="It is not tried any more.",
)
publish(
    DispatchFailure,
    "Why an attempt did not deliver. Expect new values.",
    BLOCKED_URL="The address may not be opened: it is not public, or not https.",
    UNKNOWN_HOST="The host has no address.",
    CONNECTION_FAILED="There was no connection, or it broke.",
    TLS_FAILED="There was no encrypted connection, such as for a bad certificate.",
    TIMED_OUT="There was no complete answer within 15 seconds.",
    REDIRECTED="It answered 3xx; redirects are not followed.",
    BAD_STATUS="It answered with another status than 2xx.",
    GONE="It answered 410, which switched it off.",
    ENDPOINT_DISABLED="The endpoint was switched off before it could be told.",
    WORKER_LOST="The workers that sent it were lost each time.",
    INTERNAL="A fault of this installation; it says nothing of the endpoint.",
)


@strawberry.type(description="One attempt to deliver a dispatch.")
class WebhookAttempt:
    """An entry of the log."""

    at: datetime = strawberry.field(description="When it ended.")
    status_code: int | None = strawberry.field(description="The HTTP status of the answer; null without one.")
    duration_ms: int | None = strawberry.field(description="How long it took, in milliseconds.")
    failure: DispatchFailure | None = strawberry.field(description="Why it did not deliver; null if it did.")
    message: str | None = strawberry.field(description="The same in words.")


@strawberry.type(description="One event for one webhook endpoint.")
class WebhookDispatch(Node):
    """A dispatch."""

    event_id: str = strawberry.field(
        description="The event's id, `evt_…`, sent as `webhook-id`: the same in every attempt, for receivers to tell "
        "by that they had it before."
    )
    event_type: WebhookEventType = strawberry.field(description="What happened.")
    state: DispatchState = strawberry.field(description="Where it stands.")
    attempts: int = strawberry.field(description="How often it was tried.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is tried next; null when it is not, and while it is being sent."
    )
    status_code: int | None = strawberry.field(description="The HTTP status of the last answer; null without one.")
    duration_ms: int | None = strawberry.field(description="How long the last attempt took, in milliseconds.")
    response_excerpt: str | None = strawberry.field(
        description="The beginning of the last answer's body as text, up to 1 KiB; null without an answer."
    )
    failure: DispatchFailure | None = strawberry.field(description="Why the last attempt did not deliver.")
    failure_message: str | None = strawberry.field(description="The same in words.")
    attempt_log: list[WebhookAttempt] = strawberry.field(description="The last twelve attempts, oldest first.")
    created_at: datetime = strawberry.field(description="When it was written down, right after the event.")
    finished_at: datetime | None = strawberry.field(description="When it was delivered or given up.")
    key: strawberry.Private[UUID]
    endpoint_key: strawberry.Private[UUID]

    @strawberry.field(description="What is sent, as JSON.")
    async def payload(self, info: Info) -> JSON | None:
        """Loaded only when asked for; whoever sees a dispatch may see its payload."""
        found: str | None = await info.context.load(_load_payloads, self.key)
        return None if found is None else JSON(database.from_json(found))

    @strawberry.field(description="The endpoint.")
    async def endpoint(self, info: Info) -> WebhookEndpoint | None:
        """Loaded for the whole page at once."""
        row: Row | None = await info.context.load(_load_endpoints, self.endpoint_key)
        return None if row is None else endpoint_of(row, info.context)


@strawberry.input(description="Which dispatches.")
class WebhookDispatchFilter:
    """Conditions; all given ones must hold."""

    state: DispatchState | None = strawberry.field(default=None, description="Those that stand so.")
    event_type: WebhookEventType | None = strawberry.field(default=None, description="Those of this type.")


@strawberry.type(description="An address that is told what happens to its owner's things.")
class WebhookEndpoint(Node):
    """An endpoint."""

    url: str = strawberry.field(
        description="Where it is told; to others than its owner without path and query, which may hold secrets."
    )
    description: str = strawberry.field(description="What its owner says of it.")
    event_types: list[WebhookEventType] | None = strawberry.field(
        description="What it is told of; null for everything, also what comes to be later."
    )
    is_active: bool = strawberry.field(description="Whether it is told anything.")
    failing_since: datetime | None = strawberry.field(
        description="Since when it has taken nothing that it was sent; null when it took the last. After five days it "
        "is switched off."
    )
    disabled_at: datetime | None = strawberry.field(description="When it was switched off; null while it is active.")
    disabled_reason: EndpointDisabledReason | None = strawberry.field(description="Why it was switched off.")
    previous_secret_until: datetime | None = strawberry.field(
        description="Until when the secret before the present one signs too; null when only one does."
    )
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    key: strawberry.Private[UUID]
    owner_key: strawberry.Private[UUID]
    project_key: strawberry.Private[UUID | None]
    job_key: strawberry.Private[UUID | None]

    @strawberry.field(description="Whose it is.")
    async def owner(self, info: Info) -> User | None:
        """Loaded for the whole page at once."""
        return await load_user(info.context, self.owner_key)

    @strawberry.field(description="The project whose deployments it is told of; null when it is narrowed to none.")
    async def project(self, info: Info) -> Project | None:
        """Loaded for the whole page at once."""
        return None if self.project_key is None else await load_project(info.context, self.project_key)

    @strawberry.field(description="The job whose runs it is told of; null when it is narrowed to none.")
    async def job(self, info: Info) -> Job | None:
        """Loaded for the whole page at once."""
        if self.job_key is None:
            return None
        row: Row | None = await info.context.load(_load_jobs, self.job_key)
        return None if row is None else job_of(row)

    @strawberry.field(description="What it was told within the last 30 days, newest first.")
    async def dispatches(
        self,
        filter: Annotated[WebhookDispatchFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[WebhookDispatch]:
        """One page, in one statement."""
        wanted = filter or WebhookDispatchFilter()
        conditions: dict[str, Any] = {"state": wanted.state, "event_type": wanted.event_type}
        return await paginate(
            fetch=by_one_key(partial(endpoint_queries.dispatches, self.key, **conditions)),
            count=lambda: endpoint_queries.count_dispatches(self.key, **conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=dispatch_of,
        )


@strawberry.type(description="A type of event that webhook endpoints can be told of.")
class WebhookEventTypeInfo:
    """One of the catalogue."""

    event_type: WebhookEventType = strawberry.field(description="As this API calls it.")
    name: str = strawberry.field(description="As it is sent in `type`, such as `run.succeeded`.")
    description: str = strawberry.field(description="What happened.")


@strawberry.input(description="Which webhook endpoints.")
class WebhookEndpointFilter:
    """Conditions; all given ones must hold."""

    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="Those narrowed to this project; NOT_FOUND for others' projects."
    )
    job_id: strawberry.ID | None = strawberry.field(
        default=None, description="Those narrowed to this job; NOT_FOUND for others' jobs."
    )
    is_active: bool | None = strawberry.field(default=None, description="Only those that are active, or not.")


@strawberry.type
class WebhookEndpointsQuery:
    """What can be read of endpoints."""

    @strawberry.field(
        description="Your webhook endpoints (administrators: everybody's), newest first. Not for access tokens that "
        "are good for certain projects.",
        extensions=[requires(Permission.WEBHOOK_READ)],
    )
    async def webhook_endpoints(
        self,
        info: Info,
        filter: Annotated[WebhookEndpointFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[WebhookEndpoint]:
        """One page, in one statement."""
        actor = info.context.actor
        conditions: dict[str, Any] = {}
        if filter is not None:
            conditions["is_active"] = filter.is_active
            if filter.project_id is not None:
                project = await access.project(actor, filter.project_id, to=Permission.PROJECT_READ)
                conditions["project_id"] = project["id"]
            if filter.job_id is not None:
                conditions["job_id"] = (await access.job(actor, filter.job_id, to=Permission.JOB_READ))["id"]
        return await paginate(
            fetch=by_one_key(partial(webhook_endpoints.page, actor, **conditions)),
            count=lambda: webhook_endpoints.count(actor, **conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: endpoint_of(row, info.context),
        )

    @strawberry.field(
        description="A webhook endpoint. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.WEBHOOK_READ)],
    )
    async def webhook_endpoint(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The endpoint.")]
    ) -> WebhookEndpoint | None:
        """One endpoint."""
        row = await access.webhook_endpoint(info.context.actor, id, to=Permission.WEBHOOK_READ)
        return endpoint_of(row, info.context)

    @strawberry.field(
        description="All types of events that a webhook endpoint can be told of.",
        extensions=[requires(Permission.WEBHOOK_READ)],
    )
    async def webhook_event_types(self) -> list[WebhookEventTypeInfo]:
        """The catalogue; it has no more than the enumeration."""
        return [
            WebhookEventTypeInfo(event_type=each, name=each.value, description=EVENT_DESCRIPTIONS[each.name])
            for each in WebhookEventType
        ]


def endpoint_of(row: Row, context: Context) -> WebhookEndpoint:
    """The endpoint in a row of `models.endpoint_queries`."""
    types = database.from_json(row["event_types"])
    reason = row["disabled_reason"]
    return WebhookEndpoint(
        id=strawberry.ID(encode_id(Prefix.WEBHOOK_ENDPOINT, row["id"])),
        url=webhook_endpoints.shown_url(context.actor, row),
        description=row["description"],
        event_types=None if types is None else [WebhookEventType(each) for each in types],
        is_active=row["is_active"],
        failing_since=row["failing_since"],
        disabled_at=row["disabled_at"],
        disabled_reason=None if reason is None else EndpointDisabledReason(reason),
        previous_secret_until=row["previous_secret_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        key=row["id"],
        owner_key=row["owner_id"],
        project_key=row["project_id"],
        job_key=row["job_id"],
    )


def dispatch_of(row: Row) -> WebhookDispatch:
    """The dispatch in a row of `models.endpoint_queries`."""
    return WebhookDispatch(
        id=strawberry.ID(encode_id(Prefix.WEBHOOK_DISPATCH, row["id"])),
        event_id=encode_id(EVENT_PREFIX, row["event_id"]),
        event_type=WebhookEventType(row["event_type"]),
        state=DispatchState(row["state"]),
        attempts=row["attempts"],
        next_attempt_at=None if row["is_sending"] else row["next_attempt_at"],
        status_code=row["status_code"],
        duration_ms=row["duration_ms"],
        response_excerpt=row["response_excerpt"],
        failure=_failure(row["failure_code"]),
        failure_message=row["failure_message"],
        attempt_log=[
            WebhookAttempt(
                at=datetime.fromisoformat(entry["at"]),
                status_code=entry["statusCode"],
                duration_ms=entry["durationMs"],
                failure=_failure(entry["failure"]),
                message=entry["message"],
            )
            for entry in database.from_json(row["attempt_log"])
        ],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        key=row["id"],
        endpoint_key=row["endpoint_id"],
    )


def _failure(code: str | None) -> DispatchFailure | None:
    return None if code is None else DispatchFailure(code)


@register_node(Prefix.WEBHOOK_ENDPOINT)
async def _endpoint_node(context: Context, row_id: UUID) -> WebhookEndpoint | None:
    if not context.actor.may(Permission.WEBHOOK_READ):
        return None
    row: Row | None = await context.load(_load_endpoints, row_id)
    return None if row is None else endpoint_of(row, context)


@register_node(Prefix.WEBHOOK_DISPATCH)
async def _dispatch_node(context: Context, row_id: UUID) -> WebhookDispatch | None:
    if not context.actor.may(Permission.WEBHOOK_READ):
        return None
    row: Row | None = await context.load(_load_dispatches, row_id)
    return None if row is None else dispatch_of(row)


async def _load_endpoints(context: Context, row_ids: list[UUID]) -> Sequence[Row | None]:
    found = await webhook_endpoints.by_ids(context.actor, row_ids)
    return [found.get(each) for each in row_ids]


async def _load_dispatches(context: Context, row_ids: list[UUID]) -> Sequence[Row | None]:
    found = await webhook_endpoints.dispatches_by_ids(context.actor, row_ids)
    return [found.get(each) for each in row_ids]


async def _load_payloads(_context: Context, row_ids: list[UUID]) -> Sequence[str | None]:
    found = await endpoint_queries.payloads(row_ids)
    return [found.get(each) for each in row_ids]


async def _load_jobs(context: Context, job_ids: list[UUID]) -> Sequence[Row | None]:
    found = await jobs.by_ids(job_ids)
    return [
        row if (row := found.get(each)) is not None and access.sees_job(context.actor, row["owner_id"]) else None
        for each in job_ids
    ]
