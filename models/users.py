"""Users and their sessions.

Invariants kept by the database: e-mail and username are unique without regard to case; a session belongs to
one user and its refresh counter only grows. Passwords are argon2id hashes; refresh tokens are not stored at
all, they are the counter signed (see `resolvers/sessions.py`).
"""

from __future__ import annotations

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.permissions import Role


class User(Model):
    """A person with an account. `email_key` and `username_key` are the case-folded forms that must be unique."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    email = fields.CharField(max_length=254)
    email_key = fields.CharField(max_length=254)
    username = fields.CharField(max_length=32)
    username_key = fields.CharField(max_length=32)
    name = fields.CharField(max_length=120)
    password_hash = fields.CharField(max_length=255)
    role = fields.CharEnumField(Role, max_length=16, default=Role.USER)
    is_active = fields.BooleanField(default=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_login_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and invariants."""

        table = "users"
        constraints = (
            UniqueConstraint(fields=("email_key",), name="users_email_key"),
            UniqueConstraint(fields=("username_key",), name="users_username_key"),
            CheckConstraint(check="role IN ('USER', 'ADMIN')", name="users_role_check"),
        )


class Session(Model):
    """A sign-in on one device: lives until it is revoked, idle too long or too old."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    refresh_counter = fields.IntField(default=0)
    rotated_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)
    revoked_reason = fields.CharField(max_length=32, null=True)
    ip = fields.CharField(max_length=45, null=True)
    user_agent = fields.CharField(max_length=512, null=True)

    class Meta:
        """Table and indexes."""

        table = "sessions"
        indexes = (Index(fields=("user_id",), name="sessions_user"),)
        constraints = (CheckConstraint(check="refresh_counter >= 0", name="sessions_counter_check"),)
