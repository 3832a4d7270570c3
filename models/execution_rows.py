"""Executions as they are read: plain rows, joined with what every answer shows.

One SELECT serves `execution`, lists and streams, so a list of fifty runs with tool and requester is one
statement. Big JSON columns stay text until somebody asks for them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import database, deployments, jobs, scans
from models.database import Row
from models.permissions import Actor
from models.tools import containing

_COLUMNS: Final = """
SELECT e.id, e.kind, e.owner_id, e.status, e.stage, e.progress, e.attempt, e.queued_at, e.started_at, e.finished_at,
       e.cancel_requested_at, e.failure_code, e.failure_message, e.failure_stage, e.failure_exit_code,
       e.failure_signal, e.failure_retryable, e.cpu_milliseconds, e.peak_memory_bytes,
       (e.log_object->>'removedAt')::timestamptz AS log_removed_at,
       u.id AS requester_id, u.email AS requester_email, u.username AS requester_username, u.name AS requester_name,
       u.role AS requester_role, u.created_at AS requester_created_at,
       r.job_id, r.tool_id, r.trigger, r.dataset_id, r.resumed_from_id, r.retry_of_id, r.items_scraped,
       r.pages_crawled, r.errors_count, r.bytes_downloaded, r.requests_blocked, r.requests_robots,
       r.requests_throttled, r.requests_dropped, r.items_rejected, r.items_unchanged, r.items_gone,
       r.items_skipped, r.only_changes, r.saves_products,
       r.expected_items, r.is_incomplete, r.close_reason, r.limits::text AS limits, r.input::text AS run_input,
       j.name AS job_name, j.created_at AS job_created_at, j.updated_at AS job_updated_at,
       j.only_changes AS job_only_changes, j.saves_products AS job_saves_products, j.alarm_percent AS job_alarm_percent,
       t.slug AS tool_slug, t.name AS tool_name, t.category AS tool_category, t.description AS tool_description,
       t.states::text AS tool_states, t.icon AS tool_icon, t.spider AS tool_spider, t.is_active AS tool_is_active,
       t.created_at AS tool_created_at, t.updated_at AS tool_updated_at,
       d.project_id, d.number, d.environment, d.trigger AS deployment_trigger, d.branch, d.commit_hash,
       d.commit_message, d.commit_author, d.committed_at, d.pull_request, d.is_fork, d.site_key, d.alias,
       d.framework AS deployment_framework, d.file_count, d.artifact_size, d.uploaded_bytes, d.build_seconds,
       d.redeploy_of_id, d.superseded_by_id, d.configuration::text AS configuration,
       p.slug AS project_slug, p.name AS project_name,
       s.media_id AS scan_media_id, s.filename AS scan_filename, s.content_type AS scan_content_type,
       s.size AS scan_size, s.document_key, s.force_llm, s.source AS scan_source, s.scanner::text AS scanner,
       s.is_truncated, s.risk_count,
       o.media_id AS ocr_media_id, o.filename AS ocr_filename, o.languages::text AS ocr_languages, o.force_ocr,
       o.default_currency, o.batch_id, o.page_count, o.pages_read, o.confidence AS ocr_confidence, o.candidate_count,
       o.engine AS ocr_engine,
       x.run_id AS export_run_id, x.format AS export_format, x.options::text AS export_options,
       x.filename AS export_filename, x.content_type AS export_content_type, x.row_count AS export_row_count,
       x.size AS export_size, x.sha256 AS export_sha256, x.key AS export_key, x.expires_at AS export_expires_at,
       CASE WHEN d.execution_id IS NOT NULL THEN
           (SELECT json_agg(a.name ORDER BY a.name)::text FROM site_aliases a WHERE a.deployment_id = e.id)
       END AS aliases
"""

_FROM: Final = """
FROM executions e
LEFT JOIN users u ON u.id = e.requested_by_id AND u.deleted_at IS NULL
LEFT JOIN job_runs r ON r.execution_id = e.id
LEFT JOIN jobs j ON j.id = r.job_id
LEFT JOIN tools t ON t.id = r.tool_id
LEFT JOIN deployments d ON d.execution_id = e.id
LEFT JOIN projects p ON p.id = d.project_id
LEFT JOIN scans s ON s.execution_id = e.id
LEFT JOIN ocr_jobs o ON o.execution_id = e.id
LEFT JOIN item_exports x ON x.execution_id = e.id
"""

_SELECT: Final = _COLUMNS + _FROM

_NEWEST: Final = {"deployments": deployments.KIND, "job_runs": jobs.KIND, "scans": scans.KIND}


async def find(execution_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The executions that exist among these, whoever owns them: the caller is the gate."""
    found = await database.rows(f"{_SELECT} WHERE e.id = ANY($1::uuid[])", list(execution_ids))
    return {row["id"]: row for row in found}


class Condition(NamedTuple):
    """What executions of a list have in common: SQL with one place for the value."""

    sql: str
    value: Any


def in_statuses(statuses: Sequence[str]) -> Condition:
    """Executions in one of these."""
    return Condition("e.status = ANY({}::text[])", list(statuses))


def waiting() -> Condition:
    """Executions that wait, also once more, or ended before a worker began them."""
    return Condition("(e.started_at IS NULL OR e.status = 'QUEUED') = {}", True)


def stopped_in(stages: Sequence[str | None]) -> Condition:
    """Executions that are at work in one of these stages, or ended there without success; None is before the first."""
    return Condition(
        "(e.started_at IS NOT NULL AND e.status NOT IN ('QUEUED', 'SUCCEEDED')"
        " AND coalesce(e.stage, '') = ANY({}::text[]))",
        [stage or "" for stage in stages],
    )


def queued_from(moment: datetime) -> Condition:
    """Executions asked for at this moment or later."""
    return Condition("e.queued_at >= {}", moment)


def queued_to(moment: datetime) -> Condition:
    """Executions asked for before this moment."""
    return Condition("e.queued_at < {}", moment)


def of_job(job_id: UUID) -> Condition:
    """Runs of a job."""
    return Condition("r.job_id = {}", job_id)


def of_tool(tool_id: UUID) -> Condition:
    """Runs with a tool."""
    return Condition("r.tool_id = {}", tool_id)


def of_project(project_id: UUID) -> Condition:
    """Deployments of a project."""
    return Condition("d.project_id = {}", project_id)


def in_environment(environment: str) -> Condition:
    """Deployments for an environment."""
    return Condition("d.environment = {}", environment)


def mentioning(text: str) -> Condition:
    """Deployments with a text in their commit's message or hash, their branch or their project's name, in any case."""
    return Condition("concat_ws(' ', d.commit_message, d.commit_hash, d.branch, p.name) ILIKE {}", containing(text))


async def visible(
    actor: Actor,
    *,
    kind: str,
    conditions: Sequence[Condition] = (),
    after: UUID | None = None,
    before: UUID | None = None,
    backwards: bool = False,
    limit: int,
) -> list[Row]:
    """A page of the executions that an actor may see, newest first; backwards from the end."""
    where, values = _conditions(actor, kind, conditions)
    for bound, operator in ((after, "<"), (before, ">")):
        if bound is not None:
            values.append(bound)
            where.append(f"e.id {operator} ${len(values)}")
    values.append(limit)
    direction = "ASC" if backwards else "DESC"
    condition = " AND ".join(where)
    return await database.rows(
        f"{_SELECT} WHERE {condition} ORDER BY e.id {direction} LIMIT ${len(values)}",
        *values,
    )


async def count_visible(actor: Actor, *, kind: str, conditions: Sequence[Condition] = ()) -> int:
    """How many there are in all."""
    where, values = _conditions(actor, kind, conditions)
    # Tables that no condition names are not read: each has one row at most for an execution.
    counted = await database.value(f"SELECT count(*) {_FROM} WHERE {' AND '.join(where)}", *values)
    return int(counted)


async def active(owner_id: UUID | None, *, since_seconds: float, limit: int) -> list[Row]:
    """Executions of an owner (of all, for None) that run, wait, or were asked for within the last seconds.

    Where there are more than the limit, those that run come first, then the newest.
    """
    return await database.rows(
        # Three ways in, each with an index of its own; ids begin with the time of their making.
        f"""{_SELECT} WHERE ($1::uuid IS NULL OR e.owner_id = $1)
            AND (e.status = 'QUEUED' OR e.status = 'RUNNING' OR e.id >= $2)
            ORDER BY e.status = 'RUNNING' DESC, e.id DESC LIMIT $3""",
        owner_id,
        _earliest_id(time.time() - since_seconds),
        limit,
    )


async def newest(*, owner_id: UUID | None, project_ids: frozenset[UUID] | None, limit: int) -> list[Row]:
    """The newest deployments, job runs and scans of an owner, of certain projects or of all: so many of each kind.

    Newest first. Projects have deployments alone.
    """
    if project_ids is not None:
        value: Any = list(project_ids)
        ids = ["SELECT execution_id FROM deployments WHERE project_id = ANY($1::uuid[])"]
    else:
        value = owner_id
        # Each by an index of its own: the executions of one kind may lie far behind those of the others.
        ids = [
            f"SELECT execution_id FROM {table} WHERE $1::uuid IS NULL"  # noqa: S608 - constants of this module
            if owner_id is None
            else f"SELECT id AS execution_id FROM executions WHERE owner_id = $1::uuid AND kind = '{kind}'"  # noqa: S608
            for table, kind in _NEWEST.items()
        ]
    arrays = " || ".join(f"ARRAY({found} ORDER BY execution_id DESC LIMIT $2)" for found in ids)
    return await database.rows(f"{_SELECT} WHERE e.id = ANY({arrays}) ORDER BY e.id DESC", value, limit)


async def history(execution_id: UUID) -> list[Row]:
    """The status history of an execution, oldest first: bounded by its attempts and stages."""
    return await database.rows(
        """SELECT at, status, stage, attempt, user_id FROM execution_events
           WHERE execution_id = $1 ORDER BY id LIMIT 1000""",
        execution_id,
    )


def _earliest_id(unix_seconds: float) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562 §5.7): 48 bits of milliseconds, then anything."""
    return UUID(int=int(unix_seconds * 1000) << 80)


def _conditions(actor: Actor, kind: str, conditions: Sequence[Condition]) -> tuple[list[str], list[Any]]:
    values: list[Any] = [kind]
    where = ["e.kind = $1"]
    if not actor.is_admin:
        # Also for nobody, whose id is null and equals no owner's: a list must not rely on the field's gate.
        values.append(actor.user_id)
        where.append("e.owner_id = $2::uuid")
    if actor.project_ids is not None:
        values.append(list(actor.project_ids))
        where.append(f"d.project_id = ANY(${len(values)}::uuid[])")
    for condition in conditions:
        values.append(condition.value)
        where.append(condition.sql.format(f"${len(values)}"))
    return where, values
