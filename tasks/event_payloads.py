"""What webhooks say: one JSON text per event, made of the rows as they are now.

`{"type", "timestamp", "version", "data"}`, as the Standard Webhooks specification asks; `docs/webhooks.md` shows each.
Invariants: no secret, no log and no content of anybody's documents is in it; every text in it is bounded; `version`
grows when a field changes its meaning or goes, and fields may come at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import orjson
from asyncpg import Connection, Record

from models import deployments, documents, scans
from models.dispatch_queries import NewEvent
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.outgoing_webhooks import WebhookEventType
from models.sites import PRODUCTION_ALIAS
from settings import Settings
from tasks.crawl.kind import KIND as CRAWL

VERSION: Final = 1
PROMOTED: Final = "PROMOTED"
"""What takes a status's place in the message that a deployment was promoted."""

_EXPORT: Final = "EXPORT"
_MAX_TEXT_LENGTH: Final = 1_000
_SUBJECTS: Final[Mapping[str, tuple[str, Prefix]]] = {
    CRAWL: ("run", Prefix.RUN),
    deployments.KIND: ("deployment", Prefix.DEPLOYMENT),
    scans.KIND: ("scan", Prefix.SCAN),
    documents.KIND: ("ocr", Prefix.OCR_JOB),
    _EXPORT: ("export", Prefix.EXPORT),
}
_VERBS: Final[Mapping[str, str]] = {
    ExecutionStatus.QUEUED: "queued",
    ExecutionStatus.RUNNING: "started",
    ExecutionStatus.SUCCEEDED: "succeeded",
    ExecutionStatus.FAILED: "failed",
    ExecutionStatus.CANCELLED: "cancelled",
    PROMOTED: "promoted",
}

_SELECT: Final = """
SELECT e.id, e.kind, e.owner_id, e.status, e.stage, e.queued_at, e.started_at, e.finished_at, e.failure_code,
       e.failure_message, e.failure_stage, e.failure_retryable,
       r.job_id, j.name AS job_name, r.trigger AS run_trigger, r.items_scraped, r.items_unchanged, r.items_rejected,
       r.pages_crawled, r.errors_count, r.bytes_downloaded, r.expected_items, r.is_incomplete, r.close_reason,
       d.project_id, p.name AS project_name, p.slug AS project_slug, d.number, d.environment,
       d.trigger AS deployment_trigger, d.branch, d.commit_hash, d.commit_message, d.pull_request, d.framework,
       d.site_key, d.file_count, d.artifact_size, d.build_seconds, d.superseded_by_id,
       EXISTS (SELECT 1 FROM site_aliases a WHERE a.deployment_id = e.id AND a.name = $2) AS is_live,
       s.filename AS scan_filename, s.content_type, s.size AS scan_size, s.source, s.risk_count, s.is_truncated,
       o.filename AS ocr_filename, o.page_count, o.pages_read, o.candidate_count, o.batch_id,
       x.run_id AS export_run_id, x.format AS export_format, x.filename AS export_filename, x.row_count,
       x.size AS export_size, x.expires_at
FROM executions e
LEFT JOIN job_runs r ON r.execution_id = e.id LEFT JOIN jobs j ON j.id = r.job_id
LEFT JOIN deployments d ON d.execution_id = e.id LEFT JOIN projects p ON p.id = d.project_id
LEFT JOIN scans s ON s.execution_id = e.id
LEFT JOIN ocr_jobs o ON o.execution_id = e.id
LEFT JOIN item_exports x ON x.execution_id = e.id
WHERE e.id = $1
"""


async def read(connection: Connection, execution_id: UUID) -> Record | None:
    """An execution with all that payloads say of it; None when it is gone."""
    row = await connection.fetchrow(_SELECT, execution_id, PRODUCTION_ALIAS)
    needed = None if row is None else {CRAWL: row["job_id"], deployments.KIND: row["project_id"]}.get(row["kind"], True)
    return row if needed else None


def event_of(settings: Settings, row: Record, status: str, *, at: datetime, key: str = "") -> NewEvent | None:
    """What a change to this status is called and says; None for one that nobody is told of.

    The id is made from the execution and the event, so that the same one told again has the same id; `key` tells apart
    what can happen several times.
    """
    subject = _SUBJECTS.get(row["kind"])
    if subject is None:
        return None
    is_final = status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
    verb = _VERBS[status]
    if row["is_incomplete"] and status == ExecutionStatus.SUCCEEDED:
        verb = "incomplete"
    try:
        event_type = WebhookEventType(f"{subject[0]}.{verb}")
    except ValueError:
        return None
    data: dict[str, Any] = {
        "id": encode_id(subject[1], row["id"]),
        "status": row["status"] if status == PROMOTED else status,
        "queuedAt": _moment(row["queued_at"]),
        "startedAt": _moment(row["started_at"]),
        "finishedAt": _moment(row["finished_at"]) if is_final or status == PROMOTED else None,
        "failure": _failure(row) if status == ExecutionStatus.FAILED else None,
        **_DETAILS[row["kind"]](settings, row),
    }
    return NewEvent(uuid5(row["id"], f"{event_type}{key}"), event_type, write(event_type, data, at=at))


def ping(endpoint_id: str, *, at: datetime) -> str:
    """What a test says."""
    return write(WebhookEventType.PING, {"endpointId": endpoint_id}, at=at)


def write(event_type: WebhookEventType, data: Mapping[str, Any], *, at: datetime) -> str:
    """The text of an event."""
    message = {"type": event_type.value, "timestamp": _moment(at), "version": VERSION, "data": data}
    return orjson.dumps(message).decode()


def _run(settings: Settings, row: Record) -> dict[str, Any]:
    return {
        "job": {"id": encode_id(Prefix.JOB, row["job_id"]), "name": row["job_name"]},
        "trigger": row["run_trigger"],
        "itemsScraped": row["items_scraped"],
        "itemsUnchanged": row["items_unchanged"],
        "itemsRejected": row["items_rejected"],
        "pagesCrawled": row["pages_crawled"],
        "errorsCount": row["errors_count"],
        "bytesDownloaded": row["bytes_downloaded"],
        "expectedItems": row["expected_items"],
        "isIncomplete": row["is_incomplete"],
        "closeReason": row["close_reason"],
        "links": _links(settings),
    }


def _deployment(settings: Settings, row: Record) -> dict[str, Any]:
    title = row["commit_message"] and row["commit_message"].strip().partition("\n")[0]
    is_built = row["status"] == ExecutionStatus.SUCCEEDED
    superseded_by = row["superseded_by_id"]
    return {
        "project": {
            "id": encode_id(Prefix.PROJECT, row["project_id"]),
            "name": row["project_name"],
            "slug": row["project_slug"],
        },
        "number": row["number"],
        "environment": row["environment"],
        "trigger": row["deployment_trigger"],
        "branch": row["branch"],
        "commit": {"hash": row["commit_hash"], "title": _shortened(title)} if row["commit_hash"] else None,
        "pullRequest": row["pull_request"],
        "framework": row["framework"],
        "fileCount": row["file_count"],
        "artifactSize": row["artifact_size"],
        "buildSeconds": row["build_seconds"],
        "isLive": row["is_live"],
        "supersededBy": superseded_by and encode_id(Prefix.DEPLOYMENT, superseded_by),
        "links": {
            **_links(settings),
            "deployment": settings.site_url(f"{row['site_key']}-{row['project_slug']}") if is_built else None,
            "site": settings.site_url(row["project_slug"]) if row["is_live"] else None,
        },
    }


def _scan(settings: Settings, row: Record) -> dict[str, Any]:
    return {
        "filename": row["scan_filename"],
        "contentType": row["content_type"],
        "size": row["scan_size"],
        "source": row["source"],
        "riskCount": row["risk_count"],
        "isTruncated": row["is_truncated"],
        "links": _links(settings),
    }


def _ocr(settings: Settings, row: Record) -> dict[str, Any]:
    return {
        "filename": row["ocr_filename"],
        "batchId": row["batch_id"] and str(row["batch_id"]),
        "pageCount": row["page_count"],
        "pagesRead": row["pages_read"],
        "candidateCount": row["candidate_count"],
        "links": _links(settings),
    }


def _export(settings: Settings, row: Record) -> dict[str, Any]:
    return {
        "runId": row["export_run_id"] and encode_id(Prefix.RUN, row["export_run_id"]),
        "format": row["export_format"],
        "filename": row["export_filename"],
        "rowCount": row["row_count"],
        "size": row["export_size"],
        "expiresAt": _moment(row["expires_at"]),
        "links": _links(settings),
    }


_DETAILS: Final = {
    CRAWL: _run,
    deployments.KIND: _deployment,
    scans.KIND: _scan,
    documents.KIND: _ocr,
    _EXPORT: _export,
}


def _links(settings: Settings) -> dict[str, Any]:
    return {"graphql": f"{settings.base_url}/graphql"}


def _failure(row: Record) -> dict[str, Any] | None:
    return {
        "code": row["failure_code"],
        "message": _shortened(row["failure_message"]),
        "stage": row["failure_stage"],
        "retryable": row["failure_retryable"],
    }


def _moment(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, as answers of the API have it."""
    return None if moment is None else moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= _MAX_TEXT_LENGTH:
        return text
    return f"{text[: _MAX_TEXT_LENGTH - 1]}…"
