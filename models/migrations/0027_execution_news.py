"""What tells the world of executions, and the index of what is being sent.

The trigger writes one message per change of status, and only where somebody listens: an active endpoint of the owner,
or, of a crawl that has ended, the owner who may want a notification. Who that is and what they are told is decided by
whoever reads the message (`tasks/execution_news.py`).
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    CREATE FUNCTION tell_execution_news() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.kind = 'CRAWL' AND NEW.status IN ('SUCCEEDED', 'FAILED')) OR EXISTS (
            SELECT 1 FROM webhook_endpoints WHERE owner_id = NEW.owner_id AND is_active
        ) THEN
            INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)
            VALUES ('execution.news', NEW.id || ':' || NEW.attempt || ':' || NEW.status,
                    jsonb_build_object('executionId', NEW.id, 'ownerId', NEW.owner_id, 'status', NEW.status,
                                       'at', clock_timestamp()),
                    now(), 0, now())
            ON CONFLICT (topic, key) DO NOTHING;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER executions_news_created AFTER INSERT ON executions FOR EACH ROW
    WHEN (NEW.kind = 'DEPLOYMENT') EXECUTE FUNCTION tell_execution_news()
    """,
    """
    CREATE TRIGGER executions_news_status AFTER UPDATE OF status ON executions FOR EACH ROW
    WHEN (NEW.status <> OLD.status AND NEW.status <> 'QUEUED'
          AND NEW.kind IN ('CRAWL', 'DEPLOYMENT', 'SCAN', 'OCR', 'EXPORT'))
    EXECUTE FUNCTION tell_execution_news()
    """,
    "CREATE INDEX webhook_dispatches_sending ON webhook_dispatches (endpoint_id) WHERE lease_until IS NOT NULL",
]

_BACKWARD = [
    "DROP INDEX webhook_dispatches_sending",
    "DROP TRIGGER executions_news_status ON executions",
    "DROP TRIGGER executions_news_created ON executions",
    "DROP FUNCTION tell_execution_news()",
]


class Migration(migrations.Migration):
    """Triggers and an index."""

    dependencies = [("models", "0026_outgoing_webhook_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
