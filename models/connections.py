"""Accounts elsewhere: those that users let us act for, with their sealed tokens, and those that they sign in with.

The two are apart: whoever lets us read repositories has not said that the account there may open theirs here, and the
other way round. Invariants kept by the database: a user has one of each per provider, and an account there belongs to
one user here.
"""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model

from models.ids import new_id
from models.users import User


class Provider(StrEnum):
    """Where an account can be connected."""

    GITHUB = "GITHUB"


class IdentityProvider(StrEnum):
    """Whom people can sign in with."""

    GITHUB = "GITHUB"
    GOOGLE = "GOOGLE"


class OAuthConnection(Model):
    """An account at a provider. `subject` is its id there, which stays when it is renamed."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    provider = fields.CharEnumField(Provider, max_length=16)
    subject = fields.CharField(max_length=64)
    login = fields.CharField(max_length=120)
    avatar_url = fields.CharField(max_length=1024, null=True)
    scopes = fields.CharField(max_length=500, default="")
    sealed_token = fields.TextField()
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)
    refused_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and keys."""

        table = "oauth_connections"
        constraints = (
            UniqueConstraint(fields=("user_id", "provider"), name="oauth_connections_user"),
            UniqueConstraint(fields=("provider", "subject"), name="oauth_connections_subject"),
        )


class Identity(Model):
    """An account at a provider that opens an account here. `subject` is its id there, which stays when it is renamed.

    `email` and `login` are what the provider said last, to show; nothing is decided by them.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    provider = fields.CharEnumField(IdentityProvider, max_length=16)
    subject = fields.CharField(max_length=255)
    email = fields.CharField(max_length=254)
    login = fields.CharField(max_length=120)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and keys."""

        table = "identities"
        constraints = (
            UniqueConstraint(fields=("user_id", "provider"), name="identities_user"),
            UniqueConstraint(fields=("provider", "subject"), name="identities_subject"),
        )
