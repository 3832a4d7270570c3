"""The outbox: what has to be told to the world outside, written in the transaction that makes it true.

A message is a row until its work is done: delivered at least once, repeated with growing pauses, given up after many
tries. A key makes a message unique within its topic, so the same thing is never told twice for two reasons. Changes of
a deployment's status write theirs by a trigger, because they have several authors (the worker, the sweeper, a person).
Who does the work is in `tasks/outbox.py`.
"""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model


class OutboxMessage(Model):
    """Something to tell. `due_at` is also the lease of whoever is telling it; `given_up_at` ends the tries."""

    id = fields.BigIntField(primary_key=True, generated=True)
    topic = fields.CharField(max_length=64)
    key = fields.CharField(max_length=200)
    payload: fields.JSONField[dict[str, Any]] = fields.JSONField()
    due_at = fields.DatetimeField(auto_now_add=True)
    attempts = fields.IntField(default=0)
    last_error = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    given_up_at = fields.DatetimeField(null=True)

    class Meta:
        """Table, key and the index of what is due."""

        table = "outbox_messages"
        constraints = (UniqueConstraint(fields=("topic", "key"), name="outbox_messages_key"),)
        indexes = (Index(fields=("due_at",), name="outbox_messages_due"),)
