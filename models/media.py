"""Media: files that people upload, from the promise of one to what was found in it.

A row is made before its object: PENDING is a promise of size, type and checksum, READY has been decoded, REJECTED was
not what it promised. Invariants kept by the database: only what is READY has a kind, and only what is PENDING waits for
an upload. Objects are `media/<id>/…` in storage. Queries are in `models/media_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint
from tortoise.models import Model

from models.ids import new_id
from models.users import User


class MediaStatus(StrEnum):
    """Where an upload stands."""

    PENDING = "PENDING"
    READY = "READY"
    REJECTED = "REJECTED"


class MediaKind(StrEnum):
    """What a file is, as its decoder found."""

    IMAGE = "IMAGE"
    PDF = "PDF"
    VIDEO = "VIDEO"


class Media(Model):
    """A file of a user. `sha256` and `size` are what was promised and, once READY, what is there."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    status = fields.CharEnumField(MediaStatus, max_length=16, default=MediaStatus.PENDING)
    filename = fields.CharField(max_length=255)
    content_type = fields.CharField(max_length=127)
    size = fields.BigIntField()
    sha256 = fields.CharField(max_length=64)
    kind = fields.CharEnumField(MediaKind, max_length=16, null=True)
    width = fields.IntField(null=True)
    height = fields.IntField(null=True)
    pages = fields.IntField(null=True)
    duration_seconds = fields.FloatField(null=True)
    has_thumbnail = fields.BooleanField(default=False)
    rejection = fields.CharField(max_length=500, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    completed_at = fields.DatetimeField(null=True)
    upload_until = fields.DatetimeField(null=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "media"
        constraints = (
            CheckConstraint(check="status IN ('PENDING', 'READY', 'REJECTED')", name="media_status_check"),
            CheckConstraint(check="(status = 'READY') = (kind IS NOT NULL)", name="media_kind_check"),
            CheckConstraint(check="(status = 'PENDING') = (upload_until IS NOT NULL)", name="media_upload_check"),
            CheckConstraint(check="size >= 0", name="media_size_check"),
        )
        indexes = (
            Index(fields=("owner_id", "id"), name="media_owner"),
            PostgreSQLIndex(fields=("upload_until",), name="media_pending", condition={"status": "PENDING"}),
        )
