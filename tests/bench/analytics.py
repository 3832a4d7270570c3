"""Dashboard and analytics over a million deployments through the API, against their statements alone.

A year, 200 projects, 50 owners, one of whom has most. Each view is asked for with a time zone that nobody has asked for
before, so nothing is kept, and then again, when it is. What the rollups save is told by the plain query for one of the
dashboard's numbers; what they cost, by the lives of deployments with their triggers and without.
"""

from __future__ import annotations

import importlib
import statistics
import time
import zoneinfo
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from itertools import cycle
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from models import analytics_queries, database
from models.analytics_queries import Scope
from models.database import SERVER_SETTINGS
from models.permissions import Role
from resolvers import analytics, dashboard, periods, statistics_cache
from resolvers.periods import AnalyticsPreset
from resolvers.statistics_scope import Whose
from tests.bench.place import Place, place
from tests.factories import new_user
from tests.harness.deployments import insert_deployment, insert_owner, insert_project

DEPLOYMENTS: Final = 1_000_000
OWNERS: Final = 50
PROJECTS: Final = 200
ROUNDS: Final = 25
LIVES: Final = 400
TABLES: Final = ("executions", "deployments", "execution_facts", "rollups", "projects")

DASHBOARD: Final = """query ($zone: String!) { dashboard(timeZone: $zone) {
  deployments { total thisWeek previousWeek weeklyChangePercent } projects { total active deployedToday }
  successRate { percent previousMonthPercent changePoints } averageDeployTime { seconds previousSeconds changePercent }
  recentDeployments { id status project { name } } jobs { runs { total } running itemsToday recentRuns { id } }
  scans { scans { total } risks risksBySeverity { severity count } recentScans { id } } } }"""
_PARTS: Final = """{
  metrics { deployments { value previous changePercent } successPercent { value } averageDeploySeconds { value } }
  deploymentFrequency { start end count succeeded failed } successRates { start percent }
  deploymentStatus { status count } hourlyDeployments { hour count } resourceUsage { buildSeconds artifactBytes }"""
ANALYTICS: Final = f"""query ($zone: String!, $preset: AnalyticsPreset) {{
  analytics(timeZone: $zone, range: {{preset: $preset}}) {_PARTS} }} }}"""
DURATIONS: Final = """query ($zone: String!, $preset: AnalyticsPreset) {
  analytics(timeZone: $zone, range: {preset: $preset}) {
  buildDurations { start count averageSeconds minSeconds maxSeconds p95Seconds } } }"""
PLAIN: Final = """
SELECT count(*), count(*) FILTER (WHERE status = 'SUCCEEDED'), avg(finished_at - started_at) FROM executions
WHERE kind = 'DEPLOYMENT' AND ($1::uuid IS NULL OR owner_id = $1) AND finished_at >= now() - interval '60 days'
"""

_EXECUTIONS: Final = """
INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts, timeout_seconds,
    worked_seconds, queued_at, started_at, finished_at, failure_code, failure_retryable, log_sequence, log_bytes)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
            || lpad(to_hex(n), 15, '0'))::uuid,
       'DEPLOYMENT', p.owner_id,
       CASE WHEN n % 10 = 0 THEN 'FAILED' WHEN n % 33 = 0 THEN 'CANCELLED' ELSE 'SUCCEEDED' END,
       100, 1, 0, 3, 600, 60, at, at + interval '3 seconds', at + interval '3 seconds' + length,
       CASE WHEN n % 10 = 0 THEN 'COMMAND_FAILED' END, false, 10, 4000
FROM generate_series($1::int, $2::int) AS n
CROSS JOIN LATERAL (SELECT now() - interval '364 days' * (n::float8 / $3) - interval '1 hour' AS at,
                           make_interval(secs => 20 + exp(random() * 5)) AS length) AS times
JOIN bench_projects p ON p.place = n % $4
"""
_DEPLOYMENTS: Final = """
INSERT INTO deployments (execution_id, project_id, number, environment, trigger, branch, is_fork, clone_url,
    configuration, site_key, alias, file_count, artifact_size, uploaded_bytes, build_seconds)
SELECT e.id, p.id, row_number() OVER (PARTITION BY p.id ORDER BY e.id), 'PRODUCTION', 'PUSH', 'main', false,
       'https://git.example.com/a.git', '{}', substr(md5(e.id::text), 1, 16), 'production', 12, 3400000, 120000,
       extract(epoch FROM e.finished_at - e.started_at) - 2
FROM executions e
JOIN bench_projects p ON p.place = ('x' || right(e.id::text, 12))::bit(48)::bigint % $1
"""


async def main() -> None:
    """Print times of both, cold and warm, and the ratios."""
    async with place() as here:
        await _fill(here)
        admin = await new_user(here.client, role=Role.ADMIN, db=here.db)
        bare = await asyncpg.create_pool(
            here.environment["DATABASE_URL"], min_size=4, max_size=4, server_settings=SERVER_SETTINGS
        )
        in_house = database.rows
        database.rows = _rows_of(bare)
        try:
            for name, token, whose in (
                ("owner", here.person.token, Whose(Scope(owner_id=here.owner_id), here.owner_id)),
                ("administrator", admin.token, Whose(Scope(), None)),
            ):
                await _measure(here, name, token, whose, bare)
        finally:
            database.rows = in_house
            await bare.close()
        await _lives(here)


async def _measure(here: Place, name: str, token: str, whose: Whose, bare: asyncpg.Pool) -> None:
    zones = cycle(sorted(zoneinfo.available_timezones()))
    plain = await _times(ROUNDS // 5, lambda: bare.fetch(PLAIN, whose.scope.owner_id))
    print(f"{name}: sixty days of executions, counted plainly: {plain[0] * 1e3:.1f} ms")
    views: dict[str, tuple[str, Mapping[str, Any], Callable[[ZoneInfo], Awaitable[object]]]] = {
        "dashboard": (DASHBOARD, {}, partial(dashboard._read, whose)),
    }
    for preset in (AnalyticsPreset.LAST_30_DAYS, AnalyticsPreset.LAST_12_MONTHS):
        chosen = {"preset": preset.value}
        views[f"analytics {preset}"] = (ANALYTICS, chosen, partial(_parts, whose, preset))
        views[f"durations {preset}"] = (DURATIONS, chosen, partial(_durations, whose, preset))
    for view, (document, variables, alone) in views.items():
        cold, warm, sql = list[float](), list[float](), list[float]()
        for round_ in range(ROUNDS + 2):
            zone = next(zones)
            given = {"zone": zone, **variables}
            took = [
                await _timed(partial(here.client.run, document, given, token=token)),
                await _timed(partial(here.client.run, document, given, token=token)),
                await _timed(partial(alone, ZoneInfo(zone))),
            ]
            if round_ >= 2:
                for values, seconds in zip((cold, warm, sql), took, strict=True):
                    values.append(seconds)
        p95 = {label: statistics.quantiles(values, n=20)[-1] * 1e3 for label, values in
               (("cold", cold), ("warm", warm), ("SQL", sql))}  # fmt: skip
        print(
            f"{name}: {view:26} cold median {statistics.median(cold) * 1e3:6.1f} p95 {p95['cold']:6.1f} ms"
            f"   warm p95 {p95['warm']:5.1f} ms"
            f"   bare SQL median {statistics.median(sql) * 1e3:6.1f} p95 {p95['SQL']:6.1f} ms"
            f"   cold ÷ SQL (medians) {statistics.median(cold) / statistics.median(sql):.2f}"
        )


async def _report(whose: Whose, preset: AnalyticsPreset, zone: ZoneInfo) -> analytics.Report:
    return analytics.Report(whose, periods.of_preset(preset, zone, await analytics_queries.now()))


async def _parts(whose: Whose, preset: AnalyticsPreset, zone: ZoneInfo) -> None:
    statistics_cache.views.note_change(whose.owner_id or UUID(int=0))
    report = await _report(whose, preset, zone)
    await report.total("DEPLOYMENT")
    await report.hours()
    await report.unfinished("DEPLOYMENT")
    await report.risks()


async def _durations(whose: Whose, preset: AnalyticsPreset, zone: ZoneInfo) -> None:
    statistics_cache.views.note_change(whose.owner_id or UUID(int=0))
    await (await _report(whose, preset, zone)).durations("DEPLOYMENT", "built_ms")


async def _fill(here: Place) -> None:
    db = here.db
    owners = [here.owner_id, *[await insert_owner(db) for _ in range(OWNERS - 1)]]
    # One in four projects is somebody else's, so the first owner has three quarters of all.
    projects = [
        await insert_project(db, owners[1 + place // 4 % (OWNERS - 1)] if place % 4 == 0 else owners[0])
        for place in range(PROJECTS)
    ]
    await db.execute("CREATE TABLE bench_projects (place int PRIMARY KEY, id uuid, owner_id uuid)")
    await db.execute(
        """INSERT INTO bench_projects SELECT n - 1, p.id, p.owner_id FROM unnest($1::uuid[]) WITH ORDINALITY AS u(id, n)
           JOIN projects p USING (id)""",
        projects,
    )
    began = time.monotonic()
    await db.execute("SET session_replication_role = replica")
    step = 100_000
    for first in range(0, DEPLOYMENTS, step):
        await db.execute(_EXECUTIONS, first, first + step - 1, DEPLOYMENTS, PROJECTS, timeout=600)
    await db.execute(_DEPLOYMENTS, PROJECTS, timeout=600)
    await db.execute("SET session_replication_role = origin")
    print(f"{DEPLOYMENTS:,} deployments in {time.monotonic() - began:.0f} s")
    migration: Any = importlib.import_module("models.migrations.0030_rollup_triggers")
    began, longest = time.monotonic(), 0.0
    async with db.transaction():
        for statement in migration._BACKWARD:
            await db.execute(statement)
        for statement in migration.Migration.operations[0].sql:
            longest = max(longest, await _timed(partial(db.execute, statement, timeout=600)))
    print(f"counted by the migration in {time.monotonic() - began:.1f} s, the longest statement {longest:.1f} s")
    for table in TABLES:
        await db.execute(f"VACUUM ANALYZE {table}", timeout=600)
    sizes = await db.fetch(
        "SELECT relname, pg_total_relation_size(oid) / 1e6 AS mb FROM pg_class WHERE relname = ANY($1)", list(TABLES)
    )
    print("sizes: " + ", ".join(f"{row['relname']} {row['mb']:.0f} MB" for row in sizes))


async def _lives(here: Place) -> None:
    """Deployments from their making to their end, with the triggers and without, in turn."""
    project = await insert_project(here.db, here.owner_id)
    # Waiting for the disk would hide what is measured.
    await here.db.execute("SET synchronous_commit = off")
    took: dict[str, list[float]] = {"with": [], "without": []}
    triggers = (
        *(("executions", "executions_fact"), ("deployments", "deployments_fact_begins")),
        ("deployments", "deployments_fact"),
    )
    for round_ in range(10):
        way = "with" if round_ % 2 else "without"
        for table, trigger in triggers:
            await here.db.execute(f"ALTER TABLE {table} {'ENABLE' if way == 'with' else 'DISABLE'} TRIGGER {trigger}")
        for _ in range(LIVES // 5):
            took[way].append(await _timed(lambda: _live(here.db, project)))
    medians = {way: statistics.median(values) * 1e3 for way, values in took.items()}
    print(
        f"a deployment's rows from its making to its end: {medians['with']:.2f} ms with the triggers, "
        f"{medians['without']:.2f} ms without, ratio {medians['with'] / medians['without']:.2f}"
    )


async def _live(db: asyncpg.Connection, project: UUID) -> None:
    execution_id = await insert_deployment(db, project)
    await db.execute(
        "UPDATE executions SET status = 'RUNNING', attempt = 1, worker = 'w', lease_until = now(), started_at = now()"
        " WHERE id = $1",
        execution_id,
    )
    async with db.transaction():
        await db.execute(
            "UPDATE deployments SET build_seconds = 3, artifact_size = 5, uploaded_bytes = 5 WHERE execution_id = $1",
            execution_id,
        )
        await db.execute(
            "UPDATE executions SET status = 'SUCCEEDED', worker = NULL, lease_until = NULL, finished_at = now()"
            " WHERE id = $1",
            execution_id,
        )


def _rows_of(pool: asyncpg.Pool) -> Callable[..., Coroutine[Any, Any, list[dict[str, Any]]]]:
    async def rows(sql: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await pool.fetch(sql, *values)]

    return rows


async def _times(rounds: int, ask: Callable[[], Awaitable[object]]) -> list[float]:
    return sorted([await _timed(ask) for _ in range(rounds)])


async def _timed(ask: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await ask()
    return time.perf_counter() - began
