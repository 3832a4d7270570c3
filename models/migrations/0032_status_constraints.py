from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint

_FORWARD = """
CREATE UNIQUE INDEX incidents_automatic ON incidents (automatic_service) WHERE resolved_at IS NULL;
CREATE INDEX incidents_open ON incidents (id) WHERE resolved_at IS NULL;
"""
_BACKWARD = """
DROP INDEX incidents_open;
DROP INDEX incidents_automatic;
"""


class Migration(migrations.Migration):
    dependencies = [("models", "0031_status")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="ServiceHour",
            constraint=UniqueConstraint(fields=("hour", "service"), name="service_hours_key"),
        ),
        ops.AddConstraint(
            model_name="Incident",
            constraint=CheckConstraint(
                check="(state = 'RESOLVED') = (resolved_at IS NOT NULL)", name="incidents_end_check"
            ),
        ),
        ops.AddConstraint(
            model_name="Incident",
            constraint=CheckConstraint(
                check="taken_over_at IS NULL OR automatic_service IS NOT NULL", name="incidents_taken_check"
            ),
        ),
        ops.AddConstraint(
            model_name="IncidentUpdate",
            constraint=UniqueConstraint(fields=("incident_id", "number"), name="incident_updates_number"),
        ),
        ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD),
    ]
