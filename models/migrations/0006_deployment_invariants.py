"""Rules of deployments that need a trigger: publications only grow, and every change of status is told to the world.

A deployment's status has several authors (the worker, the sweeper, a person who cancels); the trigger puts each change
into the outbox, in the transaction that makes it.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    CREATE FUNCTION tell_deployment_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)
        VALUES ('deployment.status', NEW.id || ':' || NEW.attempt || ':' || NEW.status,
                jsonb_build_object('executionId', NEW.id, 'status', NEW.status, 'attempt', NEW.attempt),
                now(), 0, now())
        ON CONFLICT (topic, key) DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER executions_tell_created AFTER INSERT ON executions FOR EACH ROW
    WHEN (NEW.kind = 'DEPLOYMENT') EXECUTE FUNCTION tell_deployment_status()
    """,
    """
    CREATE TRIGGER executions_tell_status AFTER UPDATE OF status ON executions FOR EACH ROW
    WHEN (NEW.kind = 'DEPLOYMENT' AND NEW.status <> OLD.status) EXECUTE FUNCTION tell_deployment_status()
    """,
    """
    CREATE TRIGGER site_publications_append_only BEFORE UPDATE ON site_publications
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
]

_BACKWARD = [
    "DROP TRIGGER site_publications_append_only ON site_publications",
    "DROP TRIGGER executions_tell_status ON executions",
    "DROP TRIGGER executions_tell_created ON executions",
    "DROP FUNCTION tell_deployment_status()",
]


class Migration(migrations.Migration):
    """Triggers."""

    dependencies = [("models", "0005_deployment_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
