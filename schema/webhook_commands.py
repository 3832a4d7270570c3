"""Commands on webhook endpoints; what is allowed is decided in `resolvers/webhook_endpoints.py` and at the gate.

Invariant: a secret leaves in the answer of the command that made it, and in no other.
"""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from models.outgoing_webhooks import DispatchFailure, WebhookEventType
from models.permissions import Permission
from resolvers import webhook_endpoints
from schema.context import Context
from schema.permissions import requires
from schema.webhook_endpoints import WebhookDispatch, WebhookEndpoint, dispatch_of, endpoint_of

Info = strawberry.Info[Context, None]

_URL = (
    "Up to 2,048 characters; https in production. VALIDATION_ERROR with reason BLOCKED_URL when it is not public, or "
    "not on port 80 or 443, unless the operator opened it."
)


@strawberry.input(description="A new webhook endpoint.")
class CreateWebhookEndpointInput:
    """What a new endpoint needs."""

    url: str = strawberry.field(description=f"Where it is told. {_URL}")
    description: str = strawberry.field(default="", description="What it is for, up to 200 characters.")
    event_types: list[WebhookEventType] | None = strawberry.field(
        default=None, description="What it is told of; left out, everything, also what comes to be later."
    )
    project_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="A project of your own: it is told of its deployments, and besides `jobId` of nothing else. It "
        "goes with the project.",
    )
    job_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="A job of your own: it is told of its runs, and besides `projectId` of nothing else. It goes "
        "with the job.",
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Any text of up to 255 characters. A repeated request with the same key makes nothing new.",
    )


@strawberry.input(description="Changes of a webhook endpoint; what is left out stays.")
class UpdateWebhookEndpointInput:
    """What changes."""

    id: strawberry.ID = strawberry.field(description="The endpoint.")
    url: str | None = strawberry.field(default=strawberry.UNSET, description=f"Where it is told. {_URL}")
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="What it is for, up to 200 characters."
    )
    event_types: list[WebhookEventType] | None = strawberry.field(
        default=strawberry.UNSET, description="What it is told of; null for everything."
    )
    is_active: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether it is told anything. What waits for an endpoint that is switched off is given up within "
        "minutes. One that is switched on counts as failing no more.",
    )


@strawberry.input(description="Which webhook endpoint gets a new secret.")
class RotateWebhookSecretInput:
    """Which one."""

    id: strawberry.ID = strawberry.field(description="The endpoint, one of your own.")


@strawberry.input(description="Which webhook endpoint goes.")
class DeleteWebhookEndpointInput:
    """Which one."""

    id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="Which webhook endpoint is tested.")
class TestWebhookEndpointInput:
    """Which one."""

    id: strawberry.ID = strawberry.field(description="The endpoint.")


@strawberry.input(description="Which dispatch is sent again.")
class RedeliverWebhookInput:
    """Which one."""

    dispatch_id: strawberry.ID = strawberry.field(description="The dispatch.")


@strawberry.type(description="A webhook endpoint, and its new secret if it has one.")
class WebhookSecretPayload:
    """The one time that a secret is shown."""

    secret: str | None = strawberry.field(
        description="`whsec_` and base64 of the key that signs (Standard Webhooks). Keep it: it is shown this once. "
        "Null when the endpoint was made by an earlier request with the same idempotency key."
    )
    endpoint: WebhookEndpoint = strawberry.field(description="The endpoint.")


@strawberry.type(description="A webhook endpoint that changed.")
class UpdateWebhookEndpointPayload:
    """As it is now."""

    endpoint: WebhookEndpoint = strawberry.field(description="The endpoint, as it is now.")


@strawberry.type(description="A webhook endpoint that is gone.")
class DeleteWebhookEndpointPayload:
    """That it is done."""

    deleted_id: strawberry.ID = strawberry.field(description="The endpoint's id.")


@strawberry.type(description="What came of a test.")
class TestWebhookEndpointPayload:
    """The answer, at once."""

    delivered: bool = strawberry.field(description="Whether the endpoint answered 2xx.")
    status_code: int | None = strawberry.field(description="The HTTP status of the answer; null without one.")
    duration_ms: int = strawberry.field(description="How long it took, in milliseconds.")
    response_excerpt: str | None = strawberry.field(
        description="The beginning of the answer's body as text, up to 1 KiB; null without an answer."
    )
    failure: DispatchFailure | None = strawberry.field(description="Why it was not delivered; null if it was.")
    failure_message: str | None = strawberry.field(description="The same in words.")
    dispatch: WebhookDispatch = strawberry.field(description="The dispatch that tells of it.")


@strawberry.type(description="A dispatch that is sent again.")
class RedeliverWebhookPayload:
    """As it is now."""

    dispatch: WebhookDispatch = strawberry.field(description="The dispatch, as it is now.")


@strawberry.type
class WebhookEndpointsMutation:
    """Commands on endpoints."""

    @strawberry.mutation(
        description="Have an address told what happens. CONFLICT when you have as many endpoints as you may; "
        "NOT_FOUND, with the `path`, for a project or job that is not your own.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def create_webhook_endpoint(
        self, info: Info, input: Annotated[CreateWebhookEndpointInput, strawberry.argument(description="The endpoint.")]
    ) -> WebhookSecretPayload:
        """A new endpoint."""
        made = await webhook_endpoints.create(
            info.context.actor,
            url=input.url,
            description=input.description,
            event_types=input.event_types,
            project_id=input.project_id,
            job_id=input.job_id,
            idempotency_key=input.idempotency_key,
        )
        return WebhookSecretPayload(secret=made.secret, endpoint=endpoint_of(made.row, info.context))

    @strawberry.mutation(
        description="Change a webhook endpoint. What is already written down for it goes to its new address.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def update_webhook_endpoint(
        self, info: Info, input: Annotated[UpdateWebhookEndpointInput, strawberry.argument(description="What changes.")]
    ) -> UpdateWebhookEndpointPayload:
        """The endpoint, afterwards."""
        given: dict[str, Any] = {
            name: value
            for name in ("url", "description", "event_types", "is_active")
            # Null is a value of `eventTypes` alone; of the others it means that nothing changes.
            if (value := getattr(input, name)) is not strawberry.UNSET and (value is not None or name == "event_types")
        }
        row = await webhook_endpoints.update(info.context.actor, input.id, given)
        return UpdateWebhookEndpointPayload(endpoint=endpoint_of(row, info.context))

    @strawberry.mutation(
        description="Give a webhook endpoint of your own a new secret. For 24 hours the one before signs too; one that "
        "is older signs no more at once.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def rotate_webhook_secret(
        self, info: Info, input: Annotated[RotateWebhookSecretInput, strawberry.argument(description="Which one.")]
    ) -> WebhookSecretPayload:
        """A new secret."""
        made = await webhook_endpoints.rotate_secret(info.context.actor, input.id)
        return WebhookSecretPayload(secret=made.secret, endpoint=endpoint_of(made.row, info.context))

    @strawberry.mutation(
        description="Remove a webhook endpoint with its dispatches. What is being sent meanwhile may still arrive.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def delete_webhook_endpoint(
        self, info: Info, input: Annotated[DeleteWebhookEndpointInput, strawberry.argument(description="Which one.")]
    ) -> DeleteWebhookEndpointPayload:
        """The end of an endpoint."""
        await webhook_endpoints.delete(info.context.actor, input.id)
        return DeleteWebhookEndpointPayload(deleted_id=input.id)

    @strawberry.mutation(
        description="Send a webhook endpoint a `ping` now and say what it answered, within 15 seconds; once, whether "
        "it is active or not. It changes nothing about the endpoint.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def test_webhook_endpoint(
        self, info: Info, input: Annotated[TestWebhookEndpointInput, strawberry.argument(description="Which one.")]
    ) -> TestWebhookEndpointPayload:
        """The answer to a ping."""
        tested = await webhook_endpoints.test(info.context.actor, input.id)
        outcome = tested.outcome
        return TestWebhookEndpointPayload(
            delivered=outcome.failure is None,
            status_code=outcome.status_code,
            duration_ms=outcome.duration_ms,
            response_excerpt=outcome.excerpt,
            failure=outcome.failure,
            failure_message=outcome.message,
            dispatch=dispatch_of(tested.dispatch),
        )

    @strawberry.mutation(
        description="Send a dispatch again as soon as may be, delivered or not, under the same event id; if it fails "
        "it is tried as often as a new one. CONFLICT while it is being sent, or its endpoint is switched off.",
        extensions=[requires(Permission.WEBHOOK_WRITE)],
    )
    async def redeliver_webhook(
        self, info: Info, input: Annotated[RedeliverWebhookInput, strawberry.argument(description="Which one.")]
    ) -> RedeliverWebhookPayload:
        """A dispatch that waits again."""
        row = await webhook_endpoints.redeliver(info.context.actor, input.dispatch_id)
        return RedeliverWebhookPayload(dispatch=dispatch_of(row))
