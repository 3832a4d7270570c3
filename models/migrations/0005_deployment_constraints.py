from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint

class Migration(migrations.Migration):
    dependencies = [('models', '0004_deployments')]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name='Notification',
            constraint=UniqueConstraint(fields=('user_id', 'key'), name='notifications_once'),
        ),
        ops.AddConstraint(
            model_name='OAuthConnection',
            constraint=UniqueConstraint(fields=('user_id', 'provider'), name='oauth_connections_user'),
        ),
        ops.AddConstraint(
            model_name='OAuthConnection',
            constraint=UniqueConstraint(fields=('provider', 'subject'), name='oauth_connections_subject'),
        ),
        ops.AddConstraint(
            model_name='OutboxMessage',
            constraint=UniqueConstraint(fields=('topic', 'key'), name='outbox_messages_key'),
        ),
        ops.AddConstraint(
            model_name='Preferences',
            constraint=CheckConstraint(check="theme IN ('LIGHT', 'DARK', 'SYSTEM')", name='preferences_theme_check'),
        ),
        ops.AddConstraint(
            model_name='Project',
            constraint=UniqueConstraint(fields=('slug',), name='projects_slug'),
        ),
        ops.AddConstraint(
            model_name='Project',
            constraint=CheckConstraint(check="slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'", name='projects_slug_check'),
        ),
        ops.AddConstraint(
            model_name='Project',
            constraint=CheckConstraint(check="supersede IN ('NONE', 'QUEUED', 'ALL')", name='projects_supersede_check'),
        ),
        ops.AddConstraint(
            model_name='DeployHook',
            constraint=UniqueConstraint(fields=('token_hash',), name='deploy_hooks_token'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=UniqueConstraint(fields=('project_id', 'number'), name='deployments_number'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=UniqueConstraint(fields=('site_key',), name='deployments_site_key'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=CheckConstraint(check="environment IN ('PRODUCTION', 'PREVIEW')", name='deployments_environment_check'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=CheckConstraint(check='number > 0', name='deployments_number_check'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=CheckConstraint(check="site_key ~ '^[0-9a-z]{16}$'", name='deployments_site_key_check'),
        ),
        ops.AddConstraint(
            model_name='Deployment',
            constraint=CheckConstraint(check="NOT is_fork OR environment = 'PREVIEW'", name='deployments_fork_check'),
        ),
        ops.AddConstraint(
            model_name='EnvironmentVariable',
            constraint=UniqueConstraint(fields=('project_id', 'environment', 'name'), name='environment_variables_name'),
        ),
        ops.AddConstraint(
            model_name='EnvironmentVariable',
            constraint=CheckConstraint(check="name ~ '^[A-Za-z_][A-Za-z0-9_]*$'", name='environment_variables_name_check'),
        ),
        ops.AddConstraint(
            model_name='EnvironmentVariable',
            constraint=CheckConstraint(check="environment IN ('PRODUCTION', 'PREVIEW')", name='environment_variables_environment_check'),
        ),
        ops.AddConstraint(
            model_name='SiteAlias',
            constraint=UniqueConstraint(fields=('project_id', 'name'), name='site_aliases_name'),
        ),
        ops.AddConstraint(
            model_name='SiteBlob',
            constraint=UniqueConstraint(fields=('project_id', 'sha256'), name='site_blobs_content'),
        ),
        ops.AddConstraint(
            model_name='SiteBlob',
            constraint=CheckConstraint(check='octet_length(sha256) = 32 AND size >= 0', name='site_blobs_content_check'),
        ),
        ops.AddConstraint(
            model_name='DeploymentFile',
            constraint=UniqueConstraint(fields=('deployment_id', 'path'), name='deployment_files_path'),
        ),
        ops.AddConstraint(
            model_name='WebhookDelivery',
            constraint=UniqueConstraint(fields=('provider', 'delivery_id'), name='webhook_deliveries_once'),
        ),
        ops.AddConstraint(
            model_name='WebhookEffect',
            constraint=UniqueConstraint(fields=('delivery_id', 'project_id'), name='webhook_effects_once'),
        ),
        ops.AlterModelOptions(
            name='Deployment',
            options={'table': 'deployments', 'app': 'models', 'indexes': [Index(fields=['project_id', 'execution_id'], name='deployments_project'), Index(fields=['project_id', 'branch', 'environment'], name='deployments_branch')], 'pk_attr': 'execution_id', 'table_description': 'What a build adds to its execution.'},
        ),
        ops.AlterModelOptions(
            name='Preferences',
            options={'table': 'preferences', 'app': 'models', 'pk_attr': 'user_id', 'table_description': 'What a user wants.'},
        ),
    ]
