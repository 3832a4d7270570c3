"""Dashboard and analytics through the API: whose numbers they are, days of zones, comparisons, what is kept."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import pytest_asyncio

from models import analytics
from models.events import ExecutionChanged
from models.ids import Prefix, encode_id, new_id
from resolvers import periods
from tests.conftest import ApiServer, WorkerFactory
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.deployments import insert_deployment, insert_project
from tests.harness.executions import Desk, open_desk, uuid_of
from tests.harness.waiting import eventually
from tests.harness.wire import Wire

DASHBOARD = """
query ($timeZone: String! = "UTC", $mine: Boolean! = false) { it: dashboard(timeZone: $timeZone, mine: $mine) {
  generatedAt runningDeployments queuedDeployments
  deployments { total thisWeek previousWeek weeklyChangePercent }
  projects { total active deployedToday }
  successRate { percent previousMonthPercent changePoints }
  averageDeployTime { seconds previousSeconds changePercent }
  recentDeployments { id status number project { id name } requestedBy { id } }
  jobs { runs { total thisWeek } running queued successRate { percent } itemsToday recentRuns { id job { id } } }
  scans { scans { total thisWeek } successRate { percent } risks risksThisWeek risksBySeverity { severity count }
          recentScans { id } }
} }
"""
ANALYTICS = """
query ($range: AnalyticsRange, $projectId: ID, $timeZone: String! = "UTC", $mine: Boolean! = false) {
  it: analytics(range: $range, projectId: $projectId, timeZone: $timeZone, mine: $mine) {
    from to previousFrom previousTo timeZone interval
    metrics { deployments { value previous changePercent } succeededDeployments { value } failedDeployments { value }
              cancelledDeployments { value } successPercent { value previous } averageDeploySeconds { value previous }
              averageWaitSeconds { value } jobRuns { value } items { value } pages { value } scans { value }
              risks { value previous changePercent } }
    deploymentFrequency { start end count succeeded failed cancelled }
    successRates { start end percent succeeded failed }
    deploymentStatus { status count }
    hourlyDeployments { hour count }
    buildDurations { start end count averageSeconds minSeconds maxSeconds p95Seconds }
    resourceUsage { buildSeconds workSeconds cpuSeconds peakMemoryBytes artifactBytes storedBytes logBytes
                    downloadedBytes }
    performance {
      runs { start runs succeeded failed successPercent items itemsPerMinute }
      total { runs succeeded failed successPercent items itemsPerMinute }
      totalDurations { count averageSeconds minSeconds maxSeconds p95Seconds }
      durations { count p95Seconds }
      byTool { slug succeeded failed cancelled successPercent items itemsPerMinute averageSeconds }
    }
    scanRisks { category total bySeverity { severity count } buckets { start count } }
  }
}
"""
CREATE_PROJECT = "mutation ($input: CreateProjectInput!) { it: createProject(input: $input) { project { id } } }"
DELETE_DEPLOYMENT = "mutation ($input: DeleteDeploymentInput!) { it: deleteDeployment(input: $input) { deletedId } }"
CREATE_TOKEN = "mutation ($input: CreateAccessTokenInput!) { it: createAccessToken(input: $input) { token } }"


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


class Past:
    """What somebody did, at moments that a test chooses."""

    def __init__(self, desk: Desk, client: GraphQLClient, person: Person) -> None:
        self.desk = desk
        self.pool = desk.pool
        self.client = client
        self.person = person
        self.owner_id = uuid_of(person)

    async def see(self, document: str, *, token: str | None = None, **variables: Any) -> Any:
        return (await self.client.run(document, variables, token=token or self.person.token))["it"]

    async def refused(self, document: str, *, token: str | None, **variables: Any) -> GraphQLFailure:
        with pytest.raises(GraphQLFailure) as failure:
            await self.client.run(document, variables, token=token)
        return failure.value

    async def project(self) -> UUID:
        async with self.pool.acquire() as connection:
            return await insert_project(connection, self.owner_id)

    async def deployment(
        self, project: UUID, asked_at: datetime, *, status: str = "SUCCEEDED", seconds: float = 60.0
    ) -> UUID:
        """One that was asked for then, began at once, and took so long, two of which were no build."""
        async with self.pool.acquire() as connection, connection.transaction():
            execution_id = await insert_deployment(
                connection, project, artifact_size=1_000, uploaded_bytes=10, build_seconds=max(0.0, seconds - 2)
            )
            await self.ended(connection, execution_id, asked_at, status=status, seconds=seconds)
        return execution_id

    async def ended(
        self, connection: asyncpg.Connection, execution_id: UUID, asked_at: datetime, *, status: str, seconds: float
    ) -> None:
        await connection.execute(
            """UPDATE executions SET queued_at = $2, started_at = $2,
                   finished_at = $2::timestamptz + make_interval(secs => $3),
                   status = $4::varchar, failure_code = CASE WHEN $4::varchar = 'FAILED' THEN 'INTERNAL' END,
                   log_bytes = 5,
                   requested_by_id = owner_id
               WHERE id = $1""",
            execution_id,
            asked_at,
            seconds,
            status,
        )

    async def run(self, asked_at: datetime, *, items: int, seconds: float = 60.0, status: str = "SUCCEEDED") -> UUID:
        run_id = await self.desk.queued(self.person)
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                """UPDATE job_runs SET items_scraped = $2, pages_crawled = 3, bytes_downloaded = 7
                   WHERE execution_id = $1""",
                run_id,
                items,
            )
            await self.ended(connection, run_id, asked_at, status=status, seconds=seconds)
        return run_id

    async def scan(self, asked_at: datetime, risks: list[tuple[str, str]]) -> UUID:
        scan_id = new_id()
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
                       timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
                   VALUES ($1, 'SCAN', $2, 'QUEUED', 0, 0, 0, 2, 600, 0, $3, false, 0, 0)""",
                scan_id,
                self.owner_id,
                asked_at,
            )
            await connection.execute(
                """INSERT INTO scans (execution_id, content_type, size, text, document_key, force_llm, is_truncated,
                       risk_count) VALUES ($1, 'text/plain', 1, 'x', $2, false, false, $3)""",
                scan_id,
                str(scan_id),
                len(risks),
            )
            for position, (severity, category) in enumerate(risks):
                await connection.execute(
                    """INSERT INTO scan_risks (id, scan_id, position, category, risk, context, severity,
                           severity_source, fingerprint) VALUES ($1, $2, $3, $4, 'r', 'c', $5, 'RULE', 'f')""",
                    new_id(),
                    scan_id,
                    position,
                    category,
                    severity,
                )
            await self.ended(connection, scan_id, asked_at, status="SUCCEEDED", seconds=1)
        return scan_id

    async def tell(self) -> None:
        """What a worker says when something has changed."""
        await self.desk.tell(ExecutionChanged(new_id(), self.owner_id))


@pytest.fixture
def past(desk: Desk, client: GraphQLClient, person: Person) -> Past:
    return Past(desk, client, person)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def between(start: str, end: str) -> dict[str, Any]:
    return {"from": start, "to": end}


def deployment_id(value: UUID) -> str:
    return encode_id(Prefix.DEPLOYMENT, value)


# -- who may see what


async def test_nobody_gets_numbers(past: Past) -> None:
    for document in (DASHBOARD, ANALYTICS):
        assert (await past.refused(document, token=None)).code == "UNAUTHORIZED"


async def test_numbers_are_the_callers_own_and_administrators_see_all(
    past: Past, client: GraphQLClient, admin: Person
) -> None:
    before = (await past.see(DASHBOARD, token=admin.token))["deployments"]["total"]
    now = datetime.now(UTC)
    first = await past.deployment(await past.project(), now - timedelta(hours=2))
    await past.tell()
    stranger = await new_user(client)
    for token, total, newest in (
        (past.person.token, 1, [deployment_id(first)]),
        (stranger.token, 0, []),
        (admin.token, before + 1, None),
    ):
        seen = await past.see(DASHBOARD, token=token)
        assert seen["deployments"]["total"] == total
        if newest is not None:
            assert [each["id"] for each in seen["recentDeployments"]] == newest
        assert (await past.see(ANALYTICS, token=token))["metrics"]["deployments"]["value"] == total
    own = await past.see(DASHBOARD, token=admin.token, mine=True)
    assert (own["deployments"]["total"], own["projects"]["total"], own["recentDeployments"]) == (0, 0, [])
    assert (await past.see(ANALYTICS, token=admin.token, mine=True))["metrics"]["deployments"]["value"] == 0


async def test_a_project_shows_its_own_and_is_there_for_its_owner_alone(past: Past, client: GraphQLClient) -> None:
    now = datetime.now(UTC)
    one, other = await past.project(), await past.project()
    await past.deployment(one, now - timedelta(hours=2))
    await past.deployment(other, now - timedelta(hours=3), status="FAILED")
    await past.run(now - timedelta(hours=2), items=5)
    seen = await past.see(ANALYTICS, projectId=encode_id(Prefix.PROJECT, one))
    assert seen["metrics"]["deployments"]["value"] == 1
    assert seen["metrics"]["successPercent"]["value"] == 100
    assert (seen["metrics"]["jobRuns"]["value"], seen["performance"]["byTool"], seen["scanRisks"]) == (0, [], [])
    stranger = await new_user(client)
    for project, token in ((one, stranger.token), (NOBODYS_ID, past.person.token)):
        failure = await past.refused(ANALYTICS, token=token, projectId=encode_id(Prefix.PROJECT, project))
        assert failure.code == "NOT_FOUND"


async def test_a_token_for_a_project_shows_that_project_alone(past: Past) -> None:
    now = datetime.now(UTC)
    one, other = await past.project(), await past.project()
    for project, count in ((one, 2), (other, 3)):
        for _ in range(count):
            await past.deployment(project, now - timedelta(hours=2))
    await past.run(now - timedelta(hours=2), items=5)
    wanted = {"name": "CI", "scopes": ["READ"], "projectIds": [encode_id(Prefix.PROJECT, one)]}
    token = (await past.see(CREATE_TOKEN, input=wanted))["token"]
    seen = await past.see(DASHBOARD, token=token)
    assert (seen["deployments"]["total"], seen["projects"]["total"], len(seen["recentDeployments"])) == (2, 1, 2)
    assert (seen["jobs"]["runs"]["total"], seen["jobs"]["recentRuns"], seen["scans"]["risks"]) == (0, [], 0)
    assert (await past.see(ANALYTICS, token=token))["metrics"]["deployments"]["value"] == 2
    failure = await past.refused(ANALYTICS, token=token, projectId=encode_id(Prefix.PROJECT, other))
    assert failure.code == "NOT_FOUND"


# -- what is refused


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "UTC+3", "a" * 5_000])
async def test_what_is_no_time_zone_is_refused(past: Past, zone: str) -> None:
    for document in (DASHBOARD, ANALYTICS):
        failure = await past.refused(document, token=past.person.token, timeZone=zone)
        assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["timeZone"])


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"from": "2026-01-01T00:00:00Z"}, ["range"]),
        ({"to": "2026-01-01T00:00:00Z"}, ["range"]),
        (between("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), ["range", "to"]),
        (between("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ["range"]),
        (between("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"), ["range", "from"]),
        ({**between("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"), "preset": "LAST_7_DAYS"}, ["range", "preset"]),
    ],
)
async def test_what_is_no_range_is_refused(past: Past, given: dict[str, Any], path: list[str]) -> None:
    failure = await past.refused(ANALYTICS, token=past.person.token, range=given)
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", path)


# -- the dashboard


async def test_whoever_did_nothing_sees_zeros_and_no_comparisons(past: Past) -> None:
    seen = await past.see(DASHBOARD)
    assert seen["deployments"] == {"total": 0, "thisWeek": 0, "previousWeek": 0, "weeklyChangePercent": None}
    assert seen["projects"] == {"total": 0, "active": 0, "deployedToday": 0}
    assert seen["successRate"] == {"percent": None, "previousMonthPercent": None, "changePoints": None}
    assert seen["averageDeployTime"] == {"seconds": None, "previousSeconds": None, "changePercent": None}
    assert (seen["recentDeployments"], seen["jobs"]["itemsToday"], seen["scans"]["risks"]) == ([], 0, 0)
    assert [each["severity"] for each in seen["scans"]["risksBySeverity"]] == ["CRITICAL", "HIGH", "MEDIUM", "LOW"]


async def test_weeks_and_months_are_compared_with_those_before(past: Past) -> None:
    now = datetime.now(UTC)
    busy, quiet, old = [await past.project() for _ in range(3)]
    for days in (1, 3, 6):
        await past.deployment(busy, now - timedelta(days=days), seconds=30)
    for days in (8, 13):
        await past.deployment(quiet, now - timedelta(days=days), seconds=60)
    await past.deployment(quiet, now - timedelta(days=20), status="FAILED")
    await past.deployment(quiet, now - timedelta(days=20), status="CANCELLED")
    await past.deployment(old, now - timedelta(days=40), seconds=84)
    await past.deployment(old, now - timedelta(days=45), status="FAILED")
    newest = await past.deployment(old, now - timedelta(days=200))
    async with past.pool.acquire() as connection:
        await insert_deployment(connection, busy)
    await past.run(now - timedelta(days=2), items=100)
    await past.scan(now - timedelta(days=2), [("HIGH", "Budget"), ("HIGH", "Time"), ("LOW", "Budget")])
    await past.scan(now - timedelta(days=9), [("CRITICAL", "Budget")])
    seen = await past.see(DASHBOARD)
    assert seen["deployments"] == {"total": 11, "thisWeek": 4, "previousWeek": 2, "weeklyChangePercent": 100}
    assert seen["projects"] == {"total": 3, "active": 2, "deployedToday": 1}
    assert (seen["runningDeployments"], seen["queuedDeployments"]) == (0, 1)
    assert seen["successRate"] == {
        "percent": pytest.approx(500 / 6),
        "previousMonthPercent": 50,
        "changePoints": pytest.approx(500 / 6 - 50),
    }
    assert seen["averageDeployTime"] == {"seconds": 42, "previousSeconds": 84, "changePercent": -50}
    assert len(seen["recentDeployments"]) == 5
    assert deployment_id(newest) in [each["id"] for each in seen["recentDeployments"]]  # by when it was made
    assert seen["jobs"]["runs"] == {"total": 1, "thisWeek": 1}
    assert len(seen["jobs"]["recentRuns"]) == 1
    assert (seen["scans"]["scans"], seen["scans"]["risks"]) == ({"total": 2, "thisWeek": 1}, 4)
    assert seen["scans"]["risksThisWeek"] == 3
    assert [each["count"] for each in seen["scans"]["risksBySeverity"]] == [1, 2, 0, 1]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati"])
async def test_today_begins_at_midnight_of_the_zone(past: Past, zone: str) -> None:
    midnight = periods.start_of_day(datetime.now(ZoneInfo(zone)).date(), ZoneInfo(zone))
    await past.run(midnight - timedelta(seconds=61), items=1, seconds=60)
    await past.run(midnight - timedelta(seconds=60), items=20, seconds=60)
    assert (await past.see(DASHBOARD, timeZone=zone))["jobs"]["itemsToday"] == 20


# -- analytics


@pytest.mark.parametrize("folded", [False, True])
async def test_days_of_a_zone_are_as_long_as_they_are(past: Past, folded: bool) -> None:
    project = await past.project()
    for moment in (
        "2026-03-28T23:59:59+01:00",  # the last second of a day
        "2026-03-29T00:00:00+01:00",  # the first of the one with 23 hours
        "2026-03-29T03:10:00+02:00",
        "2026-03-29T22:58:00+02:00",
        "2026-03-30T00:00:00+02:00",
    ):
        await past.deployment(project, at(moment))
    if folded:
        await fold(past)
    given = between("2026-03-28T00:00:00+01:00", "2026-03-31T00:00:00+02:00")
    seen = await past.see(ANALYTICS, range=given, timeZone="Europe/Madrid")
    assert seen["interval"] == "DAY"
    assert [(each["start"], each["count"]) for each in seen["deploymentFrequency"]] == [
        ("2026-03-27T23:00:00Z", 1),
        ("2026-03-28T23:00:00Z", 3),
        ("2026-03-29T22:00:00Z", 1),
    ]
    assert [each["end"] for each in seen["deploymentFrequency"]][-1] == seen["to"] == "2026-03-30T22:00:00Z"
    # The first one ended after midnight: it counts there.
    assert [each["succeeded"] for each in seen["deploymentFrequency"]] == [0, 4, 1]
    hours = {each["hour"]: each["count"] for each in seen["hourlyDeployments"] if each["count"]}
    assert (hours, len(seen["hourlyDeployments"])) == ({0: 2, 3: 1, 22: 1, 23: 1}, 24)
    assert [(each["start"], each["succeeded"]) for each in seen["successRates"]] == [
        ("2026-03-27T23:00:00Z", 4),
        ("2026-03-29T22:00:00Z", 1),
    ]


async def test_an_hour_that_comes_twice_is_two_buckets(past: Past) -> None:
    project = await past.project()
    for moment in ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T02:45:00+01:00"):
        await past.deployment(project, at(moment))
    given = between("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00")
    seen = await past.see(ANALYTICS, range=given, timeZone="Europe/Madrid")
    assert (seen["interval"], len(seen["deploymentFrequency"])) == ("HOUR", 25)
    assert [each["count"] for each in seen["deploymentFrequency"]][2:4] == [1, 2]
    assert {each["hour"]: each["count"] for each in seen["hourlyDeployments"] if each["count"]} == {2: 3}


async def test_a_range_is_compared_with_the_one_before(past: Past) -> None:
    project = await past.project()
    for day, status, seconds in ((8, "SUCCEEDED", 10), (9, "FAILED", 5), (11, "SUCCEEDED", 20), (12, "SUCCEEDED", 40)):
        await past.deployment(project, datetime(2025, 5, day, 12, tzinfo=UTC), status=status, seconds=seconds)
    await past.deployment(project, datetime(2025, 5, 13, 12, tzinfo=UTC), status="CANCELLED")
    await past.scan(datetime(2025, 5, 9, 1, tzinfo=UTC), [("LOW", "Time")])
    await past.scan(datetime(2025, 5, 12, 1, tzinfo=UTC), [("HIGH", "Budget"), ("LOW", "Time"), ("LOW", "Budget")])
    seen = await past.see(ANALYTICS, range=between("2025-05-11T00:00:00Z", "2025-05-14T00:00:00Z"))
    assert (seen["previousFrom"], seen["previousTo"]) == ("2025-05-08T00:00:00Z", "2025-05-11T00:00:00Z")
    metrics = seen["metrics"]
    assert metrics["deployments"] == {"value": 3, "previous": 2, "changePercent": 50}
    assert metrics["successPercent"] == {"value": 100, "previous": 50}
    assert metrics["averageDeploySeconds"] == {"value": 30, "previous": 10}
    assert metrics["risks"] == {"value": 3, "previous": 1, "changePercent": 200}
    assert {each["status"]: each["count"] for each in seen["deploymentStatus"]} == {
        "QUEUED": 0, "RUNNING": 0, "SUCCEEDED": 2, "FAILED": 0, "CANCELLED": 1,
    }  # fmt: skip
    usage = seen["resourceUsage"]
    # The cancelled one was built and stopped after a minute; what was used was used.
    assert (usage["buildSeconds"], usage["artifactBytes"], usage["storedBytes"]) == (18 + 38 + 58, 3_000, 30)
    assert (usage["cpuSeconds"], usage["peakMemoryBytes"]) == (None, None)
    assert [(each["category"], each["total"]) for each in seen["scanRisks"]] == [("Budget", 2), ("Time", 1)]
    assert [each["count"] for each in seen["scanRisks"][0]["buckets"]] == [0, 2, 0]
    assert [each["count"] for each in seen["scanRisks"][0]["bySeverity"]] == [0, 1, 0, 1]


async def test_durations_are_exact(past: Past) -> None:
    project = await past.project()
    for seconds in range(1, 41):
        await past.deployment(project, datetime(2025, 6, 2, 8, tzinfo=UTC), seconds=seconds + 2)
    await past.deployment(project, datetime(2025, 6, 2, 8, tzinfo=UTC), seconds=9_000, status="FAILED")
    seen = await past.see(ANALYTICS, range=between("2025-06-01T00:00:00Z", "2025-06-04T00:00:00Z"))
    durations = [{name: each[name] for name in each if name not in {"start", "end"}} for each in seen["buildDurations"]]
    nothing = {"count": 0, "averageSeconds": None, "minSeconds": None, "maxSeconds": None, "p95Seconds": None}
    assert durations == [
        nothing,
        {"count": 40, "averageSeconds": 20.5, "minSeconds": 1, "maxSeconds": 40, "p95Seconds": 38},
        nothing,
    ]


async def test_job_runs_are_told_by_day_and_by_tool(past: Past) -> None:
    await past.run(datetime(2025, 7, 1, 8, tzinfo=UTC), items=120, seconds=120)
    await past.run(datetime(2025, 7, 3, 8, tzinfo=UTC), items=0, seconds=60, status="FAILED")
    seen = (await past.see(ANALYTICS, range=between("2025-07-01T00:00:00Z", "2025-07-04T00:00:00Z")))["performance"]
    assert [(each["runs"], each["successPercent"], each["itemsPerMinute"]) for each in seen["runs"]] == [
        (1, 100, 60),
        (0, None, None),
        (1, 0, 0),
    ]
    assert seen["total"] == {
        "runs": 2, "succeeded": 1, "failed": 1, "successPercent": 50, "items": 120, "itemsPerMinute": 40,
    }  # fmt: skip
    assert seen["totalDurations"]["p95Seconds"] == 120
    assert sorted((each["succeeded"], each["failed"], each["items"]) for each in seen["byTool"]) == [
        (0, 1, 0),
        (1, 0, 120),
    ]


@pytest.mark.parametrize(
    ("preset", "buckets"),
    [("LAST_24_HOURS", 24), ("LAST_7_DAYS", 7), (None, 30), ("LAST_90_DAYS", 90), ("LAST_12_MONTHS", 365)],
)
async def test_presets_end_now_and_leave_no_bucket_out(past: Past, preset: str | None, buckets: int) -> None:
    await past.deployment(await past.project(), datetime.now(UTC) - timedelta(minutes=2), seconds=1)
    seen = await past.see(ANALYTICS, range={"preset": preset} if preset else None, timeZone="Australia/Lord_Howe")
    assert len(seen["deploymentFrequency"]) == buckets
    assert sum(each["count"] for each in seen["deploymentFrequency"]) == 1
    assert seen["metrics"]["deployments"] == {"value": 1, "previous": 0, "changePercent": None}
    for earlier, later in zip(seen["deploymentFrequency"], seen["deploymentFrequency"][1:], strict=False):
        assert earlier["end"] == later["start"]


# -- what is kept


async def test_a_dashboard_is_at_most_five_statements_and_read_once_while_nothing_changes(
    past: Past, api_server: ApiServer, settings_env: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    for _ in range(3):
        project = await past.project()
        for _ in range(3):
            await past.deployment(project, now - timedelta(hours=1))
    for _ in range(3):
        await past.run(now - timedelta(hours=1), items=1)
        await past.scan(now - timedelta(hours=1), [("LOW", "Time")])
    async with Wire(settings_env["DATABASE_URL"]) as wire:
        api = await api_server.second(DATABASE_URL=wire.url)
        async with GraphQLClient(api.graphql_url) as counted:

            async def cost(zone: str) -> int:
                before = wire.count
                await counted.run(DASHBOARD, {"timeZone": zone}, token=past.person.token)
                return wire.count - before

            # Nobody has asked for these zones; the first times also read the session and types of columns.
            costs = [await cost(f"Etc/GMT+{hours}") for hours in range(1, 9)]
            assert 1 <= min(costs) <= 5
            # Kept: only projects of the deployments, and the jobs, are loaded again.
            assert await cost("Etc/GMT+8") <= 1
        assert await api.stop() == 0


async def test_what_is_done_is_seen_at_once(past: Past) -> None:
    assert (await past.see(DASHBOARD))["projects"]["total"] == 0
    made = await past.see(
        CREATE_PROJECT, input={"name": f"Site {secrets.token_hex(4)}", "repository": "https://git.example.com/a/b.git"}
    )
    assert (await past.see(DASHBOARD))["projects"]["total"] == 1
    project = await past.pool.fetchval("SELECT id FROM projects WHERE owner_id = $1", past.owner_id)
    assert encode_id(Prefix.PROJECT, project) == made["project"]["id"]
    execution_id = await past.deployment(project, datetime.now(UTC) - timedelta(minutes=5))
    # Nobody has told: the kept one is shown.
    assert (await past.see(DASHBOARD))["deployments"]["total"] == 0
    await past.tell()

    async def is_counted() -> bool:
        return bool((await past.see(DASHBOARD))["deployments"]["total"] == 1)

    await eventually(is_counted, 5)
    assert (await past.see(ANALYTICS))["metrics"]["deployments"]["value"] == 1
    await past.see(DELETE_DEPLOYMENT, input={"id": deployment_id(execution_id)})
    seen = await past.see(DASHBOARD)
    assert (seen["deployments"]["total"], seen["recentDeployments"]) == (0, [])
    assert (await past.see(ANALYTICS))["metrics"]["deployments"]["value"] == 0


async def test_a_worker_folds_and_nothing_that_is_shown_changes(past: Past, worker_factory: WorkerFactory) -> None:
    await past.deployment(await past.project(), datetime(2025, 8, 2, 8, tzinfo=UTC))
    given = between("2025-08-01T00:00:00Z", "2025-08-04T00:00:00Z")
    before = await past.see(ANALYTICS, range=given)
    assert before["metrics"]["deployments"]["value"] == 1
    worker_factory()

    async def is_folded() -> bool:
        return not await past.pool.fetchval("SELECT count(*) FROM rollup_deltas")

    await eventually(is_folded, 20)
    assert await past.pool.fetchval("SELECT count(*) FROM rollups WHERE owner_id = $1", past.owner_id) == 2
    await past.tell()
    assert await past.see(ANALYTICS, range=given) == before


async def fold(past: Past) -> None:
    async with past.pool.acquire() as connection:
        while await analytics.fold(connection, limit=1_000):
            pass
