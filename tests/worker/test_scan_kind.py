"""Scans that a service answers, with a real worker: what is sent, what is kept, and every way the service can fail.

The service is a stand-in on loopback (`tests/harness/ai_server.py`), and at the end the stand-alone scanner itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from adapters import scanner
from adapters.scanner.fingerprints import fingerprint
from tests.conftest import Programs
from tests.factories import Person, new_user
from tests.harness.ai_server import DELAY, AiServer, Fault
from tests.harness.client import GraphQLClient
from tests.harness.processes import CLI, Program
from tests.harness.scans import CANCEL, Lab, open_lab, pdf_of
from tests.harness.waiting import eventually, leftover_processes

TIMEOUT = 1.5
FAILURES = 4
OPEN_SECONDS = 1.0
TEXT = f"All is well.\n\n{DELAY}\n\nThe end."


@pytest_asyncio.fixture(scope="module")
async def service() -> AsyncIterator[AiServer]:
    async with AiServer() as server:
        yield server


@pytest.fixture(scope="module")
def settings_env(settings_env: dict[str, str], service: AiServer) -> dict[str, str]:
    """The module's settings, with the stand-in for a service and little patience."""
    return {
        **settings_env,
        "AI_SERVICE_URL": service.url,
        "AI_TIMEOUT_SECONDS": str(TIMEOUT),
        "AI_BREAKER_FAILURES": str(FAILURES),
        "AI_BREAKER_SECONDS": str(OPEN_SECONDS),
        "WORKER_CRAWL_SLOTS": "0",
        "WORKER_BUILD_SLOTS": "0",
        "WORKER_SCAN_SLOTS": "8",
        "MAX_SCANS_PER_USER": "8",
    }


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


@pytest_asyncio.fixture(autouse=True)
async def fresh(service: AiServer, settings_env: dict[str, str]) -> None:
    """A service that is well, and a breaker that knows of no failure."""
    service.behave()
    async with Redis.from_url(settings_env["REDIS_URL"]) as redis:
        space = settings_env["REDIS_NAMESPACE"]
        await redis.delete(f"{space}:breaker:ai", f"{space}:breaker:ai:trial")


def seconds_between(row: dict[str, Any], first: str, last: str) -> float:
    one, other = (datetime.fromisoformat(row[name]) for name in (first, last))
    return (other - one).total_seconds()


# -- what is sent and kept


async def test_a_text_is_sent_by_the_contract_and_its_risks_are_kept(
    lab: Lab, person: Person, service: AiServer
) -> None:
    service.risks = [
        {"risk": "A delay", "category": "schedule", "context": DELAY, "severity": "critical", "mood": {"grim": [1]}},
        {"risk": "No date", "category": "planning", "context": "All  is\nwell.", "confidence": 0.5, "page": "two"},
        {"risk": "Made up", "category": "other", "context": "These words stand nowhere in it."},
    ]
    service.beside = {"version": "7", "model": "big", "cost": 3}
    scan = await lab.scanned(person, text=TEXT, forceLlm=True, filename="Plan.txt")
    assert (scan["status"], scan["source"], scan["riskCount"]) == ("SUCCEEDED", "LLM", 3)
    assert scan["scanner"] == {
        "name": "big", "version": "7", "ruleset": None, "language": None, "truncated": False,
    }  # fmt: skip
    by_risk = {risk["risk"]: risk for risk in scan["risks"]}
    start = TEXT.index(DELAY)
    known = by_risk["A delay"]
    assert (known["severity"], known["severitySource"]) == ("CRITICAL", "UPSTREAM")
    assert (known["start"], known["end"], known["page"]) == (start, start + len(DELAY), None)
    assert known["extra"] == {"mood": {"grim": [1]}}
    assert known["fingerprint"] == fingerprint("schedule", DELAY)
    loose = by_risk["No date"]
    assert (loose["start"], loose["end"]) == (0, len("All is well."))
    assert (loose["severity"], loose["severitySource"], loose["confidence"]) == ("MEDIUM", "RULE", 0.5)
    assert loose["extra"] == {"page": "two"}
    absent = by_risk["Made up"]
    assert (absent["start"], absent["end"], absent["confidence"]) == (None, None, None)
    [request] = service.requests
    assert request.head.startswith("POST /scan HTTP/1.1\r\n")
    assert request.fields == {"text": TEXT.encode(), "force_llm": b"true"}
    log = " ".join(await lab.messages(person, scan["id"]))
    assert f"a text of {len(TEXT)} bytes" in log
    assert "3 risks from llm, big" in log
    assert DELAY not in log


async def test_a_severity_that_is_not_sent_is_judged_by_the_rules(lab: Lab, person: Person, service: AiServer) -> None:
    scan = await lab.scanned(person, text=TEXT)
    [finding] = scanner.scan(DELAY).findings
    [risk] = scan["risks"]
    assert (risk["severity"], risk["severitySource"]) == (finding.severity.value, "RULE")


async def test_a_file_streams_with_its_name_and_places_are_found_on_its_pages(
    lab: Lab, person: Person, service: AiServer
) -> None:
    content = pdf_of("First page.", f"Second page.\n\n{DELAY}")
    scan = await lab.ended(person, await lab.upload(person, content, 'Plan "ü".pdf'))
    assert (scan["status"], scan["filename"], scan["contentType"]) == ("SUCCEEDED", 'Plan "ü".pdf', "application/pdf")
    [risk] = scan["risks"]
    assert risk["page"] == 2
    assert risk["start"] is not None
    [request] = service.requests
    assert request.fields["file"] == content
    assert request.filename == "Plan %22ü%22.pdf"
    assert request.fields["force_llm"] == b"false"


async def test_words_of_a_file_that_only_the_service_reads_have_no_place(
    lab: Lab, person: Person, service: AiServer
) -> None:
    broken = b"%PDF-1.7\nthis is no PDF at all"
    scan = await lab.ended(person, await lab.upload(person, broken, "odd.pdf"))
    assert (scan["status"], scan["riskCount"]) == ("SUCCEEDED", 1)
    assert scan["risks"][0]["start"] is None
    assert any("no places" in line for line in await lab.messages(person, scan["id"]))


async def test_what_the_service_sends_is_bounded_and_can_be_stored(lab: Lab, person: Person, service: AiServer) -> None:
    one = {"risk": "r\0" * 5_000, "category": "c" * 500, "context": "x" * 20_000, "note\0": "a\0b", "cue": "c" * 900}
    service.risks = [one, *({"risk": f"Risk {number}", "category": "a", "context": ""} for number in range(6_000))]
    scan = await lab.scanned(person, text=TEXT)
    assert (scan["status"], scan["riskCount"], scan["scanner"]["truncated"]) == ("SUCCEEDED", 5_000, True)
    first = next(risk for risk in scan["risks"] if risk["risk"].startswith("r\ufffd"))
    assert (len(first["risk"]), len(first["category"]), len(first["context"]), len(first["cue"])) == (
        2_000, 64, 8_000, 200,
    )  # fmt: skip
    assert first["extra"] == {"note\ufffd": "a\ufffdb"}


# -- how it fails


FAULTS = [
    (Fault.BUSY, "SERVICE_UNAVAILABLE", "The model is loading; try again soon.", True),
    (Fault.BROKEN, "SERVICE_UNAVAILABLE", "a way that we do not understand: status 500", True),
    (Fault.MOVED, "SERVICE_UNAVAILABLE", "a way that we do not understand: status 307", True),
    (Fault.HTML, "SERVICE_UNAVAILABLE", "a way that we do not understand: the answer is no JSON", True),
    (Fault.NO_JSON, "SERVICE_UNAVAILABLE", "a way that we do not understand: the answer is no JSON", True),
    (Fault.OTHER_SHAPE, "SERVICE_UNAVAILABLE", "`data[0].risk` is missing or no text", True),
    (Fault.OTHER_SOURCE, "SERVICE_UNAVAILABLE", "`source` is neither", True),
    (Fault.HUGE, "SERVICE_UNAVAILABLE", "the answer is too long", True),
    (Fault.CUT_OFF, "SERVICE_UNAVAILABLE", "cannot be reached", True),
    (Fault.HANGING, "SERVICE_UNAVAILABLE", "did not answer in time", True),
    (Fault.SLOW_HEAD, "SERVICE_UNAVAILABLE", "did not answer in time", True),
    (Fault.REFUSING, "INVALID_INPUT", "This document is no prose.", False),
]


@pytest.mark.parametrize(("fault", "code", "message", "retryable"), FAULTS, ids=lambda each: str(each)[:20])
async def test_a_fault_of_the_service_ends_the_scan_and_nothing_else(
    lab: Lab,
    person: Person,
    service: AiServer,
    worker: Program,
    fault: Fault,
    code: str,
    message: str,
    retryable: bool,
) -> None:
    service.faults.append(fault)
    started = time.monotonic()
    scan = await lab.scanned(person, text=TEXT)
    assert time.monotonic() - started < TIMEOUT + 4
    failure = scan["failure"]
    assert (scan["status"], failure["code"], failure["retryable"]) == ("FAILED", code, retryable)
    assert message in failure["message"]
    assert len(failure["message"]) <= 600
    assert failure["message"].isprintable()
    assert "secrets" not in failure["message"]
    assert (scan["risks"], scan["source"], scan["riskCount"]) == ([], None, 0)
    assert service.sent_bytes < 20 * 2**20
    assert worker.exit_code is None
    assert (await lab.scanned(person, text=TEXT))["status"] == "SUCCEEDED"


async def test_a_service_that_is_down_fails_at_once_and_is_tried_again_later(
    lab: Lab, person: Person, service: AiServer
) -> None:
    await service.stop()
    try:
        scan = await lab.scanned(person, text=TEXT)
    finally:
        await service.start()
    assert (scan["failure"]["code"], scan["failure"]["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    assert "cannot be reached" in scan["failure"]["message"]
    assert (await lab.scanned(person, text=TEXT))["status"] == "SUCCEEDED"


async def test_the_breaker_opens_lets_one_try_and_closes(lab: Lab, person: Person, service: AiServer) -> None:
    service.always = Fault.BROKEN
    for _ in range(FAILURES):
        await lab.scanned(person, text=TEXT)
    asked = len(service.requests)
    left_alone = await lab.scanned(person, text=TEXT)
    assert len(service.requests) == asked, "an open breaker sends nothing"
    assert left_alone["failure"]["code"] == "SERVICE_UNAVAILABLE"
    assert left_alone["failure"]["retryable"]
    assert "left alone" in left_alone["failure"]["message"]

    async def tried() -> bool:
        await lab.scanned(person, text=TEXT)
        return len(service.requests) > asked

    await eventually(tried, OPEN_SECONDS + 5, what="a trial")
    assert len(service.requests) == asked + 1, "one trial, which failed"
    asked += 1
    service.always = Fault.HANGING
    together = [(await lab.submit(person, text=TEXT))["id"] for _ in range(3)]
    ends = [await lab.ended(person, scan_id) for scan_id in together]
    assert len(service.requests) <= asked + 1, "of several at once at most one tries"
    assert {end["failure"]["code"] for end in ends} == {"SERVICE_UNAVAILABLE"}
    service.always = None

    async def closed() -> bool:
        return bool((await lab.scanned(person, text=TEXT))["status"] == "SUCCEEDED")

    await eventually(closed, OPEN_SECONDS + 5, what="a closed breaker")
    assert {(await lab.scanned(person, text=TEXT))["status"] for _ in range(2)} == {"SUCCEEDED"}


# -- stopping


async def test_a_scan_is_cancelled_while_the_service_says_nothing(lab: Lab, person: Person, service: AiServer) -> None:
    service.always = Fault.HANGING
    scan_id = (await lab.submit(person, text=TEXT))["id"]
    await service.until_requests(1)
    await lab.run(person, CANCEL, input={"id": scan_id})
    scan = await lab.ended(person, scan_id, 5)
    assert scan["status"] == "CANCELLED"
    assert seconds_between(scan, "cancelRequestedAt", "finishedAt") <= TIMEOUT + 0.5
    await eventually(lambda: service.hanging == 0, 2, what="the end of the request")
    service.always = None
    assert (await lab.scanned(person, text=TEXT))["status"] == "SUCCEEDED", "a cancelled call counts for nothing"


async def test_a_killed_worker_loses_no_scan_and_doubles_none(
    lab: Lab, person: Person, service: AiServer, programs: Programs, worker: Program
) -> None:
    doomed = programs.start([CLI, "worker"], kind="doomed", AI_TIMEOUT_SECONDS="60")
    await doomed.wait_event("worker_started")
    worker.freeze()
    service.faults.append(Fault.HANGING)
    try:
        scan_id = (await lab.submit(person, text=TEXT))["id"]
        await service.until_requests(1)
        doomed.kill()
    finally:
        worker.thaw()
    scan = await lab.ended(person, scan_id, 30)
    assert (scan["status"], scan["attempt"], scan["riskCount"], len(scan["risks"])) == ("SUCCEEDED", 2, 1, 1)
    assert len(service.requests) == 2


async def test_a_worker_that_stops_hands_its_scan_back(
    lab: Lab, person: Person, service: AiServer, programs: Programs, worker: Program
) -> None:
    leaving = programs.start([CLI, "worker"], kind="leaving", AI_TIMEOUT_SECONDS="60")
    await leaving.wait_event("worker_started")
    worker.freeze()
    service.faults.append(Fault.HANGING)
    try:
        scan_id = (await lab.submit(person, text=TEXT))["id"]
        await service.until_requests(1)
        leaving.terminate()
        assert await leaving.wait_exit(8) == 0
    finally:
        worker.thaw()
    scan = await lab.ended(person, scan_id, 15)
    assert (scan["status"], scan["attempt"], len(scan["risks"])) == ("SUCCEEDED", 2, 1)


# -- the stand-alone service


async def test_the_stand_alone_service_answers_as_the_scanner_itself(
    lab: Lab, person: Person, programs: Programs, worker: Program, service: AiServer
) -> None:
    alone = programs.start([CLI, "ai-service", "--listen", "127.0.0.1:0"], kind="ai-service")
    port = (await alone.wait_event("ai_service_listening"))["port"]
    own = programs.start(
        [CLI, "worker"], kind="own", AI_SERVICE_URL=f"http://127.0.0.1:{port}", AI_TIMEOUT_SECONDS="30"
    )
    await own.wait_event("worker_started")
    worker.freeze()
    try:
        scan = await lab.scanned(person, text=TEXT)
        insisting = await lab.scanned(person, text=TEXT, forceLlm=True)
        locked = await lab.ended(person, await lab.upload(person, pdf_of(DELAY), "plan.pdf"))
    finally:
        worker.thaw()
    [finding] = scanner.scan(TEXT).findings
    [risk] = scan["risks"]
    assert (scan["source"], scan["scanner"]["name"]) == ("MODEL", scanner.SCANNER_NAME)
    assert (risk["risk"], risk["start"], risk["end"], risk["rule"], risk["cue"], risk["fingerprint"]) == (
        *(finding.risk, finding.start, finding.end, finding.rule, finding.cue, finding.fingerprint),
    )
    assert risk["explanation"] == finding.explanation
    assert (insisting["status"], insisting["failure"]["code"]) == ("FAILED", "SERVICE_UNAVAILABLE")
    assert "no language model" in insisting["failure"]["message"]
    assert (locked["failure"]["code"], locked["failure"]["retryable"]) == ("INVALID_INPUT", False)
    await own.stop()


async def test_nothing_is_left_behind(lab: Lab) -> None:
    """Runs last: no scan is unfinished, and no child that read a file lives."""
    unfinished = await lab.pool.fetch("SELECT id FROM executions WHERE finished_at IS NULL")
    assert unfinished == []
    assert leftover_processes("tasks.scan.text_child") == {}
