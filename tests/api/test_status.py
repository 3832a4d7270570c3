"""The status page, incidents and the live status through the API; the feed; what is shown while nothing is known."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import httpx
import pytest
import pytest_asyncio

from models.events import StatusChanged
from models.ids import Prefix, decode_id, encode_id, new_id
from models.status import Service, ServiceState
from tasks.status.rounds import record
from tasks.status.verdicts import Finding
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, subscribe
from tests.harness.executions import Desk, open_desk
from tests.harness.relay import Relay
from tests.harness.waiting import eventually

ALWAYS = ["API", "DATABASE", "QUEUE", "STORAGE", "BUILDS", "AI_SERVICE"]
INCIDENT = """id title state impact services isAutomatic startedAt resolvedAt updatedAt
    updates { at state message isAutomatic }"""
PAGE = f"""query ($days: Int! = 90) {{ statusPage(days: $days) {{
    overall updatedAt metrics {{ name value unit previous changePercent }}
    services {{ service name state since probedAt uptimePercent responseTime {{ lastMilliseconds p50 p95 }}
               history {{ date uptimePercent worstState }} recentChanges {{ state at }} }}
    openIncidents {{ {INCIDENT} }} }} }}"""
LIST = f"""query ($state: IncidentState, $first: Int, $after: String, $last: Int, $before: String) {{
    statusPage {{ incidents(state: $state, first: $first, after: $after, last: $last, before: $before) {{
        totalCount edges {{ node {{ {INCIDENT} }} }} pageInfo {{ hasNextPage endCursor }} }} }} }}"""
CREATE = f"mutation ($input: CreateIncidentInput!) {{ createIncident(input: $input) {{ incident {{ {INCIDENT} }} }} }}"
UPDATE = f"mutation ($input: UpdateIncidentInput!) {{ updateIncident(input: $input) {{ incident {{ {INCIDENT} }} }} }}"
ONE = f"query ($id: ID!) {{ incident(id: $id) {{ {INCIDENT} }} node(id: $id) {{ id ... on Incident {{ title }} }} }}"
LIVE = "subscription { serviceStatus { overall services { service state } incidents { title updates { message } } } }"
ATOM = {"a": "http://www.w3.org/2005/Atom"}
GOOD = {"title": "Slow builds", "message": "We look.", "impact": "MINOR", "services": ["BUILDS"]}


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest.fixture
async def page(desk: Desk, client: GraphQLClient) -> Page:
    """Nothing was ever probed or told, and the page knows it."""
    await desk.pool.execute("TRUNCATE service_states, service_hours, service_changes, incidents CASCADE")
    return Page(desk, client)


class Page:
    """What probes find, and what the page shows of it."""

    def __init__(self, desk: Desk, client: GraphQLClient) -> None:
        self.desk = desk
        self.client = client

    async def found(self, service: Service, *findings: tuple[ServiceState, float], at: datetime | None = None) -> None:
        """Probes, thirty seconds apart, the last one now."""
        async with self.desk.pool.acquire() as connection:
            now: datetime = at or await connection.fetchval("SELECT clock_timestamp()")
            for place, (state, milliseconds) in enumerate(findings, start=1):
                finding = Finding(service, state, None if state is ServiceState.DOWN else milliseconds)
                await record(connection, [finding], now - timedelta(seconds=30 * (len(findings) - place)))

    async def read(self, **variables: Any) -> dict[str, Any]:
        """The page, read after now, whatever is kept; nobody is signed in."""
        now = datetime.now(UTC)
        await self.desk.tell(StatusChanged())
        shown: dict[str, Any] = {}

        async def is_new() -> bool:
            shown.update((await self.client.run(PAGE, variables))["statusPage"])
            return datetime.fromisoformat(shown["updatedAt"]) >= now

        await eventually(is_new, what="a page read since")
        return shown

    async def service(self, name: str, **variables: Any) -> dict[str, Any]:
        """One service of the page."""
        found: dict[str, Any] = next(
            each for each in (await self.read(**variables))["services"] if each["service"] == name
        )
        return found


async def refused(client: GraphQLClient, document: str, token: str | None, **variables: Any) -> tuple[Any, Any]:
    with pytest.raises(GraphQLFailure) as failure:
        await client.run(document, variables, token=token)
    return failure.value.code, failure.value.errors[0].get("path")


async def create(client: GraphQLClient, admin: Person, **values: Any) -> dict[str, Any]:
    answer = await client.run(CREATE, {"input": {**GOOD, **values}}, token=admin.token)
    made: dict[str, Any] = answer["createIncident"]["incident"]
    return made


async def update(client: GraphQLClient, admin: Person, id_: str, **values: Any) -> dict[str, Any]:
    answer = await client.run(UPDATE, {"input": {"id": id_, **values}}, token=admin.token)
    changed: dict[str, Any] = answer["updateIncident"]["incident"]
    return changed


# -- the page


async def test_nothing_is_known_before_the_first_probe(page: Page) -> None:
    shown = await page.read(days=3)
    assert shown["overall"] == "UNKNOWN"
    assert [(each["service"], each["state"], each["since"]) for each in shown["services"]] == [
        (name, "UNKNOWN", None) for name in ALWAYS
    ]
    today = datetime.now(UTC).date()
    assert [day["date"] for day in shown["services"][0]["history"]] == [
        str(today - timedelta(days=ago)) for ago in (2, 1, 0)
    ]
    assert shown["services"][0]["uptimePercent"] is None


async def test_what_probes_found_is_shown(page: Page) -> None:
    await page.found(Service.API, *[(ServiceState.OPERATIONAL, 10.0)] * 8, (ServiceState.DEGRADED, 2_000.0))
    await page.found(Service.MAIL, (ServiceState.OPERATIONAL, 70.0))
    shown = await page.read()
    assert [each["service"] for each in shown["services"]] == [*ALWAYS, "MAIL"]
    api = shown["services"][0]
    assert (api["name"], api["state"], api["uptimePercent"]) == ("API", "OPERATIONAL", 100.0)
    times = api["responseTime"]
    assert times["lastMilliseconds"] == 2_000.0
    assert times["p50"] == pytest.approx(10, rel=0.2)
    assert times["p95"] == pytest.approx(2_000, rel=0.2)
    assert len(api["history"]) == 90
    assert api["recentChanges"][0]["state"] == "OPERATIONAL"
    assert shown["overall"] == "OPERATIONAL"
    numbers = {metric["name"]: metric for metric in shown["metrics"]}
    assert numbers["API_RESPONSE_TIME"]["unit"] == "MILLISECONDS"
    assert numbers["API_RESPONSE_TIME"]["value"] == times["p50"]
    assert (numbers["SCANS"]["value"], numbers["SCANS"]["changePercent"]) == (0, None)


async def test_a_day_is_as_bad_as_its_worst_state_and_uptime_counts_probes(page: Page) -> None:
    now = datetime.now(UTC)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
    verdicts = [ServiceState.OPERATIONAL] * 6 + [ServiceState.DOWN] * 2
    await page.found(Service.STORAGE, *[(state, 5.0) for state in verdicts], at=noon)
    await page.found(Service.STORAGE, (ServiceState.OPERATIONAL, 5.0))
    storage = await page.service("STORAGE")
    before, yesterday, today = storage["history"][-3:]
    assert before == {"date": str(noon.date()), "uptimePercent": 75.0, "worstState": "DOWN"}
    assert yesterday == {"date": str((now - timedelta(days=1)).date()), "uptimePercent": None, "worstState": "UNKNOWN"}
    assert today["worstState"] == "OPERATIONAL"
    assert storage["uptimePercent"] == 77.777
    assert (await page.service("STORAGE", days=2))["uptimePercent"] == 100.0


async def test_a_page_that_nobody_probes_for_says_so(page: Page) -> None:
    await page.found(Service.API, (ServiceState.OPERATIONAL, 5.0))
    assert (await page.service("API"))["state"] == "OPERATIONAL"
    await page.desk.pool.execute("UPDATE service_states SET probed_at = probed_at - interval '91 seconds'")
    shown = await page.read()
    api = shown["services"][0]
    assert (shown["overall"], api["state"], api["since"]) == ("UNKNOWN", "UNKNOWN", api["probedAt"])
    assert api["responseTime"]["lastMilliseconds"] is None


@pytest.mark.parametrize("days", [0, 91, -1])
async def test_days_have_bounds(client: GraphQLClient, days: int) -> None:
    code, path = await refused(client, PAGE, None, days=days)
    assert (code, path) == ("VALIDATION_ERROR", ["statusPage"])


async def test_the_overall_state_is_the_worst_that_matters(page: Page, client: GraphQLClient, admin: Person) -> None:
    for service in (Service.API, Service.STORAGE):
        await page.found(service, (ServiceState.OPERATIONAL, 5.0))
    assert (await page.read())["overall"] == "OPERATIONAL"
    await page.desk.pool.execute("UPDATE service_states SET state = 'DOWN' WHERE service = 'STORAGE'")
    assert (await page.read())["overall"] == "DEGRADED"
    incident = await create(client, admin, impact="CRITICAL")
    assert (await page.read())["overall"] == "DOWN"
    await update(client, admin, incident["id"], state="RESOLVED", message="Over.")
    assert (await page.read())["overall"] == "DEGRADED"
    await page.desk.pool.execute("UPDATE service_states SET state = 'DOWN' WHERE service = 'API'")
    assert (await page.read())["overall"] == "DOWN"


async def test_the_page_is_kept_and_read_once_for_all(page: Page, client: GraphQLClient) -> None:
    first = await page.read()
    answers = await asyncio.gather(*(client.run(PAGE) for _ in range(20)))
    assert {answer["statusPage"]["updatedAt"] for answer in answers} == {first["updatedAt"]}
    assert (await page.read())["updatedAt"] > first["updatedAt"], "an event spoils what is kept"


async def test_while_the_database_is_away_the_page_says_so(
    api_server: ApiServer, database_url: str, page: Page
) -> None:
    await page.found(Service.STORAGE, (ServiceState.OPERATIONAL, 5.0))
    async with Relay(database_url) as relay:
        second = await api_server.second(DATABASE_URL=relay.url)
        async with GraphQLClient(second.graphql_url) as other:
            before = (await other.run(PAGE))["statusPage"]
            assert before["services"][3]["state"] == "OPERATIONAL"
            async with subscribe(second.ws_url, LIVE) as stream:
                assert (await stream.next())["serviceStatus"]["services"][3]["state"] == "OPERATIONAL"
                await relay.__aexit__()
                told = (await stream.next())["serviceStatus"]
                assert told["overall"] == "DOWN"
            shown = await Page(page.desk, other).read()
            assert shown["overall"] == "DOWN"
            states = {each["service"]: each["state"] for each in shown["services"]}
            assert (states["API"], states["DATABASE"], states["STORAGE"]) == ("OPERATIONAL", "DOWN", "UNKNOWN")
            assert shown["services"][3]["uptimePercent"] == 100.0, "what was known before is still shown"
        second.kill()


# -- incidents


async def test_an_incident_is_told_and_ends(page: Page, client: GraphQLClient, admin: Person, desk: Desk) -> None:
    made = await create(client, admin)
    assert (made["state"], made["isAutomatic"], made["resolvedAt"]) == ("INVESTIGATING", False, None)
    assert [each["message"] for each in made["updates"]] == ["We look."]
    await update(client, admin, made["id"], state="IDENTIFIED", message="A cable.")
    await update(client, admin, made["id"], message="It is being replaced.")
    ended = await update(client, admin, made["id"], state="RESOLVED", message="Replaced.", title="A cable")
    assert [(each["state"], each["message"]) for each in ended["updates"]] == [
        ("INVESTIGATING", "We look."),
        ("IDENTIFIED", "A cable."),
        ("IDENTIFIED", "It is being replaced."),
        ("RESOLVED", "Replaced."),
    ]
    assert ended["resolvedAt"] == ended["updates"][-1]["at"]
    assert (await page.read())["openIncidents"] == []
    answer = await client.run(ONE, {"id": made["id"]})
    assert answer == {"incident": ended, "node": {"id": made["id"], "title": "A cable"}}
    actions = await desk.pool.fetch(
        "SELECT action, details FROM audit_events WHERE target_id = $1 ORDER BY id", uuid(made["id"])
    )
    assert [row["action"] for row in actions] == ["createIncident", *["updateIncident"] * 3]
    assert "cable" not in "".join(row["details"] for row in actions)


async def test_what_is_over_stays_so_and_can_be_explained(client: GraphQLClient, admin: Person, page: Page) -> None:
    made = await create(client, admin, state="RESOLVED")
    again = {"id": made["id"], "state": "MONITORING", "message": "Again."}
    assert await refused(client, UPDATE, admin.token, input=again) == ("CONFLICT", ["updateIncident"])
    explained = await update(client, admin, made["id"], message="What we learnt.", impact="MAJOR")
    assert (explained["resolvedAt"], explained["impact"]) == (made["resolvedAt"], "MAJOR")
    assert [each["state"] for each in explained["updates"]] == ["RESOLVED", "RESOLVED"]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"title": " "}, "title"),
        ({"title": "a" * 201}, "title"),
        ({"title": "two\nlines"}, "title"),
        ({"message": " \n"}, "message"),
        ({"message": "a" * 4_001}, "message"),
        ({"services": []}, "services"),
        ({"startedAt": "2020-01-01T00:00:00Z"}, "startedAt"),
        ({"startedAt": "2999-01-01T00:00:00Z"}, "startedAt"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
    ],
)
async def test_faulty_incidents_are_refused(
    client: GraphQLClient, admin: Person, values: dict[str, Any], place: str
) -> None:
    with pytest.raises(GraphQLFailure) as failure:
        await create(client, admin, **values)
    assert failure.value.code == "VALIDATION_ERROR"
    assert failure.value.extensions["details"]["path"] == ["input", place]


@pytest.mark.parametrize("values", [{}, {"state": "MONITORING"}, {"message": ""}, {"services": []}, {"title": ""}])
async def test_faulty_updates_are_refused(client: GraphQLClient, admin: Person, values: dict[str, Any]) -> None:
    made = await create(client, admin)
    code, _ = await refused(client, UPDATE, admin.token, input={"id": made["id"], **values})
    assert code == "VALIDATION_ERROR"
    assert (await client.run(ONE, {"id": made["id"]}))["incident"] == made


async def test_only_administrators_write(client: GraphQLClient, admin: Person) -> None:
    user = await new_user(client)
    made = await create(client, admin)
    for document, values in ((CREATE, GOOD), (UPDATE, {"id": made["id"], "title": "Mine"})):
        assert (await refused(client, document, user.token, input=values))[0] == "FORBIDDEN"
        assert (await refused(client, document, None, input=values))[0] == "UNAUTHORIZED"
    missing = encode_id(Prefix.INCIDENT, NOBODYS_ID)
    assert (await refused(client, UPDATE, admin.token, input={"id": missing, "title": "x"}))[0] == "NOT_FOUND"
    assert (await refused(client, ONE, None, id=missing))[0] == "NOT_FOUND"
    assert (await refused(client, ONE, None, id="inc_"))[0] == "NOT_FOUND"


async def test_a_key_makes_one_incident(client: GraphQLClient, admin: Person) -> None:
    key = secrets.token_hex(8)
    first, second = await asyncio.gather(*(create(client, admin, idempotencyKey=key) for _ in range(2)))
    assert first["id"] == second["id"]
    other = {**GOOD, "title": "Another", "idempotencyKey": key}
    assert (await refused(client, CREATE, admin.token, input=other))[0] == "CONFLICT"


async def test_updates_at_once_are_all_told_in_one_order(client: GraphQLClient, admin: Person) -> None:
    made = await create(client, admin)
    await asyncio.gather(*(update(client, admin, made["id"], message=f"{number}") for number in range(8)))
    told = (await client.run(ONE, {"id": made["id"]}))["incident"]["updates"]
    assert sorted(each["message"] for each in told[1:]) == [str(number) for number in range(8)]


async def test_an_incident_has_so_many_updates(client: GraphQLClient, admin: Person, desk: Desk) -> None:
    made = await create(client, admin)
    await desk.pool.execute("UPDATE incidents SET update_count = 200 WHERE id = $1", uuid(made["id"]))
    assert (await refused(client, UPDATE, admin.token, input={"id": made["id"], "message": "x"}))[0] == "CONFLICT"
    assert (await update(client, admin, made["id"], title="Still to be corrected"))["updatedAt"] > made["updatedAt"]


async def test_lists_are_paged(page: Page, client: GraphQLClient, admin: Person) -> None:
    made = [
        (await create(client, admin, title=f"Number {n}", state="RESOLVED" if n % 2 else "MONITORING"))["title"]
        for n in range(5)
    ]

    async def listed(**variables: Any) -> tuple[list[str], dict[str, Any]]:
        found = (await client.run(LIST, variables))["statusPage"]["incidents"]
        return [edge["node"]["title"] for edge in found["edges"]], found

    newest_first = made[::-1]
    await page.read()
    titles, found = await listed(first=2)
    assert (titles, found["totalCount"], found["pageInfo"]["hasNextPage"]) == (newest_first[:2], 5, True)
    assert (await listed(first=9, after=found["pageInfo"]["endCursor"]))[0] == newest_first[2:]
    assert (await listed(last=2))[0] == newest_first[-2:]
    titles, found = await listed(state="RESOLVED")
    assert (titles, found["totalCount"]) == ([made[3], made[1]], 2)
    assert (await listed(first=100))[0] == newest_first


# -- the stream


async def test_the_stream_tells_the_state_and_every_change(
    page: Page, client: GraphQLClient, admin: Person, api_server: ApiServer
) -> None:
    async with subscribe(api_server.ws_url, LIVE) as stream:
        first = (await stream.next())["serviceStatus"]
        assert (first["overall"], first["incidents"]) == ("UNKNOWN", [])
        made = await create(client, admin)
        assert (await stream.next())["serviceStatus"]["incidents"] == [
            {"title": "Slow builds", "updates": [{"message": "We look."}]}
        ]
        await update(client, admin, made["id"], message="Found it.")
        assert len((await stream.next())["serviceStatus"]["incidents"][0]["updates"]) == 2
        await update(client, admin, made["id"], state="RESOLVED", message="Over.")
        assert (await stream.next())["serviceStatus"]["incidents"] == []
        await page.found(Service.API, (ServiceState.OPERATIONAL, 5.0))
        await page.desk.tell(StatusChanged())
        assert (await stream.next())["serviceStatus"]["services"][0] == {"service": "API", "state": "OPERATIONAL"}
        # Another probe that finds the same is no news: the next thing told is the incident.
        await page.found(Service.API, (ServiceState.OPERATIONAL, 9.0))
        await page.desk.tell(StatusChanged())
        await create(client, admin, title="News")
        assert (await stream.next())["serviceStatus"]["incidents"][0]["title"] == "News"


async def test_a_lost_event_costs_seconds(page: Page, api_server: ApiServer, desk: Desk) -> None:
    async with subscribe(api_server.ws_url, LIVE) as stream:
        await stream.next()
        await desk.pool.execute(
            """INSERT INTO incidents (id, title, state, impact, services, started_at, updated_at, update_count)
               VALUES ($1, 'Quiet', 'MONITORING', 'MINOR', '{API}', now(), now(), 0)""",
            new_id(),
        )
        assert (await stream.next())["serviceStatus"]["incidents"][0]["title"] == "Quiet"


# -- the feed and the page


@pytest_asyncio.fixture
async def http(api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api_server.url, trust_env=False) as opened:
        yield opened


async def test_the_feed_is_atom(page: Page, client: GraphQLClient, admin: Person, http: httpx.AsyncClient) -> None:
    await page.read()
    empty = ElementTree.fromstring((await http.get("/status.atom")).content)
    assert empty.find("a:updated", ATOM) is not None
    nasty = "<script>&\"'\u00e9"
    made = await create(client, admin, title=nasty, message="One\n<b>two</b> & ]]>")
    answer = await http.get("/status.atom")
    assert answer.headers["content-type"] == "application/atom+xml; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=30"
    feed = ElementTree.fromstring(answer.content)
    for element in (feed, *feed.findall("a:entry", ATOM)):
        for name in ("id", "title", "updated"):
            assert len(element.findall(f"a:{name}", ATOM)) == 1, "RFC 4287 §4.1.1 and §4.1.2"
    assert feed.find("a:author/a:name", ATOM) is not None
    (entry,) = feed.findall("a:entry", ATOM)
    assert entry.findtext("a:title", namespaces=ATOM) == nasty
    assert entry.findtext("a:id", namespaces=ATOM) == f"urn:uuid:{uuid(made['id'])}"
    content = entry.findtext("a:content", namespaces=ATOM) or ""
    assert "One<br/>&lt;b&gt;two&lt;/b&gt; &amp; ]]&gt;" in content
    link = entry.find("a:link", ATOM)
    assert link is not None
    assert link.attrib["href"] == f"{http.base_url}/status#{made['id']}"
    assert datetime.fromisoformat(feed.findtext("a:updated", namespaces=ATOM) or "") == datetime.fromisoformat(
        made["updatedAt"]
    ).replace(microsecond=0)


async def test_a_feed_that_is_known_is_not_sent_again(
    page: Page, client: GraphQLClient, admin: Person, http: httpx.AsyncClient
) -> None:
    made = await create(client, admin)
    first = await http.get("/status.atom")
    tag, changed = first.headers["etag"], first.headers["last-modified"]
    assert parsedate_to_datetime(changed) <= datetime.now(UTC)
    assert (await http.get("/status.atom", headers={"If-None-Match": tag})).status_code == 304
    assert (await http.get("/status.atom", headers={"If-Modified-Since": changed})).status_code == 304
    assert (await http.get("/status.atom", headers={"If-Modified-Since": "yesterday"})).status_code == 200
    assert (await http.head("/status.atom")).content == b""
    await update(client, admin, made["id"], message="More.")
    assert (await http.get("/status.atom", headers={"If-None-Match": tag})).status_code == 200


async def test_the_page_brings_its_policy_and_its_files(http: httpx.AsyncClient) -> None:
    answer = await http.get("/status")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert (await http.get("/status", headers={"If-None-Match": answer.headers["etag"]})).status_code == 304
    for name in ("status.css", "status.js"):
        assert f"status/files/{name}" in answer.text
        assert (await http.get(f"/status/files/{name}")).status_code == 200
    assert (await http.get("/status/files/status.html")).status_code == 404


def uuid(id_: str) -> UUID:
    prefix, value = decode_id(id_)
    assert prefix == Prefix.INCIDENT
    return value
