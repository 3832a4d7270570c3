from tortoise import migrations
from tortoise.migrations import operations as ops
from models.executions import ExecutionStatus, FailureCode
from models.ids import new_id
from models.jobs import CloseReason, FileFormat, RequestState, RunTrigger
from models.permissions import Role
from orjson import loads
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields.base import OnDelete
from tortoise.fields.data import JSON_DUMPS
from tortoise import fields
from tortoise.indexes import Index


class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name="AuditEvent",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("occurred_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("actor_id", fields.UUIDField(null=True)),
                ("session_id", fields.UUIDField(null=True)),
                ("action", fields.CharField(max_length=64)),
                ("outcome", fields.CharField(default="success", max_length=32)),
                ("target_type", fields.CharField(null=True, max_length=32)),
                ("target_id", fields.UUIDField(null=True)),
                ("ip", fields.CharField(null=True, max_length=45)),
                ("user_agent", fields.CharField(null=True, max_length=512)),
                ("request_id", fields.CharField(null=True, max_length=64)),
                ("details", fields.JSONField(default=dict, encoder=JSON_DUMPS, decoder=loads)),
            ],
            options={
                "table": "audit_events",
                "app": "models",
                "indexes": [Index(fields=["actor_id", "id"], name="audit_events_actor")],
                "pk_attr": "id",
                "table_description": "One act of one actor. `outcome` is `success` or the error code that refused it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Tool",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("slug", fields.CharField(max_length=64)),
                ("name", fields.CharField(max_length=120)),
                ("category", fields.CharField(max_length=64)),
                ("description", fields.TextField(default="", unique=False)),
                ("states", fields.JSONField(default=list, encoder=JSON_DUMPS, decoder=loads)),
                ("icon", fields.CharField(null=True, max_length=64)),
                ("spider", fields.CharField(max_length=64)),
                ("input_schema", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("is_active", fields.BooleanField(default=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={"table": "tools", "app": "models", "pk_attr": "id", "table_description": "A catalogue entry."},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="User",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("email", fields.CharField(max_length=254)),
                ("email_key", fields.CharField(max_length=254)),
                ("username", fields.CharField(max_length=32)),
                ("username_key", fields.CharField(max_length=32)),
                ("name", fields.CharField(max_length=120)),
                ("password_hash", fields.CharField(max_length=255)),
                (
                    "role",
                    fields.CharEnumField(
                        default=Role.USER, description="USER: USER\nADMIN: ADMIN", enum_type=Role, max_length=16
                    ),
                ),
                ("is_active", fields.BooleanField(default=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("last_login_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "users",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A person with an account. `email_key` and `username_key` are the case-folded forms that must be unique.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Execution",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("kind", fields.CharField(max_length=16)),
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
                    "requested_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="requested_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                (
                    "status",
                    fields.CharEnumField(
                        default=ExecutionStatus.QUEUED,
                        description="QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nCANCELLED: CANCELLED",
                        enum_type=ExecutionStatus,
                        max_length=16,
                    ),
                ),
                ("stage", fields.CharField(null=True, max_length=32)),
                ("progress", fields.SmallIntField(default=0)),
                ("attempt", fields.IntField(default=0)),
                ("lost_workers", fields.SmallIntField(default=0)),
                ("max_attempts", fields.SmallIntField()),
                ("timeout_seconds", fields.FloatField()),
                ("worked_seconds", fields.FloatField(default=0.0)),
                ("worker", fields.CharField(null=True, max_length=64)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("claimed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("cancel_requested_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("queued_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "failure_code",
                    fields.CharEnumField(
                        null=True,
                        description="TIMED_OUT: TIMED_OUT\nWORKER_LOST: WORKER_LOST\nOUT_OF_MEMORY: OUT_OF_MEMORY\nCLONE_FAILED: CLONE_FAILED\nINSTALL_FAILED: INSTALL_FAILED\nCOMMAND_FAILED: COMMAND_FAILED\nOUTPUT_MISSING: OUTPUT_MISSING\nOUTPUT_TOO_LARGE: OUTPUT_TOO_LARGE\nLOG_LIMIT_EXCEEDED: LOG_LIMIT_EXCEEDED\nUPLOAD_FAILED: UPLOAD_FAILED\nSERVICE_UNAVAILABLE: SERVICE_UNAVAILABLE\nINVALID_INPUT: INVALID_INPUT\nBLOCKED_URL: BLOCKED_URL\nSTART_ERROR: START_ERROR\nINTERNAL: INTERNAL",
                        enum_type=FailureCode,
                        max_length=32,
                    ),
                ),
                ("failure_message", fields.TextField(null=True, unique=False)),
                ("failure_stage", fields.CharField(null=True, max_length=32)),
                ("failure_exit_code", fields.IntField(null=True)),
                ("failure_signal", fields.SmallIntField(null=True)),
                ("failure_retryable", fields.BooleanField(default=False)),
                ("log_sequence", fields.BigIntField(default=0)),
                ("log_bytes", fields.BigIntField(default=0)),
                ("log_object", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("log_compaction_after", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "executions",
                "app": "models",
                "indexes": [
                    PostgreSQLIndex(
                        fields=["kind", "owner_id", "queued_at"],
                        name="executions_queue",
                        condition={"status": "QUEUED"},
                    ),
                    PostgreSQLIndex(
                        fields=["kind", "owner_id", "lease_until"],
                        name="executions_leases",
                        condition={"status": "RUNNING"},
                    ),
                    Index(fields=["owner_id", "kind", "id"], name="executions_owner"),
                    Index(fields=["log_compaction_after"], name="executions_log_compaction"),
                ],
                "pk_attr": "id",
                "table_description": "One piece of work; what its kind adds is in the kind's own table under the same id.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="CrawlRequest",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "dataset",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="dataset_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("fingerprint", fields.BinaryField()),
                ("url", fields.TextField(unique=False)),
                ("payload", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("depth", fields.IntField(default=0)),
                ("rank", fields.IntField(default=0)),
                (
                    "state",
                    fields.CharEnumField(
                        default=RequestState.PENDING,
                        description="PENDING: PENDING\nLEASED: LEASED\nDONE: DONE\nFAILED: FAILED",
                        enum_type=RequestState,
                        max_length=16,
                    ),
                ),
                ("starts", fields.SmallIntField(default=0)),
                ("failure_reason", fields.CharField(null=True, max_length=32)),
                ("failure_detail", fields.TextField(null=True, unique=False)),
            ],
            options={
                "table": "crawl_requests",
                "app": "models",
                "indexes": [
                    PostgreSQLIndex(
                        fields=["dataset_id", "rank", "id"],
                        name="crawl_requests_pending",
                        condition={"state": "PENDING"},
                    ),
                    PostgreSQLIndex(fields=["dataset_id"], name="crawl_requests_leased", condition={"state": "LEASED"}),
                    PostgreSQLIndex(
                        fields=["dataset_id", "id"], name="crawl_requests_failed", condition={"state": "FAILED"}
                    ),
                ],
                "pk_attr": "id",
                "table_description": "One request of a dataset's frontier: pending, leased to the crawler, done or failed. Low `rank` goes first.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ExecutionEvent",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "execution",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="execution_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                (
                    "status",
                    fields.CharEnumField(
                        description="QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nCANCELLED: CANCELLED",
                        enum_type=ExecutionStatus,
                        max_length=16,
                    ),
                ),
                ("stage", fields.CharField(null=True, max_length=32)),
                ("attempt", fields.IntField()),
                ("user_id", fields.UUIDField(null=True)),
                ("worker", fields.CharField(null=True, max_length=64)),
            ],
            options={
                "table": "execution_events",
                "app": "models",
                "indexes": [Index(fields=["execution_id", "id"], name="execution_events_execution")],
                "pk_attr": "id",
                "table_description": "One line of an execution's history: append-only, the source of durations and analytics.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
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
                ("operation", fields.CharField(max_length=64)),
                ("key", fields.CharField(max_length=255)),
                ("request_hash", fields.CharField(max_length=64)),
                ("target_id", fields.UUIDField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "idempotency_keys",
                "app": "models",
                "unique_together": (("owner_id", "operation", "key"),),
                "pk_attr": "id",
                "table_description": "What a key of an owner led to.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Item",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "dataset",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="dataset_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("run_id", fields.UUIDField()),
                ("key", fields.CharField(max_length=128)),
                ("url", fields.TextField(unique=False)),
                ("data", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("scraped_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "items",
                "app": "models",
                "indexes": [Index(fields=["dataset_id", "id"], name="items_dataset")],
                "pk_attr": "id",
                "table_description": "One item of a dataset. `key` comes from the page, the callback and the place on the page that made it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Job",
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
                    "tool",
                    fields.ForeignKeyField(
                        "models.Tool",
                        source_field="tool_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("name", fields.CharField(max_length=120)),
                ("input", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "jobs",
                "app": "models",
                "indexes": [
                    Index(fields=["owner_id", "id"], name="jobs_owner"),
                    Index(fields=["tool_id"], name="jobs_tool"),
                ],
                "pk_attr": "id",
                "table_description": "A tool with an input that belongs to a user.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="JobRun",
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
                    "job",
                    fields.ForeignKeyField(
                        "models.Job",
                        source_field="job_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "tool",
                    fields.ForeignKeyField(
                        "models.Tool",
                        source_field="tool_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("spider", fields.CharField(max_length=64)),
                ("input", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                ("limits", fields.JSONField(encoder=JSON_DUMPS, decoder=loads)),
                (
                    "trigger",
                    fields.CharEnumField(
                        default=RunTrigger.API,
                        description="API: API\nRETRY: RETRY\nRESUME: RESUME",
                        enum_type=RunTrigger,
                        max_length=16,
                    ),
                ),
                (
                    "dataset",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="dataset_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "resumed_from",
                    fields.OneToOneField(
                        "models.Execution",
                        source_field="resumed_from_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("retry_of_id", fields.UUIDField(null=True)),
                ("is_seeded", fields.BooleanField(default=False)),
                ("items_scraped", fields.BigIntField(default=0)),
                ("pages_crawled", fields.BigIntField(default=0)),
                ("errors_count", fields.BigIntField(default=0)),
                ("bytes_downloaded", fields.BigIntField(default=0)),
                ("requests_blocked", fields.BigIntField(default=0)),
                ("requests_robots", fields.BigIntField(default=0)),
                ("requests_throttled", fields.BigIntField(default=0)),
                (
                    "close_reason",
                    fields.CharEnumField(
                        null=True,
                        description="FINISHED: FINISHED\nSTOPPED_BY_USER: STOPPED_BY_USER\nITEM_LIMIT: ITEM_LIMIT\nPAGE_LIMIT: PAGE_LIMIT\nBYTE_LIMIT: BYTE_LIMIT\nTIME_LIMIT: TIME_LIMIT\nMEMORY_LIMIT: MEMORY_LIMIT\nSTALLED: STALLED\nSTART_ERROR: START_ERROR",
                        enum_type=CloseReason,
                        max_length=32,
                    ),
                ),
            ],
            options={
                "table": "job_runs",
                "app": "models",
                "indexes": [
                    Index(fields=["job_id", "execution_id"], name="job_runs_job"),
                    Index(fields=["dataset_id"], name="job_runs_dataset"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What a crawl adds to its execution: a snapshot of the input, limits, counters and the reason it closed.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="LogChunk",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "execution",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="execution_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("first_sequence", fields.BigIntField()),
                ("line_count", fields.IntField()),
                ("levels", fields.SmallIntField()),
                ("body", fields.TextField(unique=False)),
            ],
            options={
                "table": "log_chunks",
                "app": "models",
                "unique_together": (("execution_id", "first_sequence"),),
                "pk_attr": "id",
                "table_description": "Consecutive log lines of an execution as one row; `body` is one JSON array per line.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OutputFile",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "run",
                    fields.ForeignKeyField(
                        "models.Execution",
                        source_field="run_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "format",
                    fields.CharEnumField(
                        description="JSONL: JSONL\nCSV: CSV\nXLSX: XLSX", enum_type=FileFormat, max_length=16
                    ),
                ),
                ("key", fields.CharField(max_length=512)),
                ("filename", fields.CharField(max_length=160)),
                ("content_type", fields.CharField(max_length=120)),
                ("size", fields.BigIntField()),
                ("sha256", fields.CharField(max_length=64)),
                ("row_count", fields.BigIntField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "output_files",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A file made of a run's items, kept in storage.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="QueueTurn",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("kind", fields.CharField(max_length=16)),
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
                ("served_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "queue_turns",
                "app": "models",
                "unique_together": (("kind", "owner_id"),),
                "pk_attr": "id",
                "table_description": "When an owner was last served by a kind: the memory of fair claims.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Session",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("refresh_counter", fields.IntField(default=0)),
                ("rotated_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("last_used_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("revoked_reason", fields.CharField(null=True, max_length=32)),
                ("ip", fields.CharField(null=True, max_length=45)),
                ("user_agent", fields.CharField(null=True, max_length=512)),
            ],
            options={
                "table": "sessions",
                "app": "models",
                "indexes": [Index(fields=["user_id"], name="sessions_user")],
                "pk_attr": "id",
                "table_description": "A sign-in on one device: lives until it is revoked, idle too long or too old.",
            },
            bases=["Model"],
        ),
    ]
