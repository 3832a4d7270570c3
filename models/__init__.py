"""Tables, invariants, state transitions and queries. Tortoise finds the models through this module."""

from models.audit import AuditEvent
from models.connections import Identity, OAuthConnection
from models.credentials import AccessToken, OneTimeLink, RecoveryCode
from models.deployments import Deployment
from models.executions import Execution, ExecutionEvent, LogChunk, QueueTurn
from models.idempotency import IdempotencyKey
from models.jobs import CrawlRequest, Item, Job, JobRun, OutputFile
from models.notifications import Notification, Preferences
from models.outbox import OutboxMessage
from models.projects import DeployHook, EnvironmentVariable, Project
from models.sessions import Session
from models.sites import DeploymentFile, SiteAlias, SiteBlob, SitePublication
from models.tools import Tool
from models.users import User
from models.webhooks import WebhookDelivery, WebhookEffect

__all__ = [
    "AccessToken",
    "AuditEvent",
    "CrawlRequest",
    "DeployHook",
    "Deployment",
    "DeploymentFile",
    "EnvironmentVariable",
    "Execution",
    "ExecutionEvent",
    "IdempotencyKey",
    "Identity",
    "Item",
    "Job",
    "JobRun",
    "LogChunk",
    "Notification",
    "OAuthConnection",
    "OneTimeLink",
    "OutboxMessage",
    "OutputFile",
    "Preferences",
    "Project",
    "QueueTurn",
    "RecoveryCode",
    "Session",
    "SiteAlias",
    "SiteBlob",
    "SitePublication",
    "Tool",
    "User",
    "WebhookDelivery",
    "WebhookEffect",
]
