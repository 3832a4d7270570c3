"""Sites: the files that deployments serve, and the addresses that lead to them.

A deployment's files are rows that name blobs; a blob is content, stored once per project whatever deployments use it.
An alias is a name under a project that leads to one deployment: `production`, or one per branch or pull request.
Moving it is one statement, so a visitor sees the old site or the new one. Each move is written down and never
rewritten. Where the bytes lie is storage's matter; what a request gets is decided in `models/site_rules.py`.
"""

from __future__ import annotations

from typing import Final

from tortoise import fields
from tortoise.fields import CASCADE, RESTRICT
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.deployments import DeploymentTrigger
from models.executions import Execution
from models.projects import Project

PRODUCTION_ALIAS: Final = "production"


class SiteBlob(Model):
    """Content of a project's sites, by its SHA-256; `object_key` with `.br` or `.gz` holds a smaller form, if sized."""

    id = fields.BigIntField(primary_key=True, generated=True)
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    sha256 = fields.BinaryField()
    size = fields.BigIntField()
    object_key = fields.CharField(max_length=255)
    brotli_size = fields.BigIntField(null=True)
    gzip_size = fields.BigIntField(null=True)
    reserved_until = fields.DatetimeField()

    class Meta:
        """Table and invariants."""

        table = "site_blobs"
        constraints = (
            UniqueConstraint(fields=("project_id", "sha256"), name="site_blobs_content"),
            CheckConstraint(check="octet_length(sha256) = 32 AND size >= 0", name="site_blobs_content_check"),
        )


class DeploymentFile(Model):
    """A path of a deployment; `path` is relative, with slashes, as it stands in URLs after decoding."""

    id = fields.BigIntField(primary_key=True, generated=True)
    deployment: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    path = fields.TextField()
    content_type = fields.CharField(max_length=120)
    blob: fields.ForeignKeyRelation[SiteBlob] = fields.ForeignKeyField(
        "models.SiteBlob", related_name=False, on_delete=RESTRICT
    )

    class Meta:
        """Table, key and the index that tells which blobs are in use."""

        table = "deployment_files"
        constraints = (UniqueConstraint(fields=("deployment_id", "path"), name="deployment_files_path"),)
        indexes = (Index(fields=("blob_id",), name="deployment_files_blob"),)


class SiteAlias(Model):
    """An address of a project and the deployment it leads to.

    `decided_at` is when that was decided: the moment a deployment was asked for, or a person moved the address. What
    was decided earlier never replaces it.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    name = fields.CharField(max_length=63)
    deployment: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    decided_at = fields.DatetimeField()
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table and key."""

        table = "site_aliases"
        constraints = (UniqueConstraint(fields=("project_id", "name"), name="site_aliases_name"),)
        indexes = (Index(fields=("deployment_id",), name="site_aliases_deployment"),)


class SitePublication(Model):
    """One move of an alias: append-only."""

    id = fields.BigIntField(primary_key=True, generated=True)
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    alias = fields.CharField(max_length=63)
    deployment_id = fields.UUIDField()
    previous_id = fields.UUIDField(null=True)
    reason = fields.CharEnumField(DeploymentTrigger, max_length=16)
    user_id = fields.UUIDField(null=True)
    at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table and index."""

        table = "site_publications"
        indexes = (Index(fields=("project_id", "id"), name="site_publications_project"),)
