"""What operators ask of the whole installation: the queue, who is at work, what is stored, how much there is.

Each is one statement. What grows with the installation is read from indexes or summed seldom; counts of large tables
are PostgreSQL's estimates and say so.
"""

from __future__ import annotations

from typing import Any, Final

from models import database

EXACT_ROWS: Final = 100_000
"""Tables that PostgreSQL takes for larger are not counted."""

COUNTED: Final = {
    "users": "users",
    "jobs": "jobs",
    "tools": "tools",
    "projects": "projects",
    "deployments": "deployments",
    "runs": "job_runs",
    "items": "items",
    "scans": "scans",
    "documents": "ocr_jobs",
    "media": "media",
    "products": "products",
    "properties": "properties",
}
"""What is counted, and its table."""

# Two looks, so that each is answered by the partial index of its status.
_QUEUES: Final = """
    WITH queued AS (
        SELECT kind, count(*) AS number, min(queued_at) AS since FROM executions WHERE status = 'QUEUED' GROUP BY kind
    ), running AS (
        SELECT kind, count(*) AS number FROM executions WHERE status = 'RUNNING' GROUP BY kind
    )
    SELECT coalesce(json_agg(json_build_object(
        'kind', kind, 'queued', coalesce(queued.number, 0), 'running', coalesce(running.number, 0),
        'oldest_wait_seconds', CASE WHEN since IS NOT NULL
            THEN greatest(0, extract(epoch FROM clock_timestamp() - since)) END
    ) ORDER BY kind), '[]') FROM queued FULL JOIN running USING (kind)
"""


async def installation() -> dict[str, Any]:
    """The queue per kind, the processes that are alive, the outbox and the connections, as they are now."""
    found = await database.value(
        f"""SELECT json_build_object(
                'at', now(),
                'queues', ({_QUEUES}),
                'processes', (
                    SELECT coalesce(json_agg(json_build_object(
                        'name', name, 'role', role, 'host', host, 'pid', pid, 'version', version,
                        'started_at', started_at, 'age_seconds', extract(epoch FROM clock_timestamp() - seen_at),
                        'kinds', kinds, 'sample', sample
                    ) ORDER BY role, started_at, name), '[]') FROM processes WHERE expires_at > now()
                ),
                'outbox', (
                    SELECT json_build_object(
                        'waiting', count(*) FILTER (WHERE given_up_at IS NULL), 'given_up', count(given_up_at),
                        'oldest_wait_seconds', CASE WHEN count(*) > count(given_up_at) THEN greatest(0, extract(
                            epoch FROM clock_timestamp() - min(due_at) FILTER (WHERE given_up_at IS NULL))) END
                    ) FROM outbox_messages
                ),
                'connections', (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
                'max_connections', current_setting('max_connections')::int
            )::text"""  # noqa: S608 - joined from constants of this module
    )
    read: dict[str, Any] = database.from_json(found)
    return read


async def storage_use() -> dict[str, int]:
    """Bytes by what they are, as the rows that name them say, and of the database. Logs count as they were written."""
    found = await database.value(
        """SELECT json_build_object(
               'media', (SELECT coalesce(sum(size), 0) FROM media WHERE status = 'READY'),
               'artifacts', (
                   SELECT coalesce(sum(size + coalesce(brotli_size, 0) + coalesce(gzip_size, 0)), 0) FROM site_blobs
               ),
               'outputs', (SELECT coalesce(sum(size), 0) FROM output_files)
                   + (SELECT coalesce(sum(size), 0) FROM item_exports WHERE key IS NOT NULL),
               'logs', (
                   SELECT coalesce(sum(log_bytes), 0) FROM executions
                   WHERE log_object IS NULL OR NOT log_object ? 'removedAt'
               ),
               'database', pg_database_size(current_database())
           )::text"""
    )
    read: dict[str, int] = database.from_json(found)
    return read


async def counts() -> dict[str, tuple[int, bool]]:
    """How many there are of each of `COUNTED`, and whether that is an estimate."""
    estimates = {
        row["table"]: row["estimate"]
        for row in await database.rows(
            """SELECT relname AS table, reltuples::bigint AS estimate FROM pg_class
               WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1::text[])""",
            list(COUNTED.values()),
        )
    }
    exact = [name for name, table in COUNTED.items() if estimates.get(table, 0) < EXACT_ROWS]
    pairs = ", ".join(f"'{name}', (SELECT count(*) FROM {COUNTED[name]})" for name in exact)  # noqa: S608 - constants
    found = database.from_json(await database.value(f"SELECT json_build_object({pairs})::text"))
    return {
        name: (found[name], False) if name in found else (int(estimates[table]), True)
        for name, table in COUNTED.items()
    }


async def activity() -> dict[str, Any]:
    """Users who used a session within a day and thirty days, and executions that wait or run, by kind and status."""
    found = await database.value(
        """SELECT json_build_object(
               'day', (SELECT count(DISTINCT user_id) FROM sessions WHERE last_used_at > now() - interval '1 day'),
               'month', (SELECT count(DISTINCT user_id) FROM sessions WHERE last_used_at > now() - interval '30 days'),
               'executions', (
                   SELECT coalesce(json_agg(json_build_object('kind', kind, 'status', status, 'count', number)
                       ORDER BY kind, status), '[]')
                   FROM (
                       SELECT kind, status, count(*) AS number FROM executions WHERE status = 'QUEUED' GROUP BY 1, 2
                       UNION ALL
                       SELECT kind, status, count(*) AS number FROM executions WHERE status = 'RUNNING' GROUP BY 1, 2
                   ) AS active
               )
           )::text"""
    )
    read: dict[str, Any] = database.from_json(found)
    return read
