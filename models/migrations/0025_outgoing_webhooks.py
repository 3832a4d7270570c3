from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ids import new_id
from models.outgoing_webhooks import DispatchFailure, DispatchState, EndpointDisabledReason, WebhookEventType
from orjson import loads
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('models', '0024_export_constraints')]

    initial = False

    operations = [
        ops.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ('owner', fields.ForeignKeyField('models.User', source_field='owner_id', db_constraint=True, to_field='id', related_name=False, on_delete=OnDelete.CASCADE)),
                ('project', fields.ForeignKeyField('models.Project', source_field='project_id', null=True, db_constraint=True, to_field='id', related_name=False, on_delete=OnDelete.CASCADE)),
                ('job', fields.ForeignKeyField('models.Job', source_field='job_id', null=True, db_constraint=True, to_field='id', related_name=False, on_delete=OnDelete.CASCADE)),
                ('url', fields.CharField(max_length=2048)),
                ('description', fields.CharField(default='', max_length=200)),
                ('event_types', fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ('sealed_secret', fields.TextField(null=True, unique=False)),
                ('sealed_previous_secret', fields.TextField(null=True, unique=False)),
                ('previous_secret_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('is_active', fields.BooleanField(default=True)),
                ('failing_since', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('disabled_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('disabled_reason', fields.CharEnumField(null=True, enum_type=EndpointDisabledReason, max_length=16)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('updated_at', fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={'table': 'webhook_endpoints', 'app': 'models', 'indexes': [Index(fields=['owner_id', 'id'], name='webhook_endpoints_owner'), PostgreSQLIndex(fields=['owner_id'], name='webhook_endpoints_active', condition={'is_active': True}), Index(fields=['project_id'], name='webhook_endpoints_project'), Index(fields=['job_id'], name='webhook_endpoints_job')], 'pk_attr': 'id', 'table_description': "An address that is told what happens to its owner's things, or only to those of a project or a job."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='WebhookDispatch',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ('endpoint', fields.ForeignKeyField('models.WebhookEndpoint', source_field='endpoint_id', db_constraint=True, to_field='id', related_name=False, on_delete=OnDelete.CASCADE)),
                ('event_id', fields.UUIDField()),
                ('event_type', fields.CharEnumField(enum_type=WebhookEventType, max_length=32)),
                ('payload', fields.TextField(unique=False)),
                ('state', fields.CharEnumField(default=DispatchState.PENDING, enum_type=DispatchState, max_length=16)),
                ('attempts', fields.IntField(default=0)),
                ('attempts_before', fields.IntField(default=0)),
                ('next_attempt_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('lease_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('status_code', fields.SmallIntField(null=True)),
                ('duration_ms', fields.IntField(null=True)),
                ('response_excerpt', fields.TextField(null=True, unique=False)),
                ('failure_code', fields.CharEnumField(null=True, enum_type=DispatchFailure, max_length=32)),
                ('failure_message', fields.TextField(null=True, unique=False)),
                ('attempt_log', fields.JSONField(default=list, encoder=JSON_DUMPS, decoder=loads)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'webhook_dispatches', 'app': 'models', 'indexes': [Index(fields=['endpoint_id', 'id'], name='webhook_dispatches_endpoint'), PostgreSQLIndex(fields=['endpoint_id', 'next_attempt_at'], name='webhook_dispatches_pending', condition={'state': 'PENDING'})], 'pk_attr': 'id', 'table_description': 'One event for one endpoint. `attempts` is the fencing token of whoever holds the lease.'},
            bases=['Model'],
        ),
    ]
