"""Documents: what was read from the pages of a medium, and the products that may be in it.

Reading is an execution of kind OCR; its own columns are here under the same id. Invariants kept by the database: a page
and a candidate are there once, whichever attempt wrote them; a candidate that was accepted says how. Queries are in
`models/document_queries.py` and `models/candidate_queries.py`.
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
from models.products import Product
from models.users import User

KIND: Final = "OCR"


class TextSource(StrEnum):
    """Where the text of a page is from."""

    TEXT_LAYER = "TEXT_LAYER"
    OCR = "OCR"


class CandidateState(StrEnum):
    """What was decided about a candidate."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


class MatchReason(StrEnum):
    """Why a candidate is taken for a product that exists."""

    EAN = "EAN"
    SKU = "SKU"
    NAME = "NAME"


class OcrJob(Model):
    """What reading a document adds to its execution. `filename` stays when the medium goes."""

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    media: fields.ForeignKeyNullableRelation[Media] = fields.ForeignKeyField(
        "models.Media", related_name=False, on_delete=SET_NULL, null=True
    )
    filename = fields.CharField(max_length=255)
    languages: fields.JSONField[list[str]] = fields.JSONField()
    force_ocr = fields.BooleanField(default=False)
    default_currency = fields.CharField(max_length=3, null=True)
    batch_id = fields.UUIDField(null=True)
    page_count = fields.IntField(null=True)
    pages_read = fields.IntField(default=0)
    confidence = fields.FloatField(null=True)
    candidate_count = fields.IntField(default=0)
    engine = fields.CharField(max_length=64, null=True)

    class Meta:
        """Table and indexes."""

        table = "ocr_jobs"
        indexes = (
            Index(fields=("media_id", "execution_id"), name="ocr_jobs_media"),
            Index(fields=("batch_id",), name="ocr_jobs_batch"),
        )


class DocumentPage(Model):
    """A page as it was read. `words` is a list of [text, left, top, right, bottom, confidence], in parts of the page.

    Boxes count from 0 to 1 from the top left corner of the upright page, so they fit any rendering of it; `width` and
    `height` are in points (1/72 inch) for PDFs, in pixels for images. Confidence is 0 to 100, null for text layers.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    job: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    number = fields.IntField()
    source = fields.CharEnumField(TextSource, max_length=16)
    width = fields.FloatField()
    height = fields.FloatField()
    rotation = fields.FloatField(default=0.0)
    confidence = fields.FloatField(null=True)
    text = fields.TextField()
    words: fields.JSONField[list[Any]] = fields.JSONField()

    class Meta:
        """Table and key."""

        table = "document_pages"
        constraints = (
            UniqueConstraint(fields=("job_id", "number"), name="document_pages_number"),
            CheckConstraint(check="number > 0", name="document_pages_number_check"),
        )


class CandidateAcceptance(Model):
    """One act of accepting, of one or many candidates; `changes` is what undoing it needs."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    job: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    accepted_by: fields.ForeignKeyNullableRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=SET_NULL, null=True
    )
    accepted_at = fields.DatetimeField(auto_now_add=True)
    min_confidence = fields.FloatField(null=True)
    changes: fields.JSONField[list[dict[str, Any]]] = fields.JSONField()
    undone_at = fields.DatetimeField(null=True)

    class Meta:
        """Table and indexes."""

        table = "candidate_acceptances"
        indexes = (Index(fields=("job_id", "id"), name="candidate_acceptances_job"),)


class ProductCandidate(Model):
    """A product that a document may name. `confidences` has one number from 0 to 1 per field that was found.

    `box` is [left, top, right, bottom] as in `DocumentPage`; `evidence` is the text of the row.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    job: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    position = fields.IntField()
    page = fields.IntField()
    box: fields.JSONField[list[float]] = fields.JSONField()
    evidence = fields.TextField()
    name = fields.CharField(max_length=255)
    sku = fields.CharField(max_length=64, null=True)
    ean = fields.CharField(max_length=14, null=True)
    price = fields.DecimalField(max_digits=14, decimal_places=4, null=True)
    currency = fields.CharField(max_length=3, null=True)
    quantity = fields.DecimalField(max_digits=14, decimal_places=3, null=True)
    unit = fields.CharField(max_length=16, null=True)
    confidences: fields.JSONField[dict[str, float]] = fields.JSONField()
    confidence = fields.FloatField()
    state = fields.CharEnumField(CandidateState, max_length=16, default=CandidateState.PENDING)
    product: fields.ForeignKeyNullableRelation[Product] = fields.ForeignKeyField(
        "models.Product", related_name=False, on_delete=SET_NULL, null=True
    )
    acceptance: fields.ForeignKeyNullableRelation[CandidateAcceptance] = fields.ForeignKeyField(
        "models.CandidateAcceptance", related_name=False, on_delete=SET_NULL, null=True
    )
    decided_by: fields.ForeignKeyNullableRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=SET_NULL, null=True
    )
    decided_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, invariants and indexes."""

        table = "product_candidates"
        constraints = (
            UniqueConstraint(fields=("job_id", "position"), name="product_candidates_position"),
            CheckConstraint(check="state IN ('PENDING', 'ACCEPTED', 'REJECTED')", name="candidates_state_check"),
            CheckConstraint(check="confidence BETWEEN 0 AND 1", name="candidates_confidence_check"),
            CheckConstraint(check="(state = 'PENDING') = (decided_at IS NULL)", name="candidates_decided_check"),
        )
        indexes = (Index(fields=("product_id",), name="product_candidates_product"),)
