"""Webhook deliveries: the inbox of what GitHub told us, and the one effect that each had on each project.

Invariants kept by the database: a delivery id is in the inbox once, and has at most one effect per project, however
often it is sent or replayed.
"""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model

from models.connections import Provider
from models.ids import new_id
from models.projects import Project


class DeliveryStatus(StrEnum):
    """What became of a delivery."""

    PROCESSED = "PROCESSED"
    IGNORED = "IGNORED"
    FAILED = "FAILED"


class WebhookDelivery(Model):
    """One delivery, as it came; its signature was right."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    provider = fields.CharEnumField(Provider, max_length=16)
    delivery_id = fields.CharField(max_length=64)
    event = fields.CharField(max_length=64)
    action = fields.CharField(max_length=64, null=True)
    repository = fields.CharField(max_length=255, null=True)
    body = fields.TextField()
    status = fields.CharEnumField(DeliveryStatus, max_length=16)
    message = fields.TextField()
    attempts = fields.IntField(default=1)
    received_at = fields.DatetimeField(auto_now_add=True)
    processed_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table, key and the order of lists."""

        table = "webhook_deliveries"
        constraints = (UniqueConstraint(fields=("provider", "delivery_id"), name="webhook_deliveries_once"),)
        indexes = (Index(fields=("repository", "id"), name="webhook_deliveries_repository"),)


class WebhookEffect(Model):
    """What a delivery did to a project: a deployment, or the reason why there is none."""

    id = fields.BigIntField(primary_key=True, generated=True)
    delivery: fields.ForeignKeyRelation[WebhookDelivery] = fields.ForeignKeyField(
        "models.WebhookDelivery", related_name=False, on_delete=CASCADE
    )
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    deployment_id = fields.UUIDField(null=True)
    message = fields.TextField()

    class Meta:
        """Table and keys."""

        table = "webhook_effects"
        constraints = (UniqueConstraint(fields=("delivery_id", "project_id"), name="webhook_effects_once"),)
        indexes = (Index(fields=("project_id", "id"), name="webhook_effects_project"),)
