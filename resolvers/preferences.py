"""Preferences: how apps look to a user, and what they want to be told. Everybody's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from errors import Unauthorized
from models import notification_queries
from models.audit import AuditEvent
from models.database import Row
from models.permissions import Actor
from models.transaction import unit_of_work


async def of(actor: Actor) -> Row:
    """What the actor wants: their choices, or the defaults."""
    return await notification_queries.preferences(_owner(actor))


async def update(actor: Actor, changes: Mapping[str, Any]) -> Row:
    """Change choices by their columns (`models.notification_queries.CHOICES`); what is left out stays."""
    user_id = _owner(actor)
    if not changes:
        return await of(actor)
    async with unit_of_work():
        row = await notification_queries.change_preferences(user_id, changes)
        await AuditEvent.record(
            actor,
            "updatePreferences",
            target_type="user",
            target_id=user_id,
            details={"changed": {name: str(value) if name == "theme" else value for name, value in changes.items()}},
        )
    return row


def _owner(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    return actor.user_id
