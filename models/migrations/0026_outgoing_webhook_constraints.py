from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0025_outgoing_webhooks")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="WebhookEndpoint",
            constraint=CheckConstraint(
                check="is_active = (disabled_at IS NULL) AND is_active = (disabled_reason IS NULL)",
                name="webhook_endpoints_disabled_check",
            ),
        ),
        ops.AddConstraint(
            model_name="WebhookEndpoint",
            constraint=CheckConstraint(
                check="(sealed_previous_secret IS NULL) = (previous_secret_until IS NULL)",
                name="webhook_endpoints_previous_check",
            ),
        ),
        ops.AddConstraint(
            model_name="WebhookDispatch",
            constraint=UniqueConstraint(fields=("endpoint_id", "event_id"), name="webhook_dispatches_once"),
        ),
        ops.AddConstraint(
            model_name="WebhookDispatch",
            constraint=CheckConstraint(
                check="state IN ('PENDING', 'DELIVERED', 'FAILED')", name="webhook_dispatches_state_check"
            ),
        ),
        ops.AddConstraint(
            model_name="WebhookDispatch",
            constraint=CheckConstraint(
                check="(state = 'PENDING') = (finished_at IS NULL)"
                " AND (state = 'PENDING') = (next_attempt_at IS NOT NULL)",
                name="webhook_dispatches_finish_check",
            ),
        ),
        ops.AddConstraint(
            model_name="WebhookDispatch",
            constraint=CheckConstraint(
                check="lease_until IS NULL OR state = 'PENDING'", name="webhook_dispatches_lease_check"
            ),
        ),
    ]
