"""Webhooks that leave: whom an owner wants told of what, and what became of each telling.

A dispatch is one event for one endpoint; its row is queue, lock and log at once, as an execution's is. Invariants kept
by the database: an event is there once for an endpoint; a dispatch that is not PENDING has an end, and only one that is
PENDING has a next attempt or a lease. `payload` is text and not JSON, because the signature is over its bytes. Incoming
deliveries of GitHub are `models/webhooks.py`'s. Queries are in `models/endpoint_queries.py` and, for workers, in
`models/dispatch_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from tortoise import fields
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.jobs import Job
from models.projects import Project
from models.users import User

EVENT_PREFIX: Final = "evt"
"""What ids of events begin with; they name no row."""


class WebhookEventType(StrEnum):
    """What an endpoint can be told of."""

    RUN_STARTED = "run.started"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_INCOMPLETE = "run.incomplete"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    DEPLOYMENT_QUEUED = "deployment.queued"
    DEPLOYMENT_STARTED = "deployment.started"
    DEPLOYMENT_SUCCEEDED = "deployment.succeeded"
    DEPLOYMENT_FAILED = "deployment.failed"
    DEPLOYMENT_CANCELLED = "deployment.cancelled"
    DEPLOYMENT_PROMOTED = "deployment.promoted"
    SCAN_STARTED = "scan.started"
    SCAN_SUCCEEDED = "scan.succeeded"
    SCAN_FAILED = "scan.failed"
    SCAN_CANCELLED = "scan.cancelled"
    OCR_STARTED = "ocr.started"
    OCR_SUCCEEDED = "ocr.succeeded"
    OCR_FAILED = "ocr.failed"
    OCR_CANCELLED = "ocr.cancelled"
    EXPORT_SUCCEEDED = "export.succeeded"
    EXPORT_FAILED = "export.failed"
    EXPORT_CANCELLED = "export.cancelled"
    PING = "ping"

    @property
    def subject(self) -> str:
        """What it is about, such as `run`."""
        return self.value.partition(".")[0]


class EndpointDisabledReason(StrEnum):
    """Why an endpoint is told nothing."""

    BY_USER = "BY_USER"
    GONE = "GONE"
    FAILING = "FAILING"


class DispatchState(StrEnum):
    """Where a dispatch stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class DispatchFailure(StrEnum):
    """Why an attempt did not deliver."""

    BLOCKED_URL = "BLOCKED_URL"
    UNKNOWN_HOST = "UNKNOWN_HOST"
    CONNECTION_FAILED = "CONNECTION_FAILED"
    TLS_FAILED = "TLS_FAILED"
    TIMED_OUT = "TIMED_OUT"
    REDIRECTED = "REDIRECTED"
    BAD_STATUS = "BAD_STATUS"
    GONE = "GONE"
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    WORKER_LOST = "WORKER_LOST"
    INTERNAL = "INTERNAL"


class WebhookEndpoint(Model):
    """An address that is told what happens to its owner's things, or only to those of a project or a job.

    `event_types` is null for all, later ones too. Of a deleted account the secret is gone before the row.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    project: fields.ForeignKeyNullableRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE, null=True
    )
    job: fields.ForeignKeyNullableRelation[Job] = fields.ForeignKeyField(
        "models.Job", related_name=False, on_delete=CASCADE, null=True
    )
    url = fields.CharField(max_length=2048)
    description = fields.CharField(max_length=200, default="")
    event_types: fields.JSONField[list[str]] = fields.JSONField(null=True)
    sealed_secret = fields.TextField(null=True)
    sealed_previous_secret = fields.TextField(null=True)
    previous_secret_until = fields.DatetimeField(null=True)
    is_active = fields.BooleanField(default=True)
    failing_since = fields.DatetimeField(null=True)
    disabled_at = fields.DatetimeField(null=True)
    disabled_reason = fields.CharEnumField(EndpointDisabledReason, max_length=16, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "webhook_endpoints"
        constraints = (
            CheckConstraint(
                check="is_active = (disabled_at IS NULL) AND is_active = (disabled_reason IS NULL)",
                name="webhook_endpoints_disabled_check",
            ),
            CheckConstraint(
                check="(sealed_previous_secret IS NULL) = (previous_secret_until IS NULL)",
                name="webhook_endpoints_previous_check",
            ),
        )
        indexes = (
            Index(fields=("owner_id", "id"), name="webhook_endpoints_owner"),
            PostgreSQLIndex(fields=("owner_id",), name="webhook_endpoints_active", condition={"is_active": True}),
            Index(fields=("project_id",), name="webhook_endpoints_project"),
            Index(fields=("job_id",), name="webhook_endpoints_job"),
        )


class WebhookDispatch(Model):
    """One event for one endpoint. `attempts` is the fencing token of whoever holds the lease.

    `attempts_before` is how many there were when somebody asked for it to be sent again, which starts the series of
    pauses anew; `attempt_log` has the last twelve attempts, oldest first.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    endpoint: fields.ForeignKeyRelation[WebhookEndpoint] = fields.ForeignKeyField(
        "models.WebhookEndpoint", related_name=False, on_delete=CASCADE
    )
    event_id = fields.UUIDField()
    event_type = fields.CharEnumField(WebhookEventType, max_length=32)
    payload = fields.TextField()
    state = fields.CharEnumField(DispatchState, max_length=16, default=DispatchState.PENDING)
    attempts = fields.IntField(default=0)
    attempts_before = fields.IntField(default=0)
    next_attempt_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    status_code = fields.SmallIntField(null=True)
    duration_ms = fields.IntField(null=True)
    response_excerpt = fields.TextField(null=True)
    failure_code = fields.CharEnumField(DispatchFailure, max_length=32, null=True)
    failure_message = fields.TextField(null=True)
    attempt_log: fields.JSONField[list[dict[str, Any]]] = fields.JSONField(default=list)
    created_at = fields.DatetimeField(auto_now_add=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, keys, and the index that dispatches are taken from."""

        table = "webhook_dispatches"
        constraints = (
            UniqueConstraint(fields=("endpoint_id", "event_id"), name="webhook_dispatches_once"),
            CheckConstraint(check="state IN ('PENDING', 'DELIVERED', 'FAILED')", name="webhook_dispatches_state_check"),
            CheckConstraint(
                check="(state = 'PENDING') = (finished_at IS NULL)"
                " AND (state = 'PENDING') = (next_attempt_at IS NOT NULL)",
                name="webhook_dispatches_finish_check",
            ),
            CheckConstraint(check="lease_until IS NULL OR state = 'PENDING'", name="webhook_dispatches_lease_check"),
        )
        indexes = (
            Index(fields=("endpoint_id", "id"), name="webhook_dispatches_endpoint"),
            PostgreSQLIndex(
                fields=("endpoint_id", "next_attempt_at"),
                name="webhook_dispatches_pending",
                condition={"state": "PENDING"},
            ),
        )
