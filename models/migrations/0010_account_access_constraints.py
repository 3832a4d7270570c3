from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0009_account_access")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="Identity",
            constraint=UniqueConstraint(fields=("user_id", "provider"), name="identities_user"),
        ),
        ops.AddConstraint(
            model_name="Identity",
            constraint=UniqueConstraint(fields=("provider", "subject"), name="identities_subject"),
        ),
        ops.AddConstraint(
            model_name="RecoveryCode",
            constraint=UniqueConstraint(fields=("user_id", "prefix"), name="recovery_codes_prefix"),
        ),
        ops.AddConstraint(
            model_name="User",
            constraint=CheckConstraint(
                check="totp_confirmed_at IS NULL OR sealed_totp IS NOT NULL", name="users_second_factor_check"
            ),
        ),
        ops.AddConstraint(
            model_name="User",
            constraint=CheckConstraint(check="deleted_at IS NULL OR NOT is_active", name="users_deleted_check"),
        ),
    ]
