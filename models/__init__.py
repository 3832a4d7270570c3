"""Tables, invariants, state transitions and queries. Tortoise finds the models through this module."""

from models.audit import AuditEvent
from models.executions import Execution, ExecutionEvent, LogChunk, QueueTurn
from models.idempotency import IdempotencyKey
from models.jobs import CrawlRequest, Item, Job, JobRun, OutputFile
from models.sessions import Session
from models.tools import Tool
from models.users import User

__all__ = [
    "AuditEvent",
    "CrawlRequest",
    "Execution",
    "ExecutionEvent",
    "IdempotencyKey",
    "Item",
    "Job",
    "JobRun",
    "LogChunk",
    "OutputFile",
    "QueueTurn",
    "Session",
    "Tool",
    "User",
]
