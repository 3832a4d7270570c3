"""The audit trail: who did what to what, in the same transaction as the change itself.

Append-only: a trigger refuses every DELETE, and every UPDATE but one that only forgets where somebody was. Details hold
no secrets and no e-mail addresses; how events are read is in `models/audit_queries.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model

from models.ids import new_id
from models.permissions import Actor


class AuditEvent(Model):
    """One act of one actor. `outcome` is `success` or the error code that refused it."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    occurred_at = fields.DatetimeField(auto_now_add=True)
    actor_id = fields.UUIDField(null=True)
    session_id = fields.UUIDField(null=True)
    access_token_id = fields.UUIDField(null=True)
    action = fields.CharField(max_length=64)
    outcome = fields.CharField(max_length=32, default="success")
    target_type = fields.CharField(max_length=32, null=True)
    target_id = fields.UUIDField(null=True)
    ip = fields.CharField(max_length=45, null=True)
    user_agent = fields.CharField(max_length=512, null=True)
    request_id = fields.CharField(max_length=64, null=True)
    details: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)

    class Meta:
        """Table and indexes."""

        table = "audit_events"
        indexes = (
            Index(fields=("actor_id", "id"), name="audit_events_actor"),
            Index(fields=("target_id", "id"), name="audit_events_target"),
            Index(fields=("action", "id"), name="audit_events_action"),
            Index(fields=("request_id",), name="audit_events_request"),
        )

    @classmethod
    async def record(
        cls,
        actor: Actor,
        action: str,
        *,
        target_type: str | None = None,
        target_id: UUID | None = None,
        outcome: str = "success",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down an act; call it inside the unit of work that does the act."""
        await cls.create(
            actor_id=actor.user_id,
            session_id=actor.session_id,
            access_token_id=actor.access_token_id,
            action=action,
            outcome=outcome,
            target_type=target_type,
            target_id=target_id,
            ip=actor.origin.ip,
            user_agent=actor.origin.user_agent and actor.origin.user_agent[:512],
            request_id=actor.origin.request_id,
            details=dict(details or {}),
        )
