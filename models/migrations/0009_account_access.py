from tortoise import migrations
from tortoise.migrations import operations as ops
from models.connections import IdentityProvider
from models.ids import new_id
from tortoise.fields.base import OnDelete
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0008_credential_constraints")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Identity",
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
                (
                    "provider",
                    fields.CharEnumField(
                        description="GITHUB: GITHUB\nGOOGLE: GOOGLE", enum_type=IdentityProvider, max_length=16
                    ),
                ),
                ("subject", fields.CharField(max_length=255)),
                ("email", fields.CharField(max_length=254)),
                ("login", fields.CharField(max_length=120)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("last_used_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "identities",
                "app": "models",
                "pk_attr": "id",
                "table_description": "An account at a provider that opens an account here. `subject` is its id there, which stays when it is renamed.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RecoveryCode",
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
                ("prefix", fields.CharField(max_length=4)),
                ("code_hash", fields.CharField(max_length=255)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("used_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "recovery_codes",
                "app": "models",
                "pk_attr": "id",
                "table_description": "One of the codes that stand in for a lost second factor: works once. `prefix` finds it, the hash proves it.",
            },
            bases=["Model"],
        ),
        ops.AddIndex(
            model_name="AuditEvent",
            index=Index(fields=["target_id", "id"], name="audit_events_target"),
        ),
        ops.AlterField(
            model_name="User",
            name="password_hash",
            field=fields.CharField(null=True, max_length=255),
        ),
        ops.AddField(
            model_name="User",
            name="deleted_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="User",
            name="sealed_totp",
            field=fields.TextField(null=True, unique=False),
        ),
        ops.AddField(
            model_name="User",
            name="totp_confirmed_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="User",
            name="totp_last_step",
            field=fields.BigIntField(null=True),
        ),
    ]
