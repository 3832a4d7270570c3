"""Tables, invariants, state transitions and queries. Tortoise finds the models through this module."""

from models.analytics import ExecutionFact, Rollup, RollupDelta
from models.audit import AuditEvent
from models.connections import Identity, OAuthConnection
from models.crawl_ledger import CrawlDay, ItemVersion, RejectedItem, RunHost
from models.credentials import AccessToken, OneTimeLink, RecoveryCode
from models.deployments import Deployment
from models.documents import CandidateAcceptance, DocumentPage, OcrJob, ProductCandidate
from models.executions import Execution, ExecutionEvent, LogChunk, QueueTurn
from models.idempotency import IdempotencyKey
from models.item_exports import ItemExport
from models.jobs import CrawlRequest, Item, Job, JobRun, OutputFile
from models.media import Media
from models.notifications import Notification, Preferences
from models.outbox import OutboxMessage
from models.outgoing_webhooks import WebhookDispatch, WebhookEndpoint
from models.processes import Process
from models.products import Product, ProductMedia, ProductPrice, ProductSource
from models.projects import DeployHook, EnvironmentVariable, Project
from models.properties import Property, PropertyPrice
from models.scans import RiskTriage, Scan, ScanRisk
from models.schedules import JobSchedule, ScheduleTick
from models.sessions import Session
from models.sites import DeploymentFile, SiteAlias, SiteBlob, SitePublication
from models.status import Incident, IncidentUpdate, ServiceChange, ServiceCheck, ServiceCondition, ServiceHour
from models.ticks import Tick
from models.tools import Tool
from models.users import User
from models.webhooks import WebhookDelivery, WebhookEffect

__all__ = [
    "AccessToken",
    "AuditEvent",
    "CandidateAcceptance",
    "CrawlDay",
    "CrawlRequest",
    "DeployHook",
    "Deployment",
    "DeploymentFile",
    "DocumentPage",
    "EnvironmentVariable",
    "Execution",
    "ExecutionEvent",
    "ExecutionFact",
    "IdempotencyKey",
    "Identity",
    "Incident",
    "IncidentUpdate",
    "Item",
    "ItemExport",
    "ItemVersion",
    "Job",
    "JobRun",
    "JobSchedule",
    "LogChunk",
    "Media",
    "Notification",
    "OAuthConnection",
    "OcrJob",
    "OneTimeLink",
    "OutboxMessage",
    "OutputFile",
    "Preferences",
    "Process",
    "Product",
    "ProductCandidate",
    "ProductMedia",
    "ProductPrice",
    "ProductSource",
    "Project",
    "Property",
    "PropertyPrice",
    "QueueTurn",
    "RecoveryCode",
    "RejectedItem",
    "RiskTriage",
    "Rollup",
    "RollupDelta",
    "RunHost",
    "Scan",
    "ScanRisk",
    "ScheduleTick",
    "ServiceChange",
    "ServiceCheck",
    "ServiceCondition",
    "ServiceHour",
    "Session",
    "SiteAlias",
    "SiteBlob",
    "SitePublication",
    "Tick",
    "Tool",
    "User",
    "WebhookDelivery",
    "WebhookDispatch",
    "WebhookEffect",
    "WebhookEndpoint",
]
