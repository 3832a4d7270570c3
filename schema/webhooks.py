"""Webhooks of GitHub: the door they come in by, and the inbox as clients see it.

Invariants: nothing of a body is believed, parsed or stored before its signature over the raw bytes is right (HMAC with
SHA-256, compared in constant time); a body is bounded while it arrives. What a delivery means is not known here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import orjson
import strawberry
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from errors import ServiceUnavailable, Unauthorized, ValidationFailed
from models import database
from models.database import Row
from models.ids import Prefix, encode_id
from models.permissions import Permission
from models.webhooks import DeliveryStatus
from resolvers import access, deployments, webhooks
from resolvers.webhooks import Delivery
from schema.context import Context
from schema.deployments import Deployment, deployment_of
from schema.enums import publish
from schema.middleware import BodyLimits, origin_of
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.projects import Project, load_project
from schema.scalars import JSON, read_json
from settings import Settings

Info = strawberry.Info[Context, None]

MAX_BODY_BYTES: Final = 5 * 2**20
_SIGNATURE: Final = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)
_DELIVERY_ID: Final = re.compile(r"[A-Za-z0-9-]{8,64}", re.ASCII)
_EVENT: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

publish(
    DeliveryStatus,
    "What became of a delivery.",
    PROCESSED="It led to a deployment.",
    IGNORED="There was nothing to do; the message says why.",
    FAILED="It should have led to something and did not; the message says why. It can be replayed.",
)


# -- the door


def routes(settings: Settings) -> list[BaseRoute]:
    """`POST /webhooks/github`."""
    door = BodyLimits(_Door(settings), max_bytes=MAX_BODY_BYTES, timeout_seconds=settings.body_timeout_seconds)
    return [Route("/webhooks/github", door, methods=["POST"])]


class _Door:
    """Checks who knocks. The secrets are read once; several may hold while one replaces another."""

    def __init__(self, settings: Settings) -> None:
        given = settings.github_webhook_secret
        self._secrets = [part.strip().encode() for part in given.get_secret_value().split(",")] if given else []
        self._secrets = [secret for secret in self._secrets if secret]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if not self._secrets:
            raise ServiceUnavailable("Webhooks are not set up here: the operator has to give GITHUB_WEBHOOK_SECRET.")
        body = await request.body()
        if not self._is_signed(body, request.headers.get("x-hub-signature-256", "")):
            raise Unauthorized("The signature is missing or wrong.")
        delivery_id, event = request.headers.get("x-github-delivery", ""), request.headers.get("x-github-event", "")
        if not _DELIVERY_ID.fullmatch(delivery_id) or not _EVENT.fullmatch(event):
            raise ValidationFailed("X-GitHub-Delivery or X-GitHub-Event is missing or malformed.")
        payload = _payload(request.headers.get("content-type", ""), body)
        outcome = await webhooks.receive(
            Delivery(delivery_id=delivery_id, event=event, payload=payload, origin=origin_of(request.scope))
        )
        is_new_failure = outcome.status is DeliveryStatus.FAILED and not outcome.is_repeat
        return JSONResponse(
            {
                "id": encode_id(Prefix.WEBHOOK_DELIVERY, outcome.id),
                "status": outcome.status.value,
                "message": outcome.message,
                "repeated": outcome.is_repeat,
            },
            status_code=202 if is_new_failure else 200,
        )

    def _is_signed(self, body: bytes, header: str) -> bool:
        given = _SIGNATURE.fullmatch(header)
        if given is None:
            return False
        # All of them, whichever holds: how long it takes tells nothing.
        matches = [hmac.compare_digest(hmac.digest(key, body, hashlib.sha256).hex(), given[1]) for key in self._secrets]
        return any(matches)


def _payload(content_type: str, body: bytes) -> Mapping[str, Any]:
    """The object in a body of JSON, or in the `payload` of a form: GitHub sends either, as a webhook is set up."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _FORM:
        try:
            body = parse_qs(body.decode(), max_num_fields=10).get("payload", [""])[0].encode()
        except ValueError:
            raise ValidationFailed("The form is malformed.") from None
    elif media_type != _JSON:
        raise ValidationFailed(f"The content type must be {_JSON} or {_FORM}.")
    try:
        payload = read_json(orjson.loads(body))
    except ValueError:
        raise ValidationFailed("The payload is not JSON that can be stored.") from None
    if not isinstance(payload, dict):
        raise ValidationFailed("The payload is no JSON object.")
    return payload


# -- the inbox


@strawberry.type(description="What a delivery did to one of your projects.")
class WebhookEffect:
    """An effect."""

    message: str = strawberry.field(description="What was done, or why nothing was.")
    project_key: strawberry.Private[UUID]
    deployment_key: strawberry.Private[UUID | None]

    @strawberry.field(description="The project.")
    async def project(self, info: Info) -> Project | None:
        """Loaded for the whole page at once."""
        return await load_project(info.context, self.project_key)

    @strawberry.field(description="The deployment it led to; null when there is none, or it was deleted.")
    async def deployment(self, info: Info) -> Deployment | None:
        """Loaded for the whole page at once."""
        if self.deployment_key is None:
            return None
        row: Row | None = await info.context.load(_load_deployments, self.deployment_key)
        return None if row is None else deployment_of(row, info.context)


@strawberry.type(description="Something that GitHub told us.")
class WebhookDelivery(Node):
    """A delivery."""

    delivery_id: str = strawberry.field(description="GitHub's id of it, as its settings page shows.")
    event: str = strawberry.field(description="Its kind, such as `push`.")
    action: str | None = strawberry.field(description="What happened, for kinds that say so, such as `opened`.")
    repository: str | None = strawberry.field(description="`owner/name` in lower case, if it is about one.")
    status: DeliveryStatus = strawberry.field(description="What became of it.")
    message: str = strawberry.field(description="The same in words.")
    attempts: int = strawberry.field(description="How often it was looked at; replays count.")
    received_at: datetime = strawberry.field(description="When it came.")
    processed_at: datetime = strawberry.field(description="When it was last looked at.")
    key: strawberry.Private[UUID]

    @strawberry.field(description="What was delivered.")
    async def body(self, info: Info) -> JSON | None:
        """Loaded only when asked for; whoever sees a delivery may see its body."""
        found: str | None = await info.context.load(_load_bodies, self.key)
        return None if found is None else JSON(database.from_json(found))

    @strawberry.field(description="What it did to your projects (administrators: to everybody's).")
    async def effects(self, info: Info) -> list[WebhookEffect]:
        """Loaded for the whole page at once."""
        found: list[Row] = await info.context.load(_load_effects, self.key)
        return [
            WebhookEffect(message=row["message"], project_key=row["project_id"], deployment_key=row["deployment_id"])
            for row in found
        ]


@strawberry.input(description="Which deliveries.")
class WebhookDeliveryFilter:
    """Conditions; all given ones must hold."""

    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="Those with an effect on this project; NOT_FOUND for others' projects."
    )
    status: DeliveryStatus | None = strawberry.field(default=None, description="Those that ended so.")
    event: str | None = strawberry.field(default=None, description="Those of this kind, such as `push`.")


@strawberry.input(description="Which delivery.")
class ReplayDeliveryInput:
    """A delivery to look at again."""

    id: strawberry.ID = strawberry.field(description="The delivery.")


@strawberry.type(description="A delivery.")
class ReplayDeliveryPayload:
    """The delivery as it is now."""

    delivery: WebhookDelivery = strawberry.field(description="The delivery, as it is now.")


@strawberry.type
class WebhooksQuery:
    """What can be read of the inbox."""

    @strawberry.field(
        description="What GitHub told us about your projects (administrators: everything), newest first.",
        extensions=[requires(Permission.PROJECT_READ)],
    )
    async def webhook_deliveries(
        self,
        info: Info,
        filter: Annotated[WebhookDeliveryFilter | None, strawberry.argument(description="Which ones.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[WebhookDelivery]:
        """One page of deliveries, in one statement."""
        actor = info.context.actor
        conditions: dict[str, Any] = {}
        if filter is not None:
            conditions = {"status": filter.status, "event": filter.event}
            if filter.project_id is not None:
                project = await access.project(actor, filter.project_id, to=Permission.PROJECT_READ)
                conditions["project_id"] = project["id"]

        return await paginate(
            fetch=by_one_key(partial(webhooks.page, actor, **conditions)),
            count=lambda: webhooks.count(actor, **conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=_delivery,
        )

    @strawberry.field(
        description="A delivery. NOT_FOUND when there is none, or it is not about a project of yours.",
        extensions=[requires(Permission.PROJECT_READ)],
    )
    async def webhook_delivery(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The delivery.")]
    ) -> WebhookDelivery | None:
        """One delivery."""
        return _delivery(await webhooks.visible(info.context.actor, id, to=Permission.PROJECT_READ))


@strawberry.type
class WebhooksMutation:
    """Commands on the inbox."""

    @strawberry.mutation(
        description="Look again at a delivery that was ignored or failed, for your projects (administrators: for all) "
        "that it led to no deployment of. A deployment that it led to stays the only one.",
        extensions=[requires(Permission.PROJECT_WRITE)],
    )
    async def replay_delivery(
        self, info: Info, input: Annotated[ReplayDeliveryInput, strawberry.argument(description="Which one.")]
    ) -> ReplayDeliveryPayload:
        """A second look."""
        return ReplayDeliveryPayload(delivery=_delivery(await webhooks.replay(info.context.actor, input.id)))


def _delivery(row: Row) -> WebhookDelivery:
    return WebhookDelivery(
        id=strawberry.ID(encode_id(Prefix.WEBHOOK_DELIVERY, row["id"])),
        delivery_id=row["delivery_id"],
        event=row["event"],
        action=row["action"],
        repository=row["repository"],
        status=DeliveryStatus(row["status"]),
        message=row["message"],
        attempts=row["attempts"],
        received_at=row["received_at"],
        processed_at=row["processed_at"],
        key=row["id"],
    )


@register_node(Prefix.WEBHOOK_DELIVERY)
async def _delivery_node(context: Context, row_id: UUID) -> WebhookDelivery | None:
    if not context.actor.may(Permission.PROJECT_READ):
        return None
    row: Row | None = await context.load(_load_deliveries, row_id)
    return None if row is None else _delivery(row)


async def _load_deliveries(context: Context, row_ids: list[UUID]) -> Sequence[Row | None]:
    found = await webhooks.find(context.actor, row_ids)
    return [found.get(each) for each in row_ids]


async def _load_deployments(context: Context, deployment_ids: list[UUID]) -> Sequence[Row | None]:
    found = await deployments.find(context.actor, deployment_ids)
    return [found.get(each) for each in deployment_ids]


async def _load_bodies(_context: Context, row_ids: list[UUID]) -> Sequence[str | None]:
    found = await webhooks.bodies(row_ids)
    return [found.get(each) for each in row_ids]


async def _load_effects(context: Context, row_ids: list[UUID]) -> Sequence[list[Row]]:
    found = await webhooks.effects(context.actor, row_ids)
    return [found[each] for each in row_ids]
