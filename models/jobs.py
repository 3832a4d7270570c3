"""Jobs, their runs and what a run brings home.

A run is an execution of kind CRAWL; its own columns are here under the same id. A dataset is what a run and
the runs resumed from it share: the frontier of requests and the items. Items and requests are unique within
their dataset, so a page that is crawled again after a crash adds nothing twice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from tortoise import fields
from tortoise.contrib.postgres.indexes import PostgreSQLIndex
from tortoise.fields import CASCADE, RESTRICT
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint
from tortoise.models import Model

from models.executions import Execution
from models.ids import new_id
from models.tools import Tool
from models.users import User

KIND: Final = "CRAWL"


class CloseReason(StrEnum):
    """Why a crawl ended."""

    FINISHED = "FINISHED"
    STOPPED_BY_USER = "STOPPED_BY_USER"
    ITEM_LIMIT = "ITEM_LIMIT"
    PAGE_LIMIT = "PAGE_LIMIT"
    BYTE_LIMIT = "BYTE_LIMIT"
    DAILY_PAGE_LIMIT = "DAILY_PAGE_LIMIT"
    TIME_LIMIT = "TIME_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    STALLED = "STALLED"
    START_ERROR = "START_ERROR"


class RunTrigger(StrEnum):
    """What started a run."""

    API = "API"
    RETRY = "RETRY"
    RESUME = "RESUME"
    SCHEDULE = "SCHEDULE"


class RequestState(StrEnum):
    """Where a request of the frontier stands."""

    PENDING = "PENDING"
    LEASED = "LEASED"
    DONE = "DONE"
    FAILED = "FAILED"


class FileFormat(StrEnum):
    """The formats of output files."""

    JSONL = "JSONL"
    CSV = "CSV"
    XLSX = "XLSX"


class Job(Model):
    """A tool with an input that belongs to a user.

    With `only_changes` its runs keep only what is new or differs from the last time; with `saves_products` what they
    find goes into the catalogue of products. A run with fewer than `alarm_percent` of the usual items says so.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    tool: fields.ForeignKeyRelation[Tool] = fields.ForeignKeyField(
        "models.Tool", related_name=False, on_delete=RESTRICT
    )
    name = fields.CharField(max_length=120)
    input: fields.JSONField[dict[str, Any]] = fields.JSONField()
    only_changes = fields.BooleanField(default=False, db_default=False)
    saves_products = fields.BooleanField(default=False, db_default=False)
    alarm_percent = fields.SmallIntField(default=50, db_default=50)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        """Table and indexes."""

        table = "jobs"
        constraints = (CheckConstraint(check="alarm_percent BETWEEN 0 AND 100", name="jobs_alarm_check"),)
        indexes = (Index(fields=("owner_id", "id"), name="jobs_owner"), Index(fields=("tool_id",), name="jobs_tool"))


class JobRun(Model):
    """What a crawl adds to its execution: a snapshot of the input, limits, counters and the reason it closed.

    `expected_items` is what the last complete runs of the job had; `is_incomplete` says that this one has far fewer.
    `items_gone` is null unless the run looked for what is not there any more.
    """

    execution: fields.OneToOneRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, primary_key=True
    )
    job: fields.ForeignKeyRelation[Job] = fields.ForeignKeyField("models.Job", related_name=False, on_delete=CASCADE)
    tool: fields.ForeignKeyRelation[Tool] = fields.ForeignKeyField(
        "models.Tool", related_name=False, on_delete=RESTRICT
    )
    spider = fields.CharField(max_length=64)
    input: fields.JSONField[dict[str, Any]] = fields.JSONField()
    limits: fields.JSONField[dict[str, Any]] = fields.JSONField()
    trigger = fields.CharEnumField(RunTrigger, max_length=16, default=RunTrigger.API)
    dataset: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    resumed_from: fields.OneToOneNullableRelation[Execution] = fields.OneToOneField(
        "models.Execution", related_name=False, on_delete=CASCADE, null=True
    )
    retry_of_id = fields.UUIDField(null=True)
    is_seeded = fields.BooleanField(default=False)
    items_scraped = fields.BigIntField(default=0)
    pages_crawled = fields.BigIntField(default=0)
    errors_count = fields.BigIntField(default=0)
    bytes_downloaded = fields.BigIntField(default=0)
    requests_blocked = fields.BigIntField(default=0)
    requests_robots = fields.BigIntField(default=0)
    requests_throttled = fields.BigIntField(default=0)
    requests_dropped = fields.BigIntField(default=0, db_default=0)
    items_rejected = fields.BigIntField(default=0, db_default=0)
    items_unchanged = fields.BigIntField(default=0, db_default=0)
    items_gone = fields.BigIntField(null=True)
    items_skipped = fields.BigIntField(default=0, db_default=0)
    only_changes = fields.BooleanField(default=False, db_default=False)
    saves_products = fields.BooleanField(default=False, db_default=False)
    expected_items = fields.BigIntField(null=True)
    is_incomplete = fields.BooleanField(default=False, db_default=False)
    close_reason = fields.CharEnumField(CloseReason, max_length=32, null=True)

    class Meta:
        """Table and indexes."""

        table = "job_runs"
        indexes = (
            Index(fields=("job_id", "execution_id"), name="job_runs_job"),
            Index(fields=("dataset_id",), name="job_runs_dataset"),
        )


class CrawlRequest(Model):
    """One request of a dataset's frontier: pending, leased to the crawler, done or failed. Low `rank` goes first."""

    id = fields.BigIntField(primary_key=True, generated=True)
    dataset: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    fingerprint = fields.BinaryField()
    url = fields.TextField()
    payload: fields.JSONField[dict[str, Any]] = fields.JSONField()
    depth = fields.IntField(default=0)
    rank = fields.IntField(default=0)
    state = fields.CharEnumField(RequestState, max_length=16, default=RequestState.PENDING)
    starts = fields.SmallIntField(default=0)
    failure_reason = fields.CharField(max_length=32, null=True)
    failure_detail = fields.TextField(null=True)

    class Meta:
        """Table, key and the index that leases are taken from."""

        table = "crawl_requests"
        constraints = (UniqueConstraint(fields=("dataset_id", "fingerprint"), name="crawl_requests_fingerprint"),)
        indexes = (
            PostgreSQLIndex(
                fields=("dataset_id", "rank", "id"), name="crawl_requests_pending", condition={"state": "PENDING"}
            ),
            PostgreSQLIndex(fields=("dataset_id",), name="crawl_requests_leased", condition={"state": "LEASED"}),
            PostgreSQLIndex(fields=("dataset_id", "id"), name="crawl_requests_failed", condition={"state": "FAILED"}),
        )


class Item(Model):
    """One item of a dataset. `key` comes from the page, the callback and the place on the page that made it."""

    id = fields.BigIntField(primary_key=True, generated=True)
    dataset: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    run_id = fields.UUIDField()
    key = fields.CharField(max_length=128)
    url = fields.TextField()
    data: fields.JSONField[dict[str, Any]] = fields.JSONField()
    scraped_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table, key and the order of pages."""

        table = "items"
        constraints = (UniqueConstraint(fields=("dataset_id", "key"), name="items_once"),)
        indexes = (Index(fields=("dataset_id", "id"), name="items_dataset"),)


class OutputFile(Model):
    """A file made of a run's items, kept in storage."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    run: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    format = fields.CharEnumField(FileFormat, max_length=16)
    key = fields.CharField(max_length=512)
    filename = fields.CharField(max_length=160)
    content_type = fields.CharField(max_length=120)
    size = fields.BigIntField()
    sha256 = fields.CharField(max_length=64)
    row_count = fields.BigIntField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table and key."""

        table = "output_files"
        constraints = (
            UniqueConstraint(fields=("run_id", "format"), name="output_files_format"),
            CheckConstraint(check="size >= 0 AND row_count >= 0", name="output_files_size_check"),
        )
