"""Scans through the API: asked for, refused, listed, decided about, compared, exported and removed.

No worker runs: scans wait, or are ended as a worker ends them. What workers do is in tests/worker/test_scan_*.py.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from adapters import storage
from errors import PayloadTooLarge, ValidationFailed
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.scan_queries import Findings, NewRisk
from models.scans import RiskSeverity, ScanSource, SeveritySource
from resolvers import scans
from resolvers.scan_inputs import MAX_TEXT_BYTES, document_key_of
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.ai_server import DELAY
from tests.harness.client import GraphQLClient, bearer
from tests.harness.scans import (
    CANCEL,
    COMPARE,
    DELETE,
    EXPORT,
    LIST,
    NODES,
    ONE,
    RISK,
    SCAN,
    SUBMIT,
    TRIAGE,
    Lab,
    open_lab,
    pdf_of,
    uuid_in,
)

MAX_QUEUED = 40
SETTINGS = {"MAX_QUEUED_PER_USER": str(MAX_QUEUED), "SCAN_MAX_MEGABYTES": "1"}
BUDGET = "The project is over budget by 40%."


@pytest_asyncio.fixture(scope="module")
async def lab(
    client: GraphQLClient, settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lab]:
    async with open_lab(client, settings_env, tmp_path_factory.mktemp("files")) as opened:
        yield opened


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


def risk(text: str, category: str = "schedule", severity: RiskSeverity = RiskSeverity.HIGH, **fields: Any) -> NewRisk:
    """A risk as a service finds it."""
    columns: dict[str, Any] = {
        "category": category,
        "risk": f"About {text}",
        "context": text,
        "severity": severity,
        "severity_source": SeveritySource.UPSTREAM,
        "confidence": None,
        "start": None,
        "end": None,
        "page": None,
        "rule": None,
        "cue": None,
        "fingerprint": (text.encode().hex() * 64)[:64],
        "extra": None,
    }
    return NewRisk(**{**columns, **fields})


def found(*risks: NewRisk, source: ScanSource = ScanSource.LLM) -> Findings:
    return Findings(risks, source, {"scanner": "stand-in", "version": "2"}, is_truncated=False)


async def with_risks(lab: Lab, person: Person, *risks: NewRisk, **fields: Any) -> dict[str, Any]:
    """A scan that found these."""
    scan_id = (await lab.submit(person, **{"text": DELAY, **fields}))["id"]
    await lab.finish(scan_id, found(*risks))
    return await lab.read(person, scan_id)


# -- who


def questions(scan_id: str, risk_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (ONE, {"id": scan_id}),
        (CANCEL, {"input": {"id": scan_id}}),
        (DELETE, {"input": {"id": scan_id}}),
        (COMPARE, {"base": scan_id, "head": scan_id}),
        (EXPORT, {"id": scan_id, "format": "JSON"}),
        (TRIAGE, {"input": {"riskId": risk_id, "state": "ACCEPTED"}}),
    ]


async def test_nobody_sees_and_changes_nothing(lab: Lab, person: Person) -> None:
    scan = await lab.finished(person, text=DELAY)
    for document, variables in [
        (LIST, {}),
        (SUBMIT, {"input": {"text": DELAY}}),
        *questions(scan["id"], scan["risks"][0]["id"]),
    ]:
        assert (await lab.refused(None, document, **variables)).code == "UNAUTHORIZED"
    assert await lab.run(None, NODES, ids=[scan["id"]]) == [None]


async def test_scans_of_others_do_not_exist(lab: Lab, person: Person, client: GraphQLClient) -> None:
    other = await new_user(client)
    scan = await lab.finished(person, text=DELAY)
    risk_id = scan["risks"][0]["id"]
    answers = set()
    for scan_id, risk_ in (
        (scan["id"], risk_id),
        (encode_id(Prefix.SCAN, NOBODYS_ID), encode_id(Prefix.RISK, NOBODYS_ID)),
        (risk_id, scan["id"]),
        ("nonsense", ""),
    ):
        for document, variables in questions(scan_id, risk_):
            failure = await lab.refused(other, document, **variables)
            answers.add((failure.errors[0]["message"], failure.code))
    assert len(answers) == 1
    assert {code for _, code in answers} == {"NOT_FOUND"}
    assert (await lab.run(other, LIST))["totalCount"] == 0
    assert await lab.run(other, NODES, ids=[scan["id"]]) == [None]


async def test_administrators_see_and_decide_for_the_owner(lab: Lab, person: Person, admin: Person) -> None:
    scan = await lab.finished(person, text=DELAY)
    assert (await lab.read(admin, scan["id"]))["riskCount"] == 1
    await lab.run(admin, TRIAGE, input={"riskId": scan["risks"][0]["id"], "state": "MITIGATED"})
    [known] = (await lab.finished(person, text=DELAY))["risks"]
    assert known["state"] == "MITIGATED"
    theirs = await lab.finished(admin, text=DELAY)
    assert theirs["risks"][0]["state"] == "OPEN", "a decision is the owner's"
    failure = await lab.refused(admin, COMPARE, base=scan["id"], head=theirs["id"])
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["head"])


# -- asking for one


async def test_a_text_is_queued_as_it_is(lab: Lab, person: Person) -> None:
    scan = await lab.submit(person, text=f"  {DELAY}\n", filename=" Plan.txt ")
    assert (scan["status"], scan["filename"], scan["contentType"], scan["size"]) == (
        *("QUEUED", "Plan.txt", "text/plain", len(DELAY) + 3),
    )
    assert (scan["risks"], scan["summary"], scan["source"], scan["scanner"], scan["riskCount"]) == (
        *([], [], None, None, 0),
    )
    assert scan["requestedBy"]["id"] == person.id
    stored = await lab.pool.fetchval("SELECT text FROM scans WHERE execution_id = $1", uuid_in(scan["id"]))
    assert stored == f"  {DELAY}\n"
    assert await lab.run(person, NODES, ids=[scan["id"]]) == [{"__typename": "Scan", "id": scan["id"]}]
    acts = await lab.pool.fetch(
        "SELECT action, details::text FROM audit_events WHERE target_id = $1", uuid_in(scan["id"])
    )
    assert [act["action"] for act in acts] == ["submitScan"]
    assert "Plan" not in acts[0]["details"]


REFUSED: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, ["input"]),
    ({"text": ""}, ["input", "text"]),
    ({"text": " \n\t "}, ["input", "text"]),
    ({"text": "x" * (MAX_TEXT_BYTES + 1)}, ["input", "text"]),
    ({"text": "ü" * (MAX_TEXT_BYTES // 2 + 1)}, ["input", "text"]),
    ({"text": DELAY, "mediaId": "med_x"}, ["input", "mediaId"]),
    ({"text": DELAY, "filename": ""}, ["input", "filename"]),
    ({"text": DELAY, "filename": "x" * 256}, ["input", "filename"]),
    ({"text": DELAY, "filename": "a\nb"}, ["input", "filename"]),
    ({"text": DELAY, "idempotencyKey": ""}, ["input", "idempotencyKey"]),
]


@pytest.mark.parametrize(("fields", "path"), REFUSED, ids=range(len(REFUSED)))
async def test_what_cannot_be_scanned_is_refused_at_once(
    lab: Lab, person: Person, fields: dict[str, Any], path: list[Any]
) -> None:
    failure = await lab.refused(person, SUBMIT, input=fields)
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", path)


FILES: dict[str, tuple[bytes, str, str]] = {
    "a PDF by any name": (pdf_of(DELAY), "plan.txt", "application/pdf"),
    "a PDF behind something else": (b"junk\n" + pdf_of(DELAY), "x", "application/pdf"),
    "a page by its beginning": (b"\xef\xbb\xbf <!DOCTYPE HTML><p>x", "page", "text/html"),
    "a page by its name": (b"<p>x", "PAGE.HTM", "text/html"),
    "Markdown": (b"# x", "x.md", "text/markdown"),
    "a table": (b"a;b", "x.csv", "text/csv"),
    "anything that is text": (b"x", "x.exe", "text/plain"),
    "UTF-16": ("\ufeffx".encode("utf-16-le"), "x.txt", "text/plain"),
    "Latin-1": (b"caf\xe9", "x", "text/plain"),
}


@pytest.mark.parametrize("what", FILES)
async def test_a_file_is_stored_with_its_type(lab: Lab, person: Person, what: str) -> None:
    content, filename, content_type = FILES[what]
    scan_id = await lab.upload(person, content, filename)
    scan = await lab.read(person, scan_id)
    assert (scan["contentType"], scan["filename"], scan["size"]) == (content_type, filename, len(content))
    key = scans.object_key(uuid_in(scan_id))
    assert await lab.objects(key) == [key]


def word_document() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return file.getvalue()


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "white": (b" \n" * 100_000, "no text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "no text, Markdown"),
    "a program": (b"\x7fELF" + b"x" * 100_000 + b"\0", "no text, Markdown"),
    "an archive": (b"PK\x03\x04nothing", "no text, Markdown"),
    "a Word document without a service": (word_document(), "Word documents are not read here"),
}


@pytest.mark.parametrize("what", BAD_FILES)
async def test_a_file_that_cannot_be_read_is_refused_and_not_kept(lab: Lab, person: Person, what: str) -> None:
    content, message = BAD_FILES[what]
    before = await lab.state()
    with pytest.raises(ValidationFailed, match=message) as failure:
        await lab.upload(person, content, "plan.txt")
    assert failure.value.details["path"] == ["input", "upload"]
    assert await lab.state() == before


async def test_a_file_that_is_too_large_is_refused(lab: Lab, person: Person) -> None:
    before = await lab.state()
    with pytest.raises(PayloadTooLarge):
        await lab.upload(person, b"x" * (2**20 + 1), "plan.txt")
    assert await lab.state() == before


async def test_a_file_without_a_scan_does_not_stay(lab: Lab, person: Person) -> None:
    """The transaction fails behind the upload: the key was used for something else."""
    await lab.upload(person, b"one", "one.txt", idempotency_key="same")
    again = await lab.upload(person, b"one", "one.txt", idempotency_key="same")
    before = await lab.state()
    with pytest.raises(Exception, match="different request"):
        await lab.upload(person, b"two", "two.txt", idempotency_key="same")
    await lab.pool.execute("UPDATE users SET is_active = false WHERE username = $1", person.username)
    with pytest.raises(Exception, match="not active"):
        await lab.upload(person, b"three", "three.txt")
    assert await lab.state() == before
    assert await lab.objects(f"scans/{uuid_in(again)}") == [scans.object_key(uuid_in(again))]


async def test_a_file_comes_with_the_operation(lab: Lab, person: Person) -> None:
    async def send(content: bytes, filename: str, **fields: Any) -> dict[str, Any]:
        operations = {"query": SUBMIT + SCAN + RISK, "variables": {"input": {"upload": None, **fields}}}
        answer = await lab.client.http.post(
            lab.client.url,
            files={
                "operations": (None, json.dumps(operations)),
                "map": (None, json.dumps({"0": ["variables.input.upload"]})),
                "0": (filename, content, "application/x-anything"),
            },
            headers={**bearer(person.token), "X-Requested-With": "tests"},
        )
        body: dict[str, Any] = answer.json()
        return body

    content = pdf_of(DELAY)
    scan = (await send(content, "Plan.pdf"))["data"]["it"]["scan"]
    assert (scan["filename"], scan["contentType"], scan["size"]) == ("Plan.pdf", "application/pdf", len(content))
    [key] = await lab.objects(f"scans/{uuid_in(scan['id'])}")
    assert b"".join([chunk async for chunk in storage.current().get(key)]) == content
    before = await lab.state()
    both = await send(content, "Plan.pdf", text=DELAY)
    assert both["errors"][0]["extensions"]["details"]["path"] == ["input", "upload"]
    picture = await send(b"\x89PNG\r\n\x1a\n\0", "plan.pdf")
    assert picture["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"
    assert await lab.state() == before


async def test_names_that_look_like_paths_are_none(lab: Lab, person: Person) -> None:
    scan = await lab.read(person, await lab.upload(person, b"x", "..\\..\\a/../../etc/pass\u202ewd"))
    assert scan["filename"] == "passwd"


async def test_media_of_others_are_not_scanned(lab: Lab, person: Person, admin: Person, client: GraphQLClient) -> None:
    other = await new_user(client)
    medium = await lab.medium(other, pdf_of(DELAY))
    for id_ in (medium, encode_id(Prefix.MEDIA, NOBODYS_ID), "nonsense"):
        assert (await lab.refused(person, SUBMIT, input={"mediaId": id_})).code == "NOT_FOUND"
    assert (await lab.refused(admin, SUBMIT, input={"mediaId": medium})).code == "NOT_FOUND"
    scan = await lab.submit(other, mediaId=medium)
    assert (scan["mediaId"], scan["filename"], scan["contentType"]) == (medium, "plan.pdf", "application/pdf")
    await lab.pool.execute("UPDATE media SET kind = 'IMAGE' WHERE id = $1", uuid_in(medium))
    failure = await lab.refused(other, SUBMIT, input={"mediaId": medium})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["input", "mediaId"])


async def test_a_key_makes_one_scan(lab: Lab, person: Person) -> None:
    one = await lab.submit(person, text=DELAY, idempotencyKey="k")
    again = await lab.submit(person, text=DELAY, idempotencyKey="k")
    assert again["id"] == one["id"]
    assert (await lab.run(person, LIST))["totalCount"] == 1
    failure = await lab.refused(person, SUBMIT, input={"text": BUDGET, "idempotencyKey": "k"})
    assert (failure.code, failure.extensions["details"]["path"]) == ("CONFLICT", ["input", "idempotencyKey"])


async def test_too_many_that_wait_are_refused(lab: Lab, person: Person) -> None:
    for number in range(MAX_QUEUED):
        await lab.submit(person, text=f"{DELAY} {number}")
    failure = await lab.refused(person, SUBMIT, input={"text": DELAY})
    assert (failure.code, failure.extensions["details"]["limit"]) == ("RATE_LIMIT_EXCEEDED", MAX_QUEUED)


async def test_scans_are_counted_by_the_hour(lab: Lab, api_server: ApiServer) -> None:
    counting = await api_server.second(RATE_LIMITS="true", RATE_LIMIT_SCANS_PER_HOUR="2")
    async with GraphQLClient(counting.graphql_url) as client:
        person = await new_user(client)
        other = Lab(client, lab.desk, lab.folder)
        keyed = await other.submit(person, text=DELAY, idempotencyKey="k")
        assert (await other.submit(person, text=DELAY, idempotencyKey="k"))["id"] == keyed["id"]
        assert (await other.refused(person, SUBMIT, input={"text": ""})).code == "VALIDATION_ERROR"
        await other.submit(person, text=BUDGET)
        failure = await other.refused(person, SUBMIT, input={"text": DELAY})
        assert (failure.code, failure.extensions["details"]["policy"]) == ("RATE_LIMIT_EXCEEDED", "scans")
        assert (await other.submit(person, text=DELAY, idempotencyKey="k"))["id"] == keyed["id"]
    await counting.stop()


# -- stopping and removing


async def test_a_waiting_scan_is_cancelled_and_a_final_one_removed_with_its_file(lab: Lab, person: Person) -> None:
    scan_id = await lab.upload(person, b"x", "x.txt")
    assert (await lab.refused(person, DELETE, input={"id": scan_id})).code == "CONFLICT"
    cancelled = (await lab.run(person, CANCEL, input={"id": scan_id}))["scan"]
    assert cancelled["status"] == "CANCELLED"
    assert (await lab.run(person, CANCEL, input={"id": scan_id}))["scan"]["status"] == "CANCELLED"
    assert (await lab.run(person, DELETE, input={"id": scan_id}))["deletedId"] == scan_id
    assert await lab.objects(f"scans/{uuid_in(scan_id)}") == []
    assert (await lab.refused(person, ONE, id=scan_id)).code == "NOT_FOUND"
    acts = await lab.pool.fetch(
        "SELECT action, target_type FROM audit_events WHERE target_id = $1 ORDER BY id", uuid_in(scan_id)
    )
    assert [tuple(act) for act in acts] == [
        ("submitScan", "scan"), ("cancelScan", "scan"), ("cancelScan", "scan"), ("deleteScan", "scan"),
    ]  # fmt: skip


async def test_a_scan_that_works_is_not_removed(lab: Lab, person: Person) -> None:
    scan_id = (await lab.submit(person, text=DELAY))["id"]
    await lab.desk.claim(uuid_in(scan_id))
    assert (await lab.refused(person, DELETE, input={"id": scan_id})).code == "CONFLICT"


# -- reading


async def test_lists_are_filtered_by_everything_that_scans_have(lab: Lab, person: Person) -> None:
    low = await with_risks(lab, person, risk("first words", "Money", RiskSeverity.LOW), filename="Budget 100%.txt")
    high = await with_risks(lab, person, risk("second words", "law"), risk("third", "money", RiskSeverity.CRITICAL))
    medium = await lab.medium(person, pdf_of(DELAY))
    waiting = await lab.submit(person, mediaId=medium)
    embedded = await lab.finished(person, text=DELAY)

    async def ids(**conditions: Any) -> list[str]:
        page = await lab.run(person, LIST, filter=conditions)
        assert page["totalCount"] == len(page["edges"])
        return [edge["node"]["id"] for edge in page["edges"]]

    assert await ids() == [embedded["id"], waiting["id"], high["id"], low["id"]]
    assert await ids(status=["QUEUED"]) == [waiting["id"]]
    assert await ids(source="LLM") == [high["id"], low["id"]]
    assert await ids(category="MONEY") == [high["id"], low["id"]]
    assert await ids(minSeverity="CRITICAL") == [high["id"]]
    assert await ids(search="100%") == [low["id"]]
    assert await ids(search="SECOND WORDS") == [high["id"]]
    assert await ids(search="%") == [low["id"]]
    assert await ids(mediaId=medium) == [waiting["id"]]
    assert await ids(source="LLM", minSeverity="HIGH", category="law") == [high["id"]]
    assert await ids(queuedTo="2001-01-01T00:00:00Z") == []
    first = await lab.run(person, LIST, first=3)
    rest = await lab.run(person, LIST, first=3, after=first["pageInfo"]["endCursor"])
    assert [edge["node"]["id"] for edge in rest["edges"]] == [low["id"]]
    assert (await lab.refused(person, LIST, filter={"search": "x" * 201})).code == "VALIDATION_ERROR"


async def test_risks_come_worst_first_and_in_pages(lab: Lab, person: Person) -> None:
    severities = [RiskSeverity(each) for each in ("LOW", "CRITICAL", "MEDIUM", "CRITICAL", "HIGH")]
    scan = await with_risks(
        lab, person, *(risk(f"r{n}", "ab"[n % 2], severity) for n, severity in enumerate(severities))
    )
    assert [each["context"] for each in scan["risks"]] == ["r1", "r3", "r4", "r2", "r0"]
    assert scan["summary"] == [
        {
            "category": "a",
            "count": 3,
            "bySeverity": [{"severity": s, "count": 1} for s in ("HIGH", "MEDIUM", "LOW")],
        },
        {"category": "b", "count": 2, "bySeverity": [{"severity": "CRITICAL", "count": 2}]},
    ]
    document = """
    query ($id: ID!, $f: RiskFilter, $n: Int! = 9, $o: Int! = 0) {
      it: scan(id: $id) { risks(filter: $f, first: $n, offset: $o) { context } }
    }"""

    async def contexts(f: dict[str, Any] | None = None, **page: int) -> list[str]:
        return [each["context"] for each in (await lab.run(person, document, id=scan["id"], f=f, **page))["risks"]]

    assert await contexts(n=2, o=1) == ["r3", "r4"]
    assert await contexts({"severity": ["LOW", "HIGH"]}) == ["r4", "r0"]
    assert await contexts({"category": ["B"]}, n=1) == ["r1"]
    assert await contexts({"state": ["ACCEPTED"]}) == []
    assert (await lab.refused(person, document, id=scan["id"], n=1_001)).code == "VALIDATION_ERROR"
    assert (await lab.refused(person, document, id=scan["id"], o=-1)).code == "VALIDATION_ERROR"


# -- deciding


async def test_a_decision_is_carried_to_later_scans_of_the_document(lab: Lab, person: Person) -> None:
    first = await lab.finished(person, text=f"{DELAY}\n\nAll is well.", filename="Plan.TXT")
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    decided = (
        await lab.run(
            person,
            TRIAGE,
            input={"riskId": first["risks"][0]["id"], "state": "ACCEPTED", "note": " Known.\n", "until": until},
        )
    )["risk"]
    assert (decided["state"], decided["triage"]["note"]) == ("ACCEPTED", "Known.")
    assert decided["triage"]["decidedBy"]["id"] == person.id
    changed = f"New words first. {DELAY.replace('four', 'FOUR')}"
    [later] = (await lab.finished(person, text=changed, filename="  plan.txt"))["risks"]
    assert later["triage"] == decided["triage"]
    [elsewhere] = (await lab.finished(person, text=changed, filename="other.txt"))["risks"]
    assert (elsewhere["state"], elsewhere["triage"]) == ("OPEN", None)
    await lab.pool.execute("UPDATE risk_triage SET until = now() - interval '1 second' WHERE note = 'Known.'")
    [reopened] = (await lab.read(person, first["id"]))["risks"]
    assert (reopened["state"], reopened["triage"]) == ("OPEN", None)


async def test_the_last_decision_counts_and_open_takes_it_back(lab: Lab, person: Person) -> None:
    [known] = (await lab.finished(person, text=DELAY))["risks"]
    for state in ("FALSE_POSITIVE", "MITIGATED", "OPEN"):
        answer = await lab.run(person, TRIAGE, input={"riskId": known["id"], "state": state})
        assert answer["risk"]["state"] == state
    kept = await lab.pool.fetch("SELECT state FROM risk_triage WHERE owner_id = $1", uuid_in(person.id))
    assert [row["state"] for row in kept] == ["OPEN"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"until": "2001-01-01T00:00:00Z"}, "until"),
        ({"until": "9999-01-01T00:00:00Z"}, "until"),
        ({"state": "OPEN", "until": "2500-01-01T00:00:00Z"}, "until"),
        ({"note": "x" * 2_001}, "note"),
        ({"note": "a\u202eb"}, "note"),
    ],
)
async def test_a_decision_that_makes_no_sense_is_refused(
    lab: Lab, person: Person, fields: dict[str, Any], path: str
) -> None:
    [known] = (await lab.finished(person, text=DELAY))["risks"]
    failure = await lab.refused(person, TRIAGE, input={"riskId": known["id"], "state": "ACCEPTED", **fields})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["input", path])


async def test_decisions_outlive_the_scan(lab: Lab, person: Person) -> None:
    scan = await lab.finished(person, text=DELAY)
    await lab.run(person, TRIAGE, input={"riskId": scan["risks"][0]["id"], "state": "ACCEPTED"})
    await lab.run(person, DELETE, input={"id": scan["id"]})
    assert (await lab.finished(person, text=DELAY))["risks"][0]["state"] == "ACCEPTED"


# -- comparing


async def test_a_comparison_says_what_is_new_unchanged_and_absent(lab: Lab, person: Person) -> None:
    base = await with_risks(lab, person, risk("a"), risk("b"), risk("b"), risk("c"), filename="x.txt")
    head = await with_risks(lab, person, risk("b"), risk("c"), risk("c"), risk("d"), filename="X.txt")
    answer = await lab.run(person, COMPARE, base=base["id"], head=head["id"])
    entries = [(each["change"], each["risk"]["context"], each["before"] is not None) for each in answer["entries"]]
    assert entries == [
        ("UNCHANGED", "b", True), ("UNCHANGED", "c", True), ("NEW", "c", False), ("NEW", "d", False),
        ("ABSENT", "a", True), ("ABSENT", "b", True),
    ]  # fmt: skip
    assert {each["change"]: each["count"] for each in answer["counts"]} == {"NEW": 2, "UNCHANGED": 2, "ABSENT": 2}
    assert answer["sameDocument"]
    only = await lab.run(person, COMPARE, base=base["id"], head=head["id"], change=["NEW"])
    assert [each["risk"]["context"] for each in only["entries"]] == ["c", "d"]
    same = await lab.run(person, COMPARE, base=head["id"], head=head["id"])
    assert {each["change"] for each in same["entries"]} == {"UNCHANGED"}


async def test_only_what_succeeded_is_compared_and_exported(lab: Lab, person: Person) -> None:
    done = await lab.finished(person, text=DELAY)
    failed = (await lab.submit(person, text=DELAY))["id"]
    await lab.finish(failed, status=ExecutionStatus.CANCELLED)
    waiting = (await lab.submit(person, text=DELAY))["id"]
    for unfit in (failed, waiting):
        assert (await lab.refused(person, COMPARE, base=done["id"], head=unfit)).code == "CONFLICT"
        assert (await lab.refused(person, EXPORT, id=unfit, format="CSV")).code == "CONFLICT"


# -- exporting


async def test_a_table_holds_no_formula(lab: Lab, person: Person) -> None:
    scan = await with_risks(
        lab, person, risk('=HYPERLINK("http://a.example")', "+law", start=5, end=9), risk('plain;text\n"quoted"')
    )
    file = await lab.run(person, EXPORT, id=scan["id"], format="CSV")
    assert (file["filename"], file["contentType"]) == (f"{scan['id']}.csv", "text/csv; charset=utf-8")
    assert file["content"].startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(file["content"][1:], newline="")))
    assert [row["context"] for row in rows] == ['\'=HYPERLINK("http://a.example")', 'plain;text\n"quoted"']
    assert (rows[0]["category"], rows[0]["start"], rows[0]["page"]) == ("'+law", "5", "")


async def test_json_holds_everything(lab: Lab, person: Person) -> None:
    scan = await with_risks(lab, person, risk("a", extra='{"mood": 1}'), filename="x.txt")
    file = await lab.run(person, EXPORT, id=scan["id"], format="JSON")
    data = json.loads(file["content"])
    assert (data["id"], data["filename"], data["source"], data["riskCount"]) == (scan["id"], "x.txt", "LLM", 1)
    assert (data["risks"][0]["id"], data["risks"][0]["extra"]) == (scan["risks"][0]["id"], {"mood": 1})


async def test_exports_of_the_same_scan_are_the_same(lab: Lab, person: Person) -> None:
    scan = await lab.finished(person, text=f"{DELAY} {BUDGET}")
    for format in ("JSON", "CSV", "SARIF"):
        one, other = [await lab.run(person, EXPORT, id=scan["id"], format=format) for _ in range(2)]
        assert one == other


async def test_sarif_has_what_the_standard_requires(lab: Lab, person: Person) -> None:
    """The properties that SARIF 2.1.0 requires, by section: no copy of its schema is at hand in the tests."""
    risks = [
        risk("a", start=3, end=4, page=2, rule="schedule.delayed", cue="late", confidence=0.25),
        risk("b", severity=RiskSeverity.LOW, rule="schedule.delayed"),
        risk("c", "law", severity=RiskSeverity.MEDIUM),
    ]
    scan = await with_risks(lab, person, *risks, filename="Plan für #1.txt")
    await lab.run(person, TRIAGE, input={"riskId": scan["risks"][1]["id"], "state": "ACCEPTED", "note": "Fine."})
    file = await lab.run(person, EXPORT, id=scan["id"], format="SARIF")
    log = json.loads(file["content"])
    assert (log["version"], file["filename"]) == ("2.1.0", f"{scan['id']}.sarif")  # §3.13.2
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("stand-in", "2")  # §3.19.8
    ids = [rule["id"] for rule in driver["rules"]]
    assert ids == ["schedule.delayed", "law"]  # §3.49.3, each once
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    [artifact] = run["artifacts"]
    assert artifact["location"]["uri"] == "Plan%20f%C3%BCr%20%231.txt"  # §3.4.3, RFC 3986
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is True  # §3.20.14
    assert datetime.fromisoformat(invocation["endTimeUtc"]).tzinfo == UTC
    assert len(run["results"]) == 3
    for result in run["results"]:
        assert result["message"]["text"]  # §3.27.11
        assert ids[result["ruleIndex"]] == result["ruleId"]  # §3.27.6
        assert result["level"] in ("none", "note", "warning", "error")
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for location in result["locations"]:
            assert location["physicalLocation"]["artifactLocation"]["index"] == 0
    levels = {result["properties"]["context"]: result["level"] for result in run["results"]}
    assert levels == {"a": "error", "b": "note", "c": "warning"}
    first = next(result for result in run["results"] if result["properties"]["context"] == "a")
    region = first["locations"][0]["physicalLocation"]["region"]
    assert (region["charOffset"], region["charLength"], region["snippet"]) == (3, 1, {"text": "a"})
    assert first["rank"] == 25.0
    suppressed = [result for result in run["results"] if "suppressions" in result]
    assert [result["suppressions"][0]["kind"] for result in suppressed] == ["external"]  # §3.35.2
    assert suppressed[0]["suppressions"][0]["justification"] == "Fine."


# -- small rules


@pytest.mark.parametrize(
    ("one", "other"), [("Plan.txt", "PLAN.TXT"), ("a  b", " A B "), ("ﬁle", "FILE"), ("e\u0301", "É")]
)
def test_names_that_differ_in_writing_are_one_document(one: str, other: str) -> None:
    assert document_key_of(one) == document_key_of(other)


def test_keys_of_documents_fit_their_column() -> None:
    assert len(document_key_of("ﷺ" * 255)) <= 128
    assert document_key_of("x" * 200) != document_key_of("x" * 201)
