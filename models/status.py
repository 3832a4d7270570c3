"""The state of the service as everybody may see it: what probes found, and incidents.

Invariants kept by the database: one row per service and per service and hour; of one service at most one automatic
incident is open; an incident has an end exactly when it is RESOLVED. How states follow from probes is
`tasks/status/verdicts.py`'s; queries are in `models/status_queries.py` and `models/incident_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.ids import new_id


class Service(StrEnum):
    """What is probed."""

    API = "API"
    DATABASE = "DATABASE"
    QUEUE = "QUEUE"
    STORAGE = "STORAGE"
    BUILDS = "BUILDS"
    AI_SERVICE = "AI_SERVICE"
    MAIL = "MAIL"


SERVICE_NAMES: Final = {
    Service.API: "API",
    Service.DATABASE: "Database",
    Service.QUEUE: "Queue",
    Service.STORAGE: "Storage",
    Service.BUILDS: "Builds",
    Service.AI_SERVICE: "Risk scanner",
    Service.MAIL: "Mail",
}
"""What people call them."""


class ServiceState(StrEnum):
    """How a service is. UNKNOWN is never stored: it is what a state becomes when nobody probes any more."""

    OPERATIONAL = "OPERATIONAL"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


class IncidentState(StrEnum):
    """How far an incident has come."""

    INVESTIGATING = "INVESTIGATING"
    IDENTIFIED = "IDENTIFIED"
    MONITORING = "MONITORING"
    RESOLVED = "RESOLVED"


class IncidentImpact(StrEnum):
    """How bad an incident is."""

    MINOR = "MINOR"
    MAJOR = "MAJOR"
    CRITICAL = "CRITICAL"


class ServiceCondition(Model):
    """How a service is now; `failures` and `impairments` are probes in a row that found it down or not quite well.

    `verdict` is the last probe's; the state follows it only when another one agrees. `failing_since` is when the probes
    began, one after the other, to find it not quite well.
    """

    service = fields.CharEnumField(Service, max_length=16, primary_key=True)
    state = fields.CharEnumField(ServiceState, max_length=16)
    since = fields.DatetimeField()
    verdict = fields.CharEnumField(ServiceState, max_length=16)
    probed_at = fields.DatetimeField()
    milliseconds = fields.FloatField(null=True)
    failures = fields.IntField(default=0)
    impairments = fields.IntField(default=0)
    successes = fields.IntField(default=0)
    failing_since = fields.DatetimeField(null=True)

    class Meta:
        """Table."""

        table = "service_states"


class ServiceCheck(Model):
    """The last result of a check that is too heavy to be made with every probe."""

    service = fields.CharEnumField(Service, max_length=16, primary_key=True)
    verdict = fields.CharEnumField(ServiceState, max_length=16)
    milliseconds = fields.FloatField(null=True)
    at = fields.DatetimeField()

    class Meta:
        """Table."""

        table = "service_checks"


class ServiceHour(Model):
    """The probes of one service in one hour (UTC): how many found what, and how long answers took.

    `histogram` counts answers by duration (`models.status_queries.bucket_of`); `worst` is the worst state that held.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    service = fields.CharEnumField(Service, max_length=16)
    hour = fields.DatetimeField()
    operational = fields.IntField(default=0)
    degraded = fields.IntField(default=0)
    down = fields.IntField(default=0)
    worst = fields.SmallIntField(default=0)
    milliseconds_sum = fields.FloatField(default=0)
    milliseconds_min = fields.FloatField(null=True)
    milliseconds_max = fields.FloatField(null=True)
    histogram = ArrayField(element_type="int")

    class Meta:
        """Table and key."""

        table = "service_hours"
        constraints = (UniqueConstraint(fields=("hour", "service"), name="service_hours_key"),)


class ServiceChange(Model):
    """A state that a service had from a moment on."""

    id = fields.BigIntField(primary_key=True, generated=True)
    service = fields.CharEnumField(Service, max_length=16)
    state = fields.CharEnumField(ServiceState, max_length=16)
    at = fields.DatetimeField()

    class Meta:
        """Table and the order of the history."""

        table = "service_changes"
        indexes = (Index(fields=("service", "id"), name="service_changes_service"),)


class Incident(Model):
    """Something that users notice. `automatic_service` is the service whose probes opened it.

    `taken_over_at` is when an administrator first touched such a one, which then is no matter of the probes any more.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    title = fields.CharField(max_length=200)
    state = fields.CharEnumField(IncidentState, max_length=16)
    impact = fields.CharEnumField(IncidentImpact, max_length=16)
    services = ArrayField(element_type="text")
    automatic_service = fields.CharEnumField(Service, max_length=16, null=True)
    taken_over_at = fields.DatetimeField(null=True)
    started_at = fields.DatetimeField()
    resolved_at = fields.DatetimeField(null=True)
    updated_at = fields.DatetimeField()
    update_count = fields.IntField(default=0)

    class Meta:
        """Table and invariants; that of automatic ones is an index, in the migration."""

        table = "incidents"
        constraints = (
            CheckConstraint(check="(state = 'RESOLVED') = (resolved_at IS NOT NULL)", name="incidents_end_check"),
            CheckConstraint(
                check="taken_over_at IS NULL OR automatic_service IS NOT NULL", name="incidents_taken_check"
            ),
        )


class IncidentUpdate(Model):
    """What was said of an incident at a moment, and the state from then on. `number` counts from 1 in its incident."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    incident: fields.ForeignKeyRelation[Incident] = fields.ForeignKeyField(
        "models.Incident", related_name=False, on_delete=CASCADE
    )
    number = fields.IntField()
    state = fields.CharEnumField(IncidentState, max_length=16)
    message = fields.TextField()
    is_automatic = fields.BooleanField(default=False)
    at = fields.DatetimeField()

    class Meta:
        """Table and key: the updates of an incident have an order that no clock can confuse."""

        table = "incident_updates"
        constraints = (UniqueConstraint(fields=("incident_id", "number"), name="incident_updates_number"),)
