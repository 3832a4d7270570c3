"""What crawls write down beside their items: what each host was asked for, items that do not fit, versions, days.

Invariants: a run has one row for each host it met and, past a thousand of them, one for all others (`host` is empty);
an item that does not fit is kept once per dataset; a job has one version of each identity; a user has one count of
pages for each day (UTC).
"""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model

from models.executions import Execution
from models.jobs import Job
from models.users import User


class RunHost(Model):
    """What a run asked of one host and what came of it."""

    id = fields.BigIntField(primary_key=True, generated=True)
    run: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    host = fields.CharField(max_length=255)
    requests = fields.BigIntField(default=0)
    pages = fields.BigIntField(default=0)
    bytes = fields.BigIntField(default=0)
    retried = fields.BigIntField(default=0)
    throttled = fields.BigIntField(default=0)
    failed = fields.BigIntField(default=0)
    robots = fields.BigIntField(default=0)
    blocked = fields.BigIntField(default=0)
    off_site = fields.BigIntField(default=0)
    depth = fields.BigIntField(default=0)
    duplicate = fields.BigIntField(default=0)
    not_http = fields.BigIntField(default=0)
    too_long = fields.BigIntField(default=0)

    class Meta:
        """Table and key."""

        table = "run_hosts"
        constraints = (UniqueConstraint(fields=("run_id", "host"), name="run_hosts_host"),)


class RejectedItem(Model):
    """An item that does not fit its spider's output, and where."""

    id = fields.BigIntField(primary_key=True, generated=True)
    dataset: fields.ForeignKeyRelation[Execution] = fields.ForeignKeyField(
        "models.Execution", related_name=False, on_delete=CASCADE
    )
    run_id = fields.UUIDField()
    key = fields.CharField(max_length=128)
    url = fields.TextField()
    data: fields.JSONField[Any] = fields.JSONField()
    faults: fields.JSONField[list[Any]] = fields.JSONField()
    rejected_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        """Table, key and the order of pages."""

        table = "rejected_items"
        constraints = (UniqueConstraint(fields=("dataset_id", "key"), name="rejected_items_once"),)
        indexes = (Index(fields=("dataset_id", "id"), name="rejected_items_dataset"),)


class ItemVersion(Model):
    """What a job last stored under an identity, as a hash."""

    id = fields.BigIntField(primary_key=True, generated=True)
    job: fields.ForeignKeyRelation[Job] = fields.ForeignKeyField("models.Job", related_name=False, on_delete=CASCADE)
    identity = fields.BinaryField()
    content = fields.BinaryField()
    source_id = fields.TextField(null=True)
    url = fields.TextField()
    seen_in = fields.UUIDField()
    gone_in = fields.UUIDField(null=True)

    class Meta:
        """Table, key and the list of what is gone."""

        table = "item_versions"
        constraints = (UniqueConstraint(fields=("job_id", "identity"), name="item_versions_identity"),)
        indexes = (Index(fields=("gone_in", "id"), name="item_versions_gone"),)


class CrawlDay(Model):
    """How many pages a user's crawls fetched on one day."""

    id = fields.BigIntField(primary_key=True, generated=True)
    owner: fields.ForeignKeyRelation[User] = fields.ForeignKeyField(
        "models.User", related_name=False, on_delete=CASCADE
    )
    day = fields.DateField()
    pages = fields.BigIntField(default=0)

    class Meta:
        """Table and key."""

        table = "crawl_days"
        constraints = (UniqueConstraint(fields=("owner_id", "day"), name="crawl_days_day"),)
