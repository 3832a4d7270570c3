"""Notifications and preferences: what users are told in the app, and what they want to be told at all.

Users without a row of preferences have the defaults.
"""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.users import User


class Theme(StrEnum):
    """How apps look to a user."""

    LIGHT = "LIGHT"
    DARK = "DARK"
    SYSTEM = "SYSTEM"


class NotificationKind(StrEnum):
    """What a notification is about."""

    DEPLOYMENT_SUCCEEDED = "DEPLOYMENT_SUCCEEDED"
    DEPLOYMENT_FAILED = "DEPLOYMENT_FAILED"
    JOB_SUCCEEDED = "JOB_SUCCEEDED"
    JOB_FAILED = "JOB_FAILED"
    JOB_INCOMPLETE = "JOB_INCOMPLETE"
    SCHEDULE_PAUSED = "SCHEDULE_PAUSED"
    WEBHOOK_DISABLED = "WEBHOOK_DISABLED"


class Preferences(Model):
    """What a user wants."""

    user: fields.OneToOneRelation[User] = fields.OneToOneField(
        "models.User", related_name=False, on_delete=CASCADE, primary_key=True
    )
    theme = fields.CharEnumField(Theme, max_length=16, default=Theme.SYSTEM)
    email_notifications = fields.BooleanField(default=True)
    deployment_success = fields.BooleanField(default=True)
    deployment_failure = fields.BooleanField(default=True)
    job_notifications = fields.BooleanField(default=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table and invariants."""

        table = "preferences"
        constraints = (CheckConstraint(check="theme IN ('LIGHT', 'DARK', 'SYSTEM')", name="preferences_theme_check"),)


class Notification(Model):
    """Something a user is told in the app. `key` makes it unique: an event that is handled twice tells once."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    key = fields.CharField(max_length=120)
    kind = fields.CharEnumField(NotificationKind, max_length=32)
    title = fields.CharField(max_length=200)
    body = fields.TextField()
    url = fields.CharField(max_length=1024, null=True)
    execution_id = fields.UUIDField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    read_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, key and the order of lists."""

        table = "notifications"
        constraints = (UniqueConstraint(fields=("user_id", "key"), name="notifications_once"),)
        indexes = (Index(fields=("user_id", "id"), name="notifications_user"),)
