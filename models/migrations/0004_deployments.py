from tortoise import migrations
from tortoise.migrations import operations as ops
from models.connections import Provider
from models.deployments import DeploymentTrigger
from models.ids import new_id
from models.notifications import NotificationKind, Theme
from models.projects import DeploymentEnvironment, SupersedePolicy
from models.webhooks import DeliveryStatus
from orjson import loads
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0003_invariants")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Notification",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("key", fields.CharField(max_length=120)),
                (
                    "kind",
                    fields.CharEnumField(
                        description="DEPLOYMENT_SUCCEEDED: DEPLOYMENT_SUCCEEDED\nDEPLOYMENT_FAILED: DEPLOYMENT_FAILED",
                        enum_type=NotificationKind,
                        max_length=32,
                    ),
                ),
                ("title", fields.CharField(max_length=200)),
                ("body", fields.TextField(unique=False)),
                ("url", fields.CharField(null=True, max_length=1024)),
                ("execution_id", fields.UUIDField(null=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("read_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "notifications",
                "app": "models",
                "indexes": [Index(fields=["user_id", "id"], name="notifications_user")],
                "pk_attr": "id",
                "table_description": "Something a user is told in the app. `key` makes it unique: an event that is handled twice tells once.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OAuthConnection",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("provider", fields.CharEnumField(description="GITHUB: GITHUB", enum_type=Provider, max_length=16)),
                ("subject", fields.CharField(max_length=64)),
                ("login", fields.CharField(max_length=120)),
                ("avatar_url", fields.CharField(null=True, max_length=1024)),
                ("scopes", fields.CharField(default="", max_length=500)),
                ("sealed_token", fields.TextField(unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("refused_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "oauth_connections",
                "app": "models",
                "pk_attr": "id",
                "table_description": "An account at a provider. `subject` is its id there, which stays when it is renamed.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("topic", fields.CharField(max_length=64)),
                ("key", fields.CharField(max_length=200)),
                ("payload", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("due_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("attempts", fields.IntField(default=0)),
                ("last_error", fields.TextField(null=True, unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("given_up_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "outbox_messages",
                "app": "models",
                "indexes": [Index(fields=["topic", "due_at"], name="outbox_messages_due")],
                "pk_attr": "id",
                "table_description": "Something to tell. `due_at` is also the lease of whoever is telling it; `given_up_at` ends the tries.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Preferences",
            fields=[
                (
                    "user",
                    fields.OneToOneField(
                        "models.User",
                        source_field="user_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "theme",
                    fields.CharEnumField(
                        default=Theme.SYSTEM,
                        description="LIGHT: LIGHT\nDARK: DARK\nSYSTEM: SYSTEM",
                        enum_type=Theme,
                        max_length=16,
                    ),
                ),
                ("email_notifications", fields.BooleanField(default=True)),
                ("deployment_success", fields.BooleanField(default=True)),
                ("deployment_failure", fields.BooleanField(default=True)),
                ("job_notifications", fields.BooleanField(default=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "preferences",
                "app": "models",
                "pk_attr": "user_id",
                "table_description": "What a user wants.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Project",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("name", fields.CharField(max_length=120)),
                ("slug", fields.CharField(max_length=40)),
                ("repository", fields.CharField(max_length=1024)),
                ("repository_key", fields.CharField(max_length=1024)),
                ("repository_full_name", fields.CharField(null=True, max_length=255)),
                ("branch", fields.CharField(max_length=255)),
                ("root_directory", fields.CharField(default=".", max_length=255)),
                ("framework", fields.CharField(null=True, max_length=32)),
                ("install_command", fields.CharField(null=True, max_length=1000)),
                ("build_command", fields.CharField(null=True, max_length=1000)),
                ("output_directory", fields.CharField(null=True, max_length=255)),
                ("spa_fallback", fields.BooleanField(null=True)),
                ("auto_deploy", fields.BooleanField(default=True)),
                ("preview_deployments", fields.BooleanField(default=True)),
                (
                    "supersede",
                    fields.CharEnumField(
                        default=SupersedePolicy.QUEUED,
                        description="NONE: NONE\nQUEUED: QUEUED\nALL: ALL",
                        enum_type=SupersedePolicy,
                        max_length=16,
                    ),
                ),
                ("install_scripts", fields.BooleanField(default=False)),
                ("build_network", fields.BooleanField(default=True)),
                ("submodules", fields.BooleanField(default=False)),
                ("github_hook_id", fields.BigIntField(null=True)),
                ("deployment_count", fields.IntField(default=0)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "projects",
                "app": "models",
                "indexes": [
                    Index(fields=["owner_id", "id"], name="projects_owner"),
                    Index(fields=["repository_key"], name="projects_repository"),
                ],
                "pk_attr": "id",
                "table_description": "A repository and how it becomes a site.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="DeployHook",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("name", fields.CharField(max_length=120)),
                ("branch", fields.CharField(max_length=255)),
                (
                    "environment",
                    fields.CharEnumField(
                        description="PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW",
                        enum_type=DeploymentEnvironment,
                        max_length=16,
                    ),
                ),
                ("token_hash", fields.CharField(max_length=64)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("last_used_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "deploy_hooks",
                "app": "models",
                "indexes": [Index(fields=["project_id", "id"], name="deploy_hooks_project")],
                "pk_attr": "id",
                "table_description": "A secret address that starts a deployment of one branch; only a hash of its token is kept.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Deployment",
            fields=[
                (
                    "execution",
                    fields.OneToOneField(
                        "models.Execution",
                        source_field="execution_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                (
                    "environment",
                    fields.CharEnumField(
                        description="PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW",
                        enum_type=DeploymentEnvironment,
                        max_length=16,
                    ),
                ),
                (
                    "trigger",
                    fields.CharEnumField(
                        description="MANUAL: MANUAL\nPUSH: PUSH\nPULL_REQUEST: PULL_REQUEST\nREDEPLOY: REDEPLOY\nROLLBACK: ROLLBACK\nDEPLOY_HOOK: DEPLOY_HOOK\nAPI: API",
                        enum_type=DeploymentTrigger,
                        max_length=16,
                    ),
                ),
                ("branch", fields.CharField(max_length=255)),
                ("commit_hash", fields.CharField(null=True, max_length=64)),
                ("commit_message", fields.TextField(null=True, unique=False)),
                ("commit_author", fields.CharField(null=True, max_length=255)),
                ("committed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("pull_request", fields.IntField(null=True)),
                ("is_fork", fields.BooleanField(default=False)),
                ("clone_url", fields.CharField(max_length=1024)),
                ("configuration", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("sealed_environment", fields.TextField(null=True, unique=False)),
                ("site_key", fields.CharField(max_length=16)),
                ("alias", fields.CharField(max_length=63)),
                ("framework", fields.CharField(null=True, max_length=32)),
                ("routing", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("file_count", fields.IntField(null=True)),
                ("artifact_size", fields.BigIntField(null=True)),
                ("uploaded_bytes", fields.BigIntField(null=True)),
                ("build_seconds", fields.FloatField(null=True)),
                ("redeploy_of_id", fields.UUIDField(null=True)),
                ("superseded_by_id", fields.UUIDField(null=True)),
                ("github_deployment_id", fields.BigIntField(null=True)),
            ],
            options={
                "table": "deployments",
                "app": "models",
                "indexes": [
                    Index(fields=["project_id", "execution_id"], name="deployments_project"),
                    Index(fields=["project_id", "branch", "environment"], name="deployments_branch"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What a build adds to its execution.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="EnvironmentVariable",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "environment",
                    fields.CharEnumField(
                        description="PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW",
                        enum_type=DeploymentEnvironment,
                        max_length=16,
                    ),
                ),
                ("name", fields.CharField(max_length=128)),
                ("sealed_value", fields.TextField(unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "environment_variables",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A variable of builds; `sealed_value` opens only in its own row.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="SiteAlias",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("name", fields.CharField(max_length=63)),
                (
                    "deployment",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="deployment_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("decided_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "site_aliases",
                "app": "models",
                "indexes": [Index(fields=["deployment_id"], name="site_aliases_deployment")],
                "pk_attr": "id",
                "table_description": "An address of a project and the deployment it leads to.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="SiteBlob",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("sha256", fields.BinaryField()),
                ("size", fields.BigIntField()),
                ("object_key", fields.CharField(max_length=255)),
                ("brotli_size", fields.BigIntField(null=True)),
                ("gzip_size", fields.BigIntField(null=True)),
                ("reserved_until", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "site_blobs",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Content of a project's sites, by its SHA-256; `object_key` with `.br` or `.gz` holds a smaller form, if sized.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="DeploymentFile",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "deployment",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="deployment_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("path", fields.TextField(unique=False)),
                ("content_type", fields.CharField(max_length=120)),
                (
                    "blob",
                    fields.ForeignKeyField(
                        "models.SiteBlob",
                        source_field="blob_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
            ],
            options={
                "table": "deployment_files",
                "app": "models",
                "indexes": [Index(fields=["blob_id"], name="deployment_files_blob")],
                "pk_attr": "id",
                "table_description": "A path of a deployment; `path` is relative, with slashes, as it stands in URLs after decoding.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="SitePublication",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("alias", fields.CharField(max_length=63)),
                ("deployment_id", fields.UUIDField()),
                ("previous_id", fields.UUIDField(null=True)),
                (
                    "reason",
                    fields.CharEnumField(
                        description="MANUAL: MANUAL\nPUSH: PUSH\nPULL_REQUEST: PULL_REQUEST\nREDEPLOY: REDEPLOY\nROLLBACK: ROLLBACK\nDEPLOY_HOOK: DEPLOY_HOOK\nAPI: API",
                        enum_type=DeploymentTrigger,
                        max_length=16,
                    ),
                ),
                ("user_id", fields.UUIDField(null=True)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "site_publications",
                "app": "models",
                "indexes": [Index(fields=["project_id", "id"], name="site_publications_project")],
                "pk_attr": "id",
                "table_description": "One move of an alias: append-only.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("provider", fields.CharEnumField(description="GITHUB: GITHUB", enum_type=Provider, max_length=16)),
                ("delivery_id", fields.CharField(max_length=64)),
                ("event", fields.CharField(max_length=64)),
                ("action", fields.CharField(null=True, max_length=64)),
                ("repository", fields.CharField(null=True, max_length=255)),
                ("body", fields.TextField(unique=False)),
                (
                    "status",
                    fields.CharEnumField(
                        description="PROCESSED: PROCESSED\nIGNORED: IGNORED\nFAILED: FAILED",
                        enum_type=DeliveryStatus,
                        max_length=16,
                    ),
                ),
                ("message", fields.TextField(unique=False)),
                ("attempts", fields.IntField(default=1)),
                ("received_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("processed_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "webhook_deliveries",
                "app": "models",
                "indexes": [Index(fields=["repository", "id"], name="webhook_deliveries_repository")],
                "pk_attr": "id",
                "table_description": "One delivery, as it came; its signature was right.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="WebhookEffect",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "delivery",
                    fields.ForeignKeyField(
                        "models.WebhookDelivery",
                        source_field="delivery_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "project",
                    fields.ForeignKeyField(
                        "models.Project",
                        source_field="project_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("deployment_id", fields.UUIDField(null=True)),
                ("message", fields.TextField(unique=False)),
            ],
            options={
                "table": "webhook_effects",
                "app": "models",
                "indexes": [Index(fields=["project_id", "id"], name="webhook_effects_project")],
                "pk_attr": "id",
                "table_description": "What a delivery did to a project: a deployment, or the reason why there is none.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Execution",
            name="turn_key",
            field=fields.CharField(null=True, max_length=200),
        ),
        ops.AddIndex(
            model_name="Execution",
            index=PostgreSQLIndex(
                fields=["turn_key", "queued_at", "id"], name="executions_turns_waiting", condition={"status": "QUEUED"}
            ),
        ),
        ops.AddIndex(
            model_name="Execution",
            index=PostgreSQLIndex(
                fields=["turn_key"], name="executions_turns_running", condition={"status": "RUNNING"}
            ),
        ),
    ]
