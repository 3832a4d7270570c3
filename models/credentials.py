"""What opens an account besides its password: tokens of scripts, links of letters, recovery codes.

None of them is stored as it is: a hash is enough to recognise what is shown. Invariants kept by the database: each is
somebody's, and no two are alike. Sessions are in `models/sessions.py`.
"""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.permissions import TokenScope as TokenScope
from models.users import User


class LinkPurpose(StrEnum):
    """What a link in a letter is for."""

    VERIFY_EMAIL = "VERIFY_EMAIL"
    RESET_PASSWORD = "RESET_PASSWORD"  # noqa: S105 - no password


class AccessToken(Model):
    """A token for scripts and CI. `project_ids` null means all of its owner's projects."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    name = fields.CharField(max_length=120)
    token_hash = fields.CharField(max_length=64)
    last_four = fields.CharField(max_length=4)
    scope = fields.CharEnumField(TokenScope, max_length=16)
    project_ids: fields.JSONField[list[str]] = fields.JSONField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    last_used_ip = fields.CharField(max_length=45, null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, key and the order of lists."""

        table = "access_tokens"
        constraints = (
            UniqueConstraint(fields=("token_hash",), name="access_tokens_hash"),
            CheckConstraint(check="scope IN ('READ', 'WRITE', 'ADMIN')", name="access_tokens_scope_check"),
        )
        indexes = (Index(fields=("user_id", "id"), name="access_tokens_user"),)


class OneTimeLink(Model):
    """A link in a letter: works once, for an hour. `email` is the address that it proves."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    purpose = fields.CharEnumField(LinkPurpose, max_length=16)
    token_hash = fields.CharField(max_length=64)
    email = fields.CharField(max_length=254)
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and key."""

        table = "one_time_links"
        constraints = (UniqueConstraint(fields=("token_hash",), name="one_time_links_hash"),)
        indexes = (Index(fields=("user_id", "purpose"), name="one_time_links_user"),)


class RecoveryCode(Model):
    """One of the codes that stand in for a lost second factor: works once. `prefix` finds it, the hash proves it."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    prefix = fields.CharField(max_length=4)
    code_hash = fields.CharField(max_length=255)
    created_at = fields.DatetimeField(auto_now_add=True)
    used_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and key."""

        table = "recovery_codes"
        constraints = (UniqueConstraint(fields=("user_id", "prefix"), name="recovery_codes_prefix"),)
