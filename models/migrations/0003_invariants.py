"""Rules that need a trigger: final means final, history and audit are append-only."""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE FUNCTION keep_final_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'execution % is final', OLD.id USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER executions_final BEFORE UPDATE OF status, attempt ON executions FOR EACH ROW
    WHEN (OLD.status IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) EXECUTE FUNCTION keep_final_status()
    """,
    """
    CREATE TRIGGER execution_events_append_only BEFORE UPDATE ON execution_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    # The log cursor and the progress are rewritten often and are in no index: room on the page keeps that cheap.
    "ALTER TABLE executions SET (fillfactor = 70)",
    "ALTER TABLE job_runs SET (fillfactor = 70)",
]

_BACKWARD = [
    "DROP TRIGGER audit_events_append_only ON audit_events",
    "DROP TRIGGER execution_events_append_only ON execution_events",
    "DROP TRIGGER executions_final ON executions",
    "DROP FUNCTION keep_final_status()",
    "DROP FUNCTION refuse_change()",
    "ALTER TABLE executions RESET (fillfactor)",
    "ALTER TABLE job_runs RESET (fillfactor)",
]


class Migration(migrations.Migration):
    """Triggers and storage parameters."""

    dependencies = [("models", "0002_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
