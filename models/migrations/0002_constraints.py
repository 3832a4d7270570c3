from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint

class Migration(migrations.Migration):
    dependencies = [('models', '0001_initial')]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name='CrawlRequest',
            constraint=UniqueConstraint(fields=('dataset_id', 'fingerprint'), name='crawl_requests_fingerprint'),
        ),
        ops.AddConstraint(
            model_name='Execution',
            constraint=CheckConstraint(check="status IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')", name='executions_status_check'),
        ),
        ops.AddConstraint(
            model_name='Execution',
            constraint=CheckConstraint(check='progress BETWEEN 0 AND 100', name='executions_progress_check'),
        ),
        ops.AddConstraint(
            model_name='Execution',
            constraint=CheckConstraint(check="(status = 'RUNNING') = (worker IS NOT NULL AND lease_until IS NOT NULL)", name='executions_lease_check'),
        ),
        ops.AddConstraint(
            model_name='Execution',
            constraint=CheckConstraint(check="(status IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)", name='executions_finish_check'),
        ),
        ops.AddConstraint(
            model_name='Execution',
            constraint=CheckConstraint(check="(status = 'FAILED') = (failure_code IS NOT NULL)", name='executions_failure_check'),
        ),
        ops.AddConstraint(
            model_name='Item',
            constraint=UniqueConstraint(fields=('dataset_id', 'key'), name='items_once'),
        ),
        ops.AlterModelOptions(
            name='JobRun',
            options={'table': 'job_runs', 'app': 'models', 'indexes': [Index(fields=['job_id', 'execution_id'], name='job_runs_job'), Index(fields=['dataset_id'], name='job_runs_dataset')], 'pk_attr': 'execution_id', 'table_description': 'What a crawl adds to its execution: a snapshot of the input, limits, counters and the reason it closed.'},
        ),
        ops.AddConstraint(
            model_name='LogChunk',
            constraint=CheckConstraint(check='line_count > 0 AND first_sequence > 0', name='log_chunks_lines_check'),
        ),
        ops.AddConstraint(
            model_name='OutputFile',
            constraint=UniqueConstraint(fields=('run_id', 'format'), name='output_files_format'),
        ),
        ops.AddConstraint(
            model_name='OutputFile',
            constraint=CheckConstraint(check='size >= 0 AND row_count >= 0', name='output_files_size_check'),
        ),
        ops.AddConstraint(
            model_name='Session',
            constraint=CheckConstraint(check='refresh_counter >= 0', name='sessions_counter_check'),
        ),
        ops.AddConstraint(
            model_name='Tool',
            constraint=UniqueConstraint(fields=('slug',), name='tools_slug'),
        ),
        ops.AddConstraint(
            model_name='Tool',
            constraint=CheckConstraint(check="slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'", name='tools_slug_check'),
        ),
        ops.AddConstraint(
            model_name='User',
            constraint=UniqueConstraint(fields=('email_key',), name='users_email_key'),
        ),
        ops.AddConstraint(
            model_name='User',
            constraint=UniqueConstraint(fields=('username_key',), name='users_username_key'),
        ),
        ops.AddConstraint(
            model_name='User',
            constraint=CheckConstraint(check="role IN ('USER', 'ADMIN')", name='users_role_check'),
        ),
    ]
