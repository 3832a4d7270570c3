"""Deployments: what a build adds to its execution, and the snapshot it works from.

A deployment is an execution of kind DEPLOYMENT; its own columns are here under the same id. Commit, configuration and
sealed environment are a snapshot: a redeployment copies them, so it builds exactly the same. What it serves is in
`models/sites.py` and never changes. Numbers count 1, 2, 3 … within a project. Queries are in
`models/deployment_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.executions import Execution
from models.projects import DeploymentEnvironment, Project

KIND: Final = "DEPLOYMENT"


class DeploymentTrigger(StrEnum):
    """What made a deployment, or moved an address to it."""

    MANUAL = "MANUAL"
    PUSH = "PUSH"
    PULL_REQUEST = "PULL_REQUEST"
    REDEPLOY = "REDEPLOY"
    ROLLBACK = "ROLLBACK"
    DEPLOY_HOOK = "DEPLOY_HOOK"
    API = "API"


class DeploymentStep(StrEnum):
    """What a deployment is doing: the values of its execution's `stage`, in their order."""

    CLONING = "CLONING"
    INSTALLING = "INSTALLING"
    BUILDING = "BUILDING"
    COLLECTING = "COLLECTING"
    UPLOADING = "UPLOADING"
    PUBLISHING = "PUBLISHING"


class Deployment(Model):
    """What a build adds to its execution.

    `alias` is the address it takes when it is done (`models/sites.py`), `site_key` the part of its own address that
    makes it unguessable. `configuration` is the project's, as it was; `routing` the site's rules, as they were read.
    """

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    number = fields.IntField()
    environment = fields.CharEnumField(DeploymentEnvironment, max_length=16)
    trigger = fields.CharEnumField(DeploymentTrigger, max_length=16)
    branch = fields.CharField(max_length=255)
    commit_hash = fields.CharField(max_length=64, null=True)
    commit_message = fields.TextField(null=True)
    commit_author = fields.CharField(max_length=255, null=True)
    committed_at = fields.DatetimeField(null=True)
    pull_request = fields.IntField(null=True)
    is_fork = fields.BooleanField(default=False)
    clone_url = fields.CharField(max_length=1024)
    configuration: fields.JSONField[dict[str, Any]] = fields.JSONField()
    sealed_environment = fields.TextField(null=True)
    site_key = fields.CharField(max_length=16)
    alias = fields.CharField(max_length=63)
    framework = fields.CharField(max_length=32, null=True)
    routing: fields.JSONField[dict[str, Any]] = fields.JSONField(null=True)
    file_count = fields.IntField(null=True)
    artifact_size = fields.BigIntField(null=True)
    uploaded_bytes = fields.BigIntField(null=True)
    build_seconds = fields.FloatField(null=True)
    redeploy_of_id = fields.UUIDField(null=True)
    superseded_by_id = fields.UUIDField(null=True)
    github_deployment_id = fields.BigIntField(null=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "deployments"
        constraints = (
            UniqueConstraint(fields=("project_id", "number"), name="deployments_number"),
            UniqueConstraint(fields=("site_key",), name="deployments_site_key"),
            CheckConstraint(check="environment IN ('PRODUCTION', 'PREVIEW')", name="deployments_environment_check"),
            CheckConstraint(check="number > 0", name="deployments_number_check"),
            CheckConstraint(check="site_key ~ '^[0-9a-z]{16}$'", name="deployments_site_key_check"),
            # Forks never get production: neither its address nor its variables.
            CheckConstraint(check="NOT is_fork OR environment = 'PREVIEW'", name="deployments_fork_check"),
        )
        indexes = (
            Index(fields=("project_id", "execution_id"), name="deployments_project"),
            Index(fields=("project_id", "branch", "environment"), name="deployments_branch"),
        )
