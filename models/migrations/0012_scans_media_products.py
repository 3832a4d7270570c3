from tortoise import migrations
from tortoise.migrations import operations as ops
from models.documents import CandidateState, TextSource
from models.ids import new_id
from models.media import MediaKind, MediaStatus
from models.products import PriceSource
from models.scans import RiskSeverity, ScanSource, SeveritySource, TriageState
from orjson import loads
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    dependencies = [("models", "0011_audit_pseudonyms")]

    initial = False

    operations = [
        ops.CreateModel(
            name="CandidateAcceptance",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="job_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "accepted_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="accepted_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("accepted_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("min_confidence", fields.FloatField(null=True)),
                ("changes", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("undone_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "candidate_acceptances",
                "app": "models",
                "indexes": [Index(fields=["job_id", "id"], name="candidate_acceptances_job")],
                "pk_attr": "id",
                "table_description": "One act of accepting, of one or many candidates; `changes` is what undoing it needs.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="DocumentPage",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="job_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                (
                    "source",
                    fields.CharEnumField(
                        description="TEXT_LAYER: TEXT_LAYER\nOCR: OCR", enum_type=TextSource, max_length=16
                    ),
                ),
                ("width", fields.FloatField()),
                ("height", fields.FloatField()),
                ("rotation", fields.FloatField(default=0.0)),
                ("confidence", fields.FloatField(null=True)),
                ("text", fields.TextField(unique=False)),
                ("words", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "document_pages",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A page as it was read. `words` is a list of [text, left, top, right, bottom, confidence], in parts of the page.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Media",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "status",
                    fields.CharEnumField(
                        default=MediaStatus.PENDING,
                        description="PENDING: PENDING\nREADY: READY\nREJECTED: REJECTED",
                        enum_type=MediaStatus,
                        max_length=16,
                    ),
                ),
                ("filename", fields.CharField(max_length=255)),
                ("content_type", fields.CharField(max_length=127)),
                ("size", fields.BigIntField()),
                ("sha256", fields.CharField(max_length=64)),
                (
                    "kind",
                    fields.CharEnumField(
                        null=True,
                        description="IMAGE: IMAGE\nPDF: PDF\nVIDEO: VIDEO",
                        enum_type=MediaKind,
                        max_length=16,
                    ),
                ),
                ("width", fields.IntField(null=True)),
                ("height", fields.IntField(null=True)),
                ("pages", fields.IntField(null=True)),
                ("duration_seconds", fields.FloatField(null=True)),
                ("has_thumbnail", fields.BooleanField(default=False)),
                ("rejection", fields.CharField(null=True, max_length=500)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("completed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("upload_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "media",
                "app": "models",
                "indexes": [
                    Index(fields=["owner_id", "id"], name="media_owner"),
                    PostgreSQLIndex(fields=["upload_until"], name="media_pending", condition={"status": "PENDING"}),
                ],
                "pk_attr": "id",
                "table_description": "A file of a user. `sha256` and `size` are what was promised and, once READY, what is there.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OcrJob",
            fields=[
                (
                    "execution",
                    fields.OneToOneField(
                        "models.Execution",
                        source_field="execution_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "media",
                    fields.ForeignKeyField(
                        "models.Media",
                        source_field="media_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("filename", fields.CharField(max_length=255)),
                ("languages", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("force_ocr", fields.BooleanField(default=False)),
                ("default_currency", fields.CharField(null=True, max_length=3)),
                ("batch_id", fields.UUIDField(null=True)),
                ("page_count", fields.IntField(null=True)),
                ("pages_read", fields.IntField(default=0)),
                ("confidence", fields.FloatField(null=True)),
                ("candidate_count", fields.IntField(default=0)),
                ("engine", fields.CharField(null=True, max_length=64)),
            ],
            options={
                "table": "ocr_jobs",
                "app": "models",
                "indexes": [
                    Index(fields=["media_id", "execution_id"], name="ocr_jobs_media"),
                    Index(fields=["batch_id"], name="ocr_jobs_batch"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What reading a document adds to its execution. `filename` stays when the medium goes.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Product",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("name", fields.CharField(max_length=255)),
                ("slug", fields.CharField(max_length=255)),
                ("sku", fields.CharField(null=True, max_length=64)),
                ("sku_key", fields.CharField(null=True, max_length=64)),
                ("ean", fields.CharField(null=True, max_length=14)),
                ("description", fields.TextField(default="", unique=False)),
                ("price", fields.DecimalField(null=True, max_digits=14, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                ("unit", fields.CharField(null=True, max_length=16)),
                ("stock", fields.DecimalField(null=True, max_digits=14, decimal_places=3)),
                ("category", fields.CharField(null=True, max_length=120)),
                ("attributes", fields.JSONField(default=dict, encoder=JSON_DUMPS, decoder=loads)),
                ("is_active", fields.BooleanField(default=True)),
                ("version", fields.IntField(default=1)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "products",
                "app": "models",
                "indexes": [
                    Index(fields=["category", "id"], name="products_category"),
                    Index(fields=["currency", "price", "id"], name="products_price"),
                    Index(fields=["updated_at", "id"], name="products_updated"),
                ],
                "pk_attr": "id",
                "table_description": "A product. `price` and `currency` are both there or both not; `version` grows with each change.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ProductCandidate",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "job",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="job_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("position", fields.IntField()),
                ("page", fields.IntField()),
                ("box", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("evidence", fields.TextField(unique=False)),
                ("name", fields.CharField(max_length=255)),
                ("sku", fields.CharField(null=True, max_length=64)),
                ("ean", fields.CharField(null=True, max_length=14)),
                ("price", fields.DecimalField(null=True, max_digits=14, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                ("quantity", fields.DecimalField(null=True, max_digits=14, decimal_places=3)),
                ("unit", fields.CharField(null=True, max_length=16)),
                ("confidences", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("confidence", fields.FloatField()),
                (
                    "state",
                    fields.CharEnumField(
                        default=CandidateState.PENDING,
                        description="PENDING: PENDING\nACCEPTED: ACCEPTED\nREJECTED: REJECTED",
                        enum_type=CandidateState,
                        max_length=16,
                    ),
                ),
                (
                    "product",
                    fields.ForeignKeyField(
                        "models.Product",
                        source_field="product_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                (
                    "acceptance",
                    fields.ForeignKeyField(
                        "models.CandidateAcceptance",
                        source_field="acceptance_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                (
                    "decided_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="decided_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("decided_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "product_candidates",
                "app": "models",
                "indexes": [Index(fields=["product_id"], name="product_candidates_product")],
                "pk_attr": "id",
                "table_description": "A product that a document may name. `confidences` has one number from 0 to 1 per field that was found.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ProductMedia",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "product",
                    fields.ForeignKeyField(
                        "models.Product",
                        source_field="product_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "media",
                    fields.ForeignKeyField(
                        "models.Media",
                        source_field="media_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("position", fields.IntField()),
                ("alt", fields.CharField(default="", max_length=255)),
            ],
            options={
                "table": "product_media",
                "app": "models",
                "indexes": [Index(fields=["media_id"], name="product_media_media")],
                "pk_attr": "id",
                "table_description": "A picture, document or video of a product, in its place.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ProductPrice",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "product",
                    fields.ForeignKeyField(
                        "models.Product",
                        source_field="product_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("price", fields.DecimalField(null=True, max_digits=14, decimal_places=4)),
                ("currency", fields.CharField(null=True, max_length=3)),
                (
                    "source",
                    fields.CharEnumField(
                        description="MANUAL: MANUAL\nIMPORT: IMPORT\nDOCUMENT: DOCUMENT",
                        enum_type=PriceSource,
                        max_length=16,
                    ),
                ),
                (
                    "changed_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="changed_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("changed_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "product_prices",
                "app": "models",
                "indexes": [Index(fields=["product_id", "id"], name="product_prices_product")],
                "pk_attr": "id",
                "table_description": "What a product cost from a moment on; null from when it had no price.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RiskTriage",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("document_key", fields.CharField(max_length=128)),
                ("fingerprint", fields.CharField(max_length=64)),
                (
                    "state",
                    fields.CharEnumField(
                        description="OPEN: OPEN\nACCEPTED: ACCEPTED\nMITIGATED: MITIGATED\nFALSE_POSITIVE: FALSE_POSITIVE",
                        enum_type=TriageState,
                        max_length=16,
                    ),
                ),
                ("note", fields.TextField(null=True, unique=False)),
                (
                    "decided_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="decided_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("decided_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "risk_triage",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What was decided about a sentence of a document; until when, if not for good.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Scan",
            fields=[
                (
                    "execution",
                    fields.OneToOneField(
                        "models.Execution",
                        source_field="execution_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "media",
                    fields.ForeignKeyField(
                        "models.Media",
                        source_field="media_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("filename", fields.CharField(null=True, max_length=255)),
                ("content_type", fields.CharField(max_length=127)),
                ("size", fields.BigIntField()),
                ("text", fields.TextField(null=True, unique=False)),
                ("file_key", fields.CharField(null=True, max_length=512)),
                ("document_key", fields.CharField(max_length=128)),
                ("force_llm", fields.BooleanField(default=False)),
                (
                    "source",
                    fields.CharEnumField(
                        null=True, description="LLM: LLM\nMODEL: MODEL", enum_type=ScanSource, max_length=16
                    ),
                ),
                ("scanner", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("is_truncated", fields.BooleanField(default=False)),
                ("risk_count", fields.IntField(default=0)),
                ("extra", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "scans",
                "app": "models",
                "indexes": [Index(fields=["document_key", "execution_id"], name="scans_document")],
                "pk_attr": "execution_id",
                "table_description": "What a scan adds to its execution: its input (a text, a medium or a file of its own) and where it came from.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ScanRisk",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "scan",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="scan_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("position", fields.IntField()),
                ("category", fields.CharField(max_length=64)),
                ("risk", fields.TextField(unique=False)),
                ("context", fields.TextField(unique=False)),
                (
                    "severity",
                    fields.CharEnumField(
                        description="LOW: LOW\nMEDIUM: MEDIUM\nHIGH: HIGH\nCRITICAL: CRITICAL",
                        enum_type=RiskSeverity,
                        max_length=16,
                    ),
                ),
                (
                    "severity_source",
                    fields.CharEnumField(
                        description="UPSTREAM: UPSTREAM\nRULE: RULE", enum_type=SeveritySource, max_length=16
                    ),
                ),
                ("confidence", fields.FloatField(null=True)),
                ("start", fields.IntField(null=True)),
                ("end", fields.IntField(null=True)),
                ("page", fields.IntField(null=True)),
                ("rule", fields.CharField(null=True, max_length=64)),
                ("cue", fields.CharField(null=True, max_length=200)),
                ("fingerprint", fields.CharField(max_length=64)),
                ("extra", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "scan_risks",
                "app": "models",
                "pk_attr": "id",
                "table_description": "One risk that a scan found. `start`, `end` and `page` say where its context is, where that was found.",
            },
            bases=["Model"],
        ),
        ops.AddIndex(
            model_name="AuditEvent",
            index=Index(fields=["action", "id"], name="audit_events_action"),
        ),
        ops.AddIndex(
            model_name="AuditEvent",
            index=Index(fields=["request_id"], name="audit_events_request"),
        ),
        ops.AddIndex(
            model_name="Execution",
            index=Index(fields=["requested_by_id"], name="executions_requester"),
        ),
    ]
