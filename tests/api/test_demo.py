"""Sample data: what the command says is what the API shows, it is made once, and nothing of it is left behind."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import orjson
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from models import analytics
from models.demo import DEMO_USER_ID
from models.executions import ExecutionStatus
from models.ids import new_id
from resolvers.demo import practice, site_content
from tasks.build import practice_repository
from tasks.build.practice_repository import NoRepository
from tasks.crawl.spiders import SHIPPED
from tests.conftest import ApiServer, Programs
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.deployments import insert_deployment, insert_project, set_status
from tests.harness.executions import uuid_of
from tests.harness.processes import CLI, run_cli
from tests.harness.waiting import eventually

PASSWORD = "a garden in the harbour"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
MADE_SECONDS = 60.0
# What counts by itself, and the trail, which is for ever.
NOT_COMPARED = {"processes", "rollups", "rollup_deltas", "audit_events", "sessions"}

DASHBOARD = """{ dashboard(timeZone: "UTC") {
  deployments { total } projects { total active } successRate { percent } averageDeployTime { seconds }
  recentDeployments { id status } jobs { runs { total } running queued recentRuns { id } }
  scans { scans { total } risks risksBySeverity { severity count } recentScans { id } } } }"""
ANALYTICS = """query ($range: AnalyticsRange!) { analytics(timeZone: "Europe/Madrid", range: $range) {
  metrics { deployments { value } succeededDeployments { value } failedDeployments { value }
    cancelledDeployments { value } jobRuns { value } items { value } pages { value } scans { value } risks { value } }
  performance { total { runs succeeded failed cancelled items } } } }"""
RUNS = """{ jobRuns(first: 100) { totalCount edges { node {
  status itemsScraped itemsRejected pagesCrawled items(first: 1) { totalCount } rejectedItems(first: 1) { totalCount }
  logs(last: 1) { edges { node { sequence message } } } history { status at } queuedAt startedAt finishedAt } } } }"""
JOBS = "{ jobs(first: 20) { edges { node { schedule { isPaused nextRunAt ticks(first: 1) { totalCount } } } } } }"
DEPLOYMENTS = """{ deployments(first: 100) { edges { node {
  number status isLive url fileCount artifactSize stages { name status } project { name url } } } } }"""
PROPERTIES = """{ properties(first: 100) { totalCount facets { cities { value count } currencies { value count } }
  edges { node { price goneAt lastSeenAt priceHistory(first: 20) { edges { node { price seenAt } } } } } } }"""
FILES = (
    "{ jobRuns(first: 100, filter: {statuses: [SUCCEEDED]}) { edges { node { outputFiles { rowCount size url } } } } }"
)
OTHERS = """{ products { totalCount } notifications { totalCount } media(first: 9) { edges { node { size url } } }
  ocrJobs(first: 9) { edges { node { status candidateCount pageCount } } }
  scans(first: 20) { edges { node { status riskCount risks(first: 50) { id state } } } } }"""


class Told:
    """What the command printed: its counts, whom to sign in as, and the password."""

    def __init__(self, text: str) -> None:
        self.text = text
        listed = re.search(r"(?:is made|, as [a-z0-9-]+): (.*?)\.", text)
        pairs = re.findall(r"([\d,]+) ([a-z]+)", listed[1] if listed else "")
        self.counts = {name: int(count.replace(",", "")) for count, name in pairs}
        found = re.search(r"Sign in as (\S+) with the password (\S+)", text)
        self.username, self.password = found.groups() if found else ("", "")


Command = Callable[..., Awaitable[Told]]


@pytest_asyncio.fixture(scope="module")
async def command(programs: Programs) -> Command:
    """Runs the command to its end in the module's installation, which has the shipped tools."""
    assert await programs.start((CLI, "migrate"), kind="migrate").wait_exit(MADE_SECONDS) == 0

    async def run(*arguments: str, code: int = 0) -> Told:
        program = programs.start((CLI, "demo", *arguments), kind="demo")
        assert await program.wait_exit(MADE_SECONDS) == code, program.log_tail()
        programs.started.remove(program)
        return Told(program.log.read_text(encoding="utf-8"))

    return run


@pytest.fixture
async def made(command: Command, db: asyncpg.Connection) -> Told:
    """The demo, made by this test or by one before it."""
    global _made
    if _made is None or not await db.fetchval("SELECT is_active FROM users WHERE id = $1", DEMO_USER_ID):
        _made = await command("--yes")
    return _made


_made: Told | None = None


@pytest.fixture
async def person(client: GraphQLClient, made: Told) -> Person:
    """Whoever signs in with what the command said."""
    return await sign_in(client, made.username, made.password)


@pytest.fixture
async def nobody(command: Command, db: asyncpg.Connection) -> None:
    """There is no demo."""
    if await db.fetchval("SELECT 1 FROM users WHERE id = $1", DEMO_USER_ID):
        await command("--remove")


def stored(settings_env: dict[str, str]) -> set[str]:
    """Keys of all objects on the disk."""
    records = (Path(settings_env["DATA_DIR"]) / "files" / "objects").rglob("*.json")
    return {orjson.loads(record.read_bytes())["key"] for record in records}


async def everything(db: asyncpg.Connection) -> dict[str, set[str]]:
    """All rows of all tables as text; tables without any are left out."""
    tables = await db.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = {}
    for (table,) in map(tuple, tables):
        if table not in NOT_COMPARED:
            found[table] = {row["row"] for row in await db.fetch(f'SELECT t::text AS row FROM "{table}" t')}
    return {table: rows for table, rows in found.items() if rows}


async def fold(db: asyncpg.Connection) -> None:
    while await analytics.fold(db, limit=10_000):
        pass


# -- what it says


async def test_it_says_what_the_dashboard_shows(client: GraphQLClient, made: Told, person: Person) -> None:
    shown = (await client.run(DASHBOARD, token=person.token))["dashboard"]
    assert shown["deployments"]["total"] == made.counts["deployments"] > 50
    assert shown["projects"] == {"total": made.counts["projects"], "active": made.counts["projects"]}
    assert (shown["jobs"]["runs"]["total"], shown["jobs"]["running"], shown["jobs"]["queued"]) == (
        made.counts["runs"], 0, 0,
    )  # fmt: skip
    assert (shown["scans"]["scans"]["total"], shown["scans"]["risks"]) == (made.counts["scans"], made.counts["risks"])
    assert sum(each["count"] for each in shown["scans"]["risksBySeverity"]) == made.counts["risks"]
    assert (
        len(shown["recentDeployments"]) == len(shown["jobs"]["recentRuns"]) == len(shown["scans"]["recentScans"]) == 5
    )
    assert 60 < shown["successRate"]["percent"] < 100
    assert 5 < shown["averageDeployTime"]["seconds"] < 120


async def test_analytics_are_the_plain_counts_folded_or_not(
    client: GraphQLClient, db: asyncpg.Connection, made: Told, person: Person, admin: Person
) -> None:
    moments = await db.fetchrow("SELECT now() - interval '80 days' AS begin, now() + interval '1 hour' AS finish")
    span = {"range": {"from": moments["begin"].isoformat(), "to": moments["finish"].isoformat()}}
    counted = {
        row["kind"] + row["status"]: row["count"]
        for row in await db.fetch(
            "SELECT kind, status, count(*) FROM executions WHERE owner_id = $1 GROUP BY 1, 2", DEMO_USER_ID
        )
    }
    sums = await db.fetchrow(
        """SELECT sum(items_scraped) AS items, sum(pages_crawled) AS pages FROM job_runs r
           JOIN executions e ON e.id = r.execution_id WHERE e.owner_id = $1""",
        DEMO_USER_ID,
    )
    for _ in range(2):
        report = (await client.run(ANALYTICS, span, token=person.token))["analytics"]
        metrics = {name: each["value"] for name, each in report["metrics"].items()}
        deployed = [counted.get(f"DEPLOYMENT{status}", 0) for status in ENDED]
        assert [metrics[f"{name}Deployments"] for name in ("succeeded", "failed", "cancelled")] == deployed
        assert metrics["deployments"] == sum(deployed) == made.counts["deployments"]
        ran = [counted.get(f"CRAWL{status}", 0) for status in ENDED]
        assert min(*deployed, *ran) > 0
        total = report["performance"]["total"]
        assert [total[name] for name in ("succeeded", "failed", "cancelled")] == ran
        assert metrics["jobRuns"] == total["runs"] == sum(ran) == made.counts["runs"]
        assert metrics["items"] == total["items"] == sums["items"] == made.counts["items"]
        assert metrics["pages"] == sums["pages"] + made.counts["documents"] or metrics["pages"] == sums["pages"]
        assert (metrics["scans"], metrics["risks"]) == (made.counts["scans"], made.counts["risks"])
        await fold(db)
        assert await db.fetchval("SELECT count(*) FROM rollup_deltas") == 0


async def test_runs_have_what_their_counters_say(client: GraphQLClient, made: Told, person: Person) -> None:
    page = (await client.run(RUNS, token=person.token))["jobRuns"]
    assert page["totalCount"] == made.counts["runs"]
    for run in (edge["node"] for edge in page["edges"]):
        assert run["status"] in ENDED
        assert run["items"]["totalCount"] == run["itemsScraped"]
        assert run["rejectedItems"]["totalCount"] == run["itemsRejected"]
        states = [change["status"] for change in run["history"]]
        assert (states[0], states[1], states[-1]) == ("QUEUED", "RUNNING", run["status"])
        moments = [change["at"] for change in run["history"]]
        assert moments == sorted(moments)
        assert run["queuedAt"] == moments[0] < run["startedAt"] == moments[1] < run["finishedAt"] == moments[-1]
        [last] = run["logs"]["edges"]
        assert last["node"]["sequence"] >= 3


async def test_logs_are_as_long_as_their_executions_say(db: asyncpg.Connection, made: Told) -> None:
    differing = await db.fetch(
        """SELECT e.id FROM executions e
           LEFT JOIN LATERAL (
               SELECT coalesce(sum(line_count), 0) AS lines, coalesce(sum(octet_length(body)), 0) AS bytes
               FROM log_chunks c WHERE c.execution_id = e.id) AS log ON true
           WHERE e.owner_id = $1 AND ((e.log_sequence, e.log_bytes) <> (log.lines, log.bytes)
                 OR (e.log_sequence > 0) <> (e.log_compaction_after IS NOT NULL))""",
        DEMO_USER_ID,
    )
    assert differing == []


async def test_schedules_rest_and_nothing_waits_or_is_told(
    client: GraphQLClient, db: asyncpg.Connection, made: Told, person: Person
) -> None:
    jobs = [edge["node"]["schedule"] for edge in (await client.run(JOBS, token=person.token))["jobs"]["edges"]]
    assert len(jobs) == made.counts["jobs"] == len(SHIPPED)
    assert all(schedule["isPaused"] and schedule["nextRunAt"] is None for schedule in jobs)
    assert sum(schedule["ticks"]["totalCount"] for schedule in jobs) == made.counts["runs"]
    waiting = "SELECT count(*) FROM executions WHERE owner_id = $1 AND status IN ('QUEUED', 'RUNNING')"
    assert await db.fetchval(waiting, DEMO_USER_ID) == 0
    assert await db.fetchval("SELECT count(*) FROM outbox_messages") == 0
    assert await db.fetchval("SELECT count(*) FROM webhook_endpoints WHERE is_active") == 0


async def test_sites_are_served(client: GraphQLClient, api_server: ApiServer, made: Told, person: Person) -> None:
    found = (await client.run(DEPLOYMENTS, token=person.token))["deployments"]["edges"]
    deployments = [edge["node"] for edge in found]
    built = [each for each in deployments if each["status"] == "SUCCEEDED"]
    assert {each["status"] for each in deployments} == set(ENDED)
    assert sum(each["isLive"] for each in deployments) == made.counts["projects"]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:

        async def page(url: str) -> httpx.Response:
            return await http.get(f"{api_server.url}/", headers={"Host": urlsplit(url).netloc})

        for each in built:
            assert {stage["status"] for stage in each["stages"]} == {"SUCCEEDED"}
            own = await page(each["url"])
            assert own.status_code == 200
            if each["isLive"]:
                assert (await page(each["project"]["url"])).text == own.text
        assert (await page(next(each for each in deployments if each not in built)["url"])).status_code == 404


async def test_deployments_have_the_files_they_count(db: asyncpg.Connection, made: Told) -> None:
    differing = await db.fetch(
        """SELECT d.number FROM deployments d JOIN executions e ON e.id = d.execution_id
           LEFT JOIN LATERAL (SELECT count(*) AS files, sum(b.size) AS bytes FROM deployment_files f
                              JOIN site_blobs b ON b.id = f.blob_id WHERE f.deployment_id = e.id) AS kept ON true
           WHERE e.owner_id = $1 AND (d.file_count, d.artifact_size) IS DISTINCT FROM
                 (nullif(kept.files, 0)::int, kept.bytes::bigint)""",
        DEMO_USER_ID,
    )
    assert differing == []
    sent = await db.fetchrow(
        """SELECT (SELECT sum(uploaded_bytes) FROM deployments d JOIN projects p ON p.id = d.project_id
                   WHERE p.owner_id = $1) AS counted,
                  (SELECT sum(size) FROM site_blobs b JOIN projects p ON p.id = b.project_id
                   WHERE p.owner_id = $1) AS kept""",
        DEMO_USER_ID,
    )
    assert sent["counted"] == sent["kept"]


async def test_properties_have_facets_and_history(client: GraphQLClient, made: Told, person: Person) -> None:
    found = (await client.run(PROPERTIES, token=person.token))["properties"]
    assert found["totalCount"] == made.counts["properties"] == sum(city["count"] for city in found["facets"]["cities"])
    homes = [edge["node"] for edge in found["edges"]]
    assert sum(home["goneAt"] is not None for home in homes) == 3
    histories = [[entry["node"] for entry in home["priceHistory"]["edges"]] for home in homes]
    assert max(map(len, histories)) > 1
    for home, history in zip(homes, histories, strict=True):
        assert home["price"] == max(history, key=lambda entry: str(entry["seenAt"]))["price"]


async def test_files_can_be_fetched(client: GraphQLClient, made: Told, person: Person) -> None:
    runs = (await client.run(FILES, token=person.token))["jobRuns"]["edges"]
    files = [file for edge in runs for file in edge["node"]["outputFiles"]]
    assert len(files) == 3 * made.counts["jobs"]
    shown = await client.run(OTHERS, token=person.token)
    assert shown["products"]["totalCount"] == made.counts["products"] == len(practice.shop(0.0)) - 5
    assert shown["notifications"]["totalCount"] == made.counts["notifications"]
    [document] = [edge["node"] for edge in shown["ocrJobs"]["edges"]]
    assert document == {"status": "SUCCEEDED", "candidateCount": 8, "pageCount": 1}
    risks = [risk for edge in shown["scans"]["edges"] for risk in edge["node"]["risks"]]
    assert len(risks) == made.counts["risks"]
    assert {"OPEN", "ACCEPTED"} <= {risk["state"] for risk in risks}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for each in (*files, *(edge["node"] for edge in shown["media"]["edges"])):
            answer = await http.get(each["url"])
            assert (answer.status_code, len(answer.content)) == (200, each["size"])


def test_items_are_what_the_spiders_promise() -> None:
    for name, spider in SHIPPED.items():
        check = Draft202012Validator(dict(spider.narrow_output(dict(spider.example_input))))
        for days_ago in (0.0, 30.0):
            items = [item for page in practice.WAYS[name](days_ago) for item in page.items]
            assert items
            assert [error.message for item in items for error in check.iter_errors(item)] == []


def test_the_garden_is_the_practice_repository() -> None:
    try:
        with practice_repository.made() as repository:
            assert tuple(commit for _, commit, _ in repository.commits) == site_content.GARDEN_COMMITS
    except NoRepository as reason:
        pytest.skip(str(reason))


# -- again, and the end


async def test_a_second_demo_changes_nothing(command: Command, db: asyncpg.Connection, made: Told) -> None:
    before = await everything(db)
    again = await command()
    assert "is there already, as demo" in again.text
    assert (again.counts, again.password) == (made.counts, "")
    assert await everything(db) == before


async def test_removed_it_leaves_nothing_but_nameless_lines_of_the_trail(
    client: GraphQLClient,
    command: Command,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
    made: Told,
    person: Person,
) -> None:
    objects = stored(settings_env)
    assert len(objects) > 50
    await command("--remove")
    with pytest.raises(GraphQLFailure):
        await client.run("{ me { id } }", token=person.token)
    await fold(db)
    tables = await db.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    mentioned = {
        table
        for (table,) in map(tuple, tables)
        if await db.fetchval(f'SELECT EXISTS (SELECT 1 FROM "{table}" t WHERE t::text LIKE $1)', f"%{DEMO_USER_ID}%")
    }
    assert mentioned == {"audit_events"}
    trail = await db.fetch("SELECT DISTINCT ip, user_agent FROM audit_events WHERE actor_id = $1", DEMO_USER_ID)
    assert {tuple(line) for line in trail} == {(None, None)}
    assert await db.fetchval("SELECT count(*) FROM products") == 0
    assert await db.fetchval("SELECT count(*) FROM rollups") == 0
    assert await db.fetchval("SELECT count(*) FROM executions") == 0
    assert stored(settings_env) == set()


async def test_of_two_at_once_one_makes_it(programs: Programs, nobody: None, db: asyncpg.Connection) -> None:
    both = [programs.start((CLI, "demo", "--yes"), kind="demo") for _ in range(2)]
    codes = [await each.wait_exit(MADE_SECONDS) for each in both]
    for each in both:
        programs.started.remove(each)
    told = [each.log.read_text(encoding="utf-8") for each in both]
    assert sum("is made:" in text for text in told) == 1
    loser = next(text for text in told if "is made:" not in text)
    assert "made or removed at this moment" in loser or "is there already" in loser
    assert sorted(codes) in ([0, 0], [0, 1])
    assert await db.fetchval("SELECT count(*) FROM jobs WHERE owner_id = $1", DEMO_USER_ID) == len(SHIPPED)


# -- cut off


async def kill_at(programs: Programs, db: asyncpg.Connection, table: str) -> None:
    """Begin a demo, and kill it where it writes into this table."""
    async with db.transaction():
        await db.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        program = programs.start((CLI, "demo", "--yes"), kind="demo")
        programs.started.remove(program)

        async def waits() -> bool:
            assert program.exit_code is None, program.log_tail()
            return bool(
                await db.fetchval("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = $1::regclass", table)
            )

        await eventually(waits, MADE_SECONDS)
        program.kill()
        await program.wait_exit()
    await eventually(lambda: program.exit_code is not None)


async def test_killed_among_its_rows_it_has_none(
    programs: Programs, nobody: None, db: asyncpg.Connection, settings_env: dict[str, str]
) -> None:
    before, objects = await everything(db), stored(settings_env)
    await kill_at(programs, db, "product_sources")

    async def is_over() -> bool:
        return not await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )

    await eventually(is_over)
    assert await everything(db) == before
    assert stored(settings_env) == objects


async def test_killed_among_its_files_it_is_closed_and_the_next_one_goes_on(
    client: GraphQLClient, programs: Programs, command: Command, nobody: None, db: asyncpg.Connection
) -> None:
    await kill_at(programs, db, "deployment_files")
    row = await db.fetchrow("SELECT is_active, password_hash FROM users WHERE id = $1", DEMO_USER_ID)
    assert tuple(row) == (False, None)
    with pytest.raises(GraphQLFailure):
        await sign_in(client, "demo", PASSWORD)
    told = await command("--yes")
    person = await sign_in(client, told.username, told.password)
    shown = (await client.run(DASHBOARD, token=person.token))["dashboard"]
    assert shown["deployments"]["total"] == told.counts["deployments"]
    unserved = """SELECT count(*) FROM deployments d JOIN executions e ON e.id = d.execution_id
                  WHERE e.owner_id = $1 AND e.status = 'SUCCEEDED'
                    AND NOT EXISTS (SELECT 1 FROM deployment_files f WHERE f.deployment_id = e.id)"""
    assert await db.fetchval(unserved, DEMO_USER_ID) == 0


# -- others


async def test_where_others_work_it_asks_first_and_touches_nothing_of_theirs(
    client: GraphQLClient,
    command: Command,
    nobody: None,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
) -> None:
    neighbour = await new_user(client)
    await db.execute("UPDATE users SET username = 'demo', username_key = 'demo' WHERE id = $1", uuid_of(neighbour))
    execution = await insert_deployment(db, await insert_project(db, uuid_of(neighbour), slug="demo-garden"))
    await set_status(db, execution, ExecutionStatus.RUNNING)
    await set_status(db, execution, ExecutionStatus.SUCCEEDED)
    await db.execute(
        """INSERT INTO products (id, name, slug, description, attributes, is_active, version, created_at, updated_at)
           VALUES ($1, 'A lamp of ours', 'oak-lamp', '', '{}', true, 1, now(), now())""",
        new_id(),
    )
    before, objects = await everything(db), stored(settings_env)
    refusal = await command(code=1)
    assert "Others work in this installation" in refusal.text
    assert await everything(db) == before

    printed = Told(run_cli("demo", "--yes", "--password-stdin", environment=settings_env, stdin=f"{PASSWORD}\n"))
    assert PASSWORD not in printed.text
    person = await sign_in(client, "demo-2", PASSWORD)
    assert (await client.run(DASHBOARD, token=person.token))["dashboard"]["deployments"]["total"] > 50
    assert "products" not in printed.counts
    after = await everything(db)
    assert {table: rows - after[table] for table, rows in before.items() if rows - after[table]} == {}

    removed = await command("--remove")
    assert "removed" in removed.text
    assert await everything(db) == before
    assert stored(settings_env) == objects
    assert "There is no demo" in (await command("--remove")).text
    await db.execute("DELETE FROM products")
    await db.execute("DELETE FROM users WHERE id = $1", uuid_of(neighbour))
