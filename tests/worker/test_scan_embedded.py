"""Scans without a service, with a real worker: the embedded scanner over texts and files, hostile ones too."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapters import scanner
from models import media_queries
from tests.conftest import Programs
from tests.factories import Person, new_user
from tests.harness.ai_server import DELAY
from tests.harness.client import GraphQLClient, subscribe
from tests.harness.processes import CLI, Program
from tests.harness.scans import CANCEL, Lab, open_lab, pdf_of, uuid_in
from tests.harness.waiting import leftover_processes

SETTINGS = {
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "4",
    "MAX_SCANS_PER_USER": "4",
}
FOLLOW = """
subscription ($id: ID!) { execution(id: $id) { __typename status stage progress ... on Scan { riskCount source } } }
"""
LINES = "subscription ($id: ID!) { logs(executionId: $id) { lines { message } complete } }"


@pytest_asyncio.fixture(scope="module")
async def worker(programs: Programs) -> Program:
    started = programs.start([CLI, "worker"], kind="worker")
    await started.wait_event("worker_started")
    return started


@pytest_asyncio.fixture(scope="module")
async def lab(
    client: GraphQLClient, settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory, worker: Program
) -> AsyncIterator[Lab]:
    async with open_lab(client, settings_env, tmp_path_factory.mktemp("files")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def test_a_text_is_scanned_by_the_embedded_rules(lab: Lab, person: Person) -> None:
    text = f"All is well.\n\n{DELAY}"
    scan = await lab.scanned(person, text=text)
    report = scanner.scan(text)
    assert (scan["status"], scan["source"], scan["progress"]) == ("SUCCEEDED", "MODEL", 100)
    assert scan["scanner"] == {
        "name": scanner.SCANNER_NAME,
        "version": scanner.SCANNER_VERSION,
        "ruleset": report.provenance.ruleset,
        "language": "en",
        "truncated": False,
    }
    [finding], [risk] = report.findings, scan["risks"]
    assert (risk["start"], risk["end"], risk["fingerprint"]) == (finding.start, finding.end, finding.fingerprint)
    assert (risk["severity"], risk["severitySource"]) == (finding.severity.value, "RULE")
    assert (risk["rule"], risk["cue"], risk["explanation"]) == (finding.rule, finding.cue, finding.explanation)
    assert risk["confidence"] is None
    assert scan["summary"] == [
        {"category": "schedule", "count": 1, "bySeverity": [{"severity": finding.severity.value, "count": 1}]}
    ]
    assert 0 < scan["cpuSeconds"] < 10
    assert scan["peakMemoryBytes"] is None, "the worker's memory tells nothing of this scan"
    log = await lab.messages(person, scan["id"])
    assert any(report.provenance.ruleset in line and "1 risks" in line for line in log)


FILES = {
    "plan.txt": (f"All is well.\n\n{DELAY}".encode(), "text/plain"),
    "plan.md": (f"# Plan\n\n* {DELAY}\n".encode(), "text/markdown"),
    "plan.csv": (f"what,how\nservers,{DELAY}\n".encode(), "text/csv"),
    "plan.html": (f"<!doctype html><p>All is well.</p><p>{DELAY}</p>".encode(), "text/html"),
    "utf-16.txt": (f"\ufeff{DELAY}".encode("utf-16-le"), "text/plain"),
    "plan.pdf": (pdf_of("All is well.", DELAY), "application/pdf"),
}


@pytest.mark.parametrize("filename", FILES)
async def test_files_are_read_by_their_content(lab: Lab, person: Person, filename: str) -> None:
    content, content_type = FILES[filename]
    scan = await lab.ended(person, await lab.upload(person, content, filename))
    assert (scan["status"], scan["contentType"], scan["size"]) == ("SUCCEEDED", content_type, len(content))
    [risk] = scan["risks"]
    assert risk["category"] == "schedule"
    assert risk["context"].endswith(DELAY)
    assert risk["page"] == (2 if content_type == "application/pdf" else None)


HOSTILE = {
    "not a PDF": b"%PDF-1.7\nnothing of one",
    "an empty page": pdf_of(""),
    "a page of ten thousand kilometres": (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Count 99999999/Kids[3 0 R 2 0 R]>>"
        b"endobj 3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9e9 9e9]>>endobj\ntrailer<</Root 1 0 R/Size 4>>"
    ),
    "deep": b"<html>" + b"<div>" * 200_000 + DELAY.encode(),
    "a byte order mark that lies": b"\xff\xfe" + b"abc",
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_file_ends_its_scan_and_not_the_worker(
    lab: Lab, person: Person, worker: Program, what: str
) -> None:
    scan = await lab.ended(person, await lab.upload(person, HOSTILE[what], "plan"))
    assert (scan["status"], scan["failure"]["code"]) == ("FAILED", "INVALID_INPUT"), scan
    assert not scan["failure"]["retryable"]
    assert worker.exit_code is None
    assert leftover_processes("tasks.scan.text_child") == {}


async def test_a_bomb_in_a_pdf_is_stopped_by_the_limits_of_its_child(lab: Lab, person: Person, worker: Program) -> None:
    """A page whose content inflates to far more than the child may have."""
    packer = zlib.compressobj()
    first, again = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    stream = first + again * 1_200 + packer.flush()
    bomb = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n"
        b"4 0 obj<</Filter/FlateDecode/Length " + str(len(stream)).encode() + b">>stream\n" + stream + b"\nendstream"
        b" endobj\ntrailer<</Root 1 0 R/Size 5>>"
    )
    scan = await lab.ended(person, await lab.upload(person, bomb, "bomb.pdf"), 60)
    assert (scan["status"], scan["failure"]["code"]) == ("FAILED", "INVALID_INPUT"), scan
    assert worker.exit_code is None
    assert (await lab.scanned(person, text=DELAY))["riskCount"] == 1


async def test_a_language_model_that_is_insisted_on_is_not_there(lab: Lab, person: Person) -> None:
    scan = await lab.scanned(person, text=DELAY, forceLlm=True)
    assert (scan["status"], scan["failure"]["code"], scan["failure"]["retryable"]) == (
        *("FAILED", "SERVICE_UNAVAILABLE", False),
    )


async def test_a_file_that_is_gone_from_storage_is_no_crash(lab: Lab, person: Person) -> None:
    medium = await lab.medium(person, pdf_of(DELAY))
    found = await lab.scanned(person, mediaId=medium)
    assert (found["status"], found["mediaId"], found["riskCount"]) == ("SUCCEEDED", medium, 1)
    await lab.forget_object(media_queries.object_key(uuid_in(medium)))
    scan = await lab.scanned(person, mediaId=medium)
    assert (scan["failure"]["code"], scan["failure"]["message"]) == ("INVALID_INPUT", "The file is no longer there.")


async def test_a_scan_and_its_log_are_followed_live(
    lab: Lab, person: Person, graphql_ws_url: str, worker: Program
) -> None:
    worker.freeze()
    try:
        scan_id = (await lab.submit(person, text=DELAY))["id"]
        async with (
            subscribe(graphql_ws_url, FOLLOW, {"id": scan_id}, token=person.token) as states,
            subscribe(graphql_ws_url, LINES, {"id": scan_id}, token=person.token) as lines,
        ):
            first = (await states.next())["execution"]
            worker.thaw()
            seen = [first] + [event["execution"] async for event in states]
            text = [line["message"] async for event in lines for line in event["logs"]["lines"]]
    finally:
        worker.thaw()
    assert (first["__typename"], first["status"]) == ("Scan", "QUEUED")
    assert (seen[-1]["status"], seen[-1]["riskCount"], seen[-1]["source"]) == ("SUCCEEDED", 1, "MODEL")
    assert text == await lab.messages(person, scan_id)


async def test_many_scans_of_many_people_all_end(lab: Lab, client: GraphQLClient) -> None:
    people = [await new_user(client) for _ in range(2)]
    asked = [(person, (await lab.submit(person, text=f"{DELAY} {n}"))["id"]) for person in people for n in range(6)]
    cancelled = asked[-1]
    await lab.run(cancelled[0], CANCEL, input={"id": cancelled[1]})
    ends = [await lab.ended(*each) for each in asked]
    assert {end["status"] for end in ends[:-1]} == {"SUCCEEDED"}
    assert ends[-1]["status"] in {"CANCELLED", "SUCCEEDED"}
    assert await lab.pool.fetchval("SELECT count(*) FROM executions WHERE finished_at IS NULL") == 0
