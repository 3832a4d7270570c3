"""What retention needs: an index of finished logs, and the one way by which old audit events go.

The audit trail stays append-only: its trigger lets a deletion pass only from within `forget_audit_events`, which knows
no event younger than thirty days and keeps the ones by which shipped tools are known to have been installed.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    CREATE INDEX executions_log_retention ON executions (finished_at)
    WHERE log_object IS NOT NULL AND NOT log_object ? 'removedAt'
    """,
    """
    CREATE FUNCTION forget_audit_events(older_than_days int, at_most int) RETURNS int LANGUAGE plpgsql AS $$
    DECLARE
        forgotten int;
    BEGIN
        DELETE FROM audit_events WHERE id IN (
            SELECT id FROM audit_events
            WHERE occurred_at < now() - make_interval(days => greatest(older_than_days, 30)) AND action <> 'installTool'
            ORDER BY id LIMIT at_most
        );
        GET DIAGNOSTICS forgotten = ROW_COUNT;
        RETURN forgotten;
    END $$
    """,
    """
    CREATE OR REPLACE FUNCTION keep_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        callers text;
    BEGIN
        IF TG_OP = 'UPDATE'
            AND NEW.ip IS NULL AND NEW.user_agent IS NULL AND OLD.details @> NEW.details
            AND (to_jsonb(NEW) - '{ip,user_agent,details}'::text[]) = (to_jsonb(OLD) - '{ip,user_agent,details}'::text[])
        THEN
            RETURN NEW;
        END IF;
        GET DIAGNOSTICS callers = PG_CONTEXT;
        IF TG_OP = 'DELETE' AND OLD.occurred_at < now() - interval '30 days'
            AND callers LIKE '%forget_audit_events(integer,integer)%'
        THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER audit_events_never_emptied BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
]

_BACKWARD = [
    "DROP TRIGGER audit_events_never_emptied ON audit_events",
    """
    CREATE OR REPLACE FUNCTION keep_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
    "DROP FUNCTION forget_audit_events(int, int)",
    "DROP INDEX executions_log_retention",
]


class Migration(migrations.Migration):
    """Indexes and functions."""

    dependencies = [("models", "0033_processes")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
