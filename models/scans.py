"""Risk scans: what a scan adds to its execution, the risks it found, and what people decided about them.

A scan is an execution of kind SCAN; its own columns are here under the same id. Decisions do not belong to a scan: they
stick to a sentence (`fingerprint`) of a document (`document_key`) of an owner, so that the next scan of the document
knows them. Queries are in `models/scan_queries.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from tortoise import fields
from tortoise.fields import CASCADE, SET_NULL
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.executions import Execution
from models.ids import new_id
from models.media import Media
from models.users import User

KIND: Final = "SCAN"


class ScanSource(StrEnum):
    """Who found the risks."""

    LLM = "LLM"
    MODEL = "MODEL"


class RiskSeverity(StrEnum):
    """How much a risk matters, least first."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


class SeveritySource(StrEnum):
    """Who judged the severity."""

    UPSTREAM = "UPSTREAM"
    RULE = "RULE"


class TriageState(StrEnum):
    """What people decided about a risk."""

    OPEN = "OPEN"
    ACCEPTED = "ACCEPTED"
    MITIGATED = "MITIGATED"
    FALSE_POSITIVE = "FALSE_POSITIVE"


class Scan(Model):
    """What a scan adds to its execution: its input (a text, a medium or a file of its own) and where it came from.

    `scanner` says who answered: name, version, rules, language. `extra` keeps what the service sent and we do not know.
    """

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    media: fields.ForeignKeyNullableRelation[Media] = fields.ForeignKeyField(
        "models.Media", related_name=False, on_delete=SET_NULL, null=True
    )
    filename = fields.CharField(max_length=255, null=True)
    content_type = fields.CharField(max_length=127)
    size = fields.BigIntField()
    text = fields.TextField(null=True)
    file_key = fields.CharField(max_length=512, null=True)
    document_key = fields.CharField(max_length=128)
    force_llm = fields.BooleanField(default=False)
    source = fields.CharEnumField(ScanSource, max_length=16, null=True)
    scanner: fields.JSONField[dict[str, Any]] = fields.JSONField(null=True)
    is_truncated = fields.BooleanField(default=False)
    risk_count = fields.IntField(default=0)
    extra: fields.JSONField[dict[str, Any]] = fields.JSONField(null=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "scans"
        constraints = (
            CheckConstraint(
                check="num_nonnulls(text, file_key) + (media_id IS NOT NULL)::int <= 1", name="scans_input_check"
            ),
            CheckConstraint(check="source IN ('LLM', 'MODEL')", name="scans_source_check"),
        )
        indexes = (Index(fields=("document_key", "execution_id"), name="scans_document"),)


class ScanRisk(Model):
    """One risk that a scan found. `start`, `end` and `page` say where its context is, where that was found."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    scan: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    position = fields.IntField()
    category = fields.CharField(max_length=64)
    risk = fields.TextField()
    context = fields.TextField()
    severity = fields.CharEnumField(RiskSeverity, max_length=16)
    severity_source = fields.CharEnumField(SeveritySource, max_length=16)
    confidence = fields.FloatField(null=True)
    start = fields.IntField(null=True)
    end = fields.IntField(null=True)
    page = fields.IntField(null=True)
    rule = fields.CharField(max_length=64, null=True)
    cue = fields.CharField(max_length=200, null=True)
    fingerprint = fields.CharField(max_length=64)
    extra: fields.JSONField[dict[str, Any]] = fields.JSONField(null=True)

    class Meta:
        """Table, invariants and key."""

        table = "scan_risks"
        constraints = (
            UniqueConstraint(fields=("scan_id", "position"), name="scan_risks_position"),
            CheckConstraint(
                check="severity IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')", name="scan_risks_severity_check"
            ),
            CheckConstraint(check='("start" IS NULL) = ("end" IS NULL)', name="scan_risks_span_check"),
        )


class RiskTriage(Model):
    """What was decided about a sentence of a document; until when, if not for good."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    document_key = fields.CharField(max_length=128)
    fingerprint = fields.CharField(max_length=64)
    state = fields.CharEnumField(TriageState, max_length=16)
    note = fields.TextField(null=True)
    decided_by: fields.ForeignKeyNullableRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=SET_NULL, null=True
    )
    decided_at = fields.DatetimeField()
    until = fields.DatetimeField(null=True)

    class Meta:
        """Table and key."""

        table = "risk_triage"
        constraints = (
            UniqueConstraint(fields=("owner_id", "document_key", "fingerprint"), name="risk_triage_key"),
            CheckConstraint(
                check="state IN ('OPEN', 'ACCEPTED', 'MITIGATED', 'FALSE_POSITIVE')", name="risk_triage_state_check"
            ),
        )
