from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint

class Migration(migrations.Migration):
    dependencies = [('models', '0007_credentials')]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name='AccessToken',
            constraint=UniqueConstraint(fields=('token_hash',), name='access_tokens_hash'),
        ),
        ops.AddConstraint(
            model_name='AccessToken',
            constraint=CheckConstraint(check="scope IN ('READ', 'WRITE', 'ADMIN')", name='access_tokens_scope_check'),
        ),
        ops.AddConstraint(
            model_name='OneTimeLink',
            constraint=UniqueConstraint(fields=('token_hash',), name='one_time_links_hash'),
        ),
    ]
