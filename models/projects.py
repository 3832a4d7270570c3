"""Projects: a repository, how it is built, and who may see what it is configured with.

Invariants kept by the database: a slug names one project of the installation, and never changes, because the addresses
of sites are made of it; a variable has one value per project and environment. Values are sealed
(`adapters/secret_box.py`) before they get here and are never selected for clients. Queries are in
`models/project_queries.py`.
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


class DeploymentEnvironment(StrEnum):
    """What a deployment is for: it decides which variables it gets and which address it takes."""

    PRODUCTION = "PRODUCTION"
    PREVIEW = "PREVIEW"


class SupersedePolicy(StrEnum):
    """What a newer push does to older deployments of the same branch that are not done."""

    NONE = "NONE"
    QUEUED = "QUEUED"
    ALL = "ALL"


class Project(Model):
    """A repository and how it becomes a site.

    A command or folder that is null is found by looking at the files; an empty command means that there is none.
    `deployment_count` gives the next deployment its number.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    name = fields.CharField(max_length=120)
    slug = fields.CharField(max_length=40)
    repository = fields.CharField(max_length=1024)
    repository_key = fields.CharField(max_length=1024)
    repository_full_name = fields.CharField(max_length=255, null=True)
    branch = fields.CharField(max_length=255)
    root_directory = fields.CharField(max_length=255, default=".")
    framework = fields.CharField(max_length=32, null=True)
    install_command = fields.CharField(max_length=1000, null=True)
    build_command = fields.CharField(max_length=1000, null=True)
    output_directory = fields.CharField(max_length=255, null=True)
    spa_fallback = fields.BooleanField(null=True)
    auto_deploy = fields.BooleanField(default=True)
    preview_deployments = fields.BooleanField(default=True)
    supersede = fields.CharEnumField(SupersedePolicy, max_length=16, default=SupersedePolicy.QUEUED)
    install_scripts = fields.BooleanField(default=False)
    build_network = fields.BooleanField(default=True)
    submodules = fields.BooleanField(default=False)
    github_hook_id = fields.BigIntField(null=True)
    deployment_count = fields.IntField(default=0)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "projects"
        constraints = (
            UniqueConstraint(fields=("slug",), name="projects_slug"),
            CheckConstraint(check="slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'", name="projects_slug_check"),
            CheckConstraint(check="supersede IN ('NONE', 'QUEUED', 'ALL')", name="projects_supersede_check"),
        )
        indexes = (
            Index(fields=("owner_id", "id"), name="projects_owner"),
            Index(fields=("repository_key",), name="projects_repository"),
        )


class EnvironmentVariable(Model):
    """A variable of builds; `sealed_value` opens only in its own row."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    environment = fields.CharEnumField(DeploymentEnvironment, max_length=16)
    name = fields.CharField(max_length=128)
    sealed_value = fields.TextField()
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table and invariants."""

        table = "environment_variables"
        constraints = (
            UniqueConstraint(fields=("project_id", "environment", "name"), name="environment_variables_name"),
            CheckConstraint(check="name ~ '^[A-Za-z_][A-Za-z0-9_]*$'", name="environment_variables_name_check"),
            CheckConstraint(
                check="environment IN ('PRODUCTION', 'PREVIEW')", name="environment_variables_environment_check"
            ),
        )


class DeployHook(Model):
    """A secret address that starts a deployment of one branch; only a hash of its token is kept."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    project: fields.ForeignKeyRelation[Project] = fields.ForeignKeyField(
        "models.Project", related_name=False, on_delete=CASCADE
    )
    name = fields.CharField(max_length=120)
    branch = fields.CharField(max_length=255)
    environment = fields.CharEnumField(DeploymentEnvironment, max_length=16)
    token_hash = fields.CharField(max_length=64)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and invariants."""

        table = "deploy_hooks"
        constraints = (UniqueConstraint(fields=("token_hash",), name="deploy_hooks_token"),)
        indexes = (Index(fields=("project_id", "id"), name="deploy_hooks_project"),)
