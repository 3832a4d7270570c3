"""The audit trail may forget who was where, and nothing else.

When an account is deleted its events stay, without address, browser and names: the trigger lets exactly those be taken
away. Everything else of an event, and every deletion, is refused as before.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    CREATE FUNCTION keep_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE'
            AND NEW.ip IS NULL AND NEW.user_agent IS NULL AND OLD.details @> NEW.details
            AND (to_jsonb(NEW) - '{ip,user_agent,details}'::text[]) = (to_jsonb(OLD) - '{ip,user_agent,details}'::text[])
        THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    "DROP TRIGGER audit_events_append_only ON audit_events",
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION keep_audit_event()
    """,
]

_BACKWARD = [
    "DROP TRIGGER audit_events_append_only ON audit_events",
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    "DROP FUNCTION keep_audit_event()",
]


class Migration(migrations.Migration):
    """Triggers."""

    dependencies = [("models", "0010_account_access_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
